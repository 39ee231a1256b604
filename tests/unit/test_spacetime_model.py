"""A fitted 4D model: exact at the start, reproducible, honest about its data, safe as a file."""

import dataclasses
import math
import pickle
import time

import numpy as np
import pytest
import torch

from alloop.errors import ModelError, SpacetimeError
from alloop.spacetime import features, polynomial
from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.internal import to_cartesian, to_internal
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.files import load_model, save_model
from alloop.spacetime.learning.ensemble import MotionLoss, Sample, new_layers, train
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.trajectories import InternalTrajectory, TrajectorySet
from alloop.spacetime.model import stacked_mlp
from alloop.spacetime.motion.orientation import momenta, predict
from alloop.spacetime.propagation.propagate import propagate

WITH_VALIDATION = ("train",) * 24 + ("validation", "test")
PEROXIDE = np.array([8, 8, 1, 1])
MASSES = np.array([15.999, 15.999, 1.008, 1.008])
CHAIN = ZMatrix(((0,), (1, 0), (2, 0, 1), (3, 1, 0, 2)))
QUICK = FitSettings(members=3, hidden=(24, 16), windows=1500, batch=64, steps=30, basis_size=9)


def vibrations(n_trajectories=26, n_frames=90, seed=0):
    """Every coordinate swings at its own frequency, bent: the start decides all that follows."""
    rng = np.random.default_rng(seed)
    centre = torch.tensor([1.45, 0.97, 0.97, 1.75, 1.75, 1.95], dtype=torch.float64)
    frequency = torch.tensor([0.16, 0.6, 0.65, 0.25, 0.3, 0.07], dtype=torch.float64)
    scale = torch.tensor([0.01, 0.01, 0.01, 0.15, 0.02, 0.1], dtype=torch.float64)
    time = 0.5 * torch.arange(n_frames, dtype=torch.float64)[:, None]
    motions = []
    for _ in range(n_trajectories):
        width = scale * torch.as_tensor(rng.uniform(0.5, 1.0, size=6))
        phase = frequency * time + torch.as_tensor(rng.uniform(0, 6.28, size=6))
        swing, rate = width * torch.sin(phase), width * frequency * torch.cos(phase)
        motion = centre + swing + 15 * swing**3, rate * (1 + 45 * swing**2)
        motions.append([part.numpy() for part in to_cartesian(CHAIN, *motion)])
    positions, velocities = zip(*motions, strict=True)
    return positions, velocities


def trajectories(**changes):
    positions, velocities = vibrations()
    splits = ("train",) * 24 + ("test", "test")
    ids = tuple(f"t{i}" for i in range(26))
    data = TrajectorySet(PEROXIDE, MASSES, 0.5, positions, velocities, splits, ids)
    return dataclasses.replace(data, **changes)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fitted():
    return fit(trajectories(), QUICK, 7)


@pytest.fixture
def model(fitted):
    return fitted.model


@pytest.fixture
def start():
    positions, velocities = vibrations(3, 1, seed=9)
    return torch.as_tensor(np.concatenate(positions)), torch.as_tensor(np.concatenate(velocities))


def parameters(model):
    return [model.polynomial, model.coefficient_scale, *model.weights, *model.biases]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_basis_vanishes_at_the_start_and_its_rates_are_its_derivatives():
    grid = torch.arange(1, 21, dtype=torch.float64) * 0.5
    basis = TimeBasis.orthonormal(10.0, grid, 8)
    values, rates = basis(times(0.0))
    assert values.abs().max() == 0.0
    assert rates.abs().max() == 0.0
    later, step = torch.linspace(0.1, 9.9, 30, dtype=torch.float64), 1e-5
    differences = (basis(later + step)[0] - basis(later - step)[0]) / (2 * step)
    assert (differences - basis(later)[1]).abs().max() < 1e-7


