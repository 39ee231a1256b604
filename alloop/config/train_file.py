"""A file with the keys of a campaign's ``train`` section alone, as strict as a campaign file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from alloop.config.document import parse
from alloop.config.learning import Train
from alloop.config.load import read_text
from alloop.config.problems import Problem, report
from alloop.config.wording import explain
from alloop.errors import ConfigError


def load_train(path: Path) -> Train:
    """Read a settings file; raise ConfigError with everything that is wrong with it."""
    document = parse(read_text(path))
    problems = list(document.problems)
    if not problems:
        try:
            return Train.model_validate({} if document.data is None else document.data)
        except ValidationError as error:
            problems = [
                # Where it would stand in a campaign file: the wording goes by the section.
                Problem(tuple(found["loc"]), explain({**found, "loc": ("train", *found["loc"])}))
                for found in error.errors(include_url=False)
            ]
    raise ConfigError(report(str(path), problems, document.marks))
