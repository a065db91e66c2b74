"""The layers of the package: a file imports only from its own layer and from lower ones."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import headstart

LAYERS = (
    {"base"},
    {"targets"},
    {"backbones"},
    {"data", "heads"},
    {"modalities"},
    {"features"},
    {"training"},
    {"models"},
    {"evaluation"},
    {"explaining", "exporting", "reporting"},
    {"runs", "serving"},
    {
        "__init__",
        "in_python",
        "api",
        "explainer",
        "explanations",
        "pixels",
        "shipping",
        "texts",
        "boxes",
        "specs",
        "errors",
        "extend",
        "sklearn",
    },  # so nothing below the command line may import the public API
    {"cli", "__main__"},
)
# Imports that still point upwards. None is added; one that is not needed any more is taken out.
UPWARD: set[tuple[str, str]] = set()
HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}
ROOT = Path(headstart.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    """The dotted name of a file below `headstart`: "data.splits"; "__init__" of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if len(parts) == 1 or parts[-1] != "__init__" else parts[:-1])


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports: at the top, in a function, or late, by a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value.startswith("headstart.") else []
        else:
            continue
        for name in names:
            if name.split(".")[0] == "headstart":
                yield known(name)


def known(name: str) -> str:
    """The module that a dotted name is of: the name itself, or what it is an attribute of."""
    below = name.removeprefix("headstart").removeprefix(".")
    while below and below not in MODULES:
        below = below.rpartition(".")[0]
    return below or "__init__"


def height(module: str) -> int:
    return HEIGHT[module.split(".")[0]]


USED = {module: set(imported(path)) - {module} for module, path in MODULES.items()}


@pytest.mark.parametrize("module", USED)
def test_no_file_imports_from_a_higher_layer(module: str) -> None:
    above = {(module, other) for other in USED[module] if height(other) > height(module)}
    assert above <= UPWARD, f"{module} is too low for {above}"


def test_an_import_that_is_excused_is_there() -> None:
    assert all(other in USED[module] for module, other in UPWARD)


# Names of pictures in files above the modalities; explaining/pixels/, explaining/boxes/, pixels.py
# and training/attacked.py may.
# None is added; one that is not needed any more is taken out.
PICTURES = re.compile("pixel|picture|image|square|jpeg|png|rgb|augment", re.IGNORECASE)
OF_PICTURES_ALONE = ("explaining.pixels.", "explaining.boxes.", "training.attack", "pixels")
EXCUSED: dict[str, set[str]] = {
    "api": {"Augment", "augment"},  # the setting of that name
    "cli.ideal": {"Pixels", "picture", "pixels"},
    "cli.views": {"Augment"},
    "reporting.accuracy": {"picture"},
    "reporting.blocks": {"picture"},
    "reporting.data": {"Augment", "augment", "one_image_classes"},
    "reporting.explanations": {"ImageInput", "of_pictures"},
    "reporting.run_files": {"augment"},
    "runs.forecast": {"augment"},
    "runs.job": {"Augment", "augment"},
    "runs.recipes": {"Augment", "augment"},
    "runs.run": {"augment"},
    "runs.stages": {"augment"},
    "specs": {"Augment"},
}


def names_of_pictures(module: str) -> set[str]:
    """What a file above the modalities names after pictures; strings and comments don't count."""
    if height(module) <= HEIGHT["modalities"] or module.startswith(OF_PICTURES_ALONE):
        return set()
    return {name for name in names(MODULES[module]) if PICTURES.search(name)}


