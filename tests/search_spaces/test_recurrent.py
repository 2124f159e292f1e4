"""The recurrent space against the slow reference, in float64: values, gradients, the second-order gradient of α."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nni_darts import PUBLISHED, RnnGenotype
from nni_darts._nni import model_context
from nni_darts.genotypes.recurrent import ACTIVATIONS
from nni_darts.search_spaces import DartsRnnSpace, Dropouts, network_from_genotype
from nni_darts.search_spaces.recurrent import RecurrentNode
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import BilevelProblem, architecture_gradient
from tests.reference.recurrent import reference_forward, reference_loss
from tests.reference.second_order import unrolled_gradient

RECURRENT = [name for name, genotype in PUBLISHED.items() if isinstance(genotype, RnnGenotype)]
NO_DROPOUT = Dropouts(0, 0, 0, 0, 0)
SIZES = {'vocabulary': 7, 'embedding': 5, 'hidden': 5}
STEPS, BATCH, NODES = 3, 4, 3


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and targets (T, B), and a hidden state."""
    generator = torch.Generator().manual_seed(seed)
    tokens, targets = (torch.randint(SIZES['vocabulary'], (STEPS, BATCH), generator=generator) for _ in range(2))
    return tokens, targets, torch.randn(BATCH, SIZES['hidden'], dtype=torch.float64, generator=generator)


def enlarge(model: torch.nn.Module, scale: float = 12.0) -> torch.nn.Module:
    """Weights so large that every nonlinearity counts."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        model.decoder.bias.uniform_(-1, 1)
    return model


def supernet(execution: str = 'plain', dropouts: Dropouts = NO_DROPOUT, **settings: Any) -> tuple[DifferentiableStrategy, torch.nn.Module]:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(execution=execution, **settings)
    model = enlarge(strategy.mutate_model(DartsRnnSpace(**SIZES, nodes=NODES, dropouts=dropouts)).double())
    strategy.architecture.double()
    torch.manual_seed(1)
    for alpha in strategy.arch_parameters():
        torch.nn.init.normal_(alpha)
    return strategy, model


def nested(alphas: list[Tensor]) -> list[list[Tensor]]:
    """Node → input → α."""
    iterator = iter(alphas)
    return [[next(iterator) for _ in range(state)] for state in range(1, NODES + 1)]


@pytest.mark.parametrize('execution', ['plain', 'fast'])
def test_relaxed_forward_and_gradients(execution: str) -> None:
    strategy, model = supernet(execution)
    tokens, targets, hidden = data()
    alphas, weights = strategy.arch_parameters(), dict(model.named_parameters())
    assert [len(alpha) for alpha in alphas] == [len(ACTIVATIONS)] * 6
    logits, last, outputs, dropped = model(tokens, hidden)
    expected, expected_last = reference_forward(weights, tokens, hidden, alphas=nested(alphas))
    assert logits.shape == (STEPS * BATCH, 7) and outputs.shape == dropped.shape == (STEPS, BATCH, 5)
    torch.testing.assert_close(logits, expected.flatten(0, 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(last, expected_last, rtol=1e-10, atol=1e-10)
    inputs = [*alphas, *weights.values()]
    gradients = torch.autograd.grad(functional.cross_entropy(logits, targets.flatten()), inputs)
    for one, other in zip(gradients, torch.autograd.grad(reference_loss(expected, targets), inputs)):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('execution', ['plain', 'fast'])
@pytest.mark.parametrize(('hessian', 'tolerance'), [('exact', 1e-8), ('finite_difference', 1e-3)])
def test_second_order_gradient(hessian: str, tolerance: float, execution: str) -> None:
    strategy, model = supernet(execution)
    weights, alphas = dict(model.named_parameters()), strategy.arch_parameters()
    (tokens, targets, hidden), (others, other_targets, _) = data(0), data(1)

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(model(tokens, hidden).logits, targets.flatten())

    found = architecture_gradient(
        BilevelProblem(
            lambda: loss(tokens, targets),
            lambda: loss(others, other_targets),
            list(weights.values()),
            alphas,
            learning_rate=0.5,
            buffers=list(model.buffers()),
        ),
        hessian=hessian,
        epsilon=1e-4,
    )

    def reference(tokens: Tensor, targets: Tensor) -> Any:
        return lambda w, a: reference_loss(reference_forward(dict(zip(weights, w)), tokens, hidden, alphas=nested(a))[0], targets)

    expected = unrolled_gradient(
        reference(tokens, targets), reference(others, other_targets), list(weights.values()), alphas, learning_rate=0.5
    )
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize('name', RECURRENT)
def test_networks_compute_what_their_cell_says(name: str) -> None:
    genotype = PUBLISHED[name]
    network = enlarge(network_from_genotype(genotype, **SIZES, dropouts=NO_DROPOUT).double())
    tokens, _, hidden = data()
    expected, last = reference_forward(network.state_dict(), tokens, hidden, genotype=genotype.recurrent, concat=genotype.concat)
    output = network(tokens, hidden)
    torch.testing.assert_close(output.logits, expected.flatten(0, 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(output.hidden, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('seed', range(4))
def test_frozen_space_and_network_compute_the_same(seed: int) -> None:
    genotype = RnnGenotype.random(random.Random(seed), nodes=NODES)
    space = DartsRnnSpace(**SIZES, nodes=NODES, dropouts=NO_DROPOUT)
    tokens, _, hidden = data()
    hidden = hidden.float()
    frozen = space.freeze(genotype.to_sample())
    network = network_from_genotype(genotype, **SIZES, dropouts=NO_DROPOUT, batch_norm=True)
    network.load_state_dict(frozen.state_dict())  # strict
    for mode in (True, False):
        for one, other in zip(frozen.train(mode)(tokens, hidden), network.train(mode)(tokens, hidden)):
            assert torch.equal(one, other)
    with model_context(genotype.to_sample()):
        fresh = DartsRnnSpace(**SIZES, nodes=NODES, dropouts=NO_DROPOUT)
    plain = network_from_genotype(genotype, **SIZES, dropouts=NO_DROPOUT)
    plain.load_state_dict(fresh.state_dict())
    assert torch.equal(fresh(tokens, hidden).logits, plain(tokens, hidden).logits)
    assert sum(isinstance(module, RecurrentNode) for module in fresh.modules()) == NODES


def test_what_is_searched_is_what_is_frozen() -> None:
    """Where α leaves no doubt, the supernet computes what the frozen space computes."""
    genotype = RnnGenotype.random(random.Random(5), nodes=NODES)
    strategy, model = supernet()
    sample = genotype.to_sample()
    for label, decision in strategy.architecture.operations().items():
        with torch.no_grad():
            strategy.architecture.alpha(label).copy_(
                torch.tensor([100.0 * (name == sample[label]) for name in decision.names], dtype=torch.float64)
            )
    assert RnnGenotype.from_sample(strategy.select()) == genotype
    tokens, _, hidden = data()
    torch.testing.assert_close(model(tokens, hidden).logits, model.freeze(sample)(tokens, hidden).logits)


@pytest.mark.parametrize(('name', 'parameters'), [('ENAS-RNN', 27_295_000), ('DARTS_V1-RNN', 22_960_000), ('DARTS_V2-RNN', 22_960_000)])
def test_parameters_of_published_cells(name: str, parameters: int) -> None:
    """850 units, 10,000 words: embedding and decoder share 8,500,000, its bias 10,000; W₀ 2,890,000; each node's matrix 1,445,000."""
    with torch.device('meta'):
        network = network_from_genotype(PUBLISHED[name], vocabulary=10_000)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_masks_stay_over_time_steps() -> None:
    """Every dropout at once: the masks are read off the random state in the order in which the network draws them."""
    dropouts = Dropouts(0.3, 0.2, 0.4, 0.25, 0.5)
    strategy, model = supernet(dropouts=dropouts)
    tokens, _, hidden = data()
    torch.manual_seed(3)

    def draw(shape: tuple[int, ...], probability: float) -> Tensor:
        return torch.empty(shape, dtype=torch.float64).bernoulli_(1 - probability) / (1 - probability)

    masks = {
        'embedding': draw((7, 1), 0.3).flatten(),
        'input': draw((1, BATCH, 5), 0.2)[0],
        'x': draw((1, BATCH, 5), 0.4)[0],
        'hidden': draw((BATCH, 5), 0.25),
        'output': draw((1, BATCH, 5), 0.5)[0],
    }
    expected, _ = reference_forward(dict(model.named_parameters()), tokens, hidden, alphas=nested(strategy.arch_parameters()), masks=masks)
    torch.manual_seed(3)
    torch.testing.assert_close(model(tokens, hidden).logits, expected.flatten(0, 1), rtol=1e-10, atol=1e-10)
    torch.manual_seed(3)
    fast = supernet('fast', dropouts)[1]
    torch.manual_seed(3)
    torch.testing.assert_close(fast(tokens, hidden).logits, expected.flatten(0, 1), rtol=1e-10, atol=1e-10)


