"""How far a rule moves the costs along the gradient, and the difference quotients of the vertex there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .abstract import Argmin

__all__ = ["Adaptive", "Strength", "make_strength", "norms", "positive", "slopes", "whole"]

_MOVED = 1e-9  # of a vertex: more than what rounding makes of equal ones


@dataclass(eq=False)
class Adaptive:
    """lambda = alpha |c| / |g| an item, with an alpha that each backward pass adapts: a small state.

    The gradient of a rule that compares vertices is zero unless the vertex moves, and biased where it moves
    far. So alpha grows by ``step`` while fewer entries of the difference than ``target`` are not zero, in a
    running mean, and falls otherwise:

        density <- decay density + (1 - decay) (nonzero entries an item and sample)
        alpha   <- max(0, alpha + step)  if density < target,  else  max(0, alpha - step)

    Items with g = 0 tell nothing and do not count. Minervini, Franceschi, Niepert, "Adaptive
    Perturbation-Based Gradient Estimation for Discrete Latent Variable Models", AAAI 2023, arXiv 2209.04862;
    their |c| and |g| are those of the batch, these are an item's own.

    The object is the whole state: keep it (and so the rule that holds it) for as long as it should learn. It
    copies and pickles with the rule; rules that share it adapt it together.

    Args:
        alpha: Where it stands now, >= 0.
        density: The running mean now, >= 0.
        step: Of alpha, > 0.
        decay: Of the running mean, in [0, 1).
        target: Entries of a difference that should not be zero, > 0.

    Raises:
        ValueError: a number out of range.
    """

    alpha: float = 1.0
    density: float = 1.0
    step: float = 1e-3
    decay: float = 0.9
    target: float = 1.0

    def __post_init__(self) -> None:
        for name in ("alpha", "density"):
            _number("Adaptive", name, getattr(self, name), "must not be negative", lambda v: v >= 0)
        for name in ("step", "target"):
            positive("Adaptive", name, getattr(self, name))
        _number("Adaptive", "decay", self.decay, "must lie in [0, 1)", lambda v: 0 <= v < 1)

    def learn(self, rise: np.ndarray, g: np.ndarray) -> None:
        """One step from differences of vertices, (M, B, n), under cotangents g, (B, n)."""
        asked = (g != 0).any(axis=1)
        if not asked.any():
            return
        count = np.count_nonzero(np.abs(rise[:, asked]) > _MOVED)
        seen = count / (len(rise) * np.count_nonzero(asked))
        self.density = float(self.decay * self.density + (1 - self.decay) * seen)
        self.alpha = max(0.0, self.alpha + (self.step if self.density < self.target else -self.step))


Strength = float | Adaptive
"""lambda, or what finds it."""


def make_strength(owner: str, strength: Any) -> Strength:
    """A rule's lambda from what users say: a positive number, an ``Adaptive``, or ``"adaptive"``.

    Raises:
        ValueError: none of these.
    """
    if isinstance(strength, Adaptive):
        return strength
    if isinstance(strength, str):
        if strength != "adaptive":
            raise ValueError(f"{owner}: strength must be a number or 'adaptive', got {strength!r}")
        return Adaptive()
    return positive(owner, "strength", strength)


def slopes(
    argmin: Argmin,
    points: np.ndarray,
    x: np.ndarray,
    c: np.ndarray,
    g: np.ndarray,
    strength: Strength,
    *,
    relative: bool,
    two_sided: bool,
) -> np.ndarray:
    """(x(p + lambda g) - x(p)) / lambda, or (x(p + lambda g) - x(p - lambda g)) / (2 lambda), in one call.

    lambda is the strength or, relative, strength |c| / |g| an item; a cost vector of zero has no size, and
    counts as one of norm 1. An item with g = 0 gets 0.

    Args:
        points: Costs, (M, B, n): M for each item.
        x: Optimal vertices there, (M, B, n).
        c, g: Costs and cotangents of the items, (B, n).

    Returns:
        The mean over M, (B, n).
    """
    alpha = strength.alpha if isinstance(strength, Adaptive) else strength
    size = norms(g)
    if relative or isinstance(strength, Adaptive):
        away = norms(c)
        reach = alpha * np.where(away > 0, away, 1.0)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            move = np.where(size == 0, 0.0, reach * (g / size))
            step = reach / size
    else:
        move, step = alpha * g, np.full_like(size, alpha)
    shape = points.shape
    if two_sided:
        ends = argmin(np.concatenate([points + move, points - move]).reshape(-1, shape[-1]))
        ahead, behind = ends.reshape(2, *shape)
        rise = (ahead - behind) / 2
    else:
        rise = argmin((points + move).reshape(-1, shape[-1])).reshape(shape) - x
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where((size == 0) | (step == 0), 0.0, rise.mean(axis=0) / step)
    if isinstance(strength, Adaptive):
        strength.learn(rise, g)
    return found


def norms(v: np.ndarray) -> np.ndarray:
    """Euclidean norms of rows, (B, 1), without infinite entries; no square is lost to underflow."""
    v = np.where(np.isinf(v), 0.0, v)
    peak = np.abs(v).max(axis=1, initial=0.0, keepdims=True)
    scale = np.where(peak > 0, peak, 1.0)
    return scale * np.sqrt(np.square(v / scale).sum(axis=1, keepdims=True))


def positive(owner: str, name: str, value: Any) -> float:
    """A positive, finite number.

    Raises:
        ValueError: it is none.
    """
    return _number(owner, name, value, "must be positive", lambda v: v > 0)


def whole(owner: str, name: str, value: Any) -> int:
    """A whole number of at least 1.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{owner}: {name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _number(owner: str, name: str, value: Any, asked: str, holds: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, (bool, str)) or not np.isfinite(number) or not holds(number):
        raise ValueError(f"{owner}: {name} {asked}, got {value!r}")
    return number
