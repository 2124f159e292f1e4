"""Lightning modules and what surrounds them; NNI's evaluator and trainer, imported without NNI's warnings."""

from nni_darts._nni import Lightning, Trainer
from nni_darts.training.classifier import ImageClassifier

__all__ = ['ImageClassifier', 'Lightning', 'Trainer']
