"""What every section of the campaign file has in common: strict, frozen, nothing unknown."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, StringConstraints

Item = TypeVar("Item")

Id = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=40)
]
"""An identifier: a letter, then letters, digits, ``_`` and ``-``."""

Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
"""Any text but an empty one."""

Many = Annotated[tuple[Item, ...], Strict(False)]
"""A YAML list, held as a tuple so that a configuration cannot change after it was checked."""


class Section(BaseModel):
    """Base of all sections: unknown keys, NaN and numbers written as text are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=False
    )

    discriminator: ClassVar[str] = "engine"
    """The key whose value chooses between sections that may stand at one place."""
