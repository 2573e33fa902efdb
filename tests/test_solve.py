"""solve: what it takes, what comes back, and that an item's answer depends on that item alone."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
import weakref

import numpy as np
import pytest
import scipy.optimize
import torch

import lpdiff
from lpdiff import BasisStatus, LinearProgram, Status
from lpdiff.backends.highs import HiGHS
from lpdiff.testing import KINDS, random_lp

A = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]])


def transport(**more) -> LinearProgram:
    """Two supplies (<=), one demand and more (=): c = (1, 2, 3, 5) costs 8 at b = (3, 3, 2 | 4)."""
    return LinearProgram([1.0, 2, 3, 5], A_ub=A, b_ub=[3.0, 3, 2], A_eq=[[1.0, 1, 1, 1]], b_eq=[4.0], **more)


def against_linprog(lp, c=None, A_values=None, row_lower=None, row_upper=None, lower=None, upper=None):
    """The optimum by scipy.optimize.linprog, in the user's sense."""

    def pick(given, declared):
        return declared if given is None else np.asarray(given)

    c = pick(c, lp.c)
    matrix = lp.form.matrix(pick(A_values, lp.A.data)).toarray()
    row_lower, row_upper = pick(row_lower, lp.row_lower), pick(row_upper, lp.row_upper)
    low, high = np.isfinite(row_lower), np.isfinite(row_upper)
    equal = low & high & (row_lower == row_upper)
    sign = 1 if lp.sense == "min" else -1
    result = scipy.optimize.linprog(
        sign * c,
        A_ub=np.vstack([matrix[high & ~equal], -matrix[low & ~equal]]),
        b_ub=np.concatenate([row_upper[high & ~equal], -row_lower[low & ~equal]]),
        A_eq=matrix[equal],
        b_eq=row_lower[equal],
        bounds=np.stack([pick(lower, lp.lower), pick(upper, lp.upper)], axis=1),
    )
    assert result.status == 0
    return sign * result.fun, result.x


def programs(seed: int, count: int, n: int = 12, m: int = 8, kinds=KINDS):
    rng = np.random.default_rng([11, seed])
    for k in range(count):
        sense = "min" if k % 2 else "max"
        yield random_lp(
            rng, int(rng.integers(1, n)), int(rng.integers(0, m)), kind=kinds[k % len(kinds)], sense=sense
        )


def fields(sol: lpdiff.Solution) -> dict[str, torch.Tensor]:
    return {
        "value": sol.value,
        "x": sol.x,
        "y": sol.y,
        "reduced costs": sol.reduced_costs,
        "status": sol.status,
        "columns": sol.basis.columns,
        "rows": sol.basis.rows,
        "valid": sol.basis.valid,
        "x unique": sol.x_unique,
        "y unique": sol.y_unique,
        "iterations": sol.iterations,
    }


