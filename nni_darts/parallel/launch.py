"""Starts, watches and ends the processes of a run on several devices.

Rank 0 is the process in which the run was started. The other ranks are its children, ``python -m nni_darts.parallel.launch``. Each child
gets its job as JSON on its standard input, takes part in the same run, and writes no files. The input stays open; when it closes, rank 0
has ended for whatever reason, and the child ends, too. Ranks find each other through a file in a private folder and communicate over
the loopback interface.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import distributed

from nni_darts._lazy import imported
from nni_darts.errors import InputError, RankLost

__all__ = ['join', 'together']

PATIENCE = timedelta(minutes=30)
"""Time for which a rank waits for the other ranks, which may be stopped or hang."""

_GRACE_SECONDS = 15.0
_DIVERGED, _WRONG_INPUT, _FAILED = 3, 2, 1
_INTERFACES = ('GLOO_SOCKET_IFNAME', 'NCCL_SOCKET_IFNAME')


@contextmanager
def together(devices: int, accelerator: str, work: str, job: Mapping[str, Any]) -> Iterator[None]:
    """Makes this process rank 0 of a group within the block, while children do the remaining parts; does nothing for one device.

    Args:
        devices: number of processes.
        accelerator: accelerator of the recipe; if it means GPUs, each process has one.
        work: ``package.module:function`` that a child calls with the job to do its part.
        job: plain data that describes the run.

    Raises:
        InputError: if there are fewer GPUs than devices, or a child reports a mistake in the input.
        ArithmeticError: if the run diverged on a child.
        RankLost: if a child ended for another reason, or stopped responding.
    """
    if devices == 1:
        yield
        return
    gpus = torch.cuda.device_count() if accelerator in ('auto', 'gpu') else 0
    if 0 < gpus < devices:
        raise InputError(f'devices is {devices}, but this machine has fewer GPUs ({gpus}): set devices: {gpus}, or accelerator: cpu')
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix='nni-darts-') as folder:
        # The processes divide the threads that one process alone would have.
        order = {'devices': devices, 'gpus': bool(gpus), 'threads': max(1, threads // devices), 'work': work, 'job': dict(job)}
        children = _Children(devices, Path(folder), order)
        try:
            torch.set_num_threads(max(1, threads // devices))
            children.wait_until_ready()
            join(0, devices, Path(folder), gpus=bool(gpus))
            if gpus:
                children.watch()
            yield
            children.finish()
        except RuntimeError as error:
            reason = children.reason(error)
            if reason is error:
                raise
            raise reason from error
        finally:
            children.end()
            if distributed.is_initialized():
                distributed.destroy_process_group()
            torch.set_num_threads(threads)


class _Children:
    """The child processes, which are the ranks from 1."""

    def __init__(self, devices: int, folder: Path, order: dict[str, Any]) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, devices):
                with self._log(rank).open('wb') as log:
                    process = subprocess.Popen(
                        [sys.executable, '-W', 'ignore', '-m', 'nni_darts.parallel.launch'],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        env={**os.environ, 'OMP_NUM_THREADS': str(order['threads'])},
                        start_new_session=True,  # Ctrl-C reaches rank 0 only, which ends the children
                    )
                self._processes.append(process)
                process.stdin.write(json.dumps({**order, 'rank': rank, 'folder': str(folder)}).encode() + b'\n')  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass  # it has already ended; the code that waits for it reports that
        except BaseException:
            self.end()
            raise

    def _log(self, rank: int) -> Path:
        return self._folder / f'rank-{rank}.log'

    def wait_until_ready(self) -> None:
        """Waits until all children are ready. Raises RuntimeError if one ends instead."""
        for process in self._processes:
            if not process.stdout.readline():  # type: ignore[union-attr]
                raise RuntimeError('a process ended before it began')

    def watch(self) -> None:
        """Watches the children from now on. If one ends early and rank 0 does not notice it, ends rank 0 with a sentence on stderr.

        On the CPU rank 0 would notice it, because a closed connection is an error at once. On GPUs it would wait for :data:`PATIENCE`.
        """
        threading.Thread(target=self._watch, name='nni-darts ranks', daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            if any(process.poll() for process in self._processes):
                if not self._over.wait(_GRACE_SECONDS):
                    print(f'Error: {self.reason(RuntimeError())}', file=sys.stderr, flush=True)
                    os._exit(1)
                return

    def finish(self) -> None:
        """Waits until all children have ended. Raises RuntimeError if one fails."""
        deadline = time.monotonic() + PATIENCE.total_seconds()
        for process in self._processes:
            try:
                if process.wait(max(0.1, deadline - time.monotonic())):
                    raise RuntimeError('a process failed at the end')
            except subprocess.TimeoutExpired:
                raise RuntimeError('a process does not end') from None

    def end(self) -> None:
        """Kills the remaining children, which hold nothing that is not in the files of rank 0."""
        self._over.set()
        for process in self._processes:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):  # input that the child has not read
                process.stdin.close()  # type: ignore[union-attr]
            process.stdout.close()  # type: ignore[union-attr]

    def reason(self, error: RuntimeError) -> Exception:
        """Returns the exception to raise for an error in rank 0: a child's first error if that is the cause, otherwise the error itself."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not any(process.poll() for process in self._processes):
            if isinstance(error, RankLost) or not _is_about_ranks(error):
                return error
            time.sleep(0.1)
        ended = [(process.returncode, rank) for rank, process in enumerate(self._processes, start=1) if process.poll()]
        if ended:
            return self._why(*min(ended, key=lambda end: end[0] == _FAILED))  # if one child was killed, the others fail because of it
        minutes = PATIENCE.total_seconds() / 60
        return RankLost(f'the processes of this run lost contact (the time limit is {minutes:g} minutes): {_first_line(error)}')

    def _why(self, code: int, rank: int) -> Exception:
        lines = [line for line in self._log(rank).read_text('utf-8', 'replace').splitlines() if line.strip()]
        said = lines[-1] if lines else ''
        kinds = {_DIVERGED: ArithmeticError, _WRONG_INPUT: InputError}
        if code in kinds and said:
            return kinds[code](said)
        how = f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'
        why = f' ({said})' if said else ''
        return RankLost(f'process {rank} of this run {how}{why}; a resumed run continues from the last checkpoint')


