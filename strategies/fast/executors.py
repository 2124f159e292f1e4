"""The executors that can compute a relaxed cell, and the choice among them by timing.

All executors compute the same numbers up to rounding; which is the fastest depends on the machine and on the size of a cell. So at the
first forward pass of a search one forward and backward pass of its first cell is timed with each executor that can be used, in well under
a second, and the fastest computes all cells of the search from then on. The choice is remembered in ``$XDG_CACHE_HOME/nni-darts``
(``~/.cache/nni-darts``), so that the same search on the same machine has the same bits; delete ``executors.json`` there to choose again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.activity import under_way
from nni_darts.files import cache_folder, lock, write_text
from nni_darts.strategies.architects.randomness import RandomState
from nni_darts.strategies.catalogue import ExecutionSetting
from nni_darts.strategies.fast.kernels import instruction_set, kernels

__all__ = ['NAMES', 'CellInputs', 'Executable', 'ExecutorChoice', 'ExecutorRecord', 'ExecutionSetting', 'Place', 'unusable']

_logger = logging.getLogger(__name__)

NAMES = ('compiled', 'piecewise', 'joined', 'plain')
"""Of all executors, in the order of preference."""

CellInputs = tuple[Tensor | None, ...]

BUDGET = 0.5
"""Seconds after which no further round of timing begins."""
ROUNDS = 5
PORTIONS = 1, 4
"""How much larger the second sample is than the first: large enough to leave the caches, as whole batches do."""
CLEARLY_SLOWER = 1.5
"""Ratio of times from which an executor is not timed again beside one preferred to it: larger samples favour preferred executors."""
HOPELESS = 4.0
"""Ratio of times from which an executor is not timed again, whatever the faster one is."""
MARGIN = 0.95
"""An executor is chosen before a preferred one (which needs less memory) if it takes less than this part of its time."""
ENTRIES = 500
"""Choices that are remembered; older ones are forgotten."""


class ExecutorRecord(TypedDict, total=False):
    """Which executor computes the cells of a search, as checkpoints, ``run.json`` and ``result.json`` have it.

    Attributes:
        name: one of :data:`NAMES`.
        how: ``chosen`` by timing in this run, ``remembered`` from an earlier run, ``pinned`` by the setting, or the ``only`` one.
        milliseconds: executor → time of a forward and backward pass of a cell on a part of a batch, where it was chosen by timing.
    """

    name: str
    how: str
    milliseconds: dict[str, float]


class Place(NamedTuple):
    """Where a cell is computed: the type of the device, the precision, and whether under autocast."""

    device: str
    dtype: torch.dtype = torch.float32
    autocast: bool = False

    @classmethod
    def of(cls, x: Tensor) -> Place:
        """The place of a tensor."""
        return cls(x.device.type, x.dtype, torch.is_autocast_enabled(x.device.type) if x.device.type != 'meta' else False)


class Executable(Protocol):
    """A relaxed cell that several executors can compute (an ``nn.Module``)."""

    executors: ClassVar[tuple[str, ...]]
    """Those that can, in the order of preference."""

    def execute(self, name: str, *inputs: Any) -> Any:
        """Computes the cell with the executor of that name."""

    def sample(self, *inputs: Any, portion: int) -> CellInputs:
        """A part of the inputs that is computed in a few hundredths of a second, or up to ``portion`` times as much."""

    def structure(self) -> str:
        """Text that is the same for cells that are computed alike."""

    def alphas(self) -> Sequence[Tensor]:
        """α of the supernet."""


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

    def __call__(self, cell: Executable, *inputs: Any) -> str:
        """The name of the executor for a cell with these inputs.

        In an initialised process group, the first call is a collective: all ranks take the choice of rank 0.

        Raises:
            ValueError: if the pinned executor cannot be used there.
        """
        key = type(cell), Place.of(inputs[0])
        if key not in self._names:
            self._names[key] = self._settled(cell, key[1], inputs)
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

    def check_cells(self, cells: Sequence[Executable], relaxation: str) -> None:
        """Raises ValueError if an executor is pinned that cannot compute these cells of a relaxation, whatever the place."""
        if self.pinned in (None, 'plain'):
            return
        common = [name for name in NAMES if all(name in cell.executors for cell in cells)] if cells else ['plain']
        if self.pinned not in common:
            raise ValueError(
                f'execution: {self.pinned} cannot compute what this space becomes with {relaxation}. Choose fast or {" or ".join(common)}.'
            )

    def _settled(self, cell: Executable, place: Place, inputs: CellInputs) -> str:
        usable = [name for name in cell.executors if unusable(name, place) is None]
        if self.record is not None and self.record['how'] != 'only':
            if self.record['name'] in usable:
                return self.record['name']
            self.check(place)
            if self._names or place.device == 'meta':
                return usable[0]  # for instance evaluated on another device than trained
            _logger.warning('the executor of this run, %s, cannot be used here: another one is chosen', self.record['name'])
        if place.device == 'meta':
            return usable[0]  # nothing is computed
        candidates = [name for name in usable if name != 'plain'] if self.checkpoint else usable
        self._settle(parallel.agreed(_choose(cell, candidates or usable, inputs, place) if parallel.is_first() else {}))
        return self.record['name']

    def _settle(self, record: ExecutorRecord) -> None:
        self.record = record
        times = ', '.join(f'{name} {value} ms' for name, value in record.get('milliseconds', {}).items())
        _logger.info('cells are computed by the executor %s (%s%s)', record['name'], record['how'], times and f': {times}')
        if self.on_settled is not None:
            self.on_settled(record)


def _choose(cell: Executable, candidates: Sequence[str], inputs: CellInputs, place: Place) -> ExecutorRecord:
    if len(candidates) == 1:
        return {'name': candidates[0], 'how': 'only'}
    path, key = _memory(), _key(cell, candidates, inputs, place)
    before = _recall(path, key, candidates)
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
    return _remember(path, key, candidates, record)


# timing ---------------------------------------------------------------------------------------------------------------------------


def timed(cell: Executable, candidates: Sequence[str], inputs: CellInputs) -> dict[str, float]:
    """Seconds of a forward and backward pass of a cell on a part of its inputs, by executor: the best of a few.

    Executors that are clearly slower on a small part are not timed on a larger one: their times are multiplied by its size.
    Nothing else changes: neither buffers, gradients and modes of the cell, nor the random state.
    """
    end = time.perf_counter() + BUDGET
    best: dict[str, float] = {}
    with _unchanged(cell, inputs[0].device):
        small, large = (_Sample(cell, inputs, portion) for portion in PORTIONS)
        for _ in range(2):  # the first pass warms up
            small.time(candidates, best)
        remaining = _worth_timing(candidates, best)
        if len(remaining) > 1 and large.size > small.size:
            best = {name: seconds * large.size / small.size for name, seconds in best.items()}
            for name in remaining:
                del best[name]
            large.time(remaining, best)
        for _ in range(ROUNDS):
            remaining = _worth_timing(remaining, best)
            if len(remaining) < 2 or time.perf_counter() > end:
                break
            large.time(remaining, best)
    return {name: best[name] for name in candidates}


def _worth_timing(candidates: Sequence[str], seconds: Mapping[str, float]) -> list[str]:
    """The candidates, in the order of preference, that may still turn out to be the fastest."""
    least = min(seconds[name] for name in candidates)
    return [
        name
        for number, name in enumerate(candidates)
        if seconds[name] <= HOPELESS * least
        and all(seconds[name] <= CLEARLY_SLOWER * seconds[preferred] for preferred in candidates[:number])
    ]


class _Sample:
    """A part of a cell's inputs, and what a search differentiates by: inputs, weights of the cell and α."""

    def __init__(self, cell: Executable, inputs: CellInputs, portion: int) -> None:
        parts = [None if x is None else x.detach().clone() for x in cell.sample(*inputs, portion=portion)]
        self.size = len(parts[0])
        self._cell, self._parts = cell, parts
        self._wanted = [*(x.requires_grad_() for x in parts[:2]), *_parameters(cell)]

    def time(self, candidates: Sequence[str], best: dict[str, float]) -> None:
        """Times each candidate once, and notes the seconds that are less than those noted."""
        for name in candidates:
            seconds = _one_pass(self._cell, name, self._parts, self._wanted)
            best[name] = min(best.get(name, seconds), seconds)


