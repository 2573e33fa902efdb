"""Known vertices and reference bases: LPs that differ in their costs, solved from where others ended."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp
from highspy import HighsModelStatus

from lpdiff.backend import BatchSolution
from lpdiff.backends import highs
from lpdiff.backends.highs import HiGHS
from lpdiff.backends.reference import near
from lpdiff.backends.vertices import Vertices
from lpdiff.pool import VertexPool
from lpdiff.program import LinearProgram
from lpdiff.standard import FIELDS, Data
from lpdiff.status import Status, UnsupportedError
from lpdiff.testing import BackendContract, random_lp

COLD = HiGHS(warm_start=False)
ARRAYS = ("x", "y", "status", "basic", "iterations")


class TestHiGHSCold(BackendContract):
    backend = COLD


# -- LPs ---------------------------------------------------------------------------------------------------


def packing(rng: np.random.Generator, n: int, m: int) -> LinearProgram:
    rows = rng.uniform(0, 1, (m, n)) * (rng.random((m, n)) < 0.5)
    return LinearProgram(-rng.uniform(1, 2, n), A_ub=rows, b_ub=rows.sum(axis=1) / 4 + 0.01, bounds=(0, 1))


def transport(rng: np.random.Generator, k: int, *, units: bool = False) -> LinearProgram:
    """Redundant rows, and with unit sides (an assignment) a vertex as degenerate as they come."""
    rows = sp.vstack([sp.kron(sp.eye(k), np.ones((1, k))), sp.kron(np.ones((1, k)), sp.eye(k))])
    sides = np.ones(2 * k) if units else np.tile(rng.uniform(1, 2, k), 2)
    return LinearProgram(rng.uniform(1, 2, k * k), A_eq=rows, b_eq=sides)


def tied(rng: np.random.Generator, k: int) -> LinearProgram:
    """An assignment whose costs are 1, 2 or 3."""
    lp = transport(rng, k, units=True)
    return LinearProgram(rng.integers(1, 4, k * k).astype(float), A_eq=lp.A, b_eq=np.ones(2 * k))


def families() -> Iterator[LinearProgram]:
    rng = np.random.default_rng(50)
    for kind in ("generic", "degenerate", "nonunique", "ambiguous"):
        for size in ((6, 4), (20, 10), (40, 25), (9, 20)):
            yield random_lp(rng, *size, kind=kind)  # type: ignore[arg-type]
    yield from (packing(rng, 30, 15), transport(rng, 6), transport(rng, 6, units=True), tied(rng, 5))
    yield LinearProgram(rng.normal(size=7), bounds=(-1, 2))  # no row


FAMILIES = list(families())
families_ = pytest.mark.parametrize("lp", FAMILIES, ids=lambda lp: f"{lp.name or 'lp'} {lp.n}x{lp.m}")


def varied(lp: LinearProgram, size: int, spread: float, seed: int = 51) -> Data:
    """Costs around the declared ones; ties among them stay ties half of the time."""
    rng = np.random.default_rng(seed)
    factors = 1 + spread * rng.uniform(-1, 1, (size, lp.n))
    factors[::2] = factors[::2, :1]
    return dataclasses.replace(lp.data, c=lp.data.c * factors)


def assert_same(left: BatchSolution, right: BatchSolution, items: np.ndarray | slice = slice(None)) -> None:
    """``left`` is what ``right`` has at ``items``, to the bit."""
    for name in ARRAYS:
        one, other = getattr(left, name), getattr(right, name)[items]
        assert one.shape == other.shape
        assert one.tobytes() == np.ascontiguousarray(other).tobytes(), name
    if left.certificate is not None and right.certificate is not None:
        for name in ("value", "gap", "primal_residual", "dual_residual"):
            one, other = getattr(left.certificate, name), getattr(right.certificate, name)[items]
            assert one.tobytes() == other.tobytes(), name


def check(lp: LinearProgram, data: Data, out: BatchSolution, cold: BatchSolution) -> None:
    """Values of HiGHS, and by this test's own arithmetic: x and y are those of the basis, and feasible."""
    form = lp.form
    good = out.status == Status.OPTIMAL
    values = np.sum(data.c * out.x, axis=1)
    np.testing.assert_allclose(values[good], np.sum(data.c * cold.x, axis=1)[good], rtol=1e-6, atol=1e-6)
    assert out.y is not None and out.basic is not None
    for item in np.flatnonzero(good):
        c, entries, row_lower, row_upper, lower, upper = data.item(item)
        matrix = form.matrix(entries).toarray()
        x, y, basic = out.x[item], out.y[item], out.basic[item]
        columns, active = basic[: form.n], ~basic[form.n :]
        assert basic.sum() == form.m
        activity, d = matrix @ x, c - matrix.T @ y
        scale = 1e-7 * (1 + np.abs(c).max())
        assert np.all(np.maximum(lower - x, x - upper) < 1e-7)
        assert np.all(np.maximum(row_lower - activity, activity - row_upper) < 1e-7)
        np.testing.assert_allclose(d[columns], 0, atol=scale)
        np.testing.assert_array_equal(y[~active], 0)
        kernel = matrix[np.ix_(active, columns)]
        np.testing.assert_allclose(np.linalg.solve(kernel.T, c[columns]), y[active], atol=scale, rtol=1e-7)
        for dual, point, low, high in ((d, x, lower, upper), (y, activity, row_lower, row_upper)):
            assert np.all((dual <= scale) | (np.abs(point - low) < 1e-6))
            assert np.all((dual >= -scale) | (np.abs(point - high) < 1e-6))


