"""Alignment of two sequences as a loss: global, semi-global, local; linear or affine gaps; in a band."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import torch

from lpdiff import evaluate

from .base import AbstractResult, ProblemModule, SolveOptions, named, read_lengths
from .gaps import AlignmentProblem, Free

__all__ = [
    "Alignment",
    "GlobalAlignment",
    "LocalAlignment",
    "SemiGlobalAlignment",
    "global_alignment",
    "local_alignment",
    "semi_global_alignment",
]

ENDS = ("rows_start", "rows_end", "cols_start", "cols_end")


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(AbstractResult):
    """Optimal alignments of a batch.

    Attributes:
        value: (*batch,) costs of the alignments, with exact generalized gradients in the costs and the gaps.
    """

    _columns: torch.Tensor | None  # their number, (*batch,), where not all

    @cached_property
    def pairs(self) -> torch.Tensor:
        """(*batch, K, 2) int64: the pairs (row, column) from the start, padded with -1."""
        return self._shaped(torch.stack(self._paired, -1))

    @cached_property
    def row_to_column(self) -> torch.Tensor:
        """(*batch, n) int64: the column each row is paired with, or -1."""
        return self._map(0, self._problem.n)

    @cached_property
    def column_to_row(self) -> torch.Tensor:
        """(*batch, m) int64: the row each column is paired with, or -1."""
        return self._map(1, self._problem.m)

    @property
    def indicator(self) -> torch.Tensor:
        """The derivative of the value in the costs, in their shape: 1 where a pair is made, dense.

        Piecewise constant: it carries a gradient only under a rule (``gradient=``).
        """
        return self.evaluation.indicator(0)

    @property
    def row_gaps(self) -> torch.Tensor:
        """(*batch, n): 1 where the row is left out and paid for. Free ends do not count."""
        found = self.evaluation.indicator(1)
        return found + self.evaluation.indicator(3) if self._problem.affine else found

    @property
    def col_gaps(self) -> torch.Tensor:
        """(*batch, m): 1 where the column is left out and paid for. Free ends do not count."""
        found = self.evaluation.indicator(2)
        return found + self.evaluation.indicator(4) if self._problem.affine else found

    @property
    def gap_count(self) -> torch.Tensor:
        """(*batch,) int64: the rows and columns that are left out and paid for."""
        count = self.evaluation.total(1) + self.evaluation.total(2)
        return (count + self.gap_openings if self._problem.affine else count).round().to(torch.int64)

    @property
    def gap_openings(self) -> torch.Tensor:
        """(*batch,) int64: the gaps that are opened; affine gaps only."""
        if not self._problem.affine:
            raise AttributeError("gap_openings: linear gaps are not opened; give gap_open=...")
        return (self.evaluation.total(3) + self.evaluation.total(4)).round().to(torch.int64)

    def decode(self) -> list[np.ndarray]:
        """The pairs of each item (of the batch in a row), (k, 2) int64 arrays of (row, column)."""
        rows, columns = (part.numpy() for part in self._paired)
        return [np.stack([r[r >= 0], c[r >= 0]], -1) for r, c in zip(rows, columns, strict=True)]

    @property
    def _problem(self) -> AlignmentProblem:
        problem = self.evaluation.problem
        assert isinstance(problem, AlignmentProblem)
        return problem

    @cached_property
    def _paired(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and columns of the pairs, (B, K) each, -1 where padded."""
        problem = self._problem
        index, weight = self.evaluation.moments[0]
        paired = weight > 0.5
        if problem.vocabulary is None:
            row, column = index // max(problem.m, 1), index % max(problem.m, 1)
        else:
            # The costs tell the row and the token; the columns are those that no gap leaves out, in turn.
            row = index // problem.vocabulary
            left = torch.zeros(len(index), problem.m, dtype=torch.bool)
            for k in (2, 4) if problem.affine else (2,):
                at, times = self.evaluation.moments[k]
                left |= torch.zeros_like(left, dtype=torch.float64).scatter_add(1, at, times) > 0.5
            if self._columns is not None:
                number = self._columns.expand(self.evaluation.inputs.batch_shape)
                left |= torch.arange(problem.m) >= number.reshape(-1, 1)
            column = left.to(torch.int8).argsort(dim=1, stable=True)[:, : index.shape[1]]
        return torch.where(paired, row, -1), torch.where(paired, column, -1)

    def _map(self, side: int, size: int) -> torch.Tensor:
        here, there = self._paired[side], self._paired[1 - side]
        wide = torch.full((len(here), size + 1), -1)
        wide.scatter_(1, torch.where(here < 0, size, here), there)
        return self._shaped(wide[:, :size].contiguous())

    def _shaped(self, tensor: torch.Tensor) -> torch.Tensor:
        inputs = self.evaluation.inputs
        return inputs.like_user(tensor.reshape(*inputs.batch_shape, *tensor.shape[1:]))