def test_projection_finds_the_coefficients_of_sampled_motion():
    grid = torch.arange(1, 21, dtype=torch.float64) * 0.5
    basis = TimeBasis.orthonormal(10.0, grid, 8)
    coefficients = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(1)).double()
    values, rates = basis(grid)
    sampled = [torch.einsum("sqk,tk->stq", coefficients, part) for part in (values, rates)]
    assert (basis.project(grid, *sampled) - coefficients).abs().max() < 1e-10


def test_polynomial_has_every_product_of_two_factors_once():
    inputs = torch.randn(2, features.n_first_order(CHAIN))
    terms = features.polynomial(CHAIN, inputs)
    factors = 6 + 1 + 6  # coordinates, with sine and cosine of the one dihedral, and rates
    assert terms.shape[1] == features.n_polynomial(CHAIN)
    products = terms[0, 1 + inputs.shape[1] :]
    wanted = torch.outer(inputs[0, :factors], inputs[0, :factors])[
        torch.triu(torch.ones(13, 13)) > 0
    ]
    assert torch.equal(products.sort().values, wanted.sort().values)


def test_held_out_windows_hold_products_back_where_data_are_few():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(300, features.n_first_order(CHAIN), generator=generator)
    slopes = torch.randn(inputs.shape[1], 4, generator=generator)
    noise = torch.randn(300, 4, generator=generator)
    wanted = inputs @ slopes + noise
    seen, exam, unseen = ((inputs[i : i + 100], wanted[i : i + 100]) for i in (0, 100, 200))
    errors = [
        polynomial.subtract(CHAIN, *unseen, polynomial.solve(CHAIN, *seen, held_out))
        .square()
        .mean()
        for held_out in (None, exam)
    ]
    assert errors[0] > 3.0  # 109 terms from 100 windows: overfitted
    assert errors[1] < 1.6  # noise of 1, and 17 slopes from 100 windows


def test_large_molecules_do_without_products():
    rows = [(0,), (1, 0), (2, 1, 0), *((i, i - 1, i - 2, i - 3) for i in range(3, 40))]
    zmatrix = ZMatrix(tuple(rows))
    assert features.n_polynomial(zmatrix) == 1 + features.n_first_order(zmatrix)


def test_features_do_not_see_full_turns_of_a_dihedral():
    coordinates, rates = torch.rand(1, 6).double(), torch.rand(1, 6).double()
    turned = coordinates + times(0, 0, 0, 0, 0, 2 * math.pi)
    seen, again = (features.first_order(CHAIN, q, rates) for q in (coordinates, turned))
    assert (seen - again).abs().max() < 1e-12


def test_start_is_exact(model, start):
    positions, velocities = predict(model, *start, times(0.0))
    assert (positions[:, 0] - start[0]).abs().max() < 1e-12
    assert (velocities[:, 0] - start[1]).abs().max() < 1e-13


def test_velocities_are_the_derivative_of_positions(model, start):
    step = 1e-4
    for moment in (0.7, 3.0, 8.9):
        positions, velocities = predict(model, *start, times(moment - step, moment, moment + step))
        differences = (positions[:, 2] - positions[:, 0]) / (2 * step)
        # The rotation is integrated numerically: good to 1e-6 Å/fs, the shape to 1e-9.
        assert (differences - velocities[:, 1]).abs().max() < 2e-6


def test_internal_rates_are_the_forward_mode_derivative(model, start):
    coordinates, rates = to_internal(model.internal, *start)
    coefficients = model.coefficients(coordinates, rates)[0]
    later, step = torch.linspace(0.5, 9.5, 7, dtype=torch.float64), 1e-5

    def at(moments):
        return model.motion(coordinates, rates, coefficients, moments)

    differences = (at(later + step)[0] - at(later - step)[0]) / (2 * step)
    assert (differences - at(later)[1]).abs().max() < 1e-8


