"""How kernels are compiled: ahead of the first call, by explicit signatures, cached on disk.

Inputs are declared read-only, so that frozen and writable arrays meet one and the same compiled function.
numba tells a stale cache by the file of the function alone: keep what a kernel inlines in its own file.
"""

from __future__ import annotations

import functools

import numba
from numba import types

__all__ = ["kernel"]

# No fastmath: sums run in the order they are written, so bits do not depend on the machine's vectors.
kernel = functools.partial(numba.njit, cache=True, nogil=True, error_model="numpy")


def _read(dtype: types.Type, dimensions: int) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=True)


# Arrays that a kernel reads: F2 is a (1|B, k) float64 array, and so on.
F1, F2 = _read(types.float64, 1), _read(types.float64, 2)
I1, I2 = _read(types.int32, 1), _read(types.int32, 2)
B1, B2 = _read(types.boolean, 1), _read(types.boolean, 2)

# Arrays that a kernel writes.
F1W, F2W = types.float64[::1], types.float64[:, ::1]
I1W, I2W = types.int32[::1], types.int32[:, ::1]
S1W = types.int8[::1]
B1W, B2W = types.boolean[::1], types.boolean[:, ::1]

SIZE = types.int64
REAL = types.float64