def _one_pass(cell: Executable, name: str, sample: Sequence[Tensor | None], wanted: Sequence[Tensor]) -> float:
    start = time.perf_counter()
    output = cell.execute(name, *sample)
    outputs = output if isinstance(output, tuple) else (output,)
    torch.autograd.grad(outputs, wanted, [torch.ones_like(part) for part in outputs], allow_unused=True)
    if wanted[0].device.type != 'cpu':
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def _parameters(cell: Executable) -> list[Tensor]:
    """The tensors that a search differentiates by: weights of the cell, and all α."""
    assert isinstance(cell, nn.Module)
    return [*cell.parameters(), *cell.alphas()]


@contextmanager
def _unchanged(cell: Executable, device: torch.device) -> Iterator[None]:
    """Within the block the cell trains, with gradients of weights and α, whatever the surrounding pass is; afterwards all is as before."""
    assert isinstance(cell, nn.Module)
    modes = [(module, module.training) for module in cell.modules()]
    before = RandomState({device})
    kind = device.type
    autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), torch.autograd.set_detect_anomaly(False), autocast:
        buffers = [(buffer, buffer.clone()) for buffer in cell.buffers()]
        frozen = [parameter for parameter in _parameters(cell) if not parameter.requires_grad]
        try:
            cell.train()
            for parameter in frozen:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            before.restore()


