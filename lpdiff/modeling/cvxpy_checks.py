"""What from_cvxpy refuses, in the words of CVXPY."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

__all__ = ["check_problem", "import_cvxpy", "is_cvxpy", "refuse_not_linear", "short"]

_DPP = "https://www.cvxpy.org/tutorial/dpp/index.html"


def is_cvxpy(item: Any) -> bool:
    """Whether something is a CVXPY object (a problem, a variable, ...), without importing CVXPY."""
    return any(cls.__module__.split(".")[0] == "cvxpy" for cls in type(item).__mro__)


def short(item: Any) -> str:
    text = " ".join(str(item).split())
    return f"'{text if len(text) <= 100 else text[:97] + '...'}'"


def import_cvxpy() -> Any:
    """CVXPY, with an interface to HiGHS that works.

    Raises:
        ImportError: it is missing, too old, or cannot load HiGHS; with what to install.
    """
    try:
        cp = importlib.import_module("cvxpy")
    except ImportError as error:
        raise ImportError(f"from_cvxpy needs CVXPY (pip install 'cvxpy>=1.9'): {error}") from error
    if not hasattr(importlib.import_module("cvxpy.reductions.chain").Chain, "compose_constr_id_map"):
        raise ImportError(f"from_cvxpy needs cvxpy>=1.9, and {cp.__version__} is installed")
    if "HIGHS" not in cp.installed_solvers():
        try:
            importlib.import_module("highspy")
            reason = f"CVXPY {cp.__version__} does not see it; from_cvxpy needs cvxpy>=1.9"
        except ImportError as error:
            # highspy 1.15 and ortools 9.15 bring two copies of HiGHS: whoever comes second fails.
            clash = "; with ortools in the same process it has to be highspy<1.15"
            reason = f"{error}{clash if 'undefined symbol' in str(error) else ''}"
        raise ImportError(f"from_cvxpy needs CVXPY's interface to HiGHS: {reason}")
    return cp


def check_problem(cp: Any, problem: Any) -> None:
    """TypeError for what is not a problem, ValueError for complex numbers or no variables."""
    if isinstance(problem, (cp.Minimize, cp.Maximize)):
        raise TypeError(
            f"from_cvxpy: expected a cvxpy.Problem, got a bare {type(problem).__name__}; wrap it: "
            f"cvxpy.Problem({type(problem).__name__}(...), constraints)"
        )
    if not isinstance(problem, cp.Problem):
        raise TypeError(f"from_cvxpy: expected a cvxpy.Problem, got {type(problem).__name__}")
    for leaf in (*problem.variables(), *problem.parameters()):
        if leaf.is_complex():
            raise ValueError(
                f"'{leaf.name()}' is complex, and linear programs are real: use one real variable "
                f"for its real and one for its imaginary part"
            )
    if not problem.variables():
        raise ValueError("this problem has no variables: there is nothing to solve")


def refuse_not_linear(cp: Any, problem: Any, because: str | None = None) -> None:
    """ValueError where a problem is not DCP, not DPP or not linear (``because`` CVXPY says so)."""
    if not problem.is_dcp():
        raise ValueError(
            f"not an LP: the problem does not follow CVXPY's rules for convex problems (DCP): "
            f"{_offenders(problem, lambda e: e.is_dcp())}. A parameter that scales a convex or "
            f"concave atom needs a sign (nonneg=True or nonpos=True)"
        )
    if not problem.is_dpp():
        raise ValueError(
            f"the data of the LP are not affine in the parameters (CVXPY's DPP rules, {_DPP}): "
            f"{_offenders(problem, lambda e: e.is_dpp())}. "
            f"Make one parameter of a product of parameters and compute its value in torch; or "
            f"make a variable of a factor (u == x - p, then w * abs(u)); or leave a parameter out "
            f"of parameters=, which makes a constant of it"
        )
    for variable in problem.variables():
        if variable.attributes["PSD"] or variable.attributes["NSD"]:
            _not_linear(
                f"variable '{variable.name()}' is semidefinite; a symmetric one (symmetric=True) is not"
            )
    kinds = ("Equality", "Inequality", "Zero", "NonNeg", "NonPos")
    linear = tuple(getattr(cp.constraints, kind) for kind in kinds)
    for k, constraint in enumerate(problem.constraints):
        if not isinstance(constraint, linear):
            kind = type(constraint).__name__
            remedy = "; use a boolean variable instead" if kind == "FiniteSet" else ""
            _not_linear(f"constraints[{k}], {short(constraint)}, is a {kind} constraint{remedy}")
    if because is not None:
        _not_linear(f"{_offenders(problem, lambda e: e.is_pwl())} ({because})")


def _not_linear(what: str) -> NoReturn:
    raise ValueError(
        f"not an LP: {what}. lpdiff solves linear programs, with atoms that are piecewise linear: "
        f"abs, max, min, norm1, norm_inf, sum_largest, ... in place of squares, norm2, exp and log"
    )


def _offenders(problem: Any, fine: Callable[[Any], bool]) -> str:
    """The smallest expressions for which a test fails, and where they stand."""
    told = []
    parts = [("the objective", problem.objective.args, problem.objective)]
    parts += [(f"constraints[{k}]", c.args, c) for k, c in enumerate(problem.constraints)]
    for where, args, whole in parts:
        found = [short(e) for arg in args for e in _smallest(arg, fine)]
        if found:
            told.append(f"{', '.join(dict.fromkeys(found))} in {where}")
        elif hasattr(whole, "is_dcp") and not (whole.is_dcp() and whole.is_dpp()):
            told.append(f"{where}, {short(whole)} (wrong curvature: {_curvatures(args)})")
    return "; ".join(told[:4]) or "see problem.is_dcp(), problem.is_dpp() and problem.is_lp()"


def _smallest(expression: Any, fine: Callable[[Any], bool]) -> Iterator[Any]:
    if fine(expression):
        return
    below = [e for arg in expression.args for e in _smallest(arg, fine)]
    yield from below or [expression]


def _curvatures(args: Any) -> str:
    return " and ".join(arg.curvature.lower() for arg in args)
