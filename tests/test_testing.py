"""lpdiff.testing itself: the generator keeps its promises, the oracles know what is known by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lpdiff import LinearProgram, Status
from lpdiff.testing import (
    KINDS,
    enumerate_vertices,
    finite_difference,
    optimal_face,
    random_lp,
    zoo,
)


def sides(lower: np.ndarray, upper: np.ndarray) -> dict[str, int]:
    low, high = np.isfinite(lower), np.isfinite(upper)
    return {
        "=": int((low & high & (lower == upper)).sum()),
        "boxed": int((low & high & (lower < upper)).sum()),
        ">=": int((low & ~high).sum()),
        "<=": int((high & ~low).sum()),
        "free": int((~low & ~high).sum()),
    }


# -- random_lp -------------------------------------------------------------------------------------


def test_every_kind_of_row_and_bound_appears() -> None:
    rng = np.random.default_rng(51)
    programs = [random_lp(rng, 12, 16) for _ in range(10)]
    for kind in ("=", "boxed", ">=", "<=", "free"):
        assert sum(sides(lp.lower, lp.upper)[kind] for lp in programs) >= 5
        assert sum(sides(lp.row_lower, lp.row_upper)[kind] for lp in programs) >= 5
    assert {random_lp(rng, 3, 2).sense for _ in range(20)} == {"min", "max"}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_what_they_say(kind: str) -> None:
    """By enumeration: which of x and the duals are unique, and that x's optimal face is bounded."""
    rng = np.random.default_rng(52)
    several_x = several_y = 0
    for _ in range(25):
        lp = random_lp(rng, 5, 3, kind=kind)
        face = optimal_face(lp)
        several_x += len(face.x) > 1
        several_y += len(face.y) > 1 or not face.y_bounded
        assert face.x_bounded
        if kind == "generic":
            assert face.y_bounded
        if kind in ("generic", "degenerate"):
            assert len(face.x) == 1
        if kind in ("generic", "nonunique"):
            assert len(face.y) == 1
    if kind in ("nonunique", "ambiguous"):
        assert several_x >= 10
    if kind in ("degenerate", "ambiguous"):
        assert several_y >= 10


def test_generic_keeps_its_margins() -> None:
    """No basic variable or row is nearer than 0.5 to a bound, no nonbasic dual nearer to 0."""
    rng = np.random.default_rng(53)
    for _ in range(20):
        lp = random_lp(rng, 5, 3, kind="generic", sense="min")
        face = optimal_face(lp)
        for point, dual, lower, upper in (
            (face.x[0], face.d[0], lp.lower, lp.upper),
            (lp.A @ face.x[0], face.y[0], lp.row_lower, lp.row_upper),
        ):
            distance = np.minimum(point - lower, upper - point)
            at_bound = distance < 1e-6
            assert np.all(at_bound | (distance > 0.499))
            assert np.all(np.abs(dual[at_bound]) > 0.499)
            assert np.all(np.abs(dual[~at_bound]) < 1e-6)


