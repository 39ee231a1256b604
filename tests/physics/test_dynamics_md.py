import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.acquisition.uncertainty import max_force_spread, mean_force_spread
from alloop.dynamics.health import HealthLimits
from alloop.dynamics.integrators import degrees_of_freedom
from alloop.dynamics.md import MdSettings, run_md
from alloop.dynamics.recording import force_spread
from alloop.errors import DynamicsError, OutOfTime
from alloop.trajectories import ARRAYS
from alloop.units import KB
from tests.in_spells import in_spells
from tests.physics.dynamics_committees import (
    WATER,
    WATER_AT,
    WATER_MASSES,
    Gfn2,
    PairCommittee,
    lennard_jones,
    morse,
    morse_water,
)

NVT = MdSettings("nvt", 0.5, 100, 10, (300.0, 600.0, 300.0), (1, 2, 3), friction=0.02)
NVE = MdSettings("nve", 0.5, 100, 1, (300.0, 300.0, 300.0), (1, 2, 3))


def starts(n_replicas=3, temperature=300.0, masses=WATER_MASSES, at=WATER_AT, seed=0):
    rng = np.random.default_rng(seed)
    x = np.repeat(at[None], n_replicas, axis=0)
    v = rng.normal(size=x.shape) * np.sqrt(KB * temperature * 0.00964853 / masses[:, None])
    return x, v - (masses[:, None] * v).sum(axis=1, keepdims=True) / masses.sum()


def run(settings=NVT, limits=HealthLimits(), committee=None, start=None, **options):  # noqa: B008
    x, v = starts(len(settings.seeds)) if start is None else start
    committee = morse_water() if committee is None else committee
    return run_md(committee, WATER, x, v, WATER_MASSES, settings, limits, **options)


def test_recorded_frames_are_what_the_committee_says_of_them():
    committee = morse_water(4)
    for settings in (NVT, NVE):
        x, v = starts()
        trajectories = run(settings, committee=committee, start=(x, v))
        for i, one in enumerate(trajectories):
            assert one.about.ended == "completed"
            assert one.about.ended_step == 100
            assert one.steps.tolist() == list(range(0, 101, settings.record_every))
            assert (one.about.seed, one.about.temperature) == (
                settings.seeds[i],
                settings.temperatures[i],
            )
            np.testing.assert_array_equal(one.positions[0], x[i])
            np.testing.assert_array_equal(one.velocities[0], v[i])
            assert not one.pre_failure.any()
            said = committee.evaluate(WATER, torch.tensor(one.positions), forces="members")
            np.testing.assert_allclose(one.member_energies, said.energies.T, rtol=0, atol=1e-12)
            np.testing.assert_allclose(one.forces, said.forces, rtol=0, atol=1e-6)
            members = said.member_forces.numpy()
            np.testing.assert_allclose(one.max_force_spread, max_force_spread(members), rtol=1e-9)
            np.testing.assert_allclose(one.mean_force_spread, mean_force_spread(members), rtol=1e-9)
            assert one.max_force_spread[-1] > 0.0


def test_force_spread_of_two_members_follows_from_their_distance():
    members = torch.zeros(2, 1, 2, 3, dtype=torch.float64)
    members[0, 0, 0] = torch.tensor([3.0, 0.0, 4.0])
    members[1, 0, 0] = -members[0, 0, 0]
    spread = force_spread(members, members.mean(dim=0))
    assert spread[0].tolist() == pytest.approx([5.0 * math.sqrt(2.0), 0.0])
    assert force_spread(members[:1], members[0]).tolist() == [[0.0, 0.0]]


def test_constant_energy_is_kept_and_the_thermostat_is_not_a_conservation_law():
    nve = run(replace(NVE, n_steps=400))
    for one in nve:
        total = one.kinetic + one.potential
        assert np.abs(total - total[0]).max() < 0.01
        assert one.about.friction is None
    nvt = run(replace(NVT, n_steps=400))
    assert all(np.ptp(one.kinetic + one.potential) > 0.03 for one in nvt)


