"""Sections about reference methods: which program computes the labels of a tier, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from alloop.config.quantities import ENERGY, MEMORY, WALL_TIME, Quantity
from alloop.config.section import Section, Text
from alloop.errors import MethodError
from alloop.reference.pyscf.options import PyscfOptions
from alloop.units import EV_PER_HARTREE


class TbliteMethod(Section):
    """GFN-xTB through tblite; open shells are spin-polarised."""

    engine: Literal["tblite"] = Field(description="Program that computes the labels.")
    model: Literal["GFN2-xTB", "GFN1-xTB"] = Field(default="GFN2-xTB", description="Hamiltonian.")


class XtbMethod(Section):
    """GFN-xTB through xtb-python."""

    engine: Literal["xtb"] = Field(description="Program that computes the labels.")
    model: Literal["GFN2-xTB", "GFN1-xTB"] = Field(default="GFN2-xTB", description="Hamiltonian.")


class AniMethod(Section):
    """A published ANI ensemble as reference: the mean of its members."""

    engine: Literal["ani"] = Field(description="Program that computes the labels.")
    model: Literal["ANI-1x", "ANI-1ccx", "ANI-2x"] = Field(
        default="ANI-1ccx",
        description="Published model. TorchANI fetches it, or finds it in $TORCHANI_DATA_DIR.",
    )


class AseMethod(Section):
    """Any ASE calculator, named by its import path."""

    engine: Literal["ase"] = Field(description="Program that computes the labels.")
    calculator: Annotated[
        str, StringConstraints(strict=True, pattern=r"^[A-Za-z][\w.]*:[A-Za-z]\w*$")
    ] = Field(description="Import path of the calculator class, as package.module:Class.")
    kwargs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Keyword arguments of the calculator; the values '{charge}' and"
        " '{multiplicity}' stand for the system's. Default: none.",
    )
    info: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Entries of `Atoms.info`, from which some calculators take charge and spin;"
        " values as in kwargs. Default: none.",
    )
    name: Text = Field(description="Name of the level of theory, stored with every label.")
    max_time: Annotated[float, Quantity(WALL_TIME, above=0.0)] | None = Field(
        default=None,
        description="Most time of a label; it fails when it takes longer, and what the calculator"
        " has started is ended. Each label then gets a process of its own, which costs a second."
        " Default: no limit.",
    )

    def options(self) -> dict[str, Any]:
        """Return the options of the engine."""
        values = {"calculator": self.calculator, "kwargs": self.kwargs, "info": self.info}
        return values if self.max_time is None else values | {"max_seconds": self.max_time}


class PyscfMethod(Section):
    """Hartree-Fock, density functionals, MP2 and coupled clusters through PySCF."""

    engine: Literal["pyscf"] = Field(description="Program that computes the labels.")
    theory: Text = Field(
        description="HF, MP2, CCSD, CCSD(T), or a density functional that PySCF knows, such as"
        " wB97X, B3LYP, PBE0, r2SCAN. Open shells are unrestricted.",
    )
    basis: Text = Field(
        description="Basis set, such as 6-31G* (with six d functions, as it was defined), def2-SVP"
        " or cc-pVDZ; core potentials that belong to it come with it.",
    )
    dispersion: Literal["d3bj", "d3zero", "d4"] | None = Field(
        default=None,
        description="Dispersion correction of HF or a functional (needs the extra 'dispersion').",
    )
    density_fit: bool = Field(
        default=False,
        description="Fit densities with auxiliary functions: faster, another level of theory. MP2"
        " and coupled clusters then have no forces.",
    )
    grid: int | None = Field(
        default=None,
        ge=0,
        le=9,
        description="Fineness of the quadrature of a functional, 0 to 9. Default: 3 for"
        " functionals.",
    )
    frozen_core: bool | None = Field(
        default=None,
        description="Leave core electrons out of the correlation. Default: true for MP2 and"
        " coupled clusters.",
    )
    forces: Literal["analytic", "none"] | None = Field(
        default=None,
        description="none: labels are energies alone. Default: analytic where PySCF has the"
        " gradient.",
    )
    memory: Annotated[float, Quantity(MEMORY, above=0.0)] = Field(
        default=2000.0,
        description="Most memory of a label; one that needs more is tried again with twice as much,"
        " as far as its worker has it.",
    )
    max_time: Annotated[float, Quantity(WALL_TIME, above=0.0)] = Field(
        default=3600.0, description="Most time of a label; it fails when it takes longer."
    )
    conv_tol: Annotated[float, Quantity(ENERGY, above=0.0)] | None = Field(
        default=None,
        description="Change of the energy at which a field is self-consistent. Default: 1e-9 Ha.",
    )

    def options(self) -> dict[str, Any]:
        """Return the options of the engine; raises MethodError if they do not go together."""
        keys = ("theory", "basis", "dispersion", "density_fit", "grid", "frozen_core", "forces")
        values = {key: getattr(self, key) for key in keys}
        values |= {"memory": self.memory, "max_seconds": self.max_time}
        if self.conv_tol is not None:
            # Back to the number that was written: it is part of the level's name.
            values["conv_tol"] = float(f"{self.conv_tol / EV_PER_HARTREE:.10g}")
        return PyscfOptions.from_mapping(values).to_json()

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        try:
            self.options()
        except MethodError as error:
            raise PydanticCustomError("pyscf", "{reason}", {"reason": str(error)}) from None
        return self


class ExternalMethod(Section):
    """A level of theory that is computed by hand: frames go out, labels come in by command."""

    engine: Literal["external"] = Field(description="Program that computes the labels.")
    name: Text = Field(description="Name of the level of theory, stored with every label.")
    forces: bool = Field(default=True, description="Whether its labels have forces.")


Method = Annotated[
    TbliteMethod | XtbMethod | AniMethod | AseMethod | PyscfMethod | ExternalMethod,
    Field(discriminator="engine"),
]
