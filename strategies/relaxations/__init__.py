"""What a choice computes while searching."""

from nni_darts.strategies.relaxations.softmax import Relaxation, Softmax

__all__ = ['Relaxation', 'Softmax']
