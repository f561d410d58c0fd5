"""Why does the model not learn? `diagnose` answers from the model and its data, on one page.

    print(mmkeras.training.diagnose(model, data))

It checks for the usual causes: the same answer for every input, a loss no lower than that of guessing, equal
attention everywhere, CTC without a finite loss.
"""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from mmkeras import tasks
from mmkeras._utils import memory
from mmkeras.data.task_data import Split, TaskData
from mmkeras.decoding import ctc
from mmkeras.decoding.search import NEVER
from mmkeras.distribute import collectives
from mmkeras.evaluation import collapse, metrics
from mmkeras.nn import losses
from mmkeras.text.vocabulary import END, PAD, START, UNKNOWN
from mmkeras.training import fit, learning_rate
from mmkeras.training.diagnosis import Diagnosis, Line

EXAMPLES = 128  # for the answers and the loss: a share of a half has a standard error of 4 %
TEXTS = 2000  # for the statistics of the texts
SAME_ANSWERS = 0.9  # share of the answers that counts as all
SAME_TEXTS = 0.5  # share of the texts: a model that always predicts one of them is then right as often
ALIKE = 0.5  # share of inputs that equal another one
UNKNOWN_TOKENS = 0.05
PADDING = 0.5
HIGH_RATE = 0.1  # of Adam, whose step is about the rate whatever the gradient is
SAME_LOSS = 0.02  # relative difference of losses, with the right inputs and with those of other examples
NO_BETTER = 0.95  # share of the loss of a model that knows how frequent each token is
EVEN_ATTENTION = 0.95  # relative to the entropy of equal weights


def diagnose(model: keras.Model | Any, data: TaskData | None = None) -> Diagnosis:
    """Checks for the usual reasons why a model does not learn. The model is not changed.

    Args:
        model: keras.Model from the `build` of a task, or its predictor, such as a `Captioner`.
        data: TaskData, optional. What it was trained on; up to 2,000 texts and 128 examples are read. Defaults
            to None: only the model is checked.

    Returns:
        `Diagnosis`; print it.

    Raises:
        ValueError: if it is not a model of mmkeras, or the data do not fit it (vocabulary, image size, sample
            rate) or have neither training nor validation examples.
    """
    predictor = tasks.predictor(model) if isinstance(model, keras.Model) else model
    lines = _of_model(predictor.model)
    if data is None:
        lines.append(Line("data", "not looked at: none were given"))
        return Diagnosis(tuple(lines))
    fit.check_data(predictor.model, data, ignored=("max_length", "step_ms"))
    split = data.splits.get("train") or data.splits.get("validation")
    if split is None:
        raise ValueError(
            f"Expected data with a split 'train' or 'validation'. Received: splits={', '.join(data.splits)}"
        )
    of_data = [*_of_texts(data, split), *_of_inputs(predictor, split)]
    return Diagnosis((*of_data, *lines, *_of_both(predictor, data)))


# --- the data ---


def _of_texts(data, split) -> Iterator[Line]:
    texts = list(itertools.islice((text for texts in split.texts() for text in texts), TEXTS))
    text, count = Counter(texts).most_common(1)[0]
    finding = ""
    if count > SAME_TEXTS * len(texts) > 1:
        finding = (
            f"{count} of them are {text!r}: a model is right that often if it always answers this. Check the "
            f"column of the texts; balance the examples."
        )
    yield Line("texts", f"{len(texts):,} looked at, {len(set(texts)):,} different", finding)

    tokens = [data.vocabulary.encode(text)[1:-1] for text in texts]
    ids = Counter(itertools.chain.from_iterable(tokens))
    share, finding = ids[UNKNOWN] / max(ids.total(), 1), ""
    if share > UNKNOWN_TOKENS:
        words = Counter(word for text in texts for word in data.vocabulary.split(text))
        unknown = [word for word, _ in words.most_common() if word not in data.vocabulary.ids][:5]
        finding = (
            f"The vocabulary lacks {', '.join(map(repr, unknown))} ...: the model can never answer with them. "
            f"Build it for the vocabulary of these data, or lower min_count."
        )
    yield Line("unknown words", f"{share:.1%} of the tokens", finding)


