"""Predict, then optimise: what each rule and loss of lpdiff learns, and how fast, beside PyEPO in one run.

    python -m benchmarks.decisions [--json FILE] [--only NAME ...] [--seeds 5] [--quick]

The field's standard benchmark: shortest paths on a 5x5 grid, 5 features, 1,000 + 1,000 instances, degree 4,
noise 0.5; a linear model, Adam with learning rate 0.01, batches of 32, 20 epochs. Test normalised regret in
%, mean and spread over seeds of data, model and order. Then the wall time of SPO+ training, here and with
PyEPO on OR-Tools, each with the data set, batches and loss of its own documentation, on the same data, model
and sizes, at 5x5 and at 30x30; gradients of both must agree.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import lpdiff
from lpdiff import gradients, losses
from lpdiff.batch import available_threads
from lpdiff.predict import Item, SolvedDataset, batches, evaluate_model, generators

from .peers import THREADS, Missing, need
from .report import duration
from .structure import SAMPLE, timed, versions_of

SIZE, FEATURES, DEGREE, NOISE = 1000, 5, 4, 0.5
RATE, BATCH, EPOCHS = 1e-2, 32, 20

LossOf = Callable[[torch.Tensor, Item], torch.Tensor]


@dataclass(frozen=True)
class Method:
    """A loss of predicted costs; what has been published of its regret (%), or about so much."""

    name: str
    make: Callable[[SolvedDataset, int], LossOf]  # from the training data and a seed
    published: float | None = None


def _regret(rule: Callable[[int], gradients.AbstractGradient]) -> Callable[[SolvedDataset, int], LossOf]:
    def make(data: SolvedDataset, seed: int) -> LossOf:
        loss = losses.Regret(data.program, gradient=rule(seed))
        return lambda predicted, item: loss(predicted, item.costs, item.value)

    return make


def _least_squares(data: SolvedDataset, seed: int) -> LossOf:
    return lambda predicted, item: functional.mse_loss(predicted, item.costs)


def _spo_plus(data: SolvedDataset, seed: int) -> LossOf:
    loss = losses.SPOPlus(data.program)
    return lambda predicted, item: loss(predicted, item.costs, item.target)


def _of_target(module: type[losses.AbstractLoss], **options: Any) -> Callable[[SolvedDataset, int], LossOf]:
    def make(data: SolvedDataset, seed: int) -> LossOf:
        seeded = {"generator": seed} if module is losses.PerturbedFenchelYoung else {}
        loss = module(data.program, **options, **seeded)
        return lambda predicted, item: loss(predicted, item.target)

    return make


def _directional(data: SolvedDataset, seed: int) -> LossOf:
    loss = losses.Directional(data.program, step=0.1)
    return lambda predicted, item: loss(predicted, item.costs)


def _adjacent(data: SolvedDataset, seed: int) -> LossOf:
    known = losses.neighbours(lpdiff.solve(data.program, c=data.costs))
    return lambda predicted, item: losses.adjacent_vertices(data.program, predicted, known[item.index])


METHODS = (
    Method("least squares", _least_squares, 8.6),
    Method("SPO+", _spo_plus, 7.6),
    Method("perturbed Fenchel-Young", _of_target(losses.PerturbedFenchelYoung, samples=3), 7.3),
    Method("quadratic Fenchel-Young", _of_target(losses.QuadraticFenchelYoung), 7.8),
    Method("I-MLE, adaptive", _regret(lambda s: gradients.IMLE("adaptive", generator=s)), 7.2),
    Method("identity", _regret(lambda s: gradients.Identity("norm")), 8.9),
    Method("interpolation", _regret(lambda s: gradients.Interpolation(10.0)), 9.0),
    Method("I-MLE", _regret(lambda s: gradients.IMLE(10.0, generator=s))),
    Method("perturbed optimiser", _regret(lambda s: gradients.Perturbed(generator=s))),
    Method("structured hinge", _of_target(losses.StructuredHinge)),
    Method("directional (PG)", _directional),
    Method("cone alignment (CaVE)", _of_target(losses.ConeAligned, inner=0.2)),
    Method("adjacent vertices (LAVA)", _adjacent),
)


# -- what is learned ---------------------------------------------------------------------------------------


def shuffled(data: SolvedDataset, seed: int) -> DataLoader[Item]:
    return batches(data, BATCH, shuffle=True, generator=torch.Generator().manual_seed(seed))


def learn(model: nn.Module, loss: LossOf, data: SolvedDataset, seed: int, epochs: int) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    order = shuffled(data, seed)
    for _ in range(epochs):
        for item in order:
            optimiser.zero_grad()
            loss(model(item.features), item).backward()
            optimiser.step()


def split(seed: int, grid: tuple[int, int], size: int) -> tuple[SolvedDataset, SolvedDataset]:
    """Training and test set of one draw."""
    made = generators.shortest_path(
        2 * size, features=FEATURES, grid=grid, degree=DEGREE, noise=NOISE, seed=seed
    )
    return tuple(  # type: ignore[return-value]
        SolvedDataset(made.program, made.features[part], made.costs[part])
        for part in (slice(0, size), slice(size, None))
    )


def train(method: Method, seed: int, quick: bool) -> tuple[float, float]:
    """Test regret in % and seconds of training."""
    size, epochs = (100, 2) if quick else (SIZE, EPOCHS)
    data, test = split(seed, (5, 5), size)
    torch.manual_seed(seed)
    model = nn.Linear(FEATURES, data.costs.shape[1])
    loss = method.make(data, seed)
    start = time.perf_counter()
    learn(model, loss, data, seed, epochs)
    seconds = time.perf_counter() - start
    report = evaluate_model(model, test, unambiguous=False)
    return 100 * report.normalised_regret, seconds


def regrets(method: Method, seeds: int, quick: bool) -> dict[str, Any]:
    found = [train(method, seed, quick) for seed in range(seeds)]
    regret = [r for r, _ in found]
    return {
        "name": method.name,
        "regrets": regret,
        "mean": statistics.mean(regret),
        "spread": statistics.stdev(regret) if len(regret) > 1 else None,
        "published": method.published,
        "seconds": statistics.median(t for _, t in found),
    }


# -- how fast ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """SPO+ by a library: its loss, and the batches of its own data set, as its documentation trains."""

    loss: Callable[..., torch.Tensor]  # of the prediction, then what follows the features in a batch
    batches: Any


def ours(data: SolvedDataset) -> Contestant:
    loss = losses.SPOPlus(data.program)
    return Contestant(lambda p, c, w, z, *_: loss(p, c, w), shuffled(data, 0))


def pyepo(data: SolvedDataset, grid: tuple[int, int]) -> Contestant:
    """PyEPO on its OR-Tools model (GLOP), one process."""
    need("ortools.linear_solver.pywraplp", "ortools")
    model = need("pyepo.model.ort", "pyepo").shortestPathModel(grid)
    loss = need("pyepo.func", "pyepo").SPOPlus(model, processes=1)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        own = need("pyepo.data.dataset", "pyepo").optDataset(model, data.features.numpy(), data.costs.numpy())
    order = DataLoader(own, batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(0))
    return Contestant(loss, order)


def epoch(who: Contestant, variables: int) -> Callable[[], None]:
    """A run over the data: batches, model, loss, backward, step."""
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, variables)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)

    def run() -> None:
        for features, *known in who.batches:
            optimiser.zero_grad()
            who.loss(model(features), *known).backward()
            optimiser.step()

    return run


def gradient(who: Contestant, data: SolvedDataset) -> torch.Tensor:
    """At costs near the true ones, of a batch."""
    item = data[slice(0, BATCH)]
    noise = torch.rand(item.costs.shape, generator=torch.Generator().manual_seed(0))
    predicted = (item.costs * (0.5 + noise)).requires_grad_()
    who.loss(predicted, item.costs, item.target, item.value[:, None]).backward()
    assert predicted.grad is not None
    return predicted.grad


def speed(side: int, asked: float, quick: bool, repeats: int) -> dict[str, Any]:
    """Seconds a batch of SPO+ training on a grid, by contestant."""
    grid = (side, side)
    count = BATCH * (2 if quick else 8)
    data, _ = split(0, grid, count)
    row: dict[str, Any] = {"grid": side, "batch": BATCH, "seconds": {}, "missing": {}, "target": None}
    runs = {"lpdiff": ours(data)}
    try:
        runs["PyEPO, OR-Tools"] = pyepo(data, grid)
    except Missing as reason:
        row["missing"]["PyEPO, OR-Tools"] = str(reason)
    expected = gradient(runs["lpdiff"], data)
    for who in runs.values():
        torch.testing.assert_close(gradient(who, data), expected, rtol=1e-4, atol=1e-6)
    epochs = {name: epoch(who, data.costs.shape[1]) for name, who in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in epochs}
    calls = {name: max(1, int(SAMPLE / timed(run, 1))) for name, run in epochs.items()}
    for _ in range(repeats):
        for name, run in epochs.items():
            samples[name].append(timed(run, calls[name]) * BATCH / count)
    row["seconds"] = {name: statistics.median(values) for name, values in samples.items()}
    if "PyEPO, OR-Tools" in row["seconds"]:
        faster = row["seconds"]["PyEPO, OR-Tools"] / row["seconds"]["lpdiff"]
        row["target"] = {"at_least": asked, "found": faster, "met": faster >= asked}
    return row


# -- the command -------------------------------------------------------------------------------------------


def show(row: dict[str, Any]) -> None:
    spread = "" if row["spread"] is None else f" +- {row['spread']:.2f}"
    published = "" if row["published"] is None else f"   published {row['published']:.1f}"
    print(
        f"  {row['name']:<26} {row['mean']:6.2f}{spread} %{published}   {row['seconds']:.1f} s a seed",
        flush=True,
    )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where to write the record")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="methods by the start of their names; speed"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a trial: little data, few repeats")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    quick = arguments.quick
    seeds, repeats = (1, 1) if quick else (arguments.seeds, arguments.repeats)
    only = tuple(arguments.only or ())
    chosen = [m for m in METHODS if not only or m.name.startswith(only)]
    with_speed = not only or "speed".startswith(only)
    if not chosen and not with_speed:
        parser.error(f"--only: expected the start of one of {', '.join(m.name for m in METHODS)}, speed")
    result: dict[str, Any] = {
        "command": 'make bench BENCH=decisions ARGS="--json benchmarks/results/decisions.json"',
        "quick": quick,
        "seeds": seeds,
        "repeats": repeats,
        "threads": THREADS,
        "cores": available_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions_of(("torch", "numpy", "numba", "pyepo", "ortools")),
        "methods": [],
        "speed": [],
    }
    for method in chosen:
        result["methods"].append(regrets(method, seeds, quick))
        show(result["methods"][-1])
    for side, asked in ((5, 8.0), (30, 50.0)) if with_speed else ():
        row = speed(side, asked, quick, repeats)
        result["speed"].append(row)
        told = ", ".join(f"{name} {duration(t)} a batch" for name, t in row["seconds"].items())
        verdict = row["target"] or {"found": float("nan"), "at_least": asked, "met": None}
        print(f"  SPO+ {side}x{side}: {told}: {verdict['found']:.1f}x (asked {asked:.0f}x)", flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
