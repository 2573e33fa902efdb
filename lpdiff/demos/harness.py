"""A training that can be killed: after each epoch it is on disk, and the same command goes on from there.

The folder of a run holds ``config.json``, ``checkpoint.pt`` (until it is done), ``metrics.csv`` with a line
an epoch, and in the end ``result.json``. Each file is written beside its place and moved there, so none is
ever half written. A run that was cut off and goes on ends with the bits of one that was not.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import platform
import random
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import lpdiff

__all__ = ["AbstractTraining", "Best", "DemoError", "environment", "seed_everything", "train", "write"]

Step = Callable[..., None]


class DemoError(ValueError):
    """Something that the user can mend; the command line tells it without a traceback."""


class AbstractTraining(ABC):
    """What the harness runs: it is asked for one epoch after the other.

    Attributes:
        epochs: How many there are.
        steps: Steps an epoch, for the bar.
    """

    epochs: int
    steps: int

    @abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """All that changes while it trains, by name: what has ``state_dict`` and ``load_state_dict`` (models,
        optimisers, schedulers, ``Best``), ``torch.Generator`` and ``numpy.random.Generator``. The global
        generators of torch, NumPy and Python are kept anyway."""

    @abstractmethod
    def epoch(self, number: int, step: Step) -> dict[str, float]:
        """Train for one epoch, the first of which is number 0.

        Args:
            step: To be called after each step, with metrics to show: ``step(loss=0.3)``.

        Returns:
            The metrics of the epoch, the same names each time: a line of metrics.csv. Names with
            ``seconds`` in them are times, which no two runs share.
        """

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """What is to be said when all epochs are done, as JSON has it: the measurements on test data. It may
        depend on the parts and on what ``make`` set up, and on nothing else."""


class Best:
    """The weights of the epoch that was best on held-out data; a part of a training.

    Args:
        model: Whose weights.
        lowest: Whether less is better.
    """

    def __init__(self, model: nn.Module, *, lowest: bool = True) -> None:
        self.model = model
        self.lowest = lowest
        self.score: float | None = None
        self.epoch = -1
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, score: float, epoch: int) -> bool:
        """Keep the weights as they are, if this is the best score so far (the first one on ties)."""
        if self.score is not None and not (score < self.score if self.lowest else score > self.score):
            return False
        self.score, self.epoch = float(score), epoch
        self.weights = copy.deepcopy(self.model.state_dict())
        return True

    def restore(self) -> None:
        """Put the best weights into the model."""
        if self.score is None:
            raise ValueError("no weights were offered: call offer after each epoch")
        self.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.score, self.epoch, self.weights = state["score"], state["epoch"], state["weights"]


def train(
    folder: Path,
    config: Mapping[str, Any],
    make: Callable[[], AbstractTraining],
    *,
    seed: int,
    name: str,
    again: bool = False,
) -> dict[str, Any]:
    """Run a training, or what is left of it.

    Args:
        folder: Of this run and no other; made where it is missing.
        config: All that the run depends on, as JSON has it.
        make: The training before its first epoch. Generators are seeded before it is called.
        seed: Of torch, NumPy and Python.
        name: For the bar and the line that is printed in the end.
        again: Throw away what the folder holds.

    Returns:
        What ``result.json`` holds: ``config``, ``result``, ``metrics`` (a list of one dict an epoch),
        ``seconds`` (spent training, over all its parts) and ``environment``.

    Raises:
        DemoError: the folder holds a run with another configuration, or a metric of a step is not finite.
        OSError: the folder cannot be written.
    """
    if again and (folder / "config.json").exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, config)
    if (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    seed_everything(seed)
    training = make()
    rows, seconds = _restore(folder / "checkpoint.pt", training.parts())
    bar = tqdm(
        total=training.epochs * training.steps,
        initial=len(rows) * training.steps,
        desc=name,
        disable=None,  # where nobody looks
        leave=False,
    )
    with bar:
        if rows:
            _write_metrics(folder, rows)  # which a kill between two files left behind
            bar.set_postfix(_short(rows[-1]))

        def step(**metrics: float) -> None:
            bar.update()
            _check_finite(name, len(rows) + 1, metrics)
            if metrics and not bar.disable:
                bar.set_postfix({**_short(rows[-1] if rows else {}), **_short(metrics)}, refresh=False)

        for number in range(len(rows), training.epochs):
            start = time.perf_counter()
            row = {"epoch": float(number + 1), **training.epoch(number, step)}
            spent = time.perf_counter() - start
            rows.append({**row, "seconds": spent})
            seconds += spent
            _save(folder / "checkpoint.pt", training.parts(), rows, seconds)
            _write_metrics(folder, rows)
    record: dict[str, Any] = {
        "config": dict(config),
        "result": training.result(),
        "metrics": rows,
        "seconds": seconds,
        "environment": environment(),
    }
    write(folder / "result.json", json.dumps(record, indent=1) + "\n")
    for left in [folder / "checkpoint.pt", *folder.glob("*.part")]:
        left.unlink(missing_ok=True)
    tqdm.write(f"{name:<44} {_line(record['result'])}   {seconds:.1f} s")
    return record


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what others' code may draw from
    random.seed(seed)


def environment() -> dict[str, Any]:
    """Where something was run: versions, the machine, how many threads."""
    return {
        "lpdiff": lpdiff.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _claim(folder: Path, config: Mapping[str, Any]) -> None:
    """The folder is this run's: it is empty, or holds the same configuration."""
    path = folder / "config.json"
    told = json.loads(json.dumps(dict(config)))
    if not path.exists():
        write(path, json.dumps(told, indent=1) + "\n")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != told:
        missing = object()
        keys = [k for k in {**found, **told} if found.get(k, missing) != told.get(k, missing)]
        apart = ", ".join(f"{k} was {found.get(k)!r}, now {told.get(k)!r}" for k in keys)
        raise DemoError(
            f"{folder} holds a run with another configuration ({apart}): give another --output, or --again "
            f"to throw it away"
        )


