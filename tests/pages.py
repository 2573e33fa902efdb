"""The scripts that write the pages of the demos, which are no part of a package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

DEMOS = Path(__file__).parents[1] / "docs" / "demos"


def script(name: str) -> Any:
    """docs/demos/NAME.py as a module, imported as if it were run: what lies beside it can be imported."""
    spec = importlib.util.spec_from_file_location(f"docs_demos_{name}", DEMOS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(DEMOS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DEMOS))
    return module
