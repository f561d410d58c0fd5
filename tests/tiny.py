"""The tasks in small, for the scripts that train them in processes of their own."""

BATCH_SIZE = 8
# No dropout: each replica and each backend draws masks of its own.
_QUIET = {"dropout": 0.0, "word_dropout": 0.0}
_SPEECH = {"units": 16, "embedding_dim": 8, "bands": 16, "encoder_layers": 1, "spec_augment": False} | _QUIET
_PAINTING = {"image_size": 16, "units": 16, "embedding_dim": 8, "channels": 16}
_NOISE = {"adversarial": True, "condition_dim": 4, "noise_dim": 6}
# name → task, options of data, of build
MODELS = {
    "captioning": ("captioning", {}, {"units": 16, "embedding_dim": 8} | _QUIET),
    "attention": ("speech_to_text", {"augment": False}, _SPEECH),
    "ctc": ("speech_to_text", {"augment": False}, _SPEECH | {"head": "ctc"}),
    "text_to_image": ("text_to_image", {"image_size": 16}, _PAINTING),
    "adversarial": ("text_to_image", {"image_size": 16}, _PAINTING | _NOISE),
}


def plain_descent():
    """An optimizer for comparing losses to the last digits.

    Unlike Adam it shows whether gradients have the right scale and whether their sum is clipped, and it takes
    no large steps along gradients that are only rounding errors (with Adam, XLA or none is 5e-4 of a loss).
    """
    import keras

    return keras.optimizers.SGD(0.02, momentum=0.9, global_clipnorm=0.05)
