"""P-DARTS: the search approaches the depth of the final network (Chen et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from nni_darts._nni import Lightning, ModelSpace, OneShotStrategy, RawFormatModelSpace, SequentialExecutionEngine
from nni_darts.genotypes.base import operation_label
from nni_darts.genotypes.candidates import Candidates
from nni_darts.genotypes.convolutional import Genotype
from nni_darts.genotypes.program import Program
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.catalogue import DepthSettings, ExecutionSetting, stage_epochs
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.relaxations import SkipDropout
from nni_darts.strategies.selections import Magnitude
from nni_darts.strategies.settings import typed
from nni_darts.strategies.trained.in_process import fresh_copy

__all__ = ['ProgressiveDepth', 'most_probable']


@typed(settings=DepthSettings)
class ProgressiveDepth(OneShotStrategy):
    """First-order searches in succession, each with a deeper network and the most probable operations of the preceding search.

    Every stage starts with new weights and new α. The space must be able to grow: it needs ``candidates``, its operations on each edge,
    and ``with_depth(cells, operations)``, which returns the space with other values (:class:`nni_darts.search_spaces.DartsSpace`).

    Args:
        cells: depth of the supernet in each stage.
        keep: number of operations that an edge keeps after each stage but the last.
        dropout: initial dropout rate after skip connections in each stage (see :class:`SkipDropout`).
        dropout_behind: which skip connections have dropout: ``identity``, as in the authors' code, or ``all``, as in the paper.
        max_skips: largest number of skip connections in the final normal cell.
        warmup_epochs: warm-up of each stage. This and all other arguments are those of :class:`DifferentiableStrategy`.

    Raises:
        ValueError: for a setting outside its range.
    """

    one_by_one = False
    in_stages = True
    schema = DepthSettings

    def __init__(
        self,
        *,
        cells: Sequence[int] = (5, 11, 17),
        keep: Sequence[int] = (5, 3),
        dropout: Sequence[float] = (0.0, 0.4, 0.7),
        dropout_behind: Literal['identity', 'all'] = 'identity',
        max_skips: int = 2,
        learning_rate: float = 6e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        warmup_epochs: float = 0.4,
        gradient_clip_val: float | None = 5.0,
        regularise: Any = (),
        execution: ExecutionSetting = 'fast',
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        adam: dict[str, Any] = {'learning_rate': learning_rate, 'betas': betas, 'weight_decay': weight_decay}
        settings = {**adam, 'warmup_epochs': warmup_epochs, 'gradient_clip_val': gradient_clip_val}
        settings |= {'regularise': regularise, 'execution': execution, 'checkpoint': checkpoint}
        self.cells = tuple(cells)
        self.keep = tuple(keep)
        # All stages are built now, so that a wrong setting is found before the last stage.
        relaxations = [SkipDropout(rate, dropout_behind) for rate in dropout]
        self.parts = [DifferentiableStrategy(relaxation, FirstOrder(), Magnitude(max_skips), **settings) for relaxation in relaxations]
        self.executor_choice = self.parts[0].executor_choice
        for part in self.parts:
            part.executor_choice = self.executor_choice  # the executor of the first stage computes the cells of all stages

    def stages(self, space: ModelSpace) -> Iterator[tuple[ModelSpace, DifferentiableStrategy]]:
        """Yields the space and the strategy of each stage. The caller must run a stage before it requests the next one.

        Raises:
            ValueError: if the space cannot grow.
        """
        if not hasattr(space, 'with_depth'):
            raise ValueError(f'it searches deeper and deeper stacks of cells, and a {type(space).__name__} cannot be made deeper')
        candidates = space.candidates
        for number, (cells, strategy) in enumerate(zip(self.cells, self.parts)):
            yield space.with_depth(cells, candidates), strategy
            if number < len(self.keep):
                probabilities = strategy.probabilities()
                candidates = most_probable(candidates, probabilities, self.keep[number])
                if strategy.limits is not None:
                    candidates = _with_cell(candidates, strategy.select(), probabilities)

    def keep_below(self, limits: Program) -> None:
        """Makes the strategy select an architecture within limits. Arguments as for :meth:`DifferentiableStrategy.keep_below`.

        In every stage, the strongest cell within the limits keeps its operations, so that the next stage has such cells, too.
        """
        for part in self.parts:
            part.keep_below(limits)

    def stage_epochs(self, epochs: int) -> int:
        """See :func:`nni_darts.strategies.catalogue.stage_epochs`."""
        return stage_epochs(epochs, self.parts[0].warmup_epochs)

    @property
    def least_epochs(self) -> int:
        """The fewest epochs of a search whose stages train α."""
        warmup = self.parts[0].warmup_epochs
        return 1 if warmup < 1 else 2 * int(warmup) + 1

    def select(self) -> dict[str, Any]:
        """Returns the architecture that the last stage found, as an NNI sample of the space."""
        return self.parts[-1].select()

    def _initialize(self, model_space: RawFormatModelSpace, engine: SequentialExecutionEngine) -> RawFormatModelSpace:
        if not isinstance(model_space, RawFormatModelSpace) or not isinstance(model_space.evaluator, Lightning):
            raise TypeError('ProgressiveDepth needs a PyTorch model space and a Lightning evaluator')
        return model_space

    def _run(self) -> None:
        for space, strategy in self.stages(self.model_space.model_space):
            strategy(RawFormatModelSpace.from_model(space, fresh_copy(self.model_space.evaluator)), self.engine)

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[RawFormatModelSpace]:
        """Yields the model found, with the weights of the given space, because no stage has trained a network of its size."""
        yield self.model_space.freeze(self.select())


def most_probable(candidates: Candidates, probabilities: Mapping[str, Mapping[str, float]], keep: int) -> Candidates:
    """Returns the ``keep`` most probable operations of each edge, in their order; in a tie the first. One other than ``none`` is kept.

    Args:
        candidates: kind of cell → operations on each edge.
        probabilities: label → operation → probability.
        keep: number of operations to keep on each edge.
    """
    kept: dict[str, tuple[tuple[str, ...], ...]] = {}
    for kind, edges in candidates.items():
        tables = [probabilities[label] for label in _labels(kind, len(edges))]
        kept[kind] = tuple(
            tuple(name for name in names if name in sorted(names, key=lambda other: -table[other])[:keep])
            for names, table in zip(edges, tables)
        )
    return kept


def _with_cell(candidates: Candidates, sample: Mapping[str, Any], probabilities: Mapping[str, Mapping[str, float]]) -> Candidates:
    """Returns the candidates with the operations of a cell; each takes the place of the least probable one on its edge."""
    chosen = {label: name for edges in Genotype.from_sample(sample).edges().values() for label, name in edges}
    kept: dict[str, tuple[tuple[str, ...], ...]] = {}
    for kind, edges in candidates.items():
        found = []
        for label, names in zip(_labels(kind, len(edges)), edges):
            if chosen.get(label, names[0]) not in names:
                least = min(names, key=lambda name: probabilities[label][name])
                names = tuple(chosen[label] if name == least else name for name in names)
            found.append(names)
        kept[kind] = tuple(found)
    return kept


def _labels(kind: str, edges: int) -> list[str]:
    """Returns the labels of the operations on a number of edges, in the order of :data:`Candidates`."""
    places = ((state, source) for state in range(2, 2 + edges) for source in range(state))
    return [operation_label(kind, state, source) for (state, source), _ in zip(places, range(edges))]
