"""How a 4D fit goes on after it was stopped, and what its options change."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alloop.errors import SpacetimeError
from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.internal import to_cartesian
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.learning.energy_loss import ROWS, EnergyLoss
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.trajectories import TrajectorySet
from alloop.units import EV_PER_HARTREE
from tests.in_spells import in_spells

TRIATOMIC = ZMatrix(((0,), (1, 0), (2, 0, 1)))
SETTINGS = FitSettings(members=2, hidden=(16,), windows=800, batch=32, steps=40, basis_size=6)


def swinging(n_trajectories=12, n_frames=60):
    """Bonds and angle of a triatomic swing at their own frequencies, bent."""
    rng = np.random.default_rng(5)
    centre = torch.tensor([0.96, 0.97, 1.8]).double()
    frequency = torch.tensor([0.6, 0.63, 0.3]).double()
    clock = 0.5 * torch.arange(n_frames).double()[:, None]
    motions = []
    for _ in range(n_trajectories):
        phase = frequency * clock + torch.as_tensor(rng.uniform(0, 6.28, 3))
        swing, rate = 0.05 * torch.sin(phase), 0.05 * frequency * torch.cos(phase)
        motion = to_cartesian(TRIATOMIC, centre + swing + 3 * swing**3, rate * (1 + 9 * swing**2))
        motions.append([part.numpy() for part in motion])
    positions, velocities = zip(*motions, strict=True)
    splits = ("train",) * (n_trajectories - 4) + ("validation",) * 2 + ("test",) * 2
    ids = tuple(f"t{i}" for i in range(n_trajectories))
    masses = np.array([15.999, 1.008, 1.008])
    return TrajectorySet(np.array([8, 1, 1]), masses, 0.5, positions, velocities, splits, ids)


class Springs:
    """Energies of bonds stretched beyond 1 Å, eV; tests count the geometries asked for."""

    def __init__(self):
        self.asked = 0

    def energies(self, positions):
        self.asked += positions[..., 0, 0].numel()
        lengths = torch.linalg.vector_norm(positions[..., 1:, :] - positions[..., :1, :], dim=-1)
        return 10.0 * (lengths - 1.0).square().sum(-1)

    def with_forces(self, positions):
        raise AssertionError("the loss needs energies alone")


def parameters(model):
    return [model.polynomial, model.coefficient_scale, *model.weights, *model.biases]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


class StopError(Exception):
    pass


def stop_at(wanted):
    def on_progress(step, steps, loss):
        if step >= wanted:
            raise StopError

    return on_progress


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_stopped_fit_goes_on_to_the_same_model(tmp_path):
    data, file = swinging(), tmp_path / "fit.checkpoint"
    undisturbed = fit(data, SETTINGS, 3)
    with pytest.raises(StopError):
        fit(data, SETTINGS, 3, checkpoint=file, checkpoint_s=0.0, on_progress=stop_at(20))
    seen = []
    resumed = fit(
        data, SETTINGS, 3, checkpoint=file, on_progress=lambda step, *_: seen.append(step)
    )
    assert seen[0] == 20  # the checkpoint is older than the report of step 20
    assert resumed.note == ""
    assert same(undisturbed.model, resumed.model)
    assert undisturbed.course == resumed.course


def test_another_fit_leaves_a_checkpoint_alone(tmp_path):
    data, file = swinging(), tmp_path / "fit.checkpoint"
    with pytest.raises(StopError):
        fit(data, SETTINGS, 3, checkpoint=file, checkpoint_s=0.0, on_progress=stop_at(20))
    for other in (
        fit(data, replace(SETTINGS, learning_rate=1e-3), 3, checkpoint=file),
        fit(data, SETTINGS, 4, checkpoint=file),
        fit(replace(data, timestep=1.0), SETTINGS, 3, checkpoint=file),
    ):
        assert "of another fit" in other.note
        assert other.course["steps"] == SETTINGS.steps


def test_a_fit_that_is_laid_down_in_time_goes_on_to_the_same_model(tmp_path):
    data, surface = swinging(), Springs()
    settings = replace(SETTINGS, energy_weight=0.1)
    undisturbed = fit(data, settings, 3, surface=surface)

    def work(lay_down_at):
        return fit(
            data,
            settings,
            3,
            surface=surface,
            checkpoint=tmp_path / "fit.checkpoint",
            lay_down_at=lay_down_at,
            on_progress=lambda *_: time.sleep(0.05),
        )

    resumed, laid_down = in_spells(work, 1.5)
    assert laid_down >= 1
    assert same(undisturbed.model, resumed.model)
    assert undisturbed.course == resumed.course


def test_a_fit_that_is_out_of_time_keeps_its_state(tmp_path):
    data, file = swinging(), tmp_path / "fit.checkpoint"
    late = fit(data, SETTINGS, 3, checkpoint=file, deadline=time.monotonic() - 1)
    assert late.course["steps"] == 0
    assert file.is_file()
    resumed = fit(data, SETTINGS, 3, checkpoint=file)
    assert same(fit(data, SETTINGS, 3).model, resumed.model)


KILLED = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
from test_spacetime_fit import SETTINGS, swinging
from dataclasses import replace
from alloop.spacetime.learning.fit import fit
fit(swinging(), replace(SETTINGS, steps=2000), 3, checkpoint=Path(sys.argv[1]), checkpoint_s=0.05)
"""


