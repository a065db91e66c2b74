"""Networks of the library transformers for texts and images: `hf:ID`, `hf:FOLDER`, `hf:ID@POOL`.

ID names a model on the Hugging Face Hub. @POOL chooses the features: the mean of the tokens, the
first one (cls), the last one, or the model's own pooler.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headstart.backbones.backbone import Backbone, Block, Card, SourceHead
from headstart.backbones.sources import Listing
from headstart.backbones.weights import Weights, fill, read_tensors
from headstart.base.errors import Mismatch, MissingPackage, SpecError
from headstart.modalities import transformer_files as files
from headstart.modalities.images.hf_images import image_input
from headstart.modalities.text import hf_texts
from headstart.modalities.text.inputs import TextInput
from headstart.modalities.text.packaged import tokenizer_file

if TYPE_CHECKING:
    from torch import nn

    from headstart.modalities.transformer_networks import Pool, Transformer

weight_files = (".safetensors",)
POOLS = ("mean", "cls", "pooler", "last")
ENCODERS = ("bert-generation",)  # generate texts with another head, and yet read both ways
NOT_KEPT = ("id2label", "label2id", "transformers_version", "_name_or_path", "dtype", "torch_dtype")
# Models whose configuration is the default of its class, or differs from it in these settings: for
# `--weights random` without network. Their texts are read with MiniLM's vocabulary.
KNOWN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bert-base-uncased": ("bert", {}),
    "bert-large-uncased": (
        "bert",
        dict(
            hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
        ),
    ),
    "distilbert-base-uncased": ("distilbert", {}),
    "roberta-base": ("roberta", dict(max_position_embeddings=514, type_vocab_size=1)),
    "ModernBERT-base": ("modernbert", {}),
    "gpt2": ("gpt2", {}),
    "all-MiniLM-L6-v2": (
        "bert",
        dict(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
    ),
    "e5-base-v2": ("bert", {}),
    "e5-small-v2": ("bert", dict(hidden_size=384, intermediate_size=1536)),
    "vit-base-patch16-224": ("vit", {}),
    "dinov2-base": ("dinov2", dict(image_size=518, patch_size=14)),
    "swin-tiny-patch4-window7-224": ("swin", {}),
    "convnext-tiny-224": ("convnext", {}),
}


def load(id: str, weights: Weights) -> Backbone:
    """Load a model by its name on the hub or its folder; only safetensors are read.

    Raises SourceError for missing files, SpecError for models of other kinds of data.
    """
    with _library(f"hf:{id}"):
        name, pool = _split(id)
        folder = _folder(name, weights)
        config = _config(name, folder)
        texts = _reads_texts(config, name)
        made = _text(name, folder, config) if texts else _image(name, folder, config)
        if pool:
            made = _Setting(made.input, pool, made.unit, made.classes)
        return _assembled(f"hf:{id}", config, made, folder, weights)


def build(card: Card) -> "tuple[nn.Module, tuple[Block, ...]]":
    """Return the network that a card describes, with arbitrary weights, and its blocks."""
    with _library(card.name):
        kind, _, pooling = card.id.partition("@")
        pool, _, unit = pooling.partition("-")
        config = _config_of(kind, json.loads(card.config))
        setting = _Setting(card.input, cast("Pool", pool), bool(unit))
        network = _network(_random(config), setting)
        return network, network.blocks()


def listing() -> Iterator[Listing]:
    """Yield the models that `--weights random` builds without the hub; many others load."""
    for name in KNOWN:
        yield Listing(f"hf:{name}", licence="its own", where="Hugging Face Hub, or --weights FILE")


@dataclass(frozen=True)
class _Setting:
    """What a model is given and how its features are pooled. unit: divided by their length.

    classes: whether the file holds a layer that classifies images.
    """

    input: Any
    pool: "Pool"
    unit: bool = False
    classes: bool = False


def _split(id: str) -> "tuple[str, Pool | None]":
    """Return the name of the model, and the pooling after the last @, if any."""
    name, at, pool = id.rpartition("@")
    if not at:
        return id, None
    if pool not in POOLS:
        raise SpecError(f"After @ comes {', '.join(POOLS)}, as in hf:{name}@mean; got {pool!r}.")
    return name, cast("Pool", pool)


def _folder(name: str, weights: Weights) -> Path | None:
    """Return the folder of a model's files; None for random weights of a known model."""
    if (folder := files.local_folder(name, weights)) is not None:
        if not (weights.random or weights.file):
            files.check_weights(folder)
        return folder
    if (folder := files.cached_folder(name)) is None:
        if weights.random and _known(name):
            return None
        folder = files.fetched_folder(name, weights=not weights.random)
    if not weights.random:
        files.check_weights(folder)
    return folder


