"""The contract of a backend, and the registry. NumPy only: a backend never sees torch.

A backend is a frozen dataclass whose fields are its options, so that ``HiGHS(method="ipm")`` is a
configured backend and ``{"method": "ipm"}`` in a config file says the same. It splits its work in two:
``prepare(form)`` does what depends on the program alone and returns an explicit state;
``solve(state, data, ...)`` runs on numbers. What a backend returns is a proposal: the caller checks
optimality with its own arithmetic (kkt.py) and computes reduced costs itself.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import pydantic

from .standard import Data, StandardForm
from .status import Status

__all__ = [
    "AbstractBackend",
    "AbstractKept",
    "AbstractVertices",
    "BackendError",
    "BatchSolution",
    "Capabilities",
    "Certified",
    "available_backends",
    "backend_class",
    "make_backend",
    "written",
]

T = TypeVar("T")

_ERROR = int(Status.ERROR)

ENTRY_POINT_GROUP = "lpdiff.backends"


class BackendError(RuntimeError):
    """A backend cannot be used: unknown name, missing package, or a clash between packages."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can return."""

    duals: bool = True
    basis: bool = True
    integers: bool = False
    rays: bool = False
    interior: bool = False  # may return optimal points that are not vertices
    certifies: bool = False  # runs a compiled certificate of lpdiff's own on what it proposes


@dataclass(eq=False)
class Certified:
    """What a compiled certificate found, on the original data: (B,) each."""

    value: np.ndarray  # c'x
    gap: np.ndarray  # c'x - D(y)
    primal_residual: np.ndarray
    dual_residual: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Certified:
        numbers = np.empty((4, size))
        numbers.fill(np.nan)  # np.full does the same, in three times the time of a small LP
        return cls(*numbers)


class AbstractKept(ABC):
    """An array of a batch that is written out when it is asked for."""

    @abstractmethod
    def array(self) -> np.ndarray:
        """The array."""


class AbstractVertices(AbstractKept):
    """x of a batch, (B, n), kept by what little of it is not zero."""

    @abstractmethod
    def times(self, factors: np.ndarray) -> np.ndarray:
        """Each item's x times its number of ``factors``, (B,): the same bits as of the arrays' product."""


