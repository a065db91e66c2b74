"""The page that a run becomes: whole, safe with any name, in two languages, self-contained."""

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browsers import chromium
from PIL import Image

from headstart.base.atomic import write_json, write_text
from headstart.base.errors import DataError, UnknownName
from headstart.base.values import to_plain
from headstart.evaluation.evaluation import Estimate, evaluate
from headstart.evaluation.learning_curve import CurvePoint, LearningCurve
from headstart.modalities.images.augment import Augment
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.svg_drawing import SCALE
from headstart.modalities.images.thumbnails import SIDE, Album
from headstart.reporting.charts import axis
from headstart.reporting.comparison import against, contender, verdict
from headstart.reporting.diagnosis import Kind, compare_with_start, diagnose_curves
from headstart.reporting.facts import read_facts, spelt
from headstart.reporting.learning_curve import _would_help
from headstart.reporting.page import render, write_report
from headstart.reporting.words import LANGUAGES, Words, catalogue
from headstart.runs.folder import _csv
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions, write_csv
from headstart.training.history import HISTORY, Epoch

SECTIONS = (
    "answer data curves test why trust robustness compared more-data suspects map how".split()
)
HOSTILE = ('<script>alert("x")</script>', 'Tom & Jerry\'s "cat"')
NAMES = ("plain.png", '<img src=x onerror="alert(1)">.png', "a & b.png", "two\nlines.png")


# ---- a run folder, made by hand ----


def estimate(value: float, n: int = 40) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n}


def curve_lines(phase: str, first: int, losses: list[float], lr: float | None) -> list[list[Any]]:
    """Lines of history.csv: validation does a little worse than training."""
    return [
        [phase, first + i, "" if lr is None else lr, v, 1 - v / 2, v + 0.05, 0.97 - v / 2, 1.0]
        for i, v in enumerate(losses)
    ]


def pixels(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8))


def insights(paths: list[str], classes: tuple[str, ...]) -> dict[str, Any]:
    """Everything that may be in insights.json, made up."""
    bins = [{"low": 0.5, "high": 0.6, "n": 12, "confidence": 0.55, "accuracy": 0.5}]
    judged = {"ece": 0.06, "bins": bins}
    points = [
        {"rows": 20 * k, "accuracy": 0.7 + k / 50, "low": 0.6, "high": 0.8} for k in (1, 2, 3)
    ]
    gain = {"value": 0.03, "low": 0.01, "high": 0.05, "n": 40}
    return {
        "calibration": {
            "temperature": 1.31,
            "fitted_on": 40,
            "test": {"before": judged, "after": {**judged, "ece": 0.02}},
            "coverage": [[0.5, 0.99], [1.0, 0.87]],
        },
        "doubt": {
            "conformal": {"alpha": 0.1, "limit": 0.4, "coverage": estimate(0.9), "mean_size": 1.2},
            "distance": {"asked": 0.01, "limit": 0.8, "unknown": estimate(0.06)},
            "confidence": {
                "kind": "precision",
                "asked": 0.95,
                "limit": 0.8,
                "coverage": estimate(0.7),
                "precision": estimate(0.94),
            },
        },
        "compared": [
            {"a": "finetune", "b": "head", "on": "val", "gain": gain, "p": 0.012},
            {"a": "finetune", "b": "scratch:cnn from scratch", "on": "test", "gain": gain, "p": 0},
        ],
        "learning_curve": {
            "judged_on": "val",
            "n": 40,
            "points": points,
            "projection": {"rows": 120, "accuracy": 0.9, "low": 0.85, "high": 0.95},
        },
        "mistakes": {
            "found": 1,
            "of": 40,
            "rows": [
                {"path": paths[0], "label": classes[0], "suggested": classes[1], "score": 0.93}
            ],
        },
        "outliers": [{"path": paths[1], "label": classes[1], "distance": 0.7, "nearest": paths[0]}],
        "map": {
            "maps": {"PCA": [[0, 1], [1, 0], [2, 2]], "t-SNE": [[0, 0], [5, 5], [9, 0]]},
            "paths": paths[:3],
            "labels": [classes[0], classes[1], classes[0]],
            "parts": ["train", "val", "test"],
        },
    }


def robustness(n: int = 40) -> dict[str, Any]:
    """A whole robustness.json, made up: 80 % right as it is, 10 % under attack."""
    moved = {"same": 0.4, "own": 0.7}
    levels = {0: 0.8, 2: 0.1, 8: 0.05}
    return {
        "rows": n,
        "finished": True,
        "plan": {"steps": 20},
        "neighbours": {"nearest": 10, "of": 60},
        "attacked": [
            {"levels": e, "accuracy": estimate(v, n), "neighbours": moved}
            for e, v in levels.items()
        ],
        "corrupted": [
            {"name": name, "strength": s, "accuracy": estimate(v - s / 20, n), "neighbours": moved}
            for name, v in (("fog", 0.75), ("jpeg_compression", 0.85))
            for s in (1, 2, 3, 4, 5)
        ],
    }


