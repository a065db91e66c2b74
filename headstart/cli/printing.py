"""Print results on stdout: tables, lines and JSON."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.display import Verbatim, by_reason, display, escaped_json
from headstart.cli.language import named, translated, worded
from headstart.cli.progress import duration, say

SHOWN = 3  # files with the same reason that are named
NARROW = 20  # a last column narrower than this is not folded
DONE, FAILED, WRONG, LEFT_OUT, INTERRUPTED = 0, 1, 2, 3, 130
if TYPE_CHECKING:
    from headstart.data.dataset import LeftOut
    from headstart.evaluation.evaluation import Estimate, Evaluation
    from headstart.evaluation.judged import ConformalSets
    from headstart.runs.forecast import Forecast
    from headstart.runs.job import Job
    from headstart.runs.run import Run


def print_run(run: "Run") -> None:
    from headstart.models.bundle_files import bundle_digest

    noun = run.checks.dataset.noun
    print(f"\n{named('checks')}")
    print_table(run.checks.findings.table(noun))
    _print_changes(run)
    _print_candidates(run)
    title = f"{len(run.folds)}-fold cross-validation" if run.folds else "test"
    print_evaluation(title, run.evaluations["test"], run.conformal)
    _print_folds(run)
    _print_few_shots(run)
    seconds = run.timings.seconds
    print(f"\n{translated('seconds by stage')}")
    text = ", ".join(f"{named(stage)} {spent:.1f}" for stage, spent in seconds.items())
    print(textwrap.fill(text, 80, initial_indent="  ", subsequent_indent="  "))
    t = run.timings
    rate = t.examples_per_second
    print_words(
        f"total {t.total_seconds:.1f} s; {f'features {rate:,} {noun}/s; ' if rate else ''}"
        f"peak memory {t.peak_rss_bytes / 1e9:.2f} GB"
    )
    print_words(f"{t.backbone_forwards:,} backbone forwards, {t.store_hits:,} from the store")
    print()
    print_words(f"saved {run.folder}  (the model: {run.folder / 'model'})")
    if (page := run.folder / "report.html").is_file():
        print_words(f"report {page}  (open it in a browser)")
    print_words(f"SHA-256 of the model {bundle_digest(run.folder / 'model')}")


def _print_folds(run: "Run") -> None:
    """Print the first metric of each fold, and how the run was judged."""
    if not run.folds:
        return
    from headstart.evaluation.evaluation import brief
    from headstart.runs.folds import judged_message

    name = next(iter(run.folds[0].metrics))
    rows = [("fold", "rows", name.replace("_", " "), "kept")]
    for fold in run.folds:
        value = fold.metrics[name]
        rows.append((str(fold.fold), f"{fold.n:,}", brief(value) if value else "n/a", fold.kept))
    print()
    print_table(rows)
    print_words(judged_message(run.folds, run.splits, refit=run.fitted.before is not None))


def _print_changes(run: "Run") -> None:
    """Print the changes of pictures that were tried."""
    if (found := run.view_search) is not None:
        print(f"\n{translated(f'augmentation, by {found.judged_by}')}")
        print_table(found.table())


def _print_few_shots(run: "Run") -> None:
    """Print how the heads did on a few examples of each class."""
    if run.few_shots is None:
        return
    from headstart.evaluation.few_shots import few_shots_rows

    found = run.few_shots
    judged = f"judged on {found.rows:,} other rows"
    print(f"\n{found.shots} of each class, {found.draws} draws, {judged}")
    print_table(few_shots_rows(found))


def print_forecast(found: "Forecast", out: Path, job: "Job", seeds: int) -> None:
    from headstart.heads.families import head_for

    splits = found.splits
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    target, counts = splits.train.target, splits.train.counts
    classes = ("classes", Verbatim(", ".join(f"{name} {n:,}" for name, n in counts.items())))
    head, _ = head_for(job.recipe.head, target)
    rows = [
        ("data", Verbatim(job.source)),
        classes if counts else ("target", target.noun),
        ("split", ", ".join(f"{name} {len(part):,}" for name, part in parts.items())),
        *([("shots", f"{job.shots} of each class, {job.draws} draws")] if job.shots else []),
        *([("folds", f"{job.folds}, each judged by a model of the others")] if job.folds else []),
        ("backbone", f"{job.backbone}, weights {job.weights}"),
        ("training", f"strategy {job.strategy}, head {head.family}"),
        *([("ensemble", f"{job.members} fine-tunings")] if job.members > 1 else []),
        ("run", f"{out}, {seeds} seeds" if seeds > 1 else Verbatim(out)),
    ]
    if found.feature_seconds is not None:
        disk, seconds = (found.feature_bytes + found.cut_bytes) / 1e6, max(1, found.feature_seconds)
        rows += [
            ("time", f"at most {duration(seconds)} in frozen layers, then training"),
            ("disk", f"at most {disk:,.1f} MB in {job.store.folder}"),
        ]
    print_table(rows)
    print()
    print_words("Nothing was written: leave --dry-run out to train.")


def _print_candidates(run: "Run") -> None:
    from headstart.evaluation.evaluation import measured

    target = run.splits.train.target
    name_of = next(iter(target.shown), target.merit_name).replace("_", " ")
    spell = str if run.model.classes else measured
    rows = [("model", "trainable", "frozen", f"{name_of} on validation", "")]
    for name, on_val in run.candidates.items():
        count = run.counts[name]
        trainable, frozen = count.trainable.parameters, count.frozen.parameters
        mark, shown = (
            "kept" if name == run.kept else "",
            spell(on_val.main) if on_val.main else "n/a",
        )
        rows.append((name, f"{trainable:,}", f"{frozen:,}", shown, mark))
    print(f"\n{named('trained')}")
    print_table(rows)
    if run.gain is not None:
        gain = _signed(run.gain) if run.model.classes else _signed_number(run.gain)
        print_words(f"  {target.gain_name} on validation by {run.kept}: {gain}")
    for name, on_test in run.baselines.items():
        shown = spell(on_test.main) if on_test.main else "n/a"
        better = ", better than the model" if name in run.beaten_by else ""
        print_words(f"  to compare with, on test: {name} {shown}{better}")


def _signed(gain: "Estimate") -> str:
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] n={gain.n}"


def _signed_number(gain: "Estimate") -> str:
    value, low, high = (f"{v:+.3g}" for v in (gain.value, gain.low, gain.high))
    return f"{value} [{low}, {high}] n={gain.n}"


def print_evaluation(
    title: str, result: "Evaluation", conformal: "ConformalSets | None" = None
) -> None:
    from headstart.evaluation.evaluation import evaluation_rows
    from headstart.evaluation.judged import conformal_row

    headline, per_class = evaluation_rows(result)
    headline += [conformal_row(conformal, result.target)] if conformal else []
    print(f"\n{worded(title)}")
    print_table(headline)
    if per_class:
        print()
        print_table(per_class)


def tell_left_out(left_out: "Iterable[LeftOut]", most: int = 20) -> int:
    """List the files that were left out on stderr; returns exit code 3 if there are any, else 0.

    Of more than `most`, those with the same reason are counted in one line.
    """
    bad = [item for item in left_out if not item.expected]
    if len(bad) <= most:
        for item in bad:
            say("left out", f"{item.path}: {item.reason}")
        return LEFT_OUT if bad else DONE
    reasons = by_reason((item.path, item.reason) for item in bad)
    for names, reason in reasons[:most]:
        more = ", …" if len(names) > SHOWN else ""
        several = f"{len(names):,} files ({', '.join(names[:SHOWN])}{more})"
        say("left out", f"{names[0] if len(names) == 1 else several}: {reason}")
    if rest := sum(len(names) for names, _ in reasons[most:]):
        say("left out", f"and {rest:,} more")
    return LEFT_OUT


def print_line(*fields: str, flush: bool = False) -> None:
    """Print fields separated by tabs as one line, control characters escaped by `display`."""
    print("\t".join(map(display, fields)), flush=flush)


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, one line per row, or several lines per row on a narrow terminal.

    Cells that are texts of the user are `Verbatim`; all others are translated.
    """
    rows = [[display(worded(cell)) for cell in row] for row in table]
    count = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(count)]
    wide, room = sum(widths) + 2 * count, columns()
    if 0 < room < wide and room - (wide - widths[-1]) < NARROW and len(rows) > 1:
        return _print_records(rows, room)
    for row in rows:
        line = "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=False))
        before = "  " if len(row) < count else " " * (wide - widths[-1])
        print(_folded(f"  {line.rstrip()}", room, before))
    return None


def print_words(text: str) -> None:
    """Print a sentence of ours as a line, in the language of the command."""
    print_line(translated(text))


def _print_records(rows: Sequence[Sequence[str]], room: int) -> None:
    """Print each row below the header as lines of column name and cell."""
    header, *others = rows
    wide = max(map(len, header)) + 4
    for row in others:
        print()
        for name, cell in zip(header, row, strict=False):
            if cell:
                print(_folded(f"  {name:{wide - 2}}{cell}", room, " " * wide))


def columns() -> int:
    """Return the width of the terminal; 0 if stdout is not one, so that programs read one line per
    row."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def _folded(line: str, room: int, before: str) -> str:
    """Wrap a line between words to `room` columns; 0 for no limit."""
    if not 0 < room < len(line):
        return line
    return textwrap.fill(
        line, room, subsequent_indent=before, break_long_words=False, break_on_hyphens=False
    )


def print_json(value: object) -> None:
    print(escaped_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)))
