"""Image search (chapter 6.1): the trained model, with an index of images.

    search = ImageSearch(model)
    search.index("my/photos")                   # encodes what is new or changed
    search.search("a red star")                 # [('my/photos/7.png', 0.93), ...]
    search.search("my/photos/7.png", k=10)      # images like it
    search.save("search.keras")                 # model and index in one file
    evaluate(search, data.test)                 # {'recall_at_1': ..., 'image_to_text_recall_at_1': ...}

Search is exact: all similarities are computed with NumPy, which for 100,000 images takes about a millisecond.
"""

import io
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
from keras import ops

from mmkeras._utils import checks, progress, saving, terminal
from mmkeras._utils.parts import Part
from mmkeras._utils.predictor import ImagePredictor
from mmkeras.applications.image_search.model import EPOCHS, TASK
from mmkeras.data import cache, tables
from mmkeras.distribute import collectives
from mmkeras.evaluation import explain, metrics
from mmkeras.evaluation.explanations import Explanation
from mmkeras.media import images

if TYPE_CHECKING:
    import tensorflow as tf

_INDEX = "index.npz"  # in the model's file
SUFFIXES = (*tables.SUFFIXES["captions"], ".ppm")


class ImageSearch(ImagePredictor):
    """Finds images by a text or by another image.

    Args:
        model: keras.Model. From `build`, or `keras.saving.load_model` once `mmkeras.applications` is imported.
            It is not copied: after more training of `model`, index the images again.

    Attributes:
        paths: The indexed images, in order.
    """

    names = (TASK,)
    title = "Image search"
    builder = "mmkeras.applications.image_search.build()"
    inputs = "queries"
    epochs, file, duration = EPOCHS, "image_search.keras", "about two minutes on two cores"
    variants: ClassVar = {TASK: (TASK, {})}
    language = None  # an index has queries in any language that its captions had

    def __init__(self, model: keras.Model):
        super().__init__(model)
        images, texts = model.get_layer("image_encoder"), model.get_layer("text_encoder")
        self.vocabulary = texts.get_layer("embedding").vocabulary
        self.image_encoder, self.text_encoder = images, texts
        self.network = images.get_layer("grid").network
        # A new model: `predict` must run outside of the strategy in whose scope `model` may have been built.
        self._texts = keras.Model(texts.input, texts.output)
        self.novelty = None
        self._forget()

    def _connect(self):
        encoder = self.image_encoder
        other = self.novelty.with_scores(encoder, "grid") if self.novelty else encoder
        self._images = keras.Model(other.input, dict(zip(("vectors", "scores"), other.outputs, strict=False)))

    def _forget(self):
        self.paths: list[str] = []
        self._stamps: list[tuple[int, int]] = []  # size and time of change of each file
        self._vectors = np.zeros((0, self.image_encoder.output_shape[-1]), np.float32)  # (N, D)
        self._made_by = ""  # digest of the weights

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_network(self) -> keras.Model:
        """Images (B, S, S, 3) → one vector each, (B, 1, D), before it gets length 1: an encoder for
        `mmkeras.captioning.build(encoder=...)`."""
        encoder = self.image_encoder
        image = keras.Input(self.network.input_shape[1:], name="image")
        vector = keras.Model(encoder.input, encoder.get_layer("vector").output)(image)  # (B, D)
        return keras.Model(image, keras.layers.Reshape((1, -1))(vector), name="image_network")

    # --- the index ---

    def index(self, source: str | os.PathLike | Iterable[str | os.PathLike]) -> int:
        """Makes the index that of a folder or of files. Only what is new or has changed is encoded.

        Args:
            source: A folder, whose images are found with those in its subfolders, or paths of images.

        Returns:
            The number of images that were encoded. A warning counts and names files that cannot be read.

        Raises:
            FileNotFoundError: if the folder does not exist.
            ValueError: if there is no image, or none can be read.
        """
        paths = _paths(source)
        if self._made_by and self._made_by != self._digest():
            self._forget()  # of another model, or before more training
        known = dict(zip(self.paths, self._stamps, strict=True))
        new = [path for path in paths if known.get(path) != _stamp(path)]
        encoded = self._encoded(new)
        self._keep(set(paths) - set(new))
        self._append(encoded)
        if not self.paths:
            raise ValueError(f"Expected source to have images that can be read. Received: source={source!r}")
        return len(encoded)

    def add(self, paths: str | os.PathLike | Iterable[str | os.PathLike]) -> int:
        """Adds images to the index, or encodes them again. Arguments and result as for `index`."""
        self._check_made_by()
        encoded = self._encoded(_paths(paths))
        self._keep(set(self.paths) - encoded.keys())
        self._append(encoded)
        return len(encoded)

    def remove(self, paths: str | os.PathLike | Iterable[str | os.PathLike]) -> None:
        """Removes images from the index.

        Raises:
            ValueError: if one is not in it.
        """
        given = [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
        if missing := [path for path in given if path not in self.paths]:
            raise ValueError(f"Expected paths of the index. Received: paths={missing[:5]}")
        self._keep(set(self.paths) - set(given))

    def search(self, query: Any, k: int = 5) -> list[tuple[str, float]]:
        """The images of the index that are most similar to a text or to an image.

        Args:
            query: str, the text; or a path of an image, an open file, a PIL image or an array.
            k: int. Number of images, at most that of the index. Defaults to 5.

        Returns:
            [(path, cosine similarity)], the best first. A warning names files that have vanished since they
            were indexed; they are left out.

        Raises:
            ValueError: if the index is empty or made by another model, `k` is not positive, a text has no word
                of the vocabulary, or an image cannot be read.
        """
        return self([query], k=k)[0]

    def __call__(self, queries: Any, *, k: int = 5) -> Any:
        """As `search`, also of a list of queries: a list in, a list out."""
        checks.ints(1, k=k)
        if not len(self):
            raise ValueError(
                "Expected an index with images. Received: an empty one. Make it with index(folder)"
            )
        self._check_made_by()
        if vanished := [path for path in self.paths if not os.path.isfile(path)]:
            terminal.warn(
                f"{len(vanished)} of {len(self)} indexed images are no longer there and are left out: "
                f"{', '.join(vanished[:3])}{' ...' if len(vanished) > 3 else ''}. Index again."
            )
        gone = set(vanished)
        there = np.array([path not in gone for path in self.paths])

        def read(query):
            if isinstance(query, str) and Path(query).suffix.lower() not in SUFFIXES:
                return self._checked(query)
            return self._read(query)

        def predict(values, positions):
            vectors = np.empty((len(values), self._vectors.shape[1]), np.float32)  # (Q, D)
            for is_text, encode in ((True, self.encode_texts), (False, self.encode_images)):
                rows = [row for row, value in enumerate(values) if isinstance(value, str) == is_text]
                if rows:
                    vectors[rows] = encode([values[row] for row in rows])
            similarity = np.where(there, vectors @ self._vectors.T, -np.inf)  # (Q, N)
            best = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, there.sum())]
            return [
                [(self.paths[i], float(row[i])) for i in order]
                for order, row in zip(best, similarity, strict=True)
            ]

        return self._answer(queries, read, predict)

    def explain(self, image: Any, text: str, method: str = "hires_cam", **options: Any) -> Explanation:
        """A map of the pixels of one image that its similarity to a text depends on.

        Args:
            image: Path, open file, PIL image or array.
            text: str.
            method: str. One of `mmkeras.evaluation.explain.METHODS`. Defaults to `"hires_cam"`.
            **options: Those of the method, such as `baseline`.

        Raises:
            ValueError: if the text has no word of the vocabulary.
        """
        original = images.read(image)
        batch, wanted = self._read(original)[None], self.encode_texts([self._checked(text)])  # (1, D)

        def similarity(vectors):
            return ops.sum(vectors * wanted, axis=-1)

        return explain.explanation(
            method, self.image_encoder, batch, similarity, original, [text], text, **options
        )

    # --- vectors ---

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts → unit vectors (N, D) float32."""
        return collectives.predict_batches(self._texts, self.vocabulary.encode_batch(list(texts)))

    def encode_images(self, batch: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Images (N, S, S, 3) RGB 0..255 → unit vectors (N, D) float32."""
        outputs = collectives.predict_batches(self._images, np.stack(batch))
        if self.novelty:
            self.novelty.warn(outputs["scores"], range(len(batch)))
        return outputs["vectors"]

    def parts(self):
        images = keras.Input(self.network.input_shape[1:], name="image")
        encoder = keras.Model(images, self.image_encoder(images))
        return {
            "image_encoder": Part.of(encoder, ("vector",)),
            "text_encoder": Part.of(self.text_encoder, ("vector",)),
        }

    @property
    def data_options(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "image_size": self.image_size, "max_length": 50}

    def evaluate(self, dataset):
        return evaluate(self, dataset)

    def save(self, path: str | os.PathLike) -> None:
        """Saves model and index in one `.keras` file, which `mmkeras.load` reads."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            paths=np.array(self.paths, dtype=str),
            stamps=np.array(self._stamps, np.int64).reshape(-1, 2),
            vectors=self._vectors,
            made_by=np.array(self._made_by),
        )
        saving.save(self.model, path, {_INDEX: content.getvalue()})

    def restore(self, path):
        with zipfile.ZipFile(path) as archive:
            if _INDEX not in archive.namelist():  # a ready-trained model has none
                return
            with np.load(io.BytesIO(archive.read(_INDEX))) as index:
                self.paths = index["paths"].tolist()
                self._stamps = list(map(tuple, index["stamps"].tolist()))
                self._vectors = index["vectors"]
                self._made_by = index["made_by"].item()

    def _read(self, image):
        return images.resize(images.read(image), self.image_size)

    def _checked(self, text):
        """The text, if it has a word of the vocabulary."""
        if not self.vocabulary.knows(text):
            raise ValueError(f"Expected query to have a word of {self.vocabulary!r}. Received: query={text!r}")
        return text

    def _encoded(self, paths):
        """{path: (stamp, vector)} of the files that can be read."""
        if not paths:
            return {}

        stamps = [_stamp(path) for path in paths]  # before they are read, so that a change in between shows
        try:
            vectors = self._answer(
                list(paths),
                self._read,
                lambda values, _: list(self.encode_images(values)),
                name="images",
                unread="They are left out.",
            )
        except (ValueError, OSError) as error:  # of several images it counts them
            terminal.warn(str(error) if len(paths) > 1 else f"1 of 1 images cannot be read: {error}")
            return {}
        rows = zip(paths, stamps, vectors, strict=True)
        return {path: (stamp, vector) for path, stamp, vector in rows if vector is not None}

    def _keep(self, paths):
        rows = [row for row, path in enumerate(self.paths) if path in paths]
        self.paths = [self.paths[row] for row in rows]
        self._stamps = [self._stamps[row] for row in rows]
        self._vectors = self._vectors[rows]

    def _append(self, encoded):
        self.paths += encoded
        self._stamps += [stamp for stamp, _ in encoded.values()]
        self._vectors = np.concatenate([self._vectors, *(vector[None] for _, vector in encoded.values())])
        self._made_by = self._digest()

    def _digest(self):
        return cache.digest(*(keras.ops.convert_to_numpy(w) for w in self.image_encoder.weights))

    def _check_made_by(self):
        if len(self) and self._made_by != self._digest():
            raise ValueError(
                "Expected an index made by this model. Received: one that was made with other weights. Make it "
                "again with index(...)"
            )


def _paths(source):
    """The paths of images: those of a folder with its subfolders in order, or those given."""
    if not isinstance(source, str | os.PathLike):
        return list(dict.fromkeys(os.fspath(path) for path in source))
    path = Path(source)
    if path.is_file():
        return [os.fspath(source)]
    if not path.is_dir():
        raise FileNotFoundError(f"Expected source to be a folder or images. There is no {str(source)!r}.")
    found = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(
            f"Expected source to be a folder with images ({', '.join(SUFFIXES)}). Received: "
            f"source={str(source)!r} without any"
        )
    return found


def _stamp(path):
    """Size and time of change of a file; (0, 0) if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return status.st_size, status.st_mtime_ns


