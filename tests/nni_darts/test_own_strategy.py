"""Strategies of a user's own, by ``module:Name`` from a folder outside the package and by the entry point of an installed package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts.cli import main
from nni_darts.errors import InputError
from nni_darts.experiment.arguments import TunerArguments
from nni_darts.experiment.pages import page_name
from nni_darts.experiment.protocol import Job, Protocol, parse_search_space
from nni_darts.recipes import Recipe
from nni_darts.runs.checks import strategy_settings
from nni_darts.strategies import create_strategy, find
from nni_darts.strategies.registry import check_name, installed, names
from tests.helpers.live import ENVIRONMENT, ROOT, launched
from tests.helpers.tiny import overrides, write_images
from tests.test_documentation import OWN_STRATEGY, blocks

TEMPERED, CLIMBING = blocks(OWN_STRATEGY, 'python')
WRONG = """
from nni_darts.strategies import DifferentiableStrategy, OneByOne

number = 3


class Thing:
    pass


def nothing():
    return 3


def unannotated():
    class Empty(OneByOne):
        cells = 1

    return Empty()


def uncounted() -> OneByOne:
    return OneByOne()


def listed(sizes: tuple[int, ...] = (1, 2), names: list[str] | None = None) -> DifferentiableStrategy:
    return DifferentiableStrategy()


def needs(rate: float, architecture_learning_rate: float = 1.0, **settings):
    return DifferentiableStrategy(learning_rate=rate, **settings)


def failing():
    raise KeyError('x')


def of_class():
    return DifferentiableStrategy
"""
PARTS = """
import random

import torch

from nni_darts.genotypes.recurrent import RnnGenotype
from nni_darts.strategies import DifferentiableStrategy, OneByOne
from nni_darts.strategies.architects import Architect, FirstOrder
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.selections import Selection


def relaxed(name, **methods):
    relaxation = type(name, (Relaxation,), methods)
    return lambda: DifferentiableStrategy(relaxation(), FirstOrder())


Short = relaxed('Short', probabilities=lambda self, alpha: alpha[1:])
Raising = relaxed('Raising', probabilities=lambda self, alpha: 1 / 0)


class Bare(DifferentiableStrategy):
    def __init__(self):
        super().__init__(Relaxation(), type('Mine', (Architect,), {})())


class Deciding(DifferentiableStrategy):
    def __init__(self):
        super().__init__(None, None, type('Rounds', (Selection,), {'rounds_due': lambda self, *finished: 1})())


class Empty(DifferentiableStrategy):
    def __init__(self):
        pass


class Cells(OneByOne):
    def __init__(self, cells: int = 2) -> None:
        self.cells = cells

    def propose(self, space, rng, cells, scores):
        return space.random_cell(rng)


class Uncounted(Cells):
    def __init__(self, cells: int = 2) -> None:
        pass


class None_(Cells):
    def propose(self, space, rng, cells, scores):
        return None


class Text(Cells):
    def propose(self, space, rng, cells, scores):
        return 'DARTS_V2'


class Recurrent(Cells):
    def propose(self, space, rng, cells, scores):
        return RnnGenotype.random(random.Random(1))


class Three(Cells):
    def propose(self, space, rng, cells):
        return space.random_cell(rng)


class Unable(Cells):
    def propose(self, space, rng, cells, scores):
        return {}['x']


class Waiting(Cells):
    def waits_for(self, number):
        return number


class Second(Cells):
    def propose(self, space, rng, cells, scores):
        if cells:
            raise ValueError('no second cell')
        return space.random_cell(rng)


class Unproposed(OneByOne):
    def __init__(self, cells: int = 2) -> None:
        self.cells = cells
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The documentation's modules, in the current folder; they are forgotten afterwards."""
    for name, text in {'tempered': TEMPERED, 'climbing': CLIMBING, 'wrong': WRONG, 'parts': PARTS}.items():
        (tmp_path / f'{name}.py').write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ('tempered', 'climbing', 'wrong', 'parts'):
        sys.modules.pop(name, None)


def search(strategy: str, folder: Path, **changes: object) -> Result:
    settings = {**overrides(write_images(folder / 'images.npz')), **changes}
    words = [word for key, value in settings.items() for word in ('--set', f'{key}={json.dumps(value)}')]
    return CliRunner().invoke(main, ['search', '--recipe', 'digits', '--strategy', strategy, '--output', str(folder / 'out'), *words])


