"""The tuner that NNI runs in a separate process. It must connect within ten seconds, so nothing here imports torch.

At each step it reads the finished work from the manager's list of trials, by the key in each trial's final metric. The tuner therefore
does not depend on the order in which NNI hands out parameters, reports the end of trials, or restores results on resume.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import requests
from nni.tuner import Tuner

from nni_darts.errors import InputError
from nni_darts.experiment.arguments import (
    BEST,
    HALVING_ELSEWHERE,
    NO_ASSESSOR,
    SHARE_ELSEWHERE,
    TIME,
    TIME_BESIDE_HALVING,
    TIME_BESIDE_SETTINGS,
    TIME_ELSEWHERE,
    TunerArguments,
    is_local,
)
from nni_darts.experiment.failures import Failures
from nni_darts.experiment.latencies import LatencyTables, check_rows
from nni_darts.experiment.ledger import Ledger, Standing
from nni_darts.experiment.manager import ERROR, LIMITED, TUNER_SINCE, Manager, TrialRecord, bypass_proxy, tuner_starts
from nni_darts.experiment.pages import Pages
from nni_darts.experiment.planner import Planner, experiment_seconds
from nni_darts.experiment.protocol import Job, Protocol, parse_search_space
from nni_darts.files import write_text
from nni_darts.recipes import DataSettings, Recipe, recipe_names, with_split

__all__ = ['SearchAndRetrain']

_logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0
TABLE = 'latency.table'
GRACE_SECONDS = 8.0
"""Seconds after a trial's end within which its final metric may still arrive."""