def explained(paths: list[str], classes: tuple[str, ...]) -> dict[str, Any]:
    """explained.json of two pictures of the first class: one that was called so, one not."""
    grid = [[127, -127], [0, 0]]
    areas = ({"ours": 0.2, "random": 0.5}, {"ours": 0.6, "random": 0.5})
    return {
        "rows": [
            {
                "path": path,
                "label": classes[0],
                "class": name,
                "score": 0.93,
                "map": grid,
                "deletion": {"area": area},
            }
            for path, name, area in zip(paths, classes, areas, strict=False)
        ]
    }


def make_run(
    folder: Path,
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    names: tuple[str, ...] = ("a.png", "b.png", "c.png"),
    augment: Augment | None = None,
    with_insights: bool = True,
    val: bool = True,
) -> tuple[Path, dict[str, Path]]:
    """A finished run of a few pictures in `classes`, and where its pictures are."""
    rng = np.random.default_rng(0)
    rows, sources = list[tuple[str, str, str]](), dict[str, Path]()
    (folder / "pictures").mkdir(parents=True)
    for part in ("train", "val", "test") if val else ("train", "test"):
        for name in names:
            for c, label in enumerate(classes):
                path = f"{part}/{c}/{name}"
                sources[path] = folder / "pictures" / f"{len(rows)}.png"
                pixels(rng).save(sources[path])
                rows.append((path, label, part))
    run = folder / "run"
    write_text(run / "splits.csv", _csv(("path", "label", "part"), rows))
    _write_results(run, rows, classes, augment)
    if with_insights:
        paths = [path for path, *_ in rows]
        write_json(run / "insights.json", insights(paths, classes))
        write_json(run / "robustness.json", robustness())
        write_json(run / "explained.json", explained(paths, classes))
    return run, sources


def _write_results(
    run: Path, rows: list[tuple[str, str, str]], classes: tuple[str, ...], augment: Augment | None
) -> None:
    test = [(path, label) for path, label, part in rows if part == "test"]
    labels = np.array([classes.index(label) for _, label in test])
    scores = np.full((len(test), len(classes)), 0.2 / (len(classes) - 1), np.float32)
    scores[np.arange(len(test)), (labels + (np.arange(len(test)) == 1)) % len(classes)] = 0.8
    said = Predictions(tuple(path for path, _ in test), scores, labels, classes)
    judged = evaluate(said, ClassTarget(classes, classes[0]), resamples=50).to_plain()
    write_csv(said, run / "predictions.csv")
    write_json(
        run / "evaluation.json",
        {
            "test": judged,
            "val": judged,
            "kept": "finetune",
            "candidates_on_val": {"head": judged, "finetune": judged},
            "baselines_on_test": {"scratch:cnn from scratch": judged},
        },
    )
    history = [
        *curve_lines("head", 1, [0.5], None),
        *curve_lines("finetune", 1, [0.45], None),
        *curve_lines("finetune", 2, [0.4, 0.3, 0.25, 0.2], 1e-3),
    ]
    write_text(run / "history.csv", _csv(HISTORY, history))
    phase = {"trainable": {"parameters": 2562}, "frozen": {"parameters": 3000}}
    recipe = {
        "data": "",
        "backbone": "tiny:32",
        "recipe": {"kind": "FeatureExtraction", "head": "logistic"},
        "augment": to_plain(augment or Augment()),
        "seed": 0,
        "device": "cpu",
        "phases": {"head": phase, "finetune": phase},
        "versions": {"python": "3.11.7", "headstart": "0.1.0"},
    }
    write_json(run / "recipe.json", recipe)
    two = [rows[0][0], rows[1][0]]
    checks = {
        "counts": {},
        "unreadable": [{"path": "bad & worse.png", "reason": "the file is empty (0 bytes)"}],
        "near_duplicates": [two],
        "two_labels": {"exact": [], "near": [[*two, 0.99]]},
    }
    write_json(run / "checks.json", checks)
    timings = {"seconds": {"features": 3.0, "unheard of": 1.0}, "total_seconds": 4.0}
    write_json(run / "timings.json", {**timings, "examples_per_second": 131.7})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def page(made: tuple[Path, dict[str, Path]]) -> str:
    return write_report(*made).read_text(encoding="utf-8")


# ---- looking at a page ----

# Elements beyond the right edge of the screen; a large matrix scrolls in a frame of its own.
TOO_WIDE = """[...document.querySelectorAll("main *, header *, footer *")]
  .filter((e) => !e.closest("svg") && !e.closest(".confusion.small"))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => `${e.tagName}.${e.className}`)"""


