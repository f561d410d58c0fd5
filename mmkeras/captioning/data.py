"""Image captioning (chapter 5.1): the data.

    data = mmkeras.captioning.data("toy")               # the toy world
    data = mmkeras.captioning.data("coco_captions")     # COCO through TensorFlow Datasets
    data = mmkeras.captioning.data("my/photos")         # a folder with a captions table

Pictures are read as they are needed, so memory does not grow with the dataset.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from mmkeras import cache, checks, progress, replicas, sources
from mmkeras.sources import Split, pictures
from mmkeras.vocabulary import Vocabulary


@dataclass(frozen=True)
class TaskData:
    """Datasets for `fit` and for `evaluate`, and the vocabulary of the training captions.

    - `train`, `validation`: batches of ({"image", "tokens"}, targets) for `model.fit`;
      image (B, size, size, 3) uint8, tokens and targets (B, T) int32, padded to the same T.
      Every epoch takes each picture once, with one of its captions.
    - `test` and, in the toy world, `test_unseen`: batches of {"image", "captions"} for
      `mmkeras.captioning.evaluate`; captions (B, n) string with all references, filled up with "".

    A split that the source lacks is None.
    """

    train: tf.data.Dataset | None
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    test_unseen: tf.data.Dataset | None
    vocabulary: Vocabulary
    source: str
    image_size: int
    max_length: int
    batch_size: int
    _splits: dict[str, Split] = dataclasses.field(repr=False)
    _training: Callable[[int | None], tf.data.Dataset] = dataclasses.field(repr=False)
    _options: dict = dataclasses.field(repr=False)

    def train_from(self, epoch: int) -> tf.data.Dataset:
        """The batches of epoch `epoch` (from 0) and of those that follow it, without end.

        An epoch's order depends on the seed and its number alone, so a run that was broken off can go on.
        """
        return self._training(epoch)

    def with_features(self, model: keras.Model) -> "TaskData":
        """The same data, its pictures replaced by what the model's frozen encoder sees in them.

        The features are computed once and kept on disk, under the encoder, its weights, the size and
        the source; later runs read them. The model takes them in the place of pictures, and `test`
        keeps its pictures. Where the encoder is being fine-tuned nothing can be kept: the data comes back
        as it is.

        Raises:
            ValueError: the data is real and the encoder's ImageNet weights could not be had, or its size
                is not the data's.
            OSError: the disk has no room.
        """
        grid = model.get_layer("encoder").get_layer("grid")
        if grid.trainable:
            return self
        self.refuse_fallback(model)
        if grid.image_size != self.image_size:
            raise ValueError(
                f"Expected a model for pictures of {self.image_size} pixels, as the data has them. "
                f"Received: image_size={grid.image_size}. Build or load both with the same image_size."
            )
        weights = cache.digest(
            *(w.path for w in grid.network.weights),
            *(keras.ops.convert_to_numpy(w) for w in grid.weights),
        )
        kept = {
            name: replace(split, examples=_features(split, f"{self.source} {name}", grid, weights))
            for name, split in self._splits.items()
            if name in ("train", "validation")
        }
        return _assemble(self._splits | kept, **self._options)

    def refuse_fallback(self, model: keras.Model) -> None:
        """Stops a training on real pictures whose encoder only fell back to random weights."""
        if model.get_layer("encoder").get_layer("grid").fell_back and self.source != "toy":
            raise ValueError(
                f"The encoder starts from random weights, because ImageNet's could not be had, and "
                f"{self.source!r} holds real pictures: training would take hours and learn little. Fetch the "
                f"weights once with a network, name a file with weights='vgg16....h5', or choose "
                f"weights=None to train from random weights on purpose."
            )


def data(
    source: str | os.PathLike = "toy",
    *,
    language: str = "en",
    batch_size: int = 32,
    image_size: int | None = None,
    vocabulary: Vocabulary | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    seed: int = 0,
    static_shapes: bool = False,
    service: str | None = None,
    **options,
) -> TaskData:
    """Pictures and captions, ready for `model.fit`.

    Args:
        source: `"toy"`, `"coco_captions"` (37.6 GiB are fetched on first use), or a folder of
            pictures with a captions table (see `mmkeras.tables`).
        language: `"en"` (tokens are words) or `"zh"` (tokens are characters).
        batch_size: pictures a step, over all devices together.
        image_size: side in pixels that pictures are brought to; None: 64 for the toy world, 224 for photos,
            the sizes of the presets `"toy"` and `"document"`.
        vocabulary: None: counted from the training captions. Where it is given, a source without these will do
            for `evaluate`.
        min_count: words seen less often become `<unknown>`; None: 1 for the toy world and folders, 5 for COCO.
        max_size: of the vocabulary, special tokens included.
        max_length: tokens a caption, `<start>` and `<end>` included; longer ones are cut. None: as
            many as 99 % of the training captions need.
        seed: of the order and of the choice among a picture's captions.
        static_shapes: every dimension of `train` and `validation` is known, as a TPU wants it: batches are full
            ones alone, and the validation pictures that fill none are left out. `test` stays as it is.
        service: `"grpc://host:port"` of a tf.data service, whose workers then make the training batches, see
            `mmkeras.sources.epochs`. They must reach the dataset's files under the same path.
        options: of the source. Toy world: `objects` (1 or 2), `data_dir`. COCO: `data_dir`.
            Folder: `table` (the table's name), `encoding` (of the table), `validation_share` and
            `test_share` (of the pictures, 0.1 each, where the table has no `split` column).

    Raises:
        ValueError: an argument or the captions table is not as it should be, or a folder's pictures are to be
            read through a service.
        FileNotFoundError: of the pictures that the table names none is there.
        OSError: nobody answers at the service's address.
    """
    sources.check_language(language)
    sources.check_service(service)
    if image_size is None:
        image_size = 64 if source == "toy" else 224
    checks.ints(1, batch_size=batch_size, image_size=image_size)
    checks.ints(0, seed=seed)
    splits = pictures.read(source, language, image_size, **options)
    unit = "word" if language == "en" else "character"
    vocabulary, max_length = pictures.words(
        source,
        splits,
        unit,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
    )
    return _assemble(
        splits,
        vocabulary=vocabulary,
        source=str(source),
        image_size=image_size,
        max_length=max_length,
        batch_size=batch_size,
        seed=seed,
        static_shapes=static_shapes,
        service=service,
    )


# --- from examples to batches ---


def _assemble(splits, *, source, image_size, **options):
    def finished(batch):
        tokens = batch["tokens"]
        return {"image": batch["image"], "tokens": tokens[:, :-1]}, tokens[:, 1:]

    def for_fit(name):
        return pictures.paired(splits[name], finished, training=name == "train", **options)

    def for_evaluate(split):
        dataset = split.examples().map(lambda example: {k: example[k] for k in ("image", "captions")})
        return dataset.padded_batch(options["batch_size"]).prefetch(tf.data.AUTOTUNE)

    return TaskData(
        **sources.assemble(splits, for_fit, for_evaluate),
        source=source,
        image_size=image_size,
        **{name: options[name] for name in ("vocabulary", "max_length", "batch_size")},
        _splits=splits,
        _options=options | {"source": source, "image_size": image_size},
    )


def _features(split, title, grid, weights):
    name = f"{cache.digest(title)}-{grid.image_size}px-{weights}"

    def compute():
        network = keras.Model(grid.network.inputs, grid.network.outputs)
        print(f"Features of {title} (once; kept in {cache.folder() / name})")
        batches = split.examples().ragged_batch(16).prefetch(2)
        for batch in progress.bar(batches, "features", -(-split.count // 16)):
            found = keras.ops.convert_to_numpy(replicas.predict_alone(network, batch["image"].numpy()))
            yield from zip(found, batch["captions"].to_list(), strict=True)

    return lambda: cache.cached(
        name,
        split.made_from | {"image_size": grid.image_size, "weights": weights},
        compute,
        element_shape=grid.network.output_shape[1:],
        count=split.count,
    )