def global_alignment(
    costs: Any,
    *,
    gap: Any = 1.0,
    gap_open: Any = None,
    row_gap: Any = None,
    col_gap: Any = None,
    row_open: Any = None,
    col_open: Any = None,
    lengths: tuple[Any, Any] | None = None,
    band: int | tuple[int, int] | None = None,
    **how: Unpack[SolveOptions],
) -> Alignment:
    r"""Global alignment (Needleman-Wunsch): each row is paired with a column or left out, in order.

    .. math::

        z = \min_x \sum_{ij} C_{ij} x_{ij} + \sum_i g_i\, r_i + \sum_j h_j\, s_j

    over the paths x through the lattice of (rows used, columns used): x_ij = 1 where row i and column j pair,
    r_i = 1 where row i is left out, s_j = 1 where column j is. The LP is a shortest path on an acyclic
    graph of (n+1)(m+1) nodes (``path``); a network matrix, so its vertices are alignments. The compiled
    solver takes about 1 ns a cell and an eighth of a byte a cell and comparison. With ``gap_open`` gaps are
    affine: the first symbol of a gap costs ``gap_open``, each further one ``gap``.

    Args:
        costs: (*batch, n, m), any signs; float32 is read as it is. +inf forbids a pair.
        gap: What leaving out a row or a column costs: a number, or broadcastable to (*batch, n) and
            (*batch, m): (*batch, 1) for one a problem. May carry gradients, as all that follow.
        gap_open: What the first symbol of a gap costs, instead of ``gap``. None: linear gaps.
        row_gap, col_gap, row_open, col_open: The same for rows (*batch, n) and columns (*batch, m) apart.
        lengths: A pair of lengths of the rows and of the columns, each (*batch,) integers, a mask (*batch, n)
            that is True first and then False, or None. What stands beyond is not read.
        band: Only nodes (rows used, columns used) with -low <= columns - rows <= high; one number for both.
        how: How to solve, see ``SolveOptions``.

    Returns:
        Alignment: the value, pairs, gaps.

    Raises:
        ValueError: shapes, lengths beyond the matrix, a band that does not reach the end; it names the item.
        SolveError: NaN or -inf costs; no alignment without a forbidden step.

    References:
        Needleman and Wunsch 1970; Gotoh 1982; as a loss: Gao, Zhang, Panahi, Arodz, arXiv 1910.08211.

    Example:
        >>> costs = torch.rand(8, 20, 30, requires_grad=True)
        >>> global_alignment(costs, gap=0.7).value.mean().backward()
    """
    gaps = gap_options(gap, gap_open, row_gap, col_gap, row_open, col_open)
    return align_costs(costs, gaps, lengths, band=band, **how)


