"""Trainings that are killed and go on, settings from flags and files, intervals over seeds."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

pytest.importorskip("sklearn", reason="the demo extra is not installed")
pytest.importorskip("matplotlib", reason="the demo extra is not installed")
pytest.importorskip("tqdm", reason="the demo extra is not installed")

from pydantic import Field

from lpdiff import cli
from lpdiff.demos import harness
from lpdiff.demos.config import AbstractConfig
from lpdiff.demos.stats import interval, paired


class Noisy(harness.AbstractTraining):
    """Draws from every generator there is, so that a state that is not kept shows."""

    epochs, steps = 6, 3

    def __init__(self, stop_at: int | None = None) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimiser, 0.9)
        self.order = torch.Generator().manual_seed(3)
        self.numbers = np.random.default_rng(4)
        self.best = harness.Best(self.model, lowest=False)  # an early one: from before the kill
        self.stop_at = stop_at

    def parts(self):
        return {
            "model": self.model,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "order": self.order,
            "numbers": self.numbers,
            "best": self.best,
        }

    def epoch(self, number, step):
        total = 0.0
        for at in range(self.steps):
            if number == self.stop_at and at == 1:
                raise KeyboardInterrupt
            x = torch.randn(5, 4) + torch.rand(5, 1, generator=self.order) + self.numbers.normal()
            x = x + random.random() + np.random.normal()  # noqa: NPY002
            loss = self.model(x).square().mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += float(loss.detach())
            step(loss=total)
        self.schedule.step()
        self.best.offer(total, number)
        return {"loss": total}

    def result(self):
        last = [float(p.detach().sum()) for p in self.model.parameters()]
        self.best.restore()
        best = [float(p.detach().sum()) for p in self.model.parameters()]
        return {"last": last, "best": best, "best_epoch": self.best.epoch}


def essence(record: dict[str, Any]) -> dict[str, Any]:
    """All of a record but its times."""
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in record["metrics"]]
    return {"config": record["config"], "result": record["result"], "metrics": rows}


def run(folder: Path, stop_at: int | None = None, seed: int = 5, **how: Any) -> dict[str, Any]:
    return harness.train(folder, {"size": 4}, lambda: Noisy(stop_at), seed=seed, name="noisy", **how)


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(tmp_path):
    whole = run(tmp_path / "whole")
    assert len(whole["metrics"]) == Noisy.epochs and whole["result"]["best_epoch"] == 0
    assert whole["result"]["last"] != whole["result"]["best"]
    for stop_at in (0, 1, 5):
        folder = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, stop_at)
        assert (folder / "checkpoint.pt").exists() == (stop_at > 0)
        assert not (folder / "result.json").exists()
        # Others use the generators in between.
        harness.seed_everything(99)
        assert essence(run(folder)) == essence(whole)
        assert not (folder / "checkpoint.pt").exists()
    assert essence(run(tmp_path / "other", seed=6)) != essence(whole)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_epochs(tmp_path):
    class Diverging(Noisy):
        def epoch(self, number, step):
            if number == 3:
                step(loss=float("nan"))
            return super().epoch(number, step)

    with pytest.raises(harness.DemoError, match=r"noisy: the loss is nan in epoch 4, .* lower learning rate"):
        harness.train(tmp_path, {"size": 4}, Diverging, seed=5, name="noisy")
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 3
    assert not (tmp_path / "result.json").exists()


def test_stopped_twice_and_between_the_last_epoch_and_the_result(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    for stop_at in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "twice", stop_at)
    with monkeypatch.context() as patch:
        patch.setattr(Noisy, "result", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "twice")
    assert essence(run(tmp_path / "twice")) == essence(whole)


def test_what_the_folder_holds(tmp_path, monkeypatch):
    record = run(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"size": 4}
    assert json.loads((tmp_path / "result.json").read_text()) == record
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [f"{n}.0" for n in range(1, 7)]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in record["metrics"]]
    assert record["seconds"] == pytest.approx(sum(row["seconds"] for row in record["metrics"]))
    assert record["environment"]["torch"] == torch.__version__
    # Done is done: nothing is made anew...
    monkeypatch.setattr(Noisy, "__init__", lambda self, stop_at: 1 / 0)
    assert run(tmp_path) == record
    # ...unless it is asked for.
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, again=True)


def test_the_folder_of_another_run_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(harness.DemoError, match=r"size was 4, now 5.*--again"):
        harness.train(tmp_path, {"size": 5}, Noisy, seed=0, name="noisy")
    assert essence(run(tmp_path)) == essence(run(tmp_path, again=True))


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    harness.write(tmp_path / "a", "before")
    # Moved into its place, not written over: who reads the old file goes on reading it.
    with (tmp_path / "a").open() as old:
        harness.write(tmp_path / "a", "between")
        assert old.read() == "before"

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        harness.write(tmp_path / "a", "after")
    assert (tmp_path / "a").read_text() == "between"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_killed_by_the_system(tmp_path):
    """A process that gets no chance to tidy up, at a moment of nobody's choice."""
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); import test_demos_harness as t; from pathlib "
        "import Path; inner = t.Noisy.epoch\n"
        "def slowly(self, number, step):\n    time.sleep(0.05); return inner(self, number, step)\n"
        "t.Noisy.epoch = slowly; t.run(Path(sys.argv[1]))"
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), str(Path(__file__).parent)])
    try:
        end = time.monotonic() + 60
        while not (folder / "checkpoint.pt").exists():
            assert process.poll() is None and time.monotonic() < end, "it never came to a checkpoint"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (folder / "result.json").exists()
    assert essence(run(folder)) == essence(run(tmp_path / "whole"))


