"""Parameters of the search for recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from clearnets.config.fields import Frozen
from clearnets.config.names import MLPS, Family

Values = tuple[float | int, ...]


class Tune(Frozen):
    """A search over all combinations of some values, the same for every subject. It is judged by
    validation loss or fvu, never by a score of explanations."""

    models: tuple[str, ...]
    """Feedforwards of the models that are searched for a recipe."""
    families: tuple[Family, ...]
    """Families of coders that are searched for a recipe, on the pair's dense model."""
    train: dict[str, Values]
    """Values of keys of the section `train`, for models."""
    coders: dict[str, Values]
    """Values of keys of the section `coders`, for families of coders."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Models and families that are searched."""
        return (*self.models, *self.families)

    def section(self, subject: str) -> str:
        """Return the section of the parameters that is searched for a subject."""
        return "train" if subject in MLPS else "coders"

    def trials(self, subject: str) -> Iterator[Mapping[str, float | int]]:
        """Yield the values of each trial by their key."""
        values = self.train if self.section(subject) == "train" else self.coders
        for chosen in product(*values.values()):
            yield dict(zip(values, chosen, strict=True))
