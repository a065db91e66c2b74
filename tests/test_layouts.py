"""Which folders are the classes, and which the parts of a data set."""

import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from headstart.base.errors import DataError
from headstart.cli.main import main
from headstart.data.dataset import Dataset, LeftOut
from headstart.modalities.reading import read


def made(root: Path, layout: str) -> Path:
    """A picture in each folder of a text such as "train/cat train/dog test"."""
    for n, place in enumerate(layout.split()):
        folder = root / place.replace("+", " ")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), n).save(folder / f"{n}.png")
    return root


def found(data: Dataset) -> dict[str, int]:
    """How many rows each part and class has."""
    parts = data.parts or ("",) * len(data)
    labels = (data.classes[label] for label in data.labels)
    return Counter(f"{part}/{label}" for part, label in zip(parts, labels, strict=True))


def each(*folders: str, classes: str = "cat dog") -> str:
    return " ".join(f"{folder}/{name}" for folder in folders for name in classes.split())


IN_PARTS = {
    "brain tumours": ("Training", "Testing"),
    "upper case": ("TRAIN", "TEST"),
    "training_set": ("training_set", "test_set"),
    "camel case": ("TrainingSet", "TestSet"),
    "glued": ("traindata", "testdata"),
    "blanks": ("train+images", "test+images"),
    "numbers": ("train2017", "test2017"),
    "one word for all": ("seg_train", "seg_test"),
    "nested under its own name": ("seg_train/seg_train", "seg_test/seg_test"),
    "nested under a word for pictures": ("training/images", "testing/images"),
    "exact, nested under its own name": ("train/train", "test/test"),
    "in a wrapper": ("archive/train", "archive/test"),
    "in two wrappers": ("archive/photos/Training", "archive/photos/Testing"),
    "below images": ("images/train", "images/test"),
    "evaluation": ("training", "evaluation"),
    "x_train": ("x_train", "x_test"),
    "mixed": ("train", "test_resized"),
    "two of training": ("train1 train2", "test"),
    "a word for all": ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test"),
}


@pytest.mark.parametrize("kind", IN_PARTS)
def test_folders_named_as_parts_with_the_same_classes_are_parts(tmp_path: Path, kind: str) -> None:
    train, test = (each(*part.split()) for part in IN_PARTS[kind])
    data = read(made(tmp_path, f"{train} {test}"))
    n = len(train.split()) // 2
    assert found(data) == {"train/cat": n, "train/dog": n, "test/cat": 1, "test/dog": 1}
    assert data.left_out == ()


@pytest.mark.parametrize("val", ["dev", "Valid_set", "validation-images", "seg_val", "VAL2"])
def test_parts_to_validate_by_have_many_names(tmp_path: Path, val: str) -> None:
    prefix = "seg_" if "seg" in val else ""
    data = read(made(tmp_path, each(f"{prefix}Train", val, f"{prefix}Test")))
    assert Counter(data.parts) == {"train": 2, "val": 2, "test": 2}


def test_an_evaluation_part_beside_a_test_part_is_for_validation(tmp_path: Path) -> None:
    data = read(made(tmp_path, each("training", "eval", "testing")))
    assert Counter(data.parts) == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize(
    "layout",
    [
        each("seg_train/seg_train", "seg_test/seg_test") + " seg_pred/seg_pred",
        each("training_set", "test_set") + " single_prediction",
        each("train", "test") + " unlabelled",
        each("train") + " test1",
        each("train") + " test",
    ],
)
def test_a_part_without_labels_is_left_out_and_named_once(tmp_path: Path, layout: str) -> None:
    last = made(tmp_path, layout) / layout.split()[-1]
    (last / "also.png").write_bytes((last / f"{len(layout.split()) - 1}.png").read_bytes())
    data = read(tmp_path)
    assert data.classes == ("cat", "dog")
    reason = "2 images in no class folder: a part without labels"
    assert list(data.left_out) == [LeftOut(last.relative_to(tmp_path).parts[0], reason)]


