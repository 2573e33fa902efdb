"""lpdiff: declare any combinatorial problem as a sparse linear program, get exact generalized gradients."""

from . import gradients, losses
from .backend import AbstractBackend, BackendError, Capabilities, available_backends
from .engine import Plan
from .evaluate import Evaluation, evaluate
from .layer import LPLayer
from .modeling import from_cvxpy, read_mps
from .parametric import AbstractParametricProgram
from .problem import AbstractProblem
from .program import LinearProgram
from .settings import Settings, current_settings, options
from .solution import Basis, Solution
from .solve import plan, solve
from .status import BasisStatus, Certificate, SolveError, Status, UnsupportedError

__version__ = "0.1.0"

__all__ = [
    "AbstractBackend",
    "AbstractParametricProgram",
    "AbstractProblem",
    "BackendError",
    "Basis",
    "BasisStatus",
    "Capabilities",
    "Certificate",
    "Evaluation",
    "LPLayer",
    "LinearProgram",
    "Plan",
    "Settings",
    "Solution",
    "SolveError",
    "Status",
    "UnsupportedError",
    "available_backends",
    "current_settings",
    "evaluate",
    "from_cvxpy",
    "gradients",
    "losses",
    "options",
    "plan",
    "read_mps",
    "solve",
]
