"""Programs with parameters: a LinearProgram plus a differentiable map from natural parameters to its data.

``from_cvxpy`` returns one, and so does every problem of the library: the natural parameters (a cost
matrix, gap costs, a CVXPY parameter) are mapped to (c, b, A, bounds) by torch operations, so gradients
reach them by the chain rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from .program import LinearProgram

if TYPE_CHECKING:
    import torch

    from .solution import Solution

__all__ = ["AbstractParametricProgram"]


class AbstractParametricProgram(ABC):
    """A LinearProgram whose data are functions of parameters."""

    @property
    @abstractmethod
    def program(self) -> LinearProgram:
        """The program: pattern, sense, and the numbers that no parameter changes."""

    @abstractmethod
    def data(self, *parameters: Any) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
        """The keyword arguments of ``lpdiff.solve`` that the parameters determine.

        Args:
            parameters: One tensor (or array) a parameter, (*batch, *shape); batches broadcast.

        Returns:
            Any of ``c`` (*batch, n), ``A_values`` (*batch, nnz), ``row_lower``, ``row_upper``
            (*batch, m), ``bounds`` as a pair of (*batch, n), ``offset`` (*batch,); differentiable.

        Raises:
            ValueError: a wrong number of parameters or a shape that does not fit.
        """

    def key(self, thing: Hashable) -> Hashable:
        """What ``extract`` will be asked for on behalf of ``thing``: something that copies and pickles.

        Raises:
            KeyError: nothing of this program's.
        """
        return thing

    @abstractmethod
    def extract(self, solution: Solution, key: Hashable) -> torch.Tensor:
        """The part of a solution that belongs to ``key`` (a variable, a constraint), in its own shape.

        Raises:
            KeyError: an unknown key; the message names the known ones.
        """