def test_momenta_are_conserved(model, start):
    positions, velocities = predict(model, *start, torch.linspace(0, 10, 21).double())
    momentum, angular = momenta(model.masses, positions, velocities)
    assert (momentum - momentum[:, :1]).abs().max() < 1e-10 * momentum.abs().max()
    assert (angular - angular[:, :1]).abs().max() < 1e-10 * angular.abs().max()
    wanted, turning = momenta(model.masses, *start)
    assert torch.allclose(momentum[:, 7], wanted, rtol=1e-10)
    assert torch.allclose(angular[:, 7], turning, rtol=1e-10)


def test_predictions_turn_and_move_with_the_start(model, start):
    turn, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(2)).double()
    )
    turn = turn * torch.linalg.det(turn)
    shift = times(3.0, -1.0, 2.0)
    later = times(2.0, 10.0)
    positions, velocities = predict(model, *start, later)
    turned = predict(model, start[0] @ turn + shift, start[1] @ turn, later)
    assert (turned[0] - (positions @ turn + shift)).abs().max() < 1e-6
    assert (turned[1] - velocities @ turn).abs().max() < 1e-6


def test_any_times_give_the_same_motion(model, start):
    alone, _ = predict(model, *start, times(7.0))
    among, _ = predict(model, *start, times(0.3, 2.0, 7.0, 7.0, 9.0))
    assert (alone[:, 0] - among[:, 2]).abs().max() < 1e-5  # the rotation takes other steps
    assert torch.equal(among[:, 2], among[:, 3])


