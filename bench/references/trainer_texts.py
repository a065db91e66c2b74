"""Texts classified with transformers' Trainer: the whole network runs for every batch of an epoch.

    python bench/references/trainer_texts.py TASK.json

MiniLM with the mean of the last layer's tokens, normalised, and a linear head, all by the Trainer's
usual loop: batches of texts of like length, padded to their longest, AdamW, linear decay after a
tenth of warm-up. Layers below the trained ones get no gradients.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from references.texts import LONGEST, Stopwatch, TextTask, minilm, show, task


class Classifier(nn.Module):
    """MiniLM, the mean of its tokens, and a linear head."""

    def __init__(self, classes: int, layers: int) -> None:
        super().__init__()
        self.network = AutoModel.from_pretrained(minilm())
        self.head = nn.Linear(self.network.config.hidden_size, classes)
        below = self.network.config.num_hidden_layers - layers
        self.network.requires_grad_(layers >= self.network.config.num_hidden_layers)
        for layer in self.network.encoder.layer[below:]:
            layer.requires_grad_(True)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        hidden = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        logits = self.head(nn.functional.normalize(mean, dim=1))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Laps(TrainerCallback):  # type: ignore[misc]
    """Stops the time of each epoch, with its validation."""

    def __init__(self, clock: Stopwatch) -> None:
        self.clock = clock

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        self.clock.lap()


def rows(tokenizer: Any, part: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    texts = [text for text, _ in part]
    encoded = tokenizer(texts, truncation=True, max_length=LONGEST, return_token_type_ids=False)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": label, "length": len(ids)}
        for ids, mask, (_, label) in zip(
            encoded["input_ids"], encoded["attention_mask"], part, strict=True
        )
    ]


def arguments(wanted: TextTask, folder: str) -> TrainingArguments:
    return TrainingArguments(
        folder,
        num_train_epochs=wanted.epochs,
        per_device_train_batch_size=wanted.batch,
        per_device_eval_batch_size=wanted.batch,
        learning_rate=wanted.lr,
        warmup_steps=0.1,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        seed=wanted.seed,
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )


def main() -> None:
    wanted = task()
    set_seed(wanted.seed)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = Classifier(1 + max(label for _, label in wanted.train), wanted.layers)
    train, val, test = (rows(tokenizer, part) for part in (wanted.train, wanted.val, wanted.test))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            arguments(wanted, folder),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=train,
            eval_dataset=val,
        )
        clock = Stopwatch()
        trainer.add_callback(Laps(clock))
        trainer.train()
        clock.stop()
        found = trainer.predict(test)
    right = torch.as_tensor(found.predictions).argmax(1).numpy() == found.label_ids
    show("trainer_texts", clock, list(right), ("transformers", "torch"))


if __name__ == "__main__":
    main()
