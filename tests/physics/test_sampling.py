"""Reference trajectories from any potential: starts, laws kept, parts, and how replicas end."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ase.data import atomic_masses

from alloop.dynamics.health import HealthLimits
from alloop.dynamics.md import MdSettings, run_md
from alloop.dynamics.sampling import (
    PartsFolder,
    SamplingSettings,
    draw_starts,
    find_modes,
    sample_trajectories,
    seeds_of_replicas,
)
from alloop.errors import DynamicsError, FrameError, LabelError, MethodError, ModelError
from alloop.frames import Frame, Label
from alloop.potentials.files import save_member
from alloop.reference.ani import MeanOfCommittee
from alloop.reference.engine import EngineReference
from alloop.reference.potential import Potential, ReferenceCommittee, find_potential
from alloop.units import HBAR, KINETIC
from tests.physics.dynamics_committees import WATER, WATER_AT, morse_water
from tests.physics.motion_samples import member_of

WATER_FRAME = Frame(WATER, WATER_AT)
AMMONIUM = Frame(
    np.array([7, 1, 1, 1, 1]),
    0.59 * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]),
    charge=1,
)
HYDROXYL = Frame(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.98]]), multiplicity=2)


def morse_potential() -> Potential:
    committee = morse_water(1)
    reference = EngineReference(
        "morse", "none", WATER, 0, 1, MeanOfCommittee(committee), failures=()
    )
    return Potential("morse", "morse", committee, reference)


def settings(**changes) -> SamplingSettings:
    given = {"replicas": 4, "duration": 10.0, "timestep": 0.5, "record_every": 0.5, "batch": 4}
    return SamplingSettings(**given | changes)


@pytest.mark.parametrize("frame", [WATER_FRAME, AMMONIUM, HYDROXYL], ids=lambda f: f.formula)
def test_a_reference_as_a_committee_says_what_the_reference_says(frame):
    potential = find_potential(["GFN2-xTB"], frame)
    rng = np.random.default_rng(1)
    moved = frame.positions + 0.05 * rng.normal(size=(2, *frame.positions.shape))

    said = potential.committee.evaluate(frame.numbers, torch.tensor(moved), forces="members")

    for i, positions in enumerate(moved):
        label = potential.reference.label(dataclasses.replace(frame, positions=positions))
        assert said.energies[0, i].item() == label.energy
        np.testing.assert_array_equal(said.forces[i], label.forces)
        np.testing.assert_array_equal(said.member_forces[0, i], label.forces)


class FailsOnce:
    """A reference whose self-consistent field converges at the second attempt, or never."""

    name = program = "fails once"
    gives_forces = True

    def __init__(self, code: str) -> None:
        self.code, self.attempts = code, []

    def label(self, frame, attempt=0):
        self.attempts.append(attempt)
        if attempt == 0:
            raise LabelError(frame.key, self.name, self.code, "no", "none")
        return Label(frame.key, self.name, -1.0, np.zeros((3, 3)))


def test_a_field_that_does_not_converge_is_sought_as_a_campaign_would():
    patient, hopeless = FailsOnce("scf_not_converged"), FailsOnce("clash")
    at = torch.tensor(WATER_AT)[None]

    found = ReferenceCommittee(patient, WATER_FRAME).evaluate(WATER, at, forces="mean")
    lost = ReferenceCommittee(hopeless, WATER_FRAME).evaluate(WATER, at, forces="mean")

    assert patient.attempts == [0, 1]
    assert hopeless.attempts == [0]
    assert float(found.energies[0, 0]) == -1.0
    assert bool(lost.energies.isnan().all())
    assert bool(lost.forces.isnan().all())


class NoStretchedBonds:
    """Morse water, whose self-consistent field is lost where a bond is longer than 1.1 Å."""

    name = program = "no stretched bonds"
    gives_forces = True

    def label(self, frame, attempt=0):
        if np.linalg.norm(frame.positions[1:] - frame.positions[0], axis=1).max() > 1.1:
            raise LabelError(frame.key, self.name, "scf_not_converged", "no", "none")
        return morse_potential().reference.label(frame)


def test_a_replica_without_a_label_ends_alone():
    starts = np.stack([WATER_AT, WATER_AT])
    velocities = np.zeros_like(starts)
    velocities[1, 1] = 0.1 * (WATER_AT[1] - WATER_AT[0])  # Å/fs: stretched after a few steps
    runs = run_md(
        ReferenceCommittee(NoStretchedBonds(), WATER_FRAME),
        WATER,
        starts,
        velocities,
        atomic_masses[WATER],
        MdSettings("nve", 0.5, 20, 1, (0.0, 0.0), (0, 1)),
        HealthLimits(),
    )

    assert [run.about.ended for run in runs] == ["completed", "not_finite"]
    assert 1 < runs[1].n_frames < runs[0].n_frames == 21


def test_motion_keeps_energy_and_has_no_momenta():
    found = sample_trajectories(
        find_potential(["GFN2-xTB"], WATER_FRAME),
        WATER_FRAME,
        settings(duration=50.0, timestep=0.25),
    )

    assert [t.about.ended for t in found] == ["completed"] * 4
    for trajectory in found:
        total = trajectory.potential + trajectory.kinetic
        # Verlet breathes with the square of the time step: 6 meV of 700 at 0.25 fs.
        assert np.ptp(total) < 0.012
        masses = trajectory.system.masses[:, None]
        arms = trajectory.positions - (masses * trajectory.positions).sum(1, keepdims=True) / (
            masses.sum()
        )
        momentum = (masses * trajectory.velocities).sum(1)
        angular = (masses * np.cross(arms, trajectory.velocities)).sum(1)
        assert np.abs(momentum).max() < 1e-5
        assert np.abs(angular).max() < 1e-5
        assert np.ptp(trajectory.positions, axis=0).max() > 0.05
        assert trajectory.about.tags["level_of_theory"] == "GFN2-xTB"
    # Half of the zero-point energy of a water molecule, about 0.57 eV, is potential on average.
    assert 0.05 < np.mean([t.kinetic.mean() for t in found]) < 0.6


def test_hot_wigner_starts_are_not_taken_for_spikes():
    """At 0 K the zero-point energy is that of a classical molecule at 2000 K and more."""
    potential = morse_potential()
    modes = find_modes(potential, WATER_FRAME)
    wanted = settings(replicas=200, batch=200, duration=10.0, seed=3)
    found = sample_trajectories(potential, WATER_FRAME, wanted, modes=modes)
    positions, velocities = draw_starts(modes, "wigner", 0.0, seeds_of_replicas(3, range(200)))
    strict = run_md(
        potential.committee,
        WATER,
        positions,
        velocities,
        modes.masses,
        MdSettings("nve", 0.5, 20, 1, (0.0,) * 200, tuple(range(200))),
        HealthLimits(),
    )

    assert {t.about.ended for t in found} == {"completed"}
    assert "temperature_spike" in {t.about.ended for t in strict}


def test_starts_hold_the_energy_of_their_distribution():
    """<E> of the Wigner distribution at 0 K is the zero-point energy; classically it is 3 kT."""
    modes = find_modes(morse_potential(), WATER_FRAME)
    vectors = modes.vectors * np.sqrt(modes.masses)[:, None]

    def harmonic(start, temperature):
        positions, velocities = draw_starts(modes, start, temperature, range(2000))
        q = np.einsum("mai,nai->nm", vectors, positions - modes.positions)
        kinetic = 0.5 * np.einsum("a,nai,nai->n", modes.masses, velocities, velocities)
        potential = 0.5 * (q * modes.frequencies) ** 2
        return (kinetic + potential.sum(1)).mean() * KINETIC

    zero_point = 0.5 * HBAR * modes.frequencies.sum()
    # 2000 draws of three modes: a standard error of 2 per cent.
    assert harmonic("wigner", 0.0) == pytest.approx(zero_point, rel=0.06)
    assert harmonic("thermal", 500.0) == pytest.approx(3 * 8.617e-5 * 500.0, rel=0.06)


def test_a_replica_does_not_depend_on_its_batch():
    potential = morse_potential()
    together = sample_trajectories(potential, WATER_FRAME, settings(batch=4))
    apart = sample_trajectories(potential, WATER_FRAME, settings(batch=3))

    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.positions, other.positions, rtol=0, atol=1e-12)
        assert one.about.seed == other.about.seed
    assert not np.allclose(together[0].positions[0], together[1].positions[0])


def test_finished_batches_are_not_run_again(tmp_path):
    potential, wanted = morse_potential(), settings(batch=2, duration=20.0)
    whole = sample_trajectories(potential, WATER_FRAME, wanted)
    parts = PartsFolder(tmp_path / "parts")

    def interrupt(done, total, text):
        if text.startswith("batch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_trajectories(potential, WATER_FRAME, wanted, parts=parts, on_progress=interrupt)
    told = []
    resumed = sample_trajectories(
        potential, WATER_FRAME, wanted, parts=parts, on_progress=lambda *said: told.append(said)
    )

    assert {text.split(",")[0] for _, _, text in told} == {"batch 2 of 2"}
    assert told[-1][:2] == (80, 80)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        assert one.about == other.about
    other_seed = dataclasses.replace(wanted, seed=2)
    fresh = sample_trajectories(potential, WATER_FRAME, other_seed, parts=parts)
    assert not np.allclose(fresh[0].positions[0], whole[0].positions[0])
    parts.remove()
    assert not parts.folder.exists()


def test_a_committee_of_files_is_optimised_and_moved_by_one_surface(tmp_path):
    files = []
    for seed in (1, 2):
        files.append(tmp_path / f"{seed}.pt")
        save_member(files[-1], member_of("schnet", elements=(1, 8), scale=0.1, seed=seed))
    potential = find_potential([str(file) for file in files], WATER_FRAME)
    folder = find_potential([str(tmp_path)], WATER_FRAME)
    said = potential.committee.evaluate(WATER, torch.tensor(WATER_AT)[None], forces="mean")
    label = potential.reference.label(WATER_FRAME)

    assert potential.committee.n_members == 2
    assert folder.identity == potential.identity
    assert find_potential([str(files[0])], WATER_FRAME).identity != potential.identity
    assert float(said.energies.mean()) == pytest.approx(label.energy, abs=1e-4)
    np.testing.assert_allclose(said.forces[0], label.forces, atol=1e-4)


def test_ase_calculators_can_be_named():
    argon = Frame(np.array([18, 18]), np.array([[0.0, 0, 0], [0, 0, 1.2]]))
    potential = find_potential(["ase.calculators.lj:LennardJones"], argon)

    assert np.isfinite(potential.reference.label(argon).energy)


def test_ani_moves_and_labels_alike(ani_weights):
    methane = Frame(np.array([6, 1, 1, 1, 1]), 1.07 * AMMONIUM.positions)
    potential = find_potential(["ANI-1ccx"], methane)
    at = torch.tensor(methane.positions)[None]
    said = potential.committee.evaluate(methane.numbers, at, forces="mean")

    assert potential.committee.n_members == 8
    assert float(said.energies.mean()) == pytest.approx(
        potential.reference.label(methane).energy, abs=1e-4
    )


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ([], MethodError, "no potential"),
        (["GFN7-xTB"], MethodError, "neither a file"),
        (["ANI-1x", "ANI-2x"], MethodError, "is no file"),
        (["no.such.module:Calculator"], MethodError, "no"),
    ],
)
def test_what_is_no_potential_is_refused(names, error, words):
    with pytest.raises(error, match=words):
        find_potential(names, WATER_FRAME)


def test_what_a_potential_cannot_describe_is_refused(tmp_path):
    save_member(tmp_path / "a.pt", member_of("schnet", elements=(1, 6), scale=0.1))
    with pytest.raises(ModelError, match="was given O"):
        find_potential([str(tmp_path / "a.pt")], WATER_FRAME)
    with pytest.raises(FrameError, match="impossible"):
        find_potential(["GFN2-xTB"], Frame(WATER, WATER_AT, charge=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"duration": float("nan")}, "duration is nan"),
        ({"timestep": -0.5}, "timestep"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"start": "hot"}, "want 'wigner'"),
        ({"start": "thermal"}, "do not move"),
        ({"record_every": 0.7}, "no multiple"),
        ({"duration": 10.2}, "no multiple"),
        ({"timestep": 20.0, "record_every": 5.0}, "no multiple"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(DynamicsError, match=words):
        settings(**changes)


def test_crystals_are_refused():
    crystal = Frame(WATER, WATER_AT, cell=np.eye(3) * 9.0, pbc=(True, True, True))
    with pytest.raises(DynamicsError, match="periodic"):
        find_modes(morse_potential(), crystal)
