"""Image captioning (chapter 5.1): the data.

data = mmkeras.captioning.data("toy")              # the toy world
data = mmkeras.captioning.data("emoji")            # what people drew, with names in two languages
data = mmkeras.captioning.data("coco_captions")    # through TensorFlow Datasets
data = mmkeras.captioning.data("my/photos")        # a folder with a table of captions
data = mmkeras.captioning.data(dataset)            # a dataset of Hugging Face
"""

from typing import Any

from mmkeras.data import image_captions
from mmkeras.data.task_data import TaskData
from mmkeras.text.vocabulary import Vocabulary


def data(
    source: Any = "toy",
    *,
    language: str = "en",
    batch_size: int = 32,
    image_size: int | None = None,
    vocabulary: Vocabulary | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    augment: bool = False,
    seed: int = 0,
    static_shapes: bool = False,
    **options,
) -> TaskData:
    """Images and captions, ready for `model.fit`.

    Args:
        source: str, path or dataset. `"toy"`, `"emoji"` (see `mmkeras.data.emoji`), `"coco_captions"` (37.6
            GiB are downloaded on first use), a folder of images with a table of captions (see
            `mmkeras.data.tables`), or a dataset (see `mmkeras.data.hugging_face`). Defaults to `"toy"`.
        language: str. `"en"` (tokens are words) or `"zh"` (tokens are characters). Defaults to `"en"`.
        batch_size: int. Images per step, over all devices. Defaults to 32.
        image_size: int. Side in pixels that images are resized to. Defaults to 64 for the toy world and emoji,
            and to 224 for photographs, the sizes of the presets `"toy"` and `"document"`.
        vocabulary: `Vocabulary` or a tokenizer (`mmkeras.text.subwords`). Defaults to the words of the training
            captions. If given, a source without training captions can be evaluated, and for a folder a warning
            names the words that it lacks.
        min_count: int. Words seen less often become `<unknown>`. Defaults to 1, for COCO to 5.
        max_size: int. Size of the vocabulary, special tokens included. Defaults to 10,000.
        max_length: int. Tokens per caption, `<start>` and `<end>` included; longer captions are cut. Defaults
            to what 99 % of the training captions need.
        augment: bool. Whether training images are moved, zoomed, rotated and recolored at random
            (`mmkeras.data.augmentation`), which a small set of real images needs. The features of a frozen
            encoder are then not cached. Defaults to False.
        seed: int. Seed for the order, the choice among an image's captions, and the augmentation. Defaults to
            0.
        static_shapes: bool. Whether every dimension of `train` and `validation` is known, as a TPU needs it.
            All batches are then full; each epoch leaves out the images that do not fill a batch. Defaults to
            False.
        **options: Of the source. Toy world: `objects` (1 or 2), `data_dir`. Emoji: `artists`, `data_dir`. COCO:
            `data_dir`. Folder or dataset: see `mmkeras.data.folder.read`.

    Returns:
        `TaskData` with these batches:

        - `train`, `validation`: ({"image", "tokens"}, targets); image (B, size, size, 3) uint8, tokens and
          targets (B, max_length - 1) int32, the caption without its last and without its first token. Every
          epoch holds every image exactly once, with one of its captions.
        - `test`, `test_unseen`: {"image", "captions"}; captions (B, n) string, all references, padded with "";
          if the source has labels, also {"labels": {attribute: (B,) int64}}.

    Raises:
        ValueError: if an argument is invalid or the table is malformed.
        FileNotFoundError: if none of the images in the table exists.
    """
    if image_size is None:
        image_size = 64 if source in ("toy", "emoji") else 224

    def to_inputs(batch):
        tokens = batch["tokens"]  # (B, max_length)
        return {"image": batch["image"], "tokens": tokens[:, :-1]}, tokens[:, 1:]

    return image_captions.read(
        source,
        to_inputs,
        language=language,
        batch_size=batch_size,
        image_size=image_size,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
        augment=augment,
        seed=seed,
        static_shapes=static_shapes,
        **options,
    )
