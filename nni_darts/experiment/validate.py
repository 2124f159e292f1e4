"""Checks an experiment before NNI starts it, because NNI itself ends without a message on most mistakes.

Mistakes that the file itself shows are checked first, without importing NNI or torch, so that they are reported at once. Only a file
without such mistakes goes through NNI's own validation and has its data read.
"""

from __future__ import annotations

import json
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, chdir, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nni_darts.activity import loading_torch
from nni_darts.errors import InputError, did_you_mean
from nni_darts.experiment.arguments import (
    HALVING_ELSEWHERE,
    NO_ASSESSOR,
    SHARE_ELSEWHERE,
    TIME_BESIDE_HALVING,
    TIME_BESIDE_SETTINGS,
    TIME_ELSEWHERE,
    TunerArguments,
    is_local,
)
from nni_darts.experiment.latencies import check_rows
from nni_darts.experiment.machines import look_at
from nni_darts.experiment.protocol import Protocol, parse_search_space
from nni_darts.recipes import Recipe, load_yaml
from nni_darts.runs.checks import check_data_path
from nni_darts.runs.loggers import check_logger
from nni_darts.strategies.registry import row_parts

__all__ = ['Findings', 'check_experiment']

TUNER = 'nni_darts.experiment.tuner.SearchAndRetrain'


@dataclass
class Findings:
    """The findings of a check: ``errors`` prevent the experiment from running, ``warnings`` do not, ``facts`` describe what will run."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def check_experiment(path: Path, *, closed: bool = False) -> Findings:
    """Checks an experiment's YAML file for NNI without starting anything.

    Args:
        path: path of the file.
        closed: whether the manager will listen on this machine only.

    Raises:
        InputError: if the file cannot be read or is not a mapping.
    """
    try:
        text = path.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read {path}: {getattr(error, "strerror", None) or error}') from None
    config = load_yaml(text, str(path))
    if not isinstance(config, dict):
        raise InputError(f'{path} is not an NNI experiment, which is a mapping with searchSpace, trialCommand, tuner and trainingService')
    if 'trainingServicePlatform' in config or 'authorName' in config:
        raise InputError(
            f'{path} is an experiment of NNI before 2.0 (authorName, trainingServicePlatform, trial): write trialCommand, '
            'trialCodeDirectory, trainingService: {platform: local} and tuner: {className, codeDirectory, classArgs} in their place, '
            'as in examples/quickstart.yml'
        )
    findings = Findings()
    if not isinstance(config.get('trainingService'), (dict, list)):
        findings.errors.append(f'trainingService must be a mapping such as {{platform: local}}, not {config.get("trainingService")!r}')
        return findings
    concurrency = config.get('trialConcurrency')
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        findings.errors.append(f'trialConcurrency must be a whole number from 1, not {concurrency!r}')
        return findings
    if config.get('assessor'):
        findings.errors.append(NO_ASSESSOR)
    protocol = _check_tuner(config, path, findings)
    _check_services(config, closed, findings)
    if protocol is not None:
        _check_amount(config, protocol, findings)
        _check_place_of_data(config, protocol.recipe, path, findings)
    if findings.errors:
        return findings
    _check_nni(path, findings)
    if protocol is not None:
        _check_data(config, protocol, path, findings)
        _check_machines(config, protocol.recipe, path, findings)
    return findings


def _check_nni(path: Path, findings: Findings) -> None:
    """Runs NNI's own validation, as nnictl would."""
    if find_spec('pkg_resources') is None:
        findings.errors.append("nnictl needs pkg_resources, which setuptools 81 dropped: pip install 'setuptools<81'")
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # setuptools' warning about pkg_resources
        from nni.experiment.config import ExperimentConfig
        from nni.experiment.config.utils import unset_base_path

    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            ExperimentConfig.load(path).validate()
    except Exception as error:  # NNI raises exceptions of any type
        findings.errors.append(f'NNI refuses {path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}')
    finally:
        unset_base_path()  # NNI leaves it set if a file cannot be loaded, and then cannot load another one


