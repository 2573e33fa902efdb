"""One run: a network, a loss on bags, a seed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from lpdiff.problems import bag_matching

from ..harness import AbstractTraining, Step
from . import losses
from .data import Images, limited

__all__ = ["METHODS", "BagTraining", "network"]

# By name: what is printed, and what a training begins with for so many epochs, and goes on with.
METHODS: dict[str, tuple[str, str, str]] = {
    "supervised": ("full supervision", "supervised", "supervised"),
    "matching": ("matching", "matching", "matching"),
    "proportions-matching": ("proportions, then matching", "proportions", "matching"),
    "entropic-matching": ("entropic, then matching", "entropic", "matching"),
    "entropic": ("entropic matching", "entropic", "entropic"),
    "proportions": ("label proportions", "proportions", "proportions"),
    "uniform": ("mean over permutations", "uniform", "uniform"),
    "matching-lp": ("matching, LP by HiGHS", "matching-lp", "matching-lp"),
}
WATCHED = 1024  # training images on which the matching is compared with the truth


def network(kind: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Images to log-probabilities: a multilayer perceptron, or a small convolutional network."""
    channels, height, width = shape
    if kind == "mlp":
        size = channels * height * width
        return nn.Sequential(
            nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, classes), nn.LogSoftmax(1)
        )
    # Strides, not pooling: a third of the time on a CPU.
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * -(-height // 4) * -(-width // 4), 64),
        nn.ReLU(),
        nn.Linear(64, classes),
        nn.LogSoftmax(1),
    )


class BagTraining(AbstractTraining):
    """A training on bags that are drawn once and stay, so that an image only ever shares the information of
    its own bag. Methods see the same bags, initial weights and order of bags.

    Args:
        settings: As ``Config.run`` writes them.
        images: The data.
    """

    def __init__(self, settings: Mapping[str, Any], images: Images) -> None:
        self.settings = settings
        self.model = network(settings["model"], tuple(images.train_x.shape[1:]), images.classes)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=settings["learning_rate"])
        drawn = torch.Generator().manual_seed(settings["seed"])
        self.order = torch.Generator().manual_seed(settings["seed"])
        self.images = limited(images, settings["images"], drawn)
        size = settings["bag_size"]
        count = len(self.images.train_x) // size
        # They are shuffled: the first bag is the first so many images. What fills no bag is left out.
        self.bags = torch.arange(count * size).reshape(count, size)
        self.labels = self.images.train_y[self.bags]
        one_hot = nn.functional.one_hot(self.labels, images.classes)
        self.counts = one_hot.sum(1)
        self.epochs = settings["epochs"]
        self.bags_a_step = max(1, settings["batch"] // size)
        self.steps = -(-count // self.bags_a_step)

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimiser": self.optimiser, "order": self.order}

    def epoch(self, number: int, step: Step) -> dict[str, float]:
        total, in_loss, start = 0.0, 0.0, time.perf_counter()
        _, first, then = METHODS[self.settings["method"]]
        loss, known = self._loss(first if number < self.settings.get("warmup", 0) else then)
        for chosen in torch.randperm(len(self.bags), generator=self.order).split(self.bags_a_step):
            log_probs = self._log_probs(self.bags[chosen])
            before = time.perf_counter()
            value = loss(log_probs, known[chosen])
            in_loss += time.perf_counter() - before
            self.optimiser.zero_grad()
            value.backward()
            self.optimiser.step()
            number_value = float(value.detach())
            total += number_value * len(chosen)
            step(loss=number_value)
        spent = time.perf_counter() - start
        return {
            "loss": total / len(self.bags),
            "accuracy": self.accuracy(),
            "labelled": self.labelled(),
            "seconds_train": spent,
            "seconds_loss": in_loss,
        }

    def result(self) -> dict[str, Any]:
        held: dict[str, Any] = {
            "accuracy": self.accuracy(),
            "labelled": self.labelled(),
            "training_images": self.bags.numel(),
            "bags": len(self.bags),
            "test_images": len(self.images.test_x),
        }
        if self.bags.shape[1] <= 16:  # for the picture
            with torch.no_grad():
                log_probs = self._log_probs(self.bags[:1])[0]
            held["example"] = {
                "labels": self.labels[0].tolist(),
                "log_probs": [[round(float(p), 4) for p in row] for row in log_probs],
            }
        return held

    def accuracy(self) -> float:
        """Share of the test images (or those held out) whose likeliest class is right."""
        self.model.eval()
        with torch.no_grad():
            right = [
                (self.model(x).argmax(1) == y).sum()
                for x, y in zip(self.images.test_x.split(2000), self.images.test_y.split(2000), strict=True)
            ]
        self.model.train()
        return float(sum(right)) / len(self.images.test_x)

    def labelled(self) -> float:
        """Share of training images to which the matching gives the label that they really have; no method
        sees it."""
        watched = max(1, WATCHED // self.bags.shape[1])
        bags = self.bags[:watched]
        with torch.no_grad():
            found = bag_matching(self._log_probs(bags), self.counts[:watched])
        return float((found.labels == self.labels[:watched]).float().mean())

    def _log_probs(self, bags: torch.Tensor) -> torch.Tensor:
        """(bags, k) -> (bags, k, classes)."""
        return self.model(self.images.train_x[bags.flatten()]).unflatten(0, bags.shape)

    def _loss(self, name: str) -> tuple[losses.Loss, torch.Tensor]:
        """A loss, and what it may know of each bag."""
        if name == "supervised":
            return losses.supervised, self.labels
        if name == "entropic":
            return partial(losses.entropic, temperature=self.settings["temperature"]), self.counts
        known: dict[str, losses.Loss] = {
            "matching": losses.matching,
            "matching-lp": partial(losses.matching, solver="highs"),
            "proportions": losses.proportions,
            "uniform": losses.uniform,
        }
        return known[name], self.counts