def names(path: Path) -> Iterator[str]:
    """Every identifier of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.alias):
            yield from (part for part in (node.name, node.asname) if part)
        for attribute in ("id", "attr", "arg", "name"):
            if isinstance(found := getattr(node, attribute, None), str):
                yield found


@pytest.mark.parametrize("module", MODULES)
def test_nothing_above_the_modalities_knows_pictures(module: str) -> None:
    assert names_of_pictures(module) == EXCUSED.get(module, set())


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = {module: used for module, used in USED.items() if module != "__init__"}
    TopologicalSorter(files).prepare()  # raises CycleError, which names the circle


def test_there_are_at_most_13_layers_and_22_packages() -> None:
    assert len(LAYERS) <= 13
    packages = [path for path in ROOT.rglob("__init__.py") if path.parent != ROOT]
    assert len(packages) <= 22, sorted(str(p.parent.relative_to(ROOT)) for p in packages)


def test_control_a_planted_upward_import_is_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from headstart.cli.main import main\n")
    assert set(imported(bad)) == {"cli.main"}
    bad.write_text("TABLE = {'linear': 'headstart.heads.linear'}\n")
    assert set(imported(bad)) == {"heads.linear"}


# Names that say what classes are; above targets/ only the files listed here may use them, until
# what they do is asked of the target. The lists only shrink.
CLASS_NAMES = {
    *("classes", "class_names", "per_class", "confusion", "softmax", "argmax"),
    *("accuracy", "f1", "recall", "auroc", "majority", "balanced_accuracy", "macro_f1"),
}
BELOW_TARGETS = ("base.", "targets.", "__")
PIXELS = ("explaining.pixels.", "pixels", "modalities.", "training.adversary", "training.attack")
EXCUSED_CLASSES: dict[str, set[str]] = {
    "cli.answers": {"classes"},
    "cli.attack": {"classes"},
    "cli.ideal": {"classes"},
    "cli.printing": {"classes", "per_class"},
    "data.dataset": {"class_names", "classes"},
    "data.layouts": {"classes"},
    "evaluation.comparison": {"accuracy", "auroc", "balanced_accuracy", "classes", "macro_f1"},
    "evaluation.evaluation": {"class_names", "classes"},
    "evaluation.learning_curve": {"accuracy", "argmax"},
    "evaluation.mistakes": {"argmax", "classes"},
    "evaluation.source_distance": {"argmax"},
    "features.extract": {"class_names", "classes"},
    "heads.head": {"classes", "softmax"},
    "heads.logistic": {"softmax"},
    "heads.mlp": {"classes"},
    "heads.module": {"classes"},
    "heads.nearest": {"classes"},
    "heads.ridge": {"softmax"},
    "heads.specs": {"classes"},
    "models.calibration": {"accuracy", "argmax"},
    "models.finetuning": {"accuracy"},
    "models.model": {"class_names", "classes"},
    "models.plain_answers": {"classes"},  # moved from the command line
    "models.predictor": {"argmax", "classes"},
    "models.wording": {"classes"},
    "reporting.accuracy": {"classes", "confusion", "f1", "majority", "per_class", "recall"},
    "reporting.data": {"classes"},
    "reporting.embedding": {"classes"},
    "reporting.facts": {"classes"},
    "reporting.learning_curve": {"accuracy"},
    "reporting.robustness": {"accuracy", "majority"},
    "reporting.summary": {"accuracy", "classes", "majority"},
    "reporting.trust": {"accuracy"},
    "runs.insights": {"classes"},  # moved from runs.run
    "runs.judging": {"classes"},  # moved from the command line
    "runs.run": {"classes"},
    "runs.seeds": {"accuracy", "balanced_accuracy", "classes"},
    "sklearn": {"argmax"},  # classifiers are estimators of their own in scikit-learn
    "training.network": {"classes"},
}


def identifiers(path: Path) -> set[str]:
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        for field in ("id", "attr", "arg", "name"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found.add(value)
    return found


@pytest.mark.parametrize(
    "module", [m for m in MODULES if not m.startswith((*BELOW_TARGETS, *PIXELS))]
)
def test_nothing_above_targets_knows_classes(module: str) -> None:
    assert identifiers(MODULES[module]) & CLASS_NAMES == EXCUSED_CLASSES.get(module, set())


# Files above targets/ that know boxes though their names don't say so, each with the reason. None
# is added where a method of the target can be asked instead.
OF_BOXES = {
    "evaluation.missing_labels": "detections that no label explains",
    "evaluation.precision_curves": "curves of average precision",
    "modalities.images.prepared_graph": "detections are brought back into upright pixels",
    "modalities.images.trees": "a data set of boxes",
    "models.detection": "the phases of the head that finds them",
    "models.detector": "the network that finds them, as one graph",
    "models.level_data": "what that head learns from",
    "models.placing": "where padded pictures and their views have them",
    "cli.predict": "files of boxes",
    "runs.insights": "boxes that look missing",
}


def test_above_targets_few_files_know_boxes() -> None:
    above = {module for module in MODULES if height(module) > HEIGHT["targets"]}
    found = {m for m in above if any(used.startswith("targets.box") for used in USED[m])}
    assert {module for module in found if "box" not in module} <= OF_BOXES.keys()
