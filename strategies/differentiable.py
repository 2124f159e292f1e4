"""Differentiable search as an NNI one-shot strategy: relaxation × architect × selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import nn

from nni_darts._nni import Lightning, LightningModule, ModelSpace, OneShotStrategy, no_default_hook
from nni_darts.strategies.architects import Architect, SecondOrder
from nni_darts.strategies.architecture import Architecture, Topology, edge_topology
from nni_darts.strategies.catalogue import ExecutionSetting, SearchedSettings
from nni_darts.strategies.early_stopping import NOT_BEFORE_DECISIONS, NOT_WITHOUT_ALPHA, EarlyStopping, early_stopping
from nni_darts.strategies.engine import DifferentiableModule, SearchLoaders
from nni_darts.strategies.fast import ExecutorChoice, accelerate
from nni_darts.strategies.fast.executors import Place
from nni_darts.strategies.relaxations import Relaxation, Softmax
from nni_darts.strategies.selections import Magnitude, Selection
from nni_darts.strategies.settings import typed
from nni_darts.strategies.supernet import mutation_hook

__all__ = ['DifferentiableModule', 'DifferentiableStrategy']


@typed(settings=SearchedSettings)
class DifferentiableStrategy(OneShotStrategy):
    """Searches any NNI model space made of ``LayerChoice`` and ``InputChoice`` by gradient.

    Per training batch: a step of α on a validation batch, then a step of the weights on the training batch (Liu et al., ICLR 2019,
    algorithm 1). Use it like any NNI strategy: ``NasExperiment(space, evaluator, strategy).run()``.

    Args:
        relaxation: what a choice computes while searching.
        architect: how the gradient of α is found.
        selection: how the architecture is read out at the end.
        learning_rate, betas, weight_decay: of α's Adam.
        warmup_epochs: train only the weights for so long; a number below 1 is a part of the search.
        execution: ``fast`` chooses by timing how cells of our spaces are computed, where the relaxation allows more than one executor;
            ``compiled``, ``piecewise``, ``joined`` and ``plain`` (every candidate by itself) pin one. Results are the same up to rounding.
        checkpoint: keep less of each cell in memory for backward, and compute it again there; ``plain`` does not.
        gradient_clip_val: clip the weights' gradient to this norm (in the real step, not in the virtual one); None does not clip.
        early_stopping: end the search when its minimum gets sharp, with the architecture of an earlier epoch (DARTS-ES): an
            :class:`EarlyStopping`, a mapping of its settings, or True for those published. A progressive selection begins then, with the
            supernet as it is.
        mutation_hooks: NNI's extra hooks, run before ours.

    Attributes:
        architecture: α and the decisions taken so far.
        executor_choice: which executor computes the cells, and how that came about.
        one_by_one: whether cells are trained one by one, without a supernet.
        in_stages: whether several supernets are searched, one after the other (:class:`ProgressiveDepth`).
        schema: settings that a recipe may hold for the constructor.
        on_decision: called with the record of each decision of a progressive selection; set it as you like.

    The evaluator must be a Lightning one, with a training and a validation loader: α steps draw random batches of the latter. If its
    data module has an ``architecture_dataloader``, they come from there instead. Where ``training_step`` returns a mapping with an
    ``architecture_loss`` beside its ``loss``, α minimises the former and the weights the latter, which may be regularised.

    In each process of an initialised ``torch.distributed`` group, the strategy does its part of one search (:mod:`nni_darts.parallel`): the
    loaders give each rank its part of every batch, as those of our data modules do. Scores of a selection come from what the validation
    loader gives each rank, or, where the data module has a ``scoring_dataloader`` of whole batches, from every N-th of these.

    Raises:
        ValueError: for a setting outside its range.
    """

    one_by_one = False
    in_stages = False
    schema = SearchedSettings

    def __init__(
        self,
        relaxation: Relaxation | None = None,
        architect: Architect | None = None,
        selection: Selection | None = None,
        *,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        warmup_epochs: float = 0,
        gradient_clip_val: float | None = 5.0,
        execution: ExecutionSetting = 'fast',
        checkpoint: bool = False,
        early_stopping: Any = False,
        mutation_hooks: list[Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__(mutation_hooks=mutation_hooks)
        relaxation, architect, selection = relaxation or Softmax(), architect or SecondOrder(), selection or Magnitude()
        _check_parts(relaxation, architect, selection)
        self.early_stopping = _early_stopping(early_stopping, relaxation, selection)
        self.execution = execution
        self.checkpoint = checkpoint
        self.executor_choice = ExecutorChoice(execution, checkpoint=checkpoint)
        self.relaxation = relaxation
        self.architect = architect
        self.selection = selection
        self.optimizer_settings: dict[str, Any] = {'lr': learning_rate, 'betas': tuple(betas), 'weight_decay': weight_decay}
        self.warmup_epochs = warmup_epochs
        self.gradient_clip_val = gradient_clip_val
        self.architecture = Architecture()
        self._topology = Topology()
        self.on_decision: Callable[[dict[str, Any]], None] = lambda record: None
        self.loaders: SearchLoaders  # once there is an evaluator

    # NNI's hooks ------------------------------------------------------------------------------------------------------------------

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Turns the space into a supernet in place; α is in ``self.architecture`` then."""
        self.architecture = Architecture()
        if isinstance(model, nn.Module):
            self._topology = edge_topology(list(model.modules()))
        model = super().mutate_model(model)
        if not self.architecture.decisions:
            raise ValueError('the model space has no LayerChoice or InputChoice to search')
        self.relaxation.begin(self.architecture)
        if self.execution != 'plain':
            accelerate(model, self.relaxation, self.executor_choice, checkpoint=self.checkpoint)
        return model

    def default_mutation_hooks(self) -> list[Callable[..., Any]]:
        """The relaxation of LayerChoice and InputChoice; NNI's error for any other mutable."""
        return [mutation_hook(self.architecture, self.relaxation, self._topology), no_default_hook]

    def configure_oneshot_module(self, training_module: LightningModule) -> DifferentiableModule:
        """Wraps the evaluator's Lightning module."""
        return DifferentiableModule(training_module, self)

    def mutate_evaluator(self, evaluator: Lightning) -> Lightning:
        """Wraps module and loaders of the evaluator.

        Raises:
            ValueError: if an executor is pinned that cannot compute on the trainer's device or in its precision.
        """
        self.check_executor(evaluator.trainer.strategy.root_device.type, evaluator.trainer.precision)
        self.loaders = SearchLoaders(evaluator.datamodule, lambda: evaluator.val_dataloaders)
        return super().mutate_evaluator(evaluator)

    def check_executor(self, device: str, precision: str) -> None:
        """Raises ValueError if an executor is pinned that cannot compute on a type of device, or in a precision of Lightning's."""
        dtype = {'64-true': torch.float64, 'bf16-true': torch.bfloat16, '16-true': torch.float16}.get(precision, torch.float32)
        self.executor_choice.check(Place(device, dtype, precision.endswith('-mixed')))

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> CombinedLoader:
        """Pairs of a training and a validation batch; an epoch is one pass over the training batches."""
        pairs = self.loaders.pairs(train_dataloader_fn(), val_dataloader_fn)
        self.grow_batches()
        return pairs

    def grow_batches(self) -> None:
        """Brings training batches to the size that the selection wants by now."""
        self.loaders.grow(self.selection.batch_growth(self.architecture))

    # results ----------------------------------------------------------------------------------------------------------------------

    def arch_parameters(self) -> list[nn.Parameter]:
        """All α, in a fixed order."""
        return self.architecture.arch_parameters()

    def select(self) -> dict[str, Any]:
        """The architecture that the search stands at: an NNI sample."""
        stopped = self.architecture.state.stopped
        if stopped is not None and not self.selection.decisions(self.architecture):
            return stopped['sample']
        return self.selection.select(self.architecture, self.relaxation)

    @property
    def parts(self) -> tuple[DifferentiableStrategy, ...]:
        """The strategy of each stage: this one, which has a single stage."""
        return (self,)

    def stages(self, space: ModelSpace) -> Iterator[tuple[ModelSpace, DifferentiableStrategy]]:
        """The space and the strategy of each stage: of a single one."""
        yield space, self

    def stage_epochs(self, epochs: int) -> int:
        """The length of each stage of a search of so many epochs."""
        return epochs

    def warmup(self, epochs: int) -> int:
        """For how many epochs of a search α rests."""
        return round(self.warmup_epochs * epochs) if self.warmup_epochs < 1 else int(self.warmup_epochs)

    @property
    def least_epochs(self) -> int:
        """Of a search that trains α."""
        return 1 if self.warmup_epochs < 1 else int(self.warmup_epochs) + 1

    def passes(self, epochs: int) -> float:
        """How often as many batches as there are for training go forward and backward through the supernet in a search of so many epochs.

        That is one for the weights and, once α moves, so many for α as the architect takes; the selection's epochs are included. Of a
        search that was stopped early the epochs that it had count.
        """
        stopped, tuning, ended = self.architecture.state.stopped, self.selection.epochs(self.architecture), self.architecture.state.ended
        searched = epochs if stopped is None else stopped['after']
        if ended is not None:
            searched, tuning = ended['search'], ended['all'] - ended['search']
        alpha = self.architect.passes * (searched - self.warmup(epochs) + tuning) if self.relaxation.trains_alpha else 0
        return (self.relaxation.passes * (searched + tuning) + alpha) * (2 if self.architect.union else 1)

    def probabilities(self) -> dict[str, dict[str, float]]:
        """Label → candidate → probability, of every choice among operations."""
        if self.architecture.policy is not None:
            return self.architecture.policy.probabilities()
        return {
            label: dict(zip(map(str, decision.names), self.relaxation.probabilities(self.architecture.alpha(label)).tolist()))
            for label, decision in self.architecture.operations().items()
        }


def _check_parts(relaxation: Relaxation, architect: Architect, selection: Selection) -> None:
    """Raises ValueError for parts that do not work together."""
    if relaxation.sampled != selection.ranks_paths:
        raise ValueError('Ranking compares sampled paths: it goes with the relaxation SampledPaths, and no other selection does')
    if relaxation.sampled and relaxation.trains_alpha != architect.moves_policy:
        raise ValueError('a controller is moved by Reinforce: SampledPaths(controller=True) goes with it, and no other architect does')
    if architect.moves_policy and not relaxation.sampled:
        raise ValueError('Reinforce moves the controller of SampledPaths(controller=True)')


def _early_stopping(value: Any, relaxation: Relaxation, selection: Selection) -> EarlyStopping | None:
    """The setting, where it makes sense. Raises ValueError elsewhere."""
    stopping = early_stopping(value)
    if stopping is not None and (relaxation.sampled or not relaxation.trains_alpha):
        raise ValueError(NOT_WITHOUT_ALPHA)
    if stopping is not None and selection.decides_while_searching:
        raise ValueError(NOT_BEFORE_DECISIONS)
    return stopping
