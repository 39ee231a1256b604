"""Rules of ours about reference methods: names, refusals, retries, foreign calculators."""

import json
import pickle
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes

from alloop.errors import FrameError, LabelError, MethodError
from alloop.frames import Frame
from alloop.reference import failures, valence
from alloop.reference.engine import Answer, EngineReference
from alloop.reference.method import MODELS, MethodSpec, build_reference

H2O = Frame(np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
needs_xtb = pytest.mark.skipif(find_spec("xtb") is None, reason="xtb-python is not installed")
OH_RADICAL = Frame(H2O.numbers[:2], H2O.positions[:2], 0, 2)


def build(method, frame):
    return build_reference(method, frame.numbers, frame.charge, frame.multiplicity)


# --- which method -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        MethodSpec("tblite", "GFN1-xTB"),
        MethodSpec("ase", "EMT", {"calculator": "ase.calculators.emt:EMT", "kwargs": {"a": [1]}}),
    ],
)
def test_a_method_survives_json_and_pickle(method):
    assert MethodSpec.from_json(json.loads(json.dumps(method.to_json()))) == method
    assert pickle.loads(pickle.dumps(method)) == method


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"engine": "tblit"}, "unknown engine 'tblit', want one of .*did you mean 'tblite'"),
        ({"engine": "tblite", "model": "GFN2"}, "did you mean 'GFN2-xTB'"),
        ({"engine": "xtb", "model": "spGFN2-xTB"}, "unknown model of engine xtb"),
        ({"engine": "tblite", "modle": "GFN2-xTB"}, "did you mean 'model'"),
        ({"model": "GFN2-xTB"}, "needs an engine"),
        ({"engine": "tblite", "options": {"kwargs": {}}}, "takes no options"),
        ({"engine": "ase", "model": "x"}, "package.module:Class"),
        ({"engine": "ase", "model": "x", "options": {"calculator": "ase.emt"}}, "module:Class"),
        ({"engine": "ase", "model": "", "options": {"calculator": "a:B"}}, "your name"),
        ({"engine": "ase", "model": "x", "options": {"calcluator": "a:B"}}, "'calculator'"),
        ({"engine": "ase", "model": "x", "options": {"calculator": "a:B", "info": 1}}, "info"),
        ({"engine": "ase", "model": "x", "options": {"calculator": print}}, "plain data"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused(data, words):
    with pytest.raises(MethodError, match=words):
        MethodSpec.from_json(data)


@pytest.mark.parametrize(
    ("model", "multiplicity", "name"),
    [
        ("GFN2-xTB", 1, "GFN2-xTB"),
        ("GFN2-xTB", 2, "spGFN2-xTB"),
        ("GFN1-xTB", 3, "spGFN1-xTB"),
        ("spGFN2-xTB", 1, "spGFN2-xTB"),
        ("spGFN2-xTB", 3, "spGFN2-xTB"),
    ],
)
def test_open_shells_have_a_level_of_theory_of_their_own(model, multiplicity, name):
    assert MethodSpec("tblite", model).level_of_theory(multiplicity) == name


@pytest.mark.parametrize("engine", ["tblite", pytest.param("xtb", marks=needs_xtb)])
def test_every_model_labels_under_its_name(engine):
    for model in MODELS[engine]:
        label = build(MethodSpec(engine, model), H2O).label(H2O)
        assert label.method == model
        assert label.frame_key == H2O.key


@needs_xtb
def test_xtb_refuses_open_shells_and_says_what_to_use():
    with pytest.raises(MethodError, match=r"multiplicity 2.*no spin polarisation.*tblite"):
        build(MethodSpec("xtb"), OH_RADICAL)


def test_a_missing_xtb_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xtb", None)

    with pytest.raises(MethodError, match=r"pip install 'alloop\[xtb\]'"):
        build(MethodSpec("xtb"), H2O)


def test_a_frame_of_another_system_is_refused():
    reference = build(MethodSpec("tblite"), H2O)
    ion = Frame(H2O.numbers, H2O.positions, -2)
    permuted = Frame(H2O.numbers[::-1], H2O.positions)

    for other in (ion, permuted, OH_RADICAL):
        with pytest.raises(FrameError, match="not of the system"):
            reference.label(other)


def test_an_impossible_multiplicity_is_refused():
    with pytest.raises(FrameError, match="impossible"):
        build_reference(MethodSpec("tblite"), H2O.numbers, 0, 2)


# --- what GFN-xTB can hold ----------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["tblite", pytest.param("xtb", marks=needs_xtb)])
@pytest.mark.parametrize(
    ("numbers", "charge", "multiplicity", "words"),
    [
        ([100], 0, 1, r"atomic numbers \[100\]"),
        ([8, 1, 1], 10, 1, "leaves -2 valence electrons"),
        ([1, 1], -4, 1, "6 valence electrons.* in 2 orbitals"),
    ],
)
def test_what_would_crash_the_process_is_refused(engine, numbers, charge, multiplicity, words):
    with pytest.raises(MethodError, match=words):
        build_reference(MethodSpec(engine), np.array(numbers), charge, multiplicity)


def test_more_unpaired_electrons_than_valence_electrons_are_refused():
    with pytest.raises(MethodError, match="leaves 4 valence electrons, 6 of them unpaired"):
        build_reference(MethodSpec("tblite"), np.array([6]), 0, 7)


def test_every_neutral_atom_and_its_common_ions_fit():
    for number in range(1, valence.HEAVIEST + 1):
        electrons = valence.valence_electrons(number)
        valence.check_electrons(np.array([number]), 0, 1 + electrons % 2)
        valence.check_electrons(np.array([number]), electrons, 1)  # stripped bare
    for halogen in (9, 17, 35, 53):
        valence.check_electrons(np.array([halogen]), -1, 1)
    valence.check_electrons(np.array([24]), 0, 7)  # Cr, six unpaired electrons


# --- why labels fail ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Too close interatomic distances found", "clash"),
        ("-1- xtb_api_newMolecule: Could not generate molecular structure", "clash"),
        ("SCF not converged in 250 cycles", "scf_not_converged"),
        ("-1- scf: Self consistent charge iterator did not converge", "scf_not_converged"),
        ("(sygvd) failed to solve eigenvalue problem. info=1", "linear_algebra"),
        ("segmentation violation in module foo", "engine_error"),
    ],
)  # fmt: skip
def test_the_engines_words_are_understood(words, code):
    assert failures.classify(words) == code


