"""Solutions that are known: what the losses of ``ranking`` compare a target with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..gradients.abstract import make_generator
from ..layer import LPLayer
from ..program import LinearProgram
from .objective import objective_of

__all__ = ["SolutionPool"]


class SolutionPool(nn.Module):
    """Distinct feasible solutions of one program, as rows of one tensor: what has been seen so far.

    Its state is the buffer ``solutions``, so it copies, pickles, moves between devices, and a ``state_dict``
    keeps it (with however many rows) as it keeps weights.

    Args:
        program: What is solved to grow, and says min or max: see ``lpdiff.losses.Objective``.
        limit: The most solutions to keep; the oldest go first. None: all.
        tolerance: Solutions that differ by less in every variable are one.
        shapes: Shapes of one solution, one a tensor of costs. Known for a LinearProgram; for others
            learned at the first ``grow``, and only needed to ``add`` before that.
        how: Options of ``lpdiff.solve``, for a LinearProgram.

    Attributes:
        solutions: (K, n), the oldest first; several kinds of costs side by side.

    Raises:
        ValueError: a limit below one, a negative tolerance.
        TypeError: no program.
    """

    solutions: torch.Tensor

    def __init__(
        self,
        program: Any,
        *,
        limit: int | None = None,
        tolerance: float = 1e-6,
        shapes: Sequence[Sequence[int]] | None = None,
        **how: Any,
    ) -> None:
        super().__init__()
        if limit is not None and limit < 1:
            raise ValueError(f"SolutionPool: limit must be at least 1, or None, got {limit}")
        if not tolerance >= 0:
            raise ValueError(f"SolutionPool: tolerance must not be negative, got {tolerance}")
        self.objective = objective_of(program, how)
        self.limit, self.tolerance = limit, float(tolerance)
        known = self.objective.program
        if isinstance(known, nn.Module):
            self.program = known
        lp = known.program if isinstance(known, LPLayer) else known
        self.shapes: tuple[tuple[int, ...], ...] | None = None
        if shapes is not None:
            self.shapes = tuple(tuple(int(k) for k in shape) for shape in shapes)
        elif isinstance(lp, LinearProgram):
            self.shapes = ((lp.n,),)
        width = 0 if self.shapes is None else sum(map(math.prod, self.shapes))
        self.register_buffer("solutions", torch.zeros((0, width), dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.solutions)

    def add(self, *solutions: torch.Tensor) -> int:
        """Keep those that are new.

        Args:
            solutions: (*batch, *shape), one a kind of costs. Not checked for being feasible.

        Returns:
            How many were new.

        Raises:
            ValueError: shapes that do not fit, or are not known yet; NaN or infinity.
        """
        rows = self.flat([x.detach() for x in solutions])
        rows = rows.reshape(-1, rows.shape[-1]).to(self.solutions)
        if not bool(torch.isfinite(rows).all()):
            raise ValueError("SolutionPool.add: solutions must be finite; leave out items without an optimum")
        new = self._distinct(rows)
        kept = torch.cat([self.solutions, new])
        self.solutions = kept if self.limit is None else kept[-self.limit :]
        return len(new)

    def grow(self, *costs: torch.Tensor, share: float = 1.0, generator: Any = None) -> int:
        """Solve a random share of the items at these costs (the predicted ones), and add what is found.

        Args:
            costs: (*batch, *shape), one a kind of costs.
            share: Probability with which an item is solved.
            generator: Where the draw comes from: None (torch's default generator), a numpy or torch
                generator, or a seed, which draws the same at each call.

        Returns:
            How many were new.

        Raises:
            ValueError: a share outside [0, 1], shapes that do not fit.
            SolveError: an item without an optimum.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"SolutionPool.grow: share must lie in [0, 1], got {share}")
        costs = tuple(c.detach() for c in costs)
        if self.shapes is None:
            value, found = self.objective.solutions(*costs)
            self.shapes = tuple(tuple(x.shape[value.dim() :]) for x in found)
            self.solutions = self.solutions.new_zeros((0, sum(map(math.prod, self.shapes))))
        self.flat(costs)  # checks their shapes
        batch = [c.shape[: c.dim() - len(shape)] for c, shape in zip(costs, self.shapes, strict=True)]
        whole = np.broadcast_shapes(*batch)
        chosen = _draw(math.prod(whole), make_generator(generator)) < share
        if not bool(chosen.any()):
            return 0
        flat = [
            c.expand(*whole, *shape).reshape(-1, *shape)[chosen.to(c.device)]
            for c, shape in zip(costs, self.shapes, strict=True)
        ]
        return self.add(*self.objective.solutions(*flat)[1])

    def flat(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Costs or solutions, (*batch, *shape) each, side by side: (*batch, n).

        Raises:
            ValueError: shapes that do not fit, or are not known yet.
        """
        if self.shapes is None:
            raise ValueError(
                "SolutionPool: the shape of a solution is not known yet; give shapes=[(...)], or grow first"
            )
        if len(tensors) != len(self.shapes):
            raise ValueError(f"expected {len(self.shapes)} tensors, one a kind of costs, got {len(tensors)}")
        parts = []
        for tensor, shape in zip(tensors, self.shapes, strict=True):
            batch = tensor.dim() - len(shape)
            if batch < 0 or tuple(tensor.shape[batch:]) != shape:
                told = ", ".join(["*batch", *map(str, shape)])
                raise ValueError(f"expected shape ({told}), got {tuple(tensor.shape)}")
            parts.append(tensor.reshape(*tensor.shape[:batch], math.prod(shape)))
        if len(parts) == 1:
            return parts[0]
        whole = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*whole, part.shape[-1]) for part in parts], dim=-1)

    def extra_repr(self) -> str:
        told = "" if self.limit is None else f", limit={self.limit}"
        return f"{len(self)} solutions of {self.solutions.shape[1]} variables{told}"

    def _distinct(self, rows: torch.Tensor) -> torch.Tensor:
        """Those rows that are neither in the pool nor among the rows before them, in order."""
        if len(self.solutions):
            rows = rows[(_distances(rows, self.solutions) > self.tolerance).all(1)]
        # What is alike to the last bit goes at once; what is alike but for rounding, one after the other.
        _, place = np.unique(rows.cpu().numpy(), axis=0, return_index=True)
        rows = rows[torch.from_numpy(np.sort(place)).to(rows.device)]
        alike = (_distances(rows, rows) <= self.tolerance).tril(-1).cpu().numpy()
        kept = np.zeros(len(rows), dtype=bool)
        for i in range(len(rows)):
            kept[i] = not (alike[i] & kept).any()
        return rows[torch.from_numpy(kept).to(rows.device)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        given = state_dict.get(f"{prefix}solutions")
        if given is not None and (self.shapes is None or given.shape[-1] == self.solutions.shape[-1]):
            self.solutions = self.solutions.new_empty(given.shape)  # a pool has as many rows as were saved
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _draw(size: int, generator: Any) -> torch.Tensor:
    """(size,) uniform numbers in [0, 1)."""
    if isinstance(generator, np.random.Generator):
        return torch.from_numpy(generator.random(size))
    device = "cpu" if generator is None else generator.device
    return torch.rand(size, generator=generator, device=device, dtype=torch.float64).cpu()


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cdist(a, b, p=float("inf"))
