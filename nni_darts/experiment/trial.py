"""One trial: reads its job from the manager, runs that stage, and reports to NNI. ``trialCommand: nni-darts trial`` starts it."""

from __future__ import annotations

import faulthandler
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import nni
import nni.trial
import requests

from nni_darts.activity import Activity, loading_torch, watched
from nni_darts.errors import InputError
from nni_darts.experiment.arguments import NOT_BY_HAND
from nni_darts.experiment.gpus import take_devices
from nni_darts.experiment.manager import Manager, bypass_proxy
from nni_darts.experiment.watchdog import Watchdog
from nni_darts.files import lock
from nni_darts.genotypes import genotype_from_code
from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import ACCURACY, PERPLEXITY, Metric
from nni_darts.report.cautions import after_training
from nni_darts.report.fronts import COSTS
from nni_darts.report.lines import activity_line, decision_line, epoch_line, result_lines, warning_line
from nni_darts.strategies.registry import find, row_parts

__all__ = ['run_trial']

_logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60

RANKED = 'ranked'
"""The key of a ranking's result with the codes of the best cells, separated by spaces."""


def run_trial() -> None:
    """Runs the trial for which NNI started this process.

    Raises:
        InputError: if the process is not an NNI trial.
        RuntimeError: if the manager has no record of this trial.
    """
    trial_id = os.environ.get('NNI_TRIAL_JOB_ID')
    if not trial_id or 'NNI_OUTPUT_DIR' not in os.environ:
        raise InputError(NOT_BY_HAND)
    faulthandler.enable()  # makes a crash in C write the name of its signal to stderr
    bypass_proxy(urlparse(os.environ.get('NNI_TRIAL_COMMAND_CHANNEL', '')).hostname or 'localhost')
    handed_out = nni.get_next_parameter()
    manager = Manager(_address(handed_out['manager']))
    job = _own_parameters(manager, trial_id)
    epochs, finished = manager.reported(trial_id)
    if finished:
        return  # restarted by a resume, although its result had already arrived
    output = Path(os.environ['NNI_OUTPUT_DIR'])
    while lock(output / 'trial.lock') is None:
        # After a resume: the manager died but the trial did not, and it continues its work.
        time.sleep(2)
    recipe = Recipe.of_run(job['recipe'])
    take_devices(recipe, job['share'], job['gpus'], job['trials_per_gpu'], say=lambda text: _print(f'this trial {text}'))
    watchdog = Watchdog(60 * job['stall_minutes'])

    # These imports come last because they import torch, which reads its number of threads and its GPUs on import.
    with loading_torch():
        from nni_darts.experiment.tensorboard import tensorboard_log
        from nni_darts.report.records import pack
        from nni_darts.report.searches import warnings_in
        from nni_darts.runs.run import Run
        from nni_darts.runs.spec import RunSpec, Watch
        from nni_darts.training.run import epochs_of

    known = {record.get('epoch') for record in epochs if isinstance(record, dict)}
    nni.trial._intermediate_seq = len(epochs)
    log = tensorboard_log(output)

    def on_epoch(record: dict[str, Any]) -> None:
        default = recipe.metric.of(record, 'valid')
        default = recipe.metric.of(record, 'train') if default is None else default
        default = record.get('train_accuracy') if default is None else default  # AUROC is not measured on training batches
        if record['epoch'] not in known:
            known.add(record['epoch'])
            _print(epoch_line(record))
            packed = pack(record)
            _report(nni.report_intermediate_result, {'default': default, **packed})
            log({**record, **packed, 'probabilities': record.get('probabilities', {})})

    def said(activity: Activity) -> None:
        watchdog.progress()
        if activity.seconds is not None:
            _print(activity_line(activity))

    def on_decision(record: dict[str, Any]) -> None:
        _print(decision_line(record))

    for record in epochs_of(output):  # epochs that ran before a stop but were never reported
        if record['epoch'] > max((epoch or 0 for epoch in known), default=0):
            on_epoch(record)
    genotype = genotype_from_code(job['arch']) if job['arch'] else None
    strategy = row_parts(job['strategy'])[0] if genotype is None else ''
    # NNI keeps the folders of all trials of an experiment side by side.
    supernet = output.parent / job['supernet'] if job.get('supernet') else None
    part = tuple(job['part']) if job.get('part') else None
    training: dict[str, Any] = {'genotype': genotype, 'part': part, 'continues': job.get('continues', '')}
    spec = RunSpec(job['stage'], recipe, job['seed'], strategy=strategy, supernet=supernet, **training)
    with watched(said):
        run = Run(spec, output, Watch(_begin, on_epoch, on_decision))
        # The cells that a strategy trains one by one are trials of their own, so that only their ranking is left.
        outcome = run.rank(resume=True) if spec.stage == 'search' and find(spec.strategy).one_by_one else run.execute(resume=True)
    watchdog.stop()
    _print_warnings([*(warnings_in(output) if genotype is None else []), *after_training(outcome.result)])
    for line in (*([outcome.genotype.to_text()] if genotype is None else []), *result_lines(outcome.result, output)):
        _print(line)
    _report(nni.report_final_result, final_metric(outcome.result, recipe.metric, job['key'], outcome.genotype.code()))