def _known(name: str) -> "tuple[str, Mapping[str, Any]] | None":
    return KNOWN.get(name.rpartition("/")[2])


def _config(name: str, folder: Path | None) -> Any:
    """Return the configuration in the folder, or that of a known model."""
    if folder is not None:
        plain = files.read_plain(folder, files.CONFIG)
        return _config_of(str(plain.get("model_type", "")), plain)
    kind, settings = _known(name) or ("", {})
    return _config_of(kind, settings)


def _config_of(kind: str, plain: Mapping[str, Any]) -> Any:
    """Return the configuration of a model type; raises SpecError for types that are not known."""
    from transformers import CONFIG_MAPPING, __version__

    if kind not in CONFIG_MAPPING:
        raise SpecError(
            f"The model_type in {files.CONFIG} is one of those of transformers {__version__}; got "
            f"{kind!r}. Code that comes with a model is never run."
        )
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(plain))
    except Exception as error:  # its checks raise types of their own
        reason = " ".join(str(error).split())
        raise SpecError(f"{files.CONFIG} is not one of a {kind} model: {reason}") from error
    config.use_cache = False  # for generating texts token by token
    return config


def _reads_texts(config: Any, name: str) -> bool:
    """Return whether the model reads texts; False: images. Raises SpecError for other models."""
    texts, images = hasattr(config, "vocab_size"), hasattr(config, "num_channels")
    if texts == images or getattr(config, "is_encoder_decoder", False):
        raise SpecError(
            f"hf: takes encoders and decoders of texts, and networks for images; {name} is of the "
            f"type {config.model_type}. Name another --backbone."
        )
    return texts


def _text(name: str, folder: Path | None, config: Any) -> _Setting:
    """Return how a model for texts is given them, and pools."""
    modules = files.modules_of(folder) if folder else {}
    pool: Pool = "last" if _is_decoder(config) else "mean"
    if folder and "Pooling" in modules:
        own = f"{modules['Pooling']}/{files.CONFIG}"
        with files.values_of(folder, own):
            pool = hf_texts.pool_of(files.read_plain(folder, own))
    tokenizer = hf_texts.tokenizer_file(folder) if folder else tokenizer_file("minilm")
    hf_texts.check_vocabulary(tokenizer, config.vocab_size, folder or Path(name))
    input = TextInput.of(
        "tokenizers",
        tokenizer,
        min(hf_texts.limits(config, folder)),
        getattr(config, "pad_token_id", None) or 0,
        "query: " if "e5-" in name.rpartition("/")[2].lower() else "",
    )
    return _Setting(input, pool, "Normalize" in modules)


def _is_decoder(config: Any) -> bool:
    """Return whether each token reads only those before it: models that generate texts and fill in
    no gaps, unless their configuration says otherwise."""
    from transformers.models.auto import modeling_auto as known

    kind = config.model_type
    generates = kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in ENCODERS
    both_ways = getattr(config, "use_bidirectional_attention", None) is True  # EmbeddingGemma
    both_ways = both_ways or getattr(config, "is_causal", None) is False
    return generates and kind not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not both_ways


def _image(name: str, folder: Path | None, config: Any) -> _Setting:
    """Return how a model for images is given them, and pools."""
    plain = files.read_plain(folder, files.PREPROCESSOR) if folder else {}
    own = getattr(config, "image_size", None) or 224
    with files.values_of(folder, files.PREPROCESSOR):
        input = image_input(plain, own if isinstance(own, int) else own[0])
    kinds = config.architectures or ()
    classes = any(kind.endswith("ForImageClassification") for kind in kinds)
    return _Setting(input, "cls" if _has_cls(config) else "pooler", classes=classes)


def _has_cls(config: Any) -> bool:
    """Return whether the first token is [CLS]: in vision transformers with one list of layers."""
    return hasattr(config, "num_hidden_layers") and not hasattr(config, "depths")


def _assembled(
    name: str, config: Any, made: _Setting, folder: Path | None, weights: Weights
) -> Backbone:
    model, source = _random(config), None
    if not weights.random:
        assert folder is not None
        model, source = _pretrained(config, made, _tensors(folder, weights), folder)
    network = _network(model, made)
    dim = _dim(network)
    names = tuple(config.id2label[i] for i in sorted(config.id2label)) if source else ()
    if source is not None and len(source.weight) != dim:
        source, names = None, ()  # the layer reads other features
    unit = "-unit" if made.unit else ""
    card = Card(
        name=name,
        architecture=f"hf:{config.model_type}@{made.pool}{unit}",
        dim=dim,
        input=made.input,
        origin=weights.origin,
        licence=files.licence(folder) if folder else "its own",
        source_task="its source task" if names else "",
        source_classes=names,
        config=_plain(config),
    )
    return Backbone(card, network, network.blocks(), source)


