"""The token that requests carry, read from a file and compared in constant time."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from headstart.base.errors import SpecError

LEAST = 16  # characters
MOST_BYTES = 4096  # of the file
COOKIE = "headstart_session"


@dataclass(frozen=True)
class Token:
    """A secret. `repr` does not show it."""

    secret: str = field(repr=False)

    def matches(self, given: str) -> bool:
        """Return whether a text is the token."""
        return hmac.compare_digest(self.secret.encode(), given.encode("utf-8", "replace"))

    @property
    def cookie(self) -> str:
        """The value of the page's cookie, from which the token can't be found."""
        return hmac.new(self.secret.encode(), b"headstart page", sha256).hexdigest()

    def is_cookie(self, given: str) -> bool:
        """Return whether a text is the value of the page's cookie."""
        return hmac.compare_digest(self.cookie, given.encode("ascii", "replace").decode())

    def carried_by(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request carries the token, in its header or as the page's cookie."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.matches(given.strip())
        pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(name == COOKIE and self.is_cookie(value) for name, _, value in pairs)


def read_token(path: Path) -> Token:
    """Read a token from a file; raises SpecError, which never shows what the file holds."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SpecError(f"--token-file {path} can't be read: {error.strerror}.") from None
    words = data.decode("ascii", "replace").split()
    text = words[0] if len(words) == 1 else ""
    if len(data) > MOST_BYTES or len(text) < LEAST or not (text.isascii() and text.isprintable()):
        raise SpecError(
            f"--token-file {path} must hold one line of at least {LEAST} characters without "
            f"spaces, such as what this prints: python -c 'import secrets; "
            f"print(secrets.token_urlsafe(32))'"
        )
    return Token(text)
