"""Errors that are explained in terms of the user's input."""

from __future__ import annotations

__all__ = ['InputError', 'RankLost', 'sentence']


class InputError(ValueError):
    """Something the user gave is wrong: the message is one sentence that names it and says what is allowed.

    The command line prints it alone and ends with exit code 2; the tuner reports it to NNI as the experiment's error.
    """


class RankLost(RuntimeError):
    """A run on several devices cannot continue, because one of its processes ended, fell silent or differs: one sentence."""


def sentence(text: str) -> str:
    """Ends a message with the full stop that it lacks, since it may also stand within a longer one."""
    return text if text.endswith(('.', '!', '?')) else f'{text}.'
