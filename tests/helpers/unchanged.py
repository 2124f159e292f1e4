"""Checks that a change of the code leaves all results unchanged, by digests of about thirty small runs before and after the change.

    python -m tests.helpers.unchanged write before.json
    python -m tests.helpers.unchanged compare before.json

Digests depend on the processor and on the versions of torch and NumPy, so they are compared on one machine and never committed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

SUPERNETS = (
    *('darts-1st', 'darts-2nd', 'fixed-alpha', 'sdarts-rs', 'sdarts-adv', 'gdas', 'pc-darts', 'sgas', 'p-darts', 'enas', 'random-ws'),
    *('darts-joint', 'darts-coordinate', 'darts-pt', 'fixed-alpha+pt-mag', 'sgas+pt'),
)
MORE = {'text': ('darts-2nd', 'darts-1st+pt', 'random'), 'nasbench201': ('darts-pt', 'gdas'), 'photos': ('darts-1st',)}
"""Strategies to run on other data and spaces."""
FILES = ('genotype.json', 'magnitude.json', 'selection.jsonl', 'metrics.jsonl', 'weights.pt', 'result.json')
_TIMES = ('seconds', 'mib', 'executor', 'versions', 'images_per')


def runs(folder: Path) -> Iterator[tuple[str, list[str], dict[str, object]]]:
    """Yields name, command without the settings of its recipe, and settings of every run."""
    from tests.helpers import tiny
    from tests.helpers.pictures import write_pictures

    digits = {**tiny.overrides(tiny.write_images(folder / 'images.npz')), **tiny.SMALL, 'space.channels': 4}
    (folder / 'text').mkdir()
    text = tiny.text_overrides(tiny.write_text(folder / 'text'))
    write_pictures(folder / 'photos' / 'train', 12)
    write_pictures(folder / 'photos' / 'test', 4)
    benchmark = {'space.name': 'nasbench201', 'space.channels': 4, 'space.cells': 3, 'space.nodes': 4, 'retrain.channels': 4}
    photos = {**digits, 'data.name': 'folder', 'data.path': str(folder / 'photos'), 'data.image_size': 12, 'data.augment': 'crop-flip'}
    kinds = {'text': ('pydoc', text), 'nasbench201': ('digits', {**digits, **benchmark}), 'photos': ('digits', photos)}
    for strategy in (*SUPERNETS, 'random', 'evolution'):
        yield f'digits {strategy}', ['search', '--strategy', strategy, '--recipe', 'digits'], digits | _pinned(strategy)
    for execution in ('compiled', 'piecewise', 'joined'):
        yield f'digits {execution}', ['search', '--strategy', 'darts-2nd', '--recipe', 'digits'], digits | _pinned('darts-2nd', execution)
    for kind, strategies in MORE.items():
        recipe, settings = kinds[kind]
        for strategy in strategies:
            yield f'{kind} {strategy}', ['search', '--strategy', strategy, '--recipe', recipe], settings | _pinned(strategy)
    for kind, recipe, settings in (('digits', 'digits', digits), *((kind, *kinds[kind]) for kind in MORE)):
        found = folder / f'{kind} {"darts-pt" if kind == "nasbench201" else "darts-2nd" if kind == "text" else "darts-1st"}'
        yield f'{kind} retrain', ['retrain', '--genotype', str(found), '--recipe', recipe], settings


def _pinned(strategy: str, execution: str = 'plain') -> dict[str, object]:
    return {} if strategy in ('random', 'evolution') else {f'search.settings.{strategy}.execution': execution}


def digest(path: Path) -> str:
    """Returns the digest of a file that a run wrote, without times, paths and versions."""
    from nni_darts.runs.weights import read_state_dict

    if path.name == 'weights.pt':
        state = read_state_dict(path)
        content = b''.join(name.encode() + state[name].contiguous().numpy().tobytes() for name in sorted(state))
    elif path.name == 'result.json':
        content = _plain(json.loads(path.read_text())['result'])
    else:
        content = b'\n'.join(_plain(json.loads(line)) for line in path.read_text().splitlines())
    return hashlib.sha256(content).hexdigest()[:16]


def _plain(value: object) -> bytes:
    if isinstance(value, dict):
        value = {name: entry for name, entry in value.items() if not any(word in name for word in _TIMES)}
    return json.dumps(value, sort_keys=True).encode()


def digests() -> dict[str, dict[str, str]]:
    """Returns run → file → digest, from runs in a temporary folder."""
    from nni_darts.cli import main

    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run, command, settings in runs(folder):
            changes = [word for key, value in settings.items() for word in ('--set', f'{key}={json.dumps(value)}')]
            done = CliRunner().invoke(main, [*command, *changes, '--output', str(folder / run)])
            if done.exit_code:
                raise SystemExit(f'{run}: {done.output}')
            found[run] = {file: digest(folder / run / file) for file in FILES if (folder / run / file).is_file()}
            print(run, *found[run].values(), file=sys.stderr)
    return found


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    now = digests()
    if what == 'write':
        path.write_text(json.dumps(now, indent=1) + '\n')
        return
    before = json.loads(path.read_text())
    names = [(run, file) for run in before | now for file in before.get(run, {}) | now.get(run, {})]
    changed = [(run, file) for run, file in names if before.get(run, {}).get(file) != now.get(run, {}).get(file)]
    for run, file in changed:
        print(f'{run}: {file} has changed')
    print(f'{len(names) - len(changed)} of {len(names)} files of {len(before)} runs as before')
    raise SystemExit(bool(changed))


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main()
