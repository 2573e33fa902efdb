"""Planning: which specialised backends a program's structure allows, and which general one stands behind.

``solver="auto"`` plans by what is recognised in the matrix:

    one block of no row or one row         selection
    one network block                      assignment or path, where the graph allows it, then network
    one other block, of some hundred rows  vertices: simplex from a known vertex, where costs alone change
    several blocks                         components: each block planned for itself
    anything else                          the general backend alone

Which of the routes takes an item depends on its numbers and is decided per batch; what none takes, or what
fails its certificate, goes to the general backend.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from .backend import AbstractBackend, BatchSolution, backend_class, make_backend
from .backends.vertices import Vertices
from .components import Components
from .engine import Plan, Route
from .pool import ROWS, VertexPool
from .recognition import structure_of
from .standard import Data, StandardForm
from .status import UnsupportedError
from .structure import Block

__all__ = ["AUTO", "GENERAL", "learned", "make_plan"]

AUTO = "auto"
GENERAL = "highs"  # stands behind the specialised backends

# A dense cost matrix is worth it for a bipartite graph that has at least this share of its pairs.
_FILLED = 0.25


def make_plan(
    form: StandardForm,
    solver: str | AbstractBackend,
    options: Mapping[str, Any],
    *,
    given: bool = False,
    **limits: Any,
) -> Plan:
    """A plan for a program.

    Args:
        solver: ``"auto"``, the name of a backend, or a configured one.
        options: The options of that backend; for ``"auto"`` those of the general one.
        given: Whether options were asked for by the caller, not just configured: options are HiGHS's, so
            ``"auto"`` then means HiGHS.
        limits: threads, time_limit, tolerance.

    Raises:
        BackendError, ValueError: see ``make_backend``.
        UnsupportedError: a specialised backend that does not take this program.
    """
    if solver != AUTO:
        backend = make_backend(solver, options)
        if not backend.capabilities.certifies:
            return Plan(form, backend, **limits)
        return Plan(form, make_backend(GENERAL), routes=[Route(backend, backend.prepare(form))], **limits)
    general = make_backend(GENERAL, options)
    if given:
        return Plan(form, general, why=["options were given, and they are HiGHS's"], **limits)
    routes, why = _routes(form, functools.partial(_plan_block, general=general, limits=limits))
    return Plan(form, general, routes=routes, why=why, **limits)


def learned(plan: Plan, samples: Data) -> Plan:
    """The plan, and before all others a pool of the vertices that are optimal at sample costs.

    Raises:
        UnsupportedError: see ``lpdiff.plan``.
    """
    form = plan.form
    limits: dict[str, Any] = {
        "threads": plan.threads,
        "time_limit": plan.time_limit,
        "tolerance": plan.tolerance,
    }
    solved = Plan(form, plan.backend, **limits).solve(samples)
    found = BatchSolution(
        x=solved.judged.x,
        y=solved.judged.y,
        status=solved.status,
        basic=solved.basic,
        iterations=solved.iterations,
    )
    backend = Vertices(pool=VertexPool.learn(form, samples, found))
    others = [route for route in plan.routes if not isinstance(route.backend, Vertices)]
    return Plan(
        form,
        plan.backend,
        routes=[Route(backend, backend.prepare(form)), *others],
        why=[*plan.why, f"learned: {backend.pool!r}"],
        **limits,
    )


def _plan_block(form: StandardForm, *, general: AbstractBackend, limits: Mapping[str, Any]) -> Plan:
    routes, why = _routes(form, None)
    return Plan(form, general, routes=routes, why=why, **limits)


def _routes(form: StandardForm, plan_block: Any) -> tuple[list[Route], list[str]]:
    """Specialised backends in the order to ask them, and the reasons; ``plan_block``: may it be divided?"""
    if form.is_mip:
        return [], ["integer variables: the general solver alone"]
    if form.n == 0:
        return [], []
    if form.m <= 1:
        return _asked(form, ["selection"], ["no row: each variable by itself", "one row"][form.m :][:1])
    try:
        structure = structure_of(form)
    except UnsupportedError as error:
        return [], [f"{error}; HiGHS does the work, and is slower by far"]
    why = str(structure).splitlines()
    blocks = structure.blocks
    if len(blocks) == 1 and blocks[0].whole:
        names = _names(blocks[0])
    elif plan_block is not None and any(block.kind != "general" or block.copies > 1 for block in blocks):
        components = Components(plan_block)
        return [Route(components, components.prepare(form))], why
    else:
        names = []
    return _asked(form, names, why)


def _asked(form: StandardForm, names: list[str], why: list[str]) -> tuple[list[Route], list[str]]:
    """Routes by name, as far as they can run here."""
    routes, told = [], list(why)
    for name in names:
        missing = backend_missing(name)
        if missing:
            told.append(f"{missing}; HiGHS does the work, and is slower by far")
            continue
        backend = make_backend(name)
        routes.append(Route(backend, backend.prepare(form)))
    return routes, told


def _names(block: Block) -> list[str]:
    if block.kind in ("separable", "selection"):
        return ["selection"]
    network = block.network
    if network is None:
        return ["vertices"] if block.rows.shape[1] <= ROWS and not block.integers else []
    pairs = network.bipartite
    if pairs is not None:
        rows, columns = pairs.shape
        fits = not pairs.duplicates and network.n >= _FILLED * rows * columns
        return ["assignment", "network"] if fits else ["network"]
    return ["path", "network"]


def backend_missing(name: str) -> str | None:
    """Why a backend of lpdiff's own cannot run here, or None."""
    try:
        backend_class(name)
    except Exception as error:
        return str(error)
    return None
