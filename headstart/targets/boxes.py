"""Boxes around objects, each of a class."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.base.onnx_nodes import whole
from headstart.targets import saved
from headstart.targets.box_checks import box_remarks
from headstart.targets.box_errors import KINDS
from headstart.targets.box_matching import MAX_DETECTIONS, ClassMatches, Detections
from headstart.targets.box_metrics import AT_50, AT_75, EVERY, ScoredBoxes, size_ranges
from headstart.targets.box_values import BoxLabels, ExampleBoxes
from headstart.targets.classes import check_class_names
from headstart.targets.plan import TargetPlan
from headstart.targets.target import (
    STRIDES,
    Array,
    Labels,
    Metric,
    Noticed,
    Outputs,
    Row,
    Table,
    Target,
    resampled,
)

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.base.onnx_nodes import Nodes

FEW_TEST = 10  # test boxes of a class below which its figures say little
FEW_ALIKE = 7  # examples of which 15 % is one
NAMED = 5  # classes that a sentence names
RAW = ("boxes", "scores", "labels")  # the arrays of answers
ROW = 6  # numbers of a detection in raw outputs: its corners, score and class, -1 for none
FOUND = 300  # detections of an example, at most
LEAST_SCORE = 0.001  # detections up to this score are none
OVERLAP = 0.6  # of two boxes of a class, from which on the one of the lower score is left out
LARGEST = 2**16  # pixels of a side
USUAL_THRESHOLD = 0.3  # of a class without boxes on validation
NO_SEARCH = (
    "Networks and settings are compared by heads on pooled features, which have lost where boxes "
    "are. Use `headstart train`, and `headstart compare` for runs with other settings."
)

# Matches of labels with detections, remembered because every metric and table asks for them.
_SCORED: WeakKeyDictionary[BoxLabels, tuple[Array, ScoredBoxes]] = WeakKeyDictionary()


@dataclass(frozen=True)
class BoxesTarget(Target):
    """Any number of boxes per row, each of a class of `names`; labels are `BoxLabels`.

    canvas: width and height in pixels of the network's input, which a loss needs. typical: the mean
    number of boxes in a training example. thresholds: for each class the score from which on a
    detection counts, chosen on validation by F1; () before.

    Answers are {"boxes": (N, K, 4) float32 pixels of the upright example, "scores": (N, K) float32,
    "labels": (N, K) int64}, by falling score, K up to MAX_DETECTIONS; a label of -1 is no box.
    """

    names: tuple[str, ...]
    canvas: tuple[int, int] = (0, 0)
    typical: float = 1.0
    thresholds: tuple[float, ...] = ()
    kind: ClassVar[str] = "boxes"
    reads: ClassVar[tuple[str, ...]] = ("label", "xmin", "ymin", "xmax", "ymax")
    merit_name: ClassVar[str] = "AP"
    gain_name: ClassVar[str] = "AP gained"
    no_search: ClassVar[str] = NO_SEARCH
    takes: ClassVar[tuple[str, ...]] = STRIDES
    listing: ClassVar[tuple[str, ...]] = ("label", "score", "xmin", "ymin", "xmax", "ymax")
    decides: ClassVar[bool] = True
    resamples: ClassVar[int] = 400
    shown: ClassVar[tuple[str, ...]] = ("AP50", "AP", "AP75", "recall50", "recall")

    # ------------------------------------------------------------ labels
    def planned(self, plan: TargetPlan) -> "BoxesTarget":
        super().planned(plan)
        return self

    def fitted(self, y: Labels) -> "BoxesTarget":
        """Return a copy with the mean number of boxes in an example, ignored boxes left out."""
        count = int((~y.boxes.ignored).sum())
        return replace(self, typical=count / len(y) if len(y) else 1.0)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "BoxesTarget":
        raise DataError(
            "Boxes are read from annotations of their own, which this data has not: leave --target "
            "boxes out, or name a folder or file with boxes."
        )

    @classmethod
    def of_columns(cls, columns: Collection[str]) -> "BoxesTarget":
        raise DataError(
            "Detections are read from COCO's results, a .json file, and not from a table. "
            "Write them so, and name the data with the boxes after the file."
        )

    def encode(self, row: Row) -> ExampleBoxes:
        """Return the boxes of one example from the text of `decode`."""
        try:
            plain = json.loads(row["label"])
            places = {name: c for c, name in enumerate(self.names)}
            return ExampleBoxes(
                [corners for _, *corners, _ in plain["boxes"]],
                [places[name] for name, *_ in plain["boxes"]],
                ["crowd" in flags for *_, flags in plain["boxes"]],
                ["difficult" in flags for *_, flags in plain["boxes"]],
                (int(plain["size"][0]), int(plain["size"][1])),
            )
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(
                f"The boxes of a row are JSON as `decode` writes it; got {row['label'][:60]!r}."
            ) from error

    def labels(self, values: Sequence[Any]) -> BoxLabels:
        y = BoxLabels.of(values)
        classes = y.boxes.labels
        if len(classes) and not 0 <= classes.min() <= classes.max() < len(self.names):
            raise DataError(f"Classes of boxes count from 0 to {len(self.names) - 1}.")
        return y

    def present(self, values: Sequence[ExampleBoxes]) -> tuple["BoxesTarget", tuple[Any, ...]]:
        """Return the target without the classes that no box has, and its labels."""
        used = np.unique(self.labels(values).boxes.labels)
        if len(used) == len(self.names):
            return self, tuple(values)
        place = np.full(len(self.names), -1)
        place[used] = np.arange(len(used))
        names = tuple(self.names[c] for c in used)
        own = tuple(replace(value, labels=place[value.labels]) for value in values)
        return replace(self, names=names), own

    def plain(self, labels: Sequence[ExampleBoxes]) -> tuple[str, ...]:
        return tuple(self.decode(self.labels(labels)))

    @property
    def learning_key(self) -> tuple[Any, ...]:
        return ()

    def check_names(self) -> None:
        check_class_names(self.names, {})
        if not self.names:
            raise DataError("At least one example must have a box; all have none.")

    def decode(self, y: Labels) -> list[str]:
        return ["" if not y.known[i] else self._text(y[i]) for i in range(len(y))]

    def _text(self, boxes: ExampleBoxes) -> str:
        """Return boxes as text, without the areas of outlines: only figures by size read these, and
        they are measured on the data itself."""
        rows = zip(boxes.corners, boxes.labels, boxes.crowd, boxes.difficult, strict=True)
        plain = [
            [
                self.names[c],
                *(float(str(v)) for v in corners),
                "crowd" * int(a) + " difficult" * int(b),
            ]
            for corners, c, a, b in rows
        ]
        return json.dumps({"size": list(boxes.size), "boxes": plain}, ensure_ascii=False)

    def brief(self, y: Labels) -> list[str]:
        """Return the numbers of boxes, such as "2 car, 1 sign"."""
        return [self._numbers(y[i]) if y.known[i] else "" for i in range(len(y))]

    def _numbers(self, boxes: ExampleBoxes) -> str:
        counts = np.bincount(boxes.labels, minlength=len(self.names)).tolist()
        named = [f"{n} {name}" for name, n in zip(self.names, counts, strict=True) if n]
        return ", ".join(named) or "no boxes"

    def caption(self, cell: str) -> str:
        return self.brief(self.parse([cell]))[0] if cell else ""

    def parse(self, cells: Sequence[str]) -> BoxLabels:
        return BoxLabels.of([self.encode({"label": cell}) if cell else None for cell in cells])

    def known(self, y: Labels) -> NDArray[np.bool_]:
        return np.asarray(y.known)

    def unknown(self, n: int) -> BoxLabels:
        return BoxLabels.of([None] * n)

    def strata(self, y: Labels) -> NDArray[np.int64]:
        """Return a number for each set of classes that an example has.

        A set of fewer than FEW_ALIKE examples, which the parts could not share, counts as that of
        its rarest class alone.
        """
        sets = [tuple(np.unique(y[i].labels).tolist()) for i in range(len(y))]
        alike, have = Counter(sets), Counter(c for own in sets for c in own)
        shared = [
            own if alike[own] >= FEW_ALIKE or not own else (min(own, key=lambda c: (have[c], c)),)
            for own in sets
        ]
        number = {own: n for n, own in enumerate(sorted(set(shared)))}
        return np.array([number[own] for own in shared], np.int64)

    def census(self, y: Labels) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
        """Return the classes, and the examples that have a box of each."""
        there = np.zeros((len(y), len(self.names)), bool)
        there[y.rows, y.boxes.labels] = True
        return self.names, there

    def choice(self, y: Labels) -> str:
        counts = self._counts(y)
        most = sorted(counts.items(), key=lambda item: -item[1])[:NAMED]
        named = ", ".join(f"{name} {n:,}" for name, n in most)
        more = f" and {len(counts) - NAMED} more classes" if len(counts) > NAMED else ""
        bare = int((np.diff(y.offsets) == 0).sum())
        return (
            f"boxes: {len(y.boxes):,} in {len(y):,} examples ({named}{more}); {bare:,} examples "
            f"without a box"
        )

    def _counts(self, y: BoxLabels) -> dict[str, int]:
        counted = np.bincount(y.boxes.labels, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counted, strict=True))

    def unlike(self, a: ExampleBoxes, b: ExampleBoxes) -> bool:
        """Return whether two examples have other classes; their boxes always differ a little."""
        return set(a.labels.tolist()) != set(b.labels.tolist())

    def remarks(self, y: Labels) -> Iterable[Noticed]:
        return box_remarks(y, self.names)

    def about_test(self, y: Labels) -> str:
        few = Counter({name: n for name, n in self._counts(y).items() if n < FEW_TEST})
        if not few:
            return ""
        rarest = sorted(few.items(), key=lambda item: (item[1], item[0]))
        named = ", ".join(f"{name} {n}" for name, n in rarest[:NAMED])
        more = f" and {len(few) - NAMED} more classes" if len(few) > NAMED else ""
        return (
            f"the test part has under {FEW_TEST} boxes of {named}{more}: their figures will say "
            f"little; label more of them, or give --test a larger share"
        )

    # ------------------------------------------------------------ learning
    @property
    def outputs(self) -> int:
        return FOUND * ROW

    def accepts(self, width: int) -> bool:
        return width > 0 and width % ROW == 0

    def soft(self, y: Labels, smoothing: float = 0.0) -> "Tensor":
        """Return the boxes of N examples as (N, M, 6), M the most that one of them has."""
        from headstart.targets.box_loss import packed_boxes

        if smoothing:
            raise SpecError("Label smoothing is for classes, not for boxes. Leave it out.")
        return packed_boxes(y)

    def loss(self, raw: "Tensor", soft: "Tensor") -> "Tensor":
        """Return (N,) losses; raw: the heatmap and the distances of `canvas`, flattened."""
        from headstart.targets.box_loss import STRIDE, box_losses

        width, height = (side // STRIDE for side in self.canvas)
        maps = raw.unflatten(1, (len(self.names) + 4, height, width))
        heat, sides = maps[:, :-4], maps[:, -4:]
        return box_losses(heat, sides, soft, self.typical)

    def decided(self, answers: Outputs, y: Labels) -> "BoxesTarget":
        """Return a copy with the threshold of each class that has the best F1 at an overlap of .5.

        A class without a box to find, or without a right detection, takes USUAL_THRESHOLD.
        """
        scored = self.scored(answers, y)
        found = detections(answers)
        own = tuple(
            _best_threshold(scored.matches[c], _scores_of(found, c)) for c in range(len(self.names))
        )
        return replace(self, thresholds=own)

    def translate(self, y: Labels, target: Target) -> Labels:
        """Return labels of another target by the names of their classes; boxes of others are left
        out."""
        if not isinstance(target, BoxesTarget):
            return self.unknown(len(y))
        if target.names == self.names:
            return y
        place = {name: c for c, name in enumerate(self.names)}
        number = np.array([place.get(name, -1) for name in target.names] or [-1])

        def renamed(one: ExampleBoxes) -> ExampleBoxes:
            own = one.take(number[one.labels] >= 0)
            return replace(own, labels=number[own.labels])

        return BoxLabels.of([renamed(y[i]) if y.known[i] else None for i in range(len(y))])

    # ------------------------------------------------------------ answers
    def activate(self, raw: Array) -> Outputs:
        """Return the detections in raw outputs (N, K * 6), by falling score."""
        rows = np.asarray(raw, np.float64).reshape(len(raw), raw.shape[1] // ROW, ROW)
        held = (rows[..., 5] >= 0) & (rows[..., 4] > LEAST_SCORE)
        return answers_of(
            [
                Detections(own[:, :4].astype(np.float32), own[:, 4], own[:, 5].astype(np.int64))
                for own in (one[there] for one, there in zip(rows, held, strict=True))
            ]
        )

    def in_graph(self, nodes: "Nodes", raw: str, temperature: float) -> Mapping[str, str]:
        """Add the columns of the detections: boxes (N, K, 4), scores and classes (N, K).

        A class of -1 is no box, and so is a score up to LEAST_SCORE.
        """
        rows = nodes("Reshape", raw, whole((0, -1, ROW)))
        boxes, *others = nodes.several(3, "Split", rows, whole((4, 1, 1)), axis=2)
        scores, labels = (nodes("Squeeze", column, whole(2)) for column in others)
        return {
            "boxes": nodes.cast(boxes, np.float32),
            "scores": nodes.cast(scores, np.float32),
            "classes": nodes.cast(labels, np.int64),
        }

    def of_graph(self, outputs: Outputs) -> Outputs:
        columns = [outputs["boxes"], outputs["scores"][..., None], outputs["classes"][..., None]]
        rows = np.concatenate([column.astype(np.float64) for column in columns], axis=2)
        return self.activate(rows.reshape(len(rows), -1))

    def comparable(self, answers: Outputs) -> Mapping[str, Array]:
        """Return, for each class, sums of squared scores, (N, C), and mean corners, (N, C, 4).

        Weights that are squares hardly count detections near LEAST_SCORE, which come and go.
        """
        own = answers["labels"][..., None] == np.arange(len(self.names))
        weights = np.where(own, answers["scores"].astype(np.float64)[..., None] ** 2, 0.0)
        sums = weights.sum(axis=1)
        places = np.einsum("nkc,nkj->ncj", weights, answers["boxes"].astype(np.float64))
        return {"sums": sums, "places": places / np.maximum(sums, LEAST_SCORE)[..., None]}

    def export_facts(self) -> dict[str, Any]:
        limits = self.thresholds or (USUAL_THRESHOLD,) * len(self.names)
        return {**super().export_facts(), "thresholds": list(limits)}

    def answers_changed(self, before: Outputs, after: Outputs) -> NDArray[np.bool_]:
        """Return (N,) where another number of boxes of some class reaches its threshold."""
        counts = []
        for answers in (before, after):
            own = answers["labels"][..., None] == np.arange(len(self.names))
            counts.append((own & self.taken(answers)[..., None]).sum(axis=1))
        return np.asarray((counts[0] != counts[1]).any(axis=1))

    def summary(self, answers: Outputs) -> Mapping[str, Array]:
        """Return, for each class, the sum of the scores and the best one, (N, C).

        Detections of nearly the same score may come in another order on another processor.
        """
        own = answers["labels"][..., None] == np.arange(len(self.names))
        scores = np.where(own, answers["scores"][..., None], 0.0)
        return {"sums": scores.sum(axis=1), "best": scores.max(axis=1, initial=0.0)}

    def taken(self, answers: Outputs) -> Array:
        """Return (N, K) which detections reach the threshold of their class."""
        labels, usual = answers["labels"], (USUAL_THRESHOLD,) * len(self.names)
        limits = np.array([*(self.thresholds or usual), np.inf])  # the last for -1
        return np.asarray(answers["scores"] >= limits[labels])

    def kept(self, answers: Outputs) -> list[Detections]:
        """Return, for each row, the detections that reach the threshold of their class."""
        every = zip(self.taken(answers), *(answers[n] for n in RAW), strict=True)
        return [Detections(b[own], s[own], c[own]) for own, b, s, c in every]

    def listed(self, answers: Outputs, row: int) -> list[dict[str, Any]]:
        """Return the detections of a row that reach their class' threshold, as JSON values."""
        return [
            {
                "label": self.names[answers["labels"][row, k]],
                "score": round(float(answers["scores"][row, k]), 6),
                "box": [round(float(v), 3) for v in answers["boxes"][row, k]],
            }
            for k in np.flatnonzero(self.taken(answers)[row]).tolist()
        ]

    def answer_at(self, answers: Outputs, row: int) -> str:
        """Return the numbers of a row's detections that count, such as "2 car, 1 sign"."""
        found = Counter(thing["label"] for thing in self.listed(answers, row))
        return ", ".join(f"{n} {name}" for name, n in sorted(found.items())) or "–"

    def check(self, answers: Outputs, y: Labels) -> None:
        boxes, scores, labels = (answers[name] for name in RAW)
        if not boxes.shape == (*scores.shape, 4) == (*labels.shape, 4):
            raise Mismatch(
                f"Detections are boxes (N, K, 4), scores (N, K) and labels (N, K); got "
                f"{boxes.shape}, {scores.shape} and {labels.shape}."
            )
        if labels.size and not -1 <= labels.min() <= labels.max() < len(self.names):
            raise Mismatch(f"Labels count from 0 to {len(self.names) - 1}, or are -1 for no box.")

    def columns(self, answers: Outputs) -> Mapping[str, Array]:
        """Return each row's number of detections; the boxes are no columns of a table.

        With thresholds only those count that reach them.
        """
        counted = self.taken(answers) if self.thresholds else answers["labels"] >= 0
        return {"detections": counted.sum(axis=1)}

    def written(self, answers: Outputs) -> Mapping[str, Array]:
        """Return the columns, and all detections of each row as JSON: corners, score, class."""
        found = [
            json.dumps(
                [
                    [*(float(str(v)) for v in (*box, score)), self.names[label]]
                    for box, score, label in zip(d.corners, d.scores, d.labels, strict=True)
                ],
                ensure_ascii=False,
            )
            for d in detections(answers)
        ]
        return {**self.columns(answers), "boxes": np.array(found, object)}

    def answers(self, columns: Mapping[str, Sequence[str]]) -> Outputs:
        place = {name: c for c, name in enumerate(self.names)}
        try:
            rows = [json.loads(cell) for cell in columns["boxes"]]
            numbers = [np.array([r[:5] for r in row], np.float32).reshape(-1, 5) for row in rows]
            labels = [np.array([place[r[5]] for r in row], np.int64) for row in rows]
        except (ValueError, TypeError, LookupError) as error:
            raise DataError(
                "Detections are read from a column boxes as a run writes it, JSON lists of "
                "corners, score and class; here is another one, or none."
            ) from error
        each = zip(numbers, labels, strict=True)
        return answers_of([Detections(n[:, :4], n[:, 4], c) for n, c in each])

    # ------------------------------------------------------------ evaluation
    def scored(self, answers: Outputs, y: BoxLabels) -> ScoredBoxes:
        """Return the detections of N examples, matched to their boxes; the last are remembered."""
        last = _SCORED.get(y)
        if last is None or last[0] is not answers["boxes"] or last[1].classes != len(self.names):
            last = answers["boxes"], ScoredBoxes(y, detections(answers), len(self.names))
            _SCORED[y] = last
        return last[1]

    def row_scores(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) AP of each example alone, 1 for one without boxes and detections."""
        return np.array([self._own(answers, y, i) for i in range(len(y))], np.float64)

    def _own(self, answers: Outputs, y: BoxLabels, row: int) -> float:
        one = {name: values[[row]] for name, values in answers.items()}
        value = self.scored(one, y[np.array([row])]).precision(EVERY)(np.zeros(1, np.int64))
        return float(not (one["labels"] >= 0).any()) if np.isnan(value) else value

    def merit(self, answers: Outputs, y: Labels) -> tuple[float, ...]:
        value = self.scored(answers, y).precision(EVERY)(np.arange(len(y)))
        return (-1.0 if np.isnan(value) else value,)

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        """Return mean average precision at overlaps of .5, .75 and .5 to .95, and recall."""
        scored = self.scored(answers, y)
        return {
            "AP50": resampled(len(y), scored.precision(AT_50)),
            "AP": resampled(len(y), scored.precision(EVERY)),
            "AP75": resampled(len(y), scored.precision(AT_75)),
            "recall50": resampled(len(y), scored.recall(AT_50)),
            "recall": resampled(len(y), scored.recall(EVERY)),
        }

    def tables(self, answers: Outputs, y: Labels) -> tuple[Table, ...]:
        """Return AP by class and by size, and what the thresholds let through, if there are any."""
        own = self._by_class(answers, y), self._by_size(answers, y)
        if not self.thresholds:
            return own
        return *own, self._at_threshold(answers, y), self._errors(answers, y)

    def _by_class(self, answers: Outputs, y: BoxLabels) -> Table:
        scored, counts, n = self.scored(answers, y), self._counts(y), len(y)
        rows = []
        for c, name in enumerate(self.names):
            own = scored.of_class(c)
            values = own.precision(AT_50), own.precision(EVERY), own.recall(AT_50)
            rows.append((name, *(resampled(n, value) for value in values), counts[name]))
        return Table(
            "by_class",
            "By class",
            ("class", "AP50", "AP", "recall50", "boxes"),
            tuple(rows),
            ("class", "AP50", "AP", "recall50", "boxes"),
        )

    def _by_size(self, answers: Outputs, y: BoxLabels) -> Table:
        scored, areas = self.scored(answers, y), y.boxes.areas[~y.boxes.ignored]
        rows = tuple(
            (name, resampled(len(y), scored.of_sizes(own)), _within(areas, own))
            for name, own in size_ranges(y).items()
        )
        keys = ("size", "AP", "boxes")
        return Table("by_size", "By the square root of the area", keys, rows, keys)

    def _at_threshold(self, answers: Outputs, y: BoxLabels) -> Table:
        judged, n = self.scored(answers, y).judged, len(y)
        kept = judged.reaching(self.thresholds)
        rows = tuple(
            (name, limit, *(resampled(n, value) for value in judged.of_class(c, kept)))
            for c, (name, limit) in enumerate(zip(self.names, self.thresholds, strict=True))
        )
        keys = ("class", "threshold", "precision", "recall", "f1")
        return Table("at_threshold", "At the threshold of each class", keys, rows, keys)

    def _errors(self, answers: Outputs, y: BoxLabels) -> Table:
        judged = self.scored(answers, y).judged
        counts = judged.by_row(judged.reaching(self.thresholds)).sum(axis=0).tolist()
        rows = tuple(
            (name, counts[kind], round(judged.cost(kind), 6)) for kind, name in enumerate(KINDS)
        )
        titles = ("error", "count", "AP50 it costs")
        return Table("errors", "Errors by kind", titles, rows, ("error", "count", "AP50_lost"))

    # ------------------------------------------------------------ files
    def settings(self) -> dict[str, Any]:
        own = {"canvas": list(self.canvas), "typical": self.typical}
        learned = own | {"thresholds": list(self.thresholds)} if self.thresholds else {}
        return {"names": list(self.names), **learned}

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> "BoxesTarget":
        saved.check_keys(settings, {"names"}, {"canvas", "typical", "thresholds"})
        canvas = saved.numbers(settings.get("canvas", (0, 0)), "canvas", 0, LARGEST)
        limits = saved.numbers(settings.get("thresholds", ()), "thresholds", 0, 1)
        typical, names = settings.get("typical", 1.0), saved.names(settings["names"])
        if len(canvas) != 2 or len(limits) not in (0, len(names)):
            raise SpecError("Boxes have a width and a height, and a threshold for each class.")
        sides = int(canvas[0]), int(canvas[1])
        return cls(names, sides, saved.number(typical, "typical", 0), limits)

    @property
    def noun(self) -> str:
        return "boxes"

    @property
    def described(self) -> str:
        n = len(self.names)
        return "boxes of 1 class" if n == 1 else f"boxes of {n} classes"


def _scores_of(found: Sequence[Detections], c: int) -> NDArray[np.float64]:
    """Return the scores of a class as `match` orders its detections: by falling score."""
    own = [np.sort(d.scores[d.labels == c])[::-1][:MAX_DETECTIONS] for d in found]
    scores = np.concatenate([np.zeros(0), *own])
    return np.asarray(-np.sort(-scores), np.float64)


def _best_threshold(matches: ClassMatches, scores: NDArray[np.float64]) -> float:
    hits, wrong = np.cumsum(matches.hits[0]), np.cumsum(matches.misses[0])
    total = int(matches.totals.sum())
    if not total or not len(hits) or not hits[-1]:
        return USUAL_THRESHOLD
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores are taken together
    f1 = np.where(last, 2 * hits / (hits + wrong + total), -1.0)
    at = int(f1.argmax())
    below = scores[at + 1] if at + 1 < len(scores) else 0.0
    return round(float(scores[at] + below) / 2, 6)


def detections(answers: Outputs) -> list[Detections]:
    """Return the answers of N examples, each without the places that hold no box."""
    each = zip(*(answers[name] for name in RAW), strict=True)
    return [Detections(b[c >= 0], s[c >= 0], c[c >= 0]) for b, s, c in each]


def answers_of(found: Sequence[Detections], most: int = MAX_DETECTIONS) -> dict[str, Array]:
    """Return detections as a target's answers: the `most` highest scores of each example.

    >>> answers_of([Detections(np.ones((1, 4)), np.ones(1), np.zeros(1, int))])["scores"].shape
    (1, 1)
    """
    wide = min(most, max(map(len, found), default=0))
    boxes = np.zeros((len(found), wide, 4), np.float32)
    scores, labels = np.zeros((len(found), wide), np.float32), np.full((len(found), wide), -1)
    for i, one in enumerate(found):
        order = np.argsort(-one.scores, kind="stable")[:most]
        boxes[i, : len(order)], scores[i, : len(order)] = one.corners[order], one.scores[order]
        labels[i, : len(order)] = one.labels[order]
    return {"boxes": boxes, "scores": scores, "labels": labels.astype(np.int64)}


def _within(areas: NDArray[np.float64], limits: tuple[float, float]) -> int:
    return int(((areas >= limits[0]) & (areas <= limits[1])).sum())
