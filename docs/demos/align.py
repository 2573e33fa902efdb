"""Write docs/demos/align.md and its figures from the recorded runs in docs/demos/results.

    python docs/demos/align.py

A record is the align.json of one run of ``lpdiff demo align``. A test compares the page with what this
writes, so a number in the docs cannot drift from its run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from writing import RESULTS, difference, write

from lpdiff.demos.align import figures
from lpdiff.demos.align.config import Config
from lpdiff.demos.align.run import PRETRAINED
from lpdiff.demos.align.training import KNOWN
from lpdiff.demos.pictures import save_svg
from lpdiff.demos.stats import Interval, interval, paired

# Word error rates (%) that others reported, for the whole corpora.
_BASELINE = "the baseline of SIGMORPHON 2021 (an ensemble of neural transducers trained by imitation)"
PUBLISHED = {
    "cmudict": {
        "an LSTM of 2 x 64 units": 31.3,
        "Phonetisaurus": 24.4,
        "an LSTM of 2 x 512 units": 23.3,
        "a Transformer": 20.6,
    },
    "dut": {_BASELINE: 14.70},
    "fre": {_BASELINE: 8.50},
    "gre": {_BASELINE: 21.00},
    "hbs_latn": {_BASELINE: 32.10},
    "ice": {_BASELINE: 12.00},
    "kor": {_BASELINE: 16.30},
}

_LANGUAGES = {
    "cmudict-small": "English",
    "cmudict": "English",
    "dut": "Dutch",
    "fre": "French",
    "gre": "Greek",
    "hbs_latn": "Serbo-Croatian",
    "ice": "Icelandic",
    "kor": "Korean",
}
_DRAWN = "alignment-sampled"
_SUMMED = ("alignment", _DRAWN)  # the losses of the table of all records
_OURS = (*_SUMMED, "alignment-words")  # those that are compared with the others
_OTHERS = ("likelihood", "free-running", "alignment-unsharpened", "scheduled-sampling", "minimum-risk")

_INTRODUCTION = """\
# Demo: letters to phones, with the value of an alignment as the loss

