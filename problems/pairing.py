"""The LPs of bipartite matching, which everything here that matches is an instance of.

Pairs (i, j) of n rows and m columns, x_ij >= 0 at cost c_ij, of which an item may have some rows and columns
only. Incidence matrices of bipartite graphs are totally unimodular, so all vertices are matchings:

    FULL    min sum_ij c_ij x_ij,   sum_j x_ij = 1 and sum_i x_ij <= 1 where there are no more rows than
                                    columns (else the other way round, and both = 1 where they are equally
                                    many);
    FREE    min sum_ij c_ij x_ij + sum_i p_i s_i + sum_j q_j t_j,   sum_j x_ij + s_i = 1,   sum_i x_ij + t_j
                                    = 1, s, t >= 0: rows and columns left out, at their prices;
    EXACT   min sum_ij c_ij x_ij,   the same rows, and sum_i s_i = n - k: exactly k pairs.

All three are transport problems, hence networks. A row or a column that an item lacks has no pairs, so s = 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, LinearProgram, Status
from lpdiff.problem import Moments, Parameter, Proposal

from .base import any_of, first_item, forbidding, named, read_lengths

__all__ = [
    "EXACT",
    "FREE",
    "FULL",
    "MatchingProblem",
    "matching_program",
    "members",
    "problem_of",
    "spans",
    "there",
    "wanted_pairs",
]

FULL, FREE, EXACT = 0, 1, 2


@functools.lru_cache(maxsize=32)
def matching_program(n: int, m: int, mode: int) -> LinearProgram:
    """The LP; variables are x by rows, then s and t where there are such."""
    rows = sp.kron(sp.eye_array(n), np.ones((1, m)), format="csr")
    columns = sp.kron(np.ones((1, n)), sp.eye_array(m), format="csr")
    name = f"matching of {n} rows and {m} columns"
    if mode == FULL:
        return LinearProgram(
            A=sp.vstack([rows, columns]),
            row_lower=np.repeat([float(n <= m), float(m <= n)], [n, m]),
            row_upper=np.ones(n + m),
            name=name,
        )
    met = sp.block_array([[rows, sp.eye_array(n), None], [columns, None, sp.eye_array(m)]])
    sides = np.ones(n + m)
    if mode == EXACT:
        left = np.repeat([0.0, 1.0, 0.0], [n * m, n, m])[None]
        met, sides = sp.vstack([met, left]), np.append(sides, float(n - min(n, m)))
    return LinearProgram(A_eq=met, b_eq=sides, name=name)


@dataclass(frozen=True, eq=False)
class MatchingProblem(AbstractProblem):
    """Matchings of n rows and m columns.

    Parameters: costs; FREE: what it costs to leave out each row and each column; the rows and columns that an
    item has, from ``members``; EXACT: how many pairs.

    Attributes:
        mode: FULL, FREE or EXACT.
        masked: Whether rows, and columns, are given one by one, not as the first and how many.
        words: What a row and a column are called in messages.
    """

    n: int
    m: int
    mode: int = FULL
    masked: tuple[bool, bool] = (False, False)
    words: tuple[str, str] = ("row", "column")
    has_oracle: ClassVar[bool] = True

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        sizes = (self.n, self.m)
        prices = [Parameter(f"unmatched_{w}", (k,)) for w, k in zip(self.words, sizes, strict=True)]
        data = [
            Parameter(f"{word}s", (size + 2 if masked else 2,), kind="data")
            for word, size, masked in zip(self.words, sizes, self.masked, strict=True)
        ]
        pairs = [Parameter("pairs", (), kind="data")] if self.mode == EXACT else []
        return (
            Parameter("costs", sizes, compact=True),
            *(prices if self.mode == FREE else []),
            *data,
            *pairs,
        )

    @property
    def program(self) -> LinearProgram:
        return matching_program(self.n, self.m, self.mode)

    def data(self, *parameters: Any) -> dict[str, Any]:
        costs, *more = parameters
        prices, (rows, columns, *pairs) = more[: 2 * (self.mode == FREE)], more[2 * (self.mode == FREE) :]
        has_row, has_column = there(rows, self.n), there(columns, self.m)
        whole = bool(has_row.all()) and bool(has_column.all())
        if not whole:
            # What an item lacks is padding: it is not read, so it may be anything.
            costs = torch.where(has_row[..., :, None] & has_column[..., None, :], costs, torch.inf)
        c = costs.flatten(-2)
        if self.mode == FULL:
            data = forbidding(c)
            if not whole:
                data["row_lower"], data["row_upper"] = _sides(has_row, has_column, c.dtype)
            return data
        left = [c.new_zeros(self.n), c.new_zeros(self.m)]
        if self.mode == FREE:
            left = [torch.where(has, p, 0.0) for has, p in zip((has_row, has_column), prices, strict=True)]
        batch = np.broadcast_shapes(*(t.shape[:-1] for t in (c, *left)))
        data = forbidding(torch.cat([t.expand(*batch, t.shape[-1]) for t in (c, *left)], -1))
        if self.mode == EXACT:
            wanted = torch.as_tensor(pairs[0])
            ones = torch.ones(*wanted.shape, self.n + self.m, dtype=c.dtype)
            data["b"] = torch.cat([ones, (self.n - wanted[..., None]).to(c.dtype)], -1)
        return data

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        from lpdiff.kernels.pairs import match

        costs, *more = arrays
        prices, (rows, columns, *pairs) = more[: 2 * (self.mode == FREE)], more[2 * (self.mode == FREE) :]
        batch = max(len(a) for a in arrays if a is not None)
        rows, columns = spans(rows, batch, self.n), spans(columns, batch, self.m)
        how: dict[str, Any] = dict(zip(("row_prices", "column_prices"), prices, strict=False))
        found = match(
            costs, rows, columns, self.mode, pairs=pairs[0] if pairs else None, threads=threads, **how
        )
        moments = [Moments(found.places, found.weight)]
        if self.mode == FREE:
            sides = (found.rows_left, found.columns_left)
            moments += [Moments(np.broadcast_to(np.arange(s.shape[1]), s.shape).copy(), s) for s in sides]
        messages = {}
        for item in np.flatnonzero(found.status).tolist() if found.status.any() else ():
            if found.status[item] in (Status.INVALID, Status.INFEASIBLE):
                mine = [a[item] for a in (costs, *prices)]
                messages[item] = self._told(found.status[item], mine, rows[item], columns[item])
                if not messages[item]:  # numbers too large for the kernel
                    found.status[item] = Status.INACCURATE
        return Proposal(found.value, found.status, tuple(moments), messages)

    def _told(self, status: int, arrays: list[np.ndarray], rows: np.ndarray, columns: np.ndarray) -> str:
        """What is wrong with an item; "" nothing."""
        sides = [np.flatnonzero(_there(g, k)) for g, k in ((rows, self.n), (columns, self.m))]
        part = arrays[0][np.ix_(*sides)]
        row, column = self.words
        if status == Status.INVALID:
            wrong = np.argwhere(~(part > -np.inf))
            if len(wrong):
                i, j = (int(side[k]) for side, k in zip(sides, wrong[0], strict=True))
                return (
                    f"the cost of {row} {i} and {column} {j} is {arrays[0][i, j]}: costs must be finite, or "
                    f"+inf where a pair is forbidden"
                )
            fair = all(np.isfinite(p[side]).all() for p, side in zip(arrays[1:], sides, strict=False))
            return "" if fair else f"the price of an unmatched {row} or {column} is not finite"
        allowed, few = part < np.inf, len(sides[0]) <= len(sides[1])
        # Every one of the smaller side must have a pair; of equal sides, of both.
        for side, axis, word in ((0, 1, row), (1, 0, column)):
            barred = np.flatnonzero(~allowed.any(axis=axis))
            needed = few if side == 0 else len(sides[1]) <= len(sides[0])
            if self.mode == FULL and needed and len(barred):
                return f"{word} {int(sides[side][barred[0]])} has no pair that is allowed: its costs are +inf"
        return "the pairs that are allowed (costs below +inf) do not make a matching that large"


@functools.lru_cache(maxsize=32)
def problem_of(
    n: int, m: int, mode: int, masked: tuple[bool, bool], words: tuple[str, str]
) -> MatchingProblem:
    """A MatchingProblem, kept: it does not change."""
    return MatchingProblem(n, m, mode, masked, words)


# -- the rows and columns of an item -----------------------------------------------------------------------


def members(name: str, given: Any, size: int, batch: tuple[int, ...]) -> tuple[torch.Tensor | None, bool]:
    """Which rows (or columns) the items have.

    Args:
        name: "rows", for errors.
        given: None (all), (*batch,) integers: the first so many, or (*batch, size) booleans, holes and all.
        size: The size of the padded dimension.
        batch: The batch shape of the costs.

    Returns:
        None: all; (*batch, 2) int64, the first and how many; or, where there are holes, (*batch, 2 + size)
        int64, the first two as before, then 1 where there is one. And whether it is the last.

    Raises:
        ValueError: naming the item.
    """
    if given is None:
        return None, False
    mask = given if isinstance(given, torch.Tensor) else torch.as_tensor(np.asarray(given))
    if mask.dtype != torch.bool:
        lengths = read_lengths(name, mask, size, _joint(batch, tuple(mask.shape)))
        return torch.stack([torch.zeros_like(lengths), lengths], -1), False
    mask = mask.detach().to("cpu")
    if mask.dim() == 0 or mask.shape[-1] != size:
        raise ValueError(f"{name}: expected a mask of shape (*batch, {size}), got {tuple(mask.shape)}")
    first = mask.to(torch.int8).argmax(-1) if size else torch.zeros(mask.shape[:-1], dtype=torch.int64)
    span = torch.stack([first, mask.sum(-1)], -1)
    if torch.equal(there(span, size), mask):
        return span, False
    return torch.cat([span, mask.to(torch.int64)], -1), True


def _joint(batch: tuple[int, ...], own: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(np.broadcast_shapes(batch, own))
    except ValueError:
        return batch


def there(given: torch.Tensor | None, size: int) -> torch.Tensor:
    """What ``members`` told, as (*batch, size) booleans."""
    if given is None:
        return torch.ones(size, dtype=torch.bool)
    if given.shape[-1] == size + 2 and size:
        return given[..., 2:] != 0
    place = torch.arange(size)
    return (place >= given[..., :1]) & (place < given[..., :1] + given[..., 1:2])


def spans(given: np.ndarray | None, batch: int, size: int) -> np.ndarray:
    """What ``members`` told, (batch, 2 | size + 2), for kernels."""
    if given is not None:
        return given
    whole = np.zeros((batch, 2), np.int64)
    whole[:, 1] = size
    return whole


def _there(given: np.ndarray, size: int) -> np.ndarray:
    return there(torch.from_numpy(given), size).numpy()


def _sides(
    has_row: torch.Tensor, has_column: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """FULL: the smaller side is met; what is not there has no pairs."""
    rows, columns = has_row.sum(-1, keepdim=True), has_column.sum(-1, keepdim=True)
    batch = np.broadcast_shapes(rows.shape[:-1], columns.shape[:-1])
    sides = [has_row & (rows <= columns), has_column & (columns <= rows), has_row, has_column]
    sides = [side.expand(*batch, side.shape[-1]) for side in sides]
    return torch.cat(sides[:2], -1).to(dtype), torch.cat(sides[2:], -1).to(dtype)


def wanted_pairs(
    pairs: Any, rows: torch.Tensor | None, columns: torch.Tensor | None, n: int, m: int
) -> torch.Tensor:
    """How many pairs each item is to have, checked; int64.

    Raises:
        ValueError: naming the item.
    """
    wanted = pairs if isinstance(pairs, torch.Tensor) else torch.as_tensor(np.asarray(pairs))
    wanted = wanted.detach().to("cpu")
    if wanted.is_floating_point() or wanted.is_complex() or wanted.dtype == torch.bool:
        raise ValueError(f"pairs: expected integers, a number or (*batch,), got {wanted.dtype}")
    most = torch.minimum(there(rows, n).sum(-1), there(columns, m).sum(-1))
    try:
        wrong = (wanted < 0) | (wanted > most)
    except RuntimeError:
        raise ValueError(
            f"pairs: expected a number, or one an item of the batch {tuple(most.shape)}, got "
            f"{tuple(wanted.shape)}"
        ) from None
    if any_of(wrong):
        item = first_item(wrong)
        got, room = int(wanted.expand(wrong.shape)[item]), int(most.expand(wrong.shape)[item])
        raise ValueError(
            f"pairs: {named(item)} is to have {got} pairs, expected 0 to {room} (its smaller side)"
        )
    return wanted.to(torch.int64)
