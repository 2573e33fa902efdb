"""Dynamic time warping: against its LP under HiGHS, enumeration, and dtw-python."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff.problems.warping import DTW, STEPS, dtw

F64 = torch.float64

OWN = ((0, 1, 0.5), (2, 1, 1.5), (1, 1, 1.0), (1, 0, 3.0))


def table(batch, n, m, seed, low=-2, high=5):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (batch, n, m), generator=g).to(F64).requires_grad_()


@pytest.mark.parametrize("steps", [*STEPS, OWN], ids=[*STEPS, "own"])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (1, 1), (1, 4), (4, 1), (6, 4), (3, 7)])
def test_as_its_lp_under_highs(n, m, steps):
    costs = table(30, n, m, 10 * n + m)
    lengths = tuple(np.random.default_rng(n + m).integers(1, size + 1, 30) for size in (n, m))
    for how in (
        {},
        {"lengths": lengths},
        {"open_begin": True},
        {"open_end": True, "lengths": lengths},
        {"open_begin": True, "open_end": True, "band": 2},
        {"band": (max(n - m, 0), max(m - n, 0) + 1)},
    ):
        ours = dtw(costs, steps=steps, throw=False, **how)
        theirs = dtw(costs, steps=steps, throw=False, solver="highs", **how)
        assert (ours.evaluation.solver, theirs.evaluation.solver) == ("oracle", "highs")
        assert torch.equal(ours.status, theirs.status)
        assert torch.allclose(ours.value, theirs.value)
        for found in (ours, theirs):
            (gradient,) = torch.autograd.grad(found.value[found.ok].sum(), costs)
            priced = (gradient * costs).sum((1, 2))
            assert torch.allclose(priced[found.ok], found.value[found.ok])
            assert torch.allclose(found.indicator.detach()[found.ok], gradient[found.ok])


def test_gradients_where_the_path_is_unique():
    costs = torch.rand(100, 6, 7, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for steps in (*STEPS, OWN):
        found = [dtw(costs, steps=steps, solver=solver, throw=False) for solver in ("auto", "highs")]
        a, b = (torch.autograd.grad(f.value[f.ok].sum(), costs)[0] for f in found)
        assert torch.allclose(a, b)
        assert torch.equal(found[0].path[found[0].ok][:, :6], found[1].path[found[0].ok][:, :6])


def best(costs, steps):
    """Every path, by recursion: no table."""

    @functools.cache
    def to(i, j):
        if (i, j) == (0, 0):
            return costs[0, 0]
        before = [
            to(i - down, j - right) + weight * costs[i, j]
            for down, right, weight in steps
            if i >= down and j >= right
        ]
        return min(before, default=np.inf)

    return to(costs.shape[0] - 1, costs.shape[1] - 1)


@pytest.mark.parametrize("steps", [*STEPS, OWN], ids=[*STEPS, "own"])
def test_enumeration(steps):
    costs = table(50, 4, 4, 1)
    found = dtw(costs, steps=steps)
    for k in range(50):
        told = STEPS[steps] if isinstance(steps, str) else steps
        assert found.value[k].item() == pytest.approx(best(costs[k].detach().numpy(), told))


@pytest.mark.filterwarnings("ignore")
def test_dtw_python(capsys):
    """Three step patterns, a band, open ends: value and path."""
    theirs = pytest.importorskip("dtw")
    rng = np.random.default_rng(3)
    for _ in range(30):
        n, m = rng.integers(2, 12, 2)
        costs = rng.random((n, m))
        for steps in STEPS:
            if steps == "asymmetric" and (m - 1) > 2 * (n - 1):
                continue
            pattern = getattr(theirs, steps)
            ours = dtw(costs, steps=steps)
            other = theirs.dtw(costs, step_pattern=pattern)
            assert float(ours.value) == pytest.approx(other.distance)
            (path,) = ours.decode()
            assert path.tolist() == np.stack([other.index1, other.index2], -1).tolist()
        width = abs(n - m) + 1
        window = {"window_type": "sakoechiba", "window_args": {"window_size": width}}
        other = theirs.dtw(costs, step_pattern=theirs.symmetric1, **window)
        assert float(dtw(costs, band=int(width)).value) == pytest.approx(other.distance)
        if 2 * (n - 1) >= m - 1:
            other = theirs.dtw(costs, step_pattern=theirs.asymmetric, open_begin=True, open_end=True)
            ours = dtw(costs, steps="asymmetric", open_begin=True, open_end=True)
            assert float(ours.value) == pytest.approx(other.distance)


def test_what_it_tells():
    costs = torch.ones(3, 4)
    costs[0, :3] = 0.0
    costs[1:, 2] = 0.0
    found = dtw(costs)
    assert found.value == 1
    assert found.path.tolist()[: int(found.length)] == [[0, 0], [0, 1], [1, 2], [2, 3]]
    assert found.length == 4
    assert found.indicator.sum() == 4
    assert dtw(costs, open_end=True).value == 0
    assert dtw(costs, steps="symmetric2").indicator.max() == 2


def test_batches_lengths_and_types():
    wide = torch.rand(2, 3, 9, 12)
    view = wide[..., ::2, ::3]
    lengths = (torch.tensor([5, 3, 1]), torch.tensor([[4], [2]]))
    found = dtw(view, lengths=lengths)
    assert found.value.shape == (2, 3)
    assert found.value.dtype == torch.float32
    for i in range(2):
        for j in range(3):
            cut = view[i, j, : lengths[0][j], : lengths[1][i, 0]]
            assert torch.allclose(dtw(cut).value, found.value[i, j])
    padded = view.clone()
    padded[:, 2, 1:] = torch.nan
    assert torch.equal(dtw(padded, lengths=lengths).value, found.value)
    assert torch.equal(dtw(padded, lengths=lengths, solver="highs").value, found.value)
    layer = copy.deepcopy(DTW(band=3, steps="symmetric2"))
    assert torch.equal(layer(view).value, dtw(view, band=3, steps="symmetric2").value)
    assert dtw(torch.rand(0, 2, 2)).value.shape == (0,)


def test_a_band_never_makes_an_infinite_loss():
    """It holds the last cell, or says which item it does not."""
    costs = torch.rand(4, 8, 8)
    lengths = (torch.tensor([8, 8, 8, 8]), torch.tensor([8, 7, 6, 5]))
    assert dtw(costs, band=3, lengths=lengths).value.isfinite().all()
    with pytest.raises(ValueError, match=r"item 3 has -3 more columns than rows.*widen the band to 3"):
        dtw(costs, band=2, lengths=lengths)


def test_bad_input():
    for match, how in {
        r"unknown pattern 'symmetric'": {"steps": "symmetric"},
        r"expected \(rows, columns, weight\) triples": {"steps": ((1, 1),)},
        r"is no step forward": {"steps": ((0, 0, 1.0),)},
        r"expected different steps": {"steps": ((1, 1, 1.0), (1, 1, 2.0))},
        r"rows: item 1 has length 0, expected 1 to 3": {"lengths": ([1, 0], None)},
    }.items():
        with pytest.raises(ValueError, match=match):
            dtw(torch.rand(2, 3, 3), **how)
    with pytest.raises(ValueError, match="a path needs a cell"):
        dtw(torch.rand(2, 0, 3))
    costs = torch.rand(3, 3, 3)
    costs[1, 2, 2] = torch.nan
    with pytest.raises(lpdiff.SolveError, match=r"(?s)item 1.*costs\[2, 2\] is nan"):
        dtw(costs)
    costs[1, 2, 2] = torch.inf
    with pytest.raises(lpdiff.SolveError, match="forbidden") as error:
        dtw(costs)
    assert error.value.statuses == [lpdiff.Status.INFEASIBLE]
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        dtw(torch.rand(3, 3, requires_grad=True)).indicator.sum().backward()
