"""Propagation under the rule ``select``: the best network of each segment, and a way back.

After GICnet (doi:10.1021/acs.jpclett.3c01592, SI, "Propagation"): all networks are ranked by
|E(t) - E(0)|, E(0) being the energy of the start of the trajectory. Where the best one is above the
threshold, the previous segment is taken back and given to its next-ranked network, then the one
before; where none is left the threshold is doubled until the farthest failed time is passed. Each
replica goes its own way, but networks and energies are evaluated for all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from alloop.spacetime.coordinates.protocol import Dual
from alloop.spacetime.motion.orientation import Forecast, forecast
from alloop.spacetime.propagation.courses import DYNAMICS, Block, Log, find_faults
from alloop.spacetime.propagation.energy_rules import PropagationSettings, check_times, total_energy
from alloop.spacetime.propagation.rescue import Dynamics, run_dynamics
from alloop.spacetime.propagation.venture import Venture


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A segment of one replica and the networks that may make it.

    Attributes
    ----------
    segment : its number.
    source : where its frames come from, and ``row``, which of those in there.
    ends : positions and velocities (n_members, n_atoms, 3).
    errors : largest |change of energy| of each network, eV.
    order : networks, best first; ``rank`` is the place of the chosen one.

    """

    segment: int
    source: Forecast | Dynamics
    row: int
    ends: Dual
    errors: tuple[float, ...]
    order: tuple[int, ...]
    rank: int = 0

    @property
    def member(self) -> int:
        """The chosen network, or ``DYNAMICS``."""
        return self.order[self.rank]

    @property
    def error(self) -> float:
        """Its error, eV."""
        return self.errors[self.rank]

    def next(self) -> Choice | None:
        """Return the choice of the next-ranked network, or None after the last."""
        following = self.rank + 1
        return replace(self, rank=following) if following < len(self.order) else None

    def end(self) -> Dual:
        """Return positions and velocities (n_atoms, 3) at the end."""
        place = max(self.member, 0)
        return self.ends[0][place], self.ends[1][place]


@dataclass(frozen=True, slots=True, eq=False)
class Dilemma:
    """The farthest place where no network would do: the state there, and how it was reached."""

    start: Dual
    buffer: tuple[Choice, ...]
    choice: Choice


@dataclass(slots=True, eq=False)
class Track:
    """Where a replica is, and the segments that it can still take back."""

    settings: PropagationSettings
    log: Log
    state: Dual
    threshold: float
    segment: int = 0
    buffer: list[Choice] = field(default_factory=list)
    dilemma: Dilemma | None = None
    farthest: int = -1
    tries: int = 0
    stranded: bool = False

    def offer(self, choice: Choice) -> None:
        """Take a segment if its best network meets the threshold, else go back."""
        if choice.error <= self.threshold:
            self._accept(choice)
        else:
            self._give_way(choice)

    def rescue(self, choice: Choice) -> list[Choice]:
        """Go on from a segment of ordinary dynamics; return what can be taken back no more."""
        settled, self.buffer = [*self.buffer, choice], []
        self.segment, self.state = choice.segment + 1, choice.end()
        self._recover()
        self.stranded = False
        return settled

    def settle(self, *, everything: bool = False) -> list[Choice]:
        """Return, and forget, the segments that are not to be taken back any more."""
        n = len(self.buffer) - (0 if everything else self.settings.buffer)
        settled = self.buffer[: max(n, 0)]
        del self.buffer[: max(n, 0)]
        return settled

    def _accept(self, choice: Choice) -> None:
        self.buffer.append(choice)
        self.segment, self.state = choice.segment + 1, choice.end()
        if self.segment > self.farthest:
            self._recover()

    def _recover(self) -> None:
        self.threshold, self.dilemma, self.tries = self.settings.threshold, None, 0

    def _give_way(self, choice: Choice) -> None:
        """Go back to a segment with another good network; failing that, double the threshold."""
        if self.dilemma is None or self.segment > self.farthest:
            self.farthest, self.tries = self.segment, 0
            self.dilemma = Dilemma(self.state, tuple(self.buffer), choice)
        while not self._take_back():
            stuck = self.dilemma
            self.state, self.buffer = stuck.start, list(stuck.buffer)
            self.segment, self.tries = stuck.choice.segment, 0
            if not 2.0 * self.threshold <= self.settings.largest_threshold:
                self.stranded = True
                return
            self.threshold *= 2.0
            self.log.doublings += 1
            if stuck.choice.error <= self.threshold:
                self._accept(stuck.choice)
                return

    def _take_back(self) -> bool:
        """Give the latest segment possible to its next network; tell whether there was one."""
        if self.tries >= self.settings.largest_rollbacks:
            return False
        self.tries += 1
        while self.buffer:
            self.log.rollbacks += 1
            other = self.buffer.pop().next()
            if other is not None and other.error <= self.threshold:
                self._accept(other)
                return True
        return False


