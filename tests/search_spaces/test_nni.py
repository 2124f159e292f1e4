"""The spaces under NNI's own multi-trial strategies: what docs/baselines.md says of them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nni
import pytest
import torch

from nni_darts._nni import ModelSpace
from nni_darts.genotypes import genotype_from_sample
from nni_darts.search_spaces import DartsSpace, NasBench201Space, network_from_genotype

SMALL = {'channels': 2, 'cells': 3, 'num_classes': 3, 'in_channels': 1}


def measure(model: torch.nn.Module) -> None:
    """What a user's evaluation function does: here the number of parameters of the fixed network."""
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    nni.report_final_result(float(sum(parameter.numel() for parameter in model.parameters())))


def made(name: str) -> Any:
    import nni.nas.strategy as strategies

    settings = {'RegularizedEvolution': {'population_size': 2, 'sample_size': 2}}
    return getattr(strategies, name)(**settings.get(name, {}))


def space(name: str) -> ModelSpace:
    return DartsSpace(nodes=2, **SMALL) if name == 'darts' else NasBench201Space(**SMALL)


def run(strategy: Any, searched: ModelSpace) -> dict[str, Any]:
    """Tries four models; returns the sample of the best."""
    from nni.nas.evaluator import FunctionalEvaluator
    from nni.nas.experiment import NasExperiment
    from nni.nas.experiment.config import NasExperimentConfig

    config = NasExperimentConfig(execution_engine='sequential', model_format='simplified', training_service_platform='local')
    config.execution_engine.max_model_count = 4
    config.max_trial_number = 4
    experiment = NasExperiment(searched, FunctionalEvaluator(measure), strategy, config)
    try:
        experiment.run()
        (best,) = experiment.export_top_models(formatter='dict')
        return best
    finally:
        experiment.stop()


@pytest.mark.parametrize(
    ('name', 'where'),
    [
        *((name, where) for name in ('Random', 'RegularizedEvolution', 'GridSearch') for where in ('darts', 'nasbench201')),
        ('TPE', 'nasbench201'),
    ],
)
def test_strategies_that_work(name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    strategy = made(name)
    genotype = genotype_from_sample(run(strategy, space(where)))
    network = network_from_genotype(genotype, **SMALL)
    metrics = [model.metric for model in strategy.list_models(limit=None)]
    assert len(metrics) >= 4
    assert sum(parameter.numel() for parameter in network.parameters()) == max(metrics)


def test_tpe_cannot_choose_two_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotImplementedError, match='CategoricalMultiple'):
        run(made('TPE'), space('darts'))


@pytest.mark.skipif(find_spec('tianshou') is not None, reason='tianshou is installed')
def test_policy_gradients_need_tianshou() -> None:
    with pytest.raises(ImportError, match='tianshou'):
        made('PolicyBasedRL')
