"""The page of ``nni-darts fit``, which leads from images to a network. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nni_darts.files import write_text
from nni_darts.genotypes import AnyGenotype
from nni_darts.report.cautions import no_better_than_chance
from nni_darts.report.drawing import cell_svg
from nni_darts.report.lines import duration
from nni_darts.report.pages import render

__all__ = ['FIT_PAGE', 'commands', 'warnings_of', 'write_fit']

FIT_PAGE = 'report.html'


def commands(output: Path) -> list[str]:
    """Returns commands that use the network in an output folder."""
    folder, onnx = (shlex.quote(str(path)) for path in (output, output / 'network.onnx'))
    return [f'nni-darts predict {folder} photo.jpg', f'nni-darts evaluate {folder} new_photos', f'nni-darts export {folder} --onnx {onnx}']


def warnings_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Returns the warnings about a test result.

    Args:
        evaluation: the result of ``Evaluation.to_dict``.
    """
    said = no_better_than_chance(evaluation['accuracy'], evaluation['count'], evaluation['largest_class'])
    return [said] if said else []


def write_fit(
    output: Path,
    plan: Mapping[str, Any],
    outcome: Mapping[str, Any],
    genotype: AnyGenotype,
    evaluations: Mapping[str, Mapping[str, Any]],
    about: Sequence[str],
) -> Path:
    """Writes the page and returns its path.

    Args:
        output: output folder of the run.
        plan: ``recipe``, ``why`` and ``order``, as in ``fit.json``.
        outcome: ``took``, ``results`` of each part, and ``verdict``.
        genotype: the cell found.
        evaluations: part → evaluation on the test images, as ``Evaluation.to_dict`` returns it.
        about: number of images and number of classes, as text.
    """
    names = {'retrain': 'found by the search', 'baseline': plan['order']['baseline']}
    rows = []
    for part, evaluation in evaluations.items():
        result = outcome['results'][part]
        low, high = (f'{100 * bound:.1f}' for bound in evaluation['accuracy_interval'])
        rows.append(
            {
                'name': names[part],
                'page': f'{part}/training.html',
                'accuracy': f'{100 * evaluation["accuracy"]:.1f}',
                'interval': f'{low} to {high}',
                'balanced': f'{100 * evaluation["balanced_accuracy"]:.1f}',
                'parameters': f'{result["parameters"]:,}',
                'multiply_adds': f'{result["multiply_adds"]:,}',
                'time': duration(result['seconds']),
            }
        )
    found = evaluations['retrain']
    images, classes = about
    values = {
        'over': True,
        'source': '',
        'data': plan['recipe']['data']['path'],
        'images': images,
        'classes': classes,
        'took': duration(outcome['took']),
        'verdict': outcome.get('verdict', ''),
        'chance': ' '.join(f'{said[0].upper()}{said[1:]}.' for said in warnings_of(found)),
        'rows': rows,
        'largest': f'{100 * found["largest_class"]:.1f}',
        'drawing': cell_svg(genotype),
        'why': plan['why'],
        'commands': commands(output),
    }
    path = output / FIT_PAGE
    write_text(path, render('fit.html', values))
    return path
