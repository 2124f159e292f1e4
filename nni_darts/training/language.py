"""Training of language models: NNI's evaluator in a search, and the retraining of the networks found."""

from __future__ import annotations

import math
from typing import Any

import nni
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torchmetrics import MeanMetric

from nni_darts._nni import LightningModule
from nni_darts.training.averaging import AveragedWeights
from nni_darts.training.cross_entropy import linear_cross_entropy

__all__ = ['HiddenStates', 'LanguageModel']

_LARGEST_LOSS = 88.0  # the exponential of a larger number is infinite in single precision, and JSON has no infinity


def perplexity(loss: float) -> float:
    """Returns the perplexity, exp(loss), of a mean loss in nats."""
    return math.exp(min(loss, _LARGEST_LOSS))


class HiddenStates:
    """The hidden states that are carried from one batch of a stream to the next, for several streams.

    A batch is identified by its stream and its index. Every pass over the same batch starts from the same state. Therefore an
    architect's passes, which repeat a batch with other weights, do not interfere, and the next batch starts from the final state of the
    last pass. Batch 0 starts from zeros, and so does a batch whose predecessor has not been seen.
    """

    def __init__(self) -> None:
        self._streams: dict[str, tuple[int, Tensor | None, Tensor | None]] = {}  # index of the batch, state before and after it

    def before(self, stream: str, number: int) -> Tensor | None:
        """Returns the hidden state from which the batch starts: (B, hidden), or None for zeros."""
        last, before, after = self._streams.get(stream, (-1, None, None))
        if number == last:
            return before
        return after if number == last + 1 and number > 0 else None

    def keep(self, stream: str, number: int, before: Tensor | None, after: Tensor) -> None:
        """Saves the state before and after a pass over a batch."""
        self._streams[stream] = number, before, after.detach()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        return {stream: list(kept) for stream, kept in self._streams.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from a checkpoint."""
        self._streams = {stream: tuple(kept) for stream, kept in state.items()}


class LanguageModel(LightningModule):
    """Trains with cross-entropy, plain SGD and truncated backpropagation through time (Merity et al., ICLR 2018, and DARTS' authors).

    Batches are :class:`nni_darts.data.TextBatch`. The model has ``encode(tokens, hidden)``, which returns hidden, outputs and dropped as
    in :class:`nni_darts.search_spaces.recurrent.RecurrentOutput`, and a linear ``decoder``.

    Logs ``train_loss`` (without regularisation), ``train_perplexity``, ``valid_loss``, ``valid_perplexity``, ``test_loss`` and
    ``test_perplexity``, which are means over all words.

    Args:
        bptt: batch length to which the learning rate refers; for other lengths it is scaled in proportion.
        learning_rate, weight_decay: parameters of SGD.
        activation_regularisation, temporal_regularisation: factors of two mean squares, of the outputs after dropout and of the change of
            the outputs before dropout from one time step to the next (Merity et al., 2017).
        averaging: starts averaging the weights once the validation loss is above the best loss before the last ``averaging`` epochs; None
            for no averaging.
        report: whether to send the validation perplexity of each epoch, and the last one as the result, to NNI, as NNI's multi-trial
            strategies require.
    """

    def __init__(
        self,
        *,
        bptt: int = 35,
        learning_rate: float = 20.0,
        weight_decay: float = 5e-7,
        activation_regularisation: float = 0.0,
        temporal_regularisation: float = 1e-3,
        averaging: int | None = None,
        report: bool = False,
    ) -> None:
        super().__init__()
        self.bptt = bptt
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.activation_regularisation = activation_regularisation
        self.temporal_regularisation = temporal_regularisation
        self.averaging = averaging
        self.report = report
        self._states = HiddenStates()
        self._average: AveragedWeights | None = None
        self._history: list[float] = []  # validation loss of each epoch
        for part in ('train', 'valid', 'test'):
            setattr(self, f'{part}_nats', MeanMetric())
        self.train_nats.persistent(True)  # a checkpoint in the middle of an epoch includes its measurements so far

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> Any:
        """Returns the model's output for tokens (T, B)."""
        return self.model(tokens, hidden)

    def configure_optimizers(self) -> Optimizer:
        """Returns SGD without momentum at a constant learning rate."""
        self._optimizer = SGD(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        return self._optimizer

    # One batch ----------------------------------------------------------------------------------------------------------------------

    def _encode(self, batch: Any) -> tuple[Any, Tensor]:
        """Returns the model's output for a batch, and the mean loss of its words."""
        tokens, targets, (stream, number) = batch
        before = self._states.before(stream, number)
        decoder: nn.Linear = self.model.decoder
        # After loading a checkpoint, the state is on another device; and a pass with autocast may precede one in full precision.
        before = None if before is None else before.to(tokens.device, decoder.weight.dtype)
        encoded = self.model.encode(tokens, before)
        self._states.keep(stream, number, before, encoded.hidden)
        return encoded, linear_cross_entropy(encoded.dropped.flatten(0, 1), decoder.weight, decoder.bias, targets)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Returns the regularised loss for the weights, the cross-entropy (for α in a search), and its value in nats."""
        encoded, nats = self._encode(batch)
        loss = nats
        if self.activation_regularisation:
            loss = loss + self.activation_regularisation * encoded.dropped.square().mean()
        if self.temporal_regularisation and len(encoded.outputs) > 1:
            loss = loss + self.temporal_regularisation * (encoded.outputs[1:] - encoded.outputs[:-1]).square().mean()
        return {'loss': loss, 'architecture_loss': nats, 'nats': nats.detach()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # This also precedes the architect's virtual step, which mirrors the real one.
        self._rates = [group['lr'] for group in self._optimizer.param_groups]
        for group, rate in zip(self._optimizer.param_groups, self._rates):
            group['lr'] = rate * len(batch[0]) / self.bptt

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for group, rate in zip(self._optimizer.param_groups, self._rates):
            group['lr'] = rate
        if self._average is not None:
            self._average.update(self.model)
        # Not in training_step, because an architect's passes must not count.
        self.train_nats.update(outputs['nats'], weight=len(batch[1]))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measures the loss on validation words."""
        self.valid_nats.update(self._encode(batch)[1], weight=len(batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Measures the loss on test words."""
        self.test_nats.update(self._encode(batch)[1], weight=len(batch[1]))

    def answers(self) -> None:
        """Returns None, because the probabilities of all words at every position of a text are too many to keep."""

    # Epochs -------------------------------------------------------------------------------------------------------------------------

    def _log(self, part: str) -> float:
        metric = getattr(self, f'{part}_nats')
        loss = float(metric.compute())
        metric.reset()
        self.log(f'{part}_loss', loss)
        self.log(f'{part}_perplexity', perplexity(loss), prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self._log('train')

    def on_validation_start(self) -> None:
        if self._average is not None:
            self._average.swap(self.model)

    def on_validation_end(self) -> None:
        if self._average is not None:
            self._average.swap(self.model)
        self._follow()

    def on_validation_epoch_end(self) -> None:
        loss = self._log('valid')
        self._history.append(loss)
        if self.report and nni.get_current_parameter() is not None:
            nni.report_intermediate_result(perplexity(loss))

    def _follow(self) -> None:
        """Starts averaging if the validation loss has not fallen for ``averaging`` epochs (Merity et al., algorithm 1)."""
        *before, last = self._history
        if self.averaging is None or self._average is not None or len(before) <= self.averaging:
            return
        if last > min(before[: -self.averaging]):
            self._average = AveragedWeights(self.model)

    def on_test_epoch_end(self) -> None:
        self._log('test')

    def on_fit_end(self) -> None:
        if self.report and nni.get_current_parameter() is not None:
            nni.report_final_result(perplexity(self._history[-1]))

    # Checkpoints --------------------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        average = None if self._average is None else self._average.state_dict()
        checkpoint['language_model'] = {'history': list(self._history), 'average': average, 'states': self._states.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint['language_model']
        self._history = list(kept['history'])
        if kept['average'] is not None:
            self._average = AveragedWeights(self.model)
            self._average.load_state_dict(kept['average'])
        self._states.load_state_dict(kept['states'])
