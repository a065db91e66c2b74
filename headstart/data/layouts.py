"""Find the class folders of a data set: its top folders, or the folders in its parts.

Names of folders and the places of pictures decide; ambiguous layouts are refused.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from headstart.base.errors import DataError
from headstart.data.dataset import PARTS, LeftOut
from headstart.data.walking import display

Place = tuple[str, ...]  # the components of a folder's path relative to the root

PART_NAMES = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
PREDICT = "predict"  # the kind of a folder with unlabelled pictures
EVALUATE = "evaluate"  # of a folder that is the test part or, beside one, the val part
WORDS = (
    PART_NAMES
    | dict.fromkeys(("training", "trn", "trainval"), "train")
    | dict.fromkeys(("validate", "validating", "dev", "development"), "val")
    | dict.fromkeys(("testing", "tst", "holdout"), "test")
    | dict.fromkeys(("eval", "evaluation", "evaluate"), EVALUATE)
    | dict.fromkeys(("pred", "predict", "prediction", "predictions", "inference"), PREDICT)
    | dict.fromkeys(("unlabeled", "unlabelled"), PREDICT)
)
PART_WORDS = {word: kind for word, kind in WORDS.items() if kind in PARTS}
# Words that do not describe the pictures in a folder.
NEUTRAL = frozenset(
    "set sets data dataset datasets folder dir split part image images img imgs picture pictures "
    "pic pics photo photos sample samples jpg jpeg png x y all new final full small resized "
    "cropped crops raw original originals processed preprocessed clean cleaned augmented aug "
    "balanced".split()
)
# Names of subfolders in a class: conditions of the pictures, and files beside them.
CONDITIONS = frozenset(
    "mask masks label labels annotations indoor indoors outdoor outdoors day night left right "
    "front back top bottom side".split()
)
# Numbers after these words count classes (grade1, grade2); after others, places or times.
CLASS_WORDS = frozenset(
    "class cls label grade level stage type category kind degree score rating cluster".split()
)
DEPTH = 4  # the most folders above the parts
MOSTLY = 0.9  # share of the pictures in common subfolders that makes a layout ambiguous
GLUED = re.compile(f"(x|y)?({'|'.join(WORDS)})({'|'.join(sorted(NEUTRAL - {'x', 'y'}))})?")


@dataclass(frozen=True)
class FolderLayout:
    """Where the class folders are.

    parts: the folders that hold class folders -> their part ("" without parts). unlabelled: the
    parts without labels, which `left_out` names.
    """

    parts: Mapping[Place, str]
    unlabelled: frozenset[Place] = frozenset()
    left_out: tuple[LeftOut, ...] = ()

    def base(self, file: Path) -> Place | None:
        """Return the folder of `parts` or `unlabelled` that contains `file`, or None."""
        places = (file.parts[:depth] for depth in range(len(file.parts)))
        return next((p for p in places if p in self.parts or p in self.unlabelled), None)


def layout_of(pictures: Iterable[Path], folders: Iterable[Path]) -> FolderLayout:
    """Return where the class folders are, by the paths of pictures and folders.

    Parts are folders named as parts ("train" and "val"; "Training" and "Testing"; "seg_train",
    "seg_test" and "seg_pred") with class folders in common, in one place near the top. A class
    named "train" among other classes stays a class.

    Raises DataError for folders named as parts without common classes, for parts in several places,
    and for top folders with the same subfolders, either of which may be the classes.
    """
    tree = _Tree.of(pictures)
    tops = {folder.parts[0] for folder in folders}
    named = {top: PART_NAMES[top.lower()] for top in tops if top.lower() in PART_NAMES}
    if len(named) >= 2 or len(named) == len(tops) == 1:
        return _in_parts(tree, (), _kinds(tree.inside(())) | named)
    places = _places_of_parts(tree, ())
    if len(places) > 1:
        raise DataError(
            f"A data set has its parts in one place; here {_listed('/'.join(p) for p in places)} "
            f"hold parts each. Name one of these folders, or list the pictures in a CSV manifest "
            f"with the columns path, label and part."
        )
    if places:
        return _in_parts(tree, places[0], _sure_parts(tree, places[0]))
    place = _wrapper(tree)
    _refuse_shared_subfolders(tree.under(place))
    return FolderLayout({place: ""})


def _wrapper(tree: "_Tree") -> Place:
    """Return the folder that holds several folders, below folders named Images, data, raw, …"""
    place: Place = ()
    while not tree.direct[place] and len(names := tree.inside(place)) == 1:
        words = set(_tokens(names[0]))
        if not words or not words <= NEUTRAL:
            return ()
        place = (*place, names[0])
    return place if len(tree.inside(place)) > 1 and not tree.direct[place] else ()


def unlike_classes(names: Collection[str]) -> bool:
    """Return whether folders are plainly no classes: one alone, or pictures in numbered parts.

    >>> unlike_classes(["images_part_1", "images_part_2"]), unlike_classes(["grade1", "grade2"])
    (True, False)
    """
    words = {word for name in names for word in _tokens(name)}
    return len(names) == 1 or bool(words & NEUTRAL and _numbered(list(names)))


@dataclass(frozen=True)
class _Tree:
    """Counts of pictures: `direct`ly in a folder; `below` it, by subfolder, at any depth."""

    direct: Counter[Place]
    below: Mapping[Place, Counter[str]]

    @classmethod
    def of(cls, pictures: Iterable[Path]) -> "_Tree":
        direct, below = Counter[Place](), defaultdict[Place, Counter[str]](Counter)
        direct.update(picture.parts[:-1] for picture in pictures)
        for place, n in direct.items():
            for depth, name in enumerate(place):
                below[place[:depth]][name] += n
        return cls(direct, below)

    def under(self, top: Place) -> "_Tree":
        """Return the counts below a folder, by paths relative to it."""
        n = len(top)
        direct = {place[n:]: count for place, count in self.direct.items() if place[:n] == top}
        below = {place[n:]: names for place, names in self.below.items() if place[:n] == top}
        return _Tree(Counter(direct), below)

    def inside(self, place: Place) -> list[str]:
        """Return the names of the subfolders with pictures at any depth."""
        return sorted(self.below.get(place, ()))

    def count(self, place: Place) -> int:
        return self.direct[place] + sum(self.below.get(place, Counter()).values())


@lru_cache(maxsize=10_000)
def _tokens(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case, without digits: seg_train2 -> seg, train."""
    found = list[str]()
    for piece in re.split(r"[\W\d_]+", name):
        if match := GLUED.fullmatch(piece.lower()):
            found += [word for word in match.groups() if word]
        else:
            found += re.findall(r"[A-Z]?[^\WA-Z]+|[A-Z]+(?![^\WA-Z])", piece)
    return tuple(word.lower() for word in found)


