"""Pronouncing dictionaries: readers, splits, and what a batch is made of.

All files are alike: a line is a word, a tab, and its phones between spaces; several lines of a word are
alternative pronunciations. The classic split of CMUdict (``g014b2b.train``, ``g014b2b.test``) has no
development part: its words are put into the order of their CRC-32, of which the first become the
development set and the next the training set. So smaller sets lie within larger ones, and neither seeds
nor the order of the file matter. The subset that ships with lpdiff is drawn by this rule too (``cmudict/``).
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIGMORPHON = ("dut", "fre", "gre", "hbs_latn", "ice", "kor")
CORPORA = ("cmudict-small", "cmudict", *SIGMORPHON)
DEV_WORDS = 2400  # of CMUdict
END = 0  # ends a pronunciation, and pads it
UNKNOWN = 0  # a letter that training did not show

Phones = tuple[str, ...]
Lexicon = dict[str, tuple[Phones, ...]]
"""Words with their pronunciations, at least one each."""


@dataclass(frozen=True)
class Corpus:
    """A dictionary in three parts that share no word."""

    train: Lexicon
    dev: Lexicon
    test: Lexicon


def parse(lines: Iterable[str], source: str) -> Lexicon:
    """Words and pronunciations; a pronunciation that is told twice counts once.

    Raises:
        ValueError: a line that is not a word, a tab and phones; it names the line.
    """
    found: dict[str, dict[Phones, None]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word, tab, phones = line.rstrip("\r\n").partition("\t")
        if not tab or not word or not phones.split():
            raise ValueError(
                f"{source}, line {number}: expected a word, a tab and phones between spaces, got {line!r}"
            )
        found.setdefault(word, {})[tuple(phones.split())] = None
    return {word: tuple(phones) for word, phones in found.items()}


def read(path: Any, encoding: str = "utf-8") -> Lexicon:
    """A dictionary from a file, a ``Path`` or a resource of a package.

    Raises:
        FileNotFoundError, ValueError: see ``parse``.
    """
    return parse(path.read_text(encoding=encoding).splitlines(), path.name)


def write(path: Path, lexicon: Lexicon) -> None:
    """What ``read`` reads."""
    lines = (f"{word}\t{' '.join(phones)}\n" for word, several in lexicon.items() for phones in several)
    path.write_text("".join(lines), encoding="utf-8")


def drawn(lexicon: Lexicon, start: int, count: int | None) -> Lexicon:
    """``count`` words (None: all) from place ``start`` on in the order of the words' CRC-32."""
    order = sorted(lexicon, key=lambda word: (zlib.crc32(word.encode()), word))
    return {word: lexicon[word] for word in order[start : None if count is None else start + count]}


def load(
    name: str,
    folder: Path | None = None,
    *,
    words: int | None = None,
    dev_words: int | None = None,
    test_words: int | None = None,
) -> Corpus:
    """A corpus by its name.

    Args:
        name: ``"cmudict-small"``, which comes with lpdiff; ``"cmudict"``; or a language of SIGMORPHON 2021.
        folder: Where the others are found: ``folder/cmudict_g2p/g014b2b.train`` and ``.test``,
            ``folder/sigmorphon2021/kor_train.tsv`` and so on.
        words, dev_words, test_words: How many words of each part are used, by the order of their CRC-32.
            None: all of them (of CMUdict's development part ``DEV_WORDS``).

    Raises:
        ValueError: an unknown name, no folder, a file that cannot be read as a dictionary.
        FileNotFoundError: the folder lacks the corpus.
    """
    if name == "cmudict-small":
        base = resources.files(__package__) / "cmudict"
        train, dev, test = (read(base / f"{part}.tsv") for part in ("train", "dev", "test"))
    elif name not in CORPORA:
        raise ValueError(f"corpus: expected one of {', '.join(CORPORA)}, got {name!r}")
    elif folder is None:
        raise ValueError(f"corpus {name!r} does not come with lpdiff: name its folder by --data DIR")
    elif name == "cmudict":
        both, test = (_held(folder, f"cmudict_g2p/g014b2b.{part}", "latin-1") for part in ("train", "test"))
        count = DEV_WORDS if dev_words is None else dev_words
        dev, train = drawn(both, 0, count), drawn(both, count, None)
    else:
        train, dev, test = (
            _held(folder, f"sigmorphon2021/{name}_{part}.tsv") for part in ("train", "dev", "test")
        )
    return Corpus(drawn(train, 0, words), drawn(dev, 0, dev_words), drawn(test, 0, test_words))


