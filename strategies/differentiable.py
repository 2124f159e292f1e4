"""Differentiable search as an NNI one-shot strategy: relaxation × architect × selection."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, Literal

import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Adam, Optimizer
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torchmetrics import Metric

from nni_darts import parallel
from nni_darts._nni import BaseOneShotLightningModule, Lightning, LightningModule, ModelSpace, OneShotStrategy, no_default_hook
from nni_darts.activity import announce
from nni_darts.strategies.architects import Architect, Reinforce, SecondOrder, dominant_eigenvalue
from nni_darts.strategies.architects.randomness import RandomState
from nni_darts.strategies.architecture import Architecture, Topology, edge_topology
from nni_darts.strategies.catalogue import ExecutionSetting, SearchedSettings
from nni_darts.strategies.early_stopping import NOT_BEFORE_DECISIONS, NOT_WITHOUT_ALPHA, EarlyStopping, early_stopping
from nni_darts.strategies.fast import ExecutorChoice, accelerate
from nni_darts.strategies.fast.executors import Place
from nni_darts.strategies.relaxations import Relaxation, Softmax
from nni_darts.strategies.selections import Greedy, Magnitude, Ranking, Selection
from nni_darts.strategies.selections.scoring import samples_in
from nni_darts.strategies.settings import typed
from nni_darts.strategies.supernet import mutation_hook

__all__ = ['DifferentiableModule', 'DifferentiableStrategy']

TRAIN, VALID = 'train', 'valid'
EXECUTOR = 'executor'
"""In a checkpoint: the executor that computes the cells."""


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
        self.validation_loader: Callable[[], Any]

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
        datamodule = evaluator.datamodule
        self._architecture_loader = getattr(datamodule, 'architecture_dataloader', None)
        whole = getattr(datamodule, 'scoring_dataloader', None) if parallel.world_size() > 1 else None
        self.scores_whole_batches = whole is not None
        self.validation_loader = whole or (datamodule.val_dataloader if datamodule is not None else lambda: evaluator.val_dataloaders)
        return super().mutate_evaluator(evaluator)

    def check_executor(self, device: str, precision: str) -> None:
        """Raises ValueError if an executor is pinned that cannot compute on a type of device, or in a precision of Lightning's."""
        dtype = {'64-true': torch.float64, 'bf16-true': torch.bfloat16, '16-true': torch.float16}.get(precision, torch.float32)
        self.executor_choice.check(Place(device, dtype, precision.endswith('-mixed')))

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> CombinedLoader:
        """Pairs of a training and a validation batch; an epoch is one pass over the training batches."""
        train = train_dataloader_fn()
        valid = self._architecture_loader() if self._architecture_loader is not None else _shuffled(val_dataloader_fn())
        self._growing = [_GrowingBatches(loader) for loader in (train, valid)]
        self.grow_batches()
        return _Pairs({TRAIN: train, VALID: valid}, 'min_size')

    def grow_batches(self) -> None:
        """Brings training batches to the size that the selection wants by now."""
        growth = self.selection.batch_growth(self.architecture)
        for batches in self._growing:
            batches.grow(growth)

    # results ----------------------------------------------------------------------------------------------------------------------

    def arch_parameters(self) -> list[nn.Parameter]:
        """All α, in a fixed order."""
        return self.architecture.arch_parameters()

    def select(self) -> dict[str, Any]:
        """The architecture that the search stands at: an NNI sample."""
        stopped = self.architecture.stopped
        if stopped is not None and not self.selection.decisions(self.architecture):
            return stopped['sample']
        return self.selection.select(self.architecture, self.relaxation)

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
        stopped, tuning, ended = self.architecture.stopped, self.selection.epochs(self.architecture), self.architecture.ended
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


