"""Commands about trained networks: predict, evaluate, export."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nni_darts.activity import loading_torch
from nni_darts.cli.group import main
from nni_darts.cli.options import TABLES, check_target
from nni_darts.cli.output import print_warnings
from nni_darts.cli.progress import Progress
from nni_darts.errors import InputError
from nni_darts.files import write_text
from nni_darts.runs.location import ModelFile, find_model, missing_packages

if TYPE_CHECKING:
    from nni_darts.runs.predictions import Predictions


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of commands that apply a network to images."""
    function = click.option('--device', default='cpu', show_default=True, help='Device that runs the network, such as cuda.')(function)
    size = click.IntRange(1, 100_000)
    return click.option('--batch-size', default=64, show_default=True, type=size, help='Number of images per batch.')(function)


@main.command(short_help='Classify images with a trained network.')
@click.argument('model', type=click.Path(path_type=Path))
@click.argument('images', nargs=-1, required=True, type=click.Path(path_type=Path), metavar='IMAGE_OR_FOLDER...')
@click.option('--top', default=3, show_default=True, type=click.IntRange(1), help='Number of classes to print for each image.')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
@click.option('--csv', 'csv_file', metavar='FILE', help='Write a table with the probability of every class; - prints it.')
@model_options
def predict(model: Path, images: tuple[Path, ...], top: int, as_json: bool, csv_file: str | None, batch_size: int, device: str) -> None:
    """Classify images: print class names and probabilities.

    MODEL is the output folder of "nni-darts retrain", the weights.pt in it, or a file that "nni-darts export" wrote (.onnx, .pt2; a .pt2
    can hold code, so only use one that you trust). The training data is not needed. For a folder, all images in it and its subfolders
    are classified. Images that cannot be read are named at the end; the exit code is 1 if no image could be read.

    \b
    Examples:
      nni-darts predict out/retrain photo.jpg
      nni-darts predict net.onnx photos --top 1 --csv answers.csv
    """
    if as_json and csv_file == '-':
        raise InputError('--json and --csv - both print to standard output; give only one of them.')
    if csv_file not in (None, '-'):
        check_target('--csv', Path(csv_file), TABLES)
    located = _located(model, device)
    missing = next((path for path in images if not path.exists()), None)
    if missing is not None:
        raise InputError(f'there is no image or folder {missing}.')
    faults: list[str] = []
    with Progress():
        with loading_torch():
            from nni_darts.data.photos import left_out_note
            from nni_darts.data.scan import images_below, shown
            from nni_darts.runs.model import load_model
        found = load_model(located.path, device=device).predict(images, batch_size=batch_size, on_unreadable=faults.append)
        notes = [note for path in images if path.is_dir() for note in left_out_note(images_below(path)[1], path)]
    names = [shown(name) for name in found.names]
    if csv_file == '-':
        click.echo(_as_csv(found, names), nl=False)
    elif csv_file is not None:
        write_text(Path(csv_file), _as_csv(found, names))
    if as_json:
        answers = [{**answer, 'name': name} for name, answer in zip(names, found.to_dicts(top))]
        click.echo(
            json.dumps({'model': str(model), 'classes': found.classes, 'predictions': answers, 'unreadable': faults}, ensure_ascii=False)
        )
    elif csv_file is None:
        width = min(50, max(map(len, names), default=0))
        for name, answer in zip(names, found):
            click.echo('  '.join([f'{name:<{width}}', *(f'{label} {100 * value:.1f} %' for label, value in answer.top(top).items())]))
    elif csv_file != '-':
        click.echo(f'wrote {csv_file}: {len(found):,} predictions')
    print_warnings(notes)
    _print_faults(faults)
    if not len(found):
        sys.exit(1)


