"""What the runs say together: a table, summary.json, runs.csv, and two figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lpdiff.problems import bag_matching

from ..harness import environment, write
from ..pictures import save_svg
from ..stats import Interval, interval
from .training import METHODS

__all__ = ["accuracies", "by", "draw", "save", "summarise", "table"]

COLOURS = {
    "supervised": "#525252",
    "matching": "#c2410c",
    "proportions-matching": "#2563eb",
    "entropic-matching": "#0891b2",
    "entropic": "#7c3aed",
    "proportions": "#15803d",
    "uniform": "#a16207",
    "matching-lp": "#db2777",
}


def summarise(config: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], command: str) -> dict[str, Any]:
    """The record of a demo: its settings and, for each run, what it measured.

    Args:
        config: Of the whole.
        runs: As ``harness.train`` returns them.
        command: That gives this record.
    """
    lines = []
    for run in runs:
        # Medians: what else the machine did in some epochs says nothing of the method.
        trained = np.median([row["seconds_train"] for row in run["metrics"]])
        share = np.median([row["seconds_loss"] / row["seconds_train"] for row in run["metrics"]])
        lines.append(
            {
                **{key: run["config"][key] for key in ("method", "bag_size", "seed")},
                "accuracy": run["result"]["accuracy"],
                "labelled": run["result"]["labelled"],
                "seconds_epoch": _short(float(trained)),
                "share_loss": _short(float(share)),
                "accuracies": [row["accuracy"] for row in run["metrics"]],
                "losses": [_short(row["loss"]) for row in run["metrics"]],
            }
        )
    first = runs[0]["result"]
    pictured = [
        {**run["result"]["example"], "bag_size": run["config"]["bag_size"]}
        for run in runs
        if run["config"]["method"] == "matching" and "example" in run["result"]
    ]
    return {
        "command": command,
        "config": dict(config),
        "training_images": first["training_images"],
        "test_images": first["test_images"],
        "runs": lines,
        "example": max(pictured, key=lambda one: one["bag_size"], default=None),
        "environment": runs[0].get("environment", environment()),
    }


def _short(number: float) -> float:
    return float(f"{number:.5g}")


def save(summary: Mapping[str, Any], folder: Path) -> None:
    """summary.json, and runs.csv with a line a run."""
    write(folder / "summary.json", _json(summary))
    text = io.StringIO()
    kept = [key for key, value in summary["runs"][0].items() if not isinstance(value, list)]
    writer = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(summary["runs"])
    write(folder / "runs.csv", text.getvalue())


def _json(summary: Mapping[str, Any]) -> str:
    """With a line a run, or curves would make thousands."""
    head = json.dumps({key: value for key, value in summary.items() if key != "runs"}, indent=1)
    runs = ",\n  ".join(json.dumps(run) for run in summary["runs"])
    return f'{head.removesuffix("}").rstrip()},\n "runs": [\n  {runs}\n ]\n}}\n'


def by(summary: Mapping[str, Any], method: str, size: int) -> list[dict[str, Any]]:
    """The runs of a method at a bag size, by seed."""
    found = [run for run in summary["runs"] if (run["method"], run["bag_size"]) == (method, size)]
    return sorted(found, key=lambda run: run["seed"])


def accuracies(summary: Mapping[str, Any], method: str, size: int) -> Interval:
    """Mean and interval over seeds."""
    return interval([run["accuracy"] for run in by(summary, method, size)])


def table(summary: Mapping[str, Any]) -> str:
    """Accuracy by method and bag size, as text."""
    config = summary["config"]
    sizes = config["bag_sizes"]
    seeds = "one seed" if config["seeds"] == 1 else f"mean and 95 % interval of {config['seeds']} seeds"
    lines = [
        f"\n{config['dataset']}: accuracy (%) on {summary['test_images']} {config['split']} images, {seeds}",
        "",
        f"{'bags of':<26}"
        + "".join(f"{size:>13}" for size in sizes)
        + f"{'s an epoch':>13}{'in the loss':>13}",
    ]
    for method in config["methods"]:
        runs = [run for run in summary["runs"] if run["method"] == method]
        cells = [accuracies(summary, method, size).text(1, 100.0) for size in sizes]
        seconds = np.median([run["seconds_epoch"] for run in runs])
        share = np.median([run["share_loss"] for run in runs])
        lines.append(
            f"{METHODS[method][0]:<26}"
            + "".join(f"{cell:>13}" for cell in cells)
            + f"{seconds:>13.3f}{share:>13.0%}"
        )
    noise = 100 * np.sqrt(0.25 / summary["test_images"])
    lines.append(
        f"\nThe interval is over bags and initial weights. The {summary['test_images']} images are a sample "
        f"too:\none accuracy is good to {noise:.1f} points at most (a standard error)."
    )
    return "\n".join(lines)


def draw(summary: Mapping[str, Any], folder: Path, prefix: str = "") -> list[Path]:
    """accuracy.svg: accuracy against bag size, and learning curves at the largest bag size of 16 at most;
    matching.svg: one training bag's costs with the matching that the loss finds in them."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")  # without pyplot: needs no display
    left, right = figure.subplots(1, 2)
    _against_size(left, summary)
    _curves(right, summary)
    paths = [folder / f"{prefix}accuracy.svg"]
    save_svg(figure, paths[0])
    if summary["example"] is not None:
        figure = Figure(figsize=(5, 4), layout="constrained")
        _example(figure.subplots(), summary["example"])
        paths.append(folder / f"{prefix}matching.svg")
        save_svg(figure, paths[1])
    return paths


