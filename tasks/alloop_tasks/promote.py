"""Choose frames of the tier below whose labels in a higher tier are worth their price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alloop import seeds
from alloop.acquisition.cost import Attempt, CostModel, Price, fit_cost
from alloop.acquisition.promotion import Pick, Promotion, choose, draw_audit
from alloop.acquisition.tier_pool import TierPool, pool_frames
from alloop.datasets import Dataset, joined, load_dataset
from alloop.frames import Frame
from alloop.potentials.committee import Committee, load_committee
from alloop_tasks.predictions import predict
from alloop_tasks.workspace import Workspace, without_nan

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_AUDIT = 2
"""Audit frames of a round: with one alone no interval is known."""


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Promote frames: most by policy, those of validation and audit at random.

    Returns ``decisions`` (each with what the tier's own committee predicts, if there is one) and
    ``promotion``, a row of that table.
    """
    data = _Data.read(spec, workspace)
    cost = fit_cost([Attempt(*row) for row in _sound(spec["attempts"])], spec["level"])
    drawn = _drawn(spec, data)
    chosen = _by_policy(spec, workspace, data, cost, [key for _, key in drawn])
    rules = [*((rule, key, {}) for rule, key in drawn), *_picked(spec, chosen)]
    keys = [key for _, key, _ in rules]
    frames = [data.frames[key] for key in keys]
    predictions = _predictions(spec, workspace, frames, [data.systems[key] for key in keys])
    decisions = [
        {"frame_key": key, "rule": rule, "numbers": numbers, "prediction": prediction}
        for (rule, key, numbers), prediction in zip(rules, predictions, strict=True)
    ]
    promotion = _row(spec, data, cost, chosen, frames)
    result: dict[str, Any] = without_nan({"decisions": decisions, "promotion": promotion})
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """What is labelled below and in the tier: by key its frame, system, split and difference."""

    frames: dict[str, Frame]
    systems: dict[str, str]
    splits: dict[str, str]
    lower: dict[str, float]
    upper: dict[str, float]
    asked: frozenset[str]

    @classmethod
    def read(cls, spec: dict[str, Any], workspace: Workspace) -> _Data:
        lower = _both(workspace, spec["lower"], spec["lower_held_out"])
        keys = [frame.key for frame in lower.frames]
        upper: dict[str, float] = {}
        if spec["upper"] is not None:
            known = load_dataset(workspace.input(spec["upper"], ".npz"))
            upper = _by_key([frame.key for frame in known.frames], known.energies)
        return cls(
            dict(zip(keys, lower.frames, strict=True)),
            dict(zip(keys, lower.systems, strict=True)),
            dict(zip(keys, lower.splits, strict=True)),
            _by_key(keys, lower.energies),
            upper,
            frozenset(spec["asked"]),
        )

    def candidates(self, split: str) -> list[str]:
        """Return the keys of a split that nobody has asked for."""
        return [k for k, own in self.splits.items() if own == split and k not in self.asked]


def _both(workspace: Workspace, data: str, held_out: str | None) -> Dataset:
    known = load_dataset(workspace.input(data, ".npz"))
    if held_out is None:
        return known
    return joined(known, load_dataset(workspace.input(held_out, ".npz")))


def _by_key(keys: Sequence[str], energies: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(keys, energies.tolist(), strict=True))


