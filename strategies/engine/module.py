"""The Lightning module of a search: an α step and a weight step around the evaluator's own ``training_step``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.optim import Adam, Optimizer

from nni_darts import parallel
from nni_darts._nni import BaseOneShotLightningModule, LightningModule
from nni_darts.strategies.engine.epochs import Epochs
from nni_darts.strategies.engine.loaders import TRAIN, VALID
from nni_darts.strategies.engine.optimizers import architecture_optimizer, gradient_scaler, join_alphas, weight_optimizers
from nni_darts.strategies.engine.scoring import Rewind, frozen, scoring_mode, silent
from nni_darts.strategies.reference import Reference
from nni_darts.strategies.selections.scoring import samples_in

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableStrategy

__all__ = ['EXECUTOR', 'DifferentiableModule']

EXECUTOR = 'executor'
"""In a checkpoint: the executor that computes the cells."""


class _Forwarding(BaseOneShotLightningModule):
    """Passes on to the evaluator's module what Lightning tells only the outer one."""

    def on_train_batch_start(self, batch: Any, batch_idx: int, *args: Any) -> Any:
        return self.training_module.on_train_batch_start(batch[TRAIN], batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *args: Any) -> None:
        self.training_module.on_train_batch_end(outputs, batch[TRAIN], batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_load_checkpoint(checkpoint)

    def on_validation_epoch_start(self) -> None:
        self.training_module.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        self.training_module.on_validation_epoch_end()


class DifferentiableModule(_Forwarding):
    """Trains α and the weights of a supernet in turns.

    Args:
        training_module: the evaluator's module.
        strategy: says how: its parts, loaders and settings.

    Attributes:
        architecture: α and the decisions, which are in every checkpoint with the weights.
        epochs: the epochs of the search, and what is due between them.
    """

    def __init__(self, training_module: LightningModule, strategy: DifferentiableStrategy) -> None:
        super().__init__(training_module)
        self._strategy = Reference(strategy)
        self.architecture = strategy.architecture
        self.epochs = Epochs(self)

    @property
    def strategy(self) -> DifferentiableStrategy:
        """The strategy that made this module."""
        return self._strategy.value

    def export(self) -> dict[str, Any]:
        """Returns the selected architecture as an NNI sample."""
        return self.strategy.select()

    def export_probs(self) -> dict[str, Any]:
        """Returns label → candidate → probability."""
        return self.strategy.probabilities()

    # optimizers -------------------------------------------------------------------------------------------------------------------

    def configure_architecture_optimizers(self) -> Optimizer | None:
        """Returns Adam over α, where α has an optimizer of its own and there is one."""
        alphas = self.architecture.arch_parameters()
        return Adam(alphas, **self.strategy.optimizer_settings) if alphas and self.strategy.architect.own_optimizer else None

    def configure_optimizers(self) -> Any:
        """Returns the evaluator's optimizers and α's, or the evaluator's with α among the weights, where both move together."""
        configured = super().configure_optimizers()
        if not self.strategy.architect.own_optimizer:
            join_alphas(configured, self.architecture.arch_parameters())
        return configured

    @property
    def weight_optimizer(self) -> Optimizer:
        """The optimizer of the weights."""
        return weight_optimizers(self.trainer)[0]

    @property
    def loss_scale(self) -> float:
        """The factor of losses while they are differentiated: 1 but for ``precision='16-mixed'``."""
        scaler = gradient_scaler(self.trainer)
        return 1.0 if scaler is None else scaler.get_scale()

    def on_after_backward(self) -> None:
        parallel.average_gradients(weight for group in self.weight_optimizer.param_groups for weight in group['params'])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Not right after backward, as in NNI's module: under float16 gradients still are multiples of themselves there.
        self.training_module.configure_gradient_clipping(optimizer, self.strategy.gradient_clip_val, None)

    # steps ------------------------------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """One step of α (after the warm-up), then one of the weights; both twice, where they learn from the union of both parts."""
        if not self.strategy.architect.union:
            outputs = self._step(batch[TRAIN], batch[VALID], batch_idx)
        else:
            outputs, _ = [self._step(batch[part], batch[part], batch_idx) for part in (TRAIN, VALID)]
        if not self.epochs.tuning or self.strategy.selection.step_schedule:
            self.advance_lr_schedulers(batch_idx)
        return outputs

    def _step(self, train: Any, valid: Any, batch_idx: int) -> Any:
        """Moves α on ``valid`` and the weights on ``train``."""
        relaxation, architect = self.strategy.relaxation, self.strategy.architect
        shares = parallel.shares(samples_in(train), samples_in(valid))
        parallel.share_random_state()
        relaxation.begin_step(self.epochs.progress)
        moves = relaxation.trains_alpha and self.current_epoch >= self.epochs.warmup
        if moves and architect.own_optimizer:
            self._architecture_step(train, valid, batch_idx, shares)

        parallel.share_random_state()

        def silent_loss() -> Tensor:
            with silent(self.training_module):
                return self.loss_scale * self.loss_on(train, batch_idx, shares[0])

        with (
            nullcontext() if moves and not architect.own_optimizer else frozen(self.architecture.arch_parameters()),
            relaxation.weight_step(self.architecture, silent_loss, self.model, self.epochs.elapsed),
        ):
            outputs = self.training_module.training_step(train, batch_idx)
            self.advance_optimization(_weighted(_loss(outputs), shares[0]), batch_idx)
        return outputs

    def _architecture_step(self, train: Any, valid: Any, batch_idx: int, shares: Sequence[float]) -> None:
        optimizer, scaler = architecture_optimizer(self.trainer), gradient_scaler(self.trainer)
        with silent(self.training_module):
            gradients = self.strategy.architect.gradients(self, train, valid, batch_idx, shares)
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
        """Returns the evaluator's validation of the supernet."""
        if self.strategy.relaxation.sampled:
            parallel.share_random_state()  # for the path of this batch
        with self.strategy.relaxation.validation_step(self.architecture, self.model):
            return self.training_module.validation_step(batch, batch_idx)

    # losses and scores ------------------------------------------------------------------------------------------------------------

    def loss_on(self, batch: Any, batch_idx: int, share: float) -> Tensor:
        """Returns L_t, which the weights minimise on a batch: the evaluator's training loss with all of its regularisation.

        Args:
            batch: batch of the training loader.
            batch_idx: its number in the epoch.
            share: weight of this rank's part of the batch (:func:`nni_darts.parallel.shares`), 1 where it is a whole batch.
        """
        return _weighted(_loss(self.training_module.training_step(batch, batch_idx)), share)

    def architecture_loss_on(self, batch: Any, batch_idx: int, share: float) -> Tensor:
        """Returns L_v, which α minimises on a batch: the ``architecture_loss`` of the evaluator's ``training_step``, or L_t without one.

        Arguments as for :meth:`loss_on`.
        """
        outputs = self.training_module.training_step(batch, batch_idx)
        return _weighted(outputs.get('architecture_loss', outputs['loss']) if isinstance(outputs, dict) else outputs, share)  # type: ignore[arg-type]

    def score_on(self, batch: Any, batch_idx: int, share: float, criterion: Literal['accuracy', 'loss']) -> Tensor:
        """Returns the portion of a batch's samples that are right, or minus its mean loss: a scalar on the batch's device.

        Arguments as for :meth:`loss_on`.
        """
        if criterion == 'loss':
            return -self.architecture_loss_on(batch, batch_idx, share)
        inputs, labels = batch[:2]
        outputs = self.model(inputs)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return _weighted((logits.argmax(dim=1) == labels).float().mean(), share)

    def scoring(self, *, train: bool) -> AbstractContextManager[Rewind]:
        """Evaluates the supernet without a trace within the block, as :func:`.scoring_mode` says."""
        return scoring_mode(self, self.model, self.training_module, train=train)

    def validation_batches(self, count: int | None) -> tuple[Iterator[Any], int | None]:
        """Returns the first ``count`` batches of the validation loader (None: all), on the module's device, and how many they are.

        The number is None if the loader does not say. Where ranks share whole batches, these are the rank's.
        """
        batches, number = self.strategy.loaders.scoring_batches(count)

        def prepared(batch: Any) -> Any:
            return self.trainer.precision_plugin.convert_input(self.trainer.strategy.batch_to_device(batch))  # as Lightning's loops do

        return map(prepared, batches), number

    # epochs -----------------------------------------------------------------------------------------------------------------------

    @property
    def tuning(self) -> bool:
        """Whether the search is over and a progressive selection fine-tunes."""
        return self.epochs.tuning

    def end_early(self) -> None:
        """Ends the search with the epoch under way, or, while a selection fine-tunes, that; it reads what it has not decided from α."""
        self.epochs.end_early()

    def on_fit_start(self) -> None:
        self.epochs.begin()
        parallel.broadcast([*self.model.parameters(), *self.architecture.arch_parameters()])
        super().on_fit_start()

    def on_validation_start(self) -> None:
        parallel.average_buffers(self.model)
        super().on_validation_start()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.epochs.start_epoch()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        parallel.share_random_state()
        parallel.average_buffers(self.model)
        self.epochs.finish_epoch()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[EXECUTOR] = self.strategy.executor_choice.record
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.strategy.executor_choice.keep(checkpoint.get(EXECUTOR))
        super().on_load_checkpoint(checkpoint)


def _weighted(value: Tensor, share: float) -> Tensor:
    """Weights a mean over this rank's part of a batch, so that the mean over ranks is that over all samples."""
    return value if share == 1 else share * value


def _loss(outputs: Any) -> Tensor:
    return outputs['loss'] if isinstance(outputs, dict) else outputs
