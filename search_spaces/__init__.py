"""Model spaces made of NNI's LayerChoice and InputChoice. They do not depend on any strategy."""

from nni_darts.genotypes.convolutional import DARTS_OPERATIONS
from nni_darts.search_spaces.cnn import DartsSpace
from nni_darts.search_spaces.nasbench201 import NasBench201Space
from nni_darts.search_spaces.networks import network_from_genotype
from nni_darts.search_spaces.recurrent import DartsRnnSpace, Dropouts
from nni_darts.search_spaces.reduced import S1, S2, S3, S4, S5

__all__ = [
    'DARTS_OPERATIONS',
    'S1',
    'S2',
    'S3',
    'S4',
    'S5',
    'DartsRnnSpace',
    'DartsSpace',
    'Dropouts',
    'NasBench201Space',
    'network_from_genotype',
]
