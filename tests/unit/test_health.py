import math

import numpy as np
import pytest
import torch
from ase.build import molecule

from alloop.dynamics.health import Geometry, Health, HealthLimits, Reason
from alloop.dynamics.integrators import Response, State
from alloop.errors import DynamicsError

NUMBERS = np.array([8, 1, 1])
MASSES = torch.tensor([15.999, 1.008, 1.008], dtype=torch.float64)
AT = torch.tensor([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]], dtype=torch.float64)
ALL = HealthLimits(max_stretch=1.5, energy_floor=-20.0, max_force_spread=0.5)
BAD = [math.nan, math.inf, -math.inf]


def healthy(n_replicas=3):
    x = AT.repeat(n_replicas, 1, 1)
    energies = torch.full((4, n_replicas), -10.0, dtype=torch.float64)
    return State(
        x,
        torch.full_like(x, 1e-3),
        Response(torch.full_like(x, 0.1), energies, torch.full_like(x[:, :, 0], 0.1)),
    )


def health(limits=ALL, n_replicas=3, conserve=True, cell=None):
    state = healthy(n_replicas)
    targets = torch.full((n_replicas,), 300.0, dtype=torch.float64)
    judge = Health(
        limits, NUMBERS, MASSES, state.velocities, targets, cell=cell, reference=AT.numpy()
    )
    if conserve:
        judge.conserve(state)
    return judge


def break_force(state):
    state.response.forces[1, 2, 0] = -101.0


def break_speed(state):
    state.velocities[1, 1, 0] = 0.5


def break_floor(state):
    state.response.energies[:, 1] = -20.5


def break_drift(state):
    state.response.energies[:, 1] += 0.16


def break_contact(state):
    state.positions[1, 2] = state.positions[1, 1] + torch.tensor([0.0, 0.3, 0.0])


def break_bond(state):
    state.positions[1, 1, 0] = 1.46


def break_certainty(state):
    state.response.spread[1, 0] = 0.51


@pytest.mark.parametrize(
    ("injury", "reason"),
    [
        (break_force, Reason.FORCE),
        (break_speed, Reason.TEMPERATURE_SPIKE),
        (break_floor, Reason.ENERGY_FLOOR),
        (break_drift, Reason.ENERGY_DRIFT),
        (break_contact, Reason.CONTACT),
        (break_bond, Reason.FRAGMENTATION),
        (break_certainty, Reason.UNCERTAINTY),
    ],
)
def test_each_reason_fires_for_the_injured_replica_alone(injury, reason):
    state = healthy()
    assert health().check(state) == [None, None, None]
    injury(state)
    assert health().check(state) == [None, reason, None]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["positions", "velocities", "forces", "energies", "spread"])
def test_one_bad_number_anywhere_is_never_healthy(where, bad):
    state = healthy()
    if where == "energies":
        state.response.energies[2, 1] = bad
    elif where in ("forces", "spread"):
        getattr(state.response, where)[1, 2] = bad
    else:
        getattr(state, where)[1, 2, 0] = bad
    assert health().check(state) == [None, Reason.NOT_FINITE, None]
    if where != "spread":
        assert health().check_motion(state) == [None, Reason.NOT_FINITE, None]
    if where in ("positions", "velocities"):
        found = health().check_start(state.positions, state.velocities)
        assert found == [None, Reason.NOT_FINITE, None]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("forces", Reason.FORCE),
        ("velocities", Reason.TEMPERATURE_SPIKE),
        ("energies", Reason.ENERGY_DRIFT),
        ("spread", Reason.UNCERTAINTY),
    ],
)
def test_each_comparison_alone_counts_nan_and_inf_as_bad(where, reason, bad, monkeypatch):
    monkeypatch.setattr("alloop.dynamics.health._finite", _all_finite)
    state, limits = healthy(), HealthLimits(max_force_spread=0.5)
    if where == "velocities":
        state.velocities[1, 0, 0] = bad
    elif where == "energies":
        state.response.energies[2, 1] = bad
    else:
        getattr(state.response, where)[1, 0] = bad
    assert health(limits).check(state) == [None, reason, None]


