"""``lpdiff demo bags``: train every method at every bag size with every seed, and tell how they compare.

Nobody says which image of a bag shows which class; only which classes the bag holds, and how often. The loss
is the value of the cheapest labelling of the images with the bag's labels, at cost -log p(label | image): a
linear program, so its gradient is the optimal labelling itself.

Test images serve for the reported accuracy and for nothing else; --split validation holds out training
images instead, to choose hyperparameters by.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

import lpdiff

from ..config import AbstractConfig
from ..harness import train
from . import report
from .data import load
from .training import METHODS, BagTraining

__all__ = ["Config", "main"]


class Config(AbstractConfig):
    """Learn classes from bags of images whose labels are known only as an unordered multiset."""

    SMALL: ClassVar[dict[str, Any]] = {
        "bag_sizes": (4, 16),
        "methods": ("supervised", "matching", "proportions-matching", "proportions"),
        "epochs": 15,
        "warmup": 5,
        "seeds": 3,
    }
    OTHERWISE: ClassVar[frozenset[str]] = AbstractConfig.OTHERWISE | {"data"}

    dataset: Literal["digits", "mnist", "cifar10", "cifar100"] = "digits"
    """digits come with scikit-learn; the others from --data"""
    data: Path | None = None
    """folder of mnist.npz or MNIST's idx files, or of CIFAR's python archive"""
    split: Literal["test", "validation"] = "test"
    """images that accuracy is measured on; validation: a fifth of those to train on"""
    images: int | None = Field(None, ge=2)
    """of the training images, so many, drawn anew a seed (default: all)"""
    bag_sizes: tuple[int, ...] = (2, 4, 8, 16, 32)
    """images a bag"""
    methods: tuple[str, ...] = tuple(METHODS)
    """trained side by side"""
    model: Literal["auto", "mlp", "cnn"] = "auto"
    """network: auto takes a perceptron for digits, else a small convolutional one"""
    seeds: int = Field(5, ge=1)
    """repetitions, with seeds one after the other"""
    epochs: int = Field(40, ge=1)
    """passes over the bags"""
    batch: int = Field(64, ge=1)
    """images a step, in whole bags"""
    learning_rate: float = Field(2e-3, gt=0, lt=1)
    """of Adam"""
    warmup: int = Field(20, ge=0)
    """epochs with the first loss, of methods that have two"""
    temperature: float = Field(1.0, gt=0)
    """of the entropic matching; towards 0 it becomes the matching"""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        for size in self.bag_sizes:
            if not 2 <= size <= 64:
                raise ValueError(f"bag_sizes: expected 2 to 64 images a bag, got {size}")
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"methods: expected some of {', '.join(METHODS)}, got {method!r}")
        if not self.bag_sizes or not self.methods:
            raise ValueError("bag_sizes and methods: expected at least one of each")
        if self.warmup > self.epochs and any(METHODS[m][1] != METHODS[m][2] for m in self.methods):
            raise ValueError(f"warmup: expected at most the {self.epochs} epochs, got {self.warmup}")
        return self

    def run(self, size: int, method: str, seed: int) -> dict[str, Any]:
        """What one run depends on, and nothing that it does not."""
        first, then = METHODS[method][1:]
        told = self.what()
        for key in ("bag_sizes", "methods", "seeds"):
            del told[key]
        if self.model == "auto":
            told["model"] = "mlp" if self.dataset == "digits" else "cnn"
        if first == then:
            del told["warmup"]
        if "entropic" not in (first, then):
            del told["temperature"]
        return {**told, "bag_size": size, "method": method, "seed": seed}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Read the flags, train, report; returns what summary.json holds.

    Raises:
        SystemExit: flags that make no sense.
        DemoError: data that are not there or not whole; an output folder of other runs.
    """
    config = Config.read(argv, command="lpdiff demo bags")
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with lpdiff.options(threads=config.threads):
            return run(config)
    finally:
        torch.set_num_threads(before)


def run(config: Config) -> dict[str, Any]:
    """All runs of a configuration, then the report on them."""
    start = time.perf_counter()
    images = load(config.dataset, config.data, validation=config.split == "validation")
    folder = config.output / "bags" / config.dataset
    runs = []
    for seed in config.every_seed:
        for size in config.bag_sizes:
            for method in config.methods:
                settings = config.run(size, method, seed)

                def make(settings: dict[str, Any] = settings) -> BagTraining:
                    return BagTraining(settings, images)

                record = train(
                    folder / config.split / f"bags-of-{size}" / method / f"seed-{seed}",
                    settings,
                    make,
                    seed=seed,
                    name=f"{METHODS[method][0]}, bags of {size}, seed {seed}",
                    again=config.again,
                )
                runs.append(record)
    command = " ".join(["lpdiff demo bags", config.flags(), "" if config.data is None else "--data FOLDER"])
    summary = report.summarise(config.what(), runs, command.strip())
    report.save(summary, folder / config.split)
    print(report.table(summary))
    report.draw(summary, folder / config.split)
    print(f"Numbers and figures: {folder / config.split} ({time.perf_counter() - start:.0f} s)")
    return summary