def test_member_forces_are_only_computed_for_recorded_frames():
    committee = morse_water()
    run(committee=committee)
    assert len(committee.calls) == 101
    assert [i for i, kind in enumerate(committee.calls) if kind == "members"] == [
        *range(0, 101, 10)
    ]
    assert "none" not in committee.calls


def test_same_seeds_same_trajectories_other_seeds_others():
    first, again = run(), run()
    other = run(replace(NVT, seeds=(1, 2, 4)))
    for i in range(3):
        np.testing.assert_array_equal(first[i].positions, again[i].positions)
        assert np.array_equal(first[i].positions, other[i].positions) == (i < 2)


def holed_water():
    """Bonds that tear the hydrogen out with 60 eV/Å once it is stretched to 1.25 Å."""
    whole = morse(4.6, 2.2, 0.96)

    def law(r):
        energy, slope = whole(r)
        outside = r > 1.25
        return (
            torch.where(outside, energy - 60.0 * (r - 1.25), energy),
            torch.where(outside, slope - 60.0 / r, slope),
        )

    return PairCommittee([{(0, 1): law, (0, 2): law}] * 2)


@pytest.mark.parametrize("settings", [NVE, replace(NVT, record_every=2)], ids=["nve", "nvt"])
def test_a_replica_that_breaks_is_cut_and_the_others_do_not_notice(settings):
    x, v = starts()
    v[1, 1] = [0.16, 0.0, 0.0]  # 1.3 eV along one bond: into the hole
    broken = run(settings, HealthLimits(max_stretch=1.6), holed_water(), (x, v), reference=WATER_AT)
    assert [one.about.ended for one in broken[::2]] == ["completed", "completed"]
    sick = broken[1]
    assert sick.about.ended in ("temperature_spike", "fragmentation", "energy_drift")
    assert 2 < sick.about.ended_step < 100
    assert sick.steps[-1] < sick.about.ended_step
    lengths = np.linalg.norm(sick.positions[:, 0] - sick.positions[:, 1], axis=1)
    assert lengths.max() <= 1.6 * 0.96
    assert sick.pre_failure[-1]
    quick = HealthLimits(max_stretch=1.6, pre_failure=1.0)
    short = run(settings, quick, holed_water(), (x, v), reference=WATER_AT)[1]
    assert short.pre_failure[-1]
    np.testing.assert_array_equal(
        short.pre_failure, short.times >= short.about.ended_step * 0.5 - 1.0
    )
    assert 0 < short.pre_failure.sum() < short.n_frames
    alone = [0, 2]
    healthy = run(
        replace(settings, temperatures=(300.0, 300.0), seeds=(1, 3)),
        HealthLimits(),
        holed_water(),
        (x[alone], v[alone]),
    )
    for i, one in zip(alone, healthy, strict=True):
        np.testing.assert_array_equal(broken[i].positions, one.positions)
        np.testing.assert_array_equal(broken[i].velocities, one.velocities)


def test_at_least_one_frame_before_a_failure_is_marked():
    x, v = starts()
    v[1, 1] = [0.16, 0.0, 0.0]
    limits = HealthLimits(max_stretch=1.6, pre_failure=0.1)
    settings = replace(NVT, record_every=7)
    sick = run(settings, limits, holed_water(), (x, v), reference=WATER_AT)[1]
    assert sick.about.ended_step - sick.steps[-1] > 0.2
    assert sick.pre_failure.tolist() == [False] * (sick.n_frames - 1) + [True]


