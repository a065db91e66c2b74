"""`--augment auto`: the changes of training pictures that the data of a run chooses."""

from dataclasses import replace

from headstart.backbones.views import Views, ViewSpec
from headstart.data.dataset import Dataset
from headstart.data.sampling import sample
from headstart.data.splits import Splits
from headstart.evaluation.view_search import ROWS, VIEWS, ViewSearch, search_views
from headstart.features.extract import FeatureTable, all_there, extract_views
from headstart.modalities.images.augment import AutoViews
from headstart.runs.stages import PreparedRun, RunState


def choose_changes(state: RunState, run: PreparedRun, splits: Splits) -> None:
    """Give the state the augmentation that `auto` comes to; leave any other as it is.

    The changes are judged on rows of training and validation alone, whose plain features `run` has.
    Views are stored, and nothing is drawn by chance: a stopped run comes to the same choice.
    """
    auto = state.job.spec.views
    if not isinstance(auto, AutoViews):
        return
    with state.clock("changes"):
        found = _found(state, run, splits, auto)
    if found is None:
        state.tell("changes", "none: there are too few rows to judge changes by")
    else:
        state.tell("changes", found.message)
    names = found.taken.names if found and found.taken else ()
    state.follow(state.job.with_changes(names))
    state.view_search = found


def _found(state: RunState, run: PreparedRun, splits: Splits, auto: AutoViews) -> ViewSearch | None:
    recipe, whole = state.job.recipe, run.start.table
    assert whole is not None  # a run from scratch has no features, and no such search
    outside = splits.train_val if splits.joinable else splits.train
    rows = sample(outside.counted(), ROWS, recipe.seed)
    plain = replace(whole, cut=None).of(rows)
    plain = replace(plain, groups=splits.groups_of(plain.ids))

    def views_of(changes: ViewSpec) -> tuple[FeatureTable, ...]:
        return _views(state, run, rows, Views(changes, recipe.seed))

    return search_views(plain, views_of, recipe.head, replace(auto, views=VIEWS))


def _views(
    state: RunState, run: PreparedRun, rows: Dataset, views: Views
) -> tuple[FeatureTable, ...]:
    first, *others = extract_views(run.start.backbone, rows, views, state.context)
    state.tables.append(all_there(first))
    return first, *others
