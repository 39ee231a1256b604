"""The loss of one frame: energy and forces, each in units that do not grow with the molecule."""

from __future__ import annotations

from torch import Tensor

from alloop.potentials.fitting import Prediction
from alloop.training.data import Labels
from alloop.training.settings import TrainSettings


def frame_losses(settings: TrainSettings, prediction: Prediction, labels: Labels) -> Tensor:
    """Return w_E h(ΔE/√N) + w_F mean h(ΔF) of each frame, (n_frames,).

    ``h`` is the square, or with loss "huber" the pseudo-Huber function
    2 δ² (√(1 + x²/δ²) - 1), which is x² for small x and 2 δ |x| for large.
    """
    by_energy = _penalty(settings, (prediction.energies - labels.energies) * labels.n_atoms**-0.5)
    by_force = _penalty(settings, prediction.forces - labels.forces)
    return settings.energy_weight * by_energy + settings.force_weight * _means(by_force, labels)


def _means(values: Tensor, labels: Labels) -> Tensor:
    """Return the mean over atoms and components of values (all atoms, 3) in each frame."""
    if bool((labels.n_atoms == labels.n_atoms[0]).all()):
        return values.reshape(len(labels.n_atoms), -1).mean(1)
    sums = values.new_zeros(len(labels.n_atoms)).index_add(0, labels.frame, values.sum(1))
    return sums / (3 * labels.n_atoms)


def _penalty(settings: TrainSettings, error: Tensor) -> Tensor:
    if settings.loss == "mse":
        return error.square()
    delta = settings.huber_delta
    return 2.0 * delta**2 * ((1.0 + (error / delta).square()).sqrt() - 1.0)
