"""The sections of a recipe for text. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nni_darts.genotypes.space import Positive, Section
from nni_darts.recipes.sections import Decay, HalvingSettings, Portion, Rate, SearchedSettings

__all__ = ['TEXT_NAMES', 'DropoutSettings', 'TextSearchSettings', 'TextSettings', 'TextTrainSettings']

TEXT_NAMES = ('pydoc', 'text')
"""Names of data sets of text; a recipe with one of these names is a :class:`TextRecipe`."""


class TextSettings(Section):
    """The text of a language model.

    ``text`` is a folder. ``pydoc`` is the set of help topics that come with Python: ``split_seed`` shuffles them, and ``valid_portion`` and
    ``test_portion`` of them are held out. Words that occur fewer than ``min_count`` times in the training text become ``<unk>``.
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
    """The dropout probabilities, as in :class:`nni_darts.search_spaces.Dropouts`."""

    embedding: Portion = 0.0
    input: Portion = 0.2
    x: Portion = 0.75
    hidden: Portion = 0.25
    output: Portion = 0.75


class _TextTraining(Section):
    """The settings of plain SGD on batches of about ``bptt`` time steps.

    ``bptt_deviation`` is explained in :func:`nni_darts.data.text_module.span_lengths`. The learning rate of a batch is proportional to its
    length. ``activation_regularisation`` and ``temporal_regularisation`` as for :class:`nni_darts.training.LanguageModel`.
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
    """The training of the recurrent supernet: its weights on the training text, α on the validation text.

    Batch norm requires a batch size of at least 2.
    """

    batch_size: Annotated[int, Field(ge=2)]
    bptt_deviation: Annotated[float, Field(ge=0)] = 0.0
    architecture_learning_rate: Rate = 3e-3


class TextTrainSettings(_TextTraining):
    """The training of a network of a fixed recurrent cell from scratch.

    Averaging of weights begins when the validation perplexity is worse than it was before the last ``averaging`` epochs (null: never).
    ``keep``, ``patience`` and ``halving`` as in :class:`TrainSettings`; ``keep`` is ``best`` by default.
    """

    hidden: Positive
    averaging: Positive | None = 5
    keep: Literal['best', 'last'] | None = None
    patience: Positive | None = None
    halving: HalvingSettings | None = None
