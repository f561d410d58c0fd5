"""Every model passes the checks of `harness.py`."""

import pytest
from harness import MODELS, check_model

NIGHTLY = ("joint training, gated", "joint training, concat")  # built from the same parts as cross_attention


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.quality if name in NIGHTLY else ()) for name in MODELS]
)
def test_every_model_trains_is_saved_weighs_examples_and_ignores_padding(name):
    check_model(name)
