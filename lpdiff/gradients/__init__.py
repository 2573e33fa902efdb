"""Gradient rules: what dx/dc should be. The value's gradient needs none of them; it is always exact."""

from __future__ import annotations

from typing import Any

from .abstract import (
    AbstractEstimator,
    AbstractGradient,
    AbstractProgramRule,
    Argmin,
    Entries,
    Optimum,
    Resolve,
)
from .exact import Exact
from .identity import Identity
from .imle import IMLE
from .interpolation import Interpolation
from .lpgd import LPGD
from .noise import AbstractNoise, Gaussian, Gumbel, SumOfGamma
from .perturbed import Perturbed
from .quadratic import Quadratic
from .strength import Adaptive

__all__ = [
    "IMLE",
    "LPGD",
    "NAMES",
    "AbstractEstimator",
    "AbstractGradient",
    "AbstractNoise",
    "AbstractProgramRule",
    "Adaptive",
    "Argmin",
    "Entries",
    "Exact",
    "Gaussian",
    "Gumbel",
    "Identity",
    "Interpolation",
    "Optimum",
    "Perturbed",
    "Quadratic",
    "Resolve",
    "SumOfGamma",
    "make_gradient",
]

NAMES: dict[str, type[AbstractGradient]] = {
    "exact": Exact,
    "interpolation": Interpolation,
    "lpgd": LPGD,
    "identity": Identity,
    "perturbed": Perturbed,
    "imle": IMLE,
    "quadratic": Quadratic,
}
"""The rules that can be chosen by name; a name makes a new one each time, with its defaults."""


def make_gradient(rule: Any) -> AbstractGradient | None:
    """A rule from a name or a rule object; None stays None (dx/dc is then refused).

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a rule.
    """
    if rule is None or isinstance(rule, AbstractGradient):
        return rule
    if isinstance(rule, str):
        if rule not in NAMES:
            raise ValueError(f"unknown gradient rule {rule!r}: expected one of {', '.join(NAMES)}")
        return NAMES[rule]()
    raise TypeError(
        f"gradient must be a rule such as lpdiff.gradients.Interpolation(10.0) or one of the names "
        f"{', '.join(NAMES)}, got {type(rule).__name__}"
    )
