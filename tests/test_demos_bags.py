"""The bags demo, small: losses against enumeration, loaders on archives made here, learning, a kill."""

from __future__ import annotations

import gzip
import importlib
import io
import itertools
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch

pytest.importorskip("sklearn", reason="the demo extra is not installed")
pytest.importorskip("matplotlib", reason="the demo extra is not installed")
pytest.importorskip("tqdm", reason="the demo extra is not installed")

from lpdiff import cli
from lpdiff.demos.bags import data, losses, program, report, training
from lpdiff.demos.harness import DemoError

# -- losses ------------------------------------------------------------------------------------------------


@pytest.fixture
def bags():
    """Five bags of six images, four classes: log-probabilities, hidden labels, counts, costs (5, 6, 6)."""
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(5, 6, 4, generator=generator, dtype=torch.float64).log_softmax(2)
    labels = torch.randint(0, 4, (5, 6), generator=generator)
    counts = torch.nn.functional.one_hot(labels, 4).sum(1)
    costs = -log_probs.gather(2, labels[:, None].expand(-1, 6, -1))
    return log_probs.requires_grad_(), labels, counts, costs.detach()


@pytest.mark.parametrize("solver", ["auto", "highs"])
def test_matching_is_the_cheapest_assignment(bags, solver):
    log_probs, labels, counts, costs = bags
    best = 0.0
    expected = torch.zeros(5, 6, 4, dtype=torch.float64)
    for bag, cost in enumerate(costs.numpy()):
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        best += cost[rows, columns].sum() / 30
        expected[bag, rows, labels[bag, columns]] = -1 / 30
    value = losses.matching(log_probs, counts, solver=solver)
    value.backward()
    assert value.item() == pytest.approx(best, abs=1e-12)
    assert torch.allclose(log_probs.grad, expected, atol=1e-12)


def test_uniform_is_the_mean_over_all_permutations(bags):
    log_probs, _, counts, costs = bags
    log_probs = log_probs.detach()
    orders = np.array(list(itertools.permutations(range(6))))
    means = [cost[np.arange(6), orders].sum(1).mean() for cost in costs.numpy()]
    assert float(losses.uniform(log_probs, counts)) == pytest.approx(np.mean(means) / 6, abs=1e-12)


