"""The layout of the house: which module may import which, and what belongs in one place only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up: a module imports only from those before it. A package stands for its modules, which
# may import each other as long as that runs one way too. Every module has a place here.
LAYERS = (
    # NumPy only
    "lpdiff.status",
    "lpdiff.standard",
    "lpdiff.reading",
    "lpdiff.batch",
    "lpdiff.kernels",
    "lpdiff.network",
    "lpdiff.fitting",
    "lpdiff.structure",
    "lpdiff.recognition",
    "lpdiff.program",
    "lpdiff.backend",
    "lpdiff.pool",
    "lpdiff.backends",
    "lpdiff.settings",
    "lpdiff.exact",
    "lpdiff.kkt",
    "lpdiff.proofs",
    "lpdiff.proofs",
    "lpdiff.scaling",
    "lpdiff.basis",
    "lpdiff.screen",
    "lpdiff.solved",
    "lpdiff.engine",
    "lpdiff.components",
    "lpdiff.auto",
    "lpdiff.gradients",
    # torch
    "lpdiff.autograd",
    "lpdiff.refusals",
    "lpdiff.estimate",
    "lpdiff.vertex",
    "lpdiff.operations",
    "lpdiff.parametric",
    "lpdiff.assemble",
    "lpdiff.solution",
    "lpdiff.solve",
    "lpdiff.problem",
    "lpdiff.oracle",
    "lpdiff.evaluate",
    "lpdiff.modeling",
    "lpdiff.layer",
    "lpdiff.losses",
    "lpdiff",
    # what is built on the public face
    "lpdiff.testing",
    "lpdiff.plot",
    "lpdiff.problems",
    "lpdiff.predict",
    "lpdiff.demos",
    "lpdiff.cli",
    "lpdiff.__main__",
)
WITHOUT_TORCH = LAYERS[: LAYERS.index("lpdiff.autograd")]
LONGEST = 450  # lines

# The sense of a program is known here, and to the oracles, which check it.
SENSE = ("lpdiff.standard", "lpdiff.program", "lpdiff.testing")
# CVXPY hands out a Maximize already turned around; this turns it back into the user's signs.
TURNS_CVXPY_BACK = "lpdiff.modeling.cvxpy_compiler"


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "problems":  # installed as lpdiff.problems
        parts.insert(0, "lpdiff")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


MODULES = {
    name_of(path): path for folder in ("lpdiff", "problems") for path in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def layer_of(module: str) -> str:
    """The longest entry of LAYERS that is the module or a package of it."""
    entries = [
        entry for entry in LAYERS if module == entry or (entry != "lpdiff" and module.startswith(entry + "."))
    ]
    assert entries, f"{module} has no place in LAYERS: give it one"
    return max(entries, key=len)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def nodes_at_run_time(tree: ast.AST):
    """All nodes, those inside functions too, but not what only type checkers see."""
    for child in ast.iter_child_nodes(tree):
        if is_type_checking(child):
            for other in child.orelse:
                yield other
                yield from nodes_at_run_time(other)
            continue
        yield child
        yield from nodes_at_run_time(child)


def imports_of(module: str, tree: ast.AST) -> set[str]:
    """Dotted names of what is imported; ``from p import m`` is p.m where m is a module."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in nodes_at_run_time(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found


IMPORTS = {name: imports_of(name, tree) for name, tree in TREES.items()}


def test_the_parser_sees_what_there_is():
    """This file's own tools: relative, lazy and type-checking imports."""
    source = """
from typing import TYPE_CHECKING
from . import gradients
from .engine import Plan
from ..elsewhere import x
if TYPE_CHECKING:
    from .layer import LPLayer
def lazily():
    import torch.nn
    importlib.import_module("cvxpy")
"""
    seen = imports_of("lpdiff.solve", ast.parse(source))
    assert seen == {
        "typing", "lpdiff.gradients", "lpdiff.engine", "elsewhere", "torch.nn", "cvxpy",
    }  # fmt: skip
    assert layer_of("lpdiff.backends.highs") == "lpdiff.backends"
    assert layer_of("lpdiff.backend") == "lpdiff.backend"
    assert layer_of("lpdiff.problems.matching") == "lpdiff.problems"
    with pytest.raises(AssertionError, match="no place"):
        layer_of("lpdiff.utils")
    assert len(MODULES) > 25


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    here = LAYERS.index(layer_of(module))
    for imported in sorted(IMPORTS[module]):
        if imported.split(".")[0] == "problems":
            pytest.fail(f"{module} imports {imported}: call it lpdiff.problems")
        if imported.split(".")[0] != "lpdiff":
            continue
        there = LAYERS.index(layer_of(imported))
        assert there <= here, f"{module} climbs: it imports {imported}, which stands above it"
        if there == here and module != layer_of(module):
            assert imported != layer_of(imported), f"{module} imports its own package's __init__"


def test_no_module_imports_itself_in_a_circle():
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done or module not in MODULES:
            return
        for imported in sorted(IMPORTS[module]):
            walk(imported, (*path, module))
        done.add(module)

    for module in MODULES:
        walk(module, ())


@pytest.mark.parametrize("module", [m for m in MODULES if layer_of(m) in WITHOUT_TORCH])
def test_the_lower_floors_know_no_torch(module):
    assert not {i for i in IMPORTS[module] if i.split(".")[0] == "torch"}


def test_one_autograd_function():
    found = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                if {base for base in bases if base.split(".")[-1] in ("Function", "InplaceFunction")}:
                    found.append(f"{module}.{node.name}")
    assert found == ["lpdiff.autograd.NumpyNode"]


@pytest.mark.parametrize("module", MODULES)
def test_files_fit_in_the_head(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{MODULES[module].name} has {lines} lines: split it by ideas"


def sign_flips(tree: ast.AST) -> list[str]:
    """Where code asks for the sense of a program: ``.sense``, ``.sign``, or a choice of signs by it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("sense", "sign"):
            if ast.unparse(node.value) not in ("np", "numpy", "torch"):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.IfExp):
            test = ast.unparse(node.test)
            negative = any(isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.USub) for n in ast.walk(node))
            if negative and ("sense" in test or "maxim" in test.lower()):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_flips_are_seen():
    for flip in (
        "-c if lp.sense == 'max' else c",
        "form.sign * y",
        "-1 if maximise else 1",
        "c if sense else -c",
    ):
        assert sign_flips(ast.parse(flip)), flip
    for innocent in ("np.sign(c)", "LinearProgram(c, sense='max')", "'max' if maximise else 'min'", "-x"):
        assert not sign_flips(ast.parse(innocent)), innocent


@pytest.mark.parametrize("module", [m for m in MODULES if layer_of(m) not in SENSE])
def test_min_and_max_are_told_apart_in_one_place(module):
    flips = sign_flips(TREES[module])
    if module == TURNS_CVXPY_BACK:
        assert len(flips) == 1, flips
    else:
        assert not flips


def test_importing_lpdiff_is_quick_and_brings_little():
    script = """
import sys, time
import torch
before = set(sys.modules)
start = time.perf_counter()
import lpdiff
print(time.perf_counter() - start)
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
print(*[name for name in ("torch._dynamo",) if name in sys.modules and name not in before])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    seconds, packages, *rest = done.stdout.split("\n")
    assert float(seconds) < 2
    loaded = set(packages.split())
    assert "lpdiff" in loaded
    assert not loaded & {"cvxpy", "ortools", "matplotlib", "sklearn", "pytest", "numba", "tqdm", "pandas"}
    assert not rest[0]
