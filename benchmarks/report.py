"""Write docs/benchmarks.md from the recorded runs in benchmarks/results.

    python -m benchmarks.report

A test compares the page with what this writes, so a number in the docs cannot drift from its run.
"""

from __future__ import annotations

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


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))


def page() -> str:
    """The whole page."""
    return overhead(json.loads((RESULTS / "overhead.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
