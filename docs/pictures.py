"""Draw the pictures of the problem library: python docs/pictures.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot

from lpdiff import plot
from lpdiff.problems import assignment, dtw, global_alignment, grid_path

FIGURES = Path(__file__).parent / "figures"


def alignments() -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    rows, columns = "KITTENISH", "SITTING"
    costs = torch.tensor([[float(a != b) for b in columns] for a in rows])
    found = global_alignment(costs, gap=0.6)
    plot.alignment(costs, found.decode()[0], rows=rows, columns=columns, ax=left)
    left.set_title(f"global alignment, value {found.value:.1f}")
    time = torch.linspace(0, 6, 60)
    costs = (torch.sin(time)[:, None] - torch.sin(1.2 * time - 0.6)) ** 2
    warped = dtw(costs)
    plot.alignment(costs, warped.decode()[0], path=False, ax=right)
    right.set_title(f"time warping, value {warped.value:.2f}")
    save(figure, "alignment")


def matchings() -> None:
    figure, axes = pyplot.subplots(figsize=(4, 3), layout="constrained")
    costs = torch.rand(4, 5, generator=torch.Generator().manual_seed(3))
    found = assignment(costs)
    plot.matching(costs, found.decode(), ax=axes)
    axes.set_title(f"value {found.value:.2f}")
    save(figure, "matching")


def paths() -> None:
    figure, axes = pyplot.subplots(figsize=(4.5, 3.6), layout="constrained")
    noise = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    costs = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)[0, 0] ** 3
    found = grid_path(costs)
    plot.grid_path(costs, found.decode(), ax=axes)
    axes.set_title(f"value {found.value:.2f}")
    save(figure, "paths")


def save(figure: pyplot.Figure, name: str) -> None:
    path = FIGURES / f"problems-{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    print(path)


if __name__ == "__main__":
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "lpdiff"
    for draw in (alignments, matchings, paths):
        draw()
