"""Write the table of a site file's keys into the documentation: ``python -m`` this module."""

from __future__ import annotations

from pathlib import Path

from alloop.config.schema import refresh
from alloop.executors.sites.model import ClusterSite

if __name__ == "__main__":
    refresh(Path("docs/sites.md"), ClusterSite)
