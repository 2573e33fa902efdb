"""Losses over the optimal value, against enumeration of vertices, closed forms and finite differences."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff import gradients, losses, problems
from lpdiff.testing import enumerate_vertices

TINY = 1e-9


def assignment_lp(n: int, sense: str = "min") -> lpdiff.LinearProgram:
    rows = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    return lpdiff.LinearProgram(A_eq=np.vstack(rows), b_eq=np.ones(2 * n), sense=sense)


def knapsack_lp(sense: str = "min") -> lpdiff.LinearProgram:
    """A fractional knapsack with a lower limit too: vertices that are not of zeros and ones."""
    return lpdiff.LinearProgram(
        A=[[2.0, 3.0, 4.0, 1.5]], row_lower=[2.5], row_upper=[5.0], bounds=(0, 1), sense=sense
    )


PROGRAMS = {"assignment": assignment_lp(3), "knapsack": knapsack_lp()}
MIRRORED = {"assignment": assignment_lp(3, "max"), "knapsack": knapsack_lp("max")}


@pytest.fixture(params=sorted(PROGRAMS))
def case(request):
    """A program, its vertices, predicted costs with gradients, true costs, their solutions and values."""
    rng = np.random.default_rng([5, len(request.param)])
    lp = PROGRAMS[request.param]
    vertices = torch.from_numpy(enumerate_vertices(lp))
    predicted = torch.from_numpy(rng.normal(size=(6, lp.n))).requires_grad_()
    true = torch.from_numpy(rng.normal(size=(6, lp.n)))
    cost = true @ vertices.T
    return request.param, vertices, predicted, true, vertices[cost.argmin(1)], cost.amin(1)


def gradient(loss: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
    return found


def agree(found: torch.Tensor, expected: torch.Tensor, leaf: torch.Tensor) -> None:
    torch.testing.assert_close(gradient(found, leaf), gradient(expected, leaf), rtol=TINY, atol=TINY)
    torch.testing.assert_close(found, expected, rtol=TINY, atol=TINY)


# -- against enumeration -----------------------------------------------------------------------------------


def test_perceptron(case):
    name, vertices, predicted, _, target, _ = case
    expected = (predicted * target).sum(1) - (predicted @ vertices.T).amin(1)
    found = losses.perceptron(PROGRAMS[name], predicted, target, reduction="none")
    assert (found >= 0).all() and (found > 0.1).any()
    agree(found, expected, predicted)


@pytest.mark.parametrize("margin", [0.5, 3.0])
def test_hinge_counts_what_differs(margin):
    vertices = torch.from_numpy(enumerate_vertices(PROGRAMS["assignment"]))
    rng = np.random.default_rng(8)
    predicted = torch.from_numpy(rng.normal(size=(6, 9))).requires_grad_()
    target = vertices[rng.integers(0, len(vertices), 6)]
    differing = (vertices[None] != target[:, None]).sum(2)
    expected = (margin * differing + (predicted * target).sum(1, keepdim=True) - predicted @ vertices.T).amax(
        1
    )
    found = losses.structured_hinge(
        PROGRAMS["assignment"], predicted, target, margin=margin, reduction="none"
    )
    agree(found, expected, predicted)


def test_hinge_with_a_margin_of_ones_own(case):
    name, vertices, predicted, true, target, _ = case
    worth = true.abs()
    gain = (worth[:, None] * (vertices[None] - target[:, None])).sum(2)
    expected = (gain + (predicted * target).sum(1, keepdim=True) - predicted @ vertices.T).amax(1)
    found = losses.structured_hinge(PROGRAMS[name], predicted, target, margin=worth, reduction="none")
    agree(found, expected, predicted)


@pytest.mark.parametrize("given", ["nothing", "target", "both"])
def test_spo_plus(case, given):
    name, vertices, predicted, true, target, value = case
    expected = 2 * (predicted * target).sum(1) - ((2 * predicted - true) @ vertices.T).amin(1) - value
    told = {"nothing": (), "target": (target,), "both": (target, value)}[given]
    found = losses.spo_plus(PROGRAMS[name], predicted, true, *told, reduction="none")
    agree(found, expected, predicted)


def test_spo_plus_bounds_the_regret_and_is_a_gap(case):
    name, _, predicted, true, target, value = case
    lp = PROGRAMS[name]
    found = losses.spo_plus(lp, predicted, true, reduction="none")
    chosen = lpdiff.solve(lp, c=predicted).x.detach()
    assert (found >= (true * chosen).sum(1) - value - TINY).all()
    gap = losses.perceptron(lp, 2 * predicted - true, target, reduction="none")
    torch.testing.assert_close(found, gap)


@pytest.mark.parametrize(("sides", "ahead"), [("backward", 0.0), ("central", 0.3)])
def test_directional(case, sides, ahead):
    name, vertices, predicted, true, _, _ = case
    at = [((predicted + t * true) @ vertices.T).amin(1) for t in (ahead, -0.3)]
    expected = (at[0] - at[1]) / (0.3 + ahead)
    found = losses.directional(PROGRAMS[name], predicted, true, step=0.3, sides=sides, reduction="none")
    agree(found, expected, predicted)


def test_directional_tends_to_the_cost_of_the_decision(case):
    name, _, predicted, true, _, _ = case
    chosen = lpdiff.solve(PROGRAMS[name], c=predicted).x.detach()
    small = losses.directional(PROGRAMS[name], predicted, true, step=1e-6, reduction="none")
    torch.testing.assert_close(small, (true * chosen).sum(1), rtol=0, atol=1e-6)
    large = losses.directional(PROGRAMS[name], predicted, true, step=2.0, reduction="none")
    assert (large >= small - 1e-6).all() or (large <= small + 1e-6).all()


def test_regret(case):
    name, vertices, predicted, true, _, value = case
    lp = PROGRAMS[name]
    chosen = vertices[(predicted @ vertices.T).argmin(1)]
    rule = gradients.Interpolation(4.0)
    for told in ((), (value,)):
        found = losses.regret(lp, predicted, true, *told, gradient=rule, reduction="none")
        torch.testing.assert_close(found, (true * chosen).sum(1) - value, rtol=TINY, atol=TINY)
        moved = vertices[((predicted + 4.0 * true) @ vertices.T).argmin(1)]
        torch.testing.assert_close(gradient(found, predicted), (moved - chosen) / 4.0)


# -- smoothed ----------------------------------------------------------------------------------------------


def simplex(n: int, sense: str = "min") -> lpdiff.LinearProgram:
    return lpdiff.LinearProgram(A_eq=np.ones((1, n)), b_eq=[1.0], sense=sense)


def test_perturbed_fenchel_young_with_gumbel_noise_is_cross_entropy():
    """E max_j (Z_j - c_j) = logsumexp(-c) + Euler's constant, which E <Z, w> takes away again."""
    torch.manual_seed(3)
    predicted = torch.randn(4, dtype=torch.float64, requires_grad=True)
    found = losses.perturbed_fenchel_young(
        simplex(4),
        predicted,
        torch.eye(4, dtype=torch.float64)[1],
        samples=40_000,
        noise="gumbel",
        generator=1,
    )
    expected = torch.nn.functional.cross_entropy(-predicted[None], torch.tensor([1]))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)
    torch.testing.assert_close(gradient(found, predicted), gradient(expected, predicted), rtol=0, atol=0.01)


