"""The sources of data: the toy world, a dataset of TensorFlow Datasets or of Hugging Face, or a folder."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmkeras._utils import presets
from mmkeras.data import folder, hugging_face, tfds, videos
from mmkeras.data.labels import PHRASINGS
from mmkeras.data.task_data import Split
from mmkeras.media.video import Sampling
from mmkeras.text.vocabulary import Vocabulary, is_tokenizer

IMAGES = {
    "toy": tfds.toy_images,
    "emoji": tfds.emoji_images,
    "coco_captions": tfds.coco_captions,
    **dict.fromkeys(PHRASINGS, tfds.labeled_images),
}
CLIPS = {
    "toy": tfds.toy_clips,
    "librispeech": tfds.librispeech,
    "ljspeech": tfds.ljspeech,
    "speech_commands": tfds.speech_commands,
}
VIDEOS = {"toy": videos.toy_videos}


def read_images(source: Any, language: str, size: int, *, crop: bool = False, **options) -> dict[str, Split]:
    """The splits of a source of images with captions, by name.

    Args:
        source: A key of `IMAGES`, a folder, or a dataset, see `mmkeras.data.hugging_face`.
        language: str. Language of the captions, `"en"` or `"zh"`.
        size: int. Side in pixels that images are resized to.
        crop: bool. Whether to crop to the square in the middle first; otherwise the aspect ratio changes.
            Defaults to False.
        **options: Options of the source, see `mmkeras.captioning.data`.
    """
    return read(source, IMAGES, folder.images_from_folder, language, size, crop, **options)


def read_clips(source: Any, language: str, sample_rate_hz: int, **options) -> dict[str, Split]:
    """The splits of a source of clips with transcripts, by name.

    Args:
        source: A key of `CLIPS`, a folder, or a dataset, see `mmkeras.data.hugging_face`.
        language: str. Language of the transcripts, `"en"` or `"zh"`.
        sample_rate_hz: int. Sample rate that clips are resampled to.
        **options: Options of the source, see `mmkeras.speech_to_text.data`.
    """
    return read(source, CLIPS, folder.clips_from_folder, language, sample_rate_hz, **options)


def read_videos(source: str | os.PathLike, language: str, sampling: Sampling, **options) -> dict[str, Split]:
    """The splits of a source of videos, by name.

    Args:
        source: str. A key of `VIDEOS`, or a folder.
        language: str. Language of the texts, `"en"` or `"zh"`.
        sampling: `mmkeras.media.video.Sampling`.
        **options: Options of the source, see `mmkeras.applications.video_understanding.data`.
    """
    return read(source, VIDEOS, videos.videos_from_folder, language, sampling, **options)


def options(source: Any) -> dict[str, Any]:
    """The options that a source takes, of images or of clips, and their types."""
    name = source if isinstance(source, str) else None
    readers = [known[name] for known in (IMAGES, CLIPS) if name in known] or [folder.read]
    return {name: kind for reader in readers for name, kind in presets.keywords(reader).items()}


def title(source: Any) -> str:
    """How messages name a source."""
    return str(source) if isinstance(source, str | os.PathLike) else hugging_face.title(source)


def check_options(language: str, vocabulary: Any) -> Vocabulary | None:
    """The vocabulary of `data(vocabulary=...)`, which may be a tokenizer (`mmkeras.text.subwords`) or None.

    Raises ValueError for an unknown language, TypeError for a vocabulary of another type.
    """
    if language not in ("en", "zh"):
        raise ValueError(f"Expected language to be 'en' or 'zh'. Received: language={language!r}")
    if is_tokenizer(vocabulary):
        return Vocabulary.of(vocabulary)
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        raise TypeError(
            f"Expected vocabulary to be a Vocabulary, a tokenizer, or None. Received: vocabulary={vocabulary!r}"
        )
    return vocabulary


def read(
    source: Any, known: Mapping[str, Callable], from_folder: Callable, *args, **options
) -> dict[str, Split]:
    """The splits of a source, by name.

    Args:
        source: A key of `known`, a folder, or a dataset, see `mmkeras.data.hugging_face`.
        known: {name: (name, *args, **options) → splits}.
        from_folder: (folder or dataset, *args, **options) → splits.
    """
    is_known = isinstance(source, str) and source in known
    is_dataset = hugging_face.is_dataset(source) and known is not VIDEOS
    is_folder = isinstance(source, str | os.PathLike) and Path(source).is_dir()
    if not (is_known or is_dataset or is_folder):
        names = ", ".join(map(repr, known))
        either = "a folder that exists" if known is VIDEOS else "a folder that exists, or a datasets.Dataset"
        raise ValueError(f"Expected source to be one of {names}, or {either}. Received: source={source!r}")
    without = ("table", "encoding") if is_dataset else ()
    takes = presets.keywords(known[source] if is_known else folder.read, without)
    if unknown := [name for name in options if name not in takes]:
        received = (f"{name}={options[name]!r}" for name in unknown)
        raise ValueError(
            f"Expected options that the source {title(source)!r} takes: {', '.join(takes)}. "
            f"Received: {', '.join(received)}"
        )
    return (known[source] if is_known else from_folder)(source, *args, **options)
