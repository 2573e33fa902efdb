"""Backends: one algorithm or solver each, behind the contract of ``lpdiff.backend``."""

from ..backend import AbstractBackend, BackendError, Capabilities, available_backends
from .glop import GLOP
from .highs import HiGHS

__all__ = [
    "GLOP",
    "AbstractBackend",
    "BackendError",
    "Capabilities",
    "HiGHS",
    "available_backends",
]
