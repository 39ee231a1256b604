"""The loss of one frame: energy and forces, each in units that do not grow with the molecule."""

from __future__ import annotations

from torch import Tensor

from alloop.training.settings import TrainSettings


def frame_losses(
    settings: TrainSettings,
    energies: Tensor,
    forces: Tensor,
    true_energies: Tensor,
    true_forces: Tensor,
) -> Tensor:
    """Return w_E h(ΔE/√N) + w_F mean h(ΔF) of each frame, (n_frames,).

    ``h`` is the square, or with loss "huber" the pseudo-Huber function
    2 δ² (√(1 + x²/δ²) - 1), which is x² for small x and 2 δ |x| for large.

    Parameters
    ----------
    energies, true_energies : (n_frames,), eV.
    forces, true_forces : (n_frames, n_atoms, 3), eV/Å.

    """
    n_atoms = forces.shape[1]
    by_energy = _penalty(settings, (energies - true_energies) * n_atoms**-0.5)
    by_force = _penalty(settings, forces - true_forces).mean((1, 2))
    return settings.energy_weight * by_energy + settings.force_weight * by_force


def _penalty(settings: TrainSettings, error: Tensor) -> Tensor:
    if settings.loss == "mse":
        return error.square()
    delta = settings.huber_delta
    return 2.0 * delta**2 * ((1.0 + (error / delta).square()).sqrt() - 1.0)
