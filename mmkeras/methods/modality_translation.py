"""Modality translation (chapters 3.4 and 4.3): X2 = f(X1), and a model of the modality X2 reads the result.

    text ─ f: translator (an image generator) ─ image ─ reader (an image classifier) ─ attributes

The chain is one graph, whose output is differentiable with respect to the image.
"""

import keras


def build(translator: keras.Model, reader: keras.Model, *, scale: float = 255.0) -> keras.Model:
    """reader(translator(x)) as one graph, which shares the weights of both.

    Inputs:  those of the translator, such as {"tokens": (B, T), "noise": (B, Z)}
    Outputs: {"image": (B, S, S, 3), **the reader's outputs}

    Args:
        translator: keras.Model. X1 → X2, such as the model of an `ImageGenerator`. Of several outputs the first
            is X2.
        reader: keras.Model. X2 → anything, such as the model of an `AttributeClassifier`.
        scale: float. Factor from the translator's values to the reader's. Defaults to 255, from 0..1 to 0..255.

    Raises:
        ValueError: if the reader does not take what the translator returns.
    """
    translated = keras.tree.flatten(translator.outputs)[0]
    expected = reader.inputs
    if len(expected) != 1 or expected[0].shape[1:] != translated.shape[1:]:
        raise ValueError(
            f"Expected reader to take the translator's output, {tuple(translated.shape)}. Received: reader "
            f"with inputs {[tuple(x.shape) for x in expected]}"
        )
    inputs = {x.name: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name) for x in translator.inputs}
    outputs = translator(inputs)
    image = outputs[0] if isinstance(outputs, list | tuple) else outputs  # (B, S, S, 3)
    logits = reader(keras.layers.Rescaling(scale, name="scaled")(image))
    named = logits if isinstance(logits, dict) else {"reader": logits}
    return keras.Model(inputs, {"image": image, **named}, name="modality_translation")
