"""Base classes of the parameters, and the kinds of number that they take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]


class Frozen(BaseModel):
    """Base: immutable, no unknown keys, no silent conversion of strings to numbers."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class External(Frozen):
    """Files that were made elsewhere: a folder, or a repository of the Hugging Face hub."""

    name: str
    """A folder, or an id on the hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null means its main branch."""
    fingerprint: str | None = None
    """Hash of the files, or the commit. `clearnets exp` fills it in, so that DVC notices a change;
    in params.yaml itself only the command that reads the files does."""
