"""Other packages trained on the frames of ``rmd17.py``: hippynn (HIP-NN-TS) and mace-torch (MACE).

Both get what they need to do well in a short time: energies less their mean, AdamW or Adam with the
same cosine fall of the learning rate (by CPU time spent), averaged weights, float32, one thread.
The clock starts after ten steps, in which packages compile. The settings are the best of the
few that were tried, see docs/potentials.md.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alloop.datasets import Dataset

WARM_UP = 10
"""Steps that cost nothing."""


@dataclass(frozen=True)
class Outcome:
    """Predictions on the test frames, eV and eV/Å, and what they cost."""

    energies: np.ndarray
    forces: np.ndarray
    seconds: float
    steps: int
    parameters: int


class Peer(Protocol):
    """A model of another package on one set of frames."""

    module: torch.nn.Module

    def loss(self, frames: list[int], *, late: bool) -> Tensor:
        """Return the loss of training frames; ``late`` is true in the last quarter."""
        ...

    def predict(self, frames: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return energies and forces of frames, eV and eV/Å."""
        ...


@dataclass(frozen=True)
class Plan:
    """How a peer is trained."""

    batch_size: int
    learning_rate: float
    ema_decay: float = 0.99
    clip: float = 10.0


def run_peer(
    peer: Peer, plan: Plan, n_train: int, test: list[int], budget: float, seed: int = 1
) -> Outcome:
    """Train until the CPU time is spent and predict with the averaged weights."""
    parameters = [p for p in peer.module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.0, amsgrad=True)
    averaged = [p.detach().clone() for p in parameters]
    order = np.random.default_rng(seed)
    steps, began = 0, math.nan
    queue: list[int] = []
    while not (spent := time.process_time() - began) >= budget:
        if len(queue) < plan.batch_size:
            queue = order.permutation(n_train).tolist()
        frames, queue = queue[: plan.batch_size], queue[plan.batch_size :]
        share = 0.0 if steps < WARM_UP else spent / budget
        rise = min(1.0, (steps + 1) / 50)
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * share))
        optimiser.zero_grad()
        peer.loss(frames, late=share > 0.75).backward()
        torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimiser.step()
        decay = min(plan.ema_decay, (steps + 1) / (steps + 10))
        with torch.no_grad():
            for mean, parameter in zip(averaged, parameters, strict=True):
                mean.lerp_(parameter, 1.0 - decay)
        steps += 1
        if steps == WARM_UP:
            began = time.process_time()
    with torch.no_grad():
        for mean, parameter in zip(averaged, parameters, strict=True):
            parameter.copy_(mean)
    parts = [peer.predict(test[i : i + 50]) for i in range(0, len(test), 50)]
    energies, forces = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Outcome(energies, forces, spent, steps, sum(p.numel() for p in parameters))