def _all_finite(values):
    return torch.ones(len(values), dtype=torch.bool)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_bad_energy_is_below_any_floor(bad, monkeypatch):
    monkeypatch.setattr("alloop.dynamics.health._finite", _all_finite)
    state = healthy()
    state.response.energies[0, 1] = bad
    assert health(conserve=False).check(state) == [None, Reason.ENERGY_FLOOR, None]


def test_nan_distances_are_contacts_and_broken_bonds():
    geometry = Geometry(ALL, NUMBERS, None, AT.numpy(), MASSES.device)
    x = AT.repeat(2, 1, 1)
    x[1, 2, 0] = math.nan
    faults = geometry.faults(x)
    assert faults[Reason.CONTACT].tolist() == [False, True]
    assert faults[Reason.FRAGMENTATION].tolist() == [False, True]


def test_the_most_basic_reason_is_given():
    state = healthy()
    break_certainty(state)
    break_contact(state)
    break_force(state)
    assert health().check(state)[1] == Reason.FORCE


def test_limits_that_are_not_set_stop_nobody():
    state = healthy()
    for injury in (break_floor, break_bond, break_certainty):
        injury(state)
    assert health(HealthLimits(), conserve=False).check(state) == [None, None, None]


def test_uncertainty_is_not_judged_where_it_was_not_measured():
    state = healthy()
    unmeasured = State(state.positions, state.velocities, state.response._replace(spread=None))
    assert health().check(unmeasured) == [None, None, None]


def test_those_who_stay_keep_their_own_limits():
    state, targets = healthy(), torch.tensor([300.0, 300.0, 5000.0], dtype=torch.float64)
    judge = Health(HealthLimits(), NUMBERS, MASSES, state.velocities, targets)
    fast = healthy()
    fast.velocities[:] = 0.04  # 17 000 K; the limit at 300 K is 5 400 K, at 5000 K 90 000 K
    spike = Reason.TEMPERATURE_SPIKE
    assert judge.check(fast) == [spike, spike, None]
    chosen = torch.tensor([False, True, True])
    judge.keep(chosen)
    assert judge.check(fast.keep(chosen)) == [spike, None]


@pytest.mark.parametrize(("started", "target"), [(0.0, 0.0), (1600.0, 300.0), (0.0, 300.0)])
def test_replicas_may_warm_up_from_rest_and_start_hotter_than_their_thermostat(started, target):
    # A start with zero-point energy is several times hotter than its thermostat, and may be at a
    # turning point of its motion, with all energy still potential.
    def moving(kelvin):
        state = healthy(1)
        scale = math.sqrt(6 * 8.617e-5 * kelvin / (3 * 103.64 * MASSES.sum().item()))
        state.velocities[:] = scale
        return state

    targets = torch.tensor([target], dtype=torch.float64)
    judge = Health(HealthLimits(), NUMBERS, MASSES, moving(started).velocities, targets)
    hottest = max(started, 300.0)
    assert judge.check(moving(8 * hottest)) == [None]
    assert judge.check(moving(20 * hottest)) == [Reason.TEMPERATURE_SPIKE]


def test_total_energy_is_compared_with_the_own_start_of_each_replica():
    start, judge = healthy(), health()
    start.response.energies[:] = torch.tensor([-10.0, -11.0, -12.0])
    judge.conserve(start)
    assert judge.check(start) == [None, None, None]
    chosen = torch.tensor([False, True, True])
    judge.keep(chosen)
    assert judge.check(start.keep(chosen)) == [None, None]


def test_kinetic_limit_follows_the_size_of_the_system():
    # Chi-squared tails: a small molecule may be much hotter for a moment than a box of 200 atoms.
    def limit(n_atoms):
        masses = torch.full((n_atoms,), 18.0, dtype=torch.float64)
        x = torch.zeros(1, n_atoms, 3, dtype=torch.float64)
        x[0, :, 0] = torch.arange(n_atoms) * 3.0
        targets = torch.tensor([300.0], dtype=torch.float64)
        judge = Health(HealthLimits(), np.full(n_atoms, 10), masses, torch.zeros_like(x), targets)
        return judge._kinetic_limit.item() / (n_atoms - 1)

    assert limit(2) > 5 * limit(200)
    assert limit(200) == pytest.approx(1.5 * 300 * 8.617e-5 * 2.0 * 1.45, rel=0.1)


