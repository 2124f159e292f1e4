"""Measurements for other programs, read back with what these programs offer."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.loggers import check_logger
from tests.helpers import running
from tests.helpers.tiny import overrides, write_images


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def logged(images: Path, logger: str | None) -> Recipe:
    return Recipe.load('digits', {**overrides(images), 'space.nodes': 1, 'logger': logger})


def epochs_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def trained(images: Path, logger: str, output: Path, **how: Any) -> dict[str, Any]:
    recipe = logged(images, logger)
    return running.train_cell(recipe, 'retrain', recipe.random_cells(1)[0], 1, output, **how)


def test_tensorboard_has_each_epoch_and_the_test(images: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = trained(images, 'tensorboard', tmp_path)
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    for name in ('train_loss', 'valid_accuracy'):
        written = [event.value for event in events.Scalars(name)]
        assert written == pytest.approx([epoch[name] for epoch in epochs_in(tmp_path)], abs=1e-5)
    assert [event.value for event in events.Scalars('test_accuracy')] == pytest.approx([result['test_accuracy']], abs=1e-5)
    assert 'retrain.learning_rate: 0.05' in (tmp_path / 'tensorboard' / 'hparams.yaml').read_text()


def test_csv_has_the_probabilities_of_a_search_and_changes_no_bit_of_it(images: Path, tmp_path: Path) -> None:
    running.search(logged(images, 'csv'), 'darts-1st', 1, tmp_path / 'logged')
    running.search(logged(images, None), 'darts-1st', 1, tmp_path / 'plain')
    epochs, plain = epochs_in(tmp_path / 'logged'), epochs_in(tmp_path / 'plain')
    assert [epoch['probabilities'] for epoch in epochs] == [epoch['probabilities'] for epoch in plain]
    with (tmp_path / 'logged' / 'csv' / 'version_0' / 'metrics.csv').open() as file:
        rows = list(csv.DictReader(file))
    found = [float(row['normal_op_2_0/sep_conv_3x3']) for row in rows if row['normal_op_2_0/sep_conv_3x3']]
    assert found == pytest.approx([epoch['probabilities']['normal_op_2_0']['sep_conv_3x3'] for epoch in epochs])
    assert [float(row['valid_accuracy']) for row in rows if row['valid_accuracy']] == pytest.approx(
        [epoch['valid_accuracy'] for epoch in epochs], abs=1e-5
    )
    assert not (tmp_path / 'plain' / 'csv').exists()


def test_a_resumed_run_adds_to_its_logs(images: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record['epoch'] == 2:
            raise Stop

    with pytest.raises(Stop):
        trained(images, 'csv', tmp_path, on_epoch=stop)
    trained(images, 'csv', tmp_path, resume=True)
    first, second = ((tmp_path / 'csv' / f'version_{number}' / 'metrics.csv').read_text() for number in (0, 1))
    assert 'train_accuracy' in first and 'test_accuracy' in second and 'test_accuracy' not in first


@pytest.mark.skipif(find_spec('wandb') is None, reason='wandb is not installed')
def test_wandb_writes_offline(images: Path, tmp_path: Path) -> None:
    script = (
        'import sys\nfrom pathlib import Path\nfrom tests.nni_darts.runs.test_loggers import trained\n'
        'trained(Path(sys.argv[1]), "wandb", Path(sys.argv[2]))'
    )
    environment = {**os.environ, 'WANDB_MODE': 'offline', 'HOME': str(tmp_path / 'home'), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run(
        [sys.executable, '-c', script, str(images), str(tmp_path / 'out')],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / 'out' / 'wandb').glob('offline-run-*/run-*.wandb')
    content = file.read_bytes()
    assert b'valid_accuracy' in content and b'test_accuracy' in content and b'retrain.learning_rate' in content
    assert not [line for line in done.stdout.splitlines() if 'wandb' in line]


@pytest.mark.skipif(find_spec('mlflow') is None, reason='mlflow is not installed')
def test_mlflow_writes_into_the_output_folder(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    settings = {**overrides(images), 'space.nodes': 1, 'logger': 'mlflow', 'search.settings.darts-1st+pt.batches': 2}
    recipe = Recipe.load('digits', settings)
    result = running.train_cell(recipe, 'retrain', recipe.random_cells(1)[0], 1, tmp_path)
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / 'mlruns').absolute().as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name('nni-darts').experiment_id])
    assert run.data.metrics['test_accuracy'] == pytest.approx(result['test_accuracy'])
    assert run.data.params['retrain.learning_rate'] == '0.05' and run.info.run_name == 'digits retrain 1'
    assert run.data.params['search.settings.darts-1st-pt.batches'] == '2'  # it refuses keys with a +
    history = [metric.value for metric in client.get_metric_history(run.info.run_id, 'valid_accuracy')]
    assert history == pytest.approx([epoch['valid_accuracy'] for epoch in epochs_in(tmp_path)], abs=1e-5)


def test_a_package_that_is_not_there_is_one_sentence(images: Path, tmp_path: Path) -> None:
    """In a process that cannot see it, before torch is imported and before anything is written."""
    script = """
import sys
import importlib.util as util
plain = util.find_spec
util.find_spec = lambda name, package=None: None if name in ('wandb', 'mlflow', 'tensorboard') else plain(name, package)
from nni_darts.cli import main
try:
    main(sys.argv[1:])
finally:
    assert 'torch' not in sys.modules
"""
    for logger, package in (('wandb', 'wandb'), ('mlflow', 'mlflow-skinny'), ('tensorboard', 'tensorboard')):
        arguments = ['search', '--set', f'logger={logger}', '--output', str(tmp_path / 'out')]
        done = subprocess.run([sys.executable, '-W', 'ignore', '-c', script, *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        expected = f'Error: logger: {logger} needs a package that is not installed: pip install {package}, or leave logger out.'
        assert done.stderr.strip() == expected
    assert not (tmp_path / 'out').exists()


def test_unknown_loggers_are_refused() -> None:
    with pytest.raises(InputError, match=r"logger = 'neptune' is wrong"):
        Recipe.load('digits', {'logger': 'neptune'})
    check_logger(Recipe.load('digits', {'logger': 'csv'}))
