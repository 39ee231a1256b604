"""Find a system's minimum and normal modes, and draw its first frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alloop.artifacts import save_arrays
from alloop.dynamics.initial import rattle, thermal, wigner
from alloop.dynamics.normal_modes import NormalModes, normal_modes
from alloop.errors import DynamicsError, LabelError
from alloop.frames import Frame
from alloop.reference.method import MethodSpec, build_reference
from alloop.reference.optimise import hessian, optimise
from alloop_tasks.systems import frame_of
from alloop_tasks.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run(spec: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Optimise, differentiate, sample.

    Where the modes cannot be had (the reference fails on the way, or the structure runs to no
    minimum) the frames are rattled instead, and ``sampler`` and ``numbers`` say so.
    """
    given = frame_of(spec["system"])
    arrays: dict[str, NDArray[np.float64]] = {}
    numbers: dict[str, Any] = {"temperature": spec["temperature"], "seed": str(spec["seed"])}
    minimum, modes = given, None
    if spec["modes"]:
        try:
            minimum, curvature = _minimum(spec, given, workspace)
            arrays |= {"minimum": minimum.positions, "hessian": curvature}
            modes = normal_modes(minimum, curvature)
        except (LabelError, DynamicsError) as error:
            numbers["why_rattled"] = str(error)
    rng = np.random.default_rng(spec["seed"])
    n_frames = len(spec["splits"])
    if modes is None or spec["sampler"] == "rattle":
        sampler = "rattle"
        initial = rattle(minimum, spec["amplitude"], n_frames, rng)
        numbers["amplitude"] = spec["amplitude"]
    else:
        sampler = spec["sampler"]
        draw = wigner if sampler == "wigner" else thermal
        initial, _ = draw(modes, spec["temperature"], n_frames, rng)
    arrays["initial"] = initial
    artifact = workspace.add("preparation", ".npz", lambda path: save_arrays(path, arrays))
    return {
        "artifact": artifact,
        "sampler": sampler,
        "splits": spec["splits"],
        "numbers": numbers,
    }


def load_modes(path: Path, frame: Frame) -> NormalModes:
    """Return the normal modes of a preparation.

    Raises DynamicsError if it has none.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if "hessian" not in arrays:
            raise DynamicsError(
                "the normal modes of this system could not be found, and a route starts from"
                " them: let it start from frames, or give a structure nearer to a minimum"
            )
        minimum, curvature = arrays["minimum"], arrays["hessian"]
    return normal_modes(replace(frame, positions=minimum), curvature)


def _minimum(
    spec: dict[str, Any], frame: Frame, workspace: Workspace
) -> tuple[Frame, NDArray[np.float64]]:
    method = MethodSpec.from_json(spec["method"])
    reference = build_reference(method, frame.numbers, frame.charge, frame.multiplicity)
    workspace.progress(0, 2, "optimising")
    minimum = optimise(reference, frame)
    workspace.progress(1, 2, "normal modes")
    return minimum, hessian(reference, minimum)
