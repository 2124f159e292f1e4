"""Text data sets by name, as three streams of token numbers. Nothing is downloaded: if data is missing, one sentence says how to get it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nni_darts.errors import InputError
from nni_darts.recipes import TextSettings

__all__ = ['END', 'UNKNOWN', 'TextData', 'load_text']

END, UNKNOWN = '<eos>', '<unk>'

PARTS = {'train': ('train',), 'valid': ('valid', 'validation', 'val'), 'test': ('test',)}
SUFFIXES = ('.txt', '.tokens')


@dataclass(frozen=True)
class TextData:
    """A text data set.

    Attributes:
        train, valid, test: word numbers, int64 (N,), each as one stream.
        words: the words in the order of their numbers, which is the order in which they first occur in the training text.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    words: tuple[str, ...]

    @property
    def vocabulary(self) -> int:
        """The number of different words."""
        return len(self.words)


def load_text(settings: TextSettings) -> TextData:
    """Loads the text that the settings name.

    Raises:
        InputError: if files are missing or invalid.
    """
    parts = _pydoc(settings) if settings.name == 'pydoc' else _folder(settings)
    return _numbered(parts, settings.min_count)


def _numbered(parts: Sequence[list[str]], min_count: int) -> TextData:
    """Replaces words by numbers. Words that occur less than ``min_count`` times in the training text become ``<unk>``."""
    counts = Counter(parts[0])  # in the order of first occurrence
    words = [word for word, count in counts.items() if count >= min_count or word in (END, UNKNOWN)]
    if UNKNOWN not in counts:
        words.append(UNKNOWN)
    numbers = {word: number for number, word in enumerate(words)}
    unknown = numbers[UNKNOWN]
    train, valid, test = (torch.tensor([numbers.get(word, unknown) for word in part]) for part in parts)
    return TextData(train, valid, test, tuple(words))


def _folder(settings: TextSettings) -> list[list[str]]:
    """Reads a folder with one file for each part: train.txt, ptb.train.txt, wiki.train.tokens, …; words are separated by spaces."""
    root = Path(settings.path or '')
    if not root.is_dir():
        raise InputError(f'no folder {root}: set data.path to a folder with train.txt, valid.txt and test.txt (or ptb.train.txt, …)')
    parts = []
    for part, names in PARTS.items():
        pattern = re.compile(rf'(.*[._-])?({"|".join(names)})({"|".join(map(re.escape, SUFFIXES))})')
        found = sorted(file for file in root.iterdir() if file.is_file() and pattern.fullmatch(file.name))
        if len(found) != 1:
            what = 'no file' if not found else f'{len(found)} files ({", ".join(file.name for file in found)})'
            raise InputError(f'{root} has {what} of {part} text; there must be one, such as {part}.txt or ptb.{part}.txt')
        try:
            text = found[0].read_text('utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f'cannot read {found[0]} as UTF-8 text: {getattr(error, "strerror", None) or error}') from None
        words = _with_ends(line.split() for line in text.splitlines())
        if not any(word != END for word in words):
            raise InputError(f'{found[0]} has no words')
        parts.append(words)
    return parts


def _with_ends(lines: Iterable[list[str]]) -> list[str]:
    return [word for line in lines for word in (*line, END)]


def _pydoc(settings: TextSettings) -> list[list[str]]:
    """Reads the help topics that come with Python: 79 texts of English prose with 65,000 words in Python 3.11.

    Text is in lower case and consists of words and runs of punctuation; a paragraph is a line. The topics are shuffled with the split's
    seed and divided into test, validation and training text by length, so that no topic is in two of them.
    """
    from pydoc_data.topics import topics

    texts = []
    for name in sorted(topics):
        paragraphs = re.split(r'\n\s*\n', topics[name].lower())
        texts.append(_with_ends(re.findall(r'\w+|[^\w\s]+', paragraph) for paragraph in paragraphs if paragraph.strip()))
    random.Random(settings.split_seed).shuffle(texts)
    total = sum(map(len, texts))
    test_size, valid_size = settings.test_portion * total, settings.valid_portion * total
    train: list[str] = []
    valid: list[str] = []
    test: list[str] = []
    for words in texts:
        part = test if len(test) < test_size else valid if len(valid) < valid_size else train
        part += words
    if not train:
        raise InputError('data.valid_portion and data.test_portion leave no topic of pydoc to train on')
    return [train, valid, test]
