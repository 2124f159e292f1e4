"""NNI's own multi-trial strategies on a space of this package, in NasExperiment in this process. It takes about a minute on one core.

python examples/nni_strategies.py

docs/baselines.md says which of NNI's strategies work on which space.
"""

from __future__ import annotations

from typing import Any

from nni_darts import Recipe
from nni_darts.data import ImageDataModule, load_images
from nni_darts.genotypes import genotype_from_sample
from nni_darts.search_spaces import DartsSpace
from nni_darts.training import ImageClassifier, Trainer

MODELS = 4
EPOCHS = 2


def evaluate(model: Any) -> None:
    """Trains one model from scratch; ``report=True`` sends its validation accuracy to NNI.

    This is a function because a Lightning evaluator can only be used for the first model: its trainer is finished after that.
    """
    settings = Recipe.load('digits').data
    images = ImageDataModule(load_images(settings), settings, train_portion=0.7, batch_size=64, seed=1)
    trainer = Trainer(max_epochs=EPOCHS, devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False)
    module = ImageClassifier(num_classes=10, epochs=EPOCHS, report=True)
    module.set_model(model)
    trainer.fit(module, datamodule=images)


def main() -> None:
    """Space, evaluator, strategy, experiment."""
    from nni.nas.evaluator import FunctionalEvaluator
    from nni.nas.experiment import NasExperiment
    from nni.nas.experiment.config import NasExperimentConfig
    from nni.nas.strategy import RegularizedEvolution

    space = DartsSpace(channels=8, cells=3, nodes=3, num_classes=10, in_channels=1)
    strategy = RegularizedEvolution(population_size=2, sample_size=2, seed=1)  # or Random(seed=1), GridSearch(seed=1)
    config = NasExperimentConfig(execution_engine='sequential', model_format='simplified', training_service_platform='local')
    config.execution_engine.max_model_count = MODELS
    experiment = NasExperiment(space, FunctionalEvaluator(evaluate), strategy, config)
    experiment.run()

    for model in strategy.list_models(limit=None):
        print(f'{model.metric:.4f}', genotype_from_sample(model.sample).to_text())
    experiment.stop()


if __name__ == '__main__':
    main()
