"""The files that a run writes at its end, and the checkpoints from which it continues."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from nni_darts import parallel
from nni_darts.data import Description
from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT, METRICS, write_text
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import RUN
from nni_darts.runs.folder import DATA, GENOTYPE, RESULT, WEIGHTS, read_json, write_json
from nni_darts.runs.provenance import provenance
from nni_darts.runs.spec import Work
from nni_darts.runs.weights import SavedNetwork, write_weights
from nni_darts.training.run import epochs_of, last_checkpoint, peak_memory_mib
from nni_darts.training.time_limit import EndInTime

__all__ = ['begun_from', 'callbacks_in_time', 'finish', 'keep_genotype', 'keep_network', 'kept_description', 'resume_arguments']


def kept_description(output: Path) -> Description | None:
    """Returns the description of the images in the folder of a run; None if the folder has no description.

    Raises:
        InputError: if the file is damaged.
    """
    path = Path(output) / DATA
    if not path.is_file():
        return None
    try:
        return Description.from_dict(read_json(path))
    except InputError as error:
        raise InputError(f'{path}: {error}') from None


def keep_genotype(work: Work, genotype: AnyGenotype) -> None:
    """Writes ``genotype.json``, and for images also their description, ``data.json``."""
    write_text(work.output / GENOTYPE, genotype.to_json() + '\n')
    kept = work.task.kept(work.data)
    if kept:
        write_json(work.output / DATA, kept)


def keep_network(work: Work, genotype: AnyGenotype, network: nn.Module) -> None:
    """Writes ``weights.pt``, which can be used without any other file of the run."""
    saved = SavedNetwork(
        kind=work.task.kind,
        genotype=genotype.to_json(),
        network=work.task.network_options(work.recipe, work.spec.stage, work.data),
        description=work.task.kept(work.data),
        data=work.recipe.data.name,
        state_dict=network.state_dict(),
    )
    write_weights(work.output / WEIGHTS, saved)


def finish(work: Work, result: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Writes ``result.json`` with the result, settings, versions, command and state of the source.

    Args:
        work: the run.
        result: measurements of the run.
        more: additional entries of the file.

    Returns:
        The result, with the peak memory of the process in MiB.
    """
    complete = {**result}
    complete.setdefault('peak_memory_mib', peak_memory_mib())
    run = json.loads((work.output / RUN).read_text('utf-8'))
    description = work.task.kept(work.data)
    described = {'description': dict(description)} if description else {}
    write_json(work.output / RESULT, {'result': complete, **described, **more, **run, **provenance()})
    return complete


def resume_arguments(work: Work, folder: Path, log: Path | None = None, before: int = 0) -> dict[str, Any]:
    """Returns the arguments with which ``Trainer.fit`` continues from a checkpoint; empty if the run starts from the beginning.

    Args:
        work: the run.
        folder: folder of the checkpoint.
        log: as for :func:`nni_darts.training.run.last_checkpoint`.
        before: as for :func:`nni_darts.training.run.last_checkpoint`.

    Raises:
        InputError: if the checkpoint is damaged.
    """
    try:
        checkpoint = parallel.agreed(last_checkpoint(folder, log, before) if work.resume and parallel.is_first() else None)
    except ValueError as error:
        raise InputError(f'the checkpoint in {folder} is damaged ({error}); start again in another folder') from None
    return {'ckpt_path': str(checkpoint), 'weights_only': True} if checkpoint else {}


def begun_from(work: Work, earlier: Path | None, what: str) -> Work:
    """Copies measurements and checkpoint of another run into the folder of a run that continues it, unless that has begun already.

    Args:
        work: the run.
        earlier: output folder of the other run; None if the run starts from the beginning.
        what: content of the checkpoint, for the message.

    Returns:
        The work, which resumes from the checkpoint.

    Raises:
        InputError: if there is no checkpoint in the folder any more.
    """
    output = work.output
    if earlier is None or (output / CHECKPOINT).exists():
        return work
    if not (earlier / CHECKPOINT).is_file():
        raise InputError(f'{earlier} has no {CHECKPOINT} any more, which holds {what}')
    shutil.copyfile(earlier / METRICS, output / METRICS)
    # The checkpoint comes last and at once: with it, the run has begun.
    part = output / f'{CHECKPOINT}.part'
    shutil.copyfile(earlier / CHECKPOINT, part)
    part.replace(output / CHECKPOINT)
    return replace(work, resume=True)


def callbacks_in_time(work: Work) -> list[EndInTime]:
    """Returns the callbacks that end a run within its time limit; empty without a limit."""
    plan = work.spec.plan
    if plan is None:
        return []
    lines = epochs_of(work.output) if work.resume else []
    return [EndInTime(plan.deadline(lines[-1]['total_seconds'] if lines else 0.0), plan.tail)]
