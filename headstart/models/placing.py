"""Labels that are places in a picture, moved to where its padded views have them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.backbones.views import FollowedViews, Views
from headstart.data.content import read_checked
from headstart.data.dataset import CheckedFile, Dataset
from headstart.features.extract import FeatureTable
from headstart.modalities.images.letterbox import LetterboxInput
from headstart.targets.box_values import BoxLabels, ExampleBoxes
from headstart.targets.target import Target
from headstart.training.box_feed import PlacedRows


@dataclass(frozen=True, eq=False)
class Placed:
    """Puts the boxes of upright pictures where the prepared pictures have them.

    target: with the canvas of the input.
    """

    input: LetterboxInput
    target: Target

    def example(self, own: ExampleBoxes) -> ExampleBoxes:
        """Return the boxes of one upright picture in pixels of the padded one."""
        if not len(own):
            return own
        corners = self.input.placing(*own.size).into(own.corners)
        return replace(own, corners=corners, area=None)

    def labels(self, y: BoxLabels) -> BoxLabels:
        return BoxLabels.of([self.example(y[i]) if y.known[i] else None for i in range(len(y))])

    def rows(
        self, tables: Sequence[FeatureTable], data: Dataset, views: Views, seed: int = 0
    ) -> PlacedRows:
        """Return stored rows with their labels, in each view its own.

        tables: of the rows themselves, then one per view. seed: of the order in which training
        meets the views of a row.
        """
        y = self.labels(data.y)
        moved = (y, *self._moved(y, data, views)) if views.spec.active else ()
        own = tuple(replace(table, y=y, target=self.target) for table in tables)
        return PlacedRows(own, cut=True, seed=seed, moved=moved)

    def _moved(self, plain: BoxLabels, data: Dataset, views: Views) -> tuple[BoxLabels, ...]:
        """Return the labels of each stored view of the rows."""
        spec: Any = views.spec
        followed: FollowedViews = spec
        size = self.input.width, self.input.height
        files = [self._digest(file) for file in data.files]

        def moved(row: int, number: int) -> ExampleBoxes:
            seed = views.seed_of(files[row], number)
            own: ExampleBoxes = followed.moved(plain[row], seed, *size)
            return own

        rows = range(len(data))
        return tuple(BoxLabels.of([moved(r, n) for r in rows]) for n in range(views.count))

    def _digest(self, file: CheckedFile) -> bytes:
        return bytes.fromhex(file.digest) if file.digest else read_checked(self.input, file)[1]
