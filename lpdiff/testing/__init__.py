"""What tests need: a contract that every backend passes, random LPs, a zoo, and oracles.

    class TestMine(lpdiff.testing.BackendContract):
        backend = MyBackend()

Everything here but ``BackendContract`` works without pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .generate import KINDS, random_lp
from .oracles import OptimalFace, enumerate_vertices, finite_difference, optimal_face
from .zoo import Specimen, zoo

if TYPE_CHECKING:
    from .contract import BackendContract

__all__ = [
    "KINDS",
    "BackendContract",
    "OptimalFace",
    "Specimen",
    "enumerate_vertices",
    "finite_difference",
    "optimal_face",
    "random_lp",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name == "BackendContract":  # imports pytest
        from .contract import BackendContract

        return BackendContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
