"""Losses as modules: what they minimise over and their options at construction, tensors at the call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from ..gradients.abstract import make_generator
from .fenchel_young import perturbed_fenchel_young, quadratic_fenchel_young
from .gaps import directional, perceptron, spo_plus, structured_hinge
from .objective import Objective
from .regret import regret

__all__ = [
    "AbstractLoss",
    "Directional",
    "Perceptron",
    "PerturbedFenchelYoung",
    "QuadraticFenchelYoung",
    "Regret",
    "SPOPlus",
    "StructuredHinge",
]


class AbstractLoss(nn.Module):
    """A loss that holds a program and options; see its function.

    Args:
        program: What is minimised over: see ``lpdiff.losses.Objective``. A module is registered, so that what
            it learns is learned.
        options: Keyword arguments of the function; and what else each solve is given, see
            ``lpdiff.losses.Objective``. Those of a call win, or are added:
            ``loss(predicted, target, b=supply)``.
    """

    function: ClassVar[Callable[..., torch.Tensor]]

    def __init__(self, program: Any, **options: Any) -> None:
        super().__init__()
        own = {p.name for p in inspect.signature(type(self).function).parameters.values()}
        self.options = {name: value for name, value in options.items() if name in own}
        if "generator" in self.options:  # a seed starts one that moves on from call to call
            self.options["generator"] = make_generator(self.options["generator"])
        how = {name: value for name, value in options.items() if name not in own}
        self.objective = Objective(program, **how)
        if isinstance(program, nn.Module):
            self.program = program

    def forward(self, *tensors: Any, **more: Any) -> torch.Tensor:
        """The function's result."""
        return type(self).function(self.objective, *tensors, **{**self.options, **more})

    def extra_repr(self) -> str:
        program = self.objective.program
        told = [] if isinstance(program, nn.Module) else [repr(program).splitlines()[0]]
        options = {**self.options, **self.objective.how}
        return ", ".join([*told, *(f"{name}={value!r}" for name, value in options.items())])


class Perceptron(AbstractLoss):
    """``perceptron`` as a module: ``Perceptron(program)(predicted, target)``."""

    function = staticmethod(perceptron)


class StructuredHinge(AbstractLoss):
    """``structured_hinge`` as a module: ``StructuredHinge(program)(predicted, target)``."""

    function = staticmethod(structured_hinge)


class SPOPlus(AbstractLoss):
    """``spo_plus`` as a module: ``SPOPlus(program)(predicted, true, target, value)``."""

    function = staticmethod(spo_plus)


class Directional(AbstractLoss):
    """``directional`` as a module: ``Directional(program, step=0.1)(predicted, true)``."""

    function = staticmethod(directional)


class Regret(AbstractLoss):
    """``regret`` as a module: ``Regret(program, gradient=rule)(predicted, true, value)``."""

    function = staticmethod(regret)


class PerturbedFenchelYoung(AbstractLoss):
    """``perturbed_fenchel_young`` as a module: ``PerturbedFenchelYoung(program)(predicted, target)``."""

    function = staticmethod(perturbed_fenchel_young)


class QuadraticFenchelYoung(AbstractLoss):
    """``quadratic_fenchel_young`` as a module: ``QuadraticFenchelYoung(program)(predicted, target)``."""

    function = staticmethod(quadratic_fenchel_young)
