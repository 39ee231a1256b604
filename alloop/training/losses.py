"""The loss of one frame: energy and forces, each in units that do not grow with the molecule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alloop.errors import TrainingError
from alloop.potentials.fitting import Prediction
from alloop.training.data import Labels
from alloop.training.settings import TrainSettings

_N_ELEMENTS = 128


def frame_losses(
    settings: TrainSettings,
    prediction: Prediction,
    labels: Labels,
    force_share: float | None = None,
) -> Tensor:
    """Return the loss of each frame, (n_frames,).

    It is w_E h(ΔE/√N) + w_F mean h(ΔF), where ``h`` is the square, or with loss "huber" the
    pseudo-Huber function 2 δ² (√(1 + x²/δ²) - 1), which is x² for small x and 2 δ |x| for large.
    Loss "mepa" is w_E |ΔE|/N + w_F :func:`species_means` (ΔF). To these come w_D mean (1 - cos) of
    the angles between latent and true forces (Haghighatlari et al., DOI 10.1039/D2DD00008C,
    equation 23) and w_P times the penalty of the architecture.

    Frames without forces have only the terms of energy and penalty. Those of forces are divided by
    ``force_share``, the share of the frames that have them, so that their mean over all frames is
    one over the frames with forces; it is that of these frames unless they are part of more.

    Raises
    ------
    TrainingError
        A weight is given for something that the architecture does not have.

    """
    has_forces = labels.has_forces
    share = float(has_forces.double().mean()) if force_share is None else force_share
    factor = 1.0 / share if share else 0.0
    off_energy = prediction.energies - labels.energies
    off_force = prediction.forces - known_forces(labels)
    if settings.loss == "mepa":
        by_energy = off_energy.abs() / labels.n_atoms
        by_force = species_means(off_force.abs(), labels)
    else:
        by_energy = _penalty(settings, off_energy * labels.n_atoms**-0.5)
        by_force = _atom_means(_penalty(settings, off_force).mean(1), labels)
    by_force = by_force.where(has_forces, 0.0)
    losses = settings.energy_weight * by_energy + factor * settings.force_weight * by_force
    if settings.direction_weight:
        latent = _given("direction_weight", "latent forces", prediction.latent_forces)
        cosines = torch.cosine_similarity(latent, known_forces(labels), dim=1)
        by_direction = _atom_means(1.0 - cosines, labels).where(has_forces, 0.0)
        losses = losses + factor * settings.direction_weight * by_direction
    if settings.penalty_weight:
        penalty = _given("penalty_weight", "penalty", prediction.penalty)
        losses = losses + settings.penalty_weight * penalty
    return losses


def known_forces(labels: Labels) -> Tensor:
    """Return the forces (all atoms, 3), 0 where there are none: NaN would spoil gradients."""
    return labels.forces.nan_to_num(0.0, math.inf, -math.inf)


def species_means(values: Tensor, labels: Labels) -> Tensor:
    """Return Σ_a 1/(3 N_a) Σ values over the elements a of each frame, (n_frames,).

    Of absolute force errors (all atoms, 3) it is the loss and the measure "MEPA" of
    arXiv:2504.03521, equation 11: each element counts alike, however few atoms it has.
    """
    frame = labels.frame
    kind = frame * _N_ELEMENTS + labels.numbers
    ones = values.new_ones(len(kind))
    counts = values.new_zeros(len(labels.n_atoms) * _N_ELEMENTS).index_add(0, kind, ones)
    return _sums(values.mean(1) / counts[kind], frame, labels)


def _atom_means(values: Tensor, labels: Labels) -> Tensor:
    """Return the mean of values (all atoms,) in each frame."""
    if bool((labels.n_atoms == labels.n_atoms[0]).all()):
        return values.reshape(len(labels.n_atoms), -1).mean(1)
    return _sums(values, labels.frame, labels) / labels.n_atoms


def _sums(values: Tensor, frame: Tensor, labels: Labels) -> Tensor:
    return values.new_zeros(len(labels.n_atoms)).index_add(0, frame, values)


def _penalty(settings: TrainSettings, error: Tensor) -> Tensor:
    if settings.loss == "mse":
        return error.square()
    delta = settings.huber_delta
    return 2.0 * delta**2 * ((1.0 + (error / delta).square()).sqrt() - 1.0)


def _given(weight: str, what: str, value: Tensor | None) -> Tensor:
    if value is None:
        raise TrainingError(f"{weight} is not 0, but this architecture has no {what}: set it to 0")
    return value