@main.command(short_help='Test a trained network on labelled images.')
@click.argument('model', type=click.Path(path_type=Path))
@click.argument('images', type=click.Path(path_type=Path), metavar='FOLDER')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object, with the twenty most confident mistakes.')
@model_options
def evaluate(model: Path, images: Path, as_json: bool, batch_size: int, device: str) -> None:
    """Test a trained network: accuracy, results for each class, and which classes are confused.

    MODEL is as for "nni-darts predict". FOLDER has a folder of images for each class; or folders train and test (or val, valid,
    validation) that contain such folders, in which case only the test images are used; or it is a table of paths and labels (.csv).
    Images that cannot be read are left out and named at the end. A warning follows if the accuracy is no evidence against always predicting
    the largest class.

    \b
    Example:
      nni-darts evaluate out/retrain photos/test
    """
    located = _located(model, device)
    if not images.exists():
        raise InputError(f'there is no folder or table {images}.')
    faults: list[str] = []
    notes: list[str] = []
    with Progress():
        with loading_torch():
            from nni_darts.data.scan import shown
            from nni_darts.report.evaluations import evaluation_lines
            from nni_darts.report.fits import warnings_of
            from nni_darts.runs.model import load_model
        loaded = load_model(located.path, device=device)
        values = loaded.evaluate(images, batch_size=batch_size, on_unreadable=faults.append, on_note=notes.append).to_dict()
    if as_json:
        mistakes = [{**mistake, 'name': shown(mistake['name'])} for mistake in values['mistakes']]
        _print_json({'model': str(model), 'images': str(images), **values, 'mistakes': mistakes, 'unreadable': faults})
    else:
        for line in evaluation_lines(values):
            click.echo(line)
    print_warnings([*notes, *warnings_of(values)])
    _print_faults(faults)


@main.command(short_help='Write a trained network as ONNX or for torch.export.')
@click.argument('checkpoint', type=click.Path(path_type=Path))
@click.option('--onnx', 'onnx_file', type=click.Path(path_type=Path, dir_okay=False), help='Write ONNX and check it with onnxruntime.')
@click.option('--pt2', 'pt2_file', type=click.Path(path_type=Path, dir_okay=False), help='Write a program for torch.export.load.')
def export(checkpoint: Path, onnx_file: Path | None, pt2_file: Path | None) -> None:
    """Write a trained image network for other programs.

    CHECKPOINT is the output folder of "nni-darts retrain", or the weights.pt in it. The exported network has one input, "images", a batch
    of any size with values from 0 to 1, and one output, "logits"; it normalises images as in training. Its metadata contain class names,
    image size and how to scale images to that size. ONNX needs pip install onnx onnxscript onnxruntime.

    \b
    Example:
      nni-darts export out/retrain --onnx net.onnx --pt2 net.pt2
    """
    if onnx_file is None and pt2_file is None:
        raise InputError('nothing to write; give --onnx FILE, --pt2 FILE or both.')
    located = find_model(checkpoint)
    for path, ending in ((onnx_file, '.onnx'), (pt2_file, '.pt2')):
        if path is not None:
            check_target(f'--{ending[1:]}', path, (ending,), located.path)
    if located.kind != 'weights':
        raise InputError(f'{checkpoint} is already exported; give the output folder of nni-darts retrain, or its weights.pt.')
    missing = missing_packages('onnx', 'onnxscript', 'onnxruntime') if onnx_file is not None else []
    if missing:
        raise InputError(f'export to ONNX needs {" and ".join(missing)}; run pip install onnx onnxscript onnxruntime.')
    from nni_darts.report.export import export_onnx, export_program, metadata, save_program
    from nni_darts.runs.model import load_model

    model = load_model(located.path)
    program = export_program(model.network, (model.description.channels, *model.description.size))  # type: ignore[arg-type]
    about = metadata(model.description, model.genotype, model.data)
    if onnx_file is not None:
        difference = export_onnx(program, onnx_file, about)
        click.echo(f'wrote {onnx_file}: images {program.takes}, from 0 to 1 → logits; differs from torch by {difference:.1g} at most')
    if pt2_file is not None:
        save_program(program, pt2_file, about)
        click.echo(f'wrote {pt2_file}: images {program.takes}, from 0 to 1 → logits')


def _located(model: Path, device: str) -> ModelFile:
    """Returns the file of a model. If the network runs on the CPU, hides GPUs from torch, which would allocate memory on them."""
    located = find_model(model)
    if device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    return located


def _as_csv(found: Predictions, names: Iterable[str]) -> str:
    """Returns a header and a line for each image: path, name and probability of its class, probability of every class."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(['path', 'label', 'probability', *found.classes])
    for name, label, values in zip(names, found.labels, found.probabilities.tolist()):
        table.writerow([name, label, *(f'{value:.6g}' for value in (max(values), *values))])
    return text.getvalue()


def _print_json(values: dict[str, Any]) -> None:
    click.echo(json.dumps(values, ensure_ascii=False))


def _print_faults(faults: Iterable[str]) -> None:
    for fault in faults:
        click.echo(f'Left out: {fault}.', err=True)