@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("antithetic", [False, True])
def test_perturbed_fenchel_young_is_a_mean_of_gaps(case, multiplicative, antithetic):
    name, vertices, predicted, _, target, _ = case
    predicted = predicted.detach().abs().add(0.1).requires_grad_()
    how = {"samples": 4, "multiplicative": multiplicative, "antithetic": antithetic}
    found = losses.perturbed_fenchel_young(
        PROGRAMS[name], predicted, target, temperature=0.7, generator=9, reduction="none", **how
    )
    rule = gradients.Perturbed(0.7, noise="gaussian", **how)
    seed = int(np.random.default_rng(9).integers(2**63 - 1))
    z = torch.from_numpy(rule.draws(np.random.default_rng(seed), tuple(predicted.shape)))
    if antithetic:
        torch.testing.assert_close(z[:2], -z[2:])
    costs = predicted * torch.exp(0.7 * z - 0.245) if multiplicative else predicted - 0.7 * z
    expected = ((costs * target).sum(-1) - (costs @ vertices.T).amin(-1)).mean(0)
    agree(found, expected, predicted)
    assert (found > 0).all()


def test_quadratic_fenchel_young_on_the_simplex_is_the_sparsemax_loss():
    torch.manual_seed(4)
    predicted = (2 * torch.randn(5, 6, dtype=torch.float64)).requires_grad_()
    target = torch.eye(6, dtype=torch.float64)[torch.arange(5)]
    gamma = 1.7
    theta = -predicted / gamma
    # Martins and Astudillo (2016): the threshold tau by sorting.
    s = theta.detach().sort(descending=True).values
    rank = torch.arange(1, 7)
    count = (1 + rank * s > s.cumsum(1)).sum(1, keepdim=True)
    tau = (s.cumsum(1).gather(1, count - 1) - 1) / count
    p = (theta.detach() - tau).clamp(min=0)
    inside = (theta**2 - tau**2)[p > 0]
    support = torch.zeros_like(theta).masked_scatter(p > 0, inside).sum(1)
    expected = gamma * (0.5 * support + 0.5 - (theta * target).sum(1))
    found = losses.quadratic_fenchel_young(simplex(6), predicted, target, strength=gamma, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient(found, predicted), target - p, rtol=1e-9, atol=1e-9)


