"""Hostile tables of texts: refused in one sentence that names the row or the file, or read."""

import csv
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import headstart as hs
from headstart.backbones.inputs import Batch
from headstart.base.errors import HeadstartError
from headstart.cli.main import main
from headstart.data.checks import CheckPlan, check, good_rows
from headstart.features.engines import Features, OnnxEngine
from headstart.features.extract import FeatureTable, extract
from headstart.features.parts import PartActivations
from headstart.modalities.reading import survey
from headstart.modalities.text.inputs import TextInput
from headstart.modalities.text.networks import mean_of_tokens
from headstart.targets.classes import ClassTarget
from headstart.training.feeds import Stored
from headstart.training.network import Network
from headstart.training.parts import POSITIONS, Parts

SEEDS = 500
CELLS = (
    "a plain text",
    "",
    " \t ",
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "@SUM(A1)",
    "-2",
    "'=x",
    '<script>alert("x")</script>',
    "кошка сидит на окне",
    "line\nbreak\r\nand \r more",
    'a "quoted" word',
    "comma, semicolon; tab\t bar|",
    "e\u0301\u0301\u0301\u200b\ufeff",
    "\u202eright to left\u202c",
    "\x1b[31mred\x1b[0m",
    "\x07\x08\x7f",
    "😀" * 50,
    "nul\0nul",
    "word " * 3000,
    "../../etc/passwd",
    "a" * 200_000,
)
LABELS = ("a", "b", "a", "b", "a", "b", "", "=1+1", "c\x1b[31m", "<b>", "a\nb", "ё")
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1251", "latin-1")
DELIMITERS = (",", ",", ";", "\t", "|")


