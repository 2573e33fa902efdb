"""From what users pass to the tensors of the node: names, shapes, broadcasting, dtype, device, sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .program import LinearProgram
from .standard import FIELDS
from .status import UnsupportedError

__all__ = ["Inputs", "assemble"]


@dataclass(eq=False)
class Inputs:
    """The node's inputs: float64, CPU, (1|B, k), None where the declared numbers stand."""

    tensors: list[torch.Tensor | None]  # in the order of FIELDS
    offset: torch.Tensor | None  # (*batch,), the user's dtype and device
    batch_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        self._versions = self._count_changes()

    @property
    def changed(self) -> bool:
        """Whether a tensor was written to since."""
        return self._versions != self._count_changes()

    def _count_changes(self) -> list[int]:
        return [t._version for t in self.tensors if t is not None and not t.is_inference()]

    def like_user(self, tensor: torch.Tensor) -> torch.Tensor:
        """A result in the user's dtype (floats only) and on the user's device."""
        if tensor.dtype is self.dtype and tensor.device == self.device:
            return tensor
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device=self.device, dtype=dtype)

    def refuse_gradients_but_c(self) -> None:
        for name, tensor in zip(FIELDS[1:], self.tensors[1:], strict=True):
            if tensor is not None and tensor.requires_grad:
                raise UnsupportedError(
                    f"{name} requires a gradient, but an integer program has no duals: only the value's "
                    f"gradient in c exists. Detach it, or drop integrality to differentiate the relaxation"
                )


def assemble(lp: LinearProgram, given: dict[str, Any], witnesses: Mapping[str, Any] | None = None) -> Inputs:
    """Check and arrange the data arguments of ``solve`` (those that are not None).

    Args:
        lp: The program.
        given: Data by argument name.
        witnesses: What the dtype and the device of the result follow; default: ``given``.

    Raises:
        ValueError: a shape that does not fit (got, expected, remedy), contradictory arguments.
    """
    if "c" not in given:
        lp.need_costs()
    elif len(given) == 1 and witnesses is not None and len(witnesses) == 1:
        c: torch.Tensor = given["c"]
        if witnesses.get("c") is c and _is_usual(lp, c):
            shape = tuple(c.shape[:-1])
            costs = c if c.dtype is torch.float64 else c.to(torch.float64)
            costs = lp.form.to_min(costs if len(shape) == 1 else costs.reshape(_count(shape), lp.n))
            return Inputs([costs, None, None, None, None, None], None, shape, c.dtype, c.device)
    bounds = given.get("bounds")
    _refuse_pairs(lp, bounds)
    given = {key: value for key, value in given.items() if key != "bounds"} | _bounds_pair(bounds)
    tensors = {name: _tensor(name, value) for name, value in given.items()}
    witnesses = {**(given if witnesses is None else witnesses)}
    witnesses.update(_bounds_pair(witnesses.pop("bounds", None)))
    dtype, device = _dtype_and_device(witnesses)
    # Differentiable moves: the work is float64 on the CPU whatever the leaf.
    work = {
        name: _shaped(lp, name, tensor.to(device="cpu", dtype=torch.float64))
        for name, tensor in tensors.items()
    }
    offset = work.pop("offset", None)
    shapes = {name: tuple(t.shape[:-1]) for name, t in work.items()}
    if offset is not None:
        shapes["offset"] = tuple(offset.shape)
    batch_shape = _broadcast(shapes)
    fields = _fields(lp, work)
    if "c" in fields:
        fields["c"] = lp.form.to_min(fields["c"])
    nodes = [_flat(fields[name], batch_shape) if name in fields else None for name in FIELDS]
    if all(t is None or len(t) == 1 for t in nodes) and _count(batch_shape) != 1:
        # Everything is shared, yet a batch was asked for (an offset's): let the costs carry it.
        costs = nodes[0]
        if costs is None:
            costs = torch.from_numpy(lp.form.declared.c.copy())
        nodes[0] = costs.expand(_count(batch_shape), -1)
    result = Inputs(nodes, None, batch_shape, dtype, device)
    if offset is not None:
        result.offset = result.like_user(offset)
    return result


def _is_usual(lp: LinearProgram, c: Any) -> bool:
    """A batch of costs as models predict them: the usual call, which goes without the others' detours."""
    return (
        isinstance(c, torch.Tensor)
        and (c.dtype is torch.float64 or c.dtype is torch.float32)
        and c.is_cpu
        and c.layout is torch.strided
        and c.dim() > 1
        and c.shape[-1] == lp.form.shape[1]
    )


