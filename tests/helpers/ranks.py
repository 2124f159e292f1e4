"""Runs functions on several ranks at once, in separate processes."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['nni_darts.runs.run', 'nni_darts.parallel.launch'])  # imports these modules once for all processes


def on_ranks(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Returns the results of a function on each of ``size`` ranks. It must be a module's function whose results torch can save."""
    folder.mkdir()
    processes = [CONTEXT.Process(target=_run, args=(rank, size, folder, function, arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [file.read_text() for file in sorted(folder.glob('*.failed'))]
    assert not failed, '\n'.join(failed)
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in range(size)]


def _run(rank: int, size: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    from nni_darts.parallel.launch import join

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        if size > 1:
            join(rank, size, folder)
        torch.save(function(*arguments), folder / f'{rank}.pt')
    except BaseException:
        (folder / f'{rank}.failed').write_text(traceback.format_exc())
        raise