def test_the_best_weights_are_the_best():
    model = torch.nn.Linear(1, 1)
    for lowest, expected in ((True, 1), (False, 2)):
        best = harness.Best(model, lowest=lowest)
        with pytest.raises(ValueError, match="no weights were offered"):
            best.restore()
        for epoch, score in enumerate((3.0, 1.0, 4.0, 1.0, 4.0)):
            torch.nn.init.constant_(model.weight, epoch)
            best.offer(score, epoch)
        best.restore()
        assert (best.epoch, model.weight.item()) == (expected, expected)


class Settings(AbstractConfig):
    """A demo of nothing."""

    SMALL: ClassVar[dict[str, Any]] = {"epochs": 2, "kinds": ("one",)}
    epochs: int = Field(10, ge=1)
    """passes over the data"""
    rate: float = Field(0.1, gt=0)
    sizes: tuple[int, ...] = (2, 4)
    kinds: tuple[Literal["one", "two"], ...] = ("one", "two")


def read(tmp_path: Path, *flags: str) -> Settings:
    return Settings.read(["--output", str(tmp_path / "out"), *flags], command="lpdiff demo nothing")


def test_flags_go_before_the_file_and_that_before_what_is_small(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHS", "77")
    file = tmp_path / "run.toml"
    file.write_text("epochs = 5\nsizes = [8, 16]\n")
    assert read(tmp_path).epochs == 10
    assert read(tmp_path, "--small").epochs == 2 and read(tmp_path, "--small").kinds == ("one",)
    assert read(tmp_path, "--small", "--config", str(file)).epochs == 5
    both = read(tmp_path, "--small", "--config", str(file), "--epochs", "3", "--kinds", "two,one")
    assert (both.epochs, both.sizes, both.kinds) == (3, (8, 16), ("two", "one"))
    file.write_text("small = true\n")
    assert read(tmp_path, "--config", str(file)).epochs == 2
    assert list(read(tmp_path, "--seed", "3", "--seeds", "2").every_seed) == [3, 4]
    told = both.what()
    assert told["sizes"] == [8, 16] and not {"output", "config", "small", "again"} & set(told)
    assert (tmp_path / "out").is_dir()
    assert read(tmp_path).flags() == "" and both.flags() == "--epochs 3 --sizes 8,16 --kinds two,one"
    assert read(tmp_path, *both.flags().split()).what() == told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "epochs: Input should be greater than or equal to 1, got '0'"),
        (["--small", "--epochs", "0"], "epochs: Input should be greater"),
        (["--rate", "-1"], "rate: Input should be greater than 0"),
        (["--rate", "nan"], "rate: Input should be greater than 0, got 'nan'"),
        (["--kinds", "one,three"], "kinds.1: Input should be 'one' or 'two', got 'three'"),
        (["--nope", "1"], "unrecognized arguments: --nope 1"),
        (["--seed", "-1"], "seed: Input should be greater than or equal to 0"),
        (["--config", "nowhere.toml"], "--config nowhere.toml: No such file"),
        (["--output", __file__], "File exists"),
    ],
)
def test_bad_flags(tmp_path, flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        read(tmp_path, *flags)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "epoch is unknown in {}: expected one of seed, "),
        ("epochs = 3.5", "epochs: Input should be a valid integer"),
        ("epochs = ", "is no TOML"),
    ],
)
def test_bad_files(tmp_path, content, message, capsys):
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(SystemExit):
        read(tmp_path, "--config", str(file))
    assert message.format(file) in capsys.readouterr().err


