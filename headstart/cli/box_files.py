"""Files about found boxes that `predict` writes: COCO's results, YOLO's text, drawings."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.atomic import check_folder, write_bytes, write_json, write_text
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.cli.progress import say

if TYPE_CHECKING:
    from headstart.cli.answers import Answering, Answers
    from headstart.data.dataset import Dataset
    from headstart.models.model import Model
    from headstart.targets.box_matching import Detections
    from headstart.targets.boxes import BoxesTarget

FLAGS = ("coco", "yolo", "draw")
YOLO_LABELS, YOLO_NAMES = "labels", "classes.txt"


def add_box_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--coco",
        type=Path,
        metavar="FILE",
        help="write all detections as COCO's results (.json), for a model of boxes",
    )
    parser.add_argument(
        "--yolo",
        type=Path,
        metavar="FOLDER",
        help="write the boxes that reach their class's threshold as YOLO's text, with scores: "
        f"{YOLO_LABELS}/NAME.txt for each picture and {YOLO_NAMES}",
    )
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="FOLDER",
        help="draw these boxes on each picture: NAME.jpg, beside any other output",
    )


def asks_for_files(args: argparse.Namespace) -> bool:
    """Return whether files about boxes are asked for."""
    return any(getattr(args, flag) for flag in FLAGS)


@dataclass(frozen=True, eq=False)
class BoxFiles:
    """The files about the boxes in some pictures. texts, drawings: the file of each picture, by its
    id; empty if none are asked for."""

    model: "Model"
    coco: Path | None = None
    texts: dict[str, Path] = field(default_factory=dict)
    drawings: dict[str, Path] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)  # messages that are printed at the end
    _ids: list[str] = field(default_factory=list)
    _found: "list[Detections]" = field(default_factory=list)

    @classmethod
    def of(cls, args: argparse.Namespace, model: "Model", files: "Dataset") -> "BoxFiles":
        """Return the files that are asked for; SpecError for another model and existing files."""
        check_box_flags(args, model)
        texts = dict[str, Path]()
        if args.yolo:
            texts = _named(files, args.yolo / YOLO_LABELS, "txt", "--yolo", _refuse_twice)
            from headstart.explaining.naming import refuse_taken

            refuse_taken([args.yolo / YOLO_NAMES], "--yolo")
        drawings = _named(files, args.draw, "jpg", "--draw") if args.draw else {}
        return cls(model, args.coco, texts, drawings, [str(f) for f in _places(args)])

    @property
    def target(self) -> "BoxesTarget":
        from headstart.targets.boxes import BoxesTarget

        assert isinstance(self.model.target, BoxesTarget)
        return self.model.target

    def with_files(self, answering: "Answering") -> "Answering":
        """Return `answering`, which then writes the files of its answers too."""

        def both(files: "Dataset", listener: Listener) -> "Answers":
            answers = answering(files, listener)
            self.add(files, answers)
            return answers

        return both

    def add(self, files: "Dataset", answers: "Answers") -> None:
        """Write the texts and drawings of some pictures, and keep their boxes for COCO's file."""
        from headstart.targets.boxes import detections

        predictions = answers.predictions
        if self.coco:
            self._ids.extend(predictions.ids)
            self._found.extend(detections(predictions.outputs))
        if not (self.texts or self.drawings):
            return
        sources = dict(zip(files.ids, files.sources, strict=True))
        for id, one in zip(predictions.ids, self.target.kept(predictions.outputs), strict=True):
            self._write(id, one, sources[id])

    def _write(self, id: str, found: "Detections", source: Any) -> None:
        from headstart.backbones.inputs import fetched
        from headstart.data.boxes.results import yolo_text
        from headstart.modalities.images.box_drawing import drawn_file, upright_size

        data = fetched(self.model.backbone.card.input, source)
        if id in self.texts:
            write_text(self.texts[id], yolo_text(found, upright_size(data)))
        if id in self.drawings:
            write_bytes(self.drawings[id], drawn_file(data, found, self.target.names))

    def finish(self) -> None:
        """Write what is about all pictures, and say what was written."""
        if self.coco:
            from headstart.data.boxes.results import coco_results
            from headstart.targets.boxes import answers_of

            answers = answers_of(self._found)
            write_json(self.coco, coco_results(self._ids, answers, self.target))
        for folder in {file.parent.parent for file in self.texts.values()}:
            write_text(folder / YOLO_NAMES, "".join(f"{name}\n" for name in self.target.names))
        for place in self.written:
            say("written", place)


def check_box_flags(args: argparse.Namespace, model: "Model") -> None:
    """Raise SpecError for files about boxes of another model, or for a --coco that exists."""
    from headstart.targets.boxes import BoxesTarget

    for flag in FLAGS:
        if getattr(args, flag) and not isinstance(model.target, BoxesTarget):
            noun = model.target.noun
            raise SpecError(f"--{flag} is for a model of boxes; this one predicts {noun}.")
    if args.coco:
        if args.coco.exists():
            raise SpecError(f"{args.coco} is there already: name another --coco.")
        check_folder(args.coco.parent)


def _places(args: argparse.Namespace) -> list[Path]:
    return [place for flag in FLAGS if (place := getattr(args, flag))]


def _named(
    files: "Dataset",
    folder: Path,
    ending: str,
    flag: str,
    check: Callable[[Sequence[Path]], None] = lambda names: None,
) -> dict[str, Path]:
    """Return a file for each picture, named after it; SpecError for a file that exists."""
    from headstart.explaining.naming import named_after

    named = named_after(files.sources, lambda name: (folder / f"{name}.{ending}",), flag=flag)
    found = [file for file, *_ in named]
    check(files.sources)
    check_folder(folder)
    return dict(zip(files.ids, found, strict=True))


def _refuse_twice(sources: Sequence[Any]) -> None:
    """Raise SpecError if two pictures would have the same text: YOLO knows them by their names."""
    seen = dict[str, Path]()
    for source in sources:
        if isinstance(source, Path) and seen.setdefault(source.stem, source) != source:
            raise SpecError(
                f"YOLO's texts are named after the pictures, and {seen[source.stem]} and {source} "
                f"would have the same one: predict them one folder at a time."
            )
