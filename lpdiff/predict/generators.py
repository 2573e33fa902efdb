"""The field's synthetic sets for "predict, then optimise", by their published formulas and seeds.

Features are standard normal, x ~ N(0, I_p); costs follow from them by polynomials of a degree, so that a
linear model is misspecified where the degree is above 1. With B, a random matrix of zeros and ones (of
probability 1/2), s = B x / sqrt(p), and e ~ U(1 - noise, 1 + noise), drawn for each cost:

    shortest path, knapsack    c = [(s + 3)^degree + 1] / 3.5^degree * e
    portfolio                  r = (0.05 s + 0.1^(1/degree))^degree + L f + 0.01 noise u

Elmachtoub and Grigas (2022), Smart "predict, then optimize", Management Science 68(1), arXiv 1710.08005,
section 6 (paths without the factor 1 / 3.5^degree, which changes no decision and no normalised regret); Tang
and Khalil (2024), PyEPO, Mathematical Programming Computation 16. The numbers are drawn in PyEPO's order from
NumPy's ``RandomState(seed)``, so the same seed gives the same set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lpdiff import LinearProgram
from lpdiff.problems.grids import grid_graph
from lpdiff.problems.paths import PathProblem

from .dataset import SolvedDataset

__all__ = ["Benchmark", "knapsack", "portfolio", "shortest_path"]


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A synthetic set.

    Attributes:
        program: The LP, declared without costs.
        features: (count, p), torch's default dtype.
        costs: (count, n), likewise: the costs at which each item is decided; what is maximised, for max.
        details: What else was drawn or chosen, by name.
    """

    program: LinearProgram
    features: torch.Tensor
    costs: torch.Tensor
    details: dict[str, Any]

    def solved(self, **how: Any) -> SolvedDataset:
        """As a ``SolvedDataset``; ``how``: options of ``lpdiff.solve``."""
        return SolvedDataset(self.program, self.features, self.costs, **how)


def shortest_path(
    count: int,
    *,
    features: int = 5,
    grid: tuple[int, int] = (5, 5),
    degree: int = 1,
    noise: float = 0.0,
    seed: int = 135,
) -> Benchmark:
    """Shortest paths from the north-west to the south-east corner of a grid, by steps right and down.

    Args:
        count: Items.
        features: p.
        grid: (height, width) in nodes. Edges are in the order of ``lpdiff.problems.grid_graph(height, width,
            "monotone")``, which is PyEPO's: 40 of them in a grid of 5 x 5.
        degree: Of the polynomial.
        noise: Half-width of the multiplicative noise, in 0..1.
        seed: Of the generator. It determines B too: training and test sets come from one call.

    Returns:
        A Benchmark; details: ``grid``. Solved by dynamic programming (``path``).

    Raises:
        ValueError: an argument that makes no set.
    """
    _check(count, features, degree, noise, most=1.0)
    height, width = grid
    if height < 1 or width < 1 or height * width < 2:
        raise ValueError(f"grid: expected (height, width) of at least 2 nodes, got {grid}")
    graph = grid_graph(height, width, "monotone")
    program = PathProblem(graph, True, False, 0, graph.nodes - 1).program
    drawn = np.random.RandomState(seed)
    x, signal = _signal(drawn, count, features, program.n)
    costs = _polynomial(signal, degree, 1) * drawn.uniform(1 - noise, 1 + noise, signal.shape)
    return Benchmark(program, _tensor(x), _tensor(costs), {"grid": (height, width)})


def knapsack(
    count: int,
    *,
    features: int = 5,
    items: int = 32,
    resources: int = 2,
    capacity: float = 20.0,
    integral: bool = False,
    degree: int = 1,
    noise: float = 0.0,
    seed: int = 135,
) -> Benchmark:
    """Knapsacks of several resources: max v'x subject to W x <= capacity, 0 <= x <= 1.

    The weights W, in 3.00, 3.01, ..., 7.99, are drawn once; values are 5 c by the formula of the module,
    rounded up to integers.

    Args:
        items, resources: The shape of W is (resources, items).
        capacity: Of each resource. The set does not prescribe it; 20 is usual.
        integral: x in {0, 1}, as the set is used in the literature: a mixed-integer program, without duals,
            bases and gradients of x. By default its relaxation, of which as many items are split as there are
            resources, at most.
        count, features, degree, noise, seed: As of ``shortest_path``.

    Returns:
        A Benchmark; details: ``weights`` (resources, items) and ``capacity`` (resources,), arrays.

    Raises:
        ValueError: an argument that makes no set.
    """
    _check(count, features, degree, noise, most=1.0)
    if items < 1 or resources < 1 or capacity < 0:
        raise ValueError(
            f"knapsack: expected items and resources >= 1 and capacity >= 0, got {items}, {resources} and "
            f"{capacity}"
        )
    drawn = np.random.RandomState(seed)
    weights = drawn.choice(np.arange(300, 800), size=(resources, items)) / 100
    x, signal = _signal(drawn, count, features, items)
    values = _polynomial(signal, degree, 5) * drawn.uniform(1 - noise, 1 + noise, signal.shape)
    limit = np.full(resources, float(capacity))
    program = LinearProgram(
        A_ub=weights, b_ub=limit, bounds=(0, 1), integrality=integral, sense="max", name="knapsack"
    )
    return Benchmark(program, _tensor(x), _tensor(np.ceil(values)), {"weights": weights, "capacity": limit})