def test_members_in_one_program_are_the_members_one_by_one(model, start):
    coordinates, rates = to_internal(model.internal, *start)
    together = model.coefficients(coordinates, rates)
    for k in range(model.n_members):
        alone = dataclasses.replace(
            model,
            weights=tuple(w[k : k + 1] for w in model.weights),
            biases=tuple(b[k : k + 1] for b in model.biases),
        )
        assert torch.allclose(alone.coefficients(coordinates, rates)[0], together[k], atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 1e-6  # and they do differ


def test_batches_of_each_member_may_differ(model):
    inputs = torch.randn(model.n_members, 5, len(model.feature_mean))
    together = stacked_mlp(inputs, model.weights, model.biases)
    alone = stacked_mlp(inputs[1], model.weights, model.biases)
    assert torch.allclose(together[1], alone[1], atol=1e-6)


def test_loss_is_the_weighted_error_of_motion():
    grid = torch.arange(1, 11, dtype=torch.float64)
    basis = TimeBasis.orthonormal(10.0, grid, 5)
    scale = torch.rand(6, 5) + 0.5
    errors = torch.randn(2, 7, 30)
    values, rates = basis(grid)
    motion = [torch.einsum("msqk,tk->mstq", errors.view(2, 7, 6, 5) * scale, part.float())
              for part in (values, rates)]  # fmt: skip
    rms = [part.square().mean(dim=(1, 2)).sqrt() for part in motion]
    wanted = sum(
        weight * part[:, span].mean(dim=1)
        for part, weights in zip(rms, [(1, 2, 4), (16, 20, 24)], strict=True)
        for weight, span in zip(weights, CHAIN.kinds.values(), strict=True)
    )
    assert torch.allclose(MotionLoss(CHAIN, basis, grid, scale)(errors), wanted, rtol=1e-4)


def test_same_seed_same_model_other_seed_another(fitted):
    assert same(fit(trajectories(), QUICK, 7).model, fitted.model)
    untrained = dataclasses.replace(QUICK, steps=0)
    one, other = (fit(trajectories(), untrained, seed).model for seed in (7, 8))
    assert not torch.equal(one.polynomial, other.polynomial)  # other windows
    assert not torch.equal(one.weights[0], other.weights[0])  # other networks


def test_test_trajectories_do_not_touch_the_model_but_the_score(fitted):
    data = trajectories()
    other, velocities = vibrations(1, seed=99)
    swapped = dataclasses.replace(
        data,
        positions=(*data.positions[:25], *other),
        velocities=(*data.velocities[:25], *velocities),
    )
    refitted = fit(swapped, QUICK, 7)
    assert same(refitted.model, fitted.model)
    assert refitted.test.ensemble != fitted.test.ensemble


def test_validation_chooses_the_networks():
    generator = torch.Generator().manual_seed(2)
    grid = torch.arange(1, 11, dtype=torch.float64)
    loss = MotionLoss(CHAIN, TimeBasis.orthonormal(10.0, grid, 2), grid, torch.ones(6, 2))
    inputs = torch.randn(200, 3, generator=generator)
    targets = torch.tanh(inputs @ torch.randn(3, 12, generator=generator))
    layers = new_layers([3, 16, 12], 2, generator)

    def last_weights(validation):
        lesson = Sample(inputs, targets)
        (weights, _), course = train(layers, lesson, validation, loss, QUICK, generator)
        return weights[-1], course

    helped, course = last_weights(Sample(inputs, targets))
    assert course["validation_loss"] < float(loss(-targets[None]).mean())
    hurt, _ = last_weights(Sample(inputs, -targets))  # all that is learnt is wrong there
    blind, course = last_weights(None)
    assert "validation_loss" not in course
    assert helped.abs().max() > 0.0
    assert hurt.abs().max() == 0.0
    assert blind.abs().max() > 0.0


def test_scores_count_segments_and_name_kinds(fitted):
    assert fitted.validation is None
    assert fitted.test.n_trajectories == 2
    assert fitted.test.n_segments == 8  # 90 frames each: starts 0, 20, 40, 60
    assert fitted.course["windows"] == pytest.approx(QUICK.windows, rel=0.1)
    for kind in ("bond", "angle", "dihedral"):
        assert fitted.test.ensemble[kind] < 0.5 * fitted.test.ballistic[kind]
        assert {kind, f"{kind}_end", f"{kind}_rate", f"{kind}_rate_end"} <= set(fitted.test.member)
    assert fitted.test.ensemble["rmsd_end"] < fitted.test.ballistic["rmsd_end"]


def test_networks_improve_on_the_polynomial_and_go_on_from_an_earlier_model():
    data = trajectories(splits=WITH_VALIDATION)
    longer = dataclasses.replace(QUICK, hidden=(64, 64), windows=8000, steps=600)
    brief = dataclasses.replace(longer, steps=5)
    trained, fresh = fit(data, longer, 7), fit(data, brief, 8)
    further = fit(data, brief, 8, initial=trained.model)
    assert trained.course["validation_loss"] < 0.9 * fresh.course["validation_loss"]
    assert further.course["validation_loss"] < 0.9 * fresh.course["validation_loss"]
    assert trained.validation.ensemble["angle"] < fresh.validation.ensemble["angle"]
    with pytest.raises(SpacetimeError, match="fit without it"):
        fit(data, QUICK, 7, initial=trained.model)


def test_divergence_is_an_error_and_not_a_model():
    with pytest.raises(SpacetimeError, match="diverged"):
        fit(trajectories(), dataclasses.replace(QUICK, learning_rate=1e30), 7)


def test_deadline_ends_training_and_progress_is_told():
    seen = []
    fitted = fit(trajectories(), QUICK, 7, on_progress=lambda *news: seen.append(news))
    assert [step for step, _, _ in seen] == list(range(1, 31))
    assert all(steps == 30 and math.isfinite(loss) for _, steps, loss in seen)
    late = fit(trajectories(), QUICK, 7, deadline=time.monotonic() - 1)
    assert (late.course["steps"], fitted.course["steps"]) == (0.0, 30.0)
    assert all(float(w[-1].abs().max()) == 0.0 for w in late.model.weights[-1:])


def test_time_runs_backward_as_well_as_forward():
    data = trajectories()
    positions, velocities = data.motion(0)
    motion = InternalTrajectory.of(CHAIN, positions, velocities)
    back = motion.cut(torch.tensor([50]), 20, backward=True)
    reversed_ = InternalTrajectory.of(CHAIN, positions.flip(0), -velocities.flip(0))
    forth = reversed_.cut(torch.tensor([89 - 50]), 20)
    for field in ("starts", "rates", "displacements", "later_rates"):
        assert torch.allclose(getattr(back, field), getattr(forth, field), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"timestep": 0.0}, "time between frames"),
        ({"masses": MASSES[:3]}, "masses"),
        ({"ids": ("a", "b")}, "differ in length"),
        ({"splits": ("train",) * 25 + ("exam",)}, "exam"),
        ({"numbers": PEROXIDE[:3], "masses": MASSES[:3]}, r"\(n_frames, 3, 3\)"),
    ],
)
def test_malformed_trajectories_are_refused(changes, match):
    with pytest.raises(SpacetimeError, match=match):
        trajectories(**changes)


