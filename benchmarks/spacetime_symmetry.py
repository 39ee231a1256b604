"""The symmetry table of a 4D model: what it makes of held-out motion, transformed.

    alloop spacetime sample ... -o ethanol.h5
    python benchmarks/spacetime_symmetry.py --shards ethanol.h5 [--members 4] [--steps 1000]

Two models learn from the same trajectories with the same settings: one from the trajectories as
they are, one also from those reversed in time, mirrored and with like atoms exchanged, as far as
every centre keeps its handedness. Of both it is shown what they make of starts as they are labelled
and, of the second, with starts of other isomers brought home first, which is what ``predict`` does.
Errors are those of the ensemble's mean at the cutoff on segments of test trajectories: bonds (Å),
angles and dihedrals (rad), root mean square per coordinate, mean over coordinates; and positions in
space without superposition (Å, root mean square over atoms).

Beside them the published network of ethanol with the same cutoff of 10 fs (Ge et al. 2023,
doi:10.1021/acs.jpclett.3c01592), measured by us on trajectories of our own: one network, Z-matrix
of its own, all errors at 10 fs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from alloop.spacetime.isomers import Isomers
from alloop.spacetime.judging.symmetry_errors import find_transformations, transformed_errors
from alloop.spacetime.learning.fit import fit
from alloop.spacetime.learning.settings import FitSettings
from alloop.spacetime.learning.sources import Shares, gather, list_sources
from alloop.spacetime.model import SpacetimeModel

PUBLISHED = {
    "as is": ".0070 / .0132 / .0153",
    "rotated": ".0072 / .0129 / .0147",
    "reversed in time": ".0073 / .0129 / .0148",
    "mirrored": "1.16 / .77 / 1.6",
    "C1H2: two exchanged": "1.24 / .81 / 1.16",
    "C0H3: cycle": ".0058 / .0094 / .0102",
}
ETHANOL = (6, 6, 8, 1, 1, 1, 1, 1, 1)


def main() -> None:
    """Fit twice and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", nargs="+", type=Path, required=True)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = gather(list_sources(options.shards), shares=Shares(0.1, 0.2, options.seed))
    test = data.members("test")
    errors = []
    for augment in (False, True):
        spent = time.process_time()
        settings = FitSettings(members=options.members, steps=options.steps, augment=augment)
        model = fit(data, settings, options.seed).model
        print(f"fit, augment={augment}: {time.process_time() - spent:.0f} CPU s")
        found = find_transformations(model, data.frames(test, 100), options.seed)
        seen = [_as_labelled(model), model] if augment else [_as_labelled(model)]
        errors += [transformed_errors(one, data, test, found) for one in seen]
    known = PUBLISHED if tuple(data.numbers.tolist()) == ETHANOL else {}
    print(
        "\n| starts | bond / angle / dihedral | position | augmented | position"
        " | augmented, brought home | position | published |\n|---|---|---|---|---|---|---|---|"
    )
    for name in errors[0]:
        cells = [text for one in errors for text in _cells(one[name])]
        print(f"| {name} | {' | '.join(cells)} | {known.get(name, '')} |")


def _as_labelled(model: SpacetimeModel) -> SpacetimeModel:
    """Return the model without the way home."""
    isomers = model.isomers
    return replace(model, isomers=Isomers(isomers.operations[:1], isomers.hands[:1]))


def _cells(scores: Mapping[str, float]) -> tuple[str, str]:
    kinds = [f"{value:.4f}" for name, value in scores.items() if name != "position"]
    return " / ".join(kinds), f"{scores['position']:.4f}"


if __name__ == "__main__":
    main()
