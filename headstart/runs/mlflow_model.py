"""What `mlflow.pyfunc.load_model` loads of a logged run: its bundle, verified as always."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.base.errors import DataError
from headstart.models.bundle import load_bundle
from headstart.models.model import Model


class PyfuncModel:
    """A model as MLflow calls it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return a DataFrame with a row for each example, as `Model.predict(…).to_frame()`.

        data: what `Model.predict` takes, or a DataFrame with the examples in a column `path`, or
        `text` for a model of texts. Examples that can't be read have their reason in `error`.

        >>> mlflow.pyfunc.load_model("runs:/…/model").predict(["a.jpg"])  # doctest: +SKIP
        """
        answers = self.model.predict(self._examples(data), store=None)
        frame = answers.to_frame()
        if not answers.left_out:
            return frame
        import pandas as pd

        lost = [{"path": str(item.path), "error": str(item.reason)} for item in answers.left_out]
        return pd.concat([frame, pd.DataFrame(lost)], ignore_index=True)

    def _examples(self, data: Any) -> Any:
        if not hasattr(data, "columns"):
            return data
        column = self.model.backbone.card.input.column
        if column not in data.columns:
            raise DataError(
                f"The data frame must have the examples in a column {column!r}; its columns are "
                f"{', '.join(map(str, data.columns))}."
            )
        return list(data[column])


def _load_pyfunc(path: str) -> PyfuncModel:
    return PyfuncModel(load_bundle(Path(path)).model)
