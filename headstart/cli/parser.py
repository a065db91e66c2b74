"""A command's parser: argparse, with our errors."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from headstart.base.errors import SpecError, UnknownName


class Parser(argparse.ArgumentParser):
    """argparse, with our errors: one sentence, the nearest flag, exit code 2."""

    def __init__(self, name: str) -> None:
        super().__init__(f"headstart {name}", allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise SpecError(f"{message}. See `{self.prog} --help`.")

    def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        args, extra = self.parse_known_intermixed_args(argv)  # flags may stand between files
        for name in extra:
            if name.startswith("--"):
                flags = [o for o in self._option_string_actions if o.startswith("--")]
                raise UnknownName(f"flag of `{self.prog}`", name.partition("=")[0], flags)
            self.error(f"{name!r} is one argument too many")
        return args