def _held(folder: Path, file: str, encoding: str = "utf-8") -> Lexicon:
    if not (folder / file).is_file():
        raise FileNotFoundError(f"{folder} holds no {file}: give the folder that does by --data DIR")
    return read(folder / file, encoding)


def letters_of(word: str) -> str:
    """A word as the encoder reads it: Hangul taken apart into its letters, marks after their letters."""
    return unicodedata.normalize("NFD", word)


@dataclass(frozen=True)
class Alphabet:
    """Letters and phones of a training set, by number: letter 0 is unknown, phone 0 the end."""

    letters: tuple[str, ...]
    phones: tuple[str, ...]

    @classmethod
    def of(cls, lexicon: Lexicon) -> Alphabet:
        letters = {letter for word in lexicon for letter in letters_of(word)}
        phones = {phone for several in lexicon.values() for phones in several for phone in phones}
        return cls(("?", *sorted(letters)), ("</s>", *sorted(phones)))


@dataclass(frozen=True, eq=False)
class Examples:
    """Words and pronunciations as numbers, a line each.

    Attributes:
        source: N arrays of letters, of the words' lengths.
        target: (N, longest) int64 phones, padded with ``END``.
        lengths: (N,) int64, of the targets.
        word: (N,) int64, which word of the lexicon; the same for alternative pronunciations.
    """

    source: list[torch.Tensor]
    target: torch.Tensor
    lengths: torch.Tensor
    word: torch.Tensor

    @classmethod
    def of(cls, lexicon: Lexicon, alphabet: Alphabet) -> Examples:
        """Phones that training did not show get a number of their own, which no output equals."""
        letters = {letter: k for k, letter in enumerate(alphabet.letters)}
        phones = {phone: k for k, phone in enumerate(alphabet.phones)}
        lines = [
            (k, word, pronunciation)
            for k, (word, several) in enumerate(lexicon.items())
            for pronunciation in several
        ]
        longest = max((len(line[2]) for line in lines), default=0)
        target = np.full((len(lines), longest), END)
        for row, (_, _, pronunciation) in enumerate(lines):
            target[row, : len(pronunciation)] = [phones.get(p, len(phones)) for p in pronunciation]
        return cls(
            [torch.tensor([letters.get(c, UNKNOWN) for c in letters_of(word)]) for _, word, _ in lines],
            torch.from_numpy(target),
            torch.tensor([len(line[2]) for line in lines]),
            torch.tensor([line[0] for line in lines]),
        )

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, index: Sequence[int]) -> Batch:
        """Examples of one length of word."""
        at = torch.as_tensor(index)
        lengths = self.lengths[at]
        return Batch(
            torch.stack([self.source[k] for k in index]), self.target[at, : int(lengths.max())], lengths, at
        )

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All examples once, shuffled where there is a generator.

        A batch holds words of one length, so that sources need neither padding nor masks, and what is
        computed for a word does not depend on its company.
        """
        count = len(self)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        groups: dict[int, list[int]] = {}
        for k in order.tolist():
            groups.setdefault(len(self.source[k]), []).append(k)
        parts = [
            group[k : k + size] for _, group in sorted(groups.items()) for k in range(0, len(group), size)
        ]
        if generator is not None:
            parts = [parts[k] for k in torch.randperm(len(parts), generator=generator).tolist()]
        for part in parts:
            yield self.batch(part)


@dataclass(frozen=True, eq=False)
class Batch:
    """Words of one length.

    Attributes:
        source: (B, letters) int64.
        target: (B, longest) int64, padded with ``END``.
        lengths: (B,) int64, of the targets.
        index: (B,) int64, which examples.
    """

    source: torch.Tensor
    target: torch.Tensor
    lengths: torch.Tensor
    index: torch.Tensor

    def __len__(self) -> int:
        return len(self.source)
