"""Architects: how the architecture parameters are trained."""

from nni_darts.strategies.architects.architect import Architect, Coordinate, FirstOrder, Joint, SecondOrder, SingleLevel
from nni_darts.strategies.architects.curvature import dominant_eigenvalue
from nni_darts.strategies.architects.gradient import BilevelProblem, architecture_gradient
from nni_darts.strategies.architects.idarts import Implicit
from nni_darts.strategies.architects.reinforce import Reinforce

__all__ = [
    'Architect',
    'BilevelProblem',
    'Coordinate',
    'FirstOrder',
    'Implicit',
    'Joint',
    'Reinforce',
    'SecondOrder',
    'SingleLevel',
    'architecture_gradient',
    'dominant_eigenvalue',
]
