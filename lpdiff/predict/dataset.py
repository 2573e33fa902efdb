"""Features, costs, and what is optimal at these costs: solved once, before the training."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from ..layer import LPLayer
from ..losses.objective import Objective, objective_of, tensors_of
from ..program import LinearProgram
from ..solution import Basis, Solution
from ..solve import solve
from ..status import SolveError
from .fingerprint import fingerprint, is_told_by_numbers

__all__ = ["Item", "SolvedDataset", "batches"]

_CHUNK = 1024  # items solved at a time, which bounds the memory of what is not kept
_BASIS = ("columns", "rows", "valid")
_TRIED = 8  # items that are solved again where a program's numbers cannot be seen


class Item(NamedTuple):
    """An item of a ``SolvedDataset``; from a DataLoader, or by a list of indices, a batch of them."""

    features: torch.Tensor  # (*batch, ...)
    costs: Any  # (*batch, *shape) the true costs; several tensors where the problem has several kinds
    target: Any  # (*batch, *shape) an optimal solution, shaped like the costs
    value: torch.Tensor  # (*batch,) the optimal value, in the user's sense
    index: Any  # (*batch,) places in the data set
    data: dict[str, Any]  # what else varies by item: keywords of lpdiff.solve, or of the function


class SolvedDataset(Dataset[Item]):
    """A data set for "predict, then optimise": features, true costs, and the optimum at each of these costs.

    Everything is solved at construction, in batches, and kept as tensors in the costs' dtype and device.
    ``dataset[i]`` is an ``Item`` for a number, and a batch of them for a list, slice or tensor of numbers.
    torch's DataLoader takes it, or ``batches``, which is faster; ``torch.utils.data.random_split`` splits it.

    Args:
        program: What is minimised over: a LinearProgram, an LPLayer of one, a module of ``lpdiff.problems``,
            or a function of costs; see ``lpdiff.losses.Objective``.
        features: (N, ...) tensor or array: what a model predicts from.
        costs: ``(N, *shape)`` tensor or array: the true costs; or several of them, where the program takes
            several kinds.
        data: What else varies by item, by name, (N, ...) each: keywords of ``lpdiff.solve`` where the program
            is a LinearProgram (``{"b": ..., "A_values": ...}``), else of the function.
        how: Options of ``lpdiff.solve``, for a LinearProgram; its data, too, where all items share them.

    Attributes:
        target: Optimal solutions, shaped like the costs.
        value: (N,) optimal values, in the user's sense.
        basis: The optimal bases of a LinearProgram (``lpdiff.Basis``, (N, ...)), None where there are none:
            integer programs, and functions.

    Raises:
        ValueError: lengths that differ; an item without an optimum where the program does not raise.
        SolveError: items without an optimum, by their numbers in the data set.

    Example::

        train = SolvedDataset(lp, features, costs)
        for batch in batches(train, 32, shuffle=True):
            loss = spo_plus(lp, model(batch.features), batch.costs, batch.target, batch.value)
    """

    def __init__(
        self,
        program: Any,
        features: Any,
        costs: Any,
        *,
        data: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> None:
        self._declare(program, features, costs, data, how)
        self._solve()

    def _declare(
        self, program: Any, features: Any, costs: Any, data: Mapping[str, Any] | None, how: dict[str, Any]
    ) -> None:
        self.program, self.how = program, how
        self.features = _tensor("features", features)
        self.several = isinstance(costs, (tuple, list)) and all(map(_is_array, costs))
        self.costs: Any = (
            tuple(_floats("costs", c) for c in costs) if self.several else _floats("costs", costs)
        )
        self.data = {} if data is None else {name: _parts(name, value) for name, value in data.items()}
        count = len(self.features)
        for name, tensor in self._named():
            if tensor.dim() == 0 or len(tensor) != count:
                raise ValueError(
                    f"expected an item of {name} for each of the {count} of features, got shape "
                    f"{tuple(tensor.shape)}; what all items share is an option: "
                    f"SolvedDataset(program, features, costs, b=...)"
                )
        self.target: Any = None
        self.value = torch.empty(0)
        self.basis: Basis | None = None

    # -- a data set ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: Any) -> Item:
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
        elif not isinstance(index, (int, torch.Tensor)):
            index = torch.as_tensor(index)
        return Item(
            self.features[index],
            _taken(self.costs, index),
            _taken(self.target, index),
            self.value[index],
            index,
            {name: _taken(value, index) for name, value in self.data.items()},
        )

    def objective(self, data: Mapping[str, Any] | None = None) -> Objective:
        """The program as a loss sees it, with its options and the data of some items (``batch.data``)."""
        return objective_of(self.program, {**self.how, **(data or {})})

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(c.shape[1:])) for c in tensors_of(self.costs))
        told = repr(self.program).splitlines()[0]
        return f"SolvedDataset({len(self)} items, costs {shapes}, {told})"

    # -- on disk ---------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write what was solved to an .npz file, with a fingerprint of what it is a solution of.

        Neither features, nor costs, nor the program are written: ``load`` is given them, and compares.
        """
        arrays = {"fingerprint": np.array(self._fingerprint()), "value": self.value.detach().cpu().numpy()}
        for k, target in enumerate(tensors_of(self.target)):
            arrays[f"target{k}"] = target.detach().cpu().numpy()
        if self.basis is not None:
            for name in _BASIS:
                arrays[name] = getattr(self.basis, name).cpu().numpy()
        with open(path, "wb") as file:  # np.savez would add an ending to a path
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        program: Any,
        features: Any,
        costs: Any,
        *,
        data: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> SolvedDataset:
        """The data set that ``SolvedDataset(program, features, costs, ...)`` would be, from ``save``'s file.

        Costs, data and a LinearProgram are compared by all their numbers. What a function does cannot be
        seen: of it and of a module a few items are solved again, and compared by their values.

        Raises:
            ValueError: a file that is not of ``save``, or of another program, other costs or other data.
            FileNotFoundError: no such file.
        """
        made = cls.__new__(cls)
        made._declare(program, features, costs, data, how)
        arrays = _read(path)
        stale = (
            f"{path} holds the solutions of {{what}}: solve anew with SolvedDataset(program, features, "
            f"costs), and save that"
        )
        if str(arrays["fingerprint"]) != made._fingerprint():
            raise ValueError(stale.format(what="another program, other costs or other data"))
        like = tensors_of(made.costs)
        found = tuple(torch.from_numpy(arrays[f"target{k}"]).to(c) for k, c in enumerate(like))
        made.target = found if made.several else found[0]
        made.value = torch.from_numpy(arrays["value"]).to(like[0])
        if "columns" in arrays:
            parts = (torch.from_numpy(arrays[name]) for name in _BASIS)
            made.basis = Basis(*(part.to(like[0].device) for part in parts))
        if not is_told_by_numbers(program) and len(made):
            some = torch.linspace(0, len(made) - 1, min(_TRIED, len(made))).long()
            value = made._solved(some)[0]
            if not torch.allclose(value, made.value[some], rtol=1e-5, atol=1e-5):
                raise ValueError(stale.format(what="a program with other optimal values"))
        return made

    # -- pieces ----------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        return fingerprint(self.program, dict(self._named(features=False)), self.how)

    def _named(self, *, features: bool = True) -> list[tuple[str, torch.Tensor]]:
        """All tensors with an item in each place, by name."""
        named = [("features", self.features)] if features else []
        for name, value in {"costs": self.costs, **self.data}.items():
            if isinstance(value, torch.Tensor):
                named.append((name, value))
            else:
                named += [(f"{name}[{k}]", part) for k, part in enumerate(value)]
        return named

    def _solve(self) -> None:
        count = len(self)
        chunks = [torch.arange(i, min(i + _CHUNK, count)) for i in range(0, max(count, 1), _CHUNK)]
        parts = [self._solved(chunk) for chunk in chunks]
        self.value = torch.cat([value for value, _, _ in parts])
        found = tuple(torch.cat(targets) for targets in zip(*(t for _, t, _ in parts), strict=True))
        self.target = found if self.several else found[0]
        bases = [basis for _, _, basis in parts]
        kept = [basis for basis in bases if basis is not None]
        if kept and len(kept) == len(bases):
            joined = (torch.cat([getattr(basis, name) for basis in kept]) for name in _BASIS)
            self.basis = Basis(*joined)

    @torch.no_grad()
    def _solved(self, items: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], Basis | None]:
        """Values, solutions and bases of some items."""
        costs = tuple(c[items] for c in tensors_of(self.costs))
        data = {name: _taken(value, items) for name, value in self.data.items()}
        basis, first = None, int(items[0]) if len(items) else 0
        try:
            solution = _by_lp(self.program, costs, data, self.how)
            if solution is None:
                value, target = self.objective(data).solutions(*costs)
            else:
                value, target, basis = solution.value, (solution.under("exact").x,), solution.basis
        except SolveError as error:
            raise _renumbered(error, items) from error
        if value.shape != items.shape:
            raise ValueError(
                f"expected an optimal value an item, ({len(items)},), got {tuple(value.shape)}: costs must "
                f"have one dimension more than those of one problem"
            )
        failed = (~torch.isfinite(value)).nonzero()[:, 0]
        if len(failed):
            told = ", ".join(str(first + int(i)) for i in failed[:5])
            more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
            raise ValueError(
                f"item(s) {told}{more} have no optimum (value {float(value[failed[0]]):g}): leave them out, "
                f"or solve with throw=True to be told why"
            )
        return value, target, basis


