"""The command ``lpdiff``: the demos, and which version this is."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import lpdiff

# A module with main(flags); imported when it is asked for, since the demos need an extra.
DEMOS = {
    "bags": ("lpdiff.demos.bags.program", "classify images, from bags of them whose labels are unordered"),
    "align": ("lpdiff.demos.align.run", "letters to phones, trained with the value of an alignment"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command and run it; returns the exit status.

    Args:
        argv: The words after ``lpdiff``; None: those of the process.
    """
    listed = "\n".join(f"  {name:<8} {meaning}" for name, (_, meaning) in DEMOS.items())
    parser = argparse.ArgumentParser(
        prog="lpdiff", description="Differentiable linear programming for torch."
    )
    parser.add_argument("--version", action="version", version=f"lpdiff {lpdiff.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo")
    demo = commands.add_parser(
        "demo",
        help="train a small model with a loss of lpdiff",
        description=f"Train a small model with a loss of lpdiff:\n\n{listed}\n  all      one after the other",
        epilog="lpdiff demo NAME --help tells its flags.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("name", choices=[*DEMOS, "all"], metavar="NAME")
    demo.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="of the demo")
    given = parser.parse_args(argv)
    for name in DEMOS if given.name == "all" else [given.name]:
        module, _ = DEMOS[name]
        try:
            run = importlib.import_module(module).main
        except ImportError as error:
            if "lpdiff[demo]" not in str(error):
                raise
            print(f"lpdiff: {error}", file=sys.stderr)
            return 1
        from .demos.harness import DemoError

        try:
            run(given.flags)
        except DemoError as error:
            print(f"lpdiff demo {name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped. The same command goes on from the last finished epoch.", file=sys.stderr)
            return 130
    return 0
