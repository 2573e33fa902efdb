"""How kernels are compiled: at their first call, for one explicit signature, cached on disk.

Inputs are declared read-only, so that frozen and writable arrays meet one and the same compiled function.
numba tells a stale cache by the file of the function alone: keep what a kernel calls in its own file.

A first compilation takes 0.1 to 2 s a kernel, most of it per function and per expression. So nothing is
compiled that a program does not call, functions that kernels call have no entry from Python, and each should
be called with one combination of types only.
"""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable
from typing import Any

import numba
from numba import types

__all__ = ["Kernel", "inner", "kernel"]

# No fastmath: sums run in the order they are written, so bits do not depend on the machine's vectors.
_OPTIONS = {"nogil": True, "error_model": "numpy"}

# What a kernel calls: compiled with it.
inner: Any = functools.partial(numba.njit, **_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_lock = threading.RLock()


class Kernel:
    """A function that is compiled when it is first called, or loaded from numba's cache."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        functools.update_wrapper(self, function)
        self.signature = signature
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        compiled = self._compiled
        if compiled is None:
            compiled = self.compile()
        return compiled(*arguments)

    def compile(self) -> Callable[..., Any]:
        """Compile now, whatever the arguments of the first call will be."""
        with _lock:
            if self._compiled is None:
                # The compiler makes no garbage worth collecting, but so many objects that the collector
                # would go through all of the process again and again: a tenth of the time.
                collecting = gc.isenabled()
                gc.disable()
                try:
                    self._compiled = self._compile()
                finally:
                    if collecting:
                        gc.enable()
            return self._compiled

    def _compile(self) -> Callable[..., Any]:
        function = self.__wrapped__  # type: ignore[attr-defined]
        try:
            return numba.njit(self.signature, cache=True, **_OPTIONS)(function)
        except (OSError, RuntimeError) as error:
            # No directory to write to, neither the package's own nor the user's; or the disk is full.
            if isinstance(error, RuntimeError) and "cannot cache" not in str(error):
                raise
            return numba.njit(self.signature, **_OPTIONS)(function)


def kernel(signature: Any = None) -> Any:
    """Decorator of a kernel of this signature; without one, of what kernels call (``inner``)."""
    if signature is None:
        return inner
    if isinstance(signature, types.Type | list) or hasattr(signature, "return_type"):
        return functools.partial(Kernel, signature=signature)
    return inner(signature)  # a function: no parentheses


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
