"""The sections of a recipe about text. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nni_darts.genotypes.kinds import Positive, Section
from nni_darts.recipes.sections import Decay, Portion, Rate, SearchedSettings

__all__ = ['TEXT_NAMES', 'DropoutSettings', 'TextSearchSettings', 'TextSettings', 'TextTrainSettings']

TEXT_NAMES = ('pydoc', 'text')
"""Texts by name; a recipe with one of them is a :class:`TextRecipe`."""


class TextSettings(Section):
    """The text that is learned from.

    ``text`` is a folder, ``pydoc`` the help topics that come with Python, of which ``valid_portion`` and ``test_portion`` are held out, in
    an order that ``split_seed`` draws. Words rarer in the training text than ``min_count`` become ``<unk>``.
    """

    name: Literal['pydoc', 'text']
    path: str | None = None
    valid_portion: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_portion: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    split_seed: int = 0
    min_count: Positive = 1

    @model_validator(mode='after')
    def _has_a_place(self) -> TextSettings:
        if self.name == 'text' and not self.path:
            raise ValueError('data set text needs data.path: a folder with train.txt, valid.txt and test.txt')
        if self.name == 'pydoc' and self.path:
            raise ValueError('data.path is for data set text; pydoc comes with Python')
        return self


class DropoutSettings(Section):
    """As for :class:`nni_darts.search_spaces.Dropouts`."""

    embedding: Portion = 0.0
    input: Portion = 0.2
    x: Portion = 0.75
    hidden: Portion = 0.25
    output: Portion = 0.75


class _TextTraining(Section):
    """Plain SGD on batches of about ``bptt`` time steps (see :func:`nni_darts.data.text_module.span_lengths` for ``bptt_deviation``).

    The learning rate of a batch is in proportion to its length. ``activation_regularisation`` and ``temporal_regularisation`` as for
    :class:`nni_darts.training.LanguageModel`.
    """

    epochs: Positive
    batch_size: Positive
    evaluation_batch_size: Positive = 10
    bptt: Positive = 35
    bptt_deviation: Annotated[float, Field(ge=0)] = 5.0
    learning_rate: Rate = 20.0
    weight_decay: Decay = 5e-7
    gradient_clip: Annotated[float, Field(gt=0)] | None = 0.25
    activation_regularisation: Decay = 0.0
    temporal_regularisation: Decay = 1e-3
    dropouts: DropoutSettings = DropoutSettings()


class TextSearchSettings(SearchedSettings, _TextTraining):
    """How the recurrent supernet is trained: its weights on the training text, α on the validation text.

    Batch norm needs batches of two.
    """

    batch_size: Annotated[int, Field(ge=2)]
    bptt_deviation: Annotated[float, Field(ge=0)] = 0.0
    architecture_learning_rate: Rate = 3e-3


class TextTrainSettings(_TextTraining):
    """How a network of a fixed recurrent cell is trained from scratch.

    Once the validation perplexity is worse than it was before the last ``averaging`` epochs, weights are averaged (null: never).
    ``keep`` and ``patience`` as in :class:`TrainSettings`; left out, ``keep`` is ``best``.
    """

    hidden: Positive
    averaging: Positive | None = 5
    keep: Literal['best', 'last'] | None = None
    patience: Positive | None = None
