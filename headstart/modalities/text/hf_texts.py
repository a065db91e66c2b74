"""Preparation of texts as the files beside a model of transformers describe it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headstart.base.errors import Mismatch, SourceError, SpecError
from headstart.modalities import transformer_files as files

if TYPE_CHECKING:
    from headstart.modalities.transformer_networks import Pool

LONGEST = 512  # tokens of a window: attention over longer ones costs too much memory
# Models that count the positions of tokens from the id of padding on.
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer")
LIMITS = (
    ("sentence_bert_config.json", "max_seq_length"),
    ("tokenizer_config.json", "model_max_length"),
)  # tokens: the file, and its key


def pool_of(plain: Mapping[str, Any]) -> "Pool":
    """Return the pooling that sentence-transformers saved; raises SpecError for unknown ones."""
    named: dict[str, Pool] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
    short = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # newer files
    if (mode := plain.get("pooling_mode")) in short:
        return cast("Pool", short[str(mode)])
    chosen = [
        key for key, value in plain.items() if key.startswith("pooling_mode_") and value is True
    ]
    if len(chosen) != 1 or chosen[0] not in named:
        raise SpecError(
            f"The pooling of a sentence-transformers model is that of mean, first or last tokens; "
            f"its file says {', '.join(chosen) or 'none'}. Choose one: hf:ID@mean."
        )
    return named[chosen[0]]


def limits(config: Any, folder: Path | None) -> Iterator[int]:
    """Yield the numbers of tokens beyond which the model can't, or need not, read at once."""
    yield LONGEST
    if positions := getattr(config, "max_position_embeddings", None):
        first = config.pad_token_id + 1 if config.model_type in AFTER_PADDING else 0
        yield positions - first
    if folder:
        yield from filter(None, (_number(folder, name, key) for name, key in LIMITS))


def _number(folder: Path, name: str, key: str) -> int:
    """Return a number in a file of the folder; 0 if it is missing or null."""
    with files.values_of(folder, name):
        return int(files.read_plain(folder, name).get(key) or 0)


def check_vocabulary(tokenizer: bytes, size: int, folder: Path) -> None:
    """Raise Mismatch if a tokenizer has ids that a network with `size` word vectors lacks."""
    import tokenizers

    ids = tokenizers.Tokenizer.from_str(tokenizer.decode()).get_vocab().values()
    if (most := max(ids, default=-1) + 1) > size:
        raise Mismatch(
            f"Every token needs a vector; the tokenizer in {folder} has {most} ids and the network "
            f"{size} vectors. Are they of the same model?"
        )


def tokenizer_file(folder: Path) -> bytes:
    """Return tokenizer.json, if need be converted from an older vocabulary."""
    if (path := folder / "tokenizer.json").is_file():
        return path.read_bytes()
    if not any((folder / name).is_file() for name in files.TOKENIZERS):
        raise SourceError(
            f"{folder} has no tokenizer.json, which a model for texts needs. Put it beside "
            f"{files.CONFIG}; save_pretrained of its tokenizer writes it."
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return str(tokenizer.backend_tokenizer.to_str()).encode()
    except (AttributeError, ImportError, OSError, ValueError) as error:
        raise SourceError(
            f"The vocabulary in {folder} can't be converted to tokenizer.json: {error}. Convert it "
            f"with the library that wrote it."
        ) from error
