"""The harness of the benchmarks: contestants agree, what is missing is named, records become a page.

Nothing is timed here: the numbers of a run are whatever the machine gives.
"""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import lpdiff

ROOT = Path(__file__).parents[1]
RAW, LINPROG, MATCHING = "raw highspy loop", "SciPy linprog loop", "SciPy assignment loop"
SOLVERS = sorted({"highs", lpdiff.Settings.model_fields["solver"].default})


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny():
    """A work on which lpdiff meets three peers that are always installed."""
    from benchmarks import peers, structure

    names = ["lpdiff", "lpdiff, 1 thread", "lpdiff, HiGHS", MATCHING, RAW]
    targets = [structure.Target(MATCHING, 1e9), structure.Target(RAW, 1e-9), structure.Target("absent", 1.0)]
    return structure.Work(
        "tiny",
        "tiny work",
        partial(peers.assignment, 3),
        5,
        MATCHING,
        {**dict.fromkeys(names), LINPROG: 2},
        targets,
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_problem_is_solved_alike_by_lpdiff_and_two_others(solver):
    from benchmarks import peers, structure

    made = {
        "assignment": partial(peers.assignment, 4),
        "alignment": partial(peers.alignment, 4),
        "grid": partial(peers.grid, 4),
        "cyclic": partial(peers.cyclic, 4),
        "flow": partial(peers.flow, 4),
        "transport": partial(peers.transport, 4),
        "general": partial(peers.general, 20, 10),
        "packing": partial(peers.packing, 20, 10),
    }
    for name, make in made.items():
        contestants = dict.fromkeys(["lpdiff", "lpdiff, HiGHS", "lpdiff, HiGHS cold", RAW, LINPROG])
        work = structure.Work(name, name, make, 6, RAW, contestants)
        row = structure.measure(work, repeats=1, solver=solver)
        assert row["missing"] == {}, name
        assert list(row["contestants"]) == list(contestants), name
        assert all(max(entry["apart"]) <= structure.TOLERANCE for entry in row["contestants"].values())
        assert all(
            len(entry["seconds"]) == 1 and entry["items"] == 6 for entry in row["contestants"].values()
        )


def test_values_and_gradients_are_those_of_a_problem_solved_by_hand():
    from benchmarks import peers

    problem = peers.assignment(2, 3)
    straight, crossed = problem.costs[:, [0, 3]].sum(1), problem.costs[:, [1, 2]].sum(1)
    for name in ("lpdiff", RAW, LINPROG, MATCHING):
        keywords = {"solver": "highs"} if name == "lpdiff" else {}
        value, gradient = peers.CONTESTANTS[name](problem, **keywords)()
        np.testing.assert_allclose(value, np.minimum(straight, crossed), rtol=1e-9, err_msg=name)
        expected = np.where((straight < crossed)[:, None], [1.0, 0, 0, 1], [0, 1.0, 1, 0])
        np.testing.assert_allclose(gradient, expected, atol=1e-9, err_msg=name)


def test_slow_contestants_take_fewer_items_and_targets_need_both_sides(tiny):
    from benchmarks import structure

    row = structure.measure(tiny, repeats=2, solver="highs")
    assert (row["items"], row["variables"], row["rows"]) == (5, 9, 6)
    assert row["contestants"][LINPROG]["items"] == 2
    assert [(t["against"], t["met"]) for t in row["targets"]] == [(MATCHING, True), (RAW, False)]
    for entry in row["contestants"].values():
        assert entry["per_lp"] == pytest.approx(np.median(entry["seconds"]) / entry["items"])


def test_what_is_missing_or_fails_or_disagrees_is_named_and_left_out(tiny, monkeypatch):
    from benchmarks import peers, structure

    def absent(problem):
        peers.need("no_such_module_of_anyone", "nobody's package")

    def broken(problem):
        raise RuntimeError("a peer's own trouble")

    def wrong_by(value, gradient):
        def make(problem):
            right = peers.scipy_loop(problem)
            return lambda: (right()[0] + value, right()[1] + gradient)

        return make

    liars = {
        "absent": absent,
        "broken": broken,
        "value": wrong_by(1e-3, 0.0),
        "gradient": wrong_by(0.0, 1e-3),
    }
    for name, make in liars.items():
        monkeypatch.setitem(peers.CONTESTANTS, name, make)
    monkeypatch.setitem(peers.LOOSE, "loose", 1e-2)
    monkeypatch.setitem(peers.CONTESTANTS, "loose", wrong_by(1e-3, 1.0))
    work = dataclasses.replace(tiny, contestants=tiny.contestants | dict.fromkeys([*liars, "loose"]))
    row = structure.measure(work, repeats=1, solver="highs")
    assert set(row["missing"]) == set(liars)
    assert set(row["contestants"]) == {*tiny.contestants, "loose"}
    assert "nobody's package is not installed" in row["missing"]["absent"]
    assert "a peer's own trouble" in row["missing"]["broken"]
    assert row["missing"]["value"].startswith("disagrees")
    assert row["missing"]["gradient"].startswith("disagrees")

    row = structure.measure(tiny, repeats=1, solver="no such solver")
    assert set(row["missing"]) == {"lpdiff", "lpdiff, 1 thread"}
    assert "no such solver" in row["missing"]["lpdiff"]
    assert row["targets"] == []

    monkeypatch.setitem(peers.CONTESTANTS, "lpdiff, HiGHS", wrong_by(1e-3, 0.0))
    with pytest.raises(AssertionError, match="tiny: lpdiff, HiGHS is wrong"):
        structure.measure(tiny, repeats=1, solver="highs")


def test_memory_is_what_the_process_holds():
    from benchmarks import structure

    point = structure.child_growth(1_000, 2, "highs")
    arcs, nodes = 3 * 18**2 + 2 * 18, 19**2
    assert (point["arcs"], point["nodes"], len(point["seconds"])) == (arcs, nodes, 2)
    assert point["input_bytes"]["costs"] == 8 * arcs
    assert point["input_bytes"]["sides"] == 16 * (arcs + nodes)

    structure.forget_peak()
    before = structure.memory(peak=False)
    assert np.ones(10_000_000).sum() == 1e7
    assert structure.memory(peak=True) - before > 70e6


def test_command_writes_a_record_that_becomes_a_page_with_figures(tiny, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    from benchmarks import report, structure

    def point(arcs):
        return structure.child_growth(arcs, 1, "highs") | {"peak_over_input": 3.0}

    kinds = {"assignment": {"empty": 1.5, "cached": 0.25, "met": True}}
    first = {"kinds": kinds, "import_seconds": [0.5, 0.75, 1.0], "import_met": True}
    growth = {"points": [point(100), point(200)], "exponent": 1.234, "linear": False, "memory_met": True}
    other = dataclasses.replace(tiny, name="left-alone")
    monkeypatch.setattr(structure, "works", lambda: [tiny, other])
    monkeypatch.setattr(structure, "growth", lambda **keywords: growth)
    monkeypatch.setattr(structure, "first_calls", lambda **keywords: first)
    (tmp_path / "overhead.json").write_text((ROOT / "benchmarks/results/overhead.json").read_text())
    assert report.page(tmp_path) == report.overhead(json.loads((tmp_path / "overhead.json").read_text()))

    recorded = tmp_path / "structure.json"
    options = ["--quick", "--solver", "highs", "--json", str(recorded), "--only", "tiny", "growth", "first"]
    result = structure.main(options)
    printed = capsys.readouterr().out
    assert json.loads(recorded.read_text()) == result
    assert [row["name"] for row in result["works"]] == ["tiny"]
    assert f"at most 1e+09x the time of {MATCHING}" in printed
    assert "MISSED" in printed

    page = tmp_path / "docs" / "benchmarks.md"
    report.main(["--results", str(tmp_path), "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text == report.page(tmp_path)
    assert text.startswith(report.overhead(json.loads((tmp_path / "overhead.json").read_text())))
    assert f"Missed: tiny work against {RAW}." in text
    assert "power 1.23 (target: linear, 1.1 at most: missed)" in text
    assert "at most 4 times the input: met." in text
    assert "takes 0.75 s" in text
    assert "| assignment | 1.5 s | 250 ms | met |" in text
    assert "trial run" in text
    figures = [line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(figures) == 3
    for figure in figures:
        assert (page.parent / figure).read_text(encoding="utf-8").lstrip().startswith("<?xml"), figure
    before = {figure: (page.parent / figure).read_bytes() for figure in figures}
    report.main(["--results", str(tmp_path), "--page", str(page)])
    assert before == {figure: (page.parent / figure).read_bytes() for figure in figures}

    with pytest.raises(SystemExit):
        structure.main(["--only", "no-such-work"])
    assert "expected the start of one of tiny, left-alone, growth, first-call" in capsys.readouterr().err


def test_targets_are_those_of_the_plan():
    from benchmarks import peers, report, structure

    works = {work.name: work for work in structure.works()}
    asked = {
        (name, target.against): target.at_most for name, work in works.items() for target in work.targets
    }
    assert all(asked[f"assignment-{n}", MATCHING] == 0.5 for n in (8, 16, 32, 64))
    assert all(asked[f"assignment-{n}", "lapx batch, 2 threads"] == 1.2 for n in (200, 500))
    assert asked["assignment-16", "cvxpylayers"] == 1 / 500
    assert asked["alignment-20x20", "cvxpylayers"] == 1 / 2000
    assert asked["alignment-20x20", RAW] == 1 / 500
    assert asked["transport-50x50", "POT emd2 loop"] == 1
    assert asked["grid-5x5", "PyEPO, OR-Tools"] == pytest.approx(1 / 30)
    assert asked["grid-30x30", "PyEPO, OR-Tools"] == 1 / 500
    for work in works.values():
        assert set(work.contestants) <= set(peers.CONTESTANTS), work.name
        assert {work.reference, *(target.against for target in work.targets)} <= set(work.contestants)
        assert work.reference in (RAW, MATCHING)  # of packages that are always there
    problem = works["alignment-20x20"].make(64)
    assert (problem.lp.m, problem.lp.n, problem.costs.shape) == (441, 1_240, (64, 1_240))
    forth, back = np.split(peers.cyclic(4, 1).lp.A.toarray(), 2, axis=1)
    np.testing.assert_array_equal(forth, -back)
    sides = works["transport-50x50"].make(2).sides
    np.testing.assert_allclose(sides.sum(1), 2)
    assert not np.array_equal(sides[0], sides[1])
    assert report.asked({"at_most": 1 / 2000}) == "at least 2,000x faster than"
    assert report.faster(0.25) == "4.00x slower"
    assert [report.duration(s) for s in (1.5, 2e-3, 3e-6)] == ["1.5 s", "2 ms", "3 us"]
    assert math.isclose(structure.deviation(np.array([2.0]), np.array([1.0, 4.0])), 1.0)


def test_the_library_and_its_peers_agree():
    """measure() compares values and gradients before it times anything."""
    from benchmarks import library

    for kind in ("linear", "affine", "warping"):
        work = library.Work(
            kind, kind, "cell", 1, partial(library.alignments, kind, 7), smooth=(library.SOFT,)
        )
        row = library.measure(work, repeats=1)
        assert len(row["contestants"]) == {"linear": 3, "affine": 1, "warping": 3}[kind]
        assert not row["missing"]
    work = dataclasses.replace(work, runs=lambda: library.alignments("linear", 7) | wrong(library))
    with pytest.raises(AssertionError, match="wrong is"):
        library.measure(work, repeats=1)


def wrong(library):
    runs = library.alignments("warping", 7)
    return {"wrong": runs["torch anti-diagonals"]}


def test_the_large_alignment_is_measured_in_bytes():
    from benchmarks import library

    small = library.child_large(300)
    assert small["sparse"] and small["stored"] <= 300
    assert 0 < small["forward"] <= small["seconds"]


def test_the_library_becomes_a_section(tmp_path, capsys):
    from benchmarks import library, report

    record = library.main(
        ["--quick", "--only", "linear", "--repeats", "1", "--json", str(tmp_path / "r.json")]
    )
    assert json.loads((tmp_path / "r.json").read_text()) == record
    record["works"][0]["targets"][0] |= {"found": 99.0, "met": False}
    record["works"][0]["missing"] = {"nobody": "not installed"}
    record["large"] = {"n": 10_000, "seconds": 0.5, "bytes": 3e7, "stored": 8000, "met": True}
    text = report.library(record)
    assert "Missed: global alignment 50 x 50, batch 64 (at most 3 ns a cell)." in text
    assert "Left out, nobody: not installed." in text
    assert "30 MB beyond the costs, its gradient 8,000 stored numbers" in text
    assert "soft-DTW" in text and "trial run" in text
    capsys.readouterr()


def test_decisions_become_a_section(tmp_path, capsys):
    from benchmarks import decisions, report

    path = tmp_path / "decisions.json"
    decisions.main(["--quick", "--only", "SPO+", "identity", "--json", str(path)])
    record = json.loads(path.read_text())
    assert [row["name"] for row in record["methods"]] == ["SPO+", "identity"] and not record["speed"]
    assert all(0 < row["mean"] < 1000 for row in record["methods"])
    record["methods"][0] |= {"mean": 9.0, "spread": 1.0}
    record["methods"][1] |= {"mean": 9.0, "spread": 1.0}
    record["speed"] = [
        {
            "grid": 5,
            "missing": {},
            "seconds": {"lpdiff": 1e-3, "PyEPO, OR-Tools": 7e-3},
            "target": {"at_least": 8.0, "found": 7.0, "met": False},
        }
    ]
    text = report.decisions(record)
    assert "| SPO+ | 9.00 +- 1.00 | 7.6 | missed |" in text
    assert "| identity | 9.00 +- 1.00 | 8.9 | met |" in text
    assert "| 5x5 | 1 ms | 7 ms | 7x faster | 8x | missed |" in text
    assert "Missed: SPO+, SPO+ at 5x5." in text
    capsys.readouterr()


def test_decisions_are_learned_from_the_gradients_of_a_peer():
    pytest.importorskip("pyepo")
    from benchmarks import decisions

    row = decisions.speed(3, 1.0, quick=True, repeats=1)
    assert row["missing"] == {} and set(row["seconds"]) == {"lpdiff", "PyEPO, OR-Tools"}