def evaluate(search: ImageSearch, dataset: "tf.data.Dataset") -> dict[str, float]:
    """Searches all images of a dataset for each of its captions, and all captions for each image.

    Args:
        search: ImageSearch. Its index is neither used nor changed.
        dataset: Batches of {"image", "captions", "meaning"}, as `data(...).test`. All images of the same
            meaning are right answers.

    Returns:
        `recall_at_1`, `recall_at_5`, `recall_at_10` and `mrr` of texts that search for images; with the prefix
        `image_to_text_` of images that search for texts, see `mmkeras.evaluation.metrics.retrieval`.

    Raises:
        ValueError: if the dataset is empty or does not fit the model (fields, image size, vocabulary).
    """
    checks.images(dataset, search.image_size)
    checks.dataset(dataset, "image", "captions", "meaning")
    vectors, meanings, texts, owners = [], [], [], []
    for batch in progress.bar(dataset, "images"):
        ids = batch["meaning"].numpy()
        vectors.append(collectives.predict_batches(search._images, batch["image"].numpy())["vectors"])
        for meaning, captions in zip(ids, batch["captions"].numpy(), strict=True):
            captions = dict.fromkeys(text.decode() for text in captions if text)
            texts += captions
            owners += [meaning] * len(captions)
        meanings.append(ids)
    checks.not_empty(vectors)
    search.vocabulary.check_known(texts[:50])
    images = np.concatenate(vectors)  # (N, D)
    queries = dict(zip(texts, owners, strict=True))  # a caption that several images share is one query
    meanings, owners = np.concatenate(meanings), np.array(list(queries.values()))
    similarity = search.encode_texts(list(queries)) @ images.T  # (Q, N)
    relevant = owners[:, None] == meanings[None]  # (Q, N)
    back = metrics.retrieval(similarity.T, relevant.T)
    return metrics.retrieval(similarity, relevant) | {f"image_to_text_{n}": v for n, v in back.items()}
