"""Experiments to begin with, written into a folder from the examples and recipes of this package. Imports no torch."""

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
    """A kind of experiment to begin with.

    Attributes:
        name: as for ``nni-darts new``.
        summary: one line.
        example: the file of ``examples/`` that it is made from.
        own_data: where the user names data, the recipe that takes the place of the example's, and what is set besides its path; None where
            data cannot be named.
        images: whether sample images come with it where the user names no data.
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
        """The file of its recipe, which is the name that NNI's page and the summary show."""
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
    """A file or folder of ``examples/``, as it was installed with this package."""
    return resources.files('nni_darts.examples').joinpath(name)


def write_starter(name: str, folder: Path, *, data: Path | None = None, machines: Sequence[str] = ()) -> list[Path]:
    """Writes an experiment, its recipe and what it needs into a folder, which is made if there is none.

    Args:
        name: one of :data:`STARTERS`.
        data: the user's images or texts.
        machines: ``[user@]host[:port]`` of each machine that trials run on.

    Returns:
        What was written; the experiment is the first.

    Raises:
        InputError: for an unknown name, arguments that do not belong to it, or a target that is there already. Nothing is written then.
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
    """Raises InputError for a folder of images with less than two class folders."""
    root = data / 'train' if (data / 'train').is_dir() else data
    classes = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith('.')]  # torch is not imported here
    if len(classes) < 2:
        found = f'only one class folder, {classes[0]}' if classes else 'no class folders'
        raise InputError(f'--data {data}: {root} has {found}; put the images of each class into a folder of its own, two at least.')


def _check_free(folder: Path, names: Sequence[str]) -> None:
    """Raises InputError if writing the files would overwrite anything; empty files and folders may be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f'{folder} is a file; name a folder to write into.')
    for path in (folder / name for name in names):
        taken = any(path.iterdir()) if path.is_dir() else path.exists() and path.stat().st_size > 0
        if taken:
            raise InputError(f'{path} already exists and is not overwritten; name another folder, or move it away.')


def _experiment(starter: Starter, path: Path, data: Path | None) -> tuple[str, str]:
    """The text of the experiment's file, and the name of the recipe that lies beside it."""
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
        named = r' \(.*?\)' if data is not None else ''  # what the sample images show is not what the user's do
        text = _replaced(text, f'examples/own_images{named}', lambda match: str(data.absolute() if data else IMAGES))
        text = _replaced(text, r'data\.path: own_images', lambda match: f'data.path: {IMAGES}', optional=data is not None)
    return text.replace(f'examples/{starter.example}', str(path)), recipe


def _quoted(path: Path) -> str:
    """An absolute path for single quotes in YAML."""
    return str(path.absolute()).replace("'", "''")


def _replaced(text: str, pattern: str, by: Callable[[re.Match[str]], str], *, optional: bool = False) -> str:
    """The text with what a pattern finds replaced; the example must have it, unless it is optional."""
    text, count = re.subn(pattern, by, text, flags=re.MULTILINE)
    assert count or optional, pattern
    return text


def _machine(text: str) -> dict[str, str]:
    found = _MACHINE.fullmatch(text)
    if found is None:
        raise InputError(f'--machine {text!r} must be [USER@]HOST[:PORT], for example me@192.0.2.10.')
    return {key: value for key, value in found.groupdict().items() if value is not None}


def _on_machines(text: str, machines: Sequence[Mapping[str, str]]) -> str:
    """The remote example with these machines in the place of its own, and the address of this one as the first sees it."""
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
    """The address of this machine on the way to another one; that of the example where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 22))  # chooses a route, sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return '192.0.2.1'
