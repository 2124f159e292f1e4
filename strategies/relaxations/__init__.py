"""Relaxations: how a choice is computed during the search."""

from nni_darts.strategies.relaxations.auxiliary_skip import AuxiliarySkip
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.relaxations.dirichlet import DirichletWeights
from nni_darts.strategies.relaxations.drop_path import DropPath
from nni_darts.strategies.relaxations.gumbel import Gumbel
from nni_darts.strategies.relaxations.partial import PartialChannels
from nni_darts.strategies.relaxations.partial_simplex import PartialSimplex
from nni_darts.strategies.relaxations.paths import SampledPaths
from nni_darts.strategies.relaxations.perturbed import AdversarialSoftmax, RandomSoftmax
from nni_darts.strategies.relaxations.proxyless import BinaryGates
from nni_darts.strategies.relaxations.reinmax import ReinMax
from nni_darts.strategies.relaxations.sigmoid import Sigmoid
from nni_darts.strategies.relaxations.simplex import Simplex
from nni_darts.strategies.relaxations.skip_dropout import SkipDropout
from nni_darts.strategies.relaxations.snas import Concrete
from nni_darts.strategies.relaxations.softmax import Fixed, Softmax

__all__ = [
    'AdversarialSoftmax',
    'AuxiliarySkip',
    'DirichletWeights',
    'DropPath',
    'BinaryGates',
    'Concrete',
    'Fixed',
    'Gumbel',
    'PartialChannels',
    'PartialSimplex',
    'RandomSoftmax',
    'ReinMax',
    'Relaxation',
    'SampledPaths',
    'Sigmoid',
    'Simplex',
    'SkipDropout',
    'Softmax',
]
