"""Small models of all tasks, for scripts that train them in processes of their own."""

BATCH_SIZE = 8
# Dropout masks would differ between replicas and backends.
_NO_DROPOUT = {"dropout": 0.0, "word_dropout": 0.0}
_SPEECH = {"units": 16, "embedding_dim": 8, "bands": 16, "encoder_layers": 1, "spec_augment": False}
_SPEECH |= _NO_DROPOUT
_IMAGES = {"image_size": 16, "units": 16, "embedding_dim": 8, "channels": 16}
_NOISE = {"adversarial": True, "condition_dim": 4, "noise_dim": 6}
# name → task, options of data, options of build
MODELS = {
    "captioning": ("captioning", {}, {"units": 16, "embedding_dim": 8} | _NO_DROPOUT),
    "attention": ("speech_to_text", {"augment": False}, _SPEECH),
    "ctc": ("speech_to_text", {"augment": False}, _SPEECH | {"head": "ctc"}),
    "text_to_image": ("text_to_image", {"image_size": 16}, _IMAGES),
    "adversarial": ("text_to_image", {"image_size": 16}, _IMAGES | _NOISE),
}


def plain_sgd():
    """An optimizer for comparing losses precisely.

    Unlike Adam it depends on the scale of gradients and on their clipping, and it takes no large steps along
    gradients that are only rounding errors. With Adam, XLA alone changes a loss by 5e-4.
    """
    import keras

    return keras.optimizers.SGD(0.02, momentum=0.9, global_clipnorm=0.05)
