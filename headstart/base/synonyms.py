"""Names of settings in Keras, fastai, timm and Ultralytics, and Headstart's."""


def table(**meanings: str) -> dict[str, str]:
    """Return a dict from each name in another library to Headstart's name.

    >>> table(lr="learning-rate lr0")["lr0"]
    'lr'
    """
    return {word: ours for ours, words in meanings.items() for word in words.split()}


SETTINGS = table(
    backbone="model arch architecture network net base-model",
    lr="learning-rate lr0 base-lr lr-max",
    decode_threads="workers num-workers",
    size="imgsz img-size image-size input-size",
    batch_size="batch bs",
    epochs="epoch n-epochs num-epochs nb-epochs",
    head_epochs="freeze-epochs",
    weight_decay="wd",
    optimizer="opt optim optimiser",
    patience="early-stopping",
    val="validation-split val-split valid-pct",
    test="test-split test-size",
    seed="random-state random-seed",
    class_weights="class-weight",
    label_smoothing="smoothing",
    colour_jitter="color-jitter",
    data_licence="data-license",
    out="output output-dir out-dir save-dir project log-dir",
    top="topk top-k",
    config="cfg hyp",
    dry_run="dry",
)
IN_PYTHON = table(
    thaw="freeze unfreeze trainable", weights="pretrained", listener="callbacks verbose"
)
