"""What may be asked of PySCF, and what its levels of theory are called."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from alloop.campaign.methods import method_of
from alloop.config.model import Campaign
from alloop.config.validation import validate
from alloop.errors import LabelError, MethodError
from alloop.frames import Frame
from alloop.reference.engine import Answer, EngineReference
from alloop.reference.method import MethodSpec, build_reference, demand_forces
from alloop.reference.optimise import ReferenceCalculator, hessian, optimise
from alloop.reference.potential import ReferenceCommittee

WATER = Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))


def spec(**options):
    return MethodSpec("pyscf", options=options)


def build(frame=WATER, **options):
    return build_reference(spec(**options), frame.numbers, frame.charge, frame.multiplicity)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"theory": "wb97x", "basis": "6-31g(d)"}, "wB97X/6-31G*"),
        ({"theory": "WB97X", "basis": "6-31G*", "grid": 3}, "wB97X/6-31G*"),
        ({"theory": "wB97X", "basis": "6-31G*", "grid": 5}, "wB97X/6-31G* (grid 5)"),
        ({"theory": "hf", "basis": "sto3g"}, "HF/STO-3G"),
        (
            {"theory": "b3lyp", "basis": "def2svp", "dispersion": "d3bj"},
            "B3LYP-D3(BJ)/def2-SVP",
        ),
        ({"theory": "PBE", "basis": "cc-pvtz", "dispersion": "d3zero"}, "PBE-D3(0)/cc-pVTZ"),
        ({"theory": "pbe0", "basis": "6-31G", "dispersion": "d4"}, "PBE0-D4/6-31G"),
        ({"theory": "mp2", "basis": "ccpvdz", "density_fit": True}, "DF-MP2/cc-pVDZ"),
        ({"theory": "ccsd(t)", "basis": "cc-pVDZ", "frozen_core": True}, "CCSD(T)/cc-pVDZ"),
        (
            {"theory": "CCSD(T)", "basis": "cc-pVDZ", "frozen_core": False, "conv_tol": 1e-11},
            "CCSD(T)/cc-pVDZ (all electrons, converged to 1e-11 Ha)",
        ),
        (
            {"theory": "m06_2x", "basis": "6-311+G(d,p)", "memory": 1, "max_seconds": 1},
            "M06-2X/6-311+G**",
        ),
        ({"theory": "gga_x_pbe", "basis": "jun-cc-pVDZ"}, "GGA_X_PBE/jun-cc-pvdz"),
    ],
)
def test_a_level_has_one_name(options, name):
    found = spec(**options)
    assert found.model == name
    assert found.level_of_theory(1) == found.level_of_theory(3) == name


def test_whatever_changes_numbers_changes_the_name():
    base = {"theory": "PBE0", "basis": "6-31G"}
    others = [
        {"theory": "PBE"}, {"basis": "6-31G*"}, {"dispersion": "d4"}, {"dispersion": "d3bj"},
        {"density_fit": True}, {"grid": 2}, {"conv_tol": 1e-8},
    ]  # fmt: skip
    names = {spec(**(base | other)).model for other in [{}, *others]}
    assert len(names) == len(others) + 1
    same = [{"memory": 99}, {"max_seconds": 9.0}, {"forces": "none"}, {"forces": "analytic"}]
    assert {spec(**(base | other)).model for other in same} == {spec(**base).model}


def test_a_method_survives_json():
    method = spec(theory="ccsd", basis="6-31g", frozen_core=False, memory=500)
    again = MethodSpec.from_json(json.loads(json.dumps(method.to_json())))
    assert again == method
    assert again.model == "CCSD/6-31G (all electrons)"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"basis": "6-31G"}, "needs the option theory"),
        ({"theory": "HF"}, "needs the option basis"),
        ({"theory": "HF", "basis": "6-31G", "grids": 3}, "did you mean 'grid'"),
        ({"theory": "HF", "basis": "6-31G", "grid": 3}, "grid .* is for functionals, not for HF"),
        ({"theory": "PBE", "basis": "6-31G", "grid": 10}, "grid .* is 10, want 0 to 9"),
        ({"theory": "PBE", "basis": "6-31G", "grid": True}, "grid .* is True"),
        ({"theory": "PBE", "basis": "6-31G", "frozen_core": True}, "is for MP2, CCSD"),
        ({"theory": "MP2", "basis": "6-31G", "dispersion": "d4"}, "MP2 has its own"),
        ({"theory": "PBE", "basis": "6-31G", "dispersion": "d3"}, "did you mean 'd3bj'|'d4'"),
        ({"theory": "PBE", "basis": "6-31G", "density_fit": 1}, "want true or false"),
        ({"theory": "PBE", "basis": "6-31G", "memory": float("nan")}, "memory .* more than 0"),
        ({"theory": "PBE", "basis": "6-31G", "max_seconds": 0}, "max_seconds .* more than 0"),
        ({"theory": "PBE", "basis": ""}, "basis .* want a name"),
        ({"theory": "PBE", "basis": "6-31G", "forces": "numeric"}, "unknown value of forces"),
        (
            {"theory": "CCSD", "basis": "6-31G", "density_fit": True, "forces": "analytic"},
            "no right gradient of DF-CCSD/6-31G",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(MethodError, match=words):
        spec(**options)


def test_a_name_that_contradicts_the_options_is_refused():
    with pytest.raises(MethodError, match="'HF/6-31G', not 'HF/6-31G\\*'"):
        MethodSpec("pyscf", "HF/6-31G*", {"theory": "HF", "basis": "6-31G"})


# --- what PySCF knows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"theory": "wB97Y", "basis": "6-31G"}, "no theory 'WB97Y'; did you mean 'wB97"),
        ({"theory": "B3LIP", "basis": "6-31G"}, "did you mean 'B3LYP'"),
        ({"theory": "wB97X-D3", "basis": "6-31G"}, "names a correction"),
        ({"theory": "B97-D", "basis": "6-31G"}, "names a correction"),
        ({"theory": "PBE", "basis": "6-32G"}, "no basis '6-32g'; did you mean '6-31G'"),
        ({"theory": "PBE", "basis": "def3-SVP"}, "did you mean 'def2-SVP'"),
    ],
)
def test_what_pyscf_does_not_know_is_named_with_what_was_meant(options, words):
    pytest.importorskip("pyscf")
    with pytest.raises(MethodError, match=words) as caught:
        build(**options)
    assert "\n" not in str(caught.value)


def test_an_element_that_the_basis_lacks_is_named():
    pytest.importorskip("pyscf")
    iodide = Frame(np.array([53, 1]), np.array([[0.0, 0, 0], [0, 0, 1.6]]))
    with pytest.raises(MethodError, match=r"basis cc-pVDZ has no functions for I$"):
        build(iodide, theory="HF", basis="cc-pVDZ")
    build(iodide, theory="HF", basis="def2-SVP")


@pytest.mark.parametrize(
    ("theory", "dispersion", "words"),
    [
        ("wB97X", "d3bj", "never fitted to wB97X"),
        ("wB97M-V", "d4", "never fitted to wB97M-V"),
        ("GGA_X_PBE", "d3bj", "no parameters for GGA_X_PBE"),
        ("GGA_X_PBE", "d4", "no parameters for GGA_X_PBE"),
    ],
)
def test_a_dispersion_without_parameters_is_refused(theory, dispersion, words):
    pytest.importorskip("pyscf.dispersion")
    with pytest.raises(MethodError, match=words):
        build(theory=theory, basis="6-31G", dispersion=dispersion)


def test_a_missing_pyscf_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(MethodError, match=r"pip install 'alloop\[pyscf\]'"):
        build(theory="HF", basis="6-31G")


def test_missing_gradients_and_missing_electrons_are_known_at_once():
    pytest.importorskip("pyscf")
    radical = Frame(WATER.numbers[:2], WATER.positions[:2], 0, 2)
    method = {"theory": "CCSD(T)", "basis": "6-31G"}
    assert spec(**method).gives_forces
    assert build(**method).gives_forces
    assert not build(radical, **method).gives_forces
    with pytest.raises(MethodError, match=r"no right gradient .* multiplicity 2"):
        build(radical, **method, forces="analytic")
    proton = Frame(np.array([1]), np.zeros((1, 3)), 1, 1)
    with pytest.raises(MethodError, match="leaves no electron"):
        build(proton, theory="HF", basis="6-31G")


def test_a_crystal_is_refused():
    pytest.importorskip("pyscf")
    ice = Frame(WATER.numbers, WATER.positions, cell=np.eye(3) * 4, pbc=(True, True, True))
    with pytest.raises(LabelError, match="labels molecules") as caught:
        build(theory="HF", basis="6-31G").label(ice)
    assert caught.value.code == "unsupported"


# --- energies alone -------------------------------------------------------------------------------


def energies_alone(**diagnostics):
    return EngineReference(
        name="energies",
        program="none",
        numbers=WATER.numbers,
        charge=0,
        multiplicity=1,
        single_point=lambda frame, attempt: Answer(-1.0, None, diagnostics),
        failures=(),
        gives_forces=False,
    )


def test_a_label_without_forces_and_its_diagnostics():
    label = energies_alone(t1=0.01, gap=float("nan")).label(WATER)
    assert (label.energy, label.forces) == (-1.0, None)
    assert label.diagnostics == {"t1": 0.01}


def test_what_needs_forces_refuses_a_method_without_them():
    reference = energies_alone()
    for needy in (
        lambda: optimise(reference, WATER),
        lambda: hessian(reference, WATER),
        lambda: ReferenceCalculator(reference, WATER),
        lambda: ReferenceCommittee(reference, WATER),
        lambda: demand_forces(reference, "this test"),
    ):
        with pytest.raises(MethodError, match="needs forces, and energies gives energies alone"):
            needy()


# --- computed by hand, and programs behind ASE ----------------------------------------------------


def test_a_level_that_is_computed_by_hand():
    method = MethodSpec("external", "DLPNO", {"forces": False})
    assert (method.level_of_theory(2), method.gives_forces) == ("DLPNO", False)
    assert MethodSpec("external", "DLPNO").gives_forces
    with pytest.raises(MethodError, match=r"DLPNO is computed by hand .*alloop import"):
        build_reference(method, WATER.numbers, 0, 1)
    with pytest.raises(MethodError, match="engine external needs a model: your name"):
        MethodSpec("external")
    with pytest.raises(MethodError, match="want a bool"):
        MethodSpec("external", "DLPNO", {"forces": "no"})


ORCA = {
    "engine": "ase",
    "calculator": "alloop.reference.codes:orca",
    "kwargs": {
        "command": "/nowhere/orca",
        "simple_input": "wB97X-D3BJ def2-TZVP EnGrad TightSCF",
        "blocks": "%pal nprocs 4 end",
        "charge": "{charge}",
        "multiplicity": "{multiplicity}",
    },
    "name": "wB97X-D3BJ/def2-TZVP (ORCA)",
}


def campaign(method):
    data = {
        "schema": 1,
        "campaign": {"name": "water"},
        "systems": {"w": {"structure": "water.xyz"}},
        "tiers": [{"id": "x", "method": method}],
        "stop": {"max_generations": 1},
    }
    found, problems, _ = validate(data)
    assert not problems, problems
    assert isinstance(found, Campaign)
    return MethodSpec.from_json(method_of(found, found.tiers[0]))


def test_orca_is_had_by_import_path_as_far_as_its_binary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    method = campaign(ORCA)
    cation = Frame(WATER.numbers, WATER.positions, 1, 2)
    reference = build_reference(method, cation.numbers, 1, 2)

    with pytest.raises(LabelError, match="No such file or directory: '/nowhere/orca'"):
        reference.label(cation)

    assert reference.program.startswith("ORCA through ase 3.")


def test_the_input_of_orca_has_the_systems_charge_and_spin(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    binary = tmp_path / "orca"
    binary.write_text("#!/bin/sh\ncp $1 ../seen.inp\nexit 1\n")
    binary.chmod(0o755)
    method = campaign(ORCA | {"kwargs": ORCA["kwargs"] | {"command": str(binary)}})
    cation = Frame(WATER.numbers, WATER.positions, 1, 2)

    with pytest.raises(LabelError):
        build_reference(method, cation.numbers, 1, 2).label(cation)

    written = (tmp_path / "seen.inp").read_text()
    assert written.startswith("! wB97X-D3BJ def2-TZVP EnGrad TightSCF")
    assert "%pal nprocs 4 end" in written
    assert "*xyz 1 2" in written


def test_the_campaign_file_speaks_in_quantities():
    method = campaign(
        {
            "engine": "pyscf",
            "theory": "ccsd(t)",
            "basis": "cc-pvdz",
            "memory": "4 GB",
            "max_time": "2 h",
            "conv_tol": "1e-10 Ha",
        }
    )
    assert method.model == "CCSD(T)/cc-pVDZ (converged to 1e-10 Ha)"
    assert (method.options["memory"], method.options["max_seconds"]) == (4000.0, 7200.0)
    assert campaign({"engine": "external", "name": "by hand", "forces": False}).model == "by hand"


def test_the_campaign_file_refuses_what_does_not_go_together():
    data = {"id": "x", "method": {"engine": "pyscf", "theory": "HF", "basis": "6-31G", "grid": 4}}
    problems = validate(
        {
            "schema": 1,
            "campaign": {"name": "water"},
            "systems": {"w": {"structure": "water.xyz"}},
            "tiers": [data],
            "stop": {"max_generations": 1},
        }
    )[1]
    assert "option grid of engine pyscf is for functionals, not for HF" in str(problems[0])
