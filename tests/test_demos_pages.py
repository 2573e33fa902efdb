"""The pages of the demos say what the recorded runs say."""

from __future__ import annotations

import json

import numpy as np
import pages
import pytest
from pages import DEMOS

pytest.importorskip("sklearn", reason="the demo extra is not installed")
pytest.importorskip("matplotlib", reason="the demo extra is not installed")
pytest.importorskip("tqdm", reason="the demo extra is not installed")

from lpdiff.demos.bags import program, report
from lpdiff.demos.bags.training import METHODS


@pytest.fixture(scope="module")
def bags():
    return pages.script("bags")


def test_the_page_is_what_the_records_give(bags):
    assert (DEMOS / "bags.md").read_text() == bags.page(), "run python docs/demos/bags.py"


def test_the_figures_are_what_the_records_give(bags, tmp_path):
    """By their text: what a figure's paths look like depends on matplotlib."""
    bags.main(["--page", str(tmp_path / "bags.md"), "--figures", str(tmp_path)])
    drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
    there = sorted(path.name for path in (DEMOS.parent / "figures").glob("demos-bags-*.svg"))
    assert drawn == there and drawn


@pytest.mark.parametrize("path", sorted(DEMOS.glob("results/bags-*.json")), ids=lambda path: path.stem)
def test_records_are_whole_and_those_of_their_command(path, tmp_path):
    record = json.loads(path.read_text())
    config = record["config"]
    wanted = {
        (method, size, seed)
        for method in config["methods"]
        for size in config["bag_sizes"]
        for seed in range(config["seed"], config["seed"] + config["seeds"])
    }
    runs = record["runs"]
    assert {(run["method"], run["bag_size"], run["seed"]) for run in runs} == wanted
    assert len(runs) == len(wanted)
    for run in runs:
        assert run["accuracy"] == run["accuracies"][-1] and len(run["losses"]) == config["epochs"]
        assert 0 <= run["accuracy"] <= 1 and 0 < run["share_loss"] < 1
    assert config["split"] == "test" and len(config["methods"]) > 1
    words = record["command"].removeprefix("lpdiff demo bags").replace("--data FOLDER", "").split()
    told = program.Config.read([*words, "--output", str(tmp_path)], command="lpdiff demo bags")
    assert told.what() == config
    told = report.table(record)
    assert all(METHODS[method][0] in told for method in config["methods"])


def test_a_changed_number_changes_the_page(bags, tmp_path):
    for path in DEMOS.glob("results/*"):
        (tmp_path / path.name).write_text(path.read_text())
    path = tmp_path / "bags-digits.json"
    record = json.loads(path.read_text())
    record["runs"][0]["accuracy"] -= 0.5
    path.write_text(json.dumps(record))
    assert bags.page(tmp_path) != (DEMOS / "bags.md").read_text()


def test_differences_are_paired_by_seed(bags):
    """Seeds in any order; what all runs of a seed share cancels."""
    runs = [
        {"method": method, "bag_size": 4, "seed": seed, "accuracy": 0.5 + 0.1 * seed + extra}
        for seed in (2, 0, 1)
        for method, extra in (("matching", 0.02), ("proportions", 0.0))
    ]
    found = bags.difference({"runs": runs}, "matching", "proportions", 4)
    assert (found.mean, found.count) == (pytest.approx(2.0), 3)
    assert found.half == pytest.approx(0.0, abs=1e-9)
    assert np.isclose(report.accuracies({"runs": runs}, "matching", 4).mean, 0.62)
