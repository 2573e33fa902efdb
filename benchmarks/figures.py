"""The figures of docs/benchmarks.md, drawn from a record of ``benchmarks.structure``.

    python -m benchmarks.figures RECORD.json FOLDER

The same record gives the same bytes: SVG without a date, with identifiers from a fixed salt.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .report import duration

__all__ = ["draw"]

OURS, FORCED, PEER, ASKED = "#1f6fb4", "#9cc4e4", "#b9b9b9", "#d1603d"
BESIDE: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lpdiff",
    "svg.fonttype": "none",  # text stays text: a fifth of the size
    "font.family": "sans-serif",
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(record: dict[str, Any], folder: Path, suffix: str = ".svg") -> list[Path]:
    """Write every figure that the record has data for; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context(STYLE):
        if record["works"]:
            made.append(_save(_ratios(record["works"]), folder / f"structure-ratios{suffix}"))
            made.append(_save(_times(record["works"]), folder / f"structure-times{suffix}"))
        if record.get("growth"):
            made.append(_save(_growth(record["growth"]["points"]), folder / f"structure-growth{suffix}"))
    return made


def _save(figure: Figure, path: Path) -> Path:
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    # White, not transparent: the docs have a dark theme too.
    figure.savefig(path, metadata=metadata, facecolor="white", dpi=150)
    return path


def _ratios(works: list[dict[str, Any]]) -> Figure:
    """One bar a target: how many times faster lpdiff is than the peer, and how many it is to be."""
    rows = [(row["title"], target) for row in works for target in row["targets"]]
    figure = Figure(figsize=(8.4, 0.6 + 0.26 * max(1, len(rows))), layout="constrained")
    panel = figure.subplots()
    factors = [1 / target["ratio"] for _, target in rows]
    places = range(len(rows))
    start = min([0.5, *(factor / 2 for factor in factors)])
    panel.barh(places, [f - start for f in factors], left=start, color=OURS, height=0.66)
    for place, factor, (_, target) in zip(places, factors, rows, strict=True):
        wanted = 1 / target["at_most"]
        panel.plot([wanted, wanted], [place - 0.42, place + 0.42], color=ASKED, linewidth=2)
        panel.annotate(f"{_short(factor)}x", (max(factor, wanted), place), **BESIDE)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    panel.set_xlim(start, 3 * max([2.0, *factors, *(1 / target["at_most"] for _, target in rows)]))
    panel.set_yticks(places, [f"{title} vs {target['against']}" for title, target in rows])
    panel.invert_yaxis()
    panel.set_xlabel("times faster than the peer, value and gradient (bars), and the targets (lines)")
    return figure


def _times(works: list[dict[str, Any]]) -> Figure:
    """One panel a work: seconds of every contestant, fastest on top, and their ratio to lpdiff's."""
    columns = min(3, len(works))
    lines = -(-len(works) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.1 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, row in zip(panels, works, strict=False):
        _bars(panel, row)
    for panel in panels[len(works) :]:
        panel.set_axis_off()
    figure.supxlabel(
        "microseconds a LP, value and gradient (log scale); in brackets: times lpdiff's", fontsize=8
    )
    return figure


def _bars(panel: Axes, row: dict[str, Any]) -> None:
    entries = sorted(row["contestants"].items(), key=lambda entry: entry[1]["per_lp"])
    names = [name for name, _ in entries]
    seconds = [entry["per_lp"] for _, entry in entries]
    base = row["contestants"].get("lpdiff", {}).get("per_lp")
    places = range(len(entries))
    colours = [OURS if name == "lpdiff" else FORCED if name.startswith("lpdiff") else PEER for name in names]
    # Bars of a log axis have no zero: they start a little below the fastest.
    start = min(seconds) * 1e6 / 3
    panel.barh(places, [s * 1e6 - start for s in seconds], left=start, color=colours, height=0.72)
    for place, second in zip(places, seconds, strict=True):
        ratio = f" ({_short(second / base)}x)" if base else ""
        panel.annotate(duration(second) + ratio, (second * 1e6, place), **BESIDE)
    panel.set_xscale("log")
    panel.xaxis.set_minor_formatter(NullFormatter())
    # Room for the numbers at the right of the longest bar.
    panel.set_xlim(start, start * (max(seconds) * 1e6 / start) ** 1.5)
    panel.set_yticks(places, names)
    panel.invert_yaxis()
    panel.set_title(f"{row['title']} (batch {row['items']})", loc="left", fontsize=8)


def _short(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _growth(points: list[dict[str, Any]]) -> Figure:
    """Seconds and peak memory by arcs, each beside a line of slope one."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    arcs = [point["arcs"] for point in points]
    seconds = [statistics.median(point["seconds"]) for point in points]
    inputs = [sum(point["input_bytes"].values()) / 1e6 for point in points]
    peaks = [point["peak_bytes"] / 1e6 for point in points]
    left.plot(arcs, seconds, "o-", color=OURS, label="lpdiff, value and gradient")
    left.plot(arcs, [seconds[-1] * n / arcs[-1] for n in arcs], "--", color=PEER, label="linear")
    left.set_ylabel("seconds a LP")
    right.plot(arcs, peaks, "o-", color=OURS, label="peak beyond the imports")
    right.plot(arcs, [4 * size for size in inputs], "--", color=PEER, label="4 times the input")
    right.plot(arcs, inputs, ":", color=PEER, label="the input")
    right.set_ylabel("memory, MB")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("arcs")
        panel.legend(frameon=False)
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("record", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suffix", default=".svg", choices=(".svg", ".png"))
    arguments = parser.parse_args(argv)
    for path in draw(
        json.loads(arguments.record.read_text(encoding="utf-8")), arguments.folder, arguments.suffix
    ):
        print(path)


if __name__ == "__main__":
    main()
