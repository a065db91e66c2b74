"""Choose the rows to evaluate a model on: each picture once, by default no row it learned from."""

from collections import Counter
from dataclasses import dataclass
from functools import partial

from headstart.base.context import RunContext
from headstart.base.errors import DataError, Mismatch
from headstart.base.listener import Listener
from headstart.data.checks import with_contents
from headstart.data.content import copies, each_once, two_labels_warning
from headstart.data.dataset import Content, Dataset, LeftOut
from headstart.evaluation.evaluation import Evaluation, evaluate
from headstart.evaluation.judged import ConformalSets, conformal_coverage
from headstart.features.extract import extract
from headstart.modalities.reading import survey
from headstart.models.model import Model
from headstart.reporting.run_files import RecordedRow
from headstart.runs.folder import RunRecord, first_few
from headstart.targets.predictions import Predictions

NEW, LEFT_OUT = "new", "left out"  # roles of a row in a run, beside its three parts
WHY = {
    "train": "the model was trained on this {}",
    "val": "the model was chosen by this {}, which was in its validation part",
    "test": "the run had this {} in its test part",
    LEFT_OUT: "the run left this {} out of its parts",
}


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """data: the rows to evaluate on. left_out: other rows, with the reason."""

    data: Dataset
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, eq=False)
class JudgedModel:
    """A model's evaluation and predictions. left_out: rows that do not count, with the reason.

    conformal: how often the intervals or sets of its predictions hold the label; None without.
    """

    evaluation: Evaluation
    predictions: Predictions
    left_out: tuple[LeftOut, ...]
    conformal: ConformalSets | None = None


def judge(
    model: Model,
    record: RunRecord | None,
    data: Dataset,
    part: str,
    source: str,
    context: RunContext,
) -> JudgedModel:
    """Evaluate a model on the rows of `data` that `judged_rows` chooses.

    The arguments are those of `judged_rows`; data that was not checked is surveyed first. Raises
    DataError if no row can be read, Mismatch if the model has none of the classes of the data.
    """
    store, listener = context.store, context.listener
    if not data.contents:
        threads, progress = context.runtime.decode_threads, partial(listener.progress, "checks")
        seen = survey(data, store=store, threads=threads, progress=progress)
        data = with_contents(data, seen)
    rows = judged_rows(data, record, source, part, listener)
    runtime = context.runtime
    table = extract(model.backbone, rows.data, store=store, runtime=runtime, listener=listener)
    predictions = model.predict_table(table)
    strangers = _unknown_classes(predictions, rows.data)
    if not predictions.known.any():
        n = len(rows.data)
        raise DataError(
            f"There is nothing to judge by: none of {n:,} {rows.data.noun} can be read."
        )
    lost = (*rows.data.left_out, *rows.left_out, *table.left_out, *strangers)
    groups = groups_of_boxes(predictions, rows.data)
    evaluation = evaluate(predictions, fitted=model.target, groups=groups)
    limits = model.limits
    conformal = conformal_coverage(limits.alpha, limits, predictions) if limits.alpha else None
    return JudgedModel(evaluation, predictions, lost, conformal)


def groups_of_boxes(predictions: Predictions, data: Dataset) -> tuple[str, ...]:
    """Return the name of each row's group in data with boxes, its own id without one; () for other
    targets, most of whose figures have no bootstrap over groups."""
    if not (data.groups and predictions.target.listing):
        return ()
    named = dict(zip(data.ids, data.groups, strict=True))
    return tuple(named[id] or id for id in predictions.ids)


def _unknown_classes(predictions: Predictions, data: Dataset) -> list[LeftOut]:
    """List classes of the data that the model does not have; their rows are not evaluated.

    Raises Mismatch if the model has none of the classes.
    """
    if not predictions.classes:
        return _unknown_labels(predictions, data)
    unknown = {name: n for name, n in data.counts.items() if n and name not in predictions.classes}
    if unknown and not predictions.known.any():
        raise Mismatch(
            f"The model tells {', '.join(predictions.classes)} apart; the data holds none of these "
            f"but {', '.join(unknown)}. Is it the right model?"
        )
    reason = "not a class of this model; {:,} rows are not judged"
    return [LeftOut(name, reason.format(n)) for name, n in unknown.items()]


def _unknown_labels(predictions: Predictions, data: Dataset) -> list[LeftOut]:
    """List labels of the data that the model does not have.

    Raises Mismatch if they leave no row to judge by.
    """
    strange = predictions.target.lacks(data.target)
    if len(predictions) and not predictions.known.any():
        raise Mismatch(
            f"The model predicts {predictions.target.described}; the data has others"
            f"{f': {first_few(strange, 5)}' if strange else ''}. Is it the right model?"
        )
    return [LeftOut(name, "not a label of this model: it judges nothing") for name in strange]


