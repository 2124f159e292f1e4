"""A GPU for each trial, without NNI's scheduler, which can take a machine down while none is free. Imports no torch.

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

from nni_darts.files import lock

__all__ = ['claim_gpu', 'visible_gpus']

POLL_SECONDS = 2.0


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
    import pynvml  # comes with NNI

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver, no GPU
    try:
        return [str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def claim_gpu(
    devices: Sequence[str],
    trials_per_gpu: int = 1,
    *,
    say: Callable[[str], None] = print,
    folder: Path | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> int | None:
    """Takes a place on a GPU for the rest of this process, waiting until one is free, and sets ``CUDA_VISIBLE_DEVICES`` to it.

    It must be called before torch is imported. Where there are no such GPUs nothing is changed.

    Args:
        devices: names of the GPUs, as :func:`visible_gpus` gives them.
        trials_per_gpu: how many trials share one.
        say: called with a sentence when the trial has to wait, and with what it runs on.
        folder: of the locks; one for all experiments of this machine unless given.
        poll_seconds: how often a waiting trial looks.

    Returns:
        The descriptor that holds the place until it is closed; None without a GPU.
    """
    if not devices:
        say('has no NVIDIA GPU to take')
        return None
    folder = folder or Path(tempfile.gettempdir()) / 'nni-darts-gpus'
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # other users' trials take their places here, too
    waiting = False
    while True:
        # The first place of every GPU, then the second: trials spread over the GPUs.
        for place in range(trials_per_gpu):
            for device in devices:
                held = lock(folder / f'{re.sub(r"[^A-Za-z0-9-]", "_", device)}.{place}')
                if held is not None:
                    os.environ['CUDA_VISIBLE_DEVICES'] = device
                    say(f'runs on GPU {device}')
                    return held
        if not waiting:
            waiting = True
            say(f'waits for a GPU: {len(devices)} of {len(devices)} taken, {trials_per_gpu} trials on each')
        time.sleep(poll_seconds)
