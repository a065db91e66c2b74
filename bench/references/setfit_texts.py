"""Texts classified with SetFit: contrastive fine-tuning of a sentence network, then a head.

    python bench/references/setfit_texts.py TASK.json

MiniLM, and SetFit's own settings: one epoch over pairs of training texts, then logistic regression.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

from references.texts import Stopwatch, minilm, show, task


def rows(part: Sequence[tuple[str, int]]) -> Dataset:
    texts, labels = zip(*part, strict=True)
    return Dataset.from_dict({"text": texts, "label": labels})


def main() -> None:
    wanted = task()
    model = SetFitModel.from_pretrained(str(minilm()))
    with tempfile.TemporaryDirectory() as folder:
        usual = TrainingArguments(
            output_dir=folder, seed=wanted.seed, report_to="none", show_progress_bar=False
        )
        trainer = Trainer(model=model, args=usual, train_dataset=rows(wanted.train))
        clock = Stopwatch()
        trainer.train()
        clock.stop()
    said = np.asarray(model.predict([text for text, _ in wanted.test]))
    right = said == np.array([label for _, label in wanted.test])
    show("setfit_texts", clock, list(right), ("setfit", "sentence-transformers", "transformers"))


if __name__ == "__main__":
    main()
