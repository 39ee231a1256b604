"""4D models as files: plain data, loaded without running anything that is in them."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from alloop.errors import ModelError, SpacetimeError
from alloop.spacetime import features
from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.choice import digest, restore
from alloop.spacetime.isomers import Isomers
from alloop.spacetime.model import SpacetimeModel
from alloop.spacetime.symmetry import Operation

FORMAT = "alloop 4D-spacetime model"
VERSION = 2


def save_model(model: SpacetimeModel, path: Path) -> None:
    """Write a model to a file."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "numbers": list(model.numbers),
        "masses": model.masses,
        "coordinates": dict(model.internal.definition()),
        "coordinates_sha256": digest(model.internal, model.numbers),
        "isomers": {
            "permutations": [list(one.permutation) for one in model.isomers.operations],
            "mirrors": [one.mirror for one in model.isomers.operations],
            "hands": model.isomers.hands,
        },
        "cutoff": model.basis.cutoff,
        "mixing": model.basis.mixing,
        "feature_mean": model.feature_mean,
        "feature_scale": model.feature_scale,
        "polynomial": model.polynomial,
        "coefficient_scale": model.coefficient_scale,
        "weights": list(model.weights),
        "biases": list(model.biases),
        "metadata": dict(model.metadata),
    }
    # Through memory: torch writes the name of the file it saves to into the file.
    stream = io.BytesIO()
    torch.save(content, stream)
    path.write_bytes(stream.getvalue())


def load_model(path: Path) -> SpacetimeModel:
    """Read a model from a file.

    Raises
    ------
    ModelError
        The file is missing, damaged, something else, or of a version unknown here.

    """
    try:
        with warnings.catch_warnings():
            # A pickle of another protocol is no file of ours: refused just below, without a word.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as a 4D model: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path} is not a 4D model; 'format' must be {FORMAT!r}")
    if content.get("version") != VERSION:
        raise ModelError(
            f"{path} is a 4D model of version {content.get('version')}, this alloop reads {VERSION}"
        )
    try:
        model = _model(content)
        _check(model, content["coordinates_sha256"])
    except _SIGNS_OF_DAMAGE as error:
        raise ModelError(f"{path} is damaged: {error}; fit the model again") from error
    return model


class _DamagedError(Exception):
    """Some part of a model does not fit the others."""


_SIGNS_OF_DAMAGE = (
    LookupError, TypeError, ValueError, AttributeError, SpacetimeError, _DamagedError
)  # fmt: skip


def _model(content: dict[str, Any]) -> SpacetimeModel:
    return SpacetimeModel(
        numbers=tuple(content["numbers"]),
        masses=content["masses"],
        internal=restore(content["coordinates"]),
        isomers=_isomers(content["isomers"]),
        basis=TimeBasis(content["cutoff"], content["mixing"]),
        feature_mean=content["feature_mean"],
        feature_scale=content["feature_scale"],
        polynomial=content["polynomial"],
        coefficient_scale=content["coefficient_scale"],
        weights=tuple(content["weights"]),
        biases=tuple(content["biases"]),
        metadata=content["metadata"],
    )


def _isomers(content: dict[str, Any]) -> Isomers:
    pairs = zip(content["permutations"], content["mirrors"], strict=True)
    operations = tuple(Operation(tuple(image), bool(mirror)) for image, mirror in pairs)
    return Isomers(operations, content["hands"])


def _check(model: SpacetimeModel, sha256: object) -> None:
    internal, size = model.internal, model.basis.size
    n_features, n_outputs = features.n_first_order(internal), internal.n_coordinates * size
    widths = [n_features, *(weight.shape[-1] for weight in model.weights)]
    wanted = {
        "masses": (internal.n_atoms,),
        "feature_mean": (n_features,),
        "feature_scale": (n_features,),
        "polynomial": (features.n_polynomial(internal), n_outputs),
        "coefficient_scale": (internal.n_coordinates, size),
    }
    shapes = {name: tuple(getattr(model, name).shape) for name in wanted}
    n_centres = internal.handedness(torch.zeros(internal.n_coordinates)).shape[-1]
    wanted["isomers"] = (internal.n_atoms, n_centres)
    shapes["isomers"] = (model.isomers.n_atoms, model.isomers.hands.shape[1])
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        wanted[f"weights[{i}]"] = (model.n_members, widths[i], widths[i + 1])
        wanted[f"biases[{i}]"] = (model.n_members, 1, widths[i + 1])
        shapes[f"weights[{i}]"], shapes[f"biases[{i}]"] = tuple(weight.shape), tuple(bias.shape)
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise _DamagedError(f"{name} has shape {shapes[name]}, want {shape}")
    if widths[-1] != n_outputs:
        raise _DamagedError(f"the networks give {widths[-1]} numbers, want {n_outputs}")
    if sha256 != digest(model.internal, model.numbers):
        raise _DamagedError("its coordinates are not those it was saved with")