class _Written:
    """An attribute that may be given as ``AbstractKept``: from when it is read on, it is an array."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        value = instance.__dict__[self.name]
        if isinstance(value, AbstractKept):
            value = instance.__dict__[self.name] = value.array()
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.name] = value


def written(*names: str) -> Callable[[type[T]], type[T]]:
    """Of a dataclass: these fields may be given as ``AbstractKept``; ``vars`` tells what is kept."""

    def decorate(cls: type[T]) -> type[T]:
        for name in names:
            setattr(cls, name, _Written(name))
        return cls

    return decorate


@written("x", "y")
@dataclass(eq=False)
class BatchSolution:
    """Proposals for a batch, in the sense of min. Rows of items that are not optimal are ignored.

    ``basic`` marks basic variables (first n) and the logicals of basic rows (last m): m True entries a
    row of the array, or none where the item has no basis. HiGHS's convention: y_i > 0 only where row
    i sits at its lower side.
    """

    x: np.ndarray  # (B, n) float64
    y: np.ndarray | None  # (B, m) float64, None for integer programs
    status: np.ndarray  # (B,) int8 of Status
    basic: np.ndarray | None  # (B, n + m) bool
    iterations: np.ndarray  # (B,) int64
    bound: np.ndarray | None = None  # (B,) proved lower bound on the value, integer programs only
    rays: dict[int, np.ndarray] = field(default_factory=dict)  # Farkas ray (m,) or direction (n,)
    messages: dict[int, str] = field(default_factory=dict)  # the backend's words on a failed item
    certificate: Certified | None = None  # of a backend that ``certifies``: OPTIMAL means certified
    refused: np.ndarray | None = None  # (B,) bool: of such a backend: something in it was refused and mended

    @classmethod
    def empty(
        cls, form: StandardForm, size: int, *, basis: bool = True, fill: float = np.nan
    ) -> BatchSolution:
        """Arrays to fill in (x and y with ``fill``); every status starts as ``ERROR``."""
        blank = np.zeros if fill == 0 else functools.partial(np.full, fill_value=fill)
        m, n = form.shape
        status = np.empty(size, dtype=np.int8)
        status.fill(_ERROR)  # as np.full, in a fourth of the time
        return cls(
            x=blank((size, n)),
            y=None if form.is_mip else blank((size, m)),
            status=status,
            basic=np.zeros((size, n + m), dtype=bool) if basis and not form.is_mip else None,
            iterations=np.zeros(size, dtype=np.int64),
            bound=np.full(size, -np.inf) if form.is_mip else None,
        )


class AbstractBackend(ABC):
    """Base of all backends. Subclasses are frozen (pydantic) dataclasses: fields are options.

    The same item must give the same bits whatever its place in the batch, the items beside it, and
    ``threads``.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    @abstractmethod
    def prepare(self, form: StandardForm) -> Any:
        """State for one program (its pattern): anything, as long as threads may share it.

        The state must survive ``copy.deepcopy`` and pickling, or be cheap to make again: plans that
        are copied prepare anew.
        """

    @abstractmethod
    def solve(
        self, state: Any, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        """Solve all items. ``time_limit`` is in seconds an item. Never raises for one item's sake."""

    def basis(self, state: Any, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
        """Bases of optima that this backend returned without, on demand: (B, n + m) bool as ``basic``.

        Rows of items for which there is none stay empty; None where the backend never has any.
        """
        return None

    def basic_duals(self, state: Any, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
        """Duals at a vertex, for optima that this backend returned with other duals, on demand: (B, m).

        Rows of items for which there is nothing to do stay as they are; None where that is always so.
        """
        return None

    @classmethod
    def missing(cls) -> str | None:
        """Why this backend cannot run here (with the remedy), or None where it can."""
        return None

    def told(self) -> str:
        """The name, and the options that are not the default: for printing."""
        given = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.repr and getattr(self, f.name) != f.default
        ]
        return self.name + (f"({', '.join(given)})" if given else "")

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(cls))  # type: ignore[arg-type]


def available_backends() -> dict[str, importlib.metadata.EntryPoint]:
    """Every registered backend by name, through the entry-point group ``lpdiff.backends``."""
    return {ep.name: ep for ep in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def backend_class(name: str) -> type[AbstractBackend]:
    """The class registered under a name.

    Raises:
        BackendError: unknown name, or a backend whose packages are missing or clash.
    """
    entries = available_backends()
    if name not in entries:
        raise BackendError(
            f"unknown solver {name!r}: expected one of {', '.join(['auto', *sorted(entries)])}; "
            f"other packages register theirs under the entry-point group {ENTRY_POINT_GROUP!r}"
        )
    try:
        cls = entries[name].load()
    except ImportError as error:
        raise BackendError(f"solver {name!r} cannot be loaded: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, AbstractBackend)):
        raise BackendError(
            f"the entry point {entries[name].value!r} of solver {name!r} is not an AbstractBackend"
        )
    reason = cls.missing()
    if reason:
        raise BackendError(f"solver {name!r} cannot run here: {reason}")
    return cls


def make_backend(solver: str | AbstractBackend, options: Mapping[str, Any] | None = None) -> AbstractBackend:
    """A configured backend from a name and options; an instance comes back as it is.

    Raises:
        BackendError: see ``backend_class``.
        ValueError: an unknown option, or a value out of range (got, expected).
    """
    if isinstance(solver, AbstractBackend):
        if options:
            raise ValueError(
                f"solver is already a configured {type(solver).__name__}: put {sorted(options)} "
                f"in its constructor"
            )
        return solver
    if not isinstance(solver, str):
        raise TypeError(f"solver must be a name or a backend instance, got {type(solver).__name__}")
    cls = backend_class(solver)
    options = dict(options or {})
    unknown = sorted(set(options) - set(cls.option_names()))
    if unknown:
        raise ValueError(
            f"unknown option {unknown[0]!r} of solver {solver!r}: expected one of "
            f"{', '.join(cls.option_names())} (threads, time_limit and tolerance are no solver's options but "
            f"settings of their own)"
        )
    try:
        return cls(**options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # options that do not go together
            raise ValueError(f"options of solver {solver!r}: {first['msg']}") from error
        raise ValueError(
            f"option {where!r} of solver {solver!r}: {first['msg']}, got {first['input']!r}"
        ) from error
