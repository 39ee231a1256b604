"""Why a frame got no label: reason codes, which of them deserve another try, and what it changes.

A retry never changes the level of theory. It changes how the self-consistent field is sought and
leaves the electronic temperature and the convergence thresholds alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from alloop.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping


class FailureCode(StrEnum):
    """Reason codes of :class:`~alloop.errors.LabelError`, as the ledger stores them."""

    SCF_NOT_CONVERGED = "scf_not_converged"
    CC_NOT_CONVERGED = "cc_not_converged"
    WRONG_SPIN = "wrong_spin"
    LINEAR_ALGEBRA = "linear_algebra"
    NOT_FINITE = "not_finite"
    CLASH = "clash"
    UNSUPPORTED = "unsupported"
    NOT_MINIMISED = "not_minimised"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    ENGINE_ERROR = "engine_error"


@dataclass(frozen=True, slots=True)
class FailureRule:
    """What follows from a failure.

    Attributes
    ----------
    attempts : how often a frame is tried in all before this failure is final.
    remedy : what a person can do about it.

    """

    attempts: int
    remedy: str


@dataclass(frozen=True, slots=True)
class ScfSettings:
    """How a self-consistent field is sought at one attempt.

    Attributes
    ----------
    max_iterations : cycles before the engine gives up.
    damping : share of the new density in the first mix.
    memory : cycles that the Broyden mixer remembers.

    """

    max_iterations: int
    damping: float
    memory: int


SCF_LADDER: Final = (
    ScfSettings(250, 0.4, 250),
    ScfSettings(500, 0.4, 8),
    ScfSettings(500, 0.2, 8),
    ScfSettings(1000, 0.1, 8),
)
"""tblite's defaults, then a mixer that forgets, then smaller steps.

Measured with tblite 0.8 on 43 stretched and shaken geometries that fail with the defaults: the
second rung labels 28 of them, the ladder 38. More iterations with a mixer that remembers them all
take minutes where these take a tenth of a second. In a torn open shell the rungs may find different
solutions, some eV apart: the attempt is worth recording.
"""

RULES: Final[Mapping[FailureCode, FailureRule]] = MappingProxyType(
    {
        FailureCode.SCF_NOT_CONVERGED: FailureRule(
            len(SCF_LADDER), "drop the frame, it may be far from every ground state"
        ),
        FailureCode.CC_NOT_CONVERGED: FailureRule(
            3, "drop the frame, one determinant may not describe it (see t1 of its neighbours)"
        ),
        FailureCode.WRONG_SPIN: FailureRule(
            len(SCF_LADDER), "drop the frame, its spin states mix: one determinant is not enough"
        ),
        FailureCode.LINEAR_ALGEBRA: FailureRule(
            len(SCF_LADDER), "drop the frame, its electronic structure diverges"
        ),
        FailureCode.NOT_FINITE: FailureRule(
            len(SCF_LADDER), "drop the frame, its electronic structure diverges"
        ),
        FailureCode.CLASH: FailureRule(1, "drop the frame, two of its atoms are too close"),
        FailureCode.UNSUPPORTED: FailureRule(1, "choose a method that can describe the system"),
        FailureCode.NOT_MINIMISED: FailureRule(
            1, "start from a better structure or allow more steps"
        ),
        FailureCode.TIMEOUT: FailureRule(2, "allow more time for a label"),
        FailureCode.OUT_OF_MEMORY: FailureRule(
            4, "allow more memory for a label, or take a smaller basis or density fitting"
        ),
        FailureCode.ENGINE_ERROR: FailureRule(2, "read the engine's words; drop the frame"),
    }
)

# The engines' own words, in lower case, in the order in which they are looked for.
_WORDS: Final = (
    ("too close interatomic distances", FailureCode.CLASH),  # tblite
    ("could not generate molecular structure", FailureCode.CLASH),  # xtb
    ("not converge", FailureCode.SCF_NOT_CONVERGED),  # "SCF not converged", "did not converge"
    ("eigenvalue problem", FailureCode.LINEAR_ALGEBRA),
    ("insufficient memory", FailureCode.OUT_OF_MEMORY),  # PySCF
    ("not enough memory", FailureCode.OUT_OF_MEMORY),  # PySCF
    ("unable to allocate", FailureCode.OUT_OF_MEMORY),  # NumPy
)


def classify(words: str) -> FailureCode:
    """Return the reason code for what an engine said; unknown words are an engine error."""
    lowered = words.lower()
    for sign, code in _WORDS:
        if sign in lowered:
            return code
    return FailureCode.ENGINE_ERROR


def may_retry(code: str, attempts_made: int) -> bool:
    """Tell whether a frame that failed with this code after so many attempts gets another one."""
    return attempts_made < RULES[FailureCode(code)].attempts


def scf_settings(attempt: int) -> ScfSettings:
    """Return the rung of the ladder for attempt 0, 1, ...; beyond the last rung, the last."""
    if attempt < 0:
        raise ValueError(f"attempt is {attempt}, want 0 or more")
    return SCF_LADDER[min(attempt, len(SCF_LADDER) - 1)]


def label_error(frame_key: str, method: str, words: str, code: FailureCode) -> LabelError:
    """Return the LabelError for a failure, the engine's words kept and the remedy added."""
    return LabelError(frame_key, method, str(code), words, RULES[code].remedy)