def batches(
    dataset: Dataset[Item],
    batch_size: int,
    *,
    shuffle: bool = False,
    drop_last: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> DataLoader[Item]:
    """A DataLoader that takes each batch out of the data set at once: several times faster than by items.

    Args:
        dataset: A SolvedDataset, or a Subset of one (``random_split``).
        batch_size: Items in a batch.
        shuffle: Another order in each epoch.
        drop_last: Leave out the last batch where it is smaller.
        generator: Of the order.
        options: Other options of DataLoader (``num_workers``).
    """
    order: Sampler[int] = (
        RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)  # type: ignore[arg-type]
    )
    sampler = BatchSampler(order, batch_size, drop_last)
    return DataLoader(dataset, sampler=sampler, batch_size=None, **options)


def _by_lp(
    program: Any, costs: Sequence[torch.Tensor], data: Mapping[str, Any], how: Mapping[str, Any]
) -> Solution | None:
    """The Solution where the program is a LinearProgram, None where it is a function."""
    if isinstance(program, LPLayer) and isinstance(program.program, LinearProgram):
        return program.solve(c=_only(costs), **data, **how)
    if isinstance(program, LinearProgram):
        return solve(program, c=_only(costs), **data, **how)
    return None


def _only(costs: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(costs) != 1:
        raise ValueError(f"a LinearProgram has one vector of costs an item, got {len(costs)} tensors of them")
    return costs[0]


def _renumbered(error: SolveError, items: torch.Tensor) -> SolveError:
    """The error with the items' numbers in the data set."""
    if not len(items) or int(items[0]) == 0:
        return error
    failed = [(int(items[item[0]]), *item[1:]) for item in error.items]
    told = ", ".join(str(item[0]) for item in failed[:5]) + (", ..." if len(failed) > 5 else "")
    return SolveError(
        f"item(s) {told} of the data set have no optimum; below, items count from {int(items[0])}\n{error}",
        items=failed,
        statuses=error.statuses,
        certificates={(int(items[i[0]]), *i[1:]): proof for i, proof in error.certificates.items()},
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _tensor(name: str, value: Any) -> torch.Tensor:
    try:
        tensor = value.detach() if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, got {type(value).__name__}: {error}") from None
    if tensor.dim() == 0:
        raise ValueError(f"{name}: expected (N, ...), an item in each place, got a number")
    return tensor


def _floats(name: str, value: Any) -> torch.Tensor:
    tensor = _tensor(name, value)
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def _parts(name: str, value: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """A tensor; or several, as in bounds=(lower, upper)."""
    if isinstance(value, (tuple, list)):
        return tuple(_tensor(f"{name}[{k}]", part) for k, part in enumerate(value))
    return _tensor(name, value)


def _taken(value: Any, index: Any) -> Any:
    return value[index] if isinstance(value, torch.Tensor) else tuple(part[index] for part in value)


def _read(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    wrong = f"{path} is not a file of SolvedDataset.save"
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, zipfile.BadZipFile, EOFError, TypeError) as error:
        raise ValueError(f"{wrong}: {error}") from error
    if not {"fingerprint", "value", "target0"} <= set(arrays):
        raise ValueError(wrong)
    return arrays