class Looking(HTMLParser):
    """The sections, pictures and scripts of a page, and the text a reader sees that is ours."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections, self.pictures, self.tags = list[str](), list[str](), list[str]()
        self.ours, self.theirs, self.json = list[str](), list[str](), ""
        self.stack = list[tuple[str, bool]]()  # a tag, and whether its text is not ours
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append(tag)
        if tag == "section":
            self.sections.append(told.get("id") or "")
        if tag == "img" and told.get("src") != "data:,":  # where an enlarged picture will be
            self.pictures.append(told.get("src") or "")
        if tag not in self.VOID:
            outside = bool(self.stack) and self.stack[-1][1]
            self.stack.append((tag, outside or told.get("translate") == "no" or tag == "style"))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, outside = self.stack[-1] if self.stack else ("", False)
        if tag == "script":
            self.json = data if data.startswith("{") else self.json
        else:
            (self.theirs if outside else self.ours).append(data)


def test_every_section_is_there_in_order(page: str) -> None:
    assert Looking(page).sections == SECTIONS


def test_a_run_without_insights_has_every_section_and_says_why(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path, with_insights=False)
    looked = Looking(write_report(run, sources).read_text())
    assert looked.sections == SECTIONS
    text = " ".join(looked.ours)
    for key in ("trust.none", "compared.none", "more.none", "suspects.mistakes_none", "map.none"):
        assert catalogue("en")[key] in text


def part_of(page: str, section: str) -> str:
    return page.split(f'<section id="{section}">')[1].split("</section>")[0]


def test_what_was_not_tried_says_which_command_tries_it(tmp_path: Path) -> None:
    page = write_report(*make_run(tmp_path, with_insights=False)).read_text()
    assert "headstart robustness RUN" in part_of(page, "robustness")
    assert "headstart explain RUN" in part_of(page, "why")


def test_robustness_is_told_in_words_by_the_change_that_nobody_sees(page: str) -> None:
    told = part_of(page, "robustness")
    assert "80.0%" in told
    assert "2 of 255 levels, which nobody sees" in told
    assert "leaves 10.0%" in told
    assert catalogue("en")["robust.fragile"].split(":")[0] in told
    assert "fog harms most (60.0%" in told
    assert "JPEG compression least (70.0%" in told


def test_a_model_that_holds_is_not_called_fragile(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    for left, word in ((0.75, "firm"), (0.4, "partly"), (0.1, "fragile")):
        told = robustness()
        told["attacked"] = [
            {"levels": e, "accuracy": estimate(v), "neighbours": None}
            for e, v in ((0, 0.8), (4, left))
        ]
        write_json(run / "robustness.json", told)
        page = part_of(write_report(run, sources).read_text(), "robustness")
        assert catalogue("en")["robust." + word].split(".")[0].split(":")[0] in page, word
        assert "nobody sees" not in page


def test_what_always_naming_the_commonest_class_would_get_is_not_called_firm(
    tmp_path: Path,
) -> None:
    run, sources = make_run(tmp_path)
    told = robustness()
    told["attacked"] = [
        {"levels": e, "accuracy": estimate(v), "neighbours": None} for e, v in ((0, 0.8), (2, 0.7))
    ]
    write_json(run / "robustness.json", told)
    for guess, word in ((0.3, "firm"), (0.69, "partly")):
        evaluation = json.loads((run / "evaluation.json").read_text())
        evaluation["test"]["baseline"] = {"majority": "cat", "accuracy": estimate(guess)}
        write_json(run / "evaluation.json", evaluation)
        page = part_of(write_report(run, sources).read_text(), "robustness")
        assert catalogue("en")["robust." + word].split(".")[0] in page


def test_what_was_cut_off_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    whole = robustness()
    for corrupted in (whole["corrupted"][:7], whole["corrupted"][:0]):
        for attacked in (whole["attacked"], whole["attacked"][:1]):
            some = {"finished": False, "corrupted": corrupted, "attacked": attacked}
            write_json(run / "robustness.json", {**whole, **some})
            page = part_of(write_report(run, sources).read_text(), "robustness")
            assert "stopped before its end" in page
            assert ("Accuracy under attack" in page) == (len(attacked) > 1)
            assert ("Everyday damage" in page) == bool(corrupted)
            assert "JPEG compression least" not in page  # of which the middle strength is missing


def test_maps_lie_over_mistakes_first_and_are_judged(page: str) -> None:
    told = part_of(page, "why")
    assert "This holds for 1 of 2 pictures" in told
    assert catalogue("en")["why.distrust"] in told
    assert told.count('<strong class="doubt">') == 1
    wrong, right = told.split(catalogue("en")["why.right"])
    assert wrong.count("<img") == right.count("<img") == 2
    assert "✗</span> wrong" in wrong
    assert "✓</span> right" in right


def test_a_map_is_red_where_it_speaks_for_and_blue_where_against(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (128, 128, 128)).save(tmp_path / "grey.png")
    album = Album({"grey": tmp_path / "grey.png"})
    values = np.array([[1, -1], [0, 0]], np.float32)
    seen, over = album.explained("grey", ImageInput(32, 32, fit="squash"), values)
    plain, drawn = (opened(uri).astype(int) for uri in (seen, over))
    assert plain.shape == drawn.shape == (SIDE, SIDE, 3)
    assert np.ptp(plain) < 8
    red, blue = drawn[10, 10], drawn[10, SIDE - 12]
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert np.ptp(drawn[SIDE - 7, SIDE // 2]) < 20
    assert album.explained("gone", ImageInput(32, 32), values) == ("", "")


def opened(uri: str) -> np.ndarray[Any, Any]:
    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.long
def test_insights_may_be_null_one_by_one(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    whole = json.loads((run / "insights.json").read_text())
    for key in whole:
        write_json(run / "insights.json", {**whole, key: None})
        assert Looking(write_report(run, sources).read_text()).sections == SECTIONS


def test_limits_that_validation_could_not_tell_are_not_told_as_kept(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    told = json.loads((run / "insights.json").read_text())
    for limit in told["doubt"].values():
        limit["limit"] = None
    write_json(run / "insights.json", told)
    page = write_report(run, sources).read_text()
    assert "Validation is too small to rule any class out." in page
    assert "Validation is too small to tell which pictures are unlike" in page
    assert "were called unknown" not in page
    assert "no limit of the score reaches it reliably" in page


def test_a_run_that_was_not_scaled_is_not_told_as_scaled(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    told = json.loads((run / "insights.json").read_text())
    told["calibration"]["fitted_on"] = 0
    write_json(run / "insights.json", told)
    page = write_report(run, sources).read_text()
    assert "They were not scaled" in page
    assert "scaled by the temperature" not in page


def test_a_difference_that_may_be_chance_is_a_tie() -> None:
    gain = Estimate(0.010, 0.003, 0.021, 390)  # four rows, all one way
    assert verdict(gain, 0.125) == "tie"
    assert verdict(gain, 0.01) == "better"
    assert verdict(Estimate(-0.1, -0.2, -0.05, 390), 0.01) == "worse"
    assert verdict(Estimate(0.1, -0.01, 0.2, 390), 0.01) == "tie"


def test_the_page_is_the_same_for_the_same_files(made: tuple[Path, dict[str, Path]]) -> None:
    assert render(read_facts(*made)) == render(read_facts(*made))


def test_names_that_look_like_markup_stay_names(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path, classes=HOSTILE, names=NAMES)
    page = write_report(run, sources).read_text()
    looked, clean = Looking(page), Looking(write_report(*make_run(tmp_path / "clean")).read_text())
    assert looked.tags.count("script") == clean.tags.count("script")
    assert all(picture.startswith("data:image/webp;base64,") for picture in looked.pictures)
    assert "<script>alert" not in page
    for name in (*HOSTILE, *NAMES):
        assert any(name in text for text in looked.theirs)


def test_names_reach_the_map_whole(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path, classes=HOSTILE, names=NAMES)
    told = json.loads(Looking(write_report(run, sources).read_text()).json)
    assert told["names"] == list(HOSTILE)
    assert told["paths"] == list(sources)[:3]


def test_a_name_that_is_not_utf8_finds_its_picture(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path, names=("\udc80.png",), classes=("\udcffcat", "dog"))
    page = write_report(run, sources).read_text(encoding="utf-8")
    assert "\\udc80.png" in page
    assert "\\udcffcat" in page
    assert 'class="blank"' not in page


def test_missing_pictures_leave_frames_and_are_counted(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    gone = [path for path in sources if path.startswith("train/")]
    sources[gone[0]].unlink()
    sources[gone[1]].write_bytes(b"no picture")
    del sources[gone[2]]
    page = write_report(run, sources).read_text()
    assert str(Words("en")("page.missing", n=3)) in page
    assert page.count('class="blank"') >= 3


def test_a_run_with_no_pictures_at_all_still_has_a_page(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, augment=Augment(flip="horizontal"))
    looked = Looking(write_report(run, {}).read_text())
    assert looked.sections == SECTIONS
    assert looked.pictures == []


def blank_validation(run: Path) -> None:
    """As if nothing had been measured there."""
    history = (run / "history.csv").read_text().splitlines()
    blank = [re.sub(r"^((?:[^,]*,){5})[^,]*,[^,]*,", r"\1,,", line) for line in history[1:]]
    write_text(run / "history.csv", "\n".join([history[0], *blank]) + "\n")


def test_validation_may_be_empty(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path, val=False, with_insights=False)
    blank_validation(run)
    assert read_facts(run, sources).history[-1].val_loss is None
    assert Looking(write_report(run, sources).read_text()).sections == SECTIONS


def test_the_start_of_fine_tuning_is_marked(page: str) -> None:
    assert page.count('<line class="start"') == 2  # accuracy and loss
    assert catalogue("en")["reading.still learning"] in page


@pytest.mark.parametrize(
    ("losses", "kind"),
    [
        ([0.5, 0.4, 0.3], "lowered"),
        ([0.5, 0.4, 0.6], "turned"),
        ([0.5, 0.55, 0.6], "raised"),
        ([0.5, 0.501, 0.499], "same"),
    ],
)
def test_fine_tuning_is_compared_with_its_own_start(losses: list[float], kind: str) -> None:
    start = Epoch("finetune", 3, None, 0.1, 0.1, losses[0], 0.1)
    after = [Epoch("finetune", 4 + i, 1e-3, 0.1, 0.1, v, 0.1) for i, v in enumerate(losses[1:])]
    head = Epoch("head", 2, 1e-3, 0.1, 0.1, 9.0, 0.1)
    moved = compare_with_start([head, start, *after])
    assert moved is not None
    assert (moved.kind, moved.start, moved.best) == (kind, losses[0], min(losses[1:]))
    assert compare_with_start([head, *after]) is None  # not measured before


def test_the_sentence_under_the_curves_names_the_start(page: str) -> None:
    said = part_of(page, "curves")
    assert "lowered the validation loss from 0.500 before its first step to 0.250" in said


def test_the_axis_of_small_losses_names_each_tick_differently(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    with (run / "history.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for i, line in enumerate(lines):
        line |= {f"{part}_loss": str(0.0001 * (i + 1)) for part in ("train", "val")}
    with (run / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)
    chart = re.findall(r"<svg.*?</svg>", part_of(write_report(run, sources).read_text(), "curves"))
    ticks = re.findall(r'class="tick"[^>]*text-anchor="end">([^<]+)<', chart[-1])
    assert len(ticks) > 2
    assert len(set(ticks)) == len(ticks)


def test_a_warning_stands_first_if_weights_were_random_or_calibration_ended_at_its_bound(
    tmp_path: Path, page: str
) -> None:
    assert 'class="warning"' not in page.split("</header>")[0]
    run, sources = make_run(tmp_path)
    recipe, told = (json.loads((run / f).read_text()) for f in ("recipe.json", "insights.json"))
    write_json(run / "recipe.json", recipe | {"weights": {"asked": "random", "origin": "random"}})
    told["calibration"]["temperature"] = 20.0
    write_json(run / "insights.json", told)
    top = write_report(run, sources).read_text().split("</header>")[0]
    assert "began with random weights" in top
    assert "Calibration ended at its limit, the temperature 20.00" in top


def test_curves_of_training_against_attacks_say_that_they_are(tmp_path: Path, page: str) -> None:
    run, sources = make_run(tmp_path)
    told = str(Words("en")("curves.attacked", reach="2/255"))
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | {"finetune": {"adversarial": 2 / 255}}))
    assert told in write_report(run, sources).read_text()
    assert told not in page
    history = (run / "history.csv").read_text()
    alone = [line for line in history.splitlines() if not line.startswith("head")]
    (run / "history.csv").write_text("\n".join(alone).replace("finetune", "scratch"))
    assert told in write_report(run, sources).read_text()


def test_attacked_curves_without_validation_are_not_read(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    blank_validation(run)
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | {"finetune": {"adversarial": 2 / 255}}))
    told = part_of(write_report(run, sources).read_text(), "curves")
    readings = [text for key, text in catalogue("en").items() if key.startswith("reading.")]
    assert not any(text.split(":")[0] in told for text in readings)


def test_views_are_drawn_when_there_is_augmentation(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    run, sources = make_run(tmp_path / "a", augment=Augment(flip="both", quarter_turns=True))
    plain, plain_sources = make_run(tmp_path / "b")
    assert str(Words("en")("data.view", i=11)) in write_report(run, sources).read_text()
    assert catalogue("en")["data.no_augment"] in write_report(plain, plain_sources).read_text()


def test_right_and_wrong_are_told_in_words_and_signs(page: str) -> None:
    assert "✓</span> right" in page
    assert "✗</span> wrong" in page


def test_numbers_of_the_answer_are_those_of_the_run(
    made: tuple[Path, dict[str, Path]], page: str
) -> None:
    test = json.loads((made[0] / "evaluation.json").read_text())["test"]
    answer = page.split('<section id="answer">')[1].split("</section>")[0]
    for number in (test["accuracy"]["value"], test["baseline"]["accuracy"]["low"]):
        assert f"{100 * number:.1f}" in answer
    assert "7.6 ms" in answer  # 131.7 a second


def test_folders_that_are_no_finished_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finished run"):
        read_facts(tmp_path, {})
    run, sources = make_run(tmp_path / "made")
    for name in ("recipe.json", "splits.csv", "history.csv", "predictions.csv", "evaluation.json"):
        broken = tmp_path / "broken" / name
        shutil.copytree(run, broken)
        (broken / name).write_text("[1, 2")
        with pytest.raises(DataError, match=re.escape(name)) as error:
            write_report(broken, sources)
        assert "\n" not in str(error.value)
        assert not (broken / "report.html").exists()


def test_files_of_another_shape_are_refused_in_a_sentence(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    bad: list[Any] = [{"map": {"maps": 3, "paths": ["a"]}}, {"compared": [{}]}, {"doubt": [1]}]
    for wrong in bad:
        write_json(run / "insights.json", wrong)
        with pytest.raises(DataError, match="is not what a run writes"):
            write_report(run, sources)
    assert not (run / "report.html").exists()


def test_a_run_whose_kind_of_input_is_not_installed_still_has_a_page(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    card = {"kind": "Card", "name": "rows", "architecture": "mine:rows", "dim": 4}
    write_json(run / "model" / "card.json", card | {"origin": "random", "input": {"kind": "odd"}})
    assert Looking(write_report(run, sources).read_text()).sections == SECTIONS
    write_json(run / "model" / "card.json", card | {"dim": "four"})
    with pytest.raises(DataError, match="card.json"):
        write_report(run, sources)


# ---- many classes ----


def test_grids_are_limited_with_many_classes(tmp_path: Path) -> None:
    names = tuple(f"{i}.png" for i in range(4))
    classes = tuple(f"class {c}" for c in range(37))
    run, sources = make_run(tmp_path, classes=classes, names=names)
    page = write_report(run, sources).read_text()
    samples = page.split(catalogue("en")["data.samples"])[1].split("<h3>")[0]
    assert 37 <= samples.count("<figure") <= 48
    assert all(f">{name}</span>" in samples for name in classes)
    assert page.count('<th scope="row"') == 37
    assert len(page) < 5_000_000


def test_thumbnails_are_small_whatever_the_picture(tmp_path: Path) -> None:
    big = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(big).save(tmp_path / "big.jpg")
    album = Album({"big": tmp_path / "big.jpg"})
    assert 0 < len(album.picture("big")) < 16_000
    sheet = album.sheet(["big", "gone", "big"])
    assert sheet is not None
    assert sheet.held == (True, False, True)


# ---- words ----


def fields(text: str) -> set[str]:
    return {name for _, name, *_ in Formatter().parse(text) if name}


def test_both_catalogues_have_the_same_keys_and_gaps() -> None:
    english, russian = catalogue("en"), catalogue("ru")
    assert english.keys() == russian.keys()
    for key, text in english.items():
        forms = [*text.split("|"), *russian[key].split("|")]
        assert len({frozenset(fields(form)) for form in forms}) == 1, key


LATIN = {"Headstart", "AUROC", "F1", "JPEG", "PGD", "torchvision", "mAP", "MAE", "RMSE", "R²"}
LATIN |= {"AP50", "COCO", "EXIF", "TIDE", "UTC", "VOC", "seed"}


def test_russian_texts_are_russian() -> None:
    for key, text in catalogue("ru").items():
        words = re.sub(r"\{\w+\}", "", text)
        assert not any(c.isalpha() for c in words) or re.search("[А-яё]", words), key
        latin = re.findall(r"[A-Za-z]\w*", words)
        assert set(latin) <= LATIN | {"p"}, key
        assert not re.search(r"[A-Za-z]+ [A-Za-z]+", words), key


def test_russian_counts_have_three_forms() -> None:
    w = Words("ru")
    said = [str(w("count.pictures", n=n)) for n in (1, 2, 5, 11, 21, 22, 112, 1234)]
    ends = [text.split(" ")[-1] for text in said]
    assert ends == [
        "снимок",
        "снимка",
        "снимков",
        "снимков",
        "снимок",
        "снимка",
        "снимков",
        "снимка",
    ]


def test_the_russian_page_has_no_english_left(made: tuple[Path, dict[str, Path]]) -> None:
    looked = Looking(render(read_facts(*made), "ru"))
    for text in looked.ours:
        latin = set(re.findall(r"[A-Za-z]\w*", text))
        assert latin <= LATIN | {"p"}, text
    assert len(re.findall("[а-яё]+", " ".join(looked.ours))) > 500


def test_russian_words_are_those_of_the_field() -> None:
    texts, w = catalogue("ru"), Words("ru")
    wrong = ("Проверочн", "добавка эпох", "в эпоху", "устройством", "начальное число", "виды при")
    assert [key for key, text in texts.items() if any(word in text for word in wrong)] == []
    short = re.compile("доля верных(?! ответов| среди)", re.IGNORECASE)
    assert [key for key, text in texts.items() if short.search(text)] == []
    pair = w("compared.pair", a=contender(w, "finetune"), b=against(w, "head"))
    assert pair == "дообученная сеть против одной головы"


def test_every_stage_of_a_run_has_a_name_in_both_languages() -> None:
    package = Path(write_report.__code__.co_filename).parents[1]
    sources = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    names = {name for text in sources for name in re.findall(r'clock\("([\w-]+)"\)', text)}
    assert len(names) > 15
    assert {f"stage.{name}" for name in names} <= catalogue("en").keys()


def test_other_languages_are_refused(made: tuple[Path, dict[str, Path]]) -> None:
    with pytest.raises(UnknownName, match="fr"):
        render(read_facts(*made), "fr")


# ---- reading curves ----


def curve(
    train: np.ndarray[Any, Any],
    val: np.ndarray[Any, Any] | None,
    accuracy: float = 0.95,
    behind: float = 0.03,
) -> list[Epoch]:
    """Trained epochs; accuracy at its end is `accuracy`, and validation's is `behind` it."""
    rising = np.linspace(0.3, 1.0, len(train)) ** 0.3 * accuracy
    return [
        Epoch("finetune", i, None, float(train[0]), 0.3, None, None) if i == 0 else
        Epoch(
            "finetune", i, 1e-3, float(train[i - 1]), float(rising[i - 1]),
            None if val is None else float(val[i - 1]),
            None if val is None else float(rising[i - 1]) - behind,
        )
        for i in range(len(train) + 1)
    ]  # fmt: skip