# -- known vertices ----------------------------------------------------------------------------------------


@families_
@pytest.mark.parametrize("spread", [0.05, 1.5])
def test_vertices_agree_with_highs(lp: LinearProgram, spread: float) -> None:
    backend, data = Vertices(), varied(lp, 40, spread)
    out, cold = backend.solve(backend.prepare(lp.form), data), COLD.solve(lp.form, data)
    # Costs of another sign may have no optimum; what has one must be found.
    np.testing.assert_array_equal(out.status == Status.OPTIMAL, cold.status == Status.OPTIMAL)
    assert np.isin(out.status, (Status.OPTIMAL, Status.ERROR)).all()
    assert (out.status == Status.OPTIMAL).sum() >= (40 if spread < 1 else 20)
    check(lp, data, out, cold)
    assert out.certificate is not None
    good = out.status == Status.OPTIMAL
    np.testing.assert_allclose(out.certificate.value[good], np.sum(data.c * out.x, axis=1)[good], rtol=1e-12)
    assert (np.abs(out.certificate.gap[good]) <= 1e-8 * (1 + np.abs(out.certificate.value[good]))).all()
    assert (out.certificate.primal_residual[good] < 1e-8).all()


def test_many_small_lps() -> None:
    rng = np.random.default_rng(52)
    pivots, solved = 0, 0
    for _ in range(150):
        n, m = rng.integers(1, 12, 2)
        kind = rng.choice(["generic", "degenerate", "nonunique", "ambiguous"])
        lp = random_lp(rng, int(n), int(m), kind=kind)
        backend, data = Vertices(), varied(lp, 8, 0.5, seed=int(n))
        out, cold = backend.solve(backend.prepare(lp.form), data), COLD.solve(lp.form, data)
        np.testing.assert_array_equal(out.status == Status.OPTIMAL, cold.status == Status.OPTIMAL)
        check(lp, data, out, cold)
        pivots, solved = pivots + int(out.iterations.sum()), solved + int((out.status == 0).sum())
    assert solved > 1000 and pivots > 300, "nothing but the known vertex was seen"