def judged_rows(
    data: Dataset, record: RunRecord | None, source: str, part: str, listener: Listener
) -> JudgedRows:
    """Choose the rows of checked data to evaluate on, and report them to the listener.

    record: of the model's run; it identifies pictures by content. source: where the data was read
    from. part: "auto" for the run's test pictures and new ones (from the data's test part, if it
    has one and is not the run's own data); "train", "val" or "test" for that part of the run and
    new pictures of that part of the data; "all" for all rows. Raises DataError if none is left.
    """
    own = _is_own(data, record, source)
    known = _known(data, record, own)
    roles = [_role(row) for row in known]
    offered = _offered(data, roles, own, part)
    counted = [row for row in offered if part == "all" or roles[row] in _wanted(part)]
    refused = sorted(set(offered) - set(counted))
    if not counted:
        raise DataError(_nothing(data, roles, offered, part))
    named = [row for row in refused if not (own and _in_place(data, row, record, roles))]
    rest = data.take(counted)
    judged, again = each_once(rest)
    _warn(rest, record, listener)
    if not len(judged):
        raise DataError(
            f"There must be rows to judge by, but every {data.example} stands under two labels."
        )
    message = _message(judged, [roles[row] for row in counted], len(data), len(again))
    listener.stage("judged by", message)
    reasons = (_reason(data, row, known[row], roles[row]) for row in named)
    return JudgedRows(judged, (*reasons, *again))


def _is_own(data: Dataset, record: RunRecord | None, source: str) -> bool:
    """Return whether this is the data of the run: read from the same place, or, if both were in
    memory, rows that the run recorded under these ids, unchanged, or copies of such rows."""
    if record is None or record.source != source:
        return False
    if source:
        return True
    there = [record.rows.get(id) for id in data.ids]
    rows = zip(there, data.contents, record.matched(data), strict=True)
    return any(there) and all(_is_unchanged(*row) for row in rows)


def _is_unchanged(there: RecordedRow | None, now: Content, alike: RecordedRow | None) -> bool:
    """Return whether a row is recorded under its id with this content, or can't be read, or is a
    copy. alike: the recorded row with this content."""
    if there is None:
        return alike is not None or now == Content()
    return not there.content.differs(now)


def _known(data: Dataset, record: RunRecord | None, own: bool) -> tuple[RecordedRow | None, ...]:
    """Return the run's record of each row: by content, or by name for runs without contents."""
    if record is not None and record.has_contents:
        return record.matched(data)
    return tuple(record.rows.get(id) if record and own else None for id in data.ids)


def _role(known: RecordedRow | None) -> str:
    return NEW if known is None else known.part or LEFT_OUT


def _wanted(part: str) -> set[str]:
    return {"test" if part == "auto" else part, NEW}


def _offered(data: Dataset, roles: list[str], own: bool, part: str) -> list[int]:
    """Return the rows that are in this part of the data or of the run."""
    parts = data.parts if data.parts and not own else ("",) * len(data)
    if part == "all" or (part == "auto" and "test" not in parts):
        return list(range(len(data)))
    asked = "test" if part == "auto" else part

    def offers(row: int) -> bool:
        if parts[row] == asked:
            return asked == "test" or roles[row] in _wanted(part)
        return part != "auto" and roles[row] == part

    return [row for row in range(len(data)) if offers(row)]


def _in_place(data: Dataset, row: int, record: RunRecord | None, roles: list[str]) -> bool:
    """Return whether the exclusion of a row needs no message.

    That is so if the run recorded the row under its name, unchanged, and the row or a copy of it
    is in a part of the run.
    """
    there = record.rows.get(data.ids[row]) if record else None
    if there is None or roles[row] == LEFT_OUT:
        return False
    before, now = there.content, data.contents[row]
    return before.file in ("", now.file) or before.decoded == now.decoded


def _reason(data: Dataset, row: int, known: RecordedRow | None, role: str) -> LeftOut:
    id = data.ids[row]
    name = f", as {known.path}" if known and known.path != id else ""
    return LeftOut(id, WHY[role].format(data.example) + name)


def _nothing(data: Dataset, roles: list[str], offered: list[int], part: str) -> str:
    counts = Counter(roles[row] for row in offered)
    if not counts:
        return (
            f"There must be rows to judge by; of {len(roles):,} none is in part {part}. Name other "
            f"data, or another --part."
        )
    shown = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    return (
        f"There must be rows to judge by that the model has not learned from; the run had all "
        f"{len(offered):,} of these {data.examples} ({shown}). Name other data, or a --part."
    )


def _warn(data: Dataset, record: RunRecord | None, listener: Listener) -> None:
    """Warn of pictures with two labels, and of a run record that is missing or has no contents."""
    if warning := two_labels_warning(data, copies(data)):
        listener.stage("warning", warning)
    if record is None:
        listener.stage(
            "known",
            f"nothing: {data.examples} that a model learned from are known from its run alone",
        )
    elif not record.has_contents:
        listener.stage(
            "known",
            "by their names only: the run, of an earlier version, recorded no contents, so "
            f"{data.examples} that it learned from are not recognised under other names",
        )


def _message(judged: Dataset, roles: list[str], rows: int, again: int) -> str:
    n, counts = len(judged), Counter(roles)
    which = "all rows" if n == rows else f"{n:,} of {rows:,} rows"
    parts = sorted({*judged.parts} - {""})
    names = [name for name in counts if name != NEW] or parts
    learned = counts["train"] + counts["val"]
    which_parts = ", ".join(sorted(names)) + (
        ", new ones among them" if names and counts[NEW] else ""
    )
    if learned:
        which_parts += f", {learned:,} of which the model has learned from"
    copied = f"; {again:,} exact copies do not count" if again else ""
    return which + (f" ({which_parts})" if which_parts else "") + copied