def test_entropic_matching_is_optimal_and_its_limits_are_the_others(bags):
    """Rows and columns fit; log P + cost / t is a sum over row and column, which is optimality; towards 0 it
    is the matching, towards infinity the mean over permutations."""
    log_probs, _, counts, _ = bags
    log_probs = log_probs.detach()
    costs = -log_probs
    found = losses.plan(costs, counts, 0.5, 1000)
    assert torch.allclose(found.sum(2), torch.ones(5, 6, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(found.sum(1), counts.double(), atol=1e-9)
    for bag in range(5):
        there = counts[bag] > 0
        assert (found[bag][:, ~there] == 0).all()
        parts = found[bag][:, there].log() + costs[bag][:, there] / 0.5
        mixed = parts - parts[:1] - parts[:, :1] + parts[:1, :1]
        assert mixed.abs().max() < 1e-9
    cold = losses.entropic(log_probs, counts, temperature=1e-3, iterations=20000)
    assert float(cold) == pytest.approx(float(losses.matching(log_probs, counts)), abs=1e-2)
    hot = losses.plan(costs, counts, 1e6, 1000)
    assert torch.allclose(hot, counts.double()[:, None].expand(5, 6, 4) / 6, atol=1e-4)


def test_the_entropic_gradient_is_that_of_its_value(bags):
    log_probs, _, counts, _ = bags
    generator = torch.Generator().manual_seed(1)
    way = torch.randn(log_probs.shape, generator=generator, dtype=torch.float64)

    def value(shift: float) -> float:
        moved = log_probs.detach() + shift * way
        return float(losses.entropic(moved, counts, temperature=0.7, iterations=2000))

    losses.entropic(log_probs, counts, temperature=0.7, iterations=2000).backward()
    slope = (value(1e-4) - value(-1e-4)) / 2e-4
    assert float((log_probs.grad * way).sum()) == pytest.approx(slope, rel=1e-3)


def test_losses_on_a_known_case():
    """Certain and right predictions, in any order: no loss; and the order of the labels plays no role."""
    log_probs = torch.full((1, 3, 10), -50.0)
    for image, digit in enumerate((7, 2, 2)):
        log_probs[0, image, digit] = 0.0

    def counted(*labels: int) -> torch.Tensor:
        return torch.bincount(torch.tensor(labels), minlength=10)[None]

    for solver in ("auto", "highs"):
        right = losses.matching(log_probs, counted(2, 2, 7), solver=solver)
        wrong = losses.matching(log_probs, counted(2, 3, 7), solver=solver)
        assert float(right) == pytest.approx(0.0)
        assert float(wrong) == pytest.approx(50 / 3)
    entropy = -(np.log(1 / 3) / 3 + np.log(2 / 3) * 2 / 3)
    assert float(losses.proportions(log_probs, counted(2, 2, 7))) == pytest.approx(entropy, rel=1e-5)
    assert float(losses.supervised(log_probs, torch.tensor([[7, 2, 2]]))) == 0.0
    assert float(losses.supervised(log_probs, torch.tensor([[2, 7, 2]]))) == pytest.approx(100 / 3)


# -- data --------------------------------------------------------------------------------------------------


def mnist_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        "y_train": np.arange(60, dtype=np.uint8) % 10,
        "x_test": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "y_test": np.arange(7, dtype=np.uint8),
    }


def write_idx(folder: Path, dot: str = "-", packed: bool = True) -> None:
    for key, array in mnist_arrays().items():
        kind, part = key.split("_")
        name = f"{'train' if part == 'train' else 't10k'}-{'images' if kind == 'x' else 'labels'}"
        content = (
            bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        )
        path = folder / f"{name}{dot}idx{array.ndim}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)


def test_mnist_in_all_its_forms(tmp_path):
    arrays = mnist_arrays()
    folders = [tmp_path / name for name in ("npz", "packed", "plain", "dots")]
    for folder in folders:
        folder.mkdir()
    np.savez(folders[0] / "mnist.npz", **arrays)
    write_idx(folders[1])
    write_idx(folders[2], packed=False)
    write_idx(folders[3], dot=".", packed=False)
    for folder in folders:
        found = data.load("mnist", folder)
        assert found.train_x.shape == (60, 1, 28, 28) and found.test_x.shape == (7, 1, 28, 28)
        assert found.train_y.tolist() == arrays["y_train"].tolist()
        assert found.test_y.tolist() == arrays["y_test"].tolist() and found.classes == 10
        raw = arrays["x_train"] / 255
        assert np.allclose(found.train_x[:, 0], (raw - raw.mean()) / raw.std(ddof=1), atol=1e-4)
        assert np.allclose(
            found.test_x[:, 0], (arrays["x_test"] / 255 - raw.mean()) / raw.std(ddof=1), atol=1e-4
        )
    held = data.load("mnist", folders[0], validation=True)
    assert len(held.train_x) == 48 and held.test_y.bincount(minlength=10).max() <= 2


def write_cifar(folder: Path, name: str, packed: bool) -> np.ndarray:
    """As the originals are: pickles of protocol 2 with keys in bytes. Returns the training labels."""
    archive, inner, parts, key = data._CIFAR[name]
    rng = np.random.default_rng(1)
    labels, contents = [], {}
    for file in [file for part in parts for file in part]:
        made = rng.integers(0, 10 if name == "cifar10" else 100, 4)
        pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        pixels[:, :1024] = made[:, None]  # red tells the label
        contents[file] = pickle.dumps({b"data": pixels, key: made.tolist(), b"batch_label": b"?"}, protocol=2)
        if file in parts[0]:
            labels.append(made)
    contents["batches.meta"] = b"not to be read"
    if packed:
        with tarfile.open(folder / archive, "w:gz") as tar:
            for file, content in contents.items():
                info = tarfile.TarInfo(f"{inner}/{file}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        (folder / inner).mkdir()
        for file, content in contents.items():
            (folder / inner / file).write_bytes(content)
    return np.concatenate(labels)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar(tmp_path, name, packed):
    labels = write_cifar(tmp_path, name, packed)
    found = data.load(name, tmp_path)
    assert found.train_x.shape == (len(labels), 3, 32, 32) and found.test_x.shape == (4, 3, 32, 32)
    assert found.train_y.tolist() == labels.tolist()
    assert found.classes == (10 if name == "cifar10" else 100)
    red = found.train_x[:, 0]
    assert torch.equal(red[:, 0, 0].argsort(stable=True), found.train_y.argsort(stable=True))
    assert red.std((1, 2)).max() < 1e-5 < found.train_x[:, 1].std((1, 2)).min()


def test_a_pickle_that_would_call_something_is_refused(tmp_path):
    write_cifar(tmp_path, "cifar10", packed=False)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "called"),)

    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(DemoError, match=r"data_batch_3 is no pickle of CIFAR.*asks for \w+\.mkdir"):
        data.load("cifar10", tmp_path)
    assert not (tmp_path / "called").exists()


