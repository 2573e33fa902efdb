"""Programs from elsewhere: CVXPY problems, MPS and LP files."""

from .cvxpy import CvxpyProgram, from_cvxpy
from .cvxpy_checks import is_cvxpy
from .mps import read_mps

__all__ = ["CvxpyProgram", "from_cvxpy", "is_cvxpy", "read_mps"]
