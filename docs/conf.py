"""Sphinx configuration. The build is strict: a warning or a dangling reference is an error."""

from __future__ import annotations

import re
import sys
from typing import Any

import pydantic_settings

import lpdiff

project = "lpdiff"
author = "The lpdiff developers"
copyright = author
release = version = lpdiff.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "demos/results"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# Docstrings say types, shapes and dtypes in words; annotations would say less, longer.
autodoc_typehints = "none"
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"lpdiff {release}"

# References are checked, but no other project's index is fetched (no intersphinx: the build needs
# no network). So names of other packages are exempt; lpdiff's own are not. _BARE: names that
# pydantic's annotations bring along without their module.
nitpicky = True
_PACKAGES = (
    "np|numpy|scipy|sp|torch|cp|cvxpy|highspy|ortools|pydantic|pydantic_settings|annotated_types"
    "|abc|collections|contextlib|enum|importlib|os|pathlib"
)
_BARE = r"Ge|Gt|Le|Lt|FieldInfo|NoneType|\d+(\.\d+)?"
nitpick_ignore_regex = [(r"py:.*", rf"({_PACKAGES})(\..*)?"), (r"py:class", rf"({_BARE})")]


# Where names are documented, other than in the module that defines them.
PUBLIC = ("lpdiff", "lpdiff.gradients", "lpdiff.losses", "lpdiff.modeling", "lpdiff.predict")


def _public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Point ``lpdiff.program.LinearProgram`` to ``lpdiff.LinearProgram``, where it is documented.

    What exists but is documented nowhere (an internal class in a signature) is shown unlinked;
    what does not exist stays an error.
    """
    if node.get("refdomain") != "py":
        return None
    module_name, _, name = node["reftarget"].rpartition(".")
    if module_name and module_name.partition(".")[0] != "lpdiff":
        return None
    meant = getattr(sys.modules.get(module_name), name, None)
    for public in PUBLIC:
        found = getattr(sys.modules.get(public), name, None)
        if found is not None and (not module_name or found is meant):
            domain = env.get_domain("py")
            target = f"{public}.{name}"
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)
    return contnode if meant is not None else None


def _tidy_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show ``(*batch, n)`` in a docstring as code, since reStructuredText takes its star for emphasis, and
    norms, |c|, which it takes for substitutions."""
    block: int | None = None  # the indentation of what ended in ::, and so begins a literal block
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() and block is not None and indent <= block:
            block = None
        if block is None:
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            parts[::2] = [re.sub(r"\(\*[^()]*\)", r"``\g<0>``", part) for part in parts[::2]]
            lines[i] = "".join(parts)
            if line.rstrip().endswith("::"):
                block = indent
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(": ", " -- ")  # napoleon takes what precedes a colon for a type


def _short_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any
) -> tuple[Any, Any] | None:
    """Leave out the dozens of arguments of pydantic-settings; make dataclass factories parse."""
    if isinstance(obj, type) and issubclass(obj, pydantic_settings.BaseSettings):
        return "", None
    return (signature.replace("<factory>", "..."), returns) if signature else None


def setup(app: Any) -> None:
    # Before napoleon (500), which rewrites the lines.
    app.connect("autodoc-process-docstring", _tidy_docstring, priority=400)
    app.connect("autodoc-process-signature", _short_signature)
    app.connect("missing-reference", _public_name)
