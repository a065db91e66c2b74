"""Do two versions of the code give the same results, to the byte?

    python bench/same_results.py [--against COMMIT] [--quick] [--keep FOLDER] [--only PATTERN]
    python bench/same_results.py --quick --control

The code of an older commit and that of this checkout run the same commands (same/commands.py) on
the same small data, each with its own store and home folder, on one core each. Every file that they
wrote and every line that they printed is compared after what must differ (seconds, dates, folders)
is taken out. Of each it says:

    same; same numbers, other words; numbers differ; only old; only new

Whatever is neither of the first two, nor named with a reason in same_results_intended.json, makes
the exit code 1. --keep FOLDER keeps what the older code gave, so that the next run against it pays
for the new side alone. --control alters one number in each kind of file on the new side: each must
be found.
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from harness import Bench, circumstances
from same.commands import Command, commands, needed
from same.compare import GOOD, SAME, Compared, compare, intended_of
from same.control import planted
from same.data import make_data

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
INTENDED = BENCH / "same_results_intended.json"
DONE = "done.json"  # written last into a folder that is kept


@dataclass(frozen=True)
class Side:
    """code: the folder that `headstart` is in. folder: where its commands work and write."""

    code: Path
    folder: Path
    core: int


def main() -> None:
    bench = Bench("same_results", __doc__)
    bench.flag("--against", default="HEAD", metavar="COMMIT", help="(%(default)s)")
    bench.flag("--only", default="*", help="pattern of names of commands")
    bench.flag("--keep", type=Path, metavar="FOLDER", help="of the older side's outputs")
    bench.flag("--control", action="store_true", help="plant changes; each must be found")
    args = bench.arguments()
    listed = tuple(c for c in commands(args.quick) if fnmatchcase(c.name, args.only))
    needed(listed)
    with tempfile.TemporaryDirectory(prefix="same-") as temporary:
        kept = (args.keep or Path(temporary)).resolve() / key(args.against, listed)
        kept.mkdir(parents=True, exist_ok=True)
        old, new = both(args.against, listed, kept, Path(temporary))
        good = told(bench, listed, old, new)
        if good:
            shutil.rmtree(new)
    sys.exit(not good)


def key(commit: str, listed: Sequence[Command]) -> str:
    """Names what decides the older side's outputs: code, commands, data, machine."""
    here = {k: v for k, v in circumstances().items() if k not in ("commit", "date")}
    given = (BENCH / "same" / name for name in ("data.py", "commands.py", "worker.py"))
    sources = [*(path.read_text() for path in given), inspect.getsource(started)]
    parts = json.dumps([here, sources, [c.name for c in listed]])
    tree = git("rev-parse", f"{commit}:headstart").strip().decode()
    return f"{tree[:12]}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *words], check=True, stdout=subprocess.PIPE).stdout


def both(commit: str, listed: Sequence[Command], kept: Path, temporary: Path) -> tuple[Path, Path]:
    """The folders of both sides' outputs; what is kept of the older one is not run again."""
    cores = sorted(os.sched_getaffinity(0))
    folders = [Path(tempfile.mkdtemp(prefix=name, dir=kept)) for name in ("new-", "old-")]
    new = Side(as_it_is(temporary / "new"), folders[0], cores[0])
    if (kept / DONE).is_file():
        folders[1].rmdir()
        run_side(new, listed)
        return Path(json.loads((kept / DONE).read_text())), new.folder
    old = Side(checked_out(commit, temporary / "old"), folders[1], cores[-1])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda side: run_side(side, listed), (old, new)))
    (kept / DONE).write_text(json.dumps(str(old.folder)))
    return old.folder, new.folder