def hostile(seed: int) -> bytes:
    """Return a table of texts with some of what goes wrong in tables."""
    rng = random.Random(seed)
    rows = [[rng.choice(CELLS[:12]), rng.choice(LABELS[:6])] for _ in range(rng.randrange(12))]
    for _ in range(rng.randrange(4)):
        rows.append([rng.choice(CELLS), rng.choice(LABELS)])
    header = rng.choice([["text", "label"]] * 6 + [["Text ", "LABEL"], ["text"], ["x", "y"], []])
    out = io.StringIO(newline="")
    delimiter = rng.choice(DELIMITERS)
    every = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer = rng.choice([every, csv.writer(out, delimiter=delimiter)])
    writer.writerows([header, *rows])
    data = out.getvalue().encode(rng.choice(ENCODINGS), "replace")
    return damaged(data, rng)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes as they are, or cut, flipped, joined with others, or without line ends."""
    at = rng.randrange(len(data) + 1)
    way = rng.randrange(12)
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at:]
    if way == 2:
        return data + "ещё один текст,a\n".encode("cp1251")  # two encodings in one file
    if way == 3:
        return data[:at] + b'"' + data[at:]
    if way == 4:
        return data[:at] + b"\0" + data[at:]
    return data.replace(b"\r\n", b"\r") if way == 5 else data


def refusal(path: Path) -> str:
    """Return the message with which a table is refused, "" if a model can be trained on it."""
    try:
        data = hs.read(path, input="text")
        seen = survey(data)
        found = check(data, seen)
        json.dumps(found.findings.to_plain())
        good_rows(data, seen, CheckPlan(max_bad=1.0))
    except HeadstartError as error:
        return str(error)
    return ""


def test_hostile_tables_are_read_or_refused_with_their_row_or_file(tmp_path: Path) -> None:
    refused = 0
    for seed in range(SEEDS):
        path = tmp_path / f"{seed}.csv"
        path.write_bytes(hostile(seed))
        message = refusal(path)  # anything but a HeadstartError fails the test
        refused += bool(message)
        known = (path.name, "row", "class", "may be unreadable", "None of the")
        assert not message or any(word in message for word in known), message
        assert message.isprintable(), message
        assert len(message) < 2000
    assert 50 < refused < SEEDS - 50, "the control: some are read, some are not"


def test_hostile_json_lines_are_read_or_refused_with_their_row_or_file(tmp_path: Path) -> None:
    for seed in range(100):
        rng = random.Random(seed)
        cells = [{"text": rng.choice(CELLS), "label": rng.choice(LABELS)} for _ in range(8)]
        lines = [json.dumps(cell, ensure_ascii=rng.random() < 0.5) for cell in cells]
        lines += rng.choice([[], ["null"], ["{"], ['{"text": 1e999, "label": "a"}'], ["[" * 5000]])
        path = tmp_path / f"{seed}.jsonl"
        path.write_bytes(damaged("\n".join(lines).encode(rng.choice(ENCODINGS[:6])), rng))
        message = refusal(path)
        assert message.isprintable(), message


def test_a_cell_of_ten_megabytes_is_checked(tmp_path: Path) -> None:
    rows = [("long " * 2_000_000, "a"), ("short", "b"), ("another", "a"), ("a third", "b")]
    with open(tmp_path / "a.csv", "w", newline="") as f:
        csv.writer(f).writerows([("text", "label"), *rows])
    data = hs.read(tmp_path / "a.csv")
    found = check(data, survey(data)).findings
    assert [r.path for r in found.remarks if r.kind == "very long"] == ["2"]


def test_the_command_says_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(0, SEEDS, 25):
        path = tmp_path / f"{seed}.csv"
        path.write_bytes(hostile(seed))
        code = main(["check", str(path), "--backbone", "none", "--store", str(tmp_path / "store")])
        printed = capsys.readouterr()
        assert code in (0, 1, 2, 3), printed.err
        assert "Traceback" not in printed.err
        assert "\x1b" not in printed.out


def test_a_text_of_50_000_words_passes_the_network_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = np.random.default_rng(0).integers(0, 9999, 50_000)
    (tmp_path / "long.txt").write_text(" ".join(f"w{n}" for n in words))
    given, run = list[tuple[int, int]](), OnnxEngine.__call__

    def recorded(engine: OnnxEngine, batch: Batch) -> tuple[Features, ...]:
        given.append((len(batch["mask"]), int(batch["mask"].sum())))
        return run(engine, batch)

    monkeypatch.setattr(OnnxEngine, "__call__", recorded)
    paths = (tmp_path / "long.txt",)
    data = hs.Dataset(("a",), paths, (0,), ("a", "b"), input=TextInput())
    table = extract(hs.load_backbone("tiny-text:8"), data, store=None)
    assert np.isfinite(table.x).all()
    windows, tokens = (sum(column) for column in zip(*given, strict=True))
    assert tokens - windows == 50_000, "nothing is cut: all words, and a special token per window"
    assert max(parts for parts, _ in given) <= 64


class Mean(nn.Module):
    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mean_of_tokens(hidden, mask)


def test_activations_of_a_text_of_50_000_words_are_judged_a_few_windows_at_a_time() -> None:
    lengths, asked = np.full(200, 256), list[int]()
    lengths[-1] = 100

    def read(parts: NDArray[np.int64]) -> list[NDArray[np.generic]]:
        asked.append(len(parts))
        return [np.full((lengths[p], 3), p / 7, np.float32) for p in parts]

    one = np.zeros(1, np.int64)
    cut = PartActivations(read, one, one + 200, lengths, lengths.astype(float), True)
    table = FeatureTable(("long",), np.zeros((1, 3), np.float32), one, ClassTarget(("a", "b")), "")
    feed = Stored((replace(table, cut=cut),), cut=True)
    network = Network(Mean(), nn.Linear(3, 2), ()).eval()
    with torch.inference_mode():
        few = network(feed.batch(one, 0))
        assert max(asked) * 256 <= POSITIONS
        assert sum(asked) == 200
        assert torch.equal(few, network(Parts.of(cut.batch(one))))
    step = replace(feed, most=8).batch(one, 0)
    assert isinstance(step, Parts)
    assert len(step.arrays[0]) == 8, "a step learns from 8 windows"
