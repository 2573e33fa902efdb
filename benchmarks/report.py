"""Write docs/benchmarks.md and its figures from the recorded runs in benchmarks/results.

    python -m benchmarks.report [--results DIR] [--page FILE]

Figures go to the folder figures beside the page. A test compares the page with what this writes, so a
number in the docs cannot drift from its run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"

_TEXT = """\
# Benchmarks

Ratios against a peer in one run, on one machine, by the commands shown; machines differ: rerun them on yours.
This page is written by `python -m benchmarks.report` from the recorded runs in `benchmarks/results`.

## Overhead over HiGHS

```console
{command}
```

{items} small LPs as one batch against the leanest loop over highspy (one solver object, the array overload of
`passModel`, `run`, x and y as arrays; the same options as lpdiff passes). lpdiff's call also certifies every
item, reads the bases, and returns torch tensors. Medians of {repeats} alternating runs on {cores} cores
({machine}, Python {python}, torch {torch}, highspy {highspy}).

| LP (variables x rows) | raw loop, a LP | lpdiff, 1 thread | 1 thread, with backward | 2 threads against 1 |
|---|---|---|---|---|
{rows}

Targets: at most 1.3 times the raw loop on one thread, and at least 1.6 times faster with two. {verdict}
"""


def overhead(record: dict[str, Any]) -> str:
    """The page's text for one recorded run of ``benchmarks.overhead``."""
    rows = []
    for row in record["results"]:
        raw = statistics.median(row["seconds"]["raw highspy loop"]) / row["items"] * 1e6
        size = row["name"]
        rows.append(
            f"| {size} | {raw:.0f} us | {row['one_thread_over_raw']:.2f}x raw | "
            f"{row['with_backward_over_raw']:.2f}x raw | {row['speedup_two_threads']:.2f}x faster |"
        )
    return _TEXT.format(
        **{key: record[key] for key in ("command", "machine", "python", "torch", "highspy", "cores")},
        items=record["items"],
        repeats=record["repeats"],
        rows="\n".join(rows),
        verdict=_verdict(record["results"]),
    )


def _verdict(rows: list[dict[str, Any]]) -> str:
    slow = [r["name"] for r in rows if r["one_thread_over_raw"] > 1.3]
    stuck = [r["name"] for r in rows if r["speedup_two_threads"] < 1.6]
    told = ["The overhead target is met at every size."]
    if slow:
        told = [f"The overhead target is missed at {', '.join(slow)}."]
    if stuck:
        told.append(
            f"The thread target is missed at {', '.join(stuck)}: there the work that holds Python's "
            f"interpreter lock (handing a model over, reading a solution) is a large part of an LP's time."
        )
    else:
        told.append("The thread target is met at every size.")
    return " ".join(told)


_STRUCTURE = """\

## Structure: a declared LP at the speed of a specialised solver

```console
{command}
```

Every work is declared as a plain LP; lpdiff recognises what it is. Times are of value and gradient in the
costs (forward and backward, float64), a LP, medians of up to {repeats} alternating runs on {cores} cores,
lpdiff on {threads} threads unless said otherwise. All contestants solve the same items, slow ones the first
few, and agree on the values. Nearby costs are within 5 % of those declared. {trial}

{machine}, Python {python}, {versions}.

| work | target | lpdiff | peer | lpdiff is | |
|---|---|---|---|---|---|
{targets}

{verdict}

![How many times faster lpdiff is, and the targets](figures/structure-ratios.svg)

![Times of all contestants, by work](figures/structure-times.svg)

| work | batch | variables x rows | {columns} |
|---|---|---|{rules}|
{works}
"""

_GROWTH = """\

### Growth

One alignment as a network LP, in a process of its own a size: seconds of value and gradient (median, after
the first), and the most memory that declaring, recognising and solving it held at once, beyond what imports
and a tiny solve hold. The input is the matrix, the sides of rows and variables, and the costs. {verdict}

| arcs | seconds | a arc | first solve | peak memory | of the input |
|---|---|---|---|---|---|
{rows}

![Seconds and memory by the number of arcs](figures/structure-growth.svg)
"""

_FIRST = """\

### First call

Seconds of the first solve in a new process, with nothing compiled, and in the next, which finds the cache.
Target: at most 5 s. `import lpdiff` takes {seconds:.2f} s beside NumPy, SciPy and torch (target: under 2 s).

| kind | empty cache | next process | |
|---|---|---|---|
{rows}
"""

_LIBRARY = """\

## The problem library

```console
{command}
```

Dedicated solvers against what users write today: a loop over anti-diagonals in torch (exact, differentiated
by autograd), soft-DTW (pysdtw, which smooths the minimum), and the loop over images around SciPy that
reference code of set prediction has. Value and gradient in float64, medians of {repeats} turns, {threads}
threads on {cores} cores ({machine}, Python {python}; {versions}). {trial}

| work | lpdiff | {columns} | asked, reached |
|---|---|{rules}|---|
{rows}

{verdict}
"""

