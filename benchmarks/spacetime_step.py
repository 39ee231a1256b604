"""One training step of a 4D model, against the route of the published program.

    python benchmarks/spacetime_step.py [--repeats 5]

The published network (6N+1 : 1024 : 512 : 256 : 128 : 64 : 3N, GELU, SI of
doi:10.1021/acs.jpclett.3c01592) takes time as an input, and its program gets velocities from the
Jacobian of all outputs by all inputs, one reverse pass for each output. The table compares, for
ethanol, one network, batches of 1024 and one thread, in CPU seconds:

- that route, written here in PyTorch from the description;
- the same network and loss with the derivative by time carried along (dual numbers);
- one step of alloop's own training: 1024 windows, each with all its times at once.

The first two give equal gradients, which is checked.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from alloop.spacetime.basis import TimeBasis
from alloop.spacetime.coordinates.zmatrix import ZMatrix
from alloop.spacetime.features import n_first_order
from alloop.spacetime.learning.ensemble import MotionLoss, Sample, new_layers, train
from alloop.spacetime.learning.settings import FitSettings

N_ATOMS = 9
BATCH = 1024
WIDTHS = (6 * N_ATOMS + 1, 1024, 512, 256, 128, 64, 3 * N_ATOMS)
ROWS = ((2,), (1, 2), (0, 1, 2), (3, 2, 1, 0), (4, 1, 2, 0), (5, 1, 2, 0), (6, 0, 1, 2),
        (7, 0, 1, 6), (8, 0, 1, 6))  # fmt: skip
HIDDEN = (512, 512, 512)


def layers() -> list[tuple[Tensor, Tensor]]:
    """Return random weights and biases of the published network."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            (torch.randn(a, b, generator=generator) * math.sqrt(2 / (a + b))).requires_grad_(),
            torch.zeros(b, requires_grad=True),
        )
        for a, b in pairwise(WIDTHS)
    ]


def value(network: list[tuple[Tensor, Tensor]], inputs: Tensor) -> Tensor:
    """Return the outputs of the network."""
    hidden = inputs
    for weight, bias in network[:-1]:
        hidden = torch.nn.functional.gelu(hidden @ weight + bias)
    weight, bias = network[-1]
    return hidden @ weight + bias


def by_jacobian(network: list[tuple[Tensor, Tensor]], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and their slopes in time, taken out of the whole Jacobian."""
    variable = inputs.clone().requires_grad_()
    outputs = value(network, variable)
    rows = [
        torch.autograd.grad(outputs[:, k].sum(), variable, create_graph=True)[0]
        for k in range(outputs.shape[1])
    ]
    return outputs, torch.stack(rows, dim=1)[..., -1]


def by_dual(network: list[tuple[Tensor, Tensor]], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and their slopes in time in one pass."""
    hidden, slope = inputs, torch.zeros_like(inputs)
    slope[:, -1] = 1.0
    for weight, bias in network[:-1]:
        before, rate = hidden @ weight + bias, slope @ weight
        hidden = torch.nn.functional.gelu(before)
        density = torch.exp(-0.5 * before * before) / math.sqrt(2 * math.pi)
        slope = rate * (0.5 * (1 + torch.erf(before / math.sqrt(2))) + before * density)
    weight, bias = network[-1]
    return hidden @ weight + bias, slope @ weight


def published_step(
    route: Callable[[list[tuple[Tensor, Tensor]], Tensor], tuple[Tensor, Tensor]],
) -> Callable[[], list[Tensor]]:
    """Return a function that takes one step of Adam and returns the gradients of the first one."""
    network = layers()
    parameters = [p for layer in network for p in layer]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(BATCH, WIDTHS[0], generator=generator)
    targets, rates = (torch.randn(BATCH, WIDTHS[-1], generator=generator) for _ in range(2))

    def step() -> list[Tensor]:
        outputs, slopes = route(network, inputs)
        errors = (outputs - targets).square().mean(0).sqrt().mean()
        loss = errors + 16 * (slopes - rates).square().mean(0).sqrt().mean()
        optimiser.zero_grad()
        loss.backward()
        gradients = [p.grad.clone() for p in parameters if p.grad is not None]
        optimiser.step()
        return gradients

    return step


def own_step(n_steps: int) -> float:
    """Return the CPU seconds of one step of alloop's training, one network, batch of 1024."""
    internal = ZMatrix(ROWS)
    times = 0.5 * torch.arange(1, 21, dtype=torch.float64)
    basis = TimeBasis.orthonormal(10.0, times, 12)
    n_outputs = internal.n_coordinates * basis.size
    loss = MotionLoss(internal, basis, times, torch.ones(internal.n_coordinates, basis.size))
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(20_000, n_first_order(internal), generator=generator)
    sample = Sample(inputs, torch.randn(20_000, n_outputs, generator=generator))
    sizes = [inputs.shape[1], *HIDDEN, n_outputs]
    settings = FitSettings(members=1, hidden=HIDDEN, batch=BATCH, steps=n_steps)
    began = time.process_time()
    train(new_layers(sizes, 1, generator), sample, None, loss, settings, generator)
    return (time.process_time() - began) / n_steps


def timed(step: Callable[[], list[Tensor]], repeats: int) -> float:
    """Return the CPU seconds of one step, the best of some."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=5, help="steps timed, the best counts")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    old, new = published_step(by_jacobian), published_step(by_dual)
    gaps = [float((a - b).abs().max()) for a, b in zip(old(), new(), strict=True)]
    print(f"largest difference of gradients between the first two: {max(gaps):.1e}\n")
    jacobian, dual = timed(old, repeats), timed(new, repeats)
    own = min(own_step(10) for _ in range(repeats))
    times = f"{BATCH} starts, each at its 20 times"
    print("| one step, one network | learns | CPU s | speed |")
    print("|---|---|---|---|")
    print(
        f"| whole Jacobian, as published | {BATCH} starts, each at one time | {jacobian:.3f} | 1 |"
    )
    print(
        f"| dual numbers, same network | {BATCH} starts, each at one time | {dual:.3f} |"
        f" {jacobian / dual:.1f} |"
    )
    print(f"| alloop {HIDDEN} | {times} | {own:.3f} | {jacobian / own:.0f} |")


if __name__ == "__main__":
    main()
