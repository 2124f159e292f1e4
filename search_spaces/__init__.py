"""What can be chosen: model spaces made of NNI's LayerChoice and InputChoice. Knows no strategy."""

from nni_darts.genotype import DARTS_OPERATIONS
from nni_darts.search_spaces.cnn import DartsSpace, network_from_genotype

__all__ = ['DARTS_OPERATIONS', 'DartsSpace', 'network_from_genotype']