def test_bad_archives_are_told(tmp_path):
    with pytest.raises(DemoError, match="mnist is not part of the demo: say where with --data FOLDER"):
        data.load("mnist")
    with pytest.raises(DemoError, match="nowhere is no folder"):
        data.load("mnist", tmp_path / "nowhere")
    with pytest.raises(DemoError, match=r"neither mnist.npz nor train-images-idx3-ubyte \(or .*\.gz\)"):
        data.load("mnist", tmp_path)
    with pytest.raises(DemoError, match=r"no cifar-100-python.tar.gz or cifar-100-python with train"):
        data.load("cifar100", tmp_path)
    write_idx(tmp_path, packed=False)
    labels, images = tmp_path / "train-labels-idx1-ubyte", tmp_path / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[:-5])
    with pytest.raises(DemoError, match=r"cut off: expected 47040 bytes for shape \(60, 28, 28\), got 47035"):
        data.load("mnist", tmp_path)
    images.write_bytes(labels.read_bytes())
    with pytest.raises(DemoError, match="starts with 00000801, expected 00000803"):
        data.load("mnist", tmp_path)
    images.write_bytes(whole)
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 4]))
    with pytest.raises(DemoError, match="60 training images and 2 labels"):
        data.load("mnist", tmp_path)
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 60]) + bytes([12] * 60))
    with pytest.raises(DemoError, match="labels from 12 to 12, expected 0 to 9"):
        data.load("mnist", tmp_path)
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros(3))
    with pytest.raises(DemoError, match="expected arrays x_train, y_train, x_test, y_test"):
        data.load("mnist", tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DemoError, match=r"cifar-10-python.tar.gz cannot be read"):
        data.load("cifar10", tmp_path)


def test_the_held_out_images_are_not_those_of_the_test():
    whole, held = data.load("digits"), data.load("digits", validation=True)
    assert len(held.train_x) + len(held.test_x) == len(whole.train_x)

    def rows(x: torch.Tensor) -> set[bytes]:
        # Standardised by other images: compare what that leaves, the order of the pixels' values.
        return {(a - a.min()).div(a.max() - a.min()).mul(16).round().numpy().tobytes() for a in x}

    test = rows(whole.test_x)
    assert not test & rows(held.train_x) and not test & rows(held.test_x)


# -- learning ----------------------------------------------------------------------------------------------

TINY = {"epochs": 6, "images": 600, "warmup": 3}


def trained(method: str, size: int, seed: int = 0, epochs: int = 6) -> list[dict[str, float]]:
    settings = program.Config(**{**TINY, "epochs": epochs}).run(size, method, seed)
    torch.manual_seed(seed)
    run = training.BagTraining(settings, data.load("digits"))
    return [run.epoch(number, lambda **_: None) for number in range(epochs)]


def essence(row: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in row.items() if "seconds" not in k}


def test_the_general_solver_gives_the_same_curve():
    for size in (4, 8):
        curves = (trained("matching", size, epochs=3), trained("matching-lp", size, epochs=3))
        for fast, general in zip(*curves, strict=True):
            assert fast["loss"] == pytest.approx(general["loss"], rel=1e-5)
            assert fast["accuracy"] == pytest.approx(general["accuracy"], abs=0.01)


def test_a_warm_start_is_the_first_loss_then_the_matching():
    rows = {name: trained(name, 8) for name in ("proportions", "proportions-matching", "matching")}
    warm = [essence(row) for row in rows["proportions-matching"]]
    assert warm[:3] == [essence(row) for row in rows["proportions"]][:3]
    assert warm[3] != essence(rows["proportions"][3]) and warm[3] != essence(rows["matching"][3])


def test_nothing_is_learned_from_the_order_of_labels_in_a_bag():
    """Counts alone reach a loss that is no supervised one."""
    settings = program.Config(**TINY).run(8, "matching", 0)
    run = training.BagTraining(settings, data.load("digits"))
    for method in training.METHODS:
        for part in training.METHODS[method][1:]:
            run.settings = program.Config(**TINY).run(8, method, 0)
            _, known = run._loss(part)
            assert known is (run.labels if part == "supervised" else run.counts)
    assert torch.equal(run.counts, torch.stack([bag.bincount(minlength=10) for bag in run.labels]))
    assert run.counts.shape == (75, 10) and run.steps == 10


