"""Folders laid out as well-known public data sets are downloaded, with small pictures."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Build = Callable[[Path], Path]


def picture(path: Path, number: int = 0) -> None:
    """Save a picture of 16 x 12 pixels that differs by its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(path)


def pictures(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        picture(root / name, number)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def imagenet(root: Path) -> Path:
    for part in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            pictures(root, *(f"{part}/{wnid}/{wnid}_{i}.JPEG" for i in range(2)))
    written(root / "LOC_synset_mapping.txt", "n01440764 tench\nn01443537 goldfish\n")
    return root


def imagenet_flat_val(root: Path) -> Path:
    pictures(root, *(f"train/{w}/{w}_{i}.JPEG" for w in ("n01440764", "n01443537") for i in (0, 1)))
    pictures(root, *(f"val/ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2)))
    return root


def flowers_102(root: Path) -> Path:
    import scipy.io

    pictures(root, *(f"jpg/image_0000{i}.jpg" for i in range(1, 7)))
    scipy.io.savemat(root / "imagelabels.mat", {"labels": np.array([[1, 1, 1, 2, 2, 2]])})
    ids = {"trnid": [[1, 4]], "valid": [[2, 5]], "tstid": [[3, 6]]}
    scipy.io.savemat(root / "setid.mat", {k: np.array(v) for k, v in ids.items()})
    return root


def caltech_101(root: Path) -> Path:
    for name in ("BACKGROUND_Google", "Faces", "camera"):
        pictures(root, *(f"101_ObjectCategories/{name}/image_000{i}.jpg" for i in (1, 2)))
    return root


def mnist(root: Path) -> Path:
    for part, n in {"train": 6, "t10k": 2}.items():
        pixels = np.arange(n * 28 * 28, dtype=np.uint32).astype(np.uint8)
        head = b"\0\0\x08\x03" + b"".join(k.to_bytes(4, "big") for k in (n, 28, 28))
        labels = b"\0\0\x08\x01" + n.to_bytes(4, "big") + bytes(i % 2 for i in range(n))
        root.mkdir(parents=True, exist_ok=True)
        packed = gzip.compress if part == "train" else bytes
        end = ".gz" if part == "train" else ""
        images = packed(head + pixels.tobytes())
        (root / f"{part}-images-idx3-ubyte{end}").write_bytes(images)
        (root / f"{part}-labels-idx1-ubyte{end}").write_bytes(packed(labels))
    return root


def eurosat(root: Path) -> Path:
    for name in ("AnnualCrop", "Forest", "SeaLake"):
        pictures(root, *(f"2750/{name}/{name}_{i}.jpg" for i in (1, 2)))
    return root


def plant_village(root: Path) -> Path:
    for kind in ("color", "grayscale", "segmented"):
        for name in ("Apple___Apple_scab", "Apple___healthy"):
            pictures(root, *(f"raw/{kind}/{name}/{i}.JPG" for i in (1, 2)))
    return root


def cats_vs_dogs(root: Path) -> Path:
    pictures(root, *(f"train/{name}.{i}.jpg" for name in ("cat", "dog") for i in range(3)))
    pictures(root, *(f"test1/{i}.jpg" for i in range(1, 3)))
    return root


def train_csv(root: Path) -> Path:
    pictures(root, *(f"train_images/{i}.png" for i in "abcd"))
    pictures(root, *(f"test_images/{i}.png" for i in "ef"))
    written(root / "train.csv", "id_code,diagnosis\na,0\nb,1\nc,0\nd,1\n")
    written(root / "test.csv", "id_code\ne\nf\n")
    return root


def chest_xray(root: Path) -> Path:
    for part in ("train", "val", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            pictures(root, *(f"chest_xray/{part}/{name}/{name[0]}-{i}.jpeg" for i in (1, 2)))
    return root


def coco(root: Path) -> Path:
    pictures(root, "images/1.jpg", "images/2.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 16, "height": 12} for i in (1, 2)]
    kinds = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    labels = [{"id": i, "image_id": i, "category_id": i} for i in (1, 2)]
    plain = {"images": images, "categories": kinds, "annotations": labels}
    written(root / "labels.json", json.dumps(plain))
    return root


def food_101(root: Path) -> Path:
    names = [f"{name}/{i}" for name in ("apple_pie", "sushi") for i in (1, 2, 3)]
    pictures(root, *(f"images/{name}.jpg" for name in names))
    written(root / "meta/classes.txt", "apple_pie\nsushi\n")
    written(root / "meta/train.txt", "\n".join(n for n in names if n[-1] != "3") + "\n")
    written(root / "meta/test.txt", "\n".join(n for n in names if n[-1] == "3") + "\n")
    return root


def stanford_dogs(root: Path) -> Path:
    for name in ("n02085620-Chihuahua", "n02085782-Japanese_spaniel"):
        pictures(root, *(f"Images/{name}/{name[:9]}_{i}.jpg" for i in (1, 2)))
    return root


def isic(root: Path) -> Path:
    pictures(root, *(f"ISIC_2019_Training_Input/ISIC_000000{i}.jpg" for i in range(4)))
    rows = ["image,MEL,NV,BCC"]
    rows += [
        f"ISIC_000000{i},{float(i == 0)},{float(i in (1, 3))},{float(i == 2)}" for i in range(4)
    ]
    written(root / "ISIC_2019_Training_GroundTruth.csv", "\n".join(rows) + "\n")
    return root


def ham10000(root: Path) -> Path:
    pictures(root, *(f"HAM10000_images_part_{1 + i % 2}/ISIC_002741{i}.jpg" for i in range(4)))
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    rows += [
        f"HAM_{i // 2},ISIC_002741{i},{'bkl' if i < 2 else 'nv'},histo,80,male,scalp"
        for i in range(4)
    ]
    written(root / "HAM10000_metadata.csv", "\n".join(rows) + "\n")
    return root


def cub_200(root: Path) -> Path:
    names = [
        f"{name}/{name[4:]}_{i}.jpg" for name in ("001.Albatross", "002.Auklet") for i in (1, 2)
    ]
    pictures(root, *(f"images/{name}" for name in names))
    written(root / "images.txt", "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    written(root / "train_test_split.txt", "1 1\n2 0\n3 1\n4 0\n")
    return root


LAYOUTS: dict[str, Build] = {
    "ImageNet": imagenet,
    "ImageNet with a flat val": imagenet_flat_val,
    "Flowers 102": flowers_102,
    "Caltech 101": caltech_101,
    "MNIST": mnist,
    "EuroSAT": eurosat,
    "PlantVillage": plant_village,
    "cats and dogs": cats_vs_dogs,
    "train.csv": train_csv,
    "chest X-rays": chest_xray,
    "COCO with classes": coco,
    "Food-101": food_101,
    "Stanford Dogs": stanford_dogs,
    "ISIC": isic,
    "HAM10000": ham10000,
    "CUB-200": cub_200,
}
