"""ANI members as a TorchANI model, for its programs and for independent checks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols

from alloop.potentials.ani.settings import AniSettings, layers
from alloop.potentials.member import Member
from alloop.units import EV_PER_HARTREE

if TYPE_CHECKING:
    from torchani.arch import ANI


def to_torchani(members: Sequence[Member], dtype: torch.dtype = torch.float64) -> ANI:
    """Build a TorchANI ensemble with the weights of members of one shape.

    TorchANI gives energies in hartree, so the last layers and the atomic energies are scaled. Its
    atomic energies are one set for all members: here the mean of the members' sets.
    """
    # TorchANI warns about its CUDA extensions, which these models do not need.
    os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")
    from torchani.aev import AEVComputer, ANIAngular, ANIRadial
    from torchani.arch import ANI
    from torchani.nn import ANINetworks, Ensemble
    from torchani.sae import SelfEnergy

    settings = AniSettings.from_plain(members[0].settings)
    grid = settings.aev
    symbols = [chemical_symbols[z] for z in members[0].elements]
    computer = AEVComputer(
        radial=ANIRadial(grid.radial_eta, grid.radial_shifts, grid.radial_cutoff),
        angular=ANIAngular(
            grid.angular_eta,
            grid.angular_zeta,
            grid.angular_shifts,
            grid.angular_sections,
            grid.angular_cutoff,
        ),
        num_species=len(symbols),
    ).to(dtype)
    # TorchANI rounds its grids to float32.
    for term, name, values in (
        (computer.radial, "shifts", grid.radial_shifts),
        (computer.angular, "shifts", grid.angular_shifts),
        (computer.angular, "sections", grid.angular_sections),
    ):
        setattr(term, name, torch.tensor(values, dtype=dtype))
    networks = [
        ANINetworks(
            {
                symbol: _network(member, z, settings.activation)
                for symbol, z in zip(symbols, member.elements, strict=True)
            }
        )
        for member in members
    ]
    energies = [
        sum(m.atom_energies[z] for m in members) / len(members) / EV_PER_HARTREE
        for z in members[0].elements
    ]
    shifter = SelfEnergy(symbols, energies).to(dtype)
    shifter.self_energies = torch.tensor(energies, dtype=dtype)
    return ANI(symbols, computer, Ensemble(networks).to(dtype), shifter)


def _network(member: Member, z: int, activation: str) -> Any:
    from torchani.nn import AtomicNetwork

    weights = layers(member, z)
    widths = [weights[0][0].shape[1], *(len(bias) for _, bias in weights)]
    network = AtomicNetwork(
        widths, activation=torch.nn.SiLU() if activation == "silu" else activation, bias=True
    )
    scale = [1.0] * (len(weights) - 1) + [1.0 / EV_PER_HARTREE]
    linear = [*network.layers, network.final_layer]
    with torch.no_grad():
        for module, (weight, bias), factor in zip(linear, weights, scale, strict=True):
            module.weight = torch.nn.Parameter(weight.double() * factor)
            module.bias = torch.nn.Parameter(bias.double() * factor)
    return network
