"""Training of language models: NNI's evaluator in a search, and the retraining of what it finds."""

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

_LARGEST_LOSS = 88.0  # the exponential of more is infinite in single precision, and JSON knows no infinity


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats."""
    return math.exp(min(loss, _LARGEST_LOSS))


class HiddenStates:
    """The hidden states that go from one batch of a stream to the next, for several streams side by side.

    A batch says which stream it is of and its number there. One that comes again starts from the same state as before, as often as it
    comes: so the passes of an architect, which repeat a batch with other weights, disturb nothing, and what the batch that follows
    starts from is the state of the last pass. Number 0 starts from zeros; so does a batch whose forerunner has not been seen.
    """

    def __init__(self) -> None:
        self._streams: dict[str, tuple[int, Tensor | None, Tensor | None]] = {}  # number, state before and after that batch

    def before(self, stream: str, number: int) -> Tensor | None:
        """Returns the hidden state from which the batch starts: (B, hidden), or None for zeros."""
        last, before, after = self._streams.get(stream, (-1, None, None))
        if number == last:
            return before
        return after if number == last + 1 and number > 0 else None

    def keep(self, stream: str, number: int, before: Tensor | None, after: Tensor) -> None:
        """Notes what a pass over a batch started from, and the state it ended with."""
        self._streams[stream] = number, before, after.detach()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {stream: list(kept) for stream, kept in self._streams.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's."""
        self._streams = {stream: tuple(kept) for stream, kept in state.items()}


class LanguageModel(LightningModule):
    """Cross-entropy, plain SGD, truncated backpropagation through time (Merity et al., ICLR 2018, and the DARTS authors' code).

    Batches are :class:`nni_darts.data.TextBatch`. The model has ``encode(tokens, hidden)``, which returns hidden, outputs, dropped as in
    :class:`nni_darts.search_spaces.recurrent.RecurrentOutput`, and a linear ``decoder``.

    Logs ``train_loss`` (without regularisation), ``train_perplexity``, ``valid_loss``, ``valid_perplexity``, ``test_loss`` and
    ``test_perplexity``, means over all words.

    Args:
        bptt: the length of a batch for which the learning rate is meant; it is scaled with the actual length.
        learning_rate, weight_decay: of SGD.
        activation_regularisation, temporal_regularisation: factors of the mean square of the outputs after dropout, and of the mean square
            of their change from one time step to the next, before it (Merity et al., 2017).
        averaging: average the weights once the validation loss is above the best of all epochs except this many last ones; None never does.
        report: send each epoch's validation perplexity and the last one to NNI, as evaluators of NNI's multi-trial strategies must.
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
        self._history: list[float] = []  # validation losses, epoch by epoch
        for part in ('train', 'valid', 'test'):
            setattr(self, f'{part}_nats', MeanMetric())
        self.train_nats.persistent(True)  # a checkpoint in the middle of an epoch holds what it has measured so far

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> Any:
        """(T, B) → what the model returns."""
        return self.model(tokens, hidden)

    def configure_optimizers(self) -> Optimizer:
        """SGD without momentum at a constant learning rate."""
        self._optimizer = SGD(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        return self._optimizer

    # one batch ----------------------------------------------------------------------------------------------------------------------

    def _encode(self, batch: Any) -> tuple[Any, Tensor]:
        """Returns the model's output for a batch, and the mean loss of its words."""
        tokens, targets, (stream, number) = batch
        before = self._states.before(stream, number)
        decoder: nn.Linear = self.model.decoder
        # After a checkpoint it lies elsewhere; and a pass under autocast may be followed by one in full precision.
        before = None if before is None else before.to(tokens.device, decoder.weight.dtype)
        encoded = self.model.encode(tokens, before)
        self._states.keep(stream, number, before, encoded.hidden)
        return encoded, linear_cross_entropy(encoded.dropped.flatten(0, 1), decoder.weight, decoder.bias, targets)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The regularised loss, which the weights minimise; the bare cross-entropy, which α minimises in a search; its value in nats."""
        encoded, nats = self._encode(batch)
        loss = nats
        if self.activation_regularisation:
            loss = loss + self.activation_regularisation * encoded.dropped.square().mean()
        if self.temporal_regularisation and len(encoded.outputs) > 1:
            loss = loss + self.temporal_regularisation * (encoded.outputs[1:] - encoded.outputs[:-1]).square().mean()
        return {'loss': loss, 'architecture_loss': nats, 'nats': nats.detach()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Before the architect's virtual step, too, which mirrors the real one.
        self._rates = [group['lr'] for group in self._optimizer.param_groups]
        for group, rate in zip(self._optimizer.param_groups, self._rates):
            group['lr'] = rate * len(batch[0]) / self.bptt

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for group, rate in zip(self._optimizer.param_groups, self._rates):
            group['lr'] = rate
        if self._average is not None:
            self._average.update(self.model)
        # Here and not in training_step: the passes of an architect must not count.
        self.train_nats.update(outputs['nats'], weight=len(batch[1]))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss of validation words."""
        self.valid_nats.update(self._encode(batch)[1], weight=len(batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Loss of test words."""
        self.test_nats.update(self._encode(batch)[1], weight=len(batch[1]))

    def answers(self) -> None:
        """Returns None: the probabilities of all words of a vocabulary at each place of a text are too many to keep."""

    # epochs -------------------------------------------------------------------------------------------------------------------------

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
        """Starts to average where the validation loss has not fallen for so long (Merity et al., algorithm 1)."""
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

    # checkpoints --------------------------------------------------------------------------------------------------------------------

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