@pytest.mark.parametrize(
    "cell",
    [np.diag([8.0, 9.0, 10.0]), np.array([[8.0, 0.0, 0.0], [5.0, 9.0, 0.0], [-3.0, 4.0, 10.0]])],
    ids=["box", "triclinic"],
)
def test_contacts_and_bonds_reach_across_the_cell(cell):
    lattice = torch.tensor(cell)
    images = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.0], [0.0, 1.0, 3.0]]).double() @ lattice
    geometry = Geometry(ALL, NUMBERS, lattice, AT.numpy(), MASSES.device)
    near = AT.clone()
    near[2] = near[1] + torch.tensor([0.0, 0.3, 0.0])
    faults = geometry.faults(torch.stack([AT + images, near + images]))
    assert faults[Reason.CONTACT].tolist() == [False, True]
    assert faults[Reason.FRAGMENTATION].tolist() == [False, False]
    alone = Geometry(ALL, NUMBERS, None, AT.numpy(), MASSES.device)
    assert alone.faults((AT + images)[None])[Reason.FRAGMENTATION].tolist() == [True]


def test_a_direction_without_lattice_vector_is_not_periodic():
    slab = torch.tensor([[8.0, 0.0, 0.0], [5.0, 9.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    geometry = Geometry(ALL, NUMBERS, slab, AT.numpy(), MASSES.device)
    aside = torch.stack([AT, AT, AT])
    aside[1, 1] += slab[0] - 2 * slab[1]
    aside[2, 1, 2] += 4.0
    assert geometry.faults(aside)[Reason.FRAGMENTATION].tolist() == [False, False, True]
    with pytest.raises(DynamicsError, match="span no volume"):
        Geometry(ALL, NUMBERS, torch.ones(3, 3).double(), AT.numpy(), MASSES.device)


def test_hydrogen_bonds_are_not_bonds():
    dimer = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    other = np.array([[2.85, 0.0, 0.0], [3.2, 0.5, 0.76], [3.2, 0.5, -0.76]])
    numbers, start = np.tile(NUMBERS, 2), np.concatenate([dimer, other])
    geometry = Geometry(ALL, numbers, None, start, MASSES.device)
    apart = np.concatenate([dimer, other + np.array([5.0, 0.0, 0.0])])
    faults = geometry.faults(torch.tensor(np.stack([start, apart])))
    assert faults[Reason.CONTACT].tolist() == [False, False]
    assert faults[Reason.FRAGMENTATION].tolist() == [False, False]


def test_large_batches_are_judged_in_pieces_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(0)
    ethanol = molecule("CH3CH2OH")
    x = torch.tensor(ethanol.positions + rng.normal(size=(40, 9, 3)) * 0.25)
    geometry = Geometry(ALL, ethanol.numbers, None, ethanol.positions, MASSES.device)
    whole = geometry.faults(x)
    monkeypatch.setattr("alloop.dynamics.health.PAIRS_AT_ONCE", 100)
    for reason, mask in geometry.faults(x).items():
        assert torch.equal(mask, whole[reason])
        assert 0 < mask.sum() < 40


@pytest.mark.parametrize(
    "name",
    [
        "max_force",
        "spike_factor",
        "max_drift",
        "min_contact",
        "max_stretch",
        "max_force_spread",
        "pre_failure",
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_senseless_limits_are_refused(name, value):
    with pytest.raises(DynamicsError, match=name):
        HealthLimits(**{name: value})


def test_senseless_floor_and_missing_reference_are_refused():
    with pytest.raises(DynamicsError, match="energy_floor"):
        HealthLimits(energy_floor=math.nan)
    with pytest.raises(DynamicsError, match="reference geometry"):
        Geometry(ALL, NUMBERS, None, None, MASSES.device)
