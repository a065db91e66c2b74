"""Data sets of texts: how they are read, found, surveyed and checked."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.base.errors import DataError
from headstart.data.checks import _about_counting, check
from headstart.data.dataset import Dataset
from headstart.data.findings import Findings, Remark, TwoLabels
from headstart.modalities.reading import find, survey
from headstart.modalities.text.inputs import TextInput
from headstart.modalities.text.language import NAMES, detect, sampled, spoken
from headstart.modalities.text.likeness import near_duplicates, normal, signature
from headstart.modalities.text.survey import _about_languages
from headstart.reporting.data import _fact, _said
from headstart.reporting.words import Words, catalogue

ROWS = [("a good film", "good"), ("a bad film", "bad"), ("the best\nof all", "good")]
WORDS = "river stone cloud apple train paper glass music winter garden window letter".split()


def sentences(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"the {' '.join(rng.choice(WORDS, 9))} number {seed}{i}" for i in range(n)]


def texts_of(data: hs.Dataset) -> list[str]:
    return [example.read() for example in data]


def write_jsonl(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join([*lines, ""]))
    return path


# -------------------------------------------------------------------------------- reading


def test_a_table_of_texts_is_read_from_every_format(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=["text", "label"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False, sep=";", encoding="utf-16")
    frame.to_parquet(tmp_path / "c.parquet")
    write_jsonl(tmp_path / "d.jsonl", ROWS)
    every = [hs.read(path) for path in sorted(tmp_path.iterdir())]
    every += [hs.read(frame), hs.read(ROWS, input="text")]
    for data in every:
        assert isinstance(data.input, TextInput)
        assert texts_of(data) == [text for text, _ in ROWS]
        assert data.classes == ("bad", "good")


def test_a_folder_of_text_files_per_class_is_read_and_pictures_are_named(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("good", "bad"):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(2):
                (tmp_path / part / label / f"{i}.txt").write_text(f"{part} {label} {i}")
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "good" / "cover.png")
    data = hs.read(tmp_path)
    assert data.input == TextInput()
    assert len(data) == 8
    assert set(data.parts) == {"train", "test"}
    assert "train/good/cover.png" in [item.path for item in data.left_out]


def test_a_folder_of_pictures_with_some_texts_stays_one_of_pictures(shapes: Path) -> None:
    (shapes / "dark" / "notes.txt").write_text("taken at night")
    assert hs.read(shapes).input != TextInput()
    assert len(hs.read(shapes)) == 24


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": "a"', "row 2: .* no JSON"),
        ("[1, 2]", "row 2: .* got a list"),
        ('{"text": "\\ud800", "label": "a"}', "row 2: .* surrogate"),
        ('{"text": {"a": 1}, "label": "a"}', "row 2: the text is a JSON object"),
        ('{"text": "a", "label": null}', "row 2: the label is empty"),
        ("[" * 100_000, "row 2: .* no JSON"),
    ],
)
def test_a_bad_line_of_json_lines_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=why):
        hs.read(path)


def test_json_lines_without_the_columns_say_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"path": "x.png"}\n')
    with pytest.raises(DataError, match="no column label"):
        hs.read(tmp_path / "a.jsonl")


def test_a_cell_of_ten_megabytes_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\n{'long ' * 2_000_000},a\nshort,b\n")
    assert len(texts_of(hs.read(tmp_path / "a.csv"))[0]) > 9_000_000


# -------------------------------------------------------------------------------- finding


def test_what_is_asked_is_a_text_a_file_or_the_rows_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("in a file")
    (tmp_path / "b.csv").write_text("text\nfirst\nsecond\n")
    write_jsonl(tmp_path / "c.jsonl", ROWS[:1])
    asked = ["a sentence", str(tmp_path / "a.txt"), tmp_path / "b.csv", tmp_path / "c.jsonl"]
    data, left_out = find([*asked, "missing.txt"], input=TextInput())
    assert texts_of(data) == ["a sentence", "in a file", "first", "second", "a good film"]
    assert [item.path for item in left_out] == ["missing.txt"]


def test_a_model_predicts_the_rows_of_a_table_without_labels(tmp_path: Path) -> None:
    rows = [(text, ("good", "bad")[i % 2]) for i, text in enumerate(sentences(40))]
    how: dict[str, Any] = {"backbone": "tiny-text:8", "strategy": "extract", "store": None}
    model = hs.fit(hs.read(rows, input="text"), **how).model
    (tmp_path / "new.csv").write_text("id,text\na,first\nb,second\n")
    found = hs.predict(model, str(tmp_path / "new.csv"), store=None)
    assert found.ids == ("a", "b")
    assert not found.known.any()
    (tmp_path / "labelled.csv").write_text("text,label\nfirst,good\n")
    assert hs.predict(model, tmp_path / "labelled.csv", store=None).known.all()
    for cells, says in (("text,label\nfirst,\n", "row 2: the label"), ("id,label\na,b\n", "text")):
        (tmp_path / "wrong.csv").write_text(cells)
        with pytest.raises(DataError, match=says):
            hs.predict(model, tmp_path / "wrong.csv", store=None)


# -------------------------------------------------------------------------------- checks


def findings(rows: list[tuple[str, str]]) -> Findings:
    data = hs.read(rows, input="text")
    return check(data, survey(data)).findings


def test_copies_after_normalisation_and_near_copies_are_kept_together() -> None:
    plain = sentences(20)
    near = plain[3].replace("number", "numbers")
    rows = [*plain, plain[0].upper() + "!", near]
    found = findings([(text, "ab"[i % 2]) for i, text in enumerate(rows)])
    assert found.exact_duplicates == (("1", "21"),)
    assert ("4", "22") in [group[:2] for group in found.near_duplicates]
    assert all(likeness >= 0.8 for *_, likeness in found.near_pairs)


def test_the_likeness_is_the_share_of_common_runs_of_characters() -> None:
    def runs(text: str) -> set[str]:
        return {text[i : i + 5] for i in range(len(text) - 4)}

    for a, b in zip(sentences(5), sentences(5, seed=1), strict=True):
        mixed = a[:40] + b[40:]
        true = len(runs(a) & runs(mixed)) / len(runs(a) | runs(mixed))
        assert abs((signature(a) == signature(mixed)).mean() - true) < 0.15


def test_bands_find_the_pairs_that_a_comparison_of_all_finds() -> None:
    base = [normal(text) for text in sentences(60)]
    changed = [text[:-1] + "x" for text in base[:20]]
    own = np.stack([signature(text) for text in [*base, *changed]])
    alike = (own[:, None] == own[None]).mean(axis=2)
    every = {(a, b) for a, b in zip(*np.nonzero(np.triu(alike >= 0.8, 1)), strict=True)}
    assert {(pair.a, pair.b) for pair in near_duplicates(own)} == every
    assert len(every) >= 15


def test_empty_and_unreadable_texts_are_named_by_their_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\none text,a\n" ",b\nanother,b\n')
    data = hs.read(tmp_path / "a.csv")
    found = check(data, survey(data)).findings
    assert [(o.path, o.reason) for o in found.unreadable] == [("3", "is empty")]


def test_languages_are_found_and_texts_in_another_are_named() -> None:
    pytest.importorskip("py3langid")
    english = [
        f"this is the sentence number {i} about the weather and the garden" for i in range(9)
    ]
    russian = "Он сказал, что завтра будет хорошая погода и можно поехать за город."
    found = findings([(text, "ab"[i % 2]) for i, text in enumerate([*english, russian])])
    said = {remark.kind: remark for remark in found.remarks}
    assert "English (9" in said["language"].reason
    assert said["other language"].path == "10"
    assert "Russian" in said["other language"].reason
    assert detect("ok").code == ""
    assert spoken([]).code == ""


def test_a_token_that_alone_decides_and_a_label_in_its_own_text_are_reported() -> None:
    plain = sentences(40)
    leaking = [(f"{text}{' zzz' * (i % 2)}", "ab"[i % 2]) for i, text in enumerate(plain)]
    said = [remark.reason for remark in findings(leaking).remarks if "leak" in remark.kind]
    assert any("'zzz' stands in 100% of the texts of 'b'" in reason for reason in said)
    own = [(f"{text} label {'ab'[i % 2]}", "ab"[i % 2]) for i, text in enumerate(plain)]
    said = [remark.reason for remark in findings(own).remarks if "leak" in remark.kind]
    assert any("the label itself" in reason for reason in said)
    clean = findings([(text, "ab"[i % 2]) for i, text in enumerate(plain)])
    assert not [remark for remark in clean.remarks if "leak" in remark.kind], "the control"


def every_remark() -> list[Remark]:
    """What texts of every kind that is remarkable give, the languages and windows among them."""
    plain = sentences(40)
    leaking = [(f"{text}{' zzz' * (i % 2)}", "ab"[i % 2]) for i, text in enumerate(plain)]
    own = [(f"{text} label {'ab'[i % 2]}", "ab"[i % 2]) for i, text in enumerate(plain)]
    long = [(text, "ab"[i % 2]) for i, text in enumerate([*sentences(10), "long " * 4000])]
    found = [remark for rows in (leaking, own, long) for remark in findings(rows).remarks]
    codes = {"language": np.array([list(b"en\0")] * 9 + [list(b"ru\0")], np.uint8)}
    spoken_ones = _about_languages(tuple("0123456789"), {**codes, "sure": np.full((10, 1), 0.9)})
    rows = Dataset(("0", "1"), ("0", "1"), (0, 1), ("a", "b"), weights=(0.0, 1.5))
    soft = replace(rows, weights=(), soft=((0.5, 0.5), (0.0, 1.0)))
    weighed = replace(rows, weights=(0.5, 2.0))
    others = [remark for data in (rows, soft, weighed) for remark in _about_counting(data)]
    return [*found, *spoken_ones, *others]


# Remarks of pictures and boxes, which tests of their own give.
OF_PICTURES = {"alike_case", "alike_letter", "box_format", "clipped", "crowded", "resized"} | {
    *("tiny", "tiny_scaled", "two_classes", "unrotated", "unrotated_fits", "voc_base"),
    *("dark", "overexposed", "nearly_empty", "blurred", "several_frames"),
}


def test_remarks_are_said_in_the_language_of_the_page() -> None:
    remarks = every_remark()
    texts = {remark.text for remark in remarks}
    windows = {"windows_fit", "windows", "windows_more"}
    known = {key.removeprefix("remark.") for key in catalogue("en") if key.startswith("remark.")}
    assert texts == known - windows - OF_PICTURES
    english, russian = Words("en"), Words("ru")
    for remark in remarks:
        facts = {name: _fact(name, value, english) for name, value in remark.facts}
        assert unescape(str(english(f"remark.{remark.text}", **facts))) == remark.reason
        said = _said(remark, russian)
        assert re.search("[А-яё]", said)
        assert not re.search(
            "[A-Za-z]", said.replace("zzz", "").replace("«a»", "").replace("«b»", "")
        )
        assert said.startswith(f"{remark.path}: ") is bool(remark.path)
    assert "русский (90" in " ".join(_said(remark, russian) for remark in remarks)
    bare = Remark("", "language", "most texts are English")  # of an earlier version
    assert _said(bare, russian) == "most texts are English"


def test_remarks_on_windows_are_said_in_the_language_of_the_page() -> None:
    for parts, said in (
        ([1, 1], "все тексты помещаются в одно окно (токенов в нём: 32)"),
        ([1, 2], "1 из 2 текстов длиннее одного окна (токенов в нём: 32): они читаются в двух"),
        ([7, 2, 1], "2 из 3 текстов длиннее одного окна (токенов в нём: 32): они читаются в неск"),
    ):
        counts = np.array(parts)
        text, facts = TextInput(window=32).parts_facts(counts)
        assert _said(Remark("", "windows", "", text, facts), Words("ru")).startswith(said)
    assert TextInput().parts_facts(np.array([], np.int64)) == ("", ())


def test_every_language_that_is_named_has_a_russian_name() -> None:
    assert all(re.fullmatch("[а-яё]+", Words("ru").name_of_language(n)) for n in NAMES.values())
    assert Words("ru").name_of_language("xx") == "xx"


def test_a_very_long_text_is_named_and_checks_are_written_and_read() -> None:
    rows = [*sentences(10), "long story " * 2000]
    found = findings([(text, "ab"[i % 2]) for i, text in enumerate(rows)])
    assert [r.path for r in found.remarks if r.kind == "very long"] == ["11"]
    assert Findings.read(found.to_plain()) == found
    assert any(kind == "very long" for kind, *_ in found.table())


def test_a_sample_is_the_same_every_time() -> None:
    assert sampled(range(10), 4) == [0, 3, 6, 9]
    assert sampled(range(3), 4) == [0, 1, 2]


def test_a_remark_on_the_whole_data_set_is_not_counted() -> None:
    remarks = (
        Remark("", "language", "most texts are English"),
        Remark("7", "very long", "x"),
    )
    found = Findings(counts={}, near_duplicates=(), two_labels=TwoLabels(), remarks=remarks)
    rows = {kind: (count, text) for kind, count, text in found.table()}
    assert rows["language"] == ("", "most texts are English")
    assert rows["very long"] == ("1", "7: x")
