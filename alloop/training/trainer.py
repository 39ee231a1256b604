"""Fitting one member of a committee to energies and forces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from alloop import seeds
from alloop.errors import TrainingError
from alloop.potentials.architectures import architecture
from alloop.potentials.fitting import Trainable
from alloop.potentials.member import Member
from alloop.training.atom_energies import fit_atom_energies
from alloop.training.data import Labels, TrainingSet, group_frames, labels_of
from alloop.training.fit import DivergedError, Fit
from alloop.training.settings import Epoch, TrainReport, TrainSettings

_RESTART_FACTOR = 1.0 / 3.0


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
    metadata: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[Member, TrainReport]:
    """Fit one member; the same arguments give the same weights, bit for bit, on one thread.

    Parameters
    ----------
    data : labelled frames; those for validation choose when to stop and nothing else.
    settings : how to fit.
    level_of_theory : method of the labels, stored with the member.
    seed : of the first weights, of the resampling and of the order of the frames.
    kind, size : architecture and its named size; ``shape`` overrules the size with settings of
        the architecture as plain values.
    atom_energies : by atomic number, eV; fitted to the training frames if not given.
    start : continue from this member's weights instead of random ones.
    metadata : plain values to store with the member.
    should_stop : asked after every step; a fit that is stopped keeps its best weights so far.
    on_epoch : told about every epoch.

    Raises
    ------
    TrainingError
        The fit diverged however small its steps, or was stopped before its first step.
    ModelError
        Unknown architecture or size, or ``start`` has another shape.

    """
    if start is not None and start.level_of_theory != level_of_theory:
        raise TrainingError(
            f"the member to start from was trained on {start.level_of_theory}, the labels are"
            f" {level_of_theory}: that is a transfer between levels of theory, not a warm start"
        )
    model = architecture(kind)
    elements = data.elements
    wanted = model.settings(size, elements) if shape is None else dict(shape)
    energies = dict(atom_energies) if atom_energies is not None else _fitted_energies(data)
    labels = labels_of(data, energies)
    trainable = model.trainable(
        group_frames(data),
        elements,
        wanted,
        energies,
        scale=float(labels.of(labels.training.nonzero()[:, 0]).forces.square().mean().sqrt()),
        seed=seeds.integer(seed, "weights"),
        start=start,
    )
    weights, report = _fit_with_restarts(trainable, labels, settings, seed, should_stop, on_epoch)
    member = Member(
        architecture=kind,
        elements=elements,
        settings=wanted,
        weights=trainable.export(weights),
        atom_energies={z: energies[z] for z in elements},
        level_of_theory=level_of_theory,
        metadata=dict(metadata or {}),
    )
    return member, report


def _fitted_energies(data: TrainingSet) -> dict[int, float]:
    keep = [i for i, validates in enumerate(data.is_validation) if not validates]
    energies = fit_atom_energies([data.frames[i].numbers for i in keep], data.energies[keep])
    # Elements that only validation frames hold.
    return {z: energies.get(z, 0.0) for z in data.elements}


def _fit_with_restarts(
    trainable: Trainable,
    labels: Labels,
    settings: TrainSettings,
    seed: int,
    should_stop: Callable[[], bool] | None,
    on_epoch: Callable[[Epoch], None] | None,
) -> tuple[Tensor, TrainReport]:
    for restarts in range(settings.max_restarts + 1):
        rate = settings.learning_rate * _RESTART_FACTOR**restarts
        fit = Fit(trainable, labels, replace(settings, learning_rate=rate), seed)
        try:
            stopped_by = fit.run(should_stop or _never, on_epoch)
        except DivergedError:
            continue
        return fit.best, fit.report(stopped_by, restarts)
    raise TrainingError(
        f"the fit diverged {settings.max_restarts + 1} times, at last with a learning rate of"
        f" {rate:.1e}; look for wrong labels among the training frames"
    )


def _never() -> bool:
    return False