@pytest.mark.parametrize('strategy', ['tempered:Tempered', 'tempered:Tempered+pt-mag'])
def test_a_search_finds_a_cell_with_the_strategy_of_the_documentation(strategy: str, folder: Path) -> None:
    done = search(strategy, folder, **{f'search.settings.{strategy}.temperature': 0.2, 'search.tuning_epochs': 1})
    assert done.exit_code == 0, done.output
    result = json.loads((folder / 'out' / 'result.json').read_text())
    assert result['strategy'] == strategy and result['recipe']['search']['settings'][strategy] == {'temperature': 0.2}
    assert f'Search: {strategy}, seed 1' in (folder / 'out' / 'search.html').read_text()
    assert (folder / 'out' / 'genotype.json').is_file()


def test_cells_of_the_documentation_are_trained_one_by_one(folder: Path) -> None:
    done = search('climbing:HillClimbing', folder, **{'search.settings.climbing:HillClimbing.cells': 3})
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (folder / 'out').glob('cell-*')) == ['cell-0', 'cell-1', 'cell-2']


@pytest.mark.slow
def test_every_process_of_a_search_finds_the_strategy(folder: Path) -> None:
    done = search('tempered:Tempered', folder, devices=2, accelerator='cpu')
    assert done.exit_code == 0, done.output


def test_settings_reach_the_parts(folder: Path) -> None:
    strategy = create_strategy('tempered:Tempered', temperature=0.5, learning_rate=0.01)
    assert (strategy.relaxation.temperature, strategy.optimizer_settings['lr']) == (0.5, 0.01)
    assert type(create_strategy('tempered:Tempered+pt', batches=3).selection).__name__ == 'Perturbation'
    assert create_strategy('climbing:HillClimbing', cells=2, seed=4).proposer.cells == 2


def test_a_recipe_gives_what_a_signature_names(folder: Path) -> None:
    recipe = Recipe.load('digits', ['search.architecture_learning_rate=0.007', 'search.tuning_epochs=3'])
    assert strategy_settings(recipe, 'wrong:needs')['architecture_learning_rate'] == 0.007
    assert strategy_settings(recipe, 'tempered:Tempered+pt')['learning_rate'] == 0.007
    assert strategy_settings(recipe, 'tempered:Tempered+pt')['epochs_between'] == 3


def test_capabilities_follow_from_the_code(folder: Path) -> None:
    tempered, climbing = find('tempered:Tempered'), find('climbing:HillClimbing')
    assert (tempered.relaxed, tempered.one_by_one, tempered.in_stages) == (True, False, False)
    assert (climbing.relaxed, climbing.one_by_one) == (False, True)
    assert [entry.name for entry in climbing.settings()] == ['cells']
    assert {entry.name: entry.meaning for entry in tempered.settings()}['temperature'] == 'temperature of the softmax over α; 1 is DARTS'


