"""Monotonic alignment of T frames with tokens: alignment search, and the best path of CTC.

    search(costs, frames=None, tokens=None, *, threads=1) -> CellPaths
    ctc_path(costs, targets, frames=None, tokens=None, *, blank=0, threads=1) -> CellPaths

Both are paths through a table that go down a row a step: frame t takes one column. In alignment search (Kim,
Kim, Kong, Yoon, "Glow-TTS", 2020) the columns are tokens, the first frame takes the first, the last frame
the last, and each frame stays or advances by one. In CTC (Graves, Fernandez, Gomez, Schmidhuber 2006) they
are 2S + 1 states: blank, token, blank, ..., token, blank. A path begins in one of the first two, ends in one
of the last two, stays, advances by one, or by two from a token to a different one. Of equal steps advancing
by one is taken first, then staying; of equal ends the token.
"""

from __future__ import annotations

import numpy as np

from .rows import CellPaths, Sweep, sweep
from .strips import costs_of, lengths_of

__all__ = ["ctc_path", "search"]


def search(
    costs: np.ndarray,
    frames: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    *,
    threads: int = 1,
) -> CellPaths:
    """Monotonic alignment search.

    Args:
        costs: (B, T, S) float64 or float32. +inf forbids; NaN and -inf make an item INVALID.
        frames, tokens: (B,) int64, the lengths of the items, at least 1; nothing is read beyond them.

    Returns:
        CellPaths: the moments' indices are t * S + s, one a frame. Infeasible where frames < tokens.

    Raises:
        ValueError: shapes, dtypes or lengths that do not fit.
    """
    flat, names = costs_of(costs, None)
    size, n, m = costs.shape
    rows, columns = lengths_of(frames, size, n, "frames", 1), lengths_of(tokens, size, m, "tokens", 1)
    steps = ((1, 1, 1.0), (1, 0, 1.0))
    table = Sweep(flat, m, names, True, rows, columns, steps, np.zeros((1, m)), -1, 1, 1, n, m)
    return sweep(table, n, threads)


def ctc_path(
    costs: np.ndarray,
    targets: np.ndarray,
    frames: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    *,
    blank: int = 0,
    threads: int = 1,
) -> CellPaths:
    """The best path of CTC.

    Args:
        costs: (B, T, V) float64 or float32, negative log-probabilities. +inf forbids; NaN and -inf, where a
            label is the blank or a target, make an item INVALID.
        targets: (1|B, S) int64 labels other than the blank, padded with anything.
        frames: (B,) int64, at least 1. tokens: (B,) int64, at least 0.

    Returns:
        CellPaths: the moments' indices are t * V + label, one a frame. Infeasible where there are fewer
        frames than tokens, and blanks between equal ones.

    Raises:
        ValueError: shapes, dtypes or lengths that do not fit; a blank that is no label.
    """
    flat, targets = costs_of(costs, targets)
    (size, n, width), S = costs.shape, targets.shape[1]
    if not 0 <= blank < width:
        raise ValueError(f"blank: got {blank}; give 0 to {width - 1}")
    rows, tokens = lengths_of(frames, size, n, "frames", 1), lengths_of(tokens, size, S, "tokens")
    names = np.full((len(targets), 2 * S + 1), blank)
    names[:, 1::2] = targets
    # Two states on, from token to token: not to a blank, nor to the same label.
    toll = np.full(names.shape, np.inf)
    toll[:, 3::2][targets[:, 1:] != targets[:, :-1]] = 0.0
    steps = ((1, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0))
    table = Sweep(flat, width, names, False, rows, 2 * tokens + 1, steps, toll, 2, 2, 2, n, 2 * S + 1)
    return sweep(table, n, threads)
