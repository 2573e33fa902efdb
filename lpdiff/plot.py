"""Pictures of solutions, on matplotlib (the extra ``plot``): alignments, matchings, paths.

Each function draws on one axes (``ax``, default: a new figure) and returns it. Tensors are detached and
moved to the CPU; of a batch one item is drawn, so pass ``costs[k]`` and ``decode()[k]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["alignment", "grid_path", "matching"]

_LINE = "#d1495b"


def alignment(
    costs: Any,
    pairs: Any,
    *,
    path: bool = True,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """An alignment over its cost matrix.

    Args:
        costs: (n, m) costs of pairing rows and columns.
        pairs: (k, 2) pairs or cells (row, column) in order, as ``decode()`` gives an item's; rows of -1 are
            padding and left out.
        path: Join the pairs by the path through what is left out between them.
        rows, columns: Names of the rows and the columns (the symbols of two sequences).
        ax: Where to draw.

    Raises:
        ValueError: shapes that do not fit: one item, please.
    """
    table, found = _array(costs), _pairs(pairs)
    if table.ndim != 2:
        raise ValueError(f"costs: expected shape (n, m), one item of the batch, got {table.shape}")
    ax = _axes(ax)
    _table(ax, table)
    if path and len(found):
        steps = [found[0]]
        for i, j in found[1:]:
            # Between two pairs: first the rows that are left out, then the columns.
            steps += [(i - 1, steps[-1][1])] if i - steps[-1][0] > 1 else []
            steps += [(steps[-1][0], j - 1)] if j - steps[-1][1] > 1 else []
            steps.append((i, j))
        way = np.asarray(steps)
        ax.plot(way[:, 1], way[:, 0], color=_LINE, linewidth=1.5)
    ax.scatter(found[:, 1], found[:, 0], color=_LINE, s=18, zorder=3)
    _names(ax, rows, columns, table.shape)
    return ax


def matching(
    costs: Any,
    pairs: Any,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A matching as a graph of two sides: rows on the left, columns on the right, darker where cheap.

    Args:
        costs: (n, m) costs.
        pairs: (k, 2) matched (row, column).
        rows, columns: Names of the rows and the columns.
        ax: Where to draw.

    Raises:
        ValueError: shapes that do not fit.
    """
    table, found = _array(costs), _pairs(pairs)
    if table.ndim != 2:
        raise ValueError(f"costs: expected shape (n, m), one item of the batch, got {table.shape}")
    n, m = table.shape
    ax = _axes(ax)
    left, right = _heights(n), _heights(m)
    finite = table[np.isfinite(table)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    for i in range(n):
        for j in range(m):
            if np.isfinite(table[i, j]):
                shade = 0.9 - 0.5 * (high - table[i, j]) / max(high - low, 1e-12)
                ax.plot([0, 1], [left[i], right[j]], color=str(shade), linewidth=0.5, zorder=1)
    for i, j in found:
        ax.plot([0, 1], [left[i], right[j]], color=_LINE, linewidth=2, zorder=2)
    ax.scatter(np.zeros(n), left, color="black", zorder=3)
    ax.scatter(np.ones(m), right, color="black", zorder=3)
    for side, heights, names, where in ((0, left, rows, "right"), (1, right, columns, "left")):
        for k, height in enumerate(heights):
            told = str(k) if names is None else names[k]
            ax.text(side + (0.04 if side else -0.04), height, told, ha=where, va="center")
    ax.set_xlim(-0.2, 1.2)
    ax.axis("off")
    return ax


def grid_path(costs: Any, cells: Any, *, ax: Axes | None = None) -> Axes:
    """A path over the costs of a grid.

    Args:
        costs: (H, W) costs of the cells.
        cells: (k, 2) cells (row, column) from the start.
        ax: Where to draw.

    Raises:
        ValueError: shapes that do not fit.
    """
    table, found = _array(costs), _pairs(cells)
    if table.ndim != 2:
        raise ValueError(f"costs: expected shape (H, W), one item of the batch, got {table.shape}")
    ax = _axes(ax)
    _table(ax, table)
    ax.plot(found[:, 1], found[:, 0], color=_LINE, linewidth=2)
    ax.scatter(found[[0, -1], 1], found[[0, -1], 0], color=_LINE, zorder=3)
    return ax


def _heights(size: int) -> np.ndarray:
    return np.linspace(1, 0, size) if size > 1 else np.full(size, 0.5)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("lpdiff.plot needs matplotlib: pip install 'lpdiff[plot]'") from error
    return pyplot.subplots()[1]


def _table(ax: Axes, table: np.ndarray) -> None:
    image = ax.imshow(table, cmap="Blues", aspect="equal", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="cost", shrink=0.8)


def _names(
    ax: Axes, rows: Sequence[str] | None, columns: Sequence[str] | None, shape: tuple[int, ...]
) -> None:
    for names, size, told, tick in (
        (rows, shape[0], "rows", ax.set_yticks),
        (columns, shape[1], "columns", ax.set_xticks),
    ):
        if names is not None:
            if len(names) != size:
                raise ValueError(f"{told}: expected {size} names, one each, got {len(names)}")
            tick(range(size), labels=list(names))


def _array(values: Any) -> np.ndarray:
    """A tensor or an array as NumPy."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _pairs(values: Any) -> np.ndarray:
    pairs = _array(values)
    if pairs.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(
            f"pairs: expected shape (k, 2), one item of the batch (decode()[k]), got {pairs.shape}"
        )
    return pairs[(pairs >= 0).all(1)]
