"""Configuration: which backend, with which options, how many threads.

Five places can say it; the first that does wins, key by key:

1. an argument of ``solve``, ``plan`` or ``LPLayer``;
2. ``with lpdiff.options(...)`` (the innermost first; it belongs to the thread or task that enters it);
3. environment variables: ``LPDIFF_SOLVER=glop``, ``LPDIFF_BACKENDS__HIGHS__METHOD=ipm``; ``none`` is
   None, an empty one is not set;
4. a file: the nearest ``lpdiff.toml``, or ``[tool.lpdiff]`` of the nearest ``pyproject.toml`` that has
   it, from the working directory upwards;
5. the defaults below.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from .backend import available_backends
from .batch import available_threads

__all__ = ["UNSET", "Settings", "current_settings", "options", "reload", "shared_settings"]

_PREFIX = "LPDIFF_"
_PREFIX_BYTES = _PREFIX.encode()


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()
"""An argument that was not given (None means something: no limit, no rule)."""


class Settings(BaseSettings):
    """What can be configured, and the defaults.

    Attributes:
        solver: ``"auto"`` (by the structure of the program), the name of a backend, or a configured backend
            instance.
        threads: Threads over the batch; None: as many as the process may use.
        time_limit: Seconds an LP may take; None: no limit.
        tolerance: Of the optimality certificate, relative.
        gradient: The rule for dx/dc: None (refuse), ``"exact"``, another name or a rule object.
        backends: Options by backend name, for example ``{"highs": {"method": "ipm"}}``.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
    )

    solver: Any = "auto"
    threads: Annotated[int, pydantic.Field(ge=1, le=4096)] | None = None
    time_limit: Annotated[float, pydantic.Field(gt=0)] | None = None
    tolerance: Annotated[float, pydantic.Field(gt=0, le=1e-2)] = 1e-6
    gradient: Any = None
    backends: dict[str, dict[str, Any]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments and contexts are merged by ``current_settings``; here: environment, then file."""
        _, table = _find_file(os.getcwd())
        file_source = InitSettingsSource(settings_cls, init_kwargs=table)
        environment = EnvSettingsSource(settings_cls, env_ignore_empty=True, env_parse_none_str="none")
        return environment, file_source

    @property
    def thread_count(self) -> int:
        return available_threads() if self.threads is None else self.threads

    @functools.cached_property
    def planning(self) -> tuple[Any, ...]:
        """What a plan depends on, but for its options and threads: solver, time limit, tolerance."""
        try:
            hash(self.solver)
        except TypeError:
            # A frozen dataclass is equal to another with the same options. Where it cannot be hashed its id
            # tells: who keeps a plan by it keeps the solver, so the id is not given away again.
            return id(self.solver), self.time_limit, self.tolerance
        return self.solver, self.time_limit, self.tolerance

    def options_of(self, solver: Any) -> dict[str, Any]:
        """The configured options of a backend; none for an instance, which carries its own."""
        return dict(self.backends.get(solver, {})) if isinstance(solver, str) else {}


Layer = tuple[tuple[str, Any], ...]  # settings that one place says, by key; hashable where they are

_context: ContextVar[tuple[Layer, ...]] = ContextVar("lpdiff_options", default=())


@contextlib.contextmanager
def options(
    *,
    solver: Any = UNSET,
    threads: int | None = UNSET,
    time_limit: float | None = UNSET,
    tolerance: float = UNSET,
    gradient: Any = UNSET,
    backends: Mapping[str, Mapping[str, Any]] = UNSET,
) -> Iterator[Settings]:
    """Settings for a block of code; nests, inner ones winning key by key.

    Yields:
        The settings in force inside the block.

    Raises:
        ValueError: a value out of range; the message says what was expected.
    """
    given = locals()
    layer = tuple((key, given[key]) for key in Settings.model_fields if given[key] is not UNSET)
    token = _context.set((*_context.get(), layer))
    try:
        yield current_settings()
    finally:
        _context.reset(token)


def current_settings(**arguments: Any) -> Settings:
    """The settings in force: arguments (unless ``UNSET``) over contexts, environment, file, defaults.

    Raises:
        ValueError: an unknown key or a value out of range, naming its source.
    """
    shared = shared_settings(**arguments)
    fields = {key: getattr(shared, key) for key in Settings.model_fields}
    return Settings.model_construct(**{**fields, "backends": _merge(shared.backends, {})})


def shared_settings(**arguments: Any) -> Settings:
    """As ``current_settings``, without a copy: for reading only."""
    given = tuple([item for item in arguments.items() if item[1] is not UNSET])
    place = (_environment(), os.getcwd(), _context.get(), given)
    try:
        return _resolved(*place)
    except TypeError:  # options by backend, or a rule, that cannot be hashed
        return _resolved.__wrapped__(*place)


@functools.lru_cache(maxsize=64)
def _resolved(
    environment: tuple[tuple[str, str], ...], directory: str, context: tuple[Layer, ...], given: Layer
) -> Settings:
    """Kept, since a solve of a small LP takes less time than this."""
    base = _from_environment_and_file(environment, directory)
    layers = [dict(layer) for layer in (*context, given)]
    merged: dict[str, Any] = {key: getattr(base, key) for key in Settings.model_fields}
    merged["backends"] = _merge(base.backends, {})  # a copy: the base is kept
    if not any(layers):
        return Settings.model_construct(**merged)
    for layer in layers:
        for key, value in layer.items():
            if key == "backends":
                merged["backends"] = _merge(merged["backends"], value)
                _check_names(value)
            else:
                merged[key] = value
    return _validated(merged)


def reload() -> None:
    """Read the configuration files again (they are read once a process and directory)."""
    _from_environment_and_file.cache_clear()
    _resolved.cache_clear()


def _check_names(backends: Mapping[str, Any], source: str = "") -> None:
    unknown = sorted(set(backends) - set(available_backends()))
    if unknown:
        raise ValueError(
            f"lpdiff option 'backends'{source} names {unknown[0]!r}, which is no registered solver: expected "
            f"one of {', '.join(sorted(available_backends()))}"
        )


def _merge(
    under: Mapping[str, Mapping[str, Any]], over: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    if not isinstance(over, Mapping) or not all(isinstance(v, Mapping) for v in over.values()):
        raise ValueError(
            f"backends: expected options by backend name, such as "
            f"{{'highs': {{'method': 'ipm'}}}}, got {over!r}"
        )
    return {name: {**under.get(name, {}), **over.get(name, {})} for name in {**under, **over}}


class _Validated(pydantic.BaseModel):
    """Settings's fields without its sources, to check merged values."""

    model_config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    solver: Any
    threads: Annotated[int, pydantic.Field(ge=1, le=4096)] | None
    time_limit: Annotated[float, pydantic.Field(gt=0)] | None
    tolerance: Annotated[float, pydantic.Field(gt=0, le=1e-2)]
    gradient: Any
    backends: dict[str, dict[str, Any]]


def _validated(values: dict[str, Any]) -> Settings:
    try:
        checked = _Validated(**values)
    except pydantic.ValidationError as error:
        raise ValueError(_explain(error, "lpdiff option")) from error
    return Settings.model_construct(**dict(checked))


def _explain(error: pydantic.ValidationError, what: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{what} {key!r} is unknown: expected one of {', '.join(Settings.model_fields)}"
    return f"{what} {key!r}: {first['msg']}, got {first['input']!r}"


def _environment() -> tuple[tuple[str, str], ...]:
    # Looked at on each call; decoding all names would take longer than a small LP.
    names = getattr(os.environ, "_data", None)
    if names and not _are_ours(tuple(names)):
        return ()
    return tuple(sorted((k, v) for k, v in os.environ.items() if k.upper().startswith(_PREFIX)))


@functools.lru_cache(maxsize=4)
def _are_ours(names: tuple[Any, ...]) -> bool:
    """Whether some of these names of environment variables may be lpdiff's."""
    return any(not isinstance(name, bytes) or name.upper().startswith(_PREFIX_BYTES) for name in names)


@functools.lru_cache(maxsize=16)
def _from_environment_and_file(environment: tuple[tuple[str, str], ...], directory: str) -> Settings:
    """Keyed by all it reads but the files' contents, so a changed variable is seen at once."""
    known = {_PREFIX + field.upper() for field in Settings.model_fields}
    for key, _ in environment:
        if key.upper() not in known and not key.upper().startswith(_PREFIX + "BACKENDS__"):
            raise ValueError(
                f"environment variable {key} is unknown: expected one of {', '.join(sorted(known))}, "
                f"or {_PREFIX}BACKENDS__<NAME>__<OPTION>"
            )
    path, _ = _find_file(directory)
    try:
        settings = Settings()
    except pydantic.ValidationError as error:
        variable = _PREFIX + "__".join(str(part) for part in error.errors()[0]["loc"]).upper()
        told = [key for key, _ in environment if variable.startswith(key.upper())]
        where = f"environment variable {told[0]}" if told else str(path)
        raise ValueError(_explain(error, f"lpdiff option (from {where})")) from error
    except SettingsError as error:
        raise ValueError(
            f"environment variable {_PREFIX}BACKENDS: expected JSON such as "
            f'{{"highs": {{"method": "ipm"}}}}, or one variable an option: '
            f"{_PREFIX}BACKENDS__HIGHS__METHOD=ipm"
        ) from error
    _check_names(settings.backends, f" (from {path or 'the environment'})")
    return settings


def _find_file(directory: str) -> tuple[Path | None, dict[str, Any]]:
    for folder in (Path(directory), *Path(directory).parents):
        for name in ("lpdiff.toml", "pyproject.toml"):
            path = folder / name
            if not path.is_file():
                continue
            try:
                table = tomllib.loads(path.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                if name == "pyproject.toml":
                    continue  # another tool's file: not ours to complain about
                raise ValueError(f"{path} is not valid TOML: {error}") from error
            if name == "lpdiff.toml":
                return path, table
            tools = table.get("tool")
            if isinstance(tools, dict) and "lpdiff" in tools:
                if not isinstance(tools["lpdiff"], dict):
                    raise ValueError(f"{path}: [tool.lpdiff] must be a table, got {tools['lpdiff']!r}")
                return path, tools["lpdiff"]
    return None, {}
