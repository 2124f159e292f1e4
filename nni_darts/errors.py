"""Errors that are explained in terms of the user's input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ['InputError', 'RankLost', 'did_you_mean', 'sentence']


class InputError(ValueError):
    """Something in the user's input is wrong. The message is one sentence that names it and says what is allowed.

    The command line prints it alone and ends with exit code 2; the tuner reports it to NNI as the experiment's error.
    """


class RankLost(RuntimeError):
    """A run on several devices cannot continue, because one of its processes ended, stopped responding or differs. It is one sentence."""


def did_you_mean(name: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns a hint for a message about an unknown name, with a space before it: `` (did you mean 'cifar10'?)``; '' if no name is close.

    Args:
        name: the unknown name.
        known: the names that are allowed.
        cutoff: similarity from which a name counts as close, from 0 to 1.
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f' (did you mean {close[0]!r}?)' if close else ''


def sentence(text: str) -> str:
    """Returns a message with a full stop at its end. Messages lack it because they may also be part of a longer sentence."""
    return text if text.endswith(('.', '!', '?')) else f'{text}.'
