"""The named recipes: the backbone and all settings of well-known tutorials."""

from dataclasses import dataclass, replace

from headstart.base.errors import UnknownName
from headstart.data.splits import SplitPlan
from headstart.heads.specs import LinearSpec, MlpSpec
from headstart.modalities.images.augment import Augment
from headstart.models.specs import SCRATCH, FeatureExtraction, FineTune
from headstart.runs.job import Job

# Validation is 20 % of the rows outside the test part, as in the tutorials without a test part.
USUAL_SPLIT = SplitPlan(val=0.16, test=0.2)


CELLS = Job(  # of the demos on solar cells
    source="the built-in solar cells",
    data_licence="CC BY-NC-SA 4.0",
    recipe=FeatureExtraction(fit="squash"),
    finetune=FineTune(epochs=5, lr=2e-4),
    augment=Augment(flip="both", quarter_turns=True, views=4),  # a cell has no upside
)


@dataclass(frozen=True, repr=False)
class Named:
    """A recipe: its name, one sentence on what it does, and its job."""

    name: str
    does: str
    job: Job

    def __repr__(self) -> str:
        return f"Named({self.name!r}: {self.does})"


def get_recipe(name: str) -> Named:
    """Return the recipe of that name; raises UnknownName with the nearest name.

    >>> get_recipe("vgg16-frozen").job.backbone
    'keras:VGG16@32'
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return RECIPES[name]


def _softmax(epochs: int = 10, batch_size: int = 32) -> FeatureExtraction:
    return FeatureExtraction(LinearSpec(epochs=epochs, batch_size=batch_size, keep="last"))


_SECOND = replace(SCRATCH, thaw="auto", batch_size=32, lr=0.0)  # Adam, no decay, no warm-up
_RESNET50 = Job(
    backbone="keras:ResNet50",
    strategy="extract",
    recipe=_softmax(),
    split=USUAL_SPLIT,
)
BERT = "hf:google-bert/bert-base-uncased"
_LISTED = (
    Named(
        "default",
        "a head solved on frozen features, then the upper half thawed; the better one is kept",
        Job(),
    ),
    Named(
        "vgg16-frozen",
        "VGG16 at 32 px, frozen; mean pool, Dense 1024 relu, softmax; Adam 1e-3, 10 epochs, batch "
        "64, 20 % validation",
        Job(
            backbone="keras:VGG16@32",
            strategy="extract",
            recipe=FeatureExtraction(MlpSpec(batch_size=64, keep="last")),
            split=USUAL_SPLIT,
        ),
    ),
    Named(
        "mobilenetv2-two-phase",
        "MobileNetV2 at 160 px, flip and rotation 0.2; mean pool, dropout 0.2, one logit; Adam "
        "1e-4, 10 epochs, batch 32; then from layer 100 on, RMSprop 1e-5, 10 more; a fifth of the "
        "validation part is for the test; two classes",
        Job(
            backbone="keras:MobileNetV2@160",
            strategy="finetune",
            recipe=FeatureExtraction(
                LinearSpec(lr=1e-4, keep="last", dropout=0.2, output="sigmoid")
            ),
            finetune=replace(_SECOND, thaw_from=100, optimizer="rmsprop", lr=1e-5, dropout=0.2),
            augment=Augment(flip="horizontal", rotation=0.2),
            split=SplitPlan(val=0.16, test=0.04),
        ),
    ),
    Named(
        "resnet50-frozen",
        "ResNet50 at 224 px, frozen; mean pool, softmax; Adam, 10 epochs",
        _RESNET50,
    ),
    Named(
        "resnet50-last5",
        "the same, then its last 5 layers thawed, Adam, 10 more epochs",
        replace(
            _RESNET50,
            strategy="finetune",
            finetune=replace(_SECOND, thaw_from=-5),
        ),
    ),
    Named(
        "resnet18-head",
        "ResNet18 of timm, its last layer replaced, and Adam on that alone; cross-entropy",
        Job(backbone="timm:resnet18", strategy="extract", recipe=_softmax(), split=USUAL_SPLIT),
    ),
    Named(
        "cnn-from-scratch",
        "no pretrained network: Conv 32, pool, Conv 64, pool, Dense 128, softmax at 32 px; Adam "
        "1e-3, 10 epochs, batch 64",
        Job(
            backbone="scratch:cnn",
            strategy="scratch",
            recipe=_softmax(batch_size=64),
            finetune=SCRATCH,
            split=USUAL_SPLIT,
        ),
    ),
    Named(
        "bert-reviews",
        "BERT base for texts, pooled output, dropout 0.1, softmax: one epoch of the head, then the "
        "whole network; AdamW 2e-5 with warm-up, gradients of norm 1, 3 epochs, batch 32",
        Job(
            backbone=f"{BERT}@pooler",
            strategy="finetune",
            recipe=FeatureExtraction(LinearSpec(epochs=1, lr=2e-5, dropout=0.1, keep="last")),
            finetune=FineTune(thaw="all", epochs=3, lr=2e-5, clip=1.0, dropout=0.1, keep="last"),
            split=USUAL_SPLIT,
        ),
    ),
    Named(
        "bert-frozen",
        "BERT base for texts, frozen; mean of the tokens, a head solved on these features",
        Job(backbone=BERT, strategy="extract", split=USUAL_SPLIT),
    ),
)


def _as_taught(named: Named) -> Named:
    """Return the recipe of a tutorial, which never fits the model again; "default" as it is."""
    if named.name == "default":
        return named
    return replace(named, job=replace(named.job, refit=False))


RECIPES = {named.name: _as_taught(named) for named in _LISTED}


def list_recipes() -> tuple[Named, ...]:
    """Return the named recipes, each with its `name`, what it `does`, and its settings, `job`.

    >>> [recipe.name for recipe in list_recipes()][:2]
    ['default', 'vgg16-frozen']
    """
    return tuple(RECIPES.values())
