"""Every error that alloop raises on purpose.

AlloopError
├── ConfigError(ValueError)        the campaign file is wrong; carries every problem at once
├── StructureError(ValueError)     a structure file cannot be read or makes no sense
├── DataError(ValueError)          a file of labelled data cannot be read or used
├── FrameError(ValueError)         a geometry is malformed
├── MethodError(ValueError)        a reference method cannot be had, or not for this system
├── LabelError(RuntimeError)       a reference method gave no label for one frame
├── ModelError(ValueError)         a model file or an architecture cannot be used
├── TrainingError(RuntimeError)    a fit failed or has nothing to learn from
├── DynamicsError(RuntimeError)    a trajectory cannot be started
├── AcquisitionError(ValueError)   frames cannot be judged, calibrated or chosen between
├── SpacetimeError(RuntimeError)   a 4D model cannot be built, fitted or propagated
├── AnalysisError(ValueError)      trajectories cannot be analysed or compared
├── ArtifactError(OSError)         a file of the store is missing or not what its name says
├── LedgerError(RuntimeError)      the database refuses
│   └── LedgerBusyError            another driver holds the campaign
├── SiteError(ValueError)          a site file cannot be used
├── CampaignError(RuntimeError)    the campaign cannot go on; says why and what to do
├── OutOfTime(RuntimeError)        work was laid down because its block ends; it can go on later
└── TaskError(RuntimeError)        a foreign exception, made safe for the wire

Each class passes all of its arguments to ``Exception.__init__``: results cross process borders by
pickle, and an exception that does not survive that kills Parsl's only result thread.
"""

from __future__ import annotations


class AlloopError(Exception):
    """Root of the tree: catch this to catch everything alloop raises on purpose."""


class ConfigError(AlloopError, ValueError):
    """The campaign file is wrong; ``problems`` holds one line for each fault."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class StructureError(AlloopError, ValueError):
    """A structure file cannot be read or makes no sense."""


class DataError(AlloopError, ValueError):
    """A file of labelled data cannot be read, or what it holds cannot be used."""


class FrameError(AlloopError, ValueError):
    """A geometry is malformed."""


class MethodError(AlloopError, ValueError):
    """A reference method cannot be had, or not for this system."""


class LabelError(AlloopError, RuntimeError):
    """The reference method gave no label for a sound geometry.

    ``code`` is one of the reason codes of :mod:`alloop.reference.failures`.
    """

    def __init__(self, frame_key: str, method: str, code: str, reason: str, remedy: str) -> None:
        super().__init__(frame_key, method, code, reason, remedy)
        self.frame_key, self.method, self.code = frame_key, method, code
        self.reason, self.remedy = reason, remedy

    def __str__(self) -> str:
        what = f"frame {self.frame_key[:12]}: {self.method} gave no label ({self.code})"
        return f"{what}: {self.reason}; {self.remedy}"


class ModelError(AlloopError, ValueError):
    """A model file or an architecture cannot be used."""


class TrainingError(AlloopError, RuntimeError):
    """A fit failed or has nothing to learn from."""


class DynamicsError(AlloopError, RuntimeError):
    """A trajectory cannot be started."""


class AcquisitionError(AlloopError, ValueError):
    """Frames cannot be judged, calibrated or chosen between."""


class SpacetimeError(AlloopError, RuntimeError):
    """A 4D model cannot be built, fitted or propagated."""


class AnalysisError(AlloopError, ValueError):
    """Trajectories cannot be analysed or compared."""


class ArtifactError(AlloopError, OSError):
    """A file of the store is missing or not what its name says."""


class LedgerError(AlloopError, RuntimeError):
    """The database refuses."""


class LedgerBusyError(LedgerError):
    """Another driver holds the campaign."""


class SiteError(AlloopError, ValueError):
    """A site file cannot be used."""


class CampaignError(AlloopError, RuntimeError):
    """The campaign cannot go on."""


class OutOfTime(AlloopError, RuntimeError):  # noqa: N818  not an error: work goes on elsewhere
    """Work was laid down before the end of its block; another worker takes it up.

    ``advanced`` says whether something was done that the next one need not do again.
    """

    def __init__(self, reason: str, advanced: bool) -> None:
        super().__init__(reason, advanced)
        self.reason, self.advanced = reason, advanced

    def __str__(self) -> str:
        return f"{self.reason} (advanced: {self.advanced})"


class TaskError(AlloopError, RuntimeError):
    """A foreign exception inside a task, reduced to text so that it survives the wire."""

    def __init__(self, task: str, reason: str, trace: str) -> None:
        super().__init__(task, reason, trace)
        self.task, self.reason, self.trace = task, reason, trace

    def __str__(self) -> str:
        return f"{self.task}: {self.reason}"
