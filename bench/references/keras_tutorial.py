"""TensorFlow's tutorial "Transfer learning and fine-tuning", for any of Keras' backends.

https://www.tensorflow.org/tutorials/images/transfer_learning: its pipeline (files are read and
decoded in every epoch, and prefetched), model, optimizers and schedule, with random weights and
one logit. tf.data reads the files whatever the backend, as it does for Keras' users.
"""

import math
import os
from importlib import import_module  # mypy need not find what only their environments have
from typing import Any

from references.protocol import SIZE, Counts, Phase, Task, show, task

THAW_FROM = 100  # of the base's 154 layers: block_11_expand_relu


def main(backend: str, description: str | None) -> None:
    asked = task(description)
    os.environ["KERAS_BACKEND"] = backend  # Keras reads it once, when it is imported
    keras = import_module("keras")
    keras.utils.set_random_seed(0)
    train, val = (pictures(keras, asked, part) for part in ("train", "val"))
    base = keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3), include_top=False, weights=None
    )
    base.trainable = False
    model = classifier(keras, base, augment=asked.augment)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    metrics = [keras.metrics.BinaryAccuracy(threshold=0, name="accuracy")]
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss, metrics=metrics)
    frozen = fit(keras, model, train, val, range(asked.epochs), asked)

    base.trainable = True
    for layer in base.layers[:THAW_FROM]:
        layer.trainable = False
    model.compile(optimizer=keras.optimizers.RMSprop(1e-5), loss=loss, metrics=metrics)
    later = range(asked.epochs, asked.epochs + asked.fine_epochs)
    thawed = fit(keras, model, train, val, later, asked)
    engine = {"tensorflow": (), "torch": ("torch",), "jax": ("jax",)}[backend]
    packages = ("keras", "tensorflow-cpu", *engine, "numpy")
    show(f"keras_{backend}", frozen, thawed, packages)


def pictures(keras: Any, asked: Task, part: str) -> Any:
    data = keras.utils.image_dataset_from_directory(
        asked.data_dir / part,
        shuffle=True,
        batch_size=asked.batch,
        image_size=(SIZE, SIZE),
        verbose=not asked.json,
    )
    return data.prefetch(buffer_size=import_module("tensorflow").data.AUTOTUNE)


def classifier(keras: Any, base: Any, *, augment: bool) -> Any:
    layers = keras.layers
    inputs = x = keras.Input(shape=(SIZE, SIZE, 3))
    if augment:
        x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(x)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = base(x, training=False)  # BatchNorm keeps its statistics, thawed or not
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(1)(x))


def fit(keras: Any, model: Any, train: Any, val: Any, epochs: range, asked: Task) -> Phase:
    phase = Phase(counts(model))
    model.fit(
        train,
        epochs=epochs.stop,
        initial_epoch=epochs.start,
        validation_data=val,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: phase.lap())],
        verbose=0 if asked.json else "auto",
    )
    phase.stop()
    return phase


def counts(model: Any) -> Counts:
    trainable, every = (
        sum(math.prod(w.shape) for w in ws) for ws in (model.trainable_weights, model.weights)
    )
    return Counts(every - trainable, trainable)
