"""Checks remote machines before NNI starts, because NNI ends without a message if one of them cannot be set up."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from nni_darts import __version__
from nni_darts.recipes import Recipe

__all__ = ['look_at', 'ssh_command']

_CONNECT_SECONDS = 10
_SECONDS = 180  # importing torch from a network drive is slow


def ssh_command(machine: Mapping[str, Any], folder: Path) -> list[str]:
    """Returns the command that runs Python on an entry of NNI's ``machineList``.

    Like NNI, the command accepts unknown host keys. It never asks for a password.

    Args:
        machine: an entry of ``machineList``.
        folder: folder that a relative ``sshKeyFile`` is relative to.
    """
    key = folder / Path(str(machine.get('sshKeyFile') or '~/.ssh/id_rsa')).expanduser()
    options = {
        'BatchMode': 'yes',
        'ConnectTimeout': _CONNECT_SECONDS,
        'StrictHostKeyChecking': 'no',
        'UserKnownHostsFile': '/dev/null',
        'IdentitiesOnly': 'yes',
        'LogLevel': 'ERROR',
    }
    command = ['ssh', *(part for name, value in options.items() for part in ('-o', f'{name}={value}'))]
    command += ['-i', str(key), '-p', str(machine.get('port') or 22), '-l', str(machine.get('user'))]
    path = machine.get('pythonPath')
    # The remote shell parses this command, so the user's values are quoted for it.
    run = 'python3 -' if not path else f'PATH={shlex.quote(str(path))}:"$PATH" python3 -'
    return [*command, '--', str(machine.get('host')), run]


def look_at(machine: Mapping[str, Any], recipe: Recipe | None, folder: Path) -> tuple[list[str], str]:
    """Checks a machine over ssh.

    Args:
        machine: an entry of NNI's ``machineList`` that has a key.
        recipe: recipe whose data must be on the machine; None to skip this check.
        folder: folder of the experiment's file.

    Returns:
        One sentence for each problem found, and a short description of the machine.
    """
    name = f'machine {machine.get("user")}@{machine.get("host")}'
    arguments = None if recipe is None else recipe.to_dict()
    source = resources.files('nni_darts.experiment').joinpath('probe.py').read_text('utf-8')
    script = f'import json\nARGUMENTS = json.loads({json.dumps(arguments)!r})\n' + source
    try:
        answer = subprocess.run(ssh_command(machine, folder), input=script, capture_output=True, text=True, timeout=_SECONDS)
    except FileNotFoundError:
        return [f'{name} cannot be checked: the program ssh is not installed here'], name
    except subprocess.TimeoutExpired:
        return [f'{name} did not answer within {_SECONDS} seconds'], name
    try:
        found = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = answer.stderr.strip().splitlines()
        why = lines[-1] if lines else f'it ended with exit code {answer.returncode}'
        if answer.returncode == 255:
            return [f'{name} cannot be reached with ssh: {why}'], name
        return [f'{name} has no working Python in {machine.get("pythonPath") or "its PATH"}: {why}'], name
    errors = [
        f'{name} has {what} {found[package] or "nowhere"}, but {wanted} is needed in {machine.get("pythonPath") or "its PATH"}'
        for package, what, wanted in (('nni', 'nni', '3.0'), ('nni-darts', 'nni-darts', __version__))
        if found[package] != wanted
    ]
    if not errors and not found['program']:
        errors.append(f'{name} has no program nni-darts in {machine.get("pythonPath") or "its PATH"}, which trialCommand starts')
    if found['data']:
        errors.append(f'{name} cannot load the data: {found["data"]}')
    gpus = f'{len(found["gpus"])} GPUs' if found['gpus'] else 'no GPU'
    return errors, f'{name}: Python {found["python"]}, {gpus}'