def _against_size(axes: Axes, summary: Mapping[str, Any]) -> None:
    sizes = summary["config"]["bag_sizes"]
    methods = summary["config"]["methods"]
    for at, method in enumerate(methods):
        found = [accuracies(summary, method, size) for size in sizes]
        # Beside each other, so that intervals can be told apart.
        places = np.arange(len(sizes)) + 0.4 * (at / max(1, len(methods) - 1) - 0.5)
        axes.errorbar(
            places,
            [100 * one.mean for one in found],
            yerr=[100 * one.half if one.half is not None else 0.0 for one in found],
            color=COLOURS[method],
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=1.2,
            linestyle="--" if method == "matching-lp" else "-",  # which lies on the matching
            label=METHODS[method][0],
        )
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set(xlabel="images a bag", ylabel=f"{summary['config']['split']} accuracy (%)", ylim=(0, 101))
    axes.set_title(f"{summary['config']['dataset']}: accuracy against bag size")
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, summary: Mapping[str, Any]) -> None:
    sizes = summary["config"]["bag_sizes"]
    size = max([size for size in sizes if size <= 16], default=min(sizes))
    for method in summary["config"]["methods"]:
        curves = 100 * np.array([run["accuracies"] for run in by(summary, method, size)])
        epochs = np.arange(1, curves.shape[1] + 1)
        axes.plot(epochs, curves.mean(0), color=COLOURS[method], label=METHODS[method][0])
        axes.fill_between(
            epochs, curves.min(0), curves.max(0), color=COLOURS[method], alpha=0.12, linewidth=0
        )
    axes.set(xlabel="epoch", ylim=(0, 101), title=f"bags of {size}: mean and range over seeds")
    axes.spines[["top", "right"]].set_visible(False)


def _example(axes: Axes, example: Mapping[str, Any]) -> None:
    costs = -torch.tensor(example["log_probs"])
    counts = torch.bincount(torch.tensor(example["labels"]), minlength=costs.shape[1])
    found = bag_matching(-costs, counts).labels.tolist()
    classes = counts.nonzero().flatten().tolist()
    shown = axes.imshow(costs[:, classes].numpy(), cmap="Blues_r", vmin=0, aspect="auto")
    for image, (got, truth) in enumerate(zip(found, example["labels"], strict=True)):
        axes.plot(classes.index(got), image, "o", color="#c2410c", markersize=10, markerfacecolor="none")
        axes.plot(classes.index(truth), image, "x", color="#ffffff", markersize=5, markeredgewidth=1.5)
    axes.set_xticks(range(len(classes)), [f"{c} ({int(counts[c])} times)" for c in classes], fontsize="small")
    axes.set_yticks(range(len(found)))
    axes.set(xlabel="labels of the bag", ylabel="image")
    axes.set_title("A training bag: costs, matching (o), truth (x)", fontsize="medium")
    axes.figure.colorbar(shown, ax=axes, label="-log p(label | image)", shrink=0.85)
