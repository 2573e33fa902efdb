"""What the problems of the library share: modules that hold options, lengths and masks, forbidden costs."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
from torch import nn

from lpdiff import Evaluation, Solution
from lpdiff.autograd import any_of, first_item

__all__ = [
    "AbstractLPResult",
    "AbstractResult",
    "ProblemModule",
    "SolveOptions",
    "any_of",
    "first_item",
    "forbidding",
    "given",
    "last_size",
    "named",
    "read_lengths",
    "read_mask",
]


class SolveOptions(TypedDict, total=False):
    """How to solve: the arguments of ``lpdiff.evaluate`` that every problem takes.

    ``solver="auto"`` (the default) asks the problem's own compiled solver where it has one; another solver
    goes by the LP. ``gradient`` is the rule for the derivative of the solution in the costs.
    """

    solver: Any
    options: Mapping[str, Any] | None
    threads: int | None
    time_limit: float | None
    tolerance: float
    gradient: Any
    throw: bool
    sparse_gradient: bool


@dataclass(frozen=True, eq=False, repr=False)
class AbstractResult(ABC):
    """What a problem returns.

    Attributes:
        value: (*batch,) optimal values, with exact generalized gradients.
        evaluation: What ``lpdiff.evaluate`` found.
    """

    value: torch.Tensor
    evaluation: Evaluation

    @property
    def status(self) -> torch.Tensor:
        """(*batch,) int8 of ``lpdiff.Status``."""
        return self.evaluation.status

    @property
    def ok(self) -> torch.Tensor:
        """(*batch,) bool: solved, and proved optimal."""
        return self.evaluation.ok

    @property
    def solution(self) -> Solution | None:
        """The Solution of the LP where the LP was solved, None where the problem's own solver was asked."""
        return self.evaluation.solution

    @abstractmethod
    def decode(self) -> Any:
        """What was found as plain Python and NumPy objects, an item at a time."""

    def __repr__(self) -> str:
        shape = tuple(self.value.shape)
        if shape:
            told = f"batch {shape}, {int(self.ok.sum())} of {self.ok.numel()} solved"
        else:
            told = f"value {self.value.detach().item():g}"
        return f"{type(self).__name__}({told}, by {self.evaluation.solver})"


class AbstractLPResult(AbstractResult):
    """What a problem without a solver of its own returns: there always is a Solution of its LP."""

    @property
    def solution(self) -> Solution:
        """The LP's Solution."""
        assert self.evaluation.solution is not None
        return self.evaluation.solution


class ProblemModule(nn.Module):
    """A problem as a module: it holds the options of a function, and is called with the rest.

    Options that are ``nn.Parameter`` are learned; other tensors are buffers and move with the module.
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        known = _keywords(type(self).function)
        unknown = sorted(set(options) - known)
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no option {unknown[0]!r}: expected some of "
                f"{', '.join(sorted(known))}"
            )
        self.options: dict[str, Any] = {}
        for name, value in options.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, torch.Tensor):
                self.register_buffer(name, value)
            else:
                self.options[name] = value

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "function" in cls.__dict__:
            cls.__signature__ = _signature(cls.function)  # type: ignore[attr-defined]

    def forward(self, *arguments: Any, **more: Any) -> Any:
        """The function's result; keyword arguments of the call win over the options held."""
        held = {**self.options, **self._parameters, **self._buffers}
        return type(self).function(*arguments, **{**held, **more})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


