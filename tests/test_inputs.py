"""What an example is: pictures are one kind of input, and the layers above take any."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import headstart as hs
from headstart.backbones.backbone import card_from_plain, card_to_plain
from headstart.backbones.inputs import INPUTS, Batch, Input, digest_of, input_from_plain
from headstart.base.errors import DataError, SpecError, UnknownName
from headstart.base.store import digest
from headstart.cli.main import main
from headstart.data.checks import check
from headstart.features.extract import extract
from headstart.modalities.images.inputs import of_pictures
from headstart.modalities.reading import find, survey
from headstart.specs import FeatureExtraction

CARD = {  # as the first releases wrote it
    "kind": "Card",
    "name": "tiny:8",
    "architecture": "tiny:8",
    "dim": 8,
    "preprocess": {
        "kind": "Preprocess",
        "size": 32,
        "resize": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "fit": "crop",
        "draft": True,
        "bgr": False,
    },
    "weights": "made on the spot",
    "licence": "Apache-2.0",
    "source_task": "",
    "source_classes": [],
}


@dataclass(frozen=True)
class Rows(Input[Any]):
    """Rows of numbers: a kind of input that is no picture."""

    kind: ClassVar[str] = "rows"
    noun: ClassVar[str] = "rows"
    suffixes: ClassVar[tuple[str, ...]] = (".row",)
    width: int = 4

    def fetch(self, where: Any) -> bytes:
        return Path(where).read_bytes()

    def read(self, data: bytes) -> Any:
        try:
            return np.array(data.decode().split(","), np.float32)
        except ValueError as error:
            raise DataError("it holds other than numbers") from error

    def prepare(self, raw: Any) -> Batch:
        return {"numbers": raw[None]}

    def fingerprint(self) -> str:
        return f"rows-{self.width}"

    def first_layer(self) -> Any:
        import torch

        return torch.nn.Identity()

    def blank(self, n: int) -> Batch:
        return {"numbers": np.zeros((n, self.width), np.float32)}


INPUTS.register(Rows.kind, Rows)


def test_a_card_of_the_first_releases_is_the_card_of_today() -> None:
    card = hs.load_backbone("tiny:8").card
    assert card_from_plain(CARD) == card
    assert card_from_plain(json.loads(json.dumps(card_to_plain(card)))) == card


def test_a_card_of_another_kind_of_input_is_saved_and_read_back() -> None:
    card = replace(hs.load_backbone("tiny:8").card, input=Rows(7))
    plain = json.loads(json.dumps(card_to_plain(card)))
    assert plain["input"] == {"kind": "rows", "width": 7}
    assert card_from_plain(plain) == card


@pytest.mark.parametrize("plain", [None, [], {}, {"kind": "sounds"}, {"kind": "image", "sides": 3}])
def test_what_is_no_input_is_refused(plain: Any) -> None:
    with pytest.raises((SpecError, UnknownName)):
        input_from_plain(plain)


def test_one_array_of_bytes_is_named_as_in_every_store_before() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert digest_of({"pixels": pixels}) == digest(pixels[0].tobytes())
    one, two = np.zeros((1, 4), np.int64), np.zeros((1, 2), np.int64)
    names = {digest_of(b) for b in ({"a": one}, {"b": one}, {"a": two, "b": two}, {"b": two})}
    assert len(names) == 4


def test_what_is_for_pictures_alone_says_what_it_was_given() -> None:
    with pytest.raises(SpecError, match=r"^headstart ideal draws pictures; .* input is rows\.$"):
        of_pictures(Rows(), "headstart ideal draws")
    with pytest.raises(SpecError, match="size can't be chosen for rows"):
        FeatureExtraction(size=64).prepared(
            replace(b := hs.load_backbone("tiny:8"), card=replace(b.card, input=Rows()))
        )


def test_features_of_another_kind_of_input_are_kept_in_the_store(tmp_path: Path) -> None:
    import torch

    backbone = hs.load_backbone("tiny:8")
    module = torch.nn.Linear(4, 8).eval()
    backbone = replace(backbone, card=replace(backbone.card, input=Rows()), module=module)
    files = [tmp_path / f"{n}.txt" for n in range(3)]
    for n, file in enumerate(files):
        file.write_text(f"{n},1,2,3")
    data = hs.Dataset(("a", "b", "c"), tuple(files), (0, 1, 1), ("x", "y"))
    store = hs.Store(tmp_path / "store")
    table = extract(backbone, data, store=store)
    expected = module(torch.tensor([[n, 1.0, 2.0, 3.0] for n in range(3)])).detach().numpy()
    np.testing.assert_allclose(table.x, expected, atol=1e-5)
    assert extract(backbone, data, store=store).hits == 3


def test_a_folder_of_another_kind_of_input_is_read_and_checked(tmp_path: Path) -> None:
    for name, text in {"a/1": "1,2,3,4", "a/2": "1,2,3,4", "b/1": "4,3,2,1", "b/2": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.row").write_text(text)
    (tmp_path / "b/notes.txt").write_text("about the rows")
    data = hs.read(tmp_path, input=Rows())
    assert data.ids == ("a/1.row", "a/2.row", "b/1.row", "b/2.row")
    assert [(out.path, out.expected) for out in data.left_out] == [("b/notes.txt", True)]
    for store in (None, hs.Store(tmp_path / "store"), hs.Store(tmp_path / "store")):
        seen = survey(data, input=Rows(), store=store)
        found = check(data, seen)
        assert found.exact == ((0, 1),)
        assert [out.path for out in found.unreadable] == ["b/2.row"]
    assert seen.decoded == 0
    assert find([tmp_path / "a"], input=Rows())[0].ids[0].endswith("1.row")


@pytest.mark.parametrize("command", ["explain takes", "ideal draws", "attack changes"])
def test_a_command_for_pictures_says_so_of_another_input(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    backbone = hs.load_backbone("tiny:8")
    rows = replace(backbone, card=replace(backbone.card, input=Rows()))
    monkeypatch.setattr("headstart.modalities.sources.load_backbone", lambda *_, **__: rows)
    (tmp_path / "1.row").write_text("1,2,3,4")
    name = command.split()[0]
    named = [str(tmp_path / "1.row")] if name != "ideal" else ["--class", "a"]
    assert main([name, "--backbone", "tiny:8", *named, "--out", str(tmp_path / "out")]) == 2
    assert f"headstart {command} pictures; this model's input is rows." in capsys.readouterr().err
