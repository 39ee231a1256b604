"""One tree of random seeds: same campaign seed and same place in the campaign, same numbers."""

from __future__ import annotations

import zlib

import numpy as np


def sequence(campaign_seed: int, *path: str | int) -> np.random.SeedSequence:
    """Return the seed sequence at a place of the tree, such as ``("explore", 3, "warm", 7)``."""
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else int(p) for p in path]
    return np.random.SeedSequence(campaign_seed, spawn_key=tuple(words))


def generator(campaign_seed: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator for a place of the tree."""
    return np.random.default_rng(sequence(campaign_seed, *path))


def integer(campaign_seed: int, *path: str | int) -> int:
    """Return one 63-bit seed for a place of the tree, for specs that travel as JSON."""
    return int(sequence(campaign_seed, *path).generate_state(1, np.uint64)[0] >> np.uint64(1))