@pytest.mark.parametrize("which", ["positions", "velocities"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_named(which, bad):
    arrays = [array.copy() for array in getattr(trajectories(), which)]
    arrays[3][17, 2, 1] = bad
    with pytest.raises(SpacetimeError, match=f"{which} of trajectory t3 .* first in 17"):
        trajectories(**{which: tuple(arrays)})


def test_velocities_missing_for_some_frames_are_noticed():
    velocities = trajectories().velocities
    with pytest.raises(SpacetimeError, match="t0 has 90 positions but 80 velocities"):
        trajectories(velocities=(velocities[0][:80], *velocities[1:]))


def test_cutoff_must_fit_the_frames_and_the_trajectories():
    with pytest.raises(SpacetimeError, match="not a multiple"):
        fit(trajectories(), dataclasses.replace(QUICK, cutoff=3.3), 1)
    with pytest.raises(SpacetimeError, match="longer than a segment"):
        fit(trajectories(), dataclasses.replace(QUICK, cutoff=50.0), 1)


@pytest.mark.parametrize(
    "changes",
    [{"cutoff": math.nan}, {"members": 0}, {"hidden": (8, 0)}, {"steps": -1}, {"batch": 0}],
)
def test_senseless_settings_are_refused(changes):
    with pytest.raises(SpacetimeError, match=next(iter(changes))):
        dataclasses.replace(QUICK, **changes)


def test_saved_model_is_the_same_model(model, start, tmp_path):
    save_model(model, tmp_path / "a.model")
    loaded = load_model(tmp_path / "a.model")
    assert same(loaded, model)
    later = times(1.0, 9.0)
    for one, other in zip(
        predict(model, *start, later), predict(loaded, *start, later), strict=True
    ):
        assert torch.equal(one, other)
    assert loaded.metadata["train"] == [f"t{i}" for i in range(24)]
    assert loaded.metadata["settings"]["hidden"] == (24, 16)
    assert loaded.metadata["seed"] == 7


def damaged(content, name):
    changes = {
        "other format": {"format": "a cake recipe"},
        "later version": {"version": 99},
        "other Z-matrix": {
            "coordinates": {"kind": "zmatrix", "rows": [[1], [0, 1], [2, 0, 1], [3, 1, 0, 2]]}
        },
        "unknown coordinates": {"coordinates": {"kind": "polar"}},
        "impossible Z-matrix": {"coordinates": {"kind": "zmatrix", "rows": [[0], [0, 1]]}},
        "wrong shape": {"polynomial": content["polynomial"][:-1]},
        "missing layer": {"weights": content["weights"][:-1], "biases": content["biases"][:-1]},
        "not a tensor": {"masses": "heavy"},
        "no metadata": {},
    }
    content = {**content, **changes[name]}
    if name == "no metadata":
        del content["metadata"]
    return content


@pytest.mark.parametrize(
    "name",
    ["other format", "later version", "other Z-matrix", "unknown coordinates",
     "impossible Z-matrix", "wrong shape",
     "missing layer", "not a tensor", "no metadata"],
)  # fmt: skip
def test_damaged_files_give_one_clear_error(model, tmp_path, name):
    path = tmp_path / "a.model"
    save_model(model, path)
    torch.save(damaged(torch.load(path, weights_only=True), name), path)
    with pytest.raises(ModelError, match=r"a\.model") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return print, ("executed",)


def test_foreign_files_are_refused_and_never_run(model, tmp_path, capsys):
    path = tmp_path / "a.model"
    with pytest.raises(ModelError, match=r"a\.model"):
        load_model(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"a\.model"):
        load_model(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"a\.model"):
        load_model(path)
    torch.save({"format": Bomb()}, path)
    with pytest.raises(ModelError, match=r"a\.model"):
        load_model(path)
    save_model(model, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"a\.model") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_segments_follow_each_other(model, start):
    asked = times(0.0, 4.0, 10.0, 13.0, 20.0, 24.5)
    run = propagate(model, *start, asked)
    assert run.reasons == (None,) * 3
    assert run.n_frames.tolist() == [6, 6, 6]
    ends = predict(model, *start, times(10.0))
    state = ends[0][:, 0], ends[1][:, 0]
    assert torch.allclose(run.positions[:, 2], state[0], atol=1e-6)
    onward = predict(model, *state, times(3.0, 10.0))
    assert torch.allclose(run.positions[:, 3], onward[0][:, 0], atol=1e-5)
    assert torch.allclose(run.velocities[:, 4], onward[1][:, 1], atol=1e-5)
    sparse = propagate(model, *start, times(24.5))
    assert torch.allclose(sparse.positions[:, 0], run.positions[:, 5], atol=1e-4)


def test_a_replica_that_collides_stops_and_the_others_go_on(model, start):
    positions, velocities = start
    velocities = velocities.clone()
    inward = positions[1, 0] - positions[1, 2]
    velocities[1, 2] += 0.3 * inward / inward.norm()
    frozen = dataclasses.replace(
        model,
        polynomial=torch.zeros_like(model.polynomial),
        coefficient_scale=torch.zeros_like(model.coefficient_scale),
    )
    run = propagate(frozen, positions, velocities, torch.arange(0, 9.0, 0.5).double())
    assert run.reasons == (None, "contact", None)
    n_sound = int(run.n_frames[1])
    assert 0 < n_sound < 18
    assert torch.isfinite(run.positions[1, :n_sound]).all()
    assert torch.isnan(run.positions[1, n_sound:]).all()
    assert torch.isfinite(run.positions[[0, 2]]).all()


def test_a_model_that_gives_nan_is_stopped_as_non_finite(model, start):
    sick = dataclasses.replace(model, polynomial=torch.full_like(model.polynomial, math.nan))
    run = propagate(sick, *start, times(1.0, 12.0))
    assert run.reasons == ("non-finite",) * 3
    assert run.n_frames.tolist() == [0, 0, 0]


def test_wrong_starts_and_times_are_refused(model, start):
    positions, velocities = start
    broken = positions.clone()
    broken[0, 0, 0] = math.nan
    with pytest.raises(SpacetimeError, match="not finite"):
        propagate(model, broken, velocities, times(1.0))
    with pytest.raises(SpacetimeError, match="ascend"):
        propagate(model, positions, velocities, times(2.0, 1.0))
    with pytest.raises(SpacetimeError, match="ascend"):
        propagate(model, positions, velocities, times(math.nan))
    with pytest.raises(SpacetimeError, match="cutoff"):
        predict(model, positions, velocities, times(10.5))
    with pytest.raises(SpacetimeError, match="cutoff"):
        predict(model, positions, velocities, times(1.0, -0.5))
    with pytest.raises(SpacetimeError, match="n_replicas"):
        predict(model, positions[:, :3], velocities[:, :3], times(1.0))
