"""The executors that can compute a relaxed cell, and the choice among them by timing.

All executors compute the same numbers up to rounding. Which executor is the fastest depends on the machine and on the size of a cell.
Therefore the first forward pass of a search times a forward and backward pass of its first cell with each usable executor, in well under
a second, and the fastest executor computes all cells of the search from then on. The choice is remembered in
``$XDG_CACHE_HOME/nni-darts`` (``~/.cache/nni-darts``), so that the same search on the same machine gives bit-identical results. Delete
``executors.json`` in that folder to choose again.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict, cast

import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.activity import under_way
from nni_darts.strategies.catalogue import ExecutionSetting
from nni_darts.strategies.fast.kernels import instruction_set, kernels, required_kernels
from nni_darts.strategies.fast.remembered import choice_key, memory_file, recall, remember
from nni_darts.strategies.fast.timing import timed

__all__ = [
    'NAMES',
    'CellInputs',
    'ExecutedCell',
    'ExecutionSetting',
    'Executor',
    'ExecutorChoice',
    'ExecutorRecord',
    'Place',
    'by_name',
    'unusable',
]

_logger = logging.getLogger(__name__)

NAMES = ('compiled', 'piecewise', 'joined', 'plain')
"""The names of all executors, in the order of preference."""

CellInputs = tuple[Tensor, *tuple[Tensor | None, ...]]
"""The inputs of a cell; a recurrent cell's mask may be None."""

MARGIN = 0.95
"""Ratio of times below which an executor is chosen over a preferred one, which needs less memory."""


class ExecutorRecord(TypedDict, total=False):
    """The record of the executor of a search's cells, as in checkpoints, ``run.json`` and ``result.json``.

    Attributes:
        name: one of :data:`NAMES`.
        how: ``chosen`` by timing in this run, ``remembered`` from an earlier run, ``pinned`` by the setting, or the ``only`` usable one.
        milliseconds: executor → time of a forward and backward pass of a cell on a part of a batch; only if it was chosen by timing.
        kernels: for ``compiled``, the digest in the name of the library (``kernels-….so``), which identifies source, compiler, instruction
            set and processor; known after the first forward pass.
    """

    name: str
    how: str
    milliseconds: dict[str, float]
    kernels: str


class Place(NamedTuple):
    """The place of a cell's computation: type of the device, precision, and whether autocast is on."""

    device: str
    dtype: torch.dtype = torch.float32
    autocast: bool = False

    @classmethod
    def of(cls, x: Tensor) -> Place:
        """Returns the place of a tensor."""
        return cls(x.device.type, x.dtype, torch.is_autocast_enabled(x.device.type) if x.device.type != 'meta' else False)


class Executor(ABC):
    """The base class of executors, each of which computes one kind of cell in one way.

    Attributes:
        name: one of :data:`NAMES`.
    """

    name: ClassVar[str]

    def computes(self, plan: Any) -> bool:
        """Returns whether the executor can compute a plan, on any device and in any precision."""
        return True

    def supports(self, plan: Any, like: Tensor) -> bool:
        """Returns whether the executor can compute a plan on the device and in the precision of a tensor."""
        return self.computes(plan) and unusable(self.name, Place.of(like)) is None

    @abstractmethod
    def __call__(self, cell: Any, plan: Any, *inputs: Any) -> Any:
        """Computes a cell by its plan."""


def by_name(*executors: Executor) -> dict[str, Executor]:
    """Returns name → executor, in the order of the arguments."""
    return {executor.name: executor for executor in executors}


class ExecutedCell(nn.Module):
    """A relaxed cell that several executors can compute.

    Attributes:
        executors: name → executor that can compute the cell, in the order of preference.
    """

    executors: ClassVar[dict[str, Executor]]

    def plan(self, like: Tensor) -> Any:
        """Returns the plan of the cell's computations on the device and in the precision of a tensor."""
        raise NotImplementedError

    def execute(self, name: str, *inputs: Any) -> Any:
        """Computes the cell with the executor of that name, or with ``plain`` if that executor cannot compute the current plan."""
        plan = self.plan(inputs[0])
        executor = self.executors[name]
        return (executor if executor.computes(plan) else self.executors['plain'])(self, plan, *inputs)

    def sample(self, *inputs: Any, portion: int) -> CellInputs:
        """Returns a part of the inputs that takes a few hundredths of a second to compute, or up to ``portion`` times as long."""
        raise NotImplementedError

    def structure(self) -> str:
        """Returns a text that is equal for cells with the same computations."""
        raise NotImplementedError

    def alphas(self) -> Sequence[Tensor]:
        """Returns all α of the supernet."""
        raise NotImplementedError


def unusable(name: str, place: Place) -> str | None:
    """Returns why an executor cannot be used in a place, as the predicate of a sentence; None if it can be used."""
    if name in ('compiled', 'piecewise'):
        if place.device != 'cpu':
            return f'computes on the CPU, not on {place.device}'
        if place.autocast:
            return 'does not compute in 16 bits (precision: bf16-mixed, 16-mixed)'
    if name == 'compiled' and kernels(torch.empty(0, dtype=place.dtype, device='cpu')) is None:
        return 'has no kernels here: they need a C++ compiler on Linux, and NNI_DARTS_KERNELS must not be off'
    return None


