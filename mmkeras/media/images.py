"""Reading images: (H, W, 3) uint8 RGB. Needs Pillow and NumPy only.

image = read("photo.jpg")     # also an open file, bytes, a PIL image or an array
image = resize(image, 224)    # (224, 224, 3)
"""

import contextlib
import io
import logging
import os
import threading
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmkeras._utils import checks, terminal

# Last bytes of an undamaged file. Some programs append other data.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_WARNINGS = threading.Lock()
_LOGGER, _NO_OUTPUT = logging.getLogger("PIL"), logging.NullHandler()


def read(image: str | os.PathLike | BinaryIO | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """Reads an image as RGB.

    Gray, palette, RGBA, CMYK and 16-bit images are converted. Transparent pixels become white. A photo is
    rotated as its EXIF orientation says.

    Args:
        image: Path, file opened with mode "rb", bytes of a file, PIL image, or array (H, W), (H, W, 1), (H, W,
            3) or (H, W, 4): uint16 in 0..65535, or other numbers in 0..255.

    Returns:
        (H, W, 3) uint8.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is not an image, is truncated or damaged; for an array of another shape, with
            NaN, or with values out of range.
        TypeError: for another type.
    """
    if isinstance(image, Image.Image):
        return _to_rgb(image, "the PIL image")
    if isinstance(image, np.ndarray):
        return _array_to_rgb(image, "the array")
    with _open(image) as opened:
        return _to_rgb(opened, _name(image))


def check(path: str | os.PathLike) -> tuple[int, int]:
    """Raises the errors of `read`, usually without decoding. Returns width and height in pixels."""
    with _open(path) as opened:
        end, size = _ENDS.get(opened.format), opened.size
    if end is not None:
        with open(path, "rb") as file:
            file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
            if end in file.read():
                return size
    read(path)
    return size


def crop(image: np.ndarray) -> np.ndarray:
    """Crops an image to the square in the middle: (H, W, 3) → (min(H, W), min(H, W), 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image to a square without cropping, so that an attention map fits the original.

    Args:
        image: (H, W, 3) uint8.
        size: int. Side in pixels.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ValueError: for another shape or dtype, or an invalid size.
    """
    checks.ints(1, size=size)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"Expected image to have the shape (H, W, 3) and dtype uint8, as `read` returns it. "
            f"Received: shape={image.shape}, dtype={image.dtype}"
        )
    if image.shape[:2] == (size, size):
        return image
    # Pillow's bilinear filter is antialiased.
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _name(file):
    name = os.fspath(file) if isinstance(file, str | os.PathLike) else getattr(file, "name", None)
    return repr(name) if isinstance(name, str) else f"the {type(file).__name__}"


def _open(file):
    name, source = _name(file), file
    if isinstance(file, str | os.PathLike):
        if os.path.isdir(file):
            raise ValueError(f"Expected image to be a file. Received: the folder {name}")
        if not os.path.exists(file):
            raise FileNotFoundError(f"Expected image to be a file. Received: {name}, which does not exist")
    elif isinstance(file, bytes | bytearray):
        source = io.BytesIO(file)
    elif isinstance(file, io.TextIOBase) or not hasattr(file, "read"):
        raise TypeError(
            f"Expected image to be a path, a file opened with mode 'rb', bytes, a PIL image or a NumPy array. "
            f"Received: {name}"
        )
    try:
        with _quiet():
            return Image.open(source)
    except Image.DecompressionBombError as error:
        raise ValueError(f"Expected image to be smaller. Received: {name}: {error}") from None
    except UnidentifiedImageError:
        if not (os.path.getsize(file) if isinstance(file, str | os.PathLike) else file):
            raise ValueError(f"Expected image to be a file with content. Received: {name} of 0 bytes") from None
        file_name = name if name.startswith("'") else "FILE"
        raise ValueError(
            f"Expected image to be in a format that Pillow reads (jpg, png, webp, avif, gif, bmp, tiff ...). "
            f"Convert other formats (heic, svg ...): magick {file_name} image.png; take a frame of a video: "
            f"ffmpeg -i {file_name} -frames:v 1 image.png. Received: {name}"
        ) from None
    except PermissionError:
        raise
    except Exception as error:  # Pillow's formats raise different types
        raise ValueError(f"Expected image to be undamaged. Received: {name}: {error}") from None


@contextlib.contextmanager
def _quiet():
    """Suppresses warnings and messages of Pillow and libtiff on large and on damaged images."""
    # Warning filters are global to the process, and images are read in several threads.
    with _WARNINGS, warnings.catch_warnings(), terminal.quiet_c_stderr():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        _LOGGER.addHandler(_NO_OUTPUT)  # without any handler, logging prints errors
        try:
            yield
        finally:
            _LOGGER.removeHandler(_NO_OUTPUT)


def _to_rgb(image, name):
    if 0 in image.size:
        raise ValueError(f"Expected image to have pixels. Received: {name} of size={image.size}")
    try:
        # Only TIFF warns and prints here; other formats need not wait for the lock.
        with _quiet() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()
    except Exception as error:  # as above: a broken PNG is a SyntaxError, a broken AVIF a RuntimeError
        raise ValueError(f"Expected image to be undamaged. Received: {name}: {error}") from None
    # Broken metadata is no reason to refuse an image.
    with _quiet(), contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        return _array_to_rgb(np.asarray(image), name)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bits_to_rgb(np.asarray(image)[..., None], name)
    if image.mode == "La":  # Pillow converts it to no other mode
        image = image.convert("LA")
    if image.has_transparency_data:
        # The color of transparent pixels is arbitrary, and often black.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _array_to_rgb(array, name):
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"Expected image to have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Pass a batch as a "
            f"list. Received: {name} of shape={array.shape}"
        )
    if array.dtype == np.uint16:
        return _sixteen_bits_to_rgb(array, name)
    # Floats that are all 0 are black in both ranges.
    if array.dtype.kind == "f" and array.min() >= 0 and 0 < array.max() <= 1:
        raise ValueError(
            f"Expected image to be in 0..255. Multiply it by 255. Received: {name} of {_range(array)}"
        )
    if array.dtype.kind not in "iuf" or not (array.min() >= 0 and array.max() <= 255):  # False for NaN
        raise ValueError(f"Expected image to be numbers in 0..255. Received: {name} of {_range(array)}")
    return _channels_to_rgb(np.rint(array).astype(np.uint8))


def _sixteen_bits_to_rgb(array, name):
    """(H, W, C) in 0..65535 → (H, W, 3)"""
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(f"Expected image to be in 0..65535. Received: {name} of {_range(array)}")
    return _channels_to_rgb(np.rint(array * (255 / 65535)).astype(np.uint8))


def _channels_to_rgb(array):
    """(H, W, 1 or 3 or 4) uint8 → (H, W, 3)"""
    if array.shape[-1] == 1:
        return np.repeat(array, 3, axis=-1)
    if array.shape[-1] == 4:
        return _to_rgb(Image.fromarray(array), "the array")
    return array


def _range(array):
    is_number = array.dtype.kind in "iuf"
    return f"dtype={array.dtype}" + (f", values from {array.min()} to {array.max()}" if is_number else "")
