"""Learning a level of theory of which there are few labels, with the help of a cheaper one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from alloop import seeds
from alloop.errors import TrainingError
from alloop.potentials.architectures import architecture
from alloop.potentials.member import Member
from alloop.training.data import TrainingSet
from alloop.training.joint import train_joint
from alloop.training.levels import (
    completed,
    differences,
    for_training,
    joined,
    lifted,
    lower_forces,
    predicted,
    with_new_head,
)
from alloop.training.settings import Epoch, TrainReport, TrainSettings
from alloop.training.trainer import CHECKPOINT_S, train_member
from alloop.training.transfer import AUTO, Transfer

Mode = Literal["scratch", "finetune", "freeze", "delta", "joint", "distil"]
MODES: tuple[Mode, ...] = get_args(Mode)

RATES: Mapping[str, float] = {
    "scratch": 1.0,
    "finetune": 0.2,
    "freeze": 0.2,
    "difference": 0.4,
    "delta": 0.5,
    "joint": 0.2,
    "distil": 0.2,
}
"""Learning rate of each kind of fit, relative to one from random weights; chosen with
``benchmarks/tiers.py``, as is what follows."""
ENERGY_RATE = 0.2
"""Further factor for fits that begin with weights and have energies alone, which few steps bend."""
TRUE_SHARE = 0.3
"""How often true labels are shown in an epoch, relative to labels that were predicted."""


def usable_modes(
    upper: TrainingSet, lower: TrainingSet | None, parent: Member | None
) -> tuple[Mode, ...]:
    """Return the modes that have all they need.

    "finetune" needs a parent, "freeze" an architecture that knows what to freeze, "joint" and
    "delta" labels of both levels of theory on frames for training, "distil" a training frame
    without forces.
    """
    keys = set() if lower is None else {frame.key for frame in lower.frames}
    training = ~upper.is_validation
    shared = any(upper.frames[i].key in keys for i in np.flatnonzero(training))
    usable = {
        "scratch": True,
        "finetune": parent is not None,
        "freeze": parent is not None and bool(architecture(parent.architecture).frozen),
        "delta": parent is not None and shared,
        "joint": parent is not None and shared,
        "distil": not upper.has_forces[training].all(),
    }
    return tuple(mode for mode in MODES if usable[mode])


def learn(
    mode: Mode,
    upper: TrainingSet,
    lower: TrainingSet | None,
    settings: TrainSettings,
    *,
    level_of_theory: str,
    lower_level: str,
    seed: int,
    kind: str,
    shape: Mapping[str, Any] | None = None,
    parent: Member | None = None,
    teachers: Sequence[Member] = (),
    freeze: Sequence[str] = (AUTO,),
    metadata: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    lay_down_at: float | None = None,
) -> tuple[Member, TrainReport]:
    """Fit one ordinary member at the upper level of theory; the same arguments, the same bytes.

    Parameters
    ----------
    mode : "scratch" begins with random weights, "finetune" with those of the parent, all of
        which move; "freeze" keeps some of them. "delta" learns the difference of the two levels
        and fits the parent to lower + difference. "joint" fits both levels together, a head each.
        "distil" learns energies, and forces from teachers where there are none.
    upper : labels of ``level_of_theory``; its validation frames alone judge the fit.
    lower : labels of ``lower_level``; its validation frames are not looked at.
    settings : of a fit from random weights; ``RATES`` says how much smaller the steps of others.
    level_of_theory, lower_level : names of the methods.
    seed : of all that is random.
    kind, shape : architecture and its settings as plain values, of random weights; shape None for
        the parent's or the small size.
    parent : a member of the lower level of theory; "scratch" needs none, and "distil" begins with
        random weights where there is none, as it was published.
    teachers : members of the upper level, fitted to the same labels; "distil" asks for them.
    freeze : patterns of the weights that "freeze" keeps, see ``Transfer``.
    metadata, on_epoch, should_stop, checkpoint, checkpoint_s, lay_down_at : see ``train_member``.
        "delta" is two fits, one after the other, with a checkpoint each: the first has
        ``.difference`` appended to its name, and is removed when the second has ended.

    Raises
    ------
    TrainingError
        What the mode needs is missing or of another level of theory, or a fit failed.
    ModelError
        Unknown architecture, or the parent does not know an element of the frames.

    """
    if mode not in MODES:
        raise TrainingError(f"mode is {mode!r}, want one of {', '.join(MODES)}")
    if level_of_theory == lower_level:
        raise TrainingError(f"both levels of theory are {lower_level}: there is nothing to climb")
    fits = _Fits(
        settings,
        level_of_theory,
        seed,
        kind,
        shape,
        dict(metadata or {}),
        on_epoch,
        should_stop,
        checkpoint,
        checkpoint_s,
        lay_down_at,
    )
    if mode == "scratch":
        return fits.fit("scratch", upper)
    if mode == "distil" and parent is None:
        return fits.distil(upper, None, teachers)
    start = _parent(mode, parent, lower_level, kind)
    if mode == "finetune":
        return fits.fit("finetune", upper, start)
    if mode == "freeze":
        return fits.fit("freeze", upper, start, Transfer(tuple(freeze)))
    if mode == "distil":
        return fits.distil(upper, start, teachers)
    if lower is None:
        raise TrainingError(f"mode {mode!r} needs labels of {lower_level}, got none")
    if mode == "joint":
        return fits.join(upper, lower, start)
    return fits.correct(upper, lower, start)


@dataclass(frozen=True, slots=True, eq=False)
class _Fits:
    """The fits of one member: what they have in common."""

    settings: TrainSettings
    level_of_theory: str
    seed: int
    kind: str
    shape: Mapping[str, Any] | None
    metadata: Mapping[str, Any]
    on_epoch: Callable[[Epoch], None] | None
    should_stop: Callable[[], bool] | None
    checkpoint: Path | None
    checkpoint_s: float
    lay_down_at: float | None

    def fit(
        self,
        rate: str,
        data: TrainingSet,
        start: Member | None = None,
        transfer: Transfer | None = None,
        repeats: Sequence[int] | None = None,
    ) -> tuple[Member, TrainReport]:
        """Fit a member to labels of one level of theory."""
        return train_member(
            data,
            self.slower(rate, energies_only=start is not None and not data.has_forces.any()),
            level_of_theory=self.level_of_theory,
            seed=self.seed,
            kind=self.kind,
            shape=self.shape,
            start=start,
            transfer=None if start is None else transfer or Transfer(),
            repeats=repeats,
            metadata=self.metadata,
            on_epoch=self.on_epoch,
            should_stop=self.should_stop,
            checkpoint=self.checkpoint,
            checkpoint_s=self.checkpoint_s,
            lay_down_at=self.lay_down_at,
        )

    def slower(self, rate: str, *, energies_only: bool = False) -> TrainSettings:
        """Return the settings with the learning rate of a kind of fit."""
        factor = RATES[rate] * (ENERGY_RATE if energies_only else 1.0)
        return replace(self.settings, learning_rate=factor * self.settings.learning_rate)

    def distil(
        self, upper: TrainingSet, start: Member | None, teachers: Sequence[Member]
    ) -> tuple[Member, TrainReport]:
        """Learn energies, and the mean forces of teachers (arXiv:2503.14293).

        Only on frames with labels: what teachers say of others was measured to be no help.
        """
        others = sorted({t.level_of_theory for t in teachers} - {self.level_of_theory})
        if not teachers or others:
            raise TrainingError(
                f"mode 'distil' needs teachers of {self.level_of_theory}, got {len(teachers)}"
                + (f", some of {', '.join(others)}" if others else "")
            )
        _, forces = predicted(teachers, upper.frames)
        rate = "scratch" if start is None else "distil"
        return self.fit(rate, completed(upper, forces), start)

    def join(
        self, upper: TrainingSet, lower: TrainingSet, start: Member
    ) -> tuple[Member, TrainReport]:
        """Fit both levels of theory together, each with a head, from the parent's weights."""
        below = for_training(lower, _trained(upper))
        if below is None:
            raise TrainingError(
                f"no frame of {start.level_of_theory} has the elements of the upper"
            )
        members, report = train_joint(
            [(start.level_of_theory, below), (self.level_of_theory, upper)],
            self.slower("joint"),
            seed=self.seed,
            start=start,
            metadata=self.metadata,
            on_epoch=self.on_epoch,
            should_stop=self.should_stop,
            checkpoint=self.checkpoint,
            checkpoint_s=self.checkpoint_s,
            lay_down_at=self.lay_down_at,
        )
        return members[1], report

    def correct(
        self, upper: TrainingSet, lower: TrainingSet, start: Member
    ) -> tuple[Member, TrainReport]:
        """Learn the difference of the two levels, then fit the parent to lower + difference."""
        first = self.checkpoint and self.checkpoint.with_name(self.checkpoint.name + ".difference")
        fits = replace(
            self,
            level_of_theory=f"{self.level_of_theory} - {start.level_of_theory}",
            seed=seeds.integer(self.seed, "difference"),
            checkpoint=first,
        )
        labels = differences(upper, lower)
        body = with_new_head(start, labels, fits.level_of_theory, seeds.integer(fits.seed, "head"))
        difference, report = fits.fit("difference", labels, body)
        if report.stopped_by == "deadline":
            # There is no time for the second fit: one step of it, and none of it is kept.
            late = replace(self, should_stop=_at_once, checkpoint=None)
            return late._lift(upper, lower, start, difference, _trained(labels))
        fitted = self._lift(upper, lower, start, difference, _trained(labels))
        if first is not None and fitted[1].stopped_by != "deadline":
            first.unlink(missing_ok=True)
        return fitted

    def _lift(
        self,
        upper: TrainingSet,
        lower: TrainingSet,
        start: Member,
        difference: Member,
        elements: Sequence[int],
    ) -> tuple[Member, TrainReport]:
        """Fit the parent to the true labels and to lower + difference where there are none."""
        below = lower_forces(upper, lower)
        _, added = predicted([difference], upper.frames)
        data = completed(upper, [a + b for a, b in zip(below, added, strict=True)])
        more = for_training(lower, elements, upper)
        if more is None:
            return self.fit("delta", data, start)
        n_true = int((~upper.is_validation).sum())
        often = max(1, round(TRUE_SHARE * len(more.frames) / n_true))
        repeats = [often] * len(data.frames) + [1] * len(more.frames)
        return self.fit("delta", joined(data, lifted(more, difference)), start, repeats=repeats)


def _parent(mode: Mode, parent: Member | None, lower_level: str, kind: str) -> Member:
    if parent is None:
        raise TrainingError(f"mode {mode!r} needs a parent trained on {lower_level}, got none")
    if parent.level_of_theory != lower_level:
        raise TrainingError(
            f"the parent was trained on {parent.level_of_theory}, the lower level of theory is"
            f" {lower_level}: want a member of that"
        )
    if parent.architecture != kind:
        raise TrainingError(f"the parent is of kind {parent.architecture!r}, want {kind!r}")
    return parent


def _trained(data: TrainingSet) -> tuple[int, ...]:
    """Return the elements of the training frames."""
    return data.subset(~data.is_validation).elements


def _at_once() -> bool:
    return True
