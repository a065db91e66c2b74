"""Public data sets and tables as people have them: read as meant, or refused with the remedy."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from public_layouts import LAYOUTS, picture, pictures, written

from headstart.base.errors import DataError
from headstart.data.checks import check, good_rows
from headstart.data.dataset import Dataset
from headstart.modalities.images import idx
from headstart.modalities.images.decoding import decode, read_file
from headstart.modalities.reading import read, survey


def counted(data: Dataset) -> dict[str, int]:
    """How many rows each part and class has."""
    labels = data.target.brief(data.y)
    parts = data.parts or ("",) * len(data)
    return Counter(f"{part}:{label}" for part, label in zip(parts, labels, strict=True))


READ = {
    "ImageNet": "train:n01440764 train:n01443537 val:n01440764 val:n01443537",
    "ImageNet with a flat val": "train:n01440764 train:n01443537",
    "Flowers 102": "train:1 train:2 val:1 val:2 test:1 test:2",
    "MNIST": "train:0 train:1 test:0 test:1",
    "cats and dogs": ":cat :dog",
    "chest X-rays": "train:NORMAL train:PNEUMONIA val:NORMAL val:PNEUMONIA "
    "test:NORMAL test:PNEUMONIA",
    "COCO with classes": ":cat :dog",
    "Food-101": "train:apple_pie train:sushi test:apple_pie test:sushi",
    "Stanford Dogs": ":n02085620-Chihuahua :n02085782-Japanese_spaniel",
    "CUB-200": "train:001.Albatross train:002.Auklet test:001.Albatross test:002.Auklet",
}
REFUSED = {  # the message, and what it says to give in place of the folder
    "Caltech 101": ("name the folder that holds them", "101_ObjectCategories"),
    "EuroSAT": ("name the folder that holds them", "2750"),
    "PlantVillage": ("color, grayscale and segmented hold the same.*give one of them", "raw/color"),
    "train.csv": ("no class folders to learn from.*A table there lists pictures", "train.csv"),
    "ISIC": ("named by their classes.*A table there", "ISIC_2019_Training_GroundTruth.csv"),
    "HAM10000": ("named by their classes.*A table there", "HAM10000_metadata.csv"),
}


def test_every_layout_is_read_or_refused() -> None:
    assert len(LAYOUTS) >= 15
    assert READ.keys() | REFUSED.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", READ)
def test_a_public_data_set_is_read_as_its_authors_meant(name: str, tmp_path: Path) -> None:
    data = read(LAYOUTS[name](tmp_path / "data"))
    assert sorted(counted(data)) == sorted(READ[name].split())
    assert len(survey(data).errors) == 0
    assert read(LAYOUTS[name](tmp_path / "data")).ids == data.ids


@pytest.mark.parametrize("name", REFUSED)
def test_another_is_refused_and_the_remedy_works(name: str, tmp_path: Path) -> None:
    message, instead = REFUSED[name]
    root = LAYOUTS[name](tmp_path / "data")
    with pytest.raises(DataError, match=message):
        good_rows(data := read(root), survey(data))
    data = read(root / instead)
    assert len(good_rows(data, survey(data))) == len(data) >= 4
    assert len(counted(data)) >= 2


def test_columns_of_public_tables_are_named_when_they_are_read(tmp_path: Path) -> None:
    data = read(LAYOUTS["HAM10000"](tmp_path) / "HAM10000_metadata.csv")
    assert "the column image_id is read as path" in data.choice
    assert "the column lesion_id is read as group" in data.choice
    assert "the column dx holds the labels" in data.choice
    assert data.groups == ("HAM_0", "HAM_0", "HAM_1", "HAM_1")
    one = read(LAYOUTS["ISIC"](tmp_path / "i") / "ISIC_2019_Training_GroundTruth.csv")
    assert "for classes say --target class" in one.choice


def test_a_path_is_completed_by_one_picture_only(tmp_path: Path) -> None:
    pictures(tmp_path, "a/cat/1.png", "a/dog/1.png", "a/dog/2.png", "b/2.jpg")
    table = written(tmp_path / "t.csv", "file,class\ncat/1,cat\ndog/1.png,dog\na/dog/2.png,dog\n")
    assert read(table).ids == ("a/cat/1.png", "a/dog/1.png", "a/dog/2.png")
    written(table, "file,class\n1.png,cat\ncat/1.png,dog\n")
    with pytest.raises(DataError, match="row 2.*'1.png'.*a/cat/1.png or a/dog/1.png: write its"):
        read(table)
    written(table, "file,class\nhorse/1.png,horse\ncat/1.png,cat\n../a/dog/2.png,dog\n")
    assert [out.path for out in read(table).left_out] == ["horse/1.png", "../a/dog/2.png"]


DIALECTS = {
    "commas": ("t.csv", "path,label\nin/a.png,cat\nin/b.png,dog\n", "utf-8"),
    "semicolons": ("t.csv", "path;label\nin/a.png;cat\nin/b.png;dog\n", "utf-8"),
    "semicolons, other names": ("t.csv", "image;level\na;0\nb;1\n", "utf-8"),
    "tabs": ("t.tsv", "filename\tclass\na.png\tcat\nb.png\tdog\n", "utf-8"),
    "bars": ("t.csv", "path|label\nin/a.png|cat\nin/b.png|dog\n", "utf-8"),
    "a byte order mark": ("t.csv", "path,label\nin/a.png,cat\nin/b.png,dog\n", "utf-8-sig"),
    "UTF-16 of Excel": ("t.csv", "path\tlabel\nin/a.png\tcat\nin/b.png\tdog\n", "utf-16"),
    "Windows' paths and lines": (
        "t.csv",
        "Path,Label\r\nin\\a.png,cat\r\nin\\b.png,dog\r\n",
        "utf-8",
    ),
    "absolute on Windows": (
        "t.csv",
        "file,label\nC:\\x\\in\\a.png,cat\nD:\\in\\b.png,dog\n",
        "utf-8",
    ),
    "absolute elsewhere": ("t.csv", "file,label\n/kaggle/in/a.png,cat\n/k/in/b.png,dog\n", "utf-8"),
    "quotes after blanks": (
        "t.csv",
        '"path", "label"\n"in/a.png", "cat"\n"in/b.png", "dog"\n',
        "utf-8",
    ),
    "sep=": ("t.csv", "sep=;\npath;label\nin/a.png;cat\nin/b.png;dog\n", "utf-8"),
    "Label Studio's": (
        "t.csv",
        "image,id,choice,annotator\n/data/upload/1/0a1b2c3d-a.png,1,cat,1\n"
        "/data/upload/1/0a1b2c3e-b.png,2,dog,1\n",
        "utf-8",
    ),
    "JSON Lines": (
        "t.jsonl",
        '{"file_name": "in/a.png", "label": "cat"}\n{"file_name": "b.png", "label": "dog"}\n',
        "utf-8",
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_of_tables_is_read(name: str, tmp_path: Path) -> None:
    file, text, encoding = DIALECTS[name]
    pictures(tmp_path, "in/a.png", "in/b.png")
    (tmp_path / file).write_bytes(text.encode(encoding))
    data = read(tmp_path / file)
    assert data.ids == ("in/a.png", "in/b.png")
    assert len(data.classes) == 2


def test_parquet_of_paths_is_read_and_decimal_commas_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    pictures(tmp_path, "in/a.png", "in/b.png")
    table = pyarrow.table({"image_id": ["a", "b"], "target": ["x", "y"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").classes == ("x", "y")
    written(tmp_path / "t.csv", "path;value\nin/a.png;3,5\nin/b.png;4\n")
    with pytest.raises(DataError, match=r"row 2: .*write a decimal point.*3,5"):
        read(tmp_path / "t.csv")


def task(number: int, name: str, *choices: str) -> dict[str, object]:
    result = [{"type": "choices", "value": {"choices": list(choices)}}]
    image = {"image": f"/data/upload/1/0a1b2c{number:02}-{name}"}
    return {"id": number, "data": image, "annotations": [{"result": result if choices else []}]}


def test_choices_of_label_studio_are_classes_or_several_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "in/a.png", "in/b.png", "in/c.png")
    tasks = [task(1, "a.png", "cat"), task(2, "b.png", "dog"), task(3, "c.png")]
    written(tmp_path / "project.json", json.dumps([*tasks, task(4, "d.png", "dog")]))
    data = read(tmp_path)
    assert counted(data) == {":cat": 1, ":dog": 1}
    reasons = {out.path: out.reason for out in data.left_out}
    assert reasons["in/c.png"] == "a picture without a class in the annotations"
    assert "d.png: annotated, but there is no such picture" in reasons["project.json"]
    written(tmp_path / "project.json", json.dumps([*tasks, task(4, "c.png", "dog", "cat")]))
    assert read(tmp_path / "project.json").target.kind == "labels"


def test_a_category_without_a_name_is_left_out_and_odd_json_is_no_classes(tmp_path: Path) -> None:
    root = LAYOUTS["COCO with classes"](tmp_path)
    plain = json.loads((root / "labels.json").read_text())
    plain["annotations"].append({"id": 3, "image_id": 1, "category_id": 7})
    written(root / "labels.json", json.dumps(plain))
    assert [out.reason for out in read(root).left_out] == [
        "annotation 3: the name of its category is empty"
    ]
    plain["annotations"] = [["cat"]]
    written(root / "labels.json", json.dumps(plain))
    assert read(root).target.kind == "boxes"


def test_pictures_of_mnist_are_the_bytes_of_their_file(tmp_path: Path) -> None:
    data = read(LAYOUTS["MNIST"](tmp_path))
    pixels = np.arange(28 * 28, dtype=np.uint32).astype(np.uint8).reshape(28, 28)
    path = tmp_path / "train-images-idx3-ubyte.gz" / "00000"
    assert data.sources[0] == path
    np.testing.assert_array_equal(decode(read_file(path))[..., 1], pixels)
    with pytest.raises(DataError, match="holds pictures 0 to 5"):
        read_file(path.with_name("00006"))
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(bytes(300_000_000), 1))
    with pytest.raises(DataError, match="is not as MNIST's"):
        idx.read_idx(packed)


def test_lists_of_a_damaged_set_are_refused_and_missing_pictures_named(tmp_path: Path) -> None:
    root = LAYOUTS["Food-101"](tmp_path / "food")
    (root / "images/sushi/1.jpg").unlink()
    data = read(root)
    assert [(out.path, out.label) for out in data.left_out] == [("images/sushi/1.jpg", "sushi")]
    flowers = LAYOUTS["Flowers 102"](tmp_path / "flowers")
    (flowers / "setid.mat").write_bytes(b"no matlab")
    with pytest.raises(DataError, match=r"setid.mat must hold the numbers 'trnid'"):
        read(flowers)


def test_a_class_called_train_among_others_is_no_part_of_cats_and_dogs(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"train/{kind}.{i}.jpg" for kind in ("steam", "diesel") for i in range(3)))
    picture(tmp_path / "car" / "1.jpg", 9)
    data = read(tmp_path)
    assert data.classes == ("car", "train")
    assert check(data, survey(data)).left_out == ()