def made_up(kind: Kind, n: int, rng: np.random.Generator) -> list[Epoch]:
    """Curves of a kind, n epochs long, with noise."""
    t = np.arange(n) / n
    noise = rng.normal(1, 0.01, (2, n))
    down = 0.3 + 0.9 * np.exp(-6 * t)
    if kind == "still learning":
        return curve((1.2 - 0.7 * t) * noise[0], (1.3 - 0.6 * t) * noise[1])
    if kind == "plateau":
        return curve((0.3 + np.exp(-14 * t)) * noise[0], (0.4 + np.exp(-14 * t)) * noise[1])
    if kind == "over-fitting":
        return curve(1.2 * np.exp(-3 * t) * noise[0], (0.5 + 2 * (t - 0.3) ** 2) * noise[1])
    if kind == "under-fitting":
        flat = 0.68 + 0.02 * np.exp(-9 * t)
        return curve(flat * noise[0], flat * noise[1], accuracy=0.56)
    if kind == "diverged":
        return curve((down + 4 * np.maximum(0, t - 0.4)) * noise[0], (down + 4 * t) * noise[1])
    return curve(down[:2], down[:2])


@pytest.mark.parametrize("epochs", [8, 12, 30])
@pytest.mark.parametrize(
    "kind",
    ["still learning", "plateau", "over-fitting", "under-fitting", "diverged", "too short"],
)
def test_curves_of_each_kind_are_named(kind: Kind, epochs: int) -> None:
    for seed in range(20):
        lines = made_up(kind, epochs, np.random.default_rng(seed))
        assert diagnose_curves(lines).kind == kind, seed


