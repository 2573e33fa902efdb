"""Declaring a LinearProgram: every form that users write, and every mistake they make."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
import torch

import lpdiff
from lpdiff import LinearProgram
from lpdiff.standard import FIELDS

A = np.array([[1.0, 0.0, 2.0], [0.0, -3.0, 0.0]])
B = np.array([1.0, 2.0])
C = np.array([1.0, 2.0, 3.0])

MATRICES = {
    "nested lists": lambda: A.tolist(),
    "numpy": lambda: A.copy(),
    "Fortran order": lambda: np.asfortranarray(A),
    "float32": lambda: A.astype(np.float32),
    "int64": lambda: A.astype(np.int64),
    "int8": lambda: A.astype(np.int8),
    "objects": lambda: A.astype(object),
    "strided": lambda: np.repeat(A, 2, axis=1)[:, ::2],
    "read-only": lambda: read_only(A),
    **{f"{kind}_array": lambda kind=kind: getattr(sp, f"{kind}_array")(A) for kind in
       ("csc", "csr", "coo", "lil", "dok", "bsr", "dia")},
    **{f"{kind}_matrix": lambda kind=kind: getattr(sp, f"{kind}_matrix")(A) for kind in
       ("csc", "csr", "coo", "lil", "dok", "bsr", "dia")},
    "sparse int8": lambda: sp.csr_array(A.astype(np.int8)),
    "sparse int64 indices": lambda: wide_indices(A),
    "torch": lambda: torch.tensor(A),
    "torch float16": lambda: torch.tensor(A, dtype=torch.float16),
    "torch bfloat16": lambda: torch.tensor(A, dtype=torch.bfloat16),
    "torch int": lambda: torch.tensor(A, dtype=torch.int32),
    "torch transposed": lambda: torch.tensor(A.T.copy()).T,
    "torch coo": lambda: torch.tensor(A).to_sparse_coo(),
}  # fmt: skip


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def wide_indices(array: np.ndarray) -> sp.csr_array:
    matrix = sp.csr_array(array)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


# -- what is declared ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", MATRICES)
def test_every_form_of_a_matrix(form):
    lp = LinearProgram(C, A_ub=MATRICES[form](), b_ub=B)
    assert np.array_equal(lp.A.toarray(), A)
    assert lp.nnz == 3
    assert lp.A.data.dtype == np.float64
    assert lp.A.indices.dtype == lp.A.indptr.dtype == np.int32
    assert isinstance(lp.A, sp.csc_array)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_torch_csr():
    lp = LinearProgram(C, A_ub=torch.tensor(A).to_sparse_csr(), b_ub=B)
    assert np.array_equal(lp.A.toarray(), A)


@pytest.mark.parametrize("convert", [list, tuple, np.array, torch.tensor, lambda v: np.array(v, np.int8)])
def test_every_form_of_a_vector(convert):
    lp = LinearProgram(convert([1, 2, 3]), A_ub=A, b_ub=convert([4, 5]), A_eq=A, b_eq=convert([6, 7]))
    assert lp.c.tolist() == [1, 2, 3]
    assert lp.row_upper.tolist() == [4, 5, 6, 7]
    assert lp.row_lower.tolist() == [-np.inf, -np.inf, 6, 7]
    assert lp.c.dtype == lp.row_upper.dtype == np.float64


def test_blocks_are_stacked_in_order():
    lp = LinearProgram(
        C, A_ub=A, b_ub=B, A_eq=A[:1], b_eq=[5.0], A=-A, row_lower=[-1.0, -np.inf], row_upper=[np.inf, 4.0]
    )
    assert (lp.m, lp.n, lp.nnz) == (5, 3, 8)
    assert lp.blocks == {"ub": slice(0, 2), "eq": slice(2, 3), "ranged": slice(3, 5)}
    assert np.array_equal(lp.A.toarray(), np.vstack([A, A[:1], -A]))
    assert lp.row_lower.tolist() == [-np.inf, -np.inf, 5, -1, -np.inf]
    assert lp.row_upper.tolist() == [1, 2, 5, np.inf, 4]


def test_scalar_sides_spread_over_the_rows():
    lp = LinearProgram(C, A_ub=A, b_ub=7, A=A, row_lower=-1.0, row_upper=np.float32(2))
    assert lp.row_upper.tolist() == [7, 7, 2, 2]
    assert lp.row_lower.tolist() == [-np.inf, -np.inf, -1, -1]


@pytest.mark.parametrize("given", ["row_lower", "row_upper"])
def test_a_row_block_with_one_side(given):
    lp = LinearProgram(C, A=A, **{given: B})
    other = "row_upper" if given == "row_lower" else "row_lower"
    assert getattr(lp, given).tolist() == B.tolist()
    assert np.isinf(getattr(lp, other)).all()


def test_the_pattern_is_column_major_and_sorted():
    shuffled = sp.coo_array(([5.0, 4, 3, 2], ([1, 0, 1, 0], [2, 2, 0, 1])), shape=(2, 3))
    lp = LinearProgram(C, A_ub=shuffled, b_ub=B)
    assert lp.rows.tolist() == [1, 0, 0, 1]
    assert lp.cols.tolist() == [0, 1, 2, 2]
    assert lp.A.data.tolist() == [3, 2, 4, 5]


@pytest.mark.parametrize("build", [sp.coo_array, sp.csr_array, sp.csc_array])
def test_duplicates_are_summed_and_stored_zeros_kept(build):
    # Two entries at (0, 0), which cancel; a stored zero at (1, 2).
    coo = sp.coo_array(([1.0, -1.0, 4.0, 0.0], ([0, 0, 1, 1], [0, 0, 1, 2])), shape=(2, 3))
    matrix = coo if build is sp.coo_array else build((coo.data, coo.coords), shape=coo.shape)
    lp = LinearProgram(C, A_ub=matrix, b_ub=B)
    assert (lp.rows.tolist(), lp.cols.tolist()) == ([0, 1, 1], [0, 1, 2])
    assert lp.A.data.tolist() == [0, 4, 0]


def test_a_dense_zero_is_no_entry_and_a_torch_one_neither():
    assert LinearProgram(C, A_ub=np.zeros((2, 3)), b_ub=B).nnz == 0
    assert LinearProgram(C, A_ub=torch.zeros(2, 3), b_ub=B).nnz == 0


def test_duplicates_of_narrow_integers_do_not_overflow():
    scipy_matrix = sp.coo_array((np.array([100, 100], np.int8), ([0, 0], [0, 0])), shape=(1, 1))
    torch_matrix = torch.sparse_coo_tensor(
        [[0, 0], [0, 0]], torch.tensor([100, 100], dtype=torch.int8), (1, 1), check_invariants=True
    )
    for matrix in (scipy_matrix, torch_matrix):
        assert LinearProgram([1.0], A_ub=matrix, b_ub=[1.0]).A.data.tolist() == [200]


@pytest.mark.parametrize(
    ("bounds", "lower", "upper"),
    [
        ((0, None), [0, 0, 0], [np.inf] * 3),
        ((None, None), [-np.inf] * 3, [np.inf] * 3),
        (None, [-np.inf] * 3, [np.inf] * 3),
        ((-1, 2.5), [-1] * 3, [2.5] * 3),
        ([(0, 1), (None, 2), (3, None)], [0, -np.inf, 3], [1, 2, np.inf]),
        (((0, 1), (None, 2), (3, None)), [0, -np.inf, 3], [1, 2, np.inf]),
        (np.array([[0, 1], [-np.inf, 2], [3, np.inf]]), [0, -np.inf, 3], [1, 2, np.inf]),
        (torch.tensor([[0.0, 1], [0, 2], [0, 3]]), [0, 0, 0], [1, 2, 3]),
        (scipy.optimize.Bounds(), [-np.inf] * 3, [np.inf] * 3),
        (scipy.optimize.Bounds(0, [1, 2, 3]), [0, 0, 0], [1, 2, 3]),
        (scipy.optimize.Bounds([0, 1, 2], 5), [0, 1, 2], [5, 5, 5]),
        ((-1e20, 1e30), [-np.inf] * 3, [np.inf] * 3),
        ((-9e19, 9e19), [-9e19] * 3, [9e19] * 3),
        ((2, 2), [2] * 3, [2] * 3),
    ],
    ids=repr,
)
def test_bounds(bounds, lower, upper):
    lp = LinearProgram(C, bounds=bounds)
    assert lp.lower.tolist() == lower
    assert lp.upper.tolist() == upper


def test_two_variables_two_pairs():
    lp = LinearProgram([1.0, 1], bounds=[(0, 1), (2, 5)])
    assert (lp.lower.tolist(), lp.upper.tolist()) == ([0, 2], [1, 5])


def test_default_bounds_are_those_of_linprog():
    lp = LinearProgram(C)
    assert lp.lower.tolist() == [0, 0, 0]
    assert np.isposinf(lp.upper).all()


def test_large_sides_are_infinite():
    lp = LinearProgram(C, A=A, row_lower=[-1e20, -1e19], row_upper=[1e25, np.inf])
    assert lp.row_lower.tolist() == [-np.inf, -1e19]
    assert lp.row_upper.tolist() == [np.inf, np.inf]


@pytest.mark.parametrize(
    ("integrality", "expected"),
    [
        (None, [False] * 3),
        (True, [True] * 3),
        (1, [True] * 3),
        ([True, False, True], [True, False, True]),
        ([1, 0, 0], [True, False, False]),
        (np.array([0.0, 1.0, 0.0]), [False, True, False]),
        (torch.tensor([True, False, False]), [True, False, False]),
    ],
    ids=repr,
)
def test_integrality(integrality, expected):
    lp = LinearProgram(C, integrality=integrality)
    assert lp.integrality.tolist() == expected
    assert lp.is_mip == any(expected)


@pytest.mark.parametrize(
    "give",
    [
        {"c": [1, 2]},
        {"A_ub": np.ones((1, 2)), "b_ub": [1]},
        {"A": sp.csr_array((3, 2)), "row_upper": 1},
        {"bounds": [(0, 1), (0, 2)]},
        {"bounds": scipy.optimize.Bounds([0, 0], 1)},
        {"variable_names": ["a", "b"]},
        {"integrality": [0, 1]},
    ],
    ids=lambda g: next(iter(g)),
)
def test_the_number_of_variables_comes_from_anything(give):
    assert LinearProgram(**give).n == 2


def test_empty_blocks_and_sizes():
    lp = LinearProgram(C, A_ub=np.zeros((0, 3)), b_ub=[], A_eq=sp.csr_array((0, 3)), b_eq=np.zeros(0))
    assert (lp.m, lp.n, lp.nnz) == (0, 3, 0)
    no_variables = LinearProgram(np.zeros(0), A_ub=np.zeros((2, 0)), b_ub=B, bounds=[])
    assert (no_variables.m, no_variables.n) == (2, 0)
    nothing = LinearProgram([])
    assert (nothing.m, nothing.n, nothing.nnz) == (0, 0, 0)


def test_defaults_without_costs():
    lp = LinearProgram(A_ub=A, b_ub=B)
    assert lp.c is None
    with pytest.raises(ValueError, match="declared without costs: pass c="):
        _ = lp.data
    with pytest.raises(ValueError, match="declared without costs: pass c="):
        lpdiff.solve(lp)


def test_names_sense_and_offset():
    lp = LinearProgram(
        C, A_ub=A, b_ub=B, sense="max", offset=torch.tensor(2.5), name="toy",
        variable_names=("x", "y", "z"), row_names=["first", "second"],
    )  # fmt: skip
    assert (lp.sense, lp.offset, lp.name) == ("max", 2.5, "toy")
    assert lp.variable_names == ("x", "y", "z")
    assert lp.row_names == ("first", "second")
    assert lp.data.c.tolist() == [[-1, -2, -3]]  # the standard form minimises
    assert lp.c.tolist() == [1, 2, 3]  # the user's signs


def test_gather_reads_the_pattern_off_dense_matrices():
    lp = LinearProgram(C, A_ub=A, b_ub=B)
    assert np.array_equal(lp.gather(A), lp.A.data)
    batch = torch.arange(24.0).reshape(4, 2, 3).requires_grad_()
    values = lp.gather(batch)
    assert values.shape == (4, 3)
    assert torch.equal(values, batch[:, [0, 1, 0], [0, 1, 2]])
    values.sum().backward()
    assert batch.grad[0].tolist() == [[1, 0, 1], [0, 1, 0]]
    with pytest.raises(ValueError, match=r"expected \(\*batch, m, n\) = \(\*batch, 2, 3\), got \(3, 2\)"):
        lp.gather(A.T)


# -- being an object -----------------------------------------------------------------------------------


def full() -> LinearProgram:
    return LinearProgram(
        C, A_ub=A, b_ub=B, A_eq=[[1, 1, 1]], b_eq=[1.0], A=[[1.0, 0, 0]], row_lower=-1, row_upper=1,
        bounds=[(0, 1), (None, None), (2, 2)], integrality=[0, 1, 0], sense="max", name="toy",
    )  # fmt: skip


def test_repr():
    assert repr(full()) == (
        "LinearProgram 'toy': maximise, 3 variables, 4 rows, 7 entries\n"
        "  rows: 1 =, 2 <=, 1 ranged\n"
        "  variables: 1 boxed, 1 free, 1 fixed, 1 integer"
    )
    assert repr(LinearProgram(A_ub=A, b_ub=B)).endswith("costs: none declared (pass c= to solve)")
    assert "rows: none" in repr(LinearProgram(C))


def test_frozen():
    lp = full()
    for name in ("c", "A", "sense", "anything"):
        with pytest.raises(AttributeError, match=f"frozen, so '{name}' cannot be set"):
            setattr(lp, name, 1)
    with pytest.raises(AttributeError, match="frozen"):
        del lp.c


CLONES = {
    "itself": lambda lp: lp,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda lp: pickle.loads(pickle.dumps(lp)),
}


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
def test_copies_are_equal_read_only_and_solve_alike(clone):
    names = ["p", "q", "r"]
    original = LinearProgram(C, A_ub=A, b_ub=B, A_eq=[[1, 1, 1]], b_eq=[1.0], variable_names=names)
    value = lpdiff.solve(original).value
    lp = clone(original)
    arrays = (lp.c, lp.row_lower, lp.row_upper, lp.lower, lp.upper, lp.integrality, lp.rows)
    declared = [getattr(lp.form.declared, name) for name in FIELDS]
    for array in (*arrays, lp.A.data, lp.A.indices, lp.A.indptr, *declared):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError, match="frozen"):
        lp.c = 0
    assert repr(lp) == repr(original)
    assert np.array_equal(lp.A.toarray(), original.A.toarray())
    assert lpdiff.solve(lp)["q"] == lpdiff.solve(original)["q"]
    assert torch.equal(lpdiff.solve(lp).value, value)


def test_pickles_leave_out_what_can_be_made_again():
    lp = LinearProgram(C, A_ub=A, b_ub=B)
    lpdiff.solve(lp)
    assert lp.plans
    again = pickle.loads(pickle.dumps(lp))
    assert again.plans == {}
    assert len(lp.plans) == 1


def mutable_inputs() -> dict:
    return {
        "c": C.copy(),
        "A_ub": sp.csc_array(A),
        "b_ub": B.copy(),
        "A_eq": A.copy(),
        "b_eq": torch.tensor(B),
        "A": torch.tensor(A),
        "row_lower": -B,
        "row_upper": B.copy(),
        "bounds": np.array([[0.0, 1], [0, 2], [0, 3]]),
        "integrality": np.array([True, False, False]),
    }


def snapshot(lp: LinearProgram) -> list[np.ndarray]:
    names = ("c", "row_lower", "row_upper", "lower", "upper", "integrality")
    return [*(getattr(lp, name).copy() for name in names), lp.A.toarray()]


def test_what_users_pass_is_neither_changed_nor_kept():
    given, untouched = mutable_inputs(), mutable_inputs()
    lp = LinearProgram(**given)
    before = snapshot(lp)
    for name, value in given.items():
        dense = value.toarray() if sp.issparse(value) else np.asarray(value)
        other = untouched[name].toarray() if sp.issparse(untouched[name]) else np.asarray(untouched[name])
        assert np.array_equal(dense, other), name
        assert value.data.flags.writeable if sp.issparse(value) else True
        if isinstance(value, np.ndarray):
            assert value.flags.writeable, name
        target = value.data if sp.issparse(value) else value
        target[...] = 0  # must not reach the program
    for mine, then in zip(snapshot(lp), before, strict=True):
        assert np.array_equal(mine, then)


@pytest.mark.parametrize("build", [sp.coo_array, sp.csr_array, sp.csc_array])
def test_an_unsorted_sparse_matrix_is_not_sorted_in_place(build):
    coo = sp.coo_array(([1.0, 2, 3], ([0, 0, 0], [2, 0, 2])), shape=(1, 3))
    matrix = coo
    if build is sp.csr_array:
        matrix = sp.csr_array((coo.data, coo.coords[1], [0, 3]), shape=(1, 3))
    elif build is sp.csc_array:
        matrix = sp.csc_array((coo.data, [0, 0, 0], [0, 1, 1, 3]), shape=(1, 3))
    data = matrix.data.copy()
    lp = LinearProgram(C, A_ub=matrix, b_ub=[1.0])
    assert lp.nnz == 2
    assert matrix.nnz == 3
    assert np.array_equal(matrix.data, data)


# -- mistakes ------------------------------------------------------------------------------------------

WIDE = np.ones((2, 3))
MISTAKES = {
    "sense": (
        {"c": C, "sense": "minimize"},
        "sense must be 'min' or 'max', got 'minimize'",
    ),
    "nothing": (
        {},
        "cannot tell the number of variables: give c, a matrix, or bounds",
    ),
    "A without b": (
        {"c": C, "A_ub": WIDE},
        "A_ub was given without b_ub: the two go together",
    ),
    "b without A": (
        {"c": C, "b_eq": B},
        "b_eq was given without A_eq: the two go together",
    ),
    "A without sides": (
        {"c": C, "A": WIDE},
        "A was given without row_lower or row_upper",
    ),
    "a side without A": (
        {"c": C, "row_lower": B},
        "row_lower was given without A",
    ),
    "A is a vector": (
        {"c": C, "A_ub": C, "b_ub": [1]},
        "A_ub must be a matrix (rows, variables), got shape (3,); one row is A[None, :]",
    ),
    "A is a tensor": (
        {"c": C, "A_ub": np.ones((1, 2, 3)), "b_ub": [1]},
        "A_ub must be a matrix (rows, variables), got shape (1, 2, 3)",
    ),
    "A is ragged": (
        {"c": C, "A_ub": [[1, 2, 3], [1]], "b_ub": B},
        "A_ub must be numbers, got list",
    ),
    "A is text": (
        {"c": C, "A_ub": [["1", "2", "3"]], "b_ub": [1]},
        "A_ub must be real numbers, got <U1",
    ),
    "A is complex": (
        {"c": C, "A_ub": 1j * WIDE, "b_ub": B},
        "A_ub must be real numbers, got complex128",
    ),
    "sparse A is complex": (
        {"c": C, "A_ub": sp.csr_array(1j * WIDE), "b_ub": B},
        "A_ub must be real numbers, got complex128",
    ),
    "torch A is complex": (
        {"c": C, "A_ub": torch.ones(2, 3, dtype=torch.complex64), "b_ub": B},
        "A_ub must be real numbers, got torch.complex64",
    ),
    "A has NaN": (
        {"c": C, "A_ub": [[1, np.nan, 0]], "b_ub": [1]},
        "A has nan at row 0, variable x[1]: entries must be finite",
    ),
    "A has inf, named": (
        {
            "c": C,
            "A_eq": [[1, 0, np.inf]],
            "b_eq": [1],
            "variable_names": ["a", "b", "z"],
            "row_names": ["sum"],
        },
        "A has inf at 'sum', variable 'z': entries must be finite",
    ),
    "A transposed": (
        {"c": C, "A_ub": WIDE.T, "b_ub": np.ones(3)},
        "2 by A_ub (columns), 3 by c (A_ub has shape (3, 2): is it transposed?)",
    ),
    "A transposed, b right": (
        {"c": C, "A_ub": WIDE.T, "b_ub": B},
        "A_ub has shape (3, 2), so b_ub needs 3 numbers, one a row, got 2; it fits A_ub transposed",
    ),
    "b too long": (
        {"c": C, "A_ub": WIDE, "b_ub": np.ones(4)},
        "A_ub has shape (2, 3), so b_ub needs 2 numbers, one a row, got 4",
    ),
    "b of one": (
        {"c": C, "A_ub": WIDE, "b_ub": [1.0]},
        "A_ub has shape (2, 3), so b_ub needs 2 numbers, one a row, got 1",
    ),
    "b is a column": (
        {"c": C, "A_ub": WIDE, "b_ub": B[:, None]},
        "b_ub: expected shape (2,), one number a row, got (2, 1); flatten it with b_ub.reshape(-1)",
    ),
    "b has NaN": (
        {"c": C, "A_ub": WIDE, "b_ub": [1, np.nan]},
        "b_ub[1] is nan: expected a number",
    ),
    "b_eq infinite": (
        {"c": C, "A_eq": WIDE, "b_eq": [1, np.inf]},
        "row 1: lower bound inf and upper bound inf leave nothing between them",
    ),
    "b is None inside": (
        {"c": C, "A_ub": WIDE, "b_ub": [1, None]},
        "b_ub[1] is nan: expected a number",
    ),
    "cost matrix": (
        {"c": np.ones((2, 2))},
        "c must be a vector, one cost a variable, got shape (2, 2); flatten a cost matrix with C.reshape(-1)",
    ),
    "scalar cost": (
        {"c": 1.0},
        "c must be a vector, one cost a variable, got shape ()",
    ),
    "c has NaN": (
        {"c": [1, np.nan]},
        "c[1] is nan: expected a number below 1e+20; to forbid a variable use its bounds",
    ),
    "c has inf": (
        {"c": [np.inf, 1]},
        "c[0] is inf: expected a number below 1e+20; to forbid a variable use its bounds",
    ),
    "c is huge": (
        {"c": [1, -1e20]},
        "c[1] is -1e+20: expected a number below 1e+20",
    ),
    "c is text": (
        {"c": ["a", "b"]},
        "c must be real numbers, got <U1",
    ),
    "c is complex": (
        {"c": [1j, 2]},
        "c must be real numbers, got complex128",
    ),
    "c is a dict": (
        {"c": {"x": 1}},
        "c must be numbers, got dict",
    ),
    "c requires grad": (
        {"c": torch.ones(3, requires_grad=True)},
        "c requires a gradient, but what is declared is constant: pass it to lpdiff.solve, or declare ",
    ),
    "A requires grad": (
        {"c": C, "A_ub": torch.ones(2, 3, requires_grad=True), "b_ub": B},
        "A_ub requires a gradient",
    ),
    "bounds require grad": (
        {"c": C, "bounds": torch.zeros(3, 2, requires_grad=True)},
        "bounds requires a gradient",
    ),
    "c against A": (
        {"c": [1, 2], "A_ub": WIDE, "b_ub": B},
        "the number of variables differs: 3 by A_ub (columns), 2 by c",
    ),
    "blocks against each other": (
        {"A_ub": WIDE, "b_ub": B, "A_eq": np.ones((1, 4)), "b_eq": [1]},
        "3 by A_ub (columns), 4 by A_eq (columns)",
    ),
    "bounds against c": (
        {"c": C, "bounds": [(0, 1)] * 4},
        "the number of variables differs: 3 by c, 4 by bounds",
    ),
    "Bounds against c": (
        {"c": C, "bounds": scipy.optimize.Bounds([0, 0], 1)},
        "3 by c, 2 by bounds",
    ),
    "two arrays as bounds": (
        {"c": C, "bounds": (np.zeros(3), np.ones(3))},
        "two arrays are written scipy.optimize.Bounds(lower, upper)",
    ),
    "bounds of three": (
        {"c": C, "bounds": (0, 1, 2)},
        "one pair (lower, upper), 3 pairs, an (3, 2) array or a scipy.optimize.Bounds, got (0, 1, 2)",
    ),
    "ragged bounds": (
        {"c": C, "bounds": [(0, 1), (0,), (0, 1)]},
        "bounds: expected one pair",
    ),
    "ragged bounds for two": (
        {"c": [1, 2], "bounds": [(0, 1), (0,)]},
        "bounds: expected one pair",
    ),
    "bounds are text": (
        {"c": C, "bounds": ("low", "high")},
        "bounds: expected one pair",
    ),
    "bounds have NaN": (
        {"c": C, "bounds": [(0, 1), (np.nan, 1), (0, 1)]},
        "lower bound[1] is nan",
    ),
    "crossed bounds": (
        {"c": C, "bounds": [(0, 1), (3, 2), (5, 4)]},
        "variable x[1]: lower bound 3 and upper bound 2 leave nothing between them (2 such in all)",
    ),
    "crossed bounds, named": (
        {"c": C, "bounds": (1, 0), "variable_names": ["a", "b", "c"]},
        "variable 'a': lower bound 1 and upper bound 0",
    ),
    "lower at infinity": (
        {"c": C, "bounds": (np.inf, None)},
        "variable x[0]: lower bound inf",
    ),
    "upper at minus infinity": (
        {"c": C, "bounds": (None, -1e20)},
        "upper bound -inf",
    ),
    "crossed rows": (
        {"c": C, "A": WIDE, "row_lower": [0, 2], "row_upper": [1, 1]},
        "row 1: lower bound 2 and upper bound 1 leave nothing between them",
    ),
    "crossed rows, named": (
        {"c": C, "A": WIDE, "row_lower": 2, "row_upper": 1, "row_names": ["cap", "flow"]},
        "row 'cap': lower bound 2 and upper bound 1",
    ),
    "integrality value": (
        {"c": C, "integrality": [0, 1, 2]},
        "integrality: expected booleans (or 0 and 1), one or 3, got shape (3,), values [0, 1, 2]",
    ),
    "integrality length": (
        {"c": C, "integrality": [0, 1]},
        "3 by c, 2 by integrality",
    ),
    "integrality shape": (
        {"c": C, "integrality": np.zeros((3, 1))},
        "got shape (3, 1)",
    ),
    "names length": (
        {"c": C, "variable_names": ["a", "b"]},
        "3 by c, 2 by variable_names",
    ),
    "names twice": (
        {"c": C, "variable_names": ["a", "b", "a"]},
        "variable_names: 'a' stands twice; names must be unique",
    ),
    "names as text": (
        {"c": C, "variable_names": "abc"},
        "variable_names: expected 3 names, got one string 'abc'",
    ),
    "row names": (
        {"c": C, "A_ub": WIDE, "b_ub": B, "row_names": ["a"]},
        "row_names: expected 2 names, got 1",
    ),
    "offset NaN": (
        {"c": C, "offset": np.nan},
        "offset must be one finite number, got nan",
    ),
    "offset vector": (
        {"c": C, "offset": [1, 2]},
        "offset must be one finite number, got [1, 2]",
    ),
    "offset None": (
        {"c": C, "offset": None},
        "offset must be one finite number, got None",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    arguments, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=re.escape(message)):
        LinearProgram(**arguments)
