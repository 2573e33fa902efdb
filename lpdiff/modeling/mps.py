"""read_mps: MPS and LP files, through HiGHS's reader."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import scipy.sparse as sp
from highspy import HighsStatus, HighsVarType, MatrixFormat, ObjSense

from ..program import LinearProgram

__all__ = ["read_mps"]

_KINDS = (".mps", ".lp")


def read_mps(path: str | os.PathLike[str]) -> LinearProgram:
    """Read a linear or mixed-integer program from a file.

    Args:
        path: A ``.mps`` (fixed or free form) or ``.lp`` file, or either compressed as ``.gz``. What
            a format means is what HiGHS takes it to mean: https://ergo-code.github.io/HiGHS.

    Returns:
        The program with its names, ranges, integrality, objective offset and sense. Free rows
        beside the objective are dropped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, a file that cannot be parsed, or a model that is no LP:
            a quadratic objective, semicontinuous or semi-integer variables, special ordered sets.

    Warns:
        UserWarning: HiGHS left something of the file out (an entry in an unknown row, say), in its
            words.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"read_mps: no file {str(path)!r}")
    kind, compressed = _kind(path)
    with tempfile.TemporaryDirectory() as folder:
        source = path
        if compressed or path.suffix != kind:
            # HiGHS goes by the ending, in lower case, and not every build of it reads gzip.
            source = Path(folder) / f"model{kind}"
            try:
                with (
                    (gzip.open if compressed else open)(path, "rb") as packed,
                    open(source, "wb") as out,
                ):
                    shutil.copyfileobj(packed, out)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(f"read_mps: {path.name} is not a whole gzip file: {error}") from error
        solver, status, log = _read(source, Path(folder) / "log")
    complaints = [line.split(":", 1) for line in log.splitlines() if line.startswith(("ERROR", "WARNING"))]
    if status == HighsStatus.kError:  # enum members of the binding are not identical, only equal
        # The last line only names the file; what went before says why, where HiGHS knows.
        why = "; ".join(text.strip() for tag, text in complaints if "Parser error" not in text)
        hint = (
            "" if why else "HiGHS gives no reason; look for a missing section (ENDATA, End) or a typing error"
        )
        raise ValueError(f"read_mps: cannot read {path.name} as {kind[1:].upper()}: {why or hint}")
    ignored = [text.strip() for tag, text in complaints if "inconsistent bounds" not in text]
    if ignored:
        warnings.warn(
            f"read_mps: {path.name}: HiGHS left something out, so this may not be the model you "
            f"mean: " + "; ".join(ignored[:5]),
            stacklevel=2,
        )
    return _program(solver.getModel(), path.name)


def _kind(path: Path) -> tuple[str, bool]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = suffixes[-1:] == [".gz"]
    kind = "".join(suffixes[:-1][-1:] if compressed else suffixes[-1:])
    if kind not in _KINDS:
        raise ValueError(
            f"read_mps: expected a file ending in .mps, .lp, .mps.gz or .lp.gz, got {path.name!r}"
        )
    return kind, compressed


def _read(source: Path, log: Path) -> tuple[Any, HighsStatus, str]:
    solver = highspy._core._Highs()
    # HiGHS tells what it ignored only in its log; the return status may be a plain "ok".
    for key, value in (("log_to_console", False), ("output_flag", True), ("log_file", str(log))):
        solver.setOptionValue(key, value)
    status = solver.readModel(str(source))
    solver.setOptionValue("log_file", "")  # closes it
    return solver, status, log.read_text(errors="replace") if log.exists() else ""


def _program(model: Any, filename: str) -> LinearProgram:
    lp = model.lp_
    names = [name or f"C{j}" for j, name in enumerate(lp.col_names_)] or None
    kinds = list(lp.integrality_)
    if model.hessian_.dim_ > 0:
        raise ValueError(
            f"read_mps: {filename} has a quadratic objective; lpdiff solves linear programs: "
            f"remove the quadratic section, or linearise it"
        )
    semi = [
        j for j, kind in enumerate(kinds) if kind in (HighsVarType.kSemiContinuous, HighsVarType.kSemiInteger)
    ]
    if semi:
        first = names[semi[0]] if names else f"x[{semi[0]}]"
        raise ValueError(
            f"read_mps: {filename} has {len(semi)} semicontinuous variables (first: {first}), "
            f"which no LP can hold; write each as a variable x <= u z with an integer 0 <= z <= 1"
        )
    shape = (lp.num_row_, lp.num_col_)
    matrix = lp.a_matrix_
    layout = sp.csr_array if matrix.format_ == MatrixFormat.kRowwise else sp.csc_array
    A = layout(
        (
            np.array(matrix.value_, dtype=np.float64),
            np.array(matrix.index_),
            np.array(matrix.start_),
        ),
        shape=shape,
    )
    return LinearProgram(
        c=np.array(lp.col_cost_),
        A=A,
        row_lower=np.array(lp.row_lower_),
        row_upper=np.array(lp.row_upper_),
        bounds=np.column_stack([lp.col_lower_, lp.col_upper_]) if shape[1] else (0, None),
        integrality=[kind == HighsVarType.kInteger for kind in kinds] if kinds else None,
        sense="max" if lp.sense_ == ObjSense.kMaximize else "min",
        offset=lp.offset_,
        variable_names=_unique(names),
        row_names=_unique([name or f"R{i}" for i, name in enumerate(lp.row_names_)] or None),
        name=filename.split(".")[0],
    )


def _unique(names: list[str] | None) -> list[str] | None:
    """Names, or None where the file gives two rows or variables the same one."""
    return names if names is not None and len(set(names)) == len(names) else None
