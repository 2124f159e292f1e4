"""GPUs for each trial, without NNI's scheduler, which can take a machine down while none is free. Imports no torch.

A GPU has as many places as trials may share it; a place is a file with a lock on it (flock). The kernel releases the lock when the trial
ends, however it ends, so no GPU is ever lost to a trial that was killed.
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
    """Takes a trial's part of this machine: its GPUs, and threads. It must be called before torch is imported, which reads both.

    Args:
        recipe: all settings.
        share: number of trials at a time among which the cores are divided.
        gpus: how many a trial takes where there are some; 0 leaves them alone.
        trials_per_gpu: how many trials share one.
        say: called with what is taken.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // share) if hasattr(os, 'sched_getaffinity') else None
    if threads and share > 1:
        os.environ.setdefault('OMP_NUM_THREADS', str(threads))
    if gpus and recipe.accelerator in ('auto', 'gpu'):
        claim_gpus(visible_gpus(), gpus, trials_per_gpu, say=say)
    else:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # torch would find them


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the GPUs that a trial may use, as CUDA_VISIBLE_DEVICES takes them: all of the machine, or those that this variable lists."""
    installed = _installed()
    given = environment.get('CUDA_VISIBLE_DEVICES')
    if given is None:
        return installed
    names = []
    for name in (part.strip() for part in given.split(',')):
        if name.isdigit():
            if int(name) >= len(installed):
                break  # CUDA ignores what follows a number that stands for nothing, too
            name = installed[int(name)]
        elif not name or name.startswith('-') or not installed:
            break
        names.append(name)
    return names


def _installed() -> list[str]:
    """The UUIDs of the machine's NVIDIA GPUs: numbers mean different GPUs to different libraries."""
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
    """Takes places on so many GPUs for the rest of this process, and sets ``CUDA_VISIBLE_DEVICES`` to them. It waits until all are free at
    a time: what cannot be used yet is not kept from others.

    It must be called before torch is imported. Where there are no such GPUs nothing is changed.

    Args:
        devices: names of the GPUs, as :func:`visible_gpus` gives them.
        count: how many of them the trial computes on.
        trials_per_gpu: how many trials share one.
        say: called with a sentence when the trial has to wait, and with what it runs on.
        folder: of the locks; one for all experiments of this machine unless given.
        poll_seconds: how often a waiting trial looks.

    Returns:
        The descriptors that hold the places until they are closed; none without a GPU.

    Raises:
        InputError: if there are GPUs, but fewer than ``count``.
    """
    if not devices:
        say('has no NVIDIA GPU to take')
        return []
    if len(devices) < count:
        raise InputError(f'the recipe has devices: {count}, but this trial may use {len(devices)} of the GPUs here')
    folder = folder or Path(tempfile.gettempdir()) / 'nni-darts-gpus'
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # other users' trials take their places here, too
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
            say(f'waits for {"a GPU" if count == 1 else f"{count} GPUs"}: {taken} of {len(devices)} taken, {trials_per_gpu} trials on each')
        time.sleep(poll_seconds)


def _places(devices: Sequence[str], count: int, trials_per_gpu: int, folder: Path) -> dict[str, int]:
    """GPU → descriptor of a place on it that was free, for as many as there are up to ``count``."""
    held: dict[str, int] = {}
    # The first place of every GPU, then the second: trials spread over the GPUs.
    for place in range(trials_per_gpu):
        for device in devices:
            if device not in held and len(held) < count:
                descriptor = lock(folder / f'{re.sub(r"[^A-Za-z0-9-]", "_", device)}.{place}')
                if descriptor is not None:
                    held[device] = descriptor
    return {device: held[device] for device in devices if device in held}
