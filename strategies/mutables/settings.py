"""The settings among which the labels of a parametrised module choose: every joint value of its labels, with the arguments that result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nni_darts._nni import Categorical, Mutable

__all__ = ['Settings', 'value_labels']

_MOST_JOINT_VALUES = 20_000


@dataclass(frozen=True)
class Settings:
    """The distinct settings of a module whose arguments are expressions of labels.

    Two joint values of the labels that give equal arguments are one setting. So an expectation over settings is one over *joint* values:
    where one label stands in several arguments, no product of marginals is taken.

    Attributes:
        labels: label → candidates, in the order in which the labels first occur.
        arguments: name of each argument → value, for each distinct setting.
        of_joint: index of the setting of each joint value; the last label varies fastest.
    """

    labels: Mapping[str, tuple[Any, ...]]
    arguments: tuple[Mapping[str, Any], ...]
    of_joint: tuple[int, ...]

    @classmethod
    def of(cls, arguments: Mapping[str, Any], where: str) -> Settings:
        """Enumerates the settings of arguments, some of which are NNI mutables.

        Args:
            arguments: name → value, or mutable.
            where: description of the module, for messages.

        Raises:
            ValueError: if a label is not a choice among values, or there are too many joint values.
        """
        labels = value_labels(arguments.values(), where)
        count = math.prod(map(len, labels.values()))
        if count > _MOST_JOINT_VALUES:
            raise ValueError(
                f'{where} depends on {len(labels)} labels with {count:,} joint values; at most {_MOST_JOINT_VALUES:,} can be searched'
            )
        distinct: dict[tuple[Any, ...], int] = {}
        found: list[Mapping[str, Any]] = []
        of_joint = []
        for values in itertools.product(*labels.values()):
            sample = dict(zip(labels, values))
            setting = {name: value.evaluate(sample) if isinstance(value, Mutable) else value for name, value in arguments.items()}
            key = tuple((type(value).__name__, str(value)) for value in setting.values())
            if key not in distinct:
                distinct[key] = len(found)
                found.append(setting)
            of_joint.append(distinct[key])
        return cls(labels, tuple(found), tuple(of_joint))

    def __len__(self) -> int:
        return len(self.arguments)

    def index(self, chosen: Sequence[int]) -> int:
        """Returns the setting of a joint value, which is given as the index of each label's candidate."""
        position = 0
        for candidates, index in zip(self.labels.values(), chosen):
            position = position * len(candidates) + index
        return self.of_joint[position]

    def index_of(self, sample: Mapping[str, Any]) -> int:
        """Returns the setting of an NNI sample."""
        return self.index([candidates.index(sample[label]) for label, candidates in self.labels.items()])

    def sample_of(self, setting: int) -> dict[str, Any]:
        """Returns the first joint value, as label → candidate, that gives a setting."""
        position = self.of_joint.index(setting)
        sample = {}
        for label, candidates in reversed(list(self.labels.items())):
            position, index = divmod(position, len(candidates))
            sample[label] = candidates[index]
        return sample

    def weights(self, factors: Sequence[Tensor]) -> Tensor:
        """Returns the weight of each setting, (settings,), from the weights of each label's candidates, (candidates,).

        The labels are independent of each other, so the weight of a joint value is a product, and that of a setting the sum over the
        joint values that give it.
        """
        joint = factors[0]
        for factor in factors[1:]:
            joint = torch.outer(joint, factor).flatten()
        return joint.new_zeros(len(self)).index_add(0, torch.tensor(self.of_joint, device=joint.device), joint)

    def varying(self) -> list[str]:
        """Returns the names of the arguments that differ between settings."""
        return [name for name, value in self.arguments[0].items() if any(other[name] != value for other in self.arguments[1:])]

    def column(self, name: str) -> list[Any]:
        """Returns the value of an argument in each setting."""
        return [setting[name] for setting in self.arguments]


def value_labels(values: Any, where: str) -> dict[str, tuple[Any, ...]]:
    """Returns label → candidates of the mutables among values, in the order in which the labels first occur.

    Raises:
        ValueError: if a label is not a choice among values, as ``nni.choice`` makes it.
    """
    labels: dict[str, tuple[Any, ...]] = {}
    for value in values:
        for label, leaf in value.simplify().items() if isinstance(value, Mutable) else ():
            if not isinstance(leaf, Categorical):
                raise ValueError(
                    f'{where}: {str(label)!r} is a {type(leaf).__name__}, which no supernet can hold; make it a choice among values '
                    '(nni.choice), or use random, which trains models one by one'
                )
            labels[str(label)] = tuple(leaf.values)
    return labels
