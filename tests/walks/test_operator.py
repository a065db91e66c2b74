"""An operator: a nightly run from a file, stopped, resumed, tracked, compared and served."""

import json
from pathlib import Path

import numpy as np
import pytest
from served import running
from walk import Person, noisy, saved

from headstart.runs.tensorboard import LiveRun


def killed(live: LiveRun, phase: str, number: int, figures: object) -> None:
    """In place of what writes to TensorBoard: someone stops the run in its second epoch."""
    if number >= 2:
        raise KeyboardInterrupt


def test_an_operator_runs_stops_resumes_tracks_compares_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboardX")
    operator, rng = Person(tmp_path, monkeypatch, capsys), np.random.default_rng(0)
    for i in range(20):
        saved(noisy(rng, 70), f"data/night/{i:02}.png")
        saved(noisy(rng, 180), f"data/day/{i:02}.png")
    settings = {"backbone": "tiny:8", "finetune": {"epochs": 3}, "insights": "quick"}
    Path("nightly.json").write_text(json.dumps(settings))
    line = "headstart train data --config nightly.json --out runs/monday --track tensorboard"

    Path("wrong.json").write_text('{"backbone": "tiny:8", "finetune": {"epoch": 3}}')
    operator.is_told("headstart train data --config wrong.json --out runs/monday", "'epochs'")
    operator.is_told(line.replace("tensorboard", "tensorbord"), "tensorboard")
    operator.types(f"{line} --dry-run")
    assert not Path("runs").exists()

    with monkeypatch.context() as stopped:
        stopped.setattr(LiveRun, "epoch", killed)
        operator.types(line, code=130)
    assert "the same command goes on" in operator.screen
    operator.types(line)
    assert list(Path("runs/monday/tensorboard").iterdir())
    operator.is_told(line, "finished run")

    operator.types(
        "headstart train data --config runs/monday/recipe.json --out runs/tuesday --l2 10"
    )
    operator.types("headstart compare runs/monday runs/tuesday")
    assert "runs/tuesday" in operator.screen
    operator.is_told("headstart serve", "RUN")
    with running(Path("runs/monday/model")) as server:
        reply = server.ask("POST", "/predict", Path("data/day/00.png").read_bytes())
    assert reply.status == 200
    assert "predicted" in reply.body.decode()
