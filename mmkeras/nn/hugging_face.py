"""Networks of Hugging Face's `transformers` as encoders, on Keras's backend PyTorch.

    vit = transformers.ViTModel(transformers.ViTConfig(image_size=64, patch_size=8), add_pooling_layer=False)
    image = keras.Input((64, 64, 3))
    network = keras.Model(image, TransformersEncoder(vit)(image))
    model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary, encoder=network)

A `.keras` file holds the network's class, its configuration and its weights, and no code.
"""

import json
from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("mmkeras")
class TransformersEncoder(keras.layers.TorchModuleWrapper):
    """Images (B, S, S, 3) RGB 0..255 → vectors (B, N, D), or token ids (B, T) → vectors (B, T, D).

    The vectors are the network's `last_hidden_state`. Of token ids, 0 is padding. The network is not copied.

    Args:
        module: `transformers.PreTrainedModel` that takes `pixel_values` or `input_ids`, such as `ViTModel`,
            `Dinov2Model` or `BertModel`.
        mean, std: Sequence of 3 floats. Of the colors in 0..1 that the network was trained with. Default to
            0.5, as for ViT.

    Raises:
        ImportError: if PyTorch or `transformers` is not installed.
        ValueError: on another backend, or for a module that is not such a network.
    """

    def __init__(
        self, module: Any, mean: Sequence[float] = (0.5,) * 3, std: Sequence[float] = (0.5,) * 3, **kwargs
    ):
        if keras.backend.backend() != "torch":
            raise ValueError(
                f"Expected Keras's backend to be 'torch' for a network of transformers. Received: "
                f"backend={keras.backend.backend()!r}. Set KERAS_BACKEND=torch before Keras is imported."
            )
        module = _built(module) if isinstance(module, dict) else module
        names = {name for name, _ in getattr(module, "named_parameters", tuple)()}
        averages = [
            name
            for name, value in getattr(module, "state_dict", dict)().items()
            if value.is_floating_point() and name not in names
        ]
        if getattr(module, "main_input_name", None) not in ("pixel_values", "input_ids") or averages:
            raise ValueError(
                f"Expected module to be a network of transformers that takes pixel_values or input_ids, "
                f"without averages of batches. Received: module={type(module).__name__}"
                + (f" with {averages[0]}" if averages else "")
            )
        super().__init__(module, **kwargs)
        self.mean, self.std = tuple(mean), tuple(std)

    def call(self, inputs, training=None):
        if self.module.main_input_name == "input_ids":
            ids = inputs.long()
            output = super().call(input_ids=ids, attention_mask=(ids != 0).long(), training=training)
        else:
            mean, std = (keras.ops.convert_to_tensor(x, "float32") for x in (self.mean, self.std))
            pixels = (inputs / 255.0 - mean) / std
            output = super().call(pixel_values=pixels.permute(0, 3, 1, 2), training=training)
        return output.last_hidden_state

    def compute_output_spec(self, inputs, training=None):
        import torch

        sizes = [size or 1 for size in inputs.shape]
        with torch.no_grad():  # the number of vectors depends on the network
            _, count, channels = self.call(keras.ops.zeros([1, *sizes[1:]], inputs.dtype), training=False).shape
        count = inputs.shape[1] if len(inputs.shape) == 2 else count
        return keras.KerasTensor((inputs.shape[0], count, channels), dtype=self.compute_dtype)

    def get_config(self):
        module = {
            "class": type(self.module).__name__,
            "config": json.loads(self.module.config.to_json_string(use_diff=False)),
        }
        if hasattr(self.module, "pooler"):
            module["add_pooling_layer"] = self.module.pooler is not None
        # that of TorchModuleWrapper pickles the module
        return keras.layers.Layer.get_config(self) | {"module": module, "mean": self.mean, "std": self.std}

    @classmethod
    def from_config(cls, config, **kwargs):
        return cls(**config)


def _built(description):
    """A network with random weights from its class and its configuration."""
    try:
        import transformers
    except ImportError:
        raise ImportError(
            "This encoder needs the package transformers, which is not installed: "
            "pip install 'mmkeras[huggingface]'"
        ) from None
    options = dict(description)
    name, config = options.pop("class"), options.pop("config")
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(f"Expected module to be a network of transformers. Received: module={name!r}")
    return kind(kind.config_class.from_dict(config), **options)
