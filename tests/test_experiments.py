"""The experiments of chapter 8, with few images and steps."""

import numpy as np
import pytest

from mmkeras.methods import scenes
from mmkeras.methods.experiments import fairness, protocol, small

EXPERIMENTS = (fairness,)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """The experiments with few images, steps and seeds."""
    sizes = {
        protocol: {"EVERY": 2},
        small: {"STEPS": 4},
        fairness: {"SIZES": {"train": 160, "validation": 40, "test": 60}, "IMAGES": 40, "OF_A_GROUP": 8},
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


def test_a_skewed_sample_has_its_share_and_repairs_give_both_groups_the_same_weight():
    sample = fairness.sampled(small.examples("train", 160), 40, 0.05, seed=0)
    assert list(np.bincount(fairness.column(sample), minlength=3)) == [38, 0, 2]
    _, weights = fairness.repaired(sample, "re-weighting")
    of_group = [weights[fairness.column(sample) == place].sum() for place in (0, 2)]
    np.testing.assert_allclose(of_group, 20)
    for repair in ("balanced sampling", "mirror images"):
        examples, weights = fairness.repaired(sample, repair)
        counts = np.bincount(fairness.column(examples), minlength=3)
        assert weights is None and counts[0] == counts[2]
    assert "place" not in fairness.training(sample).labels


def test_models_of_the_same_seed_are_the_same_whatever_was_trained_before():
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


def test_fairness_is_measured_by_group_and_told_in_a_model_card(monkeypatch, tmp_path):
    results = run_and_read(fairness, monkeypatch, tmp_path)
    assert set(results.accuracy) > {fairness.SKEWED, fairness.EVEN, *fairness.REPAIRS}
    left, right = (results.accuracy[fairness.SKEWED][group][0] for group in fairness.GROUPS)
    assert results.gap() == [round(left - right, 4)]
    assert f"{left:.3f}" in results.card() and "mirror images" in str(results)
    assert len(results.plot().axes[0].lines) == 2
