"""The settings of a server, and the rules that they must keep."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from headstart.base.errors import SpecError
from headstart.base.runtime import MOST_THREADS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # of a model: a part of an address
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
MOST_WAITING = 100_000
MOST_BATCH = 1024


@dataclass(frozen=True)
class ServeSpec:
    """Where a server listens, to whom it answers, and how much it accepts at once.

    >>> ServeSpec(host="0.0.0.0")
    Traceback (most recent call last):
    headstart.base.errors.SpecError: On 0.0.0.0 other machines can ask this server, so it needs \
a token: name a file that holds one with --token-file, or leave --host out.
    """

    host: Annotated[
        str, "address to listen on; with another than this machine's own, --token-file is needed"
    ] = "127.0.0.1"
    port: Annotated[int, "port to listen on, 0 for any free one"] = 8000
    token_file: Annotated[
        str,
        "file whose only line is the token that every request must carry, of 16 characters or more",
    ] = ""
    allow_host: Annotated[
        tuple[str, ...],
        "names by which others reach this server, such as a proxy's; requests under other names "
        "are refused",
    ] = ()
    sha256: Annotated[
        tuple[str, ...],
        "digests of bundles, as training prints them; any other bundle or version is refused",
    ] = ()
    queue: Annotated[
        int, "examples that may wait for a model; while so many wait, requests get status 503"
    ] = 64
    batch: Annotated[int, "the most examples that the network is given at once"] = 8
    threads: Annotated[int, "threads of the network, 0 for one per core"] = 0

    def __post_init__(self) -> None:
        for name in (self.host, *self.allow_host):
            if not HOST_NAME.fullmatch(name):
                raise SpecError(
                    f"A host is a name or an address without a port; got {name[:60]!r}."
                )
        for digest in self.sha256:
            if not DIGEST.fullmatch(digest):
                raise SpecError(
                    f"sha256 is the digest of a bundle, 64 hexadecimal digits; got {digest[:80]!r}."
                )
        limits = {"port": (0, 65_535), "queue": (1, MOST_WAITING), "batch": (1, MOST_BATCH)}
        limits["threads"] = (0, MOST_THREADS)
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise SpecError(
                    f"{name} is a number from {least} to {most:,}; got {getattr(self, name)}."
                )
        if not self.token_file and not is_own(self.host):
            raise SpecError(
                f"On {self.host} other machines can ask this server, so it needs a token: name a "
                f"file that holds one with --token-file, or leave --host out."
            )


def is_own(host: str) -> bool:
    """Return whether a host is this machine alone.

    >>> is_own("127.0.0.1"), is_own("localhost"), is_own("::1"), is_own("0.0.0.0")
    (True, True, True, False)
    """
    return host.lower() == "localhost" or (is_address(host) and ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Return whether a host is an IP address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def model_names(folders: tuple[Path, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of models: those that are given, else those of their folders.

    Raises SpecError for a name that can't be a part of an address, or that occurs twice.

    >>> model_names((Path("runs/cells"), Path("runs/cats/model")), ())
    ('cells', 'cats')
    """
    if given and len(given) != len(folders):
        raise SpecError(
            f"--name is given once for each model; got {len(given)} names for {len(folders)} "
            f"models."
        )
    names = given or tuple(_folder_name(folder) for folder in folders)
    for name in names:
        if not NAME.fullmatch(name):
            raise SpecError(
                f"A model's name is 1 to 64 letters, digits, dots, dashes and underscores; got "
                f"{name[:80]!r}. Give it another with --name."
            )
    if len(set(names)) < len(names):
        raise SpecError(
            f"Each model has a name of its own; got {', '.join(names)}. Give them with --name."
        )
    return names


def _folder_name(folder: Path) -> str:
    path = folder.absolute()
    return path.parent.name if path.name == "model" else path.name
