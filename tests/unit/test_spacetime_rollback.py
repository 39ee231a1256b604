"""The way back of the rule "select", told by errors made up for each network and segment."""

import dataclasses

import pytest
import torch

from alloop.spacetime.propagation.courses import DYNAMICS, Log
from alloop.spacetime.propagation.energy_rules import PropagationSettings
from alloop.spacetime.propagation.rollback import Choice, Track
from alloop.spacetime.propagation.schedule import Listed, Regular, Schedule

SETTINGS = PropagationSettings(
    rule="select", threshold=1.0, largest_threshold=4.0, buffer=3, largest_rollbacks=20
)


def choice(segment, errors):
    """Networks are numbered backward, so that rank and number differ."""
    ranked = sorted(enumerate(errors), key=lambda pair: pair[1])
    ends = torch.arange(len(errors)).double()[:, None, None].expand(-1, 1, 3) + 10 * segment
    return Choice(
        segment,
        None,
        0,
        (ends, -ends),
        tuple(float(error) for _, error in ranked),
        tuple(member for member, _ in ranked),
    )


def track(**changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    state = torch.zeros(1, 3), torch.zeros(1, 3)
    return Track(settings, Log(), state, settings.threshold)


def way(followed):
    return [(taken.segment, taken.member) for taken in followed.buffer]


def test_the_best_network_goes_on_and_old_segments_are_settled():
    one = track()
    for segment in range(5):
        one.offer(choice(segment, [0.9, 0.2, 0.5]))
    assert way(one) == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]
    assert one.state[0][0, 0] == 41.0
    assert one.state[1][0, 0] == -41.0
    assert [done.segment for done in one.settle()] == [0, 1]
    assert len(one.buffer) == 3
    assert [done.segment for done in one.settle(everything=True)] == [2, 3, 4]
    assert one.buffer == []


def test_the_threshold_itself_is_good_enough():
    one = track()
    one.offer(choice(0, [1.0, 2.0]))
    assert way(one) == [(0, 0)]


def test_the_segment_before_gets_its_next_network_if_that_is_good_enough():
    one = track()
    one.offer(choice(0, [0.1, 0.3, 0.2]))
    one.offer(choice(1, [0.4, 1.5, 2.0]))
    one.offer(choice(2, [9.0, 9.0, 9.0]))  # segment 1 has no other good network, segment 0 has
    assert way(one) == [(0, 2)]
    assert (one.segment, one.log.rollbacks, one.log.doublings) == (1, 2, 0)
    assert one.state[0][0, 0] == 2.0
    one.offer(choice(1, [0.4, 0.5, 2.0]))
    one.offer(choice(2, [9.0, 9.0, 9.0]))
    assert way(one) == [(0, 2), (1, 1)]
    one.offer(choice(2, [9.0, 9.0, 9.0]))
    assert way(one) == [(0, 1)]


def test_where_none_is_left_the_threshold_is_doubled_until_the_place_is_passed():
    one = track()
    one.offer(choice(0, [0.1, 5.0]))
    one.offer(choice(1, [1.5, 5.0]))
    assert way(one) == [(0, 0), (1, 0)]  # the way it came, and on
    assert (one.segment, one.log.doublings, one.threshold) == (2, 1, 1.0)
    one = track()
    one.offer(choice(0, [0.1, 5.0]))
    one.offer(choice(1, [3.0, 5.0]))
    assert (one.log.doublings, way(one)) == (2, [(0, 0), (1, 0)])
    assert one.segment == 2


def test_with_a_doubled_threshold_other_networks_come_in_and_then_it_falls_back():
    one = track()
    one.offer(choice(0, [0.1, 1.9]))
    one.offer(choice(1, [3.0, 3.5]))
    assert (one.threshold, way(one)) == (2.0, [(0, 1)])
    one.offer(choice(1, [1.2, 3.5]))
    assert one.threshold == 1.0
    assert way(one) == [(0, 1), (1, 0)]
    one.offer(choice(2, [0.5, 3.5]))
    assert way(one)[-1] == (2, 0)


def test_beyond_the_largest_threshold_it_is_stranded_where_it_failed():
    one = track()
    one.offer(choice(0, [0.1, 0.2]))
    for doublings in range(3):  # each time the other network of segment 0 is tried
        one.offer(choice(1, [5.0, 6.0]))
        assert (way(one), one.log.doublings, one.stranded) == ([(0, 1)], doublings, False)
    one.offer(choice(1, [5.0, 6.0]))
    assert one.stranded
    assert (one.segment, one.log.doublings) == (1, 2)
    assert way(one) == [(0, 0)]  # the first way there, which had the least errors
    assert one.state[0][0, 0] == 0.0
    settled = one.rescue(dataclasses.replace(choice(1, [0.0]), order=(DYNAMICS,)))
    assert [(done.segment, done.member) for done in settled] == [(0, 0), (1, DYNAMICS)]
    assert (one.segment, one.threshold, one.stranded, one.buffer) == (2, 1.0, False, [])
    one.offer(choice(2, [5.0, 6.0]))  # nothing to take back from dynamics
    assert one.stranded
    assert one.segment == 2


def test_going_back_has_an_end():
    """Every segment has many good networks, the fourth none: 3^3 ways without a limit."""
    one = track(largest_rollbacks=5)
    offered = 0
    while not one.stranded:
        offered += 1
        errors = [9.0, 9.0, 9.0] if one.segment == 3 else [0.1, 0.2, 0.3]
        one.offer(choice(one.segment, errors))
        assert offered < 200
    assert one.log.doublings == 2
    assert one.log.rollbacks <= 3 * 3 * 5


def test_not_a_number_is_never_good_enough():
    one = track()
    one.offer(choice(0, [float("inf"), float("inf")]))
    assert one.stranded


@pytest.mark.parametrize("length", [10.0, 2.5, 0.7])
@pytest.mark.parametrize("interval", [3.0, 0.05, 0.1, 10.0])
def test_every_time_lies_in_one_segment(length, interval):
    regular = Regular(60.0, interval)
    listed = Listed(regular.span(0, len(regular)))
    assert len(regular) == round(60.0 / interval) + 1
    for times in (regular, listed):
        schedule = Schedule(times, length)
        seen = [schedule.within(k) + k * length for k in range(schedule.n_segments)]
        assert (torch.cat(seen) - listed.times).abs().max() < 1e-9
        assert [schedule.first(k) for k in range(3)] == [
            0,
            len(seen[0]),
            len(seen[0]) + len(seen[1]),
        ]
        for k in range(schedule.n_segments):
            inside = schedule.within(k)
            assert ((inside >= 0) & (inside <= length)).all()
            assert k == 0 or len(inside) == 0 or inside[0] > 1e-9


def test_a_border_belongs_to_the_earlier_segment():
    schedule = Schedule(Regular(30.0, 10.0), 10.0)
    assert schedule.n_segments == 3
    assert [schedule.within(k).tolist() for k in range(3)] == [[0.0, 10.0], [10.0], [10.0]]
    assert Schedule(Listed(torch.tensor([0.0]).double()), 10.0).within(0).tolist() == [0.0]
