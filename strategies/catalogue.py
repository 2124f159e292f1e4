"""The settings of every strategy: what a recipe may hold under ``search.settings``. Imports no torch.

Each class has the settings of one part of a strategy, and the constructor of that part checks its arguments by it. So a wrong setting is
refused before torch is imported, by the rule and in the words of the constructor. :mod:`nni_darts.strategies.methods` says which parts a
strategy has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from nni_darts.strategies.early_stopping import EarlyStopping, early_stopping
from nni_darts.strategies.settings import Settings, setting
from nni_darts.strategies.terms import ALLOWED, checked_terms

__all__ = [
    'AuxiliarySkipSettings',
    'ControllerSettings',
    'DepthSettings',
    'DirichletSettings',
    'DropPathSettings',
    'EarlyStopping',
    'EnasSettings',
    'ExecutionSetting',
    'GateSettings',
    'GreedySettings',
    'GumbelSettings',
    'ImplicitSettings',
    'MagnitudeSettings',
    'PartialSettings',
    'PerturbationSettings',
    'PerturbedSettings',
    'AdversarialSettings',
    'ConcreteSettings',
    'ProgressiveSettings',
    'ProxylessSettings',
    'RankingSettings',
    'ReinMaxSettings',
    'ReinforceSettings',
    'ScoringSettings',
    'SearchedSettings',
    'SecondOrderSettings',
    'ShapleySettings',
    'SkipDropoutSettings',
    'ThresholdSettings',
    'stage_epochs',
]

ExecutionSetting = Literal['fast', 'compiled', 'piecewise', 'joined', 'plain']
"""The setting ``execution`` of a strategy: ``fast`` chooses, each other value pins an executor."""

Whole = Annotated[int, Field(ge=1)]
WholeFromZero = Annotated[int, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(ge=0, lt=1)]
Stopping = Annotated[Any, AfterValidator(early_stopping)]
Terms = Annotated[Any, AfterValidator(checked_terms)]


class _AlphaSettings(Settings):
    learning_rate: AtLeast0 = setting(3e-4, "learning rate of α's Adam", recipe='search.architecture_learning_rate')
    betas: Annotated[Sequence[Part], Field(min_length=2, max_length=2)] = setting(
        (0.5, 0.999), "decay rates of the moments in α's Adam", allowed='two numbers from 0 to below 1'
    )
    weight_decay: AtLeast0 = setting(1e-3, 'L2 penalty on α', recipe='search.architecture_weight_decay')
    warmup_epochs: AtLeast0 = setting(
        0,
        'epochs at the start in which only the weights are trained; a number below 1 is a fraction of the search',
        recipe='search.warmup_epochs',
    )
    gradient_clip_val: Above0 | None = setting(
        5.0, "norm to which the weights' gradient is clipped; null does not clip", recipe='search.gradient_clip'
    )
    regularise: Terms = setting((), 'terms to add to the loss of α, or to the steps of the weights, by name', allowed=f'{ALLOWED}')
    execution: ExecutionSetting = setting('fast', 'how cells are computed: fast chooses by timing, any other value pins an executor')
    checkpoint: bool = setting(False, 'whether cells are recomputed in the backward pass: half the memory, a third more time')

    @field_validator('warmup_epochs')
    @classmethod
    def _whole_epochs(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f'warmup_epochs must be a whole number of epochs, or below 1 a part of the search, not {value!r}')
        return value


class SearchedSettings(_AlphaSettings):
    """Settings of every strategy that trains α and weights in one supernet."""

    early_stopping: Stopping = setting(
        False,
        'whether the search ends when its minimum gets sharp (DARTS-ES); a mapping changes the published numbers, or sets skips (DARTS+)',
        allowed=f'true, false, a mapping of {", ".join(EarlyStopping.model_fields)}, or of skips alone',
    )


class SecondOrderSettings(Settings):
    """Settings of the second-order gradient of α."""

    hessian: Literal['finite_difference', 'exact'] = setting(
        'finite_difference', 'how the product with the Hessian is computed: by finite differences, as published, or exactly'
    )
    epsilon: Above0 = setting(0.01, "length of the finite difference's steps in weight space")
    clip_norm: Above0 | Literal['published'] | None = setting(
        None,
        "norm to which the virtual step's gradient is clipped; published is the formula of the authors' code for recurrent networks",
        allowed="a number above 0, 'published' (the authors' formula at their norm 0.25) or null",
    )
    unroll: Whole = setting(1, 'number of virtual steps of the weights; more than one are differentiated exactly')

    @model_validator(mode='after')
    def _several_steps(self) -> SecondOrderSettings:
        if self.unroll > 1 and (self.hessian != 'exact' or self.clip_norm == 'published'):
            raise ValueError(
                f'unroll is {self.unroll}, and several steps are differentiated exactly: set hessian to exact, and clip_norm to a number '
                'or null'
            )
        return self


class ImplicitSettings(Settings):
    """Settings of iDARTS."""

    terms: WholeFromZero = setting(2, 'number of terms of the Neumann series for the inverse Hessian, after the first one')
    weight_steps: Whole = setting(4, 'steps of the weights for each step of α')


class PerturbedSettings(Settings):
    """Settings of SDARTS."""

    first: Part = setting(0.03, 'radius ε of the perturbation of α at the start of the search')
    last: Part = setting(0.3, 'radius ε of the perturbation of α at the end of the search')

    @model_validator(mode='after')
    def _growing(self) -> PerturbedSettings:
        if self.first > self.last:
            raise ValueError(f'the perturbation must grow within [0, 1), not from {self.first} to {self.last}')
        return self


class AdversarialSettings(PerturbedSettings):
    """Settings of SDARTS-ADV."""

    steps: Whole = setting(7, 'steps of projected gradient ascent towards the worst perturbation')
    random_start: bool = setting(True, 'whether the ascent starts at a random point within the radius')


class GumbelSettings(Settings):
    """Settings of GDAS."""

    first: Above0 = setting(10.0, 'temperature τ at the start of the search')
    last: Above0 = setting(0.1, 'temperature τ at the end of the search')

    @model_validator(mode='after')
    def _falling(self) -> GumbelSettings:
        if self.last > self.first:
            raise ValueError(f'the temperature must fall and stay above 0, not go from {self.first} to {self.last}')
        return self


class ConcreteSettings(GumbelSettings):
    """Settings of SNAS."""

    first: Above0 = setting(1.0, 'temperature τ at the start of the search')
    last: Above0 = setting(0.33, 'temperature τ at the end of the search')


class ReinMaxSettings(Settings):
    """Settings of ReinMax."""

    temperature: Annotated[float, Field(ge=1)] = setting(1.0, 'temperature τ of the gradient; above 1 it has less variance and more bias')


class GateSettings(Settings):
    """Settings of binary gates."""

    paths: Literal['all', 'two'] = setting('all', 'candidates whose outputs give the gradient of α: all, or two that are sampled')


class ProxylessSettings(GateSettings):
    """Settings of ProxylessNAS."""

    weight_steps: Whole = setting(5, 'steps of the weights for each step of α')


class PartialSettings(Settings):
    """Settings of PC-DARTS."""

    portion: Whole = setting(4, 'divisor of the number of channels: 4 searches a quarter of them')
    edge_weights: bool = setting(True, 'whether edges have weights β of their own')


class AuxiliarySkipSettings(Settings):
    """Settings of DARTS-."""

    auxiliary: AtLeast0 = setting(1.0, 'weight β of the auxiliary skip connections at the start of the search')
    decay: Literal['linear', 'cosine'] = setting('linear', 'how β falls to 0 over the epochs')


class DirichletSettings(Settings):
    """Settings of DrNAS."""

    rank_by: Literal['softmax', 'mean'] = setting(
        'softmax', "strength of an operation: softmax(α), as in the authors' code, or its mean weight"
    )


class DropPathSettings(Settings):
    """Settings of drop-path in the search."""

    drop_path: Part = setting(0.0, 'probability of dropping an edge for a sample in the last epoch; it grows in proportion to the epochs')


class ThresholdSettings(Settings):
    """Settings of FairDARTS' derivation."""

    threshold: Annotated[float, Field(ge=0, le=1)] = setting(
        0.85, 'probability of its operation below which an edge is left out of the final cell; +pt and +pt-mag keep all edges'
    )


