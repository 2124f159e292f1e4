"""Training with Lightning: modules, callbacks, checkpoints, and NNI's evaluator and trainer, imported without NNI's warnings."""

from nni_darts._nni import Lightning, Trainer
from nni_darts.training.classifier import ImageClassifier
from nni_darts.training.language import LanguageModel

__all__ = ['ImageClassifier', 'LanguageModel', 'Lightning', 'Trainer']
