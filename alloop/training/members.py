"""The members of a committee, fitted one after another into a folder; can be stopped anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alloop import seeds
from alloop.checkpoint import identity
from alloop.datasets import Dataset
from alloop.errors import TrainingError
from alloop.potentials.files import load_member, save_member
from alloop.potentials.member import Member
from alloop.training.data import TrainingSet
from alloop.training.settings import Epoch, TrainSettings
from alloop.training.trainer import train_member
from alloop.training.transfer import Transfer

CHECKPOINT_S = 20.0
"""Seconds between checkpoints: what a fit that is stopped may lose."""


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How the members of a committee are fitted.

    Attributes
    ----------
    kind, size : architecture and its named size; those of ``start`` where there is one.
    n_members : how many, each with its own seed.
    settings : of each fit.
    seed : of all of them.
    start : members whose weights are the first ones, taken in turn; empty for random weights.
    freeze : patterns of the weights of ``start`` that stay as they are, see ``Transfer``.

    """

    kind: str
    size: str
    n_members: int
    settings: TrainSettings
    seed: int
    start: tuple[Member, ...] = ()
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.n_members < 1:
            raise TrainingError(f"a committee of {self.n_members} members, want at least one")
        if self.freeze and not self.start:
            raise TrainingError("nothing can be frozen: the members start from random weights")

    def first(self, member: int) -> Member | None:
        """Return the member that a member starts from."""
        return self.start[member % len(self.start)] if self.start else None

    def transfer(self, level_of_theory: str) -> Transfer | None:
        """Return what is kept of ``start``, or None if it is merely trained on."""
        same = all(member.level_of_theory == level_of_theory for member in self.start)
        return None if same and not self.freeze else Transfer(self.freeze)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a series of fits is; ``note`` says what happened, ``epoch`` is None where a fit is
    not under way.
    """

    member: int
    epoch: Epoch | None = None
    note: str = ""


def member_file(folder: Path, member: int) -> Path:
    """Return where a member of a committee is kept."""
    return folder / f"member-{member:02d}.pt"


def fit_members(
    data: Dataset, recipe: Recipe, folder: Path, tell: Callable[[Progress], None]
) -> list[Path]:
    """Fit all members that are not there yet; return their files.

    ``data`` has its splits: "audit" frames are not looked at. A member that is stopped leaves a
    checkpoint, and goes on from it when this is called again.

    Raises
    ------
    TrainingError
        A file of another training is in the way, or a fit fails.

    """
    known = data.subset(np.array(data.splits) != "audit")
    training = TrainingSet(
        known.frames, known.energies, known.forces, np.array(known.splits) == "validation"
    )
    files = [member_file(folder, member) for member in range(recipe.n_members)]
    owners = [_identity(training, data.level_of_theory, recipe, m) for m in range(len(files))]
    done = [_is_there(path, owner) for path, owner in zip(files, owners, strict=True)]
    for member, (path, owner) in enumerate(zip(files, owners, strict=True)):
        if done[member]:
            tell(Progress(member, note="is there already"))
        else:
            _fit(training, data.level_of_theory, recipe, member, path, owner, tell)
    return files


def _identity(data: TrainingSet, level_of_theory: str, recipe: Recipe, member: int) -> str:
    shape = (recipe.kind, recipe.size, recipe.settings, recipe.seed, recipe.freeze, member)
    return identity("fit_members", data, level_of_theory, shape, recipe.first(member))


def _is_there(path: Path, owner: str) -> bool:
    if not path.exists():
        return False
    if load_member(path).metadata.get("identity") != owner:
        raise TrainingError(
            f"{path} is of another training (other data, settings, seed or start): choose another"
            " folder, or remove it"
        )
    return True


def _fit(
    data: TrainingSet,
    level_of_theory: str,
    recipe: Recipe,
    member: int,
    path: Path,
    owner: str,
    tell: Callable[[Progress], None],
) -> None:
    checkpoint = path.with_suffix(".checkpoint")
    start = recipe.first(member)
    seed = seeds.integer(recipe.seed, "member", member)
    tell(Progress(member, note="begins"))
    fitted, report = train_member(
        data,
        recipe.settings,
        level_of_theory=level_of_theory,
        seed=seed,
        kind=recipe.kind if start is None else start.architecture,
        size=recipe.size,
        shape=None if start is None else start.settings,
        start=start,
        transfer=None if start is None else recipe.transfer(level_of_theory),
        metadata={"identity": owner, "seed": seed},
        on_epoch=lambda epoch: tell(Progress(member, epoch)),
        checkpoint=checkpoint,
        checkpoint_s=CHECKPOINT_S,
    )
    save_member(path, fitted)
    checkpoint.unlink(missing_ok=True)
    found = f"; {report.checkpoint}" if report.checkpoint else ""
    tell(
        Progress(
            member,
            note=f"done after {report.epochs} epochs ({report.stopped_by}), weights of epoch"
            f" {report.best_epoch}{found}",
        )
    )
