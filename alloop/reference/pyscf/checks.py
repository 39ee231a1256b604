"""What the installed PySCF knows: functionals, basis sets, dispersion; no field is sought here."""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from alloop.errors import MethodError
from alloop.reference.choice import near_match
from alloop.reference.pyscf.field import dispersion_keyword
from alloop.reference.pyscf.spelling import BASIS_SETS, THEORIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alloop.reference.pyscf.options import PyscfOptions

_OWN_DISPERSION: Final = ("wB97X", "wB97X-V", "wB97M-V", "B97M-V")
"""Functionals whose published D3 corrections belong to another functional of similar name."""


def check_installed() -> None:
    """Raise MethodError if there is no PySCF."""
    try:
        import pyscf  # noqa: F401
    except ImportError as error:
        raise MethodError(
            f"engine pyscf needs PySCF, which cannot be imported ({error});"
            " pip install 'alloop[pyscf]'"
        ) from error


def check_known(options: PyscfOptions, numbers: Sequence[int]) -> None:
    """Raise MethodError for a functional, basis or dispersion that PySCF does not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as an advertisement for more basis sets
        if options.is_functional:
            _check_functional(options.theory)
        _check_basis(options.basis, numbers)
        if options.dispersion is not None:
            _check_dispersion(options)


def _check_functional(theory: str) -> None:
    from pyscf.dft import libxc
    from pyscf.scf.dispersion import parse_dft

    if re.search(r"[-_](D\d?(BJ|ZERO)?|3C)$", theory):
        raise MethodError(
            f"theory {theory!r} names a correction: give the functional alone, and"
            " 'dispersion: d3bj', d3zero or d4 beside it"
        )
    try:
        parts = parse_dft(theory)
        libxc.parse_xc(theory)
    except (KeyError, ValueError, NotImplementedError, AttributeError):
        raise MethodError(
            f"PySCF knows no theory {theory!r}{near_match(theory, THEORIES)}"
        ) from None
    if parts[2] is not None:
        raise MethodError(f"theory {theory!r} brings {parts[2]} with it: choose another")


def _check_basis(basis: str, numbers: Sequence[int]) -> None:
    from pyscf import gto
    from pyscf.data.elements import ELEMENTS

    elements = [ELEMENTS[int(number)] for number in sorted({int(z) for z in numbers})]
    without = [element for element in elements if not _has(gto, basis, element)]
    if not without:
        return
    if _has(gto, basis, "H") or _has(gto, basis, "C"):
        raise MethodError(f"basis {basis} has no functions for {', '.join(without)}")
    raise MethodError(f"PySCF knows no basis {basis!r}{near_match(basis, BASIS_SETS)}")


def _has(gto: Any, basis: str, element: str) -> bool:
    try:
        return bool(gto.basis.load(basis, element))
    except (KeyError, RuntimeError, ValueError, OSError):
        return False


def _check_dispersion(options: PyscfOptions) -> None:
    keyword = dispersion_keyword(options.theory, str(options.dispersion))
    if find_spec("pyscf.dispersion") is None:
        raise MethodError(
            f"dispersion {options.dispersion} needs pyscf-dispersion, which is not installed:"
            " pip install 'alloop[dispersion]'"
        )
    from pyscf import gto
    from pyscf.dispersion import dftd3, dftd4

    if options.theory in _OWN_DISPERSION and ":" not in keyword:
        raise MethodError(
            f"dispersion {options.dispersion} was never fitted to {options.theory}:"
            " its parameters belong to the functional without VV10; use wB97X with d4, or none"
        )
    name = keyword.partition(":")[2] or options.theory.lower()
    atom = gto.M(atom="He", verbose=0)
    try:
        if keyword.startswith("d4"):
            dftd4.DFTD4Dispersion(atom, xc=name)
        else:
            dftd3.DFTD3Dispersion(atom, xc=name, version=keyword)
    except RuntimeError as error:
        raise MethodError(
            f"dispersion {options.dispersion} has no parameters for {options.theory}"
            f" ({' '.join(str(error).split())})"
        ) from None
