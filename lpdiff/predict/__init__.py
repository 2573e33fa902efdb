"""Predict, then optimise: data sets that are solved once, metrics of decisions, synthetic sets."""

from .dataset import Item, SolvedDataset, batches
from .generators import Benchmark, knapsack, portfolio, shortest_path
from .metrics import (
    DecisionReport,
    evaluate_model,
    normalised_regret,
    regret,
    relative_regret,
    unambiguous_regret,
)

__all__ = [
    "Benchmark",
    "DecisionReport",
    "Item",
    "SolvedDataset",
    "batches",
    "evaluate_model",
    "knapsack",
    "normalised_regret",
    "portfolio",
    "regret",
    "relative_regret",
    "shortest_path",
    "unambiguous_regret",
]
