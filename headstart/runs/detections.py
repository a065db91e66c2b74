"""Judge detections that another program made, by boxes data."""

from dataclasses import replace
from pathlib import Path

from headstart.base.errors import DataError, SpecError
from headstart.data.boxes.results import read_results
from headstart.evaluation.evaluation import Evaluation, evaluate
from headstart.modalities.reading import read_as
from headstart.runs.judging import groups_of_boxes
from headstart.targets.plan import TargetPlan
from headstart.targets.predictions import Predictions

RESAMPLES = 400  # all figures of a sample of 72 examples and 7,200 detections take 20 ms


def judge_detections(
    results: Path, source: Path | None, part: str = "auto", plan: TargetPlan | None = None
) -> Evaluation:
    """Return the metrics of a COCO results file on boxes data, its bootstrap over the groups.

    part: "auto" takes the test rows of data with parts, all rows of other data. Results that fit no
    picture or class are in `left_out`. Raises DataError for other files, or a part without rows,
    SpecError for a plan of another target.
    """
    if source is None:
        raise SpecError(f"{results} holds detections alone: name the DATA with the boxes after it.")
    plan = plan or TargetPlan()
    if plan.kind not in ("", "boxes"):
        raise SpecError(f"{results} holds detections, of boxes: leave --target {plan.kind} out.")
    data = read_as(source, replace(plan, target="boxes"))
    answers, left_out = read_results(results, data, source)
    asked = ("test" if "test" in data.parts else "all") if part == "auto" else part
    rows = [i for i, own in enumerate(data.parts or ("",) * len(data)) if asked in (own, "all")]
    if not rows:
        raise DataError(f"There must be {asked} rows to judge by, and {source} has none.")
    found = Predictions(data.ids, answers, data.y, data.target).take(rows)
    judged = evaluate(found, groups=groups_of_boxes(found, data), resamples=RESAMPLES)
    return replace(judged, left_out=left_out)
