"""The experiments of chapter 8, with few images and steps."""

import numpy as np
import pytest

from mmkeras.methods import scenes
from mmkeras.methods.experiments import data, fairness, privacy, protocol, scaling, small
from mmkeras.text.vocabulary import PAD

EXPERIMENTS = (scaling, data, fairness, privacy)
PLOTTED = {fairness: (fairness.PAIRS,)}  # arguments of the plot
SPLITS = {"train": 160, "validation": 40, "test": 60}


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """The experiments with few images, steps and seeds."""
    sizes = {
        protocol: {"EVERY": 2},
        small: {"STEPS": 2},
        scaling: {"WIDTHS": (2, 4), "IMAGES": (10, 20, 40), "SIZES": SPLITS},
        data: {
            "IMAGES": 40,
            "AUGMENTED": (10,),
            "WRONG_RATES": (0.0, 0.5),
            "MISSING_RATES": (0.0, 0.5),
            "SIZES": SPLITS,
        },
        fairness: {"IMAGES": 40, "OF_A_GROUP": 8, "SIZES": SPLITS},
        privacy: {"SCENES": 160, "VALIDATION": 16, "OTHERS": 40, "STEPS": (0, 1, 2), "MEMBERS": 32, "MORE": 64},
    }
    for module, values in sizes.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    for module in EXPERIMENTS:
        monkeypatch.setattr(module, "SEEDS", (0,))


def run_and_read(experiment, monkeypatch, tmp_path):
    path = tmp_path / "results.json"
    results = experiment.run(path)
    monkeypatch.setattr(experiment, "RESULTS", path)
    assert experiment.results() == results
    assert f"{experiment.__name__.rpartition('.')[2]}.run()" in results.measured["command"]
    return results


def test_mirroring_swaps_left_and_right_and_nothing_else():
    examples = small.examples("train", 40)
    both = small.with_mirrored(examples)
    assert len(both) == 80
    np.testing.assert_array_equal(both.inputs["image"][40:], examples.inputs["image"][:, :, ::-1])
    for before, after in zip(both.labels["place"][:40], both.labels["place"][40:], strict=True):
        swapped = {"left": "right", "right": "left"}
        words = [swapped.get(word, word) for word in scenes.ATTRIBUTES["place"][before].split()]
        assert scenes.ATTRIBUTES["place"][after] == " ".join(words)
    wrong = small.with_mirrored(examples, relabel=False)
    np.testing.assert_array_equal(wrong.labels["place"][40:], examples.labels["place"])


@pytest.mark.parametrize("skew", fairness.SKEWS)
def test_a_skewed_sample_has_its_share_and_repairs_give_both_groups_the_same_weight(skew):
    sample = fairness.sampled(small.examples("train", 160), skew, 40, 0.05, seed=0)
    of_group = fairness.group(sample, skew)
    assert list(np.bincount(of_group)) == [38, 2]
    _, weights = fairness.repaired(sample, skew, fairness.REWEIGHTED)
    np.testing.assert_allclose([weights[of_group == number].sum() for number in (0, 1)], 20)
    for repair in set(fairness.SKEWS[skew].repairs) - {fairness.REWEIGHTED, fairness.GRAY}:
        examples, weights = fairness.repaired(sample, skew, repair)
        assert weights is None and len(set(np.bincount(fairness.group(examples, skew)))) == 1
    same, weights = fairness.repaired(sample, skew, fairness.SKEWED)
    assert same is sample and weights is None
    gray = fairness.without_color(sample).inputs["image"]
    assert gray.shape == sample.inputs["image"].shape and not np.ptp(gray, axis=-1).any()
    hidden = {fairness.RIGHT: "place", fairness.PAIRS: "color"}
    assert hidden[skew] not in fairness.labeled(sample, skew).labels


def test_unusual_pairs_are_those_of_a_warm_color_and_a_late_shape_or_the_other_way_round():
    examples = small.examples("train", 40)
    for row, unusual in enumerate(fairness.group(examples, fairness.PAIRS)):
        color, shape = (scenes.ATTRIBUTES[name][examples.labels[name][row]] for name in ("color", "shape"))
        is_warm, is_early = color in ("red", "orange", "yellow"), shape in ("circle", "square", "triangle")
        assert unusual == (is_warm != is_early)


