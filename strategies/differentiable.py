"""Differentiable search as an NNI one-shot strategy: relaxation × architect × selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import nn

from nni_darts._nni import Lightning, LightningModule, ModelSpace, OneShotStrategy, no_default_hook
from nni_darts.genotypes.program import Program
from nni_darts.strategies.architects import Architect, SecondOrder
from nni_darts.strategies.architecture import Architecture, Topology, edge_topology
from nni_darts.strategies.catalogue import ExecutionSetting, SearchedSettings
from nni_darts.strategies.early_stopping import (
    NOT_BEFORE_DECISIONS,
    NOT_DIFFERENTIABLE_TWICE,
    NOT_WITHOUT_ALPHA,
    EarlyStopping,
    SkipStopping,
    early_stopping,
)
from nni_darts.strategies.engine import DifferentiableModule, SearchLoaders
from nni_darts.strategies.fast import ExecutorChoice, accelerate
from nni_darts.strategies.fast.executors import Place
from nni_darts.strategies.mutables import value_hook
from nni_darts.strategies.relaxations import Relaxation, Softmax
from nni_darts.strategies.selections import Magnitude, Selection
from nni_darts.strategies.selections.magnitude import SKIP
from nni_darts.strategies.settings import typed
from nni_darts.strategies.supernet import mutation_hook
from nni_darts.strategies.terms import check_terms_fit, created_terms
from nni_darts.strategies.terms.base import StepTerm, Term

__all__ = ['DifferentiableModule', 'DifferentiableStrategy']


@typed(settings=SearchedSettings)
class DifferentiableStrategy(OneShotStrategy):
    """Searches any NNI model space made of ``LayerChoice`` and ``InputChoice`` by gradient.

    Per training batch: a step of α on a validation batch, then a step of the weights on the training batch (Liu et al., ICLR 2019,
    algorithm 1). Use it like any NNI strategy: ``NasExperiment(space, evaluator, strategy).run()``.

    Args:
        relaxation: how a choice mixes its candidates during the search.
        architect: how the gradient of α is computed.
        selection: how the architecture is derived at the end.
        learning_rate: learning rate of Adam over α.
        betas: decay rates of Adam over α.
        weight_decay: L2 penalty on α.
        warmup_epochs: number of epochs in which only the weights are trained; a number below 1 is a portion of the search.
        regularise: terms of the loss of α, or of the steps of the weights, by name (:data:`~nni_darts.strategies.terms.TERMS`): a list of
            names, or a mapping from names to settings, such as ``{'beta': {'weight': 25.0}}``.
        execution: ``fast`` chooses the executor of this package's cells by timing, if the relaxation allows more than one; ``compiled``,
            ``piecewise``, ``joined`` and ``plain`` (each candidate by itself) pin an executor. Results are the same up to rounding.
        checkpoint: keep less of each cell in memory for the backward pass, and recompute it there; the executor ``plain`` ignores this.
        gradient_clip_val: clip the weights' gradient to this norm (in the real step, not in the virtual one); None does not clip.
        early_stopping: end the search when its minimum becomes sharp, with the architecture of an earlier epoch (DARTS-ES): an
            :class:`EarlyStopping`, a mapping of its settings, or True for the published settings; or ``{'skips': 2}``, which ends it when
            the normal cell has so many skip connections (DARTS+). A progressive selection then begins with the current supernet.
        mutation_hooks: additional mutation hooks of NNI, which run before the strategy's own.

    Attributes:
        architecture: α and the decisions taken so far.
        executor_choice: the executor that computes the cells, and how it was chosen.
        one_by_one: whether cells are trained one by one, without a supernet.
        in_stages: whether several supernets are searched, one after the other (:class:`ProgressiveDepth`).
        schema: settings that a recipe may hold for the constructor.
        limits: limits on the cost of the architecture (:meth:`keep_below`); None without limits.
        penalty: penalty on the expected cost in the loss of α: a :class:`~nni_darts.strategies.penalty.Penalties`, or NNI's
            ``ExpectationProfilerPenalty``; None for no penalty. Assign it before the search.
        terms: the terms of ``regularise``; append terms of your own before the search.
        on_decision: callback for each decision of a progressive selection, called with its record; assign your own.

    The evaluator must be a Lightning evaluator with a training and a validation loader; α steps draw random batches from the latter. If
    its data module has an ``architecture_dataloader``, α steps draw from that loader instead. If ``training_step`` returns a mapping with
    an ``architecture_loss`` beside its ``loss``, α minimises the former and the weights minimise the latter, which may be regularised.

    In each process of an initialised ``torch.distributed`` group, the strategy does its part of one search (:mod:`nni_darts.parallel`): the
    loaders must give each rank its part of every batch, as this package's data modules do. A selection scores each rank's batches of the
    validation loader; if the data module has a ``scoring_dataloader`` of whole batches, each of N ranks scores every N-th batch.

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
        regularise: Any = (),
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
        self.limits: Program | None = None
        self.penalty: Any = None
        trains_alpha = relaxation.trains_alpha and not relaxation.sampled
        mixes = relaxation.mixes_by_weights and not relaxation.sampled
        fits = {'on_simplex': relaxation.on_simplex, 'mixes_by_weights': mixes}
        check_terms_fit(regularise, trains_alpha=trains_alpha, **fits)
        self.terms = created_terms(regularise)
        self._topology = Topology()
        self.on_decision: Callable[[dict[str, Any]], None] = lambda record: None
        self.loaders: SearchLoaders  # set once there is an evaluator

    # NNI's hooks ------------------------------------------------------------------------------------------------------------------

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Turns the space into a supernet in place, and declares its α in ``self.architecture``."""
        self.architecture = Architecture()
        if isinstance(model, nn.Module):
            self._topology = edge_topology(list(model.modules()))
        with _without_own_hooks(model):
            model = super().mutate_model(model)
        if not self.architecture.decisions:
            raise ValueError('the model space has no choices to search')
        self._topology.check(self.architecture.inputs(), self.architecture.operations())
        self.architecture.limits = self.limits
        _check_costs(self.architecture)
        self.relaxation.begin(self.architecture)
        if isinstance(self.early_stopping, SkipStopping):
            _check_skips(self.architecture)
        for term in self.step_terms:
            term.check(self.architecture, model)
        if isinstance(model, nn.Module) and type(self.relaxation).begin_forward is not Relaxation.begin_forward:
            model.register_forward_pre_hook(_BeginForward(self.relaxation))
        if self.execution != 'plain':
            accelerate(model, self.relaxation, self.executor_choice, checkpoint=self.checkpoint)
        return model

    def default_mutation_hooks(self) -> list[Callable[..., Any]]:
        """Returns the hooks that relax NNI's mutables, and NNI's hook that refuses any other mutable."""
        return [
            mutation_hook(self.architecture, self.relaxation, self._topology),
            value_hook(self.architecture, self.relaxation),
            no_default_hook,
        ]

    def configure_oneshot_module(self, training_module: LightningModule) -> DifferentiableModule:
        """Wraps the evaluator's Lightning module."""
        return DifferentiableModule(training_module, self)

    def mutate_evaluator(self, evaluator: Lightning) -> Lightning:
        """Wraps the module and the loaders of the evaluator.

        Raises:
            ValueError: if an executor is pinned that cannot compute on the trainer's device or in its precision.
        """
        self.check_executor(evaluator.trainer.strategy.root_device.type, evaluator.trainer.precision)
        self.loaders = SearchLoaders(evaluator.datamodule, lambda: evaluator.val_dataloaders)
        return super().mutate_evaluator(evaluator)

    def check_executor(self, device: str, precision: str) -> None:
        """Raises ValueError if the pinned executor cannot compute on a type of device, or in a precision of Lightning."""
        dtype = {'64-true': torch.float64, 'bf16-true': torch.bfloat16, '16-true': torch.float16}.get(precision, torch.float32)
        self.executor_choice.check(Place(device, dtype, precision.endswith('-mixed')))

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> CombinedLoader:
        """Returns pairs of a training and a validation batch; an epoch is one pass over the training batches."""
        pairs = self.loaders.pairs(train_dataloader_fn(), val_dataloader_fn)
        self.grow_batches()
        return pairs

    def grow_batches(self) -> None:
        """Sets the size of training batches that the selection requires by now."""
        self.loaders.grow(self.selection.batch_growth(self.architecture))

    def keep_below(self, limits: Program) -> None:
        """Makes the strategy select an architecture within limits on its cost. Call it before the search.

        Args:
            limits: the limits, with the choices of the space and the costs of all candidates.

        Raises:
            ValueError: if a selection of the user's own does not say that it keeps limits.
        """
        kind = type(self.selection)
        if not kind.__module__.startswith('nni_darts.strategies.') and not vars(kind).get('within_limits', False):
            raise ValueError(
                f'the selection {kind.__name__} may exceed them; it must choose by architecture.limits, and say so with the attribute '
                'within_limits = True'
            )
        self.limits = limits

    # Results ----------------------------------------------------------------------------------------------------------------------

    @property
    def loss_terms(self) -> list[Term]:
        """The terms of the loss of α."""
        return [term for term in self.terms if isinstance(term, Term)]

    @property
    def step_terms(self) -> list[StepTerm]:
        """The terms of the steps of the weights."""
        return [term for term in self.terms if isinstance(term, StepTerm)]

    def arch_parameters(self) -> list[nn.Parameter]:
        """Returns all α, in a fixed order."""
        return self.architecture.arch_parameters()

    def select(self) -> dict[str, Any]:
        """Returns the architecture that the search currently selects, as an NNI sample."""
        stopped = self.architecture.state.stopped
        if stopped is not None and not self.selection.decisions(self.architecture):
            return stopped['sample']
        return self.selection.select(self.architecture, self.relaxation)

    @property
    def parts(self) -> tuple[DifferentiableStrategy, ...]:
        """Returns the strategy of each stage; this strategy has a single stage."""
        return (self,)

    def stages(self, space: ModelSpace) -> Iterator[tuple[ModelSpace, DifferentiableStrategy]]:
        """Yields the space and the strategy of each stage; this strategy has a single stage."""
        yield space, self

    def stage_epochs(self, epochs: int) -> int:
        """Returns the number of epochs of each stage in a search of ``epochs`` epochs."""
        return epochs

    def warmup(self, epochs: int) -> int:
        """Returns the number of warm-up epochs in a search of ``epochs`` epochs, in which α does not move."""
        return round(self.warmup_epochs * epochs) if self.warmup_epochs < 1 else int(self.warmup_epochs)

    @property
    def least_epochs(self) -> int:
        """The smallest number of epochs in which a search trains α."""
        return 1 if self.warmup_epochs < 1 else int(self.warmup_epochs) + 1

    def passes(self, epochs: int) -> float:
        """Returns the cost of a search of ``epochs`` epochs, in forward and backward passes over the training batches.

        Each epoch costs one pass for the weights and, once α moves, the architect's passes for α. The selection's epochs are included. A
        search that stopped early is charged only the epochs that it ran.
        """
        stopped, tuning, ended = self.architecture.state.stopped, self.selection.epochs(self.architecture), self.architecture.state.ended
        searched = epochs if stopped is None else stopped['after']
        if ended is not None:
            searched, tuning = ended['search'], ended['all'] - ended['search']
        alpha = 0.0
        if self.relaxation.trains_alpha:
            alpha = self.architect.passes / self.architect.weight_steps * (searched - self.warmup(epochs) + tuning)
        weights = self.relaxation.passes * (searched + tuning) + sum(term.passes_in(searched) for term in self.step_terms)
        return (weights + alpha) * (2 if self.architect.union else 1)

    def probabilities(self) -> dict[str, dict[str, float]]:
        """Returns label → candidate → probability for every choice among operations."""
        if self.architecture.policy is not None:
            return self.architecture.policy.probabilities()
        return {
            label: dict(zip(map(str, decision.names), self.relaxation.probabilities(self.architecture.alpha(label)).tolist()))
            for label, decision in self.architecture.operations().items()
        }