def assert_same_bits(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        # Bytes: NaN equals itself, and -0.0 differs from 0.0.
        assert tensor.detach().numpy().tobytes() == two[name].detach().numpy().tobytes(), name


# -- the right answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_value_and_vertex_against_linprog(seed):
    unique = 0
    for lp in programs(seed, 40):
        sol = lpdiff.solve(lp)
        value, x = against_linprog(lp)
        assert float(sol.value) == pytest.approx(value, rel=1e-7, abs=1e-7)
        if sol.x_unique:
            unique += 1
            assert np.allclose(sol.x, x, atol=1e-6)
        assert bool(sol.basis.valid)
    assert unique > 5


@pytest.mark.parametrize("sense", ["min", "max"])
def test_given_numbers_against_linprog(sense):
    """Every field given at once, batched, for programs whose pattern alone is declared."""
    rng = np.random.default_rng(3)
    for lp in programs(5, 12, kinds=("generic",)):
        lp = random_lp(rng, 8, 5, sense=sense)
        moved = {
            "c": lp.c + 0.3 * rng.normal(size=(3, 8)),
            "A_values": lp.A.data + 0.05 * rng.normal(size=(3, lp.nnz)),
        }
        slack = rng.uniform(0, 0.3, (3, 5))
        lower, upper = lp.lower - 0.1, lp.upper + rng.uniform(0, 0.2, (3, 8))
        row_lower, row_upper = lp.row_lower - slack, lp.row_upper + slack
        sol = lpdiff.solve(
            lp, **moved, row_lower=row_lower, row_upper=row_upper, bounds=(lower, upper), throw=False
        )
        for k in range(3):
            if not sol.ok[k]:
                continue
            value, _ = against_linprog(
                lp, moved["c"][k], moved["A_values"][k], row_lower[k], row_upper[k], lower, upper[k]
            )
            assert float(sol.value[k]) == pytest.approx(value, rel=1e-7, abs=1e-7)
        assert sol.ok.any()


@pytest.mark.parametrize("sense", ["min", "max"])
def test_duals_are_derivatives_of_the_value(sense):
    rng = np.random.default_rng(8)
    step, seen, signs = 1e-5, 0, set()
    for _ in range(15):
        lp = random_lp(rng, 7, 5, sense=sense)
        sol = lpdiff.solve(lp)
        if not sol.unique:
            continue
        seen += 1
        for names, lower, upper, duals in (
            (("row_lower", "row_upper"), lp.row_lower, lp.row_upper, sol.y),
            (("lower", "upper"), lp.lower, lp.upper, sol.reduced_costs),
        ):
            moves = np.concatenate([step * np.eye(len(lower)), -step * np.eye(len(lower))])
            data = {names[0]: lower + moves, names[1]: upper + moves}
            if names[0] == "lower":
                data = {"bounds": (data["lower"], data["upper"])}
            up, down = lpdiff.solve(lp, **data).value.chunk(2)
            assert torch.allclose((up - down) / (2 * step), duals, atol=1e-6)
            signs |= set(torch.sign(duals).int().tolist())
        # d = c - A'y, in the user's signs
        assert np.allclose(sol.reduced_costs, lp.c - lp.A.T @ sol.y.numpy(), atol=1e-9)
    assert seen >= 10
    assert signs == {-1, 0, 1}


def test_a_known_transport():
    sol = lpdiff.solve(transport())
    assert float(sol.value) == 8.0
    assert sol.x.tolist() == [2, 1, 0, 1] or float(sol.x @ torch.tensor([1.0, 2, 3, 5]).double()) == 8
    assert sol.status == Status.OPTIMAL
    assert bool(sol.ok)
    assert float(lpdiff.solve(transport(sense="max", bounds=(0, 1.5))).value) == 14


# -- broadcasting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c", "b_eq", "batch"),
    [
        ((4,), (1,), ()),
        ((), (), ()),
        ((1, 4), (1,), (1,)),
        ((3, 4), (1,), (3,)),
        ((1, 4), (5, 1), (5,)),
        ((5, 4), (1, 1), (5,)),
        ((3, 1, 4), (1, 2, 1), (3, 2)),
        ((2, 4), (3, 1, 1), (3, 2)),
        ((2, 3, 2, 4), (), (2, 3, 2)),
        ((0, 4), (1,), (0,)),
        ((4,), (0, 1), (0,)),
        ((2, 0, 4), (1, 1), (2, 0)),
        ((1, 1, 4), (1,), (1, 1)),
    ],
)
def test_batches_broadcast(c, b_eq, batch):
    rng = np.random.default_rng(2)
    lp = transport()
    costs = torch.from_numpy(rng.uniform(1, 2, c)).requires_grad_()
    demand = torch.from_numpy(rng.uniform(3, 5, b_eq)).requires_grad_()
    sol = lpdiff.solve(lp, c=costs, b_eq=demand)
    assert sol.value.shape == sol.status.shape == sol.unique.shape == sol.gap.shape == batch
    assert sol.x.shape == sol.reduced_costs.shape == sol.basis.columns.shape == (*batch, 4)
    assert sol.y.shape == sol.basis.rows.shape == (*batch, 4)
    everywhere_c = torch.broadcast_to(costs, (*batch, 4)).reshape(-1, 4)
    everywhere_b = torch.broadcast_to(demand, (*batch, 1)).reshape(-1, 1)
    flat = sol.value.reshape(-1)
    for k in range(len(flat)):
        single = lpdiff.solve(lp, c=everywhere_c[k], b_eq=everywhere_b[k])
        assert torch.equal(single.value, flat[k])
    sol.value.sum().backward()
    assert costs.grad.shape == costs.shape
    assert demand.grad.shape == demand.shape
    if 0 in batch:
        assert not costs.grad.any()
    else:
        by_hand = torch.zeros(c, dtype=torch.float64) + 0
        expected = sol.x.detach()
        while expected.dim() > max(len(c), 1):
            expected = expected.sum(0)
        if c:
            for dim, (have, want) in enumerate(zip(expected.shape, c, strict=True)):
                if have != want:
                    expected = expected.sum(dim, keepdim=True)
        else:
            expected = expected.sum()
        assert torch.allclose(costs.grad, by_hand + expected)


GIVEN = {
    "c": (4,),
    "b": None,
    "b_ub": (3,),
    "b_eq": (1,),
    "row_lower": (4,),
    "row_upper": (4,),
    "A_values": (10,),
    "lower": (4,),
    "upper": (4,),
    "offset": (),
}


def declared(lp: LinearProgram, name: str) -> np.ndarray:
    return {
        "c": lp.c,
        "b": lp.row_upper,
        "b_ub": lp.row_upper[:3],
        "b_eq": lp.row_upper[3:],
        "row_lower": lp.row_lower,
        "row_upper": lp.row_upper,
        "A_values": lp.A.data,
        "lower": lp.lower,
        "upper": lp.upper,
        "offset": np.float64(0.0),
    }[name]


def give(lp: LinearProgram, name: str, value, **more) -> lpdiff.Solution:
    if name == "lower":
        return lpdiff.solve(lp, bounds=(value, None), **more)
    if name == "upper":
        return lpdiff.solve(lp, bounds=(None, value), **more)
    return lpdiff.solve(lp, **{name: value}, **more)


@pytest.mark.parametrize("name", GIVEN)
def test_each_field_given_as_declared_changes_nothing(name):
    lp = transport(bounds=(0, 3))
    plain = fields(lpdiff.solve(lp))
    value = declared(lp, name)
    for form in (torch.tensor(value), np.array(value), np.array(value).tolist()):
        assert_same_bits(fields(give(lp, name, form)), plain)
    batch = np.broadcast_to(value, (2, 3, *np.shape(value)))
    sol = give(lp, name, batch)
    assert sol.value.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert_same_bits({key: tensor[index] for key, tensor in fields(sol).items()}, plain)


@pytest.mark.parametrize("name", GIVEN)
def test_an_empty_batch_in_each_field(name):
    lp = transport(bounds=(0, 3))
    value = torch.tensor(declared(lp, name)).expand(0, 2, *np.shape(declared(lp, name))).clone()
    sol = give(lp, name, value.requires_grad_())
    assert sol.value.shape == (0, 2)
    assert sol.x.shape == (0, 2, 4)
    assert "empty" in repr(sol)
    (sol.value.sum() + sol.y.sum()).backward()
    assert value.grad.shape == value.shape