def test_bags_are_those_of_the_seed_and_the_same_for_all_methods():
    images = data.load("digits")
    made = [
        training.BagTraining(program.Config(**TINY).run(8, method, seed), images)
        for method, seed in (("matching", 0), ("supervised", 0), ("matching", 1))
    ]
    assert torch.equal(made[0].labels, made[1].labels) and not torch.equal(made[0].labels, made[2].labels)
    assert torch.equal(made[0].images.train_x, made[1].images.train_x)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small demo, by its command."""
    folder = tmp_path_factory.mktemp("small")
    assert cli.main(["demo", "bags", "--small", "--output", str(folder), "--methods",
                     "supervised,matching,proportions-matching", "--bag-sizes", "4"]) == 0  # fmt: skip
    return folder / "bags" / "digits" / "test"


def test_it_learns_and_saves(small, capsys):
    summary = json.loads((small / "summary.json").read_text())
    assert summary["config"]["epochs"] == program.Config.SMALL["epochs"]
    images = data.load("digits")
    torch.manual_seed(0)
    untrained = training.network("mlp", (1, 8, 8), 10)
    with torch.no_grad():
        before = float((untrained(images.test_x).argmax(1) == images.test_y).float().mean())
    for run in summary["runs"]:
        assert run["accuracy"] > max(before, 0.1) + 0.5, run["method"]
        assert run["accuracy"] == run["accuracies"][-1] and 0 < run["share_loss"] < 1
        record = json.loads((small / f"bags-of-4/{run['method']}/seed-{run['seed']}/result.json").read_text())
        assert record["result"]["accuracy"] == run["accuracy"]
        assert record["config"]["method"] == run["method"] and "temperature" not in record["config"]
    assert summary["command"].startswith("lpdiff demo bags --seeds 3 --bag-sizes 4 --methods supervised,")
    assert len(summary["runs"]) == 9
    assert len((small / "runs.csv").read_text().splitlines()) == 10
    told = report.table(summary)
    for name in ("full supervision", "matching", "proportions, then matching", "3 seeds", "360 test images"):
        assert name in told
    for name in ("accuracy.svg", "matching.svg"):
        assert "</svg>" in (small / name).read_text()


def test_a_second_time_nothing_is_trained_and_another_setting_is_refused(small, monkeypatch, capsys):
    flags = ["--small", "--output", str(small.parents[2]), "--bag-sizes", "4", "--methods", "matching"]
    before = (small / "bags-of-4/matching/seed-0/result.json").stat().st_mtime_ns
    assert cli.main(["demo", "bags", *flags]) == 0
    assert (small / "bags-of-4/matching/seed-0/result.json").stat().st_mtime_ns == before
    assert cli.main(["demo", "bags", *flags, "--batch", "32"]) == 1
    assert "batch was 64, now 32" in capsys.readouterr().err


def test_killed_and_resumed(tmp_path):
    """The whole command, killed at a moment of nobody's choice, and started again."""
    words = [sys.executable, "-m", "lpdiff", "demo", "bags", "--bag-sizes", "4", "--seeds", "1", "--methods",
             "matching,entropic", "--epochs", "12", "--images", "400", "--output"]  # fmt: skip
    process = subprocess.Popen([*words, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not list((tmp_path / "killed").rglob("checkpoint.pt")):
            assert process.poll() is None and time.monotonic() < end, "it never came to a checkpoint"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "killed/bags/digits/test/summary.json").exists()
    found = []
    for name in ("killed", "whole"):
        assert cli.main([*words[3:-1], "--output", str(tmp_path / name)]) == 0
        summary = json.loads((tmp_path / name / "bags/digits/test/summary.json").read_text())
        times = ("seconds_epoch", "share_loss")
        found.append([{k: v for k, v in run.items() if k not in times} for run in summary["runs"]])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bag-sizes", "1"], "bag_sizes: expected 2 to 64 images a bag, got 1"),
        (["--epochs", "0"], "epochs: Input should be greater than or equal to 1"),
        (["--small", "--epochs", "0"], "epochs: Input should be greater than or equal to 1"),
        (["--learning-rate", "nan"], "learning_rate: Input should be"),
        (["--methods", "matching,nope"], "methods: expected some of supervised, matching, "),
        (["--epochs", "5", "--warmup", "6"], "warmup: expected at most the 5 epochs, got 6"),
        (["--dataset", "imagenet"], "dataset: Input should be 'digits', 'mnist'"),
        (["--output", __file__], "File exists"),
    ],
)
def test_bad_flags(flags, message, capsys, tmp_path):
    with pytest.raises(SystemExit):
        program.main(["--output", str(tmp_path), *flags])
    assert message in capsys.readouterr().err


def test_what_only_the_data_tell_is_told_without_a_traceback(tmp_path, capsys):
    place = ["--output", str(tmp_path)]
    assert cli.main(["demo", "bags", "--dataset", "mnist", *place]) == 1
    assert "lpdiff demo bags: mnist is not part of the demo" in capsys.readouterr().err
    assert cli.main(["demo", "bags", "--images", "5000", *place]) == 1
    assert "expected at most the 1437 there are to train on, got 5000" in capsys.readouterr().err


def test_missing_extras_are_named(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("lpdiff.demos")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"sklearn.*lpdiff\[demo\]"):
        importlib.import_module("lpdiff.demos.bags.program")
