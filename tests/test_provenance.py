"""Where a run comes from: recorded when it begins, in its folder and in its bundle."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_report import make_run

from headstart.base.atomic import write_json
from headstart.base.command import command_line, typed
from headstart.base.values import read_value
from headstart.data.dataset import Content, Dataset
from headstart.reporting.page import write_report
from headstart.reporting.run_files import Provenance, Timings
from headstart.runs.provenance import data_digest, git_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = Dataset(
    ("a.png", "b.png"),
    ("/x/a.png", "/x/b.png"),
    (0, 1),
    ("cat", "dog"),
    contents=(Content("1" * 64), Content("2" * 64)),
)


def repository(folder: Path, head: str, files: dict[str, str] | None = None) -> Path:
    for name, text in {"HEAD": head, **(files or {})}.items():
        path = folder / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("head", "files"),
    [
        (f"{COMMIT}\n", {}),
        ("ref: refs/heads/main\n", {"refs/heads/main": f"{COMMIT}\n"}),
        ("ref: refs/heads/a/b\n", {"packed-refs": f"# pack\n{COMMIT} refs/heads/a/b\n"}),
    ],
)
def test_the_commit_is_read_from_any_folder_of_the_repository(
    tmp_path: Path, head: str, files: dict[str, str]
) -> None:
    inner = repository(tmp_path, head, files) / "deep" / "down"
    inner.mkdir(parents=True)
    assert git_commit(inner) == COMMIT


def test_a_second_working_tree_has_a_commit_of_its_own(tmp_path: Path) -> None:
    repository(tmp_path / "one", "ref: refs/heads/main\n", {"refs/heads/side": COMMIT})
    own = tmp_path / "one/.git/worktrees/two"
    own.mkdir(parents=True)
    (own / "HEAD").write_text("ref: refs/heads/side\n")
    (own / "commondir").write_text("../..\n")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/.git").write_text(f"gitdir: {own}\n")
    assert git_commit(tmp_path / "two") == COMMIT


@pytest.mark.parametrize(
    "head", ["ref: refs/../../secret\n", "ref: /etc/passwd\n", "not a commit\n", "\xff", ""]
)
def test_a_repository_that_says_nothing_sensible_has_no_commit(tmp_path: Path, head: str) -> None:
    repository(tmp_path, head)
    (tmp_path / "secret").write_text(COMMIT)
    assert git_commit(tmp_path) == ""


def test_the_digest_is_of_names_labels_and_bytes_in_any_order_and_place() -> None:
    moved = replace(ROWS.take([1, 0]), sources=("/y/b.png", "/y/a.png"))
    assert data_digest(moved) == data_digest(ROWS)
    others = (
        replace(ROWS, ids=("a.png", "c.png")),
        replace(ROWS, labels=(1, 1)),
        replace(ROWS, contents=(Content("1" * 64), Content("3" * 64))),
    )
    assert len({data_digest(rows) for rows in (ROWS, *others)}) == 4


def test_a_command_is_known_while_it_runs_alone() -> None:
    assert command_line() == ""
    with typed(["train", "my photos"]):
        assert command_line() == "headstart train 'my photos'"
    assert command_line() == ""


def test_the_page_begins_with_what_the_run_was_made_of(tmp_path: Path) -> None:
    run, sources = make_run(tmp_path)
    assert read_value(run / "timings.json", Timings).made == Provenance()  # of an earlier version
    assert '<h1 translate="no">run</h1>' in write_report(run, sources).read_text()
    made = Provenance("2026-11-30T20:15:01+00:00", "headstart train <b>", COMMIT, 18, "ab" * 32)
    timings = replace(read_value(run / "timings.json", Timings), made=made)
    write_json(run / "timings.json", timings.to_plain())
    top, rest = write_report(run, sources).read_text().split("</header>")
    for text in ("2026-11-30 20:15 UTC", "headstart train &lt;b&gt;", COMMIT[:12], "abababababab"):
        assert text in top
    assert "ab" * 32 in rest
    assert ">run: model report</title>" in top
