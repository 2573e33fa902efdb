"""Cone alignment: the angle from predicted costs to the costs for which a target is optimal.

With a = A w (min), the target w is optimal for exactly the costs of its normal cone,

    K(w) = {A'y + d},   y_i >= 0 where a_i = rl_i,  <= 0 where a_i = ru_i,  free on equalities,  0 elsewhere,
                        d_j >= 0 where w_j = l_j,   <= 0 where w_j = u_j,   free where l_j = u_j, 0 elsewhere

(d = c - A'y, and these are the signs of complementary slackness). With p the nearest point of K(w) to c^,

    loss = 1 - cos(c^, p),    zero iff w is optimal for c^ (for an integer program: for its relaxation).

p is a constant of the backward pass, and yet the gradient is exact: <c^, p> = |p|^2 makes the loss
1 - |p| / |c^|, and d(|p|^2 / 2)/dc^ = p (Moreau), which gives the same. Second derivatives are not.

Tang and Khalil (2024), CaVE: a cone-aligned approach for fast predict-then-optimize with binary linear
programs, CPAIOR, arXiv 2312.07718.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch

from ..assemble import assemble
from ..layer import LPLayer
from ..program import LinearProgram
from ..standard import Data, StandardForm
from ..vertex import data_of
from .module import AbstractLoss
from .objective import Objective, left_out, reduced

__all__ = ["ConeAligned", "cone_aligned"]

_ACTIVE = {torch.float64: 1e-6, torch.float32: 1e-4}  # a side that is missed by less is met, relative
_INSIDE = {torch.float64: 1e-9, torch.float32: 1e-6}  # costs nearer to the cone lie in it, relative
_DATA = ("b", "b_ub", "b_eq", "row_lower", "row_upper", "A_values", "bounds")


def cone_aligned(
    program: Any,
    predicted: torch.Tensor,
    target: torch.Tensor,
    *,
    inner: float = 0.0,
    iterations: int | None = None,
    tolerance: float | None = None,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **data: Any,
) -> torch.Tensor:
    """CaVE: 1 - cos(c^, p), p the projection of c^ on the cone of costs for which the target is optimal.

    No solve: the cone follows from the target and the numbers of the program. Each item is a small
    nonnegative least-squares problem. Where c^ lies opposite to the cone (p = 0), p is the mean of the cone's
    normals instead, for a direction.

    Args:
        program: A LinearProgram, or an LPLayer of one.
        predicted: Costs c^, (*batch, n), with gradients.
        target: Feasible points w, (*batch, n), optimal for the true costs.
        inner: In [0, 1): p is moved by this share towards the mean of the cone's normals, into the cone, so
            that c^ does not stop at its boundary, where w ties with other points: 0.2 trains better than 0.
            The loss is still zero in the cone, but no longer continuous at its boundary.
        iterations: This many steps of accelerated projected gradients in place of the exact projection, for
            all items at once: p lies in the cone, further inside than the nearest point, so the loss is small
            but positive in the cone too (the idea of CaVE+; try 5 to 20). Much cheaper for large programs.
        tolerance: What counts as meeting a side, relative; by default 1e-6, 1e-4 for float32 targets.
        weight: (*batch,) booleans or numbers; items of weight 0 are left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        data: What else differs from what the program declares: ``b``, ``b_ub``, ``b_eq``, ``row_lower``,
            ``row_upper``, ``A_values``, ``bounds``, as in ``lpdiff.solve``. They get no gradient.

    Returns:
        (), or (*batch,) where reduction is ``"none"``.

    Raises:
        ValueError: shapes that do not fit; a target that is not feasible, naming item and side.
        TypeError: a program that is no LP; options of a solve.
    """
    lp, data = _declared(program, data)
    if not 0 <= inner < 1:
        raise ValueError(f"cone_aligned: inner must lie in [0, 1), got {inner}")
    if iterations is not None and iterations < 1:
        raise ValueError(f"cone_aligned: iterations must be at least 1, or None, got {iterations}")
    for name, tensor in (("predicted", predicted), ("target", target)):
        if tensor.dim() == 0 or tensor.shape[-1] != lp.n:
            raise ValueError(f"cone_aligned: expected {name} (*batch, {lp.n}), got {tuple(tensor.shape)}")
    shape = np.broadcast_shapes(
        predicted.shape[:-1], target.shape[:-1], () if weight is None else weight.shape
    )
    predicted, target = left_out([t.expand(*shape, lp.n) for t in (predicted, target)], weight)
    inputs = assemble(lp, {"c": predicted, **data}, {"c": predicted})
    fields, batch = inputs.tensors, inputs.batch_shape
    size = int(np.prod(batch, dtype=np.int64))
    assert fields[0] is not None
    c = fields[0].expand(size, -1)
    points = target.detach().to(device="cpu", dtype=torch.float64).expand(*batch, lp.n).reshape(size, lp.n)
    used = np.ones(size, dtype=bool)
    if weight is not None:
        used = (weight.detach() != 0).cpu().expand(batch).reshape(size).numpy()
    numbers = data_of(lp.form, [None if t is None else t.detach().numpy() for t in fields])
    if tolerance is None:
        tolerance = _ACTIVE.get(target.dtype, 3e-2)
    costs = np.where(used[:, None], c.detach().numpy(), 0.0)
    if not np.isfinite(costs).all():
        item = int(np.argwhere(~np.isfinite(costs))[0, 0])
        raise ValueError(f"cone_aligned: predicted costs{_place(item, batch)} are not finite")
    cones = _Cones(lp.form, numbers, points.numpy(), tolerance, used, batch)
    aim, inside = cones.aims(costs, _INSIDE.get(predicted.dtype, 1e-3), inner, iterations)
    p, known = torch.from_numpy(aim), torch.from_numpy(inside)
    safe = torch.where(known[:, None], 1.0, c)
    lengths = torch.linalg.vector_norm(safe, dim=1)
    loss = torch.where(known, 0.0, 1.0 - (safe * p).sum(1) / lengths)
    return reduced(inputs.like_user(loss.reshape(batch)), weight, reduction)


class ConeAligned(AbstractLoss):
    """``cone_aligned`` as a module: ``ConeAligned(lp, inner=0.2)(predicted, target)``."""

    function = staticmethod(cone_aligned)


def _declared(program: Any, data: dict[str, Any]) -> tuple[LinearProgram, dict[str, Any]]:
    if isinstance(program, Objective):
        program, data = program.program, {**program.how, **data}
    lp = program.program if isinstance(program, LPLayer) else program
    if not isinstance(lp, LinearProgram):
        raise TypeError(
            f"cone_aligned: needs the rows and bounds of a LinearProgram, got {type(program).__name__}; a "
            f"problem of the library has one, problem.program"
        )
    unknown = sorted(set(data) - set(_DATA))
    if unknown:
        raise TypeError(f"cone_aligned: solves nothing, and takes no {', '.join(unknown)}; data are {_DATA}")
    return lp, {name: value for name, value in data.items() if value is not None}


# -- the cones of a batch (NumPy) --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Normals:
    """Normals that may be active, in coordinates orthogonal to those that always are.

    The normals of equality rows and of fixed variables, along which costs may move freely, span a space, and
    ``basis`` is an orthonormal basis of the rest. What is left there of the other normals has length one.
    """

    key: bytes
    basis: np.ndarray  # (n, k)
    units: np.ndarray  # (n + m, k): of the bounds, then of the rows; zero where nothing is left
    step: float  # one over the largest eigenvalue of units' units


class _Cones:
    """Signs with which each normal is in the cone of each item, in the order of ``_Normals.units``."""

    def __init__(
        self,
        form: StandardForm,
        data: Data,
        points: np.ndarray,  # (B, n)
        tolerance: float,
        used: np.ndarray,  # (B,) bool
        batch: tuple[int, ...],
    ) -> None:
        self.form, self.data, self.used = form, data, used
        points = np.where(used[:, None], points, 0.0)
        activity = form.times(data.values, points)
        sizes = np.abs(data.values)
        largest = np.zeros((len(sizes), form.m))  # of each row: its unit
        np.maximum.at(largest.T, form.rows, sizes.T)
        room = tolerance * (largest + form.times(sizes, np.abs(points)))
        row_signs, row_free, row_out = _sides(activity, data.row_lower, data.row_upper, room)
        room = tolerance * (1 + np.abs(points))
        signs, free, out = _sides(points, data.lower, data.upper, room)
        self.signs = np.hstack([signs, row_signs])
        self.free = np.hstack([free, row_free])
        out = np.hstack([out, row_out]) & used[:, None]
        if out.any():
            item, k = np.argwhere(out)[0]
            k = int(k)
            what = f"variable {form.name_of_variable(k)}" if k < form.n else form.name_of_row(k - form.n)
            raise ValueError(
                f"cone_aligned: target{_place(int(item), batch)} is not feasible at {what}, so it is optimal "
                f"for no costs. Solve for targets with lpdiff, check the order of their variables, or raise "
                f"tolerance where they are rounded"
            )

    def aims(
        self, c: np.ndarray, near: float, inner: float, iterations: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors to align costs with, (B, n), and which costs lie in their cone, (B,)."""
        aim, inside = np.zeros_like(c), ~self.used
        shared = len(self.data.values) == 1
        groups: dict[bytes, list[int]] = {}
        for item in np.flatnonzero(self.used):
            key = self.free[item].tobytes() + (b"" if shared else self.data.values[item].tobytes())
            groups.setdefault(key, []).append(int(item))
        for items in groups.values():
            normals = self._normals(items[0])
            rest, signs = _each(c[items], normals.basis), self.signs[items]
            if iterations is None:
                left = np.stack([_residual(normals.units, s, r) for s, r in zip(signs, rest, strict=True)])
            else:
                left = _truncated(normals, signs, rest, iterations)
            lengths = np.linalg.norm(c[items], axis=1)
            aim[items] = _unit(c[items] - _each(left, normals.basis.T), near * lengths)
            inside[items] = np.linalg.norm(left, axis=1) <= near * lengths
            share = np.where(aim[items].any(axis=1), inner, 1.0)[:, None]
            if share.any():
                mean = _each(_unit(_each(signs, normals.units), 1e-12), normals.basis.T)
                aim[items] = _unit((1 - share) * aim[items] + share * mean, 1e-12)
        return aim, inside

    def _normals(self, item: int) -> _Normals:
        """Of the declared program, where only sides vary: computed once, kept with it."""
        form = self.form
        values = self.data.values[item if len(self.data.values) > 1 else 0]
        declared = np.array_equal(values, form.declared.values[0])
        key, kept = self.free[item].tobytes(), form.derived.get("cone")
        if declared and kept is not None and kept.key == key:
            return kept
        made = _make_normals(form, values, self.free[item], key)
        if declared:
            form.derived["cone"] = made
        return made


