"""What all problems of the library have in common, each on a small sample of its own."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import lpdiff
from lpdiff import problems

F64 = torch.float64
BATCH = 6

EDGES = [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Generic numbers: one optimum, one gradient."""
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)) + 0.1


@dataclass(frozen=True)
class Sample:
    """How a problem is called: leaves that carry gradients, in front of or among other arguments."""

    function: Callable[..., Any]
    module: type
    leaves: Callable[[], list[torch.Tensor]]
    arguments: Callable[[list[torch.Tensor]], tuple[Any, ...]] = tuple
    options: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True  # whether its solution, not only its value, is compared between solvers

    def __call__(self, leaves: list[torch.Tensor], **more: Any) -> Any:
        return self.function(*self.arguments(leaves), **{**self.options, **more})


def table() -> list[torch.Tensor]:
    return [drawn(BATCH, 4, 5)]


def log_probs(*shape: int) -> list[torch.Tensor]:
    return [drawn(*shape).mul(3).log_softmax(-1)]


TARGETS = torch.tensor([[1, 2, 0], [2, 2, 1], [0, 1, 2], [1, 0, 1], [2, 1, 2], [0, 2, 1]])
SUPPLY, DEMAND = [0.25] * 4, [0.2] * 5

SAMPLES = {
    "global_alignment": Sample(
        problems.global_alignment, problems.GlobalAlignment, table, options={"gap": 0.3}
    ),
    "semi_global_alignment": Sample(
        problems.semi_global_alignment, problems.SemiGlobalAlignment, table, options={"gap": 0.3}
    ),
    "local_alignment": Sample(
        problems.local_alignment,
        problems.LocalAlignment,
        lambda: [drawn(BATCH, 4, 5) - 0.6],
        options={"gap": 0.1, "gap_open": 0.2},
    ),
    "dtw": Sample(problems.dtw, problems.DTW, table),
    "token_alignment": Sample(
        problems.token_alignment,
        problems.TokenAlignment,
        lambda: log_probs(BATCH, 5, 3),
        lambda leaves: (leaves[0], TARGETS),
        {"gap": 0.37},
    ),
    "monotonic_alignment": Sample(
        problems.monotonic_alignment, problems.MonotonicAlignment, lambda: [drawn(BATCH, 5, 3)]
    ),
    "ctc_alignment": Sample(
        problems.ctc_alignment,
        problems.CTCAlignment,
        lambda: log_probs(BATCH, 7, 4),
        lambda leaves: (leaves[0], TARGETS + 1),
    ),
    "assignment": Sample(problems.assignment, problems.Assignment, table),
    "b_matching": Sample(
        problems.b_matching,
        problems.BMatching,
        table,
        lambda leaves: (leaves[0], [2, 2, 1, 1], [1, 1, 1, 2, 1]),
    ),
    "optimal_transport": Sample(
        problems.optimal_transport,
        problems.OptimalTransport,
        table,
        lambda leaves: (leaves[0], SUPPLY, DEMAND),
    ),
    "bag_matching": Sample(
        problems.bag_matching,
        problems.BagMatching,
        lambda: log_probs(BATCH, 4, 3),
        lambda leaves: (leaves[0], [[2, 1, 1], [4, 0, 0], [1, 1, 2], [0, 2, 2], [1, 2, 1], [2, 2, 0]]),
        {"reduction": "none"},
    ),
    "set_matching": Sample(problems.set_matching, problems.SetMatcher, lambda: [drawn(BATCH, 7, 3)]),
    "permutation_invariant": Sample(
        problems.permutation_invariant,
        problems.PermutationInvariant,
        lambda: [drawn(BATCH, 4, 4)],
        options={"reduction": "sum"},
    ),
    "graph_path": Sample(
        problems.graph_path,
        problems.GraphPath,
        lambda: [drawn(BATCH, 5)],
        lambda leaves: (EDGES, leaves[0], 0, 3),
    ),
    "longest_path": Sample(
        problems.longest_path,
        problems.LongestPath,
        lambda: [drawn(BATCH, 5)],
        lambda leaves: (EDGES, leaves[0], 0, 3),
    ),
    "grid_path": Sample(problems.grid_path, problems.GridPath, table),
    "viterbi": Sample(problems.viterbi, problems.Viterbi, lambda: [drawn(BATCH, 5, 3), drawn(3, 3, seed=1)]),
    "min_cost_flow": Sample(
        problems.min_cost_flow,
        problems.MinCostFlow,
        lambda: [drawn(BATCH, 5)],
        lambda leaves: (EDGES, leaves[0], [2.0, 0.0, 0.0, -2.0], [1.0, 1.5, 2.0, 1.0, 1.7]),
    ),
    "max_flow": Sample(
        problems.max_flow,
        problems.MaxFlow,
        lambda: [drawn(BATCH, 5)],
        lambda leaves: (EDGES, leaves[0], 0, 3),
    ),
    "min_cut": Sample(
        problems.min_cut, problems.MinCut, lambda: [drawn(BATCH, 5)], lambda leaves: (EDGES, leaves[0], 0, 3)
    ),
    "minimum_spanning_tree": Sample(
        problems.minimum_spanning_tree,
        problems.MinimumSpanningTree,
        lambda: [drawn(BATCH, 5)],
        lambda leaves: (EDGES, leaves[0]),
    ),
    "top_k": Sample(problems.top_k, problems.TopK, lambda: [drawn(BATCH, 6)], lambda leaves: (leaves[0], 3)),
    "k_subset": Sample(
        problems.k_subset, problems.KSubset, lambda: [drawn(BATCH, 6)], lambda leaves: (leaves[0], 3)
    ),
    "knapsack": Sample(
        problems.knapsack,
        problems.Knapsack,
        lambda: [drawn(BATCH, 6), drawn(6, seed=1)],
        lambda leaves: (*leaves, 1.7),
    ),
    "rank": Sample(problems.rank, problems.Rank, lambda: [drawn(BATCH, 5)]),
    "isotonic_regression": Sample(
        problems.isotonic_regression, problems.IsotonicRegression, lambda: [drawn(BATCH, 6), drawn(6, seed=1)]
    ),
    "pairwise_map": Sample(
        problems.pairwise_map,
        problems.PairwiseMap,
        lambda: [drawn(BATCH, 4, 3), drawn(3, 3, 3, seed=1)],
        lambda leaves: (*leaves, [[0, 1], [1, 2], [1, 3]]),
    ),
}
WITHOUT_SAMPLE = {"grid_graph", "multi_knapsack"}  # no problem; no module