def _count(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _bounds_pair(bounds: Any) -> dict[str, Any]:
    if bounds is None:
        return {}
    if isinstance(bounds, (torch.Tensor, np.ndarray)) or not (
        isinstance(bounds, (tuple, list)) and len(bounds) == 2
    ):
        got = f"shape {tuple(bounds.shape)}" if hasattr(bounds, "shape") else type(bounds).__name__
        raise ValueError(
            f"bounds: expected a pair (lower, upper), each (*batch, n), a number or None, got {got}; a "
            f"tensor of pairs is bounds=(t[..., 0], t[..., 1])"
        )
    return {name: side for name, side in zip(("lower", "upper"), bounds, strict=True) if side is not None}


def _refuse_pairs(lp: LinearProgram, bounds: Any) -> None:
    """For two variables, [(0, 1), (0, 5)] is a pair of sides here, and two pairs in scipy: ask."""
    if not (lp.n == 2 and isinstance(bounds, (tuple, list)) and len(bounds) == 2):
        return
    if all(isinstance(side, (tuple, list)) and len(side) == 2 for side in bounds):
        raise ValueError(
            f"bounds: {bounds!r} may mean (lower, upper) or one pair a variable; write the lower and the "
            f"upper bounds as arrays or tensors: bounds=(lower, upper)"
        )


def _tensor(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        tensor = value
    elif isinstance(value, (tuple, list)) and any(isinstance(v, torch.Tensor) for v in value):
        raise ValueError(f"{name} must be one tensor, got a {type(value).__name__} of them: torch.stack it")
    else:
        try:
            # A copy: backward reads it again, and torch does not see what NumPy writes.
            tensor = torch.from_numpy(np.array(value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be numbers, got {type(value).__name__}: {error}") from None
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be real numbers, got {tensor.dtype}")
    if tensor.layout != torch.strided:
        raise ValueError(
            f"{name} must be a dense tensor, got {tensor.layout}"
            + ("; pass the stored entries as A_values" if name.startswith("A") else "")
        )
    return tensor


def _dtype_and_device(values: Mapping[str, Any]) -> tuple[torch.dtype, torch.device]:
    """Promoted floating dtype of the torch tensors, float64 where there is none.

    NumPy arrays and numbers do not take part: a float64 constant must not promote a float32 model.
    """
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    dtype: torch.dtype | None = None
    for tensor in tensors.values():
        if tensor.is_floating_point():
            dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    devices = {str(t.device): name for name, t in tensors.items() if t.device.type != "cpu" or t.dim() > 0}
    accelerators = [d for d in devices if not d.startswith("cpu")]
    if len(accelerators) > 1 or (accelerators and len(devices) > 1):
        told = ", ".join(f"{name} on {device}" for device, name in devices.items())
        raise ValueError(f"the data lie on different devices: {told}; move them to one with .to(device)")
    return dtype or torch.float64, torch.device(accelerators[0] if accelerators else "cpu")


def _shaped(lp: LinearProgram, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Check the last dimension, and spread numbers over it."""
    if name == "offset":
        _check_offset(tensor)
        return tensor
    size, what = _size(lp, name, tensor)
    if tensor.dim() == 0:
        return tensor.expand(size)
    if tensor.shape[-1] == size:
        return tensor
    raise ValueError(
        f"{name}: expected shape (*batch, {size}), {what}, got {tuple(tensor.shape)}"
        + _hint(lp, name, tensor, size)
    )


def _check_offset(offset: torch.Tensor) -> None:
    """An offset is added after the solve, so no status could tell of a NaN in it."""
    try:
        wrong = [tuple(index) for index in (~torch.isfinite(offset.detach())).nonzero().tolist()]
    except RuntimeError:  # inside torch.func.vmap nothing can be looked at
        return
    if wrong:
        where = f" at items {', '.join(map(str, wrong[:5]))}" if offset.dim() else ""
        raise ValueError(f"offset must be finite, got NaN or infinity{where}")


def _size(lp: LinearProgram, name: str, tensor: torch.Tensor) -> tuple[int, str]:
    if name in ("c", "lower", "upper"):
        return lp.n, "one number a variable"
    if name == "A_values":
        return lp.nnz, "one number a stored entry of A"
    if name in ("b_ub", "b_eq"):
        rows = lp.blocks[name.removeprefix("b_")]
        if rows.stop == rows.start and tensor.shape[-1:] != (0,):
            raise ValueError(f"{name} was given, but the program declares no A_{name.removeprefix('b_')}")
        return rows.stop - rows.start, f"one number a row of A_{name.removeprefix('b_')}"
    return lp.m, "one number a row"


def _hint(lp: LinearProgram, name: str, tensor: torch.Tensor, size: int) -> str:
    shape = tuple(tensor.shape)
    if name == "A_values" and shape[-2:] == (lp.m, lp.n):
        return "; read the entries off a dense matrix with lp.gather(A)"
    if name == "A_values" and shape[-2:] == (lp.n, lp.m):
        return f"; this looks like A transposed, and A is ({lp.m}, {lp.n}): lp.gather(A.mT)"
    if name != "A_values" and len(shape) >= 2 and shape[-1] * shape[-2] == size:
        return f"; flatten the matrix with {name}.flatten(-2)"
    if len(shape) >= 2 and shape[0] == size:
        return f"; the batch comes first: {name}.movedim(0, -1)"
    return ""


def _fields(lp: LinearProgram, work: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The fields of Data that were given, in whatever terms."""
    direct = ("c", "lower", "upper", "row_lower", "row_upper")
    fields: dict[str, torch.Tensor] = {key: work[key] for key in direct if key in work}
    if "A_values" in work:
        fields["values"] = work["A_values"]
    sides = {key for key in ("row_lower", "row_upper") if key in work}
    blocks = {key for key in ("b_ub", "b_eq") if key in work}
    if ("b" in work) + bool(sides) + bool(blocks) > 1:
        raise ValueError(
            "the right-hand sides were given twice: use one of b; b_ub and b_eq; row_lower and row_upper"
        )
    if "b" in work:
        lower, upper = np.isfinite(lp.row_lower), np.isfinite(lp.row_upper)
        equal = lower & upper & (lp.row_lower == lp.row_upper)
        unclear = np.flatnonzero(~(equal | (lower ^ upper)))
        if len(unclear):
            row = lp.form.name_of_row(int(unclear[0]))
            kind = "ranged" if lower[unclear[0]] else "free"
            raise ValueError(
                f"b is ambiguous: {row} is {kind} ({len(unclear)} such in all); give row_lower and row_upper"
            )
        fields |= _sides(lp, work["b"], lower, upper)
    for key, block in (("b_ub", "ub"), ("b_eq", "eq")):
        if key in work:
            rows = lp.blocks[block]
            inside = np.zeros(lp.m, dtype=bool)
            inside[rows] = True
            b = work[key]
            whole = b.new_zeros(*b.shape[:-1], lp.m)
            whole = torch.cat([whole[..., : rows.start], b, whole[..., rows.stop :]], dim=-1)
            merged = _sides(lp, whole, inside & (key == "b_eq"), inside)
            for side, tensor in merged.items():
                # b_ub and b_eq write to different rows of the same side.
                fields[side] = (
                    torch.where(torch.from_numpy(inside), tensor, fields[side]) if side in fields else tensor
                )
    return fields


def _sides(
    lp: LinearProgram, b: torch.Tensor, lower: np.ndarray, upper: np.ndarray
) -> dict[str, torch.Tensor]:
    """Row sides that take b where the masks say so, and what was declared elsewhere."""
    sides = {}
    for name, mask, declared in (
        ("row_lower", lower, lp.row_lower),
        ("row_upper", upper, lp.row_upper),
    ):
        if mask.any():
            sides[name] = torch.where(torch.from_numpy(mask.copy()), b, torch.from_numpy(declared.copy()))
    return sides


def _broadcast(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    distinct = set(shapes.values())
    if len(distinct) == 1:
        return distinct.pop()
    try:
        return tuple(np.broadcast_shapes(*shapes.values()))  # torch's imports sympy: most of a second
    except ValueError:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
        raise ValueError(
            f"the batch dimensions do not broadcast: {told} (all dimensions but the last are the batch)"
        ) from None


def _flat(tensor: torch.Tensor, batch_shape: tuple[int, ...]) -> torch.Tensor:
    """(*batch, k) to (B, k), or to (1, k) where the batch shares it."""
    own, size = tuple(tensor.shape[:-1]), tensor.shape[-1]
    if _count(own) == 1:
        return tensor.reshape(1, size)
    if own != batch_shape:
        tensor = tensor.expand(*batch_shape, size)
    return tensor.reshape(_count(batch_shape), size)
