"""Exported networks give the logits of the network that was trained."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from nni_darts import PUBLISHED, Genotype, NasBench201Genotype, Recipe, load_model
from nni_darts.cli import main
from nni_darts.data import ImageDataModule, load_images
from nni_darts.report import export
from nni_darts.report.export import FromPixels, Program, _traced, export_onnx, export_program, save_program
from nni_darts.runs import location
from nni_darts.runs.weights import read_state_dict
from nni_darts.search_spaces import network_from_genotype
from tests.helpers import running
from tests.helpers.pictures import CELL
from tests.helpers.tiny import recipe, text_recipe, write_images, write_text

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


EVERY_OPERATION = Genotype(
    normal=(('sep_conv_3x3', 0), ('dil_conv_5x5', 1), ('max_pool_3x3', 0), ('skip_connect', 2)),
    normal_concat=(2, 3),
    reduce=(('skip_connect', 0), ('avg_pool_3x3', 1), ('dil_conv_3x3', 0), ('conv_7x1_1x7', 1)),
    reduce_concat=(2, 3),
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DARTS_V2's cells, trained for a moment."""
    folder = tmp_path_factory.mktemp('trained')
    running.train_cell(recipe(write_images(folder / 'images.npz')), 'retrain', PUBLISHED['DARTS_V2'], 1, folder / 'out')
    return folder / 'out'


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ['export', *map(str, arguments)])


def test_the_files_classify_as_the_network_does(trained: Path, tmp_path: Path) -> None:
    answer = run(trained / 'weights.pt', '--onnx', tmp_path / 'net.onnx', '--pt2', tmp_path / 'net.pt2')
    assert answer.exit_code == 0, answer.output
    assert [path.name for path in sorted(tmp_path.iterdir())] == ['net.onnx', 'net.pt2']  # no data beside it, nothing left over
    model, settings = load_model(trained), Recipe.of_folder(trained)
    data = load_images(settings.data)
    assert model.description == data.description and model.data == 'npz'
    module = ImageDataModule(data, settings.data, train_portion=0.9, batch_size=40, seed=1)
    (batch,) = list(module.test_dataloader())
    with torch.no_grad():
        expected = model.network.network(batch[0])
    pixels = torch.stack([data.test[index][0] for index in range(40)]) / 255
    session = onnxruntime.InferenceSession(str(tmp_path / 'net.onnx'))
    for size in (40, 1):
        (logits,) = session.run(['logits'], {'images': pixels[:size].numpy()})
        np.testing.assert_allclose(logits, expected[:size], atol=1e-4, rtol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert model.genotype.to_text() == about['genotype'] == PUBLISHED['DARTS_V2'].to_text()
    known = {name: json.loads(about[name]) for name in ('classes', 'size', 'channels', 'mean', 'std', 'colour_order', 'fit')}
    assert known == {name: json.loads(json.dumps(value)) for name, value in data.description.to_dict().items() if name in known}
    assert known['classes'] == list('0123456789') and known['colour_order'] == 'grey'
    program = torch.export.load(tmp_path / 'net.pt2').module()
    torch.testing.assert_close(program(pixels), expected, atol=1e-5, rtol=1e-5)


def of_an_earlier_version(output: Path) -> None:
    """Takes the description out of the weights."""
    torch.save(read_state_dict(output / 'weights.pt'), output / 'weights.pt')


def test_the_images_need_not_be_there_any_more(tmp_path: Path) -> None:
    images = write_images(tmp_path / 'images.npz')
    running.train_cell(recipe(images), 'retrain', CELL, 1, tmp_path / 'out')
    here = run(tmp_path / 'out', '--pt2', tmp_path / 'here.pt2')
    images.rename(tmp_path / 'elsewhere.npz')
    moved = run(tmp_path / 'out', '--pt2', tmp_path / 'moved.pt2')
    of_an_earlier_version(tmp_path / 'out')
    older = run(tmp_path / 'out', '--pt2', tmp_path / 'older.pt2')
    assert (here.exit_code, moved.exit_code, older.exit_code) == (0, 0, 0), moved.output
    pixels = torch.rand(3, 1, 8, 8)
    one, *others = (torch.export.load(tmp_path / f'{name}.pt2').module()(pixels) for name in ('here', 'moved', 'older'))
    assert all(torch.equal(one, other) for other in others)
    counted = CliRunner().invoke(main, ['cost', str(tmp_path / 'out')])
    assert counted.exit_code == 0 and 'data npz: 10 classes, 1×8×8' in counted.output
    (tmp_path / 'out' / 'data.json').write_text('{"size": 3}')
    damaged = run(tmp_path / 'out', '--pt2', tmp_path / 'x.pt2')
    assert damaged.exit_code == 2 and 'data.json: the description of the data is damaged' in damaged.output
    (tmp_path / 'out' / 'data.json').unlink()  # as a still earlier version left it
    before = run(tmp_path / 'out', '--pt2', tmp_path / 'x.pt2')
    assert before.exit_code == 2 and 'no file' in before.output


def test_a_file_that_fails_the_check_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FromPixels(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3)), [0.5], [0.25])
    model(torch.zeros(1, 1, 4, 4))
    monkeypatch.setattr(export, 'TOLERANCE', -1.0)
    program = Program(model, (1, 4, 4), None, _traced(model, (1, 4, 4), {0: torch.export.Dim.DYNAMIC}))
    with pytest.raises(ArithmeticError, match='onnxruntime differs from torch by .* nothing was written'):
        export_onnx(program, tmp_path / 'bad.onnx', {})
    assert not list(tmp_path.iterdir())


