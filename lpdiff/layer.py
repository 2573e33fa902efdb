"""LPLayer: a linear program as a torch module."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .gradients import make_gradient
from .modeling import from_cvxpy, is_cvxpy
from .program import LinearProgram
from .settings import UNSET
from .solution import Solution
from .solve import Program, solve

__all__ = ["LPLayer"]


class LPLayer(nn.Module):
    """A linear program as a layer: it holds the program and how to solve it, and has no weights.

    Called with the data of ``lpdiff.solve`` it returns a Solution. Made from a CVXPY problem in the manner
    of cvxpylayers' ``CvxpyLayer(problem, parameters=[...], variables=[...])`` it is called in the same
    manner, with one tensor a parameter, and returns a tuple with one tensor a variable. It copies,
    pickles, and holds no buffers, so ``copy.deepcopy``, ``AveragedModel`` and DDP work.

    Args:
        program: A LinearProgram, a program with parameters, or a CVXPY problem.
        parameters: For a CVXPY problem: its parameters, in the order of the call. Default: all of
            ``problem.parameters()``.
        variables: What to return: CVXPY variables, constraints or their dual variables (the duals), the
            problem itself (the optimal value), or variable names of a LinearProgram. None: a Solution.
        solver, options, threads, time_limit, tolerance, gradient, throw: As in ``lpdiff.solve``; what is
            not given here is looked up at each call, so ``with lpdiff.options(...)`` reaches it.
        solver_args: cvxpylayers' name for options.

    Raises:
        ValueError: parameters given for a program that has none, unknown variables, wrong shapes.
        lpdiff.SolveError: at the call, see ``lpdiff.solve``.

    Example:
        >>> layer = LPLayer(problem, parameters=[supply], variables=[x, problem])
        >>> flow, cost = layer(torch.tensor([1.0, 2.0], requires_grad=True))
    """

    def __init__(
        self,
        program: Program | Any,
        parameters: Sequence[Any] | None = None,
        variables: Sequence[Hashable] | None = None,
        *,
        solver: Any = UNSET,
        options: Mapping[str, Any] | None = None,
        threads: int | None = UNSET,
        time_limit: float | None = UNSET,
        tolerance: float = UNSET,
        gradient: Any = UNSET,
        throw: bool = True,
        solver_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if is_cvxpy(program):
            program = from_cvxpy(program, parameters)
        elif parameters is not None:
            raise ValueError(
                f"parameters= belongs to CVXPY problems; a {type(program).__name__} takes its data at "
                f"the call"
            )
        if options is not None and solver_args is not None:
            raise ValueError("options and solver_args are the same thing: give one")
        self.program: Program = program
        self.keys = None if variables is None else [self._key(variable) for variable in variables]
        self.throw = throw
        self.options = dict(options or solver_args or {})
        given = {
            "solver": solver,
            "threads": threads,
            "time_limit": time_limit,
            "tolerance": tolerance,
            "gradient": gradient if gradient is UNSET else make_gradient(gradient),
        }
        self.settings = {key: value for key, value in given.items() if value is not UNSET}

    def forward(
        self, *parameters: Any, solver_args: Mapping[str, Any] | None = None, **data: Any
    ) -> Solution | tuple[torch.Tensor, ...]:
        """A Solution; or, where ``variables`` were given, their tensors, (*batch, *shape) each."""
        solution = self.solve(*parameters, solver_args=solver_args, **data)
        if self.keys is None:
            return solution
        return tuple(solution[key] for key in self.keys)

    def solve(self, *parameters: Any, solver_args: Mapping[str, Any] | None = None, **data: Any) -> Solution:
        """The whole Solution: value, duals, statuses, whatever ``variables`` says."""
        return solve(
            self.program,
            *parameters,
            options={**self.options, **(solver_args or {})},
            throw=self.throw,
            **self.settings,
            **data,
        )

    def extra_repr(self) -> str:
        told = [repr(self.program).splitlines()[0]]
        told += [f"{key}={value!r}" for key, value in self.settings.items()]
        told += [f"options={self.options!r}"] if self.options else []
        return "\n".join(told)

    def _key(self, variable: Hashable) -> Hashable:
        if isinstance(self.program, LinearProgram):
            names = self.program.variable_names or ()
            if variable not in names:
                raise ValueError(f"no variable {variable!r}: expected names out of variable_names {names}")
            return variable
        return self.program.key(variable)
