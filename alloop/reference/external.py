"""A level of theory whose labels are made elsewhere and brought in by ``alloop import``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from alloop.errors import MethodError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from alloop.reference.method import MethodSpec


def build(
    method: MethodSpec, numbers: NDArray[np.int64], charge: int, multiplicity: int
) -> NoReturn:
    """Raise MethodError: no program of ours makes these labels."""
    del numbers, charge, multiplicity
    raise MethodError(
        f"{method.model} is computed by hand (engine external): write its frames with"
        " 'alloop export todo', and bring the labels back with 'alloop import'"
    )