CELLS = {
    'darts': ({}, (1, 9, 14), 5),
    'one-size': ({}, (3, 4, 4), None),
    'imagenet': ({'stem': 'imagenet', 'auxiliary': True, 'pool_batch_norm': False}, (3, 40, 48), 33),
    'imagenet-of-one-size': ({'stem': 'imagenet'}, (3, 32, 40), None),
    'nasbench201': (None, (3, 8, 8), 5),
}


@pytest.mark.parametrize('case', [name if name == 'darts' else pytest.param(name, marks=pytest.mark.slow) for name in CELLS])
def test_images_of_any_size_from_the_smallest(case: str, tmp_path: Path) -> None:
    options, image, smallest = CELLS[case]
    torch.manual_seed(0)
    cell = NasBench201Genotype.random(random.Random(3)) if options is None else EVERY_OPERATION
    network = network_from_genotype(cell, channels=4, cells=3, num_classes=3, in_channels=image[0], **(options or {}))
    network.train()(torch.rand(8, image[0], 48, 64))  # running statistics that are not those of nothing
    model = FromPixels(network, [0.4] * image[0], [0.2] * image[0])
    program = export_program(model, image)
    assert program.smallest == smallest
    assert program.takes == (
        f'(N, {image[0]}, H, W) of {smallest}×{smallest} pixels or more' if smallest else f'(N, {", ".join(map(str, image))})'
    )
    save_program(program, tmp_path / 'net.pt2', {})
    module, session = torch.export.load(tmp_path / 'net.pt2').module(), None
    if smallest:  # of one size there is nothing that test_the_files_classify_as_the_network_does leaves out, and ONNX takes seconds
        export_onnx(program, tmp_path / 'net.onnx', {})
        session = onnxruntime.InferenceSession(str(tmp_path / 'net.onnx'))
    sizes = [image[1:], *([(smallest, smallest), (smallest, 2 * smallest + 1), (50, 37), (64, 96)] if smallest else [])]
    for height, width in sizes:
        for count in (1, 3):
            pixels = torch.rand(count, image[0], height, width)
            with torch.no_grad():
                expected = model(pixels)
            torch.testing.assert_close(module(pixels), expected, atol=1e-5, rtol=1e-5)
            if session:
                (logits,) = session.run(['logits'], {'images': pixels.numpy()})
                np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)


def damaged(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / 'damaged'
    folder.mkdir()
    for name in ('run.json', 'genotype.json'):
        (folder / name).write_text((trained / name).read_text())
    (folder / 'weights.pt').write_bytes((trained / 'weights.pt').read_bytes()[:1000])
    return folder


def test_mistakes_are_one_sentence(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ('--onnx', tmp_path / 'x.onnx')
    language = text_recipe(write_text(tmp_path))
    folder = tmp_path / 'language'
    folder.mkdir()
    (folder / 'run.json').write_text(json.dumps({'stage': 'retrain', 'recipe': language.to_dict()}))
    (folder / 'genotype.json').write_text(PUBLISHED['DARTS_V2-RNN'].to_json())
    (folder / 'weights.pt').write_text('')
    for arguments, sentence in (
        ((trained,), 'nothing to write; give --onnx FILE, --pt2 FILE or both'),
        ((trained, '--onnx', tmp_path / 'nowhere' / 'x.onnx'), 'there is no folder'),
        ((tmp_path, *out), 'has no weights.pt; a model is the output folder of nni-darts fit or retrain'),
        ((damaged(trained, tmp_path), *out), 'does not hold the weights of a network'),
        ((folder, *out), 'holds a language model, which cannot classify images'),
    ):
        answer = run(*arguments)
        assert answer.exit_code == 2 and sentence in answer.output and len(answer.output.splitlines()) == 1, answer.output
    monkeypatch.setattr(location, 'find_spec', lambda name: None if name == 'onnxruntime' else find_spec(name))
    answer = run(trained, *out)
    assert (
        answer.exit_code == 2 and answer.output == 'Error: export to ONNX needs onnxruntime; run pip install onnx onnxscript onnxruntime.\n'
    )
    assert not (tmp_path / 'x.onnx').exists()
