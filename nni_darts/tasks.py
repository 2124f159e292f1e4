"""What the stages do differently for images and for text: data, space, network, training, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nni_darts.data import ImageData, ImageDataModule, ImageShape, TextData, TextDataModule, image_shape, load_images, load_text
from nni_darts.data.base import labels_of
from nni_darts.data.splits import largest_share, missing_classes
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipe import Recipe, SearchSettings, TextRecipe, TextSearchSettings, TextTrainSettings, TrainSettings
from nni_darts.recurrent import RnnGenotype
from nni_darts.report.cost import Cost, network_cost, recurrent_cost
from nni_darts.search_spaces import DartsRnnSpace, DartsSpace, Dropouts, NasBench201Space, network_from_genotype
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.relaxations import PartialChannels
from nni_darts.training import ImageClassifier, LanguageModel

__all__ = ['ImageTask', 'TextTask', 'task_of']

Run = tuple[Any, Any]
"""A Lightning module and its data module."""


class ImageTask:
    """Images to classify."""

    def load(self, recipe: Recipe) -> ImageData:
        """The data. Raises InputError if it is missing or not what it should be."""
        return load_images(recipe.data)

    def shape(self, recipe: Recipe) -> ImageShape:
        """What a network must know of the data, without its files where the name says enough."""
        return image_shape(recipe.data)

    def describe(self, recipe: Recipe, data: ImageData) -> str:
        """The data in one line."""
        counts = f'{len(data.train):,} training and {len(data.test):,} test images'  # type: ignore[arg-type]
        return f'{_named(recipe)}: {counts}, {self.describe_shape(data)}'

    def describe_shape(self, data: ImageShape | ImageData) -> str:
        """The shape of the data in a few words."""
        return f'{data.num_classes} classes, {data.channels}×{data.size[0]}×{data.size[1]}'

    def cautions(self, recipe: Recipe, data: ImageData, stages: Sequence[str]) -> list[str]:
        """Warns of what the data left out, and of classes that a part lacks.

        Args:
            stages: ``search``, ``select``, ``retrain``: whose parts are looked at.
        """
        classes, found = data.description.classes, list(data.notes)
        lacking = {'test': missing_classes(labels_of(data.test) or range(data.num_classes), classes)}
        for stage in stages:
            module = self.searching(recipe, data, 1)[1] if stage == 'search' else self.training(recipe, stage, data, 1)[1]
            lacking |= {f'{stage} {part}': names for part, names in module.lacking().items()}
        return found + [
            f'the part "{where}" has no image of {"these classes" if len(names) > 1 else "the class"}: {", ".join(names)}; add some'
            for where, names in lacking.items()
            if names
        ]

    def largest_class(self, recipe: Recipe, data: ImageData, stage: str) -> dict[str, float]:
        """The share of the largest class in the images that the stage's accuracy is of: the accuracy of always answering with it."""
        if stage == 'retrain':
            labels = labels_of(data.test)
        else:
            module = self.searching(recipe, data, 1)[1] if stage == 'search' else self.training(recipe, stage, data, 1)[1]
            labels = None if module.labels is None else [module.labels[index] for index in module.valid_indices]
        return {'largest_class': round(largest_share(labels), 6)} if labels else {}

    def kept(self, data: ImageData) -> dict[str, Any]:
        """Plain data for the output folder: everything that using the trained network needs to know of its data."""
        return data.description.to_dict()

    def batches(self, recipe: Recipe, data: ImageData) -> int:
        """The number of training batches in an epoch of a search."""
        return math.ceil(int(recipe.search.train_portion * len(data.train)) / recipe.search.batch_size)  # type: ignore[arg-type]

    def space(self, recipe: Recipe, data: ImageShape | ImageData) -> DartsSpace | NasBench201Space:
        """The space that the recipe names, for this data."""
        settings = recipe.space
        if settings.name == 'nasbench201':
            return NasBench201Space(settings.channels, settings.cells, data.num_classes, data.channels)
        return DartsSpace(
            settings.channels, settings.cells, data.num_classes, data.channels, settings.nodes, settings.stem, settings.candidates
        )

    def check(self, strategy: DifferentiableStrategy) -> None:
        """Raises ValueError for a strategy that does not fit this kind of data, as far as building its supernet does not show it."""

    def searching(self, recipe: Recipe, data: ImageData, seed: int) -> Run:
        """How a supernet is trained."""
        settings = recipe.search
        module = ImageClassifier(data.num_classes, settings.epochs, **_sgd(settings))
        return module, ImageDataModule(data, recipe.data, train_portion=settings.train_portion, batch_size=settings.batch_size, seed=seed)

    def evaluated_portion(self, recipe: Recipe, data: ImageData, batches: int | None) -> float:
        """How large so many validation batches of a search are (None: all), as a part of the training data."""
        size = len(data.train)  # type: ignore[arg-type]
        held_out = 1 - recipe.search.train_portion
        return held_out if batches is None else min(held_out, batches * recipe.search.batch_size / size)

    def network(self, recipe: Recipe, stage: str, genotype: AnyGenotype, data: ImageData) -> nn.Module:
        """The network that a stage trains. Raises ValueError for a cell or sizes that do not fit."""
        _check_kind(recipe, genotype, recurrent=False)
        settings: TrainSettings = getattr(recipe, stage)
        return network_from_genotype(
            genotype,
            settings.channels,
            settings.cells,
            data.num_classes,
            in_channels=data.channels,
            stem=recipe.space.stem,
            auxiliary=settings.auxiliary_weight > 0,
            pool_batch_norm=settings.pool_batch_norm,
        )

    def training(self, recipe: Recipe, stage: str, data: ImageData, seed: int) -> Run:
        """How a stage trains its network."""
        settings: TrainSettings = getattr(recipe, stage)
        module = ImageClassifier(
            data.num_classes,
            settings.epochs,
            **_sgd(settings),
            schedule=settings.schedule,
            decay=settings.decay,
            auxiliary_weight=settings.auxiliary_weight,
            label_smoothing=settings.label_smoothing,
            drop_path=settings.drop_path,
        )
        return module, ImageDataModule(
            data,
            recipe.data,
            train_portion=1 - settings.validation_portion,
            batch_size=settings.batch_size,
            seed=seed,
            cutout=settings.cutout,
        )

    def outcome(self, epochs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """What came of a training from scratch: the last epoch."""
        return {name: epochs[-1][name] for name in ('valid_accuracy', 'train_accuracy') if name in epochs[-1]}

    def cost(self, recipe: Recipe, stage: str, genotype: AnyGenotype, data: ImageShape | ImageData) -> Cost:
        """Of the network that a stage trains, for one image."""
        _check_kind(recipe, genotype, recurrent=False)
        settings: TrainSettings = getattr(recipe, stage)
        return network_cost(
            genotype,
            channels=settings.channels,
            cells=settings.cells,
            num_classes=data.num_classes,
            in_channels=data.channels,
            stem=recipe.space.stem,
            image_size=data.size,
        )


class TextTask:
    """Text to go on with, word by word. Methods as for :class:`ImageTask`."""

    def load(self, recipe: TextRecipe) -> TextData:
        return load_text(recipe.data)

    def shape(self, recipe: TextRecipe) -> TextData:
        return load_text(recipe.data)  # only the text says how many words there are

    def describe(self, recipe: TextRecipe, data: TextData) -> str:
        sizes = f'{len(data.train):,} words to train on, {len(data.valid):,} to validate, {len(data.test):,} to test'
        return f'{_named(recipe)}: {sizes}, {self.describe_shape(data)}'

    def describe_shape(self, data: TextData) -> str:
        return f'{data.vocabulary:,} different words'

    def cautions(self, recipe: TextRecipe, data: TextData, stages: Sequence[str]) -> list[str]:
        return []

    def largest_class(self, recipe: TextRecipe, data: TextData, stage: str) -> dict[str, float]:
        return {}

    def kept(self, data: TextData) -> dict[str, Any]:
        return {}

    def batches(self, recipe: TextRecipe, data: TextData) -> int:
        return max(1, len(data.train) // (recipe.search.batch_size * recipe.search.bptt))

    def space(self, recipe: TextRecipe, data: TextData) -> DartsRnnSpace:
        hidden = recipe.space.hidden
        return DartsRnnSpace(data.vocabulary, hidden, hidden, recipe.space.nodes, _dropouts(recipe.search))

    def check(self, strategy: DifferentiableStrategy) -> None:
        if isinstance(strategy.relaxation, PartialChannels):
            raise ValueError('it searches some of the channels of images, and recurrent cells have no channels')

    def searching(self, recipe: TextRecipe, data: TextData, seed: int) -> Run:
        return LanguageModel(**_language(recipe.search)), _streams(recipe.search, data, seed)

    def evaluated_portion(self, recipe: TextRecipe, data: TextData, batches: int | None) -> float:
        settings = recipe.search
        words = len(data.valid) if batches is None else min(len(data.valid), batches * settings.evaluation_batch_size * settings.bptt)
        return words / len(data.train)

    def network(self, recipe: TextRecipe, stage: str, genotype: AnyGenotype, data: TextData) -> nn.Module:
        _check_kind(recipe, genotype, recurrent=True)
        settings: TextTrainSettings = getattr(recipe, stage)
        return network_from_genotype(
            genotype, vocabulary=data.vocabulary, embedding=settings.hidden, hidden=settings.hidden, dropouts=_dropouts(settings)
        )

    def training(self, recipe: TextRecipe, stage: str, data: TextData, seed: int) -> Run:
        settings: TextTrainSettings = getattr(recipe, stage)
        module = LanguageModel(**_language(settings), averaging=settings.averaging, keep_best=True)
        return module, _streams(settings, data, seed)

    def outcome(self, epochs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The epoch that validated best, whose weights are kept."""
        best = min(epochs, key=lambda epoch: epoch['valid_perplexity'])
        return {name: best[name] for name in ('valid_perplexity', 'train_perplexity')}

    def cost(self, recipe: TextRecipe, stage: str, genotype: AnyGenotype, data: TextData) -> Cost:
        """Of the network that a stage trains, for one word."""
        _check_kind(recipe, genotype, recurrent=True)
        return recurrent_cost(genotype, vocabulary=data.vocabulary, hidden=getattr(recipe, stage).hidden)


def task_of(recipe: Recipe) -> Any:
    """What the recipe is about: an :class:`ImageTask` or a :class:`TextTask`."""
    return TextTask() if isinstance(recipe, TextRecipe) else ImageTask()


def _named(recipe: Recipe) -> str:
    """The data by name, with its path."""
    return f'data {recipe.data.name}' + (f' {recipe.data.path}' if recipe.data.path else '')


def _check_kind(recipe: Recipe, genotype: AnyGenotype, *, recurrent: bool) -> None:
    if isinstance(genotype, RnnGenotype) != recurrent:
        wanted, given = ('recurrent cells', 'a convolutional one') if recurrent else ('convolutional cells', 'a recurrent one')
        raise ValueError(f'the recipe {recipe.name} trains {wanted}; {genotype.to_text()[:60]}… is {given}')


def _sgd(settings: SearchSettings | TrainSettings) -> dict[str, Any]:
    return settings.model_dump(include={'learning_rate', 'momentum', 'weight_decay', 'min_learning_rate'})


def _language(settings: TextSearchSettings | TextTrainSettings) -> dict[str, Any]:
    names = {'bptt', 'learning_rate', 'weight_decay', 'activation_regularisation', 'temporal_regularisation'}
    return settings.model_dump(include=names)


def _dropouts(settings: TextSearchSettings | TextTrainSettings) -> Dropouts:
    return Dropouts(**settings.dropouts.model_dump())


def _streams(settings: TextSearchSettings | TextTrainSettings, data: TextData, seed: int) -> TextDataModule:
    return TextDataModule(
        data,
        batch_size=settings.batch_size,
        evaluation_batch_size=settings.evaluation_batch_size,
        bptt=settings.bptt,
        deviation=settings.bptt_deviation,
        seed=seed,
    )
