"""Models of transformers as backbones: files, pooling, cuts, graphs, and whole runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformer_folders import (
    IMAGES,
    SPECIAL,
    TEXTS,
    WIDTH,
    WORDS,
    films,
    pictures,
    tokenizer,
    write_model,
)

import headstart as hs
from headstart.backbones.cutting import cut_before
from headstart.backbones.entry import tensors
from headstart.backbones.graph import freeze
from headstart.backbones.saved import save_backbone
from headstart.base.errors import Mismatch, SourceError, SpecError, UnknownName
from headstart.features.engines import OnnxEngine
from headstart.features.extract import extract
from headstart.features.parts import PartActivations
from headstart.modalities.from_transformers import _config_of, _is_decoder
from headstart.modalities.images.hf_images import image_input
from headstart.modalities.sources import reopened
from headstart.modalities.text.inputs import TextInput
from headstart.models.finetuning import thaw
from headstart.training.parts import Parts

KINDS = (*TEXTS, *IMAGES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    return {kind: write_model(top / kind, kind) for kind in KINDS}


def input_of(name: str, **settings: Any) -> Any:
    return hs.load_backbone(f"hf:{name}", **settings).card.input


def batch_of(backbone: hs.Backbone, parts: int, length: int) -> dict[str, Any]:
    """Random examples; of texts, the first is `length` tokens long and the others shorter."""
    rng = np.random.default_rng([parts, length])
    input: Any = backbone.card.input
    if not isinstance(input, TextInput):
        size = input.size
        return {"pixels": rng.integers(0, 256, (parts, size, size, 3), dtype=np.uint8)}
    lengths = rng.integers(1, length + 1, parts)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(len(SPECIAL), len(SPECIAL) + len(WORDS), (parts, length))
    return {"ids": np.where(mask, ids, input.pad), "mask": mask}


def given(backbone: hs.Backbone, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """The arrays of a batch as the backbone's module takes them."""
    made = backbone.card.input.first_layer()(*tensors(batch))
    return made if isinstance(made, tuple) else (made,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_in_two_parts_computes_what_the_whole_does(
    folders: dict[str, Path], kind: str
) -> None:
    backbone = hs.load_backbone(f"hf:{folders[kind]}")
    arrays = given(backbone, batch_of(backbone, 3, 11))
    first, *others = backbone.blocks
    assert first.name == "embeddings"
    assert cut_before(backbone, first.parameters) is None
    with torch.inference_mode():
        whole = backbone.module(*arrays)
        for block in others:
            cut = cut_before(backbone, block.parameters)
            assert cut is not None
            assert cut.name == block.name
            held = cut.trunk(*arrays)
            again = cut.tail(*(held if isinstance(held, tuple) else (held,)))
            assert (again - whole).abs().max() < 1e-5
            assert set(block.parameters) <= set(cut.in_tail(backbone.module))


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_equals_the_model_at_other_sizes(folders: dict[str, Path], kind: str) -> None:
    backbone = hs.load_backbone(f"hf:{folders[kind]}")
    cut = cut_before(backbone, backbone.blocks[-1].parameters)
    assert cut is not None
    engine = OnnxEngine(freeze(backbone, cut.both), 1)
    for parts, length in ((1, 3), (4, 17), (7, 30)):
        batch = batch_of(backbone, parts, length)
        with torch.inference_mode():
            expected = cut.both(*given(backbone, batch))
        for ours, theirs in zip(engine(batch), expected, strict=True):
            assert np.abs(ours - theirs.numpy()).max() < 1e-4


@pytest.mark.parametrize("kind", ["bert", "modernbert", "vit"])
def test_a_saved_backbone_is_built_again_from_its_card(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    backbone = hs.load_backbone(f"hf:{folders[kind]}@cls")
    save_backbone(backbone, tmp_path / "net")
    again = hs.load_backbone(f"file:{tmp_path / 'net'}")
    assert again.card == backbone.card
    assert again.fingerprint() == backbone.fingerprint()
    arrays = given(backbone, batch_of(backbone, 2, 5))
    with torch.inference_mode():
        assert torch.equal(again.module(*arrays), backbone.module(*arrays))
        assert torch.equal(reopened(freeze(backbone)).module(*arrays), backbone.module(*arrays))


@pytest.mark.parametrize("pool", ["mean", "cls", "last", "pooler"])
def test_features_are_pooled_as_the_name_says(folders: dict[str, Path], pool: str) -> None:
    backbone = hs.load_backbone(f"hf:{folders['bert']}@{pool}")
    batch = batch_of(backbone, 3, 9)
    ids, mask = tensors(batch)
    model: Any = backbone.module.model
    with torch.inference_mode():
        output = model(input_ids=ids, attention_mask=mask)
        hidden, lengths = output.last_hidden_state, batch["mask"].sum(1)
        expected = {
            "mean": lambda: torch.stack(
                [h[:n].mean(0) for h, n in zip(hidden, lengths, strict=True)]
            ),
            "cls": lambda: hidden[:, 0],
            "last": lambda: torch.stack([h[n - 1] for h, n in zip(hidden, lengths, strict=True)]),
            "pooler": lambda: output.pooler_output,
        }[pool]()
        assert (backbone.module(ids, mask) - expected).abs().max() < 1e-6
    assert (backbone.card.dim, backbone.card.architecture) == (WIDTH, f"hf:bert@{pool}")


def test_the_usual_pooling_is_the_mean_or_the_last_token(folders: dict[str, Path]) -> None:
    pools = {k: hs.load_backbone(f"hf:{folders[k]}").card.architecture for k in KINDS}
    assert pools["bert"] == "hf:bert@mean"
    assert pools["gpt2"] == "hf:gpt2@last"
    assert (pools["vit"], pools["swin"]) == ("hf:vit@cls", "hf:swin@pooler")


LAST = "gpt2 gpt_neo gpt_neox opt llama mistral qwen2 qwen3 gemma gemma2 gemma3_text phi phi3 bloom"
LAST += " falcon olmo gpt_bigcode codegen stablelm modernbert-decoder"
MEAN = "bert distilbert roberta xlm-roberta modernbert mpnet electra camembert bert-generation"


@pytest.mark.parametrize("kind", [*LAST.split(), *MEAN.split()])
def test_a_model_that_only_generates_is_a_decoder(kind: str) -> None:
    assert _is_decoder(_config_of(kind, {})) == (kind in LAST.split())


def test_a_decoder_that_was_made_to_read_both_ways_is_none() -> None:
    assert not _is_decoder(_config_of("gemma3_text", {"use_bidirectional_attention": True}))
    assert not _is_decoder(_config_of("qwen2", {"is_causal": False}))


def test_files_of_sentence_transformers_say_how_features_are_pooled(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "my-e5-small"
    shutil.copytree(folders["bert"], folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [{"type": f"st.models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    (folder / "README.md").write_text("---\ntags: [a]\nlicense: mit\n---\nlicense: other\n")
    card = (backbone := hs.load_backbone(f"hf:{folder}")).card
    assert (card.architecture, card.licence) == ("hf:bert@cls-unit", "mit")
    with torch.inference_mode():
        x = backbone.module(*given(backbone, batch_of(backbone, 3, 8)))
    assert np.allclose(x.norm(dim=1), 1, atol=1e-6)
    input = input_of(str(folder))
    assert (input.prefix, input.window) == ("query: ", 16)


def test_texts_become_the_ids_of_the_tokenizer(folders: dict[str, Path]) -> None:
    input = input_of(str(folders["bert"]))
    assert input.window == 40
    ids = input.prepare("A good FILM !")["ids"][0].tolist()
    words = [*SPECIAL, *WORDS]
    assert [words[i] for i in ids] == ["[CLS]", "a", "good", "film", "[UNK]", "[SEP]"]
    roberta = input_of(str(folders["roberta"]))
    assert (roberta.window, roberta.pad) == (38, 1)  # positions begin after that of padding


def test_a_prefix_begins_every_window() -> None:
    input = TextInput(window=12, prefix="query : ")
    ids = input.prepare("one two three four five six seven eight nine ten eleven")["ids"]
    assert len(ids) == 2
    assert np.array_equal(ids[0, :3], ids[1, :3])
    assert input.fingerprint() != TextInput(window=12).fingerprint()


def test_an_old_vocabulary_is_converted(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(folders["bert"], folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS, "more"]))
    with pytest.raises(Mismatch, match="24 ids and the network 23"):
        hs.load_backbone(f"hf:{folder}")
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    old, new = (input_of(str(name)).prepare("a good film") for name in (folder, folders["bert"]))
    assert np.array_equal(old["ids"], new["ids"])


def test_weights_may_be_in_shards_or_in_a_file_that_is_named(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    backbone = hs.load_backbone(f"hf:{folders['bert']}")
    folder = tmp_path / "shards"
    model: Any = backbone.module.model
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "tokenizer.json").write_text(tokenizer())
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert hs.load_backbone(f"hf:{folder}").fingerprint() == backbone.fingerprint()
    file = folders["bert"] / "model.safetensors"
    named = hs.load_backbone("hf:some/bert", weights=file)
    assert (named.fingerprint(), named.card.origin) == (backbone.fingerprint(), "given")


def test_random_weights_need_no_network_and_no_file_of_weights(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["vit"], tmp_path / "vit")
    (tmp_path / "vit/model.safetensors").unlink()
    made = [hs.load_backbone(f"hf:{tmp_path / 'vit'}", weights="random") for _ in range(2)]
    assert made[0].fingerprint() == made[1].fingerprint()
    assert made[0].card.origin == "random"
    card = hs.load_backbone("hf:sentence-transformers/all-MiniLM-L6-v2", weights="random").card
    assert (card.dim, card.input.prepare("A film")["ids"].tolist()) == (
        384,
        [[101, 1037, 2143, 102]],
    )


def test_a_model_that_is_not_there_names_its_files_and_the_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    named = "config.json, model.safetensors and, for texts, tokenizer.json.*--weights FOLDER/model"
    for weights in ("pretrained", "random"):
        with pytest.raises(SourceError, match=named):
            hs.load_backbone("hf:nobody/nothing", weights=weights)
    with pytest.raises(SourceError, match=named):
        hs.load_backbone("hf:bert-base-uncased")


def altered(folders: dict[str, Path], folder: Path, **settings: Any) -> Path:
    """A copy of the tiny BERT with other settings in config.json."""
    shutil.copytree(folders["bert"], folder)
    plain = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(plain | settings))
    return folder


def test_pickles_and_code_of_a_model_are_never_read(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = altered(folders, tmp_path / "a", model_type="mine", auto_map={"AutoModel": "x.Net"})
    with pytest.raises(SpecError, match="'mine'. Code that comes with a model is never run"):
        hs.load_backbone(f"hf:{folder}")
    (folders["bert"] / "model.safetensors").rename(tmp_path / "safe")
    (folders["bert"] / "pytorch_model.bin").write_bytes(b"never read")
    try:
        with pytest.raises(SourceError, match="has pytorch_model.bin, and reading such a file can"):
            hs.load_backbone(f"hf:{folders['bert']}")
        with pytest.raises(SpecError, match="Other formats can run code"):
            hs.load_backbone("hf:x", weights=folders["bert"] / "pytorch_model.bin")
    finally:
        (folders["bert"] / "pytorch_model.bin").unlink()
        (tmp_path / "safe").rename(folders["bert"] / "model.safetensors")


def test_files_that_do_not_fit_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="do not fit its config.json"):
        hs.load_backbone(f"hf:{altered(folders, tmp_path / 'a', intermediate_size=50)}")
    with pytest.raises(Mismatch, match="they lack 'encoder.layer.3"):
        hs.load_backbone(f"hf:{altered(folders, tmp_path / 'b', num_hidden_layers=4)}")
    with pytest.raises(SpecError, match="config.json is not one of a t5 model"):
        hs.load_backbone(f"hf:{altered(folders, tmp_path / 'c', model_type='t5')}")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(SpecError, match="d is of the type t5"):
        hs.load_backbone(f"hf:{tmp_path / 'd'}", weights="random")
    with pytest.raises(SpecError, match="After @ comes mean, cls, pooler, last"):
        hs.load_backbone(f"hf:{folders['bert']}@max")
    with pytest.raises(SourceError, match=r"there is no config\.json"):
        hs.load_backbone(f"hf:{tmp_path}")
    with pytest.raises(UnknownName):
        hs.load_backbone("hg:bert")


@pytest.mark.parametrize(
    ("plain", "size", "resize", "fit"),
    [
        ({"size": 192}, 192, 192, "squash"),
        ({"size": {"height": 64, "width": 64}}, 64, 64, "squash"),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
            224,
            256,
            "crop",
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 224, 256, "crop"),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, 384, 384, "squash"),
        ({}, 48, 48, "squash"),
        (
            {
                "size": {"height": 64, "width": 64, "shortest_edge": None},
                **dict.fromkeys(("crop_size", "do_center_crop", "crop_pct", "do_normalize")),
            },
            64,
            64,
            "squash",
        ),
        (dict.fromkeys(("size", "image_std")), 48, 48, "squash"),
    ],
)
def test_pictures_are_prepared_as_the_preprocessor_says(
    plain: dict[str, Any], size: int, resize: int, fit: str
) -> None:
    input = image_input(plain | {"image_mean": [0.1, 0.2, 0.3], "resample": 3}, 48)
    assert (input.size, input.resize, input.fit) == (size, resize, fit)
    assert (input.mean, input.std, input.interpolation) == ((0.1, 0.2, 0.3), (0.5,) * 3, "bicubic")


@pytest.mark.parametrize(
    ("kind", "name", "plain"),
    [
        ("vit", "preprocessor_config.json", {"size": 1.5}),
        ("vit", "preprocessor_config.json", {"resample": 4}),
        ("vit", "preprocessor_config.json", {"image_mean": 0.5}),
        ("bert", "sentence_bert_config.json", {"max_seq_length": "long"}),
    ],
)
def test_a_setting_that_cannot_be_used_names_its_file(
    folders: dict[str, Path], tmp_path: Path, kind: str, name: str, plain: dict[str, Any]
) -> None:
    shutil.copytree(folders[kind], tmp_path / "net")
    (tmp_path / "net" / name).write_text(json.dumps(plain))
    with pytest.raises(SourceError, match=f"{name} must hold settings as"):
        hs.load_backbone(f"hf:{tmp_path / 'net'}", weights="random")


def test_an_oblong_is_refused() -> None:
    with pytest.raises(SpecError, match="given squares"):
        image_input({"size": {"height": 64, "width": 32}}, 48)
    assert image_input({"do_normalize": False}, 48).std == (1.0, 1.0, 1.0)


def test_the_layer_that_classifies_images_comes_along(tmp_path: Path) -> None:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "owl"},
    )
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    backbone = hs.load_backbone(f"hf:{tmp_path / 'vit'}")
    arrays = given(backbone, batch_of(backbone, 2, 0))
    with torch.inference_mode():
        expected = model(*arrays).logits.softmax(1).numpy()
        x = backbone.module(*arrays).numpy()
    assert backbone.card.source_classes == ("cat", "dog", "owl")
    assert np.allclose(backbone.source().scores(x), expected, atol=1e-6)


