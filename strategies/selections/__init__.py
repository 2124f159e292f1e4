"""How an architecture is read out of a searched supernet."""

from nni_darts.strategies.selections.greedy import Greedy
from nni_darts.strategies.selections.magnitude import Magnitude, Selection
from nni_darts.strategies.selections.perturbation import Perturbation, ProgressiveMagnitude
from nni_darts.strategies.selections.progressive import Progressive
from nni_darts.strategies.selections.ranking import Ranking
from nni_darts.strategies.selections.scoring import Scoring
from nni_darts.strategies.selections.shapley import Shapley
from nni_darts.strategies.selections.threshold import Threshold

__all__ = [
    'Greedy',
    'Magnitude',
    'Perturbation',
    'Progressive',
    'ProgressiveMagnitude',
    'Ranking',
    'Scoring',
    'Selection',
    'Shapley',
    'Threshold',
]
