"""The loaders of a search: pairs of batches for training, and batches for scoring candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from nni_darts import parallel

__all__ = ['TRAIN', 'VALID', 'SearchLoaders', 'length']

TRAIN, VALID = 'train', 'valid'


class SearchLoaders:
    """The loaders of one search.

    Args:
        datamodule: data module of the evaluator; None if the evaluator has loaders only. If it has an ``architecture_dataloader``, batches
            for α come from that loader. If it has a ``scoring_dataloader`` of whole batches, each of N ranks scores every N-th batch.
        validation: function that returns the validation loader of an evaluator without a data module.
    """

    def __init__(self, datamodule: Any, validation: Callable[[], Any]) -> None:
        self._architecture = getattr(datamodule, 'architecture_dataloader', None)
        whole = getattr(datamodule, 'scoring_dataloader', None) if parallel.world_size() > 1 else None
        self._shared_by_ranks = whole is not None
        self._scoring = whole or (validation if datamodule is None else datamodule.val_dataloader)
        self._growing: list[_GrowingBatches] = []

    def pairs(self, train: Any, validation: Callable[[], Any]) -> CombinedLoader:
        """Returns pairs of a training and a validation batch; an epoch is one pass over the training batches."""
        valid = self._architecture() if self._architecture is not None else _shuffled(validation())
        self._growing = [_GrowingBatches(loader) for loader in (train, valid)]
        return _Pairs({TRAIN: train, VALID: valid}, 'min_size')

    def grow(self, growth: int) -> None:
        """Sets the batch size of the pairs to the initial size plus ``growth`` samples.

        Raises:
            ValueError: if the batch size of a loader cannot be changed.
        """
        for batches in self._growing:
            batches.grow(growth)

    def scoring_batches(self, count: int | None) -> tuple[Iterator[Any], int | None]:
        """Returns the first ``count`` batches (None: all) of the validation loader, or this rank's part of them, and their number.

        The number is None if the loader has no length.
        """
        loader = self._scoring()
        first, step = (parallel.rank(), parallel.world_size()) if self._shared_by_ranks else (0, 1)
        number = min(length(loader), math.inf if count is None else count)
        return islice(loader, first, count, step), None if math.isinf(number) else len(range(first, int(number), step))


class _Pairs(CombinedLoader):
    """Pairs of a training and a validation batch, one for each training batch; validation batches repeat as needed."""

    def __iter__(self) -> _Pairs:
        self._choose_mode()
        return super().__iter__()

    def __len__(self) -> int:
        self._choose_mode()
        return super().__len__()

    def _choose_mode(self) -> None:
        # Lightning has no mode for this: which of two modes fits changes when batches grow.
        loaders = self.iterables
        self._mode = 'min_size' if length(loaders[VALID]) >= length(loaders[TRAIN]) else 'max_size_cycle'


class _GrowingBatches:
    """A loader whose batch size can grow between epochs."""

    def __init__(self, loader: Any) -> None:
        sampler = getattr(loader, 'batch_sampler', None)
        self._sampler = sampler if isinstance(sampler, BatchSampler) else None
        if self._sampler is not None:
            self._size, self._drop_last = self._sampler.batch_size, self._sampler.drop_last

    def grow(self, growth: int) -> None:
        """Sets the batch size, as :meth:`SearchLoaders.grow` does."""
        if self._sampler is None:
            if growth:
                raise ValueError('this strategy makes batches larger: it needs loaders with a batch_size (or batch_increase: 0)')
            return
        self._sampler.batch_size = self._size + growth
        count = len(self._sampler.sampler)  # type: ignore[arg-type]
        alone = growth and parallel.too_small(count % self._sampler.batch_size) and count > self._sampler.batch_size
        self._sampler.drop_last = bool(self._drop_last or alone)


def length(loader: Any) -> float:
    """Returns the number of batches in a loader; infinity if the loader has no length."""
    try:
        return len(loader)
    except TypeError:
        return math.inf


def _shuffled(loader: Any) -> Any:
    """Returns a copy of a loader that shuffles, so that α does not see the batches of a validation loader in the same order always."""
    if (
        type(loader).__name__ == 'DataLoader'
        and isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and isinstance(loader.sampler, SequentialSampler)
        and loader.batch_size is not None
    ):
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=RandomSampler(loader.dataset),  # type: ignore[arg-type]
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=loader.drop_last,
            worker_init_fn=loader.worker_init_fn,
            persistent_workers=loader.persistent_workers,
        )
    return loader