def _of_inputs(predictor, split: Split) -> Iterator[Line]:
    """Whether the images or clips can be read, differ, and last long enough for CTC."""
    examples = list(split.examples().take(EXAMPLES).as_numpy_iterator())
    wanted = min(EXAMPLES, split.count)
    if predictor.model.name == "speech_to_text":
        name, arrays = "clips", [example["audio"] for example in examples]
        silent = sum(not len(x) or np.ptp(x) == 0 for x in arrays)
    else:
        name, arrays = "images", [example["image"] for example in examples]
        silent = sum(np.ptp(x) == 0 for x in arrays)
    alike = sum(count for count in Counter(x.tobytes() for x in arrays).values() if count > 1)
    findings = []
    if len(arrays) < wanted:
        findings.append(f"{wanted - len(arrays)} cannot be read; the warnings name them.")
    if alike > ALIKE * len(arrays):
        findings.append(f"{alike} equal another one. Check the column of the files.")
    if silent > ALIKE * len(arrays):
        findings.append(f"{silent} are {'silent' if name == 'clips' else 'of one color'}. Look at the files.")
    value = f"{len(arrays)} of {wanted} read, {alike} equal another, {silent} empty"
    yield Line(name, value, " ".join(findings))
    if getattr(predictor, "head", None) == "ctc":
        yield _time_steps(predictor, examples)


