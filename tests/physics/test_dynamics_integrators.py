import math
from itertools import combinations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.verlet import VelocityVerlet as AseVelocityVerlet

from alloop.dynamics.integrators import (
    LangevinBaoab,
    Response,
    State,
    VelocityVerlet,
    kinetic_energy,
    temperature,
)
from alloop.units import ACCELERATION, FS, KB, KINETIC
from tests.physics.dynamics_committees import (
    WATER,
    WATER_AT,
    WATER_MASSES,
    AseCalculator,
    PairCommittee,
    free_spring,
    morse_water,
    network,
    spring,
)


def field_of(committee, numbers):
    def field(positions):
        said = committee.evaluate(numbers, positions, forces="mean")
        return Response(said.forces, said.energies, None)

    return field


def begin(committee, numbers, positions, velocities):
    field = field_of(committee, numbers)
    x, v = torch.tensor(positions), torch.tensor(velocities)
    return State(x, v, field(x)), field


def total_energy(state, masses):
    return kinetic_energy(state.velocities, masses) + state.response.energies.mean(dim=0)


def hot_water(n_replicas, seed=0):
    rng = np.random.default_rng(seed)
    velocities = rng.normal(size=(n_replicas, 3, 3)) * 0.02
    velocities -= (WATER_MASSES[:, None] * velocities).sum(1, keepdims=True) / WATER_MASSES.sum()
    return np.repeat(WATER_AT[None], n_replicas, axis=0), velocities


def test_energy_error_of_velocity_verlet_falls_with_the_square_of_the_time_step():
    masses = torch.tensor(WATER_MASSES)
    worst = []
    for timestep in (0.4, 0.2, 0.1):
        state, field = begin(morse_water(), WATER, *hot_water(4))
        integrator, start = VelocityVerlet(masses, timestep), total_energy(state, masses)
        errors = []
        for _ in range(round(40.0 / timestep)):
            state = integrator.step(state, field)
            errors.append(total_energy(state, masses) - start)
        worst.append(torch.stack(errors).abs().max().item())
    assert worst[0] / worst[1] == pytest.approx(4.0, rel=0.1)
    assert worst[1] / worst[2] == pytest.approx(4.0, rel=0.1)


def test_energy_of_velocity_verlet_does_not_drift():
    masses = torch.tensor(WATER_MASSES)
    state, field = begin(morse_water(1), WATER, *hot_water(8))
    integrator, energies = VelocityVerlet(masses, 0.5), []
    for _ in range(1500):
        state = integrator.step(state, field)
        energies.append(total_energy(state, masses))
    series = torch.stack(energies)
    # The error oscillates by 10 meV; its mean over early and late fifths moves by 0.1 meV.
    drift = (series[-300:].mean(dim=0) - series[:300].mean(dim=0)).abs().max().item()
    assert drift < 1e-3