def test_models_of_the_same_seed_are_the_same_whatever_was_trained_before(eager_models):
    train, validation = (small.examples(split, 40) for split in ("train", "validation"))

    def trained(seed):
        fit = small.trained(train, validation, seed=seed, width=2)
        return fit.classifier.model.get_weights()

    first, other, again = trained(0), trained(1), trained(0)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(first, other, strict=True))


def test_a_gap_is_lower_only_if_the_ranges_do_not_overlap():
    assert small.difference([0.2, 0.3], [0.1, 0.15]) == "lower"
    assert small.difference([0.2, 0.3], [0.1, 0.25]) == "no difference"
    assert small.difference([0.2, 0.3], [0.31, 0.5]) == "higher"


@pytest.mark.quality
def test_fairness_is_measured_by_group_and_told_in_a_model_card(monkeypatch, tmp_path, eager_models):
    results = run_and_read(fairness, monkeypatch, tmp_path)
    for skew, how in fairness.SKEWS.items():
        assert set(results.accuracy[skew]) > {fairness.SKEWED, fairness.EVEN, *how.repairs}
        frequent, rare = (values[0] for values in results.accuracy[skew][fairness.SKEWED].values())
        assert results.scores(skew)["gap"] == [round(frequent - rare, 4)]
        assert f"{frequent:.3f}" in results.card(skew) and skew in str(results)
        assert len(results.plot(skew).axes[0].patches) == 2 * len(results.accuracy[skew])
        assert set(results.verdicts(skew, fairness.SKEWED).values()) == {"no difference"}


def test_a_verdict_can_leave_out_the_first_seeds():
    skewed, repaired = ({"left": [0.5, 0.5], "right": right} for right in ([0.1, 0.4], [0.2, 0.45]))
    results = fairness.Results({fairness.RIGHT: {fairness.SKEWED: skewed, "repair": repaired}})
    verdicts = [results.verdicts(fairness.RIGHT, "repair", first)["right"] for first in (0, 1)]
    assert verdicts == ["no difference", "higher"]


# --- scaling ---


