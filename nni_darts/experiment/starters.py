"""Writes the experiments of ``nni-darts new`` into a folder, from the examples and recipes of this package. Imports no torch."""

from __future__ import annotations

import getpass
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType

from nni_darts.errors import InputError, did_you_mean
from nni_darts.files import write_text
from nni_darts.recipes import recipe_text

__all__ = ['EXPERIMENT', 'STARTERS', 'Starter', 'example', 'write_starter']

EXPERIMENT, IMAGES = 'experiment.yml', 'images'
_MACHINE = re.compile(r'(?:(?P<user>[^@:\s]+)@)?(?P<host>[^@:\s]+)(?::(?P<port>\d+))?')


@dataclass(frozen=True)
class Starter:
    """An experiment that ``nni-darts new`` can write.

    Attributes:
        name: name for ``nni-darts new``.
        summary: description in one line.
        example: the file in ``examples/`` that it is made from.
        own_data: if the user names data, the recipe that replaces the example's and the settings to change besides the path; None if it
            takes no data.
        images: whether sample images are added if the user names no data.
        machines: whether it runs on machines that the user names.

    Example:
        >>> STARTERS['quickstart'].example
        'quickstart.yml'
    """

    name: str
    summary: str
    example: str
    own_data: tuple[str, str] | None = None
    images: bool = False
    machines: bool = False

    @property
    def recipe(self) -> str:
        """The file name of its recipe, which NNI's page and the summary show."""
        return f'{self.name}.yml'


STARTERS: Mapping[str, Starter] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Starter('quickstart', 'second-order DARTS against random search on digits, minutes on two cores', 'quickstart.yml'),
            Starter(
                'images', 'your own images in class folders (--data), or sample images', 'own_images.yml', ('photos-small', ''), images=True
            ),
            Starter(
                'text',
                "recurrent cells on your own text (--data), or on Python's help texts",
                'recurrent.yml',
                ('pydoc', 'data.name: text'),
            ),
            Starter('compare', 'eight strategies with three seeds each on digits', 'compare.yml'),
            Starter('remote', 'the quickstart on other machines over ssh (--machine)', 'remote.yml', machines=True),
        )
    }
)
"""Name → starter."""


def example(name: str) -> Traversable:
    """Returns a file or folder of ``examples/``, as installed with this package."""
    return resources.files('nni_darts.examples').joinpath(name)


def write_starter(name: str, folder: Path, *, data: Path | None = None, machines: Sequence[str] = ()) -> list[Path]:
    """Writes an experiment, its recipe and the files that it needs into a folder, which is created if it does not exist.

    Args:
        name: a name in :data:`STARTERS`.
        folder: the folder to write into.
        data: folder of the user's images or texts.
        machines: ``[user@]host[:port]`` of each machine that runs trials.

    Returns:
        The files written; the first is the experiment.

    Raises:
        InputError: for an unknown name, arguments that do not apply to it, or a file that exists already. Nothing is written then.
    """
    starter = _starter(name)
    if data is not None and not starter.own_data:
        takes = ' and '.join(entry.name for entry in STARTERS.values() if entry.own_data)
        raise InputError(f'--data belongs to {takes}, not to {name}.')
    if machines and not starter.machines:
        raise InputError(
            f'--machine belongs to {" and ".join(entry.name for entry in STARTERS.values() if entry.machines)}, not to {name}.'
        )
    if data is not None and not data.is_dir():
        raise InputError(f'--data {data}: there is no such folder.')
    if data is not None and starter.images:
        _check_classes(data)
    entries = [_machine(text) for text in machines]
    samples = starter.images and data is None
    _check_free(folder, [EXPERIMENT, starter.recipe, *([IMAGES] if samples else [])])
    text, recipe = _experiment(starter, folder / EXPERIMENT, data)
    if entries:
        text = _on_machines(text, entries)
    written = [folder / EXPERIMENT, folder / starter.recipe]
    folder.mkdir(parents=True, exist_ok=True)
    if samples:
        with resources.as_file(example('own_images')) as source:
            shutil.copytree(source, folder / IMAGES, dirs_exist_ok=True)
        written.append(folder / IMAGES)
    write_text(written[1], recipe_text(recipe))
    write_text(written[0], text)
    return written


