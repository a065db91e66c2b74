"""The files of a model of transformers: in a folder, or fetched from the Hugging Face Hub.

Only JSON, text and safetensors files are read: a pickle is refused, and code in a repository is
neither fetched nor run.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.backbones.weights import Weights, check_file
from headstart.base.errors import HeadstartError, SourceError
from headstart.base.paths import user_path

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
PATTERNS = (
    *(CONFIG, "model*.safetensors", SHARDS, *TOKENIZERS, "tokenizer_config.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", PREPROCESSOR, "modules.json"),
    *("sentence_bert_config.json", "1_Pooling/config.json", "README.md"),
)
SECONDS = 10.0  # to wait for the hub


def local_folder(id: str, weights: Weights) -> Path | None:
    """Return the folder that `id` or the file of `weights` names; None for a name on the hub.

    Raises SourceError if it holds no config.json.
    """
    if weights.file is not None:
        return _checked(weights.file.parent)
    path = user_path(id)
    if id.startswith((".", "/", "~", "\\")) or path.drive or (path / CONFIG).is_file():
        return _checked(path)
    return None


def cached_folder(id: str) -> Path | None:
    """Return the hub's files of a model in its local cache; None unless they are there."""
    import huggingface_hub as hub

    try:
        folder = Path(hub.snapshot_download(id, local_files_only=True))
    except (OSError, ValueError):  # ValueError: not a name that the hub allows
        return None
    return folder if (folder / CONFIG).is_file() else None


def fetched_folder(id: str, *, weights: bool = True) -> Path:
    """Return the hub's files of a model, fetched; raises SourceError if that fails."""
    import huggingface_hub as hub

    wanted = [p for p in PATTERNS if weights or "safetensors" not in p]
    try:
        if not hub.constants.HF_HUB_OFFLINE:  # one try; the download makes six
            hub.get_hf_file_metadata(hub.hf_hub_url(id, CONFIG), timeout=SECONDS)
        return Path(hub.snapshot_download(id, allow_patterns=wanted))
    except Exception as error:  # each library has its own network errors
        raise SourceError(
            f"{id} must be a folder, or a model on the Hugging Face Hub, and its files "
            f"({CONFIG}, {WEIGHTS} and, for texts, tokenizer.json) could not be fetched "
            f"({type(error).__name__}). Get them on a machine that reaches the hub and name their "
            f"folder, --backbone hf:FOLDER, or the file in it, --weights FOLDER/{WEIGHTS}."
        ) from error


def check_weights(folder: Path) -> None:
    """Raise SourceError unless the folder has weights as safetensors."""
    if (folder / WEIGHTS).is_file() or (folder / SHARDS).is_file():
        for file in sorted(folder.glob("*.safetensors")):
            check_file(file)
        return
    pickle = next((name for name in PICKLES if (folder / name).exists()), "")
    if pickle:
        raise SourceError(
            f"Weights are read from {WEIGHTS} alone; {folder} has {pickle}, and reading such a "
            f"file can run code that is in it. Convert it where you trust it, with "
            f"AutoModel.from_pretrained(…).save_pretrained(FOLDER)."
        )
    raise SourceError(
        f"{folder} has no {WEIGHTS}. Put it beside {CONFIG}, or say --weights random for an "
        f"untrained network."
    )


def read_plain(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of the folder, {} without the file; raises SourceError."""
    try:
        plain = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder / name} cannot be read as JSON: {error}.") from error
    if not isinstance(plain, dict):
        raise SourceError(f"{folder / name} must hold an object, and does not. Get it again.")
    return plain


@contextmanager
def values_of(folder: Path | None, name: str) -> Iterator[None]:
    """Raise SourceError, naming the file, where a value in it is not of the type that is needed."""
    try:
        yield
    except HeadstartError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        path = folder / name if folder else name
        raise SourceError(
            f"{path} must hold settings as save_pretrained of transformers writes them, and one of "
            f"them cannot be used ({error}). Get the file again, or correct it."
        ) from error


def modules_of(folder: Path) -> Mapping[str, str]:
    """Return the modules of a sentence-transformers model: the folder of each, by its class."""
    try:
        listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return {str(m["type"]).rpartition(".")[2]: str(m["path"]) for m in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def licence(folder: Path) -> str:
    """Return the licence that the head of README.md names, otherwise "its own"."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "its own"
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    named = (
        re.search(r"^license:\s*[\"']?([\w.+-]+)", head.group(1), re.MULTILINE) if head else None
    )
    return named.group(1) if named else "its own"


def _checked(folder: Path) -> Path:
    if not (folder / CONFIG).is_file():
        raise SourceError(
            f"{folder} must hold {CONFIG}, {WEIGHTS} and, for texts, tokenizer.json, as "
            f"save_pretrained of transformers writes them; there is no {CONFIG}."
        )
    return folder
