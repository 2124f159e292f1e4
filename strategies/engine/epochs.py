"""The epochs of a search: first the epochs that train α, then the epochs in which a progressive selection fine-tunes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nni_darts import parallel
from nni_darts.activity import announce
from nni_darts.strategies.architects import dominant_eigenvalue
from nni_darts.strategies.early_stopping import EarlyStopping, SkipStopping
from nni_darts.strategies.engine.loaders import TRAIN, length
from nni_darts.strategies.engine.optimizers import weight_optimizers
from nni_darts.strategies.moment import Moment
from nni_darts.strategies.reference import Reference
from nni_darts.strategies.selections.magnitude import normal_skips

if TYPE_CHECKING:
    from nni_darts.strategies.engine.module import DifferentiableModule

__all__ = ['Epochs']


class Epochs:
    """Counts the epochs of a search, and measures and decides between them.

    Args:
        module: the module of the search.

    Attributes:
        search: number of epochs of the search, without fine-tuning; known once the fit has started.
    """

    def __init__(self, module: DifferentiableModule) -> None:
        self._module = Reference(module)
        self.search = 0

    @property
    def current(self) -> int:
        """The number of the current epoch, from 0."""
        return self._module.value.current_epoch

    @property
    def warmup(self) -> int:
        """The number of warm-up epochs, in which α does not move."""
        return self._module.value.strategy.warmup(self.search)

    @property
    def progress(self) -> float:
        """The progress of the search: 0 in its first epoch, 1 in its last, and above 1 while a selection fine-tunes."""
        return self.moment.progress

    @property
    def elapsed(self) -> float:
        """The portion of the search's epochs that is finished; 1 or more while a selection fine-tunes."""
        return self.moment.elapsed

    @property
    def tuning(self) -> bool:
        """Whether the search is over and a progressive selection fine-tunes."""
        return self.moment.tuning

    @property
    def moment(self) -> Moment:
        """The current epoch among the epochs of the search."""
        return Moment(self.current, self.search)

    def begin(self) -> None:
        """Sets the trainer's total number of epochs, in agreement with the checkpoint.

        Raises:
            ValueError: if a progressive selection has no search to follow.
        """
        loop, state, extra = self._loop, self._module.value.architecture.state, self._tuning_epochs()
        self.search = self._module.value.trainer.max_epochs if state.stopped is None else state.stopped['after']
        if state.ended is not None:
            self.search = state.ended['search']
        if extra and self.search < 1:
            raise ValueError('a progressive selection follows the search: give the Trainer max_epochs, the number of epochs to search')
        if extra or state.stopped is not None:
            loop.max_epochs = self.search + extra
        if state.ended is not None:
            loop.max_epochs = state.ended['all']

    def end_early(self) -> None:
        """Ends the search, or the fine-tuning of a selection, after the current epoch."""
        finished, state = self.current + 1, self._module.value.architecture.state
        if self.tuning:
            state.ended = {'search': self.search, 'all': finished}
        else:
            self.search = finished
            state.ended = {'search': finished, 'all': finished + self._tuning_epochs()}
        self._loop.max_epochs = state.ended['all']

    def start_epoch(self) -> None:
        """Adapts the epoch to larger batches, and resets the weights' optimizer at the start of fine-tuning."""
        self._module.value.strategy.relaxation.begin_epoch(self.moment)
        for term in self._module.value.strategy.step_terms:
            term.begin_epoch(self.moment)
        self._take_over()
        self._follow_growth()
        selection = self._module.value.strategy.selection
        if not self.tuning or selection.step_schedule:
            return
        for optimizer in weight_optimizers(self._module.value.trainer):
            if self.current == self.search:
                optimizer.state.clear()  # the authors fine-tune with a new optimizer
            for group in optimizer.param_groups:
                # A scheduler records this value; without a scheduler, it is the rate before the first epoch of fine-tuning.
                group['lr'] = selection.learning_rate_factor * group.setdefault('initial_lr', group['lr'])

    def finish_epoch(self) -> None:
        """Measures the curvature if early stopping requires it, and takes the decisions that are due."""
        module, finished = self._module.value, self.current + 1
        strategy, architecture = module.strategy, module.architecture
        if strategy.early_stopping is not None and self.warmup <= self.current < self.search:
            if isinstance(strategy.early_stopping, SkipStopping):
                self._count_skips(strategy.early_stopping)
            else:
                self._measure_curvature(strategy.early_stopping)
        strategy.relaxation.begin_epoch(self.moment._replace(epoch=finished))
        self._decide(finished)
        strategy.grow_batches()
        state = architecture.state
        parallel.must_agree('architecture', *architecture.arch_parameters(), state.fixed, state.dropped)

    def _decide(self, finished: int) -> None:
        """Takes the decisions that are due after a number of epochs."""
        module = self._module.value
        strategy, architecture, selection = module.strategy, module.architecture, module.strategy.selection
        selection.observe(finished, self.search, architecture, strategy.relaxation)
        for _ in range(selection.rounds_due(finished, self.search, architecture)):
            self._announce_decisions()
            for record in selection.decide(architecture, module):
                record['epoch'] = finished
                strategy.on_decision(record)
            self._announce_decisions()

    def _take_over(self) -> None:
        """Takes the decisions that are due as a search ends, if that search had another selection, which has not taken them."""
        state = self._module.value.architecture.state
        if self.current == self.search and self._tuning_epochs() and state.by_magnitude is None and not state.history:
            parallel.share_random_state()
            self._decide(self.search)

    @property
    def _loop(self) -> Any:
        return self._module.value.trainer.fit_loop

    def _tuning_epochs(self) -> int:
        module = self._module.value
        return module.strategy.selection.epochs(module.architecture)

    def _follow_growth(self) -> None:
        """Makes Lightning validate after the smaller number of larger batches, and not wait for the initial number."""
        module, loop = self._module.value, self._loop
        trainer, count = module.trainer, length(module.trainer.train_dataloader[TRAIN])
        if module.strategy.selection.batch_growth(module.architecture) and count < loop.max_batches:
            loop.max_batches = int(count)
            if trainer.check_val_every_n_epoch is not None and isinstance(trainer.val_check_interval, float):
                trainer.val_check_batch = max(1, int(count * trainer.val_check_interval))

    def _announce_decisions(self) -> None:
        architecture = self._module.value.architecture
        total = self._module.value.strategy.selection.decisions(architecture)
        announce('decisions', len(architecture.state.history), total, lasting=True)

    def _measure_curvature(self, stopping: EarlyStopping) -> None:
        """Records the dominant eigenvalue after this epoch, and ends the search if early stopping applies."""
        module, finished = self._module.value, self.current + 1
        state, strategy = module.architecture.state, module.strategy
        eigenvalue = parallel.agreed(_eigenvalue(module, stopping.iterations) if parallel.is_first() else 0.0)
        sample = strategy.selection.select(module.architecture, strategy.relaxation)
        state.curvature.append({'epoch': finished, 'eigenvalue': eigenvalue, 'sample': sample})
        earlier = stopping.stops_for([entry['eigenvalue'] for entry in state.curvature])
        if earlier is not None:
            self._stop(state.curvature[earlier])

    def _count_skips(self, stopping: SkipStopping) -> None:
        """Ends the search if the current cell has too many skip connections."""
        module, finished = self._module.value, self.current + 1
        sample = module.strategy.selection.select(module.architecture, module.strategy.relaxation)
        if normal_skips(module.architecture, sample) >= stopping.skips:
            self._stop({'epoch': finished, 'sample': sample})

    def _stop(self, chosen: dict[str, Any]) -> None:
        """Ends the search after the current epoch, with the architecture of an epoch."""
        finished = self.current + 1
        self._module.value.architecture.state.stopped = {'after': finished, **chosen}
        self.search = finished
        self._loop.max_epochs = finished + self._tuning_epochs()


def _eigenvalue(module: DifferentiableModule, iterations: int) -> float:
    """Returns the dominant eigenvalue of the Hessian of the validation loss with respect to α, on one batch."""
    with module.scoring(train=True):
        batch = next(module.validation_batches(1)[0])
        return dominant_eigenvalue(
            lambda: module.architecture_loss_on(batch, 0, 1.0),
            list(module.model.parameters()),
            module.architecture.arch_parameters(),
            iterations=iterations,
        )
