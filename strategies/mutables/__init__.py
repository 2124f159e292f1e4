"""How each of NNI's mutables beyond ``LayerChoice`` and ``InputChoice`` is relaxed."""

from nni_darts.strategies.mutables.base import RelaxedValues
from nni_darts.strategies.mutables.hooks import value_hook

__all__ = ['RelaxedValues', 'value_hook']
