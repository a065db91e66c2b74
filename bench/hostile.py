"""Bundles, weights and graphs that a stranger altered: is each refused in one sentence?

    python bench/hostile.py [--variants 400] [--graphs 3000] [--seed 0]

Honest bundles of every kind of input, target and head are made. A variant is one of them with one
change (a leaf of its JSON, a tensor, a file, a card, a graph made by hand, weights of a source),
resealed with a right manifest; then graphs are fuzzed from the seed. Each is loaded in a forked
process. It must be refused in one sentence, or answer as before, within a second of its processor
(the least of three attempts) and 300 MB above the start; no signal, no traceback, no warning, no
file opened outside its folder, no code run (audit hook). Some are loaded under strace as well,
which sees what native code opens.

A fuzzed graph may be another valid network, such as one with another constant. Where the known
example in a bundle does not show the difference it is loaded, as any forger's network is; these are
counted by themselves.

The control has the checks switched off; the harness must find failures of it.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from harness import Bench
from hostile_parts.folders import Change, file_changes, json_changes, reseal, weights_changes
from hostile_parts.graphs import fuzzed, graph_changes
from hostile_parts.sources import Load, Prepare, cases, warm
from hostile_parts.trial import OURS, SYSTEM, Attempt, attempt, in_fork
from tables import Row

from headstart.models.bundle import load_bundle
from headstart.models.model import Model

MOST_S, MOST_BYTES, TRIES, WORKERS = 1.0, 300e6, 3, 2
NEAR = 1e-3  # of scores
OTHER = "other answers"  # of a valid network whose known example is answered as before
FIRST = "image-logistic"  # of the bundles, which each change of files and graphs is made of
SURE = ("a graph with doubled 40 times", "a graph with a stride of 0")  # are in each control
FUZZED = ("image-logistic", "text", "boxes", "lite0")  # bundles whose graphs are fuzzed
MAKE = "import sys; from hostile_parts.bundles import make_bundles; from pathlib import Path; "
EXAMPLES = {
    "text": ["a good film.", "the plot was very bad and dull"],
    "": list(np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3), np.uint8)),
}
Answers = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Variant:
    """A change of a bundle. group: of the table."""

    bundle: str
    what: str
    group: str
    change: Change


def answers_of(model: Model) -> Answers:
    kind = model.backbone.card.input.kind
    found = model.predict(EXAMPLES.get(kind, EXAMPLES[""]), store=None).outputs
    return dict(model.target.summary(found))


def loaded(folder: Path) -> Model:
    return load_bundle(folder).model


def alike(known: Answers, model: Model) -> bool:
    """Whether a model answers as its bundle did before it was altered."""
    found = answers_of(model)
    return found.keys() == known.keys() and all(
        found[k].shape == known[k].shape and np.allclose(found[k], known[k], NEAR, NEAR)
        for k in known
    )


def main() -> None:
    bench = Bench("hostile", __doc__)
    bench.flag("--variants", type=int, default=400, quick=60)
    bench.flag("--graphs", type=int, default=3000, quick=150)
    bench.flag("--traced", type=int, default=80, quick=10, help="variants loaded under strace")
    bench.flag("--seed", type=int, default=0)
    args = bench.arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "made"
        make = f"{MAKE}make_bundles(Path({str(made)!r}), quick={args.quick})"
        subprocess.run([sys.executable, "-c", make], check=True, cwd=Path(__file__).parent)
        names = sorted(path.parent.name for path in made.glob("*/manifest.json"))
        known = {name: _expected(made / name) for name in names}
        rng = np.random.default_rng(args.seed)
        variants = chosen(made, names, args.variants, rng)
        place = Path(temporary) / "hostile"
        tried = parallel(partial(_variant, made, known, place), variants)
        sources = list(cases(made / FIRST))[:: 4 if args.quick else 1]
        built = parallel(partial(_source, made / FIRST, place), sources)
        fuzz = [(n, args.seed * 10**6 + n) for n in range(args.graphs)]
        own = [name for name in FUZZED if name in names]
        graphs = parallel(partial(_fuzz, made, known, place, own), fuzz)
        opened = traced(made, place, variants[:: max(1, len(variants) // args.traced)])
        control = parallel(partial(_unchecked, made, known, place), _control(variants))
    groups = [(v.group, v.what, a) for v, a in zip(variants, tried, strict=True)]
    groups += [
        ("weights and cards, with PyTorch", what, a)
        for (what, *_), a in zip(sources, built, strict=True)
    ]
    groups += [("fuzzed graphs", f"graph {n}", a) for n, a in enumerate(graphs)]
    report(bench, groups, control, opened, time.monotonic() - began)


def _expected(bundle: Path) -> Answers:
    """Return an honest bundle's answers, computed in another process: sessions don't fork."""
    parent, child = multiprocessing.get_context("fork").Pipe()
    in_fork(lambda: child.send(answers_of(loaded(bundle))))
    answers: Answers = parent.recv()
    return answers


def chosen(made: Path, names: Sequence[str], count: int, rng: Any) -> list[Variant]:
    """Return the variants made by hand, and others drawn from all bundles and groups in turn."""
    fixed = [Variant(FIRST, w, "files", c) for w, c in file_changes(made / FIRST)]
    fixed += [Variant(FIRST, w, "graphs made by hand", c) for w, c in graph_changes()]
    drawn = [
        list(_drawn(name, group, changes(made / name), rng))
        for name in names
        for group, changes in (("JSON", json_changes), ("weights", weights_changes))
    ]
    rest = [own[i] for i in range(max(map(len, drawn))) for own in drawn if i < len(own)]
    return (
        fixed + rest[: max(0, count - len(fixed))]
        if count > len(fixed)
        else fixed[:: len(fixed) // count]
    )


def _drawn(name: str, group: str, changes: Any, rng: Any) -> Iterator[Variant]:
    own = [(what, change) for what, change in changes if not _valid(what)]
    for i in rng.permutation(len(own)):
        yield Variant(name, own[i][0], group, own[i][1])


def _valid(what: str) -> bool:
    """Whether a value is one that an honest bundle can have, with other answers."""
    return "limits/temperature = " in what and what.endswith((" 2", " 0.5"))


# ------------------------------------------------------------ trials
def _variant(made: Path, known: dict[str, Answers], place: Path, variant: Variant) -> Attempt:
    folder = place / str(os.getpid()) / "bundle"

    def prepare() -> None:
        shutil.copytree(made / variant.bundle, folder)
        variant.change(folder)

    return _tried(folder, prepare, partial(alike, known[variant.bundle]))


def _fuzz(
    made: Path, known: dict[str, Answers], place: Path, names: Sequence[str], one: tuple[int, int]
) -> Attempt:
    number, seed = one
    folder, name = place / str(os.getpid()) / "bundle", names[number % len(names)]

    def prepare() -> None:
        folder.mkdir(parents=True)
        for file in (made / name).iterdir():
            if file.name not in ("graph.onnx", "manifest.json"):
                os.link(file, folder / file.name)
        graph = (made / name / "graph.onnx").read_bytes()
        (folder / "graph.onnx").write_bytes(fuzzed(graph, np.random.default_rng(seed)))
        reseal(folder)

    return _tried(folder, prepare, partial(alike, known[name]))


def _source(bundle: Path, place: Path, case: tuple[str, Prepare, Load]) -> Attempt:
    """Return how a source of backbones bears hostile weights or a hostile card."""
    warm()
    _, prepare, load = case
    folder = place / str(os.getpid()) / "bundle"

    def copied() -> None:
        shutil.copytree(bundle, folder)
        prepare(folder)

    return _tried(folder, copied, lambda _: True, load)


def _tried(
    folder: Path,
    prepare: Callable[[], None],
    same: Callable[[Any], bool],
    load_from: Callable[[Path], Any] = loaded,
) -> Attempt:
    """Return the quickest of up to TRIES attempts."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    in_fork(prepare)
    load = partial(load_from, folder)
    found = attempt(load, same, folder)
    for _ in range(TRIES - 1):
        if found.seconds > MOST_S and found.kind != "hangs":
            found = min(found, attempt(load, same, folder), key=lambda each: each.seconds)
    if (folder.parent / "ran").exists():
        found.ran.append("a pickle")
    return found


