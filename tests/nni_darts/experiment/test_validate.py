from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nni_darts.errors import InputError
from nni_darts.experiment.tuner import SearchAndRetrain
from nni_darts.experiment.validate import check_experiment

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / 'examples').glob('*.yml'))


def experiment(folder: Path, **changes: object) -> Path:
    """The quickstart with changes; a dotted key reaches into a section, None removes it."""
    config = yaml.safe_load((ROOT / 'examples' / 'quickstart.yml').read_text())
    for key, value in changes.items():
        *sections, last = key.split('__')
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    path = folder / 'experiment.yml'
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_quickstart_is_fine() -> None:
    findings = check_experiment(ROOT / 'examples' / 'quickstart.yml')
    assert not findings.errors
    assert any('10 trials' in fact for fact in findings.facts)
    assert any('all interfaces' in warning for warning in findings.warnings)


def test_warnings_about_the_data_and_alpha(tmp_path: Path) -> None:
    changes = {'data.name': 'folder', 'data.path': str(ROOT / 'examples' / 'own_images'), 'data.image_size': 8, 'search.epochs': 1}
    findings = check_experiment(experiment(tmp_path, tuner__classArgs={'set': changes}))
    assert not findings.errors
    assert any('darts-2nd: 1 steps of α' in warning and 'close to chance' in warning for warning in findings.warnings)


def test_a_refused_file_does_not_spoil_the_next(tmp_path: Path) -> None:
    assert any('NNI refuses' in error for error in check_experiment(experiment(tmp_path, noSuchKey=1)).errors)
    assert not check_experiment(ROOT / 'examples' / 'quickstart.yml').errors


def test_what_a_budget_buys_is_said(tmp_path: Path) -> None:
    findings = check_experiment(experiment(tmp_path, tuner__classArgs={'set': {'budget.passes': 30}}))
    assert not findings.errors
    assert findings.facts[-3:] == [
        'under each seed, with a budget of 30 passes over the training data:',
        'darts-2nd: 9 epochs of search, 28.1 passes with the short training of its cell',
        'random: 5 cells, 28 passes',
    ]
    assert any('12 short trainings' in fact for fact in findings.facts)


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_an_experiment_whose_settings_hold(path: Path) -> None:
    """Data that this machine does not have, the user's ssh key and the machines are all that may be missing."""
    missing = ('download it once', 'SSH key file', 'cannot be reached with ssh')
    assert [error for error in check_experiment(path).errors if not any(what in error for what in missing)] == []


@pytest.mark.parametrize(
    ('changes', 'names'),
    [
        ({'tuner__classArgs': {'recipe': 'digit'}}, "unknown recipe 'digit'"),
        ({'tuner__classArgs': {'recipe': 'digits', 'epochs': 3}}, "no 'epochs'; allowed: recipe, set"),
        ({'tuner__classArgs': {'set': {'search.epoch': 3}}}, "did you mean 'epochs'?"),
        ({'tuner__classArgs': {'retrain_runs': 0}}, 'retrain_runs'),
        ({'tuner__classArgs': {'retrain': 'all'}}, "classArgs.retrain must be best or each_seed, not 'all'"),
        ({'tuner__classArgs': {'retrain': 'each_seed', 'retrain_runs': 2}}, 'leave out retrain_runs'),
        ({'tuner__classArgs': {'max_retries': -1}}, 'max_retries'),
        ({'tuner__classArgs': {'set': {'data.name': 'npz', 'data.path': 'a//b.npz'}}}, "'a//b.npz'"),
        ({'tuner__classArgs': {'set': {'data.name': 'npz', 'data.path': 'absent.npz'}}}, 'absent.npz'),
        ({'tuner__className': 'Random'}, 'tuner.className'),
        ({'tuner__codeDirectory': None}, 'codeDirectory'),
        ({'searchSpace__strategy': {'_type': 'choice', '_value': ['dart']}}, "unknown strategy 'dart'"),
        ({'trialGpuNumber': 1, 'trainingService__useActiveGpu': True}, 'leave trialGpuNumber unset'),
        ({'trialCommand': 'nni-dart trial'}, "'nni-dart trial'"),
        ({'trialCommand': '/absent/nni-darts trial'}, "'/absent/nni-darts'"),
        ({'trialCommand': 'python3 x.py'}, 'trialCommand must be nni-darts trial'),
        ({'assessor': {'name': 'Medianstop'}}, 'leave assessor out'),
        ({'maxTrialNumber': 3}, 'maxTrialNumber is 3, but 10'),
        ({'trialConcurrency': 'two'}, "trialConcurrency must be a whole number from 1, not 'two'"),
        ({'trialConcurrency': 0}, 'trialConcurrency must be'),
        ({'trainingService': 'local'}, 'trainingService must be a mapping'),
        ({'maxExperimentDuration': 'soon'}, 'NNI refuses'),
        ({'tuner__classArgs': 'digits'}, 'classArgs must be a mapping'),
        ({'tuner__classArgs': {'set': 'search.epochs=1'}}, 'classArgs.set must be a mapping'),
        ({'tuner__classArgs': {'set': {'search.settings': {'darts-2nd': {'hessian': 'foo'}}}}}, "not 'foo'"),
        ({'tuner__classArgs': {'set': {'search.settings': {'darts-2nd': {'hesian': 'exact'}}}}}, "'hesian'"),
        ({'tuner__classArgs': {'set': {'search.settings': {'darts-3rd': {}}}}}, "unknown strategy 'darts-3rd'"),
        ({'tuner__classArgs': {'set': {'retrain.cutout': 9}}}, 'cutout 9'),
        ({'trainingService__platform': 'cluster'}, 'NNI refuses'),
        ({'tuner__classArgs': {'set': {'budget.passes': 5}}}, 'a budget of 5 passes is too small for random'),
        ({'tuner__classArgs': {'set': {'budget.passes': 7}}}, 'a budget of 7 passes is too small for darts-2nd'),
        ({'tuner__classArgs': {'set': {'budget': 7}}}, 'budget = 7'),
    ],
)
def test_what_would_go_wrong_is_found_before(changes: dict, names: str, tmp_path: Path) -> None:
    errors = check_experiment(experiment(tmp_path, **changes)).errors
    assert any(names in error for error in errors), errors
    assert all('\n' not in error for error in errors)


