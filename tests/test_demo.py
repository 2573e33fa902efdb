"""The demo, small: it learns from bags, saves what it says it saves, and refuses bad flags."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest
import scipy.optimize
import torch

pytest.importorskip("sklearn", reason="the demo extra is not installed")
pytest.importorskip("matplotlib", reason="the demo extra is not installed")
pytest.importorskip("tqdm", reason="the demo extra is not installed")

import lpdiff
from lpdiff.demos import digits_bags


@pytest.fixture(autouse=True)
def _threads_as_before():
    """The demo sets torch's threads for its process, which here is that of other tests too."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_assignment_program_is_the_assignment_problem():
    rng = np.random.default_rng(0)
    costs = rng.normal(size=(20, 6, 6))
    sol = lpdiff.solve(digits_bags.assignment(6), c=torch.from_numpy(costs).flatten(1))
    for cost, value, x in zip(costs, sol.value, sol.x, strict=True):
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        assert abs(float(value) - cost[rows, columns].sum()) < 1e-9
        assert x.reshape(6, 6)[rows, columns].tolist() == [1.0] * 6


def test_losses_on_a_known_case():
    """Certain and right predictions, in any order: no loss; and the order of the labels plays no role."""
    log_probs = torch.full((1, 3, 10), -50.0)
    for image, digit in enumerate((7, 2, 2)):
        log_probs[0, image, digit] = 0.0
    loss = digits_bags.matching_loss(digits_bags.assignment(3), "highs")
    assert float(loss(log_probs, torch.tensor([[2, 2, 7]]))) == pytest.approx(0.0)
    assert float(loss(log_probs, torch.tensor([[2, 3, 7]]))) == pytest.approx(50 / 3)
    assert float(digits_bags.proportions_loss(log_probs, torch.tensor([[2, 2, 7]]))) == pytest.approx(
        -(np.log(1 / 3) / 3 + np.log(2 / 3) * 2 / 3), rel=1e-5
    )
    assert float(digits_bags.supervised_loss(log_probs, torch.tensor([[7, 2, 2]]))) == 0.0


def test_it_learns_and_saves(tmp_path, capsys):
    summary = digits_bags.main(["--quick", "--output", str(tmp_path / "out")])
    assert summary["config"]["bag_size"] == digits_bags.QUICK["bag_size"]
    data = digits_bags.load(False)
    torch.manual_seed(0)
    untrained = digits_bags.accuracy(digits_bags.network(), data.test_x, data.test_y)
    chance = 1 / digits_bags.CLASSES
    for name in ("full supervision", "matching LP"):
        assert summary["results"][name]["accuracy"][0] > max(untrained, chance) + 0.5, name
    told = capsys.readouterr().out
    for name in summary["results"]:
        assert name in told
    assert (tmp_path / "out" / "digits_bags.png").stat().st_size > 10_000
    saved = json.loads((tmp_path / "out" / "digits_bags.json").read_text())
    assert saved["results"]["matching LP"]["accuracy"] == summary["results"]["matching LP"]["accuracy"]
    again = digits_bags.train(
        digits_bags.Config(bag_size=4, epochs=6),
        data,
        0,
        digits_bags.matching_loss(digits_bags.assignment(4), "auto"),
        True,
        "again",
    )
    assert again["curve"] == summary["results"]["matching LP"]["curves"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bag-size", "1"], "bag_size must be at least 2, got 1"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--quick", "--epochs", "0"], "epochs must be at least 1"),
        (["--learning-rate", "nan"], "learning_rate must be positive"),
        (["--solver", "nope"], "unknown solver 'nope'"),
        (["--output", __file__], "File exists"),
    ],
)
def test_bad_flags(flags, message, capsys):
    with pytest.raises(SystemExit):
        digits_bags.main(flags)
    assert message in capsys.readouterr().err


def test_missing_extras_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.delitem(sys.modules, "lpdiff.demos.digits_bags")
    with pytest.raises(ImportError, match=r"sklearn.*lpdiff\[demo\]"):
        importlib.import_module("lpdiff.demos.digits_bags")