def _sound(attempts: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return the attempts that took any time: a lost worker leaves 0 s."""
    return [row for row in attempts if row[2] > 0.0]


def _drawn(spec: dict[str, Any], data: _Data) -> list[tuple[str, str]]:
    """Return the rule and key of frames that are drawn at random, which measure and validate."""
    shares = {
        "audit": max(LEAST_AUDIT, round(spec["audit_fraction"] * spec["labels"])),
        "validation": max(1, round(spec["validation_fraction"] * spec["labels"])),
    }
    return [
        (split, key)
        for split, count in shares.items()
        for key in draw_audit(
            data.candidates(split),
            min(count, spec["labels"]),
            seeds.integer(spec["seed"], split),
        )
    ]


def _by_policy(
    spec: dict[str, Any],
    workspace: Workspace,
    data: _Data,
    cost: CostModel,
    drawn: Sequence[str],
) -> Promotion | None:
    """Return the choice among training frames; None if nothing is left for it."""
    count, left = spec["labels"] - len(drawn), spec["core_seconds"]
    spent = [_price(cost, data.frames[key]) for key in drawn]
    if left is not None:
        left -= math.fsum(price.seconds for price in spent if price is not None)
    if count < 1 or (left is not None and not left > 0.0) or not data.candidates("train"):
        return None
    return choose(
        _pools(spec, workspace, data, cost),
        count,
        seed=spec["seed"],
        policy="random" if spec["policy"] == "random" else "value",
        # Relative prices are no seconds.
        budget_s=left if cost.n_attempts else None,
    )


def _pools(
    spec: dict[str, Any], workspace: Workspace, data: _Data, cost: CostModel
) -> list[TierPool]:
    upper = _committee(workspace, spec["committee"])
    below = _committee(workspace, spec["below"]) if upper is not None else None
    training = [key for key, split in data.splits.items() if split == "train"]
    free = set(data.candidates("train"))
    pools = []
    for name in sorted({data.systems[key] for key in training}):
        keys = [key for key in training if data.systems[key] == name]
        frames = [data.frames[key] for key in keys]
        known = np.array([key in data.upper for key in keys])
        differences = [data.upper.get(key, math.nan) - data.lower[key] for key in keys]
        price = _price(cost, frames[0])
        relative = cost.relative(frames[0].n_atoms)
        pools.append(
            pool_frames(
                name,
                frames,
                np.full(len(keys), relative if price is None else price.seconds),
                lower=below,
                upper=upper,
                differences=np.array(differences),
                candidate=np.array([key in free for key in keys]),
                known=known,
                representative=np.ones(len(keys), dtype=bool),
                forces=spec["gives_forces"],
            )
        )
    return pools


def _committee(workspace: Workspace, members: Sequence[str] | None) -> Committee | None:
    if members is None:
        return None
    return load_committee([workspace.input(sha256, ".pt") for sha256 in members])


def _price(cost: CostModel, frame: Frame) -> Price | None:
    return cost.predict(frame.n_atoms)


def _picked(
    spec: dict[str, Any], chosen: Promotion | None
) -> list[tuple[str, str, dict[str, Any]]]:
    picks: tuple[Pick, ...] = () if chosen is None else chosen.picks
    return [(spec["policy"], pick.key, pick.numbers) for pick in picks]


def _predictions(
    spec: dict[str, Any], workspace: Workspace, frames: Sequence[Frame], systems: Sequence[str]
) -> list[dict[str, Any] | None]:
    """Return what the tier's own committee says of the frames before their labels are made."""
    committee = _committee(workspace, spec["committee"])
    if committee is None:
        return [None] * len(frames)
    said: list[dict[str, Any] | None] = [None] * len(frames)
    for name in set(systems):
        places = [i for i, system in enumerate(systems) if system == name]
        answers = predict(committee, [frames[i] for i in places], spec["calibration"])
        for place, answer in zip(places, answers, strict=True):
            said[place] = answer
    return said


_ELSEWHERE = ("picks", "policy", "seconds")
"""Of a choice, what has rows and columns of its own."""


def _row(
    spec: dict[str, Any],
    data: _Data,
    cost: CostModel,
    chosen: Promotion | None,
    frames: Sequence[Frame],
) -> dict[str, Any]:
    prices = [_price(cost, frame) for frame in frames]
    known = [price for price in prices if price is not None]
    whole = len(known) == len(prices) > 0
    numbers: dict[str, Any] = {
        "cost_exponent": cost.exponent,
        "attempts_per_label": cost.attempts_per_label,
    }
    if chosen is not None:
        about = asdict(chosen)
        numbers |= {key: about[key] for key in about if key not in _ELSEWHERE}
    return {
        "policy": spec["policy"],
        "n_candidates": sum(key not in data.asked for key in data.frames),
        "n_promoted": len(frames),
        "seconds": math.fsum(p.seconds for p in known) if whole else None,
        # Labels of one level are dear or cheap together: their ends add up.
        "seconds_low": math.fsum(p.low for p in known) if whole else None,
        "seconds_high": math.fsum(p.high for p in known) if whole else None,
        "expected_ratio": None if chosen is None else chosen.rmse_ratio,
        "numbers": numbers,
    }