def test_a_loss_that_is_no_number_or_jumps_has_diverged() -> None:
    smooth = np.linspace(1.0, 0.5, 9)
    broken, jumping = smooth.copy(), smooth.copy()
    broken[6] = np.nan
    jumping[[3, 6]] += 1.0
    assert diagnose_curves(curve(smooth, smooth)).kind == "still learning"
    assert diagnose_curves(curve(broken, smooth)).kind == "diverged"
    assert diagnose_curves(curve(jumping, smooth)).kind == "diverged"


def test_a_steep_fall_to_the_end_is_no_rise() -> None:
    steep = np.linspace(0.6, 0.01, 10)
    assert diagnose_curves(curve(steep, steep + 0.01)).kind == "still learning"


def test_a_loss_of_next_to_nothing_has_nothing_left_to_learn() -> None:
    tiny = np.linspace(0.004, 0.002, 10)
    assert diagnose_curves(curve(tiny, tiny)).kind == "plateau"


def test_a_fall_within_the_scatter_is_none() -> None:
    steps = np.array([0.5, 0.3] * 6)  # a line through its last half falls, by no more than chance
    assert diagnose_curves(curve(np.full(12, 0.4), steps)).kind == "plateau"


def test_a_gap_between_training_and_validation_is_over_fitting() -> None:
    train, val = np.linspace(0.6, 0.01, 10), np.full(10, 0.7)
    assert diagnose_curves(curve(train, val, accuracy=0.99, behind=0.25)).kind == "over-fitting"
    assert diagnose_curves(curve(train, val, accuracy=0.99, behind=0.05)).kind == "plateau"


