"""`headstart ideal`: draw the picture with the highest score for a class."""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headstart as hs
from headstart.base.atomic import check_folder
from headstart.base.errors import SpecError, UnknownName
from headstart.base.runtime import torch_threads
from headstart.base.values import to_plain
from headstart.cli.flags import add_flags, bundle_of, made
from headstart.cli.opening import add_looking_flags, decoded, file_name, open_model
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, INTERRUPTED, print_json, print_table
from headstart.cli.progress import Terminal, say

if TYPE_CHECKING:
    from headstart.modalities.images.decoding import Pixels

TELLS = 8  # times that the score is printed during the ascent


@dataclass(frozen=True)
class Order:
    """A requested class and its files. name: as given on the command line."""

    name: str
    number: int
    out: Path
    film: Path | None


@dataclass(frozen=True, eq=False)
class Made:
    """The result of an order. seen: the pictures of the ascent, the start first. finished: whether
    all steps were done."""

    order: Order
    seen: "list[hs.Ideal]"
    seconds: float
    finished: bool

    @property
    def best(self) -> "hs.Ideal":
        return max(self.seen, key=lambda seen: seen.log_odds)


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("ideal")
    add_looking_flags(parser, files=False)
    _add_own_flags(parser)
    add_flags(parser, hs.IdealPlan())
    add_flags(parser, hs.Runtime(), "threads")
    return parser


def run(args: argparse.Namespace) -> int:
    plan, runtime = made(hs.IdealPlan(), args), made(hs.Runtime(), args).resolved()
    grad_model = open_model(args, "headstart ideal draws", files=False).grad_model
    orders = _orders(grad_model, args)
    judge = _judge(grad_model, args)
    numbers = [_number(judge, grad_model.classes[o.number], o.name) if judge else 0 for o in orders]
    start = decoded(args.start) if args.start else None
    rows = list[dict[str, Any]]()
    try:
        with torch_threads(runtime.threads):
            for order, number in zip(orders, numbers, strict=True):
                found = _drawn(grad_model, order, plan, start)
                _write(found, grad_model, plan)
                rows.append(_row(found, grad_model, judge, number))
                if not found.finished:
                    return INTERRUPTED
    except KeyboardInterrupt:
        if not rows:
            raise
        say("stopped", f"{len(rows)} of {len(orders)} pictures are made and kept")
        return INTERRUPTED
    finally:  # finished pictures are printed even after an error in the next one
        if rows:
            _print(rows, as_json=args.json)
    return DONE


def _add_own_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        required=True,
        metavar="NAME",
        help="a class of the model; give it again for another picture",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PNG",
        help="the file to write; its name gets that of the class where there are several",
    )
    parser.add_argument(
        "--film", type=Path, metavar="FILE", help="also write a film of the ascent, .gif or .webp"
    )
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="picture to begin with (default: noise)"
    )
    parser.add_argument(
        "--judge",
        default="auto",
        metavar="NAME",
        help="another model that scores the pictures: a backbone, a run or a bundle, or none; auto "
        "takes another packaged backbone for a packaged backbone (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")


def _orders(grad_model: "hs.GradModel", args: argparse.Namespace) -> list[Order]:
    """Return an order for each class; raises UnknownName for an unknown class, SpecError for a
    class given twice and for files that exist or coincide."""
    numbers = [grad_model.number(name) for name in args.classes]
    again = [grad_model.classes[n] for n, times in Counter(numbers).items() if times > 1]
    if again:
        raise SpecError(f"One picture a class is made: {again[0]!r} was named more than once.")
    orders = [
        Order(name, number, _out(name, args), _film(name, args))
        for name, number in zip(args.classes, numbers, strict=True)
    ]
    files = [file for order in orders for file in (order.out, order.film) if file]
    alike = Counter(str(file).casefold() for file in files)  # some systems ignore case
    for file in files:
        if alike[str(file).casefold()] > 1:
            raise SpecError(f"Two files would be called {file}: make the classes one at a time.")
        if file.exists():
            raise SpecError(f"{file} is there already: name another --out or --film.")
    for folder in {file.parent for file in files}:
        check_folder(folder)
    return orders


def _out(name: str, args: argparse.Namespace) -> Path:
    if args.out is None:
        return Path(f"ideal-{_file_name(name)}.png")
    if args.out.suffix.lower() != ".png":
        raise SpecError(f"--out is a .png, which keeps pixels as they were judged; got {args.out}.")
    return _of_class(args.out, name, args)


def _film(name: str, args: argparse.Namespace) -> Path | None:
    if args.film is None:
        return None
    hs.check_film(args.film)
    return _of_class(args.film, name, args)


def _of_class(path: Path, name: str, args: argparse.Namespace) -> Path:
    if len(args.classes) == 1:
        return path
    return path.with_name(f"{path.stem}-{_file_name(name)}{path.suffix}")


