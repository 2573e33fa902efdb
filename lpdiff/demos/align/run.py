"""``lpdiff demo align``: pretraining and methods over seeds, a table, a record, a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import lpdiff

from ..harness import DemoError, train, write
from ..stats import interval, paired
from . import figures
from .config import Config
from .data import load
from .training import Task, Training, network, rates, together

COMMAND = "lpdiff demo align"
PRETRAINED = "pretrained"


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, print the table, write the record and the figure; the record.

    Raises:
        DemoError: data that cannot be read, a folder with runs of another configuration.
    """
    try:
        corpus = load(
            config.corpus,
            config.data,
            words=config.words,
            dev_words=config.dev_words,
            test_words=config.test_words,
        )
    except (OSError, ValueError) as error:
        raise DemoError(str(error)) from error
    task = Task.of(corpus)
    print(
        f"{config.corpus}: {len(corpus.train)} words ({len(task.train)} pronunciations) to train with, "
        f"{len(corpus.dev)} to select by, {len(corpus.test)} to test."
    )
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (PRETRAINED, *config.methods)}
    folder = config.output / "align" / config.corpus
    for seed in config.every_seed:
        for name in runs:
            runs[name].append(_one(config, task, seed, folder, name))
    afterwards = {name: _afterwards(config, task, folder, name) for name in runs}
    words = {"train": len(corpus.train), "dev": len(corpus.dev), "test": len(corpus.test)}
    summary = record(config, words, runs, afterwards)
    write(folder / "align.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    print(table(summary))
    figures.draw(summary, folder)
    print(f"\nRecord and figures: {folder}")
    return summary


def _place(folder: Path, seed: int, name: str) -> Path:
    return folder / f"seed-{seed}" / name


def _settings(config: Config, seed: int, name: str) -> dict[str, Any]:
    return config.pretraining(seed) if name == PRETRAINED else config.method(name, seed)


def _one(config: Config, task: Task, seed: int, folder: Path, name: str) -> dict[str, Any]:
    place, before = (_place(folder, seed, run) for run in (name, PRETRAINED))
    first = name == PRETRAINED
    return train(
        place,
        _settings(config, seed, name),
        lambda: Training(
            config, task, seed, place, None if first else name, None if first else before / "weights.pt"
        ),
        # A method's own draws, not those of pretraining again.
        seed=seed if first else seed + 1_000_003,
        name=f"{config.corpus} {name} seed {seed}",
        again=config.again,
    )


def _afterwards(config: Config, task: Task, folder: Path, name: str) -> dict[str, Any]:
    """What is measured when all seeds are trained; kept beside the runs."""
    path = folder / f"afterwards-{name}.json"
    of = {**_settings(config, 0, name), "beam": config.beam, "seed": list(config.every_seed)}
    if path.exists() and not config.again:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["of"] == of:
            return kept["found"]
    networks = [network(task, config) for _ in config.every_seed]
    for own, seed in zip(networks, config.every_seed, strict=True):
        weights = _place(folder, seed, name) / "weights.pt"
        own.load_state_dict(torch.load(weights, weights_only=True))
    found = {
        "train_phone_error_rate": [round(rates(own, task, task.known).phone, 3) for own in networks],
        "test_words_by_errors": [
            [round(share, 3) for share in rates(own, task, task.test).by_errors] for own in networks
        ],
        "together": together(networks, task, config.beam) if len(networks) > 1 else {},
    }
    write(path, json.dumps({"of": of, "found": found}, indent=1) + "\n")
    return found


def record(
    config: Config,
    words: dict[str, int],
    runs: dict[str, list[dict[str, Any]]],
    afterwards: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """All that the docs tell of a run, as JSON has it."""
    results = {}
    for name, done in runs.items():
        keys = [k for k, v in done[0]["result"].items() if isinstance(v, int | float)]
        results[name] = {
            **{key: [round(r["result"][key], 3) for r in done] for key in keys},
            "curves": [[round(row["dev_phone_error_rate"], 3) for row in r["metrics"]] for r in done],
            **{
                key: [round(sum(row[key] for row in r["metrics"]), 2) for r in done]
                for key in ("processor_seconds", "processor_seconds_in_alignment")
            },
            **afterwards[name],
        }
    pictures = [
        {"trained": f"likelihood, epoch {p['epoch']}", **p} for p in runs[PRETRAINED][0]["result"]["pictures"]
    ]
    if "alignment" in runs:
        last = runs["alignment"][0]["result"]["pictures"][-1]
        pictures.append({"trained": f"then alignment, epoch {last['epoch']}", **last})
    return {
        "command": " ".join(
            [COMMAND, config.flags(), "" if config.data is None else "--data FOLDER"]
        ).strip(),
        "config": config.what(),
        "environment": runs[PRETRAINED][0]["environment"],
        "words": words,
        "seeds": list(config.every_seed),
        "results": results,
        "pictures": pictures,
    }


def table(summary: dict[str, Any]) -> str:
    """The results as text."""
    results, count = summary["results"], len(summary["seeds"])
    lines = [
        "",
        f"Test set, per cent, {count} seed{'s' * (count > 1)} (mean and 95 % interval)",
        "",
        f"{'method':<20} {'phone errors':>14} {'word errors':>14} {'fewer phone errors':>19} {'time':>9}",
    ]
    likelihood = results.get("likelihood")
    for name, found in results.items():
        apart = ""
        if likelihood is not None and name not in (PRETRAINED, "likelihood"):
            gain = paired(likelihood["test_phone_error_rate"], found["test_phone_error_rate"])
            apart = gain.text(2)
        lines.append(
            f"{name:<20} {interval(found['test_phone_error_rate']).text(2):>14} "
            f"{interval(found['test_word_error_rate']).text(2):>14} {apart:>19} "
            f"{interval(found['processor_seconds']).mean:>7.0f} s"
        )
    told = f"   all seeds together, beam {summary['config']['beam']}"
    for name, found in results.items():
        if found["together"]:
            phone, word = (found["together"][f"test_{k}_error_rate_beam"] for k in ("phone", "word"))
            lines.append(f"{name:<20} {phone:>14.2f} {word:>14.2f}{told}")
    lines.append("\nfewer phone errors: than maximum likelihood continued, difference of the same seeds")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Read the flags, train, report; returns the record.

    Raises:
        SystemExit: flags that make no sense.
        DemoError: see ``run``.
    """
    config = Config.read(argv, command=COMMAND)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with lpdiff.options(threads=config.threads):
            return run(config)
    finally:
        torch.set_num_threads(before)
