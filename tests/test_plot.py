"""Pictures show what they are given."""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot

from lpdiff import plot
from lpdiff.problems.alignment import global_alignment

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def test_alignment():
    a, b = "KITTEN", "SITTING"
    costs = torch.tensor([[float(x != y) for y in b] for x in a]).requires_grad_()
    ax = plot.alignment(costs, global_alignment(costs, gap=0.6).pairs, rows=a, columns=b)
    assert np.array_equal(ax.images[0].get_array(), costs.detach().numpy())
    points = ax.collections[0].get_offsets()
    assert points.tolist() == [[k, k] for k in range(6)]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(b)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(a)


def test_the_path_goes_through_what_is_left_out():
    ax = plot.alignment(np.zeros((5, 6)), [[0, 0], [3, 2], [-1, -1]])
    line = ax.lines[0].get_xydata()  # (column, row)
    assert line.tolist() == [[0, 0], [0, 2], [1, 2], [2, 3]]
    steps = np.diff(line, axis=0)
    assert all(0 in step or abs(step[0]) == abs(step[1]) for step in steps)
    assert not plot.alignment(np.zeros((5, 6)), [[0, 0], [3, 2]], path=False, ax=pyplot.subplots()[1]).lines


def test_nothing_paired():
    assert not plot.alignment(np.zeros((2, 2)), np.zeros((0, 2), dtype=int)).lines


def test_matching():
    costs = torch.rand(3, 4)
    costs[0, 0] = torch.inf
    ax = plot.matching(costs, [[0, 1], [2, 3]], rows="abc", ax=pyplot.subplots()[1])
    thick = [line for line in ax.lines if line.get_linewidth() == 2]
    assert [line.get_xydata().tolist() for line in thick] == [
        [[0, 1], [1, pytest.approx(2 / 3)]],
        [[0, 0], [1, 0]],
    ]
    assert len(ax.lines) == 2 + 11  # a forbidden pair is no edge
    assert [text.get_text() for text in ax.texts] == [*"abc", *"0123"]


def test_grid_path():
    cells = [[0, 0], [1, 1], [1, 2]]
    ax = plot.grid_path(np.arange(6.0).reshape(2, 3), cells)
    assert ax.lines[0].get_xydata().tolist() == [[0, 0], [1, 1], [2, 1]]


def test_bad_input():
    with pytest.raises(ValueError, match=r"one item of the batch, got \(2, 3, 3\)"):
        plot.alignment(np.zeros((2, 3, 3)), [[0, 0]])
    with pytest.raises(ValueError, match=r"expected shape \(k, 2\)"):
        plot.alignment(np.zeros((3, 3)), np.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match="rows: expected 3 names, one each, got 2"):
        plot.alignment(np.zeros((3, 3)), [[0, 0]], rows="ab")
    with pytest.raises(ValueError, match="one item"):
        plot.matching(np.zeros(3), [[0, 0]])
    with pytest.raises(ValueError, match="one item"):
        plot.grid_path(np.zeros(3), [[0, 0]])


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'lpdiff\[plot\]'"):
        plot.grid_path(np.zeros((2, 2)), [[0, 0]])