def _kind(name: str) -> str:
    """Return the kind of part that the words of a name agree on, or ""."""
    kinds = {WORDS[word] for word in _tokens(name) if word in WORDS}
    return kinds.pop() if len(kinds) == 1 else ""


def _rest(name: str) -> frozenset[str]:
    return frozenset(_tokens(name)) - frozenset(WORDS) - NEUTRAL


def _kinds(names: Sequence[str]) -> dict[str, str]:
    """Return the folders named as parts, with their kinds.

    Their names consist of a word for a part, NEUTRAL words, and words that all of them share; the
    name of a part to predict may hold others. Beside test and val, an EVALUATE folder is left out.
    """
    likely = {name: kind for name in names if (kind := _kind(name))}
    several = len(set(likely.values())) > 1
    shared = frozenset.intersection(*map(_rest, likely)) if several else frozenset[str]()
    kinds = {n: kind for n, kind in likely.items() if kind == PREDICT or not _rest(n) - shared}
    free = next((part for part in ("test", "val") if part not in kinds.values()), "")
    parts = {n: free if kind == EVALUATE else kind for n, kind in kinds.items()}
    return {n: part for n, part in parts.items() if part}


def _places_of_parts(tree: _Tree, place: Place, only: bool = True) -> list[Place]:
    """Return the folders, at most DEPTH deep, that hold sure parts.

    only: whether `place` holds all pictures. If so, folders that only look like parts raise
    DataError; inside one of several classes they belong to the class.
    """
    if _sure_parts(tree, place):
        return [place]
    names = tree.inside(place)
    if only:
        _refuse_likely_parts(tree, place)
    if len(place) == DEPTH:
        return []
    only = only and len(names) == 1 and not tree.direct[place]
    return [p for name in names for p in _places_of_parts(tree, (*place, name), only)]


