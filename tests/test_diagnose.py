"""`diagnose` names the causes for which models were spoiled on purpose, and finds nothing in healthy ones."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import mmkeras
from mmkeras._utils import memory
from mmkeras.cli.main import app
from mmkeras.nn import optimizers
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.toy import builders
from mmkeras.training import diagnose

# time steps of 640 ms
SPEECH = {"encoder_layers": 1, "bands": 8, "units": 8, "frame_ms": 40, "hop_ms": 40, "subsampling": 16}

measured_peak = memory.peak


@pytest.fixture(autouse=True)
def no_training_step(monkeypatch):
    """Its compilation takes most of the time."""
    monkeypatch.setattr(memory, "peak", lambda compute: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 256, "validation": 64, "test": 8, "test_unseen": 8})
        builders.toy_images(data_dir=folder)
        builders.toy_speech(data_dir=folder)
    return folder


def captions(folder, **options):
    return mmkeras.captioning.data("toy", data_dir=folder, **options)


def with_captions(data, of_next=False, constant=None):
    """The data with the caption of the next image, or with one caption for all."""

    def changed(split):
        def examples():
            following = split.examples().skip(1).concatenate(split.examples().take(1))
            texts = constant and tf.constant([constant])
            return tf.data.Dataset.zip(split.examples(), following).map(
                lambda one, other: one | {"captions": texts if constant else other["captions"]}
            )

        texts = (lambda: iter([[constant]] * split.count)) if constant else split.texts
        return dataclasses.replace(split, examples=examples, texts=texts)

    return dataclasses.replace(data, splits={name: changed(split) for name, split in data.splits.items()})


def tiny(data, **options):
    options = {"units": 8, "embedding_dim": 8} | options
    model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary, **options)
    model.run_eagerly = True  # a few steps are faster than their compilation
    return model


# --- spoiled on purpose ---


@pytest.mark.quality
def test_labels_shifted_against_their_inputs_are_named(folder):
    captioner = mmkeras.pretrained("captioning")
    data = captions(folder, vocabulary=captioner.vocabulary, max_length=12)
    shifted = with_captions(data, of_next=True)
    findings = diagnose(captioner, shifted).findings  # a model that had learned
    assert findings.keys() == {"inputs"} and "table shifted by a row" in findings["inputs"]
    loss = mmkeras.nn.losses.TokenCrossentropy()
    captioner.model.compile(optimizers.adam(1e-2, None), loss, run_eagerly=True)
    captioner.model.fit(shifted.train, verbose=0)  # unlearns to look at the image
    assert "table shifted by a row" in diagnose(captioner, shifted).findings["inputs"]
    assert "inputs" in diagnose(captioner, data).findings


@pytest.mark.quality
def test_a_learning_rate_of_ten_is_named(folder):
    data = captions(folder)
    model = tiny(data, learning_rate=10.0)
    model.fit(data.train.take(3), verbose=0)
    report = diagnose(model, data)
    assert "Too high" in report.findings["learning rate"] and "at most 10" in str(report)
    assert "Worse than guessing" in report.findings["loss"]


@pytest.mark.slow
def test_one_caption_for_all_is_named(folder):
    data = with_captions(captions(folder), constant="a red circle")
    model = tiny(data)
    logits = model.get_layer("decoder").get_layer("logits")
    kernel, bias = logits.get_weights()
    bias[data.vocabulary.ids["red"]] = 9
    logits.set_weights([0 * kernel, bias])  # as if it had learned to answer with this word
    findings = diagnose(mmkeras.captioning.Captioner(model), data).findings
    assert "256 of them are 'a red circle'" in findings["texts"]
    assert "all 64 images get the same caption, 'red red" in findings["answers"]


def test_unknown_words_are_named(folder):
    data = captions(folder, vocabulary=Vocabulary(["a", "small", "large"]), max_length=12)
    finding = diagnose(tiny(data), data).findings["unknown words"]
    assert "'the'" in finding and "'small'" not in finding


@pytest.mark.slow
def test_labels_that_are_too_long_for_ctc_are_named(folder):
    data = mmkeras.speech_to_text.data("toy", data_dir=folder)
    model = mmkeras.speech_to_text.build("toy", vocabulary=data.vocabulary, head="ctc", **SPEECH)
    finding = diagnose(model, data).findings["time steps"]
    assert "subsampling" in finding and int(finding.split()[0]) > 100


# --- healthy ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["captioning", "speech_to_text_ctc", "text_to_image_pixels"])
def test_nothing_is_found_in_a_ready_trained_model(name, folder):
    predictor = mmkeras.pretrained(name)
    options = {key: value for key, value in predictor.data_options.items() if key != "max_length"}
    data = mmkeras.tasks.package(predictor.model.name).data("toy", data_dir=folder, **options)
    before = [np.array(weight) for weight in predictor.model.weights]
    report = diagnose(predictor, data)
    assert report.findings == {} and str(report).startswith("Nothing wrong was found.\n")
    assert len(str(report).splitlines()) == len(report.lines) + 1 <= 14  # a line each
    assert all(map(np.array_equal, predictor.model.weights, before))


@pytest.mark.slow
def test_the_memory_of_a_step_is_measured_and_leaves_the_model_unchanged(folder, eager_models, monkeypatch):
    monkeypatch.setattr(memory, "peak", measured_peak)
    data = captions(folder)
    model = tiny(data)
    before = model.get_weights()
    (line,) = (line for line in diagnose(model, data).lines if line.name == "memory")
    assert "MB more in the first step of 32 examples" in line.value or "not measured" in line.value
    assert all(map(np.array_equal, model.get_weights(), before)) and not int(model.optimizer.iterations)


def test_the_peak_of_the_memory_is_that_of_the_computation():
    peak = measured_peak(lambda: np.ones(25_000_000).sum())  # 200 MB, which are freed again
    assert peak is None or 190e6 < peak < 300e6


def test_the_images_and_weights_themselves_are_looked_at(photos, tmp_path):
    data = mmkeras.captioning.data(photos, image_size=64, batch_size=4, validation_share=0, test_share=0)
    split = data.splits["train"]
    black = dataclasses.replace(
        split, examples=lambda: split.examples().take(6).map(lambda x: x | {"image": 0 * x["image"]})
    )
    model = tiny(data)
    weights = model.get_weights()
    model.set_weights([weights[0] * np.nan, *weights[1:]])
    report = diagnose(model, dataclasses.replace(data, splits={"train": black}))
    finding = report.findings["images"]
    assert "2 cannot be read" in finding and "6 equal another" in finding and "6 are of one color" in finding
    assert "1 weights are not finite" in report.findings["weights"]
    model.trainable = False
    model.set_weights(weights)
    assert "trainable=True" in diagnose(model).findings["weights"]


def test_a_classifier_is_compared_with_its_most_frequent_class(folder):
    data = mmkeras.text_to_image.data("toy", data_dir=folder)
    assert not diagnose(mmkeras.pretrained("attribute_classifier"), data).findings
    model = mmkeras.text_to_image.classifier.build_classifier(data.attributes, 64, steps=1)
    model.set_weights([0 * weight for weight in model.get_weights()])
    assert {"color", "shape"} <= diagnose(model, data).findings.keys()


def test_images_that_do_not_depend_on_the_prompt_are_named(folder):
    data = mmkeras.text_to_image.data("toy", image_size=16, data_dir=folder)
    sizes = {"image_size": 16, "units": 8, "embedding_dim": 8, "channels": 8}
    model = mmkeras.text_to_image.build("toy", vocabulary=data.vocabulary, **sizes)
    encoder = model.get_layer("encoder")
    encoder.set_weights([0 * weight for weight in encoder.get_weights()])
    findings = diagnose(model, data).findings
    assert {"answers", "loss", "inputs"} <= findings.keys() and "variety=0.0000" in findings["answers"]


def test_data_that_do_not_fit_the_model_are_refused(folder):
    model = tiny(captions(folder))
    with pytest.raises(ValueError, match="vocabulary"):
        diagnose(model, captions(folder, vocabulary=Vocabulary(["a"])))
    with pytest.raises(ValueError, match="model.name='other'"):
        diagnose(keras.Sequential([keras.layers.Dense(1)], name="other"))


def test_the_command_prints_the_page(folder):
    runner = CliRunner()
    done = runner.invoke(app, ["doctor", "captioning", "toy", "--set", f"data_dir={folder}"])
    assert done.exit_code == 0 and "Nothing wrong was found." in done.stdout and "attention" in done.stdout
    done = runner.invoke(app, ["doctor", "captioning"])
    assert done.exit_code == 0 and "none were given" in done.stdout
