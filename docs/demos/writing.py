"""What the scripts that write the pages of the demos share: the command line, differences in a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lpdiff.demos.stats import Interval

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def difference(found: Interval, digits: int) -> str:
    """With its sign; bold where its interval does not hold zero."""
    told = found.text(digits, sign=True)
    return f"**{told}**" if found.apart else told


def write(
    demo: str,
    page: Callable[[Path], str],
    recorded: Callable[[Path], dict[str, dict[str, Any]]],
    draw: Callable[[dict[str, Any], Path, str], list[Path]],
    argv: list[str] | None,
    overview: Callable[[dict[str, dict[str, Any]], Path], Path] | None = None,
) -> None:
    """Write a demo's page and figures, and print where they are.

    Args:
        demo: Its name.
        page: Of the folder of the records: the text.
        recorded: Of that folder: records by name.
        draw: Draws a record into a folder, names beginning as told; the figures.
        argv: The flags; None: those of the process.
        overview: Draws all records into one figure in a folder; its path.
    """
    parser = argparse.ArgumentParser(description=f"Write the page of lpdiff demo {demo} and its figures.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the records are")
    parser.add_argument("--page", type=Path, default=HERE / f"{demo}.md", help="what to write")
    parser.add_argument("--figures", type=Path, default=HERE.parent / "figures", help="folder of the figures")
    given = parser.parse_args(argv)
    given.page.write_text(page(given.results), encoding="utf-8")
    print(given.page)
    records = recorded(given.results)
    if overview is not None:
        print(overview(records, given.figures))
    for name, record in records.items():
        for path in draw(record, given.figures, f"demos-{demo}-{name}-"):
            print(path)
