"""The space under NNI's own multi-trial strategies."""

from __future__ import annotations

from pathlib import Path

import nni
import pytest
import torch

from nni_darts import Genotype
from nni_darts.search_spaces import DartsSpace, network_from_genotype

SMALL = {'channels': 2, 'cells': 3, 'num_classes': 3, 'in_channels': 1}


def measure(model: torch.nn.Module) -> None:
    """What a user's evaluation function does: here the number of parameters of the fixed network."""
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    nni.report_final_result(float(sum(parameter.numel() for parameter in model.parameters())))


@pytest.mark.parametrize('name', ['Random', 'RegularizedEvolution'])
def test_multi_trial_strategies(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nni.nas.strategy as strategies
    from nni.nas.evaluator import FunctionalEvaluator
    from nni.nas.experiment import NasExperiment
    from nni.nas.experiment.config import NasExperimentConfig

    monkeypatch.chdir(tmp_path)
    made = strategies.Random() if name == 'Random' else strategies.RegularizedEvolution(population_size=2, sample_size=2)
    config = NasExperimentConfig(execution_engine='sequential', model_format='simplified', training_service_platform='local')
    config.execution_engine.max_model_count = 4
    config.max_trial_number = 4
    experiment = NasExperiment(DartsSpace(nodes=2, **SMALL), FunctionalEvaluator(measure), made, config)
    experiment.run()
    (best,) = experiment.export_top_models(formatter='dict')
    experiment.stop()
    genotype = Genotype.from_sample(best)
    network = network_from_genotype(genotype, **SMALL)
    metrics = [model.metric for model in experiment.strategy.list_models(limit=None)]
    assert len(metrics) >= 4
    assert sum(parameter.numel() for parameter in network.parameters()) == max(metrics)
