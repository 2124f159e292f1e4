"""A trained network says the same from its folder, weights.pt, ONNX and .pt2: what it said in the test of its training."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from nni_darts import Recipe, load_model
from nni_darts.activity import Activity, watched
from nni_darts.cli import main
from nni_darts.data import ImageDataModule, load_images
from nni_darts.errors import InputError
from nni_darts.runs.model import Model
from nni_darts.runs.weights import read_state_dict, read_weights, write_weights
from tests.helpers import running
from tests.helpers.pictures import CELL, COLOURS, picture, write_oddities, write_pictures
from tests.helpers.tiny import overrides, write_images

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

FORMS = ('out', 'alone.pt', 'net.onnx', 'net.pt2')


def train(folder: Path, data: dict[str, object]) -> None:
    """Trains CELL in ``out`` and writes it in every other form; then only these are left of the training."""
    small = {'retrain.channels': 6, 'retrain.cells': 3, 'retrain.batch_size': 16, 'retrain.epochs': 10, 'retrain.auxiliary_weight': 0.0}
    recipe = Recipe.load('photos-small' if data['data.name'] == 'folder' else 'digits', {**small, **data})
    running.train_cell(recipe, 'retrain', CELL, 1, folder / 'out')
    shutil.copy(folder / 'out' / 'weights.pt', folder / 'alone.pt')
    done = CliRunner().invoke(main, ['export', f'{folder}/out', '--onnx', f'{folder}/net.onnx', '--pt2', f'{folder}/net.pt2'])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of photos, in every form, and ``pictures`` that it was trained on."""
    folder = tmp_path_factory.mktemp('photos')
    size = {'data.image_size': [12, 16], 'data.fit': 'letterbox', 'data.augment': 'none'}
    train(folder, {'data.name': 'folder', 'data.path': str(write_pictures(folder / 'pictures', 8)), **size})
    return folder


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of digits of 8×8 grey pixels, in every form, and ``images.npz``."""
    folder = tmp_path_factory.mktemp('digits')
    changes = {name: value for name, value in overrides(write_images(folder / 'images.npz')).items() if name.startswith('data.')}
    train(folder, changes)
    return folder


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_network_says_what_it_said_in_the_test(photos: Path) -> None:
    recipe = Recipe.of_folder(photos / 'out')
    data = load_images(recipe.data)
    module = ImageDataModule(data, recipe.data, train_portion=0.5, batch_size=64, seed=1)
    ((images, labels),) = list(module.test_dataloader())
    files = [data.test.path(index) for index in range(len(data.test))]
    model = load_model(photos / 'out')
    with torch.no_grad():
        expected = model.network.network(images).softmax(1)
    assert torch.equal(model.predict(files).probabilities, expected)
    found = model.evaluate(files, labels.tolist())
    kept = json.loads((photos / 'out' / 'result.json').read_text())
    assert found.accuracy == pytest.approx(kept['result']['test_accuracy']) and found.names == tuple(files)
    assert kept['description']['classes'] == list(COLOURS) == list(model.classes) and kept['description']['colour_order'] == 'RGB'
    assert kept['description']['size'] == [12, 16] and kept['description']['fit'] == 'letterbox'
    assert found.accuracy > 0.6  # four colours


def test_every_form_gives_equal_answers_to_every_kind_of_picture(photos: Path, tmp_path: Path) -> None:
    readable, unreadable = write_oddities(tmp_path / 'odd')
    answers = {}
    for form in FORMS:
        faults: list[str] = []
        answers[form] = load_model(photos / form).predict(tmp_path / 'odd', batch_size=4, on_unreadable=faults.append)
        assert len(faults) == 2 and all(str(path) in fault for path, fault in zip(unreadable, faults))
    for form, found in answers.items():
        assert found.names == tuple(map(str, readable)) and found.classes == tuple(COLOURS), form
        same(found.probabilities, answers['out'].probabilities)
        same(found.probabilities.sum(1), torch.ones(len(readable)))
    red = [answer.label == 'rot' for answer in answers['out'] if 'grey' not in answer.name and 'sixteen' not in answer.name]
    assert len(red) == 6 and all(red)


def test_nothing_but_the_file_is_needed(photos: Path, tmp_path: Path) -> None:
    image = picture(COLOURS['rot'], np.random.default_rng(2))
    expected = load_model(photos / 'out').predict(image).probabilities
    for form in FORMS[1:]:
        shutil.copy(photos / form, tmp_path / form)
        model = load_model(tmp_path / form)
        same(model.predict(image).probabilities, expected)
        assert model.description == load_model(photos / 'out').description and model.genotype == CELL and model.data == 'folder'


def test_every_form_of_an_image_is_the_same_image(photos: Path, tmp_path: Path) -> None:
    model, image = load_model(photos / 'alone.pt'), picture(COLOURS['hell'], np.random.default_rng(3), (21, 34))
    array = np.asarray(image)
    image.save(tmp_path / 'one.png')
    chw = torch.from_numpy(array.copy()).permute(2, 0, 1)
    single = [
        str(tmp_path / 'one.png'),
        tmp_path / 'one.png',
        tmp_path,
        image,
        array,
        chw,
        array / 255,
        chw.float() / 255,
        array.astype(np.int64),
    ]
    single += [image.convert('RGBA'), np.dstack([array, np.full((21, 34), 255, np.uint8)])]
    expected = model.predict(image).probabilities
    for one in single:
        assert torch.equal(model.predict(one).probabilities, expected), type(one)
    batches = [np.stack([array, array]), torch.stack([chw, chw]), [image, array], (tmp_path, chw), iter([image, image])]
    for batch in batches:
        same(model.predict(batch).probabilities, expected.repeat(2, 1))
    assert model.predict([tmp_path, image, array]).names == (str(tmp_path / 'one.png'), '1', '2')
    with torch.no_grad():
        same(model.network(model.transform(image)[None]).softmax(1), expected)


def test_digits_are_read_from_arrays_and_from_png(digits: Path, tmp_path: Path) -> None:
    arrays = np.load(digits / 'images.npz')
    images, labels = arrays['test_images'], arrays['test_labels']
    result = json.loads((digits / 'out' / 'result.json').read_text())['result']
    for form in FORMS:
        model = load_model(digits / form)
        expected = model.predict(images)
        assert len(expected) == 40 and model.evaluate(images, labels).accuracy == pytest.approx(result['test_accuracy'])
        same(model.predict(images[:3]).probabilities, expected.probabilities[:3])  # three grey images, none in colours
        same(model.predict(torch.from_numpy(images)[:, None] / 255).probabilities, expected.probabilities)
        Image.fromarray(images[0]).save(tmp_path / 'grey.png')
        Image.fromarray(images[0]).convert('RGB').save(tmp_path / 'colours.png')
        for path in ('grey.png', 'colours.png'):
            same(model.predict(tmp_path / path).probabilities, expected.probabilities[:1])
        large = Image.fromarray(images[0]).resize((80, 90))
        assert model.predict(large).probabilities.shape == (1, 10)
    assert model.predict(np.zeros((3, 20, 30), np.uint8)).probabilities.shape == (1, 10)  # of another size it is one in colours


def test_progress_is_announced(digits: Path) -> None:
    seen: list[Activity] = []
    with watched(seen.append):
        load_model(digits / 'alone.pt').predict(np.load(digits / 'images.npz')['test_images'], batch_size=16)
    assert [(one.what, one.done, one.of) for one in seen] == [('classifying images', done, 40) for done in (0, 16, 32, 40)]


def test_answers_are_ordered(digits: Path) -> None:
    found = load_model(digits / 'alone.pt').predict(np.load(digits / 'images.npz')['test_images'])
    for index, answer in enumerate(found):
        values = list(answer.probabilities.values())
        assert values == sorted(values, reverse=True) and answer.label == found.labels[index] == list(answer.top(1))[0]
        assert answer.probability == pytest.approx(float(found.probabilities[index].max())) and len(answer.top(3)) == 3
    assert found[-1].name == '39' and json.loads(json.dumps(found.to_dicts(2)))[39]['probabilities'] == answer.top(2)
    with pytest.raises(IndexError, match='there are 40 predictions'):
        found[40]


def test_what_is_no_image_is_one_sentence(photos: Path, digits: Path, tmp_path: Path) -> None:
    model = load_model(photos / 'alone.pt')
    (tmp_path / 'bad.png').write_bytes(b'')
    (tmp_path / 'empty').mkdir()
    cases = {
        'there is no image or folder': tmp_path / 'nowhere.png',
        'holds no images; images end in': tmp_path / 'empty',
        'bad.png is not a readable image .the file is empty.': [tmp_path / 'bad.png'],
        'an image is a path, a PIL image, an array or a tensor, not int': 3,
        'there are no images to classify': [],
        'do not normalise them': np.full((8, 8, 3), -0.5),
        'must be numbers': np.full((8, 8), 'x'),
        'an image has 1, 3 or 4 channels, not 5': np.zeros((2, 5, 8, 8), np.uint8),
    }
    for sentence, images in cases.items():
        with pytest.raises(InputError, match=sentence) as error:
            model.predict(images)
        assert '\n' not in str(error.value)
    with pytest.raises(InputError, match='transform takes one image, not 2'):
        model.transform([np.zeros((8, 8), np.uint8)] * 2)
    with pytest.raises(InputError, match='batch_size must be at least 1'):
        model.predict(np.zeros((8, 8), np.uint8), batch_size=0)
    with pytest.raises(InputError, match='has no torch network'):
        load_model(photos / 'net.onnx').network  # noqa: B018
    with pytest.raises(InputError, match="device 'moon' cannot be used here"):
        load_model(photos / 'out', device='moon')


def test_a_network_that_is_no_longer_finite_gives_no_answers(photos: Path, tmp_path: Path) -> None:
    """Weights are looked at when they are loaded; what other programs compute is looked at in the answers."""
    saved = read_weights(photos / 'alone.pt')
    values = {name: value * float('nan') if value.is_floating_point() else value for name, value in saved.state_dict.items()}
    write_weights(tmp_path / 'weights.pt', dataclasses.replace(saved, state_dict=values))
    graph = onnx.load(str(photos / 'net.onnx'))
    for number, weight in enumerate(graph.graph.initializer):
        array = onnx.numpy_helper.to_array(weight)
        if array.dtype == np.float32:
            graph.graph.initializer[number].CopyFrom(onnx.numpy_helper.from_array(array * np.float32('nan'), weight.name))
    onnx.save(graph, str(tmp_path / 'net.onnx'))
    for arguments, sentence, code in (
        (['predict', 'weights.pt', photos / 'pictures'], 'the weights in weights.pt are NaN or infinite', 2),
        (['evaluate', 'weights.pt', photos / 'pictures'], 'the weights in weights.pt are NaN or infinite', 2),
        (['export', 'weights.pt', '--pt2', 'bad.pt2'], 'the weights in weights.pt are NaN or infinite', 2),
        (['predict', 'net.onnx', photos / 'pictures'], 'net.onnx returns NaN instead of probabilities', 1),
        (['evaluate', 'net.onnx', photos / 'pictures', '--json'], 'net.onnx returns NaN instead of probabilities', 1),
    ):
        with contextlib.chdir(tmp_path):
            done = CliRunner().invoke(main, list(map(str, arguments)))
        assert (done.exit_code, done.stdout) == (code, '') and sentence in done.stderr, done.stderr
    assert not (tmp_path / 'bad.pt2').exists()


def test_evaluation_of_folders_and_tables(photos: Path, tmp_path: Path) -> None:
    model, pictures = load_model(photos / 'alone.pt'), photos / 'pictures'
    whole = model.evaluate(pictures)
    assert len(whole) == 32 and whole.classes == tuple(COLOURS) and whole.labels.tolist() == sorted(whole.labels.tolist())
    assert whole.names == tuple(str(pictures / name / f'{number}.jpg') for name in COLOURS for number in range(8))
    shutil.copytree(pictures / 'rot', tmp_path / 'sides' / 'test' / 'rot')
    shutil.copytree(pictures, tmp_path / 'sides' / 'train')
    (tmp_path / 'sides' / 'test' / 'rot' / 'x.heic').touch()
    (tmp_path / 'sides' / 'test' / 'hell').mkdir()
    notes: list[str] = []
    tested = model.evaluate(tmp_path / 'sides', on_note=notes.append)
    assert len(tested) == 8 and set(tested.labels.tolist()) == {3} and len(notes) == 1 and '1 .heic' in notes[0]
    lines = [f'{pictures}/rot/{number}.jpg,rot,{"test" if number else "train"}' for number in range(4)]
    (tmp_path / 'table.csv').write_text('path,label,split\n' + '\n'.join(lines))
    assert len(model.evaluate(tmp_path / 'table.csv')) == 3
    assert torch.equal(model.evaluate([pictures / 'rot'], ['rot'] * 8).probabilities, tested.probabilities)


def test_evaluation_of_what_the_network_does_not_know(photos: Path, tmp_path: Path) -> None:
    model = load_model(photos / 'alone.pt')
    shutil.copytree(photos / 'pictures' / 'rot', tmp_path / 'x' / 'rosa')
    (tmp_path / 'flat').mkdir()
    (tmp_path / 'none' / 'rot').mkdir(parents=True)
    (tmp_path / 'none' / 'rot' / 'a.png').touch()
    for path, sentence in {
        'x': 'x has images of classes that the model does not know: rosa; it knows dunkel, grün blau, hell, rot',
        'flat': 'flat is not a folder of class folders with images',
        'none': 'a.png is not a readable image .the file is empty.',
        'nowhere': 'there is no folder or table',
    }.items():
        with pytest.raises(InputError, match=sentence):
            model.evaluate(tmp_path / path)
    with pytest.raises(InputError, match='none of 1 images can be read'):
        model.evaluate(tmp_path / 'none', on_unreadable=lambda sentence: None)
    image = np.zeros((8, 8, 3), np.uint8)
    for labels, sentence in ((['rosa'], "no class 'rosa'"), ([4], 'no class 4'), ([0, 1], 'there are 1 images and 2 labels')):
        with pytest.raises(InputError, match=sentence):
            model.evaluate(image, labels)


def older(photos: Path, folder: Path, **changes: str) -> Model:
    """The network as an earlier version left it: bare weights, and a description that says nothing of how images are brought to size."""
    folder.mkdir()
    for name in ('run.json', 'genotype.json'):
        shutil.copy(photos / 'out' / name, folder)
    torch.save(read_state_dict(photos / 'out' / 'weights.pt'), folder / 'weights.pt')
    kept = json.loads((photos / 'out' / 'data.json').read_text())
    (folder / 'data.json').write_text(json.dumps({name: kept[name] for name in kept if name not in ('fit', 'resize', 'colour_order')}))
    run = json.loads((folder / 'run.json').read_text())
    run['recipe']['data'] = {**run['recipe']['data'], 'fit': 'crop', **changes}
    (folder / 'run.json').write_text(json.dumps(run))
    return load_model(folder)


def test_trainings_of_earlier_versions(photos: Path, tmp_path: Path) -> None:
    image = picture(COLOURS['rot'], np.random.default_rng(4), (12, 16))
    model = older(photos, tmp_path / 'crop')
    assert torch.equal(model.predict(image).probabilities, load_model(photos / 'out').predict(image).probabilities)
    assert (model.description.fit, model.description.resize) == ('crop', None)
    assert older(photos, tmp_path / 'imagenet', augment='imagenet').description.resize == (14, 18)
    (tmp_path / 'crop' / 'run.json').unlink()
    with pytest.raises(InputError, match='has no run.json, which weights of an earlier version need'):
        load_model(tmp_path / 'crop')


def test_other_files_are_refused(photos: Path, tmp_path: Path) -> None:
    saved = read_weights(photos / 'alone.pt')
    weights = {name: value for name, value in saved.state_dict.items() if 'classifier' not in name}
    write_weights(tmp_path / 'lacking.pt', type(saved)(**{**saved.__dict__, 'state_dict': weights}))
    write_weights(tmp_path / 'text.pt', type(saved)(**{**saved.__dict__, 'kind': 'text'}))
    write_weights(tmp_path / 'odd.pt', type(saved)(**{**saved.__dict__, 'network': {'channels': -1}}))
    for suffix in ('onnx', 'pt2'):
        (tmp_path / f'damaged.{suffix}').write_bytes((photos / f'net.{suffix}').read_bytes()[:1000])
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / 'foreign.pt2')
    foreign = onnx.load(photos / 'net.onnx')
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / 'foreign.onnx')
    with zipfile.ZipFile(photos / 'net.pt2') as old, zipfile.ZipFile(tmp_path / 'code.pt2', 'w') as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr(f'{old.namelist()[0].split("/")[0]}/data/constants/custom_obj_0', b'cos\nsystem\n')
    for name, sentence in {
        'lacking.pt': 'does not fit the network as it is built now',
        'text.pt': 'holds a language model, which cannot classify images',
        'odd.pt': 'odd.pt is damaged: channels must be at least 1',
        'damaged.onnx': 'is not a readable ONNX file',
        'damaged.pt2': 'is not a file that nni-darts export wrote',
        'foreign.pt2': 'is not a file that nni-darts export wrote',
        'foreign.onnx': 'does not say how its images are prepared',
        'code.pt2': 'holds pickled objects, which can run code',
    }.items():
        with pytest.raises(InputError, match=sentence) as error:
            load_model(tmp_path / name)
        assert name in str(error.value) and '\n' not in str(error.value)
