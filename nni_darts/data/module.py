"""Splits and loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nni_darts.data.images import ImageData
from nni_darts.data.transforms import evaluation_transform, training_transform
from nni_darts.errors import InputError
from nni_darts.recipe import DataSettings

__all__ = ['EpochSampler', 'ImageDataModule', 'split']


def split(count: int, portion: float, seed: int) -> tuple[list[int], list[int]]:
    """Shuffles 0 … count − 1 with the seed and cuts: (the first ``portion``, the rest)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = int(portion * count)
    return order[:cut], order[cut:]


class EpochSampler(Sampler[int]):
    """A random order for each epoch that depends on the seed and the epoch alone, so that a resumed run sees the same one.

    Lightning calls :meth:`set_epoch`.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.count, generator=generator).tolist())


class _Transformed(Dataset):
    """Some of a data set's items, each image put through a transform."""

    def __init__(self, data: Dataset, indices: Sequence[int], transform: Callable[[Any], Tensor]) -> None:
        self.data = data
        self.indices = indices
        self.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.data[self.indices[index]]
        return self.transform(image), label


class ImageDataModule(pl.LightningDataModule):
    """Loaders of one run.

    Args:
        data: the images.
        settings: augmentation, workers, seed of the split.
        train_portion: part of the training data that the weights learn from; the rest validates (and, in a search, moves α).
        batch_size: of every loader.
        seed: of the order of training batches.
        cutout: length of the square; 0 for none.

    Raises:
        InputError: if a part of the split would be empty.
    """

    def __init__(
        self, data: ImageData, settings: DataSettings, *, train_portion: float, batch_size: int, seed: int, cutout: int = 0
    ) -> None:
        super().__init__()
        self.data = data
        self.settings = settings
        self.batch_size = batch_size
        self.seed = seed
        self.train_indices, self.valid_indices = split(len(data.train), train_portion, settings.split_seed)
        if len(self.train_indices) < 2 or (train_portion < 1 and not self.valid_indices):
            raise InputError(f'{len(data.train)} training images are too few to keep {train_portion:g} of them for the weights')
        self._augmented = training_transform(data, settings, cutout)
        self._plain = evaluation_transform(data, settings)

    def _loader(self, data: Dataset, sampler: EpochSampler | None) -> DataLoader:
        workers = self.settings.workers
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Batch norm cannot normalise a batch of one.
            drop_last=sampler is not None and len(data) % self.batch_size == 1 and len(data) > self.batch_size,
        )

    def _shuffled(self, indices: Sequence[int], offset: int) -> DataLoader:
        data = _Transformed(self.data.train, indices, self._augmented)
        return self._loader(data, EpochSampler(len(data), 2 * self.seed + offset))

    def train_dataloader(self) -> DataLoader:
        """Augmented batches for the weights, in a new order each epoch: (B, C, H, W) floats and (B,) labels."""
        return self._shuffled(self.train_indices, 0)

    def architecture_dataloader(self) -> DataLoader:
        """Augmented batches of the validation part for α, as the DARTS authors draw them."""
        return self._shuffled(self.valid_indices, 1)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """The validation part, in order, not augmented; nothing where there is none."""
        if not self.valid_indices:
            return []
        return self._loader(_Transformed(self.data.train, self.valid_indices, self._plain), None)

    def test_dataloader(self) -> DataLoader:
        """The test images, in order, not augmented."""
        return self._loader(_Transformed(self.data.test, range(len(self.data.test)), self._plain), None)