@pytest.mark.parametrize(
    ('strategy', 'said'),
    [
        ('nowhere:Name', "no module 'nowhere' for strategy 'nowhere:Name' in "),
        ('tempered:Tempred', "module 'tempered' has no 'Tempred'"),
        ('tempered:Tempered:x', 'must be written package.module:Name'),
        ('tempered:Tempered+best', 'unknown selection \\+best; known: \\+pt, \\+pt-mag, \\+shapley'),
        ('climbing:HillClimbing+pt', 'trains cells one by one: it has no supernet'),
        ('wrong:number', 'an object of type int, neither a class nor a function; a strategy is '),
        ('wrong:Thing', 'is a class, but not a strategy; a strategy is '),
        ('wrong:nothing', 'returns an object of type int, which is not a strategy; '),
        ('wrong:unannotated', 'annotate the function with "-> OneByOne"'),
        ('wrong:uncounted', 'needs a parameter cells: the number of cells'),
        ('wrong:needs', 'rate must be given: a number'),
        ('wrong:failing', r"strategy wrong:failing failed: KeyError: 'x' \(\S+wrong.py:35\)"),
        ('wrong:of_class', r'returns the class DifferentiableStrategy; it must return an object of it: DifferentiableStrategy\('),
        (
            'parts:Short',
            r'relaxation Short: probabilities returns a tensor of shape \(\d+,\) for α of shape \(\d+,\); it must have the shape of α',
        ),
        ('parts:Raising', r'relaxation Raising failed: ZeroDivisionError: .*parts.py:\d+'),
        ('parts:Bare', 'the class Mine must define options or gradient or gradients, as its base class Architect says'),
        ('parts:Deciding', 'the class Rounds must define decide, as its base class Selection says'),
        ('parts:Empty', r'its __init__ must call super\(\).__init__\(relaxation, architect, selection\)'),
        ('parts:Uncounted', 'must have an attribute cells, the number of cells to train, which is a whole number from 1, and it has none'),
        ('parts:None_', "proposes 'None', an object of NoneType; propose must return a cell of darts, as space.random_cell"),
        ('parts:Text', "proposes 'DARTS_V2', an object of str; propose must return a cell"),
        ('parts:Recurrent', 'an object of RnnGenotype; propose must return a cell'),
        ('parts:Three', r'strategy parts:Three failed: TypeError: .*propose\(\) takes 4 positional arguments but 5 were given'),
        ('parts:Unable', r"strategy parts:Unable failed: KeyError: 'x' \(\S+parts.py:\d+\)"),
        ('parts:Waiting', r'waits_for\(1\) must be a whole number from 0 to 0, the earlier cells, not 1'),
        ('parts:Unproposed', 'the class Unproposed must define propose, as its base class OneByOne says'),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(strategy: str, said: str, folder: Path) -> None:
    done = search(strategy, folder)
    assert done.exit_code == 2 and re.search(said, done.output), done.output
    assert done.output.startswith('Error: ') and len(done.output.splitlines()) == 1 and not (folder / 'out').exists()


def test_a_number_of_cells_below_one_is_refused(folder: Path) -> None:
    done = search('parts:Cells', folder, **{'search.settings.parts:Cells.cells': 0})
    assert done.exit_code == 2 and 'a whole number from 1, not 0' in done.output and not (folder / 'out').exists(), done.output


def test_a_strategy_that_fails_later_is_one_sentence_and_keeps_its_cells(folder: Path) -> None:
    done = search('parts:Second', folder)
    assert done.exit_code == 2 and re.search(r'strategy parts:Second failed: ValueError: no second cell \(\S+parts.py:\d+\)', done.output)
    assert (folder / 'out' / 'cell-0' / 'result.json').is_file()


def test_lists_of_yaml_are_settings(folder: Path) -> None:
    assert [entry.allowed for entry in find('wrong:listed').settings()] == ['a list of whole numbers', 'a list or null']
    find('wrong:listed').check({'sizes': [3, 4], 'names': ['a']})
    with pytest.raises(ValueError, match=r"sizes must be a list of whole numbers, not \['x'\]"):
        find('wrong:listed').check({'sizes': ['x']})


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('temprature', 0.1, r"no setting 'temprature' \(did you mean 'temperature'\?\); it has temperature, learning_rate"),
        ('temperature', 'cold', "temperature must be a number, not 'cold'"),
        ('weight_decay', -1, 'weight_decay must be a number from 0, not -1'),
    ],
)
def test_wrong_settings_name_what_is_allowed(name: str, value: object, said: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=said):
        create_strategy('tempered:Tempered', **{name: value})
    recipe = Recipe.load('digits', {f'search.settings.tempered:Tempered.{name}': value})
    with pytest.raises(InputError, match=said):
        Protocol(recipe, ('tempered:Tempered',), (1,))


def test_a_missing_module_is_noticed_without_importing_anything(folder: Path) -> None:
    (folder / 'heavy.py').write_text('raise SystemExit("imported")\n')
    check_name('heavy:Name')
    with pytest.raises(InputError, match="no module 'missing'"):
        parse_search_space({'strategy': {'_type': 'choice', '_value': ['missing:Name']}})


def test_names_of_pages_are_addresses(folder: Path) -> None:
    assert page_name(Job('search', 'pkg.mod:Name+pt', 1)) == 'search-pkg.mod--Name-pt-1'
    assert page_name(Job('search', 'pkg.mod-Name', 1)) != page_name(Job('search', 'pkg.mod:Name', 1))


def test_the_cells_of_an_experiment_follow_their_results(folder: Path) -> None:
    arguments = TunerArguments.parse({'recipe': 'digits', 'set': {'search.settings.climbing:HillClimbing.cells': 3}})
    protocol = Protocol(arguments.load(), ('climbing:HillClimbing',), (1,))
    results: dict[str, dict[str, object]] = {}
    for number in (1, 2, 3):
        ready = [job for job in protocol.jobs(results, ()) if job.key not in results]
        assert [job.key for job in ready] == [f'select climbing:HillClimbing 1.{number}']
        results[ready[0].key] = {'default': 0.5, 'arch': ready[0].arch}
    assert [job.key for job in protocol.jobs(results, ()) if job.key not in results] == ['retrain climbing:HillClimbing 1']


