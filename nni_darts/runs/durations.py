"""Durations in the form in which users write them. Imports no torch."""

from __future__ import annotations

import re

from nni_darts.errors import InputError

__all__ = ['parse_duration']

UNITS = {'d': 86400, 'h': 3600, 'm': 60, 's': 1}
DURATION = re.compile(''.join(rf'(?:(\d+(?:\.\d+)?){unit})?' for unit in UNITS))


def parse_duration(text: str, where: str) -> float:
    """Returns the seconds of a duration such as ``2h``, ``90s``, ``1h30m`` or ``1.5d``.

    Args:
        text: the duration.
        where: the option or key that has it, for the message.

    Raises:
        InputError: if the text is not a duration, or the duration is zero.
    """
    match = DURATION.fullmatch(text.strip())
    seconds = sum(float(value) * UNITS[unit] for value, unit in zip(match.groups(), UNITS) if value) if match else 0.0
    if not seconds:
        raise InputError(f'{where} {text!r} is not a duration: write for example 90s, 20m, 2h or 1h30m.')
    return seconds
