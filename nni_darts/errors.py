"""What went wrong in terms of the user's input."""

from __future__ import annotations

__all__ = ['InputError']


class InputError(ValueError):
    """Something the user gave is wrong: the message is one sentence that names it and says what is allowed.

    The command line prints it alone and ends with exit code 2; the tuner reports it to NNI as the experiment's error.
    """
