"""The examples of the README and of the docs run, one after the other, as a reader pastes them."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import matplotlib
import pytest

import lpdiff

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

matplotlib.use("Agg")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, tmp_path, monkeypatch):
    blocks = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    if page.name in ("README.md", "quickstart.md"):
        assert len(blocks) > 4
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    for block in blocks:
        line = page.read_text(encoding="utf-8")[: block.start()].count("\n") + 2
        code = compile("\n" * (line - 1) + block.group(1), str(page), "exec")
        exec(code, module.__dict__)


def test_readme_numbers(capsys):
    """What the README says its first example prints."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    exec(blocks[0], {})
    printed = capsys.readouterr().out
    claimed = re.search(r"print\(sol\.value\)\s+# (\d+):", blocks[0])
    assert claimed
    assert f"tensor({claimed.group(1)}." in printed


def test_configuration_page_lists_every_key_and_default():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE)
    assert [key for key, _ in listed] == list(lpdiff.Settings.model_fields)
    defaults = dict(listed)
    for key in ("solver", "tolerance"):
        default = str(lpdiff.Settings.model_fields[key].default)
        assert defaults[key].strip('`" ') == default.replace("e-0", "e-")
    for name in lpdiff.gradients.NAMES:
        assert f'`"{name}"`' in page


def test_architecture_page_names_every_module():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = set(re.findall(r"`([\w/*]+)`", page))
    for path in (ROOT / "lpdiff").glob("*.py"):
        if path.stem != "__init__":
            assert path.stem in table, path.stem
    for path in (ROOT / "lpdiff").glob("*/__init__.py"):
        assert f"{path.parent.name}/*" in table, path.parent.name


def test_benchmark_page_is_what_the_recorded_runs_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import report

    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8") == report.page()
