"""Which campaign a command means."""

from __future__ import annotations

from pathlib import Path

from alloop.errors import ConfigError, LedgerError

LEDGER = "ledger.sqlite"


def find_campaign(given: Path | None) -> Path:
    """Return a campaign directory: the one given, that of a config, or the only one below here."""
    if given is not None and given.is_file() and given.name != LEDGER:
        from alloop.config.load import load

        return load(given).directory
    if given is not None:
        directory = given.parent if given.name == LEDGER else given
        if not (directory / LEDGER).is_file():
            raise LedgerError(f"{directory} is no campaign directory: it has no {LEDGER}")
        return directory
    here = Path()
    found = [here] if (here / LEDGER).is_file() else []
    found += [path.parent for path in sorted(here.glob(f"runs/*/{LEDGER}"))]
    if len(found) != 1:
        listed = ", ".join(str(path) for path in found) or "none"
        raise LedgerError(f"which campaign? found {listed}; say it with --campaign DIRECTORY")
    return found[0]


def parse_parameters(given: list[str]) -> dict[str, str]:
    """Return ``name=value`` words as a dictionary."""
    wrong = [word for word in given if "=" not in word]
    if wrong:
        raise ConfigError(tuple(f"--set {word}: want name=value" for word in wrong))
    return dict(word.split("=", 1) for word in given)
