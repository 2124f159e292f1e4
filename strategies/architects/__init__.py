"""How the architecture parameters move."""

from nni_darts.strategies.architects.architect import Architect, FirstOrder, SecondOrder
from nni_darts.strategies.architects.gradient import architecture_gradient

__all__ = ['Architect', 'FirstOrder', 'SecondOrder', 'architecture_gradient']
