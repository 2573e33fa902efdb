"""Figures as files."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure


def save_svg(figure: Figure, path: Path) -> None:
    """Write an SVG whose text depends on the figure alone, not on the day or the run."""
    with matplotlib.rc_context({"svg.hashsalt": "lpdiff"}):
        figure.savefig(path, metadata={"Date": None})