def _check_finite(name: str, epoch: int, metrics: Mapping[str, float]) -> None:
    for key, value in metrics.items():
        if not math.isfinite(value):
            raise DemoError(
                f"{name}: the {key} is {value} in epoch {epoch}, so training cannot go on: "
                f"try a lower learning rate, and another --output (or --again to throw this run away)"
            )


def _save(path: Path, parts: Mapping[str, Any], rows: list[dict[str, float]], seconds: float) -> None:
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002
    numpy_state = json.dumps(legacy, default=lambda array: array.tolist())
    state = {
        "parts": {name: _state_of(part) for name, part in parts.items()},
        "torch": torch.get_rng_state(),
        "numpy": numpy_state,
        "python": random.getstate(),
        "rows": rows,
        "seconds": seconds,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(path, buffer.getvalue())


def _restore(path: Path, parts: Mapping[str, Any]) -> tuple[list[dict[str, float]], float]:
    """Load a checkpoint, if there is one; the rows and seconds so far."""
    if not path.exists():
        return [], 0.0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        _load(part, state["parts"][name])
    torch.set_rng_state(state["torch"])
    legacy = json.loads(state["numpy"])
    legacy["state"]["key"] = np.array(legacy["state"]["key"], dtype=np.uint32)
    np.random.set_state(legacy)  # noqa: NPY002
    random.setstate(state["python"])
    return state["rows"], state["seconds"]


def _state_of(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return json.dumps(part.bit_generator.state)
    return part.state_dict()


def _load(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = json.loads(state)
    else:
        part.load_state_dict(state)


def _write_metrics(folder: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(folder / "metrics.csv", text.getvalue())


def _short(metrics: Mapping[str, float]) -> dict[str, str]:
    return {k: f"{v:.4g}" for k, v in metrics.items() if k != "epoch" and "seconds" not in k}


def _line(result: Mapping[str, Any]) -> str:
    numbers = {k: v for k, v in result.items() if isinstance(v, int | float)}
    return "   ".join(f"{k} {v if isinstance(v, int) else format(v, '.4g')}" for k, v in numbers.items())