def test_numbers_spread_over_their_field():
    lp = transport()
    assert float(lpdiff.solve(lp, c=2.0).value) == 8
    assert float(lpdiff.solve(lp, c=torch.tensor(2.0)).value) == 8
    assert lpdiff.solve(lp, bounds=(1, 1)).x.tolist() == [1, 1, 1, 1]
    assert float(lpdiff.solve(lp, b_eq=0).value) == 0
    assert lpdiff.solve(lp, b_ub=np.float32(1), b_eq=1).x.sum() == 1


def test_one_side_of_the_bounds_keeps_the_other():
    lp = LinearProgram([1.0, -1], bounds=(-1, 2))
    assert lpdiff.solve(lp, bounds=(0, None)).x.tolist() == [0, 2]
    assert lpdiff.solve(lp, bounds=(None, 5)).x.tolist() == [-1, 5]
    assert lpdiff.solve(lp, bounds=(None, None)).x.tolist() == [-1, 2]


def test_b_goes_to_the_side_that_was_declared():
    lp = LinearProgram(
        [1.0],
        A=[[1.0], [1.0], [1.0]],
        row_lower=[1, -np.inf, 3],
        row_upper=[np.inf, 5, 3],
        bounds=(None, None),
    )
    b = torch.tensor([2.0, 9.0, 4.0], dtype=torch.float64, requires_grad=True)
    sol = lpdiff.solve(lp, b=b)
    assert sol.x.tolist() == [4]
    sol.value.backward()
    assert b.grad.tolist() == [0, 0, 1]
    assert lpdiff.solve(lp, b=[7.0, 9.0, 7.0]).x.tolist() == [7]
    assert lpdiff.solve(lp, b=[8.0, 9.0, 7.0], throw=False).status == Status.INFEASIBLE
    assert lpdiff.solve(lp, b=[1.0, 6.0, 7.0], throw=False).status == Status.INFEASIBLE


def test_b_ub_and_b_eq_together_are_b():
    lp = transport()
    rng = np.random.default_rng(4)
    b_ub, b_eq = torch.from_numpy(rng.uniform(2, 4, (5, 3))), torch.from_numpy(rng.uniform(3, 4, (5, 1)))
    both = lpdiff.solve(lp, b_ub=b_ub, b_eq=b_eq)
    assert_same_bits(fields(both), fields(lpdiff.solve(lp, b=torch.cat([b_ub, b_eq], -1))))
    assert_same_bits(
        fields(both),
        fields(
            lpdiff.solve(
                lp,
                row_lower=torch.cat([torch.full((5, 3), -torch.inf), b_eq], -1),
                row_upper=torch.cat([b_ub, b_eq], -1),
            )
        ),
    )


def test_an_empty_block_takes_an_empty_side():
    lp = LinearProgram([1.0], A_ub=np.zeros((0, 1)), b_ub=[])
    assert float(lpdiff.solve(lp, b_ub=torch.zeros(0)).value) == 0


@pytest.mark.parametrize("sense", ["min", "max"])
def test_offsets(sense):
    lp = LinearProgram([1.0, 1], bounds=(0, 1), sense=sense, offset=10.0)
    best = 0.0 if sense == "min" else 2.0
    assert float(lpdiff.solve(lp).value) == 10 + best
    offset = torch.tensor([[1.0], [2.0]], requires_grad=True)
    c = torch.ones(3, 2)
    sol = lpdiff.solve(lp, c=c, offset=offset)
    assert sol.value.tolist() == [[1 + best] * 3, [2 + best] * 3]
    sol.value.sum().backward()
    assert offset.grad.tolist() == [[3], [3]]
    assert float(lpdiff.solve(lp, offset=0.0).value) == best  # 0.0 is given, not "not given"


# -- dtypes and memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_leafs_dtype_comes_back(dtype):
    lp = transport()
    c = torch.tensor([1.0, 2, 3, 5], dtype=dtype, requires_grad=True)
    sol = lpdiff.solve(lp, c=c, b_eq=np.array([4.0]), gradient="exact")
    floats = (sol.value, sol.x, sol.y, sol.reduced_costs, sol.gap, sol.primal_residual)
    assert {t.dtype for t in floats} == {dtype}
    assert float(sol.value.detach()) == 8
    assert sol.status.dtype == sol.basis.columns.dtype == torch.int8
    assert sol.iterations.dtype == torch.int64
    (sol.value + sol.x.sum() + sol.y.sum()).backward()
    assert c.grad.dtype == dtype
    assert torch.isfinite(c.grad).all()


def test_mixed_dtypes_are_promoted_and_numpy_takes_no_part():
    lp = transport()
    half, single = torch.ones(4, dtype=torch.float16), torch.ones(1) * 4
    assert lpdiff.solve(lp, c=half, b_eq=single).value.dtype == torch.float32
    assert lpdiff.solve(lp, c=single.new_ones(4), b_eq=np.array([4.0])).value.dtype == torch.float32
    assert lpdiff.solve(lp, c=half, b_ub=torch.ones(3, dtype=torch.bfloat16) * 3).x.dtype == torch.float32
    assert lpdiff.solve(lp, c=np.ones(4, np.float32)).value.dtype == torch.float64
    assert lpdiff.solve(lp).value.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8])
def test_integer_leaves(dtype):
    sol = lpdiff.solve(transport(), c=torch.tensor([1, 2, 3, 5], dtype=dtype))
    assert sol.value.dtype == torch.float64
    assert float(sol.value.detach()) == 8
    mixed = lpdiff.solve(transport(), c=torch.tensor([1, 2, 3, 5], dtype=dtype), b_eq=torch.tensor([4.0]))
    assert mixed.value.dtype == torch.float32


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64, np.uint8])
def test_numpy_input(dtype):
    c = np.array([1, 2, 3, 5], dtype=dtype)
    c.flags.writeable = False
    assert float(lpdiff.solve(transport(), c=c).value) == 8