def value_and_gradients(sample: Sample, leaves: list[torch.Tensor], **more: Any) -> tuple[torch.Tensor, ...]:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    value = sample(leaves, **more).value
    return value.detach(), *torch.autograd.grad(value.sum(), leaves)


def test_every_problem_has_a_sample():
    functions = {name for name in problems.__all__ if inspect.isfunction(getattr(problems, name))}
    assert functions - WITHOUT_SAMPLE == set(SAMPLES)
    modules = {
        name
        for name in problems.__all__
        if inspect.isclass(getattr(problems, name))
        and issubclass(getattr(problems, name), problems.ProblemModule)
    }
    assert modules - {"ProblemModule"} == {sample.module.__name__ for sample in SAMPLES.values()}
    for name, sample in SAMPLES.items():
        assert sample.function is getattr(problems, name)
        assert sample.module.function is sample.function


@pytest.mark.parametrize("name", SAMPLES)
class TestProblem:
    def test_as_the_general_solver(self, name):
        sample = SAMPLES[name]
        ours = value_and_gradients(sample, sample.leaves())
        theirs = value_and_gradients(sample, sample.leaves(), solver="highs")
        assert ours[0].shape == (BATCH,)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, atol=1e-8)

    def test_gradients_are_slopes(self, name):
        sample, step = SAMPLES[name], 1e-6
        leaves = sample.leaves()
        _, *gradients = value_and_gradients(sample, leaves)
        for k, gradient in enumerate(gradients):
            direction = drawn(*leaves[k].shape, seed=7) - 0.6
            moved = [
                sample([leaf + sign * step * direction if i == k else leaf for i, leaf in enumerate(leaves)])
                for sign in (1, -1)
            ]
            slope = (moved[0].value - moved[1].value).sum() / (2 * step)
            assert slope.item() == pytest.approx((gradient * direction).sum().item(), abs=1e-6)

    def test_forward_mode_and_vmap(self, name):
        sample = SAMPLES[name]
        leaves = sample.leaves()
        _, *gradients = value_and_gradients(sample, leaves)
        direction = drawn(*leaves[0].shape, seed=3)
        _, pushed = torch.func.jvp(
            lambda leaf: sample([leaf, *leaves[1:]]).value.sum(), (leaves[0],), (direction,)
        )
        assert pushed.item() == pytest.approx((gradients[0] * direction).sum().item(), abs=1e-7)
        stacked = torch.stack([leaves[0], leaves[0] * 0.9])
        mapped = torch.func.vmap(lambda leaf: sample([leaf, *leaves[1:]]).value)(stacked)
        for row, leaf in zip(mapped, stacked, strict=True):
            assert torch.allclose(row, sample([leaf, *leaves[1:]]).value)

    def test_types_and_strides(self, name):
        sample = SAMPLES[name]
        leaves = sample.leaves()
        value = sample(leaves).value
        assert value.dtype == F64
        single = sample([leaf.float() for leaf in leaves])
        assert single.value.dtype == torch.float32
        assert torch.allclose(single.value.double(), value, rtol=1e-5, atol=1e-5)
        strided = [torch.stack([leaf, leaf * 0], -1)[..., 0] for leaf in leaves]
        assert not strided[0].is_contiguous()
        assert torch.equal(sample(strided).value, value)

    def test_threads_change_nothing(self, name):
        sample = SAMPLES[name]
        one, two = (value_and_gradients(sample, sample.leaves(), threads=k) for k in (1, 2))
        for a, b in zip(one, two, strict=True):
            assert torch.equal(a, b)

    def test_nan_is_named(self, name):
        sample = SAMPLES[name]
        leaves = sample.leaves()
        leaves[0][4].view(-1)[-1] = torch.nan
        with pytest.raises(lpdiff.SolveError, match=r"\b(item|image) 4\b") as error:
            sample(leaves)
        assert error.value.statuses == [lpdiff.Status.INVALID]
        found = sample([leaf.requires_grad_() for leaf in leaves], throw=False)
        assert found.status.tolist() == [0, 0, 0, 0, lpdiff.Status.INVALID, 0]
        assert found.value.isnan().tolist() == [False] * 4 + [True, False]
        found.value[found.ok].sum().backward()
        assert not leaves[0].grad[4].any()

    def test_module(self, name):
        sample = SAMPLES[name]
        leaves = sample.leaves()
        layer = sample.module(**sample.options)
        value = sample(leaves).value
        for module in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(module(*sample.arguments(leaves)).value, value)
        with pytest.raises(TypeError, match="no option 'colour'"):
            sample.module(colour="red")

    def test_results(self, name):
        sample = SAMPLES[name]
        found = sample(sample.leaves())
        assert found.status.eq(0).all() and found.ok.all()
        assert found.status.shape == (BATCH,)
        assert len(found.decode()) == BATCH
        assert hasattr(found, "solution")

    def test_docstring(self, name):
        text = inspect.getdoc(SAMPLES[name].function)
        for part in ("Args:", "Raises:", "Example:"):
            assert part in text, part
        assert re.search(r"Example::\n\n    |>>>", text)
        assert re.search(r"[Ss]olve[rd]|LP|program", text)
