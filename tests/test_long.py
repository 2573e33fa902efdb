"""The oracles again, over many more and larger instances (make long)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES
from test_agreement import compare
from test_auto import check_family
from test_gradients import test_against_finite_differences as finite_differences

import lpdiff
from lpdiff.backends.glop import GLOP
from lpdiff.testing import KINDS, random_lp

pytestmark = pytest.mark.long


@pytest.mark.parametrize("seed", range(1000, 1200))
def test_finite_differences_on_2000_more_lps(seed):
    finite_differences(seed)


@pytest.mark.skipif(GLOP.missing() is not None, reason=GLOP.missing() or "")
@pytest.mark.parametrize("kind", KINDS)
def test_agreement_on_larger_lps(kind):
    rng = np.random.default_rng(99)
    for _ in range(150):
        n = int(rng.integers(1, 200))
        compare(random_lp(rng, n, int(rng.integers(0, 120)), kind=kind, density=min(1.0, 8 / n)))


@pytest.mark.parametrize("solver", ["highs", "glop"])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_at_scale(kind, solver):
    """3,000 LPs: neither the order nor the threads nor the items beside it change an item's bits."""
    if solver == "glop" and GLOP.missing():
        pytest.skip(GLOP.missing() or "")
    rng = np.random.default_rng(5)
    lp = random_lp(rng, 40, 25, kind=kind, sense="min")
    lower, upper = np.maximum(lp.lower, -100), np.minimum(lp.upper, 100)
    bounds = (torch.from_numpy(lower), torch.from_numpy(upper))
    # Small integers keep the ties that random costs would break.
    costs = torch.from_numpy(np.round(lp.c + rng.integers(-1, 2, size=(3000, lp.n))))

    def run(order, threads):
        sol = lpdiff.solve(lp, c=costs[order], bounds=bounds, solver=solver, threads=threads)
        return (sol.value, sol.x, sol.y, sol.reduced_costs, sol.basis.columns, sol.basis.rows)

    whole = run(torch.arange(3000), 1)
    shuffled = torch.from_numpy(rng.permutation(3000))
    for order, threads in ((shuffled, 2), (shuffled, 7), (shuffled[:10], 1)):
        for one, other in zip(whole, run(order, threads), strict=True):
            assert torch.equal(one[order], other)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(2000, 2005))
def test_structure_on_more_families(family, seed):
    check_family(family, seed, 150)