def test_every_code_has_a_rule_and_only_hopeful_ones_are_tried_again():
    assert set(failures.RULES) == set(failures.FailureCode)
    again = {code for code in failures.FailureCode if failures.may_retry(code, 1)}
    assert again == {
        "scf_not_converged", "cc_not_converged", "wrong_spin", "linear_algebra", "not_finite",
        "timeout", "out_of_memory", "engine_error",
    }  # fmt: skip


def test_retries_end_with_the_ladder():
    rungs = len(failures.SCF_LADDER)
    tries = [failures.may_retry("scf_not_converged", n) for n in range(1, rungs + 1)]
    assert tries == [True] * (rungs - 1) + [False]
    assert len(set(failures.SCF_LADDER)) == rungs
    assert failures.scf_settings(rungs + 5) == failures.SCF_LADDER[-1]
    with pytest.raises(ValueError, match="attempt is -1"):
        failures.scf_settings(-1)


def test_an_unknown_code_is_a_programming_error():
    with pytest.raises(ValueError, match="bad_luck"):
        failures.may_retry("bad_luck", 1)


# --- any ASE calculator -------------------------------------------------------------------------


class Spring(Calculator):
    """Atoms tied to the origin, whose constant is what it was told; it fails where told to."""

    implemented_properties = ["energy", "forces", "free_energy"]  # noqa: RUF012
    made = 0

    def __init__(self, constant=1.0, charge=0, spin=1, entropy=0.0, fail_at=None):
        super().__init__()
        type(self).made += 1
        self.constant, self.charge, self.spin = constant, charge, spin
        self.entropy, self.fail_at = entropy, fail_at
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.fail_at == self.calls:
            raise ArithmeticError("SCF did not converge, sorry")
        constant = self.constant + 10 * self.charge + 100 * (self.spin - 1)
        constant += 1000 * atoms.info.get("told", 0)
        energy = 0.5 * constant * np.sum(atoms.positions**2)
        self.results = {
            "energy": energy + self.entropy,
            "free_energy": energy,
            "forces": -constant * atoms.positions,
        }


