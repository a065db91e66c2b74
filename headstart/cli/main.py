"""The command line: the table of commands, dispatch, and error handling.

stdout is for results, stderr for messages and progress. Exit codes: 0 done; 1 the data or the run
failed; 2 the command was wrong; 3 done, but some inputs were left out; 130 interrupted.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from headstart import __version__
from headstart.base.command import typed
from headstart.base.errors import (
    HeadstartError,
    MissingPackage,
    SpecError,
    UnknownName,
    is_of_the_machine,
    sentence_of,
)
from headstart.base.ranks import first_to_tell, is_leader, under_torchrun
from headstart.cli.aliases import command_of
from headstart.cli.flags import word_after
from headstart.cli.language import FLAG, LANGUAGES, language_words, speak
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, FAILED, INTERRUPTED, WRONG
from headstart.cli.process import lasting_streams, next_signal_ends, stoppable
from headstart.cli.progress import be_quiet, say, stop_bars

# Each command is the module of its name, imported when the command runs.
SUMMARIES = {
    "demo": "train on a built-in example: photographs, texts, or a number",
    "train": "make a tested model of labelled images or texts",
    "check": "show what is wrong with the data, before any training",
    "index": "list where the examples of a data set lie, in one Parquet file",
    "advise": "say whether to fine-tune, on which network, and how long it takes",
    "search": "compare pretrained networks on a sample of the data",
    "extract": "compute features into the store, on this machine or a Ray cluster",
    "evaluate": "measure a model on labelled data, or a file of predictions",
    "compare": "compare runs with the first of them, on the same test rows",
    "report": "write RUN/report.html again, the page that shows all of a run",
    "predict": "predict images or texts with a trained model",
    "classify": "name the class of images, by a pretrained network as it is",
    "backbones": "list the pretrained networks: input, licence, place of weights",
    "recipes": "list the recipes of the tutorials, and what each does",
    "views": "draw a grid of augmented views of a picture, as a PNG",
    "export": "write a model as one graph for other programs, checked against it",
    "verify": "run the golden examples of an export again, on this machine",
    "track": "write a finished run to TensorBoard or MLflow",
    "explain": "show where in a picture or text the model sees its answer",
    "attack": "change pictures so little that only the model sees another class",
    "ideal": "draw the picture that the model is surest of, for a class",
    "robustness": "measure a run on attacked, noisy, blurred or foggy test pictures",
    "serve": "answer requests for predictions over HTTP, with a page for people",
    "store": "merge the files of the store, or verify every one of them again",
    "completion": "print a script that completes words in bash, zsh or fish",
}


@dataclass(frozen=True)
class Command:
    """A command; called with its arguments, it runs and returns the exit code."""

    name: str

    def parser(self, words: Sequence[str] = ()) -> Parser:
        """Return the parser; the defaults of `train` come from the recipe named in `words`."""
        parser: Parser = import_module(f"headstart.cli.{self.name}").arguments(words)
        parser.description = SUMMARIES[self.name]
        if parser.option(FLAG) is None:
            parser.add_argument(
                FLAG,
                dest="printed_in",
                choices=LANGUAGES,
                default=LANGUAGES[0],
                help="language of what is printed (default: %(default)s)",
            )
        return parser

    def __call__(self, words: list[str]) -> int:
        words = [*language_words(words), *words]
        args = self.parser(words).parse_args(words)
        code: int = import_module(f"headstart.cli.{self.name}").run(args)
        return code


COMMANDS: dict[str, Callable[[list[str]], int]] = {name: Command(name) for name in SUMMARIES}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors of the command, the data or the machine are
    printed as one sentence, others as a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    be_quiet("-q" in argv or "--quiet" in argv)
    speak(word_after([*argv, *language_words(argv)], FLAG))
    with lasting_streams(), stoppable():
        try:
            return _dispatched(argv)
        except KeyboardInterrupt as error:
            next_signal_ends()
            if is_leader():
                say("stopped", str(error) or "nothing is kept but what is printed already")
            return INTERRUPTED
        except Exception as error:
            wrong = _code_of(error)
            if wrong is None:
                raise
            next_signal_ends()
            if first_to_tell():
                say("error", sentence_of(error))
            return wrong
        finally:
            stop_bars()
            be_quiet(False)  # of this command alone, where one process runs several
            speak(LANGUAGES[0])


def _dispatched(argv: list[str]) -> int:
    """Run a command and flush stdout."""
    try:
        code = _dispatch(argv)
    except SystemExit:  # of --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _code_of(error: Exception) -> int | None:
    """Return the exit code for an error of the command, the data or the machine; else None."""
    if isinstance(error, (SpecError, UnknownName, MissingPackage)):
        return WRONG
    if isinstance(error, (HeadstartError, OSError, MemoryError)) or is_of_the_machine(error):
        return FAILED
    return None


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return DONE if argv else WRONG
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return DONE
    if argv[0] in ("-q", "--quiet") and argv[1:]:
        return _dispatch([*argv[1:], argv[0]])
    if argv[0] == "help":
        return _dispatch([*argv[1:2], "--help"])
    name, words, hint = command_of(argv, COMMANDS)
    if under_torchrun() and name != "train":
        return _refused(name)
    if hint:
        say("hint", hint)
    with typed([name, *words]):
        return COMMANDS[name](words)


def _refused(name: str) -> int:
    """Refuse a command other than `train` under torchrun; only the leader prints the error."""
    if is_leader():
        say(
            "error",
            "torchrun starts several processes, and only `headstart train` divides work among "
            f"them: type headstart {name} without torchrun.",
        )
    return WRONG


def _overview() -> str:
    lines = "\n".join(f"  {name:12}{summary}" for name, summary in SUMMARIES.items())
    return (
        f"usage: headstart COMMAND …\n\n{lines}\n\n"
        "`headstart COMMAND --help` shows its flags; `headstart --version` the version.\n"
        "Start with `headstart demo`, or `headstart train PHOTOS --out runs/first`."
    )