class DifferentiableModule(BaseOneShotLightningModule):
    """The Lightning module of the search: α step and weight step around the evaluator's own ``training_step``."""

    def __init__(self, training_module: LightningModule, strategy: DifferentiableStrategy) -> None:
        super().__init__(training_module)
        self._search_epochs = 0
        self._strategy = [strategy]  # in a list: a strategy is no state of the module
        self.architecture = strategy.architecture

    @property
    def strategy(self) -> DifferentiableStrategy:
        """The strategy that made this module."""
        return self._strategy[0]

    def export(self) -> dict[str, Any]:
        """The selected architecture as an NNI sample."""
        return self.strategy.select()

    def export_probs(self) -> dict[str, Any]:
        """Label → candidate → probability."""
        return self.strategy.probabilities()

    def configure_architecture_optimizers(self) -> Optimizer | None:
        """Adam over α, where α has an optimizer of its own and there is one."""
        alphas = self.architecture.arch_parameters()
        return Adam(alphas, **self.strategy.optimizer_settings) if alphas and self.strategy.architect.own_optimizer else None

    def configure_optimizers(self) -> Any:
        """The evaluator's, and α's; or α in the evaluator's, where both move together."""
        configured = super().configure_optimizers()
        if not self.strategy.architect.own_optimizer:
            held = {
                id(parameter) for optimizer in _optimizers(configured) for group in optimizer.param_groups for parameter in group['params']
            }
            alphas = [alpha for alpha in self.architecture.arch_parameters() if id(alpha) not in held]
            _optimizers(configured)[0].param_groups[0]['params'].extend(alphas)
        return configured

    @property
    def weight_optimizer(self) -> Optimizer:
        """The optimizer of the weights."""
        return next(optimizer for optimizer in self.trainer.optimizers if not getattr(optimizer, 'is_arch_optimizer', False))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """One step of α (after the warm-up), then one of the weights; both twice, where they learn from the union of both parts."""
        if not self.strategy.architect.union:
            outputs = self._step(batch[TRAIN], batch[VALID], batch_idx)
        else:
            outputs, _ = [self._step(batch[part], batch[part], batch_idx) for part in (TRAIN, VALID)]
        if not self.tuning or self.strategy.selection.step_schedule:
            self.advance_lr_schedulers(batch_idx)
        return outputs

    def _step(self, train: Any, valid: Any, batch_idx: int) -> Any:
        """α on ``valid``, the weights on ``train``."""
        relaxation, architect = self.strategy.relaxation, self.strategy.architect
        shares = parallel.shares(samples_in(train), samples_in(valid))
        parallel.share_random_state()
        relaxation.begin_step(self._progress)
        moves = relaxation.trains_alpha and self.current_epoch >= self._warmup_epochs
        if moves and architect.own_optimizer:
            self._architecture_step(train, valid, batch_idx, shares)

        parallel.share_random_state()

        def silent_loss() -> Tensor:
            with _silent(self.training_module):
                return self.loss_scale * self.loss_on(train, batch_idx, shares[0])

        with (
            nullcontext() if moves and not architect.own_optimizer else _frozen(self.architecture.arch_parameters()),
            relaxation.weight_step(self.architecture, silent_loss, self.model, self._elapsed),
        ):
            outputs = self.training_module.training_step(train, batch_idx)
            self.advance_optimization(_weighed(_loss(outputs), shares[0]), batch_idx)
        return outputs

    def on_after_backward(self) -> None:
        parallel.average_gradients(weight for group in self.weight_optimizer.param_groups for weight in group['params'])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Not right after backward, as in NNI's module: under float16 gradients still are multiples of themselves there.
        self.training_module.configure_gradient_clipping(optimizer, self.strategy.gradient_clip_val, None)

    @property
    def _scaler(self) -> GradScaler | None:
        """The gradient scaler of ``precision='16-mixed'``."""
        scaler = getattr(self.trainer.precision_plugin, 'scaler', None)
        return scaler if scaler is not None and scaler.is_enabled() else None

    @property
    def loss_scale(self) -> float:
        """By what losses are multiplied while they are differentiated; 1 but for ``precision='16-mixed'``."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def loss_on(self, batch: Any, batch_idx: int, share: float) -> Tensor:
        """L_t: what the weights minimise on a batch, the evaluator's training loss with all of its regularisation.

        Args:
            batch: of the training loader; ``batch_idx`` is its number in the epoch.
            share: the weight of this rank's part of the batch (:func:`nni_darts.parallel.shares`), 1 where it is a whole batch.
        """
        return _weighed(_loss(self.training_module.training_step(batch, batch_idx)), share)

    def architecture_loss_on(self, batch: Any, batch_idx: int, share: float) -> Tensor:
        """L_v: what α minimises on a batch, the evaluator's ``architecture_loss`` where its ``training_step`` returns one, else L_t.

        Arguments as for :meth:`loss_on`.
        """
        outputs = self.training_module.training_step(batch, batch_idx)
        return _weighed(outputs.get('architecture_loss', outputs['loss']) if isinstance(outputs, dict) else outputs, share)

    def score_on(self, batch: Any, batch_idx: int, share: float, criterion: Literal['accuracy', 'loss']) -> Tensor:
        """The portion of a batch's samples that are right, or minus its mean loss: a scalar on the batch's device.

        Arguments as for :meth:`loss_on`.
        """
        if criterion == 'loss':
            return -self.architecture_loss_on(batch, batch_idx, share)
        inputs, labels = batch[:2]
        outputs = self.model(inputs)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return _weighed((logits.argmax(dim=1) == labels).float().mean(), share)

    def _architecture_step(self, train: Any, valid: Any, batch_idx: int, shares: Sequence[float]) -> None:
        optimizer = next(optimizer for optimizer in self.trainer.optimizers if getattr(optimizer, 'is_arch_optimizer', False))
        with _silent(self.training_module):
            gradients = self.strategy.architect.gradients(self, train, valid, batch_idx, shares)
        scaler = self._scaler
        for alpha, gradient in zip(self.architecture.arch_parameters(), gradients):
            alpha.grad = gradient if scaler is None else scaler.scale(gradient)
        if scaler is None:
            optimizer.step()
        else:
            # It notes what is not finite, and skips the step then; the step of the weights updates the scale for both.
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
        optimizer.zero_grad()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """The evaluator's validation, on the supernet."""
        if self.strategy.relaxation.sampled:
            parallel.share_random_state()  # for the path of this batch
        with self.strategy.relaxation.validation_step(self.architecture, self.model):
            return self.training_module.validation_step(batch, batch_idx)

    # progressive selections ---------------------------------------------------------------------------------------------------------

    def validation_batches(self, count: int | None) -> tuple[Iterator[Any], int | None]:
        """The first ``count`` batches of the validation loader (None: all), on the module's device, and how many they are.

        The number is None if the loader does not say. Where ranks share whole batches, these are the rank's.
        """
        loader = self.strategy.validation_loader()
        first, step = (parallel.rank(), parallel.world_size()) if self.strategy.scores_whole_batches else (0, 1)
        number = min(_length(loader), math.inf if count is None else count)

        def prepared(batch: Any) -> Any:
            return self.trainer.precision_plugin.convert_input(self.trainer.strategy.batch_to_device(batch))  # as Lightning's loops do

        batches = map(prepared, islice(loader, first, count, step))
        return batches, None if math.isinf(number) else len(range(first, int(number), step))

    @contextmanager
    def scoring(self, *, train: bool) -> Iterator[Rewind]:
        """The supernet is evaluated without autograd; afterwards modes, buffers and random state are as before.

        Args:
            train: batch norms use the statistics of each batch.

        Yields:
            A function to call before each evaluation.
        """
        modes = [(module, module.training) for module in self.modules()]
        before = RandomState({parameter.device for parameter in self.parameters()})
        rewind = Rewind(self.model)
        try:
            with torch.no_grad(), _silent(self.training_module):
                self.model.train(train)
                yield rewind
        finally:
            rewind()
            before.restore()
            for module, training in modes:
                module.training = training

    def on_fit_start(self) -> None:
        extra = self.strategy.selection.epochs(self.architecture)
        stopped, ended = self.architecture.stopped, self.architecture.ended
        self._search_epochs = self.trainer.max_epochs if stopped is None else stopped['after']
        if ended is not None:
            self._search_epochs = ended['search']
        if extra and self._search_epochs < 1:
            raise ValueError('a progressive selection follows the search: give the Trainer max_epochs, the number of epochs to search')
        if extra or stopped is not None:
            self.trainer.fit_loop.max_epochs = self._search_epochs + extra
        if ended is not None:
            self.trainer.fit_loop.max_epochs = ended['all']
        parallel.broadcast([*self.model.parameters(), *self.architecture.arch_parameters()])
        super().on_fit_start()

    def on_validation_start(self) -> None:
        parallel.average_buffers(self.model)
        super().on_validation_start()

    @property
    def _warmup_epochs(self) -> int:
        return self.strategy.warmup(self._search_epochs)

    @property
    def _progress(self) -> float:
        """Progress in epochs from the first to the last one of the search, where it is 1; above 1 while a selection fine-tunes."""
        return self.current_epoch / max(1, self._search_epochs - 1)

    @property
    def _elapsed(self) -> float:
        """The part of the search's epochs that are finished; 1 or more while a selection fine-tunes."""
        return self.current_epoch / max(1, self._search_epochs)

    @property
    def tuning(self) -> bool:
        """Whether the search is over and a progressive selection fine-tunes."""
        return self.current_epoch >= self._search_epochs

    def end_early(self) -> None:
        """Ends the search with the epoch under way, or, while a selection fine-tunes, that; it reads what it has not decided from α."""
        finished = self.current_epoch + 1
        if self.tuning:
            self.architecture.ended = {'search': self._search_epochs, 'all': finished}
        else:
            self._search_epochs = finished
            self.architecture.ended = {'search': finished, 'all': finished + self.strategy.selection.epochs(self.architecture)}
        self.trainer.fit_loop.max_epochs = self.architecture.ended['all']

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._follow_growth()
        if self.tuning and not self.strategy.selection.step_schedule:
            for optimizer in self.trainer.optimizers:
                if not getattr(optimizer, 'is_arch_optimizer', False):
                    if self.current_epoch == self._search_epochs:
                        optimizer.state.clear()  # the authors tune with a new optimizer
                    for group in optimizer.param_groups:
                        # A scheduler has noted this; without one it is the rate before the first epoch of tuning.
                        group['lr'] = self.strategy.selection.learning_rate_factor * group.setdefault('initial_lr', group['lr'])

    def _follow_growth(self) -> None:
        """Where batches have grown there are fewer: Lightning must validate after them, and not wait for as many as at first."""
        loop, count = self.trainer.fit_loop, _length(self.trainer.train_dataloader[TRAIN])
        if self.strategy.selection.batch_growth(self.architecture) and count < loop.max_batches:
            loop.max_batches = int(count)
            if self.trainer.check_val_every_n_epoch is not None and isinstance(self.trainer.val_check_interval, float):
                self.trainer.val_check_batch = max(1, int(count * self.trainer.val_check_interval))

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        parallel.share_random_state()
        parallel.average_buffers(self.model)
        if self.strategy.early_stopping is not None and self._warmup_epochs <= self.current_epoch < self._search_epochs:
            self._measure_curvature(self.strategy.early_stopping)
        selection, finished = self.strategy.selection, self.current_epoch + 1
        selection.observe(finished, self._search_epochs, self.architecture, self.strategy.relaxation)
        for _ in range(selection.rounds_due(finished, self._search_epochs, self.architecture)):
            self._announce_decisions()
            for record in selection.decide(self.architecture, self):
                record['epoch'] = finished
                self.strategy.on_decision(record)
            self._announce_decisions()
        self.strategy.grow_batches()
        parallel.must_agree('architecture', *self.architecture.arch_parameters(), self.architecture.fixed, self.architecture.dropped)

    def _announce_decisions(self) -> None:
        total = self.strategy.selection.decisions(self.architecture)
        announce('decisions', len(self.architecture.history), total, lasting=True)

    def _measure_curvature(self, stopping: EarlyStopping) -> None:
        """Notes the dominant eigenvalue after this epoch in ``architecture.curvature``, and ends the search if it is time."""
        finished, curvature = self.current_epoch + 1, self.architecture.curvature
        eigenvalue = parallel.agreed(self._eigenvalue(stopping.iterations) if parallel.is_first() else 0.0)
        sample = self.strategy.selection.select(self.architecture, self.strategy.relaxation)
        curvature.append({'epoch': finished, 'eigenvalue': eigenvalue, 'sample': sample})
        earlier = stopping.stops_for([entry['eigenvalue'] for entry in curvature])
        if earlier is not None:
            self.architecture.stopped = {'after': finished, **curvature[earlier]}
            self._search_epochs = finished
            self.trainer.fit_loop.max_epochs = finished + self.strategy.selection.epochs(self.architecture)

    def _eigenvalue(self, iterations: int) -> float:
        with self.scoring(train=True):
            batch = next(self.validation_batches(1)[0])
            return dominant_eigenvalue(
                lambda: self.architecture_loss_on(batch, 0, 1.0),
                list(self.model.parameters()),
                self.architecture.arch_parameters(),
                iterations=iterations,
            )

    # Lightning calls these on this module; the evaluator's module is inside it.

    def on_train_batch_start(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        return self.training_module.on_train_batch_start(batch[TRAIN], batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *args: Any) -> None:
        self.training_module.on_train_batch_end(outputs, batch[TRAIN], batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[EXECUTOR] = self.strategy.executor_choice.record
        self.training_module.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.strategy.executor_choice.keep(checkpoint.get(EXECUTOR))
        self.training_module.on_load_checkpoint(checkpoint)

    def on_validation_epoch_start(self) -> None:
        self.training_module.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        self.training_module.on_validation_epoch_end()


class _Pairs(CombinedLoader):
    """Training and validation batches side by side, as many as there are training batches; validation batches come round again."""

    def __iter__(self) -> _Pairs:
        self._choose_mode()
        return super().__iter__()

    def __len__(self) -> int:
        self._choose_mode()
        return super().__len__()

    def _choose_mode(self) -> None:
        # Lightning has no mode for this; which of two fits changes where batches grow.
        loaders = self.iterables
        self._mode = 'min_size' if _length(loaders[VALID]) >= _length(loaders[TRAIN]) else 'max_size_cycle'


class _GrowingBatches:
    """The batches of a loader, made larger from the next epoch on."""

    def __init__(self, loader: Any) -> None:
        sampler = getattr(loader, 'batch_sampler', None)
        self._sampler = sampler if isinstance(sampler, BatchSampler) else None
        if self._sampler is not None:
            self._size, self._drop_last = self._sampler.batch_size, self._sampler.drop_last

    def grow(self, growth: int) -> None:
        """Makes batches larger by so many samples than they were at first.

        Raises:
            ValueError: if the loader's batches cannot be made larger.
        """
        if self._sampler is None:
            if growth:
                raise ValueError('this strategy makes batches larger: it needs loaders with a batch_size (or batch_increase: 0)')
            return
        self._sampler.batch_size = self._size + growth
        count = len(self._sampler.sampler)  # type: ignore[arg-type]
        alone = growth and parallel.too_small(count % self._sampler.batch_size) and count > self._sampler.batch_size
        self._sampler.drop_last = bool(self._drop_last or alone)


class Rewind:
    """Puts a supernet's buffers back, and the random state, so that every evaluation starts from the same ones."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = list(model.buffers())
        self._copies = [buffer.clone() for buffer in self._buffers]
        self._devices = {parameter.device for parameter in model.parameters()}
        self.keep_random_state()

    def keep_random_state(self) -> None:
        """From now on it is the present random state that is put back: the next batch draws other numbers."""
        self._state = RandomState(self._devices)

    def __call__(self) -> None:
        if self._buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._buffers, self._copies)
        self._state.restore()


def _check_parts(relaxation: Relaxation, architect: Architect, selection: Selection) -> None:
    """Raises ValueError for parts that do not work together."""
    if relaxation.sampled != isinstance(selection, Ranking):
        raise ValueError('Ranking compares sampled paths: it goes with the relaxation SampledPaths, and no other selection does')
    if relaxation.sampled and relaxation.trains_alpha != isinstance(architect, Reinforce):
        raise ValueError('a controller is moved by Reinforce: SampledPaths(controller=True) goes with it, and no other architect does')
    if isinstance(architect, Reinforce) and not relaxation.sampled:
        raise ValueError('Reinforce moves the controller of SampledPaths(controller=True)')


def _early_stopping(value: Any, relaxation: Relaxation, selection: Selection) -> EarlyStopping | None:
    """The setting, where it makes sense. Raises ValueError elsewhere."""
    stopping = early_stopping(value)
    if stopping is not None and (relaxation.sampled or not relaxation.trains_alpha):
        raise ValueError(NOT_WITHOUT_ALPHA)
    if stopping is not None and isinstance(selection, Greedy):
        raise ValueError(NOT_BEFORE_DECISIONS)
    return stopping


def _optimizers(configured: Any) -> list[Optimizer]:
    """The optimizers in what ``configure_optimizers`` returned, in one of the forms that Lightning knows."""
    if isinstance(configured, Optimizer):
        return [configured]
    if isinstance(configured, dict):
        return _optimizers(configured.get('optimizer'))
    if isinstance(configured, (list, tuple)):
        return [optimizer for part in configured for optimizer in _optimizers(part)]
    return []


def _weighed(value: Any, share: float) -> Tensor:
    """A mean over this rank's part of a batch, so that the mean of this over ranks is that over all samples."""
    return value if share == 1 else share * value


def _loss(outputs: Any) -> Tensor:
    return outputs['loss'] if isinstance(outputs, dict) else outputs


def _length(loader: Any) -> float:
    """Batches in a loader; infinite where it does not say."""
    try:
        return len(loader)
    except TypeError:
        return math.inf


def _shuffled(loader: Any) -> Any:
    """The same loader in random order: validation loaders read in order, and α must not see the same batches in the same order."""
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


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """No gradient for these parameters: the weight step neither needs nor computes that of α."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _silent(module: LightningModule) -> Iterator[None]:
    """Keeps the passes of the architect out of the evaluator's logs and metrics, which are about the weight step."""
    metrics = [child for child in module.modules() if isinstance(child, Metric)]
    states = [copy.deepcopy(metric.metric_state) for metric in metrics]
    counts = [metric._update_count for metric in metrics]
    log, log_dict = module.log, module.log_dict
    module.log = module.log_dict = lambda *args, **kwargs: None
    try:
        yield
    finally:
        module.log, module.log_dict = log, log_dict
        for metric, state, count in zip(metrics, states, counts):
            for name, value in state.items():
                setattr(metric, name, value)
            metric._update_count = count
            metric._computed = None
