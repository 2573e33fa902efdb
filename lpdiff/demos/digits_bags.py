"""Learn digits from bags whose labels are known only as an unordered multiset.

    python -m lpdiff.demos.digits_bags

Nobody says which image of a bag shows which digit; only which digits the bag holds. The loss of a bag is
the value of the assignment problem between its images and its labels, with cost -log p(label | image):
a linear program, so its gradient is the optimal matching itself (Gao et al., arXiv 1910.08211, section 4).

Beside it, with the same network, images, epochs and optimiser: training with every label known (the
ceiling), and with label proportions only (the average prediction of a bag against its label frequencies).
Bags are drawn once and stay, so each image only ever shares the information of its own bag. The test images
serve for the reported accuracy and nothing else; ``--validate`` holds out training images instead, to
choose hyperparameters by.

What to expect. In small bags the matching comes close to full supervision, and so do the proportions: the
two cannot be told apart on so few test images. In bags of 16 or more the matching, which commits to one
assignment before the network knows anything, often settles on a wrong one, and the proportions, which do
not commit, are better. That is the loss, not the solver: with SciPy's matching the same happens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

import lpdiff

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(f'{error.name} is missing: the demo needs pip install "lpdiff[demo]"') from error

CLASSES = 10
QUICK = {"bag_size": 4, "epochs": 6, "seeds": 1}
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Config:
    """What a run depends on.

    Raises:
        ValueError: a value out of range.
    """

    bag_size: int = 8
    bags_a_step: int = 8
    epochs: int = 40
    seeds: int = 3
    seed: int = 0
    learning_rate: float = 2e-3
    solver: str = "auto"
    validate: bool = False

    def __post_init__(self) -> None:
        for name, least in (("bag_size", 2), ("bags_a_step", 1), ("epochs", 1), ("seeds", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.bag_size > 64:
            raise ValueError(f"bag_size must be at most 64, got {self.bag_size}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")

    @property
    def held_out(self) -> str:
        """What the images are called that accuracy is measured on."""
        return "validation" if self.validate else "test"

    @property
    def repetitions(self) -> str:
        return "one seed" if self.seeds == 1 else f"{self.seeds} seeds"


@dataclass(frozen=True, eq=False)
class Data:
    """Images (N, 1, 8, 8) in [0, 1] and labels (N,)."""

    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor


def load(validate: bool) -> Data:
    """scikit-learn's digits, a fixed stratified split; or a split of its training part."""
    digits = load_digits()
    x = (digits.images / 16).astype(np.float32)[:, None]
    train_x, test_x, train_y, test_y = train_test_split(
        x, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    if validate:
        train_x, test_x, train_y, test_y = train_test_split(
            train_x, train_y, test_size=0.2, random_state=1, stratify=train_y
        )
    return Data(*(torch.from_numpy(a) for a in (train_x, train_y, test_x, test_y)))


def network() -> nn.Module:
    """A small convolutional network, images to log-probabilities."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
        nn.LogSoftmax(dim=1),
    )


def assignment(size: int) -> lpdiff.LinearProgram:
    """min sum c_ij x_ij, each image i one label j and each label one image: integral vertices."""
    eye, one = sp.eye_array(size), np.ones((1, size))
    rows = sp.vstack([sp.kron(eye, one), sp.kron(one, eye)])  # images, then labels
    return lpdiff.LinearProgram(A_eq=rows, b_eq=np.ones(2 * size), name=f"assignment {size} x {size}")


def matching_costs(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """cost[b, i, j] = -log p(label j | image i); (bags, k, classes) and (bags, k) -> (bags, k, k)."""
    columns = labels[:, None, :].expand(-1, log_probs.shape[1], -1)
    return -log_probs.gather(2, columns)


def matching_loss(program: lpdiff.LinearProgram, solver: str) -> Loss:
    """The value of the best matching, an image; all bags of a step in one call."""

    def loss(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        costs = matching_costs(log_probs, labels)
        return lpdiff.solve(program, c=costs.flatten(1), solver=solver).value.mean() / labels.shape[1]

    return loss


def proportions_loss(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy between a bag's label frequencies and its average prediction."""
    frequencies = functional.one_hot(labels, CLASSES).float().mean(1)
    average = torch.logsumexp(log_probs, dim=1) - np.log(labels.shape[1])
    return -(frequencies * average).sum(1).mean()


def supervised_loss(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy with every label known."""
    return functional.nll_loss(log_probs.flatten(0, 1), labels.flatten())


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of images whose likeliest class is right."""
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def train(config: Config, data: Data, seed: int, loss: Loss, hide: bool, name: str) -> dict[str, Any]:
    """Train one network; every method sees the same bags, initial weights and order of bags."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    count = len(data.train_x) // config.bag_size
    bags = torch.randperm(len(data.train_x), generator=generator)[: count * config.bag_size]
    bags = bags.reshape(count, config.bag_size)
    labels = data.train_y[bags]
    if hide:
        # What is known of a bag is a multiset: sorting forgets which image had which label.
        labels = labels.sort(dim=1).values
    curve, in_loss, start = [], 0.0, time.perf_counter()
    bar = tqdm(range(config.epochs), desc=f"{name:<18} seed {seed}", disable=None, leave=False)
    for _ in bar:
        total = 0.0
        for step in torch.randperm(count, generator=generator).split(config.bags_a_step):
            chosen = bags[step]
            log_probs = model(data.train_x[chosen.flatten()]).unflatten(0, chosen.shape)
            before = time.perf_counter()
            value = loss(log_probs, labels[step])
            in_loss += time.perf_counter() - before
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            total += float(value.detach()) * len(step)
        curve.append(accuracy(model, data.test_x, data.test_y))
        bar.set_postfix(loss=f"{total / count:.3f}", accuracy=f"{curve[-1]:.1%}")
    seconds = time.perf_counter() - start
    tqdm.write(f"{name:<18} seed {seed}   accuracy {curve[-1]:6.1%}   {seconds:5.1f} s")
    return {
        "curve": curve,
        "seconds": seconds,
        "seconds_in_loss": in_loss,
        "example": (data.train_x[bags[0]], labels[0], model),
    }


def figure(config: Config, runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Learning curves, and one bag's costs with the matching that the LP finds in them."""
    fig = Figure(figsize=(11, 4.6), layout="constrained")  # without pyplot: needs no display
    left, right = fig.subplots(1, 2, width_ratios=(1.15, 1))
    epochs = np.arange(1, config.epochs + 1)
    for (name, results), colour in zip(runs.items(), ("#444444", "#c2410c", "#2563eb"), strict=True):
        curves = 100 * np.array([r["curve"] for r in results])
        told = f"{name} ({curves[:, -1].mean():.1f} %)"
        left.plot(epochs, curves.mean(0), "o-" if config.epochs == 1 else "-", color=colour, label=told)
        left.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.15, linewidth=0)
    left.set(xlabel="epoch", ylabel=f"{config.held_out} accuracy (%)", ylim=(0, 101))
    left.set_xlim(1, max(2, config.epochs))
    spread = "one seed" if config.seeds == 1 else f"mean and range of {config.repetitions}"
    left.set_title(f"Digits from bags of {config.bag_size}: {spread}")
    left.legend(loc="lower right", frameon=False)
    left.spines[["top", "right"]].set_visible(False)

    images, labels, model = runs["matching LP"][0]["example"]
    with torch.no_grad():
        costs = matching_costs(model(images)[None], labels[None])[0]
        sol = lpdiff.solve(assignment(len(labels)), c=costs.flatten(), solver=config.solver)
    shown = right.imshow(costs.numpy(), cmap="Blues_r", vmin=0)
    circle = min(11, 160 / len(labels))
    for i, j in sol.x.reshape(costs.shape).round().nonzero().tolist():
        right.plot(
            j, i, "o", color="#c2410c", markersize=circle, markerfacecolor="none", markeredgewidth=circle / 5
        )
    right.set_xticks(range(len(labels)), [str(int(label)) for label in labels])
    right.set_yticks([])
    size = 0.8
    for i, image in enumerate(images):
        inset = right.inset_axes((-1.5, i - size / 2, size, size), transform=right.transData)
        inset.imshow(image[0].numpy(), cmap="gray_r")
        inset.set_axis_off()
    right.set(xlabel="labels of the bag, unordered", title="A training bag: costs and their best matching")
    fig.colorbar(shown, ax=right, label="-log p(label | image)", shrink=0.85)
    fig.savefig(path, dpi=150)


def report(config: Config, images: int, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Print the table, and what it can tell; the numbers as they go to the file."""
    print(
        f"\nAccuracy on the {images} {config.held_out} images after {config.epochs} epochs, "
        f"{config.repetitions}\n"
    )
    print(f"{'trained with':<18} {'accuracy':>9} {'range':>17} {'time':>8} {'in the loss':>12}")
    summary = {}
    for name, results in runs.items():
        final = np.array([r["curve"][-1] for r in results])
        seconds = sum(r["seconds"] for r in results) / len(results)
        share = sum(r["seconds_in_loss"] for r in results) / sum(r["seconds"] for r in results)
        print(
            f"{name:<18} {final.mean():>9.1%} {final.min():>8.1%}-{final.max():<8.1%} "
            f"{seconds:>6.1f} s {share:>11.0%}"
        )
        summary[name] = {
            "accuracy": final.tolist(),
            "curves": [r["curve"] for r in results],
            "seconds": seconds,
            "share_of_time_in_loss": share,
        }
    means = {name: float(np.mean(result["accuracy"])) for name, result in summary.items()}
    ceiling, matching, proportions = means.values()
    # Binomial, of one network on these images; more seeds do not make it smaller.
    noise = float(np.sqrt(matching * (1 - matching) / images))
    print(
        f"\nThe matching is {100 * (matching - ceiling):+.1f} points from full supervision and "
        f"{100 * (matching - proportions):+.1f} from label proportions.\nOn {images} images an accuracy is "
        f"good to about {100 * noise:.1f} points (one standard error): differences of that size say nothing."
    )
    return {"config": asdict(config), "standard_error": noise, "results": summary}


def run(config: Config, output: Path) -> dict[str, Any]:
    """Train everything, print, and save the figure and the numbers."""
    # Small networks: more threads cost more than they bring, and one gives the same bits everywhere.
    torch.set_num_threads(1)
    data = load(config.validate)
    program = assignment(config.bag_size)
    print(
        f"{len(data.train_x)} images in bags of {config.bag_size}, drawn once and kept. Of each bag only the "
        f"multiset of its labels is known."
    )
    solver = lpdiff.plan(program, solver=config.solver).solver
    print(f"The loss of a bag is the value of this LP, solved by {solver}:\n{program}\n")
    methods: dict[str, tuple[Loss, bool]] = {
        "full supervision": (supervised_loss, False),
        "matching LP": (matching_loss(program, config.solver), True),
        "label proportions": (proportions_loss, True),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for seed in range(config.seed, config.seed + config.seeds):
        for name, (loss, hide) in methods.items():
            runs[name].append(train(config, data, seed, loss, hide, name))
    summary = report(config, len(data.test_x), runs)
    figure(config, runs, output / "digits_bags.png")
    (output / "digits_bags.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"\nFigure and numbers: {output / 'digits_bags.png'}, {output / 'digits_bags.json'}")
    return summary


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Read the flags and run; flags that make no sense end the program with the reason."""
    defaults = Config()
    parser = argparse.ArgumentParser(
        prog="python -m lpdiff.demos.digits_bags",
        description=(__doc__ or "").splitlines()[0],
        argument_default=argparse.SUPPRESS,  # Config knows the defaults
    )
    for name, kind, meaning in (
        ("bag_size", int, "images a bag, 2 to 64"),
        ("epochs", int, "passes over the bags"),
        ("seeds", int, "repetitions"),
        ("seed", int, "the first seed"),
        ("learning_rate", float, "of Adam"),
        ("solver", str, "auto, highs, glop, ..."),
    ):
        told = f"{meaning} (default {getattr(defaults, name)})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=told)
    parser.add_argument("--validate", action="store_true", help="hold out training images, not test images")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder (default demo_output)"
    )
    parser.add_argument(
        "--quick", action="store_true", default=False, help=f"seconds, to see that it runs: {QUICK}"
    )
    arguments = vars(parser.parse_args(argv))
    output, quick = arguments.pop("output"), arguments.pop("quick")
    try:
        config = Config(**{**(QUICK if quick else {}), **arguments})
        lpdiff.plan(assignment(2), solver=config.solver)
        output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, lpdiff.BackendError) as error:
        parser.error(str(error))
    return run(config, output)


if __name__ == "__main__":
    main()