def test_remote_needs_the_managers_address(tmp_path: Path) -> None:
    machines = {'platform': 'remote', 'machineList': [{'host': '127.0.0.1', 'user': 'me', 'password': 'x'}]}
    errors = check_experiment(experiment(tmp_path, trainingService=machines)).errors
    assert any('nniManagerIp' in error for error in errors)


def test_a_closed_manager_cannot_be_reached_from_other_machines(tmp_path: Path) -> None:
    machines = {'platform': 'remote', 'machineList': [{'host': '192.0.2.1', 'user': 'me', 'password': 'x'}]}
    path = experiment(tmp_path, trainingService=machines, nniManagerIp='192.0.2.9')
    assert any('cannot reach it at 192.0.2.9' in error for error in check_experiment(path, closed=True).errors)
    open_to_all = check_experiment(path)
    assert not any('cannot reach it' in error for error in open_to_all.errors)
    assert any('on all interfaces' in warning for warning in open_to_all.warnings)


@pytest.mark.parametrize('content', ['- 1', 'a: [', 'nothing', b'\xff\xfe\x00'])
def test_files_that_are_no_experiment(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / 'experiment.yml'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match='experiment.yml'):
        check_experiment(path)


def test_the_tuner_keeps_its_error_until_nni_listens() -> None:
    """NNI shows an exception in a tuner as RUNNING for ever; reported through the dispatcher it becomes ERROR."""
    told: list[str] = []

    class Dispatcher:
        def callback(self, identifier: int, parameters: object) -> None:
            raise AssertionError('nothing to start')

        def report_error(self, text: str) -> None:
            told.append(text)

    tuner = SearchAndRetrain(recipe='absent')
    tuner.update_search_space({})
    assert tuner.generate_multiple_parameters([0, 1], st_callback=Dispatcher().callback) == []
    assert tuner.generate_multiple_parameters([2], st_callback=Dispatcher().callback) == []
    assert told == [tuner.error] and 'absent' in told[0]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    errors = check_experiment(experiment(tmp_path, trialCodeDirectory='[' * 300)).errors
    assert any(error.startswith('trialCodeDirectory is not a folder') for error in errors)


@pytest.mark.parametrize('name', ['missing', '[' * 300])
def test_a_code_directory_that_is_not_there(name: str, tmp_path: Path) -> None:
    errors = check_experiment(experiment(tmp_path, tuner__codeDirectory=name)).errors
    assert any('NNI refuses' in error or error.startswith('tuner.codeDirectory is not a folder') for error in errors)


def test_a_file_of_the_first_nni_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / 'old.yml'
    path.write_text('authorName: me\ntrialConcurrency: 1\ntrainingServicePlatform: local\ntrial: {command: python a.py, codeDir: .}\n')
    with pytest.raises(InputError, match=r'experiment of NNI before 2\.0.*write trialCommand.*quickstart\.yml'):
        check_experiment(path)


def test_one_search_is_not_several(tmp_path: Path) -> None:
    space = {'strategy': {'_type': 'choice', '_value': ['darts-1st']}, 'seed': {'_type': 'choice', '_value': [1]}}
    findings = check_experiment(experiment(tmp_path, searchSpace=space))
    assert any(': 1 search, 1 short' in fact for fact in findings.facts), findings
