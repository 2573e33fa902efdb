"""Recognition: hidden networks are found and reproduced, near misses are refused, equal components grouped.

Oracles: the definition of a network by exhaustive signs and least squares on logarithms; networkx for graphs;
HiGHS (through SciPy) for what a fit claims about the program.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment, linprog

from lpdiff import recognition
from lpdiff.fitting import Roles, obstacle, single_path, unit_assignment
from lpdiff.network import Network
from lpdiff.recognition import recognise
from lpdiff.structure import Block, Structure

INF = np.inf


@dataclass(frozen=True)
class Form:
    """As much of a standard form as recognition reads."""

    m: int
    n: int
    indptr: np.ndarray
    indices: np.ndarray
    integrality: np.ndarray

    def name_of_row(self, i: int) -> str:
        return f"'r{i}'"

    def name_of_variable(self, j: int) -> str:
        return f"x[{j}]"


def declare(matrix, integrality=None) -> tuple[Form, np.ndarray]:
    """A form and its values, from a dense or sparse matrix (explicit zeros of a sparse one are kept)."""
    A = sp.csc_array(matrix)
    A.sort_indices()
    m, n = A.shape
    integer = np.zeros(n, bool) if integrality is None else np.asarray(integrality, bool)
    return Form(m, n, A.indptr.astype(np.int32), A.indices.astype(np.int32), integer), A.data.astype(float)


def structure_of(matrix, *sides, integrality=None) -> Structure:
    return recognise(*declare(matrix, integrality), *sides)


def incidence(tail, head, m) -> np.ndarray:
    """+1 at the tail, -1 at the head; node m is the ground, without a row."""
    N = np.zeros((m + 1, len(tail)))
    N[tail, np.arange(len(tail))] += 1.0
    N[head, np.arange(len(tail))] -= 1.0
    return N[:m]


def arcs_of(N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m = len(N)
    return (
        np.where((N > 0).any(axis=0), (N > 0).argmax(axis=0), m),
        np.where((N < 0).any(axis=0), (N < 0).argmax(axis=0), m),
    )


def check(structure: Structure, matrix) -> None:
    """Every row and column in one block; blocks have no entry between them; networks reproduce the matrix."""
    A = sp.csr_array(matrix)
    rows = np.concatenate([block.rows.ravel() for block in structure.blocks] or [np.zeros(0)])
    columns = np.concatenate([block.columns.ravel() for block in structure.blocks] or [np.zeros(0)])
    assert sorted(rows) == list(range(structure.m))
    assert sorted(columns) == list(range(structure.n))
    captured = 0
    for block in structure.blocks:
        assert (np.diff(block.rows, axis=1) > 0).all() and (np.diff(block.columns, axis=1) > 0).all()
        assert block.columns.dtype == block.rows.dtype == np.int32
        for rows, columns in zip(block.rows, block.columns, strict=True):
            part = A[rows][:, columns]
            captured += np.count_nonzero(part.data)
            lengths = np.count_nonzero(part.toarray(), axis=0)
            assert {
                "separable": len(rows) == 0,
                "empty rows": len(columns) == 0,
                "selection": len(rows) == 1 and (lengths == 1).all(),
                "network": block.network is not None and (lengths >= 1).all() and (lengths <= 2).all(),
                "general": bool(block.why) and len(rows) > 1,
            }[block.kind]
            if block.network is not None:
                network = block.network
                assert network.tail.dtype == network.head.dtype == np.int32
                assert (network.col_scale > 0).all()
                scaled = network.row_scale[:, None] * part.toarray() / network.col_scale
                np.testing.assert_allclose(
                    scaled, incidence(network.tail, network.head, network.m), rtol=0, atol=1e-12
                )
    assert captured == structure.entries == np.count_nonzero(A.data)


def only(structure: Structure) -> Block:
    (block,) = structure.blocks
    return block


def network_of(matrix) -> Network:
    network = only(structure_of(matrix)).network
    assert network is not None
    return network


def random_network(rng, m, n, ground=0.2, connected=True):
    tail, head = rng.integers(0, m, n), rng.integers(0, m - 1, n)
    head += head >= tail
    if connected:  # a random tree first
        parent = np.array([rng.integers(0, i) for i in range(1, m)], int)
        tail[: m - 1], head[: m - 1] = np.arange(1, m), parent
    earth = rng.random(n) < ground
    earth[: m - 1] &= not connected
    head[earth] = m
    swap = rng.random(n) < 0.5
    tail, head = np.where(swap, head, tail), np.where(swap, tail, head)
    order = rng.permutation(n)
    return tail[order], head[order]


def hide(rng, N, kind):
    """diag(1/s) N diag(alpha), for random s of either sign and alpha > 0."""
    m, n = N.shape
    if kind == "plain":
        return N
    s = rng.choice([-1.0, 1.0], m)
    alpha = np.ones(n)
    if kind == "powers":
        s, alpha = s * 2.0 ** rng.integers(-9, 10, m), 2.0 ** rng.integers(-20, 21, n)
    if kind == "reals":
        s, alpha = s * np.exp(rng.normal(size=m, scale=3)), np.exp(rng.normal(size=n, scale=5))
    return N / s[:, None] * alpha


# Networks, hidden.


@pytest.mark.parametrize("kind", ["plain", "signs", "powers", "reals"])
def test_hidden_networks_are_found(kind):
    rng = np.random.default_rng(1)
    for _ in range(150):
        m = int(rng.integers(2, 12))
        n = int(rng.integers(m - 1, 40))
        tail, head = random_network(rng, m, n)
        N = incidence(tail, head, m)
        A = hide(rng, N, kind)
        structure = structure_of(A)
        check(structure, A)
        block = only(structure)
        assert block.kind == "network" and block.whole and structure.components == 1
        network = block.network
        # The orientation is that of N, or the reverse; a lowest row with s = 1 keeps plain data as they are.
        same = np.array_equal(network.tail, tail) and np.array_equal(network.head, head)
        assert same or (np.array_equal(network.tail, head) and np.array_equal(network.head, tail))
        assert network.row_scale[0] == 1.0
        assert network.grounded == bool((head == m).any() or (tail == m).any())
        if kind == "plain":
            assert same and network.trivial
        if kind == "signs":
            assert network.unit_rows and network.unit_columns
        if kind == "powers":  # exactly
            scaled = network.row_scale[:, None] * A / network.col_scale
            assert np.array_equal(scaled, incidence(network.tail, network.head, m))


def test_random_narrow_matrices_against_the_definition():
    """All signs tried, and a least-squares fit of log|s|: a component is a network iff both can be had."""
    rng = np.random.default_rng(2)
    seen = {"network": 0, "general": 0, "selection": 0}
    for _ in range(1500):
        m, n = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        A = np.zeros((m, n))
        for j in range(n):
            rows = rng.choice(m, min(m, int(rng.integers(1, 3))), replace=False)
            A[rows, j] = rng.choice([1.0, -1.0, 2.0, -0.5], len(rows), p=[0.5, 0.35, 0.1, 0.05])
        structure = structure_of(A)
        check(structure, A)
        for block in structure.blocks:
            for rows, columns in zip(block.rows, block.columns, strict=True):
                if block.kind in seen:
                    seen[block.kind] += 1
                    if len(rows) > 1:
                        assert (block.kind == "network") == is_network(A[np.ix_(rows, columns)]), A
    assert min(seen.values()) > 100


def is_network(A: np.ndarray) -> bool:
    pairs = A[:, np.count_nonzero(A, axis=0) == 2]
    signs = itertools.product([1, -1], repeat=len(A))
    oriented = any((np.sign(s @ np.sign(pairs)) == 0).all() for s in (np.array(s) for s in signs))
    system, right = np.zeros((pairs.shape[1], len(A))), np.zeros(pairs.shape[1])
    for j, column in enumerate(pairs.T):
        i, k = np.flatnonzero(column)
        system[j, i], system[j, k] = 1, -1
        right[j] = np.log(abs(column[k])) - np.log(abs(column[i]))
    solution = np.linalg.lstsq(system, right)[0] if len(right) else np.zeros(len(A))
    return oriented and bool(np.allclose(system @ solution, right, atol=1e-9))


def test_long_paths_and_large_networks():
    rng = np.random.default_rng(3)
    m = 50_000
    nodes = rng.permutation(m)
    n = m - 1
    A = sp.csc_array(
        (np.tile([3.0, -3.0], n), (np.stack([nodes[:-1], nodes[1:]], 1).ravel(), np.repeat(np.arange(n), 2))),
        shape=(m, n),
    )
    network = network_of(A)
    assert network.acyclic and np.array_equal(network.order, nodes)
    assert network.unit_rows and not network.flipped and (network.col_scale == 3.0).all()
    # Real scales on a large random graph: roundings along the tree stay far below the tolerance.
    tail, head = random_network(rng, 2000, 30_000)
    N = sp.csc_array(incidence(tail, head, 2000))
    s, alpha = np.exp(rng.normal(size=2000)), np.exp(rng.normal(size=30_000))
    A = sp.diags_array(1 / s) @ N @ sp.diags_array(alpha)
    network = network_of(A)
    scaled = sp.diags_array(network.row_scale) @ A @ sp.diags_array(1 / network.col_scale)
    assert abs(scaled - N).max() < 1e-12 or abs(scaled + N).max() < 1e-12


# Near misses.


def cycle_matrix(m=6):
    """A directed cycle through all rows."""
    return incidence(np.arange(m), (np.arange(m) + 1) % m, m)


@pytest.mark.parametrize("factor", [1 + 1e-9, 1 - 1e-9, 1 + 1e-11, 1.05, 2.0])
def test_a_perturbed_coefficient_on_a_cycle_is_a_gain(factor):
    rng = np.random.default_rng(4)
    for kind in ("plain", "signs", "powers", "reals"):
        A = hide(rng, cycle_matrix(), kind)
        for j in range(6):
            B = A.copy()
            B[j, j] *= factor
            block = only(structure_of(B))
            assert block.kind == "general" and "generalised network" in block.why
            gain = float(block.why.split("gain of ")[1].split()[0])
            assert gain == pytest.approx(factor, rel=1e-11) or gain == pytest.approx(1 / factor, rel=1e-11)


def test_a_perturbed_coefficient_off_every_cycle_is_a_scale():
    A = incidence(np.array([0, 1, 2, 3]), np.array([1, 2, 0, 0]), 4)
    A[3, 3] *= 1 + 1e-9
    structure = structure_of(A)
    check(structure, A)
    assert only(structure).kind == "network" and not only(structure).network.unit_rows
    A[3, 3] = 1.0
    A[0, 0] *= 1 + 1e-14  # a rounding, on the cycle
    assert only(structure_of(A)).kind == "network"


def test_an_odd_cycle_has_no_orientation():
    A = cycle_matrix(5)
    for j in range(5):
        B = A.copy()
        B[j, j] *= -1
        block = only(structure_of(B))
        assert block.kind == "general" and "odd cycle" in block.why
        assert block.why.count("'r") == 2 and "x[" in block.why
    A[2] *= -1  # a whole row: harmless
    assert only(structure_of(A)).kind == "network"
    # Edges of an odd and an even cycle with equal signs: matching on a graph is a network iff bipartite.
    assert only(structure_of(np.abs(cycle_matrix(5)))).kind == "general"
    assert only(structure_of(np.abs(cycle_matrix(6)))).kind == "network"


def test_a_third_entry_however_small_counts_and_a_zero_does_not():
    A = sp.lil_array(cycle_matrix(6))
    A[3, 0] = 1e-300
    block = only(structure_of(A))
    assert block.kind == "general" and block.why == "column x[0] has 3 entries"
    form, values = declare(A)
    values[values == 1e-300] = 0.0
    structure = recognise(form, values)
    assert only(structure).kind == "network" and structure.entries == 12
    values[values == 0.0] = -0.0
    assert only(recognise(form, values)).kind == "network"
    # The extra entry joins two components, and its absence parts them.
    B = np.kron(np.eye(2), cycle_matrix(3))
    B[3, 0] = -1e-300
    assert structure_of(B).components == 1
    B[3, 0] = 0.0
    assert structure_of(B).components == 2


def test_scales_that_are_too_far_apart_are_refused():
    for steps, fits in ((40, True), (60, False)):
        A = incidence(np.arange(steps), np.arange(1, steps + 1), steps + 1)
        A[A < 0] = -0.5  # the scale doubles at every node
        block = only(structure_of(A))
        assert block.kind == ("network" if fits else "general")
        assert fits or "too far apart" in block.why
    A = cycle_matrix(3)
    A[:, 0] *= 1e-40
    assert "too far apart" in only(structure_of(A)).why
    for bad in (np.nan, np.inf):
        A = cycle_matrix(3)
        A[0, 0] = bad
        assert only(structure_of(A)).kind == "general"


def test_wide_columns_are_counted():
    A = np.ones((3, 4))
    A[2, 1] = 0
    why = only(structure_of(A)).why
    assert why == "column x[0] has 3 entries (of 4 columns, 3 have more than 2)"


# Degenerate sizes.


def test_empty_programs_rows_and_columns():
    for shape in ((0, 0), (0, 3), (4, 0), (2, 3)):
        structure = structure_of(np.zeros(shape))
        check(structure, np.zeros(shape))
        assert structure.components == 0
        kinds = [kind for kind, size in (("separable", shape[1]), ("empty rows", shape[0])) if size]
        assert [block.kind for block in structure.blocks] == kinds
    A = np.array([[0, 0, 0, 0], [0, 1, -1, 0], [0, 0, 0, 0], [0, 0, 2, 0.0], [0, 3.0, 0, 0]])
    structure = structure_of(A, integrality=[True, False, False, False])
    check(structure, A)
    network, separable, empty = structure.blocks
    assert network.rows.tolist() == [[1, 3, 4]] and network.columns.tolist() == [[1, 2]]
    assert not network.whole and not network.integers
    assert separable.columns.tolist() == [[0, 3]] and separable.integers
    assert empty.rows.tolist() == [[0, 2]]
    assert structure.kinds == {"network", "separable", "empty rows"}


def test_selection():
    structure = structure_of(np.array([[2.0, -1.0, 1e-300]]))
    assert only(structure).kind == "selection" and only(structure).whole
    structure = structure_of(np.array([[2.0, 0.0, 1.0]]))
    assert [block.kind for block in structure.blocks] == ["selection", "separable"]


# Components.


def test_components_by_both_algorithms(monkeypatch):
    rng = np.random.default_rng(5)
    for _ in range(200):
        m, n = (int(k) for k in rng.integers(1, 30, 2))
        A = sp.random_array((m, n), density=rng.choice([0.02, 0.06, 0.2]), rng=rng, format="csc")
        form, values = declare(A)
        graph = nx.Graph()
        graph.add_edges_from((("row", i), ("column", j)) for i, j in zip(*A.nonzero(), strict=True))
        expected = {
            frozenset(i for side, i in part if side == "row") for part in nx.connected_components(graph)
        }
        found = []
        for small in (0, 1 << 18):
            monkeypatch.setattr(recognition, "SMALL", small)
            label, count = recognition._components(form.indptr, form.indices, m)
            assert {frozenset(np.flatnonzero(label == c)) for c in range(count)} == expected
            found.append(label)
            check(recognise(form, values), A)
        assert np.array_equal(*found)
        first = [int(np.flatnonzero(found[0] == c)[0]) for c in range(count)]
        assert first == sorted(first)


def interleaved(rng, pieces) -> np.ndarray:
    """The block-diagonal matrix of the pieces with its rows and columns mixed, in order within each piece."""
    A = sp.block_diag(pieces).toarray()
    for axis in (0, 1):
        piece = np.repeat(np.arange(len(pieces)), [part.shape[axis] for part in pieces])
        # The order of the owners is random, each one's members come as they are.
        owners = rng.permutation(piece)
        order = np.empty(len(piece), int)
        for p in range(len(pieces)):
            order[owners == p] = np.flatnonzero(piece == p)
        A = np.take(A, order, axis=axis)
    return A


def test_equal_components_make_one_block():
    rng = np.random.default_rng(6)
    for _ in range(60):
        parts = [rng.integers(-1, 2, rng.integers(2, 4, 2)).astype(float) for _ in range(3)]
        copies = rng.integers(1, 6, 3)
        pieces = [part for part, k in zip(parts, copies, strict=True) for _ in range(k)]
        A = interleaved(rng, pieces)
        structure = structure_of(A)
        check(structure, A)
        contents = set()
        for block in structure.blocks:
            if block.kind in ("separable", "empty rows"):
                continue
            seen = {A[np.ix_(r, c)].tobytes() for r, c in zip(block.rows, block.columns, strict=True)}
            assert len(seen) == 1 or block.kind == "selection"
            key = (
                block.rows.shape[1],
                block.columns.shape[1],
                seen.pop() if block.kind != "selection" else b"",
            )
            assert key not in contents  # nothing equal is left apart
            contents.add(key)
            assert block.components == block.copies


def test_batches_in_every_interleaving():
    tail, head = np.repeat([0, 1, 2], 3), np.tile([3, 4, 5], 3)
    one = np.abs(incidence(tail, head, 6))
    for A in (np.kron(np.eye(4), one), np.kron(one, np.eye(4))):
        structure = structure_of(A)
        check(structure, A)
        block = only(structure)
        assert block.copies == structure.components == 4 and not block.whole
        assert block.network.bipartite.order == "rows"


def test_what_keeps_components_apart():
    one = cycle_matrix(3)
    pair = np.kron(np.eye(2), one)
    assert len(structure_of(pair).blocks) == 1
    assert len(structure_of(pair, integrality=[0, 0, 0, 1, 0, 0]).blocks) == 2
    assert len(structure_of(pair, integrality=[1, 0, 1, 1, 0, 1]).blocks) == 1
    triple = structure_of(np.kron(np.eye(3), one), integrality=[1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert sorted(block.copies for block in triple.blocks) == [1, 2]
    other = pair.copy()
    other[3:, 3:] *= 2
    assert len(structure_of(other).blocks) == 2
    other = pair.copy()
    other[3:, 3] *= -1
    assert len(structure_of(other).blocks) == 2
    # Selections are alike by their size: the coefficients are data.
    rows = np.kron(np.eye(3), np.ones((1, 2))) * np.arange(1.0, 7.0)
    structure = structure_of(rows)
    assert only(structure).copies == 3 and only(structure).kind == "selection"
    assert structure.positions(only(structure)).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_positions_of_entries():
    rng = np.random.default_rng(7)
    part = np.array([[1.0, 1, 1, 0], [0, 1, 1, 1], [1, 1, 0, 1]])
    A = np.kron(part, np.eye(3))
    form, values = declare(A)
    values = rng.permutation(len(values)) + 1.0
    structure = recognise(form, values)
    assert len(structure.blocks) == 3
    B = sp.csc_array((values, form.indices, form.indptr), shape=A.shape).toarray()
    for block in structure.blocks:
        piece = B[np.ix_(block.rows[0], block.columns[0])]
        expected = piece.T[piece.T != 0]
        assert np.array_equal(values[structure.positions(block)[0]], expected)
    # A stored zero in one of two selections that are alike, between two parts, and in a whole.
    form, _ = declare(np.array([[1.0, 1, 0, 0], [0, 1, 1, 1]]))
    structure = recognise(form, np.array([1.0, 1, 0, 1, 1]))
    assert only(structure).copies == 2
    assert structure.positions(only(structure)).tolist() == [[0, 1], [3, 4]]
    A = sp.csc_array(np.ones((2, 2)))
    form, values = declare(A)
    structure = recognise(form, np.array([5.0, 0.0, 0.0, 6.0]))
    assert structure.positions(only(structure)).tolist() == [[0], [3]]
    structure = recognise(form, np.array([5.0, 1.0, 0.0, 6.0]))
    assert only(structure).whole and structure.positions(only(structure)).tolist() == [[0, 1, 3]]
    structure = recognise(form, values)
    assert only(structure).whole and structure.positions(only(structure)).tolist() == [[0, 1, 2, 3]]


def test_hashes_are_not_trusted(monkeypatch):
    from lpdiff.kernels import recognise as kernels

    def collide(*arguments):
        arguments[-1][:] = 0

    pieces = [cycle_matrix(3), 2 * cycle_matrix(3), cycle_matrix(3), cycle_matrix(3)[:, [1, 2, 0]]]
    A = sp.block_diag(pieces).toarray()
    assert sorted(block.copies for block in structure_of(A).blocks) == [1, 1, 2]
    monkeypatch.setattr(kernels, "signatures", collide)
    assert len(structure_of(np.kron(np.eye(2), cycle_matrix(3)), integrality=[0, 0, 0, 1, 0, 0]).blocks) == 2
    structure = structure_of(A)
    check(structure, A)
    assert sorted(block.copies for block in structure.blocks) == [1, 1, 2]


def test_many_different_components_are_taken_together():
    rng = np.random.default_rng(8)
    limit = recognition.BLOCKS
    paths = [incidence(np.arange(k), np.arange(1, k + 1), k + 1) for k in range(1, limit + 9)]
    rows = [np.ones((1, k)) for k in range(1, limit + 5)]
    dense = [rng.random((3, k)) for k in range(1, limit + 3)]
    pieces = paths + rows + dense + [paths[-1]] * 3
    A = interleaved(rng, [pieces[i] for i in rng.permutation(len(pieces))])
    structure = structure_of(A)
    check(structure, A)
    kinds = [block.kind for block in structure.blocks]
    assert kinds.count("selection") == limit - 1
    assert kinds.count("network") == limit and kinds.count("general") == limit
    assert sum(block.components for block in structure.blocks) == structure.components == len(pieces)
    together = [block for block in structure.blocks if block.components > block.copies]
    assert [block.kind for block in together] == ["network", "general"]
    assert together[0].components == 9 + 5 and together[0].network.grounded
    assert together[1].components == 3 and "3 components taken together, general" in str(structure)


# Shapes of the graph.


def test_orders_and_cycles_against_networkx():
    rng = np.random.default_rng(9)
    seen = {True: 0, False: 0}
    for trial in range(400):
        m = int(rng.integers(2, 15))
        n = int(rng.integers(m - 1, 2 * m))
        tail, head = random_network(rng, m, n, ground=0.2 if trial % 2 else 0.0)
        if trial % 3:
            rank = rng.permutation(m + 1) if trial % 3 == 1 else np.arange(m + 1)
            swap = rank[tail] > rank[head]
            tail, head = np.where(swap, head, tail), np.where(swap, tail, head)
        network = network_of(incidence(tail, head, m))
        graph = nx.DiGraph(list(zip(network.tail, network.head, strict=True)))
        seen[network.acyclic] += 1
        assert network.acyclic == nx.is_directed_acyclic_graph(graph)
        assert network.nodes == graph.number_of_nodes()
        if network.acyclic:
            assert sorted(network.order) == list(range(network.nodes)) and network.cycle is None
            place = np.argsort(network.order)
            assert (place[network.tail] < place[network.head]).all()
            assert network.order.dtype == np.int32
        else:
            component = next(c for c in nx.strongly_connected_components(graph) if network.cycle in c)
            assert len(component) > 1 and network.order is None
        for ends, (start, arcs) in ((network.tail, network.leaving), (network.head, network.entering)):
            for v in range(network.nodes):
                assert arcs[start[v] : start[v + 1]].tolist() == np.flatnonzero(ends == v).tolist()
    assert min(seen.values()) > 50


def test_bipartite_orders():
    rng = np.random.default_rng(10)
    R, K = 3, 5
    tail, head = np.repeat(np.arange(R), K), np.tile(np.arange(K), R) + R
    rows = np.abs(incidence(tail, head, R + K))
    transposed = np.argsort(np.arange(R * K).reshape(R, K).T.ravel().argsort())  # k R + i
    pairs = network_of(rows).bipartite
    assert (pairs.order, pairs.dense, pairs.duplicates, pairs.shape) == ("rows", True, False, (R, K))
    assert np.array_equal(pairs.index, np.arange(R * K).reshape(R, K))
    columns = np.argsort(head * R + tail)
    pairs = network_of(rows[:, columns]).bipartite
    assert pairs.order == "columns" and pairs.dense
    assert np.array_equal(pairs.index, np.arange(R * K).reshape(K, R).T)
    assert sorted(transposed) == list(range(R * K))
    # Permuted, interleaved, sparse: the index map tells.
    for trial in range(100):
        keep = rng.permutation(R * K)[: R * K if trial % 2 else int(rng.integers(R * K // 2, R * K))]
        A = rows[rng.permutation(R + K)][:, keep]
        structure = structure_of(A)
        for block in structure.blocks:
            if block.network is None:
                continue
            pairs = block.network.bipartite
            assert pairs is not None and not pairs.duplicates
            assert sorted([*pairs.tails, *pairs.heads]) == list(range(block.network.m))
            local = A[np.ix_(block.rows[0], block.columns[0])]
            assert pairs.dense == (local.shape[1] == len(pairs.tails) * len(pairs.heads))
            assert np.count_nonzero(pairs.index >= 0) == local.shape[1]
            for (i, k), j in np.ndenumerate(pairs.index):
                if j >= 0:
                    assert set(np.flatnonzero(local[:, j])) == {pairs.tails[i], pairs.heads[k]}


def test_bipartite_refusals():
    rows = np.abs(incidence(np.repeat([0, 1], 2), np.tile([2, 3], 2), 4))
    doubled = np.hstack([rows, rows[:, :1]])
    pairs = network_of(doubled).bipartite
    assert pairs.duplicates and not pairs.dense and pairs.order == "general"
    swapped = np.hstack([rows[:, :3], rows[:, :1]])  # as many arcs as pairs, one of them twice
    assert network_of(swapped).bipartite.duplicates and not network_of(swapped).bipartite.dense
    slack = np.hstack([rows, [[1.0], [0], [0], [0]]])
    assert network_of(slack).bipartite is None and network_of(slack).grounded
    through = np.hstack([rows, [[1.0], [-1.0], [0], [0]]])
    assert network_of(through).bipartite is None and not network_of(through).grounded
    assert only(structure_of(np.abs(through))).kind == "general"
    assert network_of(cycle_matrix(4)).bipartite is None
    # A sparse graph of many nodes: duplicates are found without a table of all pairs.
    size = 400
    tail = np.concatenate([np.arange(size), np.arange(size - 1)])
    head = size + np.concatenate([np.arange(size), np.arange(1, size)])
    assert not network_of(incidence(tail, head, 2 * size)).bipartite.duplicates
    tail[-1], head[-1] = tail[3], head[3]
    tail, head = np.append(tail, size - 2), np.append(head, 2 * size - 1)
    assert network_of(incidence(tail, head, 2 * size)).bipartite.duplicates


def alignment(rows, columns):
    """Nodes of a grid, arcs right, down and diagonal."""
    node = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    tail = [node[:, :-1].ravel(), node[:-1].ravel(), node[:-1, :-1].ravel()]
    head = [node[:, 1:].ravel(), node[1:].ravel(), node[1:, 1:].ravel()]
    return np.concatenate(tail), np.concatenate(head), node.size


def test_alignment_grid():
    tail, head, m = alignment(20, 20)
    N = incidence(tail, head, m)
    network = network_of(N)
    assert (network.nodes, network.n, network.trivial) == (441, 1240, True)
    assert np.array_equal(network.order, np.arange(m))
    assert np.array_equal(network_of(-N).order, np.arange(m)[::-1])
    b = np.zeros(m)
    b[0], b[-1] = 1.0, -1.0
    structure = structure_of(N, b, b, np.zeros(1240), np.full(1240, INF))
    assert str(structure) == (
        "441 rows, 1,240 columns, 2,480 entries: 1 component\n"
        "  network: node-arc incidence, 441 nodes, 1,240 arcs, acyclic; "
        "as declared one path from 'r0' to 'r440'"
    )


# Questions about the numbers.


def solve(A, c, rl, ru, lower, upper) -> float:
    equal, finite_up, finite_low = rl == ru, np.isfinite(ru) & (rl != ru), np.isfinite(rl) & (rl != ru)
    result = linprog(
        c,
        A_eq=A[equal] if equal.any() else None,
        b_eq=rl[equal] if equal.any() else None,
        A_ub=np.vstack([A[finite_up], -A[finite_low]]),
        b_ub=np.concatenate([ru[finite_up], -rl[finite_low]]),
        bounds=np.stack([lower, upper], axis=1),
        method="highs",
    )
    return result.fun if result.status == 0 else INF


def items(*arrays):
    return tuple(np.atleast_2d(array) for array in arrays)


@pytest.mark.parametrize("kind", ["plain", "signs", "powers", "reals"])
def test_a_path_fit_is_a_shortest_path_problem(kind):
    rng = np.random.default_rng(11)
    grounded = 0
    for _ in range(80):
        m = int(rng.integers(2, 8))
        n = int(rng.integers(m, 25))
        tail, head = random_network(rng, m, n)
        N = incidence(tail, head, m)
        s = rng.choice([-1.0, 1.0], m) if kind != "plain" else np.ones(m)
        alpha = np.ones(n)
        if kind in ("powers", "reals"):
            s, alpha = s * 2.0 ** rng.integers(-4, 5, m), 2.0 ** rng.integers(-4, 5, n)
        if kind == "reals":
            s, alpha = s * np.exp(rng.normal(size=m)), alpha * np.exp(rng.normal(size=n))
        A = N / s[:, None] * alpha
        nodes = m + bool((tail == m).any() or (head == m).any())
        source, sink = rng.choice(nodes, 2, replace=False)
        flow = rng.choice([1.0, 2.5])
        supply = np.zeros(m + 1)
        supply[source], supply[sink] = flow, -flow
        b = supply[:m] / s
        c = rng.integers(0, 6, n).astype(float)
        forbidden = rng.random(n) < 0.1
        # Room for the flow, more or less exactly, or without end.
        upper = np.where(forbidden, 0.0, rng.choice([INF, 1.0, 3.0], n) * flow * (1 + 1e-15)) / alpha
        upper = np.nan_to_num(upper, nan=INF, posinf=INF)
        network = network_of(A)
        fit = single_path(network, *items(b, b, np.zeros(n), upper))
        assert fit.fits.tolist() == [True]
        assert fit.forbidden[0] == forbidden.any()
        grounded += source == m or sink == m
        # The lowest row has scale 1: flows are the network's up to one factor and one direction.
        forward = np.array_equal(network.tail, tail)
        ends = (source, sink) if forward else (sink, source)
        assert (fit.source[0], fit.sink[0]) == ends
        graph = nx.DiGraph()
        graph.add_nodes_from(range(m + 1))
        for t, h, cost, closed in zip(
            network.tail, network.head, network.costs(c[None])[0], forbidden, strict=True
        ):
            if not closed and cost < graph.get_edge_data(t, h, {"weight": INF})["weight"]:
                graph.add_edge(t, h, weight=cost)
        try:
            length = nx.bellman_ford_path_length(graph, fit.source[0], fit.sink[0])
        except nx.NetworkXNoPath:
            length = INF
        assert solve(A, c, b, b, np.zeros(n), upper) == pytest.approx(
            fit.flow[0] * length, rel=1e-9, abs=1e-9
        )
    assert grounded > 5


def test_what_a_path_must_have():
    tail, head, m = alignment(2, 2)
    n = len(tail)
    network = network_of(incidence(tail, head, m))
    b = np.zeros(m)
    b[0], b[-1] = 2.0, -2.0
    zero, free = np.zeros(n), np.full(n, INF)

    def fits(rl=b, ru=b, lower=zero, upper=free, network=network):
        fit = single_path(network, *items(rl, ru, lower, upper))
        answer = fit.fits[0]
        assert answer == (obstacle(network, *items(rl, ru, lower, upper)) == "")
        if not answer:
            assert (fit.source[0], fit.sink[0], fit.flow[0]) == (-1, -1, 0.0)
        return answer

    def put(array, at, value):
        copy = array.copy()
        copy[at] = value
        return copy

    assert fits()
    assert fits(upper=put(free, 3, 2.0)) and fits(upper=put(free, 3, 0.0)) and fits(upper=put(free, 3, 1e20))
    assert not fits(upper=put(free, 3, 1.999)) and not fits(upper=put(free, 3, -1.0))
    assert not fits(lower=put(zero, 3, 0.5)) and not fits(lower=put(zero, 3, -INF))
    assert not fits(lower=put(zero, 0, np.nan)) and not fits(upper=put(free, 0, np.nan))
    assert not fits(ru=put(b, 4, 1.0)) and not fits(rl=put(b, 4, -INF))
    assert not fits(rl=put(b, 4, np.nan), ru=put(b, 4, np.nan))
    for at, value in ((4, 1.0), (-1, -1.0), (-1, 2.0), (-1, -2.0 - 1e-9), (-1, 0.0)):
        other = put(b, at, value)
        assert not fits(rl=other, ru=other)
    assert not fits(rl=0 * b, ru=0 * b)
    # With a ground one row is enough, and two are still a path; three are not.
    grounded = network_of(np.hstack([incidence(tail, head, m), np.eye(m)[:, -1:]]))
    more = {"lower": np.zeros(n + 1), "upper": np.full(n + 1, INF), "network": grounded}
    one = put(b, -1, 0.0)
    assert fits(one, one, **more) and fits(b, b, **more)
    assert single_path(grounded, *items(one, one, more["lower"], more["upper"])).sink[0] == m
    assert fits(-one, -one, **more)
    assert single_path(grounded, *items(-one, -one, more["lower"], more["upper"])).source[0] == m
    other = put(b, -1, -1.0)
    assert not fits(other, other, **more)


def test_path_fits_per_item():
    tail, head, m = alignment(2, 2)
    n = len(tail)
    network = network_of(incidence(tail, head, m))
    rng = np.random.default_rng(12)
    b = np.zeros((40, m))
    for row in b:
        ends = rng.choice(m, 2, replace=False)
        row[ends[0]], row[ends[1]] = 1.0, -1.0
    b[::7, 0] += 1.0
    upper = np.where(rng.random((40, n)) < 0.1, rng.choice([0.0, 0.5]), 1.0)
    zero = np.zeros((1, n))
    for rows, caps in ((b, upper), (b, upper[:1]), (b[:1], upper), (b[:1], upper[:1])):
        fit = single_path(network, rows, rows, zero, caps)
        size = max(len(rows), len(caps))
        assert all(len(part) == size for part in fit)
        for i in range(size):
            item = (rows[i % len(rows)], rows[i % len(rows)], zero[0], caps[i % len(caps)])
            single = single_path(network, *items(*item))
            assert all(part[i] == alone[0] for part, alone in zip(fit, single, strict=True))
            if fit.fits[i]:
                assert rows[i % len(rows)][fit.source[i]] == 1.0 and rows[i % len(rows)][fit.sink[i]] == -1.0
    assert 0 < single_path(network, b, b, zero, upper).fits.sum() < 40


def bipartite_program(rng, R, K, kind, flow, roles):
    """An assignment LP in hiding: A, sides, and the scales that hide it."""
    tail, head = np.repeat(np.arange(R), K), np.tile(np.arange(K), R) + R
    N = incidence(tail, head, R + K)
    m, n = N.shape
    s, alpha = np.repeat([1.0, -1.0], [R, K]), np.ones(n)  # plain: rows that sum up
    if kind != "plain":
        s = rng.choice([-1.0, 1.0], m)
    if kind == "scaled":
        s, alpha = s * 2.0 ** rng.integers(-4, 5, m), np.exp(rng.normal(size=n))
    A = N / s[:, None] * alpha
    equal_tails, equal_heads = roles
    high = np.concatenate([np.full(R, flow), np.full(K, -flow if equal_heads else 0.0)])
    low = np.concatenate([np.full(R, flow if equal_tails else 0.0), np.full(K, -flow)])
    if not equal_tails:
        low[:R] = rng.choice([0.0, -INF, -1.0])
    if not equal_heads:
        high[R:] = rng.choice([0.0, INF, 1.0])
    with np.errstate(invalid="ignore"):
        sides = np.sort(np.stack([low / s, high / s]), axis=0)
    return A, sides[0], sides[1], alpha


@pytest.mark.parametrize("kind", ["plain", "signs", "scaled"])
@pytest.mark.parametrize("roles", list(itertools.product([True, False], repeat=2)))
def test_an_assignment_fit_is_an_assignment_problem(kind, roles):
    rng = np.random.default_rng(13)
    for _ in range(25):
        R, K = (int(k) for k in rng.integers(1, 6, 2))
        if R == K == 1 or min(R, K) == 0:
            R = K = 2
        flow = float(rng.choice([1.0, 3.0]))
        A, rl, ru, alpha = bipartite_program(rng, R, K, kind, flow, roles)
        order, rows = rng.permutation(R * K), rng.permutation(R + K)
        A, rl, ru, alpha = A[np.ix_(rows, order)], rl[rows], ru[rows], alpha[order]
        n = R * K
        forbidden = rng.random(n) < 0.1
        upper = np.where(forbidden, 0.0, rng.choice([INF, 1.0, 2.0], n) * flow * (1 + 1e-15) / alpha)
        block = only(structure_of(A))
        network = block.network
        fit = unit_assignment(network, *items(rl, ru, np.zeros(n), upper))
        pairs = network.bipartite
        r, k = pairs.shape
        # Tails and heads may have changed sides.
        turned = not np.isin(np.flatnonzero(np.isin(rows, np.arange(R))), pairs.tails).all()
        tails, heads = roles[::-1] if turned else roles
        expected = Roles.NONE
        if tails and heads:
            expected = Roles.SQUARE if r == k else Roles.NONE
        elif tails:
            expected = Roles.TAILS if r <= k else Roles.NONE
        elif heads:
            expected = Roles.HEADS if k <= r else Roles.NONE
        else:
            expected = Roles.PARTIAL
        assert fit.roles.tolist() == [expected] and fit.fits[0] == (expected != Roles.NONE)
        assert fit.forbidden[0] == forbidden.any()
        if expected == Roles.NONE:
            assert fit.flow[0] == 0.0
            continue
        c = rng.integers(-5, 6, n).astype(float)
        costs = np.where(forbidden, 1e6, network.costs(c[None])[0])[pairs.index]
        if expected == Roles.PARTIAL:
            costs = np.minimum(costs, 0.0)
        i, j = linear_sum_assignment(costs)
        total = costs[i, j].sum()
        value = solve(A, c, rl, ru, np.zeros(n), upper)
        if total > 1e5:
            assert value == INF
        else:
            assert value == pytest.approx(fit.flow[0] * total, rel=1e-9, abs=1e-9)


def test_what_an_assignment_must_have():
    R = K = 3
    n = R * K
    A = np.abs(incidence(np.repeat(np.arange(R), K), np.tile(np.arange(K), R) + R, R + K))
    network = network_of(A)
    one, zero, free = np.ones(R + K), np.zeros(n), np.full(n, INF)

    def role(rl=one, ru=one, lower=zero, upper=free, network=network):
        data = items(rl, ru, lower, upper)
        fit = unit_assignment(network, *data)
        assert (fit.flow[0] > 0) == fit.fits[0] == (obstacle(network, *data) == "")
        return Roles(fit.roles[0])

    def put(array, at, value):
        copy = array.copy()
        copy[at] = value
        return copy

    assert role() == Roles.SQUARE
    assert role(rl=put(one, slice(0, 3), 0.0)) == Roles.HEADS
    assert role(rl=put(one, slice(3, 6), -INF)) == Roles.TAILS
    assert role(rl=0 * one) == Roles.PARTIAL
    assert role(upper=put(free, 2, 1.0)) == Roles.SQUARE and role(upper=put(free, 2, 0.0)) == Roles.SQUARE
    for at in range(R + K):
        for value in (0.0, -INF, 0.5):  # one row is not like the others of its side
            assert role(rl=put(one, at, value)) == Roles.NONE
        for value in (2.0, INF, 1 + 1e-9):
            assert role(ru=put(one, at, value)) == Roles.NONE
            assert role(rl=put(one, at, value), ru=put(one, at, value)) == Roles.NONE
        assert role(rl=put(one, at, np.nan)) == role(ru=put(one, at, np.nan)) == Roles.NONE
        assert role(rl=0 * one, ru=put(one, at, 2.0)) == Roles.NONE
        assert role(rl=0.5 * one) == Roles.NONE
    assert role(rl=-one, ru=-one) == role(rl=0 * one, ru=0 * one) == Roles.NONE
    assert role(rl=0 * one, ru=np.full(6, INF)) == Roles.NONE
    for at in range(n):
        assert role(upper=put(free, at, 0.5)) == role(upper=put(free, at, -1.0)) == Roles.NONE
        assert role(lower=put(zero, at, 1e-6)) == role(lower=put(zero, at, -INF)) == Roles.NONE
        assert role(lower=put(zero, at, np.nan)) == role(upper=put(free, at, np.nan)) == Roles.NONE
    doubled = network_of(np.hstack([A, A[:, :1]]))
    assert role(one, one, np.zeros(10), np.full(10, INF), doubled) == Roles.NONE


def test_assignment_fits_per_item():
    rng = np.random.default_rng(14)
    A = np.abs(incidence(np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3) + 3, 6))
    network = network_of(A * 2.0 ** rng.integers(-2, 3, 9))
    rl, ru = np.ones((30, 6)), np.ones((30, 6))
    rl[3::4, :3], rl[2::4] = 0.0, -INF
    ru[::5, 1] = 2.0
    upper = np.where(rng.random((30, 9)) < 0.05, rng.choice([0.0, 0.1], (30, 9)), 8.0)
    zero = np.zeros((1, 9))
    for parts in itertools.product(*(((array, array[:1])) for array in (rl, ru, upper))):
        data = parts[0], parts[1], zero, parts[2]
        fit = unit_assignment(network, *data)
        size = max(map(len, data))
        assert all(len(part) == size for part in fit)
        for i in range(size):
            alone = unit_assignment(network, *(array[i % len(array)][None] for array in data))
            assert all(part[i] == single[0] for part, single in zip(fit, alone, strict=True))
    assert set(unit_assignment(network, rl, ru, zero, upper).roles) == {
        Roles.NONE, Roles.SQUARE, Roles.HEADS, Roles.PARTIAL
    }  # fmt: skip


def test_translations():
    """The flow problem has the values of the program: costs, supplies and capacities go together."""
    rng = np.random.default_rng(15)
    for _ in range(40):
        m, n = 5, 12
        tail, head = random_network(rng, m, n)
        s, alpha = rng.choice([-2.0, -1.0, 0.5, 4.0], m), 2.0 ** rng.integers(-3, 4, n)
        A = incidence(tail, head, m) / s[:, None] * alpha
        network = network_of(A)
        x = rng.random(n)
        rl, ru = A @ x - rng.random(m), A @ x + rng.random(m)
        rl[0], ru[1] = -INF, INF
        c, lower, upper = rng.normal(size=n), np.zeros(n), np.where(rng.random(n) < 0.3, INF, 1.0)
        low, high = network.supplies(*items(rl, ru))
        assert (low <= high).all()
        value = solve(A, c, rl, ru, lower, np.minimum(upper, 9.0))
        flows = solve(
            incidence(network.tail, network.head, m),
            network.costs(c[None])[0],
            low[0],
            high[0],
            network.capacities(lower[None])[0],
            network.capacities(np.minimum(upper, 9.0)[None])[0],
        )
        assert flows == pytest.approx(value, rel=1e-7, abs=1e-9)
        # One side shared, the other per item.
        both = network.supplies(rl[None], np.stack([ru, ru + 1]))
        again = network.supplies(np.stack([rl, rl]), np.stack([ru, ru + 1]))
        assert all(np.array_equal(np.broadcast_to(a, b.shape), b) for a, b in zip(both, again, strict=True))


# Texts.


def test_texts():
    R = K = 4
    A = np.abs(incidence(np.repeat(np.arange(R), K), np.tile(np.arange(K), R) + R, R + K))
    one, zero, free = np.ones(8), np.zeros(16), np.full(16, INF)
    assert str(structure_of(A, one, one, zero, free)) == (
        "8 rows, 16 columns, 32 entries: 1 component\n"
        "  network: node-arc incidence up to signs of rows, 8 nodes, 16 arcs, bipartite 4 x 4 (all pairs); "
        "as declared a square assignment"
    )
    both = structure_of(np.kron(np.eye(3), A), *(np.tile(array, 3) for array in (one, one, zero, free)))
    assert "3 equal components, each network" in str(both) and str(both).endswith("each a square assignment")
    sides = np.tile(one, 3)
    sides[0] = 2.0
    mixed = structure_of(np.kron(np.eye(3), A), sides, sides, np.tile(zero, 3), np.tile(free, 3))
    assert str(mixed).endswith("2 of them a square assignment")
    assert str(structure_of(A, one * 0, one, zero, free)).endswith("a partial assignment")
    assert str(structure_of(A, one, one, zero, free / 2)).endswith("a square assignment")
    rng = np.random.default_rng(16)
    b = A @ rng.random(16)
    assert str(structure_of(A, b, b, zero, free)).endswith(
        "a minimum-cost flow (the sides of its rows differ)"
    )
    cycle = structure_of(np.hstack([cycle_matrix(3), [[2.0], [0], [0]]]), integrality=[1, 0, 0, 0])
    assert "up to scales of columns, 4 nodes (one the ground), 4 arcs, a cycle through 'r" in str(cycle)
    assert str(cycle).endswith("with integer variables")
    text = str(structure_of(np.array([[0, 1.0, 1], [0, 0, 0]])))
    assert text.splitlines() == [
        "2 rows, 3 columns, 2 entries: 1 component",
        "  selection: one row, 2 columns",
        "  separable: 1 column without entries",
        "  empty rows: 1 row without entries",
    ]
    text = str(structure_of(np.ones((3, 1))))
    assert text.endswith("general: 3 rows, 1 column; not a network: column x[0] has 3 entries")
    gain = cycle_matrix(3)
    gain[0, 0] = 1.05
    assert str(structure_of(gain)).endswith(
        "not a network: the cycle through 'r1' and 'r2' that column x[1] closes has inconsistent scales, "
        "with a gain of 1.05 (a generalised network)"
    )


def test_a_structure_is_a_value():
    structure = structure_of(cycle_matrix(3))
    with pytest.raises(AttributeError):
        structure.components = 3
    assert replace(structure, components=7).components == 7
    assert "sides" not in repr(structure)