def test_evaluation_drops_nothing_and_goes_on_where_it_stopped() -> None:
    network = enlarge(network_from_genotype(PUBLISHED['DARTS_V2-RNN'], **SIZES, dropouts=Dropouts(0.5, 0.5, 0.5, 0.5, 0.5)).double()).eval()
    tokens, _, _ = data()
    whole = network(tokens)
    first = network(tokens[:1])
    torch.testing.assert_close(torch.cat([first.logits, network(tokens[1:], first.hidden).logits]), whole.logits)
    assert torch.equal(whole.outputs, whole.dropped)


def test_labels() -> None:
    labels = DartsRnnSpace(11).simplify()
    assert len(labels) == 36 + 8
    assert labels['recurrent_op_8_7'].values == list(ACTIVATIONS)
    assert labels['recurrent_input_8'].n_chosen == 1 and len(labels['recurrent_input_8'].values) == 8


@pytest.mark.parametrize(
    ('changes', 'names'),
    [({'vocabulary': 0}, 'vocabulary'), ({'hidden': 6}, 'equal'), ({'nodes': 0}, 'nodes')],
)
def test_sizes_that_make_no_network(changes: dict, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        DartsRnnSpace(**{**SIZES, **changes})


def test_options_that_fit_no_recurrent_network() -> None:
    with pytest.raises(ValueError, match='output dropout'):
        Dropouts(output=1.0)
    with pytest.raises(ValueError, match='a recurrent cell has no channels; it has vocabulary'):
        network_from_genotype(PUBLISHED['DARTS_V2-RNN'], 36, 20, vocabulary=7)
