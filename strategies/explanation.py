"""The form of an explanation of a strategy. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ['Explanation', 'Paper']


@dataclass(frozen=True)
class Paper:
    """Where a method comes from.

    Attributes:
        title: as published.
        arxiv: its number on arXiv; empty if it is not there.
        page: address of its page where it is not on arXiv.

    Example:
        >>> Paper('DARTS: Differentiable Architecture Search', '1806.09055').url
        'https://arxiv.org/abs/1806.09055'
    """

    title: str
    arxiv: str = ''
    page: str = ''

    @property
    def url(self) -> str:
        """Its page, on arXiv if it is there."""
        return f'https://arxiv.org/abs/{self.arxiv}' if self.arxiv else self.page


@dataclass(frozen=True)
class Explanation:
    """The explanation of a method for someone who decides whether to use it.

    Attributes:
        idea: two or three sentences.
        when: one or two sentences on when to use it, and when not.
        papers: where it was published; the first is the method's own.
        cost: passes over the training data in a search of 50 epochs, relative to ``darts-1st``; None where it trains no supernet.
        cost_note: a sentence about costs that ``cost`` leaves out; may be empty.

    Example:
        >>> EXPLANATIONS['darts-1st'].cost
        1.0
    """

    idea: str
    when: str
    papers: tuple[Paper, ...]
    cost: float | None = None
    cost_note: str = ''
