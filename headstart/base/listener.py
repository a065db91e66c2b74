"""The interface that reports stages, rows, steps and epochs."""

from collections.abc import Mapping


class Listener:
    """Receives reports of progress; override the methods that you need.

    A listener changes no result, except that `epoch` may stop training. An error that a method
    raises stops the work and reaches the caller; results so far are kept, so that a run in a folder
    continues from there when the same call is repeated.

    >>> class GoodEnough(Listener):
    ...     def epoch(self, phase, number, figures):
    ...         return phase == "finetune" and figures.get("val_accuracy", 0) > 0.95
    """

    def stage(self, name: str, message: str) -> None:
        """Receive a stage's message, such as ("split", "train 70, val 15, test 15")."""

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        """Receive the most seconds that all `rows` will take; called once, after the first ones."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Receive how many rows of a stage, or steps of training, are done."""

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool | None:
        """Receive the end of an epoch; return True to stop the phase after it.

        A refit, in phases whose names begin with "refit", repeats the epochs that were chosen,
        and is not stopped. It has no validation rows: `val_loss` and `val_accuracy` are missing.

        number: from 1 in each phase; 0 is the network before training. (history.csv continues the
        head's numbers in fine-tuning.)
        figures: `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy` and `lr`, each if it was
        measured; `seconds`, and in adversarial training `adversarial`, the attack's share of the
        pixel range.
        """
        return False


class Listeners(Listener):
    """Passes every report on to several listeners; one that asks to stop stops the phase."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def stage(self, name: str, message: str) -> None:
        for listener in self._listeners:
            listener.stage(name, message)

    def expect(self, stage: str, rows: int, seconds: float) -> None:
        for listener in self._listeners:
            listener.expect(stage, rows, seconds)

    def progress(self, stage: str, done: int, total: int) -> None:
        for listener in self._listeners:
            listener.progress(stage, done, total)

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool:
        return any([listener.epoch(phase, number, figures) for listener in self._listeners])


class NeverStops(Listeners):
    """Passes every report on to one listener; its request to stop a phase is ignored."""

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool:
        super().epoch(phase, number, figures)
        return False


class ProgressOnly(Listener):
    """Passes on progress alone, for work that has nothing to say in words."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def progress(self, stage: str, done: int, total: int) -> None:
        self._listener.progress(stage, done, total)