class ControllerSettings(Settings):
    """Settings of ENAS' controller."""

    hidden: Whole = setting(64, "units of the controller's LSTM")
    tanh_constant: Above0 = setting(1.1, "bound of the controller's logits")


class ScoringSettings(Settings):
    """Settings of scores on validation batches."""

    criterion: Literal['accuracy', 'loss'] = setting('accuracy', 'score of a candidate on validation batches')
    batch_norm: Literal['train', 'eval'] = setting(
        'train', 'statistics that batch norm uses while scoring: those of each validation batch (train) or the running ones (eval)'
    )
    batches: Whole | None = setting(None, 'number of validation batches to score on; null uses all')


class RankingSettings(ScoringSettings):
    """Settings of strategies that draw many paths at the end and keep the best."""

    samples: Whole = setting(1000, 'number of paths drawn at the end of the search')
    finalists: Whole = setting(10, 'number of paths that are scored on all validation data')
    batches: Whole | None = setting(1, 'number of validation batches in the first ranking; null ranks all paths on all batches')


class ReinforceSettings(Settings):
    """Settings of the policy gradient."""

    criterion: Literal['accuracy', 'loss'] = setting('accuracy', 'the reward of a path, and what paths are ranked by at the end')
    paths_per_step: Whole = setting(1, 'number of paths drawn for each step of the controller')
    baseline_decay: Part = setting(0.99, 'decay of the moving average with which rewards are compared')
    entropy_weight: AtLeast0 = setting(1e-4, "weight of the policy's entropy in the reward")


