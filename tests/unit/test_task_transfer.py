"""One member of a higher tier, fitted in every mode, and interrupted on the way."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from alloop.potentials.member import Member
from alloop.training.settings import TrainSettings
from alloop.training.tiers import MODES
from alloop_tasks import transfer
from tests.tier_tasks import ABOVE, BELOW, Bench, chosen, energies_only, labelled, member

QUICK = {
    **asdict(TrainSettings()),
    **{"epochs": 6, "max_steps": 60, "learning_rate": 2e-3, "batch_size": 8, "resample": "none"},
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def spec(bench: Bench, mode: str, *, forces: bool = True, **changes: Any) -> dict[str, Any]:
    upper = chosen(labelled("water", ABOVE, 48), "train", "validation", first=8)
    lower = chosen(labelled("water", BELOW, 48), "train", "validation")
    (parent,) = bench.members([member(BELOW, 0)])
    return {
        "mode": mode,
        "member": "ani/0",
        "freeze": ["auto"],
        "settings": QUICK,
        "level": ABOVE,
        "lower_level": BELOW,
        "snapshot": "5" * 64,
        "data": bench.data(upper if forces else energies_only(upper)),
        "lower": bench.data(lower),
        "parent": parent,
        "teachers": bench.members([member(ABOVE, 1)]) if mode == "distil" else [],
        "seed": 3,
    } | changes


def differs(one: Member, other: Member) -> dict[str, bool]:
    """Return whether each weight differs between two members."""
    return {name: not torch.equal(one.weights[name], other.weights[name]) for name in one.weights}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forces", [True, False])
def test_every_mode_gives_one_ordinary_member_of_the_upper_level(bench, mode, forces):
    result = transfer.run(spec(bench, mode, forces=forces), bench.workspace)

    made = bench.made(result)
    assert made.level_of_theory == ABOVE
    assert (made.metadata["mode"], made.metadata["member"]) == (mode, "ani/0")
    assert made.settings == member(BELOW, 0).settings, "the shape is that of the tier below"
    assert set(result["atom_energies"]) == {"1", "8"}
    assert result["metrics"]["steps"] > 0
    assert any(differs(made, member(BELOW, 0)).values())


def test_frozen_weights_are_those_of_the_parent(bench):
    made = bench.made(transfer.run(spec(bench, "freeze"), bench.workspace))
    tuned = bench.made(transfer.run(spec(bench, "finetune"), bench.workspace))

    assert not all(differs(made, member(BELOW, 0)).values())
    assert all(differs(tuned, member(BELOW, 0)).values())
    chosen_by_hand = spec(bench, "freeze", freeze=["^H"])
    own = differs(bench.made(transfer.run(chosen_by_hand, bench.workspace)), member(BELOW, 0))
    assert not any(changed for name, changed in own.items() if name.startswith("H"))
    assert all(changed for name, changed in own.items() if not name.startswith("H"))


def test_the_same_spec_gives_the_same_file(tmp_path):
    first, again = (
        transfer.run(spec(Bench(tmp_path / name), "joint"), Bench(tmp_path / name).workspace)
        for name in "ab"
    )

    assert first["artifact"] == again["artifact"]


class Interruption(BaseException):
    """What no ``except Exception`` sees, as a signal that ends the process."""


def count_epochs(bench: Bench, monkeypatch: pytest.MonkeyPatch, stop: int | None) -> list[int]:
    """Note each epoch that a fit tells of; interrupt after so many."""
    seen: list[int] = []

    def progress(_: Any, done: int, total: int, text: str = "") -> None:
        seen.append(done)
        if len(seen) == stop:
            raise Interruption

    monkeypatch.setattr(type(bench.workspace), "progress", progress)
    return seen


@pytest.mark.parametrize(
    ("mode", "stop"),
    [(mode, 3) for mode in MODES] + [("delta", 5)],
    ids=[*MODES, "delta in its second fit"],
)
def test_an_interrupted_fit_goes_on_from_its_checkpoint_to_the_same_model(
    tmp_path, monkeypatch, mode, stop
):
    monkeypatch.setattr(transfer, "learn", functools.partial(transfer.learn, checkpoint_s=0.0))
    whole, cut = Bench(tmp_path / "whole"), Bench(tmp_path / "cut")
    epochs = count_epochs(whole, monkeypatch, None)
    undisturbed = transfer.run(spec(whole, mode), whole.workspace)
    n_epochs = len(epochs)
    assert n_epochs > stop

    count_epochs(cut, monkeypatch, stop)
    with pytest.raises(Interruption):
        transfer.run(spec(cut, mode), cut.workspace)
    rest = count_epochs(cut, monkeypatch, None)
    resumed = transfer.run(spec(cut, mode), cut.workspace)

    assert resumed["artifact"] == undisturbed["artifact"]
    assert 0 < len(rest) <= n_epochs - stop + 1