def write_package(folder: Path, name: str = 'cold', target: str = 'cold_darts:Tempered') -> Path:
    """An installed package: a module, and the metadata that pip leaves beside it."""
    folder.mkdir(exist_ok=True)
    (folder / 'cold_darts.py').write_text(TEMPERED)
    metadata = folder / f'cold_darts_{folder.name}_{name}-1.0.dist-info'
    metadata.mkdir()
    (metadata / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: cold-darts-{folder.name}-{name}\nVersion: 1.0\n')
    (metadata / 'entry_points.txt').write_text(f'[nni_darts.strategies]\n{name} = {target}\n')
    return folder


def test_a_package_installs_a_strategy(tmp_path: Path) -> None:
    site = write_package(tmp_path / 'site')
    (tmp_path / 'images.npz').parent.mkdir(exist_ok=True)
    settings = {**overrides(write_images(tmp_path / 'images.npz')), 'search.epochs': 1}
    words = [word for key, value in settings.items() for word in ('--set', f'{key}={json.dumps(value)}')]
    command = [sys.executable, '-W', 'ignore', '-m', 'nni_darts']

    def run(*arguments: str) -> str:
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(site), str(ROOT)]), 'OMP_NUM_THREADS': '1'}
        done = subprocess.run([*command, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert re.search(r'^  cold +from the package cold-darts-site-cold$', run('strategies'), re.MULTILINE)
    assert 'temperature: a number; default 0.1' in run('strategies', 'cold')
    run('search', '--recipe', 'digits', '--strategy', 'cold', *words, '--output', 'out')
    assert json.loads((tmp_path / 'out' / 'result.json').read_text())['strategy'] == 'cold'


def test_names_of_packages_are_unambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = write_package(tmp_path / 'site')
    write_package(site, 'darts-2nd')
    write_package(site, 'cold.er')
    monkeypatch.syspath_prepend(site)
    assert set(installed()) == {'cold'} and 'cold' in names()
    assert find('darts-2nd').own  # of this package
    with pytest.raises(ValueError, match="'cold.er' of an installed package needs a name of letters"):
        find('cold.er')
    write_package(tmp_path / 'other', 'cold', 'elsewhere:Cold')
    monkeypatch.syspath_prepend(tmp_path / 'other')
    with pytest.raises(ValueError, match="several packages install a strategy 'cold'; choose one of elsewhere:Cold, cold_darts:Tempered"):
        find('cold')


def test_former_names_work_with_a_warning() -> None:
    from nni_darts import strategies

    with pytest.warns(DeprecationWarning, match='nni_darts.strategies.methods.METHODS'):
        assert strategies.PRESETS is strategies.METHODS
    with pytest.warns(DeprecationWarning, match='nni_darts.strategies.registry.find'):
        from nni_darts.strategies.presets import preset
    assert preset is find


@pytest.mark.slow
@pytest.mark.nni
def test_an_experiment_compares_own_strategies_with_others(tmp_path: Path) -> None:
    for name, text in {'tempered': TEMPERED, 'climbing': CLIMBING}.items():
        (tmp_path / f'{name}.py').write_text(text)
    changes = {'search.settings.climbing:HillClimbing.cells': 2, 'search.settings.tempered:Tempered.temperature': 0.2}
    settings = {**overrides(write_images(tmp_path / 'images.npz')), 'search.random_samples': 1, **changes}
    values = ['tempered:Tempered', 'climbing:HillClimbing', 'darts-1st', 'random']
    space = {'strategy': {'_type': 'choice', '_value': values}}
    with launched(tmp_path, ENVIRONMENT, searchSpace=space, classArgs={'recipe': 'digits', 'set': settings}) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 900)
        trials = experiment.trials()
        found = Counter(trial.key for trial in trials if trial.metric is not None)
        pages = {path.name for path in (experiment.folder / 'log').glob('*.html')}
        summary = (experiment.folder / 'log' / 'summary.html').read_text()
    searches = [f'{stage} {name} 1' for name in ('tempered:Tempered', 'darts-1st') for stage in ('search', 'select')]
    cells = ['select climbing:HillClimbing 1.1', 'select climbing:HillClimbing 1.2', 'select random 1.1']
    assert found == Counter([*searches, *cells, *(f'retrain {name} 1' for name in values)])
    assert {'search-tempered--Tempered-1.html', 'retrain-climbing--HillClimbing-1.html'} <= pages
    assert 'href="search-tempered--Tempered-1.html"' in summary