def changed(before: hs.Backbone, after: Any) -> set[str]:
    """The names of the weights that differ."""
    old, new = before.weights(), after.weights()
    return {name for name in old if not np.array_equal(old[name], new[name])}


@pytest.mark.long
@pytest.mark.parametrize("kind", [*TEXTS, "vit"])
def test_a_model_is_tuned_from_a_cut_judged_saved_and_predicts(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    data = hs.read(films(40), input="text") if kind in TEXTS else hs.read(pictures(40))
    backbone = hs.load_backbone(f"hf:{folders[kind]}")
    store = hs.Store(tmp_path / "store")
    how: dict[str, Any] = {"strategy": "finetune", "thaw": "1", "lr": 1e-3, "keep": "last"}
    fitted = hs.fit(data, backbone=backbone, epochs=2, store=store, **how)
    assert changed(backbone, fitted.model.backbone) == set(backbone.blocks[-1].parameters)
    assert fitted.splits is not None
    test = fitted.splits.test
    assert hs.evaluate(fitted, store=store).accuracy.n == len(test)
    hs.save(fitted, tmp_path / "bundle")
    loaded = hs.load(tmp_path / "bundle")
    expected, given = (m.predict(test, store=store).scores for m in (fitted.model, loaded))
    assert np.allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_stored_activations_of_long_texts_give_their_features(
    folders: dict[str, Path], kind: str
) -> None:
    backbone = hs.load_backbone(f"hf:{folders[kind]}")
    opened = thaw(backbone, "2")
    assert opened.cut is not None
    data = hs.read(films(60)[45:], input="text")
    table = extract(backbone, data, store=None, tap=opened.tap(1, "float32"))
    assert isinstance(table.cut, PartActivations)
    batch = table.cut.batch(np.arange(len(data)), 0)
    assert len(batch.owner) > len(data)
    parts = Parts.of(batch)
    with torch.inference_mode():
        x = parts.pooled(opened.cut.tail(*parts.arrays))
    assert np.abs(x.numpy() - table.x).max() < 1e-5
