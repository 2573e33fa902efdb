"""The settings of ``lpdiff demo align``, and the methods it compares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ..config import AbstractConfig
from . import losses
from .data import CORPORA
from .losses import Loss, Stopwatch

Name = Literal[
    "likelihood",
    "alignment",
    "alignment-unsharpened",
    "alignment-sampled",
    "alignment-softmax",
    "alignment-gumbel",
    "alignment-nll",
    "alignment-gaps",
    "alignment-affine",
    "alignment-annealed",
    "alignment-words",
    "alignment-mixed",
    "free-running",
    "scheduled-sampling",
    "minimum-risk",
]
NAMES: tuple[str, ...] = get_args(Name)


class Config(AbstractConfig):
    """Grapheme to phoneme: maximum likelihood first, then every method from the same network."""

    SMALL: ClassVar[dict[str, Any]] = {
        "pretraining_epochs": 15,
        "epochs": 4,
        "methods": ("likelihood", "alignment"),
        "seeds": 1,
    }
    OTHERWISE: ClassVar[frozenset[str]] = AbstractConfig.OTHERWISE | {"data"}

    seeds: int = Field(5, ge=1)
    """repetitions, with seeds one after the other"""
    corpus: str = "cmudict-small"
    """cmudict-small (comes with lpdiff), cmudict, or a language of SIGMORPHON 2021"""
    data: Path | None = None
    """folder of the corpora that do not come with lpdiff"""
    words: int | None = Field(None, ge=1)
    """words of the training set that are used (all)"""
    dev_words: int | None = Field(None, ge=1)
    """words of the development set that are used (all)"""
    test_words: int | None = Field(None, ge=1)
    """words of the test set that are used (all)"""
    methods: tuple[Name, ...] = ("likelihood", "alignment", "alignment-sampled", "free-running")
    """what goes on from the pretrained network, each for the same number of epochs"""
    pretraining_epochs: int = Field(50, ge=1)
    """passes of maximum likelihood before that"""
    epochs: int = Field(6, ge=1)
    """passes of each method"""
    batch: int = Field(64, ge=1)
    """words a step, all of one length; rare lengths give smaller batches"""
    hidden: int = Field(48, ge=1)
    """units of each GRU"""
    embedding: int = Field(32, ge=1)
    """numbers a letter and a phone"""
    attention: Literal["soft", "monotonic"] = "soft"
    """what a phone is written from: the mean of all letters by weights, or one letter, in their order"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the layers while they train; bfloat16 is half as fast again on processors that have it, four times
    slower on others"""
    dropout: float = Field(0.1, ge=0, lt=1)
    """of embeddings and before the outputs"""
    learning_rate: float = Field(4e-3, gt=0, lt=1)
    """of Adam in the first half of pretraining; in the second it falls towards 0"""
    method_learning_rate: float = Field(2e-4, gt=0, lt=1)
    """of Adam in the first epoch of a method; it falls towards 0"""
    rows: Literal["own", "all"] = "own"
    """which outputs are aligned: up to the end that is written, or all"""
    temperature: float = Field(1.0, gt=0)
    """of sampled, softmax and Gumbel feeding"""
    cost_temperature: float = Field(0.3, gt=0)
    """of the distributions whose alignment is the loss, but for alignment-unsharpened and -nll (1)"""
    gap_extension: float = Field(0.5, gt=0)
    """of alignment-affine: of several phones in a row left out or missed, what each but the first costs"""
    rate: float = Field(0.25, ge=0, le=1)
    """of scheduled sampling: how often the network is fed its own phone"""
    samples: int = Field(4, ge=1)
    """of minimum-risk training: outputs drawn a word"""
    likelihood_weight: float = Field(1.0, ge=0)
    """of alignment-mixed: the weight of the likelihood, teacher-forced, beside the alignment"""
    beam: int = Field(4, ge=1)
    """width of the beam on the test set, beside greedy decoding"""

    @field_validator("corpus")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CORPORA:
            raise ValueError(f"expected one of {', '.join(CORPORA)}")
        return name

    @model_validator(mode="after")
    def _has_data(self) -> Config:
        if self.corpus != CORPORA[0] and self.data is None:
            raise ValueError(f"corpus {self.corpus} does not come with lpdiff: name its folder by --data DIR")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: expected each once, got {', '.join(self.methods)}")
        return self

    def pretraining(self, seed: int) -> dict[str, Any]:
        """What a pretrained network depends on, as JSON has it."""
        return {**{k: v for k, v in self.what().items() if k not in _OF_METHODS}, "seed": seed}

    def method(self, name: str, seed: int) -> dict[str, Any]:
        """What a run of a method depends on, and nothing that it does not, as JSON has it."""
        told = self.what()
        kept = {k: told[k] for k, methods in _OF_METHODS.items() if name in methods}
        return {**self.pretraining(seed), **kept, "method": name}


def _aligned(*feeds: str) -> tuple[str, ...]:
    return tuple(name for name in NAMES if name.startswith("alignment") and name.endswith(feeds))


# Settings that pretraining does not depend on, and the methods that do.
_OF_METHODS: dict[str, tuple[str, ...]] = {
    "methods": (),
    "seeds": (),
    "epochs": NAMES,
    "method_learning_rate": NAMES,
    "rows": _aligned(""),
    "cost_temperature": tuple(n for n in _aligned("") if n not in ("alignment-unsharpened", "alignment-nll")),
    "gap_extension": ("alignment-affine",),
    "temperature": _aligned("sampled", "softmax", "gumbel", "words"),
    "rate": ("scheduled-sampling",),
    "samples": ("minimum-risk",),
    "likelihood_weight": ("alignment-mixed",),
}


def loss_of(
    name: str, config: Config, watch: Stopwatch, prices: losses.Prices, progress: losses.Progress
) -> Loss:
    """The loss of a method.

    ``prices`` learn with alignment-gaps, ``progress`` counts for alignment-annealed: neither does else.
    """

    def aligned(
        feed: str,
        cost: str = "expected",
        sharp: float | Callable[[], float] = config.cost_temperature,
        missing: losses.Prices | float = 1.0,
        extension: float = 1.0,
        words: bool = False,
    ) -> Callable[[], Loss]:
        return lambda: losses.alignment(
            feed,
            cost=cost,
            missing=missing,
            temperature=config.temperature,
            cost_temperature=sharp,
            extension=extension,
            rows=config.rows,
            words=words,
            stopwatch=watch,
        )

    return {
        "likelihood": lambda: losses.maximum_likelihood,
        "alignment": aligned("greedy"),
        "alignment-unsharpened": aligned("greedy", sharp=1.0),
        "alignment-sampled": aligned("sampled"),
        "alignment-softmax": aligned("softmax"),
        "alignment-gumbel": aligned("gumbel"),
        "alignment-nll": aligned("greedy", "nll", 1.0),
        "alignment-gaps": aligned("greedy", missing=prices),
        "alignment-affine": aligned("greedy", extension=config.gap_extension),
        "alignment-annealed": aligned("greedy", sharp=lambda: config.cost_temperature**progress.done),
        "alignment-words": aligned("sampled", words=True),
        "alignment-mixed": lambda: losses.mixture(
            aligned("greedy")(), losses.maximum_likelihood, config.likelihood_weight
        ),
        "free-running": losses.free_running_likelihood,
        "scheduled-sampling": lambda: losses.scheduled_sampling(config.rate),
        "minimum-risk": lambda: losses.minimum_risk(config.samples),
    }[name]()
