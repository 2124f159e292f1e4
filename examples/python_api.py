"""A search from Python, in notebook cells (# %% begins a cell in editors that support them). It takes about three minutes on one core.

python examples/python_api.py
"""

# %% Data: scikit-learn's digits; half of the training images for the weights, half for α
from __future__ import annotations

from pathlib import Path

from nni.nas.experiment import NasExperiment

from nni_darts import Genotype, Recipe
from nni_darts.data import ImageDataModule, load_images
from nni_darts.report.cost import network_cost
from nni_darts.report.drawing import cell_svg
from nni_darts.search_spaces import DartsSpace, network_from_genotype
from nni_darts.strategies import create_strategy
from nni_darts.training import ImageClassifier, Lightning, Trainer

EPOCHS = 4
settings = Recipe.load('digits').data
images = ImageDataModule(load_images(settings), settings, train_portion=0.5, batch_size=64, seed=1)
trainer = Trainer(max_epochs=EPOCHS, devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False)

# %% Five lines from space to genotype
space = DartsSpace(channels=8, cells=3, nodes=3, num_classes=10, in_channels=1)
evaluator = Lightning(ImageClassifier(num_classes=10, epochs=EPOCHS), trainer, datamodule=images)
experiment = NasExperiment(space, evaluator, create_strategy('darts-2nd', learning_rate=3e-3))
experiment.run()
genotype = Genotype.from_sample(experiment.export_top_models(formatter='dict')[0])

# %% What was found: as text, as a picture, and as a network to train
print(genotype.to_text())
Path('cell.svg').write_text(cell_svg(genotype), 'utf-8')
network = network_from_genotype(genotype, channels=16, cells=5, num_classes=10, in_channels=1)
print(network_cost(genotype, channels=16, cells=5, num_classes=10, in_channels=1, image_size=(8, 8)))
experiment.stop()
