"""Options that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CampaignOption = Annotated[
    Path | None,
    typer.Option(
        "--campaign",
        "-c",
        help="Campaign directory or its config. Default: the one below this directory.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Potentials = Annotated[
    list[str] | None,
    typer.Option(
        "--potential",
        help="Member file or folder (can be repeated), ANI-1x, ANI-1ccx, ANI-2x, GFN2-xTB,"
        " GFN1-xTB, or an ASE calculator 'package.module:Class'.",
    ),
]
Charge = Annotated[int | None, typer.Option(help="Total charge. Default: the file's, or 0.")]
Multiplicity = Annotated[
    int | None,
    typer.Option(help="Spin multiplicity 2S + 1. Default: the file's, or the lowest possible."),
]
Interval = Annotated[
    str | None,
    typer.Option(help='Time between frames, "0.5 fs", if not all that are stored are wanted.'),
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Threads = Annotated[int, typer.Option(min=1, help="Of the processor.")]
