"""The architecture parameters α of a supernet, and what each of them chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ['Architecture', 'InputDecision', 'OperationDecision']

INITIAL_SCALE = 1e-3


@dataclass(frozen=True)
class OperationDecision:
    """One label of NNI's LayerChoice: one of ``names``."""

    names: tuple[Any, ...]


@dataclass(frozen=True)
class InputDecision:
    """One label of NNI's InputChoice: ``chosen`` of ``candidates`` inputs (None: any number of them).

    ``edges`` lists the labels of the operations on the inputs where these are edges of a cell; such a decision has no α.
    """

    candidates: int
    chosen: int | None
    edges: tuple[str, ...] | None = None


class Architecture(nn.Module):
    """All α of a supernet, one parameter for each label, in the order in which the supernet declares them.

    It is no submodule of the supernet: the weights' optimizer never sees α; the search's Lightning module holds it, so α is in every
    checkpoint. Values start at 10⁻³·N(0, 1), as in DARTS.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[str, OperationDecision | InputDecision] = {}
        self._alphas = nn.ParameterDict()

    def declare(self, label: str, decision: OperationDecision | InputDecision) -> None:
        """Adds a decision; the same label again must mean the same decision.

        Raises:
            ValueError: if the label already stands for another one.
        """
        if label in self.decisions:
            if self.decisions[label] != decision:
                raise ValueError(f'label {label!r} is used for two different choices: {self.decisions[label]} and {decision}')
            return
        self.decisions[label] = decision
        if isinstance(decision, OperationDecision) or decision.edges is None:
            size = len(decision.names) if isinstance(decision, OperationDecision) else decision.candidates
            self._alphas[_key(label)] = nn.Parameter(INITIAL_SCALE * torch.randn(size))

    def alpha(self, label: str) -> Tensor:
        """α of a label: (candidates,)"""
        return self._alphas[_key(label)]

    def labels(self) -> list[str]:
        """The labels that have an α, in order."""
        return [label for label in self.decisions if _key(label) in self._alphas]

    def arch_parameters(self) -> list[nn.Parameter]:
        """All α in the order of :meth:`labels`: the same in every run, so an optimizer's state resumes onto the right one."""
        return list(self._alphas.values())

    def operations(self) -> Mapping[str, OperationDecision]:
        """The decisions among operations."""
        return {label: decision for label, decision in self.decisions.items() if isinstance(decision, OperationDecision)}

    def inputs(self) -> Mapping[str, InputDecision]:
        """The decisions among inputs."""
        return {label: decision for label, decision in self.decisions.items() if isinstance(decision, InputDecision)}

    def values(self) -> dict[str, list[float]]:
        """α as plain numbers."""
        return {label: self.alpha(label).detach().tolist() for label in self.labels()}


def _key(label: str) -> str:
    """A parameter's name must not contain a dot."""
    return label.replace('%', '%25').replace('.', '%2E')


def edge_topology(modules: Sequence[nn.Module]) -> dict[str, tuple[str, ...]]:
    """Collects ``topology()`` of all modules that declare one: label of an InputChoice → labels of the LayerChoices on its inputs."""
    found: dict[str, tuple[str, ...]] = {}
    for module in modules:
        topology = getattr(module, 'topology', None)
        if callable(topology):
            found.update({label: tuple(edges) for label, edges in topology().items()})
    return found