# What the table of works shows; the figure has all.
_COLUMNS = ("lpdiff", "lpdiff, 1 thread", "lpdiff, HiGHS", "raw highspy loop", "cvxpylayers")


def structure(record: dict[str, Any]) -> str:
    """The page's text for one recorded run of ``benchmarks.structure``."""
    targets, missed = [], []
    absent: dict[str, str] = {}
    for row in record["works"]:
        absent |= row["missing"]
        for target in row["targets"]:
            own, peer = (row["contestants"][name]["per_lp"] for name in ("lpdiff", target["against"]))
            if not target["met"]:
                missed.append(f"{row['title']} against {target['against']}")
            asks = f"{row['title']} | {asked(target)} {target['against']}"
            times = f"{duration(own)} | {duration(peer)} | {faster(1 / target['ratio'])}"
            targets.append(f"| {asks} | {times} | {_met(target['met'])} |")
    told = [f"Missed: {'; '.join(missed)}." if missed else "All of these targets are met."]
    told += [f"Left out, {name}: {reason}." for name, reason in absent.items()]
    columns = [name for name in _COLUMNS if any(name in row["contestants"] for row in record["works"])]
    lines = []
    for row in record["works"]:
        entries = [row["contestants"].get(name) for name in columns]
        cells = " | ".join("" if entry is None else duration(entry["per_lp"]) for entry in entries)
        lines.append(
            f"| {row['title']} | {row['items']} | {row['variables']:,} x {row['rows']:,} | {cells} |"
        )
    text = _STRUCTURE.format(
        **{key: record[key] for key in ("command", "repeats", "cores", "machine", "python", "threads")},
        versions=", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        trial="**This is a trial run (`--quick`).**" if record["quick"] else "",
        targets="\n".join(targets),
        verdict=" ".join(told),
        columns=" | ".join(columns),
        rules="|".join(["---"] * len(columns)),
        works="\n".join(lines),
    )
    return text + _growth(record.get("growth")) + _first_calls(record.get("first_call"))


def library(record: dict[str, Any]) -> str:
    """The page's text for one recorded run of ``benchmarks.library``."""
    columns = list(dict.fromkeys(name for row in record["works"] for name in row["contestants"]))
    columns.remove("lpdiff")
    absent: dict[str, str] = {}
    rows, missed = [], []
    for row in record["works"]:
        absent |= row["missing"]
        own = row["contestants"]["lpdiff"]["per_unit"]
        cells = []
        for name in columns:
            peer = row["contestants"].get(name)
            cells.append(
                "" if peer is None else f"{duration(peer['per_unit'])}, {peer['per_unit'] / own:,.0f}x"
            )
        told = "; ".join(f"{t['asked']}: {t['found']:.3g}, {_met(t['met'])}" for t in row["targets"])
        missed += [f"{row['title']} ({t['asked']})" for t in row["targets"] if not t["met"]]
        rows.append(f"| {row['title']} | {duration(own)} a {row['unit']} | {' | '.join(cells)} | {told} |")
    told = [f"Missed: {'; '.join(missed)}." if missed else "All of these targets are met."]
    told += [f"Left out, {name}: {reason}." for name, reason in absent.items()]
    if "large" in record:
        large = record["large"]
        told.append(
            f"One {large['n']:,} x {large['n']:,} alignment of float32 costs took "
            f"{duration(large['seconds'])} and {large['bytes'] / 1e6:.0f} MB beyond the costs, its gradient "
            f"{large['stored']:,} stored numbers (target: 3 s, 200 MB, sparse; {_met(large['met'])})."
        )
    return _LIBRARY.format(
        **{key: record[key] for key in ("command", "repeats", "threads", "cores", "machine", "python")},
        versions=", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        trial="**This is a trial run (`--quick`).**" if record["quick"] else "",
        columns=" | ".join(columns),
        rules="|".join(["---"] * len(columns)),
        rows="\n".join(rows),
        verdict=" ".join(told),
    )


_DECISIONS = """
## Predict, then optimise

```console
{command}
```

The field's standard benchmark: shortest paths on a 5x5 grid (5 features, degree 4, noise 0.5), 1,000
instances to learn from and 1,000 to test on, a linear model, Adam with learning rate 0.01, batches of 32, 20
epochs. Test normalised regret in %, mean and standard deviation over {seeds} seeds (of data, model and
order); with what has been published for the method, which should lie within a seed's spread. {cores} cores
({machine}, Python {python}, {versions}). {trial}

| method | regret, % | published, % | | seconds a seed |
|---|---|---|---|---|
{rows}

SPO+ training, here and by PyEPO with OR-Tools, each with the data set, batches and loss of its own
documentation, on the same data and model; the gradients of both agree:

| grid | lpdiff, a batch | PyEPO, a batch | | asked | |
|---|---|---|---|---|---|
{speed}

{verdict}
"""