def _control(variants: Sequence[Variant]) -> list[Variant]:
    made = [Variant(FIRST, w, "control", c) for w, c in graph_changes() if w in SURE]
    groups = ("graphs made by hand", "JSON", "weights")
    return made + [v for v in variants if v.group in groups and v.what not in SURE][::2]


def _unchecked(made: Path, known: dict[str, Answers], place: Path, variant: Variant) -> Attempt:
    """As `_variant`, with the checks of graphs, JSON and tensors switched off."""
    import json

    from headstart.backbones import session
    from headstart.heads import linear, mlp, nearest
    from headstart.models import bundle, bundle_files

    def off(*_: Any) -> None:
        return None

    unpatched = dict[tuple[Any, str], Any]()
    switched: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (session, "check_graph", off),
        (bundle, "check_graph", off),
        (bundle_files, "read_strictly", json.loads),
        (bundle, "check_restored", off),
        (bundle, "check_weights", off),
        (bundle, "check_assets", off),
        (bundle, "facts_of", dict),
        *((each, "check_types", off) for each in (linear, mlp, nearest)),
        (linear, "check_tensors", off),
        (nearest, "check_tensors", off),
    )
    for module, name, other in switched:
        unpatched[module, name] = getattr(module, name)
        setattr(module, name, other)
    try:
        return _variant(made, known, place, variant)
    finally:
        for (module, name), own in unpatched.items():
            setattr(module, name, own)


