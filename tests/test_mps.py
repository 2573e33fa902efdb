"""read_mps: what a file says is what the program says; what cannot be read is refused."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import highspy
import numpy as np
import pytest

import lpdiff
from lpdiff.modeling import read_mps

MPS = """\
NAME          SMALL
OBJSENSE
    MAX
ROWS
 N  COST
 L  LIM1
 G  LIM2
 E  MYEQN
 N  UNUSED
COLUMNS
    MARKER    'MARKER'  'INTORG'
    X         COST      1.0   LIM1      1.0
    X         LIM2      1.0
    MARKER    'MARKER'  'INTEND'
    Y         COST      2.0   LIM1      1.0
    Y         MYEQN    -1.0   UNUSED    2.0
    Z         COST     -1.0   MYEQN     1.0
RHS
    RHS       COST    -10.0
    RHS       LIM1      4.0   LIM2      1.0
    RHS       MYEQN     7.0
RANGES
    RNG       LIM1      2.5   MYEQN     3.0
BOUNDS
 UP BND       X         4.0
 LO BND       Y        -1.0
 UP BND       Y         1.0
 MI BND       Z
ENDATA
"""

LP = r"""\ a comment
Minimize
 obj: 3 x + 2 y - z + 5
Subject To
 c1: x + y >= 4
 c2: x - z <= 8
 c3: y + z = 3
Bounds
 x <= 4
 -inf <= z <= 5
 y free
End
"""


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        if name.lower().endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", ["small.mps", "small.mps.gz", "SMALL.MPS", "some.dots.Mps.GZ"])
def test_mps(write, name, capfd):
    lp = read_mps(write(name, MPS))
    assert (lp.sense, lp.offset, lp.name) == ("max", 10, name.split(".")[0])
    assert lp.variable_names == ("X", "Y", "Z") and lp.row_names == ("LIM1", "LIM2", "MYEQN")
    assert lp.c.tolist() == [1, 2, -1]
    assert lp.A.toarray().tolist() == [[1, 1, 0], [1, 0, 0], [0, -1, 1]]
    assert lp.row_lower.tolist() == [1.5, 1, 7] and lp.row_upper.tolist() == [4, np.inf, 10]
    assert lp.lower.tolist() == [0, -1, -np.inf] and lp.upper.tolist() == [4, 1, np.inf]
    assert lp.integrality.tolist() == [True, False, False]
    # X + Y <= 4 with Y <= 1, and Z >= 7 + Y: 10 + X + 2Y - Z at (3, 1, 8) or (4, 0, 7) or between.
    assert lpdiff.solve(lp).value.item() == pytest.approx(7)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["small.lp", "small.lp.gz"])
def test_lp(write, name):
    lp = read_mps(str(write(name, LP)))
    assert (lp.sense, lp.offset, lp.variable_names) == ("min", 5, ("x", "y", "z"))
    assert lp.row_names == ("c1", "c2", "c3") and not lp.is_mip
    # z = 3 - y: 3x + 3y + 2 over x + y >= 4.
    assert lpdiff.solve(lp).value.item() == pytest.approx(14)


def test_against_highs(write, tmp_path):
    """Programs that HiGHS writes come back, and have HiGHS's optimum."""
    rng = np.random.default_rng(0)
    for k in range(5):
        A = rng.uniform(0.1, 1, (4, 6)) * (rng.uniform(size=(4, 6)) < 0.6)
        lp = lpdiff.LinearProgram(
            c=rng.normal(size=6),
            A=A,
            row_lower=-rng.uniform(1, 2, 4),
            row_upper=rng.uniform(1, 2, 4),
            bounds=(-1, 3),
        )
        h = highspy._core._Highs()
        h.setOptionValue("output_flag", False)
        sizes = (lp.n, lp.m, lp.nnz, 1, 1, 0.0)
        pattern = (lp.A.indptr, lp.A.indices, lp.A.data)
        h.passModel(
            *sizes,
            lp.c,
            lp.lower,
            lp.upper,
            lp.row_lower,
            lp.row_upper,
            *pattern,
            np.zeros(lp.n, np.int32),
        )
        path = tmp_path / f"random{k}.mps"
        h.writeModel(str(path))
        h.run()
        found = read_mps(path)
        for name in ("c", "row_lower", "row_upper", "lower", "upper"):
            np.testing.assert_allclose(getattr(found, name), getattr(lp, name), rtol=1e-14)
        np.testing.assert_allclose(found.A.toarray(), lp.A.toarray(), rtol=1e-14)
        assert lpdiff.solve(found).value.item() == pytest.approx(
            h.getInfo().objective_function_value, abs=1e-9
        )


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.mps"):
        read_mps(tmp_path / "none.mps")


