"""Losses for predicted costs: value gaps, smoothed and cost-augmented, and regret.

Each is a function, in the manner of ``torch.nn.functional``, and a module that holds the program.
"""

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
from .regret import regret

__all__ = [
    "AbstractLoss",
    "Directional",
    "Objective",
    "Perceptron",
    "PerturbedFenchelYoung",
    "QuadraticFenchelYoung",
    "Regret",
    "SPOPlus",
    "StructuredHinge",
    "directional",
    "perceptron",
    "perturbed_fenchel_young",
    "quadratic_fenchel_young",
    "regret",
    "spo_plus",
    "structured_hinge",
]
