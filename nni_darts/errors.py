"""Errors that are explained in terms of the user's input."""

from __future__ import annotations

__all__ = ['InputError', 'RankLost', 'sentence']


class InputError(ValueError):
    """Something in the user's input is wrong. The message is one sentence that names it and says what is allowed.

    The command line prints it alone and ends with exit code 2; the tuner reports it to NNI as the experiment's error.
    """


class RankLost(RuntimeError):
    """A run on several devices cannot continue, because one of its processes ended, stopped responding or differs. It is one sentence."""


def sentence(text: str) -> str:
    """Returns a message with a full stop at its end. Messages lack it because they may also be part of a longer sentence."""
    return text if text.endswith(('.', '!', '?')) else f'{text}.'