def portfolio(
    count: int,
    *,
    features: int = 5,
    assets: int = 50,
    degree: int = 1,
    noise: float = 1.0,
    gamma: float = 2.25,
    seed: int = 135,
) -> Benchmark:
    """Portfolios: the largest return within linear limits on risk.

    Returns follow the formula of the module, with loadings L ~ U(-0.0025 noise, 0.0025 noise), (assets, p),
    and standard normal f and u; their covariance is S = L L' + (0.01 noise)^2 I. The published problem is::

        max r'x   subject to   x' S x <= R = gamma * mean(S),   sum(x) <= 1,   x >= 0,

    which is no LP. This one limits the exposure to each factor, and each asset's share, instead::

        max r'x   subject to   |L'x|_k <= sqrt(R / (10 p)),   sum(x) <= 1,   0 <= x <= 0.9 R / (0.01 noise)^2

    Then the squared norm of L'x is at most R / 10, that of x at most max(x) sum(x) <= 0.9 R / (0.01 noise)^2,
    so x' S x <= R: its portfolios are some of the published problem's, whose optimum is at least as high.
    Features and returns are those of the published set; optima and regrets cannot be compared with it.

    Args:
        assets: n.
        noise: The level tau; 0 leaves no risk, and no limit but the budget.
        gamma: The risk allowed, in units of the mean of S; 2.25 is the published one.
        count, features, degree, seed: As of ``shortest_path``.

    Returns:
        A Benchmark; details: ``covariance`` (assets, assets), ``loadings`` (assets, p), ``risk`` (R).

    Raises:
        ValueError: an argument that makes no set.
    """
    _check(count, features, degree, noise, most=np.inf)
    if assets < 1 or not gamma > 0:
        raise ValueError(f"portfolio: expected assets >= 1 and gamma > 0, got {assets} and {gamma}")
    drawn = np.random.RandomState(seed)
    matrix = drawn.binomial(1, 0.5, (assets, features))
    loadings = drawn.uniform(-2.5e-3 * noise, 2.5e-3 * noise, (assets, features))
    x = drawn.normal(0, 1, (count, features))
    returns = (0.05 * (x @ matrix.T) / np.sqrt(features) + 0.1 ** (1 / degree)) ** degree
    shocks = drawn.randn(count, features + assets)  # factors, then residuals, item by item
    returns = returns + shocks[:, :features] @ loadings.T + 0.01 * noise * shocks[:, features:]
    residual = (0.01 * noise) ** 2
    covariance = loadings @ loadings.T + residual * np.eye(assets)
    risk = gamma * covariance.mean()
    exposure = np.full(features, np.sqrt(0.1 * risk / features))
    share = min(1.0, 0.9 * risk / residual) if residual > 0 else 1.0
    program = LinearProgram(
        A_ub=np.ones((1, assets)),
        b_ub=[1.0],
        A=loadings.T,
        row_lower=-exposure,
        row_upper=exposure,
        bounds=(0, share),
        sense="max",
        name="portfolio",
    )
    details = {"covariance": covariance, "loadings": loadings, "risk": float(risk)}
    return Benchmark(program, _tensor(x), _tensor(returns), details)


# -- pieces ------------------------------------------------------------------------------------------------


def _signal(
    drawn: np.random.RandomState, count: int, features: int, costs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, p) and B x / sqrt(p), (count, costs): B first, then x."""
    matrix = drawn.binomial(1, 0.5, (costs, features))
    x = drawn.normal(0, 1, (count, features))
    return x, x @ matrix.T / np.sqrt(features)


def _polynomial(signal: np.ndarray, degree: int, scale: int) -> np.ndarray:
    return ((signal + 3) ** degree + 1) * scale / 3.5**degree


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).to(torch.get_default_dtype())


def _check(count: int, features: int, degree: int, noise: float, *, most: float) -> None:
    for name, value, least in (("count", count, 0), ("features", features, 1), ("degree", degree, 1)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    if not 0 <= noise <= most:
        raise ValueError(f"noise: expected a number from 0 to {most:g}, got {noise!r}")
