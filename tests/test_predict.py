"""Predict, then optimise: solved data sets, metrics of decisions and synthetic sets, each computed anew."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.utils.data import DataLoader, Subset, random_split

import lpdiff
from lpdiff import SolveError, predict
from lpdiff.predict import SolvedDataset, dataset
from lpdiff.problems import Knapsack, grid_graph, grid_path
from lpdiff.testing import enumerate_vertices


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def packing(sense: str = "max", **more) -> lpdiff.LinearProgram:
    """Five variables, two rows; its vertices are few enough to enumerate."""
    weights = [[2.0, 1.0, 3.0, 1.0, 2.0], [1.0, 3.0, 1.0, 2.0, 1.0]]
    return lpdiff.LinearProgram(A_ub=weights, b_ub=[4.0, 4.0], bounds=(0, 1), sense=sense, **more)


def simplex(sense: str = "min", n: int = 4, **more) -> lpdiff.LinearProgram:
    return lpdiff.LinearProgram(A_eq=np.ones((1, n)), b_eq=[1.0], bounds=(0, 1), sense=sense, **more)


def by_scipy(lp: lpdiff.LinearProgram, c: torch.Tensor, **changed) -> float:
    sign = -1 if lp.sense == "max" else 1
    given = {"A_ub": lp.A.toarray(), "b_ub": lp.row_upper, **changed}
    bounds = given.pop("bounds", list(zip(lp.lower, lp.upper, strict=True)))
    return sign * scipy.optimize.linprog(sign * c.numpy(), **given, bounds=bounds).fun


def paths_of(height: int, width: int) -> np.ndarray:
    """All monotone paths from corner to corner, as indicators of edges, walked by hand."""
    graph = grid_graph(height, width, "monotone")
    number = {pair: k for k, pair in enumerate(zip(graph.tail.tolist(), graph.head.tolist(), strict=True))}
    found = []
    for downs in itertools.combinations(range(height + width - 2), height - 1):
        cell, taken = 0, np.zeros(graph.edges)
        for step in range(height + width - 2):
            following = cell + (width if step in downs else 1)
            taken[number[cell, following]] = 1
            cell = following
        found.append(taken)
    return np.array(found)


# -- data sets ---------------------------------------------------------------------------------------------


def test_paths_are_those_of_an_enumeration():
    made = predict.shortest_path(20, grid=(3, 4), degree=4, noise=0.5, seed=1)
    solved = made.solved()
    paths = paths_of(3, 4)
    costs = made.costs.double().numpy() @ paths.T
    assert np.allclose(solved.value, costs.min(1))
    assert np.array_equal(solved.target.numpy(), paths[costs.argmin(1)])


@pytest.mark.parametrize("sense", ["min", "max"])
def test_values_are_those_of_scipy(sense):
    lp = packing(sense)
    costs = torch.randn(12, 5, generator=rng(), dtype=torch.float64)
    solved = SolvedDataset(lp, torch.zeros(12, 1), costs)
    assert np.allclose(solved.value, [by_scipy(lp, c) for c in costs])
    assert torch.allclose((costs * solved.target).sum(1), solved.value)
    plain = lpdiff.solve(lp, c=costs).basis
    assert solved.basis is not None
    for name in ("columns", "rows", "valid"):
        assert torch.equal(getattr(solved.basis, name), getattr(plain, name))
    assert solved.basis.valid.all()


def test_there_is_no_basis_of_integers_and_of_functions():
    costs, features = torch.rand(3, 5, generator=rng()), torch.zeros(3, 1)
    whole = SolvedDataset(packing(integrality=True), features, costs)
    assert whole.basis is None
    assert torch.equal(whole.target, whole.target.round())
    lp = packing()
    by_function = SolvedDataset(lambda c: lpdiff.solve(lp, c=c), features, costs)
    assert by_function.basis is None
    assert torch.allclose(by_function.target, SolvedDataset(lp, features, costs).target)


def test_a_layer_is_solved_as_its_program():
    costs, features = torch.rand(3, 5, generator=rng()), torch.zeros(3, 1)
    by_layer, plain = (SolvedDataset(p, features, costs) for p in (lpdiff.LPLayer(packing()), packing()))
    assert torch.equal(by_layer.target, plain.target)
    assert by_layer.basis is not None
    assert torch.equal(by_layer.basis.columns, plain.basis.columns)


def test_targets_are_vertices_whatever_the_rule():
    """A rule that smooths would have cached means of vertices."""
    costs, features = torch.rand(6, 4, generator=rng()), torch.zeros(6, 1)
    rule = lpdiff.gradients.make_gradient("perturbed")
    assert torch.equal(
        SolvedDataset(simplex(), features, costs, gradient=rule).target,
        torch.nn.functional.one_hot(costs.argmin(1), 4).float(),
    )


def test_modules_and_functions_of_the_library():
    costs = torch.rand(4, 3, 3, generator=rng())
    solved = SolvedDataset(lambda c: grid_path(c, moves="monotone"), torch.zeros(4, 2), costs)
    assert solved.target.shape == costs.shape
    assert torch.allclose((solved.target * costs).sum((1, 2)), solved.value)
    assert (solved.target.sum((1, 2)) == 5).all()


def test_several_kinds_of_costs():
    lp = packing()

    def program(first, second):
        return lpdiff.solve(lp, c=torch.cat([first, second], -1))

    parts = torch.rand(6, 2, generator=rng()), torch.rand(6, 3, generator=rng())
    solved = SolvedDataset(program, torch.zeros(6, 1), parts)
    whole = SolvedDataset(lp, torch.zeros(6, 1), torch.cat(parts, 1))
    assert torch.allclose(torch.cat(solved.target, 1), whole.target)
    batch = next(iter(DataLoader(solved, batch_size=6)))
    assert [t.shape for t in batch.costs] == [(6, 2), (6, 3)]
    loss = lpdiff.losses.spo_plus(program, batch.costs, batch.costs, batch.target, batch.value)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    guess = parts[0].flip(0), parts[1].flip(0)
    assert torch.allclose(
        predict.unambiguous_regret(program, guess, parts),
        predict.unambiguous_regret(lp, torch.cat(guess, 1), torch.cat(parts, 1)),
        atol=1e-6,
    )


def test_other_data_vary_by_item():
    lp = packing()
    g = rng()
    costs = torch.rand(7, 5, generator=g, dtype=torch.float64)
    data = {
        "b": 2 + 3 * torch.rand(7, 2, generator=g, dtype=torch.float64),
        "A_values": 1 + torch.rand(7, 10, generator=g, dtype=torch.float64),
        "bounds": (torch.zeros(7, 5), 0.2 + torch.rand(7, 5, generator=g)),
    }
    solved = SolvedDataset(lp, torch.zeros(7, 1), costs, data=data)
    for i, item in enumerate(solved[k] for k in range(7)):
        matrix = np.zeros((2, 5))
        matrix[lp.rows, lp.cols] = data["A_values"][i]
        upper = [(0, float(u)) for u in data["bounds"][1][i]]
        value = by_scipy(lp, costs[i], A_ub=matrix, b_ub=data["b"][i].numpy(), bounds=upper)
        assert float(item.value) == pytest.approx(value)
        assert torch.equal(item.data["b"], data["b"][i])
        assert torch.equal(item.data["bounds"][1], data["bounds"][1][i])
    # ...and go on to losses and metrics: by themselves, or with the program.
    guess = costs.flip(0)
    for batch in (next(iter(DataLoader(solved, batch_size=7))), solved[:]):
        assert (predict.regret(lp, costs, batch.costs, batch.value, data=batch.data).abs() < 1e-9).all()
        losses = [
            lpdiff.losses.spo_plus(lp, guess, batch.costs, batch.target, batch.value, **batch.data),
            lpdiff.losses.spo_plus(solved.objective(batch.data), guess, batch.costs, batch.target),
        ]
        assert float(losses[0]) == pytest.approx(float(losses[1]))
        assert float(losses[0]) > 0.01
    report = predict.evaluate_model(lambda f: guess, solved)
    found = predict.regret(lp, guess, costs, data=data)
    assert report.regret == pytest.approx(float(found.mean()))
    assert report.regret > 0.01


def test_data_of_functions_are_their_keywords():
    g = rng()
    values, weights = torch.rand(5, 4, generator=g), 0.5 + torch.rand(5, 4, generator=g)
    data = {"capacity": 1 + torch.rand(5, generator=g)}

    def program(values, capacity):
        return Knapsack()(values, weights[0], capacity)

    solved = SolvedDataset(program, torch.zeros(5, 1), values, data=data)
    for v, item in zip(values, solved, strict=True):
        ub = {"A_ub": weights[:1].numpy(), "b_ub": [float(item.data["capacity"])], "bounds": (0, 1)}
        assert float(item.value) == pytest.approx(-scipy.optimize.linprog(-v.numpy(), **ub).fun, rel=1e-5)
    fixed = SolvedDataset(packing(), torch.zeros(5, 1), torch.rand(5, 5, generator=g), b=[1.0, 1.0])
    assert (fixed.target @ torch.from_numpy(packing().A.toarray()).float().T <= 1 + 1e-6).all()


def test_float32_stays_and_is_solved_in_float64():
    made = predict.shortest_path(9, grid=(3, 3), noise=0.3)
    single, double = (
        SolvedDataset(made.program, made.features, made.costs.to(t)) for t in (torch.float32, torch.float64)
    )
    assert single.value.dtype == single.target.dtype == torch.float32
    assert double.value.dtype == torch.float64
    assert torch.equal(single.value, double.value.float())
    whole = SolvedDataset(made.program, np.zeros((2, 1)), np.ones((2, 12), dtype=int))
    assert whole.costs.dtype == torch.get_default_dtype()


def test_items_and_batches():
    made = predict.shortest_path(10, grid=(3, 3), noise=0.3)
    solved = made.solved()
    assert len(solved) == 10
    item = solved[3]
    assert item.index == 3
    assert item.features.shape == (5,)
    for many in (solved[2:4], solved[[2, 3]], solved[torch.tensor([2, 3])]):
        assert torch.equal(many.costs[1], item.costs)
        assert torch.equal(many.target[1], item.target)
        assert many.value[1] == item.value
        assert many.index.tolist() == [2, 3]
    assert torch.equal(solved[-1].costs, solved.costs[9])
    assert len(list(solved)) == 10
    assert "10 items" in repr(solved)
    again = pickle.loads(pickle.dumps(solved))
    assert torch.equal(again.target, solved.target)


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders(workers):
    made = predict.shortest_path(10, grid=(3, 3), noise=0.3)
    solved = made.solved()
    for loader in (
        DataLoader(solved, batch_size=4, num_workers=workers),
        predict.batches(solved, 4, num_workers=workers),
    ):
        batches = list(loader)
        assert [len(batch.features) for batch in batches] == [4, 4, 2]
        assert torch.equal(torch.cat([batch.target for batch in batches]), solved.target)
        assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(10))
        for batch in batches:
            assert torch.allclose((batch.costs * batch.target).sum(1), batch.value)


def test_batches_shuffle_by_a_generator_and_split():
    solved = predict.shortest_path(10, grid=(3, 3), noise=0.3).solved()
    train, test = random_split(solved, [7, 3], generator=rng())
    orders = [
        [batch.index.tolist() for batch in predict.batches(train, 3, shuffle=True, generator=rng(seed))]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert [len(order) for order in orders[0]] == [3, 3, 1]
    assert sorted([*itertools.chain(*orders[0]), *test.indices]) == list(range(10))
    assert len(list(predict.batches(train, 3, drop_last=True))) == 2


def test_many_items_are_solved_in_parts(monkeypatch):
    costs = torch.rand(10, 5, generator=rng())
    at_once = SolvedDataset(packing(), torch.zeros(10, 1), costs)
    monkeypatch.setattr(dataset, "_CHUNK", 3)
    in_parts = SolvedDataset(packing(), torch.zeros(10, 1), costs)
    assert torch.equal(in_parts.target, at_once.target)
    assert torch.equal(in_parts.basis.columns, at_once.basis.columns)
    sides = torch.full((10, 2), 4.0)
    sides[[4, 8]] = -1.0
    with pytest.raises(SolveError, match=r"item\(s\) 4 of the data set have no optimum") as caught:
        SolvedDataset(packing(), torch.zeros(10, 1), costs, data={"b": sides})
    assert caught.value.items == [(4,)]
    assert "infeasible" in str(caught.value)


def test_items_without_an_optimum_are_named(monkeypatch):
    costs = torch.rand(5, 4, generator=rng())
    costs[3, 1] = torch.nan
    with pytest.raises(SolveError, match="item 3: invalid"):
        SolvedDataset(simplex(), torch.zeros(5, 1), costs)
    sides = torch.ones(5, 1)
    sides[2] = 9.0
    with pytest.raises(SolveError, match="item 2: infeasible"):
        SolvedDataset(simplex(), torch.zeros(5, 1), torch.ones(5, 4), data={"b": sides})
    monkeypatch.setattr(dataset, "_CHUNK", 2)
    with pytest.raises(ValueError, match=r"item\(s\) 2 have no optimum .value inf.: leave them out"):
        SolvedDataset(simplex(), torch.zeros(5, 1), torch.ones(5, 4), data={"b": sides}, throw=False)


def test_what_does_not_fit_is_refused():
    features, costs = torch.zeros(5, 1), torch.ones(5, 4)
    with pytest.raises(
        ValueError, match=r"an item of costs for each of the 5 of features, got shape \(4, 4\)"
    ):
        SolvedDataset(simplex(), features, costs[:4])
    with pytest.raises(ValueError, match=r"an item of b for each of the 5"):
        SolvedDataset(simplex(), features, costs, data={"b": torch.ones(1)})
    with pytest.raises(ValueError, match="features: expected"):
        SolvedDataset(simplex(), 1.0, costs)
    with pytest.raises(ValueError, match=r"bounds\[0\] must be numbers"):
        SolvedDataset(simplex(), features, costs, data={"bounds": (None, costs)})
    with pytest.raises(ValueError, match="one vector of costs an item, got 2"):
        SolvedDataset(simplex(), features, (costs, costs))
    with pytest.raises(ValueError, match="an optimal value an item"):
        SolvedDataset(lambda c: lpdiff.solve(simplex(), c=c).value.sum(), features, costs)
    with pytest.raises(TypeError, match="unexpected keyword argument 'solver'"):
        SolvedDataset(lambda c: lpdiff.solve(simplex(), c=c), features, costs, solver="highs")


def test_an_empty_data_set():
    solved = SolvedDataset(simplex(), torch.zeros(0, 2), torch.zeros(0, 4))
    assert len(solved) == 0
    assert solved.target.shape == (0, 4)
    with pytest.raises(ValueError, match="empty"):
        predict.evaluate_model(lambda f: torch.zeros(len(f), 4), solved)


# -- on disk -----------------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path, monkeypatch):
    made = predict.shortest_path(8, grid=(3, 3), noise=0.3)
    solved, path = made.solved(), tmp_path / "solved"
    solved.save(path)
    monkeypatch.setattr(dataset, "solve", None)  # nothing is solved again
    loaded = SolvedDataset.load(path, made.program, made.features, made.costs)
    for name in ("target", "value", "costs", "features"):
        assert torch.equal(getattr(loaded, name), getattr(solved, name))
        assert getattr(loaded, name).dtype == torch.float32
    for name in ("columns", "rows", "valid"):
        assert torch.equal(getattr(loaded.basis, name), getattr(solved.basis, name))
    # Features take no part: they may be prepared in another way.
    SolvedDataset.load(path, made.program, 2 * made.features[:, :3], made.costs)
    # The same numbers in another dtype, and the same program made anew, are the same.
    again = pickle.loads(pickle.dumps(made.program))
    assert SolvedDataset.load(path, again, made.features, made.costs.double()).value.dtype == torch.float64


def test_a_stale_cache_is_refused(tmp_path):
    costs, features, path = torch.rand(6, 5, generator=rng()), torch.zeros(6, 1), tmp_path / "cache.npz"
    data = {"b": torch.full((6, 2), 4.0)}
    SolvedDataset(packing(), features, costs, data=data).save(path)
    SolvedDataset.load(path, packing(), features, costs, data=data)
    weights = packing().A.toarray()
    stale = [
        (packing(), costs + 1e-3, data, {}),
        (packing(), costs[:, [1, 0, 2, 3, 4]], data, {}),
        (packing(), costs, {"b": data["b"] + 1}, {}),
        (packing(), costs, None, {}),
        (packing(), costs, data, {"offset": 1.0}),
        (packing("min"), costs, data, {}),
        (packing(offset=1.0), costs, data, {}),
        (packing(integrality=True), costs, data, {}),
        (lpdiff.LinearProgram(A_ub=weights + 1e-3, b_ub=[4, 4], bounds=(0, 1), sense="max"), costs, data, {}),
        (lpdiff.LinearProgram(A_ub=weights, b_ub=[4, 4], bounds=(0, 2), sense="max"), costs, data, {}),
        (lpdiff.LinearProgram(A_ub=weights, b_ub=[4, 5], bounds=(0, 1), sense="max"), costs, data, {}),
        (lambda c, b: lpdiff.solve(packing(), c=c, b=b), costs, data, {}),
    ]
    for program, c, more, how in stale:
        with pytest.raises(ValueError, match=r"another program, other costs or other data: solve anew"):
            SolvedDataset.load(path, program, features, c, data=more, **how)


def test_functions_are_compared_by_what_they_find(tmp_path):
    costs, features, path = torch.rand(6, 4, 4, generator=rng()), torch.zeros(6, 1), tmp_path / "cache.npz"

    def program(moves):
        return lambda c: grid_path(c, moves=moves)

    solved = SolvedDataset(program(8), features, costs)
    solved.save(path)
    assert torch.equal(SolvedDataset.load(path, program(8), features, costs).target, solved.target)
    with pytest.raises(ValueError, match="a program with other optimal values: solve anew"):
        SolvedDataset.load(path, program("monotone"), features, costs)


def test_what_a_module_learned_counts(tmp_path):
    costs, features, path = torch.rand(4, 5, generator=rng()), torch.zeros(4, 1), tmp_path / "cache.npz"
    program = Learned()
    SolvedDataset(program, features, costs).save(path)
    SolvedDataset.load(path, program, features, costs)
    with torch.no_grad():
        program.b += 0.1
    with pytest.raises(ValueError, match="another program"):
        SolvedDataset.load(path, program, features, costs)


class Learned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.b = torch.nn.Parameter(torch.full((2,), 3.0))

    def forward(self, c):
        return lpdiff.solve(packing(), c=c, b=self.b)


def test_other_files_are_refused(tmp_path):
    costs, features = torch.ones(2, 4), torch.zeros(2, 1)
    text, other, cut = tmp_path / "text", tmp_path / "other.npz", tmp_path / "cut"
    text.write_text("no solutions here")
    np.savez(other, value=np.zeros(2))
    SolvedDataset(simplex(), features, costs).save(cut)
    cut.write_bytes(cut.read_bytes()[:300])
    for path in (text, other, cut):
        with pytest.raises(ValueError, match=r"is not a file of SolvedDataset.save"):
            SolvedDataset.load(path, simplex(), features, costs)
    with pytest.raises(FileNotFoundError):
        SolvedDataset.load(tmp_path / "none", simplex(), features, costs)


# -- metrics -----------------------------------------------------------------------------------------------


def regrets_of(points: np.ndarray, predicted: np.ndarray, true: np.ndarray, sign: int):
    """Least and largest regret of the points that are optimal for the predicted costs, item by item."""
    found = []
    for guess, c in zip(sign * predicted, sign * true, strict=True):
        values = points @ guess
        tied = points[values <= values.min() + 1e-9]
        regrets = tied @ c - (points @ c).min()
        found.append((regrets.min(), regrets.max(), len(tied)))
    return np.array(found).T


@pytest.mark.parametrize("solver", ["auto", "highs"])
@pytest.mark.parametrize("sense", ["min", "max"])
@pytest.mark.parametrize("kind", ["packing", "simplex", "path", "integers"])
def test_regrets_are_those_of_an_enumeration(kind, sense, solver):
    """Predicted costs of few different numbers, so that ties abound."""
    lp = {
        "packing": lambda: packing(sense),
        "simplex": lambda: simplex(sense),
        "integers": lambda: packing(sense, integrality=True),
        "path": lambda: lpdiff.LinearProgram(
            A_eq=(path := predict.shortest_path(1, grid=(3, 3)).program).A,
            b_eq=path.row_lower,
            bounds=(0, 1),
            sense=sense,
        ),
    }[kind]()
    points = paths_of(3, 3) if kind == "path" else enumerate_vertices(lp)
    if kind == "integers":
        cube = np.array(list(itertools.product([0.0, 1.0], repeat=5)))
        points = cube[(cube @ lp.A.toarray().T <= lp.row_upper).all(1)]
    g = np.random.default_rng(3)
    predicted = g.integers(-1, 3, (30, lp.n)).astype(float)
    true = g.normal(size=(30, lp.n))
    least, most, count = regrets_of(points, predicted, true, 1 if sense == "min" else -1)
    assert (count > 1).sum() > 3
    assert (count == 1).sum() > 3
    given = torch.from_numpy(predicted), torch.from_numpy(true)
    plain = predict.regret(lp, *given, solver=solver)
    worst = predict.unambiguous_regret(lp, *given, solver=solver)
    assert (plain.numpy() >= least - 1e-9).all()
    assert (plain.numpy() <= most + 1e-9).all()
    assert np.allclose(worst, most, atol=1e-9)
    unique = count == 1
    assert np.allclose(plain[unique], worst[unique], atol=1e-9)
    assert (predict.regret(lp, given[1], given[1], solver=solver).abs() < 1e-12).all()


def test_ties_made_by_hand():
    lp = simplex()
    true = torch.tensor([[3.0, 1.0, 4.0, 1.5]])
    cases = {
        (0.0, 0.0, 0.0, 0.0): 3.0,  # all tied: the dearest costs 4, the best 1
        (1.0, 2.0, 1.0, 1.0): 3.0,
        (1.0, 2.0, 2.0, 1.0): 2.0,
        (2.0, 1.0, 2.0, 1.0): 0.5,
        (2.0, 1.0, 2.0, 2.0): 0.0,
        (1.0, 2.0, 1.0 + 1e-4, 1.0): 2.0,  # near, and no tie
        (1e6, 2.0, 1.0 + 1e-2, 1.0): 0.5,  # nor beside a large cost
    }
    for guess, expected in cases.items():
        found = predict.unambiguous_regret(lp, torch.tensor([guess]).double(), true.double())
        assert float(found) == pytest.approx(expected, abs=1e-9), guess
    # The maximisation of the negatives is the same problem.
    for guess, expected in cases.items():
        found = predict.unambiguous_regret(simplex("max"), -torch.tensor([guess]).double(), -true.double())
        assert float(found) == pytest.approx(expected, abs=1e-9), guess


def test_an_offset_is_no_regret():
    g = rng()
    costs, guess = (torch.rand(6, 5, generator=g, dtype=torch.float64) for _ in range(2))
    plain, moved = packing(), packing(offset=7.0)
    for metric in (predict.regret, predict.unambiguous_regret):
        assert torch.allclose(metric(moved, guess, costs), metric(plain, guess, costs))
        value = lpdiff.solve(moved, c=costs).value
        assert torch.allclose(metric(moved, guess, costs, value), metric(plain, guess, costs))
        by_item = {"offset": torch.arange(6.0)}
        assert torch.allclose(metric(plain, guess, costs, data=by_item), metric(plain, guess, costs))


def test_an_infinite_unambiguous_regret_is_an_error():
    lp = lpdiff.LinearProgram(A_ub=[[-1.0, -1.0]], b_ub=[-1.0])
    assert float(predict.regret(lp, torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]]))) < torch.inf
    with pytest.raises(SolveError, match="unbounded"):
        predict.unambiguous_regret(lp, torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]]))


def test_relative_and_normalised():
    lp = simplex("max")
    true = torch.tensor([[4.0, 1.0, 2.0, 3.0], [-5.0, -1.0, -2.0, -2.5]])
    guess = torch.tensor([[1.0, 2.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0]])
    assert predict.regret(lp, guess, true).tolist() == [3.0, 4.0]
    assert predict.relative_regret(lp, guess, true).tolist() == [0.75, 4.0]
    assert float(predict.normalised_regret(lp, guess, true)) == pytest.approx(7 / 5)


def test_batches_of_any_shape_and_dtype():
    g = rng()
    guess, true = (torch.rand(2, 3, 5, generator=g) for _ in range(2))
    lp = packing()
    found = predict.unambiguous_regret(lp, guess, true)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    flat = predict.unambiguous_regret(lp, guess.reshape(6, 5), true.reshape(6, 5))
    assert torch.equal(found.flatten(), flat)
    exact = predict.regret(lp, guess.double(), true.double())
    assert torch.equal(predict.regret(lp, guess, true), exact.float())
    single = predict.regret(lp, guess[0, 0].requires_grad_(), true[0, 0])
    assert single.shape == ()
    assert not single.requires_grad
    layer = lpdiff.LPLayer(lp)
    assert torch.equal(predict.regret(layer, guess, true), predict.regret(lp, guess, true))


def test_metrics_of_functions():
    g = rng()
    guess = torch.randint(0, 3, (20, 3, 3), generator=g).double()
    true = torch.rand(20, 3, 3, generator=g, dtype=torch.float64)
    cells = []
    for downs in itertools.combinations(range(4), 2):
        taken = np.zeros((3, 3))
        taken[0, 0] = 1
        for step in range(4):
            rows = sum(d <= step for d in downs)
            taken[rows, step + 1 - rows] = 1
        cells.append(taken.ravel())
    _, most, count = regrets_of(np.array(cells), guess.flatten(1).numpy(), true.flatten(1).numpy(), 1)
    assert (count > 1).sum() > 5
    program = lambda c: grid_path(c, moves="monotone")  # noqa: E731
    assert np.allclose(predict.unambiguous_regret(program, guess, true), most)


def test_metrics_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shaped like the true ones, \(2, 4\), got \(2, 3\)"):
        predict.regret(simplex(), torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="predicted costs must be finite"):
        predict.regret(simplex(), torch.full((2, 4), torch.inf), torch.ones(2, 4))
    with pytest.raises(lpdiff.BackendError, match="unknown solver 'nobody'"):
        predict.regret(
            lpdiff.losses.Objective(simplex()), torch.ones(2, 4), torch.ones(2, 4), solver="nobody"
        )


def test_evaluating_a_model():
    made = predict.shortest_path(50, grid=(3, 4), degree=4, noise=0.5)
    solved = made.solved()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(5, 17))
    report = predict.evaluate_model(model, solved, batch_size=7)
    assert model.training
    guess = model.eval()(made.features).detach()
    by_hand = predict.regret(made.program, guess, made.costs, solved.value)
    assert report.count == 50
    assert report.regret == pytest.approx(float(by_hand.mean()), rel=1e-5)
    assert report.normalised_regret == pytest.approx(float(by_hand.sum() / solved.value.sum()), rel=1e-5)
    assert report.relative_regret == pytest.approx(float((by_hand / solved.value).mean()), rel=1e-5)
    assert report.unambiguous_regret == pytest.approx(report.normalised_regret, rel=1e-5)
    assert report.cost_error == pytest.approx(float((guess - made.costs).square().mean()), rel=1e-5)
    assert predict.evaluate_model(model, solved, unambiguous=False).unambiguous_regret is None
    assert not model.training
    some = Subset(Subset(solved, range(10, 40)), [3, 5])
    assert predict.evaluate_model(model, some).regret == pytest.approx(
        float(by_hand[[13, 15]].mean()), rel=1e-5
    )


def test_a_model_of_zeros_is_not_rewarded():
    solved = predict.shortest_path(10, grid=(3, 3), degree=2).solved()
    report = predict.evaluate_model(lambda f: torch.zeros(len(f), 12), solved)
    paths = paths_of(3, 3)
    costs = solved.costs.double().numpy() @ paths.T
    worst = (costs.max(1) - costs.min(1)).sum() / costs.min(1).sum()
    assert report.unambiguous_regret == pytest.approx(worst, rel=1e-5)
    assert report.normalised_regret < report.unambiguous_regret
    best = predict.evaluate_model(lambda f: solved.costs, solved)
    assert best.normalised_regret == pytest.approx(0, abs=1e-7)
    assert best.cost_error == 0


def test_evaluating_refuses_other_data_sets_and_a_failing_model():
    solved = predict.shortest_path(10, grid=(3, 3)).solved()
    with pytest.raises(TypeError, match="a SolvedDataset or a Subset of one, got TensorDataset"):
        predict.evaluate_model(lambda f: f, torch.utils.data.TensorDataset(torch.ones(2, 2)))
    model = torch.nn.Linear(5, 11)
    with pytest.raises(ValueError, match=r"shaped like the true ones, \(10, 12\), got \(10, 11\)"):
        predict.evaluate_model(model, solved)
    assert model.training


# -- synthetic sets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("degree", "noise"), [(1, 0.0), (4, 0.5)])
def test_shortest_paths_follow_the_formula(degree, noise):
    """One number after the other, from the same generator."""
    made = predict.shortest_path(3, features=2, grid=(2, 3), degree=degree, noise=noise, seed=11)
    drawn = np.random.RandomState(11)
    choice = [[drawn.binomial(1, 0.5) for _ in range(2)] for _ in range(7)]
    x = [[drawn.normal() for _ in range(2)] for _ in range(3)]
    for i in range(3):
        for j in range(7):
            inner = sum(b * f for b, f in zip(choice[j], x[i], strict=True)) / 2**0.5
            cost = ((inner + 3) ** degree + 1) / 3.5**degree * drawn.uniform(1 - noise, 1 + noise)
            assert float(made.costs[i, j]) == pytest.approx(cost, rel=1e-6)
    assert np.allclose(made.features, x)
    assert made.costs.dtype == made.features.dtype == torch.get_default_dtype()


def test_the_edges_of_the_grid():
    made = predict.shortest_path(4, noise=0.5)
    assert made.program.n == 40
    assert made.details == {"grid": (5, 5)}
    # Each row's steps to the right, then its steps down.
    arcs = []
    for row in range(5):
        arcs += [(5 * row + k, 5 * row + k + 1) for k in range(4)]
        arcs += [(5 * row + k, 5 * row + k + 5) for k in range(5)] if row < 4 else []
    matrix = made.program.A.toarray()
    assert [(int(np.argmax(column)), int(np.argmin(column))) for column in matrix.T] == arcs
    assert lpdiff.solve(made.program, c=made.costs).statistics == {"path": 4}


def test_known_numbers_of_a_seed():
    """Those of PyEPO 2.2.7, so that a change of the stream is seen without it, too."""
    path = predict.shortest_path(2, degree=4, noise=0.5, seed=135)
    assert np.allclose(path.features[0, :3], [0.18978013, 0.28131239, 0.80407457], rtol=1e-6)
    assert np.allclose(path.costs[1, -3:], [0.80544704, 0.54863673, 0.69491100], rtol=1e-6)
    pack = predict.knapsack(2, degree=4, noise=0.5, seed=135)
    assert np.allclose(pack.details["weights"][:, 0], [4.59, 6.09])
    assert pack.costs[1, :4].tolist() == [4.0, 3.0, 3.0, 8.0]
    assets = predict.portfolio(2, degree=4, seed=135)
    assert np.allclose(assets.costs[1, :3], [0.08624189, 0.11828656, 0.09314895], rtol=1e-5)


def test_the_same_numbers_as_pyepo():
    pyepo = pytest.importorskip("pyepo", reason="PyEPO, of the extra bench, is not installed")
    for degree, noise, seed in ((1, 0.0, 0), (4, 0.5, 135), (6, 0.2, 7)):
        made = predict.shortest_path(20, grid=(4, 3), degree=degree, noise=noise, seed=seed)
        x, c = pyepo.data.shortestpath.genData(20, 5, (4, 3), degree, noise, seed)
        assert np.array_equal(made.features, x.astype(np.float32))
        assert np.array_equal(made.costs, c)
        packs = predict.knapsack(20, items=9, resources=3, degree=degree, noise=noise, seed=seed)
        weights, x, c = pyepo.data.knapsack.genData(20, 5, 9, 3, degree, noise, seed)
        assert np.array_equal(packs.details["weights"], weights)
        assert np.array_equal(packs.features, x.astype(np.float32))
        assert np.array_equal(packs.costs, c)
        assets = predict.portfolio(20, assets=12, degree=degree, noise=2 * noise, seed=seed)
        covariance, x, c = pyepo.data.portfolio.genData(20, 5, 12, degree, 2 * noise, seed)
        assert np.allclose(assets.details["covariance"], covariance, rtol=1e-12)
        assert np.array_equal(assets.features, x.astype(np.float32))
        assert np.array_equal(assets.costs, c)


def test_knapsacks():
    made = predict.knapsack(5, items=8, resources=2, capacity=15.0, degree=2, noise=0.5)
    weights = made.details["weights"]
    assert weights.shape == (2, 8)
    assert weights.min() >= 3
    assert weights.max() < 8
    assert torch.equal(made.costs, made.costs.round())
    subsets = np.array(list(itertools.product([0.0, 1.0], repeat=8)))
    subsets = subsets[(subsets @ weights.T <= 15.0).all(1)]
    best = (made.costs.numpy() @ subsets.T).max(1)
    whole = predict.knapsack(5, items=8, capacity=15.0, degree=2, noise=0.5, integral=True).solved()
    assert np.allclose(whole.value, best)
    relaxed = made.solved()
    assert (relaxed.value >= whole.value - 1e-4).all()
    split = (relaxed.target > 1e-6) & (relaxed.target < 1 - 1e-6)
    assert (split.sum(1) <= 2).all()
    upper = [by_scipy(made.program, c) for c in made.costs.double()]
    assert np.allclose(relaxed.value, upper)


def test_portfolios_keep_the_published_limit_on_risk():
    made = predict.portfolio(20, degree=4)
    covariance, loadings = made.details["covariance"], made.details["loadings"]
    assert np.allclose(covariance, loadings @ loadings.T + 1e-4 * np.eye(50))
    assert made.details["risk"] == pytest.approx(2.25 * covariance.mean())
    shares = made.solved().target.double().numpy()
    risk = np.einsum("bi,ij,bj->b", shares, covariance, shares)
    assert (risk <= made.details["risk"] * (1 + 1e-6)).all()
    assert (risk > 0.5 * made.details["risk"]).all()  # and make use of it
    assert (shares.sum(1) <= 1 + 1e-6).all()
    bare = predict.portfolio(3, noise=0.0).solved()  # no risk: the best asset
    assert torch.allclose(bare.value, bare.costs.max(1).values)
    drawn = np.random.RandomState(135)
    choice = drawn.binomial(1, 0.5, (50, 5))
    drawn.uniform(size=(50, 5))
    x = drawn.normal(size=(3, 5))
    assert np.allclose(bare.costs, 0.05 * (x @ choice.T) / 5**0.5 + 0.1, rtol=1e-5)


def test_sets_that_make_no_sense_are_refused():
    for make, wrong in (
        (predict.shortest_path, {"count": -1}),
        (predict.shortest_path, {"degree": 0}),
        (predict.shortest_path, {"degree": 1.5}),
        (predict.shortest_path, {"noise": 1.5}),
        (predict.shortest_path, {"features": 0}),
        (predict.shortest_path, {"grid": (1, 1)}),
        (predict.knapsack, {"noise": -0.1}),
        (predict.knapsack, {"items": 0}),
        (predict.knapsack, {"capacity": -1.0}),
        (predict.portfolio, {"gamma": 0.0}),
        (predict.portfolio, {"assets": 0}),
    ):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=f"{name}.*expected|expected.*{name}"):
            make(**{"count": 3, **wrong})