def test_memory_layout_does_not_matter():
    lp = transport()
    rng = np.random.default_rng(6)
    c = torch.from_numpy(rng.uniform(1, 2, (5, 4)))
    plain = fields(lpdiff.solve(lp, c=c))
    wide = torch.zeros(5, 8, dtype=torch.float64)
    wide[:, ::2] = c
    for same in (
        c.T.contiguous().T,
        wide[:, ::2],
        c.numpy(),
        c.numpy()[::-1].copy()[::-1],
        c.numpy().tolist(),
    ):
        assert_same_bits(fields(lpdiff.solve(lp, c=same)), plain)
    expanded = c[:1].expand(5, 4)
    assert lpdiff.solve(lp, c=expanded).value.shape == (5,)


@pytest.mark.parametrize("name", GIVEN)
def test_what_users_pass_is_not_changed(name):
    lp = transport(bounds=(0, 3))
    value = torch.tensor(declared(lp, name)).expand(2, *np.shape(declared(lp, name))).clone()
    before = value.clone()
    numpy_value = value.numpy().copy()
    sol = give(lp, name, value.requires_grad_())
    (sol.value.sum() + sol.y.sum()).backward()
    give(lp, name, numpy_value)
    assert torch.equal(value.detach(), before)
    assert np.array_equal(numpy_value, before.numpy())
    sol.x.detach().zero_()  # what came back is the user's: no later solve sees it
    assert_same_bits(fields(give(lp, name, before)), fields(give(lp, name, numpy_value)))


def test_numpy_arrays_are_not_kept_for_backward():
    lp = transport()
    values, b = lp.A.data.copy(), torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    sol = lpdiff.solve(lp, A_values=values, b_eq=b)
    values[:] = 0
    sol.x.sum().backward()
    expected = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    lpdiff.solve(lp, b_eq=expected).x.sum().backward()
    assert torch.equal(b.grad, expected.grad)


def test_a_tensor_changed_before_backward_is_noticed():
    lp = transport()
    values = torch.tensor(lp.A.data)
    b = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    sol = lpdiff.solve(lp, A_values=values, b_eq=b)
    values.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sol.x.sum().backward()


