"""What a demo's run depends on: typed, from flags, a TOML file and defaults, in this order."""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import pydantic
from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

__all__ = ["AbstractConfig"]


class AbstractConfig(BaseSettings):
    """What all demos have in common. A field is a flag (``bag_size``: ``--bag-size``) and a key of the file.

    Attributes:
        SMALL: What ``--small`` sets; flags and the file go before it.
        OTHERWISE: Fields that say where and how a run goes, not what it computes.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    SMALL: ClassVar[dict[str, Any]] = {}
    OTHERWISE: ClassVar[frozenset[str]] = frozenset({"output", "config", "small", "again", "threads"})

    seed: int = Field(0, ge=0)
    """the first seed"""
    seeds: int = Field(1, ge=1)
    """repetitions, with seeds one after the other"""
    threads: int = Field(1, ge=1)
    """of torch; small networks are fastest with one, and one gives the same bits everywhere"""
    output: Path = Path("demo_output")
    """folder of runs; what is finished there is not run again, what was cut off goes on"""
    config: Path | None = None
    """TOML file with any of these settings; flags go before it"""
    small: bool = False
    """a small run, to see that it works"""
    again: bool = False
    """throw away the runs of this command that are in the folder"""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags come before these by themselves; the environment plays no role."""
        return (init_settings,)

    @property
    def every_seed(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    def what(self) -> dict[str, Any]:
        """The settings that results depend on, as JSON has them."""
        return self.model_dump(mode="json", exclude=set(self.OTHERWISE))

    def flags(self) -> str:
        """The flags that give what this computes: the settings that are not the defaults."""
        told, default = [], type(self).model_validate({}).what()
        for key, value in self.what().items():
            if value == default[key]:
                continue
            flag = "--" + key.replace("_", "-")
            if isinstance(value, bool):
                told.append(flag if value else f"--no-{flag[2:]}")
            else:
                told.append(f"{flag} {','.join(map(str, value)) if isinstance(value, list) else value}")
        return " ".join(told)

    @classmethod
    def read(cls, argv: Sequence[str] | None = None, *, command: str) -> Self:
        """The configuration of a command line.

        Args:
            argv: The flags; None: those of the process.
            command: What the program is called, for its help.

        Raises:
            SystemExit: flags or a file that make no sense, an output folder that cannot be made (the reason
                goes to stderr), or ``--help``.
        """
        given = list(sys.argv[1:] if argv is None else argv)
        usage = f"{command} [flags], which --help lists"
        first = argparse.ArgumentParser(prog=command, usage=usage, add_help=False, allow_abbrev=False)
        first.add_argument("--config", type=Path)
        first.add_argument("--small", action="store_true")
        early, _ = first.parse_known_args(given)
        told = {} if early.config is None else _from_file(first, early.config)
        small = early.small or told.get("small") is True
        flags: Any = CliSettingsSource(cls, cli_prog_name=command)
        try:
            read = CliApp.run(cls, given, flags, **{**(cls.SMALL if small else {}), **told})
            read.output.mkdir(parents=True, exist_ok=True)
        except pydantic.ValidationError as error:
            first.error(cls._explain(error, {} if early.config is None else {early.config: told}))
        except OSError as error:
            first.error(f"--output: {error}")
        return read

    @classmethod
    def _explain(cls, error: pydantic.ValidationError, files: dict[Path, dict[str, Any]]) -> str:
        """One line: which setting, what is wrong, what was given, and where an unknown one comes from."""
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            place = "".join(f" in {path}" for path, told in files.items() if key in told)
            return f"{key} is unknown{place}: expected one of {', '.join(cls.model_fields)}"
        reason = first["msg"].removeprefix("Value error, ")
        return f"{key}: {reason}, got {first['input']!r}" if key else reason


def _from_file(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"--config {path}: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        parser.error(f"--config {path} is no TOML: {error}")
