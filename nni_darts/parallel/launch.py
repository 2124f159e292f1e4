"""The processes of a run on several devices: started, watched, ended.

Rank 0 is the process that was asked for the run. The others are its children, ``python -m nni_darts.parallel.launch``: each gets its order
as JSON on its standard input, does its part of the same run, and writes no files. That input stays open: when it closes, rank 0 is gone,
however it ended, and the child ends, too. Ranks meet through a file in a private folder and talk over the loopback interface.
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
"""How long a rank waits for a word of the others, which may be stopped or hang."""

_GRACE_SECONDS = 15.0
_DIVERGED, _WRONG_INPUT, _FAILED = 3, 2, 1
_INTERFACES = ('GLOO_SOCKET_IFNAME', 'NCCL_SOCKET_IFNAME')


@contextmanager
def together(devices: int, accelerator: str, work: str, job: Mapping[str, Any]) -> Iterator[None]:
    """Within the block this process is rank 0 of a group, and children do the rest of the job; nothing happens for one device.

    Args:
        devices: how many processes there are.
        accelerator: as in a recipe; where it means GPUs, each process has one.
        work: ``package.module:function`` that a child calls with the job, to do its part of it.
        job: plain data.

    Raises:
        InputError: if there are fewer GPUs than devices, or something that was given is wrong in terms of a child.
        ArithmeticError: if the run diverged on a child.
        RankLost: if a child ended otherwise, or fell silent.
    """
    if devices == 1:
        yield
        return
    gpus = torch.cuda.device_count() if accelerator in ('auto', 'gpu') else 0
    if 0 < gpus < devices:
        raise InputError(f'devices is {devices}, but this machine has fewer GPUs ({gpus}): give devices: {gpus}, or accelerator: cpu')
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix='nni-darts-') as folder:
        # Each process gets its part of the threads that one alone would have.
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
    """The ranks from 1."""

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
                        start_new_session=True,  # Ctrl-C is for rank 0, which ends the others
                    )
                self._processes.append(process)
                process.stdin.write(json.dumps({**order, 'rank': rank, 'folder': str(folder)}).encode() + b'\n')  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass  # it has ended already: whoever waits for it says so
        except BaseException:
            self.end()
            raise

    def _log(self, rank: int) -> Path:
        return self._folder / f'rank-{rank}.log'

    def wait_until_ready(self) -> None:
        """Returns once all of them are up. Raises RuntimeError if one ends instead."""
        for process in self._processes:
            if not process.stdout.readline():  # type: ignore[union-attr]
                raise RuntimeError('a process ended before it began')

    def watch(self) -> None:
        """From now on, if one ends early and rank 0 does not notice by itself, rank 0 ends, with a sentence on stderr.

        On the CPU it would: there a connection that is closed is an error at once. On GPUs it would wait for :data:`PATIENCE`.
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
        """Waits for their ends. Raises RuntimeError if one fails on the way."""
        deadline = time.monotonic() + PATIENCE.total_seconds()
        for process in self._processes:
            try:
                if process.wait(max(0.1, deadline - time.monotonic())):
                    raise RuntimeError('a process failed at the end')
            except subprocess.TimeoutExpired:
                raise RuntimeError('a process does not end') from None

    def end(self) -> None:
        """Kills those that are left. They hold nothing that is not in rank 0's files."""
        self._over.set()
        for process in self._processes:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):  # what it has not read
                process.stdin.close()  # type: ignore[union-attr]
            process.stdout.close()  # type: ignore[union-attr]

    def reason(self, error: RuntimeError) -> Exception:
        """Returns the exception to raise for an error in rank 0: the first error of a child if that is the cause, else the error itself."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not any(process.poll() for process in self._processes):
            if isinstance(error, RankLost) or not _is_about_ranks(error):
                return error
            time.sleep(0.1)
        ended = [(process.returncode, rank) for rank, process in enumerate(self._processes, start=1) if process.poll()]
        if ended:
            return self._why(*min(ended, key=lambda end: end[0] == _FAILED))  # others fail because one was killed
        minutes = PATIENCE.total_seconds() / 60
        return RankLost(f'the processes of this run lost each other (a word is waited for {minutes:g} minutes): {_first_line(error)}')

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
    """Meets the other ranks by a file in the folder, each on the GPU of its number or all on the CPU. Nothing listens but on the loopback
    interface."""
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
    """Ends this process when rank 0 is gone, which can have left its folder behind."""
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(_FAILED)


def _take_part() -> NoReturn:
    """Runs in a child process."""
    order = json.loads(sys.stdin.buffer.readline())
    parent = os.dup(1)
    os.dup2(2, 1)  # what anybody prints goes into the log: nobody reads the other one
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
    os._exit(code)  # nothing is left to be done, and other threads may hang


if __name__ == '__main__':
    _take_part()
