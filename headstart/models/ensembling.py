"""Averages of several fine-tunings from one head, which differ in the seed of fine-tuning.

A soup is one network with the mean weights of some of them, no slower than one (Wortsman et al.
2022, Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time). An ensemble answers with the mean of the raw outputs of all: for classes
the normalised geometric mean of their probabilities. It is one network, too, with the features of
all side by side and a linear head on them, but takes as many times as long behind the cut.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.side_by_side import side_by_side
from headstart.base.errors import SpecError
from headstart.heads.head import Head
from headstart.heads.mlp import DenseHead, MlpHead
from headstart.models.model import Model
from headstart.models.results import Candidate, FitResult, decided
from headstart.models.specs import FineTune
from headstart.models.training_data import Tables, TrainingData, thawed_again
from headstart.models.tuning import tune_phase, tuning_tables
from headstart.models.wording import ensemble_message
from headstart.training.averaging import mean_of
from headstart.training.history import Count, ParameterCount
from headstart.training.network import head_module, head_of

Floats = NDArray[np.float32]


def tune_members(
    count: int, data: TrainingData, head: Model, tables: Tables | None
) -> dict[str, Candidate]:
    """Fine-tune `count` times from one head; return the first result, and an average.

    Returns "finetune", as without further ones but with the history of all, and "soup", or
    "ensemble" if that is better on validation or a soup of two is worse than one. The best of
    several is no candidate: validation favours it, since it was chosen there. Without validation
    rows the soup is of all. When the deadline comes, no more are begun, and of one there is no
    average. tables: as for `tune_phase`; all fine-tunings read the same. Raises SpecError for a
    head without dense layers.
    """
    if not isinstance(head.head, DenseHead):
        raise SpecError(
            f"An ensemble averages what heads of linear layers answer; this head is "
            f"{head.head.kind!r}. Name another head, such as logistic, or leave the ensemble out."
        )
    tables = tables or tuning_tables(data)
    members = [_member(data, head, tables, 0)]
    for number in range(1, count):
        if not data.context.deadline.late:
            members.append(_member(data, head, tables, number))
    first = members[0]
    history = tuple(line for member in members for line in member.fitted.history)
    made = {"finetune": replace(first, fitted=replace(first.fitted, history=history))}
    if len(members) == 1:
        data.context.listener.stage("ensemble", "left out: its time is over")
        return made
    name, average = _average(data, members)
    data.context.listener.stage("ensemble", ensemble_message(members, name, average))
    return {**made, name: average}


def of_member(data: TrainingData, seed: int) -> TrainingData:
    """Return the data with a new copy of the thawed layers, for fine-tuning with another seed."""
    assert data.start.settings is not None
    own, first = data.start.settings, data.views_seed
    start = thawed_again(replace(data.start, settings=replace(own, seed=seed)))
    return replace(data, start=start, views_seed=own.seed if first is None else first)


def phase_of(name: str, number: int) -> str:
    """Return the name of the phase of a member, numbered from 0: "finetune", "finetune-2", …."""
    return f"{name}-{number + 1}" if number else name


def averaged(name: str, models: Sequence[Model], settings: FineTune) -> Model:
    """Return the "soup" or the "ensemble" of models; settings: of their fine-tuning."""
    backbones = [_network(model) for model in models]
    heads = [model.head for model in models]
    if name == "soup":
        return replace(models[0], backbone=soup(backbones), head=soup_of_heads(heads))
    joined = side_by_side(backbones, settings.thaw, settings.thaw_from)
    card = replace(joined.card, origin="fine-tuned")
    return replace(models[0], backbone=replace(joined, card=card), head=joined_head(heads))


def soup(backbones: Sequence[Backbone]) -> Backbone:
    """Return copies of a network as one whose weights are the mean where theirs differ."""
    states = [backbone.module.state_dict() for backbone in backbones]
    own, others = states[0], states[1:]
    differ = [n for n, t in own.items() if any(not torch.equal(t, s[n]) for s in others)]
    module = copy.deepcopy(backbones[0].module)
    if differ:
        mean = mean_of([_doubled({name: state[name] for name in differ}) for state in states])
        module.load_state_dict(mean, strict=False)
    card = replace(backbones[0].card, origin="fine-tuned")
    return replace(backbones[0], module=module, card=card)


def soup_of_heads(heads: Sequence[Head]) -> Head:
    """Return the head of dense layers whose weights are the mean of those of `heads`."""
    modules = [head_module(head) for head in heads]
    mean = mean_of([_doubled(module.state_dict()) for module in modules])
    modules[0].load_state_dict(mean)
    return head_of(modules[0])


def _doubled(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights in double precision, so that the mean of equal ones is equal to them."""
    return {name: t.double() if t.is_floating_point() else t for name, t in state.items()}


