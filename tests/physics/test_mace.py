"""MACE through mace-torch, an extra: what it says without the package, and with it."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from ase.build import molecule

from alloop.errors import ModelError
from alloop.potentials.fitting import FrameGroup
from alloop.potentials.graphs.graph import GraphStore
from alloop.potentials.graphs.network import differentiate
from alloop.potentials.graphs.trainable import GraphTrainable
from alloop.potentials.mace import MACE, Mace, MaceSettings

needs_mace = pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed")
ELEMENTS = (1, 6, 8)
ETHANOL = molecule("CH3CH2OH")
GROUP = FrameGroup(
    tuple(ETHANOL.numbers.tolist()),
    torch.tensor(ETHANOL.positions).repeat(2, 1, 1),
    None,
    torch.ones(2, dtype=torch.bool),
    torch.arange(2),
)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mace.modules", None)
    settings = MACE.settings("small", ELEMENTS)
    levels = dict.fromkeys(ELEMENTS, 0.0)
    with pytest.raises(ModelError, match=r"needs alloop\[mace\]"):
        MACE.trainable([GROUP], ELEMENTS, settings, levels, scale=1.0, seed=1, start=None)


@needs_mace
def test_it_is_not_imported_before_it_is_wanted():
    program = (
        "import sys, alloop.potentials.architectures\n"
        "sys.exit('mace' in sys.modules or 'e3nn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@needs_mace
def test_it_gives_the_energies_and_forces_of_mace_torch():
    torch.manual_seed(1)
    network = Mace(MaceSettings(), 3).double()
    graph = GraphStore([GROUP], ELEMENTS, 4.5).graph(torch.tensor([0, 1]), torch.float64)
    graph.vectors.requires_grad_()
    energies = network(graph).energies
    forces = differentiate(energies, graph, create_graph=False).forces
    expected = network.model(
        {
            "node_attrs": torch.eye(3, dtype=torch.float64)[graph.species],
            "positions": GROUP.positions.reshape(-1, 3).clone(),
            "cell": torch.zeros(6, 3, dtype=torch.float64),
            "edge_index": torch.stack((graph.centre, graph.other)),
            "shifts": torch.zeros(len(graph.centre), 3, dtype=torch.float64),
            "batch": graph.structure,
            "ptr": torch.tensor([0, 9, 18]),
        }
    )
    assert torch.allclose(energies, expected["energy"], rtol=0, atol=1e-12)
    assert torch.allclose(forces, expected["forces"], rtol=0, atol=1e-12)
    assert float(forces.abs().max()) > 1e-3


@needs_mace
def test_its_forces_can_be_fitted():
    torch.manual_seed(1)
    fit = GraphTrainable(Mace(MaceSettings(), 3), [GROUP], ELEMENTS, 4.5)
    parameters = fit.start.clone().requires_grad_()
    prediction = fit.predict(parameters, torch.tensor([1]))
    loss = prediction.forces.square().sum()
    (slope,) = torch.autograd.grad(loss, parameters)
    direction = torch.nn.functional.normalize(slope, dim=0)
    assert bool(torch.isfinite(slope).all())
    with torch.no_grad():
        step = 1e-2
        ahead, behind = (
            fit.predict(parameters + sign * step * direction, torch.tensor([1])).forces
            for sign in (1.0, -1.0)
        )
    measured = float(ahead.square().sum() - behind.square().sum()) / (2.0 * step)
    assert measured == pytest.approx(float(slope.norm()), rel=1e-2)
