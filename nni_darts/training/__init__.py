"""Lightning modules and what surrounds them."""

from nni_darts.training.classifier import ImageClassifier

__all__ = ['ImageClassifier']