class EnasSettings(RankingSettings, ControllerSettings, ReinforceSettings):
    """Settings of ENAS."""

    criterion: Literal['accuracy', 'loss'] = setting('accuracy', 'the reward of a path, and what paths are ranked by at the end')


class GreedySettings(Settings):
    """Settings of SGAS. Epochs are those of a search of 50, and scale with its length."""

    greedy_criterion: Literal[1, 2] = setting(1, 'criterion of the paper by which edges are ordered; 2 also considers stability')
    decision_start: Annotated[int, Field(ge=0, lt=50)] = setting(9, 'epoch of 50, counted from 0, after which the first edge is decided')
    decision_every: Whole = setting(5, 'epochs of 50 between two decisions')
    batch_increase: WholeFromZero = setting(8, 'samples by which training batches grow after each decision')
    history: Whole = setting(4, 'number of past epochs over which stability is measured')


class ProgressiveSettings(Settings):
    """Settings of selections that decide one by one after the search."""

    epochs_between: Whole = setting(5, 'epochs of fine-tuning between two decisions', recipe='search.tuning_epochs')
    learning_rate_factor: Above0 = setting(0.1, "the weights' learning rate during fine-tuning, as a multiple of the initial one")
    step_schedule: bool = setting(False, 'whether the learning rate schedule advances during fine-tuning')


class PerturbationSettings(ProgressiveSettings, ScoringSettings):
    """Settings of DARTS-PT."""

    renormalise: bool = setting(False, "whether the weights of an edge's remaining operations are divided by their sum while one is masked")
    rescore_inputs: bool = setting(False, 'whether the remaining inputs of a node are scored again after each one that is dropped')


class ShapleySettings(ScoringSettings):
    """Settings of the selection by Shapley values."""

    permutations: Whole = setting(10, 'number of random orders in which operations are left out one after the other')
    truncation: Part = setting(0.5, 'part of the score of the whole supernet below which an order ends; 0 completes all')
    batches: Whole | None = setting(1, 'number of validation batches to score on; null uses all')


class SkipDropoutSettings(Settings):
    """Settings of dropout behind skip connections."""

    rate: Part = setting(0.0, 'probability of dropping a number at the start')
    behind: Literal['identity', 'all'] = setting('identity', "skip connections with dropout: stride 1, as in the authors' code, or all")


class MagnitudeSettings(Settings):
    """Settings of discretisation by the size of α."""

    max_skips: WholeFromZero | None = setting(None, 'largest number of skip connections in a normal cell; null sets no limit')


def stage_epochs(epochs: int, warmup: float) -> int:
    """Returns the length of a P-DARTS stage: half of the epochs for which other strategies search, rounded up (25 for 50).

    Args:
        epochs: number of epochs for which other strategies search.
        warmup: number of epochs at the start of the stage in which α stays fixed; a number below 1 is a fraction of the stage.

    Raises:
        ValueError: if α would not move in it.
    """
    stage = math.ceil(epochs / 2)
    if warmup >= max(1, stage):
        raise ValueError(f'warmup_epochs is {warmup}, which leaves none of the {stage} epochs of a stage to train α in')
    return stage


class DepthSettings(_AlphaSettings):
    """Settings of P-DARTS. All epochs are those of a stage."""

    cells: Sequence[Annotated[int, Field(ge=3)]] = setting((5, 11, 17), 'depth of the supernet in each stage')
    keep: Sequence[Annotated[int, Field(ge=2)]] = setting((5, 3), 'number of operations that an edge keeps after each stage but the last')
    dropout: Sequence[Part] = setting((0.0, 0.4, 0.7), 'probability of dropping numbers after skip connections, in each stage')
    dropout_behind: Literal['identity', 'all'] = setting(
        'identity', "skip connections with dropout: those of stride 1, as in the authors' code, or all, as in the paper"
    )
    max_skips: WholeFromZero = setting(2, 'largest number of skip connections in the final normal cell')
    learning_rate: AtLeast0 = setting(6e-4, "learning rate of α's Adam", recipe='search.architecture_learning_rate')
    warmup_epochs: AtLeast0 = setting(
        0.4,
        'epochs of each stage in which only the weights are trained; a number below 1 is a fraction of the stage',
        recipe='search.warmup_epochs',
    )

    @model_validator(mode='after')
    def _one_for_each_stage(self) -> DepthSettings:
        if not len(self.cells) == len(self.dropout) == len(self.keep) + 1:
            cells, keep, dropout = (list(values) for values in (self.cells, self.keep, self.dropout))
            raise ValueError(f'cells {cells} and dropout {dropout} need a number for each stage, keep {keep} one for each but the last')
        return self
