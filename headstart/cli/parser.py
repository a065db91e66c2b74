"""argparse with short help, errors of one sentence, and translated flags of other tools."""

import argparse
import re
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from headstart.base.errors import SpecError
from headstart.cli.aliases import in_our_words, nearest_of, refuse_flag
from headstart.cli.progress import say

WIDTH = 80  # columns of help, at most
SHOWN = 40  # characters quoted of a wrong value


class HelpText(argparse.HelpFormatter):
    """Help of at most WIDTH columns. brief: only the first clause and the default of each flag."""

    def __init__(self, prog: str, *, brief: bool = False) -> None:
        super().__init__(prog, max_help_position=24)
        self._width = min(self._width, WIDTH - 2)
        self._brief = brief

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0][2:]}"
        return super()._format_action_invocation(action)

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        if not self._brief or not action.option_strings:
            return text
        usual = re.search(r" \(default: [^()]*\)$", text)
        return re.split(r"; | \(", text)[0] + (usual[0] if usual else "")


class Parser(argparse.ArgumentParser):
    """argparse with errors of one sentence that say what to type (exit code 2).

    short: the flags shown by `--help`, if all would not fit a screen; `--help-all` shows all.
    """

    def __init__(self, name: str, *, short: Collection[str] = ()) -> None:
        super().__init__(
            f"headstart {name}", allow_abbrev=False, add_help=False, formatter_class=HelpText
        )
        self.short = short
        self._positionals.title, self._optionals.title = "arguments", "flags"
        self.add_argument("-h", "--help", action="help", help="show this help")
        text = "show the help of every flag" if short else argparse.SUPPRESS
        self.add_argument("--help-all", action=_HelpAll, nargs=0, help=text)
        self.add_argument("-q", "--quiet", action="store_true", help="print results only")

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(self._option_string_actions)

    def option(self, flag: str) -> argparse.Action | None:
        return self._option_string_actions.get(flag)

    def takes(self, *names: str) -> bool:
        """Whether the name of a positional argument contains one of `names`, such as RUN."""
        words = [word for a in self._get_positional_actions() for word in _name(a).split()]
        return not {part for word in words for part in word.split("_")}.isdisjoint(names)

    @property
    def line(self) -> str:
        """The command with its arguments and required flags."""
        formatter, actions = self._get_formatter(), self._get_positional_actions()
        words = [self.prog, *(formatter._format_args(a, _name(a)) for a in actions)]
        needed = [a for a in self._actions if a.required and a.option_strings]
        return " ".join([*words, *(f"{a.option_strings[0]} {_name(a)}" for a in needed)])

    @property
    def see(self) -> str:
        return f"See `{self.prog} --help{'-all' if self.short else ''}`."

    def format_usage(self) -> str:  # argparse saves `usage` here while it parses
        return f"usage: {(self.usage or f'{self.line} [flags]').strip()}\n"

    def format_help(self, *, every: bool = False) -> str:
        """Return the help of the flags in `short`; of all with `every`, or if `short` is empty."""
        brief = bool(self.short) and not every
        formatter = HelpText(self.prog, brief=brief)
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_arguments(a for a in group._group_actions if not brief or self._shown(a))
            formatter.end_section()
        text = f"{self.format_usage()}\n{formatter.format_help()}"
        if brief:
            text += f"\n`{self.prog} --help-all` shows all {len(self._actions)} flags.\n"
        return text

    def _shown(self, action: argparse.Action) -> bool:
        shown = {*self.short, "--help", "--help-all", "--quiet"}
        return not shown.isdisjoint(action.option_strings or shown)

    def error(self, message: str) -> NoReturn:
        text = message.replace("the following", "These").removeprefix("argument ")
        remedy = f"See `{self.prog} --help`."
        if "are required" in text:
            remedy = f"Type `{(self.usage or self.line).strip().removesuffix(' [flags]')}`."
        raise SpecError(f"{text}{'' if text.endswith('?') else '.'} {remedy}")

    def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        words = in_our_words(self, argv)
        for hint in words.hints:
            say("hint", hint)
        args, extra = self.parse_known_intermixed_args(words.all)  # flags may stand between files
        for word in extra:
            if word.startswith("--"):
                refuse_flag(self, word.partition("=")[0])
            self.error(f"{word[:SHOWN]!r} is one argument too many")
        return args

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise ArgumentError, with the nearest choice, for a value that is not a choice."""
        if action.choices is not None and value not in action.choices:
            near = nearest_of(str(value), action.choices)
            hint = f"did you mean {near!r}?" if near else f"choose {_either(action.choices)}"
            text = f"invalid choice: {str(value)[:SHOWN]!r}, {hint}"
            raise argparse.ArgumentError(action, text)


class _HelpAll(argparse.Action):
    def __call__(self, parser: Any, *_: object) -> None:
        print(parser.format_help(every=True), end="")
        parser.exit()


def _name(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _either(choices: Any) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last
