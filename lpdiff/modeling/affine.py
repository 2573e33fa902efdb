"""Affine maps from parameters to LP data, in torch: what a modelling language compiles to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

__all__ = ["AffineMap", "ParameterSpec"]

# How far a value may stray from what its parameter was declared to be: rounding of float32, and the
# steps of finite differences.
_SLACK = 1e-5


@dataclass(frozen=True, eq=False)
class ParameterSpec:
    """A parameter: its name, its shape, and what its values were declared to be.

    ``lower`` and ``upper`` bound its entries (arrays that broadcast to ``shape``, or None);
    ``support`` marks the entries that may differ from zero (None: all); ``symmetric`` speaks of the
    last two dimensions.
    """

    name: str
    shape: tuple[int, ...]
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    support: np.ndarray | None = None
    symmetric: bool = False

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def flatten(self, value: Any) -> torch.Tensor:
        """Read one value: (*batch, *shape), anything numeric -> (*batch, size), float64, CPU.

        The solver runs there; and sums on the CPU have one order, so equal inputs give equal bits.

        Raises:
            ValueError: a shape that does not fit, or values against the parameter's declaration.
            TypeError: not numbers.
        """
        value = self._tensor(value)
        split = value.ndim - len(self.shape)
        if split < 0 or tuple(value.shape[split:]) != self.shape:
            raise ValueError(self._shape_error(tuple(value.shape)))
        value = value.to("cpu", torch.float64)
        self._check(value)
        return value.reshape(*value.shape[:split], self.size)

    def _tensor(self, value: Any) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            tensor = value if value.layout is torch.strided else value.to_dense()
        else:
            array = value.toarray() if sp.issparse(value) else value
            try:
                tensor = torch.as_tensor(np.asarray(array))
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"parameter '{self.name}': expected a tensor, an array or a number, got "
                    f"{type(value).__name__}: {error}"
                ) from None
        if tensor.is_complex():
            raise TypeError(f"parameter '{self.name}': expected real numbers, got {tensor.dtype}")
        return tensor

    def _shape_error(self, got: tuple[int, ...]) -> str:
        rank = len(self.shape)
        batch = f"(*batch, {str(self.shape)[1:].rstrip(',)')})" if rank else "(*batch)"
        hint = ""
        if rank >= 2 and got[-rank:] == self.shape[::-1]:
            hint = "; is it transposed?"
        elif np.prod(got, dtype=np.int64) == self.size:
            hint = f"; the number of entries fits: reshape it to {self.shape}"
        elif rank and got[:rank] == self.shape:
            hint = "; batch dimensions lead"
        return f"parameter '{self.name}': expected shape {batch}, got {got}{hint}"

    def _check(self, value: torch.Tensor) -> None:
        """Values against a declaration on which convexity rests would silently give a wrong LP."""
        value = value.detach()
        try:
            if self.lower is not None and (value < torch.from_numpy(self.lower) - _SLACK).any():
                raise ValueError(self._value_error("declared with a lower bound (or nonneg)"))
            if self.upper is not None and (value > torch.from_numpy(self.upper) + _SLACK).any():
                raise ValueError(self._value_error("declared with an upper bound (or nonpos)"))
            if self.support is not None:
                outside = torch.from_numpy(~self.support)
                if (torch.where(outside, value, 0.0).abs() > _SLACK).any():
                    raise ValueError(self._value_error("declared zero outside its sparsity pattern"))
            if self.symmetric and ((value - value.mT).abs() > _SLACK).any():
                raise ValueError(self._value_error("declared symmetric"))
        except RuntimeError:
            # Inside torch.func.vmap values cannot be looked at; a caller who maps is trusted.
            return

    def _value_error(self, declared: str) -> str:
        return (
            f"parameter '{self.name}' was {declared}, and the value breaks that; pass a value that "
            f"keeps it, or declare the parameter without the attribute"
        )

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True, eq=False)
class AffineMap:
    """constant + sum over parameters of M_k theta_k, kept as the coordinates of [M_1 | M_2 | ...].

    Plain gathers and sums, so it can be differentiated twice, vmapped and pickled.
    """

    constant: torch.Tensor  # (size,) float64
    rows: torch.Tensor  # (nnz,) int64
    columns: torch.Tensor  # (nnz,) int64, into the concatenated parameters
    values: torch.Tensor  # (nnz,) float64
    parameters: tuple[int, ...]  # those that take part: the result has the batch of these alone

    @classmethod
    def build(cls, constant: np.ndarray, blocks: Sequence[sp.sparray]) -> AffineMap:
        """From one sparse matrix (size, parameter size) a parameter; zero entries are dropped."""
        kept = []
        for block in blocks:
            matrix = sp.csr_array(block, copy=True)
            matrix.sum_duplicates()
            matrix.eliminate_zeros()
            kept.append(matrix)
        used = tuple(k for k, matrix in enumerate(kept) if matrix.nnz)
        stacked = sp.hstack([kept[k] for k in used], format="coo") if used else sp.coo_array((0, 0))
        order = np.lexsort((stacked.col, stacked.row))
        return cls(
            torch.from_numpy(np.array(constant, dtype=np.float64)),
            torch.from_numpy(stacked.row[order].astype(np.int64)),
            torch.from_numpy(stacked.col[order].astype(np.int64)),
            torch.from_numpy(stacked.data[order].astype(np.float64)),
            used,
        )

    @property
    def varies(self) -> np.ndarray:
        """Which outputs depend on a parameter, (size,)."""
        mask = np.zeros(len(self.constant), dtype=bool)
        mask[self.rows.numpy()] = True
        return mask

    def __call__(self, flat: Sequence[torch.Tensor]) -> torch.Tensor:
        """flat: one (*batch, size) a parameter, float64 on the CPU -> (*batch, size)."""
        used = [flat[k] for k in self.parameters]
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in used))
        theta = torch.cat([value.expand(*batch, value.shape[-1]) for value in used], dim=-1)
        # gather and scatter_add are each other's adjoints, and both are fast on the CPU.
        terms = theta.gather(-1, self.columns.expand(*batch, -1)) * self.values
        return self.constant.expand(*batch, -1).scatter_add(-1, self.rows.expand(*batch, -1), terms)