class _BeginForward:
    """Tells a relaxation of a forward pass. A copy of the supernet has a copy of both."""

    def __init__(self, relaxation: Relaxation) -> None:
        self.relaxation = relaxation

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self.relaxation.begin_forward()


@contextmanager
def _without_own_hooks(model: ModelSpace) -> Iterator[None]:
    """Hides the mutation hooks of a space of NNI's hub, which relax for NNI's own strategies what this package relaxes itself."""
    hides = type(model).__module__.startswith('nni.nas.hub.')
    if hides:
        model.extra_oneshot_hooks = lambda strategy: []
    try:
        yield
    finally:
        if hides:
            del model.extra_oneshot_hooks


def _check_skips(architecture: Architecture) -> None:
    """Raises ValueError if there are no skip connections to count."""
    if not any(SKIP in decision.names for decision in architecture.operations().values()):
        raise ValueError(f'early_stopping: skips counts the operation {SKIP}, and no choice of this space has it; leave it out')


def _check_costs(architecture: Architecture) -> None:
    """Raises ValueError if the limits of an architecture count choices that the supernet does not have."""
    for label in sorted(architecture.limits.table.labels) if architecture.limits is not None else ():
        if label not in architecture.decisions:
            raise ValueError(f'the costs of the space include the choice {label!r}, which the supernet does not have')