def _plain(config: Any) -> str:
    """Return a configuration as JSON, without names of classes and versions."""
    plain = json.loads(config.to_json_string(use_diff=False))
    return json.dumps({k: v for k, v in plain.items() if k not in NOT_KEPT}, sort_keys=True)


def _random(config: Any) -> "nn.Module":
    """Return a model with random weights, the same every time."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cast("nn.Module", AutoModel.from_config(config, trust_remote_code=False))


def _tensors(folder: Path, weights: Weights) -> dict[str, Any]:
    """Return the tensors of the file that was named, or of all files in the folder."""
    if weights.file is not None:
        return read_tensors(weights.file)
    if (folder / files.WEIGHTS).is_file():
        return read_tensors(folder / files.WEIGHTS)
    with files.values_of(folder, files.SHARDS):
        shards = files.read_plain(folder, files.SHARDS).get("weight_map") or {}
        names = sorted({Path(str(name)).name for name in shards.values()})
    return {k: v for name in names for k, v in read_tensors(folder / name).items()}


def _pretrained(
    config: Any, made: _Setting, tensors: dict[str, Any], folder: Path
) -> "tuple[nn.Module, SourceHead | None]":
    """Return the model with these weights, and the layer that classifies images, if any."""
    import torch
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    with_classes = made.classes and type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    mapping = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING if with_classes else MODEL_MAPPING
    try:
        model, info = mapping[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise Mismatch(
            f"The weights in {folder} do not fit its {files.CONFIG}: {reason}"
        ) from error
    unused = () if made.pool == "pooler" else ("pooler.",)
    if missing := sorted(n for n in info["missing_keys"] if not n.startswith(unused)):
        raise Mismatch(
            f"The weights in {folder} must fit its {files.CONFIG}; they lack {missing[0]!r}"
            + (f" and {len(missing) - 1} more." if len(missing) > 1 else ".")
            + (" Choose other features: hf:ID@mean." if "pooler" in missing[0] else "")
        )
    fill(model, model.state_dict(), folder)  # raises Mismatch for NaN and infinity
    return (model.base_model, _source_head(model)) if with_classes else (model, None)


def _source_head(model: Any) -> SourceHead | None:
    import torch

    layer = model.classifier
    if not isinstance(layer, torch.nn.Linear):
        return None
    weight, bias = (t.detach().numpy() for t in (layer.weight, layer.bias))
    return SourceHead(np.ascontiguousarray(weight.T), bias)


def _network(model: "nn.Module", made: _Setting) -> "Transformer":
    """Return the model with its pooling, frozen, in inference mode."""
    from headstart.modalities import transformer_networks as networks

    pooler = getattr(model, "pooler", None)
    if pooler is not None and made.pool != "pooler" and any(True for _ in pooler.parameters()):
        model.pooler = None  # type: ignore[assignment]
    network: Transformer
    if isinstance(made.input, TextInput):
        network = networks.TextTransformer(model, networks.TextPooling(made.pool, made.unit))
    else:
        pooling = networks.ImagePooling(made.pool, _special(model))
        network = networks.ImageTransformer(model, pooling, made.input.size)
    network.eval().requires_grad_(False)
    return network


def _special(model: "nn.Module") -> int:
    """Return the number of tokens before those of patches: [CLS] and registers."""
    config: Any = model.config
    first = hasattr(getattr(model, "embeddings", None), "cls_token")
    return int(first) + int(getattr(config, "num_register_tokens", 0))


def _dim(network: "Transformer") -> int:
    import torch

    with torch.inference_mode():
        shape = network(*network.example()).shape
    return int(shape[-1])


@contextmanager
def _library(name: str) -> Iterator[None]:
    """Import transformers, and keep its progress and reports off the screen.

    Importing headstart has switched its telemetry off.
    """
    try:
        from transformers.utils import logging as own
    except ImportError as error:
        raise MissingPackage("transformers", purpose=f"Loading {name}", extra="hf") from error
    level, bars = own.get_verbosity(), own.is_progress_bar_enabled()
    own.set_verbosity(logging.ERROR)
    own.disable_progress_bar()
    try:
        yield
    finally:
        own.set_verbosity(level)
        if bars:
            own.enable_progress_bar()