def test_velocity_verlet_runs_backwards():
    masses = torch.tensor(WATER_MASSES)
    start, field = begin(morse_water(1), WATER, *hot_water(3))
    integrator, state = VelocityVerlet(masses, 0.5), start
    for _ in range(200):
        state = integrator.step(state, field)
    assert (state.positions - start.positions).abs().max() > 0.05
    state = State(state.positions, -state.velocities, state.response)
    for _ in range(200):
        state = integrator.step(state, field)
    # Rounding alone, amplified by 400 steps.
    torch.testing.assert_close(state.positions, start.positions, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(state.velocities, -start.velocities, rtol=0.0, atol=1e-10)


def test_velocity_verlet_conserves_momentum_and_angular_momentum():
    masses = torch.tensor(WATER_MASSES)
    x, v = hot_water(4, seed=3)
    state, field = begin(morse_water(), WATER, x, v + 0.01)

    def momenta(state):
        p = masses[:, None] * state.velocities
        return torch.cat([p.sum(dim=1), torch.linalg.cross(state.positions, p).sum(dim=1)], dim=1)

    integrator, before = VelocityVerlet(masses, 0.5), momenta(state)
    for _ in range(300):
        state = integrator.step(state, field)
    torch.testing.assert_close(momenta(state), before, rtol=0.0, atol=1e-12)


def test_velocity_verlet_has_the_exact_discrete_frequency_of_an_oscillator():
    # cos(ω' h) = 1 - (ω h)²/2 (doi:10.1017/S0962492902000144): fixes the unit of force over mass.
    k, mass, timestep = 30.0, 1.008, 0.8
    omega = math.sqrt(2.0 * k * ACCELERATION / mass)
    discrete = math.acos(1.0 - (omega * timestep) ** 2 / 2.0)
    x = np.array([[[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]])
    committee = PairCommittee([{(0, 1): free_spring(k)}])
    state, field = begin(committee, np.array([1, 1]), x, np.zeros_like(x))
    integrator = VelocityVerlet(torch.tensor([mass, mass], dtype=torch.float64), timestep)
    for step in range(1, 101):
        state = integrator.step(state, field)
        expected = 0.1 * math.cos(discrete * step)
        assert state.positions[0, 0, 0].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("numbers", "masses"),
    [([8, 1, 1], WATER_MASSES), ([53, 1, 1], np.array([126.904, 2.014, 1.008]))],
    ids=["water", "heavy-and-light"],
)
def test_velocity_verlet_is_that_of_ase(numbers, masses):
    x, v = hot_water(2, seed=5)
    committee = morse_water(2)
    state, field = begin(committee, np.array(numbers), x, v)
    integrator = VelocityVerlet(torch.tensor(masses), 0.5)
    for _ in range(200):
        state = integrator.step(state, field)
    for replica in range(2):
        atoms = Atoms(numbers, x[replica], masses=masses, velocities=v[replica] / FS)
        atoms.calc = AseCalculator(committee)
        AseVelocityVerlet(atoms, 0.5 * units.fs).run(200)
        np.testing.assert_allclose(state.positions[replica], atoms.positions, rtol=0, atol=1e-10)
        np.testing.assert_allclose(
            state.velocities[replica], atoms.get_velocities() * FS, rtol=0, atol=1e-10
        )


def langevin(committee, masses, temperatures, *, timestep, friction, n_steps, equilibrate, start):
    """Return positions and velocities (n_steps, n_replicas, n_atoms, 3) after equilibration."""
    n_replicas = len(temperatures)
    numbers = np.ones(len(masses), np.int64)
    x = np.repeat(start[None], n_replicas, axis=0)
    state, field = begin(committee, numbers, x, np.zeros_like(x))
    integrator = LangevinBaoab(
        torch.tensor(masses),
        timestep,
        torch.tensor(temperatures).double(),
        friction,
        range(n_replicas),
    )
    positions, velocities = [], []
    for step in range(equilibrate + n_steps):
        state = integrator.step(state, field)
        if step >= equilibrate:
            positions.append(state.positions)
            velocities.append(state.velocities)
    return torch.stack(positions), torch.stack(velocities)


def test_baoab_configurations_are_exact_at_a_large_time_step_and_velocities_as_predicted():
    # An oscillator of reduced mass 0.5 amu at ω h = 1.2: other splittings are off by 10 % or more.
    kt, k = KB * 300.0, 20.0
    omega = math.sqrt(k * ACCELERATION / 0.5)
    x, v = langevin(
        PairCommittee([{(0, 1): free_spring(k)}]),
        np.array([1.0, 1.0]),
        [300.0] * 400,
        timestep=1.2 / omega,
        friction=0.5 * omega,
        n_steps=500,
        equilibrate=100,
        start=np.array([[0.01, 0.0, 0.0], [-0.01, 0.0, 0.0]]),
    )
    length, speed = x[:, :, 0] - x[:, :, 1], v[:, :, 0] - v[:, :, 1]
    # 600 000 numbers, correlated over about 4 steps: the error of a variance is below 0.5 %.
    assert length.square().mean().item() * k / kt == pytest.approx(1.0, abs=0.015)
    kinetic = 0.5 * KINETIC * speed.square().mean().item() / kt
    assert kinetic == pytest.approx(1.0 - 1.2**2 / 4.0, abs=0.015)


def test_baoab_has_the_canonical_distribution_of_the_kinetic_energy_at_each_temperature():
    masses = np.array([15.999, 1.008, 12.011, 126.9])
    temperatures = [100.0] * 150 + [900.0] * 150
    _, v = langevin(
        network(4, 1.0),
        masses,
        temperatures,
        timestep=0.5,
        friction=0.1,
        n_steps=800,
        equilibrate=100,
        start=np.random.default_rng(0).normal(size=(4, 3)) * 0.05,
    )
    kinetic = kinetic_energy(v.flatten(end_dim=1), torch.tensor(masses)).reshape(v.shape[:2])
    for replicas, target in ((slice(0, 150), 100.0), (slice(150, 300), 900.0)):
        kt, sample = KB * target, kinetic[:, replicas]
        # Nine degrees of freedom: mean 9/2 kT, variance 9/2 (kT)²; ω h = 0.1 costs 0.2 %.
        assert sample.mean().item() / kt == pytest.approx(4.5, rel=0.015)
        assert sample.var().item() / kt**2 == pytest.approx(4.5, rel=0.06)
        assert temperature(sample, 4).mean().item() == pytest.approx(target, rel=0.015)
        per_atom = 0.5 * KINETIC * (v[:, replicas] ** 2).sum(dim=3).mean(dim=(0, 1))
        expected = 1.5 * kt * (1.0 - masses / masses.sum())
        np.testing.assert_allclose(per_atom.numpy() * masses, expected, rtol=0.04)


def test_baoab_keeps_the_centre_of_mass_at_rest():
    masses = np.array([15.999, 1.008, 1.008])
    x, v = langevin(
        morse_water(1),
        masses,
        [500.0] * 4,
        timestep=0.5,
        friction=0.05,
        n_steps=200,
        equilibrate=0,
        start=WATER_AT,
    )
    weights = torch.tensor(masses / masses.sum())[:, None]
    centre = (weights * x).sum(dim=2)
    start = torch.tensor((weights.numpy() * WATER_AT).sum(axis=0))
    torch.testing.assert_close(centre, start.expand_as(centre), rtol=0.0, atol=1e-12)
    assert (weights * v).sum(dim=2).abs().max() < 1e-14


def test_baoab_forgets_velocities_at_the_rate_of_its_friction():
    # Without forces the velocity autocorrelation is exp(-friction t) exactly.
    _, v = langevin(
        network(2, 0.0),
        np.array([1.0, 3.0]),
        [300.0] * 500,
        timestep=1.0,
        friction=0.05,
        n_steps=300,
        equilibrate=100,
        start=np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
    )
    lag = 20
    correlation = (v[:-lag] * v[lag:]).mean() / (v * v).mean()
    assert correlation.item() == pytest.approx(math.exp(-1.0), abs=0.02)


def test_baoab_samples_what_langevin_baoab_of_ase_samples():
    # ASE lets the centre of mass diffuse, so its kinetic energy is compared without that of the
    # centre of mass, which a system without outer potential cannot feel.
    n_atoms, friction, target = 8, 0.1, 600.0
    committee = PairCommittee([dict.fromkeys(combinations(range(n_atoms), 2), spring(1.0, 1.5))])
    rng = np.random.default_rng(2)
    masses, start = rng.uniform(4.0, 20.0, n_atoms), rng.normal(size=(n_atoms, 3))
    x, v = langevin(
        committee,
        masses,
        [target] * 100,
        timestep=1.0,
        friction=friction,
        n_steps=300,
        equilibrate=200,
        start=start,
    )
    ours = {"extent": float(x.var(dim=2).sum(dim=2).mean()), "kinetic": float(internal(v, masses))}
    atoms = Atoms("He8", start, masses=masses)
    atoms.calc = AseCalculator(committee)
    dynamics = LangevinBAOAB(
        atoms,
        1.0 * units.fs,
        temperature_K=target,
        T_tau=units.fs / friction,
        rng=np.random.default_rng(1),
    )
    dynamics.run(200)
    extents, kinetics = [], []
    for _ in range(1400):
        dynamics.run(1)
        extents.append(atoms.positions.var(axis=0, ddof=1).sum())
        velocities = torch.tensor(atoms.get_velocities() * FS)
        kinetics.append(float(internal(velocities[None, None], masses)))
    for name, series in (("extent", extents), ("kinetic", kinetics)):
        blocks = np.array(series).reshape(20, -1).mean(axis=1)
        error = blocks.std(ddof=1) / math.sqrt(len(blocks))
        assert error < 0.05 * ours[name]
        assert np.mean(series) == pytest.approx(ours[name], abs=4 * error)


def internal(velocities, masses):
    """Return the mean kinetic energy relative to the centre of mass."""
    weights = torch.tensor(masses / masses.sum())[:, None]
    relative = velocities - (weights * velocities).sum(dim=2, keepdim=True)
    return kinetic_energy(relative.flatten(end_dim=1), torch.tensor(masses)).mean()


def test_noise_of_a_replica_is_its_own():
    masses = torch.tensor(WATER_MASSES)
    temperatures, seeds = [100.0, 300.0, 500.0, 700.0], [11, 22, 33, 44]
    x, v = hot_water(4)

    def run(chosen, drop_at=None):
        state, field = begin(morse_water(), WATER, x[chosen], v[chosen])
        integrator = LangevinBaoab(
            masses,
            0.5,
            torch.tensor([temperatures[i] for i in chosen]).double(),
            0.02,
            [seeds[i] for i in chosen],
        )
        for step in range(150):
            if step == drop_at:
                kept = torch.tensor([True] + [False] * (len(chosen) - 2) + [True])
                integrator.keep(kept)
                state = state.keep(kept)
            state = integrator.step(state, field)
        return state.positions

    together = run([0, 1, 2, 3])
    alone = [run([i])[0] for i in range(4)]
    shuffled = run([3, 1, 0, 2])
    thinned = run([0, 1, 2, 3], drop_at=70)
    assert torch.equal(together, torch.stack(alone))
    assert torch.equal(together[[3, 1, 0, 2]], shuffled)
    assert torch.equal(together[[0, 3]], thinned)
    assert (together[0] - together[1]).abs().max() > 1e-3
