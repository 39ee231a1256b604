"""Fitting one member of a committee to energies and forces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alloop import seeds
from alloop.checkpoint import CheckpointFile, identity
from alloop.errors import TrainingError
from alloop.potentials.architectures import architecture
from alloop.potentials.fitting import Trainable
from alloop.potentials.member import Member
from alloop.training.atom_energies import fit_atom_energies
from alloop.training.data import TrainingSet, group_frames, labels_of
from alloop.training.restarts import fit_with_restarts
from alloop.training.settings import Epoch, TrainReport, TrainSettings
from alloop.training.transfer import Transfer, check_frozen, with_unmoved

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHECKPOINT_S = 30.0
"""Seconds between two checkpoints: shorter fits write none."""
_FRAMES_AT_ONCE = 64
_LEAST_SCALE = 1e-6
"""Labels that vary less are all alike: they say nothing of a scale."""


def train_member(
    data: TrainingSet,
    settings: TrainSettings,
    *,
    level_of_theory: str,
    seed: int,
    kind: str = "ani",
    size: str = "small",
    shape: Mapping[str, Any] | None = None,
    atom_energies: Mapping[int, float] | None = None,
    start: Member | None = None,
    transfer: Transfer | None = None,
    repeats: Sequence[int] | None = None,
    metadata: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    lay_down_at: float | None = None,
) -> tuple[Member, TrainReport]:
    """Fit one member; the same arguments give the same weights, bit for bit, on one thread.

    Parameters
    ----------
    data : labelled frames; those for validation choose when to stop and nothing else.
    settings : how to fit.
    level_of_theory : method of the labels, stored with the member.
    seed : of the first weights, of the resampling and of the order of the frames.
    kind, size : architecture and its named size; ``shape`` overrules the size with settings of
        the architecture as plain values. A transfer takes them from ``start``.
    atom_energies : by atomic number, eV; fitted to the training frames if not given, with a
        transfer to what the networks of ``start`` leave of their energies.
    start : continue from this member's weights instead of random ones; it may describe more
        elements than the frames have.
    transfer : lets ``start`` be of another level of theory, and says what of it is kept.
    repeats : how often each frame is shown in one epoch, (n_frames,); once if not given.
    metadata : plain values to store with the member.
    should_stop : asked after every step; a fit that is stopped keeps its best weights so far.
    on_epoch : told about every epoch.
    checkpoint : file that keeps the state of the fit, written at the end of an epoch if
        ``checkpoint_s`` have passed. A fit that finds its own state there goes on from it and
        ends with the same weights, bit for bit; the caller removes it. What else was found
        there is said in the report.
    lay_down_at : value of ``time.monotonic()`` by which the fit, if it has not ended, keeps its
        state in the checkpoint and raises OutOfTime.

    Raises
    ------
    TrainingError
        The fit diverged however small its steps, the start is of another level of theory, the
        transfer does not suit it, or repeats make no sense.
    ModelError
        Unknown architecture or size, or ``start`` has another shape.

    """
    if start is not None and transfer is not None:
        problem = _transferred(data, atom_energies, start, transfer, seed)
    else:
        _check_start(start, transfer, level_of_theory)
        problem = _problem(data, kind, size, shape, atom_energies, start, seed)
    file = None
    if checkpoint is not None:
        # Nothing that is computed: another processor may compute other last bits.
        parts = problem.kind, problem.shape, atom_energies, start, transfer, repeats
        owner = identity("member", data, settings, level_of_theory, seed, *parts)
        file = CheckpointFile(checkpoint, owner, checkpoint_s, lay_down_at)
    fitted, report = fit_with_restarts(
        problem.potential,
        labels_of(data, problem.energies),
        settings,
        seed,
        rates=problem.rates,
        shown=None if repeats is None else _shown(data, repeats),
        should_stop=should_stop,
        on_epoch=on_epoch,
        checkpoint=file,
    )
    weights = problem.potential.export(fitted)
    if start is not None and transfer is not None:
        weights = with_unmoved(weights, problem.potential, fitted, start)
    member = Member(
        architecture=problem.kind,
        elements=problem.elements,
        settings=problem.shape,
        weights=weights,
        atom_energies={z: problem.energies[z] for z in problem.elements},
        level_of_theory=level_of_theory,
        metadata=dict(metadata or {}),
    )
    return member, report


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is fitted: a potential, the zero of its energies and how fast each weight may move."""

    kind: str
    elements: tuple[int, ...]
    shape: Mapping[str, Any]
    energies: Mapping[int, float]
    potential: Trainable
    rates: Tensor | None = None


