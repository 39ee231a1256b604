"""alloop: from one YAML file to a trusted neural potential and a 4D-spacetime model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alloop.potentials.calculator import CommitteeCalculator

__version__ = "0.1.0"
__all__ = ["CommitteeCalculator", "__version__"]


def __getattr__(name: str) -> Any:
    # On demand, so that `import alloop` and the command line do not wait for torch.
    if name == "CommitteeCalculator":
        from alloop.potentials.calculator import CommitteeCalculator

        return CommitteeCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