def test_same_seed_same_program() -> None:
    one, two, other = (random_lp(np.random.default_rng(seed), 9, 7) for seed in (54, 54, 55))
    assert np.array_equal(one.A.toarray(), two.A.toarray()) and np.array_equal(one.c, two.c)
    assert not np.array_equal(one.c, other.c)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (1, 1), (2, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size(n: int, m: int, kind: str) -> None:
    lp = random_lp(np.random.default_rng(56), n, m, kind=kind)
    assert (lp.n, lp.m) == (n, m)


def test_random_lp_refuses() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of generic.*got 'weird'"):
        random_lp(np.random.default_rng(0), 2, 2, kind="weird")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be negative, got -1 and 2"):
        random_lp(np.random.default_rng(0), -1, 2)


# -- oracles -----------------------------------------------------------------------------------------


def test_vertices_of_known_polytopes() -> None:
    cube = LinearProgram(np.zeros(3), bounds=(0, 1))
    assert enumerate_vertices(cube).tolist() == [list(p) for p in itertools.product((0, 1), repeat=3)]
    simplex = LinearProgram(np.zeros(3), A_eq=[[1.0, 1, 1], [2, 2, 2]], b_eq=[1.0, 2])
    assert enumerate_vertices(simplex).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    # The Birkhoff polytope: vertices are the permutations.
    birkhoff = zoo()["no costs"].lp
    assert enumerate_vertices(birkhoff).tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    # A pyramid over a square, cut by ranges: four planes through the apex, listed once.
    pyramid = LinearProgram(
        np.zeros(3),
        A=[[1.0, 0, 1], [-1, 0, 1], [0, 1, 1], [0, -1, 1]],
        row_lower=-np.inf,
        row_upper=1.0,
        bounds=[(None, None), (None, None), (0, None)],
    )
    assert enumerate_vertices(pyramid).tolist() == [
        *([-1, -1, 0], [-1, 1, 0], [0, 0, 1], [1, -1, 0], [1, 1, 0])
    ]


def test_sets_without_vertices() -> None:
    line = LinearProgram([0.0, 0], A_eq=[[1.0, -1]], b_eq=[0.0], bounds=(None, None))
    assert enumerate_vertices(line).shape == (0, 2)
    assert enumerate_vertices(zoo()["infeasible rows"].lp).shape == (0, 2)
    assert enumerate_vertices(zoo()["no variables"].lp).shape == (1, 0)
    nothing = LinearProgram([], A=np.zeros((1, 0)), row_lower=[1.0])
    assert enumerate_vertices(nothing).shape == (0, 0)


@pytest.mark.parametrize("sense", ["min", "max"])
def test_optimal_face_of_a_degenerate_corner(sense: str) -> None:
    """min -x - y over x <= 1, y <= 1, x + y <= 2: one x, and the duals of the square or the cut."""
    sign = 1.0 if sense == "min" else -1.0
    lp = LinearProgram([-sign, -sign], A_ub=[[1.0, 0], [0, 1], [1, 1]], b_ub=[1.0, 1, 2], sense=sense)
    face = optimal_face(lp)
    assert face.value == pytest.approx(-2 * sign)
    assert face.x.tolist() == [[1, 1]]
    duals = sorted((-sign * face.y).tolist())
    assert duals == [[0, 0, 1], [1, 1, 0]]
    np.testing.assert_allclose(face.d, lp.c - face.y @ lp.A.toarray(), atol=1e-12)
    assert face.x_bounded and face.y_bounded


def test_optimal_face_with_several_x() -> None:
    face = optimal_face(LinearProgram([1.0, 1, 2], A_eq=[[1.0, 1, 1]], b_eq=[1.0]))
    assert face.x.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert face.y.tolist() == [[1]] and face.d.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "x_bounded", "y_bounded"),
    [
        ("degenerate", True, True),
        ("redundant equalities", True, False),
        ("free variables", False, True),
        ("all fixed", True, True),
    ],
)
def test_optimal_face_knows_what_is_bounded(name: str, x_bounded: bool, y_bounded: bool) -> None:
    face = optimal_face(zoo()[name].lp)
    assert (face.x_bounded, face.y_bounded) == (x_bounded, y_bounded)


def test_every_optimal_pair_proves_optimality() -> None:
    """Each x with each y: complementary, so value and bound meet."""
    rng = np.random.default_rng(57)
    for kind in KINDS:
        lp = random_lp(rng, 4, 3, kind=kind, sense="min")
        face = optimal_face(lp)
        for y, d in zip(face.y, face.d, strict=True):
            np.testing.assert_allclose(lp.A.T @ y + d, lp.c, atol=1e-8)
            bound = sum(
                dual * (low if dual > 0 else high)
                for dual, low, high in [
                    *zip(y, lp.row_lower, lp.row_upper, strict=True),
                    *zip(d, lp.lower, lp.upper, strict=True),
                ]
                if abs(dual) > 1e-9
            )
            np.testing.assert_allclose(face.x @ lp.c, bound, atol=1e-7)


@pytest.mark.parametrize("name", ["infeasible rows", "unbounded", "no rows"])
def test_optimal_face_refuses_what_has_none(name: str) -> None:
    with pytest.raises(ValueError, match=r"infeasible|unbounded|no vertex"):
        optimal_face(zoo()[name].lp)


def test_enumeration_refuses_large_programs() -> None:
    with pytest.raises(ValueError, match=r"30 variables and 18 rows make \d+ candidates"):
        enumerate_vertices(zoo()["generic min 30 x 18"].lp)


def test_finite_difference() -> None:
    x, v = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    assert finite_difference(lambda a: a[0] * a[1] ** 2, x, v) == pytest.approx(4 * 0.5 - 4)
    np.testing.assert_allclose(finite_difference(lambda a: a**2, x, v), 2 * x * v, atol=1e-9)
    both = finite_difference(lambda a, b: a @ b, (x, x), (v, 2 * v))
    assert both == pytest.approx(3 * x @ v)
    t = torch.tensor(x, requires_grad=True)
    assert finite_difference(lambda a: (a**3).sum(), t, torch.tensor(v)) == pytest.approx(3 * x**2 @ v)
    with pytest.raises(ValueError, match="x has 2 arrays, direction 1"):
        finite_difference(lambda a, b: a, (x, x), (v,))


# -- zoo ---------------------------------------------------------------------------------------------


def test_zoo_is_varied_and_always_the_same() -> None:
    one, two = zoo(), zoo()
    assert list(one) == list(two) and len(one) >= 50
    for name in one:
        assert np.array_equal(one[name].lp.A.toarray(), two[name].lp.A.toarray())
        assert np.array_equal(one[name].lp.c, two[name].lp.c)
        assert repr(one[name]) == name
    assert {s.status for s in one.values()} == {*(Status.OPTIMAL, Status.INFEASIBLE, Status.UNBOUNDED)}
    assert {s.lp.sense for s in one.values()} == {"min", "max"}
