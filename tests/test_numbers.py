"""Every flag that takes a number: what makes no sense is one sentence, before anything is done."""

import argparse
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest

from headstart.base.errors import SpecError
from headstart.base.runtime import memory_bytes
from headstart.cli.main import COMMANDS, main
from headstart.cli.parser import Parser
from headstart.heads.specs import MlpSpec

WORDS = {
    "train": ["train", "data", "--out", "run"],
    "check": ["check", "data", "--backbone", "none"],
    "evaluate": ["evaluate", "run", "data"],
    "predict": ["predict", "run", "a.png"],
    "classify": ["classify", "a.png", "--backbone", "tiny:32"],
    "views": ["views", "a.png", "--out", "b.png", "--flip", "both"],
    "attack": ["attack", "run", "a.png"],
    "ideal": ["ideal", "run", "--class", "a"],
    "robustness": ["robustness", "run"],
    "search": ["search", "data"],
    "extract": ["extract", "data"],
    "advise": ["advise", "data"],
    "export": ["export", "run", "--out", "out"],
    "verify": ["verify", "run"],
    "serve": ["serve", "run"],
}
NEVER = ("nan", "1e999", "1e30", "-1000000000", "9" * 30)
# Any seed is as good as another, "all" may be written as a large number, and so on.
LARGE_IS_FINE = {"--seed", "--l2", "--rows", "--thaw-from", "--checkpoint-s"}
# Layers are counted from the top, and looking inside takes any whole number for a seed.
BELOW_0_IS_FINE = {("train", "--thaw-from"), ("ideal", "--seed"), ("attack", "--seed")}


class Accepted(Exception):
    """The work would begin."""


class Shown(Exception):
    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def numeric_flags(command: str) -> Iterator[str]:
    def show(parser: Parser, argv: list[str]) -> NoReturn:
        raise Shown(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", show)
        with pytest.raises(Shown) as shown:
            COMMANDS[command]([])
    for action in shown.value.parser._actions:
        takes_number = action.type not in (None, str, Path) and action.choices is None
        if takes_number and not isinstance(action, argparse.BooleanOptionalAction):
            yield action.option_strings[0]


@pytest.fixture
def nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object, **__: object) -> NoReturn:
        raise Accepted

    (tmp_path / "run" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    # A module that is first imported while these are replaced would keep them for later tests.
    for name in ("pixels", "runs.extraction", "runs.recorded", "runs.run", "runs.tuning_search"):
        import_module(f"headstart.{name}")
    for name in (
        "modalities.images.decoding.decode",
        "modalities.reading.read",
        "modalities.reading.read_as",
        "modalities.sources.load_backbone",
        "features.loading.load_for_features",
        "models.bundle.load_bundle",
        "pixels.load_backbone",
        "pixels.load_bundle",
        "runs.recorded.read_as",
        "runs.run.train",
    ):
        monkeypatch.setattr(f"headstart.{name}", begin)
    monkeypatch.setattr("headstart.modalities.images.views.decode", begin)


def outcome(words: list[str]) -> int | str:
    try:
        return main(words)
    except Accepted:
        return "accepted"


def test_every_command_with_a_number_is_tried() -> None:
    assert {name for name in COMMANDS if any(numeric_flags(name))} == set(WORDS)


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.usefixtures("nothing_begins")
def test_a_number_that_makes_no_sense_is_one_sentence(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in numeric_flags(command):
        for value in NEVER:
            fine = value in ("1e30", "9" * 30) and flag in LARGE_IS_FINE
            fine |= value.startswith("-") and (command, flag) in BELOW_0_IS_FINE
            got = outcome([*WORDS[command], f"{flag}={value}"])
            err = capsys.readouterr().err
            if fine:
                assert got == 2 or got == "accepted", (flag, value)
                continue
            assert got == 2, (flag, value)
            assert err.startswith("error"), (flag, value)
            assert err.count("\n") == 1


@pytest.mark.parametrize("hidden", [(1_000_000, 1_000_000), (1_000_000,) * 9])
def test_a_head_larger_than_the_machine_is_refused_before_it_is_made(
    hidden: tuple[int, ...],
) -> None:
    if not memory_bytes():
        pytest.skip("this system does not tell its memory")
    with pytest.raises(SpecError, match=r"hidden must leave .* takes [\d,]+ GB, and this machine"):
        MlpSpec(hidden=hidden).check_room(1280)


def test_a_head_that_fits_is_not_refused() -> None:
    MlpSpec(hidden=(4096, 4096)).check_room(1280)
