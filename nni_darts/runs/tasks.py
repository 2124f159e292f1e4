"""The parts of the stages that differ between images and text: data, space, network, training, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nni_darts.activity import under_way
from nni_darts.data import ImageData, ImageDataModule, ImageShape, TextData, TextDataModule, image_shape, load_images, load_text
from nni_darts.data.base import labels_of
from nni_darts.data.splits import balanced_weights, largest_share, missing_classes
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe, SearchSettings, TextRecipe, TextSearchSettings, TextTrainSettings, TrainSettings
from nni_darts.report.cost import Cost, counted
from nni_darts.runs.checks import check_genotype
from nni_darts.search_spaces import Dropouts, network_from_genotype
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.training import ImageClassifier, LanguageModel

__all__ = ['ImageTask', 'TextTask', 'task_of']

Run = tuple[Any, Any]
"""A Lightning module and its data module."""


class ImageTask:
    """The task of classifying images."""

    kind = 'images'

    def load(self, recipe: Recipe) -> ImageData:
        """Loads the data. Raises InputError if it is missing or invalid."""
        with under_way('reading the data'):
            return load_images(recipe.data)

    def shape(self, recipe: Recipe) -> ImageShape:
        """Returns the properties of the data on which a network depends, without reading files if the name determines them."""
        return image_shape(recipe.data)

    def describe(self, recipe: Recipe, data: ImageData) -> str:
        """Returns a description of the data in one line."""
        counts = f'{len(data.train):,} training and {len(data.test):,} test images'  # type: ignore[arg-type]
        names = {'search': 'a search', 'select': 'a short training', 'retrain': 'a retraining'}
        some = [
            f'{name} uses {100 * portion:.4g} % of the training images'
            for stage, name in names.items()
            if (portion := getattr(recipe, stage).portion) < 1
        ]
        return ', '.join([f'{_named(recipe)}: {counts}', self.describe_shape(data), *some, *data.facts])

    def describe_shape(self, data: ImageShape | ImageData) -> str:
        """Returns the shape of the data in a few words."""
        return f'{data.num_classes} classes, {data.channels}×{data.size[0]}×{data.size[1]}'

    def cautions(self, recipe: Recipe, data: ImageData, stages: Sequence[str]) -> list[str]:
        """Returns warnings about data that was left out, and about classes that a part lacks.

        Args:
            recipe: all settings.
            data: the data set.
            stages: stages whose parts are checked: ``search``, ``select``, ``retrain``.
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
        """Returns the fraction of the largest class in the images on which the stage measures its accuracy, and the number of these images.

        The fraction is the accuracy of always predicting the largest class.
        """
        if stage == 'retrain':
            labels = labels_of(data.test)
        else:
            module = self.searching(recipe, data, 1)[1] if stage == 'search' else self.training(recipe, stage, data, 1)[1]
            labels = None if module.labels is None else [module.labels[index] for index in module.valid_indices]
        return {'largest_class': round(largest_share(labels), 6), 'images': len(labels)} if labels else {}

    def amounts(self, data: ImageData) -> dict[str, Any]:
        """Returns the sizes of the parts of the data, and the classes, as plain data. Runs on other data are other runs."""
        return {'train': len(data.train), 'test': len(data.test), 'classes': list(data.description.classes)}  # type: ignore[arg-type]

    def kept(self, data: ImageData) -> dict[str, Any]:
        """Returns plain data for the output folder: everything about the data that is needed to use the trained network."""
        return data.description.to_dict()

    def batches(self, recipe: Recipe, data: ImageData) -> int:
        """Returns the number of training batches in an epoch of a search."""
        settings = recipe.search
        learned_from = int(settings.portion * int(settings.train_portion * len(data.train)))  # type: ignore[arg-type]
        return math.ceil(learned_from / settings.batch_size)

    def batches_of_training(self, recipe: Recipe, stage: str, data: ImageData) -> tuple[int, int, int]:
        """Returns the numbers of batches of an epoch of a training from scratch, of its validation, and of the test at its end."""
        module, size = self.training(recipe, stage, data, 1)[1], getattr(recipe, stage).batch_size
        tested = len(data.test) if stage == 'retrain' else 0  # type: ignore[arg-type]
        weights, validated, tested = (math.ceil(count / size) for count in (len(module.train_indices), len(module.valid_indices), tested))
        return weights, validated, tested

    def facts(self, data: ImageShape | ImageData) -> dict[str, Any]:
        """Returns the facts about the data on which spaces and networks depend."""
        return {'num_classes': data.num_classes, 'in_channels': data.channels, 'image_size': data.size}

    def check_space(self, recipe: Recipe, data: ImageShape | ImageData) -> None:
        """Raises ValueError if the recipe's space does not fit the data."""
        recipe.space.check_facts({stage: getattr(recipe, stage) for stage in ('retrain', 'select')}, **self.facts(data))

    def check_supernet(self, recipe: Recipe, data: ImageShape | ImageData) -> None:
        """Raises ValueError if the candidates of the recipe's space cannot be computed side by side; call :meth:`check_space` first."""
        recipe.space.check_supernet(**self.facts(data))

    def space(self, recipe: Recipe, data: ImageShape | ImageData) -> Any:
        """Returns the recipe's space for this data."""
        return recipe.space.supernet(**self.facts(data))

    def check(self, strategy: DifferentiableStrategy) -> None:
        """Raises ValueError for a strategy that does not suit this kind of data, unless building its supernet already shows this."""

    def searching(self, recipe: Recipe, data: ImageData, seed: int) -> Run:
        """Returns the training of a supernet."""
        settings = recipe.search
        module = ImageClassifier(data.num_classes, settings.epochs, **_sgd(settings), **_judged(recipe, data))
        parts: dict[str, Any] = {'train_portion': settings.train_portion, 'portion': settings.portion}
        return module, ImageDataModule(data, recipe.data, **parts, batch_size=settings.batch_size, seed=seed)

    def evaluated_portion(self, recipe: Recipe, data: ImageData, batches: int | None) -> float:
        """Returns the size of a number of validation batches of a search (None: all), as a fraction of the training data."""
        size = len(data.train)  # type: ignore[arg-type]
        held_out = recipe.search.portion * (1 - recipe.search.train_portion)
        return held_out if batches is None else min(held_out, batches * recipe.search.batch_size / size)

    def network(self, recipe: Recipe, stage: str, genotype: AnyGenotype, data: ImageShape | ImageData) -> nn.Module:
        """Returns the network that a stage trains. Raises ValueError for a cell or sizes that do not fit."""
        check_genotype(recipe, genotype, stage)
        return network_from_genotype(genotype, **self.network_options(recipe, stage, data))

    def network_options(self, recipe: Recipe, stage: str, data: ImageShape | ImageData) -> dict[str, Any]:
        """Returns the arguments, besides the genotype, with which ``network_from_genotype`` builds the network that a stage trains."""
        return recipe.space.network_options(getattr(recipe, stage), **self.facts(data))

    def training(self, recipe: Recipe, stage: str, data: ImageData, seed: int, *, trained: bool = False) -> Run:
        """Returns the training of a stage's network.

        Args:
            recipe: all settings.
            stage: ``select`` or ``retrain``.
            data: the data set.
            seed: seed of the training.
            trained: whether the network has been trained before, so that drop-path starts at its full probability.
        """
        settings: TrainSettings = getattr(recipe, stage)
        module = ImageClassifier(
            data.num_classes,
            settings.epochs,
            **_sgd(settings),
            **_judged(recipe, data),
            schedule=settings.schedule,
            decay=settings.decay,
            auxiliary_weight=settings.auxiliary_weight,
            label_smoothing=settings.label_smoothing,
            drop_path=settings.drop_path,
            first_drop_path=settings.drop_path if trained else 0.0,
        )
        return module, ImageDataModule(
            data,
            recipe.data,
            train_portion=1 - settings.validation_portion,
            portion=settings.portion,
            batch_size=settings.batch_size,
            seed=seed,
            cutout=settings.cutout,
        )

    def outcome(self, recipe: Recipe, kept: Mapping[str, Any]) -> dict[str, float]:
        """Returns the measurements of the epoch whose weights are kept, the recipe's metric first, then accuracy."""
        measured = dict.fromkeys((recipe.metric.name, 'accuracy'))
        names = [f'{part}_{name}' for part in ('valid', 'train') for name in measured]
        return {name: kept[name] for name in names if name in kept}

    def cost(self, recipe: Recipe, stage: str, genotype: AnyGenotype, data: ImageShape | ImageData) -> Cost:
        """Returns the cost for one image of the network that a stage trains."""
        check_genotype(recipe, genotype, stage)
        options = {name: value for name, value in self.network_options(recipe, stage, data).items() if name != 'auxiliary'}
        return counted(lambda: network_from_genotype(genotype, **options), (1, data.channels, *data.size))