def test_quadratic_fenchel_young_gradient_by_differences(case):
    name, _, predicted, _, target, _ = case

    def loss(c):
        return losses.quadratic_fenchel_young(PROGRAMS[name], c, target, strength=0.8, reduction="none")

    assert (loss(predicted) > -TINY).all()
    assert torch.autograd.gradcheck(loss, predicted, atol=1e-5)


# -- min and max -------------------------------------------------------------------------------------------

CALLS = {
    "perceptron": lambda p, a, c, w, z: losses.perceptron(p, a, w),
    "hinge": lambda p, a, c, w, z: losses.structured_hinge(p, a, w, margin=c.abs()),
    "spo_plus": lambda p, a, c, w, z: losses.spo_plus(p, a, c, w, z),
    "directional": lambda p, a, c, w, z: losses.directional(p, a, c, step=2.0),
    "regret": lambda p, a, c, w, z: losses.regret(p, a, c, z, gradient="interpolation"),
    "perturbed": lambda p, a, c, w, z: losses.perturbed_fenchel_young(
        p, a, w, samples=3, noise="gumbel", generator=2
    ),
    "quadratic": lambda p, a, c, w, z: losses.quadratic_fenchel_young(p, a, w),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_maximisation_is_the_mirror_image(case, name):
    kind, _, predicted, true, target, value = case
    call = CALLS[name]
    found = call(PROGRAMS[kind], predicted, true, target, value)
    mirrored = call(MIRRORED[kind], -predicted, -true, target, -value)
    torch.testing.assert_close(found, mirrored, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient(found, predicted), gradient(mirrored, predicted))
    assert gradient(found, predicted).any()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_float32_is_near_float64_and_shapes_do_not_matter(name):
    rng = np.random.default_rng(12)
    lp, call = PROGRAMS["assignment"], CALLS[name]
    predicted = torch.from_numpy(rng.normal(size=(2, 3, 9)))
    true = torch.from_numpy(rng.normal(size=(2, 3, 9)))
    solution = lpdiff.solve(lp, c=true)
    target, value = solution.x, solution.value
    half = [t.float() for t in (predicted, true, target, value)]
    leaf = half[0].requires_grad_()
    found = call(lp, *half)
    assert found.dtype == torch.float32 and found.shape == ()
    double = predicted.clone().requires_grad_()
    expected = call(lp, double, true, target, value)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradient(found, leaf).double(), gradient(expected, double), rtol=1e-5, atol=1e-5
    )
    if name != "perturbed":  # whose noise depends on the shape
        each = [
            call(lp, *(t[i, k] for t in (predicted, true, target, value)))
            for i, k in itertools.product(range(2), range(3))
        ]
        torch.testing.assert_close(expected, torch.stack(each).mean())


