"""Assigns GPUs to trials without NNI's scheduler, which can exhaust a machine's memory while no GPU is free. Imports no torch.

A GPU has one slot for each trial that may share it. A slot is a file that the trial locks with flock. The kernel releases the lock when
the trial ends for whatever reason, so a trial that is killed never leaves a GPU occupied.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nni_darts.errors import InputError
from nni_darts.files import lock
from nni_darts.recipes import Recipe

__all__ = ['claim_gpus', 'take_devices', 'visible_gpus']

POLL_SECONDS = 2.0


def take_devices(recipe: Recipe, share: int, gpus: int, trials_per_gpu: int, say: Callable[[str], None]) -> None:
    """Takes a trial's share of this machine: GPUs and threads. Call it before torch is imported, because torch reads both on import.

    Args:
        recipe: all settings.
        share: number of concurrent trials among which the cores are divided.
        gpus: number of GPUs that a trial takes if there are any; 0 takes none.
        trials_per_gpu: number of trials that share a GPU.
        say: called with a sentence about what was taken.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // share) if hasattr(os, 'sched_getaffinity') else None
    if threads and share > 1:
        os.environ.setdefault('OMP_NUM_THREADS', str(threads))
    if gpus and recipe.accelerator in ('auto', 'gpu'):
        claim_gpus(visible_gpus(), gpus, trials_per_gpu, say=say)
    else:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # otherwise torch would find the GPUs


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the names of the GPUs that a trial may use, as CUDA_VISIBLE_DEVICES takes them.

    Args:
        environment: if it has CUDA_VISIBLE_DEVICES, only the GPUs listed there count; otherwise all GPUs of the machine do.
    """
    installed = _installed()
    given = environment.get('CUDA_VISIBLE_DEVICES')
    if given is None:
        return installed
    names = []
    for name in (part.strip() for part in given.split(',')):
        if name.isdigit():
            if int(name) >= len(installed):
                break  # CUDA, too, ignores everything after a number that names no GPU
            name = installed[int(name)]
        elif not name or name.startswith('-') or not installed:
            break
        names.append(name)
    return names


def _installed() -> list[str]:
    """Returns the UUIDs of the machine's NVIDIA GPUs. Index numbers would not do: different libraries number the GPUs differently."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver, no GPU
    try:
        return [str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def claim_gpus(
    devices: Sequence[str],
    count: int = 1,
    trials_per_gpu: int = 1,
    *,
    say: Callable[[str], None] = print,
    folder: Path | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> list[int]:
    """Claims slots on GPUs for the rest of this process, and sets ``CUDA_VISIBLE_DEVICES`` to these GPUs.

    It waits until enough GPUs are free at the same time, and holds none while it waits, so that other trials can use them. Call it
    before torch is imported. Without GPUs it changes nothing.

    Args:
        devices: names of the GPUs, as :func:`visible_gpus` returns them.
        count: number of GPUs that the trial computes on.
        trials_per_gpu: number of trials that share a GPU.
        say: called with a sentence when the trial has to wait, and with the GPUs that it runs on.
        folder: folder of the locks; by default one that all experiments on this machine share.
        poll_seconds: seconds between two attempts of a waiting trial.

    Returns:
        The file descriptors that hold the slots until they are closed; empty without GPUs.

    Raises:
        InputError: if there are GPUs, but fewer than ``count``.
    """
    if not devices:
        say('found no NVIDIA GPU')
        return []
    if len(devices) < count:
        raise InputError(f'the recipe has devices: {count}, but this trial may use only {len(devices)} GPUs here')
    folder = folder or Path(tempfile.gettempdir()) / 'nni-darts-gpus'
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # trials of other users lock their slots here, too
    waiting = False
    while True:
        held = _places(devices, count, trials_per_gpu, folder)
        if len(held) == count:
            names = ','.join(held)
            os.environ['CUDA_VISIBLE_DEVICES'] = names
            say(f'runs on GPU {names}')
            return list(held.values())
        for descriptor in held.values():
            os.close(descriptor)
        if not waiting:
            waiting = True
            taken = len(devices) - len(held)
            say(f'waits for {"a GPU" if count == 1 else f"{count} GPUs"}: {taken} of {len(devices)} taken, {trials_per_gpu} trials each')
        time.sleep(poll_seconds)


def _places(devices: Sequence[str], count: int, trials_per_gpu: int, folder: Path) -> dict[str, int]:
    """Locks a free slot on each of up to ``count`` GPUs. Returns GPU → file descriptor of the lock."""
    held: dict[str, int] = {}
    # All first slots come before all second slots, so that trials spread over the GPUs.
    for place in range(trials_per_gpu):
        for device in devices:
            if device not in held and len(held) < count:
                descriptor = lock(folder / f'{re.sub(r"[^A-Za-z0-9-]", "_", device)}.{place}')
                if descriptor is not None:
                    held[device] = descriptor
    return {device: held[device] for device in devices if device in held}
