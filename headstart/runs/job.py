"""All settings of a run as one value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, get_args

from headstart.backbones.views import UserViews
from headstart.base.durations import seconds_of
from headstart.base.errors import MissingPackage, SpecError, install_command
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime, installed
from headstart.base.store import USUAL, Store
from headstart.base.values import later
from headstart.data.checks import CheckPlan
from headstart.data.dataset import Dataset
from headstart.data.folds import RunParts, folded
from headstart.data.shots import with_shots
from headstart.data.splits import SplitPlan, split
from headstart.evaluation.effort import Detail
from headstart.heads.families import HEADS, check_supports
from headstart.heads.head import MOST, check_word
from headstart.heads.specs import HeadSpec
from headstart.modalities.images.augment import Augment, AutoViews
from headstart.modalities.sources import DEFAULT_BACKBONE, usual_backbone
from headstart.models.limits import TrustPlan
from headstart.models.specs import (
    FeatureExtraction,
    FineTune,
    TwoPhaseSpec,
    check_members,
    check_tta,
)
from headstart.targets.plan import TargetPlan
from headstart.targets.target import POOLED

Strategy = Literal["auto", "extract", "finetune", "scratch"]
Language = Literal["en", "ru"]
From = Literal["none", "cnn", "backbone"]
MOST_DRAWS = 1000
AUTO = "auto"  # in place of a backbone's name


@dataclass(frozen=True)
class Job:
    """All settings of `headstart train` except the run folder."""

    source: Annotated[
        str,
        "where the data was read from, recorded so that `recorded_parts` knows it again",
    ] = ""
    data_licence: Annotated[str, "licence of the data, for the report"] = ""
    backbone: Annotated[
        str,
        "pretrained network, as source:id; see `headstart backbones`. auto compares the packaged "
        "ones on a sample, and takes the best",
    ] = DEFAULT_BACKBONE
    weights: Annotated[
        str,
        "pretrained, random or a file; .safetensors, or .h5 for keras",
    ] = "pretrained"
    strategy: Annotated[
        Strategy,
        "auto keeps the fine-tuned model if it is better than the head on validation by more than "
        "one standard error; the others force one way",
    ] = "auto"
    target: TargetPlan = TargetPlan()
    recipe: FeatureExtraction = FeatureExtraction()
    finetune: FineTune = FineTune()
    augment: Augment | UserViews | AutoViews = Augment()
    tta: Annotated[
        str,
        "test-time views: none, a number of the flips, quarter turns and crops that training "
        "draws from, or auto, where they are better on validation; the features are averaged over "
        "them, and predictions take as many times as long",
    ] = "none"
    baseline: Annotated[
        From,
        "also train this from scratch, to compare with: the tutorials' small cnn, or the backbone "
        "with random weights",
    ] = "none"
    trust: TrustPlan = TrustPlan()
    split: SplitPlan = SplitPlan()
    folds: Annotated[
        int,
        "judge every row by K models that did not learn from it (cross-validation), in place of a "
        "test part; the saved model learns from all rows; 0 for a test part",
    ] = 0
    shots: Annotated[
        int,
        "learn from K examples of each class; draws of them compare the heads that suit so few, "
        "and show the spread; the test part stays; 0 for all examples",
    ] = 0
    draws: Annotated[int, "draws of examples that --shots compares heads on"] = 10
    checks: CheckPlan = CheckPlan()
    runtime: Runtime = Runtime()
    store: Store = USUAL
    checkpoint_s: Annotated[
        float,
        "seconds between two checkpoints of training; 0 for one per step",
    ] = 30.0
    refit: Annotated[
        bool,
        "when all is chosen, fit the kept model again on the rows of training and validation "
        "together",
    ] = field(default=True, kw_only=True, metadata=later())
    members: Annotated[
        int,
        "fine-tune this many times from one head, each with another seed, and average the weights "
        "or the answers, as is better on validation",
    ] = field(default=1, kw_only=True, metadata=later())
    resume: Annotated[bool, "go on with a run that was stopped; refuse to start a new one"] = False
    language: Annotated[Language, "language of the report"] = "en"
    insights: Annotated[
        Detail,
        "what a report adds to the metrics (map, learning curve, suspects, explanations): "
        "quick takes about 15 % of the run at most, full all the time it needs",
    ] = "quick"
    budget: Annotated[
        float | str,
        "time for the run, such as 90s or 10m; what fits is measured and planned first, and a "
        "finished model is there in time; 0 is no limit",
    ] = field(default=0.0, kw_only=True, metadata=later())
    given: Annotated[
        tuple[str, ...],
        "names of the settings that the user chose, which a budget does not change",
    ] = field(default=(), kw_only=True, compare=False)
    parent: Annotated[str, "the run whose settings this one starts from"] = field(
        default="", kw_only=True, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", seconds_of(self.budget, "budget"))
        check_word("strategy", self.strategy, get_args(Strategy))
        check_word("baseline", self.baseline, get_args(From))
        check_tta(self.tta)
        check_word("language", self.language, get_args(Language))
        check_word("insights", self.insights, get_args(Detail))
        if not 0 <= self.checkpoint_s < math.inf:
            raise SpecError(
                f"checkpoint_s is a number of seconds, 0 or more; got {self.checkpoint_s}."
            )
        if self.backbone == AUTO and (self.strategy == "scratch" or self.weights != "pretrained"):
            raise SpecError(
                f"--backbone auto compares pretrained networks; got strategy {self.strategy} and "
                f"weights {self.weights}. Name a network."
            )
        if self.backbone == AUTO and self.folds:
            raise SpecError(
                "--backbone auto chooses on the rows outside the test part, and --folds judges "
                "every row: name a network, such as the one that `headstart search` comes to."
            )
        if self.folds < 0 or self.folds == 1 or self.folds > MOST:
            raise SpecError(
                f"folds is 2 or more, for as many models that judge one another's rows, or 0 for a "
                f"test part; got {self.folds}."
            )
        if self.shots:
            self._check_shots()
        check_members(self.members, self.finetune if self.tunes else None)
        if isinstance(self.augment, AutoViews):
            self._check_auto_views()
        if self.strategy == "finetune" and not self.recipe.head.fine_tunes:
            raise SpecError(
                "Fine-tuning goes on from a head of linear layers; the nearest neighbours have "
                "none. Name another --head, or --strategy extract."
            )
        if self.strategy == "finetune" and not self.finetune.thaws:
            raise SpecError(
                "Fine-tuning is of layers that are thawed, and thaw=none leaves none to learn. "
                "Name what may learn, or --strategy extract."
            )
        if self.strategy == "auto" and self.finetune.adversarial:
            raise SpecError(
                "Strategy auto keeps what is more accurate on clean pictures, which would throw "
                "away what adversarial training is for. Name --strategy finetune."
            )

    def with_changes(self, names: Sequence[str]) -> "Job":
        """Return the job with the augmentation of these changes in place of `auto`."""
        assert isinstance(self.augment, AutoViews)
        return replace(self, augment=self.augment.together(names))

    def _check_auto_views(self) -> None:
        """Raise SpecError for what does not go with an augmentation that the data chooses."""
        if self.strategy == "scratch":
            raise SpecError(
                "--augment auto judges changes by features of a pretrained network, and strategy "
                "scratch has none: name the changes, such as --flip horizontal."
            )
        if self.folds:
            raise SpecError(
                "--augment auto chooses on the rows outside the test part, and --folds judges "
                "every row: name the changes that a run without --folds comes to."
            )
        if self.shots:
            raise SpecError(
                "--augment auto judges changes for training on all rows, and the heads that "
                "--shots compares learn from examples as they are: leave one of them out."
            )
        if self.budget_s:
            raise SpecError(
                "--budget plans a run before its features are there, by which --augment auto "
                "chooses: leave one of them out, or name the changes."
            )
        if self.tta not in ("none", "auto"):
            raise SpecError(
                f"--augment auto decides of which changes there are test-time views; got --tta "
                f"{self.tta}. Type --tta auto, or name the changes."
            )

    def _check_shots(self) -> None:
        """Raise SpecError for what does not go with a few examples of each class."""
        if not 0 <= self.shots <= MOST or not 2 <= self.draws <= MOST_DRAWS:
            raise SpecError(
                f"shots is a number of examples of each class, and draws is from 2 to "
                f"{MOST_DRAWS:,}; got shots={self.shots} and draws={self.draws}."
            )
        others = {
            "folds": bool(self.folds),
            "backbone auto": self.backbone == AUTO,
            "ensemble": self.members > 1,
            f"strategy {self.strategy}": self.strategy in ("finetune", "scratch"),
            f"head {self.recipe.head.family}": self.recipe.head.by_epochs,
        }
        if wrong := next((name for name, asked in others.items() if asked), None):
            raise SpecError(
                f"--shots compares heads that are solved, on a few examples of each class and a "
                f"frozen backbone that is named; --{wrong} does not go with it: leave one out."
            )

    def for_data(self, data: Dataset, listener: Listener) -> "Job":
        """Return the job with the backbone and the head for this data, where none was named.

        Without PyTorch, strategy auto becomes extract. Raises MissingPackage for what needs it.
        """
        if data.target.takes != POOLED:
            return self._on_activations(data, listener)
        if isinstance(self.augment, AutoViews) and data.input and data.input.kind != "image":
            why = f"none: there are no changes of {data.noun} to choose from"
            listener.stage("changes", why)
            return replace(self, augment=Augment()).for_data(data, listener)
        if self.shots and self.strategy == "auto":
            return replace(self, strategy="extract").for_data(data, listener)
        if self.idle_views:
            listener.stage("views", "none: the heads of few shots learn from examples as they are")
            return replace(self, augment=Augment()).for_data(data, listener)
        if not installed("torch"):
            return self._without_torch(listener)._for_data(data, listener)
        return self._for_data(data, listener)

    def _on_activations(self, data: Dataset, listener: Listener) -> "Job":
        """Return the job for a target whose heads read activations, such as boxes.

        The head alone is trained unless a strategy was named: fine-tuning gained nothing there.
        Raises SpecError for what works on pooled features alone.
        """
        noun = data.target.noun
        if not installed("torch"):
            raise MissingPackage("torch", purpose=f"Training on {noun}", extra="train")
        recipe = self.recipe.for_target(data.target, listener)
        check_supports(recipe.head, data.target)
        # a recipe of a run that fine-tuned records the rate that it came to
        chosen = "strategy" in self.given or (self.finetune.lr and "lr" not in self.given)
        alone = self.strategy == "auto" and not chosen
        name, _ = usual_backbone(self.backbone, data)
        job = replace(
            self,
            backbone=name,
            recipe=recipe,
            strategy="extract" if alone else self.strategy,
            trust=replace(
                self.trust, calibrate=False, false_alarms=0.0, precision=0.0, coverage=0.0
            ),
            refit=False,
            tta="none",
        )
        self._check_on_activations(job, noun)
        from headstart.modalities.images.box_views import usual_views

        assert isinstance(self.augment, Augment)
        augment = usual_views(self.augment, self.given)
        if augment != self.augment and augment.active:
            why = "mirrored and cropped, boxes with them; --augment none leaves them as they are"
            listener.stage("views", f"{augment.views} of each picture: {why}")
        kind = "a head on frozen activations" if alone else "both phases from stored activations"
        kind = "a head on frozen activations" if not job.tunes else kind
        why = f"not for {noun}: calibration, sets, limits, the refit, learning curve"
        listener.stage("strategy", f"{kind}; {why}")
        return replace(job, augment=augment)

    def _check_on_activations(self, job: "Job", noun: str) -> None:
        """Raise SpecError for settings of this job that do not work with heads on activations.

        job: this job, as it was changed for such heads. noun: of what is predicted.
        """
        tuned = self.finetune
        others = {
            "folds": bool(self.folds),
            "shots": bool(self.shots),
            "ensemble": self.members > 1,
            "budget": bool(self.budget_s),
            "backbone auto": self.backbone == AUTO,
            "strategy scratch": self.strategy == "scratch",
            f"tta {self.tta}": self.tta not in ("none", "auto"),
            f"baseline {self.baseline}": self.baseline != "none",
            "augment auto": not isinstance(self.augment, Augment),
            "class-weights": {tuned.class_weights, self.recipe.head.class_weights} != {"none"},
            "resample": tuned.resample != "none",
            "mixup": tuned.mixup > 0,
            "label-smoothing": tuned.label_smoothing > 0,
            "adversarial": tuned.adversarial > 0,
            "lora": tuned.lora > 0,
            "dropout": tuned.dropout > 0,
        }
        if wrong := next((name for name, asked in others.items() if asked), None):
            raise SpecError(
                f"A model of {noun} learns from activations of a frozen backbone, which are stored "
                f"once and tell where things are; --{wrong} does not go with it: leave it out."
            )
        idle = {*job.idle(), *_of_other_heads(job.recipe.head)} - SHARED - {"compile"}
        if lost := [name.replace("_", "-") for name in self.given if name in idle]:
            raise SpecError(
                f"--{lost[0]} would change nothing: with --strategy {job.strategy}, {noun} are "
                f"found by --head {job.recipe.head.family}. Name that with settings of its own, "
                f"such as --head-epochs 12, or --strategy auto, which fine-tunes too."
            )

    def _without_torch(self, listener: Listener) -> "Job":
        """Return the job, its strategy auto replaced by extract, which needs no PyTorch.

        Raises MissingPackage for a job that needs PyTorch all the same.
        """
        job = self
        if self.strategy == "auto" and self.members == 1:
            lost = ["fine-tuning"] * self.tunes + ["augmentation"] * self.augment.active
            job = replace(self, strategy="extract", augment=Augment(), tta="none")
            if lost:
                needs = f"{' and '.join(lost)} {'needs' if len(lost) == 1 else 'need'} PyTorch"
                why = f"the head alone: {needs}, which comes with {install_command('train')}"
                listener.stage("strategy", why)
        if purpose := job.needs_torch:
            raise MissingPackage("torch", purpose=purpose, extra="train")
        return job

    @property
    def needs_torch(self) -> str:
        """The first part of the job that needs PyTorch with any backbone; "" if none does."""
        needs = {
            "Fine-tuning": self.tunes,
            "Training from scratch": self.strategy == "scratch" or self.baseline != "none",
            f"A head trained by epochs ({self.recipe.head.family})": self.recipe.head.by_epochs,
            "Augmentation": self.augment.active,
            f"Computing on {self.runtime.device}": self.runtime.device not in ("auto", "cpu"),
        }
        return next((purpose for purpose, wanted in needs.items() if wanted), "")

    def _for_data(self, data: Dataset, listener: Listener) -> "Job":
        name, why = usual_backbone(self.backbone, data)
        if why:
            listener.stage("backbone", why)
        recipe = self.recipe.for_target(data.target, listener)
        if self.tunes and self.finetune.resample == "balanced" and not recipe.head.by_epochs:
            why = f"balanced in fine-tuning alone: the {recipe.head.family} head is solved on all"
            listener.stage("resample", f"{why} rows, each once")
        return replace(self, backbone=name, recipe=recipe)

    @property
    def chooses_changes(self) -> bool:
        """Whether the data chooses the changes of training examples."""
        return isinstance(self.augment, AutoViews)

    @property
    def budget_s(self) -> float:
        """The seconds of the whole run; 0 for no limit."""
        return seconds_of(self.budget, "budget")

    @property
    def tunes(self) -> bool:
        """Whether there is a second phase."""
        wanted = self.strategy in ("auto", "finetune") and self.finetune.thaws and not self.shots
        return wanted and self.recipe.head.fine_tunes

    @property
    def trains(self) -> bool:
        """Whether anything but the baseline is trained by steps: a head, layers, or all of them."""
        return self.tunes or self.strategy == "scratch" or self.recipe.head.by_epochs

    @property
    def idle_views(self) -> bool:
        """Whether nothing would learn from the changed examples that this job asks for."""
        views = self.augment.active and self.tta in ("none", "auto")
        return bool(self.shots) and views and self.baseline == "none"

    @property
    def spec(self) -> TwoPhaseSpec:
        """The two-phase spec; without a second phase if the strategy has none."""
        finetune = self.finetune if self.tunes or self.strategy == "scratch" else None
        keep: Literal["best", "finetune"] = "finetune" if self.strategy == "finetune" else "best"
        return TwoPhaseSpec(
            self.recipe,
            finetune,
            self.augment,
            keep,
            self.tta,
            refit=self.refit,
            members=self.members,
        )

    def parts(self, rows: Dataset, together: Sequence[Sequence[int]]) -> RunParts:
        """Divide checked rows; together: groups of rows, such as duplicates. Raises DataError."""
        if self.folds:
            return folded(rows, self.split, self.folds, together=together)
        if self.shots:
            return with_shots(rows, self.split, self.shots, self.draws, together=together)
        return RunParts(split(rows, self.split, together=together))

    def idle(self) -> tuple[str, ...]:
        """Return the names of training settings that this job never reads."""
        scratch = self.strategy == "scratch"
        head = {setting_of_head(f.name) for f in fields(self.recipe.head)}
        tuned, read = {f.name for f in fields(FineTune)}, {"class_weights", "seed"}
        if scratch:
            read |= tuned - {"thaw", "thaw_from", "norms", "wise", "cut_precision"}
            read -= {"lora", "lora_alpha"}
            read |= head & {"output", "hidden", "head_lr"}
        else:
            read |= head
            read |= tuned if self.tunes else set()
            read -= {"cut_precision"} if self.finetune.adversarial else set()
        read -= set() if self.finetune.adversarial else {"adversarial_rise", "adversarial_steps"}
        trains = scratch or self.tunes or self.baseline != "none"
        read |= {"compile"} if trains else set()
        read |= {"choose"} if self.recipe.chooses and not scratch else set()
        return tuple(sorted((head | tuned | {"compile", "choose"}) - read))


SHARED = {"class_weights", "dropout", "resample", "seed"}  # one flag sets these in every spec
_PARTS = (
    Job,
    TargetPlan,
    FeatureExtraction,
    FineTune,
    Augment,
    TrustPlan,
    SplitPlan,
    CheckPlan,
    Runtime,
)
_TAKEN = {f.name for part in _PARTS for f in fields(part)} - SHARED


def _of_other_heads(head: HeadSpec) -> set[str]:
    """Return the job-wide names of settings that only other built-in heads have."""
    specs: list[type[HeadSpec]] = [HEADS[name].spec for name in HEADS.built_in]
    every = {setting_of_head(f.name) for spec in specs for f in fields(spec)}
    own = {setting_of_head(f.name) for f in fields(head)} | {f.name for f in fields(FineTune)}
    return every - own


def setting_of_head(name: str) -> str:
    """Return the job-wide name of a head's setting: head_NAME if another spec has NAME.

    >>> setting_of_head("epochs"), setting_of_head("hidden")
    ('head_epochs', 'hidden')
    """
    return f"head_{name}" if name in _TAKEN else name