def test_without_validation_training_is_read() -> None:
    assert diagnose_curves(curve(np.linspace(1.0, 0.4, 10), None)).kind == "still learning"
    assert diagnose_curves(curve(np.full(10, 0.4), None)).kind == "plateau"


def test_guessing_decides_what_is_low() -> None:
    flat = curve(np.full(10, 0.5), np.full(10, 0.5), accuracy=0.72)
    assert diagnose_curves(flat).kind == "plateau"
    assert diagnose_curves(flat, guess=0.7).kind == "under-fitting"
    assert diagnose_curves(flat, guess=0.03).kind == "plateau"


def test_only_the_last_phase_is_read() -> None:
    head = [Epoch("head", i, 1e-3, 1.0 - i / 10, 0.8, 1.0 - i / 10, 0.8) for i in range(8)]
    assert diagnose_curves(head).kind == "still learning"
    flat = curve(np.full(8, 0.3), np.full(8, 0.3))
    assert diagnose_curves([*head, *flat]).kind == "plateau"
    assert diagnose_curves([*head, *flat[:3]]).kind == "too short"


def test_of_training_against_growing_attacks_only_validation_is_read() -> None:
    """Its loss rises with them, and its accuracy is of pictures that no one else is shown."""
    risen, falling = np.array([0.42, 0.50, 0.58, 0.57, 0.56]), np.linspace(1.2, 0.6, 5)
    lines = curve(risen, falling, accuracy=0.7)
    assert diagnose_curves(lines, guess=0.687).kind == "diverged"
    assert diagnose_curves(lines, guess=0.687, attacked=True).kind == "still learning"
    flat = curve(np.full(5, 0.6), np.full(5, 0.6), accuracy=0.7)
    assert diagnose_curves(flat, guess=0.687).kind == "under-fitting"
    assert diagnose_curves(flat, guess=0.687, attacked=True).kind == "plateau"


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 1.0], [0.851, 0.853], [float("nan")], [3.0, 170.0]]
)
def test_axes_hold_their_values(values: list[float]) -> None:
    made = axis("", values, str)
    assert made.low < made.high
    assert all(made.low <= v <= made.high for v in values if v == v)


