"""The interface of the kinds of spaces that a recipe can name. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nni_darts.genotypes.base import AnyGenotype
from nni_darts.genotypes.neighbours import Choices
from nni_darts.genotypes.recurrent import RnnGenotype
from nni_darts.genotypes.sample import SampleGenotype

__all__ = ['Names', 'Positive', 'Section', 'Space']

Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


class Section(BaseModel):
    """A section of a recipe: typed and frozen, and it refuses unknown keys."""

    model_config = ConfigDict(extra='forbid', frozen=True, strict=True)


class Space(Section):
    """The kind of space that a recipe searches.

    Attributes:
        name: the name of the space.
        task: the type of data that its networks read: ``images`` or ``text``.
        sizes: names of the settings in ``retrain`` and ``select`` that a network of this space requires.
        full_size: name of the recipe that trains cells from a small search at the published size.
    """

    task: ClassVar[str] = 'images'
    sizes: ClassVar[tuple[str, ...]] = ()
    full_size: ClassVar[str] = 'cifar10'

    name: str

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """Draws a cell uniformly from this space."""
        raise NotImplementedError

    def mutated_cell(self, cell: AnyGenotype, rng: random.Random) -> AnyGenotype:
        """Returns a copy of a cell in which one operation or one input is another one."""
        raise NotImplementedError

    def genotype_of(self, sample: Mapping[str, Any]) -> AnyGenotype:
        """Returns the genotype of an NNI sample of this space."""
        raise NotImplementedError

    def sample_of(self, genotype: Any) -> dict[str, Any]:
        """Returns the NNI sample of a genotype of this space: the inverse of :meth:`genotype_of`."""
        return genotype.to_sample()

    def choices(self) -> Choices:
        """Returns the choices of this space as data.

        Raises:
            ValueError: if this space has a choice that is not one among values.
        """
        raise NotImplementedError

    def alike(self, label: str) -> Any:
        """Returns a key that is the same for labels whose candidates add the same to the cost of a network."""
        return label

    @property
    def cells_in_words(self) -> str:
        """The plural name of this space's architectures, for messages."""
        return f'{"recurrent" if self.task == RnnGenotype.task else "convolutional"} cells'

    def accepts(self, genotype: AnyGenotype) -> bool:
        """Returns whether a recipe of this space can train the network of a genotype."""
        return genotype.task == self.task and not isinstance(genotype, SampleGenotype)

    def check_training(self, stage: str, settings: Any) -> None:
        """Checks the sizes of a stage's network.

        Args:
            stage: ``retrain`` or ``select``.
            settings: the stage's section of the recipe.

        Raises:
            ValueError: if a size is missing, or this space does not have it.
        """
        for name in self.sizes:
            if getattr(settings, name) is None:
                raise ValueError(f'{f"{stage}.{name}"!r} is missing')
        if getattr(settings, 'space', None) is not None:
            raise ValueError(f'{stage}.space is for a space of your own; leave it out in the space {self.name}')

    def check_facts(self, trainings: Mapping[str, Any], **facts: Any) -> None:
        """Checks that the space fits the data.

        Args:
            trainings: stage, ``retrain`` or ``select`` → the stage's section of the recipe.
            facts: as for :meth:`supernet`.

        Raises:
            ValueError: if the space does not fit the data.
        """

    def check_supernet(self, **facts: Any) -> None:
        """Checks that the candidates of a choice can be computed side by side. Arguments and errors as for :meth:`check_facts`."""

    def on_data(self, facts: Callable[[], Mapping[str, Any]]) -> Space:
        """Returns the space from which cells for this data are drawn, which is this one unless the choices depend on the data.

        Args:
            facts: returns what :meth:`supernet` takes; called only where it is needed, since it may read the data.
        """
        return self

    def supernet(self, **facts: Any) -> Any:
        """Builds the model space.

        Args:
            facts: ``num_classes``, ``in_channels`` and ``image_size`` (height, width) of images; ``vocabulary`` and ``dropouts`` of text.
        """
        raise NotImplementedError

    def network_options(self, settings: Any, **facts: Any) -> dict[str, Any]:
        """Returns the arguments, besides the genotype, with which ``network_from_genotype`` builds the network of a stage.

        Args:
            settings: the stage's section of the recipe.
            facts: as for :meth:`supernet`.
        """
        raise NotImplementedError