# -- reductions, weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CALLS))
def test_weights_leave_items_out_whatever_they_hold(name):
    rng = np.random.default_rng(13)
    lp = PROGRAMS["assignment"]
    functions = {
        "perceptron": lambda a, c, w, **k: losses.perceptron(lp, a, w, **k),
        "hinge": lambda a, c, w, **k: losses.structured_hinge(lp, a, w, **k),
        "spo_plus": lambda a, c, w, **k: losses.spo_plus(lp, a, c, w, **k),
        "directional": lambda a, c, w, **k: losses.directional(lp, a, c, step=2.0, **k),
        "regret": lambda a, c, w, **k: losses.regret(lp, a, c, gradient="interpolation", **k),
        "perturbed": lambda a, c, w, **k: losses.perturbed_fenchel_young(lp, a, w, generator=3, **k),
        "quadratic": lambda a, c, w, **k: losses.quadratic_fenchel_young(lp, a, w, **k),
    }
    call = functions[name]
    predicted = torch.from_numpy(rng.normal(size=(4, 9)))
    true = torch.from_numpy(rng.normal(size=(4, 9)))
    target = lpdiff.solve(lp, c=true).x
    each = call(predicted, true, target, reduction="none")
    assert each.shape == (4,)
    torch.testing.assert_close(call(predicted, true, target), each.mean())
    torch.testing.assert_close(call(predicted, true, target, reduction="sum"), each.sum())
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5])
    spoilt = [t.clone() for t in (predicted, true, target)]
    for t in spoilt:
        t[1] = torch.nan
    leaf = spoilt[0].requires_grad_()
    found = call(*spoilt, weight=weight)
    torch.testing.assert_close(found, (each * weight).sum() / 3.5)
    grads = gradient(found, leaf)
    assert not grads[1].any() and grads.any() and torch.isfinite(grads).all()
    rest = call(*spoilt, weight=weight, reduction="none")
    torch.testing.assert_close(rest, torch.where(weight == 0, 0.0, each * weight))
    torch.testing.assert_close(call(*spoilt, weight=weight > 0), each[[0, 2, 3]].mean())
    with pytest.raises(ValueError, match="'mean', 'sum' or 'none', got 'avg'"):
        call(predicted, true, target, reduction="avg")


# -- programs of all sorts ---------------------------------------------------------------------------------


def test_programs_may_be_layers_functions_and_problems():
    rng = np.random.default_rng(14)
    n = 4
    lp = assignment_lp(n)
    predicted, true = (torch.from_numpy(rng.normal(size=(3, n, n))) for _ in range(2))
    expected = losses.spo_plus(lp, predicted.flatten(1), true.flatten(1))
    for program in (
        problems.assignment,
        problems.Assignment(solver="highs"),
        lambda c: problems.assignment(c).value,
        lambda c: lpdiff.solve(lp, c=c.flatten(-2)),
        losses.Objective(problems.assignment),
    ):
        torch.testing.assert_close(losses.spo_plus(program, predicted, true), expected)
    layer = lpdiff.LPLayer(lp, solver="highs")
    torch.testing.assert_close(losses.spo_plus(layer, predicted.flatten(1), true.flatten(1)), expected)


def test_the_sense_of_a_function_is_known():
    """A hinge moves costs before it solves: a maximisation of scores is moved the other way."""
    rng = np.random.default_rng(18)
    scores = torch.from_numpy(rng.normal(size=(3, 6)))
    target = problems.top_k(torch.from_numpy(rng.normal(size=(3, 6))), 2).indicator
    found = losses.structured_hinge(lambda s: problems.top_k(s, 2), scores, target, reduction="none")
    points = [
        torch.tensor(p, dtype=torch.float64) for p in itertools.product((0.0, 1.0), repeat=6) if sum(p) == 2
    ]
    vertices = torch.stack(points)
    differing = (vertices[None] != target[:, None]).sum(2)
    expected = (differing + scores @ vertices.T - (scores * target).sum(1, keepdim=True)).amax(1)
    torch.testing.assert_close(found, expected)


def test_several_kinds_of_costs_an_alignment_and_its_gap():
    """The paper's loss turned around: a perceptron whose target is an alignment with its number of gaps."""
    rng = np.random.default_rng(15)
    cost = torch.from_numpy(rng.uniform(size=(3, 5, 4)))
    gap = torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64)

    def align(cost, gap):
        return problems.global_alignment(cost, gap=gap[..., None])

    objective = losses.Objective(align)
    value, (pairs, gaps) = objective.solutions(cost, gap)
    torch.testing.assert_close((pairs * cost).sum((1, 2)) + gaps * gap, value)
    moved = torch.from_numpy(rng.uniform(size=cost.shape)).requires_grad_()
    price = torch.full((3,), 0.25, dtype=torch.float64, requires_grad=True)
    found = losses.perceptron(align, (moved, price), (pairs, gaps), reduction="none")
    best = align(moved, price)
    torch.testing.assert_close(found, (pairs * moved).sum((1, 2)) + gaps * price - best.value)
    grads = torch.autograd.grad(found.sum(), (moved, price))
    torch.testing.assert_close(grads[0], pairs - best.indicator.detach())
    torch.testing.assert_close(grads[1], gaps - best.gap_count.to(gaps))


