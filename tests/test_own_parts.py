"""A user's own module as a head, and a user's function as augmentation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

import headstart as hs
from headstart.errors import Mismatch, SpecError

Pixels = NDArray[np.uint8]


def own_head(features: int = 32, classes: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(features), nn.Linear(features, 8), nn.GELU(), nn.Linear(8, classes)
    )


def brighter(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(pixels.astype(int) + rng.integers(0, 9), 0, 255).astype(np.uint8)


def test_a_module_is_trained_as_a_head_and_its_bundle_predicts_the_same(
    shapes: Path, tmp_path: Path
) -> None:
    head, parts = own_head(), hs.split(shapes, store=None)
    before = [p.detach().clone() for p in head.parameters()]
    fitted = hs.fit(
        parts, backbone="tiny:32", head=head, head_epochs=3, strategy="extract", store=None
    )
    assert all((a == b).all() for a, b in zip(before, head.parameters(), strict=True))
    assert fitted.chosen["head"] == "module"
    saved = hs.load(hs.save(fitted, tmp_path / "bundle"))
    x = hs.extract(parts.test, backbone="tiny:32", store=None).x
    import torch

    direct = fitted.model.head.as_module()(torch.from_numpy(x)).detach().numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(saved.logits(parts.test, store=None), direct, atol=1e-5)


def test_fine_tuning_goes_on_from_a_module(shapes: Path) -> None:
    fitted = hs.fit(
        shapes,
        backbone="tiny:32",
        head=own_head(),
        strategy="finetune",
        thaw="1",
        epochs=1,
        store=None,
    )
    assert fitted.model.head.kind == "module"
    assert [line.phase for line in fitted.history].count("finetune") == 2


@pytest.mark.parametrize(
    ("head", "says"),
    [(own_head(31), "can't take"), (own_head(classes=3), "(N, 2) outputs; Sequential gives")],
)
def test_a_module_of_other_widths_is_refused(head: nn.Module, says: str, shapes: Path) -> None:
    with pytest.raises(Mismatch, match="A head") as error:
        hs.fit(shapes, backbone="tiny:32", head=head, strategy="extract", store=None)
    assert says in str(error.value)


def test_a_function_changes_the_training_pictures_and_nothing_of_it_is_stored(
    shapes: Path, tmp_path: Path
) -> None:
    seen = list[Pixels]()

    def change(pixels: Pixels) -> Pixels:
        seen.append(pixels)
        return pixels[::-1]

    how: dict[str, Any] = {"backbone": "tiny:32", "strategy": "finetune", "thaw": "1", "epochs": 3}
    how["refit"] = False
    parts = hs.split(shapes, store=None)
    for times in (1, 2):
        hs.fit(parts, augment=change, store=tmp_path / "store", **how)
        assert len(seen) == times * 3 * len(parts.train)


def test_a_function_that_changes_the_shape_is_refused(shapes: Path) -> None:
    with pytest.raises(Mismatch, match="must return an array like the one it is given"):
        hs.fit(shapes, backbone="tiny:32", augment=lambda x: x[:2], epochs=1, store=None)


def test_the_recipe_says_that_a_run_with_own_parts_can_not_be_repeated(
    shapes: Path, tmp_path: Path
) -> None:
    store: dict[str, Any] = {"backbone": "tiny:32", "store": tmp_path / "store"}
    own: dict[str, Any] = {"head": own_head(), "augment": brighter, "epochs": 1, "thaw": "1"}
    run = hs.train(shapes, tmp_path / "run", strategy="finetune", **own, **store)
    recipe = json.loads((run.folder / "recipe.json").read_text())
    assert recipe["augment"] == {"kind": "UserViews", "name": "brighter", "repeatable": False}
    assert recipe["recipe"]["head"]["repeatable"] is False
    assert "brighter" in (run.folder / "report.html").read_text()
    with pytest.raises(SpecError, match="give the torch.nn.Module again"):
        hs.train(shapes, tmp_path / "again", config=run.folder)


def test_activations_kept_for_plain_pictures_are_not_used_for_new_views(
    shapes: Path, tmp_path: Path
) -> None:
    """A run that failed has left its decision to keep activations in the folder."""
    common: dict[str, Any] = {"backbone": "tiny:32", "thaw": "1", "store": tmp_path / "store"}
    with pytest.raises(Mismatch):
        hs.train(shapes, tmp_path / "run", head=own_head(31), **common)
    assert (tmp_path / "run" / "checkpoint-cut.json").exists()
    with pytest.raises(Mismatch, match="must return an array"):
        hs.train(shapes, tmp_path / "run", augment=lambda x: x[:2], epochs=1, **common)
