from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts import PUBLISHED, RnnGenotype
from nni_darts._nni import Lightning, Trainer
from nni_darts.data import TextBatch, TextDataModule, load_text
from nni_darts.search_spaces import DartsRnnSpace, Dropouts, network_from_genotype
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import SecondOrder
from nni_darts.strategies.differentiable import DifferentiableModule
from nni_darts.training import LanguageModel
from nni_darts.training.averaging import AveragedWeights
from nni_darts.training.language import HiddenStates, perplexity
from tests.helpers.tiny import text_recipe, write_text
from tests.reference import recurrent as reference
from tests.reference.second_order import published_clipped_gradient, unrolled_gradient

NO_DROPOUT = Dropouts(0, 0, 0, 0, 0)


def trainer(**settings: object) -> Trainer:
    return Trainer(
        accelerator='cpu',
        precision='64-true',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


@pytest.fixture
def data(tmp_path: Path) -> TextDataModule:
    text = load_text(text_recipe(write_text(tmp_path)).data)
    return TextDataModule(text, batch_size=4, evaluation_batch_size=3, bptt=6, deviation=2.0)


def test_hidden_states() -> None:
    states = HiddenStates()
    one, two, three = (torch.full((1,), float(value)) for value in (1, 2, 3))
    assert states.before('a', 0) is None and states.before('a', 5) is None
    states.keep('a', 0, None, one)
    assert states.before('a', 0) is None and states.before('a', 1) == 1 and states.before('b', 1) is None
    states.keep('a', 1, one, two)
    states.keep('a', 1, one, three)  # the same batch again, with other weights
    assert states.before('a', 1) == 1 and states.before('a', 2) == 3
    assert states.before('a', 0) is None and states.before('a', 4) is None


def plain_epoch(network: nn.Module, data: TextDataModule, rate: float, clip: float, alpha: float, beta: float) -> list[nn.Parameter]:
    """An epoch of training, written down: hidden state carried on, learning rate in proportion to the length, both regularisers."""
    hidden = None
    parameters = list(network.parameters())
    for tokens, targets, _ in data.train_dataloader():
        logits, hidden, outputs, dropped = network(tokens, hidden)
        loss = functional.cross_entropy(logits, targets) + alpha * (dropped**2).mean() + beta * ((outputs[1:] - outputs[:-1]) ** 2).mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                direction = gradient * min(1.0, clip / float(norm + 1e-6)) + 0.01 * parameter
                parameter -= rate * len(tokens) / 6 * direction
        hidden = hidden.detach()
    return parameters


def network() -> nn.Module:
    torch.manual_seed(5)
    made = network_from_genotype(PUBLISHED['DARTS_V1-RNN'], vocabulary=11, embedding=6, hidden=6, dropouts=NO_DROPOUT).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(10)
    return made


def test_an_epoch_is_the_one_written_down(data: TextDataModule) -> None:
    module = LanguageModel(bptt=6, learning_rate=2.0, weight_decay=0.01, activation_regularisation=0.3, temporal_regularisation=0.2)
    module.set_model(network())
    run = trainer(max_epochs=1, gradient_clip_val=0.25)
    run.fit(module, datamodule=data)
    expected = network()
    for one, other in zip(module.model.parameters(), plain_epoch(expected, data, 2.0, 0.25, 0.3, 0.2)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    losses, counts, hidden = [], [], None
    for tokens, targets, _ in data.val_dataloader():
        logits, hidden = reference.reference_forward(
            expected.state_dict(), tokens, torch.zeros(3, 6, dtype=torch.float64) if hidden is None else hidden,
            genotype=PUBLISHED['DARTS_V1-RNN'].recurrent,
        )  # fmt: skip
        losses.append(float(reference.reference_loss(logits, targets.view(-1, 3))))
        counts.append(len(targets))
    assert float(run.callback_metrics['valid_perplexity']) == pytest.approx(reference.perplexity(losses, counts), rel=1e-5)


def test_alpha_minimises_the_bare_cross_entropy_and_weights_the_regularised_loss(data: TextDataModule) -> None:
    module = LanguageModel(bptt=6, activation_regularisation=0.3, temporal_regularisation=0.2)
    module.set_model(network())
    batch = next(iter(data.train_dataloader()))
    outputs = module.training_step(batch, 0)
    tokens, targets, _ = batch
    logits, _, hidden, dropped = module.model(tokens, None)
    bare = functional.cross_entropy(logits, targets)
    penalty = 0.3 * dropped.square().mean() + 0.2 * (hidden[1:] - hidden[:-1]).square().mean()
    torch.testing.assert_close(outputs['architecture_loss'], bare, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(outputs['loss'], bare + penalty, rtol=1e-9, atol=1e-12)
    assert outputs['architecture_loss'].requires_grad and float(penalty.detach()) > 1e-6
    searched = DifferentiableModule(module, DifferentiableStrategy())
    torch.testing.assert_close(searched.architecture_loss_on(batch, 0, 1.0), outputs['architecture_loss'], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(searched.loss_on(batch, 0, 1.0), outputs['loss'], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(-searched.score_on(batch, 0, 1.0, 'loss'), outputs['architecture_loss'], rtol=1e-9, atol=1e-12)


def test_perplexity_is_always_a_number_that_json_knows() -> None:
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert math.isfinite(float(torch.tensor(perplexity(1e9))))


def test_averages_are_those_of_asgd() -> None:
    """torch's ASGD counts its first step twice; from there on both take the mean of the weights along the way."""
    start = torch.randn(5, dtype=torch.float64)
    gradients = [torch.randn(5, dtype=torch.float64) for _ in range(6)]
    model = nn.Linear(5, 1, bias=False).double()
    way = []
    with torch.no_grad():
        model.weight.copy_(start)
    average = AveragedWeights(model)
    for gradient in gradients:
        with torch.no_grad():
            model.weight -= 0.1 * gradient
        way.append(model.weight.detach().clone())
        average.update(model)
    average.swap(model)
    torch.testing.assert_close(model.weight, torch.stack(way).mean(dim=0))
    average.swap(model)
    assert torch.equal(model.weight, way[-1])
    other = nn.Parameter(start.clone())
    optimizer = torch.optim.ASGD([other], lr=0.1, lambd=0, t0=0, weight_decay=0)
    for gradient in gradients:
        other.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(optimizer.state[other]['ax'], torch.stack(way[1:]).mean(dim=0)[0])


def follow(losses: list[float], patience: int) -> int | None:
    """The number of the epoch after which averaging begins, by the module."""
    module = LanguageModel(averaging=patience)
    module.set_model(nn.Linear(2, 2))
    for epoch, loss in enumerate(losses, start=1):
        module._history.append(loss)
        module._follow()
        if module._average is not None:
            return epoch
    return None


@pytest.mark.parametrize(
    ('losses', 'patience', 'epoch'),
    [([5, 4, 3, 2, 1], 1, None), ([5, 4, 4.5, 4.6], 1, 4), ([5, 4, 4.5, 4.2], 2, None), ([5, 4, 4.5, 4.6, 4.7], 2, 5), ([1, 2], 1, None)],
)
def test_the_non_monotone_trigger(losses: list[float], patience: int, epoch: int | None) -> None:
    assert follow(losses, patience) == epoch


class Noted(LanguageModel):
    """Notes from which states passes start, and what the validation stream and the training stream end with."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.passes: list[tuple] = []

    def training_step(self, batch: tuple, batch_idx: int) -> dict[str, Tensor]:
        before = self._states.before(*batch[2])
        outputs = super().training_step(batch, batch_idx)
        self.passes.append((*batch[2], before, self._states._streams[batch[2].stream][2], float(outputs['loss'].detach())))
        return outputs


@pytest.mark.parametrize('name', ['darts-1st', 'darts-2nd', 'sdarts-adv'])
def test_passes_of_an_architect_disturb_no_stream(name: str, data: TextDataModule) -> None:
    """Every pass over a batch starts from the same state: the one that the weight step before, or the last α step, ended with."""
    torch.manual_seed(0)
    steps = len(data.train_dataloader())
    strategy = create_strategy(name, learning_rate=0.01)
    model = strategy.mutate_model(DartsRnnSpace(11, 6, 6, 2, dropouts=Dropouts()))
    module = Noted(bptt=6, learning_rate=0.5)
    evaluator = strategy.mutate_evaluator(Lightning(module, trainer(max_epochs=1), datamodule=data))
    evaluator.evaluate(model)
    for stream in ('train', 'architecture'):
        passes = [entry for entry in module.passes if entry[0] == stream]
        ended: Tensor | None = None
        last = 0
        count = 0
        for index, (_, number, before, *_) in enumerate(passes):
            if number != last:
                ended, last = passes[index - 1][3], number
                count += 1
            assert (before is None) if number == 0 else torch.equal(before, ended)
        assert count == steps - 1
    per_step = {'darts-1st': 1, 'darts-2nd': 4, 'sdarts-adv': 1 + 1 + 7 + 1}[name]
    assert len([entry for entry in module.passes if entry[0] == 'train']) == per_step * steps
    if name == 'darts-2nd':  # the ± passes see the masks of the first one
        first, plus, minus, _ = [entry[4] for entry in module.passes if entry[0] == 'train'][:4]
        assert abs(first - (plus + minus) / 2) < 1e-4 < abs(first - module.passes[-1][4])


def encoded(weights: dict[str, Tensor], alphas: list[list[Tensor]], tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and outputs (T, B, …) of a relaxed cell, by the reference, one time step at a time."""
    logits, outputs = [], []
    for row in tokens:
        some, hidden = reference.reference_forward(weights, row[None], hidden, alphas=alphas)
        logits.append(some[0])
        outputs.append(hidden)
    return torch.stack(logits), torch.stack(outputs)


class Kept(SecondOrder):
    """Keeps the weights, the batches and the gradient of its first step."""

    def gradients(self, module: DifferentiableModule, train: TextBatch, valid: TextBatch, index: int, shares: list[float]) -> list[Tensor]:
        weights = {name: weight.detach().clone() for name, weight in module.model.named_parameters()}
        alphas = [alpha.detach().clone() for alpha in module.architecture.arch_parameters()]
        found = super().gradients(module, train, valid, index, shares)
        KEPT.append((weights, alphas, train, valid, found))
        return found


KEPT: list[tuple] = []


@pytest.mark.parametrize('rule', ['exact', 'published'])
def test_alpha_follows_the_bare_loss_after_a_regularised_clipped_step(rule: str, data: TextDataModule) -> None:
    """Against the references: L_t with both regularisers, L_v without, a clipped step of all weights, the tied one among them."""
    torch.manual_seed(0)
    KEPT.clear()
    clip = 0.25
    architect = Kept(hessian='exact', clip_norm=clip if rule == 'exact' else 'published')
    strategy = DifferentiableStrategy(architect=architect, learning_rate=0.01, gradient_clip_val=clip)
    model = strategy.mutate_model(DartsRnnSpace(11, 6, 6, 2, dropouts=NO_DROPOUT))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    module = LanguageModel(bptt=6, learning_rate=0.5, weight_decay=0.01, activation_regularisation=0.3, temporal_regularisation=0.2)
    evaluator = strategy.mutate_evaluator(Lightning(module, trainer(max_epochs=1, limit_train_batches=1), datamodule=data))
    evaluator.evaluate(model)
    weights, alphas, train, valid, found = KEPT[0]

    def parts(batch: TextBatch, w: list[Tensor], a: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        hidden = w[0].new_zeros(batch[0].shape[1], 6)
        logits, outputs = encoded(dict(zip(weights, w)), [a[:1], a[1:]], batch[0], hidden)
        nats = functional.cross_entropy(logits.flatten(0, 1), batch[1])
        return nats, (outputs**2).mean(), ((outputs[1:] - outputs[:-1]) ** 2).mean()

    def train_loss(w: list[Tensor], a: list[Tensor]) -> Tensor:
        nats, activation, slowness = parts(train, w, a)
        return nats + 0.3 * activation + 0.2 * slowness

    def valid_loss(w: list[Tensor], a: list[Tensor]) -> Tensor:
        return parts(valid, w, a)[0]

    def regularised_valid(w: list[Tensor], a: list[Tensor]) -> Tensor:
        nats, activation, slowness = parts(valid, w, a)
        return nats + 0.3 * activation + 0.2 * slowness

    formula = unrolled_gradient if rule == 'exact' else published_clipped_gradient
    settings = {'learning_rate': 0.5 * len(train[0]) / 6, 'clip_norm': clip, 'weight_decay': 0.01}
    expected = formula(train_loss, valid_loss, list(weights.values()), alphas, **settings)
    regularised = formula(train_loss, regularised_valid, list(weights.values()), alphas, **settings)

    def distance(other: list[Tensor]) -> float:
        return float(torch.cat([x - y for x, y in zip(found, other)]).norm() / torch.cat(list(other)).norm())

    assert distance(expected) <= 1e-8
    assert distance(regularised) > 1e-3


def test_through_nnis_own_experiment(data: TextDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models of the space, trained one by one: the one with the lowest perplexity wins."""
    from nni.nas.experiment import NasExperiment

    monkeypatch.setenv('HOME', str(tmp_path))
    strategy = create_strategy('random', samples=3, optimize_mode='minimize')
    module = LanguageModel(bptt=6, learning_rate=1.0, report=True)
    experiment = NasExperiment(DartsRnnSpace(11, 6, 6, 2), Lightning(module, trainer(max_epochs=1), datamodule=data), strategy)
    experiment.run()
    (sample,) = experiment.export_top_models(formatter='dict')
    experiment.stop()
    metrics = [model.metric for model in strategy.trained]
    assert strategy.trained[metrics.index(min(metrics))].sample == sample and len(set(metrics)) == 3
    assert RnnGenotype.from_sample(sample).nodes == 2
    with pytest.raises(ValueError, match='minimise'):
        create_strategy('random', optimize_mode='minimise')
