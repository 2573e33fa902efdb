"""The images: scikit-learn's digits, or MNIST and CIFAR from the archives that everybody has.

Nothing is downloaded. Archives are read where they are, without unpacking them; CIFAR's are pickles, of which
only arrays are accepted.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..harness import DemoError

__all__ = ["DATASETS", "Images", "load"]

DATASETS = ("digits", "mnist", "cifar10", "cifar100")

_REMEDY = "say where with --data FOLDER"


@dataclass(frozen=True, eq=False)
class Images:
    """Images (N, channels, height, width) float32, standardised by the training images; labels (N,) int64."""

    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: int


def load(name: str, folder: Path | None = None, *, validation: bool = False) -> Images:
    """A data set by its name.

    Args:
        name: One of ``DATASETS``.
        folder: Where its archives are; digits need none.
        validation: Give a fifth of the training images, drawn evenly over the classes, instead of the test
            images: to choose hyperparameters by.

    Raises:
        DemoError: files that are missing or are not what they should be.
    """
    raw: tuple[np.ndarray, ...]
    if name == "digits":
        digits = load_digits()
        x, y = (digits.images / 16)[:, None], digits.target
        train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
        raw = (train_x, train_y, test_x, test_y)
    else:
        if folder is None:
            raise DemoError(f"{name} is not part of the demo: {_REMEDY}")
        if not folder.is_dir():
            raise DemoError(f"--data {folder} is no folder: expected one that holds the files of {name}")
        raw = _mnist(folder) if name == "mnist" else _cifar(folder, name)
    if validation:
        x, y = raw[:2]
        train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, random_state=1, stratify=y)
        raw = (train_x, train_y, test_x, test_y)
    classes = {"cifar100": 100}.get(name, 10)
    return _checked(name, raw, classes)


def _checked(name: str, raw: tuple[np.ndarray, ...], classes: int) -> Images:
    train_x, train_y, test_x, test_y = raw
    for part, x, y in (("training", train_x, train_y), ("test", test_x, test_y)):
        if len(x) != len(y) or len(x) == 0:
            raise DemoError(f"{name}: {len(x)} {part} images and {len(y)} labels: are all files whole?")
        if y.min() < 0 or y.max() >= classes:
            raise DemoError(f"{name}: labels from {y.min()} to {y.max()}, expected 0 to {classes - 1}")
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DemoError(f"{name}: training images {train_x.shape[1:]}, test images {test_x.shape[1:]}")
    scale = 255.0 if train_x.dtype == np.uint8 else 1.0
    train, test = (torch.from_numpy((x / scale).astype(np.float32)) for x in (train_x, test_x))
    mean, spread = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True) + 1e-6
    labels = [torch.from_numpy(y.astype(np.int64)) for y in (train_y, test_y)]
    return Images((train - mean) / spread, labels[0], (test - mean) / spread, labels[1], classes)


def limited(images: Images, count: int | None, generator: torch.Generator) -> Images:
    """So many of the training images, drawn at random; all, shuffled, for None.

    Raises:
        DemoError: there are fewer.
    """
    there = len(images.train_x)
    if count is not None and count > there:
        raise DemoError(f"images: expected at most the {there} there are to train on, got {count}")
    chosen = torch.randperm(there, generator=generator)[:count]
    return replace(images, train_x=images.train_x[chosen], train_y=images.train_y[chosen])


# -- MNIST -------------------------------------------------------------------------------------------------


def _mnist(folder: Path) -> tuple[np.ndarray, ...]:
    """mnist.npz, or the four idx files, compressed or not."""
    archive = folder / "mnist.npz"
    if archive.is_file():
        try:
            with np.load(archive, allow_pickle=False) as file:
                raw = tuple(file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
        except (KeyError, ValueError, OSError) as error:
            raise DemoError(
                f"{archive}: expected arrays x_train, y_train, x_test, y_test ({error})"
            ) from error
        return raw[0][:, None], raw[1], raw[2][:, None], raw[3]
    parts = []
    for part in ("train", "t10k"):
        for kind, dimensions in (("images", 3), ("labels", 1)):
            parts.append(_idx(_one_of(folder, f"{part}-{kind}", dimensions), dimensions))
    return parts[0][:, None], parts[1], parts[2][:, None], parts[3]


def _one_of(folder: Path, stem: str, dimensions: int) -> Path:
    names = [f"{stem}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DemoError(f"{folder} holds neither mnist.npz nor {names[0]} (or {names[1]}): {_REMEDY}")


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The format of http://yann.lecun.com/exdb/mnist: two zeros, the type, the number of dimensions; sizes,
    big endian; bytes."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DemoError(f"{path} cannot be read: {error}") from error
    head = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < head:
        raise DemoError(
            f"{path} is no idx file of bytes in {dimensions} dimensions: it starts with {content[:4].hex()}, "
            f"expected 000008{dimensions:02x}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    size = int(np.prod(shape))
    if len(content) - head != size:
        raise DemoError(
            f"{path} is cut off: expected {size} bytes for shape {shape}, got {len(content) - head}"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


# -- CIFAR -------------------------------------------------------------------------------------------------

_CIFAR = {
    "cifar10": (
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        ([f"data_batch_{k}" for k in range(1, 6)], ["test_batch"]),
        b"labels",
    ),
    "cifar100": ("cifar-100-python.tar.gz", "cifar-100-python", (["train"], ["test"]), b"fine_labels"),
}


def _cifar(folder: Path, name: str) -> tuple[np.ndarray, ...]:
    """The python version of the archive, packed or unpacked."""
    archive, inner, parts, key = _CIFAR[name]
    wanted = [file for part in parts for file in part]
    found = dict(_members(folder, archive, inner, wanted))
    if missing := [file for file in wanted if file not in found]:
        raise DemoError(f"{folder} holds no {archive} or {inner} with {missing[0]}: {_REMEDY}")
    raw: list[np.ndarray] = []
    for part in parts:
        batches = [_batch(f"{inner}/{file}", found[file], key) for file in part]
        raw.append(np.concatenate([x for x, _ in batches]))
        raw.append(np.concatenate([y for _, y in batches]))
    return tuple(raw)


def _members(folder: Path, archive: str, inner: str, wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    for place in (folder / inner, folder):
        if all((place / file).is_file() for file in wanted):
            for file in wanted:
                yield file, (place / file).read_bytes()
            return
    if not (folder / archive).is_file():
        return
    try:
        with tarfile.open(folder / archive) as tar:
            for member in tar:
                file = member.name.removeprefix(f"{inner}/")
                if file in wanted and member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None  # it is a file
                    yield file, content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DemoError(f"{folder / archive} cannot be read: {error}") from error


class _ArraysOnly(pickle.Unpickler):
    """A pickle may call anything; these may make arrays and no more."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # at home in one or the other, by NumPy's version
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _batch(told: str, content: bytes, key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,) of one file."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        x, y = np.asarray(batch[b"data"]), np.asarray(batch[key])
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DemoError(
            f"{told} is no pickle of CIFAR (a dict of the arrays data and {key.decode()}): {error}"
        ) from error
    if x.ndim != 2 or x.shape[1] != 3072 or x.dtype != np.uint8:
        raise DemoError(f"{told}: expected data of (N, 3072) bytes, got {x.dtype} {x.shape}")
    return x.reshape(-1, 3, 32, 32), y