@families_
def test_vertices_do_not_depend_on_company(lp: LinearProgram) -> None:
    backend, data = Vertices(), varied(lp, 33, 0.4)
    state = backend.prepare(lp.form)
    one = backend.solve(state, data)
    for threads in (2, 3, 64):
        assert_same(backend.solve(state, data, threads=threads), one)
    order = np.random.default_rng(53).permutation(33)
    assert_same(backend.solve(state, data.take(order), threads=2), one, order)
    for item in (0, 7, 32):
        assert_same(backend.solve(state, data.take([item])), one, [item])  # type: ignore[arg-type]
    # Sides given item by item, and a state made anew, or a copy of one.
    repeated = Data(data.c, *(np.repeat(getattr(data, name), 33, axis=0) for name in FIELDS[1:]))
    assert_same(backend.solve(state, repeated), one)
    for again in (backend.prepare(lp.form), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert_same(backend.solve(again, data), one)


def test_threads_are_really_used() -> None:
    """Batches large enough for several threads (small ones stay on one): still the same bits."""
    lp = packing(np.random.default_rng(54), 30, 15)
    backend, data = Vertices(), varied(lp, 1001, 0.3)
    state = backend.prepare(lp.form)
    one = backend.solve(state, data)
    assert (one.status == Status.OPTIMAL).all() and len(np.unique(one.x.round(9), axis=0)) > 100
    for threads in (2, 3, 7):
        assert_same(backend.solve(state, data, threads=threads), one)


def test_other_sides_are_declined() -> None:
    """An item of another A, row or bound, be it by the last digit, is not the pool's, and alone in that."""
    lp = packing(np.random.default_rng(55), 12, 6)
    backend, data = Vertices(), varied(lp, 6, 0.1)
    state = backend.prepare(lp.form)
    one = backend.solve(state, data)
    assert (one.status == Status.OPTIMAL).all()
    for name in FIELDS[1:]:
        shared = getattr(lp.data, name)
        changed = np.repeat(shared, 6, axis=0)
        k = int(np.flatnonzero(np.isfinite(changed[2]))[0]) if np.isfinite(changed[2]).any() else 0
        changed[2, k] = np.nextafter(changed[2, k], 1e9) if np.isfinite(changed[2, k]) else -1e9
        out = backend.solve(state, dataclasses.replace(data, **{name: changed}))
        np.testing.assert_array_equal(out.status == Status.OPTIMAL, np.arange(6) != 2)
        others = np.array([0, 1, 3, 4, 5])
        for array in ARRAYS:
            np.testing.assert_array_equal(getattr(out, array)[others], getattr(one, array)[others])
        out = backend.solve(state, dataclasses.replace(data, **{name: changed[2:3]}))
        assert (out.status == Status.ERROR).all()


def test_costs_that_are_no_numbers_are_declined() -> None:
    lp = transport(np.random.default_rng(56), 4)
    backend, data = Vertices(), varied(lp, 5, 0.1)
    data.c[1, 3], data.c[2, 0], data.c[3, 5] = np.nan, np.inf, -np.inf
    out = backend.solve(backend.prepare(lp.form), data)
    assert out.status.tolist() == [Status.OPTIMAL, *[Status.ERROR] * 3, Status.OPTIMAL]
    data.c[1:4] = 0.0
    out = backend.solve(backend.prepare(lp.form), data)
    assert (out.status == Status.OPTIMAL).all() and not out.y[1:4].any()  # type: ignore[index]


def test_no_optimum_is_declined() -> None:
    """Costs that nothing stops: the edge is unbounded, and the general solver proves it."""
    lp = LinearProgram([1.0, 1.0], A_ub=[[1.0, -1.0]], b_ub=[1.0])
    backend = Vertices()
    state = backend.prepare(lp.form)
    out = backend.solve(state, dataclasses.replace(lp.data, c=np.array([[-1.0, -1.0], [-1.0, 2.0]])))
    assert out.status.tolist() == [Status.ERROR, Status.OPTIMAL]
    np.testing.assert_allclose(out.x[1], [1, 0])


@pytest.mark.parametrize("costs", [[-1.0, -1.0], None])
def test_declared_costs_without_an_optimum(costs: list[float] | None) -> None:
    """Then (or without any) a vertex of no costs is what is known."""
    lp = LinearProgram(costs, A_ub=[[1.0, -1.0]], b_ub=[1.0])
    backend = Vertices()
    state = backend.prepare(lp.form)
    assert len(state.pool) == 1
    data = dataclasses.replace(lp.form.declared, c=np.array([[1.0, 1.0], [-1.0, 2.0]]))
    out = backend.solve(state, data)
    assert (out.status == Status.OPTIMAL).all()
    np.testing.assert_allclose(out.x, [[0, 0], [1, 0]], atol=1e-12)


def test_an_infeasible_program_has_no_vertex() -> None:
    lp = LinearProgram([1.0], A_ub=[[1.0], [-1.0]], b_ub=[1.0, -2.0])
    backend = Vertices()
    state = backend.prepare(lp.form)
    assert len(state.pool) == 0
    out = backend.solve(state, dataclasses.replace(lp.data, c=np.ones((3, 1))))
    assert (out.status == Status.ERROR).all()
    warm = HiGHS().solve(lp.form, lp.data)
    assert warm.status[0] == Status.INFEASIBLE and 0 in warm.rays


@pytest.mark.parametrize("price", [1.0, -1.0])
def test_a_free_column_enters_either_way(price: float) -> None:
    """u is free, and nonbasic at 0 where it costs nothing; then it costs or earns."""
    lp = LinearProgram([0.0, 1.0], A=[[1.0, 1.0]], row_lower=-1, row_upper=1, bounds=[(None, None), (0, 1)])
    backend = Vertices()
    state = backend.prepare(lp.form)
    assert state.pool.places[0, 0] != 1
    out = backend.solve(state, dataclasses.replace(lp.data, c=np.array([[price, 2.0]])))
    assert out.status[0] == Status.OPTIMAL and out.iterations[0] == 1
    np.testing.assert_array_equal(out.x[0], [-price, 0])


def test_x_and_y_are_refined() -> None:
    """After many pivots a vertex is as exact as a solve with its own columns."""
    residuals = []
    for lp in (packing(np.random.default_rng(74), 60, 40), random_lp(np.random.default_rng(3), 120, 60)):
        backend, data = Vertices(), varied(lp, 20, 2.0 if lp.name is None else 3.0)
        out = backend.solve(backend.prepare(lp.form), data)
        assert (out.status == Status.OPTIMAL).all() and out.iterations.mean() > 50
        assert out.certificate is not None
        residuals += [out.certificate.primal_residual.max(), out.certificate.dual_residual.max()]
    # Without the refinement of x 1e-14 and 3e-13, without that of y 1e-13 (seen once).
    assert residuals[0] < 5e-15 and residuals[2] < 8e-14
    assert residuals[1] < 3e-14


# c, x, y of  min c'x,  0 <= x_0 - x_1 + x_2 <= 1,  x_0 in [0, 1],  x_1 in [0, inf),  x_2 free
@pytest.mark.parametrize(
    ("c", "x", "y", "fine"),
    [
        ([0, 0, 0], [0.5, 0.25, 0.125], 0, True),
        ([0, 0, 0], [1.001, 0.5, 0], 0, False),  # above a bound
        ([0, 0, 0], [-0.001, 0, 0.5], 0, False),  # below a bound
        ([0, 0, 0], [0, 0, 1.001], 0, False),  # above the row
        ([0, 0, 0], [0, 0, -0.001], 0, False),  # below the row
        ([0, 0, 0], [0, np.nan, 0.5], 0, False),
        ([-1, 1, 0], [1, 0, 0], 0, True),
        ([-1, 1, 0], [0.5, 0, 0], 0, False),  # a gap, all else fine
        ([2, -1, 1], [0, 0, 0], 1, True),
        ([2, -1.001, 1], [0, 0, 0], 1, False),  # d_1 < 0, no upper bound
        ([2, -1, 1.001], [0, 0, 0], 1, False),  # d_2 of a free column
        ([-1, 1, -1], [0, 0, 1], -1, True),
        ([-1, 1, -1], [0, 0, 1], np.nan, False),
        ([0, 1, -1e-12], [0, 0, 0.5], 0, True),  # rounding
        ([3e-10, -1e-10, 1], [0, 0, 0], 1, False),  # d_1 < 0 beside a large cost: x_1 should be more
        ([1e9, 1e9, 0], [0, 0, 0.5], 0, True),
        ([1e9 + 0.7, -1e9, 1e9], [1, 1, 0], 1e9, False),  # d_0 = 0.7: x_0 should be 0
    ],
)
def test_certificate(c: list[float], x: list[float], y: float, fine: bool) -> None:
    from lpdiff.kernels.duality import certify

    status, numbers = np.zeros(1, dtype=np.int8), np.zeros((4, 1))
    certify(
        *(np.array([0, 3], dtype=np.int32), np.arange(3, dtype=np.int32), np.array([1.0, -1.0, 1.0])),
        *(np.array([0.0, 0.0, -np.inf, 0.0]), np.array([1.0, np.inf, np.inf, 1.0])),
        *(np.array([c], dtype=float), 0, 1, np.array([x], dtype=float), np.array([[float(y)]])),
        *(np.zeros((1, 4), dtype=bool), status, *numbers),
    )
    assert status[0] == (Status.OPTIMAL if fine else Status.INACCURATE)
    if fine:
        assert numbers[0, 0] == np.dot(c, x) and abs(numbers[1, 0]) < 1e-8


@pytest.mark.parametrize(
    ("cost", "side"), [(2.0**-40, 1.0), (1.0, 2.0**-25), (2.0**-20, 2.0**-20), (1e6, 1e4)]
)
def test_units_do_not_matter(cost: float, side: float) -> None:
    """LPs in tiny or large units have the solution that they have in ours."""
    lp = packing(np.random.default_rng(57), 15, 8)
    data = varied(lp, 12, 0.5)
    backend = Vertices()
    usual = backend.solve(backend.prepare(lp.form), data)
    other = LinearProgram(
        lp.c * cost, A_ub=lp.A, b_ub=lp.row_upper * side, bounds=np.stack([lp.lower, lp.upper], axis=1) * side
    )
    scaled = dataclasses.replace(other.data, c=data.c * cost)
    out = backend.solve(backend.prepare(other.form), scaled)
    assert (out.status == Status.OPTIMAL).all()
    np.testing.assert_allclose(out.x / side, usual.x, atol=1e-9)
    np.testing.assert_allclose(out.y / cost, usual.y, atol=1e-9)  # type: ignore[operator]


def test_what_cannot_be_taken_is_refused() -> None:
    integers = LinearProgram([1.0], [[1.0]], [1.0], integrality=True)
    with pytest.raises(UnsupportedError, match=r"without integers.*has integers.*auto"):
        Vertices().prepare(integers.form)
    tall = LinearProgram([1.0], A_ub=sp.csc_array(np.ones((513, 1))), b_ub=np.ones(513))
    with pytest.raises(UnsupportedError, match=r"at most 512 rows.*has 513 rows"):
        Vertices().prepare(tall.form)
    pool = learned(packing(np.random.default_rng(58), 6, 3), 4)
    with pytest.raises(ValueError, match="learned from another program"):
        Vertices(pool=pool).prepare(packing(np.random.default_rng(59), 6, 3).form)
    with pytest.raises(ValueError, match="pivots"):
        Vertices(pivots=-1)


def test_pivots_are_limited() -> None:
    lp = packing(np.random.default_rng(60), 30, 15)
    data = varied(lp, 50, 1.0)
    free, none, few = (Vertices(pivots=k) for k in (None, 0, 3))
    pivots = free.solve(free.prepare(lp.form), data).iterations
    assert pivots.max() > 3
    for backend, most in ((none, 0), (few, 3)):
        out = backend.solve(backend.prepare(lp.form), data)
        np.testing.assert_array_equal(out.status == Status.OPTIMAL, pivots <= most)
        assert out.iterations.max() == most


# -- pools learned from samples ------------------------------------------------------------------------------


def learned(lp: LinearProgram, size: int, spread: float = 0.3, samples: int = 60) -> VertexPool:
    data = varied(lp, samples, spread, seed=61)
    return VertexPool.learn(lp.form, data, COLD.solve(lp.form, data), size)


@families_
def test_a_pool_changes_speed_only(lp: LinearProgram) -> None:
    data = varied(lp, 30, 0.3, seed=62)
    pool = learned(lp, 8)
    assert 1 <= len(pool) <= 8
    backend = Vertices(pool=pool)
    state = backend.prepare(lp.form)
    out, cold = backend.solve(state, data), COLD.solve(lp.form, data)
    assert (out.status == Status.OPTIMAL).all()
    check(lp, data, out, cold)
    order = np.random.default_rng(63).permutation(30)
    assert_same(backend.solve(state, data.take(order), threads=2), out, order)
    # Learned again, copied, pickled: the same pool, and the same bits.
    for again in (Vertices(pool=learned(lp, 8)), copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        assert again == backend and hash(again) == hash(backend)
        assert_same(again.solve(again.prepare(lp.form), data), out)
    assert Vertices(pool=learned(lp, 8, samples=3)) != backend or len(pool) == 1


def test_samples_need_no_pivot() -> None:
    """Every sample's own vertex is in a pool that is large enough."""
    lp = packing(np.random.default_rng(64), 12, 6)
    samples = varied(lp, 40, 1.0, seed=61)
    pool = VertexPool.learn(lp.form, samples, COLD.solve(lp.form, samples), 40)
    assert len(pool) > 3 and pool.seen.sum() == 40
    assert (np.diff(pool.seen) <= 0).all()
    out = pool.propose(samples)
    assert (out.status == Status.OPTIMAL).all() and not out.iterations.any()
    fewer = VertexPool.learn(lp.form, samples, COLD.solve(lp.form, samples), 2)
    np.testing.assert_array_equal(fewer.points, pool.points[:2])
    assert fewer.propose(samples).iterations.any()
    assert repr(fewer).startswith("VertexPool(2 vertices of ")


def test_a_pool_is_of_one_polyhedron() -> None:
    lp = packing(np.random.default_rng(65), 6, 3)
    data = dataclasses.replace(varied(lp, 4, 0.1), row_upper=np.repeat(lp.data.row_upper, 4, axis=0))
    solution = COLD.solve(lp.form, data)
    with pytest.raises(ValueError, match="row_upper differ"):
        VertexPool.learn(lp.form, data, solution)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        VertexPool.learn(lp.form, lp.data, solution, 0)


def test_what_is_no_vertex_is_not_learned() -> None:
    lp = packing(np.random.default_rng(66), 8, 4)
    good = COLD.solve(lp.form, lp.data)
    assert good.basic is not None
    assert len(VertexPool.learn(lp.form, lp.data, good)) == 1

    def pool_of(**changes: np.ndarray) -> VertexPool:
        return VertexPool.learn(lp.form, lp.data, dataclasses.replace(good, **changes))

    assert len(pool_of(status=np.array([Status.TIME_LIMIT], dtype=np.int8))) == 0
    assert len(pool_of(basic=np.zeros_like(good.basic))) == 0
    # Bases with too many members, singular ones, infeasible ones.
    assert len(pool_of(basic=np.ones_like(good.basic))) == 0
    wrong = {"singular": 0, "infeasible": 0, "feasible": 0}
    dense = np.hstack([lp.A.toarray(), -np.eye(4)])
    for members in itertools.combinations(range(12), 4):
        basic = np.zeros((1, 12), dtype=bool)
        basic[0, list(members)] = True
        found = pool_of(basic=basic, x=np.zeros((1, 8)))  # nonbasic columns at 0
        columns = dense[:, list(members)]
        if np.linalg.matrix_rank(columns) < 4:
            kind = "singular"
        else:
            nonbasic = np.where(np.arange(12) >= 8, np.append(np.zeros(8), lp.row_upper), 0.0)
            nonbasic[list(members)] = 0.0
            point = np.linalg.solve(columns, -dense @ nonbasic)
            low = np.append(np.zeros(8), np.full(4, -np.inf))[list(members)]
            high = np.append(np.ones(8), lp.row_upper)[list(members)]
            kind = "feasible" if ((point > low - 1e-9) & (point < high + 1e-9)).all() else "infeasible"
        wrong[kind] += 1
        assert len(found) == (kind == "feasible"), members
    assert min(wrong["infeasible"], wrong["feasible"]) >= 10, wrong


def test_wrong_proposals_are_refused() -> None:
    """A pool with a vertex, an inverse or a basis that is wrong loses time, never the truth."""
    rng = np.random.default_rng(67)
    refused = 0
    for lp in (packing(rng, 10, 5), transport(rng, 4), random_lp(rng, 10, 6), tied(rng, 4)):
        data = varied(lp, 20, 0.3)
        values = np.sum(data.c * COLD.solve(lp.form, data).x, axis=1)
        pool = learned(lp, 4)
        for _ in range(60):
            name = str(rng.choice(["points", "inverses", "heads", "places"]))
            array = getattr(pool, name).copy()
            spot = tuple(int(rng.integers(k)) for k in array.shape)
            if name in ("points", "inverses"):
                array[spot] += rng.choice([-1, 1]) * 10.0 ** rng.uniform(-5, 1)
            elif name == "heads":
                array[spot] = rng.integers(lp.n + lp.m)
            else:
                array[spot] = rng.integers(4)
            out = dataclasses.replace(pool, **{name: array}).propose(data)
            good = out.status == Status.OPTIMAL
            refused += int((~good).sum())
            np.testing.assert_allclose(
                np.sum(data.c * out.x, axis=1)[good], values[good], rtol=1e-7, atol=1e-7
            )
            activity = lp.form.times(data.values, np.where(good[:, None], out.x, 0.0))[good]
            assert (activity >= data.row_lower - 1e-6).all() and (activity <= data.row_upper + 1e-6).all()
    assert refused > 500


# -- the reference basis of HiGHS ----------------------------------------------------------------------------


@families_
def test_warm_highs_agrees_with_cold(lp: LinearProgram) -> None:
    data = varied(lp, 24, 0.1)
    out, cold = HiGHS().solve(lp.form, data), COLD.solve(lp.form, data)
    assert (out.status == Status.OPTIMAL).all()
    check(lp, data, out, cold)
    if lp.m:
        assert near(lp.form, data).all()
        assert out.iterations.sum() < cold.iterations.sum()
    order = np.random.default_rng(68).permutation(24)
    for threads in (1, 2, 5):
        assert_same(HiGHS().solve(lp.form, data.take(order), threads=threads), out, order)
    for item in (0, 11):
        assert_same(HiGHS().solve(lp.form, data.take([item])), out, [item])  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(lp)).form
    assert again.derived == {}
    assert_same(HiGHS().solve(again, data.take([5])), out, [5])  # type: ignore[arg-type]
    assert_same(HiGHS().solve(copy.deepcopy(lp.form), data), out)


def test_far_and_near_side_by_side() -> None:
    """Each item is warm or cold by its own numbers, and the bits are those of either alone."""
    lp = packing(np.random.default_rng(69), 20, 10)
    close, far = varied(lp, 4, 0.1), varied(lp, 4, 1.9, seed=73)
    far.c[:, ::3] *= -1
    mixed = dataclasses.replace(lp.data, c=np.stack([close.c, far.c], axis=1).reshape(8, -1))
    assert near(lp.form, mixed).tolist() == [True, False] * 4
    out = HiGHS().solve(lp.form, mixed, threads=2)
    assert_same(HiGHS().solve(lp.form, close), out, slice(0, None, 2))
    assert_same(COLD.solve(lp.form, far), out, slice(1, None, 2))


def test_near_is_about_every_number() -> None:
    lp = packing(np.random.default_rng(70), 12, 6)
    data = varied(lp, 3, 0.1)
    assert near(lp.form, data).all()
    for name in FIELDS[1:]:
        changed = np.repeat(getattr(lp.data, name), 3, axis=0)
        k = int(np.argmax(np.abs(np.where(np.isfinite(changed[1]), changed[1], 0))))
        finite = np.isfinite(changed[1, k])
        changed[1, k] = np.nextafter(changed[1, k], 1e9) + 1e-300 if finite else -1e9
        other = dataclasses.replace(data, **{name: changed})
        assert near(lp.form, other).tolist() == [True, False, True], name
        assert_same(COLD.solve(lp.form, other.take([1])), HiGHS().solve(lp.form, other), [1])  # type: ignore[arg-type]
    # Other units are no other LP; costs of the other sign, or of nothing, are.
    sides = {name: getattr(lp.data, name) * 8 for name in ("row_lower", "row_upper", "lower", "upper")}
    assert near(lp.form, dataclasses.replace(data, c=data.c * 2.0**30, **sides)).all()
    assert not near(lp.form, dataclasses.replace(data, c=-data.c)).any()
    assert not near(lp.form, dataclasses.replace(data, c=0 * data.c)).any()
    assert not near(LinearProgram(None, A_ub=lp.A, b_ub=lp.row_upper).form, data).any()


@pytest.mark.parametrize(
    ("lp", "status"),
    [
        (LinearProgram([1.0], A_ub=[[1.0], [-1.0]], b_ub=[1.0, -2.0]), Status.INFEASIBLE),
        (LinearProgram([-1.0, -1.0], A_ub=[[1.0, -1.0]], b_ub=[1.0]), Status.UNBOUNDED),
    ],
)
def test_no_reference_without_an_optimum(lp: LinearProgram, status: Status) -> None:
    data = varied(lp, 4, 0.1)
    assert near(lp.form, data).all()
    out = HiGHS().solve(lp.form, data)
    assert (out.status == status).all() and set(out.rays) == {0, 1, 2, 3}
    assert_same(out, COLD.solve(lp.form, data))


def test_near_costs_without_an_optimum() -> None:
    """The reference has an optimum, a near item has none: found cold, with its ray, and alone in it."""
    lp = LinearProgram([1.0, 0.02], A_ub=[[1.0, -1.0]], b_ub=[1.0])
    data = dataclasses.replace(lp.data, c=np.array([[1.0, 0.02], [1.0, -0.02], [1.01, 0.01]]))
    assert near(lp.form, data).all()
    out = HiGHS().solve(lp.form, data)
    assert out.status.tolist() == [Status.OPTIMAL, Status.UNBOUNDED, Status.OPTIMAL]
    assert out.rays[1] @ data.c[1] < 0


def test_a_warm_start_that_goes_astray_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    lp = packing(np.random.default_rng(75), 12, 6)
    data, real, astray = varied(lp, 5, 0.1), highs._Worker._run, []

    def run(worker: highs._Worker, solver: object) -> HighsModelStatus:
        status = real(worker, solver)
        if solver.getOptionValue("simplex_strategy")[1] != 4:  # type: ignore[attr-defined]
            return status
        astray.append(status)
        return HighsModelStatus.kUnknown

    monkeypatch.setattr(highs._Worker, "_run", run)
    assert_same(HiGHS().solve(lp.form, data), COLD.solve(lp.form, data))
    assert len(astray) == 5


@pytest.mark.parametrize("options", [{"method": "primal"}, {"presolve": True}, {"random_seed": 3}])
def test_warm_start_with_other_options(options: dict[str, object]) -> None:
    lp = transport(np.random.default_rng(71), 6)
    data = varied(lp, 12, 0.1)
    out = HiGHS(**options).solve(lp.form, data, threads=2)  # type: ignore[arg-type]
    check(lp, data, out, COLD.solve(lp.form, data))
    assert (out.status == Status.OPTIMAL).all()
    assert_same(HiGHS(**options).solve(lp.form, data.take(slice(6, 12))), out, slice(6, 12))  # type: ignore[arg-type]


def test_limits_reach_warm_items() -> None:
    lp = packing(np.random.default_rng(72), 40, 20)
    data = varied(lp, 4, 0.1)
    out = HiGHS(iteration_limit=0).solve(lp.form, data)
    assert (out.status == Status.ITERATION_LIMIT).all()
    free = HiGHS().solve(lp.form, data)
    assert_same(HiGHS().solve(lp.form, data, time_limit=600.0), free)