AS_CLASSES = {
    "parts in one of the classes": ("cat/train cat/test dog", "cat dog"),
    "train among ordinary classes": ("train car plane", "train car plane"),
    "and with subfolders": ("train/steam train/diesel car/red car/blue", "train car"),
    "tests and controls": ("test control", "test control"),
    "valid and invalid": ("valid invalid", "valid invalid"),
    "compound words": ("train_station test_tube", "train_station test_tube"),
    "rooms": ("training meeting evaluation lunch", "training meeting evaluation lunch"),
    "kinds of trains": ("train1 train2 train3", "train1 train2 train3"),
    "days": (each("cat", "dog", classes="day1 day2"), "cat dog"),
    "years": (each("cat", "dog", classes="2021 2022"), "cat dog"),
    "cameras": (each("defect1", "defect2", classes="cam1 cam2"), "defect1 defect2"),
    "images": (each("cat", "dog", classes="images"), "cat dog"),
    "images and masks": (each("cat", "dog", classes="images masks"), "cat dog"),
    "indoors and outdoors": (each("cat", "dog", classes="indoors outdoors"), "cat dog"),
    "grades with sides": (each("grade0", "grade1", classes="left right"), "grade0 grade1"),
    "letters with sides": (each("a", "b", classes="left right"), "a b"),
    "numbers as classes": (each("0", "1", classes="left right"), "0 1"),
    "unlike subfolders": ("pet/cat pet/dog tool/saw tool/axe", "pet tool"),
    "one subfolder in common": ("pet/cat pet/other tool/saw tool/other", "pet tool"),
    "mostly unlike": ("a/x a/y a/p a/q b/x b/y b/r b/s", "a b"),
    "one class": ("cat/indoors cat/outdoors", "cat"),
    "one name of a class inside": ("cat dog pets/cat pets/bird", "cat dog pets"),
    "a few of them inside": ("cat dog pets pets/cat pets/dog", "cat dog pets"),
}


@pytest.mark.parametrize("kind", AS_CLASSES)
def test_other_folders_are_classes_with_all_that_is_in_them(tmp_path: Path, kind: str) -> None:
    layout, classes = AS_CLASSES[kind]
    data = read(made(tmp_path, layout))
    assert data.classes == tuple(sorted(classes.split()))
    assert len(data) == len(layout.split())
    assert (data.parts, data.left_out) == ((), ())