def semi_global_alignment(
    costs: Any,
    *,
    free: str | Collection[str] = ("rows_start", "rows_end"),
    gap: Any = 1.0,
    gap_open: Any = None,
    row_gap: Any = None,
    col_gap: Any = None,
    row_open: Any = None,
    col_open: Any = None,
    lengths: tuple[Any, Any] | None = None,
    band: int | tuple[int, int] | None = None,
    **how: Unpack[SolveOptions],
) -> Alignment:
    """Global alignment whose end gaps cost nothing on chosen sides.

    The LP of ``global_alignment`` with a source and a sink joined to the nodes where a path may begin and
    end, still a shortest path on an acyclic graph. By default the columns are found inside the rows
    (fitting): rows before the first and after the last column are free.

    Args:
        costs: (*batch, n, m).
        free: Which ends: any of ``"rows_start"``, ``"rows_end"``, ``"cols_start"``, ``"cols_end"``, or
            ``"all"`` (overlap).
        gap, gap_open, row_gap, col_gap, row_open, col_open, lengths, band, how: See ``global_alignment``.
            Free ends run on outside a band.

    Raises:
        ValueError, SolveError: as ``global_alignment``.

    Example:
        >>> semi_global_alignment(costs, free=("cols_start", "cols_end"), gap=0.7).value.mean().backward()
    """
    ends = (free,) if isinstance(free, str) else tuple(free)
    ends = ENDS if ends == ("all",) else ends
    unknown = [end for end in ends if end not in ENDS]
    if unknown:
        raise ValueError(f"free: unknown end {unknown[0]!r}; expected some of {', '.join(ENDS)}, or 'all'")
    flags = ("rows_start" in ends, "rows_end" in ends, "cols_start" in ends, "cols_end" in ends)
    gaps = gap_options(gap, gap_open, row_gap, col_gap, row_open, col_open)
    return align_costs(costs, gaps, lengths, band=band, free=flags, **how)


def local_alignment(
    costs: Any,
    *,
    gap: Any = 1.0,
    gap_open: Any = None,
    row_gap: Any = None,
    col_gap: Any = None,
    row_open: Any = None,
    col_open: Any = None,
    lengths: tuple[Any, Any] | None = None,
    band: int | tuple[int, int] | None = None,
    **how: Unpack[SolveOptions],
) -> Alignment:
    """Local alignment (Smith-Waterman, as a minimum): the best alignment of any stretch with any stretch.

    The LP of ``global_alignment`` with a source joined to every node and a sink every node is joined to. The
    empty alignment of value 0 is always possible, so the value is at most 0, and pairs worth making have
    negative costs: give scores as ``-scores``, and the best score is ``-value``.

    Args:
        costs: (*batch, n, m).
        gap, gap_open, row_gap, col_gap, row_open, col_open, lengths, band, how: See ``global_alignment``.

    Raises:
        ValueError, SolveError: as ``global_alignment``.

    References:
        Smith and Waterman 1981.

    Example:
        >>> (-local_alignment(-scores, gap=0.7).value).mean().backward()
    """
    gaps = gap_options(gap, gap_open, row_gap, col_gap, row_open, col_open)
    return align_costs(costs, gaps, lengths, band=band, local=True, **how)


class GlobalAlignment(ProblemModule):
    """``global_alignment`` as a module that holds its options; call it with the costs.

    Example:
        >>> layer = GlobalAlignment(gap=nn.Parameter(torch.tensor(0.7)))
        >>> layer(costs, lengths=(n, m)).value.mean().backward()
    """

    function = staticmethod(global_alignment)


class SemiGlobalAlignment(ProblemModule):
    """``semi_global_alignment`` as a module that holds its options."""

    function = staticmethod(semi_global_alignment)


class LocalAlignment(ProblemModule):
    """``local_alignment`` as a module that holds its options."""

    function = staticmethod(local_alignment)


# -- from options to the problem ---------------------------------------------------------------------------


def gap_options(
    gap: Any, gap_open: Any, row_gap: Any, col_gap: Any, row_open: Any, col_open: Any
) -> dict[str, Any]:
    """The options of gaps by name."""
    sides = {"row_gap": row_gap, "col_gap": col_gap, "row_open": row_open, "col_open": col_open}
    return {"gap": gap, "gap_open": gap_open, **sides}


