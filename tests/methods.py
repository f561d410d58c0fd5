"""Trains the graphs of the three methods for a few steps, in a process of its own.

    python tests/methods.py [mirrored]

KERAS_BACKEND selects the backend; `mirrored` trains under MirroredStrategy on two logical CPUs.
"""

import sys

import keras
import numpy as np

import mmkeras
from mmkeras import text_to_image
from mmkeras.methods import (
    Classifier,
    classification,
    cross_modal_pretraining,
    joint_training,
    modality_translation,
    scenes,
)


def main(kind="auto"):
    if kind == "mirrored":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = mmkeras.distribute.strategy(kind)
    examples = scenes.degraded(scenes.examples("train", 40), **scenes.DEGRADATION)
    vocabulary, inputs = examples.vocabulary, examples.inputs
    with strategy.scope():
        joint = joint_training.build(
            joint_training.encoders(vocabulary, units=8, sequences=True),
            scenes.CLASSES,
            "cross_attention",
            0.3,
            units=8,
        )
        encoder = cross_modal_pretraining.shared_encoder(vocabulary, width=16, blocks=1, heads=2)
        pretraining = cross_modal_pretraining.pretrain(encoder, examples, "words and patches", steps=10)
        cross_modal = cross_modal_pretraining.build(encoder, scenes.CLASSES, units=8)
        generator = text_to_image.build("toy", vocabulary=vocabulary, image_size=16, units=8, channels=8)
        classifier = text_to_image.classifier.build_classifier(scenes.ATTRIBUTES, 16)
        translation = modality_translation.build(generator, classifier)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        translation.compile("adam", loss={"image": None} | dict.fromkeys(scenes.CLASSES, loss))

    losses = pretraining.history.history["loss"]
    for model in (joint, cross_modal):
        losses += classification.fit(model, examples, 4).history.history["loss"]
    dataset = classification.batches(({"tokens": inputs["text"]}, examples.labels))
    losses += translation.fit(dataset, steps_per_epoch=4, shuffle=False, verbose=0).history["loss"]
    assert len(losses) == 13 and np.isfinite(losses).all(), losses
    assert 0 <= Classifier(joint).evaluate(examples)["all"] <= 1
    assert Classifier(joint)({"text": inputs["text"]})["shape"].shape == (40,)
    assert 0 <= Classifier(cross_modal).evaluate(examples)["all"] <= 1


if __name__ == "__main__":
    main(*sys.argv[1:])
