"""What the specialised backends share: the network they work on, and the certificate of what they propose."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..backend import BatchSolution, Certified
from ..batch import run_spans, threads_for
from ..network import Network
from ..recognition import structure_of
from ..standard import Data, StandardForm, same_matrix
from ..status import Status, UnsupportedError

__all__ = [
    "TOLERANCE",
    "Prepared",
    "certify_columns",
    "network_form",
    "numba_missing",
    "refuse",
    "write_part",
]

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Certificates of compiled kernels, relative: what they propose is exact to rounding, so this is generous.
TOLERANCE = 1e-9


def numba_missing() -> str | None:
    """Why compiled kernels cannot run here, or None where they can."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    return None


def network_form(form: StandardForm, name: str, wanted: str) -> Network:
    """The network that a whole program is.

    Raises:
        UnsupportedError: it is not one; the message says what it is, and why not more.
    """
    structure = structure_of(form)
    blocks = structure.blocks
    if len(blocks) == 1 and blocks[0].whole and blocks[0].network is not None and not blocks[0].integers:
        return blocks[0].network
    raise UnsupportedError(
        f"solver {name!r} takes {wanted} and nothing else; this program is\n{structure}\n"
        f"solver='auto' finds the right solver for each part"
    )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A program and what it was recognised as."""

    form: StandardForm
    network: Network

    @cached_property
    def columns(self) -> Columns:
        """The two entries of each column, of the original matrix: what the certificate is computed from."""
        from ..kernels.certify import columns_of

        matrix = self.form.matrix(self.form.declared.values[0])
        if (matrix.data == 0).any():
            matrix = matrix.copy()  # the declared arrays stay as they are
            matrix.eliminate_zeros()
        return columns_of(self.form.m, matrix.indptr, matrix.indices, matrix.data[None])

    def as_declared(self, data: Data) -> bool:
        """Whether the matrix is the one that was recognised."""
        return same_matrix(self.form, data)

    def sides_declared(self, data: Data) -> bool:
        """Whether rows and bounds are the declared ones, as the same arrays (what differs is looked at)."""
        declared = self.form.declared
        return (
            data.row_lower is declared.row_lower
            and data.row_upper is declared.row_upper
            and data.lower is declared.lower
            and data.upper is declared.upper
        )

    def certify(self, data: Data, out: BatchSolution, threads: int) -> None:
        certify_columns(self.columns, data, out, threads)

    def basis(self, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Spanning trees of arcs without reduced cost that (x, y) stand on: (B, n + m) as ``basic``."""
        from ..kernels import tree

        network = self.network
        low, high = network.supplies(data.row_lower, data.row_upper)
        size = len(x)
        basic, found = np.zeros((size, self.form.n + self.form.m), dtype=bool), np.zeros(size, dtype=bool)
        tree.spanning_tree(
            *(network.tail, network.head, network.costs(data.c)),
            *(network.capacities(data.lower), network.capacities(data.upper), low, high),
            *(network.capacities(x), y / network.row_scale, 0, size, basic, found),
        )
        basic[~found] = False
        return basic


def certify_columns(columns: Columns, data: Data, out: BatchSolution, threads: int) -> None:
    """Judge what is in ``out`` against the original data: OPTIMAL stays only where they prove it.

    Args:
        columns: row_a, row_b (n,) and val_a, val_b (1|B, n): the two entries of each column.
    """
    from ..kernels import certify as kernels

    size, n = out.x.shape
    judged, ok = Certified.empty(size), np.zeros(size, dtype=bool)
    given = (data.c, data.lower, data.upper, data.row_lower, data.row_upper, out.x, out.y)

    def work(start: int, stop: int) -> None:
        kernels.certify(
            *(*columns, *given, start, stop, TOLERANCE),
            *(ok, judged.value, judged.gap, judged.primal_residual, judged.dual_residual),
        )

    run_spans(size, threads_for(3.5 * size * n, threads), work)
    out.certificate = judged
    refuse(out, ok)


def write_part(out: BatchSolution, part: BatchSolution, items: np.ndarray) -> None:
    """Put the solutions of some items in their places in the batch."""
    assert out.y is not None and part.y is not None
    out.x[items], out.y[items], out.status[items] = part.x, part.y, part.status
    for name, numbers in vars(part.certificate).items():
        getattr(out.certificate, name)[items] = numbers


def refuse(out: BatchSolution, ok: np.ndarray) -> None:
    """OPTIMAL, but not proved: the next solver is asked."""
    if np.count_nonzero(ok) < len(ok):
        out.status[(out.status == Status.OPTIMAL) & ~ok] = Status.INACCURATE
