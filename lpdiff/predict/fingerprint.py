"""What a cache of solutions belongs to, in 64 letters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..layer import LPLayer
from ..program import LinearProgram
from ..standard import FIELDS

__all__ = ["fingerprint", "is_told_by_numbers"]

# What of the options of a solve says which problem is solved; the others say how.
_DATA = ("b", "b_ub", "b_eq", "row_lower", "row_upper", "A_values", "bounds", "offset")


def is_told_by_numbers(program: Any) -> bool:
    """Whether ``fingerprint`` sees all of the program: that of a function it cannot."""
    return isinstance(_linear(program), LinearProgram)


def fingerprint(program: Any, tensors: Mapping[str, torch.Tensor], how: Mapping[str, Any]) -> str:
    """SHA-256 of a program and of numbers, the same whatever their dtype and device.

    Args:
        program: See ``lpdiff.losses.Objective``. A LinearProgram by all its numbers; anything else by its
            name, a module by what it learned, too.
        tensors: By name.
        how: Options of ``lpdiff.solve``: the data among them count.
    """
    digest = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if value is None or isinstance(value, (tuple, list)):
            digest.update(f"{name}: {'none' if value is None else len(value)};".encode())
            for k, part in enumerate(value or ()):
                add(f"{name}[{k}]", part)
            return
        array = value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else value
        array = np.ascontiguousarray(array, dtype=np.float64)
        digest.update(f"{name}: {array.shape};".encode())
        digest.update(array.tobytes())

    lp = _linear(program)
    if isinstance(lp, LinearProgram):
        form = lp.form
        for name, value in (
            *(("shape", form.shape), ("pattern", (form.indptr, form.indices))),
            *(("integrality", form.integrality), ("offset", lp.offset), ("turned", form.to_min(1.0))),
        ):
            add(name, value)
        for name in FIELDS[1:]:  # costs are given
            add(name, getattr(form.declared, name))
    else:
        digest.update(_name(program).encode())
        if isinstance(program, torch.nn.Module):
            for name, tensor in program.state_dict().items():
                add(name, tensor)
    for name in sorted(set(how) & set(_DATA)):
        add(f"shared {name}", how[name])
    for name in sorted(tensors):
        add(name, tensors[name])
    return digest.hexdigest()


def _linear(program: Any) -> Any:
    return program.program if isinstance(program, LPLayer) else program


def _name(program: Any) -> str:
    """The name of a function, or of what holds one; never an address, which is another in each process."""
    if isinstance(program, torch.nn.Module) or not hasattr(program, "__qualname__"):
        program = type(program)
    return f"{program.__module__}.{program.__qualname__}"
