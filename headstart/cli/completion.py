"""`headstart completion`: print a shell completion script, made from the parsers."""

import argparse
from collections.abc import Iterator, Sequence

from headstart.cli.parser import Parser
from headstart.cli.printing import DONE

SHELLS = ("bash", "zsh", "fish")
BASH = """\
_headstart() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  case "${{COMP_WORDS[1]}} $before" in
{choices}
  *) case "${{COMP_WORDS[1]}}" in
{flags}
    esac
    [[ $word == -* ]] || words="" ;;
  esac
  [[ $COMP_CWORD -eq 1 ]] && words="{commands}"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _headstart headstart
"""


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("completion")
    parser.add_argument(
        "shell",
        choices=SHELLS,
        help='eval "$(headstart completion bash)" in ~/.bashrc; zsh alike in ~/.zshrc; in fish '
        "`headstart completion fish | source`",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.cli.main import SUMMARIES, Command

    parsers = {name: Command(name).parser() for name in SUMMARIES}
    print(_fish(parsers) if args.shell == "fish" else _bash(parsers, args.shell), end="")
    return DONE


def _bash(parsers: dict[str, Parser], shell: str) -> str:
    """Return the script for bash, or for zsh, which can run bash completions."""
    choices = [
        f'  "{name} {flag}") words="{words}" ;;'
        for name, parser in parsers.items()
        for flag, action in _options(parser)
        if (words := _values(action))
    ]
    flags = [
        f'  {name}) words="{" ".join(flag for flag, _ in _options(parser))}" ;;'
        for name, parser in parsers.items()
    ]
    head = "autoload -U bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + BASH.format(
        choices="\n".join(choices), flags="\n".join(flags), commands=" ".join(parsers)
    )


def _fish(parsers: dict[str, Parser]) -> str:
    lines = [f"complete -c headstart -n __fish_use_subcommand -a '{' '.join(parsers)}' -f"]
    for name, parser in parsers.items():
        for flag, action in _options(parser):
            words = f" -xa '{values}'" if (values := _values(action)) else ""
            seen = f"'__fish_seen_subcommand_from {name}'"
            lines.append(f"complete -c headstart -n {seen} -l {flag[2:]}{words}")
    return "\n".join(lines) + "\n"


def _values(action: argparse.Action) -> str:
    """Return the words that a flag takes, if they are listed."""
    listed = getattr(action, "completions", ()) if action.choices is None else action.choices
    return " ".join(map(str, listed))


def _options(parser: Parser) -> Iterator[tuple[str, argparse.Action]]:
    """Yield the long flags of a command with their actions."""
    for flag in parser.flags:
        action = parser.option(flag)
        if action and flag.startswith("--"):
            yield flag, action
