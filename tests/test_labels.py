"""Captions made from labels."""

import pytest

from mmkeras.data.labels import label_names, phrasings


def test_labels_without_names_are_refused():
    with pytest.raises(ValueError, match="source='numbers'"):
        label_names("numbers", ["0", "1", "2"])
    assert label_names("mnist", ["0", "1"])[3] == "three"


def test_the_article_fits_the_noun():
    assert phrasings("airplane", ("a photo of {a}",)) == ["a photo of an airplane"]