def test_an_axis_of_shares_ends_at_all_of_them() -> None:
    assert axis("", [1.0, 1.0], str).high == 1.0
    assert axis("", [0.0, 0.93], str).low == 0.0
    assert axis("", [3.0, 3.0], str).high > 3.0


def test_surrogates_are_spelt_out() -> None:
    assert spelt("caf\udce9/é.png") == "caf\\udce9/é.png"


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("names", ["plain", "hostile"])
def test_a_browser_shows_it_whole_and_asks_for_nothing(
    tmp_path: Path, browser: Any, width: int, names: str
) -> None:
    long = ("a" * 120, *HOSTILE)
    run, sources = make_run(tmp_path, classes=long, names=NAMES) if names == "hostile" else (
        make_run(tmp_path)
    )  # fmt: skip
    shown = browser.new_page(viewport={"width": width, "height": 800})
    said, asked = list[str](), list[str]()
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: said.append(dialog.message))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(write_report(run, sources).as_uri())
    assert [s.get_attribute("id") for s in shown.query_selector_all("section")] == SECTIONS
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate(TOO_WIDE) == []
    assert [url for url in asked if not url.startswith("data:")] == asked[:1]
    assert said == []
    shown.close()


@pytest.mark.long
def test_a_picture_enlarges_by_keyboard_and_closes_again(
    made: tuple[Path, dict[str, Path]], browser: Any
) -> None:
    shown = browser.new_page(viewport={"width": 390, "height": 800})
    shown.goto(write_report(*made).as_uri())
    first = shown.locator(".zoom").first
    first.focus()
    shown.keyboard.press("Enter")
    large = shown.locator("dialog img")
    assert large.is_visible()
    assert large.get_attribute("src") == first.locator("img").get_attribute("src")
    assert (
        large.get_attribute("alt")
        == first.locator("img").get_attribute("alt")
        == "cat, train/0/a.png"
    )
    shown.keyboard.press("ArrowRight")
    assert large.get_attribute("alt") == "cat, train/0/b.png"
    shown.keyboard.press("Escape")
    assert not large.is_visible()
    shown.close()