def _check_tuner(config: dict[str, Any], path: Path, findings: Findings) -> Protocol | None:
    tuner = config.get('tuner')
    if not isinstance(tuner, dict) or tuner.get('className') != TUNER:
        findings.errors.append(f'tuner.className must be {TUNER}')
        return None
    if not tuner.get('codeDirectory'):
        findings.errors.append('tuner.codeDirectory is missing; give a folder such as "." (NNI requires it together with className)')
    arguments = tuner.get('classArgs') or {}
    if not isinstance(arguments, dict):
        findings.errors.append(f'tuner.classArgs must be a mapping such as {{recipe: digits}}, not {arguments!r}')
        return None
    allowed = list(TunerArguments.model_fields)
    unknown = [str(name) for name in arguments if name not in allowed]
    if unknown:
        hint = did_you_mean(unknown[0], allowed)
        findings.errors.append(f'tuner.classArgs has no {unknown[0]!r}{hint}; allowed: {", ".join(allowed)}')
        return None
    # NNI starts the tuner in codeDirectory, so a recipe's relative path is relative to that folder.
    try:
        with _inside('tuner.codeDirectory', path.parent / str(tuner.get('codeDirectory') or '.')):
            parsed = TunerArguments.parse(arguments)
            recipe = parsed.load()
        if parsed.time is not None and not is_local(config['trainingService']):
            raise InputError(TIME_ELSEWHERE)
        if parsed.share_search and not is_local(config['trainingService']):
            raise InputError(SHARE_ELSEWHERE)
        strategies, seeds = parse_search_space(_search_space(config, path))
        protocol = Protocol(recipe, strategies, seeds, parsed.retrain_runs, parsed.retrain, parsed.share_search)
        if parsed.time is not None and protocol.changes_settings:
            raise InputError(TIME_BESIDE_SETTINGS)
        check_rows(protocol)
        if protocol.halves and not is_local(config['trainingService']):
            raise InputError(HALVING_ELSEWHERE)
        if protocol.halves and parsed.time is not None:
            raise InputError(TIME_BESIDE_HALVING)
        return protocol
    except InputError as error:
        findings.errors.append(str(error))
        return None


def _search_space(config: dict[str, Any], path: Path) -> Any:
    file = config.get('searchSpaceFile')
    if not file:
        return config.get('searchSpace')
    try:
        text = (path.parent / file).read_text('utf-8')
        return json.loads(text) if str(file).endswith('.json') else load_yaml(text, str(file))
    except (OSError, ValueError) as error:
        raise InputError(f'cannot read searchSpaceFile {file}: {error}') from None


def _services(config: dict[str, Any]) -> list[dict[str, Any]]:
    service = config.get('trainingService')
    return [entry for entry in (service if isinstance(service, list) else [service]) if isinstance(entry, dict)]


def _check_services(config: dict[str, Any], closed: bool, findings: Findings) -> None:
    for holder in (config, *_services(config)):
        if holder.get('trialGpuNumber'):
            findings.errors.append(
                'leave trialGpuNumber unset: with the local service NNI starts process after process while no GPU is free, until the '
                'machine is out of memory; trials take a GPU by themselves'
            )
            break
    platforms = [service.get('platform') for service in _services(config)]
    command = str(config.get('trialCommand', '')).split()
    if 'nni-darts trial' not in ' '.join(command):
        findings.errors.append(f'trialCommand must be nni-darts trial, not {" ".join(command)!r}')
    elif 'local' in platforms and shutil.which(command[0]) is None:
        findings.errors.append(f'trialCommand: there is no program {command[0]!r} on PATH; activate the environment of this package')
    if 'remote' in platforms:
        if not config.get('nniManagerIp'):
            findings.errors.append('remote machines need nniManagerIp, the address under which they reach this machine')
        elif closed and not str(config['nniManagerIp']).startswith(('127.', 'localhost')):
            findings.errors.append(
                f'nni-darts launch lets NNI listen on this machine only, so remote machines cannot reach it at {config["nniManagerIp"]}: '
                'use nnictl create, behind a firewall that keeps everyone else out'
            )
    if not closed:
        findings.warnings.append(
            'nnictl create lets NNI listen on all interfaces without a password, and it serves any file that you can read; '
            '"nni-darts launch" binds it to this machine'
        )