class Hippynn:
    """HIP-NN-TS of hippynn (l = 1) with the shape of our ``hipnn``, size small.

    Energies and forces are learned in units of the spread of the forces, with our loss.
    """

    def __init__(self, data: Dataset, n_train: int, features: int = 40, onsite: int = 1) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from hippynn.graphs import GraphModule, inputs, networks, physics, targets
        species = inputs.SpeciesNode(db_name="Z")
        positions = inputs.PositionsNode(db_name="R")
        shape = {
            "possible_species": [0, *sorted({int(z) for z in data.frames[0].numbers})],
            "n_features": features,
            "n_sensitivities": 16,
            "dist_soft_min": 0.75,
            "dist_soft_max": 4.0,
            "dist_hard_max": 5.0,
            "n_interaction_layers": 2,
            "n_atom_layers": onsite,
        }
        network = networks.HipnnVec("HIPNN", (species, positions), module_kwargs=shape)
        energy = targets.HEnergyNode("HEnergy", network)
        force = physics.GradientNode("forces", (energy, positions), sign=-1)
        self.module = GraphModule([species, positions], [energy.mol_energy, force])
        self._scale = float(np.sqrt(np.mean(np.square(data.forces[:n_train]))))
        self._mean = float(data.energies[:n_train].mean())
        self._numbers = torch.tensor(data.frames[0].numbers).expand(len(data), -1)
        self._positions = torch.tensor(np.array([f.positions for f in data.frames])).float()
        self._energies = torch.tensor(data.energies - self._mean).float()
        self._forces = torch.tensor(np.array(data.forces)).float()

    def loss(self, frames: list[int], *, late: bool) -> Tensor:  # noqa: ARG002
        """Return the loss of training frames."""
        energies, forces = self._call(frames)
        by_energy = (energies - self._energies[frames]) * forces.shape[1] ** -0.5
        return _huber(by_energy) + _huber(forces - self._forces[frames])

    def predict(self, frames: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return energies and forces of frames, eV and eV/Å."""
        energies, forces = self._call(frames)
        return energies.detach().double().numpy() + self._mean, forces.detach().double().numpy()

    def _call(self, frames: list[int]) -> tuple[Tensor, Tensor]:
        positions = self._positions[frames].clone().requires_grad_()
        energies, forces = self.module(self._numbers[frames], positions)
        return self._scale * energies[:, 0], self._scale * forces


def _huber(errors: Tensor, delta: float = 0.05) -> Tensor:
    return (2.0 * delta**2 * ((1.0 + (errors / delta).square()).sqrt() - 1.0)).mean()


class Mace:
    """MACE of mace-torch: two layers, correlation 3, with the package's loss in two stages.

    As its program does, the last quarter weighs energies more than before.
    """

    def __init__(
        self, data: Dataset, n_train: int, irreps: str = "32x0e", max_ell: int = 2
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mace import data as mace_data  # before e3nn, whose files it teaches torch to load
            from mace import modules
            from mace.tools import AtomicNumberTable, torch_geometric
            from e3nn import o3  # isort: skip
        self._batch: Callable[..., Any] = torch_geometric.Batch.from_data_list
        elements = sorted({int(z) for z in data.frames[0].numbers})
        table = AtomicNumberTable(elements)
        self._mean = float(data.energies[:n_train].mean())
        scale = float(np.sqrt(np.mean(np.square(data.forces[:n_train]))))
        self._items = [
            mace_data.AtomicData.from_config(
                mace_data.Configuration(
                    atomic_numbers=frame.numbers,
                    positions=frame.positions,
                    properties={"energy": energy - self._mean, "forces": forces},
                    property_weights={"energy": 1.0, "forces": 1.0},
                    cell=np.zeros((3, 3)),
                    pbc=(False, False, False),
                ),
                z_table=table,
                cutoff=5.0,
            )
            for frame, energy, forces in zip(data.frames, data.energies, data.forces, strict=True)
        ]
        pairs = np.mean([item.edge_index.shape[1] for item in self._items[:n_train]])
        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        self.module = modules.ScaleShiftMACE(
            r_max=5.0,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=max_ell,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=len(elements),
            hidden_irreps=o3.Irreps(irreps),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(elements)),
            avg_num_neighbors=float(pairs) / data.frames[0].n_atoms,
            atomic_numbers=elements,
            correlation=3,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=scale,
            atomic_inter_shift=0.0,
        )
        self._losses = (
            modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=100.0),
            modules.WeightedEnergyForcesLoss(energy_weight=1000.0, forces_weight=100.0),
        )

    def loss(self, frames: list[int], *, late: bool) -> Tensor:
        """Return the loss of training frames."""
        batch = self._batch([self._items[i] for i in frames])
        answer = self.module(batch.to_dict(), training=True)
        loss: Tensor = self._losses[late](pred=answer, ref=batch)
        return loss

    def predict(self, frames: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return energies and forces of frames, eV and eV/Å."""
        batch = self._batch([self._items[i] for i in frames])
        answer = self.module(batch.to_dict(), training=False)
        forces = answer["forces"].detach().double().numpy().reshape(len(frames), -1, 3)
        return answer["energy"].detach().double().numpy() + self._mean, forces
