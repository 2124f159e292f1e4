"""The Lightning module of a search: an α step and a weight step around the evaluator's own ``training_step``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from nni_darts import parallel
from nni_darts._nni import BaseOneShotLightningModule, LightningModule
from nni_darts.strategies.engine.epochs import Epochs
from nni_darts.strategies.engine.loaders import TRAIN, VALID
from nni_darts.strategies.engine.optimizers import architecture_optimizer, gradient_scaler, join_alphas, weight_optimizers
from nni_darts.strategies.engine.scoring import Rewind, frozen, scoring_mode, silent
from nni_darts.strategies.engine.steps import Steps
from nni_darts.strategies.penalty import Penalties, of_nni
from nni_darts.strategies.reference import Reference
from nni_darts.strategies.selections.scoring import samples_in

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Path
    from nni_darts.strategies.differentiable import DifferentiableStrategy

__all__ = ['EXECUTOR', 'DifferentiableModule']

EXECUTOR = 'executor'
"""Key of a checkpoint: the executor that computes the cells."""


class _Forwarding(BaseOneShotLightningModule):
    """Forwards to the evaluator's module the hooks that Lightning calls only on the outer module."""

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
    """Trains α and the weights of a supernet in alternating steps.

    Args:
        training_module: Lightning module of the evaluator.
        strategy: strategy with the parts, loaders and settings of the search.

    Attributes:
        architecture: α and the decisions; every checkpoint holds them with the weights.
        epochs: the epochs of the search, and the measurements and decisions between them.
    """

    def __init__(self, training_module: LightningModule, strategy: DifferentiableStrategy) -> None:
        super().__init__(training_module)
        self._strategy = Reference(strategy)
        self.architecture = strategy.architecture
        self.epochs = Epochs(self)
        self._terms: Steps | None = None  # of the current step

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

    # Optimizers -------------------------------------------------------------------------------------------------------------------

    def configure_architecture_optimizers(self) -> Optimizer | None:
        """Returns the optimizer of α, which the relaxation chooses; None if the search has no α, or α shares that of the weights."""
        alphas = self.architecture.arch_parameters()
        strategy = self.strategy
        if not alphas or not strategy.architect.own_optimizer:
            return None
        return strategy.relaxation.optimizer(alphas, strategy.optimizer_settings)

    def configure_optimizers(self) -> Any:
        """Returns the optimizers of the evaluator and of α; if both move together, α joins the evaluator's optimizer."""
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
        """The scale of losses during differentiation: 1, except with ``precision='16-mixed'``."""
        scaler = gradient_scaler(self.trainer)
        return 1.0 if scaler is None else scaler.get_scale()

    def on_after_backward(self) -> None:
        parallel.average_gradients(weight for group in self.weight_optimizer.param_groups for weight in group['params'])
        if self._terms is not None:
            self._terms.gradient()
        alphas = self.architecture.arch_parameters()
        if not self.strategy.architect.own_pass and self.strategy.architect.own_optimizer and any(alpha.requires_grad for alpha in alphas):
            parallel.average_gradients(alphas)
            self._move_alpha()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Not right after backward, as in NNI's module: gradients in float16 are still scaled there.
        self.training_module.configure_gradient_clipping(optimizer, self.strategy.gradient_clip_val, None)

    # Steps ------------------------------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """Takes a step of α (after the warm-up), then a step of the weights; both twice if both learn from the union of the data."""
        if not self.strategy.architect.union:
            outputs = self._step(batch[TRAIN], batch[VALID], batch_idx)
        else:
            outputs, _ = [self._step(batch[part], batch[part], batch_idx) for part in (TRAIN, VALID)]
        if not self.epochs.tuning or self.strategy.selection.step_schedule:
            self.advance_lr_schedulers(batch_idx)
        return outputs

    def _step(self, train: Any, valid: Any, batch_idx: int) -> Any:
        """Takes a step of α on the batch ``valid`` and a step of the weights on the batch ``train``."""
        relaxation, architect = self.strategy.relaxation, self.strategy.architect
        shares = parallel.shares(samples_in(train), samples_in(valid))
        parallel.share_random_state()
        relaxation.begin_step(self.epochs.progress)
        moves = relaxation.trains_alpha and self.current_epoch >= self.epochs.warmup
        self._terms = Steps(self, (train, valid), batch_idx, shares, moves=moves)
        self._terms.before()
        if moves and architect.own_pass and batch_idx % architect.weight_steps == 0:
            self._architecture_step(train, valid, batch_idx, shares)

        parallel.share_random_state()
        with (
            nullcontext() if moves and not architect.own_pass else frozen(self.architecture.arch_parameters()),
            relaxation.weight_step(self.architecture, self._terms.train_loss, self.model, self.epochs.elapsed),
            self._terms.around(),
        ):
            outputs = self.training_module.training_step(train, batch_idx)
            loss = _weighted(_loss(outputs), shares[0])
            self.advance_optimization(self.penalised(loss) if moves and not architect.own_pass else loss, batch_idx)
        self._terms = None  # it holds the batches
        return outputs

    def _architecture_step(self, train: Any, valid: Any, batch_idx: int, shares: Sequence[float]) -> None:
        scaler = gradient_scaler(self.trainer)
        with silent(self.training_module):
            gradients = self.strategy.architect.gradients(self, train, valid, batch_idx, shares)
        for alpha, gradient in zip(self.architecture.arch_parameters(), gradients):
            alpha.grad = gradient if scaler is None else scaler.scale(gradient)
        self._move_alpha()

    def _move_alpha(self) -> None:
        """Takes a step of α's optimizer along the gradients, which are scaled in float16."""
        optimizer, scaler = architecture_optimizer(self.trainer), gradient_scaler(self.trainer)
        if scaler is None:
            optimizer.step()
        else:
            # The scaler skips the step if a gradient is not finite; the step of the weights updates the scale for both.
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
        optimizer.zero_grad()
        self.strategy.relaxation.end_architecture_step()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """Validates the supernet with the evaluator's ``validation_step``, and returns its output."""
        if self.strategy.relaxation.sampled:
            parallel.share_random_state()  # draws the path of this batch
        with self.strategy.relaxation.validation_step(self.architecture, self.model):
            return self.training_module.validation_step(batch, batch_idx)

    # Losses and scores ------------------------------------------------------------------------------------------------------------

    def loss_on(self, batch: Any, batch_idx: int, share: float) -> Tensor:
        """Returns L_t, the scalar loss that the weights minimise on a batch: the evaluator's training loss, regularisation included.

        Args:
            batch: batch of the training loader.
            batch_idx: number of the batch in the epoch.
            share: weight of this rank's part of the batch (:func:`nni_darts.parallel.shares`); 1 for a whole batch.
        """
        return _weighted(_loss(self.training_module.training_step(batch, batch_idx)), share)

    def architecture_loss_on(self, batch: Any, batch_idx: int, share: float) -> Tensor:
        """Returns L_v, the scalar loss that α minimises on a batch: ``architecture_loss`` of the ``training_step``, or L_t without one.

        Arguments as for :meth:`loss_on`.
        """
        outputs = self.training_module.training_step(batch, batch_idx)
        return _weighted(outputs.get('architecture_loss', outputs['loss']) if isinstance(outputs, dict) else outputs, share)  # type: ignore[arg-type]

    def penalised(self, loss: Tensor) -> Tensor:
        """Returns a loss that α minimises with the strategy's penalty on the expected cost, if it has one, and with its terms."""
        penalty, relaxation = self.strategy.penalty, self.strategy.relaxation
        if penalty is not None and not isinstance(penalty, Penalties):
            loss = of_nni(penalty, loss, self.architecture, relaxation)
        for term in [penalty, *self.strategy.loss_terms] if isinstance(penalty, Penalties) else self.strategy.loss_terms:
            loss = term.on_loss(loss, self.architecture, relaxation, self.epochs.moment)
        return loss

    def rewarded(self, score: Tensor, path: Path) -> Tensor:
        """Returns the reward of a path, which is its score, less the strategy's penalty on its cost, if it has one."""
        penalty = self.strategy.penalty
        if penalty is None:
            return score
        if isinstance(penalty, Penalties):
            return penalty.on_score(score, self.architecture, path)
        return penalty(score, self.architecture.sample_of(path))[0]  # NNI's, which lowers a reward if its scale is negative

    def score_on(self, batch: Any, batch_idx: int, share: float, criterion: Literal['accuracy', 'loss']) -> Tensor:
        """Returns the accuracy on a batch, or the negative mean loss, as a scalar on the batch's device.

        Arguments as for :meth:`loss_on`.
        """
        if criterion == 'loss':
            return -self.architecture_loss_on(batch, batch_idx, share)
        inputs, labels = batch[:2]
        outputs = self.model(inputs)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return _weighted((logits.argmax(dim=1) == labels).float().mean(), share)

    def scoring(self, *, train: bool) -> AbstractContextManager[Rewind]:
        """Returns a context that evaluates the supernet without side effects, as :func:`.scoring_mode` does."""
        return scoring_mode(self, self.model, self.training_module, train=train)

    def validation_batches(self, count: int | None) -> tuple[Iterator[Any], int | None]:
        """Returns the first ``count`` batches of the validation loader (None: all), on the module's device, and their number.

        The number is None if the loader has no length. If ranks share whole batches, these are the batches of this rank.
        """
        batches, number = self.strategy.loaders.scoring_batches(count)

        def prepared(batch: Any) -> Any:
            return self.trainer.precision_plugin.convert_input(self.trainer.strategy.batch_to_device(batch))  # as Lightning's loops do

        return map(prepared, batches), number

    # Epochs -----------------------------------------------------------------------------------------------------------------------

    @property
    def tuning(self) -> bool:
        """Whether the search is over and a progressive selection fine-tunes."""
        return self.epochs.tuning

    def end_early(self) -> None:
        """Ends the search, or a selection's fine-tuning, after the current epoch; open decisions are then read from α."""
        self.epochs.end_early()

    def on_fit_start(self) -> None:
        self.epochs.begin()
        parallel.broadcast([*self.model.parameters(), *self.architecture.arch_parameters()])
        for term in self.strategy.step_terms:
            term.begin(self.architecture, self.model, self.weight_optimizer)
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
    """Weights a mean over this rank's part of a batch, so that the mean over ranks equals the mean over all samples."""
    return value if share == 1 else share * value


def _loss(outputs: Any) -> Tensor:
    return outputs['loss'] if isinstance(outputs, dict) else outputs