def _sure_parts(tree: _Tree, place: Place) -> dict[str, str]:
    """Return the parts in a folder with their kinds if their class folders agree, else {}."""
    names = tree.inside(place)
    kinds = _kinds(names)
    if not kinds:
        return {}
    classes = {part: _classes(tree, place, kinds, part) for part in PARTS}
    labelled = [found for found in classes.values() if found]
    strangers = len(names) - len(kinds)
    if not labelled or ("train" in kinds.values() and not classes["train"]):
        return {}
    if len(labelled) > 1:
        common = labelled[0] & frozenset().union(*labelled[1:])
        return kinds if len(common) >= (2 if strangers else 1) else {}
    several = len(kinds) == 1 or len(set(kinds.values())) > 1
    return kinds if several and len(labelled[0]) > 1 and not strangers else {}


def _refuse_likely_parts(tree: _Tree, place: Place) -> None:
    """Raise DataError if most folders are named as parts, or if each class has parts."""
    names = tree.inside(place)
    kinds = _kinds(names)
    if _crossed(names):
        _refuse_parts(names, "each class has parts of its own")
    if "train" in kinds.values() and len(set(kinds.values())) > 1 and 2 * len(kinds) > len(names):
        if _classes(tree, place, kinds, "train"):
            _refuse_parts(kinds, "they have no class folders in common")
        _refuse_parts(kinds, "they hold no class folders to learn from")


def _crossed(names: Sequence[str]) -> bool:
    """Return whether folders are parts of classes: cat_train, cat_test, dog_train, dog_test."""
    kinds = defaultdict[frozenset[str], set[str]](set)
    for name in names:
        kinds[_rest(name)].add(_kind(name))
    parts = set[str]().union(*kinds.values())
    return (
        len(kinds) > 1
        and "" not in parts
        and "train" in parts
        and all(rest and len(own) > 1 for rest, own in kinds.items())
    )


def _inner(tree: _Tree, place: Place, kind: str = PREDICT) -> Place:
    """Return `place`, or its only folder while named by the kind or NEUTRAL words: train/images."""
    while not tree.direct[place] and len(tree.inside(place)) == 1:
        name = tree.inside(place)[0]
        words = set(_tokens(name))
        if not (_kind(name) == kind or (words and words <= NEUTRAL)):
            break
        place = (*place, name)
    return place


def _classes(tree: _Tree, place: Place, kinds: Mapping[str, str], part: str) -> set[str]:
    """Return the names of the class folders of one part, in lower case."""
    tops = ((*place, name) for name, kind in kinds.items() if kind == part)
    return {name.lower() for top in tops for name in tree.inside(_inner(tree, top, part))}


def _in_parts(tree: _Tree, place: Place, kinds: Mapping[str, str]) -> FolderLayout:
    """Return the layout of the parts `kinds` (name -> kind) in the folder `place`."""
    parts, unlabelled, left_out = dict[Place, str](), set[Place](), list[LeftOut]()
    for name, kind in sorted(kinds.items()):
        top = (*place, name)
        inner = _inner(tree, top, kind)
        if kind != PREDICT and (tree.inside(inner) or not tree.count(top)):
            parts[inner] = kind
            continue
        unlabelled.add(top)
        n = tree.count(top)
        why = "named as a part" if tree.inside(inner) else "in no class folder: a part"
        reason = f"{n:,} image{'s' * (n != 1)} {why} without labels"
        left_out.append(LeftOut(display(Path(*top)), reason))
    labelled = {part for inner, part in parts.items() if tree.inside(inner)}
    if unlabelled and ("train" not in labelled if "train" in kinds.values() else not labelled):
        _refuse_parts(kinds, "they hold no class folders to learn from")
    return FolderLayout(parts, frozenset(unlabelled), tuple(left_out))


