"""The one bridge between NumPy and autograd.

``NumpyNode`` is the only ``torch.autograd.Function`` of the project. It runs an operation on NumPy
arrays and leaves the derivative rules to the operation's torch arithmetic, which may apply the node
again: so double backward, forward mode, ``vmap`` and ``torch.func`` compose.

Every tensor of an operation is on the CPU and leads with a batch dimension that is B, or 1 where the items
share it. It is float64, or a flag or an index; what an oracle reads may be float32.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from .status import UnsupportedError

__all__ = [
    "AbstractOperation",
    "NumpyNode",
    "any_of",
    "apply",
    "eager",
    "first_item",
    "reduce_to",
    "transformed",
    "transforms_active",
]

Tensors = tuple[torch.Tensor | None, ...]
P = ParamSpec("P")
R = TypeVar("R")

transforms_active: Any = torch._C._are_functorch_transforms_active
_is_batched: Any = torch._C._functorch.is_legacy_batchedtensor  # several cotangents at a time
_unwrap_if_dead: Any = torch._C._functorch.unwrap_if_dead


class AbstractOperation(ABC):
    """A batched function on NumPy arrays, and its derivatives.

    ``differentiable`` counts the leading outputs that carry derivatives.
    """

    differentiable: int

    @abstractmethod
    def forward(self, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """Outputs, each leading with B. An input that was not given is None."""

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        """Cotangents of the inputs, in torch arithmetic. Cotangents that are zero come as None."""
        raise UnsupportedError(
            "derivatives of this order do not exist in lpdiff: values can be differentiated twice, "
            "x, y and reduced costs once"
        )

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        """Tangents of the differentiable outputs, in torch arithmetic."""
        raise UnsupportedError(
            "derivatives of this order do not exist in lpdiff: values can be differentiated twice, "
            "x, y and reduced costs once"
        )


class NumpyNode(torch.autograd.Function):
    """Runs an ``AbstractOperation``; see the module's text."""

    @classmethod
    def apply(cls, operation: AbstractOperation, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """As torch's own, which first binds the arguments to the signature of ``forward`` for the sake of
        defaults. There are none, and finding that out takes longer than many a small LP."""
        if transforms_active():
            return super().apply(operation, *tensors)
        # What is left of a transform that has ended (in the backward pass of torch.func.vjp) is unwrapped.
        alive = [None if t is None else _unwrap_if_dead(t) for t in tensors]
        return super(torch.autograd.Function, cls).apply(operation, *alive)  # type: ignore[misc]

    @staticmethod
    def forward(operation: AbstractOperation, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        arrays = [None if t is None else np.ascontiguousarray(t.detach().numpy()) for t in tensors]
        return tuple(map(torch.from_numpy, operation.forward(*arrays)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        ctx.operation, *tensors = inputs
        ctx.inputs = len(tensors)
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)
        ctx.mark_non_differentiable(*output[ctx.operation.differentiable :])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[Any, ...]:
        operation, count, saved = ctx.operation, ctx.inputs, ctx.saved_tensors
        grads = grads[: operation.differentiable]
        if grads[0] is None and all(grad is None for grad in grads):
            return (None,) * (1 + count)
        cotangents = operation.backward(ctx.needs_input_grad[1:], saved[:count], saved[count:], grads)
        return (None, *cotangents)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        inputs, outputs = saved[: ctx.inputs], saved[ctx.inputs :]
        if not ctx.operation.differentiable:
            return (None,) * len(outputs)
        pushed = ctx.operation.jvp(inputs, outputs, tangents)
        return (*pushed, *[None] * (len(outputs) - len(pushed)))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], operation: AbstractOperation, *tensors: torch.Tensor | None
    ) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        """Fold the mapped dimension into the batch, apply, unfold."""
        size = info.batch_size
        lifted = [
            (t, False) if t is None or dim is None else (t.movedim(dim, 0), True)
            for t, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        batches = {t.shape[1 if mapped else 0] for t, mapped in lifted if t is not None} - {1}
        batch = batches.pop() if batches else 1
        flat: list[torch.Tensor | None] = []
        for t, mapped in lifted:
            if t is None or (not mapped and len(t) == 1):
                flat.append(t)
                continue
            whole = t if mapped else t[None].expand(size, *t.shape)
            whole = whole.expand(size, batch, *whole.shape[2:])
            flat.append(whole.reshape(size * batch, *whole.shape[2:]))
        outputs = NumpyNode.apply(operation, *flat)
        return (
            tuple(out.reshape(size, batch, *out.shape[1:]) for out in outputs),
            (0,) * len(outputs),
        )


def apply(operation: AbstractOperation, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Run an operation as a node of the autograd graph."""
    return NumpyNode.apply(operation, *tensors)


def transformed(tensor: torch.Tensor) -> bool:
    """Whether it may be a batch of tensors in disguise, which NumPy cannot see."""
    return transforms_active() or _is_batched(tensor)


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Under torch.compile: a graph break. Dynamo must not trace into NumPy code."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_dynamo_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapper


def reduce_to(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the items that share an input."""
    if like.shape[0] == 1 and gradient.shape[0] != 1:
        return gradient.sum(0, keepdim=True)
    return gradient


def any_of(mask: torch.Tensor) -> bool:
    """Whether any is True. Under ``torch.func.vmap``, which cannot ask this of one item: of all of them."""
    return bool(_bare(mask).any())


def first_item(wrong: torch.Tensor) -> tuple[int, ...]:
    """The first place where something is wrong, for errors."""
    return tuple(int(i) for i in _bare(wrong).nonzero()[0])


def _bare(mask: torch.Tensor) -> torch.Tensor:
    while torch._C._functorch.is_functorch_wrapped_tensor(mask):
        mask = torch._C._functorch.get_unwrapped(mask)
    return mask
