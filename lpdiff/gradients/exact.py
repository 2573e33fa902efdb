"""The exact rule: dx/dc = 0, as it is almost everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from .abstract import AbstractGradient

__all__ = ["Exact"]


@dataclass(frozen=True)
class Exact(AbstractGradient):
    """x*(c) is piecewise constant, so its derivative is zero wherever it exists."""