def parallel(work: Callable[[Any], Attempt], items: Sequence[Any]) -> list[Attempt]:
    """Return the results of all items, worked on by WORKERS processes."""
    context = multiprocessing.get_context("fork")
    found: list[Any] = [None] * len(items)
    pairs = [context.Pipe(duplex=False) for _ in range(WORKERS)]
    started = []
    for i, (_, write) in enumerate(pairs):
        process = context.Process(target=_work, args=(work, items, i, write))
        process.start()
        write.close()
        started.append(process)
    for read, _ in pairs:
        for place, result in read.recv():
            found[place] = result
    for process in started:
        process.join()
    return found


def _work(
    work: Callable[[Any], Attempt], items: Sequence[Any], first: int, write: Connection
) -> None:
    write.send([(i, work(items[i])) for i in range(first, len(items), WORKERS)])


# ------------------------------------------------------------ strace
def traced(made: Path, place: Path, variants: Sequence[Variant]) -> list[str] | None:
    """Return the files outside its folder that loading some variants opened, as strace saw them;
    None without strace."""
    if shutil.which("strace") is None:
        return None
    folders = []
    for i, variant in enumerate(variants):
        folder = place / "traced" / str(i) / "bundle"
        in_fork(partial(_copied, made / variant.bundle, folder, variant.change))
        folders.append(str(folder))
    code = (
        "import os, sys; from hostile import load_all; from pathlib import Path; "
        f"load_all(Path({str(made / 'image-logistic')!r}), {folders!r})"
    )
    log = place / "strace.log"
    what = "trace=open,openat,openat2,creat,execve,connect"
    words = ["strace", "-f", "-qq", "-s", "400", "-e", what, "-o", str(log)]
    subprocess.run([*words, sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    lines = log.read_text(errors="replace").split("hostile-begins")[-1].splitlines()[1:]
    # Python looks for modules in the folder where it was started, by names that are not whole
    own = (str(place), *OURS, *SYSTEM, '."', "__editable__")
    seen = [line for line in lines if '"' in line or "execve" in line or "connect" in line]
    return [line[:200] for line in seen if not line.partition('"')[2].startswith(own)]


def _copied(bundle: Path, folder: Path, change: Change) -> None:
    shutil.copytree(bundle, folder)
    change(folder)


def load_all(honest: Path, folders: Sequence[str]) -> None:
    """Load an honest bundle, then hostile ones one after the other: run under strace."""
    answers_of(loaded(honest))
    with suppress(OSError):
        open("/hostile-begins")  # marks the place in strace's log
    for folder in folders:
        try:
            answers_of(loaded(Path(folder)))
        except Exception:  # which of them is no question here
            continue


# ------------------------------------------------------------ report
def failures(found: Attempt) -> list[str]:
    """Return the names of what is wrong with an attempt."""
    wrong = [] if found.kind in ("refused", "same", OTHER) else [found.kind]
    wrong += ["slow"] if found.seconds > MOST_S and found.kind != "hangs" else []
    wrong += ["memory"] if found.memory > MOST_BYTES else []
    wrong += ["files outside"] if found.outside else []
    return wrong + (["code run"] if found.ran else [])


def report(
    bench: Bench,
    groups: Sequence[tuple[str, str, Attempt]],
    control: Sequence[Attempt],
    opened: list[str] | None,
    seconds: float,
) -> None:
    rows: list[Row] = []
    for group in dict.fromkeys(group for group, _, _ in groups):
        own = [found for name, _, found in groups if name == group]
        rows.append(_row(group, own))
    rows.append(_row("control: checks switched off", list(control)))
    bad = [(g, w, a) for g, w, a in groups if failures(a)]
    for group, what, found in bad[:40]:
        print(
            f"{group}: {what}: {failures(found)} {found.seconds:.2f} s {found.memory / 1e6:.0f} MB "
            f"{found.said[:160]} {found.outside[:3]} {found.ran[:2]}"
        )
    for line in (opened or [])[:20]:
        print(line)
    caught = sum(1 for found in control if failures(found))
    bench.report(
        rows,
        {
            "variants and graphs": len(groups),
            "failures": len(bad),
            "files outside the folder, seen by strace": "no strace"
            if opened is None
            else len(opened),
            "failures of the control": caught,
            "seconds in all": seconds,
        },
    )
    if bad or opened or not caught:
        sys.exit(1)


def _row(group: str, own: list[Attempt]) -> Row:
    kinds, wrong = Counter(a.kind for a in own), Counter(f for a in own for f in failures(a))
    return {
        "what": group,
        "number": len(own),
        "refused": kinds["refused"],
        "same answers": kinds["same"],
        "another network": kinds[OTHER],
        "failures": sum(1 for a in own if failures(a)),
        "of them": ", ".join(f"{n} {name}" for name, n in wrong.most_common()) or "-",
        "slowest, s": max(a.seconds for a in own),
        "most MB above the start": max(a.memory for a in own) / 1e6,
    }


if __name__ == "__main__":
    main()