def test_a_killed_fit_goes_on_to_the_same_model(tmp_path):
    data, file = swinging(), tmp_path / "fit.checkpoint"
    script = KILLED.format(folder=str(Path(__file__).parent))
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    victim = subprocess.Popen(
        [sys.executable, "-c", script, str(file)], env={**os.environ, "PYTHONPATH": path}
    )
    while not file.exists() and victim.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, "it ended by itself: give it more steps"
    settings = replace(SETTINGS, steps=2000)
    resumed = fit(data, settings, 3, checkpoint=file)
    assert resumed.note == ""
    assert same(fit(data, settings, 3).model, resumed.model)


def test_energies_join_the_loss():
    data, surface = swinging(), Springs()
    with pytest.raises(SpacetimeError, match="energy_weight needs a potential"):
        fit(data, replace(SETTINGS, energy_weight=1.0), 3)
    plain = fit(data, SETTINGS, 3, surface=surface)
    assert surface.asked == 0
    weighed = fit(data, replace(SETTINGS, energy_weight=1.0), 3, surface=surface)
    assert surface.asked == 2 * SETTINGS.steps * SETTINGS.members * ROWS
    assert not same(plain.model, weighed.model)


def test_energy_loss_is_the_difference_of_energies():
    """A prediction whose first bond is 0.02 g(t) too long, against Springs worked out by hand."""
    times = torch.arange(1, 21).double() * 0.5
    basis = TimeBasis.orthonormal(10.0, times, 4)
    starts = torch.tensor([[1.1, 1.0, 1.8]]).double()
    rates, known = torch.zeros(1, 3).double(), torch.zeros(1, 12)
    loss = EnergyLoss(TRIATOMIC, basis, torch.ones(3, 4), Springs(), starts, rates, known)
    errors = torch.zeros(1, 5, 12, requires_grad=True)
    with torch.no_grad():
        errors[..., 0] = 0.02
    rows = torch.zeros(1, 5, dtype=torch.int64)
    value = loss(errors, rows, torch.Generator().manual_seed(1))
    drawn = 10.0 * torch.rand(1, 5, generator=torch.Generator().manual_seed(1)).double()
    stretch = 0.02 * basis(drawn.flatten())[0][:, 0]
    gaps = (10.0 * ((0.1 + stretch) ** 2 - 0.1**2)) / EV_PER_HARTREE
    assert float(value.detach()) == pytest.approx(float(gaps.square().mean().sqrt()), rel=1e-5)
    value.sum().backward()
    assert errors.grad[..., 0].abs().min() > 0
    assert errors.grad[..., 4:8].abs().max() == 0  # the second bond is right


def test_without_augmentation_half_of_the_directions_and_no_symmetry_are_left():
    data = swinging()
    rich, plain = fit(data, SETTINGS, 3), fit(data, replace(SETTINGS, augment=False), 3)
    assert rich.course["operations"] == 2  # the hydrogens can be exchanged
    assert plain.course["operations"] == 1
    many = replace(SETTINGS, windows=10**6)
    counts = [fit(data, replace(many, augment=a), 3).course["windows"] for a in (True, False)]
    assert counts == [8 * 40 * 4, 8 * 40]


def test_coordinates_on_dummy_atoms_learn_the_orientation_too():
    data = swinging()
    settings = replace(SETTINGS, coordinates="dummies", steps=300)
    fitted = fit(data, settings, 3)
    assert fitted.model.internal.oriented
    assert fitted.model.internal.n_coordinates == 9
    for kind in ("bond", "angle", "dihedral"):
        assert fitted.test.ensemble[kind] < 0.2 * fitted.test.ballistic[kind], kind
    with pytest.raises(SpacetimeError, match="fit without it"):
        fit(data, replace(settings, coordinates="auto"), 3, initial=fitted.model)
    with pytest.raises(SpacetimeError, match="want 'auto' or 'dummies'"):
        replace(SETTINGS, coordinates="polar")