def _starter(name: str) -> Starter:
    if name not in STARTERS:
        raise InputError(f'There is no experiment {name!r} to start from{did_you_mean(name, STARTERS)}; choose from {", ".join(STARTERS)}.')
    return STARTERS[name]


def _check_classes(data: Path) -> None:
    """Raises InputError if a folder of images has fewer than two class folders."""
    root = data / 'train' if (data / 'train').is_dir() else data
    classes = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith('.')]  # without importing torch
    if len(classes) < 2:
        found = f'only one class folder, {classes[0]}' if classes else 'no class folders'
        raise InputError(f'--data {data}: {root} has {found}; put the images of each class into a folder of their own, at least two.')


def _check_free(folder: Path, names: Sequence[str]) -> None:
    """Raises InputError if writing the files would overwrite anything; empty files and folders may be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f'{folder} is a file; name a folder to write into.')
    for path in (folder / name for name in names):
        taken = any(path.iterdir()) if path.is_dir() else path.exists() and path.stat().st_size > 0
        if taken:
            raise InputError(f'{path} already exists and is not overwritten; name another folder, or move it away.')


def _experiment(starter: Starter, path: Path, data: Path | None) -> tuple[str, str]:
    """Returns the text of the experiment's file, and the name of the recipe that it is based on."""
    text = example(starter.example).read_text('utf-8')
    found = re.search(r'^ +recipe: (\S+)', text, re.MULTILINE)
    assert found is not None, starter.example
    recipe = found.group(1)
    own = ''
    if data is not None:
        assert starter.own_data is not None
        recipe, also = starter.own_data
        text = _replaced(text, r'\n    set:\n(?:      .*\n)*', lambda match: '\n', optional=True)
        own = f"\n    set: {{{also}{', ' if also else ''}data.path: '{_quoted(data)}'}}"
    line = f'    recipe: {starter.recipe}  # all settings, from the recipe {recipe}; "nni-darts recipes" lists others{own}'
    text = _replaced(text, r'^    recipe: \S+', lambda match: line)
    if starter.images:
        named = r' \(.*?\)' if data is not None else ''  # comments in parentheses describe the sample images
        text = _replaced(text, f'examples/own_images{named}', lambda match: str(data.absolute() if data else IMAGES))
        text = _replaced(text, r'data\.path: own_images', lambda match: f'data.path: {IMAGES}', optional=data is not None)
    return text.replace(f'examples/{starter.example}', str(path)), recipe


def _quoted(path: Path) -> str:
    """Returns an absolute path, escaped for single quotes in YAML."""
    return str(path.absolute()).replace("'", "''")


def _replaced(text: str, pattern: str, by: Callable[[re.Match[str]], str], *, optional: bool = False) -> str:
    """Returns the text with each match of a pattern replaced; unless optional, there must be a match."""
    text, count = re.subn(pattern, by, text, flags=re.MULTILINE)
    assert count or optional, pattern
    return text


def _machine(text: str) -> dict[str, str]:
    found = _MACHINE.fullmatch(text)
    if found is None:
        raise InputError(f'--machine {text!r} must be [USER@]HOST[:PORT], for example me@192.0.2.10.')
    return {key: value for key, value in found.groupdict().items() if value is not None}


def _on_machines(text: str, machines: Sequence[Mapping[str, str]]) -> str:
    """Returns the remote example with the given machines, and the address of this machine as the first of them sees it."""
    entries = []
    for machine in machines:
        lines = {'host': machine['host'], **({'port': machine['port']} if 'port' in machine else {})}
        lines |= {
            'user': machine.get('user', getpass.getuser()),
            'sshKeyFile': '~/.ssh/id_rsa',
            'pythonPath': str(Path(sys.executable).parent),
        }
        entries.append('    - ' + '\n      '.join(f'{key}: {value}' for key, value in lines.items()))
    text = _replaced(text, r'  machineList:\n(?:    .*\n?)*', lambda match: '  machineList:\n' + '\n'.join(entries) + '\n')
    return _replaced(text, r'^nniManagerIp: \S+', lambda match: f'nniManagerIp: {_own_address(machines[0]["host"])}')


def _own_address(host: str) -> str:
    """Returns the address of this machine on the route to another one; the address in the example if there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 22))  # selects a route without sending anything
            return str(probe.getsockname()[0])
        except OSError:
            return '192.0.2.1'