def _refuse_shared_subfolders(tree: _Tree) -> None:
    """Raise DataError if top folders hold the same subfolders: either may be the classes."""
    tops = tree.inside(())
    _refuse_classes_twice(tree, tops)
    inside = [tree.below.get(_inner(tree, (top,)), Counter[str]()) for top in tops]
    shared = _shared(inside)
    lower = {name.lower() for name in shared}
    covered = sum(n for counts in inside for name, n in counts.items() if name.lower() in lower)
    if len(shared) < 2 or covered < MOSTLY * sum(tree.count((top,)) for top in tops):
        return
    kinds = _kinds(shared)
    if "train" in kinds.values() and len(kinds) == len(shared):
        raise DataError(
            f"Parts hold classes, DATA/train/<class>; here the folders {_listed(tops)} hold the "
            f"parts {_listed(shared)} each. Move the parts to the top, or list the pictures in a "
            f"CSV manifest with the columns path, label and part."
        )
    if not _usual(tops, shared):
        raise DataError(
            f"Which folders are the classes must be plain; here the top folders {_listed(tops)} "
            f"hold the same subfolders, {_listed(shared)}. If the top folders are parts, name them "
            f"train, val and test; if they are versions of the same pictures, give one of them; if "
            f"they are the classes, take the pictures out of the subfolders; or list the pictures "
            f"in a CSV manifest with the columns path and label (and group, if those of one folder "
            f"belong together)."
        )


def _refuse_classes_twice(tree: _Tree, tops: Sequence[str]) -> None:
    """Raise DataError if a top folder holds folders with the names of other top folders.

    Archives often hold a data set twice: DATA/cat, DATA/dog and DATA/pets/cat, DATA/pets/dog.
    """
    for top in tops:
        others = {name.lower() for name in tops if name != top}
        inside = tree.below.get(_inner(tree, (top,)), Counter[str]())
        twice = [name for name in inside if name.lower() in others]
        if len(twice) >= 2 and sum(map(inside.__getitem__, twice)) >= MOSTLY * tree.count((top,)):
            raise DataError(
                f"Which folders are the classes must be plain; here {_listed([top])} holds folders "
                f"by the names of folders beside it, {_listed(twice)}. Take it out if it is a copy "
                f"of them, move its pictures into them, or list the pictures in a CSV manifest "
                f"with the columns path and label."
            )


def _shared(inside: Sequence[Counter[str]]) -> list[str]:
    """Return the subfolders that at least half, and two, of the folders have, ignoring case."""
    times = Counter(name for names in inside for name in {name.lower() for name in names})
    shared = {name for name, n in times.items() if n >= 2 and 2 * n >= len(inside)}
    return sorted(
        {name.lower(): name for i in inside for name in i if name.lower() in shared}.values()
    )


def _usual(tops: Sequence[str], shared: Sequence[str]) -> bool:
    """Return whether the top folders are classes, judged by the subfolders that they share."""
    words = {word for name in shared for word in _tokens(name)}
    if _numbered(shared) and words:
        return not words & CLASS_WORDS  # cat/day1, cat/day2; but fold1/class1, fold1/class2
    if words <= NEUTRAL and words:
        return True
    return words <= NEUTRAL | CONDITIONS and not _places(tops)


def _numbered(names: Sequence[str]) -> bool:
    """Return whether names differ in numbers or single letters only: day1, day2; a, b."""
    return len({re.sub(r"\d+|(?<![^\W_])[^\W_](?![^\W_])", "#", n.lower()) for n in names}) == 1


def _places(names: Sequence[str]) -> bool:
    """Return whether names count places or times (patient1, 10253), not classes (grade1, 0, a)."""
    if all(name.isalpha() and len(name) == 1 for name in names):
        return False
    if all(name.isdecimal() for name in names):
        numbers = sorted(map(int, names))
        return numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1
    return _numbered(names) and not {w for n in names for w in _tokens(n)} & CLASS_WORDS


def _refuse_parts(names: Iterable[str], why: str) -> NoReturn:
    raise DataError(
        f"Parts of a data set hold class folders, DATA/train/<class>/<image>.jpg; by their names, "
        f"{_listed(names)} are parts, but {why}. Name the parts train, val and test and sort "
        f"their pictures into folders, one a class; or list the pictures in a CSV manifest with "
        f"the columns path, label and part."
    )


def _listed(names: Iterable[str], most: int = 4) -> str:
    shown = [display(Path(name)) for name in sorted(names)]
    if len(shown) > most:
        return f"{', '.join(shown[:most])} and {len(shown) - most} more"
    return " and ".join([*filter(None, [", ".join(shown[:-1])]), shown[-1]])
