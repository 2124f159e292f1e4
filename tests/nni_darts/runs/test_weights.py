"""weights.pt stands by itself, is read without running code, and is a promise to other versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nni_darts.errors import InputError
from nni_darts.runs.weights import FORMAT, SavedNetwork, read_state_dict, read_weights, write_weights

SAVED = SavedNetwork('images', '{}', {'channels': 4, 'stem': 'cifar'}, {'mean': (0.5,), 'resize': None}, 'npz', {'weight': torch.ones(2)})


def same(one: SavedNetwork, other: SavedNetwork) -> bool:
    plain = all(getattr(one, name) == getattr(other, name) for name in ('kind', 'genotype', 'network', 'description', 'data'))
    return plain and one.state_dict.keys() == other.state_dict.keys() and torch.equal(one.state_dict['weight'], other.state_dict['weight'])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_weights(tmp_path / 'weights.pt', SAVED)
    found = read_weights(tmp_path / 'weights.pt')
    assert isinstance(found, SavedNetwork) and same(found, SAVED)
    assert torch.load(tmp_path / 'weights.pt', weights_only=True)['format'] == FORMAT
    assert read_state_dict(tmp_path / 'weights.pt')['weight'].tolist() == [1, 1]


def test_bare_weights_of_an_earlier_version(tmp_path: Path) -> None:
    torch.save({'weight': torch.ones(2)}, tmp_path / 'weights.pt')
    assert read_weights(tmp_path / 'weights.pt')['weight'].tolist() == read_state_dict(tmp_path / 'weights.pt')['weight'].tolist() == [1, 1]


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('bare', [False, True])
def test_weights_that_are_no_numbers_are_refused(bare: bool, value: float, tmp_path: Path) -> None:
    weights = {'steps': torch.ones(1, dtype=torch.int64), 'good': torch.ones(2), 'bad': torch.tensor([1.0, value])}
    if bare:
        torch.save(weights, tmp_path / 'weights.pt')
    else:
        write_weights(tmp_path / 'weights.pt', replace(SAVED, state_dict=weights))
    for read in (read_weights, read_state_dict):
        with pytest.raises(InputError, match=r'weights\.pt are NaN or infinite \(bad\), so this network is unusable'):
            read(tmp_path / 'weights.pt')


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ({**SAVED.__dict__, 'format': FORMAT + 1, 'nni-darts': '9.1'}, 'was written by nni-darts 9.1, a newer version than this one'),
        ({'format': FORMAT, 'kind': 'images'}, "it lacks 'genotype'"),
        ({**SAVED.__dict__, 'format': FORMAT, 'kind': 'sounds'}, "a network of another kind, 'sounds'"),
        ({'epoch': 3}, 'it is not a file of nni-darts retrain'),
        ({}, 'it is not a file of nni-darts retrain'),
        ([1, 2], 'it holds a list'),
        (None, 'PytorchStreamReader|no such file|does not hold the weights'),
        ('evil', 'does not hold the weights of a network'),
    ],
    ids=['newer', 'incomplete', 'kind', 'foreign', 'nothing', 'list', 'damaged', 'code'],
)
def test_other_files_are_refused_and_run_nothing(content: object, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / 'weights.pt'
    if content is None:
        path.write_bytes(b'PK\x03\x04')
    else:
        torch.save(Evil(tmp_path / 'owned') if content == 'evil' else content, path)
    with pytest.raises(InputError, match=sentence) as error:
        read_weights(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert not (tmp_path / 'owned').exists()
