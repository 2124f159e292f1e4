"""Loaders of text: consecutive batches of a few time steps each (truncated backpropagation through time)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nni_darts import parallel
from nni_darts.data.position import Pass, ResumableDataModule
from nni_darts.data.text import TextData
from nni_darts.errors import InputError

__all__ = ['Place', 'Spans', 'TextBatch', 'TextDataModule', 'lay_out', 'span_lengths']

_SHORTEST = 5
_LONGER_BY = 20
_HALVED = 0.05


class Place(NamedTuple):
    """The position of a batch: the name of its stream and its index in the stream. Batch n is followed by batch n + 1."""

    stream: str
    number: int


class TextBatch(NamedTuple):
    """A batch of text: tokens (T, B); targets (T·B,), where row t·B + b is the word after ``tokens[t, b]``; the batch's position."""

    tokens: Tensor
    targets: Tensor
    place: Place


def lay_out(stream: Tensor, batch_size: int) -> Tensor:
    """Cuts a stream (N,) into columns of equal length, (N // batch_size, batch_size). Left-over words are dropped.

    Raises:
        InputError: if a column has no word that is followed by another word.
    """
    rows = len(stream) // batch_size
    if rows < 2:
        raise InputError(f'{len(stream)} words are too few for {batch_size} columns of text; make the batch smaller.')
    return stream[: rows * batch_size].view(batch_size, rows).T.contiguous()


def span_lengths(steps: int, bptt: int, deviation: float, generator: torch.Generator | None) -> list[int]:
    """Returns random lengths that add up to ``steps``. Their number is always the same, so that an epoch has a known number of batches.

    The lengths are drawn as by Merity et al., ICLR 2018, section 5, and by the DARTS authors: from N(μ, ``deviation``) with
    μ = ``bptt``, or half of that once in twenty times; at least 5 and at most ``bptt`` + 20. All of them are then changed by as little
    as possible to add up to ``steps``, by less than one word each on texts of a usual size.

    Args:
        steps: number of time steps in total.
        bptt: mean length in time steps.
        deviation: standard deviation of the lengths.
        generator: random generator; None makes all lengths ``bptt``, except for a shorter one at the end.
    """
    if generator is None:
        full, rest = divmod(steps, bptt)
        return [bptt] * full + [rest] * (rest > 0)
    count = max(1, round(steps / (bptt * (1 - _HALVED / 2))))
    centres = torch.where(torch.rand(count, generator=generator) < _HALVED, bptt / 2, float(bptt))
    drawn = torch.normal(0.0, 1.0, (count,), generator=generator) * deviation + centres
    drawn = drawn.floor().clamp(min(_SHORTEST, bptt), bptt + _LONGER_BY).double()
    ends = (drawn.cumsum(0) * (steps / drawn.sum())).round().long().tolist()
    return [end - start for start, end in zip([0, *ends], ends)]


class Spans(Pass, Sampler[tuple[int, int, int]]):
    """Yields (index, start, length) of each batch. Random lengths depend only on the seed and the epoch.

    Args:
        steps: number of time steps of the stream.
        bptt, deviation: see :func:`span_lengths`.
        seed: seed of the lengths; None makes all lengths ``bptt``.
    """

    def __init__(self, steps: int, bptt: int, deviation: float = 0.0, seed: int | None = None) -> None:
        super().__init__()
        self.steps = steps
        self.bptt = bptt
        self.deviation = deviation
        self.seed = seed

    def _lengths(self) -> list[int]:
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return [length for length in span_lengths(self.steps, self.bptt, self.deviation, generator) if length]

    def __len__(self) -> int:
        return len(self._lengths())

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        # The lengths are drawn with the first batch and not before, because a resumed run creates the iterator before it sets the epoch.
        lengths = self._lengths()
        starts = accumulate(lengths, initial=0)
        yield from self.rest(((number, start, length) for number, (start, length) in enumerate(zip(starts, lengths))), len(lengths))


class _Stream(Dataset[Any]):
    """A stream in columns (rows, B) whose items are :class:`TextBatch`."""

    def __init__(self, name: str, rows: Tensor) -> None:
        self.name = name
        self.rows = rows

    def __getitem__(self, span: tuple[int, int, int]) -> TextBatch:
        number, start, length = span
        targets = self.rows[start + 1 : start + 1 + length].flatten()
        return TextBatch(self.rows[start : start + length], targets, Place(self.name, number))


class TextDataModule(ResumableDataModule):
    """The loaders of one run. Each yields :class:`TextBatch`.

    Args:
        data: the text.
        batch_size: number of columns of training text and, in a search, of validation text for α; in total over all ranks that share
            batches (see :mod:`nni_darts.parallel`).
        evaluation_batch_size: number of columns of validation and test text.
        bptt, deviation: lengths of training batches, see :func:`span_lengths`; all other batches have ``bptt`` steps.
        seed: seed of the lengths.

    Raises:
        InputError: if a part of the text is too short.
    """

    def __init__(
        self, data: TextData, *, batch_size: int, evaluation_batch_size: int, bptt: int, deviation: float = 0.0, seed: int = 1
    ) -> None:
        super().__init__()
        self.bptt = bptt
        self._train = self._loader('train', data.train, batch_size, deviation, seed)
        self._alpha = self._loader('architecture', data.valid, batch_size)
        self._valid = self._loader('valid', data.valid, evaluation_batch_size)
        self._test = self._loader('test', data.test, evaluation_batch_size)

    def _loader(self, name: str, stream: Tensor, batch_size: int, deviation: float = 0.0, seed: int | None = None) -> DataLoader[Any]:
        try:
            rows = lay_out(stream, batch_size)
        except InputError as error:
            raise InputError(f'{name} text: {error}') from None
        return DataLoader(
            _Stream(name, parallel.part(rows.T).T.contiguous()),
            batch_size=None,
            sampler=Spans(len(rows) - 1, self.bptt, deviation, seed),  # the last word is only a target
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # otherwise the loader would advance the training's generator
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the training text for the weights."""
        self.placed(self._train.sampler)  # type: ignore[arg-type]
        return self._train

    def architecture_dataloader(self) -> DataLoader[Any]:
        """Returns the validation text for α, with as many columns as the training text."""
        self.placed(self._alpha.sampler)  # type: ignore[arg-type]
        return self._alpha

    def val_dataloader(self) -> DataLoader[Any]:
        """Returns the validation text."""
        return self._valid

    def test_dataloader(self) -> DataLoader[Any]:
        """Returns the test text."""
        return self._test


def _as_it_is(batch: Any) -> Any:
    return batch