class SearchAndRetrain(Tuner):
    """Runs the protocol of :mod:`nni_darts.experiment.protocol` as NNI trials: search, select, retrain.

    Args (``classArgs`` in the YAML):
        recipe: name or path of a recipe.
        set: changes to the recipe, as a mapping ``{search.epochs: 5}`` or a list of ``search.epochs=5``.
        retrain_runs: how many times the best cell of each strategy is trained from scratch.
        retrain: ``best``, or ``each_seed`` to train the best cell of every seed once.
        max_retries: how many times a trial that ended without a result is restarted; a trial that diverged is not.
        gpus: number of GPUs that a trial takes if the machine has any: as many as the recipe has ``devices``, or 0 for none.
        trials_per_gpu: number of trials that share a GPU.
        stall_minutes: minutes without progress after which a trial ends itself and is restarted.
        time: time limit for the whole experiment, such as ``2h``. A few steps are timed first, and all stages get the epochs that fit.
            NNI's own ``maxExperimentDuration`` is planned for in the same way.
        optimize_mode: which values NNI's page shows as better. It must agree with the recipe's metric: ``minimize`` is required for
            perplexity; ``maximize`` is the default and the only value for accuracy.

    Attributes:
        error: why no trial can be started; None if all is well.
        recipe, retrain_runs, retrain: the arguments, validated.

    Any error, at the start or later, ends the experiment with the status ERROR and the reason. NNI by itself would show it as RUNNING
    forever.
    """

    def __init__(
        self,
        /,  # so that a wrong key in classArgs, even "self", is reported as such
        recipe: str = 'digits',
        set: Mapping[str, Any] | Sequence[str] = (),
        retrain_runs: int = 1,
        retrain: str = BEST,
        max_retries: int = 2,
        gpus: int | None = None,
        trials_per_gpu: int = 1,
        stall_minutes: float = 30,
        time: str | None = None,
        share_search: bool = False,
        optimize_mode: str | None = None,
    ) -> None:
        bypass_proxy()  # NNI connects this process to the manager once the tuner is built
        self._lock = threading.RLock()
        self._slots: list[int] = []
        self._callback: Callable[[int, Any], None] | None = None
        self._protocol: Protocol | None = None
        self._pages: Pages | None = None
        self._planner: Planner | None = None
        self._latencies: LatencyTables | None = None
        self._limits_known = False
        self.error: str | None = None
        self.recipe: Recipe
        self._over = False  # finished, or the error has been reported
        try:
            arguments = TunerArguments.parse(
                {
                    'recipe': _from_code_directory(recipe),
                    'set': _table_from_code_directory(set),
                    'retrain_runs': retrain_runs,
                    'retrain': retrain,
                    'max_retries': max_retries,
                    'gpus': gpus,
                    'trials_per_gpu': trials_per_gpu,
                    'stall_minutes': stall_minutes,
                    'time': time,
                    'share_search': share_search,
                    'optimize_mode': optimize_mode,
                }
            )
            self.recipe = arguments.load()
            self._seconds = arguments.seconds
            self.retrain_runs, self.retrain, self.share_search = retrain_runs, arguments.retrain, arguments.share_search
            self._failures = Failures()
            self._ledger = Ledger(max_retries, GRACE_SECONDS)
            gpus = self.recipe.devices if gpus is None else gpus
            self._surroundings = {'gpus': gpus, 'trials_per_gpu': trials_per_gpu, 'stall_minutes': stall_minutes}
        except InputError as error:
            self.error = str(error)
        except Exception:
            self.error = traceback.format_exc()

    # Called by NNI ------------------------------------------------------------------------------------------------------------------

    def update_search_space(self, search_space: Any) -> None:
        """Takes strategies and seeds from the experiment's ``searchSpace`` and starts watching the trials."""
        if self.error:
            return
        try:
            strategies, seeds = parse_search_space(search_space)
            with self._lock:
                watching = self._protocol is not None
                self._protocol = Protocol(self.recipe, strategies, seeds, self.retrain_runs, self.retrain, self.share_search)
            if not watching:
                self._manager = Manager(urlparse(os.environ['NNI_TUNER_COMMAND_CHANNEL']).netloc + _prefix())
                folder = os.environ.get('NNI_LOG_DIRECTORY')
                self._pages = Pages(Path(folder), self._manager) if folder else None
                if self._pages is not None:
                    self._pages.begin(self._protocol)  # before the tuner counts as started: the page's address is printed then
                self._say_it_is_up()
                threading.Thread(target=self._watch, name='nni-darts watcher', daemon=True).start()
        except InputError as error:
            self.error = str(error)
        except Exception:
            self.error = traceback.format_exc()

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> list[Any]:
        """Fills as many of the offered slots as there are jobs, and keeps the remaining slots for later."""
        with self._lock:
            self._callback = kwargs.get('st_callback') or self._callback
            started: list[tuple[int, dict[str, Any]]] = []
            if self.error:
                self._report(self.error)
            else:
                started = self._guarded(lambda: self._advance(parameter_id_list))
            # NNI matches the returned parameters to the offered slots by position.
            self._slots += parameter_id_list[len(started) :]
            return [parameters for _, parameters in started]

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Does nothing: results are read from the manager, under the right key."""

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Does nothing: NNI reports success for trials without a result, too."""

    def import_data(self, data: list[Any]) -> None:
        """Does nothing: on resume the manager's list has the finished trials."""

    # What is done and what is next --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._over:
            time.sleep(POLL_SECONDS)
            with self._lock:
                if self._callback is None:
                    continue  # NNI has not requested trials yet
                started = self._guarded(lambda: self._advance(self._slots))
                del self._slots[: len(started)]
                for slot, parameters in started:
                    self._callback(slot, parameters)

    def _guarded(self, step: Callable[[], list[tuple[int, dict[str, Any]]]]) -> list[tuple[int, dict[str, Any]]]:
        try:
            return step()
        except InputError as error:
            self._report(str(error))
        except requests.RequestException as error:
            _logger.warning('the manager did not answer, trying again: %s', error)
        except Exception:
            self._report(traceback.format_exc())
        return []

    def _keep_split(self, records: Sequence[TrialRecord]) -> None:
        """Makes an experiment whose first trials split their images by an older rule continue with that rule."""
        before = next((record.parameters['recipe'] for record in records if 'recipe' in record.parameters), None)
        rule = with_split(before).get('data', {}).get('split') if before is not None else None
        if rule is not None and isinstance(self.recipe.data, DataSettings):
            self.recipe = self.recipe.model_copy(update={'data': self.recipe.data.model_copy(update={'split': rule})})

    def _advance(self, slots: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
        """Reads the manager's list of trials. Returns the first slots with the parameters of the jobs to start in them."""
        assert self._protocol is not None  # NNI sends the search space first
        records = self._manager.trials()
        self._keep_split(records)
        if not self._has_latencies():
            return []
        now = time.monotonic()
        standing = self._ledger.read(records, now, self._failures.hopeless)
        if self._failures.learn(standing.failed, self._manager):
            standing = self._ledger.read(records, now, self._failures.hopeless)
        planned = self._plan(standing, records)
        jobs = self._protocol.jobs(standing.results, standing.given_up)
        if not planned:
            self._describe(records, standing, jobs, over=False)
            return []
        settled = standing.results.keys() | standing.given_up
        taken = settled | standing.busy
        ready = [job for job in jobs if job.key not in taken and (not job.after or job.after in settled)]
        if self._manager.status() in LIMITED:
            # NNI starts no more trials now. The user may raise the limit in NNI's page, so the tuner keeps watching.
            standing = replace(standing, busy=standing.busy - self._ledger.unlisted())
            if any(job.key not in standing.results.keys() | standing.given_up | standing.busy for job in jobs):
                self._describe(records, standing, jobs, over=not standing.busy)
                return []
        started = [(slot, self._parameters(job, records)) for slot, job in zip(slots, ready)]
        for job in ready[: len(started)]:
            self._ledger.submitted(job.key)
        over = not ready and not standing.busy
        self._describe(records, standing, jobs, over)
        if over:
            self._finish(records, jobs, standing)
        return started

    def _has_latencies(self) -> bool:
        """Returns whether the recipe has its table of latencies, if it needs one; otherwise continues to measure it."""
        assert self._protocol is not None
        folder = os.environ.get('NNI_LOG_DIRECTORY')
        if self.recipe.latency is None or self.recipe.latency.table is not None or folder is None:
            return True
        if self._latencies is None:
            check_rows(self._protocol)
            self._latencies = LatencyTables(Path(folder), self.recipe)
        found = self._latencies.update()
        if found is None:
            return False
        self.recipe = found
        self._protocol = replace(self._protocol, recipe=found)
        return True

    def _plan(self, standing: Standing, records: Sequence[TrialRecord]) -> bool:
        """Fits the experiment into its time limit, if it has one. Returns whether trials can be started."""
        assert self._protocol is not None
        if not self._limits_known:
            self._limits_known = True
            self._planner = self._limited()
        if self._planner is None:
            return True
        if not self._planner.settled:
            elapsed = float(self._manager.experiment().get('execDuration') or 0)
            self._planner.update(replace(self._protocol, recipe=self.recipe), standing, records, elapsed, time.time())
        timetable = self._planner.timetable
        if timetable is not None:
            self._protocol = replace(self._protocol, recipe=timetable.applied(self.recipe))
        return timetable is not None

    def _limited(self) -> Planner | None:
        """Returns the planner for the time limit that ``classArgs`` or NNI sets; None if there is no limit."""
        config = self._manager.experiment()['params']
        local = is_local(config.get('trainingService'))
        if self._seconds is not None and not local:
            raise InputError(TIME_ELSEWHERE)
        assert self._protocol is not None
        if self.share_search and not local:
            raise InputError(SHARE_ELSEWHERE)
        if self._protocol.halves and not local:
            raise InputError(HALVING_ELSEWHERE)
        if self._protocol.halves and self._seconds is not None:
            raise InputError(TIME_BESIDE_HALVING)
        rows = self._protocol.changes_settings
        if self._seconds is not None and rows:
            raise InputError(TIME_BESIDE_SETTINGS)
        planned = local and self.recipe.budget is None and not rows and not self._protocol.halves
        own = experiment_seconds(config.get('maxExperimentDuration')) if planned else None
        limits = [(seconds, key) for seconds, key in ((self._seconds, TIME), (own, 'maxExperimentDuration')) if seconds is not None]
        folder = os.environ.get('NNI_LOG_DIRECTORY')
        if not limits or folder is None:
            return None
        seconds, key = min(limits)
        surroundings = {'concurrency': config.get('trialConcurrency', 1), 'surroundings': self._surroundings}
        return Planner(Path(folder), self.recipe, seconds, key, lenient=key != TIME, **surroundings)

    def _finish(self, records: Sequence[TrialRecord], jobs: Sequence[Job], standing: Standing) -> None:
        if not any(job.stage == 'retrain' and job.key in standing.results for job in jobs):
            why = ''.join(f'; {record.key}: {self._failures.reasons[record.id]}' for record in standing.failed[-1:])
            self._report(f'nothing was retrained: trials failed more often than max_retries allows{why}')
            return
        self._manager.finish(len(records))
        self._over = True

    def _parameters(self, job: Job, records: Sequence[TrialRecord]) -> dict[str, Any]:
        """Returns a trial's parameters. NNI's page shows ``mutation_summary``, and all other keys under "Original parameters"."""
        assert self._protocol is not None
        config = self._manager.experiment()['params']
        if config.get('assessor'):
            raise InputError(NO_ASSESSOR)
        local = is_local(config.get('trainingService'))
        host = 'localhost' if local else config.get('nniManagerIp') or 'localhost'
        continued = next((record.id for record in records if job.after and record.key == job.after and record.metric), '')
        return {
            'key': job.key,
            'stage': job.stage,
            'strategy': job.strategy,
            'seed': job.seed,
            'arch': job.arch,
            'supernet' if job.part is None else 'continues': continued,
            'part': job.part,
            'manager': f'{host}:{self._manager.address.partition(":")[2]}',
            'share': config.get('trialConcurrency', 1) if local else 1,
            **self._surroundings,
            'recipe': self._protocol.recipe_of(job.strategy).to_dict(),
            'mutation_summary': {'stage': job.stage, 'strategy': job.strategy, 'seed': job.seed, 'arch': job.arch or '-'},
        }

    def _describe(self, records: Sequence[TrialRecord], standing: Standing, jobs: Sequence[Job], over: bool) -> None:
        if self._pages is not None and self._protocol is not None:
            plan = self._planner.sentence if self._planner is not None else ''
            self._pages.update(self._protocol, jobs, standing, records, self._failures.reasons, over=over, plan=plan)

    def _say_it_is_up(self) -> None:
        folder = os.environ.get('NNI_LOG_DIRECTORY')
        if folder:
            (Path(folder) / ERROR).unlink(missing_ok=True)  # left from an earlier start
            path = Path(folder) / TUNER_SINCE
            write_text(path, ''.join(f'{since}\n' for since in [*tuner_starts(path), time.time()]))

    def _report(self, text: str) -> None:
        """Ends the experiment with the status ERROR and this text, as soon as NNI can be reached."""
        self.error = text
        _logger.error(text)
        if self._planner is not None:
            self._planner.close()
        if self._latencies is not None:
            self._latencies.close()
        if self._callback is not None and not self._over:
            self._over = True
            folder = os.environ.get('NNI_LOG_DIRECTORY')
            if folder:
                try:
                    write_text(Path(folder) / ERROR, text)
                except OSError as error:  # on a full disk, NNI must still be told
                    _logger.warning('%s was not written: %s', ERROR, error)
            # The callback is a method of NNI's dispatcher, the only object here that can report an error.
            self._callback.__self__.report_error(text)  # type: ignore[attr-defined]


def _from_code_directory(recipe: Any) -> Any:
    """Returns a recipe's path for the tuner, which NNI starts in the folder of the logs with ``codeDirectory`` last in ``sys.path``."""
    if isinstance(recipe, str) and recipe not in recipe_names() and not Path(recipe).exists():
        found = Path(sys.path[-1], recipe)
        return str(found) if found.is_file() else recipe
    return recipe


def _table_from_code_directory(overrides: Any) -> Any:
    """Returns overrides in which the path of a table of latencies is one for the tuner, as :func:`_from_code_directory` finds a recipe."""

    def found(path: Any) -> Any:
        beside = Path(sys.path[-1], str(path))
        return str(beside) if isinstance(path, str) and not Path(path).exists() and beside.is_file() else path

    if isinstance(overrides, Mapping):
        return {key: found(value) if key == TABLE else value for key, value in overrides.items()}
    if isinstance(overrides, (list, tuple)):
        start = f'{TABLE}='
        return [start + found(text.removeprefix(start)) if isinstance(text, str) and text.startswith(start) else text for text in overrides]
    return overrides


def _prefix() -> str:
    """Returns NNI's URL prefix, '' or '/prefix', from the address of the tuner's channel, such as ws://localhost:8080/prefix/tuner."""
    return urlparse(os.environ['NNI_TUNER_COMMAND_CHANNEL']).path.removesuffix('/tuner').rstrip('/')