def as_it_is(folder: Path) -> Path:
    """A copy of this checkout's package, which may be worked on meanwhile."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "headstart", folder / "headstart", ignore=unwanted)
    return folder


def checked_out(commit: str, folder: Path) -> Path:
    """The package as it was at a commit."""
    folder.mkdir()
    archive = folder.parent / "code.tar"
    archive.write_bytes(git("archive", commit, "headstart"))
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return folder


def run_side(side: Side, listed: Sequence[Command]) -> None:
    """Run all commands in turn; what they print goes to said/, their exit codes too.

    Raises RuntimeError if a command ends with another code than the list says.
    """
    make_data(side.folder / "data")
    said = side.folder / "said"
    said.mkdir()
    (side.folder / "home").mkdir()
    process = started(side)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for command in listed:
            (side.folder / "stdin").write_text(command.stdin)
            asked = {
                "argv": command.argv,
                "env": command.env,
                "stopped": command.stopped,
                "after": command.after,
                "cwd": str(side.folder),
                "code": str(side.code),
                "stdin": str(side.folder / "stdin"),
                "stdout": str(said / f"{command.name}.out"),
                "stderr": str(said / f"{command.name}.err"),
            }
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            code, seconds, busy = json.loads(process.stdout.readline())
            (said / f"{command.name}.code").write_text(f"{code}\n")
            flag = "" if code == command.code else f"  ended with {code}, not {command.code}"
            took = f"{seconds:6.1f} s ({busy:.1f} of the processor)"
            print(f"{side.folder.name[:3]} {took}  {command.name}{flag}", flush=True)
            if flag:
                print((said / f"{command.name}.err").read_text()[-2000:], flush=True)
        process.stdin.close()


def started(side: Side) -> "subprocess.Popen[str]":
    """The worker, with an environment that says all and inherits next to nothing."""
    home = str(side.folder / "home")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(side.code),
        "OMP_NUM_THREADS": "1",
        "HOME": home,
        "TMPDIR": home,
        "XDG_CACHE_HOME": f"{home}/cache",
        "HEADSTART_STORE": str(side.folder / "store"),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "80",
        "TZ": "UTC",
    } | dict.fromkeys(
        ("HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY"), "1"
    )
    return subprocess.Popen(
        [sys.executable, "-P", BENCH / "same" / "worker.py"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {side.core}),
    )


def told(bench: Bench, listed: Sequence[Command], old: Path, new: Path) -> bool:
    """Print and record what came of the comparison; whether all is as it should be."""
    found = compare(old, new, intended_of(INTENDED))
    for one in found:
        if one.verdict != SAME:
            print(shown(one))
    wrong = [one.path for one in found if not one.good] + ended_otherwise(listed, new)
    caught = control(old, new) if bench.args.control else True
    figures = {
        "against": git("rev-parse", "--short=7", bench.args.against).decode().strip(),
        "commands": len(listed),
        "differences that nobody intended": len(wrong),
    }
    bench.report(counted(found), figures)
    if wrong:
        print(f"The outputs of this checkout are in {new} if --keep was given.")
    return caught and not wrong


def shown(one: Compared) -> str:
    lines = [f"{one.verdict:26}{one.path}"]
    lines += [f"    {one.note}"] if one.note else []
    lines += [f"    intended: {one.reason}"] if one.reason else []
    return "\n".join(lines)


def counted(found: Sequence[Compared]) -> list[dict[str, object]]:
    """A row a verdict: how many files, and how many of them as intended."""
    tally = Counter(one.verdict for one in found)
    meant = Counter(one.verdict for one in found if one.reason)
    return [{"verdict": v, "files": n, "intended": meant[v]} for v, n in tally.most_common()]


def ended_otherwise(listed: Sequence[Command], new: Path) -> list[str]:
    """Commands that ended with another exit code than the list says."""
    codes = {c.name: (new / "said" / f"{c.name}.code").read_text().strip() for c in listed}
    wrong = [c.name for c in listed if codes[c.name] != str(c.code)]
    for name in wrong:
        print(f"ended with {codes[name]}: {name}")
    return wrong


def control(old: Path, new: Path) -> bool:
    """Alter a number in each kind of file of the new side: whether all are found."""
    before = {one.path for one in compare(old, new) if one.verdict not in GOOD}
    names = set(planted(new)) - before
    after = {one.path for one in compare(old, new) if one.verdict not in GOOD}
    for name in sorted(names):
        print(f"planted: {'found ' if name in after else 'MISSED'} {name}")
    if not names or not names <= after:
        print("planted: NOT CAUGHT: this comparison proves nothing")
    return bool(names) and names <= after


if __name__ == "__main__":
    main()
