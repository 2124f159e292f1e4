"""DARTS-ES: a search ends when its minimum becomes sharp (Zela et al., ICLR 2020, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from nni_darts.strategies.settings import Settings, setting

__all__ = ['NOT_BEFORE_DECISIONS', 'NOT_WITHOUT_ALPHA', 'EarlyStopping', 'early_stopping']

NOT_WITHOUT_ALPHA = 'early_stopping watches how α is trained by gradients, and this strategy does not train it that way'
NOT_BEFORE_DECISIONS = 'early_stopping would leave edges undecided: this selection spreads its decisions over the whole search'
"""Reasons why some strategies cannot stop early."""


class EarlyStopping(Settings):
    """Stops a search when the smoothed dominant eigenvalue of ∇²α L_v has grown too much, and returns an earlier architecture.

    With λ(i) the eigenvalue after epoch i, and λ̄(i) its mean over the ``window`` of epochs around i, the search stops if
    ``λ̄(i − lag) / λ̄(i) < ratio``, and the architecture is that of epoch i − lag. λ̄(i) is known half a window after epoch i. The
    eigenvalue is measured on the first validation batch, with the statistics of this batch.

    Raises:
        ValueError: for a setting outside its range.
    """

    window: Annotated[int, Field(ge=1)] = setting(5, 'epochs that each mean of eigenvalues is over, an odd number')
    lag: Annotated[int, Field(ge=1)] = setting(5, 'epochs between the two means that are compared')
    ratio: Annotated[float, Field(ge=0, le=1)] = setting(
        0.75, 'the search stops once the earlier mean is below this part of the later one; 0 never stops and only measures'
    )
    iterations: Annotated[int, Field(ge=1)] = setting(30, 'Hessian-vector products at most for each eigenvalue')

    @field_validator('window')
    @classmethod
    def _around_an_epoch(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f'window must be odd, so that it lies around an epoch, not {value}')
        return value

    def stops_for(self, eigenvalues: Sequence[float]) -> int | None:
        """Returns the index of the epoch whose architecture is returned, or None to continue.

        Args:
            eigenvalues: eigenvalues of all epochs so far.
        """
        half = self.window // 2
        latest = len(eigenvalues) - 1 - half
        earlier = latest - self.lag
        if earlier < half:
            return None
        now, before = (sum(eigenvalues[at - half : at + half + 1]) / self.window for at in (latest, earlier))
        return earlier if now > 0 and before < self.ratio * now else None


def early_stopping(value: EarlyStopping | dict[str, Any] | bool) -> EarlyStopping | None:
    """Returns early stopping for a setting in a recipe: true, false, or a mapping of values that differ from the published ones.

    Raises:
        ValueError: for any other setting.
    """
    names = list(EarlyStopping.model_fields)
    if isinstance(value, EarlyStopping):
        return value
    if isinstance(value, bool):
        return EarlyStopping() if value else None
    if not isinstance(value, dict):
        raise ValueError(f'early_stopping must be true, false or a mapping of {", ".join(names)}, not {value!r}')
    for name in value:
        if name not in names:
            raise ValueError(f'early_stopping has no setting {name!r}; it has {", ".join(names)}')
    try:
        return EarlyStopping(**value)
    except ValueError as error:
        raise ValueError(f'early_stopping: {error}') from None