REFUSED = {
    "flat": ("train test1", "test1 and train are parts, but they hold no class folders"),
    "flat, exact": ("train test", "test and train are parts, but they hold no class folders"),
    "flat, nested": ("train/train test1/test1", "they hold no class folders"),
    "flat, in a wrapper": ("cats-vs-dogs/train cats-vs-dogs/test1", "they hold no class folders"),
    "flat, below images": ("train_images test_images", "they hold no class folders"),
    "flat, one part": ("train", "train are parts, but they hold no class folders"),
    "unlike classes": (
        each("Training") + " " + each("Testing", classes="car bus"),
        "Testing and Training are parts, but they have no class folders in common",
    ),
    "parts of each class": (
        "cat_train cat_test dog_train dog_test",
        "each class has parts of its own",
    ),
    "parts in two places": (
        each("a/train", "a/test") + " " + each("b/Training", "b/Testing"),
        "a and b hold parts each",
    ),
    "flat to learn from": (each("test") + " train", "no class folders to learn from"),
    "another language": (each("обучение", "тест"), "обучение and тест hold the same"),
    "parts in classes": (each("cat", "dog", classes="train test"), "hold the parts test and train"),
    "places": (each("site_a", "site_b"), "site_a and site_b hold the same .* cat and dog"),
    "towns": (each("london", "paris", "rome"), "london, paris and rome hold the same"),
    "folds": (each(*(f"fold{i}" for i in range(1, 6))), "fold1, fold2, fold3, fold4 and 1 more"),
    "years on top": (each("2021", "2022"), "2021 and 2022 hold the same"),
    "patients": (each("10253", "8863", "9345", classes="0 1"), "hold the same subfolders, 0 and 1"),
    "folds of grades": (each("fold1", "fold2", classes="grade1 grade2"), "the same subfolders"),
    "domains": (each("amazon/images", "dslr/images"), "amazon and dslr hold the same"),
    "twice, in a folder": (each(".", "pets"), "pets holds folders by the names .* cat and dog"),
    "twice, in a part": (each(".", "train"), "train holds folders by the names of .* cat and dog"),
    "names as they are": (each("h1", "h2", classes="OK NotOK"), "subfolders, NotOK and OK"),
    "two of training": (each("train1", "train2"), "train1 and train2 hold the same"),
    "one part and another folder": (each("train", "extra"), "extra and train hold the same"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_be_parts_is_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    layout, told = REFUSED[kind]
    with pytest.raises(DataError, match=told) as caught:
        read(made(tmp_path, layout))
    assert "CSV manifest with the columns path" in str(caught.value)
    remedy = "train, val and test|Move the parts|Name one of these|Take it out"
    assert re.search(remedy, str(caught.value))


def test_empty_classes_of_a_part_are_named(tmp_path: Path) -> None:
    made(tmp_path, each("Training", "Testing"))
    (tmp_path / "Training" / "bird").mkdir()
    assert [out.path for out in read(tmp_path).left_out] == ["Training/bird"]


@pytest.mark.parametrize("only", ["0", "scratch"])
def test_a_part_may_have_one_class_only(tmp_path: Path, only: str) -> None:
    data = read(made(tmp_path, each("Training", classes="0 scratch") + f" Testing/{only}"))
    assert found(data) == {"train/0": 1, "train/scratch": 1, f"test/{only}": 1}


def test_a_part_to_predict_is_left_out_whatever_its_folders(tmp_path: Path) -> None:
    data = read(made(tmp_path, each("train", "inference")))
    assert list(data.left_out) == [LeftOut("inference", "2 images named as a part without labels")]


@pytest.mark.parametrize("part", ["test", "Testing", "training_set", "Val2"])
def test_the_only_folder_is_a_part_if_its_name_says_so(tmp_path: Path, part: str) -> None:
    data = read(made(tmp_path, each(part)))
    assert data.classes == ("cat", "dog")
    assert set(data.parts) == {{"te": "test", "tr": "train", "va": "val"}[part[:2].lower()]}


def test_parts_in_a_folder_beside_others_are_found(tmp_path: Path) -> None:
    data = read(made(tmp_path, each("plants/plants/train", "plants/plants/valid") + " test/test"))
    assert Counter(data.parts) == {"train": 2, "val": 2}
    reason = "not in one of the parts train, val and test"
    assert list(data.left_out) == [LeftOut("test/test/4.png", reason)]


def test_pictures_beside_sure_parts_are_left_out_and_named(tmp_path: Path) -> None:
    data = read(made(tmp_path, each("Training", "Testing") + " extra Training ."))
    assert {(out.path, out.reason) for out in data.left_out} == {
        ("extra/4.png", "not in one of the parts train, val and test"),
        ("Training/5.png", "an image in no class folder"),
        ("6.png", "not in one of the parts train, val and test"),
    }


@pytest.mark.parametrize(
    ("layout", "code", "told"),
    [
        (each("Training", "Testing"), 0, ""),
        (each("seg_train", "seg_test") + " seg_pred", 3, "seg_pred: 1 image in no class folder"),
        ("train test1", 1, "test1 and train are parts"),
    ],
)
def test_check_tells_by_its_exit_code_what_became_of_parts(
    tmp_path: Path, layout: str, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (made(tmp_path / "data", layout) / "README").write_text("about the pictures")
    store = str(tmp_path / "store")
    argv = ["check", str(tmp_path / "data"), "--backbone", "none", "--store", store]
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert told in err
    assert code == 1 or "README: not an image" in out