def test_a_power_law_is_found_with_its_interval():
    x, rng = np.array([10, 20, 40, 80]), np.random.default_rng(0)
    exact = scaling.power_law(x, 3 * x[:, None] ** -0.5 * np.ones((4, 3)))
    np.testing.assert_allclose([exact.scale, exact.exponent, *exact.interval], [3, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(exact(160), 3 * 160**-0.5)
    noisy = scaling.power_law(x, 3 * x[:, None] ** -0.5 * rng.uniform(0.9, 1.1, (4, 3)))
    assert noisy.interval[0] < noisy.exponent < noisy.interval[1] and noisy.interval[0] > 0


def test_a_power_law_that_levels_off_is_not_extrapolated():
    results = scaling.Results({}, {}, {}, {})
    x = [10, 20, 40, 80]
    errors = [[2 / n - 0.001, 2 / n + 0.001] for n in x]
    assert results.extrapolated(x, errors)[1]
    predicted, holds = results.extrapolated(x, [*errors[:3], [0.049, 0.051]])
    assert not holds and abs(predicted - 0.025) < 0.001


@pytest.mark.quality
def test_scaling_is_measured_beside_its_baselines(monkeypatch, tmp_path, eager_models):
    results = run_and_read(scaling, monkeypatch, tmp_path)
    assert set(results.baselines) == {"nearest training image", "most frequent class"}
    numbers, errors = results.over_images(4)
    assert numbers == [10, 20, 40] and errors[0] == [1 - results.accuracy["4"]["10"][0]]
    parameters, errors = results.over_parameters(40)
    assert parameters[0] < parameters[1] and errors[1] == [1 - results.accuracy["4"]["40"][0]]
    laws = results.table_of_laws().splitlines()
    assert len(laws) == 1 + 2 + 3 and laws[1].startswith("width 2, over images")
    assert "width 4" in str(results) and len(results.plot().axes[0].lines) == 4


# --- data ---


def test_wrong_labels_are_those_of_other_examples():
    examples = small.examples("train", 40)
    noisy, is_wrong = data.mislabeled(examples, 0.5, seed=0)
    assert is_wrong.sum() == 20
    differs = np.any([noisy.labels[name] != examples.labels[name] for name in scenes.CLASSES], axis=0)
    assert differs.sum() >= 18 and not differs[~is_wrong].any()
    for name, ids in examples.labels.items():
        np.testing.assert_array_equal(np.sort(noisy.labels[name]), np.sort(ids))


def test_shifted_images_move_by_a_pixel_and_keep_their_labels():
    examples = small.examples("train", 40)
    shifted = data.augmentation(examples, "shifted", seed=0)
    assert len(shifted) == 160
    np.testing.assert_array_equal(shifted.labels["shape"], np.tile(examples.labels["shape"], 4))
    inner = examples.inputs["image"][0][2:-2, 2:-2]
    windows = [shifted.inputs["image"][0][y : y + 28, x : x + 28] for y in (1, 2, 3) for x in (1, 2, 3)]
    assert sum((window == inner).all() for window in windows) == 1


def test_a_model_trains_on_pairs_without_text(eager_models):
    examples = small.examples("train", 40, ("image", "text"))
    partial, is_missing = data.without_texts(examples, 0.5, seed=0)
    assert is_missing.sum() == 20
    np.testing.assert_array_equal((partial.inputs["text"] == PAD).all(axis=1), is_missing)
    fit = small.trained(partial, examples, seed=0, width=2, modalities=("image", "text"))
    logits = fit.classifier.model(partial.inputs)
    image_alone = fit.classifier.model({"image": partial.inputs["image"], "text": None})
    for name in logits:
        np.testing.assert_allclose(logits[name][is_missing], image_alone[name][is_missing], atol=1e-4)


def test_counted_words_name_what_is_written():
    examples = scenes.examples("train", 300, modalities=("text",))
    for name, scores in data.counted(examples, examples).items():
        assert (scores.argmax(axis=1) == examples.labels[name]).mean() > 0.8, name
    padding, _ = data.without_texts(examples, 1.0, seed=0)
    for scores in data.counted(examples, padding).values():
        assert not scores.any()  # a missing text says nothing


@pytest.mark.quality
def test_data_experiments_run(monkeypatch, tmp_path, eager_models):
    results = run_and_read(data, monkeypatch, tmp_path)
    assert results.wrong_labels["all"]["0.0"] == results.wrong_labels["the right ones"]["0.0"]
    assert set(results.augmentation) == set(data.AUGMENTATIONS)
    assert len(results.plot().axes[0].lines) == 2 and len(results.plot_missing().axes[0].lines) == 5
    assert "complete pairs" in str(results)


# --- privacy ---


def test_a_membership_test_is_at_chance_if_losses_are_alike():
    others = np.random.default_rng(0).random(2000)
    assert privacy.area(others, others) == 0.5 and abs(privacy.found(others, others) - 0.01) < 1e-3
    assert privacy.area(others - 1, others) == 1 and privacy.found(others - 1, others) == 1
    assert privacy.area([0.5], [0.2, 0.6, 0.7, 0.5]) == 0.625


@pytest.mark.slow
def test_the_loss_of_a_caption_is_averaged_over_its_words():
    pairs = small.examples("train", 32, ("image", "text"))
    (_, model), *_ = privacy.checkpoints(pairs, 0, privacy.PLAIN)
    text = pairs.inputs["text"]
    expected = model.evaluate(
        {"image": pairs.inputs["image"][:1], "tokens": text[:1, :-1]}, text[:1, 1:], verbose=0
    )
    np.testing.assert_allclose(privacy.losses(model, pairs)[0], expected[0], rtol=1e-4)


@pytest.mark.quality
def test_privacy_is_measured_at_each_step_beside_a_control(monkeypatch, tmp_path, eager_models):
    results = run_and_read(privacy, monkeypatch, tmp_path)
    few = privacy.FEW
    chosen = results.chosen(few)[0]
    assert results.loss[few][chosen][0] == min(values[0] for values in results.loss[few].values())
    assert results.early(few) == results.auc[few][chosen] and results.late(few) == results.auc[few]["2"]
    assert len(results.plot().axes[0].lines) == 4 and "no members" in str(results)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_shipped_results_name_their_command_and_are_plotted(experiment):
    results = experiment.results()
    name = experiment.__name__.rpartition(".")[2]
    assert f"{name}.run()" in results.measured["command"] and results.measured["minutes"] > 0
    assert len(results.plot(*PLOTTED.get(experiment, ())).axes) == 1
