"""Site files: where tasks run. They hold no science."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from alloop.config.shipped import shipped
from alloop.errors import SiteError
from alloop.executors.inprocess import InProcessExecutor
from alloop.executors.protocol import Executor


class _Site(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InProcessSite(_Site):
    """Everything in the driver's own process."""

    kind: Literal["inprocess"]


class LocalSite(_Site):
    """Parsl's HighThroughputExecutor on this machine, on the loopback interface only."""

    kind: Literal["local"]
    workers: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = Field(
        default="auto", description="processes, one thread each; auto: one for each core"
    )


Site = Annotated[InProcessSite | LocalSite, Field(discriminator="kind")]


def load_site(name: str, folder: Path) -> InProcessSite | LocalSite:
    """Read a site file: one shipped with alloop by its name, or a path relative to ``folder``.

    Raises SiteError with one line for each fault.
    """
    path = _find(name, folder)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise SiteError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        site: InProcessSite | LocalSite = TypeAdapter(Site).validate_python(content)
    except ValidationError as error:
        lines = [
            f"{path}  {'.'.join(str(part) for part in fault['loc'][1:]) or 'file'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise SiteError("\n".join(lines)) from error
    return site


def build_executor(site: InProcessSite | LocalSite, directory: Path) -> Executor:
    """Start the executor that a site describes, with its files inside the campaign directory."""
    if isinstance(site, InProcessSite):
        return InProcessExecutor(directory)
    from alloop.executors.local import LocalExecutor  # Parsl takes a second to import

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = site.workers if isinstance(site.workers, int) else (available or 1)
    return LocalExecutor(directory, workers)


def _find(name: str, folder: Path) -> Path:
    known = {path.stem: path for path in sorted(shipped("deploy").glob("*.yaml"))}
    if name in known:
        return known[name]
    path = folder / name
    if not path.is_file():
        raise SiteError(
            f"site {name!r} is neither one that ships with alloop ({', '.join(known)})"
            f" nor a file ({path})"
        )
    return path
