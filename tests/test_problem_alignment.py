"""Alignment with gaps: against its LP under HiGHS, enumeration, and other libraries."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import lpdiff
from lpdiff.problems.alignment import (
    ENDS,
    GlobalAlignment,
    LocalAlignment,
    SemiGlobalAlignment,
    global_alignment,
    local_alignment,
    semi_global_alignment,
)

F64 = torch.float64

WAYS = {
    "global": global_alignment,
    "local": local_alignment,
    **{end: functools.partial(semi_global_alignment, free=end) for end in ENDS},
    "overlap": functools.partial(semi_global_alignment, free="all"),
    "default": semi_global_alignment,
}


def leaves(batch, n, m, affine, seed, ties=True):
    """Costs and gaps that carry gradients; small integers tie often."""
    g = torch.Generator().manual_seed(seed)

    def draw(low, high, *shape):
        if ties:
            return torch.randint(low, high, shape, generator=g).to(F64).requires_grad_()
        return (torch.rand(shape, generator=g, dtype=F64) * (high - low) + low).requires_grad_()

    data = {"costs": draw(-3, 5, batch, n, m), "row_gap": draw(-1, 3, batch, n), "col_gap": draw(-1, 3, m)}
    if affine:
        data |= {"row_open": draw(-1, 4, batch, n), "col_open": draw(-1, 4, batch, m)}
    return data


def call(way, data, **how):
    return WAYS[way](data["costs"], **{k: v for k, v in data.items() if k != "costs"}, **how)


def gradients(value, data, where):
    found = torch.autograd.grad(value[where].sum(), list(data.values()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, data.values(), strict=True)]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n", "m"), [(4, 5), (1, 1), (0, 3), (3, 0), (6, 3), (0, 0)])
def test_as_its_lp_under_highs(way, n, m, affine):
    """The value, and that both gradients are those of an optimal path, over lengths and bands."""
    seed = 7 * n + m + 100 * affine
    data = leaves(24, n, m, affine, seed)
    lengths = tuple(np.random.default_rng(seed).integers(0, size + 1, 24) for size in (n, m))
    for how in ({}, {"lengths": lengths}, {"band": max(abs(n - m), 1)}, {"band": (n, m), "lengths": lengths}):
        ours = call(way, data, throw=False, **how)
        theirs = call(way, data, throw=False, solver="highs", **how)
        assert ours.evaluation.solver == "oracle"
        assert theirs.evaluation.solver == "highs"
        assert torch.equal(ours.status, theirs.status)
        assert torch.allclose(ours.value, theirs.value, atol=1e-9)
        ok = ours.ok
        assert ok.any()
        for found in (ours, theirs):
            # Linear: what the gradients price is the value.
            priced = sum(
                (g * p).sum() for g, p in zip(gradients(found.value, data, ok), data.values(), strict=True)
            )
            assert torch.allclose(priced, found.value[ok].sum())


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("way", ["global", "local", "overlap"])
def test_gradients_where_the_path_is_unique(way, affine):
    """Generic costs: one optimal alignment, so one gradient."""
    data = leaves(200, 4, 5, affine, 3, ties=False)
    ours, theirs = call(way, data), call(way, data, solver="highs")
    for a, b in zip(*(gradients(f.value, data, ours.ok) for f in (ours, theirs)), strict=True):
        assert torch.allclose(a, b, atol=1e-9)
    assert torch.allclose(ours.indicator.detach(), theirs.indicator.detach(), atol=1e-9)
    assert torch.equal(ours.row_to_column, theirs.row_to_column)
    assert torch.equal(ours.gap_count, theirs.gap_count)


def enumerate_alignments(n, m):
    """All alignments of n rows and m columns as sequences of moves."""
    if n == m == 0:
        yield ()
    if n and m:
        yield from (("pair", *rest) for rest in enumerate_alignments(n - 1, m - 1))
    if n:
        yield from (("row", *rest) for rest in enumerate_alignments(n - 1, m))
    if m:
        yield from (("column", *rest) for rest in enumerate_alignments(n, m - 1))


def price(moves, costs, row_gap, col_gap, row_open=None, col_open=None):
    i = j = 0
    total = 0.0
    last = None
    for move in moves:
        first = last != move and row_open is not None
        if move == "pair":
            total += costs[i, j]
        elif move == "row":
            total += row_open[i] if first else row_gap[i]
        else:
            total += col_open[j] if first else col_gap[j]
        i, j, last = i + (move != "column"), j + (move != "row"), move
    return total


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("n", "m"), list(itertools.product(range(4), range(4))))
def test_enumeration(n, m, affine):
    data = leaves(12, n, m, affine, 50 + n + 4 * m)
    if affine:  # opening costs at least extending, or a gap would pay to open anew within itself
        data["row_open"] = torch.maximum(data["row_open"], data["row_gap"]).detach()
        data["col_open"] = torch.maximum(data["col_open"], data["col_gap"]).detach()
    found = call("global", data).value.detach().numpy()
    items = {
        key: value.detach().expand(12, *value.shape[-(2 if key == "costs" else 1) :]).numpy()
        for key, value in data.items()
    }
    for k in range(12):
        own = {key: value[k] for key, value in items.items()}
        best = min(price(moves, **own) for moves in enumerate_alignments(n, m))
        assert found[k] == pytest.approx(best, abs=1e-9)


def test_biopython():
    """Scores of random sequences: global, local, free ends, linear and affine."""
    align = pytest.importorskip("Bio.Align")
    rng = np.random.default_rng(0)
    letters = np.array(list("ACGT"))
    for _ in range(40):
        a, b = (rng.integers(0, 4, rng.integers(1, 12)) for _ in range(2))
        match, mismatch, opening, extending = 2.0, -1.0, -2.5, -0.5
        aligner = align.PairwiseAligner(match_score=match, mismatch_score=mismatch)
        aligner.open_gap_score, aligner.extend_gap_score = opening, extending
        costs = torch.where(torch.from_numpy(a[:, None] == b[None, :]), -match, -mismatch)
        gaps = {"gap": -extending, "gap_open": -opening}
        words = "".join(letters[a]), "".join(letters[b])
        assert aligner.score(*words) == pytest.approx(-float(global_alignment(costs, **gaps).value))
        aligner.mode = "local"
        assert aligner.score(*words) == pytest.approx(-float(local_alignment(costs, **gaps).value))
        aligner.mode = "global"
        aligner.end_gap_score = 0.0
        found = semi_global_alignment(costs, free="all", **gaps)
        assert aligner.score(*words) == pytest.approx(-float(found.value))


def test_edit_distance():
    distance = pytest.importorskip("rapidfuzz.distance")
    rng = np.random.default_rng(1)
    n, m, batch = 14, 11, 300
    a, b = rng.integers(0, 3, (batch, n)), rng.integers(0, 3, (batch, m))
    rows, columns = rng.integers(0, n + 1, batch), rng.integers(0, m + 1, batch)
    costs = torch.from_numpy((a[:, :, None] != b[:, None, :]).astype(np.float32))
    value = global_alignment(costs, lengths=(rows, columns)).value
    assert value.dtype == torch.float32
    for k in range(batch):
        words = ("".join(map(str, s[:length])) for s, length in ((a[k], rows[k]), (b[k], columns[k])))
        assert int(value[k]) == distance.Levenshtein.distance(*words)


# -- what users rely on ------------------------------------------------------------------------------------


def test_three_lines():
    costs = torch.rand(8, 20, 30, requires_grad=True)
    found = global_alignment(costs, gap=0.7)
    found.value.mean().backward()
    assert found.value.shape == (8,)
    assert found.value.dtype == torch.float32 == costs.grad.dtype
    assert torch.allclose(costs.grad * 8, found.indicator.detach())


def test_what_it_tells():
    costs = torch.full((3, 4), 5.0)
    costs[0, 1] = costs[2, 2] = -1.0
    found = global_alignment(costs, gap=1.0)
    assert found.value == -2 + 1 + 2
    assert found.pairs.tolist()[:2] == [[0, 1], [2, 2]]
    assert found.row_to_column.tolist() == [1, -1, 2]
    assert found.column_to_row.tolist() == [-1, 0, 2, -1]
    assert found.row_gaps.tolist() == [0, 1, 0]
    assert found.col_gaps.tolist() == [1, 0, 0, 1]
    assert found.gap_count == 3
    assert [pairs.tolist() for pairs in found.decode()] == [[[0, 1], [2, 2]]]
    with pytest.raises(AttributeError, match="gap_open"):
        _ = found.gap_openings
    affine = global_alignment(costs, gap=0.0, gap_open=1.0)
    assert affine.gap_openings == 3
    assert affine.gap_count == 3
    assert affine.row_gaps.tolist() == [0, 1, 0]


def test_results_tell_of_themselves():
    costs = torch.eye(3).requires_grad_()
    assert repr(global_alignment(1 - costs)) == "Alignment(value 0, by oracle)"
    spoilt = torch.stack([1 - costs, costs * torch.nan])
    found = global_alignment(spoilt, throw=False)
    assert repr(found) == "Alignment(batch (2,), 1 of 2 solved, by oracle)"


def test_batches_and_broadcasting():
    costs = torch.rand(2, 3, 4, 5, dtype=F64)
    gap = torch.rand(3, 1, dtype=F64, requires_grad=True)
    found = global_alignment(costs, gap=gap, lengths=(np.full((2, 3), 4), torch.tensor([5, 3, 0])))
    assert found.value.shape == (2, 3)
    assert found.pairs.shape[:2] == (2, 3)
    for i, j in itertools.product(range(2), range(3)):
        one = global_alignment(costs[i, j], gap=gap[j], lengths=(4, [5, 3, 0][j]))
        assert torch.equal(one.value, found.value[i, j])
        assert torch.equal(one.row_to_column, found.row_to_column[i, j])
    found.value.sum().backward()
    assert torch.allclose(gap.grad[:, 0], found.gap_count.sum(0).to(F64))
    shared = global_alignment(costs[0, 0], gap=gap)
    assert shared.value.shape == (3,)
    assert torch.equal(shared.value[1], global_alignment(costs[0, 0], gap=gap[1]).value)
    assert global_alignment(costs[:, :0]).value.shape == (2, 0)


def test_numpy_float32_strides_and_masks():
    rng = np.random.default_rng(5)
    wide = torch.from_numpy(rng.random((6, 10, 16))).to(torch.float32)
    view = wide.transpose(1, 2)[:, ::2, ::3]  # (6, 8, 4), no stride of one
    mask = torch.arange(4) < torch.tensor([4, 3, 2, 1, 0, 4])[:, None]
    found = global_alignment(view, gap=0.3, lengths=(None, mask))
    again = global_alignment(view.contiguous().numpy(), gap=0.3, lengths=(None, mask.sum(-1)))
    assert again.value.dtype == F64
    assert torch.equal(found.value, again.value.float())
    double = global_alignment(view.double(), gap=0.3, lengths=(None, mask))
    assert torch.equal(double.value.float(), found.value)
    half = global_alignment(view.half(), gap=0.3)
    assert half.value.dtype == torch.float16


def test_padding_is_not_read():
    costs = torch.rand(5, 6, 7, dtype=F64)
    lengths = torch.tensor([0, 1, 3, 6, 6]), torch.tensor([7, 0, 2, 5, 7])
    spoilt = costs.clone()
    gap = torch.rand(5, 6, dtype=F64)
    spoilt_gap = gap.clone()
    for k in range(5):
        spoilt[k, lengths[0][k] :] = torch.nan
        spoilt[k, :, lengths[1][k] :] = torch.nan
        spoilt_gap[k, lengths[0][k] :] = torch.nan
    spoilt.requires_grad_()
    for way, solver in itertools.product(("global", "local", "overlap"), ("auto", "highs")):
        clean = WAYS[way](costs, row_gap=gap, lengths=lengths, solver=solver)
        found = WAYS[way](spoilt, row_gap=spoilt_gap, lengths=lengths, solver=solver)
        assert torch.allclose(found.value, clean.value)
        (gradient,) = torch.autograd.grad(found.value.sum(), spoilt)
        assert not gradient[spoilt.isnan()].any()


def test_forbidden_pairs():
    costs = torch.rand(30, 4, 4, dtype=F64)
    costs[torch.rand(30, 4, 4) < 0.4] = torch.inf
    ours, theirs = (global_alignment(costs, gap=0.2, solver=solver) for solver in ("auto", "highs"))
    assert torch.allclose(ours.value, theirs.value)
    assert not ours.indicator[costs.isinf()].any()
    shut = torch.full((2, 3, 3), torch.inf, dtype=F64)
    shut[1] = 1.0
    for solver in ("auto", "highs"):
        with pytest.raises(lpdiff.SolveError, match="item 0") as error:
            global_alignment(shut, gap=torch.inf, solver=solver)
        assert error.value.items == [(0,)]
    assert "forbidden" in str(error.value) or "infeasible" in str(error.value)
    found = global_alignment(shut.requires_grad_(), gap=torch.inf, throw=False)
    assert found.status.tolist() == [lpdiff.Status.INFEASIBLE, lpdiff.Status.OPTIMAL]
    assert found.value[0] == torch.inf
    found.value[1:].sum().backward()
    assert torch.equal(shut.grad, torch.stack([torch.zeros(3, 3), torch.eye(3)]).to(F64))


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_numbers_that_are_no_costs(bad):
    costs = torch.rand(4, 3, 3, dtype=F64)
    costs[2, 1, 0] = bad
    with pytest.raises(lpdiff.SolveError, match=r"(?s)item 2.*costs\[1, 0\] is") as error:
        global_alignment(costs)
    assert error.value.statuses == [lpdiff.Status.INVALID]
    found = global_alignment(costs.requires_grad_(), throw=False)
    assert found.value.isnan().tolist() == [False, False, True, False]
    found.value[[0, 1, 3]].sum().backward()
    assert costs.grad[2].eq(0).all()
    assert costs.grad[0].any()
    with pytest.raises(lpdiff.SolveError, match=r"col_gap\[2\] is"):
        global_alignment(torch.rand(3, 3), col_gap=torch.tensor([0.0, 1.0, bad]))
    with pytest.raises(lpdiff.SolveError, match=r"row_open\[0\] is"):
        global_alignment(torch.rand(3, 3), row_open=torch.tensor([bad, 1.0, 0.0]), col_open=1.0)


def test_bad_input():
    costs = torch.rand(3, 4, 5)
    for match, how in {
        r"rows: item 1 has length 9, expected 0 to 4": {"lengths": ([4, 9, 1], None)},
        r"columns: item 2 has length -1": {"lengths": (None, [1, 2, -1])},
        r"lengths must be integers": {"lengths": ([1.5, 1, 1], None)},
        r"lengths of shape \(3,\)": {"lengths": ([1, 2], None)},
        r"mask of item 0 has a hole": {"lengths": (torch.tensor([[True, False, True, True]] * 3), None)},
        r"expected a mask of shape \(\*batch, 5\)": {"lengths": (None, torch.ones(3, 4, dtype=torch.bool))},
        r"lengths: expected a pair": {"lengths": torch.tensor([1, 2, 3])},
        r"item 1 has 3 more columns than rows.*widen the band to 3": {
            "band": 2,
            "lengths": ([4, 2, 4], None),
        },
        r"band: expected numbers of at least 0": {"band": -1},
        r"gap: expected a number or a shape": {"gap": torch.rand(3)},
        r"col_gap: expected a number or a shape": {"col_gap": torch.rand(4)},
        r"affine gaps need it on both sides": {"row_open": 1.0},
    }.items():
        with pytest.raises(ValueError, match=match):
            global_alignment(costs, **how)
    with pytest.raises(ValueError, match="costs: expected shape"):
        global_alignment(torch.rand(3))
    with pytest.raises(ValueError, match="unknown end 'start'"):
        semi_global_alignment(costs, free="start")
    with pytest.raises(ValueError, match="do not broadcast"):
        global_alignment(costs, gap=torch.rand(2, 4, 1).expand(2, 4, 1)[:, 0].expand(2, 1))
    with pytest.raises(TypeError, match="no option 'gaps'"):
        GlobalAlignment(gaps=1.0)


def test_the_solution_refuses_gradients_without_a_rule():
    costs = torch.rand(3, 4, 5, dtype=F64, requires_grad=True)
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        global_alignment(costs).indicator.sum().backward()
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        global_alignment(costs).row_gaps.sum().backward()
    exact = global_alignment(costs, gradient="exact")
    assert exact.evaluation.solver == "oracle"
    exact.indicator.square().sum().backward()
    assert costs.grad.eq(0).all()
    costs.grad = None
    rule = lpdiff.gradients.Interpolation(5.0)
    found = global_alignment(costs, gap=0.4, gradient=rule)
    weight = torch.rand(4, 5, dtype=F64)
    (found.indicator * weight).sum().backward()
    moved = global_alignment(costs.detach() + 5.0 * weight, gap=0.4).indicator
    assert torch.allclose(costs.grad, (moved - found.indicator.detach()) / 5.0)


def test_modules():
    gap = nn.Parameter(torch.tensor(0.7))
    layer = GlobalAlignment(gap=gap, band=3)
    costs = torch.rand(4, 6, 6)
    assert list(layer.parameters()) == [gap]
    found = layer(costs, lengths=([6, 5, 4, 6], [6, 6, 5, 4]))
    found.value.sum().backward()
    assert gap.grad == found.gap_count.sum()
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(costs).value, layer(costs).value)
        assert [p.item() for p in copied.parameters()] == [gap.item()]
    assert torch.equal(layer(costs, band=None, gap=0.1).value, global_alignment(costs, gap=0.1).value)
    assert "band=3" in repr(layer)
    assert torch.equal(LocalAlignment(gap=0.1)(-costs).value, local_alignment(-costs, gap=0.1).value)
    free = SemiGlobalAlignment(free="all", solver="highs")(costs)
    assert free.evaluation.solver == "highs"
    assert torch.allclose(free.value, semi_global_alignment(costs, free="all").value)


def test_sparse_gradients():
    costs = torch.rand(3, 40, 50, requires_grad=True)
    gap = torch.rand(3, 40, requires_grad=True)
    found = global_alignment(costs, row_gap=gap, sparse_gradient=True)
    found.value.sum().backward()
    assert costs.grad.layout == torch.sparse_coo
    assert costs.grad._nnz() <= 3 * 40
    assert gap.grad.layout == torch.strided
    assert torch.equal(costs.grad.to_dense(), found.indicator.detach())


@pytest.mark.parametrize("shape", [(30, 40), (1, 30, 40), (2, 3, 30, 40)])
def test_sparse_gradients_of_any_batch(shape):
    costs = torch.rand(shape, dtype=F64, requires_grad=True)
    gap = torch.rand(2, 3, 1, dtype=F64) if len(shape) < 4 else 0.4  # six items that share their costs
    found = global_alignment(costs, gap=gap, sparse_gradient=True)
    found.value.sum().backward()
    dense = costs.detach().requires_grad_()
    global_alignment(dense, gap=gap).value.sum().backward()
    assert costs.grad.layout == torch.sparse_coo and costs.grad.shape == costs.shape
    assert torch.allclose(costs.grad.to_dense(), dense.grad)


def test_sparse_gradients_through_what_torch_cannot():
    half = torch.rand(3, 4, 5).half().requires_grad_()
    with pytest.raises(ValueError, match="sparse_gradient: costs must be of dtype float64, float32"):
        global_alignment(half, sparse_gradient=True)
    part = torch.rand(3, 1, 4, 5, requires_grad=True)
    with pytest.raises(ValueError, match="have the whole batch"):
        global_alignment(part, gap=torch.rand(2, 1), sparse_gradient=True)


def test_same_bits_in_any_order_and_on_any_threads():
    costs = torch.randint(0, 4, (64, 30, 33)).double()
    whole = global_alignment(costs, gap=1.0, threads=1)
    order = torch.randperm(64)
    for found in (
        global_alignment(costs[order], gap=1.0, threads=1),
        global_alignment(costs[order], gap=1.0, threads=2),
    ):
        assert torch.equal(found.value, whole.value[order])
        assert torch.equal(found.pairs, whole.pairs[order])