def _is_about_ranks(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or not text or any(word in text for word in ('gloo', 'nccl', 'a process', 'connection'))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def join(rank: int, devices: int, folder: Path, *, gpus: bool = False) -> None:
    """Joins the other ranks by a file in the folder, on the GPU of the rank's number or on the CPU. Listens on the loopback interface only.

    Args:
        rank: index of this process.
        devices: number of processes.
        folder: folder of the file.
        gpus: whether to use GPUs.
    """
    loopback = next((name for _, name in socket.if_nameindex() if name in ('lo', 'lo0')), None)
    before = {name: os.environ.get(name) for name in _INTERFACES}
    if loopback:
        os.environ.update(dict.fromkeys(_INTERFACES, loopback))
    try:
        if gpus:
            torch.cuda.set_device(rank)
        distributed.init_process_group(
            'cpu:gloo,cuda:nccl' if gpus else 'gloo',
            store=distributed.FileStore(str(folder / 'ranks'), devices),  # type: ignore[attr-defined]
            rank=rank,
            world_size=devices,
            timeout=PATIENCE,
        )
        distributed.barrier()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _end_with_parent(folder: str) -> None:
    """Ends this process when rank 0 has ended, which may have left its folder behind."""
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(_FAILED)


def _take_part() -> NoReturn:
    """Runs a child process: reads its job, joins the group, does its part and exits."""
    order = json.loads(sys.stdin.buffer.readline())
    parent = os.dup(1)
    os.dup2(2, 1)  # everything printed goes to the log, because nobody reads stdout
    threading.Thread(target=_end_with_parent, args=(order['folder'],), daemon=True).start()
    code, said = 0, ''
    try:
        work = imported(order['work'])
        torch.set_num_threads(order['threads'])
        os.write(parent, b'ready\n')
        join(order['rank'], order['devices'], Path(order['folder']), gpus=order['gpus'])
        work(order['job'])
    except ArithmeticError as error:
        code, said = _DIVERGED, str(error)
    except InputError as error:
        code, said = _WRONG_INPUT, str(error)
    except Exception as error:
        import traceback

        traceback.print_exc()
        code, said = _FAILED, f'{type(error).__name__}: {_first_line(error)}'
    if said:
        print(said, file=sys.stderr, flush=True)
    if not code:
        distributed.destroy_process_group()
    os._exit(code)  # all work is finished, and other threads may hang


if __name__ == '__main__':
    _take_part()
