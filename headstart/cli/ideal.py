"""`headstart ideal`: draw the picture with the highest score for a class."""

import argparse
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.display import Verbatim
from headstart.base.errors import SpecError, UnknownName
from headstart.base.runtime import Runtime, torch_threads
from headstart.cli.flags import add_flags, made
from headstart.cli.opening import add_json_flag, add_model_flags, open_named
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, INTERRUPTED, print_json, print_table
from headstart.cli.progress import Terminal, say
from headstart.explaining.naming import file_name
from headstart.explaining.pixels.ideal_plan import IdealPlan

if TYPE_CHECKING:
    from headstart.explaining.pixels.grad_model import GradModel
    from headstart.explaining.pixels.ideal import Ideal
    from headstart.modalities.images.decoding import Pixels


@dataclass(frozen=True)
class Order:
    """A requested class and its files. name: as given on the command line."""

    name: str
    number: int
    out: Path
    film: Path | None


@dataclass(frozen=True, eq=False)
class Ascent:
    """The pictures of an order, the start first. finished: whether all steps were done."""

    order: Order
    seen: "list[Ideal]"
    best: "Ideal"
    seconds: float

    @property
    def finished(self) -> bool:
        return self.seen[-1].step == self.best.plan.steps


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("ideal")
    add_model_flags(parser, files=False)
    _add_own_flags(parser)
    add_flags(parser, IdealPlan())
    add_flags(parser, Runtime(), "device", "threads")
    return parser


def run(args: argparse.Namespace) -> int:
    plan, runtime = made(IdealPlan(), args), made(Runtime(), args).resolved()
    model = open_named(args, "headstart ideal draws", files=False).grad_model
    from headstart.pixels import decoded

    orders = _orders(model, args)
    judge = _judge(model, args)
    numbers = [_number(judge, model.classes[o.number], o.name) if judge else 0 for o in orders]
    start = decoded(args.start) if args.start else None
    rows = list[dict[str, Any]]()
    try:
        with torch_threads(runtime.threads):
            for order, number in zip(orders, numbers, strict=True):
                ascent = _drawn(model, order, plan, start)
                _write(ascent)
                rows.append(_row(ascent, model, judge, number))
                if not ascent.finished:
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
    add_json_flag(parser)


def _orders(model: "GradModel", args: argparse.Namespace) -> list[Order]:
    """Return an order for each class; raises UnknownName for an unknown class, SpecError for a
    class given twice and for files that exist or coincide."""
    from headstart.pixels import check_ideal_names, check_new_files

    numbers = [model.number(name) for name in args.classes]
    again = [model.classes[n] for n, times in Counter(numbers).items() if times > 1]
    if again:
        raise SpecError(f"One picture a class is made: {again[0]!r} was named more than once.")
    check_ideal_names(args.out, args.film)
    several = len(args.classes) > 1
    orders = list[Order]()
    for name, number in zip(args.classes, numbers, strict=True):
        out = _of_class(args.out or Path("ideal.png"), name, several or args.out is None)
        film = args.film and _of_class(args.film, name, several)
        orders.append(Order(name, number, out, film))
    check_new_files([file for order in orders for file in (order.out, order.film) if file])
    return orders


def _of_class(path: Path, name: str, named: bool) -> Path:
    """Return the path, with the name of the class as letters, digits and dashes if `named`.

    >>> _of_class(Path("a.png"), "tabby, tabby cat", True).name
    'a-tabby-tabby-cat.png'
    """
    plain = file_name(re.sub(r"[\W_]+", "-", name).strip("-")) or "class"
    return path.with_name(f"{path.stem}-{plain}{path.suffix}") if named else path


def _judge(model: "GradModel", args: argparse.Namespace) -> "GradModel | None":
    """Open the judge, another model that scores the pictures; None if there is none."""
    from headstart.modalities.sources import load_backbone
    from headstart.pixels import open_model

    if args.judge == "none":
        return None
    if args.judge == "auto":
        return _other_packaged(model)
    path = Path(args.judge)
    return open_model(path if path.is_dir() else load_backbone(args.judge)).grad_model


def _number(judge: "GradModel", whole: str, name: str) -> int:
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


def _drawn(model: "GradModel", order: Order, plan: IdealPlan, start: "Pixels | None") -> Ascent:
    """Run the ascent with progress on stderr; Ctrl-C ends it and keeps the steps so far."""
    from headstart.explaining.pixels.ideal import surest
    from headstart.pixels import ascent

    seen, began = list["Ideal"](), time.perf_counter()
    try:
        for now in ascent(model, order.number, order.name, plan, start, Terminal()):
            seen.append(now)
    except KeyboardInterrupt:
        if not seen:
            raise
    return Ascent(order, seen, surest(seen), time.perf_counter() - began)


def _other_packaged(model: "GradModel") -> "GradModel | None":
    """Return the largest other packaged backbone that is installed and has the same classes."""
    from headstart.modalities.sources import list_backbones, load_backbone
    from headstart.pixels import open_model

    if model.classes != model.backbone.card.source_classes:
        return None
    listed = [b.name for b in list_backbones("packaged:") if b.where == "installed"]
    for name in reversed([name for name in listed if name != model.name]):
        other = load_backbone(name)
        if other.card.input.kind != model.backbone.card.input.kind:
            continue
        judge = open_model(other).grad_model
        if judge.classes == model.classes:
            return judge
    return None


def _write(ascent: Ascent) -> None:
    """Write the best picture and the film of the ascent."""
    from headstart.modalities.images.film import write_film

    order, best, last = ascent.order, ascent.best, ascent.seen[-1]
    best.save(order.out)
    say("written", f"{order.out}, as it was at step {best.step}")
    if order.film:
        write_film(order.film, [*(seen.picture for seen in ascent.seen), best.picture])
        say("written", str(order.film))
    if not ascent.finished:
        say("stopped", f"{order.name} after step {last.step} of {best.plan.steps}")


def _row(
    ascent: Ascent, model: "GradModel", judge: "GradModel | None", judge_number: int
) -> dict[str, Any]:
    """Return the results for a picture, scored as read back from its file."""
    from headstart.explaining.pixels.ideal import total_variation
    from headstart.modalities.images.decoding import decode

    order, pixels = ascent.order, decode(ascent.order.out)
    return {
        "class": model.classes[order.number],
        "file": str(order.out),
        "film": str(order.film) if order.film else None,
        "before": ascent.seen[0].score,
        "after": _score(model, pixels, order.number),
        "judge": judge.name if judge else None,
        "judged": _score(judge, pixels, judge_number) if judge else None,
        "variation": total_variation(pixels),
        "step": ascent.best.step,
        "finished": ascent.finished,
        "seconds": round(ascent.seconds, 1),
    }


def _score(model: "GradModel", pixels: "Pixels", number: int) -> float:
    return float(model.scores(model.input(pixels)[None].copy())[0, number])


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    judged = rows[0]["judge"] is not None
    judge = [f"by {rows[0]['judge']}"] if judged else []
    table = [("class", "file", "before", "after", *judge, "total variation")]
    for row in rows:
        by_judge = [f"{row['judged']:.3f}"] if judged else []
        scores = (f"{row['before']:.3f}", f"{row['after']:.3f}", *by_judge)
        table.append(
            (Verbatim(row["class"]), Verbatim(row["file"]), *scores, f"{row['variation']:.4f}")
        )
    print_table(table)
