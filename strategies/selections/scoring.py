"""How well a supernet does on validation data, for one variant of it after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from nni_darts import parallel
from nni_darts.activity import announce
from nni_darts.strategies.catalogue import ScoringSettings
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule
    from nni_darts.strategies.selections.sharing import SharedResults

__all__ = ['Scoring']


@typed(settings=ScoringSettings)
@dataclass(frozen=True)
class Scoring:
    """Compares variants of a supernet on the same validation batches.

    Args:
        criterion: ``accuracy`` (the evaluator's batches must begin with inputs and labels, and what its model returns with logits), or
            minus the ``loss``.
        batch_norm: ``train`` normalises with the statistics of each validation batch, ``eval`` with the running ones.
        batches: how many validation batches; None takes all.

    Raises:
        ValueError: for a setting outside its range.
    """

    criterion: Literal['accuracy', 'loss'] = 'accuracy'
    batch_norm: Literal['train', 'eval'] = 'train'
    batches: int | None = None

    def scores(
        self,
        module: DifferentiableModule,
        label: str,
        variants: Sequence[Callable[[], AbstractContextManager[Any]]],
        sharing: Callable[[], SharedResults] | None = None,
    ) -> list[float]:
        """A score for each variant, over all samples: a mean over batches would weigh a small last batch too much. Larger is better.

        Several processes share the batches (:mod:`nni_darts.parallel`), and all get the same scores, those of all batches.

        Scoring changes no weight, buffer or random state. Every variant sees the same random numbers (dropout masks, noise).

        Args:
            module: holds the supernet.
            label: what is scored, for announcements.
            variants: each makes a context within which the supernet is that variant.
            sharing: makes what computes once what the variants have in common.

        Raises:
            ArithmeticError: if a score is not finite.
        """
        values: list[Tensor] = []
        sizes: list[int] = []
        with module.scoring(train=self.batch_norm == 'train') as rewind, sharing() if sharing else nullcontext() as shared:
            batches, total = module.validation_batches(self.batches)
            for index, batch in enumerate(batches):
                if shared:
                    shared.begin(batch)
                scores = []
                parts = None if total is None else total * len(variants)
                for number, variant in enumerate(variants, start=1):
                    rewind()
                    if shared:
                        shared.begin_pass()
                    with variant():
                        scores.append(module.score_on(batch, index, 1.0, self.criterion))
                    announce(f'scoring {label}', index * len(variants) + number, parts)
                values.append(torch.stack(scores))
                sizes.append(samples_in(batch))
                rewind.keep_random_state()
        # One transfer for all: nothing before waits for the device.
        totals = torch.zeros(0, len(variants), dtype=torch.float64)
        if values:
            totals = torch.stack(values).cpu().double() * torch.tensor(sizes, dtype=torch.float64)[:, None]
        if self.criterion == 'accuracy':
            totals = totals.round()  # how many are right
        sums = parallel.total(torch.cat([totals.sum(dim=0), torch.tensor([sum(sizes)], dtype=torch.float64)]))
        if not torch.isfinite(sums).all():
            raise ArithmeticError(f'the validation loss is not finite while {label!r} is scored: the search has diverged')
        return (sums[:-1] / sums[-1]).tolist()


def samples_in(batch: Any) -> int:
    """How many labels there are in a batch of (inputs, labels, …); one without labels counts as one."""
    return len(batch[1]) if isinstance(batch, (list, tuple)) and len(batch) > 1 else 1
