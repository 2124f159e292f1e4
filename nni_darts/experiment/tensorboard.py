"""Writes TensorBoard files where the button of NNI's page looks for them. Imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ['tensorboard_log']


def tensorboard_log(output: Path) -> Callable[[Mapping[str, Any]], None]:
    """Returns a function that writes an epoch's measurements and the probabilities under α.

    On other machines, and without tensorboard installed, the function does nothing.

    Args:
        output: the trial's output folder, ``EXPERIMENT/environments/local-env/trials/ID``. The button reads
            ``EXPERIMENT/trials/ID/output/tensorboard``.
    """
    if os.environ.get('NNI_PLATFORM') != 'local' or find_spec('tensorboard') is None:
        return lambda record: None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(output.parents[3] / 'trials' / output.name / 'output' / 'tensorboard'))

    def write(record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if isinstance(value, (int, float)) and name not in ('epoch', 'of'):
                writer.add_scalar(name, value, record['epoch'])
        for label, table in record.get('probabilities', {}).items():
            for name, value in table.items():
                writer.add_scalar(f'{label}/{name}', value, record['epoch'])
        writer.flush()

    return write
