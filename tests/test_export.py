"""Export: models answer without mmkeras what they answer with it, and bad input leaves no folder."""

import json
import runpy
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile
from PIL import Image

import mmkeras
from mmkeras.export import folder as export
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.toy import render, speak

pytest.importorskip("tf2onnx", reason="needs the extra export")
pytest.importorskip("onnxruntime", reason="needs the extra export")
pytestmark = pytest.mark.slow  # .ci/run installs the extra after the README's tests

# an exported model's run.py, in a process that must load a runtime alone
SCRIPT = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert "mmkeras" not in sys.modules and len({"onnxruntime", "tensorflow"} & sys.modules.keys()) == 1
"""


def answer(folder, *arguments):
    command = [sys.executable, "-c", SCRIPT, str(folder / "run.py"), *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=folder)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "scene.png"
    Image.fromarray(render.draw("test", 3)).resize((90, 70)).save(path)
    return path


@pytest.fixture(params=["en", "zh"])
def clip(request, tmp_path):
    """A 16-bit WAV of 16 kHz with silence around the sentence."""
    samples = speak.speak(speak.caption("test", 3, request.param), speak.voice("test", 3, request.param), 3)
    soundfile.write(tmp_path / "clip.wav", np.pad(samples, 8000), 16_000)
    return tmp_path / "clip.wav"


def test_an_exported_classifier_answers_without_mmkeras(image, tmp_path):
    classifier = mmkeras.pretrained("attribute_classifier")
    classifier.export(tmp_path / "made")
    expected = ", ".join(f"{name}: {value}" for name, value in classifier(image).items())
    assert answer(tmp_path / "made", image) == expected


def test_an_exported_captioner_answers_without_mmkeras(image, tmp_path):
    captioner = mmkeras.pretrained("captioning", "zh")
    captioner.novelty = None
    assert {"encoder", "step", "greedy", "beam"} == captioner.export(tmp_path / "made", half=True).keys()
    assert answer(tmp_path / "made", image) == captioner(image)


@pytest.mark.quality
@pytest.mark.parametrize(
    ("name", "language", "format", "clip"),
    [("speech_to_text", "en", "onnx", "en"), ("speech_to_text_ctc", "zh", "saved_model", "zh")],
    indirect=["clip"],
)
def test_an_exported_transcriber_answers_without_mmkeras(clip, tmp_path, name, language, format):
    transcriber = mmkeras.pretrained(name, language)
    transcriber.export(tmp_path / "made", format)
    assert answer(tmp_path / "made", clip) == transcriber(clip)


def test_an_exported_generator_draws_the_same_without_mmkeras(tmp_path):
    generator, prompt = mmkeras.pretrained("text_to_image"), "a large blue star at the top left"
    generator.export(tmp_path / "made")
    drawn = np.array(Image.open(tmp_path / "made" / answer(tmp_path / "made", prompt)))
    assert np.abs(drawn.astype(int) - generator(prompt)).max() <= 1


def test_an_exported_search_ranks_images_without_mmkeras(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(render.draw("test", i)).save(path)
    search = mmkeras.pretrained("image_search")
    search.index(paths)
    search.export(tmp_path / "made")
    lines = answer(tmp_path / "made", "一个红色的圆形", *paths).split("\n")
    for line, (path, score) in zip(lines, search.search("一个红色的圆形"), strict=True):
        assert line.startswith(path) and abs(float(line.split("\t")[1]) - score) < 2e-3


def encoder_of(name):
    x = keras.Input((4,), name=name)
    return keras.Model(x, keras.layers.Dense(3)(x), name=name)


@pytest.mark.parametrize("unit", ["word", "character", "mixed"])
def test_the_script_splits_texts_as_the_vocabulary_does(tmp_path, unit):
    texts = [
        "A red\u3000circle, don\u2019t!", "re\u00add CIRCLE\uff01 \u2460", "一个 红色的 star", "नमस्ते İ x_y",
        "สวัสดี น้ำ 1",
    ]  # fmt: skip
    vocabulary = (
        Vocabulary.count(texts, unit)
        if unit != "word"
        else Vocabulary(sorted({word for text in texts for word in Vocabulary((), "word").split(text)}))
    )
    shutil.copy(export.__file__.replace("folder.py", "run.py"), tmp_path)
    (tmp_path / "card.json").write_text("{}")
    content = {"words": vocabulary.words, "unit": vocabulary.unit}
    (tmp_path / "vocabulary.json").write_text(json.dumps(content), encoding="utf-8")
    script = runpy.run_path(str(tmp_path / "run.py"))
    for text in texts:
        assert script["to_tokens"](text)[0].tolist() == vocabulary.encode(text), text


def test_differences_are_seen_whatever_their_kind():
    zeros = {"a": np.zeros((3, 4)), "ids": np.zeros((3, 2), int)}
    for name, change in (
        ("a", np.full((3, 4), np.nan)), ("a", np.zeros((3, 1))), ("a", np.full((3, 4), -1e9)),
        ("ids", np.array([[0, 0], [0, 1], [0, 0]])),
    ):  # fmt: skip
        assert not export.difference(zeros | {name: change}, zeros) <= 0.1
    never = {"a": np.full((3, 4), -1e9)}
    assert export.difference(never, {"a": never["a"] * 1.001}) == 0


def test_a_model_of_another_method_is_exported_as_one_part(tmp_path):
    from mmkeras.methods import Classifier, joint_training

    encoders = {
        name: keras.Sequential([keras.Input((4,), name=name), keras.layers.Dense(3)], name=name)
        for name in "ab"
    }
    model = joint_training.build(encoders, {"color": ("red", "blue")})
    assert Classifier(model).export(tmp_path / "made").keys() == {"answer"}


def test_a_part_that_differs_on_padding_is_refused(tmp_path, monkeypatch):
    """As an exported LSTM that ignores the lengths: right for one clip, wrong in a padded batch."""
    from mmkeras.export import lowering

    transcriber = mmkeras.pretrained("speech_to_text_ctc")
    monkeypatch.setattr(lowering, "_reversed", lambda x, count: x[:, ::-1])
    with pytest.raises(ValueError, match="exported 'encoder' to equal the model.* difference of"):
        transcriber.export(tmp_path / "made")
    assert not list(tmp_path.glob("made/*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "format to be 'onnx' or 'saved_model'.*'tflite'"),
        ({"format": "saved_model", "half": True}, "half=True with format='onnx'"),
    ],
)
def test_an_unknown_option_is_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        mmkeras.pretrained("attribute_classifier").export(tmp_path / "made", **options)


def test_a_folder_with_files_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder to be new or empty"):
        mmkeras.pretrained("attribute_classifier").export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"tf2onnx: pip install 'mmkeras\[export\]'"):
        mmkeras.pretrained("attribute_classifier").export(tmp_path / "made")


def test_layers_of_the_users_own_are_named_if_the_format_lacks_their_operation(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Sorted(keras.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            return tf.numpy_function(np.sort, [x], tf.float32)

        def compute_output_shape(self, shape):
            return shape

    x = keras.Input((4,), name="a")
    part = mmkeras._utils.parts.Part.of(keras.Model(x, Sorted()(x)))

    predictor = mmkeras.pretrained("attribute_classifier")
    predictor.parts = lambda: {"answer": part}
    with pytest.raises(ValueError, match="layers of your own: Sorted"):
        predictor.export(tmp_path / "made")


def test_a_clip_of_another_rate_ends_with_one_line(tmp_path):
    mmkeras.pretrained("speech_to_text_ctc").export(tmp_path / "made")
    soundfile.write(tmp_path / "slow.wav", np.zeros(8000), 8000)
    process = subprocess.run(
        [sys.executable, tmp_path / "made" / "run.py", tmp_path / "slow.wav"], capture_output=True, text=True
    )
    assert process.returncode == 1 and "at 8000 Hz. Expected samples of 16 bits at 16000 Hz" in process.stderr


@pytest.mark.quality
def test_an_exported_tokenizer_of_subwords_writes_words(image, tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra huggingface")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unknown>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "<unknown>", "<start>", "<end>"]
    trainer = trainers.BpeTrainer(vocab_size=30, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["a small red circle", "a large blue star"], trainer)
    captioner = mmkeras.captioning.Captioner(
        mmkeras.captioning.build(vocabulary=tokenizer, units=8, embedding_dim=4)
    )
    captioner.export(tmp_path / "made")
    assert answer(tmp_path / "made", image) == captioner(image)
