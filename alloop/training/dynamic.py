"""Dynamic training: a potential learns to follow trajectories, not only to fit their frames.

Žugec, Hadži Veljković, Alducin and Juaristi, DOI 10.1021/acs.jcim.5c01180 (arXiv:2504.03521). It
works for every architecture, because all of them have a network on graphs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alloop import seeds
from alloop.checkpoint import CheckpointFile, identity
from alloop.errors import TrainingError
from alloop.potentials.architectures import architecture
from alloop.potentials.evaluation import check_elements
from alloop.potentials.graphs.trainable import GraphTrainable
from alloop.potentials.member import Member
from alloop.training.adamw import AdamW
from alloop.training.dynamic_settings import (
    DynamicEpoch,
    DynamicReport,
    DynamicSettings,
    Plateau,
)
from alloop.training.rollouts import SegmentLoss, mepa
from alloop.training.segments import NveTrajectory, Segments, groups_of

__all__ = ["DynamicEpoch", "DynamicReport", "DynamicSettings", "refine"]


def refine(
    member: Member,
    trajectories: Sequence[NveTrajectory],
    validation: Sequence[NveTrajectory],
    settings: DynamicSettings,
    *,
    seed: int,
    should_stop: Callable[[], bool] | None = None,
    on_epoch: Callable[[DynamicEpoch], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = 30.0,
    lay_down_at: float | None = None,
) -> tuple[Member, DynamicReport]:
    """Train a member on; the same arguments give the same weights, bit for bit, on one thread.

    Stage after stage, subsequences of the trajectories become longer; a stage ends when the
    learning rate has fallen to its minimum and patience is lost there. Then the learning rate is
    reset; the moments of the optimiser are kept. The weights with the least validation error of all
    are returned.

    Parameters
    ----------
    member : well trained on single frames of the same level of theory, of any architecture.
    trajectories : to learn from; compositions and time steps may differ.
    validation : other trajectories, which judge and never shape the potential.
    settings : how.
    seed : of the order of the subsequences.
    should_stop : asked after every step; the best weights so far are kept.
    on_epoch : told about every epoch.
    checkpoint : file that keeps the state, written at the end of an epoch if ``checkpoint_s`` have
        passed since the last time. A run that finds its own state there goes on from it to the same
        weights; the file is the caller's to remove.
    lay_down_at : value of ``time.monotonic()`` by which the run, if it has not ended, keeps its
        state in the checkpoint and raises OutOfTime.

    Raises
    ------
    TrainingError
        A trajectory is too short or is on both sides, or the loss is not finite.
    ModelError
        Elements that the member does not describe.

    """
    _check(member, trajectories, validation, settings)
    run = _Refinement(member, trajectories, validation, settings, seed)
    file = None
    if checkpoint is not None:
        owner = identity("dynamic", member, trajectories, validation, settings, seed)
        file = CheckpointFile(checkpoint, owner, checkpoint_s, lay_down_at)
        state = file.load()
        if state is not None:
            run.restore(state)
    stopped = False
    while not (stopped or run.over):
        epoch, stopped = run.epoch(should_stop or _never)
        if on_epoch is not None:
            on_epoch(epoch)
        if file is not None and not stopped:
            file.offer(run.state)
    return run.best, DynamicReport(
        tuple(run.epochs),
        run.before,
        run.least,
        "deadline" if stopped else "schedule",
        "" if file is None else file.note,
    )


class _Refinement:
    """A run between two epochs.

    ``best`` is the member with the least validation error, ``least``; ``before`` is the error of
    the one that was given.
    """

    def __init__(
        self,
        member: Member,
        trajectories: Sequence[NveTrajectory],
        validation: Sequence[NveTrajectory],
        settings: DynamicSettings,
        seed: int,
    ) -> None:
        kind = architecture(member.architecture)
        self._trainable = GraphTrainable(
            kind.network(member, torch.float32),
            groups_of(trajectories),
            member.elements,
            kind.cutoff(member),
        )
        segments = Segments.of(trajectories, member.atom_energies)
        self._loss = SegmentLoss(
            self._trainable,
            segments,
            detached=settings.gradient == "detached",
            first_weight=settings.first_weight,
            energy_weight=settings.energy_weight,
        )
        self._starts = segments.starts(max(settings.lengths), settings.stride)
        self._validation, self._settings = validation, settings
        self._order = torch.Generator().manual_seed(seeds.integer(seed, "order"))
        self._parameters = self._trainable.start.clone().requires_grad_()
        self._optimiser = AdamW(self._parameters.detach(), 0.0)
        self._plateau = Plateau(settings)
        self._stage = self._step = self._epochs_of_stage = 0
        self.epochs: list[DynamicEpoch] = []
        self.best, self.before = member, self._judge(member)
        self.least = self.before

    @property
    def over(self) -> bool:
        """Whether all stages are done."""
        return self._stage == len(self._settings.lengths)

    def epoch(self, should_stop: Callable[[], bool]) -> tuple[DynamicEpoch, bool]:
        """Pass over the subsequences once; return what came of it and whether to stop."""
        stage, rate = self._stage, self._plateau.rate
        length = self._settings.lengths[stage]
        loss, stopped = self._pass(length, rate, should_stop)
        now = replace(self.best, weights=self._trainable.export(self._parameters.detach()))
        error = self._judge(now)
        if error < self.least:
            self.best, self.least = now, error
        number = len(self.epochs) + 1
        self.epochs.append(DynamicEpoch(stage, length, number, self._step, rate, loss, error))
        self._plateau.judge(error)
        self._epochs_of_stage += 1
        if self._plateau.over or self._epochs_of_stage == self._settings.epochs_per_stage:
            self._plateau = Plateau(self._settings)
            self._stage, self._epochs_of_stage = stage + 1, 0
        return self.epochs[-1], stopped

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs to go on, as tensors and plain values."""
        return {
            "parameters": self._parameters.detach().clone(),
            "optimiser": self._optimiser.state(),
            "order": self._order.get_state(),
            "plateau": self._plateau.state(),
            "place": (self._stage, self._epochs_of_stage, self._step),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": dict(self.best.weights),
            "errors": (self.before, self.least),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        with torch.no_grad():
            self._parameters.copy_(state["parameters"])
        self._optimiser.restore(state["optimiser"])
        self._order.set_state(state["order"])
        self._plateau.restore(state["plateau"])
        self._stage, self._epochs_of_stage, self._step = state["place"]
        self.epochs = [DynamicEpoch(**epoch) for epoch in state["epochs"]]
        self.best = replace(self.best, weights=state["best"])
        self.before, self.least = state["errors"]

    def _pass(
        self, length: int, rate: float, should_stop: Callable[[], bool]
    ) -> tuple[float, bool]:
        order = torch.randperm(len(self._starts), generator=self._order)
        losses: list[float] = []
        stopped = False
        for batch in self._starts[order].split(self._settings.batch_size):
            losses.append(self._take_step(batch, length, rate))
            stopped = should_stop()
            if stopped:
                break
        return math.fsum(losses) / len(losses), stopped

    def _take_step(self, batch: Tensor, length: int, rate: float) -> float:
        loss, gradient = self._loss.slope(self._parameters, batch, length)
        norm = float(gradient.norm())
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"the loss of subsequences of {length} frames is not finite after"
                f" {self._step} steps: the potential leaves the trajectories; train it longer on"
                " single frames first, or lower learning_rate"
            )
        if norm > self._settings.max_gradient_norm:
            gradient *= self._settings.max_gradient_norm / norm
        self._optimiser.step(gradient, rate)
        self._step += 1
        return loss

    def _judge(self, member: Member) -> float:
        return float(np.mean(mepa(member, self._validation, self._settings.validation_frames)))


def _check(
    member: Member,
    trajectories: Sequence[NveTrajectory],
    validation: Sequence[NveTrajectory],
    settings: DynamicSettings,
) -> None:
    names = [trajectory.name for trajectory in (*trajectories, *validation)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingError(
            f"the trajectories {', '.join(twice)} are given twice; frames of one trajectory know"
            " each other, so each must have a name and one side"
        )
    if not trajectories:
        raise TrainingError("there is no trajectory to learn from")
    longest = max(settings.lengths)
    for trajectory in trajectories:
        check_elements(trajectory.system.numbers.tolist(), member.elements)
        if trajectory.n_frames < longest:
            raise TrainingError(
                f"trajectory {trajectory.name!r} has {trajectory.n_frames} frames, too few for"
                f" subsequences of {longest}; leave it out or keep lengths below"
            )


def _never() -> bool:
    return False
