"""Cone alignment: membership by solving, projection by another solver, gradients by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

import lpdiff
from lpdiff.losses import Objective
from lpdiff.losses.cone import ConeAligned, cone_aligned
from lpdiff.testing import KINDS, enumerate_vertices, random_lp

SIDES = [(kind, sense) for kind in KINDS for sense in ("min", "max")]
every_kind = pytest.mark.parametrize(("kind", "sense"), SIDES)


def tensor(array, dtype=torch.float64):
    return torch.tensor(np.asarray(array), dtype=dtype)


def projection(lp, w, c, tolerance=1e-7):
    """Nearest costs for which w is optimal, by bounded least squares; all in the sense of min."""
    stacked = np.vstack([lp.A.toarray(), np.eye(lp.n)])
    at = stacked @ w
    lower, upper = (np.concatenate(pair) for pair in ((lp.row_lower, lp.lower), (lp.row_upper, lp.upper)))
    most = np.where(at <= lower + tolerance, np.inf, 0.0)
    least = np.where(at >= upper - tolerance, -np.inf, 0.0)
    active = most > least
    if not active.any():
        return np.zeros(lp.n)
    found = scipy.optimize.lsq_linear(
        stacked[active].T, c, (least[active], most[active]), method="bvls", tol=1e-15, max_iter=1000
    )
    return stacked[active].T @ found.x


def points_of(lp, rng):
    """Vertices, and points between them."""
    vertices = enumerate_vertices(lp)
    mixed = rng.dirichlet(np.ones(len(vertices)), 2) @ vertices
    between = [(vertices[0] + vertices[-1]) / 2]
    return np.vstack([vertices[:6], between, mixed])


# -- against other computations ----------------------------------------------------------------------------


@every_kind
def test_the_loss_is_zero_where_the_target_is_optimal(kind, sense):
    seen = {True: 0, False: 0}
    for seed in range(6):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        lp = random_lp(rng, 4, 3, kind=kind, sense=sense)
        points = points_of(lp, rng)
        costs = np.vstack([lp.c, -lp.c, rng.normal(size=(3, 4)), lp.c + 0.2 * rng.normal(size=(5, 4))])
        losses = cone_aligned(lp, tensor(costs)[:, None], tensor(points), reduction="none").numpy()
        solved = lpdiff.solve(lp, c=tensor(costs), throw=False)
        gaps = np.abs(costs @ points.T - solved.value.numpy()[:, None])
        optimal = solved.ok.numpy()[:, None] & (gaps < 1e-7)
        assert ((losses == 0) == optimal).all(), (seed, losses, gaps)
        assert (losses >= 0).all() and (losses[~optimal] > 1e-10).all()
        for known in seen:
            seen[known] += int((optimal == known).sum())
    assert min(seen.values()) > 20


@every_kind
def test_the_angle_is_that_to_the_projection(kind, sense):
    compared = 0
    for seed in range(4):
        rng = np.random.default_rng([seed, 50, KINDS.index(kind)])
        lp = random_lp(rng, 5, 4, kind=kind, sense=sense)
        for w in points_of(lp, rng)[::2]:
            c = rng.normal(size=5)
            p = projection(lp, w, lp.form.to_min(c))
            if np.linalg.norm(p) < 1e-6:
                continue
            expected = 1 - np.linalg.norm(p) / np.linalg.norm(c)
            assert float(cone_aligned(lp, tensor(c), tensor(w))) == pytest.approx(expected, abs=1e-9)
            compared += 1
    assert compared > 5


@every_kind
def test_gradients(kind, sense):
    """The projection is held constant, and the gradient is that of the whole loss."""
    checked = 0
    for seed in range(8):
        rng = np.random.default_rng([seed, 80, KINDS.index(kind)])
        lp = random_lp(rng, 5, 4, kind=kind, sense=sense)
        w = tensor(points_of(lp, rng)[0])
        c = tensor(lp.c + 2 * rng.normal(size=5)).requires_grad_()
        loss = cone_aligned(lp, c, w)
        if not 1e-3 < float(loss.detach()) < 0.999:
            continue
        assert torch.autograd.gradcheck(lambda q: cone_aligned(lp, q, w), c)  # noqa: B023
        checked += 1
    assert checked >= 3


def box(n=3, **more):
    return lpdiff.LinearProgram(bounds=np.tile([0.0, 1.0], (n, 1)), **more)


def test_a_corner_of_the_box():
    """Its cone is an orthant: clip."""
    c = tensor([[1.0, 2.0, -2.0], [3.0, 1.0, 0.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]]).requires_grad_()
    losses = cone_aligned(box(), c, torch.zeros(3), reduction="none")
    np.testing.assert_allclose(losses.detach(), [1 - 5**0.5 / 3, 0, 2, 0], atol=1e-12)
    losses.sum().backward()
    p = np.array([1.0, 2.0, 0.0]) / 5**0.5
    np.testing.assert_allclose(c.grad[0], -(p / 3 - c[0].detach().numpy() * 5**0.5 / 27), atol=1e-12)
    assert not c.grad[[1, 3]].any()
    # Opposite to the cone: towards the mean of its normals, which is opposite, too.
    assert float(c.grad[2].abs().max()) < 1e-12
    # Between the bounds no cost is good; at the other corner they are all turned.
    middle = cone_aligned(box(), c, tensor([0.5, 0, 0]), reduction="none")
    np.testing.assert_allclose(middle.detach()[:2], [1 - 2 / 3, 1 - 1 / 10**0.5], atol=1e-12)
    turned = cone_aligned(box(), -c, torch.ones(3), reduction="none")
    np.testing.assert_allclose(turned.detach(), losses.detach(), atol=1e-12)


def test_inner_moves_the_aim_into_the_cone():
    c = tensor([[1.0, 2.0, -2.0], [3.0, 1.0, 0.0]])
    aim = 0.7 * np.array([1.0, 2.0, 0.0]) / 5**0.5 + 0.3 / 3**0.5
    expected = 1 - c[0].numpy() @ aim / 3 / np.linalg.norm(aim)
    losses = cone_aligned(box(), c, torch.zeros(3), inner=0.3, reduction="none")
    np.testing.assert_allclose(losses, [expected, 0.0], atol=1e-12)
    # Plain steps reach the inside of the cone with it, and only approach its boundary without.
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 4)), b_eq=[1.0])
    w = tensor([1.0, 0, 0, 0])
    least = {}
    for inner in (0.0, 0.3):
        c = tensor([1.0, 0.2, 2.0, 0.4]).requires_grad_()
        for _ in range(200):
            loss = cone_aligned(lp, c, w, inner=inner)
            (slope,) = torch.autograd.grad(loss, c)
            c = (c - 0.3 * slope).detach().requires_grad_()
        least[inner] = float((c[1:] - c[0]).min().detach())
    assert least[0.0] < 1e-9 and least[0.3] > 1e-3


def test_a_few_steps_in_place_of_the_projection():
    rng = np.random.default_rng(9)
    lp = random_lp(rng, 12, 8, kind="degenerate", sense="min")
    w = lpdiff.solve(lp).x
    c = tensor(lp.c + rng.normal(size=(20, 12)))
    exact = cone_aligned(lp, c, w, reduction="none").numpy()
    errors = []
    for iterations in (1, 3, 30, 3000):
        found = cone_aligned(lp, c, w, iterations=iterations, reduction="none").numpy()
        assert (found >= exact - 1e-12).all()  # a point of the cone, and no nearer
        errors.append(np.abs(found - exact).max())
    assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < 1e-9
    # It is further inside the cone than the nearest point.
    c = tensor([[1.0, 2.0, -0.5]])
    p = c.clone().requires_grad_()
    cone_aligned(box(), p, torch.zeros(3), iterations=1).backward()
    q = c.clone().requires_grad_()
    cone_aligned(box(), q, torch.zeros(3)).backward()
    np.testing.assert_allclose(p.grad, q.grad)  # an orthant needs no second step


# -- as losses go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_batches_reductions_and_mirrors(shape):
    rng = np.random.default_rng(len(shape))
    lp = random_lp(rng, 5, 4, kind="generic", sense="min")
    vertices = enumerate_vertices(lp)
    c, w = rng.normal(size=(*shape, 5)), vertices[rng.integers(len(vertices), size=shape)]
    each = cone_aligned(lp, tensor(c), tensor(w), reduction="none")
    assert each.shape == shape
    alone = [
        cone_aligned(lp, tensor(a), tensor(b))
        for a, b in zip(c.reshape(-1, 5), w.reshape(-1, 5), strict=True)
    ]
    assert torch.equal(each.reshape(-1), torch.stack(alone))  # to the bit
    assert float(cone_aligned(lp, tensor(c), tensor(w))) == pytest.approx(float(each.mean()))
    assert float(cone_aligned(lp, tensor(c), tensor(w), reduction="sum")) == pytest.approx(float(each.sum()))
    mirror = lpdiff.LinearProgram(
        -lp.c,
        A=lp.A,
        row_lower=lp.row_lower,
        row_upper=lp.row_upper,
        bounds=np.stack([lp.lower, lp.upper], 1),
        sense="max",
    )
    assert torch.equal(cone_aligned(mirror, tensor(-c), tensor(w), reduction="none"), each)


def test_weights_and_what_they_leave_out():
    c = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = torch.ones(2, 3, 3, dtype=torch.float64)
    lp = lpdiff.LinearProgram(bounds=np.tile([1.0, 2.0], (3, 1)))
    each = cone_aligned(lp, c, w, reduction="none")
    weight = tensor([[1.0, 0, 2], [0.5, 0, 0]])
    c[0, 1], c[1, 1], w[0, 1], w[1, 2] = torch.nan, torch.inf, torch.nan, 7.0
    leaf = c.requires_grad_()
    found = cone_aligned(lp, leaf, w, weight=weight)
    expected = float((weight * torch.nan_to_num(each)).sum() / 3.5)
    assert float(found.detach()) == pytest.approx(expected)
    found.backward()
    assert bool(torch.isfinite(leaf.grad).all()) and not leaf.grad[weight == 0].any()
    shared = cone_aligned(lp, torch.ones(3), torch.ones(3), weight=torch.tensor([True, False]))
    assert shared.shape == () and float(shared) == 0


def test_single_precision():
    rng = np.random.default_rng(3)
    lp = random_lp(rng, 8, 6, kind="generic", sense="max")
    w = lpdiff.solve(lp).x
    c = lp.c + rng.normal(size=(16, 8))
    double, single = (tensor(c, dtype).requires_grad_() for dtype in (torch.float64, torch.float32))
    losses = [cone_aligned(lp, q, w.to(q.dtype), reduction="none") for q in (double, single)]
    assert losses[1].dtype == torch.float32
    np.testing.assert_allclose(losses[1].detach(), losses[0].detach(), atol=1e-6)
    for loss in losses:
        loss.sum().backward()
    np.testing.assert_allclose(single.grad, double.grad, atol=1e-6)
    assert cone_aligned(lp, single, w, bounds=(tensor(lp.lower), None)).dtype == torch.float32
    # Costs on the boundary of the cone are in it, though they are rounded.
    for seed in range(8):
        lp = random_lp(np.random.default_rng(seed), 8, 6, kind="nonunique")
        assert float(cone_aligned(lp, tensor(lp.c, torch.float32), lpdiff.solve(lp).x.float())) == 0


def test_data_that_vary_with_the_items():
    rng = np.random.default_rng(4)
    A, true = rng.uniform(0.5, 2, (2, 4)), tensor(rng.normal(size=(3, 4)) - 1)
    b = tensor(rng.uniform(2, 4, (3, 2)))
    upper = tensor(rng.uniform(0.5, 1.0, (3, 4)))
    values = tensor(A.T.ravel() * rng.uniform(0.9, 1.1, (3, 8)))
    lp = lpdiff.LinearProgram(A_ub=A, b_ub=[3.0, 3.0], bounds=(0, 1))
    data = {"b": b, "A_values": values, "bounds": (None, upper)}
    solved = lpdiff.solve(lp, c=true, **data)
    c = rng.normal(size=(3, 4))
    cone_aligned(
        lp, tensor(c), torch.zeros(4)
    )  # what is kept of the declared program is not taken for theirs
    each = cone_aligned(lp, tensor(c), solved.x, reduction="none", **data)
    for i in range(3):
        alone = lpdiff.LinearProgram(
            A_ub=values[i].numpy().reshape(4, 2).T,
            b_ub=b[i].numpy(),
            bounds=np.stack([np.zeros(4), upper[i].numpy()], 1),
        )
        assert float(cone_aligned(alone, tensor(c[i]), solved.x[i])) == pytest.approx(
            float(each[i]), abs=1e-12
        )
        p = projection(alone, solved.x[i].numpy(), c[i])
        assert float(each[i]) == pytest.approx(1 - np.linalg.norm(p) / np.linalg.norm(c[i]), abs=1e-9)
    assert (each > 1e-3).tolist() == [True, True, False]
    assert not cone_aligned(lp, true, solved.x, **data)
    fixed = (torch.tensor([0.0, 0, 0, 0]), torch.tensor([0.0, 1, 1, 1]))
    assert float(cone_aligned(lp, tensor([-1.0, 1, 1, 1]), torch.zeros(4), bounds=fixed)) == 0
    assert float(cone_aligned(lp, tensor([-1.0, 1, 1, 1]), torch.zeros(4))) > 0.1
    # One item's costs and target, and data for three.
    same = cone_aligned(lp, tensor(c[0]), torch.zeros(4), b=b, reduction="none")
    assert same.shape == (3,) and len(same.unique()) == 1


def test_programs_in_other_clothes():
    rng = np.random.default_rng(5)
    lp = random_lp(rng, 5, 3, kind="generic", sense="min")
    c, w = tensor(rng.normal(size=(4, 5))), lpdiff.solve(lp).x
    expected = cone_aligned(lp, c, w)
    assert torch.equal(cone_aligned(lpdiff.LPLayer(lp), c, w), expected)
    assert torch.equal(cone_aligned(Objective(lp), c, w), expected)
    lower = lp.row_lower - 1
    other = cone_aligned(Objective(lp, row_lower=lower), c, w)
    assert torch.equal(other, cone_aligned(lp, c, w, row_lower=lower)) and not torch.equal(other, expected)
    module = ConeAligned(lp, inner=0.2, row_lower=lower)
    assert torch.equal(module(c, w), cone_aligned(lp, c, w, inner=0.2, row_lower=lower))
    # An integer program: the cone of its relaxation.
    whole = box(integrality=np.ones(3))
    assert torch.equal(
        cone_aligned(whole, c[:, :3], torch.zeros(3)), cone_aligned(box(), c[:, :3], torch.zeros(3))
    )


def test_redundant_and_badly_scaled_equalities():
    rng = np.random.default_rng(6)
    both = np.vstack([np.kron(np.eye(3), np.ones(3)), np.kron(np.ones(3), np.eye(3))])
    scale = 10.0 ** rng.permutation([-12, -12, -3, 0, 3, 7])
    plain = lpdiff.LinearProgram(A_eq=both, b_eq=np.ones(6))
    scaled = lpdiff.LinearProgram(A_eq=scale[:, None] * both, b_eq=scale)
    c, w = tensor(rng.normal(size=(8, 9))), tensor(np.eye(3).ravel())
    losses = cone_aligned(plain, c, w, reduction="none")
    np.testing.assert_allclose(cone_aligned(scaled, c, w, reduction="none"), losses, atol=1e-9)
    assert float(cone_aligned(plain, tensor(both.T @ rng.normal(size=6)), w)) == 0
    # A row in tiny units that is not active is not taken to be.
    for unit in (1.0, 1e-9):
        lp = lpdiff.LinearProgram(A_ub=unit * np.ones((1, 3)), b_ub=[2 * unit])
        assert float(cone_aligned(lp, tensor([-1.0, -1, -1]), tensor([1.0, 0.5, 0]))) > 1.0
        assert float(cone_aligned(lp, tensor([-1.0, -1, -1]), tensor([1.0, 0.5, 0.5]))) == 0.0


def test_what_is_refused():
    c, w = torch.zeros(2, 3), torch.zeros(2, 3)
    w[1, 2] = 1.5
    with pytest.raises(ValueError, match=r"target of item 1 is not feasible at variable x\[2\]"):
        cone_aligned(box(), c, w)
    lp = lpdiff.LinearProgram(A_ub=np.ones((1, 3)), b_ub=[1.0], row_names=["budget"])
    with pytest.raises(ValueError, match=r"target of item \(1, 0\) is not feasible at 'budget'"):
        cone_aligned(lp, c, torch.tensor([[[1.0, 0, 0]], [[1.0, 1, 0]]]))
    with pytest.raises(ValueError, match=r"target is not feasible at 'budget'"):
        cone_aligned(lp, c[0], torch.ones(3))
    with pytest.raises(ValueError, match=r"expected target \(\*batch, 3\), got \(2, 4\)"):
        cone_aligned(lp, c, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="costs of item 1 are not finite"):
        cone_aligned(lp, torch.tensor([[0.0, 0, 0], [0, torch.nan, 0]]), torch.zeros(3))
    with pytest.raises(ValueError, match="inner must lie"):
        cone_aligned(lp, c, torch.zeros(3), inner=1.0)
    with pytest.raises(ValueError, match="iterations"):
        cone_aligned(lp, c, torch.zeros(3), iterations=0)
    with pytest.raises(TypeError, match="solves nothing, and takes no solver"):
        cone_aligned(lp, c, torch.zeros(3), solver="highs")
    with pytest.raises(TypeError, match="rows and bounds of a LinearProgram, got function"):
        cone_aligned(lambda c: c, c, torch.zeros(3))
    # Rounded targets: within the tolerance, or a wider one.
    rounded = torch.tensor([1.0 + 3e-3, 0, 0], dtype=torch.float64)
    with pytest.raises(ValueError, match="not feasible"):
        cone_aligned(lp, c, rounded)
    assert float(cone_aligned(lp, torch.tensor([-1.0, 0, 0]), rounded, tolerance=1e-2)) == 0


@pytest.mark.parametrize("options", [{}, {"inner": 0.2}, {"iterations": 3}], ids=str)
def test_training_reduces_regret(options):
    rng = np.random.default_rng(8)
    lp = lpdiff.LinearProgram(A_ub=rng.uniform(0.5, 2, (3, 8)), b_ub=[4.0, 4, 4], bounds=(0, 1), sense="max")
    features = tensor(rng.normal(size=(40, 4)))
    true = features @ tensor(rng.normal(size=(4, 8))) + 1 + 0.1 * tensor(rng.normal(size=(40, 8)))
    solved = lpdiff.solve(lp, c=true)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 8, dtype=torch.float64)

    def regret():
        with torch.no_grad():
            return float((solved.value - (true * lpdiff.solve(lp, c=model(features)).x).sum(-1)).mean())

    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    before = regret()
    for _ in range(40):
        optimizer.zero_grad()
        cone_aligned(lp, model(features), solved.x, **options).backward()
        optimizer.step()
    assert regret() < 0.15 * before
