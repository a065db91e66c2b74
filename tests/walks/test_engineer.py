"""An engineer in a notebook: from a data frame to an exported model of a network of their own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import nn
from walk import noisy, saved

import headstart as hs


def test_an_engineer_gets_from_a_data_frame_to_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    rng = np.random.default_rng(0)
    rows = [(f"scans/{i:02}.png", ("thin", "thick")[i % 2], f"batch {i // 4}") for i in range(40)]
    for path, label, _ in rows:
        saved(noisy(rng, 70 if label == "thin" else 170), path)
    frame = pd.DataFrame(rows, columns=["file", "label", "group"])

    with pytest.raises(hs.HeadstartError, match="path"):
        hs.fit(frame, backbone="tiny:8")
    frame = frame.rename(columns={"file": "path"})
    with pytest.raises(hs.HeadstartError, match="it is called 'epochs'"):
        hs.fit(frame, backbone="tiny:8", epoch=3)
    parts = hs.split(frame)
    assert "accuracy" in repr(hs.evaluate(hs.fit(parts, backbone="tiny:8", strategy="extract")))

    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 12, 3, stride=2), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    own = hs.wrap(net, size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    fitted = hs.fit(parts, backbone=own, thaw="2", epochs=1)
    hs.save(fitted, "bundle")
    assert hs.load("bundle").predict("scans/00.png").names[0] in ("thin", "thick", "unknown")
    made = hs.export("bundle", "exported")
    assert made.difference < 1e-4
    hs.verify("exported")
    assert {"model.onnx", "predict.py", "export.json"} <= {
        p.name for p in Path("exported").iterdir()
    }
