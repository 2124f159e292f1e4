"""The command line as a user meets it: real processes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts import PUBLISHED, Genotype
from nni_darts.cli import main
from nni_darts.cli.options import to_run
from nni_darts.recipes import Recipe
from tests.helpers.processors import HEAP_CHECKED, INSTRUCTION_SETS
from tests.helpers.tiny import overrides, write_images
from tests.nni_darts.experiment.test_validate import experiment

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, '-c', 'from nni_darts.cli import main; main(prog_name="nni-darts")']


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    images = write_images(tmp_path_factory.mktemp('data') / 'images.npz')
    return [part for key, value in overrides(images).items() for part in ('--set', f'{key}={value}')]


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def run_here(*arguments: object) -> Result:
    """In this process, which has torch already: for what every other test of this file shows to be the same in one of its own."""
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name='nni-darts')


def test_search_retrain_and_cost_work_on_each_others_files(tiny: list[str], tmp_path: Path) -> None:
    found = run('search', *tiny, '--strategy', 'darts-2nd', '--seed', 1, '--output', tmp_path / 'search')
    assert found.returncode == 0, found.stderr
    genotype = Genotype.from_json((tmp_path / 'search' / 'genotype.json').read_text())
    assert found.stdout.startswith('Genotype(normal=')
    own = [line for line in found.stderr.splitlines() if line.startswith('Warning: ')]
    assert 'close to chance' in own[0]  # two epochs on 96 images decide nothing
    assert all(any(text in line for text in ('close to chance', 'nothing was decided', 'largest class')) for line in own), own
    assert found.stderr.count('Warning') == len(own) and 'GPU available' not in found.stderr  # NNI's and Lightning's noise
    assert len([line for line in found.stderr.splitlines() if line.startswith('epoch ')]) == 2
    assert found.stderr.startswith('recipe digits; data npz /') and '10 classes, 1×8×8' in found.stderr.splitlines()[0]
    trained = run_here('retrain', '--genotype', tmp_path / 'search' / 'genotype.json', '--output', tmp_path / 'retrain')
    assert trained.exit_code == 0, trained.stderr
    assert trained.stderr.splitlines()[0] == found.stderr.splitlines()[0]  # the search's recipe and data, not those of digits
    assert 'largest class' in trained.stdout and 'largest class' in found.stdout
    assert 'test accuracy' in trained.stdout and (tmp_path / 'retrain' / 'weights.pt').exists()
    short = run_here('retrain', *tiny, '--stage', 'select', '--genotype', genotype.code(), '--output', tmp_path / 'select')
    assert short.exit_code == 0, short.stderr
    assert 'valid accuracy' in short.stdout and 'test accuracy' not in short.stdout
    cost = run_here('cost', tmp_path / 'search', '--json')
    assert cost.stderr == 'recipe digits; data npz: 10 classes, 1×8×8\n'
    assert json.loads(cost.stdout)['parameters'] == json.loads((tmp_path / 'retrain' / 'result.json').read_text())['result']['parameters']


# What "off" leaves to torch, test_convolutions.py covers shape by shape.
@pytest.mark.parametrize('kernels', ['on', pytest.param('off', marks=pytest.mark.slow)])
def test_a_supernet_of_four_channels_leaves_the_heap_alone(kernels: str, tiny: list[str], tmp_path: Path) -> None:
    small = ['--set', 'space.channels=4', '--set', 'space.nodes=1', '--set', 'search.epochs=1']
    process = run(
        *('search', *tiny, *small, '--strategy', 'darts-1st', '--output', tmp_path / 'out'),
        env={**os.environ, **HEAP_CHECKED, **INSTRUCTION_SETS['avx2'], 'OMP_NUM_THREADS': '1', 'NNI_DARTS_KERNELS': kernels},
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(('recipe', 'parameters', 'multiply_adds'), [('cifar10', 3_349_342, 528e6), ('imagenet', 4_718_752, 530e6)])
def test_cost_of_a_published_cell_needs_no_data(recipe: str, parameters: int, multiply_adds: float) -> None:
    result = json.loads(run_here('cost', 'DARTS_V2', '--recipe', recipe, '--json').stdout)
    assert result['parameters'] == parameters
    assert result['multiply_adds'] == pytest.approx(multiply_adds, rel=0.001)


@pytest.mark.parametrize('form', ['json', 'text'])
def test_genotype_files_in_both_formats(form: str, tmp_path: Path) -> None:
    path = tmp_path / 'cell'
    path.write_text(getattr(PUBLISHED['DARTS_V1'], f'to_{form}')())
    assert json.loads(run_here('cost', path, '--recipe', 'cifar10', '--json').stdout)['parameters'] == 3_169_414


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        (['search', '--set', 'search.epoch=5', '--output', 'o'], "did you mean 'epochs'?"),
        (['search', '--strategy', 'darts', '--output', 'o'], 'unknown strategy'),
        (['search', '--recipe', 'cifar10', '--set', 'data.path=nowhere', '--output', 'o'], 'download it once'),
        (['search', '--set', 'search.epochs=-1', '--output', 'o'], 'search.epochs = -1'),
        (['search', '--seed', '0', '--output', 'o'], '--seed'),
        (['search', '--recipe', 'none', '--output', 'o'], "unknown recipe 'none'"),
        (['search'], '--output'),
        (['retrain', '--genotype', 'broken.json', '--output', 'o'], 'broken.json'),
        (['retrain', '--genotype', 'absent.json', '--output', 'o'], 'absent.json'),
        (['cost', 'DARTS_V3'], 'DARTS_V2'),
        (['check', 'absent.yml'], 'absent.yml'),
        (['check', 'broken.json'], 'not valid YAML'),
        (['launch', 'absent.yml'], 'absent.yml'),
        (['resume', 'nosuch'], "there is no experiment 'nosuch'"),
        (['stop', 'nosuch'], "there is no experiment 'nosuch'"),
        (['trial'], 'NNI starts nni-darts trial'),
        (['searhc'], 'searhc'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_sentence_with_exit_code_2(
    arguments: list[str], names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'broken.json').write_text('{"normal": [')
    monkeypatch.chdir(tmp_path)
    result = run_here(*arguments)
    assert result.exit_code == 2, result.stderr
    assert names in result.stderr
    assert 'Traceback' not in result.stderr
    assert sum(line.startswith('Error: ') for line in result.stderr.splitlines()) == 1
    assert not (tmp_path / 'o').exists()


def test_ctrl_c_leaves_a_checkpoint_that_resume_continues(tiny: list[str], tmp_path: Path) -> None:
    arguments = ['search', *tiny, '--set', 'search.epochs=4', '--strategy', 'darts-2nd', '--output', str(tmp_path / 'out')]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith('epoch 2/'):  # the checkpoint of epoch 1 is complete
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            break
    lines += process.stderr.readlines()
    assert process.wait() == 130
    assert lines[-1].startswith('Interrupted. Progress is saved in ') and lines[-1].endswith('with --resume to continue.\n')
    assert 'Traceback' not in ''.join(lines)
    assert (tmp_path / 'out' / 'last.ckpt').exists() and not (tmp_path / 'out' / 'result.json').exists()
    resumed = run_here(*arguments, '--resume')
    assert resumed.exit_code == 0, resumed.stderr
    assert 'epoch 1/4' not in resumed.stderr and 'epoch 4/4' in resumed.stderr
    again = run_here(*arguments, '--resume')
    assert again.exit_code == 0 and 'epoch 4/4' not in again.stderr and 'Genotype(' in again.stdout
    assert f'The run in {tmp_path / "out"} is already finished; its results follow.' in again.stderr.replace('\n', ' ')
    assert 'already finished' not in resumed.stderr
    unbroken = run_here(*arguments[:-1], tmp_path / 'unbroken')
    assert unbroken.exit_code == 0
    assert (tmp_path / 'out' / 'genotype.json').read_text() == (tmp_path / 'unbroken' / 'genotype.json').read_text()
    assert (tmp_path / 'out' / 'metrics.jsonl').read_text().count('\n') == 4


def test_every_command_has_help() -> None:
    top = run('--help').stdout
    for name in ('search', 'retrain', 'cost', 'check', 'launch', 'stop', 'resume', 'trial', 'strategies', 'recipes'):
        assert name in top
        assert run_here(name, '--help').exit_code == 0
    assert 'darts-2nd' in run('strategies').stdout
    assert 'imagenet' in run('recipes').stdout


CELL = '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|'


def test_query_of_nas_bench_201(tmp_path: Path) -> None:
    table = tmp_path / 'table.csv'
    table.write_text(f'arch_str,c10_test\n{CELL},94.36\n')
    assert '94.36' in run('query', CELL, '--table', table).stdout
    assert json.loads(run('query', 'nb201.333133', '--table', table, '--json').stdout) == {'arch': CELL, 'c10_test': 94.36}
    (tmp_path / 'genotype.json').write_text(json.dumps({'nasbench201': CELL}))
    assert run('query', tmp_path, '--table', table).stdout.startswith(CELL)


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        (['DARTS_V2', '--table', 'x'], 'is not a cell of the space nasbench201'),
        (['nb201.333133'], 'either --table FILE or --nats-bench FOLDER'),
        (['nb201.333133', '--table', 'missing.csv'], 'no table missing.csv'),
        (['nb201.333133', '--nats-bench', 'missing'], 'no folder missing'),
        (['nb201.9', '--table', 'x'], 'is not a genotype'),
        (['|a~0|', '--table', 'x'], 'is not a genotype'),
    ],
)
def test_queries_that_cannot_be_answered(arguments: list[str], names: str) -> None:
    answer = run('query', *arguments)
    assert answer.returncode == 2 and names in answer.stderr and len(answer.stderr.splitlines()) == 1


def test_decisions_are_printed(tiny: list[str], tmp_path: Path) -> None:
    fast = ['--set', 'search.epochs=1', '--set', 'space.nodes=1', '--set', 'search.settings={sgas+pt: {batches: 1}}']
    found = run_here('search', *tiny, *fast, '--strategy', 'sgas+pt', '--output', tmp_path)
    assert found.exit_code == 0, found.stderr
    assert found.stderr.count(' is decided: ') == found.stderr.count(' keeps ') == 4
    assert 'decisions 8/8' in found.stderr


def test_a_ranking_is_printed(tiny: list[str], tmp_path: Path) -> None:
    small = ['--set', 'search.epochs=1', '--set', 'search.settings={random-ws: {samples: 5, finalists: 2}}']
    found = run_here('search', *tiny, *small, '--strategy', 'random-ws', '--output', tmp_path)
    assert found.exit_code == 0, found.stderr
    assert 'architecture is the best of 5  margin 0.' in found.stderr


@pytest.mark.parametrize(('accelerator', 'visible'), [('cpu', ''), ('auto', '0,1')])
def test_told_to_stay_on_the_cpu_it_sees_no_gpu(accelerator: str, visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    assert to_run(Recipe.load('digits', (f'accelerator={accelerator}',))).accelerator == accelerator
    assert os.environ['CUDA_VISIBLE_DEVICES'] == visible


@pytest.mark.parametrize(
    ('strategy', 'change', 'names'),
    [
        ('pc-darts', 'space.channels=6', 'pc-darts in the space darts: pc-darts searches 1/4 of the channels'),
        ('pc-darts', 'search.settings={pc-darts: {portions: 2}}', "no setting 'portions' (did you mean 'portion'?)"),
        ('darts-pt', 'search.settings={darts-pt: {criteria: loss}}', "no setting 'criteria' (did you mean 'criterion'?)"),
        ('sgas', 'search.settings={sgas: {greedy_criterion: 3}}', 'greedy_criterion must be 1 or 2, not 3'),
    ],
)
def test_a_strategy_that_does_not_fit_leaves_nothing_behind(
    strategy: str, change: str, names: str, tiny: list[str], tmp_path: Path
) -> None:
    answer = run_here('search', *tiny, '--set', change, '--strategy', strategy, '--output', tmp_path / 'out')
    assert answer.exit_code == 2 and names in answer.stderr and len(answer.stderr.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


TORCH_FREE = """import sys
from nni_darts.cli import main
try:
    main(sys.argv[1:], prog_name='nni-darts')
