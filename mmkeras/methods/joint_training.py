"""Joint training (chapters 3.2 and 4.1): f(X1, X2) = g(h1(X1), h2(X2)).

    X1 ─ h1: encoder ─┐
    X2 ─ h2: encoder ─┼─ g: fusion → a head per attribute → logits
    X3 ─ h3: encoder ─┘

g is a model of its own, `model.get_layer("g")`; each h is `model.get_layer("image_encoder").encoder`. A
modality that is missing is replaced by a learned vector.
"""

from collections.abc import Mapping, Sequence

import keras

from mmkeras._utils import checks
from mmkeras.methods import classification, scenes
from mmkeras.nn.encoders import dense_encoder, frame_encoder, image_encoder, word_encoder
from mmkeras.nn.fusion import FUSIONS, complete_modalities, fusion_model
from mmkeras.text.vocabulary import Vocabulary

# --- the graph ---


def build(
    encoders: Mapping[str, keras.Model],
    classes: Mapping[str, int | Sequence[str]],
    fusion: str = "concat",
    modality_dropout: float = 0.0,
    *,
    name: str = "joint_training",
    units: int = 128,
    learning_rate: float = 2e-3,
    decay_steps: int | None = None,
    label_smoothing: float = 0.0,
) -> keras.Model:
    """A classifier of any number of modalities, compiled.

    Inputs:  {modality: what its encoder takes}. None for a missing modality; `Classifier` fills them in. If an
             encoder returns a mask, an example whose mask is False everywhere lacks the modality.
    Outputs: {attribute: logits (B, classes) float32}

    Args:
        encoders: {modality: keras.Model}. One input; outputs (B, D) or (B, N, D), and for the latter, if some
            of the N are padding, a mask (B, N) bool.
        classes: {attribute: number of classes, or their names, which are then part of a saved model}.
        fusion: str. `"concat"`: vectors side by side. `"gated"`: a gate weighs the modalities in each channel
            (Arevalo et al. 2017, arXiv:1702.01992). `"cross_attention"`: the vectors of each modality attend to
            those of the others (Tsai et al. 2019, arXiv:1906.00295). Defaults to `"concat"`.
        modality_dropout: float. Rate at which training replaces a modality by its learned vector (Neverova et
            al. 2016, arXiv:1501.00102). If all would be replaced, one of them stays: of two modalities at rate
            0.5, each is replaced in 3/8 of the examples. Defaults to 0.
        name: str. Name of the model. Defaults to `"joint_training"`.
        units: int. Channels of the fusion. Defaults to 128.
        learning_rate: float. Initial learning rate of Adam. Defaults to 2e-3.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. Defaults to None: constant.
        label_smoothing: float. Share of the target probability that is spread evenly over all classes (Szegedy
            et al. 2016, arXiv:1512.00567). Defaults to 0.

    Raises:
        ValueError: if there is no encoder, an encoder's output cannot be fused, the fusion is unknown, or
            cross-attention gets two single vectors.
    """
    if fusion not in FUSIONS:
        raise ValueError(
            f"Expected fusion to be one of {', '.join(map(repr, FUSIONS))}. Received: fusion={fusion!r}"
        )
    _check(encoders)
    if fusion == "cross_attention" and [len(e.outputs[0].shape) for e in encoders.values()] == [2, 2]:
        raise ValueError(
            "Expected encoders to return a sequence (B, N, D) of at least one modality for cross-attention: "
            "over a single vector each attention weight is 1. Received: vectors (B, D) of "
            f"{' and '.join(map(repr, encoders))}. With encoders(..., sequences=True) they are sequences."
        )

    # --- h1(X1), h2(X2), ... ---
    inputs, complete = complete_modalities(encoders, modality_dropout)

    # --- g ---
    g = fusion_model(complete, classes, fusion, units)
    logits = g(keras.tree.flatten(complete))  # {attribute: (B, classes)}
    model = keras.Model(inputs, logits, name=name)
    return classification.compiled(model, learning_rate, decay_steps, label_smoothing)


# --- h ---


def encoders(
    vocabulary: Vocabulary,
    modalities: Sequence[str] = ("image", "text"),
    units: int = 128,
    *,
    sequences: bool = False,
) -> dict[str, keras.Model]:
    """h of modalities of `scenes.Examples`: a CNN for images and LSTMs for texts and speech, as in section 4.1
    of the document, and a dense network for touch. Each returns a vector (B, units).

    Args:
        vocabulary: `Vocabulary` of the texts.
        modalities: Sequence of str. Of `"image"`, `"text"`, `"touch"`, `"speech"`. Defaults to image and text.
        units: int. Size of a vector. Defaults to 128.
        sequences: bool. Whether images return a vector per cell of an 8 x 8 grid, (B, 64, units), and texts and
            speech one per time step, (B, N, units) with their mask, for cross-attention. Defaults to False.

    Raises:
        ValueError: if a modality is unknown.
    """

    makers = {
        "image": lambda: image_encoder(scenes.IMAGE_SIZE, units, sequence=sequences),
        "text": lambda: word_encoder(vocabulary, units, length=scenes.LENGTH, sequence=sequences),
        "speech": lambda: frame_encoder(
            scenes.FRAMES, scenes.STACKED * scenes.BANDS, units, sequence=sequences
        ),
        "touch": lambda: dense_encoder(scenes.TOUCHES, units, "touch"),
    }
    checks.among(makers, modalities=modalities)
    return {name: makers[name]() for name in modalities}


def _check(encoders):
    if not encoders:
        raise ValueError("Expected encoders to have at least one modality. Received: encoders={}")
    for name, encoder in encoders.items():
        shapes = [tuple(x.shape) for x in encoder.outputs]
        vectors, *masks = shapes
        if (
            len(encoder.inputs) != 1
            or len(vectors) not in (2, 3)
            or None in vectors[1:]
            or any(mask != vectors[:2] or len(vectors) == 2 for mask in masks)
            or len(masks) > 1
        ):
            raise ValueError(
                f"Expected encoders to have one input, and outputs (B, D), (B, N, D), or (B, N, D) and a mask "
                f"(B, N), of known size. Received: encoders[{name!r}] with {len(encoder.inputs)} inputs and "
                f"outputs {shapes}"
            )
