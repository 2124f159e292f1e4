"""A search from Python, with NNI's NasExperiment: five steps from a space to a trained network's cost. About three minutes on one core.

python examples/python_api.py
"""

from __future__ import annotations

from nni_darts import Genotype, Recipe
from nni_darts.data import ImageDataModule, load_images
from nni_darts.report.cost import network_cost
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import create_strategy
from nni_darts.training import ImageClassifier, Lightning, Trainer

EPOCHS = 4


def main() -> None:
    """Space, data, evaluator, strategy, experiment."""
    from nni.nas.experiment import NasExperiment

    settings = Recipe.load('digits').data
    space = DartsSpace(channels=8, cells=3, nodes=3, num_classes=10, in_channels=1)
    images = ImageDataModule(load_images(settings), settings, train_portion=0.5, batch_size=64, seed=1)
    trainer = Trainer(max_epochs=EPOCHS, devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False)
    evaluator = Lightning(ImageClassifier(num_classes=10, epochs=EPOCHS), trainer, datamodule=images)
    strategy = create_strategy('darts-2nd', learning_rate=3e-3)

    experiment = NasExperiment(space, evaluator, strategy)
    experiment.run()

    genotype = Genotype.from_sample(experiment.export_top_models(formatter='dict')[0])
    print(genotype.to_text())
    print(network_cost(genotype, channels=16, cells=5, num_classes=10, in_channels=1, image_size=(8, 8)))
    experiment.stop()


if __name__ == '__main__':
    main()