def _check_amount(config: dict[str, Any], protocol: Protocol, findings: Findings) -> None:
    expected = protocol.expected()
    searches, selects, retrains = (
        sum(count for (stage, _), count in expected.items() if stage == wanted) for wanted in ('search', 'select', 'retrain')
    )
    total = expected.total()
    counted = [
        f'{count} {one if count == 1 else many}'
        for count, one, many in (
            (searches, 'search', 'searches'),
            (selects, 'short training', 'short trainings'),
            (retrains, 'retraining', 'retrainings'),
        )
    ]
    findings.facts.append(
        f'{total} trials: {", ".join(counted)} '
        f'({", ".join(protocol.strategies)}; seeds {", ".join(map(str, protocol.seeds))}; recipe {protocol.recipe.name})'
    )
    if protocol.recipe.devices > 1:
        findings.facts.append(f'each trial runs in {protocol.recipe.devices} processes that share every batch')
    most = config.get('maxTrialNumber')
    if isinstance(most, int) and most < total:
        findings.errors.append(f'maxTrialNumber is {most}, but {total} trials are needed; leave it out: the experiment ends by itself')


def _check_place_of_data(config: dict[str, Any], recipe: Recipe, path: Path, findings: Findings) -> None:
    if any(service.get('platform') != 'local' for service in _services(config)):
        return
    try:
        with _inside('trialCodeDirectory', path.parent / str(config.get('trialCodeDirectory') or '.')):
            check_data_path(recipe)
            check_logger(recipe)
    except InputError as error:
        findings.errors.append(str(error))


def _check_data(config: dict[str, Any], protocol: Protocol, path: Path, findings: Findings) -> None:
    """Loads the data, and checks what the stages will build from it."""
    if any(service.get('platform') != 'local' for service in _services(config)):
        return
    with loading_torch():
        from nni_darts.runs.costs import cautions, preflight
        from nni_darts.runs.tasks import task_of

    recipe, task = protocol.recipe, task_of(protocol.recipe)
    rows = [(protocol.recipe_of(strategy), [row_parts(strategy)[0]]) for strategy in protocol.strategies]
    try:
        with _inside('trialCodeDirectory', path.parent / str(config.get('trialCodeDirectory') or '.')):
            data = task.load(recipe)
            bought = [line for changed, strategies in rows for line in preflight(changed, strategies, data)]
            findings.warnings += dict.fromkeys(line for changed, strategies in rows for line in cautions(changed, strategies, data))
    except InputError as error:
        findings.errors.append(str(error))
        return
    findings.facts.append(task.describe(recipe, data))
    if recipe.budget is not None:
        findings.facts += [f'under each seed, with a budget of {recipe.budget.passes:g} passes over the training data:', *bought]


def _check_machines(config: dict[str, Any], recipe: Recipe, path: Path, findings: Findings) -> None:
    """Checks all remote machines over ssh at the same time."""
    machines = [
        machine
        for service in _services(config)
        if service.get('platform') == 'remote' and isinstance(service.get('machineList'), list)
        for machine in service['machineList']
        if isinstance(machine, dict)
    ]
    if findings.errors or not machines:
        return  # NNI refuses the file anyway
    # The user's code and relative paths are copied with trialCodeDirectory, so this machine cannot tell what the remote machine will find.
    travels = ':' in recipe.data.name or (recipe.data.path is not None and not Path(recipe.data.path).is_absolute())
    if travels:
        findings.warnings.append(f'data {recipe.data.name} is not checked on the remote machines: it is copied with trialCodeDirectory')
    with_key = [machine for machine in machines if not machine.get('password')]
    if len(with_key) < len(machines):
        findings.warnings.append('machines with a password are not checked, only machines with a key; each needs this package and the data')
    with ThreadPoolExecutor(max(1, len(with_key))) as pool:
        for errors, fact in pool.map(lambda machine: look_at(machine, None if travels else recipe, path.parent), with_key):
            findings.errors += errors
            findings.facts += [] if errors else [fact]


def _inside(key: str, folder: Path) -> AbstractContextManager[None]:
    """Changes the current folder within the block, if the folder exists, to the one in which NNI will start the process.

    Args:
        key: the key that names the folder, for the message.
        folder: the folder.

    Raises:
        InputError: if the name cannot be that of a folder.
    """
    try:
        return chdir(folder) if folder.is_dir() else nullcontext()
    except OSError as error:
        raise InputError(f'{key} is not a folder: {error.strerror}') from None
