"""How kernels are compiled: at their first call, for one explicit signature, cached on disk.

Inputs are declared read-only, so that frozen and writable arrays meet one and the same compiled function.
numba tells a stale cache by the file of the function alone; here the sources of all that a kernel calls are
part of the key, as a variable that the function closes over.

A first compilation takes 0.1 to 3 s a kernel, so much a function and so much an expression. Hence nothing is
compiled that a program does not call; functions that kernels call have no entry from Python; and each should
be called with one combination of types (a literal is a type of its own, and so is a read-only array).
"""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
import operator
import sys
import threading
from collections.abc import Callable
from types import CellType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, type_callable
from numba.np import arrayobj

__all__ = ["Kernel", "inner", "kernel", "larger", "row_of", "smaller"]

# No fastmath: sums run in the order they are written, so bits do not depend on the machine's vectors.
# No rewrites: they look for array expressions, which kernels do not use, for a tenth of the time.
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_rewrites": True}

_njit: Any = numba.njit
_intrinsic: Any = intrinsic

# What a kernel calls: compiled with it.
inner: Any = functools.partial(_njit, **_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_lock = threading.RLock()


class Kernel:
    """A function that is compiled when it is first called, or loaded from numba's cache.

    Until then, calls whose arrays have at most ``small`` numbers in all are left to Python: that takes
    milliseconds, as loading does, and the operations are the same.
    """

    def __init__(self, function: Callable[..., Any], signature: Any, small: int) -> None:
        functools.update_wrapper(self, function)
        self.function, self.signature, self.small = function, signature, small
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        compiled = self._compiled
        if compiled is None:
            if self.small and sum(a.size for a in arguments if isinstance(a, np.ndarray)) <= self.small:
                with np.errstate(all="ignore"):
                    return self.function(*arguments)
            compiled = self.compile()
        return compiled(*arguments)

    def compile(self) -> Callable[..., Any]:
        """The compiled function, compiled now if it was not."""
        with _lock:
            if self._compiled is None:
                # The compiler makes so many objects, few of them garbage, that the collector would go through
                # all of the process again and again: a tenth of the time.
                collecting = gc.isenabled()
                gc.disable()
                try:
                    self._compiled = self._compile()
                finally:
                    if collecting:
                        gc.enable()
            return self._compiled

    def _compile(self) -> Callable[..., Any]:
        compiled: Callable[..., Any]
        try:
            function = _keyed(self.function)
            compiled = _njit(self.signature, cache=True, no_cfunc_wrapper=True, **_OPTIONS)(function)
        except (OSError, RuntimeError) as error:
            # Neither the package's directory nor the user's can be written to, or the disk is full.
            if isinstance(error, RuntimeError) and "cannot cache" not in str(error):
                raise
            compiled = _njit(self.signature, no_cfunc_wrapper=True, **_OPTIONS)(self.function)
        return compiled


def _keyed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, closing over a digest of its sources: numba takes it into the key of its cache."""
    code = function.__code__.replace(co_freevars=(*function.__code__.co_freevars, "_digest"))
    closure = (*(function.__closure__ or ()), CellType(_digest(function.__module__)))
    keyed = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    return functools.update_wrapper(keyed, function)


@functools.cache
def _digest(name: str) -> str:
    """Of a module's source, and of those of this package that it takes anything from."""
    package = __name__.rpartition(".")[0]
    found, open_ = {name}, [name]
    while open_:
        for value in vars(sys.modules[open_.pop()]).values():
            other = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(other, str) and other.startswith(package + ".") and other not in found:
                found.add(other)
                open_.append(other)
    digest = hashlib.blake2b(digest_size=16)
    for module in sorted(found):
        try:
            digest.update(inspect.getsource(sys.modules[module]).encode())
        except (OSError, TypeError):  # no source at hand: then nobody edits it
            digest.update(module.encode())
    return digest.hexdigest()


def kernel(signature: Any = None, *, small: int = 0) -> Any:
    """Decorator of a kernel of this signature; without one, of what kernels call (``inner``)."""
    if signature is None:
        return inner
    if callable(signature) and not isinstance(signature, types.Type):
        return inner(signature)  # a function: no parentheses
    return functools.partial(Kernel, signature=signature, small=small)


def larger(a, b):  # type: ignore[no-untyped-def]
    """max(a, b) to the bit; numba would compile ``max`` anew for each function that calls it."""
    return b if b > a else a


def smaller(a, b):  # type: ignore[no-untyped-def]
    """min(a, b), likewise."""
    return b if b < a else a


def _select(function: Any, order: Any) -> None:
    """Compiled code has no call of ``function`` but a comparison and a choice."""

    @type_callable(function)
    def typed(context: Any) -> Any:
        return lambda a, b: context.unify_types(types.unliteral(a), types.unliteral(b))

    @lower_builtin(function, types.Number, types.Number)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.return_type
        a, b = (
            context.cast(builder, number, given, kind)
            for number, given in zip(arguments, signature.args, strict=True)
        )
        compare = context.get_function(order, types.boolean(kind, kind))
        return builder.select(compare(builder, (b, a)), b, a)


_select(larger, operator.gt)
_select(smaller, operator.lt)


@_intrinsic
def row_of(typing, array, item):  # type: ignore[no-untyped-def]
    """An item's row of a (1|B, k) array: array[item], or array[0] where all items share it.

    Its type is that of an array that may be written, so that helpers meet one type; only what the kernel
    declares as written is. One expression, where numba's own would take ten. The array must be an argument of
    the kernel: the row does not keep it alive, and numba frees a local array after its last use by name.
    """
    result = types.Array(array.dtype, 1, "C")

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        given = context.make_array(array)(context, builder, arguments[0])
        rows, columns = cgutils.unpack_tuple(builder, given.shape, 2)
        shared = builder.icmp_signed("<", rows, rows.type(2))
        place = builder.mul(builder.select(shared, rows.type(0), arguments[1]), columns)
        out = context.make_array(result)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(array.dtype))
        arrayobj.populate_array(
            out,
            data=builder.gep(given.data, [place]),
            shape=cgutils.pack_array(builder, [columns]),
            strides=cgutils.pack_array(builder, [rows.type(size)]),
            itemsize=rows.type(size),
            meminfo=None,  # the caller keeps it alive
        )
        return out._getvalue()

    return result(array, types.int64), generate


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
