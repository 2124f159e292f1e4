"""The executors that can compute a relaxed cell, and the choice among them by timing.

All executors compute the same numbers up to rounding; which is the fastest depends on the machine and on the size of a cell. So at the
first forward pass of a search one forward and backward pass of its first cell is timed with each executor that can be used, in well under
a second, and the fastest computes all cells of the search from then on. The choice is remembered in ``$XDG_CACHE_HOME/nni-darts``
(``~/.cache/nni-darts``), so that the same search on the same machine has the same bits; delete ``executors.json`` there to choose again.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.activity import under_way
from nni_darts.strategies.catalogue import ExecutionSetting
from nni_darts.strategies.fast.kernels import instruction_set, kernels
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
"""Of all executors, in the order of preference."""

CellInputs = tuple[Tensor | None, ...]

MARGIN = 0.95
"""An executor is chosen before a preferred one (which needs less memory) if it takes less than this part of its time."""


class ExecutorRecord(TypedDict, total=False):
    """Which executor computes the cells of a search, as checkpoints, ``run.json`` and ``result.json`` have it.

    Attributes:
        name: one of :data:`NAMES`.
        how: ``chosen`` by timing in this run, ``remembered`` from an earlier run, ``pinned`` by the setting, or the ``only`` one.
        milliseconds: executor → time of a forward and backward pass of a cell on a part of a batch, where it was chosen by timing.
        kernels: of ``compiled``, the digest in the name of the library (``kernels-….so``), which stands for source, compiler, instruction
            set and processor; it is known after the first forward pass.
    """

    name: str
    how: str
    milliseconds: dict[str, float]
    kernels: str


class Place(NamedTuple):
    """Where a cell is computed: the type of the device, the precision, and whether under autocast."""

    device: str
    dtype: torch.dtype = torch.float32
    autocast: bool = False

    @classmethod
    def of(cls, x: Tensor) -> Place:
        """The place of a tensor."""
        return cls(x.device.type, x.dtype, torch.is_autocast_enabled(x.device.type) if x.device.type != 'meta' else False)


class Executor(ABC):
    """One way of computing the cells of one kind.

    Attributes:
        name: one of :data:`NAMES`.
    """

    name: ClassVar[str]

    def computes(self, plan: Any) -> bool:
        """Returns whether it can compute a plan, wherever that is."""
        return True

    def supports(self, plan: Any, like: Tensor) -> bool:
        """Returns whether it can compute a plan on the device and in the precision of a tensor."""
        return self.computes(plan) and unusable(self.name, Place.of(like)) is None

    @abstractmethod
    def __call__(self, cell: Any, plan: Any, *inputs: Any) -> Any:
        """Computes a cell by its plan."""


def by_name(*executors: Executor) -> dict[str, Executor]:
    """Returns executors by their names, in the same order."""
    return {executor.name: executor for executor in executors}


class ExecutedCell(nn.Module):
    """A relaxed cell that several executors can compute.

    Attributes:
        executors: those that can, in the order of preference.
    """

    executors: ClassVar[dict[str, Executor]]

    def plan(self, like: Tensor) -> Any:
        """Returns the plan of the cell's computations on the device of a tensor, and in its precision."""
        raise NotImplementedError

    def execute(self, name: str, *inputs: Any) -> Any:
        """Computes the cell with the executor of that name, or plainly where that one cannot compute its plan (any more)."""
        plan = self.plan(inputs[0])
        executor = self.executors[name]
        return (executor if executor.computes(plan) else self.executors['plain'])(self, plan, *inputs)

    def sample(self, *inputs: Any, portion: int) -> CellInputs:
        """Returns a part of the inputs that is computed in a few hundredths of a second, or up to ``portion`` times as much."""
        raise NotImplementedError

    def structure(self) -> str:
        """Returns a text that is the same for cells that are computed alike."""
        raise NotImplementedError

    def alphas(self) -> Sequence[Tensor]:
        """Returns all α of the supernet."""
        raise NotImplementedError


def unusable(name: str, place: Place) -> str | None:
    """Why an executor cannot be used in a place, in the words that follow its name; None if it can."""
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
        execution: ``fast`` chooses; a name of :data:`NAMES` pins that executor.
        checkpoint: whether cells keep less for backward: then ``plain``, which cannot, is not chosen where another executor can be used.

    Attributes:
        record: the executor and how it came about; None as long as it is open.
        on_settled: called with the record once it is known, on every rank; set it as you like.

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
        return self  # a copy of a supernet is computed as the supernet is

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'on_settled': None}

    def __call__(self, cell: ExecutedCell, *inputs: Any) -> str:
        """The name of the executor for a cell with these inputs.

        In an initialised process group, the first call is a collective: all ranks take the choice of rank 0.

        Raises:
            ValueError: if the pinned executor cannot be used there.
        """
        key = type(cell), Place.of(inputs[0])
        if key not in self._names:
            self._names[key] = self._settled(cell, key[1], inputs)
            if self._names[key] == self.record['name'] == 'compiled' and key[1].device != 'meta':
                self._note_kernels(key[1])
        return self._names[key]

    def keep(self, record: Any) -> None:
        """Takes the :class:`ExecutorRecord` of a run that is resumed, unless an executor is pinned.

        Anything else, such as None, which runs of earlier versions have, leaves the choice open.
        """
        if self.pinned is None and isinstance(record, dict) and record.get('name') in NAMES and isinstance(record.get('how'), str):
            self._names = {}
            self._settle(record)

    def only_plain(self) -> None:
        """Notes that no cell of the supernet has another executor than ``plain``."""
        if self.record is None:
            self._settle({'name': 'plain', 'how': 'only'})

    def check(self, place: Place) -> None:
        """Raises ValueError if an executor is pinned that cannot be used in a place, or kernels are asked for that cannot run here."""
        instruction_set()
        reason = None if self.pinned is None else unusable(self.pinned, place)
        if reason is not None:
            usable = [name for name in NAMES if unusable(name, place) is None]
            raise ValueError(f'execution: {self.pinned} {reason}. Choose fast or {" or ".join(usable)}.')

    def check_cells(self, cells: Sequence[ExecutedCell], relaxation: str) -> None:
        """Raises ValueError if an executor is pinned that cannot compute these cells of a relaxation, whatever the place."""
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
                return name  # also for a plan that it cannot compute any more: then cells are computed plainly
            self.check(place)
            if self._names or place.device == 'meta':
                return usable[0]  # for instance evaluated on another device than trained
            _logger.warning('The executor of this run, %s, cannot be used here: another one is chosen.', name)
        if place.device == 'meta':
            return usable[0]  # nothing is computed
        candidates = [name for name in usable if name != 'plain'] if self.checkpoint else usable
        self._settle(parallel.agreed(_choose(cell, candidates or usable, inputs, place) if parallel.is_first() else {}))
        return self.record['name']

    def _note_kernels(self, place: Place) -> None:
        digest, earlier = kernels(torch.empty(0, dtype=place.dtype, device='cpu')).digest, self.record.get('kernels')
        if earlier not in (None, digest):
            _logger.warning('The kernels of this run were built anew, from other sources or for another processor: rounding differs.')
        if earlier != digest:
            self.record = {**self.record, 'kernels': digest}
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