_UNREADABLE = {
    "other.txt": (MPS, r"expected a file ending in .mps, .lp, .mps.gz or .lp.gz, got 'other.txt'"),
    "noending": (MPS, "got 'noending'"),
    "only.gz": (MPS, "got 'only.gz'"),
    "row.mps": (
        MPS.replace(" N  UNUSED", " Q  UNUSED"),
        r'cannot read row.mps as MPS: Entry "Q  UNUSED" in ROWS',
    ),
    "cut.mps": (MPS[:300], "cannot read cut.mps as MPS: No coefficient given for column"),
    "cut.mps.gz": (MPS[:300], "cannot read cut.mps.gz as MPS: No coefficient given for column"),
    "noend.mps": (
        MPS.replace("ENDATA", ""),
        "cannot read noend.mps as MPS: HiGHS gives no reason; look for",
    ),
    "empty.mps": ("", "cannot read empty.mps"),
    "noise.mps": ("hello world", "cannot read noise.mps"),
    "bad.lp": ("Minimize\n obj: x + + \nSubject\n c1: x >=\nEnd\n", "cannot read bad.lp as LP"),
    "sos.mps": (
        MPS.replace("ENDATA", "SOS\n S1 SOS SOS1 5\n    SOS X 1\nENDATA"),
        "SOS not supported",
    ),
    "quad.mps": (
        MPS.replace("ENDATA", "QUADOBJ\n    X X 2.0\nENDATA"),
        "quad.mps has a quadratic objective",
    ),
    "quad.lp": (
        "Minimize\n obj: x + [ x^2 ]/2\nSubject To\n c1: x + y >= 4\nEnd\n",
        "quadratic objective",
    ),
    "semi.mps": (
        MPS.replace("UP BND       X", "SC BND       X"),
        r"semicontinuous variables \(first: X\)",
    ),
    "crossed.mps": (
        MPS.replace("LO BND       Y        -1.0", "LO BND       Y         2.0"),
        "Y.*lower bound 2",
    ),
}


@pytest.mark.parametrize("name", sorted(_UNREADABLE))
def test_refused_files(write, name, capfd):
    text, message = _UNREADABLE[name]
    with pytest.raises(ValueError, match=message):
        read_mps(write(name, text))
    assert capfd.readouterr() == ("", "")


def test_broken_gzip(tmp_path):
    whole = gzip.compress(MPS.encode())
    for content in (b"plain", whole[:60]):
        path = tmp_path / "broken.mps.gz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a whole gzip file"):
            read_mps(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    Z         COST     -1.0",
            "    Z         NOROW    -1.0",
            "NOROW.* not defined: ignored",
        ),
        ("    Z         COST     -1.0", "    Y         COST     -1.0", "duplicate nonzero"),
    ],
)
def test_what_highs_leaves_out_is_told(write, old, new, message):
    with pytest.warns(UserWarning, match=message):
        read_mps(write("odd.mps", MPS.replace(old, new)))


def test_whole_files_warn_of_nothing(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_mps(write("small.mps", MPS)).m == 3
