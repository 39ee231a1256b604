"""A fit that begins anew when it diverges, and goes on where it was when it was killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from alloop.checkpoint import CheckpointFile
from alloop.errors import TrainingError
from alloop.training.data import Labels
from alloop.training.fit import DivergedError, Fit, Fittable
from alloop.training.settings import Epoch, TrainReport, TrainSettings

_RESTART_FACTOR = 1.0 / 3.0


def fit_with_restarts(
    potential: Fittable,
    labels: Labels,
    settings: TrainSettings,
    seed: int,
    *,
    rates: Tensor | None = None,
    shown: Tensor | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: CheckpointFile | None = None,
) -> tuple[Tensor, TrainReport]:
    """Return the best parameters (n_parameters,) and what came of the fit; see ``Fit``.

    Raises TrainingError if it diverges however small its steps.
    """
    kept = None if checkpoint is None else checkpoint.load()
    note = "" if checkpoint is None else checkpoint.note
    for restarts in range(0 if kept is None else kept["restarts"], settings.max_restarts + 1):
        rate = settings.learning_rate * _RESTART_FACTOR**restarts
        slower = replace(settings, learning_rate=rate)
        fit = Fit(potential, labels, slower, seed, rates=rates, shown=shown)
        if kept is not None:
            fit.restore(kept["fit"])
            note, kept = f"went on after epoch {fit.epoch}", None
        keep = _keeper(checkpoint, fit, restarts)
        try:
            stopped_by = fit.run(should_stop or _never, on_epoch, keep)
        except DivergedError:
            continue
        if checkpoint is not None and checkpoint.note:
            note = checkpoint.note
        return fit.best, fit.report(stopped_by, restarts, note)
    raise TrainingError(
        f"the fit diverged {settings.max_restarts + 1} times, at last with a learning rate of"
        f" {rate:.1e}; look for wrong labels among the training frames"
    )


def _keeper(checkpoint: CheckpointFile | None, fit: Fit, restarts: int) -> Callable[[], None]:
    def keep() -> None:
        if checkpoint is not None:
            checkpoint.offer(lambda: {"restarts": restarts, "fit": fit.state()})

    return keep


def _never() -> bool:
    return False
