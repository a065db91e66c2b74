"""How work is reported: one object hears of stages, rows, steps and epochs."""

from collections.abc import Mapping


class Listener:
    """Hears how work goes; override what you want to hear.

    A listener changes no result, except that `epoch` may stop training. An error that it raises
    stops the work and reaches the caller; what was computed until then is kept, so that a run in a
    folder goes on from there when the same call is repeated.

    >>> class GoodEnough(Listener):
    ...     def epoch(self, phase, number, figures):
    ...         return phase == "finetune" and figures.get("val_accuracy", 0) > 0.95
    """

    def stage(self, name: str, message: str) -> None:
        """A stage of the work has something to report: ("split", "train 70, val 15, test 15")."""

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        """All `rows` of a stage will take this long at most; called once, after the first ones."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """So many rows of a stage, or steps of training, are done."""

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool | None:
        """An epoch of training is over; return True to stop the phase after it.

        number: from 1 on in each phase; 0 is the network before training. (history.csv numbers
        fine-tuning on from the head's epochs.)
        figures: `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy` (those that were
        measured), `lr` and `seconds`; `adversarial`, the share of the pixels' range by which
        pictures are changed, where training is adversarial.
        """
        return False
