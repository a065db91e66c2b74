"""Sentences made elsewhere are printed in Russian, by their templates."""

import argparse
import ast
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from public_layouts import pictures
from test_comparing import answered, run

from headstart.base.phrasebook import GAP, Phrasebook, phrasebook
from headstart.cli.language import speak
from headstart.cli.main import main
from headstart.cli.printing import FAILED, WRONG, print_evaluation
from headstart.data.findings import EMPTY_CLASS
from headstart.data.walking import LEADS_NOWHERE, LEADS_OUT
from headstart.evaluation.evaluation import evaluate
from headstart.modalities.images.formats import NOT_AN_IMAGE, refusal
from headstart.modalities.images.inputs import ImageInput
from headstart.targets.predictions import Predictions

PACKAGE = Path(phrasebook.__code__.co_filename).parents[1]


def fixed_text(node: ast.AST) -> str:
    """The text of a literal, with GAP for what an f-string fills in; "" for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "7" for v in node.values)
    return ""


def test_a_gap_is_translated_too_and_numbers_choose_the_form() -> None:
    book = Phrasebook({"{n} files: {why}": "{n} {n|файл|файла|файлов}: {why}", "wet": "мокрые"})
    said = [book(f"{n} files: wet") for n in ("1", "3", "11", "1,021", "dry")]
    assert said[:4] == [
        "1 файл: мокрые",
        "3 файла: мокрые",
        "11 файлов: мокрые",
        "1,021 файл: мокрые",
    ]
    assert book("files are wet") == "files are wet"
    assert book("a.png: wet; b.png: dry") == "a.png: мокрые; b.png: dry"
    assert book("2 files: 7 & 8") == "2 файла: 7 & 8"


def test_english_is_left_alone() -> None:
    assert phrasebook("en")("is empty") == "is empty"


@pytest.mark.parametrize(
    "reason",
    [
        *("the file is empty (0 bytes)", LEADS_OUT, LEADS_NOWHERE, EMPTY_CLASS, NOT_AN_IMAGE),
        *(refusal("a camera's raw picture"), refusal("a text file"), ImageInput.unmeant),
        "cannot be decoded: a damaged PNG (image file is truncated)",
        "3 hidden or system files",
    ],
)
def test_reasons_of_files_that_are_not_used_are_known_in_russian(reason: str) -> None:
    said = phrasebook("ru")(reason)
    assert re.search("[а-яё]", said), said
    names = set(re.findall("[A-Za-z]{2,}", said))
    assert names <= {"JPEG", "PNG", "txt", "GIF", "BMP", "TIFF", "WEBP", "MPO"}, said


STAGES = {
    "about 2 min 30 s for 1,021 examples (9.6/s)": "около 2 мин 30 с на 1,021 пример (9.6/с)",
    "keeping 1 MB at the cut stem_2, float32": "запоминаем 1 МБ в срезе stem_2, float32",
    "keeping 5 MB at the cut in half precision, for want of room": (
        "запоминаем 5 МБ в срезе с половинной точностью: для полной нет места"
    ),
    "9 of 60 rows (test)": "9 из 60 строк (тест)",
    "accuracy in 5-fold cross-validation": "доля верных ответов, перекрёстная проверка, частей: 5",
    "1 of 3: log loss 0.4 [0.2, 0.6] n=9; finetune kept": (
        "1 из 3: логарифмическая потеря 0.4 [0.2, 0.6] n=9; выбрано: дообуч."
    ),
    "epoch 1   loss 0.8, val 0.9   0.5 s": "эпоха 1   потери 0.8, вал. 0.9   0.5 с",
    "dry epochs": "dry epochs",  # {n} in "{n} epochs" is a number
}


@pytest.mark.parametrize("english", STAGES)
def test_messages_of_stages_are_known_in_russian(english: str) -> None:
    assert phrasebook("ru")(english) == STAGES[english]


def test_translations_fill_the_gaps_that_their_originals_have() -> None:
    for english, russian in phrasebook("ru").templates.items():
        filled = {m for m in re.findall(r"\{(\w+)[|}]", russian)}
        assert filled <= set(GAP.findall(english)), english
        assert re.search("[а-яё]", russian), english


def test_the_decoder_of_pictures_says_nothing_that_has_no_russian() -> None:
    tree = ast.parse((PACKAGE / "modalities/images/decoding.py").read_text())
    raised = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise)]
    texts = [
        text
        for call in raised
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "DataError"
        for text in [fixed_text(call.args[0])]
        if text and ", cannot" not in text
    ]
    assert len(texts) > 5
    assert [text for text in texts if not phrasebook("ru").translated(text)] == []


WRONG_COMMANDS = {
    "train no-such-folder --out runs/a": "Нет ни папки, ни файла no-such-folder. Проверьте путь.",
    "train empty --out runs/a": "empty не найдено примеров по классам. Нужна папка на каждый класс",
    "train cells --out file.txt": "--out называет папку для запуска, а file.txt — файл.",
    "train . --out runs/a": "Если папки в нём и есть классы (a, b), назовите папку, где они лежат.",
    "train file.txt --out runs/a": "file.txt — файл, но не таблица примеров. Нужна папка",
    "train": "Не хватает: --out. Наберите `headstart train DATA --out RUN`.",
    "train . --out": "--out: нужно одно значение. См. `headstart train --help`.",
    "train . --out a --epocs 3": "У `headstart train` нет флага '--epocs'. Может быть, '--epochs'?",
    "train . --out a --head logistik": "Нет такого имени (голова): 'logistik'.",
    "train . --out a --epochs many": "--epochs: такое значение не годится: 'many'.",
    "train cells --out a --backbone timm": "Сеть называют как источник:имя",
    "train cells --out a --resume": "--resume продолжает прерванный запуск, а в a его нет.",
    "trian .": "Нет команды 'trian'. Может быть, 'train'",
    "check no-such-folder": "Нет ни папки, ни файла no-such-folder.",
    "predict no-such-run a.png": "Нет папки no-such-run. Проверьте путь.",
    "report no-such-run": "Нет запуска no-such-run. Проверьте путь.",
    "compare a": "Сравнивают два запуска или больше, а назван 1.",
    "explain": "Назовите запуск",
}


@pytest.mark.parametrize("words", WRONG_COMMANDS)
def test_errors_of_a_command_are_told_in_russian(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("a")
    pictures(tmp_path / "cells", *(f"{name}/{i}.png" for name in "ab" for i in range(9)))
    (tmp_path / "empty").mkdir()
    command, *rest = words.split()
    assert main([command, "--language", "ru", *rest]) in (FAILED, WRONG)
    told = capsys.readouterr().err
    assert "ошибка" in told
    assert WRONG_COMMANDS[words] in told, told


def test_translated_errors_are_those_that_the_package_raises() -> None:
    sources = [*PACKAGE.rglob("*.py"), Path(argparse.__file__)]
    joined = "".join(path.read_text(encoding="utf-8") for path in sources)
    written = re.sub(r'"\s*\n\s*f?"', "", joined)  # literals that stand below each other
    of_systems = {os.strerror(number) for number in errno.errorcode}
    for english in json.loads((PACKAGE / "base/phrases/ru.errors.json").read_text()):
        longest = max(re.split(r"\{\w+\}:? ?|\. |These", english), key=len)
        assert longest in written or english in of_systems, english


def test_classes_and_folders_of_the_user_are_not_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = ("model", "24 h")
    names = [f"data/{name}/{i}.png" for name in ("a", "b", "fog") for i in range(9)]
    pictures(tmp_path, "data/24 h/0.png", *names)
    main(["check", "data", "--backbone", "none", "--language", "ru"])
    printed = capsys.readouterr()
    assert "24 h" in printed.out
    assert not re.search("24 ч|туман", printed.out + printed.err)
    for name in own:
        run(tmp_path, name, answered([True, True, False, True]))
    assert main(["compare", *own, "--language", "ru"]) == 0
    printed = capsys.readouterr()
    assert "запуск" in printed.out
    assert all(re.search(rf"^ *{name}  ", printed.out, re.MULTILINE) for name in own)


def test_a_table_of_classes_names_them_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    scores = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    said = Predictions(tuple("abcd"), scores, np.array([0, 1, 0, 1]), ("24 h", "fog"))
    speak("ru")
    try:
        print_evaluation("test", evaluate(said))
    finally:
        speak("en")
    lines = capsys.readouterr().out.splitlines()
    assert "тест" in lines
    assert [re.split("  +", line.strip())[0] for line in lines[-3:]] == ["класс", "24 h", "fog"]


def test_units_are_translated_where_a_measure_is_expected() -> None:
    russian = phrasebook("ru")
    assert russian.cell("2 min 30 s") == "2 мин 30 с"
    assert russian("measuring what fits into 24 h") == "измеряем, что успеем за 24 ч"
    assert russian("saved 24 h  (the model: model)") == "сохранено 24 h  (модель: model)"
    assert russian("24 h") == "24 h"


def test_the_language_of_the_environment_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADSTART_LANGUAGE", "ru")
    missing = str(tmp_path / "missing")
    told = {}
    for words in ([], ["--language", "en"]):
        assert main(["check", missing, *words]) == FAILED
        told[len(words)] = capsys.readouterr().err
    assert told[0].startswith("ошибка")
    assert told[2].startswith("error")
    monkeypatch.setenv("HEADSTART_LANGUAGE", "klingon")
    assert main(["check", missing]) == WRONG
    assert "--language: invalid choice: 'klingon'" in capsys.readouterr().err
