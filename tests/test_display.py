"""Nothing that a name holds reaches the terminal raw, forges a line or runs in a spreadsheet."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import headstart as hs
from headstart.base.cells import defused, restored
from headstart.base.display import display, displayed, escaped_json
from headstart.cli.main import main
from headstart.cli.printing import print_line, print_table
from headstart.cli.progress import say
from headstart.data.splits import split
from headstart.models.bundle import load_bundle, save
from headstart.runs.folder import recorded_parts, splits_csv
from headstart.targets.classes import ClassTarget
from headstart.targets.predictions import Predictions, read_predictions, write_csv

EVIL = (
    "\x1b[2J",
    "\n",
    "\r",
    "\t",
    "\x00",
    "\x7f",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u2028",
    "\udce9",
)
FORMULAS = ("=1+1", "+1+2", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1", "''@x", "-x.jpg")
QUICK = {"explain": ["--method", "gradcam"], "attack": ["--steps", "1"]}
PLAIN = ("'s", "cat", "-1", "+1.5e3", "", "a=b", "''", "3")


def harmless(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


@pytest.mark.parametrize("evil", EVIL, ids=repr)
def test_whatever_is_printed_is_one_line_of_printable_characters(
    evil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"a{evil}b"
    print_line(name, "cat")
    print_table([(name, "1"), ("c", name)])
    say("left out", f"{name}: no such file")
    out, err = capsys.readouterr()
    assert harmless(out + err)
    assert (out.count("\n"), err.count("\n"), out.count("\t")) == (3, 1, 1)
    assert display(name) in out
    assert display(Path("x\\y" + evil)).startswith("x\\\\y\\x")
    assert json.loads(text := escaped_json(json.dumps(name, ensure_ascii=False))) == name
    assert harmless(text)
    for path in (Path(f"x\\y{evil}/z"), Path(f"x\\x41/\\\\{evil}\udce9\u0301")):
        assert Path(displayed(display(path))) == path


def test_what_is_printable_is_printed_as_it_is() -> None:
    for text in ("Übung/猫 1.png", "a\\b", "👩", "العربية", "x - y"):
        assert display(text) == text


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright noise, 9 pictures each, and 3 dark ones of hostile names."""
    folder, rng = tmp_path_factory.mktemp("hostile") / "shapes", np.random.default_rng(0)
    for name, level in {"dark": 60, "bright": 190}.items():
        (folder / name).mkdir(parents=True)
        hostile = ("\x1b[2J", "=1+1\n", "-x\t") if name == "dark" else ()
        for stem in (*map(str, range(9)), *hostile):
            pixels = rng.normal(level, 30, (20, 20, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{stem}.png")
    return folder


@pytest.fixture(scope="module")
def run(shapes: Path) -> Iterator[Path]:
    out = shapes.parent / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(shapes.parent / "store"))
        command = ["train", str(shapes), "--out", str(out), "--backbone", "tiny:32"]
        assert main([*command, "--strategy", "extract"]) == 0
        yield out


def test_hostile_names_forge_no_line_of_any_command(
    run: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    pictures = [str(p) for p in sorted((shapes / "dark").iterdir()) if not p.stem.isdigit()]
    bad = tmp_path / "x\nerror     forged\x1b[2J.png"
    bad.write_bytes(b"no picture")
    for command in ("predict", "explain", "attack"):
        out_flag = (
            [] if command == "predict" else ["--out", str(tmp_path / command), *QUICK[command]]
        )
        assert main([command, str(run), *pictures, str(bad), *out_flag]) == 3
        out, err = capsys.readouterr()
        assert harmless(out + err)
        assert len(out.splitlines()) == len(pictures) == 3
        assert not re.search(r"^error", err, re.MULTILINE)
    assert main(["predict", str(run), *pictures, "--json"]) == 0
    assert [told["path"] for told in json.loads(capsys.readouterr().out)] == pictures
    for command in ("explain", "attack"):
        out_flag = ["--json", "--out", str(tmp_path / f"{command}2"), *QUICK[command]]
        assert main([command, str(run), pictures[0], *out_flag]) == 0
        assert json.loads(capsys.readouterr().out)[0]["path"] == pictures[0]
    for wrong in (["predict", str(tmp_path / "no\x1brun"), "x"], ["check", "no\ndata"], ["\x1bx"]):
        assert main(wrong) > 0
        assert capsys.readouterr().err.count("\n") == 1
    assert harmless((run / "report.html").read_text(encoding="utf-8"))


def test_classes_and_licences_of_a_strangers_model_are_escaped(
    run: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_bundle(run / "model").model
    card = replace(model.backbone.card, name="net\x1b]0;x\x07", licence="MIT\nerror     forged")
    backbone = replace(model.backbone, card=card)
    save(
        replace(model, backbone=backbone, target=ClassTarget(("a\nb\tc", "d\x1b[31m"), "a\nb\tc")),
        run / "strange",
    )
    capsys.readouterr()
    picture = str(shapes / "dark" / "0.png")
    for command in ("predict", "explain"):
        out_flag = [] if command == "predict" else ["--out", str(run / "x"), *QUICK[command]]
        assert main([command, str(run / "strange"), picture, *out_flag]) == 0
        out, err = capsys.readouterr()
        assert harmless(out + err)
        assert len(out.splitlines()) == 1
    assert main(["predict", str(run / "strange"), picture, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)[0]["scores"]) == {"a\nb\tc", "d\x1b[31m"}


@pytest.mark.parametrize("text", FORMULAS, ids=repr)
def test_a_formula_is_defused_and_read_back(tmp_path: Path, text: str) -> None:
    scores = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    said = Predictions((text, "2"), scores, np.array([1, -1]), ("b", text))
    write_csv(said, tmp_path / "p.csv")
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as f:
        cells = [cell for row in csv.reader(f) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝")) for cell in cells)
    back = read_predictions(tmp_path / "p.csv")
    assert (back.ids, back.classes[1].strip()) == (said.ids, text.strip())
    assert (back.labels == said.labels).all()
    assert (back.scores == said.scores).all()


@given(st.text(alphabet="'=+-@\t\r1.ae ＝") | st.sampled_from([*FORMULAS, *PLAIN]))
def test_every_text_comes_back_and_plain_ones_are_not_changed(text: str) -> None:
    assert restored(defused(text)) == text
    assert text not in PLAIN or defused(text) == text
    assert text not in FORMULAS or defused(text) == f"'{text}"


def test_a_file_written_before_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("path,label,predicted\n=1,-x,@y\n'a,'s,-x\n")
    said = read_predictions(tmp_path / "p.csv")
    assert (said.ids, said.classes) == (("=1", "'a"), ("'s", "-x", "@y"))


def test_the_parts_of_rows_named_as_formulas_are_recorded(tmp_path: Path) -> None:
    ids = tuple(f"{sign}{i}.png" for sign in "=+-@'" for i in range(4))
    labels = tuple(i % 2 for i in range(20))
    data = hs.Dataset(ids, tuple(map(Path, ids)), labels, ("=a", "b"))
    splits = split(data)
    (tmp_path / "splits.csv").write_text(splits_csv(data, splits), encoding="utf-8")
    (tmp_path / "recipe.json").write_text('{"data": "here"}')
    assert not re.search("^[=+@-]|,[=+@-]", splits_csv(data, splits), re.MULTILINE)
    parts = recorded_parts(tmp_path, "here", data)
    assert [parts.count(part) for part in ("train", "val", "test", "")] == [14, 3, 3, 0]