@pytest.fixture
def spring(monkeypatch):
    module = types.ModuleType("springs")
    module.Spring, module.NUMBER = Spring, 3
    monkeypatch.setitem(sys.modules, "springs", module)
    monkeypatch.setattr(Spring, "made", 0)

    def make(frame=H2O, calculator="springs:Spring", info=None, **kwargs):
        options = {"calculator": calculator, "kwargs": kwargs, "info": info or {}}
        return build(MethodSpec("ase", "my spring", options), frame)

    return make


def test_an_ase_calculator_labels_under_the_users_name(spring):
    label = spring(constant=3.0).label(H2O)

    assert label.method == "my spring"
    assert label.energy == pytest.approx(1.5 * np.sum(H2O.positions**2))
    np.testing.assert_allclose(label.forces, -3.0 * H2O.positions)


def test_the_energy_belongs_to_the_forces(spring):
    assert spring(entropy=0.3).label(H2O).energy == pytest.approx(0.5 * np.sum(H2O.positions**2))


def test_an_ase_calculator_is_told_of_charge_and_spin(spring):
    cation = Frame(H2O.numbers, H2O.positions, 1, 2)

    by_name = spring(cation, charge="{charge}", spin="{multiplicity}").label(cation)
    by_info = spring(cation, spin="{multiplicity}", info={"told": "{charge}"}).label(cation)

    np.testing.assert_allclose(by_name.forces, -111.0 * H2O.positions)
    np.testing.assert_allclose(by_info.forces, -1101.0 * H2O.positions)


@pytest.mark.parametrize(
    ("charge", "multiplicity", "kwargs", "words"),
    [
        (2, 1, {}, "charge 2"),
        (0, 3, {"charge": "{charge}"}, "multiplicity 3"),
    ],
)
def test_a_calculator_that_would_ignore_the_electrons_is_refused(
    spring, charge, multiplicity, kwargs, words
):
    with pytest.raises(MethodError, match=f"nothing tells springs:Spring .* {words}"):
        spring(Frame(H2O.numbers, H2O.positions, charge, multiplicity), **kwargs)


def test_a_failing_calculator_costs_one_frame_and_is_made_anew(spring):
    reference = spring(fail_at=2)
    reference.label(H2O)

    with pytest.raises(LabelError, match="sorry") as caught:
        reference.label(H2O)

    assert caught.value.code == "scf_not_converged"
    assert caught.value.frame_key == H2O.key
    assert Spring.made == 1
    assert reference.label(H2O, attempt=1).energy > 0.0
    assert Spring.made == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["energy", "forces"])
def test_numbers_that_are_not_finite_are_no_label(bad, where):
    forces = np.zeros((3, 3))
    if where == "forces":
        forces[2, 1] = bad
    energy = bad if where == "energy" else -1.0
    reference = EngineReference(
        name="broken",
        program="none",
        numbers=H2O.numbers,
        charge=0,
        multiplicity=1,
        single_point=lambda frame, attempt: Answer(energy, forces),
        failures=(),
    )
    with pytest.raises(LabelError, match="broken") as caught:
        reference.label(H2O)
    assert caught.value.code == "not_finite"


@pytest.mark.parametrize(
    ("calculator", "words"),
    [
        ("nowhere.at_all:Spring", "cannot be imported"),
        ("springs:Sprong", "cannot be imported"),
        ("springs:NUMBER", "is int, want a class"),
    ],
)
def test_a_calculator_that_is_not_there_is_named(spring, calculator, words):
    with pytest.raises(MethodError, match=f"{calculator} .*{words}"):
        spring(calculator=calculator)


def test_a_calculator_that_refuses_its_arguments_is_named(spring):
    with pytest.raises(MethodError, match=r"springs:Spring could not be made .*'bounce'"):
        spring(bounce=1)


def test_the_program_is_the_installed_package():
    method = MethodSpec("ase", "EMT", {"calculator": "ase.calculators.emt:EMT"})
    assert build(method, H2O).program.startswith("ase 3.")
