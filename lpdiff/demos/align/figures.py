"""Figures of a record: learning curves, and an alignment over its costs while the network learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lpdiff import plot

from ..pictures import save_svg

COLOURS = ("#444444", "#c2410c", "#2563eb", "#15803d", "#9333ea", "#0891b2", "#b45309", "#be185d")
SHOWN = 3  # pictures of the alignment


def curves(summary: dict[str, Any], ax: Any) -> None:
    """Phone error rates on the development set by epoch, pretraining first; mean and range of the seeds."""
    results = dict(summary["results"])
    before = np.array(results.pop("pretrained")["curves"])
    epochs = before.shape[1]
    # What comes before the network can write words at all would hide the rest.
    first = min(epochs - 1, max(2, epochs // 4))
    _band(ax, np.arange(first + 1, epochs + 1), before[:, first:], "#9ca3af", "pretraining")
    for k, (name, found) in enumerate(results.items()):
        again, at = divmod(k, len(COLOURS))
        values = np.array(found["curves"])
        start = before.min(1, keepdims=True)  # the network that is gone on with
        values = np.hstack((start, values))
        _band(ax, epochs + np.arange(values.shape[1]), values, COLOURS[at], name, ("-", "--", ":")[again])
    ax.set(xlabel="epoch", ylabel="phone error rate, development set (%)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, ncols=1 + len(results) // len(COLOURS))
    ax.spines[["top", "right"]].set_visible(False)


def alignments(summary: dict[str, Any], axes: Any) -> None:
    """Costs of one word and the alignment in them, early, in between and in the end."""
    pictures = summary["pictures"]
    for ax, at in zip(axes, np.linspace(0, len(pictures) - 1, len(axes)).round().astype(int), strict=True):
        picture = pictures[at]
        plot.alignment(
            np.array(picture["costs"]),
            np.array(picture["pairs"]),
            rows=picture["rows"],
            columns=picture["columns"],
            ax=ax,
        )
        ax.set(xlabel="target", title=f"{picture['trained']}: {picture['value']:.2f}")
    axes[0].set_ylabel("output")


def draw(summary: dict[str, Any], folder: Path, prefix: str = "") -> list[Path]:
    """curves.svg and alignment.svg; their paths."""
    paths = [folder / f"{prefix}{name}.svg" for name in ("curves", "alignment")]
    shown = min(SHOWN, len(summary["pictures"]))
    for path, columns in zip(paths, (1, shown), strict=True):
        # Without pyplot: needs no display.
        figure = Figure(figsize=(9, 4) if columns == 1 else (4 * columns, 3.6), layout="constrained")
        if path is paths[0]:
            curves(summary, figure.subplots())
        else:
            alignments(summary, figure.subplots(1, columns, squeeze=False)[0])
        save_svg(figure, path)
    return paths


def _band(ax: Any, at: np.ndarray, values: np.ndarray, colour: str, name: str, style: str = "-") -> None:
    ax.plot(at, values.mean(0), style, color=colour, label=name)
    ax.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
