"""The base class of all relaxed modules."""

from __future__ import annotations

from typing import Any

from nni_darts._nni import BaseSuperNetModule

__all__ = ['RelaxedModule']


class RelaxedModule(BaseSuperNetModule):
    """Base class of the modules that replace NNI's mutables in a supernet.

    In NNI's one-shot protocol they resample nothing, because a strategy that samples paths draws them itself, and they export nothing,
    because the strategy's selection exports all choices together.
    """

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Returns nothing to resample."""
        return {}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Returns nothing: the strategy's selection exports all choices together."""
        return {}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Returns nothing: the strategy exports the probabilities."""
        return {}

    def check_contains(self, sample: dict[str, Any]) -> Any:
        """Returns no error: a wrong value is found when the sample is looked up."""
        return None