def decisions(record: dict[str, Any]) -> str:
    """The page's text for one recorded run of ``benchmarks.decisions``."""
    rows, speed, missed, absent = [], [], [], {}
    for row in record["methods"]:
        spread = row["spread"]
        told = f"{row['mean']:.2f}" + ("" if spread is None else f" +- {spread:.2f}")
        met = None
        if row["published"] is not None and spread is not None:
            met = row["mean"] <= row["published"] + spread
            missed += [] if met else [row["name"]]
        published = "" if row["published"] is None else f"{row['published']:.1f}"
        rows.append(f"| {row['name']} | {told} | {published} | {_met(met)} | {row['seconds']:.1f} |")
    for row in record["speed"]:
        absent |= row["missing"]
        target, seconds = row["target"], row["seconds"]
        size = f"{row['grid']}x{row['grid']}"
        own = duration(seconds["lpdiff"])
        if target is None:
            speed.append(f"| {size} | {own} | | | | |")
            continue
        missed += [] if target["met"] else [f"SPO+ at {size}"]
        peer = duration(seconds["PyEPO, OR-Tools"])
        found, least = f"{target['found']:.0f}x faster", f"{target['at_least']:.0f}x"
        speed.append(f"| {size} | {own} | {peer} | {found} | {least} | {_met(target['met'])} |")
    told = [f"Missed: {', '.join(missed)}." if missed else "All of these targets are met."]
    told += [f"Left out, {name}: {reason}." for name, reason in absent.items()]
    return _DECISIONS.format(
        **{key: record[key] for key in ("command", "seeds", "cores", "machine", "python")},
        versions=", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        trial="**This is a trial run (`--quick`).**" if record["quick"] else "",
        rows="\n".join(rows),
        speed="\n".join(speed),
        verdict=" ".join(told),
    )


def asked(target: dict[str, Any]) -> str:
    """A target in words; the peer's name follows."""
    most = target["at_most"]
    return f"at least {1 / most:,.0f}x faster than" if most < 0.1 else f"at most {most:g}x the time of"


def faster(factor: float) -> str:
    return f"{factor:,.{0 if factor >= 20 else 2}f}x faster" if factor >= 1 else f"{1 / factor:,.2f}x slower"


def duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us" if seconds >= 1e-6 else f"{seconds * 1e9:.3g} ns"


def _met(met: bool | None) -> str:
    return {True: "met", False: "missed", None: ""}[met]


def _growth(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    rows = []
    for point in record["points"]:
        seconds = statistics.median(point["seconds"])
        rows.append(
            f"| {point['arcs']:,} | {duration(seconds)} | {seconds / point['arcs'] * 1e9:.0f} ns | "
            f"{duration(point['first'])} | {point['peak_bytes'] / 1e6:,.0f} MB | "
            f"{point['peak_over_input']:.1f}x |"
        )
    told = []
    if record["exponent"] is not None:
        told.append(
            f"From 10,000 arcs on, where the fixed cost of a call no longer counts, seconds grow as arcs to "
            f"the power {record['exponent']:.2f} (target: linear, 1.1 at most: {_met(record['linear'])})."
        )
    if record["memory_met"] is not None:
        met = _met(record["memory_met"])
        told.append(f"Target of memory, from a million arcs on: at most 4 times the input: {met}.")
    return _GROWTH.format(verdict="\n".join(told), rows="\n".join(rows))


def _first_calls(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    rows = [
        f"| {kind} | {duration(entry['empty'])} | {duration(entry['cached'])} | {_met(entry['met'])} |"
        for kind, entry in record["kinds"].items()
    ]
    return _FIRST.format(seconds=statistics.median(record["import_seconds"]), rows="\n".join(rows))


def page(results: Path = RESULTS) -> str:
    """The whole page; a benchmark that has no record has no section."""
    text = overhead(json.loads((results / "overhead.json").read_text(encoding="utf-8")))
    sections = {"structure": structure, "library": library, "decisions": decisions}
    for name, section in sections.items():
        recorded = results / f"{name}.json"
        if recorded.exists():
            text += section(json.loads(recorded.read_text(encoding="utf-8")))
    return text


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the records are")
    parser.add_argument("--page", type=Path, default=PAGE, help="what to write")
    arguments = parser.parse_args(argv)
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    arguments.page.write_text(page(arguments.results), encoding="utf-8")
    print(arguments.page)
    recorded = arguments.results / "structure.json"
    if recorded.exists():
        from .figures import draw  # matplotlib is needed for figures only

        for path in draw(json.loads(recorded.read_text(encoding="utf-8")), arguments.page.parent / "figures"):
            print(path)


if __name__ == "__main__":
    main()
