"""TensorFlow's tutorial "Transfer learning and fine-tuning", for any of Keras' backends.

With --network resnet50 the same for ResNet50, whose last five layers are thawed, by Adam. With
--bfloat16 by Keras' policy mixed_bfloat16; the logits are float32, as its guide advises.

https://www.tensorflow.org/tutorials/images/transfer_learning: its pipeline (files are read and
decoded in every epoch, and prefetched), model, optimizers and schedule, with random weights and
one logit. tf.data reads the files whatever the backend, as it does for Keras' users.
"""

import math
import os
from importlib import import_module  # mypy need not find what only their environments have
from typing import Any

from references.protocol import Counts, Phase, Task, show, task

THAW_FROM = {"mobilenetv2": 100, "resnet50": -5}  # of 154 layers: block_11_expand_relu


def main(backend: str, description: str | None) -> None:
    asked = task(description)
    os.environ["KERAS_BACKEND"] = backend  # Keras reads it once, when it is imported
    keras = import_module("keras")
    keras.utils.set_random_seed(0)
    if asked.bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    train, val = (pictures(keras, asked, part) for part in ("train", "val"))
    known = {"mobilenetv2": keras.applications.MobileNetV2, "resnet50": keras.applications.ResNet50}
    shape = (asked.size, asked.size, 3)
    base = known[asked.network](input_shape=shape, include_top=False, weights=None)
    base.trainable = False
    model = classifier(keras, base, asked)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    metrics = [keras.metrics.BinaryAccuracy(threshold=0, name="accuracy")]
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss, metrics=metrics)
    frozen = fit(keras, model, train, val, range(asked.epochs), asked)

    base.trainable = True
    for layer in base.layers[: THAW_FROM[asked.network]]:
        layer.trainable = False
    own = keras.optimizers
    slow = own.Adam(1e-4) if asked.network == "resnet50" else own.RMSprop(1e-5)
    model.compile(optimizer=slow, loss=loss, metrics=metrics)
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
        image_size=(asked.size, asked.size),
        verbose=not asked.json,
    )
    return data.prefetch(buffer_size=import_module("tensorflow").data.AUTOTUNE)


def classifier(keras: Any, base: Any, asked: Task) -> Any:
    layers, known = keras.layers, keras.applications
    own = {"mobilenetv2": known.mobilenet_v2, "resnet50": known.resnet50}[asked.network]
    inputs = x = keras.Input(shape=(asked.size, asked.size, 3))
    if asked.augment:
        x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(x)
    x = own.preprocess_input(x)
    x = base(x, training=False)  # BatchNorm keeps its statistics, thawed or not
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x))


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