# memory ---------------------------------------------------------------------------------------------------------------------------

_IN_PROCESS: dict[tuple[str, str], dict[str, Any]] = {}
"""Choices of this process, by file and key: it keeps them where the file cannot be written."""


def _memory() -> Path | None:
    """The file that remembers choices; None where there is no home."""
    try:
        return cache_folder() / 'executors.json'
    except RuntimeError:
        return None


def _recall(path: Path | None, key: str, candidates: Sequence[str]) -> ExecutorRecord | None:
    """The choice remembered under a key; None if there is none of these candidates."""
    for entry in (_entries(path).get(key), _IN_PROCESS.get((str(path), key))):
        if isinstance(entry, dict) and entry.get('name') in candidates:
            times = entry.get('milliseconds')
            numbers = isinstance(times, dict) and all(isinstance(value, int | float) for value in times.values())
            return {'name': entry['name'], 'how': 'remembered', 'milliseconds': times if numbers else {}}
    return None


def _entries(path: Path | None) -> dict[str, Any]:
    """The entries of the file; none if it is damaged or missing."""
    try:
        entries = json.loads(path.read_text('utf-8')) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _remember(path: Path | None, key: str, candidates: Sequence[str], record: ExecutorRecord) -> ExecutorRecord:
    """Notes a choice, unless another process has noted one meanwhile: then that one holds, and is returned."""
    entry = {'name': record['name'], 'milliseconds': record['milliseconds']}
    try:
        with _held(path):
            before = _recall(path, key, candidates)
            if before is not None:
                return before
            entries = {**_entries(path), key: entry}
            write_text(path, json.dumps(dict(list(entries.items())[-ENTRIES:]), indent=1) + '\n')
    except OSError:
        pass  # without the file, each process chooses
    _IN_PROCESS[str(path), key] = entry
    return record


@contextmanager
def _held(path: Path | None) -> Iterator[None]:
    """Keeps other processes from writing the file. Raises OSError if that, or its folder, cannot be had."""
    if path is None:
        raise OSError('there is no home')
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(40):
        held = lock(path.with_suffix('.lock'))
        if held is not None:
            break
        time.sleep(0.05)
    else:
        raise OSError('another process does not let go of the lock')
    try:
        yield
    finally:
        os.close(held)


def _key(cell: Executable, candidates: Sequence[str], inputs: CellInputs, place: Place) -> str:
    """Text that is the same where the same choice is to be expected: machine, software, cell and sizes."""
    parts = (
        _processor(inputs[0].device),
        f'{torch.get_num_threads()} threads',
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        *(os.environ.get(name, '') for name in ('ONEDNN_MAX_CPU_ISA', 'NNI_DARTS_KERNELS', 'NNI_DARTS_KERNELS_ARCH', 'CXX')),
        _source(),
        str(place),
        ' '.join(candidates),
        ' '.join(str(tuple(x.shape)) for x in inputs if x is not None),
        cell.structure(),
    )
    return hashlib.blake2b('\0'.join(parts).encode(), digest_size=16).hexdigest()


@functools.cache
def _processor(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text('utf-8').splitlines()
    except OSError:
        return platform.processor()
    return '\n'.join(next((line for line in lines if line.startswith(start)), '') for start in ('model name', 'flags', 'Features'))


@functools.cache
def _source() -> str:
    """A digest of the executors themselves."""
    folder = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in folder.rglob('*') if path.suffix in ('.py', '.h', '.cpp')):
        digest.update(file.read_bytes())
    return digest.hexdigest()