def joined_head(heads: Sequence[Head]) -> MlpHead:
    """Return a head on the features of all networks side by side: the mean raw output of `heads`.

    Each head reads its own features: hidden layers are block diagonal, and the last one adds up.
    """
    dense = [head for head in heads if isinstance(head, DenseHead)]
    layers = zip(*(head.weights for head in dense), strict=True)
    *hidden, last = (list(weights) for weights in layers)
    *shifts, final = (np.array(biases) for biases in zip(*(h.biases for h in dense), strict=True))
    weights: list[Floats] = [_block_diagonal(each) for each in hidden]
    weights.append((np.concatenate(last) / len(dense)).astype(np.float32))
    biases = [*(shift.reshape(-1) for shift in shifts), final.mean(axis=0, dtype=np.float64)]
    return MlpHead(tuple(weights), tuple(b.astype(np.float32) for b in biases))


def _block_diagonal(blocks: Sequence[Floats]) -> Floats:
    rows, columns = (np.cumsum([0, *(b.shape[axis] for b in blocks)]) for axis in (0, 1))
    whole = np.zeros((rows[-1], columns[-1]), np.float32)
    for i, block in enumerate(blocks):
        whole[rows[i] : rows[i + 1], columns[i] : columns[i + 1]] = block
    return whole


def _network(model: Model) -> Backbone:
    assert isinstance(model.backbone, Backbone)  # a graph is not fine-tuned
    return model.backbone


def _member(data: TrainingData, head: Model, tables: Tables | None, number: int) -> Candidate:
    """Fine-tune once; the first time with the thawed copy that `data` has."""
    assert data.start.settings is not None
    seed = data.start.settings.seed + number
    own = of_member(data, seed) if number else data
    result = tune_phase(own, head, tables, phase_of("finetune", number))
    result = replace(result, chosen={**result.chosen, "seed": seed})
    return Candidate(result, data.of_model(result.model, data.splits.val))


def _average(data: TrainingData, members: Sequence[Candidate]) -> tuple[str, Candidate]:
    """Return the better average, and its name."""
    if not len(data.splits.val):
        return "soup", _candidate("soup", data, members)
    blended = _greedy_soup(data, sorted(members, key=lambda m: m.merit, reverse=True))
    if blended.fitted.members and blended.merit >= merit_of_mean(members):
        return "soup", blended
    return "ensemble", _candidate("ensemble", data, members)


def _greedy_soup(data: TrainingData, members: Sequence[Candidate]) -> Candidate:
    """Add each member, the best first, whose weights make the soup no worse on validation."""
    kept, best = [members[0]], members[0]
    for member in members[1:]:
        tried = _candidate("soup", data, [*kept, member])
        if tried.merit >= best.merit:
            kept, best = [*kept, member], tried
    return best


def merit_of_mean(members: Sequence[Candidate]) -> tuple[float, ...]:
    """Return the merit on validation of the mean of the members' raw outputs."""
    first, heads = members[0], [member.fitted.model.head for member in members]
    raw = np.mean([h.raw(m.table.x) for h, m in zip(heads, members, strict=True)], axis=0)
    target = first.fitted.model.target
    outputs = target.activate(raw)
    if target.decides:
        target = target.decided(outputs, first.table.y)
    return target.merit(outputs, first.val.labels)


def _candidate(name: str, data: TrainingData, members: Sequence[Candidate]) -> Candidate:
    """Return the average of some members as a candidate, with their features of validation."""
    assert data.start.settings is not None
    results = tuple(member.fitted for member in members)
    model = averaged(name, [r.model for r in results], data.start.settings)
    count = results[0].count if name == "soup" else _count_of_all(results)
    by = "the mean of all" if not len(data.splits.val) else results[0].chosen["by"]
    chosen = {"seeds": [r.chosen["seed"] for r in results], "by": by}
    fitted = FitResult(model, chosen, (), (), count, members=results)
    return decided(fitted, data.of_model(model, data.splits.val))


def _count_of_all(results: Sequence[FitResult]) -> Count:
    """Count the parameters of an ensemble: frozen ones once, trained ones of each member."""
    each = [result.count.trainable for result in results]
    values, tensors = sum(c.parameters for c in each), sum(c.tensors for c in each)
    return Count(results[0].count.frozen, ParameterCount(values, tensors))