def _make_normals(form: StandardForm, values: np.ndarray, free: np.ndarray, key: bytes) -> _Normals:
    n = form.n
    matrix = form.matrix(values).toarray()
    fixed, equal = free[:n], free[n:]
    basis = np.eye(n)[:, ~fixed]
    spanning = matrix[equal][:, ~fixed]
    if spanning.size:
        # Rows of length one, so that the rank does not hang on their units.
        spanning = _unit(spanning, 1e-300)
        q, r, _ = scipy.linalg.qr(spanning.T, pivoting=True)
        rank = int((np.abs(np.diagonal(r)) > 1e-10).sum())
        basis = basis @ q[:, rank:]
    matrix = _unit(matrix, 1e-300)
    units = np.vstack([basis, matrix @ basis])
    units = _unit(units, 1e-10)
    largest = float(np.linalg.norm(units, 2)) ** 2 if units.size else 0.0
    return _Normals(key, basis, units, 1 / max(largest, 1.0))


def _sides(
    at: np.ndarray, lower: np.ndarray, upper: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs of the normals in the cone, which of them are free, and which sides are violated: (B, k)."""
    at_lower, at_upper = at <= lower + room, at >= upper - room
    free = at_lower & at_upper
    signs = at_lower.astype(np.float64) - at_upper
    # A side that is infinite is met by no finite point.
    return signs, free, (at < lower - room) | (at > upper + room)


def _residual(units: np.ndarray, signs: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """What the nearest point of the cone {sum z_k s_k u_k, z >= 0} leaves of ``rest``, (k,): exact."""
    from scipy.optimize import nnls  # slow to import, and most users of lpdiff need it not

    active = np.flatnonzero(signs)
    if not len(active) or not len(rest):
        return rest
    normals = np.ascontiguousarray((signs[active, None] * units[active]).T)
    z, _ = nnls(normals, rest, maxiter=10 * sum(normals.shape))
    return rest - normals @ z


def _truncated(normals: _Normals, signs: np.ndarray, rest: np.ndarray, iterations: int) -> np.ndarray:
    """The same after some steps from zero (Beck and Teboulle, 2009), for all items at once: (B, k)."""
    units = normals.units
    z = ahead = np.zeros_like(signs)
    t = 1.0
    for _ in range(iterations):
        slope = ((rest - (signs * ahead) @ units) @ units.T) * signs
        new = np.maximum(ahead + normals.step * slope, 0.0)
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead = new + (t - 1) / following * (new - z)
        z, t = new, following
    return rest - (signs * z) @ units


def _each(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """rows @ matrix one by one, since an item's bits must not depend on its batch."""
    return np.matmul(rows[:, None, :], matrix)[:, 0]


def _unit(rows: np.ndarray, least: Any) -> np.ndarray:
    """Rows of length one; zero where they are not longer than ``least``."""
    lengths = np.linalg.norm(rows, axis=1)
    short = lengths <= least
    return np.where(short[:, None], 0.0, rows / np.where(short, 1.0, lengths)[:, None])


def _place(item: int, batch: tuple[int, ...]) -> str:
    place = tuple(int(i) for i in np.unravel_index(item, batch)) if batch else ()
    return "" if not place else f" of item {place[0] if len(place) == 1 else place}"