def test_the_map_names_the_picture_under_the_pointer(
    made: tuple[Path, dict[str, Path]], browser: Any
) -> None:
    shown = browser.new_page(viewport={"width": 1000, "height": 800})
    shown.goto(write_report(*made).as_uri())
    mark = shown.locator(".view:not(.off) use").nth(2)
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    assert shown.locator(".tip .path").inner_text() == list(made[1])[2]
    assert shown.locator(".tip .tile").count() == 1
    shown.locator("[data-view='1']").click()
    assert shown.locator(".view:not(.off) .name").text_content() == "t-SNE"
    shown.locator("[data-group='1']").click()
    assert shown.locator(".view:not(.off) use.dim").count() == 2
    shown.close()


def test_pictures_have_texts_and_tables_name_the_columns_of_their_cells(page: str) -> None:
    assert 'alt=""></button>' not in page
    cell = part_of(page, "test").split('<td role="cell" data-label="recall"><div>')[1]
    assert re.match(r"[\d.]+%", cell)


def test_the_charts_are_files_of_their_own(made: tuple[Path, dict[str, Path]]) -> None:
    write_report(*made)
    folder = made[0] / "figures"
    names = {"accuracy", "loss", "confusion", "reliability", "coverage", "learning-curve"}
    assert {path.stem for path in folder.glob("*.svg")} == names
    for path in folder.glob("*.svg"):
        drawing = ElementTree.parse(path).getroot()
        assert [e.tag for e in drawing.iter() if "image" in e.tag or "script" in e.tag] == []
        with Image.open(path.with_suffix(".png")) as picture:
            width, height = (float(drawing.attrib[side]) for side in ("width", "height"))
            assert picture.size == (round(SCALE * width), round(SCALE * height))
            colours = {colour for _, colour in picture.getcolors(10**6) or []}
            assert {(255, 255, 255), (0, 103, 168)} <= colours, path


def test_a_reliability_bin_shows_its_count_and_its_interval(page: str) -> None:
    chart = part_of(page, "trust").split('<svg class="chart"')[1].split("</svg>")[0]
    assert ">12</text>" in chart
    assert chart.count('<line class="range"') == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_whether_more_data_helps_is_told_in_each_case(language: str) -> None:
    points = (CurvePoint(20, 0.61, 0.5, 0.7), CurvePoint(40, 0.72, 0.6, 0.8))
    seen = LearningCurve("val", 30, points)
    ahead = CurvePoint(80, 0.79, 0.73, 0.85)
    w, told = Words(language), {}
    for key, curve in {
        "seen": seen,
        "unclear": replace(seen, rises=False, projection=ahead),
        "yes": replace(seen, projection=ahead),
        "perhaps": replace(seen, projection=replace(ahead, low=0.7)),
        "hardly": replace(seen, projection=replace(ahead, accuracy=0.721)),
    }.items():
        told[key] = str(_would_help(w, curve))
        start = w.texts[f"more.{key}"].split("{")[0]
        assert told[key].startswith(start)
        assert "{" not in told[key]
    for key in ("seen", "unclear"):
        assert all(w.share(value) in told[key] for value in (0.61, 0.72))
    assert len(set(told.values())) == 5
