"""Folders of tiny models of transformers with random weights, as save_pretrained writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

WORDS = "a the good bad fine poor film plot was is very great awful boring lovely . , not".split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WIDTH, SIZE = 32, 32
USUAL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
TEXT = {"vocab_size": len(WORDS) + len(SPECIAL), "pad_token_id": 0}
BERT = {**TEXT, **USUAL, "max_position_embeddings": 40}

Made = Callable[[], Any]
TEXTS: dict[str, Made] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**BERT)),
    "roberta": lambda: transformers.RobertaModel(
        transformers.RobertaConfig(**{**BERT, "pad_token_id": 1})  # as the published one
    ),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(
            **TEXT, dim=WIDTH, n_layers=3, n_heads=2, hidden_dim=48, max_position_embeddings=40
        )
    ),
    "modernbert": lambda: transformers.ModernBertModel(
        transformers.ModernBertConfig(**BERT, local_attention=4, global_attn_every_n_layers=2)
    ),
    "gpt2": lambda: transformers.GPT2Model(
        transformers.GPT2Config(**TEXT, n_embd=WIDTH, n_layer=3, n_head=2, n_positions=40)
    ),
}
IMAGES: dict[str, Made] = {
    "vit": lambda: transformers.ViTModel(
        transformers.ViTConfig(**USUAL, image_size=SIZE, patch_size=8)
    ),
    "dinov2": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(**USUAL, image_size=SIZE, patch_size=8)
    ),
    "swin": lambda: transformers.SwinModel(
        transformers.SwinConfig(
            image_size=SIZE,
            patch_size=2,
            embed_dim=8,
            depths=[1, 2, 1],
            num_heads=[1, 2, 2],
            window_size=4,
        )
    ),
    "convnext": lambda: transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 2, 1])
    ),
}
PROCESSOR = {"size": {"height": SIZE, "width": SIZE}, "resample": 3, "image_mean": [0.4] * 3}


def write_model(folder: Path, kind: str) -> Path:
    """Write a model of this kind with its tokenizer or preprocessor, and return the folder."""
    torch.manual_seed(0)
    model = (TEXTS | IMAGES)[kind]()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # equal norms would be exported once
            torch.nn.init.normal_(parameter, float("norm" in name.lower()), 0.1)
        else:
            torch.nn.init.normal_(parameter, 0.0, 0.3)
    model.save_pretrained(folder)
    if kind in TEXTS:
        (folder / "tokenizer.json").write_text(tokenizer(specials=kind != "gpt2"))
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def tokenizer(*, specials: bool = True) -> str:
    """Return a tokenizer of whole words, with [CLS] and [SEP] around each text or without."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    ids = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    made = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if specials:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return made.to_str()


def films(n: int) -> list[tuple[str, str]]:
    """Short and long sentences, some of several windows, with a word that decides."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        words = list(rng.choice(["a", "the", "film", "plot", "was", "very", "."], 3 + i % 50))
        words.insert(int(rng.integers(len(words))), "good" if i % 2 else "bad")
        rows.append((" ".join(words), "yes" if i % 2 else "no"))
    return rows


def pictures(n: int) -> tuple[Any, list[str]]:
    levels = np.where(np.arange(n) % 2, 60, 190)[:, None, None, None]
    pixels = np.random.default_rng(0).normal(levels, 40, (n, 20, 20, 3)).clip(0, 255)
    return pixels.astype(np.uint8), ["ab"[i % 2] for i in range(n)]