def test_a_step_of_an_optimizer_leaves_the_solution_but_not_its_derivatives():
    lp = transport()
    c = torch.tensor([[1.0, 2.0, 3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    early, late = (lpdiff.solve(lp, c=c, gradient="exact") for _ in range(2))
    x, y, basis = early.x.clone(), early.y.clone(), early.basis.columns
    with torch.no_grad():
        c.copy_(torch.tensor([[3.0, 1.0, 1.0, 2.0]]))
    assert torch.equal(late.x, x) and torch.equal(late.status, torch.zeros(1, dtype=torch.int8))
    assert torch.equal(early.basis.columns, basis) and torch.equal(early.y, y)
    for ask in (lambda: late.basis, lambda: late.reduced_costs, lambda: late.x.sum().backward()):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            ask()


def test_what_is_made_later_records_no_more_than_the_solve():
    lp = transport()
    b = torch.tensor([[4.0]], dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        silent = lpdiff.solve(lp, b_eq=b)
    assert not any(t.requires_grad for t in (silent.value, silent.x, silent.y, silent.reduced_costs))
    c = torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        silent = lpdiff.solve(lp, c=c)
    assert not any(t.requires_grad for t in (silent.value, silent.x, silent.y, silent.reduced_costs))
    sol = lpdiff.solve(lp, b_eq=b)
    with torch.no_grad():
        assert not sol.x.requires_grad
    assert sol.x.requires_grad
    with torch.inference_mode():
        assert not lpdiff.solve(lp, b_eq=b).x.requires_grad


def test_the_graph_keeps_no_solution_that_is_not_asked_for_again():
    """Losses that are collected must not hold the vertices of their batches."""
    lp = transport()
    c = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    sol = lpdiff.solve(lp, c=c)
    solved, value = weakref.ref(sol._solved), sol.value
    value.sum().backward()
    assert solved() is not None
    del sol
    gc.collect()
    assert solved() is None
    assert value.grad_fn.operation.solved is None


# -- the same bits -------------------------------------------------------------------------------------


def everything_batched(lp: LinearProgram, size: int, seed: int) -> dict[str, torch.Tensor]:
    """A batch of ``size`` LPs; every third repeats the declared numbers, which may be degenerate."""
    rng = np.random.default_rng(seed)
    keep = (np.arange(size) % 3 == 0)[:, None]

    def near(array: np.ndarray, scale: float) -> torch.Tensor:
        moved = array + scale * rng.normal(size=(size, len(array)))
        return torch.from_numpy(np.where(keep, array, moved))

    shift = 0.1 * rng.normal(size=(size, lp.m)) * ~keep
    return {
        "c": near(lp.c, 0.5),
        "A_values": near(lp.A.data, 0.02),
        "row_lower": torch.from_numpy(lp.row_lower + shift),
        "row_upper": torch.from_numpy(lp.row_upper + shift),
    }


def solved_with_gradients(lp, data, **how) -> dict[str, torch.Tensor]:
    leaves = {name: value.clone().requires_grad_() for name, value in data.items()}
    sol = lpdiff.solve(lp, **leaves, gradient="exact", throw=False, **how)
    result = fields(sol)
    finite = sol.ok[:, None]
    weights = torch.linspace(1, 2, lp.n, dtype=torch.float64)
    loss = torch.where(sol.ok, sol.value, 0.0).sum() + torch.where(finite, sol.x * weights, 0.0).sum()
    loss = loss + torch.where(finite, sol.y, 0.0).square().sum()
    loss.backward()
    return result | {f"d{name}": leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_threads_leave_the_bits(kind):
    rng = np.random.default_rng(31)
    lp = random_lp(rng, 14, 9, kind=kind)
    data = everything_batched(lp, 240, seed=5)
    plain = solved_with_gradients(lp, data, threads=1)
    assert (plain["status"] == 0).sum() > 80
    for threads in (2, 5):
        assert_same_bits(solved_with_gradients(lp, data, threads=threads), plain)
    order = torch.from_numpy(rng.permutation(240))
    shuffled = {name: value[order] for name, value in data.items()}
    mixed = solved_with_gradients(lp, shuffled, threads=2)
    assert_same_bits(mixed, {name: value[order] for name, value in plain.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_items(kind):
    rng = np.random.default_rng(32)
    lp = random_lp(rng, 10, 7, kind=kind)
    data = everything_batched(lp, 30, seed=6)
    together = solved_with_gradients(lp, data, threads=2)
    for k in range(30):
        single = solved_with_gradients(lp, {name: value[k : k + 1] for name, value in data.items()})
        assert_same_bits(single, {name: value[k : k + 1] for name, value in together.items()})


def test_a_batch_over_one_matrix_and_one_basis_is_its_items():
    """One factorisation serves all items; their gradients are those of single ones to the bit."""
    rng = np.random.default_rng(35)
    lp = random_lp(rng, 90, 70, density=0.3)
    small = 1e-4 * rng.normal(size=(33, lp.m))
    data = {
        "row_lower": torch.from_numpy(lp.row_lower + small),
        "row_upper": torch.from_numpy(lp.row_upper + small),
    }
    together = solved_with_gradients(lp, data, threads=2)
    assert len({row.tobytes() for row in together["columns"].numpy()}) < 5
    for k in range(33):
        single = solved_with_gradients(lp, {name: value[k : k + 1] for name, value in data.items()})
        assert_same_bits(single, {name: value[k : k + 1] for name, value in together.items()})


def test_shared_numbers_and_repeated_ones_are_the_same():
    lp = random_lp(np.random.default_rng(33), 12, 8, kind="ambiguous")
    c = everything_batched(lp, 24, seed=7)["c"]
    shared = fields(lpdiff.solve(lp, c=c))
    numbers = {"A_values": lp.A.data, "row_lower": lp.row_lower, "row_upper": lp.row_upper}
    repeated = {name: torch.tensor(value).expand(24, -1) for name, value in numbers.items()}
    assert_same_bits(fields(lpdiff.solve(lp, c=c, **repeated)), shared)


def test_chunks_leave_the_bits(monkeypatch):
    lp = random_lp(np.random.default_rng(34), 10, 6, kind="degenerate")
    data = everything_batched(lp, 50, seed=8)
    data["c"][[7, 31]] = torch.nan
    whole = lpdiff.solve(lp, **data, throw=False)
    monkeypatch.setattr("lpdiff.engine._CHUNK", 7 * (lp.n + lp.m + lp.nnz + 1))
    parts = lpdiff.solve(lp, **data, throw=False)
    assert_same_bits(fields(parts), fields(whole))
    assert parts.messages == whole.messages
    assert sorted(parts.messages) >= [7, 31]


def test_units_leave_the_bits():
    """Costs and sides in other units, by powers of two: the same vertex, scaled."""
    for lp in programs(9, 20, kinds=("generic", "ambiguous")):
        if lp.m == 0 or not lp.c.any():
            continue
        plain = lpdiff.solve(lp)
        if max(np.abs(lp.c).max(), 0) < 0.5:
            continue
        tiny = lpdiff.solve(lp, c=lp.c * 2.0**-20)
        small = np.abs(lp.c).max() * 2.0**-20
        factor = 2.0 ** -np.frexp(small)[1] * 2.0**-20
        same = lpdiff.solve(lp, c=lp.c * factor)  # what the tiny one is solved as
        assert torch.equal(tiny.x, same.x)
        assert torch.equal(tiny.basis.columns, same.basis.columns)
        assert torch.equal(tiny.y / 2.0**-20, same.y / factor)
        assert float(tiny.value) * 2.0**20 == pytest.approx(float(plain.value), rel=1e-9, abs=1e-9)


# -- sizes and large numbers ---------------------------------------------------------------------------


def test_no_rows():
    lp = LinearProgram([1.0, -2, 0], bounds=(-1, 3))
    sol = lpdiff.solve(lp, c=torch.tensor([1.0, -2, 0], requires_grad=True), gradient="exact")
    assert sol.x[:2].tolist() == [-1, 3]
    assert sol.y.shape == (0,)
    assert float(sol.value.detach()) == -7
    assert bool(sol.basis.valid)
    assert not sol.x_unique
    assert bool(sol.y_unique)


@pytest.mark.parametrize("batch", [(), (3,), (0,)])
def test_no_variables(batch):
    lp = LinearProgram(np.zeros(0), A_ub=np.zeros((2, 0)), b_ub=[1.0, 0.0], offset=2.0)
    b = torch.ones(*batch, 2, dtype=torch.float64, requires_grad=True)
    sol = lpdiff.solve(lp, b_ub=b)
    assert torch.equal(sol.value, torch.full(batch, 2.0, dtype=torch.float64))
    assert sol.x.shape == (*batch, 0)
    assert sol.y.shape == (*batch, 2)
    assert sol.basis.valid.all()
    assert (sol.basis.rows == BasisStatus.BASIC).all()
    (sol.value.sum() + sol.y.sum()).backward()
    assert not b.grad.any()


def test_no_variables_and_a_row_that_fails():
    lp = LinearProgram([], A_ub=np.zeros((2, 0)), b_ub=[1.0, 1.0], row_names=["a", "b"])
    sol = lpdiff.solve(lp, b_ub=torch.tensor([[1.0, 1.0], [1.0, -1.0]]), throw=False)
    assert sol.status.tolist() == [Status.OPTIMAL, Status.INFEASIBLE]
    assert sol.certificates[1].verified
    assert "'b'" in sol.certificates[1].text


def test_nothing_at_all():
    sol = lpdiff.solve(LinearProgram([]))
    assert float(sol.value) == 0
    assert sol.x.shape == sol.y.shape == (0,)


@pytest.mark.parametrize("infinite", [1e20, 1e25, 1e30, np.inf])
def test_large_bounds_are_infinite(infinite):
    lp = LinearProgram([1.0, -1], A_ub=[[1.0, 1]], b_ub=[5.0], bounds=(0, None))
    for sol in (
        lpdiff.solve(lp, bounds=(-infinite, infinite), c=[-1.0, -1]),
        lpdiff.solve(LinearProgram([-1.0, -1], A_ub=[[1.0, 1]], b_ub=[5.0], bounds=(-infinite, infinite))),
    ):
        assert float(sol.value) == -5
    unbounded = lpdiff.solve(lp, b_ub=[infinite], throw=False)
    assert unbounded.status == Status.UNBOUNDED
    upper = torch.tensor([infinite, infinite], dtype=torch.float64, requires_grad=True)
    lpdiff.solve(lp, bounds=(None, upper)).value.backward()
    assert upper.grad.tolist() == [0, 0]


@pytest.mark.parametrize("big", [1e6, 1e10, 1e15, 9e19])
def test_large_finite_bounds_change_nothing(big):
    """A user's "infinity" of 1e10: rounding in a dual times such a bound must not refuse the optimum."""
    for lp in programs(12, 40):
        plain = lpdiff.solve(lp)

        def finite(array, side):
            return np.where(np.isinf(array), side * big, array)

        sol = lpdiff.solve(
            lp,
            bounds=(finite(lp.lower, -1), finite(lp.upper, 1)),
            row_lower=finite(lp.row_lower, -1),
            row_upper=finite(lp.row_upper, 1),
        )
        assert float(sol.value) == pytest.approx(float(plain.value), rel=1e-7, abs=1e-7)


# -- plans ---------------------------------------------------------------------------------------------


def test_a_plan_is_reused():
    lp = transport()
    plan = lpdiff.plan(lp, solver="highs", options={"method": "primal"}, threads=1, tolerance=1e-7)
    assert plan.backend == HiGHS(method="primal")
    assert (plan.threads, plan.time_limit, plan.tolerance) == (1, None, 1e-7)
    assert "method='primal'" in repr(plan)
    assert "1 thread(s)" in repr(plan)
    one, two = lpdiff.solve(lp, plan=plan), lpdiff.solve(lp, c=[1.0, 2, 3, 5], plan=plan)
    assert_same_bits(fields(one), fields(two))
    assert lpdiff.plan(lp, solver="highs", options={"method": "primal"}, threads=1, tolerance=1e-7) is plan
    again = pickle.loads(pickle.dumps(plan))
    assert repr(again) == repr(plan)


def test_a_plan_of_another_program_is_refused():
    plan = lpdiff.plan(transport())
    other = lpdiff.LinearProgram(np.ones(3), A_eq=np.ones((1, 3)), b_eq=[1.0])
    with pytest.raises(ValueError, match=r"made for another program: make one with lpdiff\.plan"):
        lpdiff.solve(other, plan=plan)


@pytest.mark.parametrize(
    "also",
    [
        {"solver": "highs"},
        {"threads": 1},
        {"time_limit": None},
        {"tolerance": 1e-6},
        {"options": {"method": "ipm"}},
    ],
    ids=lambda also: next(iter(also)),
)
def test_a_plan_and_what_it_says(also):
    lp = transport()
    with pytest.raises(ValueError, match="plan= already says"):
        lpdiff.solve(lp, plan=lpdiff.plan(lp), **also)


def test_few_plans_are_kept():
    lp = transport()
    for seed in range(20):
        lpdiff.solve(lp, options={"random_seed": seed})
    assert 1 <= len(lp.plans) <= 8


# -- mistakes ------------------------------------------------------------------------------------------

MISTAKES = {
    "c too long": ({"c": np.ones(5)}, "c: expected shape (*batch, 4), one number a variable, got (5,)"),
    "c of one": ({"c": np.ones(1)}, "c: expected shape (*batch, 4), one number a variable, got (1,)"),
    "cost matrix": ({"c": np.ones((2, 2))}, "got (2, 2); flatten the matrix with c.flatten(-2)"),
    "cost matrices": ({"c": np.ones((7, 2, 2))}, "got (7, 2, 2); flatten the matrix with c.flatten(-2)"),
    "batch last": ({"c": np.ones((4, 7))}, "got (4, 7); the batch comes first: c.movedim(0, -1)"),
    "dense A": (
        {"A_values": np.ones((4, 4))},
        "A_values: expected shape (*batch, 10), one number a stored entry of A, got (4, 4); read the ",
    ),
    "dense A, batched": ({"A_values": np.ones((2, 4, 4))}, "lp.gather(A)"),
    "b_ub too long": (
        {"b_ub": np.ones(4)},
        "b_ub: expected shape (*batch, 3), one number a row of A_ub, got (4,)",
    ),
    "b_eq too long": ({"b_eq": np.ones(4)}, "b_eq: expected shape (*batch, 1), one number a row of A_eq"),
    "b too short": ({"b": np.ones(3)}, "b: expected shape (*batch, 4), one number a row, got (3,)"),
    "bounds as a tensor": (
        {"bounds": torch.zeros(4, 2)},
        "a number or None, got shape (4, 2); a tensor of pairs is bounds=(t[..., 0], t[..., 1])",
    ),
    "bounds as pairs": ({"bounds": [(0, 1)] * 4}, "bounds: expected a pair (lower, upper)"),
    "bounds as a number": ({"bounds": 3}, "got int"),
    "lower too long": ({"bounds": (np.zeros(5), None)}, "lower: expected shape (*batch, 4)"),
    "None inside": ({"bounds": ([0, None, 0, 0], None)}, "lower must be numbers"),
    "batches": (
        {"c": np.ones((2, 4)), "b": np.ones((3, 4))},
        "the batch dimensions do not broadcast: c (2,), b (3,)",
    ),
    "offset batch": ({"c": np.ones((2, 4)), "offset": np.ones(3)}, "do not broadcast: c (2,), offset (3,)"),
    "b twice": (
        {"b": np.ones(4), "b_eq": [1.0]},
        "the right-hand sides were given twice: use one of b; b_ub and b_eq; row_lower and row_upper",
    ),
    "b and a side": ({"b": np.ones(4), "row_upper": np.ones(4)}, "given twice"),
    "a block and a side": ({"b_ub": np.ones(3), "row_lower": np.ones(4)}, "given twice"),
    "complex": ({"c": np.ones(4) * 1j}, "c must be real numbers, got torch.complex128"),
    "booleans": ({"c": torch.ones(4, dtype=torch.bool)}, "c must be real numbers, got torch.bool"),
    "text": ({"c": ["a", "b", "c", "d"]}, "c must be numbers, got list"),
    "objects": ({"c": [1, None, 2, 3]}, "c must be numbers, got list"),
    "ragged": ({"c": [[1, 2], [3]]}, "c must be numbers, got list"),
    "a list of tensors": (
        {"c": [torch.ones(4), torch.ones(4)]},
        "c must be one tensor, got a list of them: torch.stack it",
    ),
    "sparse": ({"c": torch.ones(4).to_sparse()}, "c must be a dense tensor, got torch.sparse_coo"),
    "sparse A": ({"A_values": torch.ones(4, 4).to_sparse()}, "pass the stored entries as A_values"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    arguments, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=re.escape(message)):
        lpdiff.solve(transport(), **arguments)


def test_more_mistakes():
    lp = LinearProgram([1.0, 2, 3], A=np.ones((2, 3)), row_lower=[0, -np.inf], row_upper=[1, 2])
    with pytest.raises(
        ValueError, match=r"b is ambiguous: row 0 is ranged \(1 such in all\); give row_lower and"
    ):
        lpdiff.solve(lp, b=[1.0, 1.0])
    free = LinearProgram([1.0], A=[[1.0]], row_lower=-np.inf)
    with pytest.raises(ValueError, match="b is ambiguous: row 0 is free"):
        lpdiff.solve(free, b=[1.0])
    for name in ("b_ub", "b_eq"):
        with pytest.raises(ValueError, match=f"{name} was given, but the program declares no A_{name[2:]}"):
            lpdiff.solve(lp, **{name: [1.0, 1.0]})
    with pytest.raises(ValueError, match=r"looks like A transposed, and A is \(2, 3\): lp.gather\(A.mT\)"):
        lpdiff.solve(lp, A_values=np.ones((3, 2)))
    two = LinearProgram([1.0, 1], bounds=(0, 1))
    with pytest.raises(ValueError, match="may mean"):
        lpdiff.solve(two, bounds=[(0, 1), (2, 5)])
    assert lpdiff.solve(two, bounds=(np.array([0, 1]), np.array([2, 5]))).x.tolist() == [0, 1]
    with pytest.raises(TypeError, match="expected a LinearProgram, got ndarray"):
        lpdiff.solve(A)
    with pytest.raises(TypeError, match=r"takes its data by name: solve\(lp, c=\.\.\.\)"):
        lpdiff.solve(two, [1.0, 1.0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'cost'"):
        lpdiff.solve(two, cost=[1.0, 1.0])


# -- the solution --------------------------------------------------------------------------------------


def test_parts_of_a_solution():
    lp = transport(variable_names=["ab", "ac", "bb", "bc"], row_names=["a", "b", "x", "all"])
    sol = lpdiff.solve(lp, c=torch.tensor([[1.0, 2, 3, 5], [5, 3, 2, 1]]), solver="highs")
    assert torch.equal(sol["ac"], sol.x[:, 1])
    assert torch.equal(sol.block("ub"), sol.y[:, :3])
    assert torch.equal(sol.block("eq"), sol.y[:, 3:])
    assert sol.block("ranged").shape == (2, 0)
    with pytest.raises(KeyError, match="no variable 'zz' among ab, ac, bb, bc"):
        sol["zz"]
    with pytest.raises(KeyError, match="no row block 'le': expected one of ub, eq, ranged"):
        sol.block("le")
    with pytest.raises(KeyError, match=r"this program has no variable names; index sol\.x"):
        lpdiff.solve(transport())["ab"]
    assert repr(sol) == "Solution(batch=(2,), 2 OPTIMAL, solver='highs')"
    assert repr(lpdiff.solve(lp, solver="highs")) == "Solution(batch=(), 1 OPTIMAL, value=8, solver='highs')"
    assert sol.solver == "highs"
    assert sol.program is lp
    assert not sol.fallback.any()
    assert sol.certificates == {}
    assert sol.messages == {}


def test_the_basis_is_a_basis():
    for lp in programs(13, 40):
        sol = lpdiff.solve(lp)
        columns, rows = sol.basis.columns.numpy(), sol.basis.rows.numpy()
        assert (columns == BasisStatus.BASIC).sum() + (rows == BasisStatus.BASIC).sum() == lp.m
        matrix = np.hstack([lp.A.toarray(), np.eye(lp.m)])
        basic = np.concatenate([columns, rows]) == BasisStatus.BASIC
        assert np.linalg.matrix_rank(matrix[:, basic]) == lp.m
        x, activity = sol.x.numpy(), lp.A @ sol.x.numpy()
        for status, point, lower, upper in (
            (columns, x, lp.lower, lp.upper),
            (rows, activity, lp.row_lower, lp.row_upper),
        ):
            assert np.allclose(point[status == BasisStatus.LOWER], lower[status == BasisStatus.LOWER])
            assert np.allclose(point[status == BasisStatus.UPPER], upper[status == BasisStatus.UPPER])
            assert np.isinf(lower[status == BasisStatus.ZERO]).all()


def test_uniqueness_and_degeneracy():
    lp = LinearProgram([1.0, 1], A_eq=[[1.0, 1]], b_eq=[1.0])
    tie = lpdiff.solve(lp)
    assert (bool(tie.x_unique), bool(tie.y_unique), bool(tie.degenerate)) == (False, True, False)
    assert not tie.unique
    clear = lpdiff.solve(lp, c=[1.0, 2.0])
    assert bool(clear.unique)
    corner = lpdiff.solve(lp, c=[1.0, 2.0], b_eq=[0.0])
    assert (bool(corner.x_unique), bool(corner.degenerate)) == (True, True)


# -- processes and threads -----------------------------------------------------------------------------


class Solved(torch.utils.data.Dataset):
    """Items that are solved in the worker."""

    def __init__(self) -> None:
        self.program = transport()
        self.costs = torch.from_numpy(np.random.default_rng(1).uniform(1, 2, (8, 4)))

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, k: int) -> torch.Tensor:
        return lpdiff.solve(self.program, c=self.costs[k].expand(4, 4), threads=2).value


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers_solve(method):
    dataset = Solved()
    here = torch.stack([dataset[k] for k in range(len(dataset))])  # so that solvers and threads exist
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=1, multiprocessing_context=method, timeout=60
    )
    assert torch.equal(torch.cat(list(loader)), here)


def test_python_threads_share_a_program():
    lp = transport()
    costs = torch.from_numpy(np.random.default_rng(5).uniform(1, 2, (6, 40, 4)))
    expected = [lpdiff.solve(lp, c=c).value for c in costs]
    lp = copy.deepcopy(lp)  # nothing prepared yet
    wrong: list[str] = []
    barrier = threading.Barrier(len(costs))

    def work(k: int) -> None:
        barrier.wait()
        for turn in range(12):
            # More configurations than plans are kept: they are made and dropped under each other.
            c = costs[k].clone().requires_grad_()
            seed = (5 * k + turn) % 11
            sol = lpdiff.solve(lp, c=c, threads=1 + turn % 2, options={"random_seed": seed})
            sol.value.sum().backward()
            if not torch.allclose(sol.value, expected[k], rtol=1e-12):
                wrong.append(f"thread {k}, turn {turn}")
            if not torch.equal(c.grad, sol.x):
                wrong.append(f"gradient of thread {k}, turn {turn}")

    def guarded(k: int) -> None:
        try:
            work(k)
        except BaseException as error:
            wrong.append(f"thread {k}: {error!r}")

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(len(costs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_plans_are_told_apart_and_shared():
    lp = lpdiff.LinearProgram([1.0, 2.0], A_eq=[[1.0, 1.0]], b_eq=[1.0])
    one = lpdiff.plan(lp, solver=lpdiff.backends.HiGHS(method="primal"))
    assert lpdiff.plan(lp, solver=lpdiff.backends.HiGHS(method="primal")) is one
    assert lpdiff.plan(lp, solver=lpdiff.backends.HiGHS(method="ipm")) is not one
    assert lpdiff.plan(lp, solver="highs", threads=3) is not lpdiff.plan(lp, solver="highs", threads=4)
    copied = pickle.loads(pickle.dumps((lp, one)))
    assert float(lpdiff.solve(copied[0], plan=copied[1]).value) == 1.0
    assert float(lpdiff.solve(lp, plan=copied[1]).value) == 1.0
    other = lpdiff.LinearProgram([1.0, 2.0], A_eq=[[1.0, 0.0]], b_eq=[1.0])
    with pytest.raises(ValueError, match="another program"):
        lpdiff.solve(other, plan=one)


def test_batches_that_do_not_broadcast_are_named_as_given():
    lp = transport()
    with pytest.raises(ValueError, match=r"do not broadcast: b_ub \(2,\), b_eq \(3,\)"):
        lpdiff.solve(lp, b_ub=torch.ones(2, 3), b_eq=torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"c \(4,\), b \(5,\)"):
        lpdiff.solve(lp, c=torch.ones(4, 4), b=torch.ones(5, 4))


def test_no_negative_zeros():
    lp = lpdiff.LinearProgram([1, 2, 3], A_ub=[[1, 1, 1]], b_ub=[4], bounds=(0, 3), sense="max")
    sol = lpdiff.solve(lp)
    for tensor in (sol.value, sol.x, sol.y, sol.reduced_costs):
        assert not bool((torch.signbit(tensor) & (tensor == 0)).any())


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_beside_other_users_of_highs_in_this_thread(first):
    """HiGHS refuses another number of threads than its thread has seen; neither side may notice."""
    import highspy

    lp = transport()

    def theirs(threads):
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("threads", threads)
        x = solver.addVariable(lb=1, ub=3, obj=2.0)
        solver.addConstr(x >= 2)
        assert solver.run() == highspy.HighsStatus.kOk
        assert solver.getObjectiveValue() == 4.0

    for threads in (2, 3, 1, 2):
        if first == "theirs":
            theirs(threads)
        assert float(lpdiff.solve(lp, solver="highs", threads=1).value) == 8.0
        if first == "ours":
            theirs(threads)
            highspy.Highs.resetGlobalScheduler(True)