class TextTask:
    """The task of predicting the next word of a text. The methods are those of :class:`ImageTask`."""

    kind = 'text'

    def load(self, recipe: TextRecipe) -> TextData:
        with under_way('reading the data'):
            return load_text(recipe.data)

    def shape(self, recipe: TextRecipe) -> TextData:
        return load_text(recipe.data)  # the number of words is only known from the text

    def describe(self, recipe: TextRecipe, data: TextData) -> str:
        sizes = f'{len(data.train):,} words to train on, {len(data.valid):,} to validate, {len(data.test):,} to test'
        return f'{_named(recipe)}: {sizes}, {self.describe_shape(data)}'

    def describe_shape(self, data: TextData) -> str:
        return f'{data.vocabulary:,} different words'

    def cautions(self, recipe: TextRecipe, data: TextData, stages: Sequence[str]) -> list[str]:
        return []

    def largest_class(self, recipe: TextRecipe, data: TextData, stage: str) -> dict[str, float]:
        return {}

    def amounts(self, data: TextData) -> dict[str, Any]:
        return {'train': len(data.train), 'valid': len(data.valid), 'test': len(data.test), 'words': data.vocabulary}

    def kept(self, data: TextData) -> dict[str, Any]:
        return {}

    def batches(self, recipe: TextRecipe, data: TextData) -> int:
        return max(1, len(data.train) // (recipe.search.batch_size * recipe.search.bptt))

    def batches_of_training(self, recipe: TextRecipe, stage: str, data: TextData) -> tuple[int, int, int]:
        settings = getattr(recipe, stage)
        words = len(data.train), len(data.valid), len(data.test) if stage == 'retrain' else 0
        sizes = settings.batch_size, settings.evaluation_batch_size, settings.evaluation_batch_size
        weights, validated, tested = (math.ceil(count / (size * settings.bptt)) for count, size in zip(words, sizes))
        return weights, validated, tested

    def check_space(self, recipe: TextRecipe, data: TextData) -> None:
        """Does nothing, because every recurrent space fits every text."""

    def check_supernet(self, recipe: TextRecipe, data: TextData) -> None:
        """Does nothing, because no activation changes its input."""

    def space(self, recipe: TextRecipe, data: TextData) -> Any:
        return recipe.space.supernet(vocabulary=data.vocabulary, dropouts=_dropouts(recipe.search))

    def check(self, strategy: DifferentiableStrategy) -> None:
        if strategy.relaxation.portion is not None:
            raise ValueError('it searches a part of the channels of images, and recurrent cells have no channels')

    def searching(self, recipe: TextRecipe, data: TextData, seed: int) -> Run:
        return LanguageModel(**_language(recipe.search)), _streams(recipe.search, data, seed)

    def evaluated_portion(self, recipe: TextRecipe, data: TextData, batches: int | None) -> float:
        settings = recipe.search
        words = len(data.valid) if batches is None else min(len(data.valid), batches * settings.evaluation_batch_size * settings.bptt)
        return words / len(data.train)

    def network(self, recipe: TextRecipe, stage: str, genotype: AnyGenotype, data: TextData) -> nn.Module:
        check_genotype(recipe, genotype, stage)
        return network_from_genotype(genotype, **self.network_options(recipe, stage, data), dropouts=_dropouts(getattr(recipe, stage)))

    def network_options(self, recipe: TextRecipe, stage: str, data: TextData) -> dict[str, Any]:
        """See :class:`ImageTask`. Dropouts are not included, because only training has them."""
        return recipe.space.network_options(getattr(recipe, stage), vocabulary=data.vocabulary)

    def training(self, recipe: TextRecipe, stage: str, data: TextData, seed: int, *, trained: bool = False) -> Run:
        settings: TextTrainSettings = getattr(recipe, stage)
        module = LanguageModel(**_language(settings), averaging=settings.averaging)
        return module, _streams(settings, data, seed)

    def outcome(self, recipe: TextRecipe, kept: Mapping[str, Any]) -> dict[str, float]:
        return {name: kept[name] for name in ('valid_perplexity', 'train_perplexity')}

    def cost(self, recipe: TextRecipe, stage: str, genotype: AnyGenotype, data: TextData) -> Cost:
        """Returns the cost for one word of the network that a stage trains."""
        check_genotype(recipe, genotype, stage)
        return counted(lambda: network_from_genotype(genotype, **self.network_options(recipe, stage, data)), (1, 1), torch.long)


def task_of(recipe: Recipe) -> Any:
    """Returns the task of a recipe: an :class:`ImageTask` or a :class:`TextTask`."""
    return TextTask() if recipe.task == TextTask.kind else ImageTask()


def _named(recipe: Recipe) -> str:
    """Returns the name of the data, with its path."""
    return f'data {recipe.data.name}' + (f' {recipe.data.path}' if recipe.data.path else '')


def _sgd(settings: SearchSettings | TrainSettings) -> dict[str, Any]:
    return settings.model_dump(include={'learning_rate', 'momentum', 'weight_decay', 'min_learning_rate'})


def _judged(recipe: Recipe, data: ImageData) -> dict[str, Any]:
    """Returns a classifier's metric and the class weights of its training loss.

    Raises:
        InputError: if weights are requested and the data does not have its labels.
    """
    if recipe.data.class_weights == 'none':
        return {'metric': recipe.metric.name}
    labels = labels_of(data.train)
    if labels is None:
        raise InputError(
            f'data.class_weights: {recipe.data.class_weights} needs the labels of data set {recipe.data.name}: give its training set an '
            'attribute labels, an int64 tensor of shape (N,)'
        )
    return {'metric': recipe.metric.name, 'class_weights': balanced_weights(labels, data.num_classes)}


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