def _keywords(function: Callable[..., Any]) -> set[str]:
    named = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    return named | set(SolveOptions.__annotations__)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The options of the function, as the module's constructor takes them."""
    whole = inspect.signature(function)
    kept = [p for p in whole.parameters.values() if p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    return whole.replace(parameters=kept, return_annotation=inspect.Signature.empty)


# -- lengths and masks -------------------------------------------------------------------------------------


def read_lengths(
    name: str, lengths: Any, size: int, batch_shape: tuple[int, ...], *, least: int = 0
) -> torch.Tensor:
    """Lengths of the items of a batch, from integers or from a mask.

    Args:
        name: What has these lengths ("rows"), for errors.
        lengths: None (all full), (*batch,) integers, or (*batch, size) booleans: True first, then False.
        size: The size of the padded dimension.
        batch_shape: The batch's shape, for which lengths of more than one item must be made.
        least: The smallest length there may be.

    Returns:
        int64 on the CPU, broadcastable to (*batch,).

    Raises:
        ValueError: naming the item.
    """
    if lengths is None:
        return torch.tensor(size)
    given = lengths if isinstance(lengths, torch.Tensor) else torch.as_tensor(np.asarray(lengths))
    given = given.detach().to("cpu")
    if given.dtype == torch.bool:
        given = _from_mask(name, given, size)
    elif given.is_floating_point() or given.is_complex():
        raise ValueError(f"{name}: lengths must be integers, or a boolean mask; got {given.dtype}")
    given = given.to(torch.int64)
    try:
        fits = tuple(np.broadcast_shapes(tuple(given.shape), batch_shape)) == batch_shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: expected lengths of shape {batch_shape} (one an item of the batch), got "
            f"{tuple(given.shape)}"
        )
    wrong = (given > size) | (given < least)
    if any_of(wrong):
        item = first_item(wrong)
        raise ValueError(
            f"{name}: {named(item)} has length {int(given[item])}, expected {least} to {size} (the size of "
            f"the padded dimension)"
        )
    return given


def named(item: tuple[int, ...]) -> str:
    """An item of the batch, for errors."""
    return "the item" if not item else f"item {item[0] if len(item) == 1 else item}"


def _from_mask(name: str, mask: torch.Tensor, size: int) -> torch.Tensor:
    if mask.dim() == 0 or mask.shape[-1] != size:
        raise ValueError(f"{name}: expected a mask of shape (*batch, {size}), got {tuple(mask.shape)}")
    gaps = (~mask[..., :-1] & mask[..., 1:]).any(-1)
    if any_of(gaps):
        item = first_item(gaps)
        raise ValueError(
            f"{name}: the mask of {named(item)} has a hole; expected True at the start and False at the "
            f"padded end. Move the valid ones to the front"
        )
    return mask.sum(-1)


def read_mask(mask: Any, size: int) -> torch.Tensor:
    """Which of the items of a set there are, from booleans (with holes, too) or from lengths.

    Args:
        mask: None (all), (*batch, size) booleans, or (*batch,) integers.
        size: The size of the padded dimension.

    Returns:
        (*batch, size) booleans on the CPU.

    Raises:
        ValueError: naming the item.
    """
    if mask is None:
        return torch.ones(size, dtype=torch.bool)
    given = mask if isinstance(mask, torch.Tensor) else torch.as_tensor(np.asarray(mask))
    given = given.detach().to("cpu")
    if given.dtype == torch.bool:
        if given.dim() == 0 or given.shape[-1] != size:
            raise ValueError(f"mask: expected shape (*batch, {size}), got {tuple(given.shape)}")
        return given
    return torch.arange(size) < read_lengths("mask", given, size, tuple(given.shape))[..., None]


def last_size(name: str, value: Any, shape: str = "(*batch, n)") -> int:
    """The size of a parameter's last dimension."""
    if np.ndim(value) == 0:
        raise ValueError(f"{name}: expected shape {shape}, got a number")
    return int(np.shape(value)[-1])


def given(evaluation: Any, k: int) -> torch.Tensor:
    """The k-th parameter that was evaluated, (*batch, *shape) on the CPU; not one that was left out."""
    tensor = evaluation.inputs.whole[k]
    assert tensor is not None
    return tensor


# -- costs -------------------------------------------------------------------------------------------------


def forbidding(
    c: torch.Tensor,
    lower: torch.Tensor | float = 0.0,
    upper: torch.Tensor | float = torch.inf,
    *,
    worst: float = torch.inf,
) -> dict[str, Any]:
    """LP data of costs of which +inf means forbidden: such variables are held at zero by their bounds.

    Args:
        c: (*batch, n); lower, upper: the bounds otherwise, broadcastable.
        worst: What forbids: -inf among scores, which are maximised.
    """
    out = c.detach() == worst
    if not any_of(out):
        return {"c": c}
    whole = [torch.as_tensor(side, dtype=c.dtype).expand(c.shape) for side in (lower, upper)]
    return {"c": torch.where(out, 0.0, c), "bounds": tuple(side.masked_fill(out, 0.0) for side in whole)}
