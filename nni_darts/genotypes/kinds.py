"""The kinds of spaces that a recipe can name: their settings, their cells, and where their supernets and networks are built.

A kind is the class of a recipe's section ``space``. Those of this package are found by name; any other NNI ``ModelSpace`` is named
``package.module:Class``, or by the name under which an installed package registers it as an entry point in the group ``nni_darts.spaces``.
Imports no torch: supernets and networks are named by import paths.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from nni_darts._lazy import check_module, imported
from nni_darts.errors import did_you_mean
from nni_darts.genotypes.base import AnyGenotype, is_import_path
from nni_darts.genotypes.candidates import REDUCED, Candidates, edge_candidates
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS, Genotype
from nni_darts.genotypes.nasbench201 import NasBench201Genotype
from nni_darts.genotypes.neighbours import NASBENCH201_CHOICES, Choices, darts_choices, recurrent_choices
from nni_darts.genotypes.networks import KnownNetwork
from nni_darts.genotypes.recurrent import RnnGenotype
from nni_darts.genotypes.sample import SampleGenotype
from nni_darts.genotypes.space import Names, Positive, Space

__all__ = ['CellSpace', 'NasBench201Space', 'OwnSpace', 'RecurrentSpace', 'space_kind', 'space_summaries']

ENTRY_POINTS = 'nni_darts.spaces'
"""The group of entry points: name → ``package.module:Class``."""


class CellSpace(Space):
    """The space of convolutional cells: ``darts`` with any ``operations`` and ``nodes``, or a reduced space, which fixes both.

    ``operations`` may include a user's own, named ``package.module:Class``: a callable (channels, stride) → ``nn.Module``.
    """

    sizes: ClassVar[tuple[str, ...]] = ('channels', 'cells')

    name: Literal['darts', 's1', 's2', 's3', 's4', 's5'] = 'darts'
    channels: Positive
    cells: Annotated[int, Field(ge=3)]
    nodes: Annotated[int, Field(ge=1, le=6)] = 4
    stem: Literal['cifar', 'imagenet'] = 'cifar'
    operations: Names = DARTS_OPERATIONS

    @model_validator(mode='after')
    def _operations(self) -> CellSpace:
        edge_candidates(self.operations, self.nodes)
        for operation in self.operations:
            if is_import_path(operation):
                check_module(operation, 'operation')
        if self.name != 'darts' and (self.nodes != 4 or self.operations != DARTS_OPERATIONS):
            raise ValueError(f'the space {self.name} has operations of its own and four nodes; set nodes to 4 and leave operations out')
        return self

    @property
    def candidates(self) -> Candidates:
        """The candidate operations on each edge."""
        return REDUCED[self.name] if self.name in REDUCED else edge_candidates(self.operations, self.nodes)

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """Draws a cell uniformly from this space."""
        return Genotype.random(rng, nodes=self.nodes, operations=self.candidates)

    def mutated_cell(self, cell: Any, rng: random.Random) -> AnyGenotype:
        """Returns a copy of a cell in which one operation or one input is another one."""
        return Genotype.from_sample(self.choices().mutated(self.sample_of(cell), rng))

    def choices(self) -> Choices:
        """Returns the operations on all edges and the two inputs of every node."""
        return darts_choices(self.candidates)

    def genotype_of(self, sample: Mapping[str, Any]) -> AnyGenotype:
        """Returns the genotype of an NNI sample of this space."""
        return Genotype.from_sample(sample)

    def sample_of(self, genotype: Any) -> dict[str, Any]:
        """Returns the NNI sample of a genotype of this space."""
        return genotype.to_sample(self.candidates)

    def supernet(self, **facts: Any) -> Any:
        """Builds :class:`nni_darts.search_spaces.DartsSpace`. Arguments as for :meth:`Space.supernet`."""
        build = imported('nni_darts.search_spaces.cnn:DartsSpace')
        return build(self.channels, self.cells, facts['num_classes'], facts['in_channels'], self.nodes, self.stem, self.candidates)

    def check_facts(self, trainings: Mapping[str, Any], **facts: Any) -> None:
        """Checks the user's operations at all sizes that cells have. Arguments and errors as for :meth:`Space.check_facts`."""
        sizes = {self.channels, *(settings.channels for settings in trainings.values())}
        for name in filter(is_import_path, self.operations):
            check = imported('nni_darts.search_spaces.operations:check_own_operation')
            for channels, divided in itertools.product(sorted(sizes), (1, 2, 4)):
                of_stem = 8 if self.stem == 'imagenet' else 1
                check(name, channels * divided, tuple(-(-side // (divided * of_stem)) for side in facts['image_size']))

    def network_options(self, settings: Any, **facts: Any) -> dict[str, Any]:
        """Returns the arguments of ``network_from_genotype``. Arguments as for :meth:`Space.network_options`."""
        return {
            'channels': settings.channels,
            'cells': settings.cells,
            'num_classes': facts['num_classes'],
            'in_channels': facts['in_channels'],
            'stem': self.stem,
            'auxiliary': settings.auxiliary_weight > 0,
            'pool_batch_norm': settings.pool_batch_norm,
        }


class NasBench201Space(CellSpace):
    """The space of NAS-Bench-201, whose cells have their own set of operations."""

    full_size: ClassVar[str] = 'nasbench201'

    name: Literal['nasbench201']  # type: ignore[assignment]

    @model_validator(mode='after')
    def _fixed(self) -> NasBench201Space:
        if self.stem != 'cifar':
            raise ValueError(f'the space nasbench201 has the stem cifar, not {self.stem}')
        self._check_cells('space', self.cells)
        return self

    @staticmethod
    def _check_cells(section: str, cells: int) -> None:
        if cells % NasBench201Genotype.stages:
            raise ValueError(f'{section}.cells must be a multiple of 3 in nasbench201, which has three stages, not {cells}')

    def check_training(self, stage: str, settings: Any) -> None:
        """Checks the sizes of a stage's network. Arguments and errors as for :meth:`Space.check_training`."""
        super().check_training(stage, settings)
        self._check_cells(stage, settings.cells)
        for key, what in (('auxiliary_weight', 'auxiliary head'), ('drop_path', 'drop-path')):
            if getattr(settings, key):
                raise ValueError(f'{stage}.{key} must be 0 in nasbench201, whose networks have no {what}')

    @property
    def candidates(self) -> Candidates:
        """Raises ValueError, because a cell of NAS-Bench-201 is not a pair of cells."""
        raise ValueError('cells of nasbench201 are not pairs of cells')

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """Draws one of the 15,625 cells uniformly."""
        return NasBench201Genotype.random(rng)

    def mutated_cell(self, cell: Any, rng: random.Random) -> AnyGenotype:
        """Returns a copy of a cell in which one operation is another one."""
        return NasBench201Genotype.from_sample(NASBENCH201_CHOICES.mutated(cell.to_sample(), rng))

    def choices(self) -> Choices:
        """Returns the operations on the six edges."""
        return NASBENCH201_CHOICES

    def alike(self, label: str) -> Any:
        """Returns the same key for all labels, because all edges of a cell have the same size."""
        return 'edge'

    def genotype_of(self, sample: Mapping[str, Any]) -> AnyGenotype:
        """Returns the genotype of an NNI sample of this space."""
        return NasBench201Genotype.from_sample(sample)

    def sample_of(self, genotype: Any) -> dict[str, Any]:
        """Returns the NNI sample of a genotype of this space."""
        return genotype.to_sample()

    def supernet(self, **facts: Any) -> Any:
        """Builds :class:`nni_darts.search_spaces.NasBench201Space`. Arguments as for :meth:`Space.supernet`."""
        build = imported('nni_darts.search_spaces.nasbench201:NasBench201Space')
        return build(self.channels, self.cells, facts['num_classes'], facts['in_channels'])


class RecurrentSpace(Space):
    """The space of recurrent cells; ``hidden`` is the number of units in the states and in the embedding of words."""

    task: ClassVar[str] = 'text'
    full_size: ClassVar[str] = 'ptb'

    name: Literal['recurrent'] = 'recurrent'
    hidden: Positive
    nodes: Annotated[int, Field(ge=1, le=16)] = 8

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """Draws a cell uniformly from this space."""
        return RnnGenotype.random(rng, nodes=self.nodes)

    def mutated_cell(self, cell: Any, rng: random.Random) -> AnyGenotype:
        """Returns a copy of a cell in which one activation or one input is another one."""
        return RnnGenotype.from_sample(recurrent_choices(self.nodes).mutated(cell.to_sample(), rng))

    def choices(self) -> Choices:
        """Returns the activations on all edges and the input of every node."""
        return recurrent_choices(self.nodes)

    def alike(self, label: str) -> Any:
        """Returns the same key for all edges, because all edges of a cell have the same size."""
        return 'edge'

    def genotype_of(self, sample: Mapping[str, Any]) -> AnyGenotype:
        """Returns the genotype of an NNI sample of this space."""
        return RnnGenotype.from_sample(sample)

    def supernet(self, **facts: Any) -> Any:
        """Builds :class:`nni_darts.search_spaces.DartsRnnSpace`. Arguments as for :meth:`Space.supernet`."""
        build = imported('nni_darts.search_spaces.recurrent:DartsRnnSpace')
        return build(facts['vocabulary'], self.hidden, self.hidden, self.nodes, facts['dropouts'])

    def network_options(self, settings: Any, **facts: Any) -> dict[str, Any]:
        """Returns the arguments of ``network_from_genotype``, except the dropouts, which only training sets."""
        return {'vocabulary': facts['vocabulary'], 'embedding': settings.hidden, 'hidden': settings.hidden}


class OwnSpace(Space):
    """A user's own ``ModelSpace``, named ``package.module:Class`` or by an entry point; ``settings`` are its keyword arguments.

    If the constructor has a parameter ``num_classes``, ``in_channels`` or ``image_size`` that is not among the settings, it receives
    the value of the data. ``retrain.space`` and ``select.space`` replace settings in the networks that are trained.
    """

    name: str
    settings: dict[str, Any] = {}

    _facts: Callable[[], Mapping[str, Any]] = PrivateAttr(default=dict)

    @model_validator(mode='after')
    def _found(self) -> OwnSpace:
        check_module(self.path, 'space')
        return self

    @property
    def path(self) -> str:
        """The import path of the class."""
        return self.name if is_import_path(self.name) else _registered()[self.name]

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """Draws a sample uniformly. Imports torch, since only the space itself knows its choices."""
        space = self._space()
        return self.genotype_of(space.sample(space.random_cell(rng)))

    def mutated_cell(self, cell: Any, rng: random.Random) -> AnyGenotype:
        """Returns a copy of a sample in which one value is another one. Imports torch, as :meth:`random_cell` does."""
        space = self._space()
        return self.genotype_of(space.sample(space.mutated_cell(space.model(cell.sample), rng)))

    def choices(self) -> Choices:
        """Returns the choices of the user's space. Imports torch, as :meth:`random_cell` does. Errors as for :meth:`Space.choices`."""
        return self._space().choices

    def genotype_of(self, sample: Mapping[str, Any]) -> AnyGenotype:
        """Returns the sample as a genotype."""
        return SampleGenotype.of(self.name, sample)

    @property
    def cells_in_words(self) -> str:
        """The plural name of this space's architectures, for messages."""
        return f'architectures of {self.name}'

    def accepts(self, genotype: AnyGenotype) -> bool:
        """Returns whether a genotype belongs to this space or is a known network."""
        same = isinstance(genotype, SampleGenotype) and genotype.space == self.name
        return same or isinstance(genotype, KnownNetwork)

    def check_training(self, stage: str, settings: Any) -> None:
        """Checks that a stage sets no sizes of cells. Arguments and errors as for :meth:`Space.check_training`."""
        for name in ('channels', 'cells'):
            if getattr(settings, name, None) is not None:
                raise ValueError(f'{stage}.{name} is for spaces of cells; settings of {self.name} go under {stage}.space')
        for name, what in (('auxiliary_weight', 'auxiliary head'), ('drop_path', 'drop-path')):
            if getattr(settings, name, 0):
                raise ValueError(f'{stage}.{name} must be 0 in a space of your own, whose networks have no {what}')

    def on_data(self, facts: Callable[[], Mapping[str, Any]]) -> OwnSpace:
        """Returns a copy that draws with the values of the data. Arguments as for :meth:`Space.on_data`."""
        space = self.model_copy()
        space._facts = facts
        return space

    def check_facts(self, trainings: Mapping[str, Any], **facts: Any) -> None:
        """Checks that the space and the networks to train fit the data. Arguments and errors as for :meth:`Space.check_facts`."""
        changes = {f'{stage}.space': dict(settings.space) for stage, settings in trainings.items() if settings.space}
        imported('nni_darts.search_spaces.own:check_own_space')(self.path, self.settings, facts, changes)

    def check_supernet(self, **facts: Any) -> None:
        """Checks that no candidate changes the input of the others. Arguments and errors are those of :meth:`Space.check_facts`."""
        imported('nni_darts.search_spaces.own:check_shared_inputs')(self.path, self.settings, facts)

    def supernet(self, **facts: Any) -> Any:
        """Builds the user's space. Arguments as for :meth:`Space.supernet`."""
        return imported('nni_darts.search_spaces.own:own_space')(self.path, self.settings, facts)

    def network_options(self, settings: Any, **facts: Any) -> dict[str, Any]:
        """Returns the arguments of ``network_from_genotype``. Arguments as for :meth:`Space.network_options`."""
        return {**facts, 'path': self.path, 'settings': {**self.settings, **(settings.space or {})}}

    def _space(self) -> Any:
        space = imported('nni_darts.search_spaces.own:drawn_space')(self.path, self.settings, self._facts)
        return imported('nni_darts.strategies.trained.in_process:SampleSpace')(space)


_KINDS: Mapping[str, type[Space]] = {
    **dict.fromkeys(('darts', *REDUCED), CellSpace),
    'nasbench201': NasBench201Space,
    'recurrent': RecurrentSpace,
}


_SUMMARIES: Mapping[str, str] = {
    'darts': 'pairs of cells with any of eight operations and your own (Liu et al., ICLR 2019)',
    's1': 'the two strongest operations of DARTS on each edge (Zela et al., ICLR 2020)',
    's2': 'skip connection and 3×3 separable convolution on each edge (Zela et al., ICLR 2020)',
    's3': 'none, skip connection and 3×3 separable convolution on each edge (Zela et al., ICLR 2020)',
    's4': 'noise and 3×3 separable convolution on each edge (Zela et al., ICLR 2020)',
    's5': 'the DARTS space without none (Wang et al., ICLR 2021)',
    'nasbench201': 'one cell of six edges with five operations (Dong and Yang, ICLR 2020)',
    'recurrent': 'a recurrent cell with four activations, for text (Liu et al., ICLR 2019)',
}


def space_summaries() -> dict[str, str]:
    """Returns name → one-line summary of each space, including the spaces that installed packages register."""
    return {**_SUMMARIES, **_registered()}


def space_kind(name: Any) -> type[Space]:
    """Returns the kind of the space that a recipe names.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if not isinstance(name, str):
        raise ValueError(f'it must be the name of a space, such as darts, or your own ModelSpace as package.module:Class, not {name!r}')
    if name in _KINDS:
        return _KINDS[name]
    if is_import_path(name):
        return OwnSpace
    path = _registered().get(name)
    if path is not None and is_import_path(path):
        return OwnSpace
    if path is not None:
        several = ' and ' in path
        raise ValueError(
            f'several packages install a space {name!r}; choose one of {path.replace(" and ", ", ")}'
            if several
            else f'an installed package registers the space {name!r} as {path!r}; it must be package.module:Class'
        )
    known = space_summaries()
    raise ValueError(
        f'unknown space {name!r}{did_you_mean(name, known)}; known: {", ".join(known)}, or your own ModelSpace as package.module:Class'
    )


def _registered() -> dict[str, str]:
    """Returns name → import paths of the spaces that installed packages register, except under names of this package."""
    found: dict[str, dict[str, None]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in _KINDS:
            found.setdefault(entry.name, {})[entry.value] = None
    return {name: ' and '.join(sorted(paths)) for name, paths in found.items()}
