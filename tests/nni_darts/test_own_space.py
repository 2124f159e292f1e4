"""A space of the user's, by name: the example of docs/own-space.md from search to export, and what goes wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts.cli import main
from nni_darts.errors import InputError
from nni_darts.genotypes import genotype_from_code, genotype_from_dict
from nni_darts.recipes import Recipe
from nni_darts.runs.loading import load_search
from tests.helpers.live import ENVIRONMENT, launched
from tests.helpers.tiny import overrides, write_images
from tests.test_documentation import OWN_STRATEGY, blocks

PAGE = Path(__file__).parents[2] / 'docs' / 'own-space.md'
EXAMPLE = re.search(r'^```python\n(.*?)^```', PAGE.read_text('utf-8'), re.MULTILINE | re.DOTALL)[1]
SHORT = ['search.epochs=2', 'select.epochs=1', 'retrain.epochs=1', 'search.random_samples=2', 'search.batch_size=128']


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which holds the example as ghosts.py."""
    (tmp_path / 'ghosts.py').write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    yield tmp_path
    for name in ('ghosts', 'other'):
        sys.modules.pop(name, None)


def call(*words: str, sets: list[str] = SHORT) -> Result:
    return CliRunner().invoke(main, [*words, *(word for item in sets for word in ('--set', item))])


def done(*words: str, sets: list[str] = SHORT) -> str:
    result = call(*words, sets=sets)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_example_is_short_and_goes_from_search_to_export(folder: Path) -> None:
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 30
    own = [*SHORT, 'space.name=ghosts:GhostNet']
    done('search', '--strategy', 'darts-1st', '--output', 'found', sets=own)
    found = genotype_from_dict(json.loads((folder / 'found' / 'genotype.json').read_text()))
    assert found.space == 'ghosts:GhostNet' and set(found.sample) == {'block0', 'block1', 'block2', 'inputs'}
    assert {'block0', 'ghost', 'Choices'} <= set(re.findall(r'\w+', (folder / 'found' / 'search.html').read_text()))
    small = json.loads(done('cost', 'found', '--json', sets=[]).splitlines()[-1])
    done('retrain', '--genotype', 'found', '--output', 'trained', sets=['retrain.epochs=1', 'retrain.space={width: 32}'])
    trained = json.loads((folder / 'trained' / 'result.json').read_text())['result']
    assert trained['parameters'] > small['parameters'] and 0 <= trained['test_accuracy'] <= 1
    done('draw', 'trained', '--output', 'cell.svg', sets=[])
    assert 'GhostNet' in (folder / 'cell.svg').read_text() and 'block2' in (folder / 'cell.svg').read_text()
    done('export', 'trained', '--pt2', 'model.pt2', sets=[])
    assert (folder / 'model.pt2').stat().st_size > 1000


@pytest.mark.parametrize('strategy', ['random', 'evolution', 'darts-1st+pt'])
def test_other_strategies_find_samples_of_it(folder: Path, strategy: str) -> None:
    evolution = [f'search.settings.evolution.{key}={value}' for key, value in {'cells': 3, 'population': 2, 'sample': 1}.items()]
    done('search', '--strategy', strategy, '--output', 'found', sets=[*SHORT, *evolution, 'space.name=ghosts:GhostNet'])
    sample = genotype_from_dict(json.loads((folder / 'found' / 'genotype.json').read_text())).sample
    assert set(sample) == {'block0', 'block1', 'block2', 'inputs'} and len(set(sample['inputs'])) == 2


def test_a_constructor_may_be_inherited(folder: Path) -> None:
    (folder / 'other.py').write_text(
        'from ghosts import GhostNet\n\n\nclass Child(GhostNet):\n    pass\n\n\nclass Grandchild(Child):\n    pass\n'
    )
    done('search', '--strategy', 'random', '--output', 'found', sets=[*SHORT, 'space.name=other:Grandchild', 'space.settings={width: 8}'])


