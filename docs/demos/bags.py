"""Write docs/demos/bags.md and its figures from the recorded runs in docs/demos/results.

    python docs/demos/bags.py

A record is the summary.json of one run of ``lpdiff demo bags``. A test compares the page with what this
writes, so a number in the docs cannot drift from its run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import writing

from lpdiff.demos.bags import report
from lpdiff.demos.bags.training import METHODS
from lpdiff.demos.stats import Interval, interval, paired

DATASETS = ("digits", "mnist", "cifar10", "cifar100")

_INTRODUCTION = """\
# Demo: classes from unordered bags

A bag holds some images; known is which classes it holds and how often, not which image is of which class. The
loss of a bag is the value of the cheapest matching between the network's predictions and the bag's labels, at
cost $-\\log p(\\text{label} \\mid \\text{image})$
([Gao et al., 2019](https://arxiv.org/abs/1910.08211), section 4): a linear program, so its gradient is the
matching itself. The tables of that paper are not to be had; these are our own.

```console
lpdiff demo bags --small                          # some seconds, to see that it works
lpdiff demo bags                                  # the table on digits below
lpdiff demo bags --dataset mnist --data FOLDER    # FOLDER holds mnist.npz, or the idx files
lpdiff demo bags --help                           # all settings; --config FILE reads them from TOML
```

A run that is stopped, or killed, goes on where it was with the same command, and ends with the same bits.
Each run has a folder with its settings, a line of metrics an epoch and its result. This page is written by
`python docs/demos/bags.py` from the records in `docs/demos/results`.

## Methods

All of them see the same bags, initial weights, order of bags, number of steps and optimiser (Adam).

| method | loss of a bag |
|---|---|
| full supervision | cross entropy with every label known: the ceiling |
| matching | value of the cheapest matching, `lpdiff.problems.bag_matching` |
| matching, LP by HiGHS | the same through `solver="highs"`: the LP, solved by the general solver |
| label proportions | cross entropy between the bag's label frequencies and its mean prediction |
| mean over permutations | mean cost over all assignments: $\\sum_{ic} \\frac{n_c}{k} (-\\log p_i(c))$ |
| entropic matching | $\\min \\langle P, -\\log p \\rangle - T H(P)$ by Sinkhorn iterations |
| ..., then matching | another loss for the first epochs, then the matching |

Bags are drawn once a seed and stay, so an image only ever shares the information of its own bag. The test
images serve for the numbers here and nothing else. For digits, the learning rate (of 0.001, 0.002, 0.005),
the warm-up (of 5, 10, 20 epochs) and the temperature (of 0.3, 1) were chosen on a fifth of the training
images that was held out (`--split validation`, seeds 10 to 12), one setting for all methods and bag sizes, in
trials of which no record was kept. Other data sets were not tuned.
"""

_SECTION = """
## {title}

```console
{command}
```

{training} training images a seed, {test} test images, {epochs} epochs, {batch} images a step, learning rate
{rate}; warm-up {warmup} epochs, temperature {temperature}. {model}. Accuracy on test images (%), mean and
95 % interval over {seeds} seeds (Student's t; bags and initial weights vary, the test images do not).

| bags of | {sizes} |
|---|{rules}|
{accuracy}

![Accuracy against bag size, and learning curves](../figures/demos-bags-{name}-accuracy.svg)

{verdict}

Share of training images (%) to which the matching, under the trained network, gives the label that they
really have:

| bags of | {sizes} |
|---|{rules}|
{labelled}

Milliseconds an epoch (training alone), and the share of them spent in the loss:

| bags of | {sizes} |
|---|{rules}|
{times}

{speed}{machine}, Python {python}, torch {torch}, {threads} thread; other programs ran beside it.
"""


def section(name: str, record: dict[str, Any]) -> str:
    """The page's text for one record."""
    config, environment = record["config"], record["environment"]
    sizes, methods = config["bag_sizes"], config["methods"]

    def rows(cell: Any) -> str:
        return "\n".join(
            f"| {METHODS[method][0]} | {' | '.join(cell(method, size) for size in sizes)} |"
            for method in methods
        )

    def accuracy(method: str, size: int) -> str:
        return report.accuracies(record, method, size).text(1, 100.0)

    def labelled(method: str, size: int) -> str:
        return interval([run["labelled"] for run in report.by(record, method, size)]).text(1, 100.0)

    def times(method: str, size: int) -> str:
        runs = report.by(record, method, size)
        seconds = np.median([run["seconds_epoch"] for run in runs])
        return f"{1e3 * seconds:.0f}, {np.median([run['share_loss'] for run in runs]):.0%}"

    perceptron = config["model"] == "mlp" or (config["model"] == "auto" and config["dataset"] == "digits")
    return _SECTION.format(
        title={"digits": "Digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[name],
        command=record["command"],
        training=f"{record['training_images']:,}",
        test=f"{record['test_images']:,}",
        epochs=config["epochs"],
        batch=config["batch"],
        rate=f"{config['learning_rate']:g}",
        warmup=config["warmup"],
        temperature=f"{config['temperature']:g}",
        model="A perceptron with one hidden layer" if perceptron else "A convolutional network of two layers",
        seeds=config["seeds"],
        sizes=" | ".join(map(str, sizes)),
        rules="|".join(["---"] * len(sizes)),
        accuracy=rows(accuracy),
        labelled=rows(labelled),
        times=rows(times),
        name=name,
        verdict=verdict(record),
        speed=speed(record),
        **{key: environment[key] for key in ("machine", "python", "torch", "threads")},
    )


def difference(record: dict[str, Any], first: str, second: str, size: int) -> Interval:
    """Accuracy of the first method less that of the second, seed by seed, in points."""
    values = [[100 * run["accuracy"] for run in report.by(record, m, size)] for m in (first, second)]
    return paired(*values)


_COMPARED = (
    ("matching", "supervised"),
    ("matching", "proportions"),
    ("proportions-matching", "proportions"),
    ("entropic-matching", "entropic"),
    ("entropic-matching", "proportions"),
    ("entropic-matching", "supervised"),
)


def verdict(record: dict[str, Any]) -> str:
    """Paired differences, and whether their intervals hold zero."""
    sizes, methods = record["config"]["bag_sizes"], record["config"]["methods"]
    lines = []
    for first, second in _COMPARED:
        if first not in methods or second not in methods:
            continue
        cells = [writing.difference(difference(record, first, second, size), 1) for size in sizes]
        lines.append(f"| {METHODS[first][0]} less {METHODS[second][0]} | {' | '.join(cells)} |")
    return (
        "Differences in points, paired by seed, with 95 % intervals (each for itself, with no correction for "
        "their number); bold where the interval does not hold zero:\n\n"
        f"| bags of | {' | '.join(map(str, sizes))} |\n|---|{'|'.join(['---'] * len(sizes))}|\n"
        + "\n".join(lines)
    )


def speed(record: dict[str, Any]) -> str:
    """The recognised matching against the same LP by the general solver: same curve, and how much slower."""
    if not {"matching", "matching-lp"} <= set(record["config"]["methods"]):
        return ""
    ratios, same, total = [], 0, 0
    for size in record["config"]["bag_sizes"]:
        for fast, general in zip(
            report.by(record, "matching", size), report.by(record, "matching-lp", size), strict=True
        ):
            own, other = (run["seconds_epoch"] * run["share_loss"] for run in (fast, general))
            ratios.append(other / own)
            same += fast["accuracies"] == general["accuracies"]
            total += 1
    return (
        f"Through HiGHS the loss takes {np.median(ratios):.0f} times as long (median); of {total} pairs of "
        f"learning curves {same} are equal in the accuracy of every epoch.\n"
    )


_LESSONS = """
## What these runs teach

- In small bags the multiset is nearly as good as the labels: on digits, in bags of {small}, the matching is
  {small_gap} points from full supervision.
- From a cold start the matching can stick. It commits to one assignment before the network knows anything,
  and then trains on its own mistakes: on digits in bags of {large} it ends at {cold} %, having given
  {cold_labelled} % of the training images their label. That is the loss, not the solver: the LP through HiGHS
  ends at {general} %.
- A warm start mends it. With {warmup} of {epochs} epochs on label proportions first, bags of {large} end at
  {warm} %, with the entropic matching first at {entropic_warm} %. Label proportions alone reach
  {proportions} %, the entropic matching alone {entropic} %: the matching afterwards adds {gain} points to the
  one, {entropic_gain} to the other.
- The mean over permutations asks nothing of the network but to repeat the frequencies of an image's bag. It
  falls with the size of bags, to {uniform} % in bags of {large}. It overfits: the mean of its curves there is
  highest in epoch {peak}, at {highest:.1f} %.
- Where the matching sticks depends on network and steps, not on the size alone: an earlier, convolutional
  version of this demo, with 8 bags a step, stuck in bags of 16 already.
"""


def lessons(record: dict[str, Any]) -> str:
    """What the runs on digits say, in words with their numbers."""
    config = record["config"]
    small, large = config["bag_sizes"][0], config["bag_sizes"][-1]

    def told(method: str, size: int = large) -> str:
        return report.accuracies(record, method, size).text(1, 100.0)

    def apart(first: str, second: str, size: int = large) -> str:
        return difference(record, first, second, size).text(1, sign=True)

    labelled = interval([run["labelled"] for run in report.by(record, "matching", large)])
    curve = np.mean([run["accuracies"] for run in report.by(record, "uniform", large)], axis=0)
    return _LESSONS.format(
        peak=int(curve.argmax()) + 1,
        highest=100 * curve.max(),
        small=small,
        large=large,
        small_gap=apart("matching", "supervised", small),
        cold=told("matching"),
        cold_labelled=labelled.text(1, 100.0),
        general=told("matching-lp"),
        warmup=config["warmup"],
        epochs=config["epochs"],
        warm=told("proportions-matching"),
        entropic_warm=told("entropic-matching"),
        proportions=told("proportions"),
        entropic=told("entropic"),
        gain=apart("proportions-matching", "proportions"),
        entropic_gain=apart("entropic-matching", "entropic"),
        uniform=told("uniform"),
    )


def recorded(results: Path) -> dict[str, dict[str, Any]]:
    """Records by data set."""
    paths = {name: results / f"bags-{name}.json" for name in DATASETS}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()
    }


def page(results: Path = writing.RESULTS) -> str:
    """The whole page; a data set without a record has no section."""
    records = recorded(results)
    sections = [section(name, record) for name, record in records.items()]
    return "".join([_INTRODUCTION, *sections, lessons(records["digits"])])


def main(argv: list[str] | None = None) -> None:
    writing.write("bags", page, recorded, report.draw, argv)


if __name__ == "__main__":
    main()
