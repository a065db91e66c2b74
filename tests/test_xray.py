"""The page on X-rays: its commands and its Python, on DICOM files made on the spot."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom

from headstart.cli.main import main
from headstart.modalities.reading import read

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "xray.md").read_text()


def xray(seed: int, finding: bool) -> bytes:
    """Shadows of another kind in each picture, of 12 bits; a finding is bright and grainy."""
    rng = np.random.default_rng(seed)
    levels = np.kron(rng.uniform(200, 1600, (8, 8)), np.ones((6, 6)))
    if finding:
        top, left = rng.integers(0, 24, 2)
        levels[top : top + 24, left : left + 24] += 1800 + rng.normal(0, 300, (24, 24))
    values = levels.clip(0, 4095).astype(np.uint16)
    if seed % 2:
        return dicom(4095 - values, "MONOCHROME1", bits=12, PatientID=f"p{seed // 2}")
    return dicom(values, bits=12, PatientID=f"p{seed // 2}", WindowCenter=2048, WindowWidth=4096)


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of the page, 20 pictures a finding of 10 patients each, and two new pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    for number, name in enumerate(("NORMAL", "PNEUMONIA")):
        (tmp_path / "xrays" / name).mkdir(parents=True)
        for i in range(20):
            seed = 100 * number + i
            (tmp_path / "xrays" / name / f"{i:04}.dcm").write_bytes(xray(seed, bool(number)))
    (tmp_path / "new").mkdir()
    for i in range(2):
        (tmp_path / "new" / f"090{i}.dcm").write_bytes(xray(900 + i, bool(i)))
    (tmp_path / "new" / "broken.dcm").write_bytes(xray(990, False)[:3000])
    return tmp_path


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_page_leads_from_dicom_files_to_answers(clinic: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "xray.md", "exec"), {})
    rows = table(clinic / "xrays" / "xrays.csv")
    assert len(rows) == 40
    assert len({row["patient_id"] for row in rows}) == 20
    assert not any("Doe" in cell or cell.startswith("p") for row in rows for cell in row.values())
    data = read(clinic / "xrays" / "xrays.csv")
    assert data.groups == tuple(row["patient_id"] for row in rows)
    commands = re.findall(r"^headstart (\w+ .*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["check", "train", "predict", "explain"]
    quick = ["--quiet", "--strategy", "extract", "--insights", "none", "--engine", "onnxruntime"]
    assert main([*commands[1].split(), *quick]) == 0
    assert main(commands[2].split()) == 3  # of the broken file
    answers = {row["path"]: row for row in table(clinic / "answers.csv")}
    assert answers["new/broken.dcm"]["error"]
    assert answers["new/0900.dcm"]["predicted"] in ("NORMAL", "unknown")
    assert answers["new/0901.dcm"]["predicted"] in ("PNEUMONIA", "unknown")
    assert b"Doe" not in (clinic / "runs" / "xray" / "report.html").read_bytes()
