"""Backends: one algorithm or solver each, behind the contract of ``lpdiff.backend``."""

from ..backend import AbstractBackend, BackendError, Capabilities, available_backends
from .highs import HiGHS

__all__ = [
    "AbstractBackend",
    "BackendError",
    "Capabilities",
    "HiGHS",
    "available_backends",
]