def test_data_beside_the_costs_vary_by_item():
    lp = simplex(3)
    amount = torch.tensor([[1.0], [2.5]], dtype=torch.float64)
    predicted = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]], dtype=torch.float64)
    true = predicted.flip(-1)
    found = losses.spo_plus(lambda c: lpdiff.solve(lp, c=c, b=amount), predicted, true, reduction="none")
    torch.testing.assert_close(found, amount[:, 0] * losses.spo_plus(lp, predicted, true, reduction="none"))


def test_what_else_a_solve_is_given():
    """Options and data of a call, to a program or a function, by function or module."""
    rng = np.random.default_rng(19)
    lp = simplex(3)
    amount = torch.tensor([[1.0], [2.5]], dtype=torch.float64)
    predicted, true = (torch.from_numpy(rng.normal(size=(2, 3))) for _ in range(2))
    expected = amount[:, 0] * losses.spo_plus(lp, predicted, true, reduction="none")
    for found in (
        losses.spo_plus(lp, predicted, true, b=amount, reduction="none"),
        losses.SPOPlus(lp, b=amount)(predicted, true, reduction="none"),
        losses.SPOPlus(lp, reduction="none")(predicted, true, b=amount, solver="highs"),
        losses.spo_plus(losses.Objective(lp, b=amount), predicted, true, reduction="none"),
    ):
        torch.testing.assert_close(found, expected)
    costs, best = (torch.from_numpy(rng.uniform(size=(2, 3, 3))) for _ in range(2))
    sizes = torch.tensor([2, 3])
    target = problems.global_alignment(best, lengths=(sizes, sizes)).indicator
    with_lengths = losses.spo_plus(problems.global_alignment, costs, best, lengths=(sizes, sizes))
    alone = losses.spo_plus(problems.global_alignment, costs[:1, :2, :2], best[:1, :2, :2])
    both = losses.spo_plus(problems.global_alignment, costs[1:], best[1:])
    torch.testing.assert_close(with_lengths, (alone + both) / 2)
    assert target.shape == (2, 3, 3)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_offset_changes_no_loss(case, name):
    kind, _, predicted, true, target, value = case
    lp = PROGRAMS[kind]
    shifted = lpdiff.LinearProgram(
        A=lp.A, row_lower=lp.row_lower, row_upper=lp.row_upper, bounds=(0, 1), offset=5.0
    )
    call = CALLS[name]
    expected = call(lp, predicted, true, target, value)
    torch.testing.assert_close(call(shifted, predicted, true, target, value + 5), expected)
    own = torch.arange(6.0, dtype=torch.float64)
    found = call(lambda c: lpdiff.solve(lp, c=c, offset=own), predicted, true, target, value + own)
    torch.testing.assert_close(found, expected)
    told, _ = losses.Objective(shifted).solutions(true)
    torch.testing.assert_close(told, value + 5)


# -- modules -----------------------------------------------------------------------------------------------

MODULES = {
    "perceptron": losses.Perceptron,
    "hinge": losses.StructuredHinge,
    "spo_plus": losses.SPOPlus,
    "directional": losses.Directional,
    "regret": losses.Regret,
    "perturbed": losses.PerturbedFenchelYoung,
    "quadratic": losses.QuadraticFenchelYoung,
}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_hold_program_and_options(name):
    rng = np.random.default_rng(16)
    lp = PROGRAMS["assignment"]
    predicted, true = (torch.from_numpy(rng.normal(size=(4, 9))) for _ in range(2))
    target = lpdiff.solve(lp, c=true).x
    second = true if name in ("spo_plus", "directional", "regret") else target
    options = {"regret": {"gradient": "interpolation"}, "perturbed": {"generator": 5}}.get(name, {})
    module = MODULES[name](lp, solver="highs", reduction="sum", **options)
    assert "highs" in repr(module) and "sum" in repr(module)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    found = module(predicted, second)
    expected = type(module).function(lp, predicted, second, reduction="sum", **options)
    torch.testing.assert_close(found, expected)
    for other in copies:
        torch.testing.assert_close(other(predicted, second), found)
    assert module(predicted, second, reduction="none").shape == (4,)


def test_a_seed_moves_on_from_call_to_call():
    predicted, target = torch.zeros(2, 9, dtype=torch.float64), torch.eye(3, dtype=torch.float64).reshape(9)
    first, second = (
        losses.PerturbedFenchelYoung(PROGRAMS["assignment"], generator=7, samples=2) for _ in range(2)
    )
    told = [float(first(predicted, target)) for _ in range(3)]
    assert told == [float(second(predicted, target)) for _ in range(3)]
    assert len(set(told)) == 3
    torch.manual_seed(0)
    free = losses.PerturbedFenchelYoung(PROGRAMS["assignment"], samples=2)
    one = [float(free(predicted, target)) for _ in range(2)]
    torch.manual_seed(0)
    assert one == [float(free(predicted, target)) for _ in range(2)]