def _file_name(name: str) -> str:
    """Return a class name as letters, digits and dashes, valid in file names on every system.

    >>> _file_name("tabby, tabby cat")
    'tabby-tabby-cat'
    """
    return file_name(re.sub(r"[\W_]+", "-", name).strip("-")) or "class"


def _judge(grad_model: "hs.GradModel", args: argparse.Namespace) -> "hs.GradModel | None":
    """Open the judge, another model that scores the pictures; None if there is none."""
    if args.judge == "none":
        return None
    if args.judge == "auto":
        return _other_packaged(grad_model)
    path = Path(args.judge)
    if path.is_dir():
        return hs.grad_model_of(hs.load_bundle(bundle_of(path)).model)
    return hs.source_grad_model(hs.load_backbone(args.judge))


def _number(judge: "hs.GradModel", whole: str, name: str) -> int:
    """Return the judge's number of a class, by its `whole` name or else by the name given.

    Raises SpecError if the judge knows neither.
    """
    for own in (whole, name):
        try:
            return judge.number(own)
        except UnknownName:
            continue
    raise SpecError(
        f"The judge, {judge.name}, knows no class {whole!r}: name another --judge, or none."
    )


def _drawn(
    grad_model: "hs.GradModel", order: Order, plan: "hs.IdealPlan", start: "Pixels | None"
) -> Made:
    """Run the ascent with progress on stderr; Ctrl-C ends it and keeps the steps so far."""
    seen, began, told = list[hs.Ideal](), time.perf_counter(), 0
    listener = Terminal()
    try:
        for now in hs.ascend(grad_model, order.number, plan, start):
            seen.append(now)
            if now.step:
                listener.progress("ideal", now.step, plan.steps)
            if now.step * TELLS >= told * plan.steps:
                say("ideal", f"{order.name}, step {now.step} of {plan.steps}: {_said(now)}")
                told += 1
    except KeyboardInterrupt:
        if not seen:
            raise
    return Made(order, seen, time.perf_counter() - began, seen[-1].step == plan.steps)


def _said(now: "hs.Ideal") -> str:
    return f"score {now.score:.3f}, variation {now.variation:.3f}"


def _other_packaged(grad_model: "hs.GradModel") -> "hs.GradModel | None":
    """Return the largest other packaged backbone that is installed and has the same classes."""
    if grad_model.classes != grad_model.backbone.card.source_classes:
        return None
    listed = [b.name for b in hs.list_backbones("packaged:") if b.where == "installed"]
    for name in reversed([name for name in listed if name != grad_model.name]):
        judge = hs.source_grad_model(hs.load_backbone(name))
        if judge.classes == grad_model.classes:
            return judge
    return None


def _write(found: Made, grad_model: "hs.GradModel", plan: "hs.IdealPlan") -> None:
    """Write the best picture, with its settings as metadata, and the film of the ascent."""
    order, best = found.order, found.best
    told = {"class": grad_model.classes[order.number], "model": grad_model.name, "step": best.step}
    hs.write_picture(order.out, best.picture, json.dumps(told | {"plan": to_plain(plan)}))
    say("written", f"{order.out}, as it was at step {best.step}")
    if order.film:
        hs.write_film(order.film, [*(seen.picture for seen in found.seen), best.picture])
        say("written", str(order.film))
    if not found.finished:
        say("stopped", f"{order.name} after step {found.seen[-1].step} of {plan.steps}")


def _row(
    found: Made, grad_model: "hs.GradModel", judge: "hs.GradModel | None", judge_number: int
) -> dict[str, Any]:
    """Return the results for a picture, scored as read back from its file."""
    order, pixels = found.order, hs.decode(found.order.out)
    return {
        "class": grad_model.classes[order.number],
        "file": str(order.out),
        "film": str(order.film) if order.film else None,
        "before": found.seen[0].score,
        "after": _score(grad_model, pixels, order.number),
        "judge": judge.name if judge else None,
        "judged": _score(judge, pixels, judge_number) if judge else None,
        "variation": hs.total_variation(pixels),
        "step": found.best.step,
        "finished": found.finished,
        "seconds": round(found.seconds, 1),
    }


def _score(grad_model: "hs.GradModel", pixels: "Pixels", number: int) -> float:
    return float(grad_model.scores(grad_model.input(pixels)[None].copy())[0, number])


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    judged = rows[0]["judge"] is not None
    judge = [f"by {rows[0]['judge']}"] if judged else []
    table = [("class", "file", "before", "after", *judge, "total variation")]
    for row in rows:
        said = [f"{row['judged']:.3f}"] if judged else []
        scores = (f"{row['before']:.3f}", f"{row['after']:.3f}", *said)
        table.append((row["class"], row["file"], *scores, f"{row['variation']:.4f}"))
    print_table(table)