How is a word pronounced? A network reads letters and writes phones, and is judged by the phone error rate:
the edits that turn its output into the reference, over the reference's length. An edit distance is the value
of a global alignment, a linear program. So the metric itself, made differentiable, can be the loss
([Gao et al., 2019](https://arxiv.org/abs/1910.08211), section 5). The tables of that paper are not to be had;
these are our own.

```console
lpdiff demo align --small                              # about a minute, to see that it works
lpdiff demo align                                      # 6,000 words of CMUdict, which come with lpdiff
lpdiff demo align --corpus cmudict --data FOLDER       # FOLDER holds cmudict_g2p/g014b2b.train and .test
lpdiff demo align --corpus kor --data FOLDER           # and sigmorphon2021/kor_train.tsv and so on
lpdiff demo align --help                               # all settings; --config FILE reads them from TOML
```

A run that is stopped, or killed, goes on where it was with the same command, and ends with the same bits.
Each run has a folder with its settings, a line of metrics an epoch and its result. This page is written by
`python docs/demos/align.py` from the records in `docs/demos/results`.

## The loss

The decoder is fed with its own output. Of the distributions $p_1, \\dots, p_n$ that it gives up to the end
that it writes, and the target $y_1, \\dots, y_m$, the loss is the value of

$$
\\min_{\\text{alignments}} \\sum_{(i, j)\\ \\text{paired}} (1 - p_i(y_j))
    + \\sum_{i\\ \\text{left out}} (1 - p_i(\\text{end})) + \\sum_{j\\ \\text{missed}} 1
$$

over $m$: `lpdiff.problems.token_alignment` with a gap cost a position, which the network itself predicts.
For certain outputs it is the edit distance. The distributions are sharpened first, $p^{1/T}$ made to sum to
1, with $T = 0.3$ (`--cost-temperature`). Without that ($T = 1$, `alignment-unsharpened`) the loss is the
expected cost of phones drawn at random, and the easiest way down is to be as sure as can be, right or wrong.

## Protocol

A bidirectional GRU reads, a GRU with attention writes. The attention is soft (a phone depends on the mean of
all letters, by weights), or, with `--attention monotonic`, hard and in order: each phone is read from one
letter, none before the last phone's, and the probability of a phone is the exact sum over the letters that it
may be read from ([Wu and Cotterell, 2019](https://arxiv.org/abs/1905.06319)). Each seed is trained by maximum
likelihood first.
From its best epoch every method goes on for the same number of epochs, with the same optimiser (Adam) and
rates that fall towards 0; the methods differ in the loss alone. Epochs are chosen by the phone error rate on
the development set; the test set is read once, in the end. A word with several pronunciations is an example a
pronunciation to train with, and is measured against the closest one.

Tables show phone and word error rates on test words (%), mean and 95 % interval over the seeds (Student's t;
initial weights and order vary, words do not). *Fewer*: errors less than likelihood continued, paired by seed;
bold where the interval does not hold zero. *Beam*: with a beam in place of greedy decoding (of 4, where the
command tells nothing else). *Together*: word errors of the networks of all seeds as one (the mean of their
probabilities), with that beam. *Train*: phone errors on some words to train with. *No different* is said of
two methods where the interval of their difference holds zero.

| method | loss |
|---|---|
| likelihood | maximum likelihood continued: the decoder is fed the target (teacher forcing) |
| alignment | the loss above, fed with its likeliest phones |
| alignment-unsharpened | with $T = 1$ |
| alignment-sampled | fed with phones drawn at random |
| alignment-softmax | fed with mixtures of phones by their probabilities |
| alignment-gumbel | fed with phones drawn at random, straight-through Gumbel-softmax |
| alignment-nll | with $-\\log p$ in place of $1 - p$, and $T = 1$ |
| alignment-gaps | with prices of missed phones that learn; their mean stays 1, free ones would only fall |
| alignment-affine | with affine gaps: of phones left out or missed in a row, all but the first cost half |
| alignment-annealed | with $T$ falling from 1 in the first epoch to 0.3 in the last |
| alignment-words | $1 - e^{-\\text{value}}$ of alignment-sampled: words with an error count, not errors |
| alignment-mixed | the alignment and the likelihood, in equal parts |
| free-running | likelihood of the target place by place, fed with its likeliest phones: no alignment |
| scheduled-sampling | likelihood, fed with its own phones some of the time (Bengio et al., 2015) |
| minimum-risk | expected edit distance over outputs that are drawn (Shen et al., 2016) |
"""

_SUMMARY = """
## In short

Phone errors on test words (%) of likelihood continued, and how many fewer the alignments have, bold where the
interval does not hold zero; word errors (%) of the best system, chosen on the development set, beside those
published for whole corpora. Intervals of two seeds mean little.

| | seeds | likelihood | alignment, fewer | alignment-sampled, fewer | word errors | published |
|---|---|---|---|---|---|---|
{rows}

![What the alignment saves, against how well networks fit](../figures/demos-align-gains.svg)

A point a record: across, the phone errors of likelihood continued on words to train with, over those on test
words (1: new words are no harder); upwards, by how many per cent of the latter the alignment fed with sampled
phones has fewer, with its interval.
"""

_SECTION = """
## {title}

```console
{command}
```

{train} words to train with, {dev} to select by, {test} to test; {parameters} parameters; {pretraining} epochs
of likelihood, then {epochs} of each method; {seeds}; *train* is of {known} words.

| method | phones | words | fewer, phones | fewer, words | beam, phones | beam, words | together | train |
|---|---|---|---|---|---|---|---|---|
{rows}

{verdict}

![Learning curves](../figures/demos-align-{name}-curves.svg)

![An alignment over its costs, while the network learns](../figures/demos-align-{name}-alignment.svg)

Processor seconds an epoch: {seconds}. The alignment itself takes {share} of the time of its epochs.
{machine}, Python {python}, torch {torch}, {threads} thread; other programs ran beside it.
"""


def summary(records: Iterable[dict[str, Any]]) -> str:
    """All records in one table; those without likelihood have nothing to compare with."""
    rows = []
    for record in records:
        results = record["results"]
        if "likelihood" not in results:
            continue
        gains = [
            difference(_fewer(record, "likelihood", ours, "phone"), 2) if ours in results else ""
            for ours in _SUMMED
        ]
        cells = [_title(record), str(len(record["seeds"]))]
        cells += [interval(results["likelihood"]["test_phone_error_rate"]).text(2), *gains]
        rates = sorted(_published(record).values())
        told = " to ".join(f"{rate:.1f}" for rate in dict.fromkeys((rates[0], rates[-1]))) if rates else ""
        rows.append(f"| {' | '.join(cells)} | {_best(record)[1]:.1f} | {told} |")
    return _SUMMARY.format(rows="\n".join(rows))


def gains(records: Iterable[dict[str, Any]], ax: Any) -> None:
    """What the alignment fed with sampled phones saves, against how much of the errors training shows."""
    ax.axhline(0, color="#9ca3af", linewidth=1)
    for record in records:
        results, config = record["results"], record["config"]
        if not {"likelihood", _DRAWN} <= results.keys():
            continue
        train, test = (
            interval(results["likelihood"][f"{part}_phone_error_rate"]).mean for part in ("train", "test")
        )
        fewer = _fewer(record, "likelihood", _DRAWN, "phone")
        at = train / test
        mean, half = (100 * (part or 0.0) / test for part in (fewer.mean, fewer.half))
        colour = figures.COLOURS[1 if fewer.apart else 0]
        ax.errorbar(at, mean, half, fmt="o", color=colour, capsize=2, elinewidth=1, markersize=4)
        name = f"{_LANGUAGES[config['corpus']]} {config['hidden']}"
        ax.annotate(name, (at, mean), (4, 4), textcoords="offset points", fontsize=7, color=colour)
    ax.set(
        xlim=(None, 1.05),  # room for names
        xlabel="phone errors on words to train with, over those on test words (likelihood)",
        ylabel="fewer phone errors than likelihood (%)",
    )
    ax.spines[["top", "right"]].set_visible(False)


def overview(records: dict[str, dict[str, Any]], folder: Path) -> Path:
    """``gains`` as demos-align-gains.svg; its path."""
    path = folder / "demos-align-gains.svg"
    figure = Figure(figsize=(9, 5), layout="constrained")  # without pyplot: needs no display
    gains(records.values(), figure.subplots())
    save_svg(figure, path)
    return path


def section(name: str, record: dict[str, Any]) -> str:
    """The page's text for one record."""
    config, results, environment = record["config"], record["results"], record["environment"]
    alone = results[PRETRAINED]
    count = len(record["seeds"])
    share = "none"
    aligned = [found for key, found in results.items() if key.startswith("alignment")]
    if aligned:
        spent, total = (
            sum(sum(found[key]) for found in aligned)
            for key in ("processor_seconds_in_alignment", "processor_seconds")
        )
        share = f"{spent / total:.1%}"
    return _SECTION.format(
        title=_title(record),
        command=record["command"],
        **{part: f"{words:,}" for part, words in record["words"].items()},
        parameters=f"{alone['parameters'][0]:,.0f}",
        pretraining=config["pretraining_epochs"],
        epochs=config["epochs"],
        seeds="one seed" if count == 1 else f"{count} seeds",
        rows="\n".join(_row(key, record) for key in results),
        verdict=_verdict(record),
        name=name,
        share=share,
        known=f"{min(KNOWN, record['words']['train']):,}",
        seconds=_seconds(record),
        **{key: environment[key] for key in ("machine", "python", "torch", "threads")},
    )


def _seconds(record: dict[str, Any]) -> str:
    told = []
    for name, found in record["results"].items():
        epochs = len(found["curves"][0])
        told.append(f"{name} {interval(found['processor_seconds']).mean / epochs:.1f}")
    return ", ".join(told)


def _title(record: dict[str, Any]) -> str:
    config, usual = record["config"], Config()
    titles = _LANGUAGES | {
        "cmudict-small": "The words that come with lpdiff",
        "cmudict": f"CMUdict, {record['words']['train']:,} words",
    }
    told = [titles[config["corpus"]]]
    if config["hidden"] != usual.hidden:
        told.append(f"networks of {config['hidden']} units")
    if config["attention"] != usual.attention:
        told.append(f"{config['attention']} attention")
    return ", ".join(told)


def _row(name: str, record: dict[str, Any]) -> str:
    found = record["results"][name]
    gains = [""] * 2
    if name not in (PRETRAINED, "likelihood") and "likelihood" in record["results"]:
        gains = [difference(_fewer(record, "likelihood", name, key), 2) for key in ("phone", "word")]
    cells = [
        interval(found["test_phone_error_rate"]).text(2),
        interval(found["test_word_error_rate"]).text(2),
        *gains,
        *(interval(found[f"test_{key}_error_rate_beam"]).text(2) for key in ("phone", "word")),
        f"{found['together']['test_word_error_rate_beam']:.2f}" if found["together"] else "",
        interval(found["train_phone_error_rate"]).text(2),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _fewer(record: dict[str, Any], other: str, ours: str, key: str, how: str = "") -> Interval:
    """How many errors fewer one method makes than another, paired by seed; greedily or (how) ``"_beam"``."""
    return paired(*(record["results"][name][f"test_{key}_error_rate{how}"] for name in (other, ours)))


def _apart(record: dict[str, Any], other: str, ours: str, key: str, how: str = "") -> str:
    """What the intervals allow to say of two methods' errors."""
    fewer = _fewer(record, other, ours, key, how)
    if not fewer.apart:
        return "no different"
    return f"{'fewer' if fewer.mean > 0 else 'more'} by {abs(fewer.mean):.2f} ± {fewer.half:.2f}"


def _verdict(record: dict[str, Any]) -> str:
    """The alignments against likelihood continued and the controls, and the best system against others."""
    results, told = record["results"], []
    for ours in _OURS:
        for other in _OTHERS:
            if ours not in results or other not in results:
                continue
            found = [
                _apart(record, other, ours, key, how) for how in ("", "_beam") for key in ("phone", "word")
            ]
            told.append(
                f"- {ours} against {other}: phone errors {found[0]}, word errors {found[1]}; "
                f"with the beam, phone errors {found[2]}, word errors {found[3]}."
            )
    published = _published(record)
    if published:
        others = "; ".join(f"{who} {rate:.1f}" for who, rate in published.items())
        who, rate = _best(record)
        told.append(
            f"- The best system on the development set, {who}, beam {record['config']['beam']}: "
            f"{rate:.2f} %. Published word errors (%): {others}."
        )
    return "\n".join([*told, *_by_errors(record)])


def _by_errors(record: dict[str, Any]) -> list[str]:
    """Words by their numbers of errors: a line, or none where they were not recorded."""
    told = []
    for name, found in record["results"].items():
        if "test_words_by_errors" in found:
            shares = (interval(values).mean for values in zip(*found["test_words_by_errors"], strict=True))
            told.append(f"{name} {' / '.join(f'{share:.1f}' for share in shares)}")
    return [f"- Words with no error / one / two / more (%): {'; '.join(told)}."] if told else []


def _published(record: dict[str, Any]) -> dict[str, float]:
    """What others reported for these words; none where the record is of some of them."""
    whole = record["config"]["words"] is None
    return PUBLISHED.get(record["config"]["corpus"], {}) if whole else {}


def _best(record: dict[str, Any]) -> tuple[str, float]:
    """The system that is best on the development set, and its word errors on the test set."""
    results = record["results"]
    if results[PRETRAINED]["together"]:
        name = min(results, key=lambda key: results[key]["together"]["dev_phone_error_rate_beam"])
        return f"{name} of all seeds together", results[name]["together"]["test_word_error_rate_beam"]
    name = min(results, key=lambda key: interval(results[key]["dev_phone_error_rate"]).mean)
    return name, interval(results[name]["test_word_error_rate_beam"]).mean


def recorded(results: Path) -> dict[str, dict[str, Any]]:
    """Records by name, CMUdict first."""
    found = {
        path.stem.removeprefix("align-"): json.loads(path.read_text(encoding="utf-8"))
        for path in results.glob("align-*.json")
    }
    return dict(sorted(found.items(), key=lambda item: (not item[0].startswith("cmudict"), item[0])))


def page(results: Path = RESULTS) -> str:
    """The whole page."""
    records = recorded(results)
    text = _INTRODUCTION + summary(records.values())
    text += "".join(section(name, record) for name, record in records.items())
    lessons = results / "align-lessons.md"
    return text + (lessons.read_text(encoding="utf-8") if lessons.exists() else "")


def main(argv: list[str] | None = None) -> None:
    write("align", page, recorded, figures.draw, argv, overview)


if __name__ == "__main__":
    main()
