"""Splits and loaders of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count as numbers_from
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from nni_darts import parallel
from nni_darts.data.base import ImageData, labels_of
from nni_darts.data.position import Pass, ResumableDataModule
from nni_darts.data.splits import missing_classes, split_in_two
from nni_darts.data.transforms import evaluation_transform, training_transform
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['EpochSampler', 'ImageDataModule']


class EpochSampler(Pass, Sampler[tuple[int, int]]):
    """Yields (index, seed) for each item, in a random order for each epoch; both depend only on the sampler's seed and the epoch.

    An item's augmentation is determined by its seed, so it does not matter which process loads the item or what was loaded before.
    """

    def __init__(self, count: int, seed: int) -> None:
        super().__init__()
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        seeds = torch.randint(2**62, (self.count,), generator=generator).tolist()
        return iter(zip(order, seeds))


class _Parts(BatchSampler):
    """Yields this rank's part of each batch (see :mod:`nni_darts.parallel`). ``batch_size`` is the size of the whole batch."""

    def __iter__(self) -> Iterator[list[Any]]:
        return map(parallel.part, super().__iter__())


class _EpochBatches(_Parts):
    """Batches of an :class:`EpochSampler`. A resumed pass continues where it stopped."""

    sampler: Any

    def __iter__(self) -> Iterator[list[Any]]:
        # The order is drawn with the first batch and not before, because Lightning creates the iterator before it sets the epoch.
        yield from self.sampler.rest(super().__iter__(), len(self))


class _Transformed(Dataset[Any]):
    """Some items of a data set, with a transform applied to each image. The key of an item is its index, or (index, seed)."""

    def __init__(self, data: Dataset[Any], indices: Sequence[int], transform: Callable[[Any], Tensor]) -> None:
        self.data = data
        self.indices = indices
        self.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        if isinstance(item, int):
            image, label = self.data[self.indices[item]]
            return self.transform(image), label
        index, seed = item
        image, label = self.data[self.indices[index]]
        # Torch's transforms draw from the global generator. It is restored, so that training does not depend on the loading.
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self.transform(image), label
        finally:
            torch.set_rng_state(before)


class ImageDataModule(ResumableDataModule):
    """The loaders of one run.

    Args:
        data: the images.
        settings: settings of augmentation, workers and the seed of the split.
        train_portion: fraction of the training data for training the weights; the remainder is for validation (and, in a search, for α).
        batch_size: batch size of every loader, in total over all ranks that share batches (see :mod:`nni_darts.parallel`).
        seed: seed of the order of training batches.
        cutout: side of the cutout square in pixels; 0 for none.
        portion: fraction of both parts that is used, drawn from each class.

    Raises:
        InputError: if a part of the split would be empty.
    """

    def __init__(
        self,
        data: ImageData,
        settings: DataSettings,
        *,
        train_portion: float,
        batch_size: int,
        seed: int,
        cutout: int = 0,
        portion: float = 1.0,
    ) -> None:
        super().__init__()
        self.data = data
        self.settings = settings
        self.batch_size = batch_size
        self.seed = seed
        self.labels = labels_of(data.train)
        count = len(data.train)  # type: ignore[arg-type]
        self.train_indices, self.valid_indices = split_in_two(self.labels, count, train_portion, settings.split_seed, settings.split)
        if portion < 1:
            self.train_indices, self.valid_indices = (self._some(part, portion) for part in (self.train_indices, self.valid_indices))
        if len(self.train_indices) < 2 or (train_portion < 1 and not self.valid_indices):
            used = '' if portion == 1 else f'{portion:g} of '
            raise InputError(f'{count} training images are too few to keep {used}{train_portion:g} of them for the weights')
        ranks, least = parallel.world_size(), min(len(indices) for indices in (self.train_indices, self.valid_indices) if indices)
        if ranks > 1 and least < 2 * ranks:
            raise InputError(f'a part of {least} images is too few for {ranks} processes, of which each needs two')
        self._augmented = training_transform(data, settings, cutout)
        self._plain = evaluation_transform(data.description)

    def _some(self, indices: list[int], portion: float) -> list[int]:
        """Returns a fraction of a part that keeps the proportions of the classes."""
        labels = None if self.labels is None else [self.labels[index] for index in indices]
        kept, _ = split_in_two(labels, len(indices), portion, self.settings.split_seed, self.settings.split)
        return [indices[index] for index in kept]

    def lacking(self) -> dict[str, list[str]]:
        """Returns part (``weights``, ``validation``) → names of the classes that have no image in it, as far as labels are known."""
        if self.labels is None:
            return {}
        classes = self.data.description.classes
        parts = {'weights': self.train_indices, 'validation': self.valid_indices}
        return {name: missing_classes([self.labels[index] for index in indices], classes) for name, indices in parts.items() if indices}

    def _in_order(self, data: Dataset[Any], *, whole: bool = False) -> DataLoader[Any]:
        size, count = self.batch_size, len(data)  # type: ignore[arg-type]
        if whole:
            return self._loader(data, BatchSampler(SequentialSampler(data), size, drop_last=False))  # type: ignore[arg-type]
        if count < parallel.world_size():
            raise InputError(f'{count} images to evaluate on are too few for {parallel.world_size()} processes')
        # A last batch that has fewer images than there are ranks is divided among the other batches.
        size = next(larger for larger in numbers_from(size) if not 0 < count % larger < parallel.world_size())
        return self._loader(data, _Parts(SequentialSampler(data), size, drop_last=False))  # type: ignore[arg-type]

    def _loader(self, data: Dataset[Any], batches: BatchSampler) -> DataLoader[Any]:
        workers = self.settings.workers
        return DataLoader(
            data,
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=parallel.uses_gpu(),  # by now the model is on the GPU if it uses one
            generator=torch.Generator(),  # otherwise the loader would draw its workers' seeds from the training's generator
        )

    def _shuffled(self, indices: Sequence[int], offset: int) -> DataLoader[Any]:
        data = _Transformed(self.data.train, indices, self._augmented)
        sampler, count = EpochSampler(len(data), 2 * self.seed + offset), len(data)
        self.placed(sampler)
        small = parallel.too_small(count % self.batch_size) and count > self.batch_size
        return self._loader(data, _EpochBatches(sampler, self.batch_size, drop_last=small))  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns augmented batches for the weights in a new order each epoch: (B, C, H, W) floats and (B,) labels."""
        return self._shuffled(self.train_indices, 0)

    def architecture_dataloader(self) -> DataLoader[Any]:
        """Returns augmented batches of the validation part for α, as the DARTS authors draw them."""
        return self._shuffled(self.valid_indices, 1)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Returns the validation part in order, without augmentation; an empty list if there is none."""
        if not self.valid_indices:
            return []
        return self._in_order(_Transformed(self.data.train, self.valid_indices, self._plain))

    def scoring_dataloader(self) -> DataLoader[Any]:
        """Returns the validation part as :meth:`val_dataloader` does, but with whole batches on every rank, for batch statistics."""
        return self._in_order(_Transformed(self.data.train, self.valid_indices, self._plain), whole=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """Returns the test images in order, without augmentation."""
        indices = range(len(self.data.test))  # type: ignore[arg-type]
        return self._in_order(_Transformed(self.data.test, indices, self._plain))