def test_help_tells_the_flags(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        read(tmp_path, "--help")
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert "usage: lpdiff demo nothing" in told and "passes over the data (default: 10)" in told


def test_intervals_are_those_of_scipy():
    values = [0.91, 0.93, 0.96, 0.90, 0.94]
    got = interval(values)
    expected = scipy_stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
    assert (got.mean, got.count) == (pytest.approx(np.mean(values)), 5)
    assert interval([0.5]).half is None and interval([0.5]).text() == "0.5"
    assert interval(values).text(1, 100.0) == "92.8 ± 3.0"
    assert (
        interval([0.5]).text(sign=True) == "+0.5"
        and interval([-1.0, -1.2]).text(1, sign=True) == "-1.1 ± 1.3"
    )
    for sample in ([0.1, 0.2], [-0.1, -0.11], [-0.2, 0.3], [0.5]):
        found = interval(sample)
        assert found.apart == (found.half is not None and not found.low <= 0 <= found.high)
    assert interval([-0.1, -0.11]).apart and not interval([0.5]).apart
    others = [0.90, 0.93, 0.95, 0.91, 0.90]
    expected = scipy_stats.ttest_rel(values, others).confidence_interval(0.95)
    difference = paired(values, others)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="at least one"):
        interval([])
    with pytest.raises(ValueError, match="5 and 4 values"):
        paired(values, others[1:])


def test_the_command(capsys, monkeypatch):
    asked = []

    class Module:
        @staticmethod
        def main(flags):
            asked.append(flags)
            if "--stop" in flags:
                raise KeyboardInterrupt
            if "--bad" in flags:
                raise harness.DemoError("the remedy")

    monkeypatch.setitem(sys.modules, "made_up_demo", Module)
    monkeypatch.setattr(cli, "DEMOS", {"one": ("made_up_demo", "first"), "two": ("made_up_demo", "second")})
    assert cli.main(["demo", "one", "--epochs", "3"]) == 0
    assert cli.main(["demo", "all", "--small"]) == 0
    assert asked == [["--epochs", "3"], ["--small"], ["--small"]]
    assert cli.main(["demo", "one", "--stop"]) == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert cli.main(["demo", "two", "--bad"]) == 1
    assert "lpdiff demo two: the remedy" in capsys.readouterr().err
    for words in (["demo", "three"], [], ["demo"]):
        with pytest.raises(SystemExit):
            cli.main(words)


def test_what_is_listed_is_there():
    done = subprocess.run(
        [sys.executable, "-m", "lpdiff", "demo", "--help"], capture_output=True, text=True, check=True
    )
    for name in cli.DEMOS:
        assert name in done.stdout


def test_a_missing_extra_is_named(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("lpdiff.demos")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in cli.DEMOS:
        assert cli.main(["demo", name]) == 1
        assert 'sklearn is missing: the demos need pip install "lpdiff[demo]"' in capsys.readouterr().err
