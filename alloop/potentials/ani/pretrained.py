"""The published ANI models as members.

TorchANI makes the models and keeps their weights; the files are read without running anything
from them.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from alloop.errors import ModelError
from alloop.potentials.ani.settings import AniSettings
from alloop.potentials.ani.terms import AevSettings
from alloop.potentials.member import Member
from alloop.units import EV_PER_HARTREE

if TYPE_CHECKING:
    from torchani.arch import ANI

N_MEMBERS = 8


@dataclass(frozen=True, slots=True)
class Published:
    """A published model.

    Attributes
    ----------
    file : name of its weights in the folder ``StateDicts`` of TorchANI.
    shape : TorchANI's name of its descriptor and layer widths.
    symbols : its elements in the order of its weights.
    level_of_theory : of its labels.
    citation : DOI.

    """

    file: str
    shape: str
    symbols: tuple[str, ...]
    level_of_theory: str
    citation: str

    @property
    def repository(self) -> str:
        """Where TorchANI fetches the weights, on huggingface.co."""
        return f"roitberg-group/{self.file.removesuffix('_state_dict.pt')}"


_HCNO = ("H", "C", "N", "O")
PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "ANI-1x": Published(
            "ani1x_state_dict.pt", "ani1x", _HCNO, "wB97X/6-31G*", "10.1063/1.5023802"
        ),
        "ANI-1ccx": Published(
            "ani1ccx_state_dict.pt", "ani1x", _HCNO, "CCSD(T)*/CBS", "10.1038/s41467-019-10827-4"
        ),
        "ANI-2x": Published(
            "ani2x_state_dict.pt",
            "ani2x",
            (*_HCNO, "S", "F", "Cl"),
            "wB97X/6-31G*",
            "10.1021/acs.jctc.0c00121",
        ),
    }
)


def pretrained(name: str, folder: Path | None = None) -> list[Member]:
    """Return the eight members of a published model.

    Energies are in eV, and equal those of TorchANI in float64.

    Parameters
    ----------
    name : a key of :data:`PUBLISHED`.
    folder : one that holds ``StateDicts/<file>``, as TORCHANI_DATA_DIR names it. None for that of
        TorchANI, into which weights are fetched from huggingface.co if they are not there.

    Raises
    ------
    ModelError
        The name is unknown, or the weights are missing, cannot be fetched or are not those of
        this model.

    """
    if name not in PUBLISHED:
        raise ModelError(f"no published model {name!r}, want one of {', '.join(PUBLISHED)}")
    path = _find(name, folder)
    state, sha256 = _read(path)
    try:
        with torch.random.fork_rng(devices=[]):  # weights are drawn, and not used
            model = assemble(name)
        model.load_state_dict(state)
        return convert(model, name, {"file": path.name, "sha256": sha256})
    except (ModelError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} does not hold the weights of {name}: {what}") from error


def assemble(name: str) -> ANI:
    """Return TorchANI's model of this name in float64, with random weights."""
    # TorchANI warns about its CUDA extensions, which these models do not need.
    os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")
    from torchani.arch import Assembler

    published = PUBLISHED[name]
    assembler = Assembler()
    assembler.set_symbols(published.symbols)
    assembler.set_atomic_networks(ctor=published.shape)
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(angular=published.shape, radial=published.shape)
    assembler.set_zeros_as_self_energies()
    # Rounding TorchANI's atomic energies to float32 would cost 1e-5 eV.
    model: ANI = assembler.assemble(N_MEMBERS).double()
    return model


def convert(model: ANI, name: str, source: Mapping[str, Any]) -> list[Member]:
    """Return the members of TorchANI's model of this name; ``source`` says where it is from."""
    published = PUBLISHED[name]
    elements = tuple(sorted(atomic_numbers[symbol] for symbol in published.symbols))
    aev = _descriptor(model.aev_computer)
    columns = _columns(published.symbols, aev)
    atoms = {
        atomic_numbers[symbol]: float(energy) * EV_PER_HARTREE
        for symbol, energy in zip(
            published.symbols, model.energy_shifter.self_energies.double(), strict=True
        )
    }
    members = []
    for index, networks in enumerate(model.neural_networks.members):
        weights: dict[str, Tensor] = {}
        hidden = {}
        for symbol, network in networks.atomics.items():
            weights |= _weights(symbol, network, columns)
            hidden[atomic_numbers[symbol]] = tuple(len(layer.bias) for layer in network.layers)
        settings = AniSettings(tuple(hidden[z] for z in elements), "celu", aev)
        names = settings.shapes(elements)
        members.append(
            Member(
                architecture="ani",
                elements=elements,
                settings=settings.to_plain(),
                weights={key: weights[key] for key in names},
                atom_energies={z: atoms[z] for z in elements},
                level_of_theory=published.level_of_theory,
                metadata={
                    "pretrained": name,
                    "index": index,
                    "citation": f"DOI {published.citation}",
                    "repository": published.repository,
                    **source,
                },
            )
        )
    return members


