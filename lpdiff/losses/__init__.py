"""Losses for predicted costs.

Value gaps, smoothed and cost-augmented, and regret; and losses without a solve: over a pool of solutions, by
the cone of costs that suit a target, by its neighbours.

Each is a function, in the manner of ``torch.nn.functional``, and a module that holds the program.
"""

from .adjacent import AdjacentVertices, Neighbours, adjacent_vertices, neighbours
from .cone import ConeAligned, cone_aligned
from .fenchel_young import perturbed_fenchel_young, quadratic_fenchel_young
from .gaps import directional, perceptron, spo_plus, structured_hinge
from .module import (
    AbstractLoss,
    Directional,
    Perceptron,
    PerturbedFenchelYoung,
    QuadraticFenchelYoung,
    Regret,
    SPOPlus,
    StructuredHinge,
)
from .objective import Objective
from .pool import SolutionPool
from .ranking import (
    NCE,
    ContrastiveMAP,
    Listwise,
    Pairwise,
    Pointwise,
    contrastive_map,
    listwise,
    nce,
    pairwise,
    pointwise,
)
from .regret import regret

__all__ = [
    "NCE",
    "AbstractLoss",
    "AdjacentVertices",
    "ConeAligned",
    "ContrastiveMAP",
    "Directional",
    "Listwise",
    "Neighbours",
    "Objective",
    "Pairwise",
    "Perceptron",
    "PerturbedFenchelYoung",
    "Pointwise",
    "QuadraticFenchelYoung",
    "Regret",
    "SPOPlus",
    "SolutionPool",
    "StructuredHinge",
    "adjacent_vertices",
    "cone_aligned",
    "contrastive_map",
    "directional",
    "listwise",
    "nce",
    "neighbours",
    "pairwise",
    "perceptron",
    "perturbed_fenchel_young",
    "pointwise",
    "quadratic_fenchel_young",
    "regret",
    "spo_plus",
    "structured_hinge",
]
