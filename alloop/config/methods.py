"""Sections about reference methods: which program computes the labels of a tier, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from alloop.config.section import Section, Text


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


Method = Annotated[TbliteMethod | XtbMethod | AniMethod | AseMethod, Field(discriminator="engine")]