def test_a_module_learns_what_its_program_learns():
    gap = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    module = losses.Perceptron(problems.GlobalAlignment(gap=gap))
    assert [p is gap for p in module.parameters()] == [True]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_training_lowers_the_regret(name):
    """A linear model of costs, from features that determine them."""
    rng = np.random.default_rng(17)
    lp = PROGRAMS["assignment"]
    features = torch.from_numpy(rng.normal(size=(60, 3)))
    true = features @ torch.from_numpy(rng.normal(size=(3, 9)))
    solution = lpdiff.solve(lp, c=true)
    options = {
        "regret": {"gradient": gradients.Interpolation(3.0)},
        "perturbed": {"generator": 1, "samples": 3},
    }
    module = MODULES[name](lp, **options.get(name, {}))
    second = true if name in ("spo_plus", "directional", "regret") else solution.x
    model = torch.nn.Linear(3, 9, bias=False, dtype=torch.float64)
    torch.nn.init.normal_(model.weight, std=0.5, generator=torch.Generator().manual_seed(2))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)

    def regret():
        chosen = lpdiff.solve(lp, c=model(features).detach()).x
        return float(((true * chosen).sum(1) - solution.value).mean() / solution.value.abs().mean())

    before = regret()
    for _ in range(60):
        optimiser.zero_grad()
        module(model(features), second).backward()
        optimiser.step()
    assert before > 0.3
    assert regret() < 0.25 * before


# -- what is refused ---------------------------------------------------------------------------------------


def test_what_is_refused():
    lp = PROGRAMS["assignment"]
    costs = torch.zeros(2, 9, dtype=torch.float64)
    target = torch.eye(3, dtype=torch.float64).reshape(9).expand(2, 9).clone()
    with pytest.raises(ValueError, match="needs target solutions"):
        losses.structured_hinge(lp, costs, None)
    with pytest.raises(ValueError, match="zeros and ones"):
        losses.structured_hinge(lp, costs, target / 2)
    infeasible = target.clone()
    infeasible[1] = 0.0
    with pytest.raises(ValueError, match="target of item 1 is not feasible: it costs 3 less"):
        losses.perceptron(lp, costs + 1, infeasible)
    true = torch.arange(9.0, dtype=torch.float64).sin().expand(2, 9)
    solution = lpdiff.solve(lp, c=true)
    wrong = solution.x.clone()
    wrong[1] = torch.eye(3, dtype=torch.float64).flip(0).reshape(9)
    with pytest.raises(ValueError, match="target of item 1 is not optimal for the true costs"):
        losses.spo_plus(lp, costs, true, wrong, solution.value)
    losses.spo_plus(lp, costs, true, wrong, solution.value, weight=torch.tensor([True, False]))
    with pytest.raises(ValueError, match="target must have the shape of its costs"):
        losses.perceptron(lp, costs, target[:, :8])
    with pytest.raises(TypeError, match="must be a rule"):
        losses.regret(lp, costs, true, gradient=None)
    with pytest.raises(ValueError, match="step must be positive"):
        losses.directional(lp, costs, true, step=0.0)
    with pytest.raises(ValueError, match="'backward' or 'central'"):
        losses.directional(lp, costs, true, sides="forward")
    with pytest.raises(TypeError, match="expected a LinearProgram"):
        losses.perceptron(3, costs, target)
    with pytest.raises(TypeError, match="colour"):
        losses.Perceptron(problems.assignment, colour="red")(costs.reshape(2, 3, 3), target.reshape(2, 3, 3))
    with pytest.raises(TypeError, match="got int"):
        losses.perceptron(lambda c: 3, costs, target)
    with pytest.raises(TypeError, match="returns values alone"):
        losses.regret(lambda c: lpdiff.solve(lp, c=c).value, costs, true, gradient="exact")
    with pytest.raises(ValueError, match="one kind of costs"):
        losses.perceptron(lp, (costs, costs), (target, target))
    with pytest.raises(lpdiff.SolveError, match="item 0"):
        losses.perceptron(lp, torch.full((2, 9), math.nan, dtype=torch.float64), target)