def test_an_uncertain_replica_stops_with_the_uncertain_frame_kept():
    free = run(NVE)
    ceiling = float(np.sort([one.max_force_spread.max() for one in free])[1])
    stopped = run(NVE, HealthLimits(max_force_spread=ceiling * 0.999))
    reasons = [one.about.ended for one in stopped]
    assert reasons.count("uncertainty") == 2
    for one, whole in zip(stopped, free, strict=True):
        if one.about.ended == "uncertainty":
            assert one.max_force_spread[-1] > ceiling * 0.999
            assert (one.max_force_spread[:-1] <= ceiling * 0.999).all()
            assert one.steps[-1] == one.about.ended_step
            assert one.pre_failure[-1]
        np.testing.assert_array_equal(one.positions, whole.positions[: one.n_frames])


class Spoiled:
    """Morse water whose answers turn bad for geometries with a long first bond."""

    n_members = 3

    def __init__(self, part: str, value: float) -> None:
        self.inner, self.part, self.value = morse_water(), part, value
        self.after_bad = 0

    def evaluate(self, numbers, positions, *, forces, cell=None):
        assert torch.isfinite(positions).all()
        said = self.inner.evaluate(numbers, positions, forces=forces, cell=cell)
        bad = (positions[:, 0] - positions[:, 1]).norm(dim=1) > 1.05
        if self.part == "forces":
            said.forces[bad, 2, 1] = self.value
        elif self.part == "energies":
            said.energies[1, bad] = self.value
        elif said.member_forces is not None:
            said.member_forces[2, bad, 1, 0] = self.value
        return said


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["forces", "energies", "member_forces"])
def test_a_bad_number_of_the_committee_stops_only_its_replica_and_is_never_recorded(part, value):
    x, v = starts()
    v[1, 1] = [0.08, 0.0, 0.0]
    settings = replace(NVE, n_steps=40)
    limits = HealthLimits(max_force_spread=1e6)
    sick = run(settings, limits, Spoiled(part, value), (x, v))
    assert [one.about.ended for one in sick] == ["completed", "not_finite", "completed"]
    assert 0 < sick[1].n_frames < 41
    for one in sick:
        for name in ("forces", "member_energies", "max_force_spread", "positions", "kinetic"):
            assert np.isfinite(getattr(one, name)).all()
    healthy = run(settings, limits, morse_water(), (x, v))
    for i in (0, 2):
        np.testing.assert_array_equal(sick[i].positions, healthy[i].positions)


def test_energy_that_leaks_at_constant_energy_stops_a_replica_and_a_thermostat_allows_it():
    class Leaking:
        n_members = 3

        def __init__(self):
            self.inner, self.leaked = morse_water(), 0.0

        def evaluate(self, numbers, positions, *, forces, cell=None):
            said = self.inner.evaluate(numbers, positions, forces=forces, cell=cell)
            self.leaked += 0.003
            said.energies.add_(self.leaked)
            return said

    leaking = run(NVE, committee=Leaking())
    # 0.05 eV for each of three atoms, less what the integrator itself wobbles.
    assert all(one.about.ended == "energy_drift" for one in leaking)
    assert all(40 < one.about.ended_step < 60 for one in leaking)
    assert {one.about.ended for one in run(NVT, committee=Leaking())} == {"completed"}


def test_starts_that_are_broken_are_told_and_never_reach_the_committee():
    x, v = starts()
    x[0, 1] = math.nan
    x[2, 1] = x[2, 0]
    trajectories = run(start=(x, v), committee=Spoiled("none", 0.0))
    assert [one.about.ended for one in trajectories] == ["not_finite", "completed", "contact"]
    assert [one.n_frames for one in trajectories] == [0, 11, 0]
    v[1, 0, 0] = math.inf
    trajectories = run(start=(x, v))
    assert [one.about.ended for one in trajectories] == ["not_finite", "not_finite", "contact"]


class KilledError(Exception):
    pass


class Counted:
    """A committee that says how often it was asked, may take its time, and may be killed."""

    def __init__(self, inner=None, *, nap=0.0, last=math.inf):
        self.inner, self.nap, self.last = inner or morse_water(), nap, last
        self.asked, self.n_members = 0, (inner or morse_water()).n_members

    def evaluate(self, *args, **kwargs):
        self.asked += 1
        if self.asked > self.last:
            raise KilledError
        time.sleep(self.nap)
        return self.inner.evaluate(*args, **kwargs)