def _check_parts(relaxation: Relaxation, architect: Architect, selection: Selection) -> None:
    """Raises ValueError for parts that do not work together."""
    if relaxation.sampled != selection.ranks_paths:
        raise ValueError('Ranking compares sampled paths: it goes with the relaxation SampledPaths, and no other selection does')
    if relaxation.sampled and relaxation.trains_alpha != architect.moves_policy:
        raise ValueError('a controller is moved by Reinforce: SampledPaths(controller=True) goes with it, and no other architect does')
    if relaxation.on_simplex and not architect.own_optimizer:
        raise ValueError(f'{type(relaxation).__name__} keeps α on a simplex; with Joint, the optimizer of the weights would move α off it')
    if architect.moves_policy and not relaxation.sampled:
        raise ValueError('Reinforce moves the controller of SampledPaths(controller=True)')


def _early_stopping(value: Any, relaxation: Relaxation, selection: Selection) -> EarlyStopping | SkipStopping | None:
    """Returns the validated setting. Raises ValueError if early stopping does not apply to these parts."""
    stopping = early_stopping(value)
    if stopping is not None and (relaxation.sampled or not relaxation.trains_alpha):
        raise ValueError(NOT_WITHOUT_ALPHA)
    if isinstance(stopping, EarlyStopping) and not relaxation.differentiable_twice:
        raise ValueError(NOT_DIFFERENTIABLE_TWICE)
    if stopping is not None and selection.decides_while_searching:
        raise ValueError(NOT_BEFORE_DECISIONS)
    return stopping