def align_costs(
    costs: Any,
    gaps: dict[str, Any],
    lengths: tuple[Any, Any] | None,
    *,
    free: Free = (False,) * 4,
    local: bool = False,
    band: int | tuple[int, int] | None = None,
    names: Any = None,
    **how: Unpack[SolveOptions],
) -> Alignment:
    """Checked options to a problem, solved. ``names``: (*batch, m), the column of costs each column has."""
    costs = costs if isinstance(costs, torch.Tensor) else np.asarray(costs)
    if costs.ndim < 2:
        raise ValueError(f"costs: expected shape (*batch, n, m), got {tuple(costs.shape)}")
    n, m = costs.shape[-2], costs.shape[-1] if names is None else names.shape[-1]
    affine = any(gaps[key] is not None for key in ("gap_open", "row_open", "col_open"))
    given = [read_gap("row_gap", gaps, "gap", n), read_gap("col_gap", gaps, "gap", m)]
    if affine:
        given += [read_gap("row_open", gaps, "gap_open", n), read_gap("col_open", gaps, "gap_open", m)]
    rows: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    if lengths is not None:
        batch = [tuple(costs.shape[:-2]), *(tuple(gap.shape[:-1]) for gap in given)]
        batch += [] if names is None else [tuple(names.shape[:-1])]
        rows, columns = read_pair(lengths, n, m, tuple(np.broadcast_shapes(*batch)))
    problem = AlignmentProblem(
        n,
        m,
        affine,
        free,
        local,
        None if band is None else read_band(band, rows, columns, (n, m), unless=local or any(free)),
        None if names is None else costs.shape[-1],
    )
    more = () if names is None else (names,)
    found = evaluate(problem, costs, *given, rows, columns, *more, **how)
    return Alignment(found.value, found, columns)


def read_gap(name: str, gaps: dict[str, Any], both: str, size: int) -> torch.Tensor | np.ndarray:
    """A gap's costs, (*batch, size), out of its own option or the one for both sides."""
    value = gaps[both] if gaps[name] is None else gaps[name]
    told = both if gaps[name] is None else name
    if value is None:
        raise ValueError(
            f"{told}: affine gaps need it on both sides; give gap_open, or row_open and col_open"
        )
    if isinstance(value, (int, float)):
        return _constant(float(value), size)
    value = value if isinstance(value, torch.Tensor) else np.asarray(value)
    if value.ndim and value.shape[-1] not in (1, size):
        raise ValueError(
            f"{told}: expected a number or a shape that broadcasts to (*batch, {size}), got "
            f"{tuple(value.shape)}; one number a problem has shape (*batch, 1)"
        )
    if isinstance(value, torch.Tensor):
        return value.expand(*value.shape[:-1], size)
    return np.broadcast_to(value, (*value.shape[:-1], size))


@functools.lru_cache(maxsize=256)
def _constant(value: float, size: int) -> np.ndarray:
    found = np.full(size, value)
    found.flags.writeable = False
    return found


def read_pair(
    lengths: tuple[Any, Any], n: int, m: int, batch_shape: tuple[int, ...], *, least: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The lengths of rows and columns, (*batch,) int64."""
    if not isinstance(lengths, (tuple, list)) or len(lengths) != 2:
        raise ValueError(
            f"lengths: expected a pair (of the rows, of the columns), either may be None; got "
            f"{type(lengths).__name__}"
        )
    return (
        read_lengths("rows", lengths[0], n, batch_shape, least=least),
        read_lengths("columns", lengths[1], m, batch_shape, least=least),
    )


def read_band(
    band: int | tuple[int, int],
    rows: torch.Tensor | None,
    columns: torch.Tensor | None,
    sizes: tuple[int, int],
    *,
    unless: bool,
) -> tuple[int, int]:
    """A band (low, high), which must hold the end of each item unless paths may end elsewhere."""
    low, high = (band, band) if isinstance(band, int) else (int(k) for k in band)
    if low < 0 or high < 0:
        raise ValueError(f"band: expected numbers of at least 0, got {band}")
    apart = torch.as_tensor(sizes[1] if columns is None else columns)
    apart = apart - (sizes[0] if rows is None else rows)
    wrong = ((apart > high) | (apart < -low)).nonzero()
    if len(wrong) and not unless:
        item = tuple(int(k) for k in wrong[0])
        there = apart[item] if item else apart
        raise ValueError(
            f"band: {named(item)} has {int(there)} more columns than rows, so no path within -{low} <= "
            f"columns - rows <= {high} reaches its end; widen the band to {abs(int(there))}"
        )
    return low, high
