"""Sayings by topic, in Russian and English, from two Debian packages.

    make data/fortunes                      downloads the packages into data/, without installing
    sayings("ru", ("love", "work"), folder)

fortunes-ru (GPL-2) and fortunes (BSD): a file per topic, sayings separated by lines of one %. The
last line of a saying names its author and is left out.
"""

import io
import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

PACKAGES = {"ru": ("fortunes-ru_*.deb", "fortunes/ru/"), "en": ("fortunes_*.deb", "fortunes/")}
TOPICS = {  # the same in both languages, as each names them
    "love": "love",
    "work": "work",
    "computer": "computers",
    "education": "education",
    "polit": "politics",
    "art": "art",
}
SHORTEST, LONGEST = 20, 600  # characters


def there(folder: Path) -> bool:
    return all(list(folder.glob(pattern)) for pattern, _ in PACKAGES.values())


def sayings(language: str, topics: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """The sayings of each topic, each once."""
    pattern, below = PACKAGES[language]
    package = sorted(folder.glob(pattern))[-1]
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as files:
        texts = {topic: files.extractfile(f"./usr/share/games/{below}{topic}") for topic in topics}
        return {
            topic: list(_sayings(file.read().decode())) for topic, file in texts.items() if file
        }


def _sayings(text: str) -> dict[str, None]:
    bare = (re.split(r"\n\s*--", saying)[0] for saying in text.split("\n%\n"))
    joined = (" ".join(saying.split()) for saying in bare)
    return dict.fromkeys(s for s in joined if SHORTEST <= len(s) <= LONGEST)
