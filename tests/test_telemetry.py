"""The telemetry of the libraries underneath is off, unless the user wants it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import headstart as hs
from headstart.data.splits import split
from headstart.models.bundle import save
from headstart.models.fitting import fit
from headstart.specs import FeatureExtraction

ROOT = Path(__file__).parent.parent
SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}
OF_CI = {"CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST"}  # MLflow is quiet where it sees these


def run_python(code: str, **environment: str) -> str:
    """What `code` prints in a new process, as of a user who set `environment` and nothing else."""
    plain = {k: v for k, v in os.environ.items() if k not in SWITCHES.keys() | OF_CI}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**plain, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_whatever_is_imported_first_finds_telemetry_switched_off() -> None:
    code = f"import os; print([os.environ.get(name) for name in {list(SWITCHES)}])"
    modules = ("headstart", "headstart.features.engines", "headstart.cli.main")
    for first in (*modules, "headstart.runs.tracking"):
        assert run_python(f"import {first}; {code}") == f"{list(SWITCHES.values())}\n"


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", ["0", "", "false"])
def test_a_switch_that_the_user_set_stays(name: str, value: str) -> None:
    code = f"import headstart, os; print(repr(os.environ[{name!r}]))"
    assert run_python(code, **{name: value}) == f"{value!r}\n"


def test_the_libraries_agree_that_it_is_off() -> None:
    pytest.importorskip("mlflow")
    code = (
        "import headstart, huggingface_hub.constants as hub\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "print(hub.HF_HUB_DISABLE_TELEMETRY, is_telemetry_disabled())"
    )
    assert run_python(code) == "True True\n"
    loud = {"HF_HUB_DISABLE_TELEMETRY": "0", "MLFLOW_DISABLE_TELEMETRY": "false"}
    assert run_python(code, **loud) == "False False\n", "the control: it can be on"


def test_predicting_leaves_nothing_in_the_home_folder(shapes: Path, tmp_path: Path) -> None:
    model = fit(FeatureExtraction(), "tiny:8", split(hs.read(shapes)), store=None).model
    saved, home = save(model, tmp_path / "model").folder, tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    load = "from headstart.models.bundle import load_bundle"
    code = f"{load}; print(load_bundle({str(saved)!r}).model.classes)"
    assert run_python(code, **places) == "('bright', 'dark')\n"
    assert list(home.rglob("*")) == []


def test_telemetry_is_switched_off_by_the_call_too_unless_the_user_wants_it() -> None:
    """Builds for Windows, and those before the variable, know only the call."""
    code = (
        "import headstart.backbones.session as session, onnxruntime\n"
        "onnxruntime.disable_telemetry_events = lambda: print('off')\n"
        "session.import_onnxruntime()"
    )
    assert run_python(code) == "off\n"
    assert run_python(code, ORT_DISABLE_TELEMETRY="true") == "off\n"
    assert run_python(code, ORT_DISABLE_TELEMETRY="0") == ""


def test_onnx_runtime_is_imported_in_one_place() -> None:
    pattern = r"^\s*(?:import|from) onnxruntime|(?:import_module|__import__|importorskip)\(.onnxrun"
    files = [p for folder in ("headstart", "bench", "tests") for p in (ROOT / folder).rglob("*.py")]
    found = [p.name for p in files if re.search(pattern, p.read_text(), re.MULTILINE)]
    assert found == ["session.py"]