def breaking_start():
    """Three replicas of which the second is torn apart on the way."""
    x, v = starts()
    v[1, 1] += 0.3 * (WATER_AT[1] - WATER_AT[0])
    return x, v


TORN = HealthLimits(max_force=12.0, max_drift=1.0, spike_factor=100.0)


def equal(one, other):
    assert one.about == other.about
    assert one.system.same_as(other.system)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize(
    ("settings", "limits", "reason"),
    [
        (NVE, TORN, "force"),
        (NVT, TORN, "force"),
        (replace(NVT, n_steps=155), TORN, "force"),
        (NVE, HealthLimits(), "energy_drift"),  # judged by where it began
    ],
)
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, settings, limits, reason):
    """Before and after a replica breaks, within and between blocks of noise."""
    path = tmp_path / "new folder" / "run.checkpoint"
    whole = run(settings, limits, start=breaking_start())
    assert [one.about.ended for one in whole] == ["completed", reason, "completed"]
    assert 0 < whole[1].about.ended_step < 50
    assert whole[1].pre_failure.any()
    for last in (3, whole[1].about.ended_step + 3, 65, 98):
        with pytest.raises(KilledError):
            run(
                settings,
                limits,
                Counted(last=last),
                breaking_start(),
                checkpoint=path,
                checkpoint_s=0.0,
            )
        again = Counted()
        resumed = run(settings, limits, again, breaking_start(), checkpoint=path)
        for one, other in zip(resumed, whole, strict=True):
            equal(one, other)
        assert again.asked == settings.n_steps - last + 2  # one to know the potential by
        path.unlink()


@pytest.mark.parametrize("settings", [NVE, NVT])
def test_a_run_that_is_laid_down_in_time_goes_on_bit_for_bit(tmp_path, settings):
    seen = []
    runs, laid_down = in_spells(
        lambda at: run(
            settings,
            TORN,
            Counted(nap=0.01),
            breaking_start(),
            checkpoint=tmp_path / "run.checkpoint",
            lay_down_at=at,
            on_progress=lambda *now: seen.append(now),
        ),
        0.6,
    )
    assert laid_down >= 1
    for one, other in zip(runs, run(settings, TORN, start=breaking_start()), strict=True):
        equal(one, other)
    every = settings.record_every
    assert [step for step, _ in seen] == list(range(every, 101, every))  # no step twice


def test_a_run_that_has_no_time_or_is_done_leaves_nothing(tmp_path):
    path = tmp_path / "run.checkpoint"
    with pytest.raises(OutOfTime) as caught:
        run(checkpoint=path, lay_down_at=time.monotonic())
    assert not caught.value.advanced
    run(checkpoint=path, checkpoint_s=3600.0, lay_down_at=time.monotonic() + 3600.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["settings", "limits", "start", "potential", "members", "masses"])
def test_the_checkpoint_of_another_run_is_not_used(tmp_path, what):
    path = tmp_path / "run.checkpoint"
    masses = WATER_MASSES * (2.0 if what == "masses" else 1.0)
    other = {
        "settings": replace(NVT, seeds=(1, 2, 4)) if what == "settings" else NVT,
        "limits": HealthLimits(max_force=99.0) if what == "limits" else HealthLimits(),
    }
    potential = morse_water(4) if what == "members" else morse_water()
    if what == "potential":
        softer = morse_water(6).members[:2:-1]
        potential = PairCommittee(softer)
    x, v = starts(seed=what == "start")
    given = (Counted(potential, last=50), WATER, x, v, masses, other["settings"], other["limits"])
    with pytest.raises(KilledError):
        run_md(*given, checkpoint=path, checkpoint_s=0.0)
    for one, undisturbed in zip(run(checkpoint=path), run(), strict=True):
        equal(one, undisturbed)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"timestep": 0.0}, "timestep"),
        ({"timestep": math.nan}, "timestep"),
        ({"n_steps": -1}, "n_steps"),
        ({"record_every": 0}, "record_every"),
        ({"seeds": (1,)}, "3 temperatures and 1 seeds"),
        ({"temperatures": (1.0, math.nan, 2.0)}, "temperatures"),
        ({"friction": None}, "friction"),
        ({"friction": math.nan}, "friction"),
        ({"ensemble": "npt"}, "ensemble"),
    ],
)
def test_senseless_settings_are_refused(change, text):
    with pytest.raises(DynamicsError, match=text):
        replace(NVT, **change)


