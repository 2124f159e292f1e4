from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nni_darts.data import TextDataModule, load_text
from nni_darts.data.text_module import Spans, lay_out, span_lengths
from nni_darts.errors import InputError
from nni_darts.recipes import TextSettings


def folder(path: Path, **files: str) -> TextSettings:
    for name, text in files.items():
        (path / name.replace('__', '.')).write_text(text)
    return TextSettings(name='text', path=str(path))


def words(data: object, part: str) -> str:
    return ' '.join(data.words[number] for number in getattr(data, part))


def test_a_folder(tmp_path: Path) -> None:
    data = load_text(folder(tmp_path, train__txt='b a <unk>\n\nb c\n', valid__txt='a d\n', test__txt='c\n'))
    assert data.words == ('b', 'a', '<unk>', '<eos>', 'c') and data.vocabulary == 5
    assert words(data, 'train') == 'b a <unk> <eos> <eos> b c <eos>'
    assert words(data, 'valid') == 'a <unk> <eos>'
    assert data.train.dtype == torch.int64


@pytest.mark.parametrize(
    'names', [('ptb.train.txt', 'ptb.valid.txt', 'ptb.test.txt'), ('wiki.train.tokens', 'wiki.valid.tokens', 'wiki.test.tokens')]
)
def test_files_as_they_are_published(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text('a b\n')
    (tmp_path / 'README.txt').write_text('the train of thought')
    assert load_text(TextSettings(name='text', path=str(tmp_path))).words == ('a', 'b', '<eos>', '<unk>')


def test_rare_words(tmp_path: Path) -> None:
    settings = folder(tmp_path, train__txt='a a b\n', valid__txt='b\n', test__txt='a\n').model_copy(update={'min_count': 2})
    assert words(load_text(settings), 'train') == 'a a <unk> <eos>'


@pytest.mark.parametrize(
    ('files', 'names'),
    [
        ({'train__txt': 'a', 'valid__txt': 'a'}, 'no file of test text'),
        ({'train__txt': 'a', 'ptb__train__txt': 'a', 'valid__txt': 'a', 'test__txt': 'a'}, '2 files'),
        ({'train__txt': '\n', 'valid__txt': 'a', 'test__txt': 'a'}, 'has no words'),
    ],
)
def test_folders_that_are_no_text(files: dict, names: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=names) as error:
        load_text(folder(tmp_path, **files))
    assert '\n' not in str(error.value)


def test_other_bytes_and_no_folder(tmp_path: Path) -> None:
    settings = folder(tmp_path, train__txt='a', valid__txt='a', test__txt='a')
    (tmp_path / 'train.txt').write_bytes(b'\xff\xfe\xff')
    with pytest.raises(InputError, match='UTF-8'):
        load_text(settings)
    with pytest.raises(InputError, match='no folder'):
        load_text(TextSettings(name='text', path=str(tmp_path / 'absent')))


def test_pydoc_needs_no_download() -> None:
    data, same, other = (load_text(TextSettings(name='pydoc', split_seed=seed)) for seed in (0, 0, 1))
    assert 50_000 < len(data.train) < 200_000 and data.vocabulary > 2000
    assert torch.equal(data.train, same.train) and not (len(data.train) == len(other.train) and torch.equal(data.train, other.train))
    total = len(data.train) + len(data.valid) + len(data.test)
    assert len(data.valid) > 0.08 * total and len(data.test) > 0.08 * total


def test_batches_go_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    """Columns are pieces of the text; tokens of the batches one below the other are those pieces, targets one word further."""
    from tests.helpers.tiny import write_text

    data = load_text(TextSettings(name='text', path=str(write_text(tmp_path))))
    module = TextDataModule(data, batch_size=4, evaluation_batch_size=3, bptt=6, deviation=2.0, seed=3)
    for loader, stream, name, columns in (
        (module.train_dataloader(), data.train, 'train', 4),
        (module.architecture_dataloader(), data.valid, 'architecture', 4),
        (module.val_dataloader(), data.valid, 'valid', 3),
        (module.test_dataloader(), data.test, 'test', 3),
    ):
        batches = list(loader)
        assert len(batches) == len(loader)
        rows = len(stream) // columns
        pieces = torch.stack([stream[column * rows : (column + 1) * rows] for column in range(columns)], dim=1)
        assert torch.equal(torch.cat([batch.tokens for batch in batches]), pieces[:-1])
        assert torch.equal(torch.cat([batch.targets.view(-1, columns) for batch in batches]), pieces[1:])
        assert [batch.place for batch in batches] == [(name, number) for number in range(len(batches))]


def test_lengths_depend_on_seed_and_epoch_alone() -> None:
    spans, again = Spans(3630, 35, 5.0, seed=1), Spans(3630, 35, 5.0, seed=1)
    first = list(spans)
    again.set_epoch(1)
    assert list(again) != first and len(again) == len(spans)
    again.set_epoch(0)
    assert list(again) == first


def test_lengths_are_drawn_as_published() -> None:
    lengths = torch.tensor(span_lengths(1_000_000, 35, 5.0, torch.Generator().manual_seed(0))).double()
    assert lengths.sum() == 1_000_000
    halved = lengths < 26.25  # halfway between the two centres
    assert 0.04 < halved.double().mean() < 0.10
    assert abs(lengths[~halved].mean() - 35) < 0.7 and 4.5 < lengths[~halved].std() < 5.5
    assert lengths.min() >= 4 and lengths.max() <= 56
    assert span_lengths(80, 35, 0, None) == [35, 35, 10]
    assert sum(span_lengths(3, 35, 5.0, torch.Generator())) == 3


def test_text_that_is_too_short() -> None:
    with pytest.raises(InputError, match='too few'):
        lay_out(torch.arange(7), 4)