finally:
    print('with', [name for name in ('torch', 'nni') if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        ('search --recipe none --output o', "unknown recipe 'none'"),
        ('search --strategy darts --output o', 'unknown strategy'),
        ('search --set search.epoch=5 --output o', "did you mean 'epochs'?"),
        ('search --recipe cifar10 --set data.path=nowhere --output o', 'no file or folder nowhere. cifar10 is read from a folder'),
        ('search --seed 1 --seed 2 --output o', '--seed is given 2 times; give it once'),
        ('retrain --genotype absent.json --output o', "'absent.json' is not a genotype"),
        ('retrain --recipe ptb --set data.path=nowhere --genotype DARTS_V2-RNN --output o', 'no file or folder nowhere'),
        ('retrain --genotype DARTS_V2 --stage final --output o', "'final' is not one of"),
        ('cost absent.json', "'absent.json' is not a genotype"),
        ('cost DARTS_V2 --recipe none', "unknown recipe 'none'"),
        ('cost DARTS_V2-RNN', 'the recipe digits trains convolutional cells'),
        ('cost DARTS_V2 --set data.name=npz --set data.path=nowhere', 'no file or folder nowhere'),
        ('retrain --genotype DARTS_V2 --recipe pydoc --output o', 'the recipe pydoc trains recurrent cells'),
        ('search --set data.name=no_such:images --output o', "no module 'no_such' for data set 'no_such:images'"),
        ('search --strategy DARTS-2ND --output o', "did you mean 'darts-2nd'?"),
        ("search --output ''", '--output is empty; give a path'),
        ("check ''", 'TARGET is empty; give a path'),
        ('launch absent.yml --id-file nowhere/id', '--id-file nowhere/id: there is no folder nowhere'),
        ('draw absent.json --output cell.svg', "'absent.json' is not a genotype"),
        ('draw DARTS_V2 --output cell.gif', 'name a file that ends in .svg or .png'),
        ('export absent --pt2 a.pt2', 'there is no file or folder absent'),
        ('query "(4,0,3,1,4,3)" --table absent.csv', 'no table absent.csv'),
        ('check absent.yml', 'absent.yml'),
        ('launch absent.yml', 'absent.yml'),
        ('launch absent.yml --port 1', '--port'),
        ('stop nosuch', "there is no experiment 'nosuch' in "),
        ('resume nosuch', "there is no experiment 'nosuch' in "),
        ("search --set 'search.settings={darts-2nd: {hessian: foo}}' --output o", "hessian must be finite_difference or exact, not 'foo'"),
        ("search --set 'search.settings={darts-2nd: {hesian: exact}}' --output o", "no setting 'hesian' (did you mean 'hessian'?)"),
        ("search --set 'search.settings={gdas: {last: 0}}' --output o", 'search.settings of gdas: last must be a number above 0, not 0'),
        ("search --set 'search.settings={darts-3rd: {}}' --output o", "unknown strategy 'darts-3rd'"),
        (
            "search --strategy random --set 'search.settings={random: {cells: 3}}' --output o",
            'search.random_samples is the number of cells that it trains, so leave out cells',
        ),
        ('search --output broken.yml', 'broken.yml'),
        ('search --output broken.yml/o', 'cannot make the folder broken.yml/o'),
        ('search --output begun', 'begun already holds a run'),
        ('retrain --genotype DARTS_V2 --output begun --resume', 'begun holds a run with another stage'),
        ('check settings.yml', "search.settings of darts-2nd: hessian must be finite_difference or exact, not 'foo'"),
        ('launch settings.yml', "search.settings of darts-2nd: hessian must be finite_difference or exact, not 'foo'"),
        ('check place.yml', 'data.path: there is no file or folder nowhere.npz'),
        ('launch place.yml', 'data.path: there is no file or folder nowhere.npz'),
        ('check strategy.yml', "unknown strategy 'darts-3rd'"),
    ],
)
def test_wrong_names_values_and_paths_are_found_before_torch_is_imported(arguments: str, names: str, tmp_path: Path) -> None:
    (tmp_path / 'broken.yml').write_text('a: [')
    changes = {
        'settings': {'tuner__classArgs': {'set': {'search.settings': {'darts-2nd': {'hessian': 'foo'}}}}},
        'place': {'tuner__classArgs': {'set': {'data.name': 'npz', 'data.path': 'nowhere.npz'}}},
        'strategy': {'searchSpace__strategy': {'_type': 'choice', '_value': ['darts-3rd']}},
    }
    for name, change in changes.items():
        experiment(tmp_path, **change).rename(tmp_path / f'{name}.yml')
    (tmp_path / 'begun').mkdir()
    (tmp_path / 'begun' / 'metrics.jsonl').touch()
    run_json = {'stage': 'search', 'strategy': 'darts-2nd', 'seed': 1, 'recipe': Recipe.load('digits').to_dict()}
    (tmp_path / 'begun' / 'run.json').write_text(json.dumps(run_json))
    command = [sys.executable, '-c', TORCH_FREE, *shlex.split(arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert names in ' '.join(result.stderr.split()) and 'Traceback' not in result.stderr
    assert result.stderr.endswith('with []\n')
    assert result.stderr.count('Error: ') == 1 and 'Traceback' not in result.stderr


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / 'cell.svg').symlink_to('/dev/full')
    result = run('draw', 'DARTS_V2', '--output', tmp_path / 'cell.svg')
    sentence = f'{tmp_path}/cell.svg cannot be written: the disk is full. Make room, then run the same command again.'
    assert result.returncode == 1 and result.stderr == f'Error: {sentence}\n'


@pytest.mark.parametrize('module', ['nni_darts', 'nni_darts.cli'])
def test_the_module_is_the_command(module: str) -> None:
    result = subprocess.run([sys.executable, '-m', module, 'recipes'], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and 'digits' in result.stdout


def test_query_says_which_column_papers_report(tmp_path: Path) -> None:
    table = tmp_path / 'table.csv'
    table.write_text(f'arch_str,c10_test,c10_half_1seed\n{CELL},94.36,90.1\n')
    assert 'Papers report c10_test (cifar10): test accuracy after 200 epochs' in run('query', CELL, '--table', table).stdout
    numbers = run('query', '(2, 2, 0, 2, 2, 2)', '--table', table)
    assert numbers.stdout.startswith(CELL) and 'numbering of NASLib' in numbers.stderr
