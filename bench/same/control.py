"""One number altered in each kind of file, for a comparison that must find them all."""

import io
from pathlib import Path

from PIL import Image

from same.compare import NUMBER

KINDS = {  # patterns of files, of each of which the first is altered
    "*/evaluation.json": "text",
    "*/predictions.csv": "text",
    "*/report.html": "text",
    "said/*.out": "text",
    "*/model/weights.safetensors": "bit",
    "store/*/*.safetensors": "bit",
    "*/graph.onnx": "bit",
    "*.png": "pixel",
}


def planted(folder: Path) -> list[str]:
    """Alter a file of each kind that is there; returns their names."""
    names = []
    found = (p for p in sorted(folder.rglob("*")) if p.is_file())
    made = [p for p in found if p.relative_to(folder).parts[0] != "data"]
    for pattern, how in KINDS.items():
        there = [p for p in made if p.relative_to(folder).match(pattern) and p.stat().st_size]
        if there:
            there[0].write_bytes(altered(there[0].read_bytes(), how))
            names.append(there[0].relative_to(folder).as_posix())
    return names


def altered(data: bytes, how: str) -> bytes:
    """The data with another last digit of the number in the middle, another bit or pixel."""
    if how == "text":
        text = data.decode("utf-8")
        found = list(NUMBER.finditer(text))
        at = found[len(found) // 2].end() - 1
        return (text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]).encode()
    if how == "bit":
        return data[:-1] + bytes([data[-1] ^ 1])
    with Image.open(io.BytesIO(data)) as image:
        changed = image.convert("RGB")
    red, green, blue = changed.getpixel((0, 0))  # type: ignore[misc]
    changed.putpixel((0, 0), (red ^ 1, green, blue))
    file = io.BytesIO()
    changed.save(file, "PNG")
    return file.getvalue()