def test_starts_that_do_not_fit_are_refused():
    x, v = starts()
    with pytest.raises(DynamicsError, match=r"positions have shape \(2, 3, 3\), want \(3, 3, 3\)"):
        run(start=(x[:2], v))
    with pytest.raises(DynamicsError, match="velocities have shape"):
        run(start=(x, v[:, :2]))
    with pytest.raises(DynamicsError, match="masses"):
        run_md(morse_water(), WATER, x, v, WATER_MASSES * [1, 0, 1], NVT, HealthLimits())


CASES = {
    "water": (molecule("H2O"), 0, 0),
    "ethanol": (molecule("CH3CH2OH"), 0, 0),
    "hydronium": (molecule("H2O"), 1, 0),
    "methyl": (molecule("CH3"), 0, 1),
    "dimer": (molecule("H2O"), 0, 0),
}
CASES["hydronium"][0].append("H")
CASES["hydronium"][0].positions[-1] = [0.9, 0.0, 0.6]
CASES["dimer"][0].extend(molecule("H2O"))
CASES["dimer"][0].positions[3:] += [0.0, 2.6, -1.3]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_healthy_molecules_at_600_kelvin_pass_all_checks_on_gfn2(name, ensemble):
    atoms, charge, unpaired = CASES[name]
    x, v = starts(1, 600.0, atoms.get_masses(), atoms.positions)
    settings = MdSettings(ensemble, 0.5, 60, 5, (600.0,), (7,), friction=0.02)
    limits = HealthLimits(max_stretch=1.5)
    reference = atoms.positions
    (one,) = run_md(
        Gfn2(charge, unpaired),
        atoms.numbers,
        x,
        v,
        atoms.get_masses(),
        settings,
        limits,
        reference=reference,
    )
    assert one.about.ended == "completed"
    assert one.n_frames == 13
    if ensemble == "nve":
        assert np.ptp(one.kinetic + one.potential) < 0.05


def test_a_hot_periodic_box_stays_healthy_and_conserves_energy():
    # 32 argon atoms at 600 K, crossing the faces of the cell: positions stay unwrapped.
    edge, n_atoms = 11.0, 32
    corners = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2.0
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
    at = (grid[:, None] + corners).reshape(-1, 3) * edge / 2.0
    masses, numbers = np.full(n_atoms, 39.948), np.full(n_atoms, 18)
    x, v = starts(2, 600.0, masses, at)
    law = lennard_jones(0.0103, 3.4, 5.4)
    pairs = [(i, j) for i in range(n_atoms) for j in range(i)]
    settings = MdSettings("nve", 2.0, 300, 10, (600.0, 600.0), (0, 1))
    trajectories = run_md(
        PairCommittee([dict.fromkeys(pairs, law)]),
        numbers,
        x,
        v,
        masses,
        settings,
        HealthLimits(),
        cell=np.eye(3) * edge,
    )
    for one in trajectories:
        assert one.about.ended == "completed"
        assert one.system.cell is not None
        assert one.positions.min() < -0.5
        assert np.abs(np.diff(one.positions, axis=0)).max() < 1.0
        # The force, not the energy, jumps where a pair crosses the cut-off.
        assert np.ptp(one.kinetic + one.potential) < 0.02
        assert one.kinetic[0] == pytest.approx(degrees_of_freedom(32) * KB * 300.0, rel=0.3)