def follow_each(venture: Venture) -> Iterator[Block]:
    """Yield what replicas do, each at its own pace."""
    x, v = venture.start
    tracks = {
        replica: Track(venture.settings, log, (x[replica], v[replica]), venture.settings.threshold)
        for replica, log in enumerate(venture.logs)
    }
    checks = check_times(venture.length, venture.settings.checks_inside)
    while tracks and not venture.expired(list(tracks)):
        states = [track.state for track in tracks.values()]
        start = torch.stack([s[0] for s in states]), torch.stack([s[1] for s in states])
        choices = _evaluate(venture, start, list(tracks.items()), checks)
        settled: list[tuple[int, Choice]] = []
        for (replica, track), choice in zip(tracks.items(), choices, strict=True):
            track.offer(choice)
            settled += [(replica, done) for done in track.settle()]
        settled += _rescue(venture, tracks)
        for replica, track in list(tracks.items()):
            if track.segment >= venture.schedule.n_segments or track.log.reason is not None:
                settled += [(replica, done) for done in track.settle(everything=True)]
                del tracks[replica]
        yield from _render(venture, settled, tracks)
        behind = min((track.segment for track in tracks.values()), default=None)
        venture.report(venture.schedule.n_segments if behind is None else behind, len(tracks))
    for replica, track in tracks.items():  # time was up
        rest = [(replica, done) for done in track.settle(everything=True)]
        yield from _render(venture, rest, {})


def _evaluate(
    venture: Venture, start: Dual, tracks: list[tuple[int, Track]], checks: Tensor
) -> list[Choice]:
    """Return the next segment of each replica by all networks, ranked."""
    told = forecast(venture.model, *start, members=True, until=venture.length)
    x, v = told.at(checks)
    energies = total_energy(venture.energy_surface, venture.model.masses, x, v)
    targets = venture.targets[[replica for replica, _ in tracks]]
    errors = (energies - targets[:, None]).abs().amax(dim=-1).nan_to_num(nan=math.inf)
    ranked = errors.sort(dim=0, stable=True)
    return [
        Choice(
            track.segment,
            told,
            row,
            (x[:, row, -1], v[:, row, -1]),
            tuple(ranked.values[:, row].tolist()),
            tuple(ranked.indices[:, row].tolist()),
        )
        for row, (_, track) in enumerate(tracks)
    ]


def _rescue(venture: Venture, tracks: dict[int, Track]) -> list[tuple[int, Choice]]:
    """Run ordinary dynamics where networks cannot go on; return what is settled by that."""
    stranded = {replica: track for replica, track in tracks.items() if track.stranded}
    if stranded and not venture.settings.rescue:
        for track in stranded.values():
            track.log.reason = "energy"
    if not stranded or not venture.settings.rescue:
        return []
    states = [track.state for track in stranded.values()]
    start = torch.stack([s[0] for s in states]), torch.stack([s[1] for s in states])
    masses = venture.model.masses
    run = run_dynamics(venture.energy_surface, masses, *start, venture.length)
    errors, sound = run.errors(masses)
    settled = []
    for row, (replica, track) in enumerate(stranded.items()):
        if not sound[row]:
            track.log.reason = "energy"
            continue
        begin = track.segment * venture.length
        venture.stretches.append(run.stretch(row, replica, begin))
        ends = run.positions[row, -1:], run.velocities[row, -1:]
        choice = Choice(track.segment, run, row, ends, (float(errors[row]),), (DYNAMICS,))
        settled += [(replica, done) for done in track.rescue(choice)]
    return settled


def _render(
    venture: Venture, settled: list[tuple[int, Choice]], tracks: dict[int, Track]
) -> Iterator[Block]:
    """Yield the frames of settled segments; replicas with unsound ones leave the tracks."""
    groups: dict[tuple[int, tuple[float, ...]], list[tuple[int, Choice]]] = {}
    for replica, choice in settled:
        asked = venture.schedule.within(choice.segment)
        key = id(choice.source), tuple(torch.round(asked, decimals=9).tolist())
        groups.setdefault(key, []).append((replica, choice))
    blocks: dict[tuple[int, int], Block] = {}
    faults: dict[tuple[int, int], tuple[int, str] | None] = {}
    for (_, local), group in groups.items():
        times = torch.tensor(local, dtype=torch.float64)
        frames = _frames([choice for _, choice in group], times)
        found = find_faults(venture.model, times, *frames)
        for row, (replica, choice) in enumerate(group):
            first = venture.schedule.first(choice.segment)
            when = times + choice.segment * venture.length
            key_of = replica, choice.segment
            blocks[key_of] = Block(replica, first, when, frames[0][row], frames[1][row])
            faults[key_of] = found[row]
    for replica, choice in settled:
        block = _deliver(venture, replica, choice, blocks, faults, tracks)
        if block is not None:
            yield block


def _deliver(
    venture: Venture,
    replica: int,
    choice: Choice,
    blocks: dict[tuple[int, int], Block],
    faults: dict[tuple[int, int], tuple[int, str] | None],
    tracks: dict[int, Track],
) -> Block | None:
    """Note a segment and return its sound frames, if there are any."""
    log = venture.logs[replica]
    if log.reason in ("contact", "non-finite"):
        return None
    block, fault = blocks[replica, choice.segment], faults[replica, choice.segment]
    n_sound = len(block.times) if fault is None else fault[0]
    if fault is None:
        log.add(choice.member, choice.error)
    else:
        log.reason = fault[1]
        tracks.pop(replica, None)
    log.n_frames = block.first + n_sound
    if n_sound == 0:
        return None
    return Block(
        replica,
        block.first,
        block.times[:n_sound],
        block.positions[:n_sound],
        block.velocities[:n_sound],
    )


def _frames(choices: list[Choice], times: Tensor) -> Dual:
    """Return the motion of segments that have one source, (n, n_times, n_atoms, 3)."""
    source = choices[0].source
    rows = torch.tensor([choice.row for choice in choices])
    if isinstance(source, Forecast):
        members = torch.tensor([choice.member for choice in choices])
        return source.only(rows, members).at(times)
    positions, velocities = source.at(times)
    return positions[rows], velocities[rows]