def _time_steps(predictor, examples):
    step = round(predictor.step_seconds * predictor.sample_rate_hz)
    labels = predictor.vocabulary.encode_batch([example["transcript"].decode() for example in examples])
    labels = np.where((labels == START) | (labels == END), PAD, labels)
    needed = keras.ops.convert_to_numpy(ctc.steps_needed(labels))
    steps = np.array([-(-len(example["audio"]) // step) for example in examples])
    count, finding = int((needed > steps).sum()), ""
    if count:
        finding = (
            f"{count} of {len(steps)} transcripts need more: CTC gives them probability 0, and they are left "
            f"out. Build the model with a smaller subsampling or hop_ms, or use words as the unit."
        )
    ratio = np.median(steps / np.maximum(needed, 1))
    return Line("time steps", f"{ratio:.1f} for each that a transcript needs (median)", finding)


# --- the model ---


def _of_model(model) -> list[Line]:
    values = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    broken = sum(not np.isfinite(np.asarray(value, "float32")).all() for value in values)
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    finding = ""
    if broken:
        finding = f"{broken} weights are not finite: training diverged. Start again with a lower learning rate."
    elif not trained:
        finding = "None is trained. Set trainable=True."
    lines = [Line("weights", f"{model.count_params():,} parameters, {trained:,} trained", finding)]
    lines.append(Line("precision", model.dtype_policy.name))
    if getattr(model, "optimizer", None):
        lines.append(_rate(model.optimizer))
    return lines


def _rate(optimizer):
    peak = learning_rate.peak(optimizer)
    rate, finding = float(keras.ops.convert_to_numpy(optimizer.learning_rate)), ""
    if peak > HIGH_RATE and "adam" in type(learning_rate.inner(optimizer)).__name__.lower():
        finding = "Too high: Adam changes every weight by about this in each step. Start again with 1e-3."
    elif peak <= 0:
        finding = "Nothing can be learned at this rate. Use 1e-3."
    return Line("learning rate", f"{rate:.2g} now, at most {max(peak, rate):.2g}", finding)


# --- what the model predicts for the data ---


def _of_both(predictor, data) -> Iterator[Line]:
    """Answers, losses, attention and memory, on validation examples if there are any."""
    if predictor.model.name == "attribute_classifier":
        yield from _classes(predictor, data)
        return
    split = "validation" if data.validation is not None else "train"
    dataset = getattr(data, split).take(max(EXAMPLES // data.batch_size, 1))
    batches = [keras.tree.map_structure(np.asarray, batch) for batch in dataset]
    if predictor.model.name == "text_to_image":
        yield from _images_of_model(predictor, batches, split)
    else:
        yield from _texts_of_model(predictor, batches, split)
    yield _memory(predictor.model, *batches[0])


def _texts_of_model(predictor, batches, split) -> Iterator[Line]:
    if predictor.model.name == "captioning":
        names, head = ("caption", "image"), "attention"
        tokens = [predictor.generate(inputs["image"])[0] for inputs, _ in batches]
        answers = [predictor.vocabulary.decode(ids) for batch in tokens for ids in batch]
    else:
        names, head = ("transcript", "clip"), predictor.head
        clips = [clip for inputs, _ in batches for clip in zip(inputs["audio"], inputs["length"], strict=True)]
        answers = predictor.transcribe([clip[:length] for clip, length in clips])
    count = Counter(answers).most_common(1)[0][1]
    finding = collapse.of_texts(answers, *names, share=SAME_ANSWERS) or ""
    yield Line("answers", f"{count / len(answers):.0%} of {len(answers)} are the same", finding)

    own, other, even = (_mean_loss(predictor.model, batches, head, kind) for kind in ("own", "other", "even"))
    yield _loss_line(own, even, _unigram_entropy(batches), split, head)
    yield _inputs_line(own, other, names[1])
    if head == "attention":
        yield _attention(predictor, *batches[0])
    yield _padding(batches)


def _mean_loss(model, batches, head, kind):
    """Loss per token: with the examples' own inputs, with those of other examples, or of equal logits."""
    loss = losses.TokenCrossentropy() if head == "attention" else ctc.CTC()
    total = count = 0
    for inputs, targets in batches:
        logits = _outputs(model, inputs, kind == "other")
        if kind == "even":  # with CTC the blank of padded time steps stays
            logits = np.where(logits < NEVER / 2, logits, 0) if head == "ctc" else np.zeros_like(logits)
        tokens = int((targets != PAD).sum())
        total += tokens * float(loss(targets, logits))
        count += tokens
    return total / count


def _outputs(model, inputs, of_others=False):
    """Outputs of a batch; with `of_others` each example gets the input of its neighbor, but its own text."""
    names = [tensor.name for tensor in model.inputs] if model.inputs else list(inputs)
    roll = (lambda name: name != "tokens") if "image" in names or "audio" in names else (lambda name: True)
    inputs = {n: np.roll(inputs[n], 1, axis=0) if of_others and roll(n) else inputs[n] for n in names}
    return keras.ops.convert_to_numpy(collectives.predict_on_one_device(model, inputs)).astype("float32")


def _unigram_entropy(batches):
    """The lowest loss per token of a model that knows no more than how frequent each token is."""
    counts = np.bincount(np.concatenate([targets[targets != PAD] for _, targets in batches]))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _loss_line(loss, guess, frequent, split, head):
    value = f"{loss:.3f} per token ({split}); {guess:.3f} if all tokens are equally likely"
    if head == "attention":
        value += f" (ln of {round(math.exp(guess))}), {frequent:.3f} by their frequency"
    finding = ""
    if not np.isfinite(loss):
        finding = "Training diverged. Start again with a lower learning rate, and in float32."
    elif loss > guess:
        finding = (
            "Worse than guessing: the learning rate was too high, or the texts are not those of the inputs. "
            "Start again with a lower one; look at some examples."
        )
    elif loss > NO_BETTER * (frequent if head == "attention" else guess):
        finding = (
            "The model has learned no more than how frequent the words are. Train it longer; if the loss does "
            "not fall, try a learning rate ten times as high and as low."
        )
    return Line("loss", value, finding)


def _inputs_line(own, other, name, same=SAME_LOSS):
    finding = ""
    if np.isfinite(own) and other - own < same * own:
        finding = (
            f"No higher: the model ignores the {name}. Check that each text belongs to its {name} (a table "
            f"shifted by a row?), then train longer."
        )
    return Line("inputs", f"loss {other:.3f} with the {name} of another example", finding)


def _attention(predictor, inputs, targets):
    """Mean entropy of the attention of each token, relative to that of equal weights."""
    inputs = {tensor.name: inputs[tensor.name] for tensor in predictor.encoder.inputs}
    weights = predictor._generator.weights(inputs, targets).astype("float64")  # (B, T, N)
    entropy = -(weights * np.log(weights + 1e-12)).sum(axis=-1)  # (B, T)
    positions = np.full(len(weights), weights.shape[-1])
    if "length" in inputs:
        positions = np.ceil(inputs["length"] / inputs["audio"].shape[1] * weights.shape[-1])
    relative = entropy / np.log(np.maximum(positions, 2))[:, None]
    mean, finding = float(relative[targets != PAD].mean()), ""
    if mean > EVEN_ATTENTION:
        finding = "It is equal everywhere: no position counts more than another. Train longer."
    return Line("attention", f"entropy {mean:.2f} of that of equal weights", finding)


def _padding(batches):
    share = float(np.mean([(targets == PAD).mean() for _, targets in batches]))
    value, finding = f"{share:.0%} of the tokens", ""
    if "audio" in batches[0][0]:
        audio = np.mean([1 - x["length"].sum() / x["audio"].size for x, _ in batches])
        value, share = f"{value}, {audio:.0%} of the audio", max(share, audio)
    if share > PADDING:
        finding = "Most of the work is on padding. Lower max_length or max_seconds, or leave out the longest."
    return Line("padding", value, finding)


def _images_of_model(predictor, batches, split) -> Iterator[Line]:
    real = np.concatenate([targets for _, targets in batches])  # (N, S, S, 3) in 0..1
    text = collectives.predict_batches(predictor._encode, np.concatenate([x["tokens"] for x, _ in batches]))
    noise = np.random.default_rng(0).normal(size=(2, 1, predictor.noise_size))
    images, resampled = (predictor.generate(text, row) for row in noise)
    scores = metrics.variety(255 * real, images, resampled if predictor.noise_size else None)
    values = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
    yield Line("answers", f"{values} of {len(images)} images", collapse.of_images(scores) or "")
    if predictor.noise_size:
        return  # the losses of an adversarial model do not say how good it is

    def loss(prediction):
        return float(losses.PixelCrossentropy()(real, prediction))

    own, other = (loss(np.concatenate([_outputs(predictor.model, x, o) for x, _ in batches])) for o in (0, 1))
    mean = loss(np.broadcast_to(real.mean(axis=0), real.shape))
    finding = ""
    if not own < mean:
        finding = "No better than the mean of the images. Train longer, or lower the learning rate."
    yield Line("loss", f"{own:.4f} per pixel ({split}); {mean:.4f} of the mean image", finding)
    yield _inputs_line(own, other, "prompt", SAME_LOSS / 10)  # most of a pixel's loss is the same for all


def _classes(predictor, data) -> Iterator[Line]:
    from mmkeras.text_to_image.datasets import labeled

    if not data.attributes:
        yield Line("answers", "not looked at: the data have no labels")
        return
    batches = list(labeled(data, "validation" if "validation" in data.splits else "train").take(4))
    predicted, _ = predictor.predict(np.concatenate([image.numpy() for image, _ in batches]))
    for name, ids in predicted.items():
        labels = np.concatenate([labels[name].numpy() for _, labels in batches])
        most, accuracy = np.bincount(labels).max() / len(labels), float((ids == labels).mean())
        finding = "" if accuracy > most else "No better than the most frequent class. Train longer."
        same = np.bincount(ids).max() / len(ids)
        value = f"{accuracy:.0%} right, {most:.0%} by the most frequent class; {same:.0%} get the same"
        yield Line(name, value, finding)


def _memory(model, inputs, targets):
    """What one training step of a copy of the model takes, compilation included."""
    if not getattr(model, "optimizer", None):
        return Line("memory", "not looked at: the model is not compiled")
    if not model.optimizer.built:  # otherwise Keras warns when it copies the model
        model.optimizer.build(model.trainable_variables)
    other = copy.deepcopy(model)
    used = memory.peak(lambda: other.train_on_batch(inputs, targets))
    if used is None:
        return Line("memory", "not measured on this system")
    return Line("memory", f"{used / 1e6:.0f} MB more in the first step of {len(targets)} examples")
