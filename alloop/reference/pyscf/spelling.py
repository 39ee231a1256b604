"""How the literature spells functionals and basis sets, so that one level has one name."""

from __future__ import annotations

import re
from typing import Final

_FUNCTIONALS: Final = (
    "LDA", "SVWN", "PBE", "revPBE", "RPBE", "BLYP", "BP86", "TPSS", "revTPSS", "SCAN", "rSCAN",
    "r2SCAN", "M06-L", "B97-3", "PBE0", "B3LYP", "B3P86", "B3PW91", "BHandHLYP", "X3LYP", "TPSSh",
    "revTPSSh", "M05-2X", "M06", "M06-2X", "M06-HF", "MN15", "PW6B95", "HSE03", "HSE06", "wB97",
    "wB97X", "wB97X-V", "wB97M-V", "B97M-V", "CAM-B3LYP", "LC-wPBE", "LRC-wPBE", "LRC-wPBEh",
)  # fmt: skip

_BASIS_SETS: Final = (
    "STO-3G", "STO-6G", "3-21G", "4-31G", "6-31G", "6-31G*", "6-31G**", "6-31+G", "6-31+G*",
    "6-31+G**", "6-31++G", "6-31++G*", "6-31++G**", "6-311G", "6-311G*", "6-311G**", "6-311+G",
    "6-311+G*", "6-311+G**", "6-311++G", "6-311++G*", "6-311++G**", "cc-pVDZ", "cc-pVTZ", "cc-pVQZ",
    "cc-pV5Z", "aug-cc-pVDZ", "aug-cc-pVTZ", "aug-cc-pVQZ", "aug-cc-pV5Z", "cc-pCVDZ", "cc-pCVTZ",
    "cc-pCVQZ", "def2-SV(P)", "def2-SVP", "def2-SVPD", "def2-TZVP", "def2-TZVPD", "def2-TZVPP",
    "def2-TZVPPD", "def2-QZVP", "def2-QZVPD", "def2-QZVPP", "def2-QZVPPD", "DZP", "TZP", "TZVP",
    "LANL2DZ", "pc-1", "pc-2", "pcseg-1", "pcseg-2",
)  # fmt: skip

CORRELATED: Final = ("MP2", "CCSD", "CCSD(T)")
"""Wave-function methods on a Hartree-Fock field."""

THEORIES: Final = ("HF", *CORRELATED, *_FUNCTIONALS)
"""Names that a person may have meant."""

BASIS_SETS: Final = _BASIS_SETS


def _folded(name: str) -> str:
    """Return the letters by which PySCF tells names apart: no case, hyphen, underscore, blank."""
    return re.sub(r"[-_\s]", "", name).lower()


_THEORY_OF: Final = {_folded(name): name for name in THEORIES}
_BASIS_OF: Final = {_folded(name): name for name in _BASIS_SETS}


def theory_name(given: str) -> str:
    """Return the usual spelling of a theory; unknown ones in capitals."""
    return _THEORY_OF.get(_folded(given), re.sub(r"\s", "", given).upper())


def basis_name(given: str) -> str:
    """Return the usual spelling of a basis set; (d) and (d,p) of Pople's are their stars.

    Unknown ones are in small letters.
    """
    plain = _folded(given)
    if plain.startswith("6"):
        plain = plain.replace("(d,p)", "**").replace("(d)", "*")
    return _BASIS_OF.get(plain, re.sub(r"\s", "", given).lower())


def is_cartesian(basis: str) -> bool:
    """Return whether a basis set is defined with six d functions, as Pople's 6-31G family is.

    Hariharan and Pople, doi:10.1007/BF00533485. Tables and data sets at 6-31G* hold these energies;
    PySCF would take five.
    """
    return basis.startswith("6-31") and not basis.startswith("6-311")