def install(folder: Path, package: str, entries: str) -> None:
    """Writes the metadata of an installed package that registers spaces."""
    metadata = folder / f'{package}-1.0.dist-info'
    metadata.mkdir()
    (metadata / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n')
    (metadata / 'entry_points.txt').write_text(f'[nni_darts.spaces]\n{entries}\n')


def test_names_of_registered_spaces_are_unambiguous(folder: Path) -> None:
    install(folder, 'one', 'ghost = ghosts:GhostNet\nsame = ghosts:GhostNet\ndarts = ghosts:GhostNet\nhalf = ghosts')
    install(folder, 'two', 'ghost = other:GhostNet\nsame = ghosts:GhostNet')
    sys.path.insert(0, str(folder))
    assert Recipe.load('digits', ['space.name=same']).space.path == 'ghosts:GhostNet'
    assert Recipe.load('digits', ['space.name=darts']).space.channels == 8
    with pytest.raises(InputError, match="several packages install a space 'ghost'; choose one of ghosts:GhostNet, other:GhostNet"):
        Recipe.load('digits', ['space.name=ghost'])
    with pytest.raises(InputError, match="registers the space 'half' as 'ghosts'; it must be package.module:Class"):
        Recipe.load('digits', ['space.name=half'])
    assert re.search(r'^darts +pairs of cells', done('spaces', sets=[]), re.MULTILINE)


def test_a_registered_space_has_a_short_name(folder: Path) -> None:
    install(folder, 'ghost', 'ghost = ghosts:GhostNet')
    sys.path.insert(0, str(folder))
    recipe = Recipe.load('digits', ['space.name=ghost'])
    assert recipe.space.path == 'ghosts:GhostNet' and Recipe.from_dict(recipe.to_dict()) == recipe
    assert re.search(r'^ghost +ghosts:GhostNet$', done('spaces', sets=[]), re.MULTILINE)


@pytest.mark.parametrize('sets', [{'space.name': 'ghosts:GhostNet'}, {'space': {'name': 'ghosts:GhostNet'}}])
def test_an_own_space_replaces_the_cells_of_a_recipe_and_of_a_run(folder: Path, sets: dict[str, object]) -> None:
    loaded = Recipe.load('cifar10', sets)
    changed = Recipe.load('cifar10').changed(sets, source='the recipe of out')
    for recipe in (loaded, changed):
        assert recipe.space.name == 'ghosts:GhostNet' and recipe.retrain.cells is None and not recipe.select.drop_path
    again = loaded.changed({'space.settings.width': 8, **sets, 'space.name': 'ghosts:GhostNet'}, source='the recipe of out')
    assert again.space.name == 'ghosts:GhostNet'


def test_a_run_that_left_out_a_mapping_can_be_given_one(folder: Path) -> None:
    recipe = Recipe.load('digits', {'space.name': 'ghosts:GhostNet'})
    changed = recipe.changed({'retrain.space.width': 8, 'budget.passes': 60}, source='searchSpace')
    assert changed.retrain.space == {'width': 8} and changed.budget.passes == 60


def test_a_genotype_of_an_own_space_says_which_space_it_needs(folder: Path) -> None:
    (folder / 'mine.json').write_text(json.dumps({'space': 'ghosts:GhostNet', 'sample': {'block0': 'ghost'}}))
    result = call('cost', 'mine.json', sets=[])
    assert result.exit_code == 2 and 'set space.name to ghosts:GhostNet to train it' in result.output


def test_a_recipe_of_an_own_space_keeps_its_settings(folder: Path) -> None:
    values = Recipe.load(
        'digits', {'space': {'name': 'ghosts:GhostNet', 'settings': {'width': 4}}, 'retrain.space': {'width': 8}}
    ).to_dict()
    (folder / 'mine.yml').write_text(json.dumps(values))
    recipe = Recipe.load(folder / 'mine.yml', ['space.name=ghosts:GhostNet'])
    assert recipe.space.settings == {'width': 4} and recipe.retrain.space == {'width': 8}


@pytest.mark.parametrize(
    ('sets', 'words'),
    [
        (['space.name=[ghost]'], r"space.name: it must be the name of a space, such as darts, or your own .*, not \['ghost'\]"),
        (['space.name='], 'space.name: it must be the name of a space, such as darts, .*, not None'),
        (['space={name: {a: 1}}'], "space.name: it must be the name of a space, .* not {'a': 1}"),
        (['space.name=nowhere:GhostNet'], "no module 'nowhere' for space 'nowhere:GhostNet' in .* or on PYTHONPATH"),
        (['space.name=ghosts:Spook'], "module 'ghosts' has no 'Spook'"),
        (['space.name=ghosts:Gostnet'], r"module 'ghosts' has no 'Gostnet' \(did you mean 'GhostNet'\?\)"),
        (['space.name=ghosts:Ghost'], 'is not a ModelSpace: it must be a class that derives from'),
        (
            ['space.name=ghosts:GhostNet', 'space.settings={depth: 3}'],
            "space ghosts:GhostNet has no setting 'depth'.*; it has width, num_classes, in_channels",
        ),
        (['space.name=ghosts:GhostNet', 'space.settings={width: wide}'], r'failed: \w+Error: .*ghosts.py:\d+'),
        (
            ['space.name=ghosts:GhostNet', 'space.settings={num_classes: 3}'],
            r'on images of 1×8×8 returns \(2, 3\) for two images; it must return logits \(2, 10\)',
        ),
        (['space.name=ghosts:GhostNet', 'space.settings={in_channels: 3}'], r'failed: RuntimeError: .*ghosts.py:\d+'),
        (['space.name=ghosts:GhostNet', 'retrain.channels=4'], 'retrain.channels is for spaces of cells'),
        (['space.name=ghost'], "unknown space 'ghost'; known: darts, .* or your own ModelSpace as package.module:Class"),
        (['retrain.space={width: 3}'], 'retrain.space is for a space of your own'),
    ],
)
def test_what_is_wrong_is_one_sentence_before_anything_starts(folder: Path, sets: list[str], words: str) -> None:
    result = call('search', '--output', 'found', sets=[*SHORT, *sets])
    assert result.exit_code == 2 and re.search(words, result.output), result.output
    assert result.output.strip().count('\n') == 0 and not (folder / 'found').exists()


@pytest.mark.parametrize(
    ('change', 'said', 'of_weights'),
    [
        (
            ("'ghost': Ghost", "'spook': Ghost"),
            "choice 'block0' had ghost, conv, skip, and now has spook, conv, skip; restore",
            'which has no such value',
        ),
        (
            ("'ghost': Ghost(width), ", ''),
            "choice 'block0' had ghost, conv, skip, and now has conv, skip",
            'which has no such value; it has conv',
        ),
        (
            ('width=16', 'width=12'),
            'does not fit the network as it is built now .*size mismatch for stem.weight',
            'size mismatch for stem.weight',
        ),
    ],
)
def test_a_search_and_a_network_of_a_space_that_has_changed_are_refused(
    folder: Path, change: tuple[str, str], said: str, of_weights: str
) -> None:
    own = [*SHORT, 'space.name=ghosts:GhostNet']
    done('search', '--strategy', 'darts-1st', '--output', 'found', sets=own)
    sample = {f'block{number}': 'ghost' for number in range(3)} | {'inputs': [0, 1]}
    (folder / 'ghost.json').write_text(json.dumps({'space': 'ghosts:GhostNet', 'sample': sample}))
    done('retrain', '--genotype', 'ghost.json', '--output', 'trained', sets=['retrain.epochs=1', 'space.name=ghosts:GhostNet'])
    (folder / 'ghosts.py').write_text(EXAMPLE.replace(*change))
    sys.modules.pop('ghosts')
    with pytest.raises(InputError, match=said):
        load_search(folder / 'found')
    result = call('export', 'trained', '--pt2', 'model.pt2', sets=[])
    assert result.exit_code == 2 and re.search(of_weights, result.output) and 'damaged' not in result.output, result.output


def test_a_division_by_zero_while_it_trains_keeps_its_traceback(folder: Path) -> None:
    (folder / 'other.py').write_text(
        'import torch\nfrom ghosts import GhostNet\n\n\nclass Late(GhostNet):\n    def forward(self, images):\n'
        '        return super().forward(images) / (1 if not torch.is_grad_enabled() else 1 // 0)\n'
    )
    result = call('search', '--strategy', 'darts-1st', '--output', 'found', sets=[*SHORT, 'space.name=other:Late'])
    assert isinstance(result.exception, ZeroDivisionError), result.output


@pytest.mark.parametrize(
    ('sample', 'words'),
    [
        ({'block0': 'ghost'}, "has no value for 'block1' of ghosts:GhostNet"),
        (
            {'block0': 'gost', 'block1': 'conv', 'block2': 'skip', 'inputs': [0, 1]},
            "has 'gost' for the choice 'block0' .*; it has ghost, conv",
        ),
        (
            {'block0': 'conv', 'block1': 'conv', 'block2': 'skip', 'inputs': [0, 7]},
            r"has \[0, 7\] for the choice 'inputs' .*; it has 0, 1, 2",
        ),
    ],
)
def test_a_network_with_other_choices_is_refused(sample: dict[str, object], words: str) -> None:
    recipe = Recipe.load('digits', {'space.name': 'ghosts:GhostNet'})
    code = genotype_from_dict({'space': 'ghosts:GhostNet', 'sample': sample}).code()
    from nni_darts.runs.tasks import task_of

    with pytest.raises(InputError, match=words):
        task_of(recipe).network(recipe, 'retrain', genotype_from_code(code), task_of(recipe).shape(recipe))


@pytest.mark.slow
@pytest.mark.nni
def test_an_own_space_and_an_own_strategy_run_in_one_experiment(folder: Path) -> None:
    """Beside strategies of this package, from search to a retrained network, its pages and an export."""
    (folder / 'tempered.py').write_text(blocks(OWN_STRATEGY, 'python')[0])
    small = overrides(write_images(folder / 'images.npz'))
    settings = {key: value for key, value in small.items() if key.startswith('data.') or key.endswith(('epochs', 'batch_size'))}
    settings |= {'space.name': 'ghosts:GhostNet', 'retrain.space': {'width': 24}, 'search.random_samples': 1}
    names = ['tempered:Tempered', 'darts-2nd', 'random']
    space = {'strategy': {'_type': 'choice', '_value': names}}
    with launched(folder, ENVIRONMENT, searchSpace=space, classArgs={'recipe': 'digits', 'set': settings}) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 900)
        trials = {trial.key: trial for trial in experiment.trials() if trial.metric is not None}
        pages = {path.name for path in (experiment.folder / 'log').glob('*.html')}
        summary = (experiment.folder / 'log' / 'summary.html').read_text()
        trained = experiment.folder / 'environments' / 'local-env' / 'trials' / trials['retrain tempered:Tempered 1'].id
        done('export', str(trained), '--pt2', 'model.pt2', sets=[])
    searches = [f'{stage} {name} 1' for name in names[:2] for stage in ('search', 'select')]
    assert set(trials) == {*searches, 'select random 1.1', *(f'retrain {name} 1' for name in names)}
    assert all(genotype_from_code(trial.metric['arch']).space == 'ghosts:GhostNet' for trial in trials.values())
    assert {'search-tempered--Tempered-1.html', 'retrain-random-1.html'} <= pages and 'GhostNet' in summary and 'block2' in summary