class ExecutorChoice:
    """The executor of all cells of one search, chosen at the first forward pass unless it is pinned.

    Args:
        execution: ``fast`` chooses by timing; a name in :data:`NAMES` pins that executor.
        checkpoint: whether cells keep less memory for the backward pass; if so, ``plain``, which cannot, is chosen only if no other
            executor can be used.

    Attributes:
        record: the executor and how it was chosen; None until then.
        on_settled: callback for the record once it is known, called on every rank; assign your own.

    Example:
        >>> ExecutorChoice('joined').record
        {'name': 'joined', 'how': 'pinned'}
    """

    def __init__(self, execution: str = 'fast', *, checkpoint: bool = False) -> None:
        self.pinned = None if execution == 'fast' else execution
        self.checkpoint = checkpoint
        self.record: ExecutorRecord | None = None if self.pinned is None else {'name': self.pinned, 'how': 'pinned'}
        self.on_settled: Callable[[ExecutorRecord], None] | None = None
        self._names: dict[tuple[type, Place], str] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ExecutorChoice:
        return self  # a copy of a supernet shares its executor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'on_settled': None}

    def __call__(self, cell: ExecutedCell, *inputs: Any) -> str:
        """Returns the name of the executor for a cell with these inputs.

        In an initialised process group, the first call is a collective: all ranks adopt the choice of rank 0.

        Raises:
            ValueError: if the pinned executor cannot be used on the device or in the precision of the inputs.
        """
        key = type(cell), Place.of(inputs[0])
        if key not in self._names:
            self._names[key] = self._settled(cell, key[1], inputs)
            if self.record is not None and self._names[key] == self.record['name'] == 'compiled' and key[1].device != 'meta':
                self._note_kernels(self.record, key[1])
        return self._names[key]

    def keep(self, record: object) -> None:
        """Adopts the :class:`ExecutorRecord` of a resumed run, unless an executor is pinned.

        Any other value, such as the None of earlier versions, leaves the choice open.
        """
        if self.pinned is None and isinstance(record, dict) and record.get('name') in NAMES and isinstance(record.get('how'), str):
            self._names = {}
            self._settle(cast(ExecutorRecord, record))

    def only_plain(self) -> None:
        """Records that all cells of the supernet have ``plain`` as their only executor."""
        if self.record is None:
            self._settle({'name': 'plain', 'how': 'only'})

    def check(self, place: Place) -> None:
        """Raises ValueError if the pinned executor cannot be used in a place, or its kernels cannot run on this machine."""
        instruction_set()
        reason = None if self.pinned is None else unusable(self.pinned, place)
        if reason is not None:
            usable = [name for name in NAMES if unusable(name, place) is None]
            raise ValueError(f'execution: {self.pinned} {reason}. Choose fast or {" or ".join(usable)}.')

    def check_cells(self, cells: Sequence[ExecutedCell], relaxation: str) -> None:
        """Raises ValueError if the pinned executor cannot compute these cells with a relaxation in any place."""
        if self.pinned in (None, 'plain'):
            return
        common = [name for name in NAMES if all(_computes(name, cell) for cell in cells)] if cells else ['plain']
        if self.pinned not in common:
            raise ValueError(
                f'execution: {self.pinned} cannot compute what this space becomes with {relaxation}. Choose fast or {" or ".join(common)}.'
            )

    def _settled(self, cell: ExecutedCell, place: Place, inputs: CellInputs) -> str:
        plan = cell.plan(inputs[0])
        usable = [name for name, executor in cell.executors.items() if executor.supports(plan, inputs[0])]
        if self.record is not None and self.record['how'] != 'only':
            name = self.record['name']
            if name in cell.executors and unusable(name, place) is None:
                return name  # also if the executor cannot compute the current plan: then cells are computed by ``plain``
            self.check(place)
            if self._names or place.device == 'meta':
                return usable[0]  # for example if the supernet is evaluated on another device
            _logger.warning('The executor of this run, %s, cannot be used here: another one is chosen.', name)
        if place.device == 'meta':
            return usable[0]  # nothing is computed
        candidates = [name for name in usable if name != 'plain'] if self.checkpoint else usable
        chosen: ExecutorRecord = _choose(cell, candidates or usable, inputs, place) if parallel.is_first() else {}
        chosen = parallel.agreed(chosen)
        self._settle(chosen)
        return chosen['name']

    def _note_kernels(self, record: ExecutorRecord, place: Place) -> None:
        digest, earlier = required_kernels(torch.empty(0, dtype=place.dtype, device='cpu')).digest, record.get('kernels')
        if earlier not in (None, digest):
            _logger.warning('The kernels of this run were built anew, from other sources or for another processor: rounding differs.')
        if earlier != digest:
            self.record = {**record, 'kernels': digest}
            if self.on_settled is not None:
                self.on_settled(self.record)

    def _settle(self, record: ExecutorRecord) -> None:
        self.record = record
        times = ', '.join(f'{name} {value} ms' for name, value in record.get('milliseconds', {}).items())
        _logger.info('cells are computed by the executor %s (%s%s)', record['name'], record['how'], times and f': {times}')
        if self.on_settled is not None:
            self.on_settled(record)


def _computes(name: str, cell: ExecutedCell) -> bool:
    return name in cell.executors and cell.executors[name].computes(cell.plan(next(cell.parameters())))


def _choose(cell: ExecutedCell, candidates: Sequence[str], inputs: CellInputs, place: Place) -> ExecutorRecord:
    if len(candidates) == 1:
        return {'name': candidates[0], 'how': 'only'}
    path, key = memory_file(), choice_key(cell, candidates, inputs, place)
    before = recall(path, key, candidates)
    if before is not None:
        return before
    with under_way('timing executors'):
        seconds = timed(cell, candidates, inputs)
    name = candidates[0]
    for other in candidates[1:]:
        if seconds[other] < MARGIN * seconds[name]:
            name = other
    record: ExecutorRecord = {
        'name': name,
        'how': 'chosen',
        'milliseconds': {candidate: round(1000 * value, 3) for candidate, value in seconds.items()},
    }
    return remember(path, key, candidates, record)