def _weights(symbol: str, network: Any, columns: Tensor) -> dict[str, Tensor]:
    """Return the weights of one element as published, but for the last layer, in eV."""
    weights = {}
    for k, layer in enumerate(network.layers):
        weights[f"{symbol}.{k}.weight"] = layer.weight.detach().float().contiguous()
        weights[f"{symbol}.{k}.bias"] = layer.bias.detach().float().clone()
    first = f"{symbol}.0.weight"
    weights[first] = weights[first][:, columns].contiguous()
    last, k = network.final_layer, len(network.layers)
    # The unit takes more digits than float32 has.
    weights[f"{symbol}.{k}.weight"] = last.weight.detach().double() * EV_PER_HARTREE
    weights[f"{symbol}.{k}.bias"] = last.bias.detach().double() * EV_PER_HARTREE
    return weights


def _descriptor(computer: Any) -> AevSettings:
    radial, angular = computer.radial, computer.angular
    return AevSettings(
        radial_cutoff=float(radial.cutoff),
        radial_eta=float(radial.eta),
        radial_shifts=tuple(radial.shifts.tolist()),
        angular_cutoff=float(angular.cutoff),
        angular_eta=float(angular.eta),
        angular_zeta=float(angular.zeta),
        angular_shifts=tuple(angular.shifts.tolist()),
        angular_sections=tuple(angular.sections.tolist()),
    )


def _columns(symbols: tuple[str, ...], aev: AevSettings) -> Tensor:
    """Return for each feature, elements ascending, its place with elements as in ``symbols``."""
    n = len(symbols)
    place = sorted(range(n), key=lambda k: atomic_numbers[symbols[k]])
    pairs = {(a, b): k for k, (a, b) in enumerate((a, b) for a in range(n) for b in range(a, n))}
    blocks = [(element * aev.n_radial, aev.n_radial) for element in place] + [
        (n * aev.n_radial + pairs[min(a, b), max(a, b)] * aev.n_angular, aev.n_angular)
        for k, a in enumerate(place)
        for b in place[k:]
    ]
    return torch.cat([torch.arange(start, start + width) for start, width in blocks])


def _find(name: str, folder: Path | None) -> Path:
    """Return the file with the weights; fetch it if no folder is named."""
    published = PUBLISHED[name]
    if folder is not None:
        path = Path(folder) / "StateDicts" / published.file
        if not path.is_file():
            raise ModelError(
                f"the weights of {name} are not in {path}; put {published.file} of"
                f" huggingface.co/{published.repository} there"
            )
        return path
    os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")
    from torchani.paths import data_dir

    path = data_dir() / "StateDicts" / published.file
    return path if path.is_file() else _fetch(name, path)


def _fetch(name: str, path: Path) -> Path:
    """Fetch weights from where TorchANI fetches them, into its folder."""
    from huggingface_hub import hf_hub_download

    published = PUBLISHED[name]
    try:
        return Path(hf_hub_download(published.repository, path.name, local_dir=path.parent))
    except Exception as error:  # no network, a proxy, a full disk: foreign code says it its way
        raise ModelError(
            f"the weights of {name} are not in {path} and could not be fetched from"
            f" huggingface.co/{published.repository} ({type(error).__name__}); fetch"
            f" {path.name} where there is a network and put it there"
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file and its sha-256, running nothing from it."""
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch remarks about foreign files
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        tensors = {str(key): tensor for key, tensor in dict(state).items()}
    except Exception as error:  # a foreign pickle can break the reader in any way
        what = str(error).partition("\n")[0]
        raise ModelError(f"{path} cannot be read as weights: {what}") from error
    return tensors, hashlib.sha256(content).hexdigest()