def final_metric(result: dict[str, Any], metric: Metric, key: str, arch: str) -> dict[str, Any]:
    """Returns the final metric as numbers and short strings, which NNI's page can show. ``default`` is the metric on validation data.

    If a recipe holds out no data in the last training, ``default`` is the metric on test data. Nothing is selected by it. It is 0 for a
    ranking of untrained networks, whose result has the codes of the best cells.
    """
    if RANKED in result:  # nothing was trained; NNI needs a number
        return {'default': 0.0, 'arch': arch, 'key': key, **{name: result[name] for name in (RANKED, 'seconds', 'passes')}}
    beside = () if metric in (ACCURACY, PERPLEXITY) else ('valid_accuracy', 'test_accuracy')
    costs = ('seconds', 'passes', *COSTS, 'peak_memory_mib')
    shown = (f'test_{metric.name}', *beside, 'largest_class', 'images', *costs)
    valid = metric.of(result, 'valid')
    default = metric.of(result, 'test') if valid is None else valid
    return {'default': default, 'arch': arch, 'key': key, **{name: result[name] for name in shown if name in result}}


def _address(given: str) -> str:
    """Returns the address of the manager.

    A local trial takes it from its own environment, because the tuner's address is out of date after a resume on another port.

    Args:
        given: the address in the trial's parameters.
    """
    channel = urlparse(os.environ.get('NNI_TRIAL_COMMAND_CHANNEL', ''))
    if os.environ.get('NNI_PLATFORM') == 'local' and channel.netloc and '/env/' in channel.path:
        return channel.netloc + channel.path.partition('/env/')[0]
    return given


def _own_parameters(manager: Manager, trial_id: str) -> dict[str, Any]:
    """Returns the parameters that the manager lists for this trial.

    If several trials ask at a time, NNI hands out parameters in the order of the requests, but records them in the order in which it
    started the trials (upstream issues 5693 and 5726). Everything else reads the manager's record, so the trial follows it, too.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    reason: Any = 'there is no record of it'
    while time.monotonic() < deadline:
        try:
            record = manager.trial(trial_id)
        except requests.RequestException as error:
            record, reason = None, error
        if record is not None:
            nni.trial._params = record
            return record['parameters']
        time.sleep(1)
    raise RuntimeError(f'the manager at {manager.address} does not say what trial {trial_id} is to do: {reason}')


def _begin(headline: str, warnings: Sequence[str]) -> None:
    """Prints recipe, data, classes, sizes and warnings to ``trial.log``, as the command line does."""
    _print(headline)
    _print_warnings(warnings)


def _print_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        _print(warning_line(warning))


def _print(line: str) -> None:
    """Prints a line, which NNI writes to ``trial.log`` with the time."""
    print(line, flush=True)


def _report(send: Any, value: dict[str, Any]) -> None:
    """Reports to NNI. If the manager has died, the trial continues, because the output folder has everything."""
    try:
        send(value)
    except (OSError, RuntimeError) as error:
        _logger.warning('the manager did not accept a report: %s', error)
