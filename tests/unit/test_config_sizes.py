"""The config names sizes without loading PyTorch; the architectures must have just these."""

from typing import get_args

import pytest

from alloop.config.learning import SIZES, Kind
from alloop.errors import ModelError
from alloop.potentials.architectures import ARCHITECTURES


def test_every_architecture_can_be_named_in_a_config():
    assert set(get_args(Kind)) == set(SIZES) == set(ARCHITECTURES)


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_sizes_are_those_of_the_architecture(kind):
    for size in SIZES[kind]:
        assert ARCHITECTURES[kind].settings(size, (1, 8))
    with pytest.raises(ModelError, match="has no size") as refusal:
        ARCHITECTURES[kind].settings("huge", (1, 8))
    assert all(repr(size) in str(refusal.value) for size in SIZES[kind])
    assert str(refusal.value).count("'") == 2 * len(SIZES[kind]) + 2