def _problem(
    data: TrainingSet,
    kind: str,
    size: str,
    shape: Mapping[str, Any] | None,
    atom_energies: Mapping[int, float] | None,
    start: Member | None,
    seed: int,
) -> _Problem:
    """Return a fit from random weights, or from those of a member of the same level of theory."""
    model = architecture(kind)
    elements, energies = data.elements, dict(atom_energies or fitted_energies(data))
    if start is not None:
        energies = {**start.atom_energies, **energies}
        elements = start.elements if set(elements) <= set(start.elements) else elements
    wanted = model.settings(size, elements) if shape is None else dict(shape)
    potential = model.trainable(
        group_frames(data),
        elements,
        wanted,
        energies,
        scale=force_scale(data),
        seed=seeds.integer(seed, "weights"),
        start=start,
    )
    return _Problem(kind, elements, wanted, energies, potential)


def _transferred(
    data: TrainingSet,
    atom_energies: Mapping[int, float] | None,
    start: Member,
    transfer: Transfer,
    seed: int,
) -> _Problem:
    """Return a fit from the weights of a member of any level of theory."""
    kind, shape, atoms = start.architecture, start.settings, start.atom_energies
    # With the start's own atomic energies its networks stay as they are.
    problem = _problem(data, kind, "", shape, atoms, start, seed)
    rates = transfer.rates(problem.potential.layout, architecture(kind).frozen)
    check_frozen(problem.potential, rates)
    refitted = atom_energies or fitted_energies(data, problem.potential, atoms)
    return replace(problem, energies={**atoms, **refitted}, rates=rates)


def _shown(data: TrainingSet, repeats: Sequence[int]) -> Tensor:
    """Return the training frames of one epoch, some of them more than once."""
    if len(repeats) != len(data.frames) or not all(repeat >= 1 for repeat in repeats):
        raise TrainingError(f"repeats want 1 or more for each of {len(data.frames)} frames")
    training = torch.tensor(np.flatnonzero(~data.is_validation))
    return training.repeat_interleave(torch.tensor(repeats)[training])


def _check_start(start: Member | None, transfer: Transfer | None, level_of_theory: str) -> None:
    if start is None and transfer is not None:
        raise TrainingError("a transfer needs a member to start from, got none")
    if start is not None and start.level_of_theory != level_of_theory:
        raise TrainingError(
            f"the member to start from was trained on {start.level_of_theory}, the labels are"
            f" {level_of_theory}: that is a transfer between levels of theory, not a warm start"
        )


def force_scale(*sets: TrainingSet) -> float:
    """Return the root mean square of the force components of the training frames, eV/Å.

    Where none has forces: that of the energies less those of the atoms, divided by √N, in eV.
    """
    kept = [
        force
        for data in sets
        for force, use in zip(data.forces, data.has_forces & ~data.is_validation, strict=True)
        if use
    ]
    values = np.concatenate(kept if kept else [_energy_deviations(data) for data in sets])
    scale = float(np.sqrt(np.square(values).mean()))
    return scale if scale > _LEAST_SCALE else 1.0


def _energy_deviations(data: TrainingSet) -> NDArray[np.float64]:
    """Return what atoms leave of the energies of the training frames, divided by √N, eV."""
    atoms = fitted_energies(data)
    keep = np.flatnonzero(~data.is_validation)
    sums = [sum(atoms[int(z)] for z in data.frames[i].numbers) for i in keep]
    roots = np.sqrt([data.frames[i].n_atoms for i in keep])
    deviations: NDArray[np.float64] = (data.energies[keep] - sums) / roots
    return deviations


def fitted_energies(
    data: TrainingSet,
    potential: Trainable | None = None,
    prior: Mapping[int, float] | None = None,
    first: int = 0,
) -> dict[int, float]:
    """Return the energies of atoms (eV) that fit the training frames best.

    With a potential, which knows the first frame as ``first``, they are fitted to what its start
    leaves of the energies, close to the prior.
    """
    keep = np.flatnonzero(~data.is_validation)
    left = data.energies[keep]
    if potential is not None:
        parts = [
            potential.predict(potential.start, frames).energies
            for frames in torch.tensor(first + keep).split(_FRAMES_AT_ONCE)
        ]
        left = left - torch.cat(parts).detach().double().numpy()
    energies = fit_atom_energies([data.frames[i].numbers for i in keep], left, prior)
    # Elements that only validation frames hold.
    return {z: energies.get(z, 0.0) for z in data.elements}
