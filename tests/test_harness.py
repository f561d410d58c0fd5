"""Every model passes the checks of `harness.py`."""

import pytest
from harness import MODELS, check_model


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_is_saved_weighs_examples_and_ignores_padding(name):
    check_model(name)
