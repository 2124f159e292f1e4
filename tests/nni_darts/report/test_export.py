"""Exported networks give the logits of the network that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from nni_darts import PUBLISHED, stages
from nni_darts.cli import main
from nni_darts.data import ImageDataModule, load_images
from nni_darts.report import export
from nni_darts.report.export import FromPixels, export_onnx, export_program
from tests.nni_darts.tiny import recipe, text_recipe, write_images, write_text

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DARTS_V2's cells, trained for a moment."""
    folder = tmp_path_factory.mktemp('trained')
    stages.train_cell(recipe(write_images(folder / 'images.npz')), 'retrain', PUBLISHED['DARTS_V2'], 1, folder / 'out')
    return folder / 'out'


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ['export', *map(str, arguments)])


def test_the_files_classify_as_the_network_does(trained: Path, tmp_path: Path) -> None:
    answer = run(trained / 'weights.pt', '--onnx', tmp_path / 'net.onnx', '--pt2', tmp_path / 'net.pt2')
    assert answer.exit_code == 0, answer.output
    assert [path.name for path in sorted(tmp_path.iterdir())] == ['net.onnx', 'net.pt2']  # no data beside it, nothing left over
    network, genotype, settings, data = stages.trained_image_network(trained)
    description, data = data, load_images(settings.data)
    assert description == data.description
    module = ImageDataModule(data, settings.data, train_portion=0.9, batch_size=40, seed=1)
    (batch,) = list(module.test_dataloader())
    with torch.no_grad():
        expected = network(batch[0])
    pixels = torch.stack([data.test[index][0] for index in range(40)]) / 255
    session = onnxruntime.InferenceSession(str(tmp_path / 'net.onnx'))
    for size in (40, 1):
        (logits,) = session.run(['logits'], {'images': pixels[:size].numpy()})
        np.testing.assert_allclose(logits, expected[:size], atol=1e-4, rtol=1e-4)
    assert genotype.to_text() == session.get_modelmeta().custom_metadata_map['genotype'] == PUBLISHED['DARTS_V2'].to_text()
    program = torch.export.load(tmp_path / 'net.pt2').module()
    torch.testing.assert_close(program(pixels), expected, atol=1e-5, rtol=1e-5)


def test_the_images_need_not_be_there_any_more(tmp_path: Path) -> None:
    images = write_images(tmp_path / 'images.npz')
    stages.train_cell(recipe(images), 'retrain', PUBLISHED['DARTS_V2'], 1, tmp_path / 'out')
    here = run(tmp_path / 'out', '--pt2', tmp_path / 'here.pt2')
    images.rename(tmp_path / 'elsewhere.npz')
    moved = run(tmp_path / 'out', '--pt2', tmp_path / 'moved.pt2')
    assert (here.exit_code, moved.exit_code) == (0, 0), moved.output
    pixels = torch.rand(3, 1, 8, 8)
    one, other = (torch.export.load(tmp_path / f'{name}.pt2').module()(pixels) for name in ('here', 'moved'))
    assert torch.equal(one, other)
    counted = CliRunner().invoke(main, ['cost', str(tmp_path / 'out')])
    assert counted.exit_code == 0 and 'data npz: 10 classes, 1×8×8' in counted.output
    (tmp_path / 'out' / 'data.json').write_text('{"size": 3}')
    damaged = run(tmp_path / 'out', '--pt2', tmp_path / 'x.pt2')
    assert damaged.exit_code == 2 and 'data.json: the description of the data is damaged' in damaged.output
    (tmp_path / 'out' / 'data.json').unlink()  # as an earlier version left it
    before = run(tmp_path / 'out', '--pt2', tmp_path / 'x.pt2')
    assert before.exit_code == 2 and 'no file' in before.output


def test_a_file_that_fails_the_check_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FromPixels(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3)), [0.5], [0.25])
    model(torch.zeros(1, 1, 4, 4))
    monkeypatch.setattr(export, 'TOLERANCE', -1.0)
    with pytest.raises(ArithmeticError, match='onnxruntime differs from torch by .* nothing was written'):
        export_onnx(export_program(model, (1, 4, 4)), model, (1, 4, 4), tmp_path / 'bad.onnx', {})
    assert not list(tmp_path.iterdir())


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
        ((trained,), 'say what to write'),
        ((trained, '--onnx', tmp_path / 'nowhere' / 'x.onnx'), 'there is no folder'),
        ((tmp_path, *out), 'it is not the output folder of a finished nni-darts retrain'),
        ((damaged(trained, tmp_path), *out), 'does not hold the weights of this network'),
        ((folder, *out), 'holds a language model, no image network'),
    ):
        answer = run(*arguments)
        assert answer.exit_code == 2 and sentence in answer.output and len(answer.output.splitlines()) == 1, answer.output
    find_spec = export.find_spec
    monkeypatch.setattr(export, 'find_spec', lambda name: None if name == 'onnxruntime' else find_spec(name))
    answer = run(trained, *out)
    assert answer.exit_code == 2 and answer.output == 'Error: export to ONNX needs onnxruntime: pip install onnx onnxscript onnxruntime\n'
    assert not (tmp_path / 'x.onnx').exists()
