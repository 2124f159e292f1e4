"""The data of one training, and its page, which are updated while the training runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni_darts.genotypes import AnyGenotype, genotype_from_code
from nni_darts.recipes.metric import METRICS
from nni_darts.report.charts import curve, line_chart, measured_charts
from nni_darts.report.drawing import cell_svg
from nni_darts.report.fronts import COSTS, cost_text, cost_title
from nni_darts.report.lines import duration
from nni_darts.report.pages import write_page

__all__ = ['AboutTraining', 'TRAINING', 'confusions', 'training_data', 'write_training']

TRAINING = 'training'
"""File name of the page and the data in the output folder of a training."""

_LARGEST_TABLE = 20
"""A confusion matrix of more classes than this is shown as a list of the most frequent confusions."""

_CONFUSIONS = 10
_TITLES = {'select': 'Short training', 'retrain': 'Retraining'}


@dataclass(frozen=True)
class AboutTraining:
    """The description of a training on its page.

    Attributes:
        stage: ``select`` or ``retrain``.
        seed: seed of the training.
        recipe: name of the recipe.
        metric: name of the recipe's metric.
        genotype: the architecture whose network is trained.
        strategy: name of the strategy that found it; '' if that is not known.
    """

    stage: str
    seed: int
    recipe: str
    metric: str
    genotype: AnyGenotype
    strategy: str = ''


def training_data(
    records: Sequence[Mapping[str, Any]],
    about: AboutTraining,
    *,
    over: bool,
    result: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns plain data of one training: all that its page shows.

    Args:
        records: measurements of the epochs so far, in any order; of several records of one epoch the last counts.
        about: the description of the training.
        over: whether the training has ended.
        result: measurements and costs at the end.
        evaluation: evaluation on the test images, as ``Evaluation.to_dict`` returns it; a mistake may have an ``image``, a data URI.
        commands: command lines that use the trained network.
    """
    ordered = [record for _, record in sorted({record['epoch']: record for record in records if 'epoch' in record}.items())]
    return {
        'stage': about.stage,
        'strategy': about.strategy,
        'seed': about.seed,
        'recipe': about.recipe,
        'metric': about.metric,
        'over': over,
        'arch': about.genotype.code(),
        'epochs': [{name: value for name, value in record.items() if _is_number(value) and name != 'default'} for record in ordered],
        'result': {name: value for name, value in (result or {}).items() if _is_number(value)},
        'evaluation': dict(evaluation) if evaluation else None,
        'commands': list(commands),
    }


def confusions(evaluation: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Returns the most frequent mistakes of an evaluation: ``true`` and ``predicted`` class, ``images``, and ``share`` of the true class.

    Args:
        evaluation: the result of ``Evaluation.to_dict``.
        count: largest number of entries.
    """
    classes, found = evaluation['classes'], []
    for true, row in enumerate(evaluation['confusion']):
        for predicted, images in enumerate(row):
            if images and predicted != true:
                found.append({'true': classes[true], 'predicted': classes[predicted], 'images': images, 'share': images / sum(row)})
    return sorted(found, key=lambda entry: (-entry['images'], -entry['share']))[:count]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# The page ---------------------------------------------------------------------------------------------------------------------------


def write_training(folder: Path, name: str, data: Mapping[str, Any], *, up: str = '') -> None:
    """Writes ``NAME.json`` and ``NAME.html`` if anything changed. Each file is replaced atomically.

    Args:
        folder: folder for the files.
        name: name of both files, without the suffix.
        data: result of :func:`training_data`.
        up: address of a parent page to link to.
    """
    write_page(folder, name, data, 'training.html', lambda: {**_pictures(data), 'up': up})


def _pictures(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the template's further values."""
    epochs, metric, evaluation = data['epochs'], METRICS[data['metric']], data['evaluation']
    charts = [*measured_charts(epochs, metric), line_chart('learning rate', {'': curve(epochs, 'learning_rate')}, low=0)]
    genotype = genotype_from_code(data['arch'])
    return {
        'title': _TITLES.get(data['stage'], data['stage']),
        'charts': list(filter(None, charts)),
        'drawing': cell_svg(genotype) if genotype.graphs() else '',
        'genotype': genotype.to_text(),
        'facts': _facts(data),
        'matrix': evaluation is not None and len(evaluation['classes']) <= _LARGEST_TABLE,
        'confusions': confusions(evaluation, _CONFUSIONS) if evaluation else [],
    }


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (name, value, remark) of each result and cost of the training."""
    result, evaluation, metric = data['result'], data['evaluation'], METRICS[data['metric']]
    unit = ' %' if metric.percent else ''
    facts = []
    if evaluation:
        low, high = (f'{100 * bound:.2f}' for bound in evaluation['accuracy_interval'])
        interval = f'95 % interval {low} to {high} %, {evaluation["count"]:,} images'
        facts.append(('test accuracy', f'{100 * evaluation["accuracy"]:.2f} %', interval))
        facts.append(('balanced accuracy', f'{100 * evaluation["balanced_accuracy"]:.2f} %', 'mean over classes of the test'))
    for part, name in (('test', 'test'), ('valid', 'validation'), ('train', 'training')):
        value, known = metric.of(result, part), {fact for fact, *_ in facts}
        title = f'{name} {metric.name.replace("_", " ")}'
        if value is not None and title not in known:
            facts.append((title, metric.shown(value) + unit, ''))
    if result.get('kept_epoch', 0) < result.get('epochs', 0):
        facts.append(('weights', f'of epoch {result["kept_epoch"]} of {result["epochs"]}', 'the best by validation'))
    if 'largest_class' in result:
        facts.append(('largest class', f'{100 * result["largest_class"]:.2f} %', 'the accuracy of always predicting it'))
    facts += [(cost_title(name), cost_text(result[name]), '') for name in COSTS if name in result]
    if 'seconds' in result:
        passes = f'{result["passes"]:g} passes over the training data' if 'passes' in result else ''
        facts.append(('time', duration(result['seconds']), passes))
    if 'peak_memory_mib' in result:
        facts.append(('peak memory', f'{result["peak_memory_mib"]:,} MiB', ''))
    return facts
