"""Made pictures with boxes, for benches that only have to show that they run: no result of note."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}
SIDE = 96  # pixels


def make_boxes(folder: Path, pictures: int) -> Path:
    """One to three rectangles of two colours in each picture of noise, as COCO's JSON."""
    rng, boxes = np.random.default_rng(0), list[dict[str, object]]()
    (folder / "images").mkdir(parents=True)
    for i in range(pictures):
        pixels = rng.integers(60, 190, (SIDE, SIDE, 3)).astype(np.uint8)
        for k in range(1 + i % 3):
            c, (w, h) = int(rng.integers(2)), rng.integers(14, 28, 2).tolist()
            x, y = int(rng.integers(0, SIDE - w)), 32 * k + int(rng.integers(0, 32 - h + 1))
            pixels[y : y + h, x : x + w] = list(COLOURS.values())[c]
            own = {"id": len(boxes) + 1, "image_id": i, "category_id": c + 1, "iscrowd": 0}
            boxes.append({**own, "bbox": [x, y, w, h]})
        Image.fromarray(pixels).save(folder / "images" / f"{i:03}.png")
    plain = {
        "images": [
            {"id": i, "file_name": f"{i:03}.png", "width": SIDE, "height": SIDE}
            for i in range(pictures)
        ],
        "annotations": boxes,
        "categories": [{"id": c, "name": name} for c, name in enumerate(COLOURS, 1)],
    }
    (folder / "instances.json").write_text(json.dumps(plain))
    return folder
