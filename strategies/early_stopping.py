"""DARTS-ES: a search ends when its minimum gets sharp (Zela et al., ICLR 2020, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from nni_darts.strategies.settings import check_whole

__all__ = ['EarlyStopping', 'early_stopping']


@dataclass(frozen=True)
class EarlyStopping:
    """Stops a search when the dominant eigenvalue of ∇²α L_v, smoothed, has grown too much, and returns an earlier architecture.

    With λ(i) the eigenvalue after epoch i and λ̄(i) its mean over the ``window`` of epochs around i, the search stops if
    ``λ̄(i − lag) / λ̄(i) < ratio``, and the architecture is that of epoch i − lag. λ̄(i) is known half a window after epoch i. The
    eigenvalue is that on the first validation batch, with the statistics of this batch.

    Args:
        window: of the mean, an odd number of epochs.
        lag: how many epochs apart the two means are.
        ratio: 0 never stops, and the eigenvalue is only measured.
        iterations: Hessian-vector products at most for each eigenvalue.

    Raises:
        ValueError: for a setting outside its range.
    """

    window: int = 5
    lag: int = 5
    ratio: float = 0.75
    iterations: int = 30

    def __post_init__(self) -> None:
        for name in ('window', 'lag', 'iterations'):
            check_whole(f'early_stopping: {name}', getattr(self, name))
        if self.window % 2 == 0:
            raise ValueError(f'early_stopping: window must be odd, so that it lies around an epoch, not {self.window}')
        if not isinstance(self.ratio, (int, float)) or isinstance(self.ratio, bool) or not 0 <= self.ratio <= 1:
            raise ValueError(f'early_stopping: ratio must lie in [0, 1], not {self.ratio!r}')

    def stops_for(self, eigenvalues: Sequence[float]) -> int | None:
        """The index of the epoch whose architecture is returned, or None to go on; ``eigenvalues`` are those of all epochs so far."""
        half = self.window // 2
        latest = len(eigenvalues) - 1 - half
        earlier = latest - self.lag
        if earlier < half:
            return None
        now, before = (sum(eigenvalues[at - half : at + half + 1]) / self.window for at in (latest, earlier))
        return earlier if now > 0 and before < self.ratio * now else None


def early_stopping(value: EarlyStopping | dict[str, Any] | bool) -> EarlyStopping | None:
    """From a setting as in YAML: true, false, or a mapping of what differs from the published values.

    Raises:
        ValueError: for anything else.
    """
    names = [field.name for field in fields(EarlyStopping)]
    if isinstance(value, EarlyStopping):
        return value
    if isinstance(value, bool):
        return EarlyStopping() if value else None
    if not isinstance(value, dict):
        raise ValueError(f'early_stopping must be true, false or a mapping of {", ".join(names)}, not {value!r}')
    for name in value:
        if name not in names:
            raise ValueError(f'early_stopping has no setting {name!r}; it has {", ".join(names)}')
    return EarlyStopping(**value)
