"""The rules of dynamic training: what is refused, when subsequences grow, what is repeatable."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.errors import ModelError, TrainingError
from alloop.potentials.files import member_bytes
from alloop.training.dynamic import DynamicSettings, refine
from alloop.training.dynamic_settings import Plateau
from alloop.training.rollouts import mepa, rollout_errors
from alloop.training.segments import NveTrajectory, Segments, groups_of
from alloop.trajectories import System
from tests.in_spells import in_spells
from tests.physics.motion_samples import ATOMS, member_of, water_runs

QUICK = DynamicSettings(
    lengths=(1, 2), epochs_per_stage=2, batch_size=8, stride=4, validation_frames=10
)


@pytest.fixture(scope="module")
def runs():
    return water_runs()


@pytest.fixture(scope="module")
def trajectories(runs):
    return [NveTrajectory.of(run, f"run {i}") for i, run in enumerate(runs)]


@pytest.fixture(scope="module")
def member():
    return member_of("schnet")


def test_a_stored_run_becomes_a_trajectory(runs):
    run = runs[0]
    taken = NveTrajectory.of(run, "a")
    assert taken.n_frames == run.n_frames
    np.testing.assert_array_equal(taken.positions, run.positions)
    np.testing.assert_array_equal(taken.velocities, run.velocities)
    np.testing.assert_array_equal(taken.energies, run.potential)
    np.testing.assert_array_equal(taken.forces, run.forces)
    energies, forces = run.potential + 0.01, run.forces * 1.01
    labelled = NveTrajectory.of(run, "a", (energies, forces))
    np.testing.assert_array_equal(labelled.energies, energies)
    np.testing.assert_array_equal(labelled.forces, forces)


def test_the_stretch_before_a_failure_is_left_out(runs):
    failing = np.arange(runs[0].n_frames) >= 30
    assert NveTrajectory.of(replace(runs[0], pre_failure=failing), "a").n_frames == 30
    nothing = np.ones_like(failing)
    with pytest.raises(TrainingError, match="'a' cannot be trained on: it has 0 frames"):
        NveTrajectory.of(replace(runs[0], pre_failure=nothing), "a")


def test_a_thermostat_is_refused_whatever_the_label_says(runs):
    hot = water_runs(ensemble="nvt", n_replicas=1)[0]
    with pytest.raises(TrainingError, match=r"'hot' .* ensemble 'nvt'"):
        NveTrajectory.of(hot, "hot")
    disguised = replace(hot, about=runs[0].about)
    with pytest.raises(TrainingError, match=r"'hot' .* without thermostat"):
        NveTrajectory.of(disguised, "hot")


def test_a_thermostat_that_only_scales_velocities_is_refused(trajectories):
    """Positions then follow from the velocities before them; velocities do not."""
    cold = trajectories[0]
    x, v = cold.positions[:2], cold.velocities[:2].copy()
    v[1] *= 0.9
    with pytest.raises(TrainingError, match="between its frames 0 and 1"):
        replace(cold, positions=x, velocities=v, energies=cold.energies[:2], forces=cold.forces[:2])


def test_gaps_are_refused_even_if_steps_are_renumbered(runs):
    run = runs[0]
    keep = np.delete(np.arange(run.n_frames), 20)
    names = ("steps", "positions", "velocities", "forces", "member_energies", "kinetic")
    names += ("max_force_spread", "mean_force_spread", "pre_failure")
    torn = replace(run, **{name: getattr(run, name)[keep] for name in names})
    with pytest.raises(TrainingError, match=r"'torn' .* not every time step"):
        NveTrajectory.of(torn, "torn")
    renumbered = replace(torn, steps=np.arange(len(keep)))
    with pytest.raises(TrainingError, match=r"'torn' .* between its frames 19 and 20"):
        NveTrajectory.of(renumbered, "torn")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestep": 1.0}, "move by forces that differ"),
        ({"timestep": 0.0}, "timestep is 0.0 fs"),
        ({"velocities": lambda t: t.velocities * 1.1}, "move by forces that differ"),
        ({"positions": lambda t: np.mod(t.positions, 0.9)}, "move by forces that differ"),
        ({"forces": lambda t: t.forces * 1.5}, "differ by"),
        ({"forces": lambda t: t.forces[:-1]}, "forces have shape"),
        ({"energies": lambda t: np.where(np.arange(t.n_frames) > 9, np.nan, 0)}, "from frame 10"),
        ({"energies": lambda t: t.energies + 0.1 * np.arange(t.n_frames)}, "energy varies by"),
        ({"system": lambda t: System(t.system.numbers, t.system.masses * 2)}, "differ by"),
        ({"system": lambda t: System(t.system.numbers, t.system.masses * 0)}, "masses are"),
    ],
)
def test_what_does_not_move_by_its_forces_is_refused(trajectories, change, words):
    trajectory = trajectories[0]
    values = {name: v(trajectory) if callable(v) else v for name, v in change.items()}
    with pytest.raises(TrainingError, match=f"'run 0' .*{words}"):
        replace(trajectory, **values)


def test_an_atom_that_flies_freely_is_no_thermostat():
    flight = np.arange(5.0)[:, None, None] * np.array([[[0.1, 0.0, 0.0]]])
    free = NveTrajectory(
        "free",
        System(np.array([18]), np.array([39.9])),
        1.0,
        flight,
        np.full((5, 1, 3), [0.1, 0.0, 0.0]),
        np.zeros(5),
        np.zeros((5, 1, 3)),
    )
    assert free.n_frames == 5


def test_subsequences_stay_within_their_trajectory(trajectories):
    shorter = replace(
        trajectories[1],
        **{
            name: getattr(trajectories[1], name)[:7]
            for name in ("positions", "velocities", "energies", "forces")
        },
    )
    segments = Segments.of([trajectories[0], shorter, trajectories[2]], ATOMS)
    n = trajectories[0].n_frames
    assert n == 41
    first = list(range(0, n - 4, 3))
    assert segments.starts(5, 3).tolist() == [*first, n, *(n + 7 + k for k in first)]
    assert segments.starts(1, 1).tolist() == list(range(2 * n + 7))
    # The flat tensors and the frames of the groups are in the same order.
    groups = groups_of([trajectories[0], shorter])
    assert torch.cat([g.index for g in groups]).tolist() == list(range(n + 7))
    labels = segments.labels.of(torch.tensor([n + 2]))
    assert torch.equal(labels.forces, torch.tensor(shorter.forces[2]).float())
    atoms = sum(ATOMS[int(z)] for z in shorter.system.numbers)
    assert float(labels.energies) == pytest.approx(shorter.energies[2] - atoms, abs=1e-5)


def test_a_stage_ends_when_patience_is_lost_at_the_minimal_rate():
    settings = DynamicSettings(learning_rate=1e-3, minimal_rate=1e-4, factor=0.3, patience=2)
    plateau = Plateau(settings)
    rates = []
    for error in (3.0, 2.0, 2.5, 2.5, 1.9, 2.0, 2.0, np.inf, 2.0, 2.0, 2.0, 2.0, 2.0):
        plateau.judge(error)
        rates.append(plateau.rate)
        assert not plateau.over
    # Three epochs without an improvement, not two; 1e-3 * 0.3² is below the minimum.
    assert rates == pytest.approx([1e-3] * 7 + [3e-4] * 3 + [1e-4] * 3)
    plateau.judge(1.8)
    for _ in range(2):
        plateau.judge(1.8)
        assert not plateau.over
    plateau.judge(np.nan)
    assert plateau.over
    assert plateau.rate == 1e-4


def test_lengths_grow_stage_by_stage_and_the_rate_is_reset(member, trajectories):
    settings = replace(
        QUICK,
        lengths=(1, 2, 3),
        epochs_per_stage=50,
        learning_rate=1e-2,
        minimal_rate=5e-3,
        factor=0.5,
        patience=0,
    )
    told = []
    _, report = refine(
        member, trajectories[:2], trajectories[2:], settings, seed=1, on_epoch=told.append
    )
    assert tuple(told) == report.epochs
    assert [e.epoch for e in told] == list(range(1, len(told) + 1))
    stages = [[e for e in told if e.stage == k] for k in range(3)]
    for length, stage in zip((1, 2, 3), stages, strict=True):
        assert {e.length for e in stage} == {length}
        assert stage[0].learning_rate == 1e-2
        assert stage[-1].learning_rate == 5e-3
        assert stage[-1].validation >= min(e.validation for e in stage[:-1])
    assert report.stopped_by == "schedule"
    # ⌈20 starts / 8⌉: of 41 frames, each 4th with 3 frames, in two trajectories.
    assert [e.step for e in told] == [3 * e.epoch for e in told]


def test_the_control_is_the_same_schedule_without_growth(member, trajectories):
    counts = []
    for lengths in ((2, 3), (1, 1)):
        settings = replace(QUICK, lengths=lengths)
        _, report = refine(member, trajectories[:2], trajectories[2:], settings, seed=1)
        counts.append([(e.stage, e.step) for e in report.epochs])
        assert [e.length for e in report.epochs] == [lengths[0]] * 2 + [lengths[1]] * 2
    assert len({tuple(count) for count in counts}) == 1


def test_moments_are_kept_over_a_reset(member, trajectories):
    """Two stages of one length without plateaus are the same fit as one stage twice as long."""
    errors = []
    for lengths, epochs in (((2,), 4), ((2, 2), 2)):
        settings = replace(QUICK, lengths=lengths, epochs_per_stage=epochs)
        _, report = refine(member, trajectories[:2], trajectories[2:], settings, seed=1)
        errors.append([e.validation for e in report.epochs])
    assert errors[0] == errors[1]


@pytest.mark.parametrize("gradient", ["bptt", "detached"])
def test_the_same_seed_gives_the_same_bits(member, trajectories, gradient):
    settings = replace(QUICK, gradient=gradient)
    results = [
        refine(member, trajectories[:2], trajectories[2:], settings, seed=seed)
        for seed in (3, 3, 4)
    ]
    files = [member_bytes(refined) for refined, _ in results]
    assert files[0] == files[1] != files[2]
    assert results[0][1] == results[1][1]


def test_the_best_weights_are_returned_and_never_worse_than_those_given(member, trajectories):
    refined, report = refine(member, trajectories[:2], trajectories[2:], QUICK, seed=1)
    judged = mepa(refined, trajectories[2:], QUICK.validation_frames).mean()
    assert judged == report.best == min(report.before, *(e.validation for e in report.epochs))
    assert report.best < report.before
    wild = replace(QUICK, learning_rate=0.05)
    returned, report = refine(member, trajectories[:2], trajectories[2:], wild, seed=1)
    assert min(e.validation for e in report.epochs) > report.before == report.best
    assert member_bytes(returned) == member_bytes(member)


def test_long_gradients_are_shortened(member, trajectories):
    """To a length that the optimiser takes for nothing: then no weight moves."""
    settings = replace(QUICK, max_gradient_norm=1e-14)
    _, report = refine(member, trajectories[:2], trajectories[2:], settings, seed=1)
    errors = [e.validation for e in report.epochs]
    assert errors == pytest.approx([report.before] * 4, rel=1e-5)


def test_a_stopped_run_keeps_its_best_weights(member, trajectories):
    asked = []
    _, report = refine(
        member,
        trajectories[:2],
        trajectories[2:],
        QUICK,
        seed=1,
        should_stop=lambda: asked.append(1) or len(asked) == 4,
    )
    assert report.stopped_by == "deadline"
    assert [e.step for e in report.epochs] == [3, 4]


@pytest.mark.parametrize(("lengths", "n_steps"), [((1, 2), 2), ((1, 2), 14), ((1,), 10)])
def test_a_killed_run_goes_on_to_the_same_bits(member, trajectories, tmp_path, lengths, n_steps):
    """Killed in its first epoch, in a later stage, and after its best epoch and a lower rate."""
    settings = replace(QUICK, lengths=lengths, epochs_per_stage=4, patience=0, learning_rate=1e-2)
    given = (member, trajectories[:2], trajectories[2:], settings)
    whole, report = refine(*given, seed=1)
    if lengths == (1,):
        assert report.epochs[3].learning_rate < report.epochs[0].learning_rate
        assert report.best < report.epochs[3].validation
    file = {"checkpoint": tmp_path / "run.ckpt", "checkpoint_s": 0.0}
    asked = []
    refine(*given, seed=1, should_stop=lambda: asked.append(1) or len(asked) == n_steps, **file)
    told = []
    again, report_again = refine(*given, seed=1, on_epoch=told.append, **file)
    assert member_bytes(again) == member_bytes(whole)
    assert report_again == report
    assert tuple(told) == report.epochs[(n_steps - 1) // 3 :]


def test_a_run_that_is_laid_down_in_time_goes_on_to_the_same_bits(member, trajectories, tmp_path):
    given = (member, trajectories[:2], trajectories[2:], QUICK)
    whole, report = refine(*given, seed=1)

    def work(lay_down_at):
        return refine(
            *given,
            seed=1,
            on_epoch=lambda _: time.sleep(0.3),
            checkpoint=tmp_path / "run.ckpt",
            lay_down_at=lay_down_at,
        )

    (again, report_again), laid_down = in_spells(work, 1.5)
    assert laid_down >= 1
    assert member_bytes(again) == member_bytes(whole)
    assert report_again == report


def test_the_checkpoint_of_another_run_is_not_used(member, trajectories, tmp_path):
    file = {"checkpoint": tmp_path / "run.ckpt", "checkpoint_s": 0.0}
    refine(member, trajectories[:2], trajectories[2:], QUICK, seed=1, **file)
    others = [
        (member, trajectories[:1], trajectories[2:], QUICK, 1),
        (member, trajectories[:2], trajectories[2:], QUICK, 2),
        (member_of("schnet", seed=9), trajectories[:2], trajectories[2:], QUICK, 1),
    ]
    for *given, seed in others:
        plain = refine(*given, seed=seed)
        kept = file["checkpoint"].read_bytes()
        found = refine(*given, seed=seed, **file)
        assert member_bytes(found[0]) == member_bytes(plain[0])
        assert "is of another fit" in found[1].checkpoint
        file["checkpoint"].write_bytes(kept)


def test_impossible_requests_say_what_is_wrong(member, trajectories):
    a, b, c = trajectories
    with pytest.raises(TrainingError, match="run 0 are given twice"):
        refine(member, [a, b], [a], QUICK, seed=1)
    with pytest.raises(TrainingError, match="no trajectory to learn from"):
        refine(member, [], [c], QUICK, seed=1)
    with pytest.raises(TrainingError, match="no trajectory to judge by"):
        refine(member, [a], [], QUICK, seed=1)
    with pytest.raises(TrainingError, match=r"'run 0' has 41 frames, too few .* of 42"):
        refine(member, [a], [c], replace(QUICK, lengths=(1, 42)), seed=1)
    with pytest.raises(TrainingError, match=r"'run 2' has 41 frames and cannot judge .* of 60"):
        refine(member, [a], [c], replace(QUICK, validation_frames=60), seed=1)
    lacking = replace(member_of("schnet", elements=(1, 6)), level_of_theory=member.level_of_theory)
    with pytest.raises(ModelError, match="was given O"):
        refine(lacking, [a], [c], QUICK, seed=1)
    broken = replace(QUICK, learning_rate=1e30)
    with pytest.raises(TrainingError, match="not finite after 1 steps"):
        refine(member, [a], [c], broken, seed=1)


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": ()},
        {"lengths": (2, 0)},
        {"gradient": "none"},
        {"first_weight": 0.0},
        {"energy_weight": -1.0},
        {"energy_weight": float("nan")},
        {"stride": 0},
        {"batch_size": 0},
        {"minimal_rate": 2e-4},
        {"learning_rate": float("inf")},
        {"minimal_rate": 0.0},
        {"factor": 1.0},
        {"patience": -1},
        {"epochs_per_stage": 0},
        {"validation_frames": 0},
        {"max_gradient_norm": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(TrainingError, match=f"out of range: .*{next(iter(change))} = "):
        replace(DynamicSettings(), **change)


def test_motions_start_as_often_as_they_fit(member, trajectories):
    errors = rollout_errors(member, trajectories[:2], 20)
    assert errors.shape == (4, 20)
    alone = rollout_errors(member, trajectories[1:2], 20)
    np.testing.assert_allclose(errors[2:], alone, rtol=1e-4)
    np.testing.assert_allclose(mepa(member, trajectories[:2], 20), errors.mean(0))
    assert rollout_errors(member, trajectories[:1], 41).shape == (1, 41)


def test_a_motion_that_breaks_counts_as_infinitely_wrong(member, trajectories):
    huge = ("scale", "readout.2.weight")
    stiff = replace(
        member, weights={n: w * 1e30 if n in huge else w for n, w in member.weights.items()}
    )
    errors = mepa(stiff, trajectories[:1], 41)
    assert not np.isnan(errors).any()
    assert np.isinf(errors[-1])
