"""Times a few real steps of an experiment's runs in a separate process, because the tuner must not import torch and trials share cores.

It reads its task as one line of JSON from stdin, answers with one line of JSON, and ends when the tuner closes stdin.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

import psutil

from nni_darts.errors import InputError
from nni_darts.experiment.gpus import take_devices
from nni_darts.experiment.watchdog import Watchdog
from nni_darts.recipes import Recipe

__all__ = ['main']


def main() -> None:
    """Times the runs listed in the task, and prints ``{"courses": [[stage, strategy, course], …]}`` or ``{"error": …}``."""
    logging.disable(logging.INFO)  # trials log the same messages; they do not belong in the tuner's log
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_tuner, daemon=True).start()
    with redirect_stdout(sys.stderr):
        try:
            answer: dict[str, Any] = {'courses': _courses(task)}
        except InputError as error:
            answer = {'error': str(error)}
    print(json.dumps(answer), flush=True)
    sys.stderr.flush()
    os._exit(0)  # the thread that reads stdin is still running


def _courses(task: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    recipe = Recipe.of_run(task['recipe'])
    take_devices(recipe, task['share'], task['gpus'], task['trials_per_gpu'], say=lambda text: None)
    watchdog = Watchdog(60 * task['stall_minutes'])

    from nni_darts.activity import loading_torch, watched

    with loading_torch():
        from nni_darts.runs.planning import course_of_search, course_of_training

    begun = time.time() - psutil.Process().create_time()  # startup time, which every trial needs before its run begins
    found = []
    with watched(lambda activity: watchdog.progress()):
        for stage, strategy in task['kinds']:
            course = course_of_search(recipe, strategy) if stage == 'search' else course_of_training(recipe, stage)
            whole = {**asdict(course), 'shortest': begun + course.shortest, 'longest': begun + course.longest}
            found.append((stage, strategy, whole))
    return found


def _end_with_tuner() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == '__main__':
    main()
