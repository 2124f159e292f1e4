"""DARTS-ES: a search ends when its minimum becomes sharp (Zela et al., ICLR 2020, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from nni_darts.strategies.settings import Settings, setting

__all__ = ['NOT_BEFORE_DECISIONS', 'NOT_DIFFERENTIABLE_TWICE', 'NOT_WITHOUT_ALPHA', 'EarlyStopping', 'SkipStopping', 'early_stopping']

NOT_WITHOUT_ALPHA = 'early_stopping watches how α is trained by gradients, and this strategy does not train it that way'
NOT_BEFORE_DECISIONS = 'early_stopping would leave edges undecided: this selection spreads its decisions over the whole search'
NOT_DIFFERENTIABLE_TWICE = (
    'early_stopping measures second derivatives in α, and weights drawn from a Dirichlet distribution have first ones only'
)
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


class SkipStopping(Settings):
    """Stops a search when the normal cell has too many skip connections (DARTS+, Liang et al., 2019, criterion 1).

    The cell is derived after every epoch in which α moves, and that of the epoch in which the search stops is returned. The paper's second
    criterion, a ranking of α that stays the same for some epochs, is not used.

    Raises:
        ValueError: for a setting outside its range.
    """

    skips: Annotated[int, Field(ge=1)] = setting(2, 'the search stops once the normal cell has so many skip connections')


def early_stopping(value: Any) -> EarlyStopping | SkipStopping | None:
    """Returns early stopping for a setting in a recipe: true, false, or a mapping of values that differ from the published ones.

    Raises:
        ValueError: for any other setting.
    """
    kind: type[EarlyStopping | SkipStopping] = SkipStopping if isinstance(value, dict) and 'skips' in value else EarlyStopping
    names = list(kind.model_fields)
    if isinstance(value, (EarlyStopping, SkipStopping)):
        return value
    if isinstance(value, bool):
        return EarlyStopping() if value else None
    if not isinstance(value, dict):
        raise ValueError(f'early_stopping must be true, false or a mapping of {", ".join(names)}, not {value!r}')
    for name in value:
        if name not in names:
            raise ValueError(f'early_stopping has no setting {name!r}; it has {", ".join(names)}')
    try:
        return kind(**value)
    except ValueError as error:
        raise ValueError(f'early_stopping: {error}') from None
