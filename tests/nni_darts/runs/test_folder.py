"""Whose an output folder is."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from nni_darts import PUBLISHED
from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.folder import alone_in, check_folder, claim, identity, write_json

RECIPE = Recipe.load('digits')
SEARCH = identity('search', 1, strategy='darts-1st')
AMOUNTS = {'train': 90, 'test': 10, 'classes': ['cat', 'dog']}


def begun(folder: Path) -> Path:
    folder.mkdir()
    assert claim(folder, RECIPE, SEARCH, False, AMOUNTS) is None
    (folder / 'metrics.jsonl').write_text('{}\n')
    return folder


def test_a_new_folder_is_free_and_is_not_made_by_looking(tmp_path: Path) -> None:
    assert check_folder(tmp_path / 'a' / 'b', RECIPE, SEARCH, False) is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_resumed_only_as_itself(tmp_path: Path) -> None:
    folder = begun(tmp_path / 'run')
    with pytest.raises(InputError, match='already holds a run'):
        check_folder(folder, RECIPE, SEARCH, False)
    before = check_folder(folder, RECIPE, SEARCH, True)
    assert before is not None and before['strategy'] == 'darts-1st'
    for other in (identity('search', 2, strategy='darts-1st'), identity('retrain', 1, genotype=PUBLISHED['DARTS_V1'])):
        with pytest.raises(InputError, match='holds a run with another (seed|stage)'):
            check_folder(folder, RECIPE, other, True)
    with pytest.raises(InputError, match=r'another recipe\.search\.epochs'):
        check_folder(folder, Recipe.load('digits', ['search.epochs=3']), SEARCH, True)


def test_a_finished_run_gives_its_result(tmp_path: Path) -> None:
    folder = begun(tmp_path / 'run')
    write_json(folder / 'result.json', {'result': {'seconds': 1}})
    assert claim(folder, RECIPE, SEARCH, True, AMOUNTS) == {'seconds': 1}


@pytest.mark.parametrize('finished', [False, True])
def test_a_run_is_resumed_only_with_data_of_its_size(finished: bool, tmp_path: Path) -> None:
    folder = begun(tmp_path / 'run')
    if finished:
        write_json(folder / 'result.json', {'result': {}})
    for change, words in (
        ({'train': 91}, r'\(train: 90 then, 91 now\)'),
        ({'train': 80, 'test': 20}, r'\(train: 90 then, 80 now; test: 10 then, 20 now\)'),
        ({'classes': ['cat', 'dog', 'emu']}, r'\(classes: 2 then, 3 now\)'),
        ({'classes': ['cat', 'emu']}, r'\(classes: other names\)'),
    ):
        with pytest.raises(InputError, match=f'whose data have changed since {words}'):
            claim(folder, RECIPE, SEARCH, True, {**AMOUNTS, **change})
    kept = json.loads((folder / 'run.json').read_text())
    del kept['amounts']
    write_json(folder / 'run.json', kept)
    claim(folder, RECIPE, SEARCH, True, {**AMOUNTS, 'train': 91})  # a run of an earlier version goes on


@pytest.mark.parametrize('content', ['{', '[]', '{}', '{"recipe": 5}'])
def test_a_damaged_run_is_one_sentence(content: str, tmp_path: Path) -> None:
    folder = begun(tmp_path / 'run')
    (folder / 'run.json').write_text(content)
    for resume in (False, True):
        with pytest.raises(InputError, match=r'run\.json is damaged'):
            check_folder(folder, RECIPE, SEARCH, resume)
    with pytest.raises(InputError, match=r'run\.json is damaged|recipe is missing|is missing'):
        Recipe.of_folder(folder)


def test_a_damaged_result_is_one_sentence(tmp_path: Path) -> None:
    folder = begun(tmp_path / 'run')
    (folder / 'result.json').write_text('[]')
    with pytest.raises(InputError, match=r'result\.json is damaged'):
        claim(folder, RECIPE, SEARCH, True, AMOUNTS)


def test_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'genotype.json').write_text('{}')
    with pytest.raises(InputError, match=r'holds genotype\.json, but no run that can be resumed'):
        check_folder(tmp_path, RECIPE, SEARCH, True)


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='file is a file'):
        check_folder(tmp_path / 'file' / 'a' / 'b', RECIPE, SEARCH, False)


def test_a_folder_that_one_may_not_write_into() -> None:
    """As nobody where the tests are run by root, who may write everywhere."""
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        (folder / 'hidden').mkdir()
        (folder / 'hidden').chmod(0)
        if before == 0:
            os.seteuid(65534)
        try:
            for output in (folder / 'a', folder / 'hidden' / 'a'):
                with pytest.raises(InputError, match='(?i)permission denied'):
                    check_folder(output, RECIPE, SEARCH, False)
        finally:
            os.seteuid(before)


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with alone_in(tmp_path / 'run'), pytest.raises(InputError, match='another process is working in'), alone_in(tmp_path / 'run'):
        raise AssertionError('locked')
