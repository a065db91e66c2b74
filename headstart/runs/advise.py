"""`headstart advise`: compare networks, measure what fine-tuning gains, and say what to do."""

import time
from collections.abc import Iterator
from dataclasses import replace

from headstart.backbones.backbone import Backbone
from headstart.base.context import RunContext
from headstart.base.errors import (
    DataError,
    Diverged,
    Mismatch,
    MissingPackage,
    SpecError,
    sentence_of,
)
from headstart.base.listener import Listener
from headstart.base.runtime import installed
from headstart.data.checks import CheckPlan
from headstart.data.content import prepared
from headstart.data.dataset import Dataset, unexpected
from headstart.data.sampling import sample
from headstart.evaluation.advice import (
    Advice,
    AdvicePlan,
    Measured,
    chosen_thaw,
    gain_of_more,
    smallest_group,
)
from headstart.evaluation.backbone_search import (
    TIMED,
    BackboneSearch,
    SearchPlan,
    features_of,
    search_backbones,
)
from headstart.evaluation.commands import data_flags
from headstart.evaluation.source_distance import SourceDistance, has_distance, source_distance
from headstart.evaluation.tuning_probe import ProbeAnswers, tuning_probe
from headstart.features.loading import load_for_features
from headstart.modalities.sources import load_backbone
from headstart.reporting.advice import advice_text
from headstart.runs.search import checked_rows, outside_named_test, usual_names
from headstart.targets.plan import TargetPlan

VERY_FAR = "very far"


def advise(
    data: Dataset,
    plan: AdvicePlan,
    context: RunContext,
    checks: CheckPlan | None = None,
    target: TargetPlan | None = None,
) -> Advice:
    """Return what to do with a data set, measured on a sample of its readable rows.

    Copies and groups are held out together, and no split is made; a test part that the data names
    is left out. target: by which the data was read. Raises DataError for data that is unusable or
    too small, SpecError without a backbone for this kind of examples.
    """
    names = plan.backbones or usual_names(data)
    rows, checked = checked_rows(data, context, checks)
    rows = outside_named_test(rows)
    asked = SearchPlan(tuple(names), plan.rows, plan.seed)
    found = search_backbones(rows, names, asked, context)
    few = sample(rows, plan.rows, plan.seed)
    measured, answers = _measured(found, few, plan, context)
    advice = Advice(
        kind=rows.input.kind if rows.input else "image",
        rows=len(rows),
        smallest=smallest_group(rows),
        shares=rows.target.counts_right,
        search=replace(found, unread=unexpected(checked.left_out)),
        measured=measured,
        thaw=chosen_thaw(answers),
        flags=data_flags(target or TargetPlan(), checks or CheckPlan()),
    )
    return replace(advice, words=advice_text(advice, plan.language))


def _measured(
    found: BackboneSearch, few: Dataset, plan: AdvicePlan, context: RunContext
) -> tuple[Measured, list[ProbeAnswers]]:
    """Measure the chosen backbone on the sample; return the answers of the short fine-tunings."""
    frozen = load_for_features(found.chosen, "pretrained", context.runtime)
    quiet = replace(context, listener=Listener())
    table = features_of(frozen, few, quiet)  # from the store, if there is one
    began = time.perf_counter()
    shown = few.take(range(min(TIMED, len(few)))).files
    for file in shown:
        prepared(frozen.card.input, file)
    decoding = (time.perf_counter() - began) / len(shown) / context.runtime.decode_threads
    own = next(tried for tried in found.tried if tried.name == found.chosen)
    measured = Measured(
        more=gain_of_more(table, plan.seed),
        seconds=float(f"{decoding + own.ms / 1000:.4g}"),
        why_not=_no_probe(plan),
    )
    if not installed("torch"):
        return measured, []
    network = load_backbone(found.chosen)
    far = _distance(network, few, context)
    measured = replace(measured, place=far.word, distance=far.distance) if far else measured
    answers = list[ProbeAnswers]()
    try:
        for answer in () if measured.why_not else _probes(network, few, measured, plan, context):
            answers.append(answer)
            told = answer.probe
            context.listener.stage("probe", f"thaw {told.thaw}: gains {told.gain}")
    except (DataError, Diverged, Mismatch, SpecError) as error:
        if not answers:
            measured = replace(measured, why_not=sentence_of(error))
    return replace(measured, probes=tuple(answer.probe for answer in answers)), answers


def _no_probe(plan: AdvicePlan) -> str:
    """Return why fine-tuning is not measured; "" if it is."""
    if not plan.probe_epochs:
        return "--probe-epochs 0 asks for none."
    if not installed("torch"):
        return str(MissingPackage("torch", purpose="Fine-tuning", extra="train"))
    return ""


def _distance(network: Backbone, few: Dataset, context: RunContext) -> SourceDistance | None:
    """Return how far the sample is from the source task; None where that is not defined."""
    if not has_distance(network):
        return None
    runtime, listener = context.runtime, context.listener
    return source_distance(network, few, runtime=runtime, listener=listener)


def _probes(
    network: Backbone, few: Dataset, measured: Measured, plan: AdvicePlan, context: RunContext
) -> Iterator[ProbeAnswers]:
    """Yield short fine-tunings, from fast to slow: of the upper half, and of all layers.

    All layers take several times as long. They are tried where the data is very far from the source
    task, or where the upper half gained more than chance.
    """
    half = tuning_probe(network, few, "auto", plan.probe_epochs, context)
    yield half
    if half.probe.thaw != "all" and (measured.place == VERY_FAR or half.probe.gain.low > 0):
        yield tuning_probe(network, few, "all", plan.probe_epochs, context)
