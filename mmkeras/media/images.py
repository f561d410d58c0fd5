"""Pictures of every kind → (H, W, 3) uint8 RGB. Pillow and NumPy alone.

picture = read("photo.jpg")       # also a PIL image or an array
picture = resize(picture, 224)    # (224, 224, 3)
"""

import contextlib
import logging
import os
import threading
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmkeras._utils import terminal

# How a whole file of these formats ends; what comes after it is somebody's appendix.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_WARNINGS = threading.Lock()
_LOGGER, _NOWHERE = logging.getLogger("PIL"), logging.NullHandler()


def read(picture: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
    """A picture as RGB.

    Grey, palette, RGBA, CMYK and 16-bit pictures are converted; transparency is laid over white, as
    paper would be; a photo that says it was taken sideways is turned.

    Args:
        picture: a path, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint16
            in 0..65535, or other numbers in 0..255.

    Returns:
        (H, W, 3) uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture or is cut short, or the array has another rank, NaN, or
            values out of range.
        TypeError: it is something else altogether.
    """
    if isinstance(picture, str | os.PathLike):
        with _open(picture) as opened:
            return _to_rgb(opened, f"{os.fspath(picture)!r}")
    if isinstance(picture, Image.Image):
        return _to_rgb(picture, "the PIL image")
    if isinstance(picture, np.ndarray):
        return _array_to_rgb(picture, "the array")
    raise TypeError(
        f"Expected a picture: a path, a PIL image or a NumPy array. Received: {type(picture).__name__}"
    )


def check(path: str | os.PathLike) -> tuple[int, int]:
    """Raises what `read` would raise, mostly without decoding: to look at many files before long
    work. Returns the picture's width and height in pixels."""
    with _open(path) as opened:
        end, size = _ENDS.get(opened.format), opened.size
    if end is not None:
        with open(path, "rb") as file:
            file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
            if end in file.read():
                return size
    read(path)
    return size


def crop(picture: np.ndarray) -> np.ndarray:
    """The square in the middle: (H, W, 3) → (min(H, W), min(H, W), 3)."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def resize(picture: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 → (size, size, 3), squeezed and not cropped: all of the picture stays in
    sight, and a map of attention lies right when it is stretched over the original."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"Expected size to be a positive number of pixels. Received: size={size!r}")
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
        raise ValueError(
            "Expected a picture of shape (H, W, 3) and dtype uint8, as `read` makes it. "
            f"Received: shape={picture.shape}, dtype={picture.dtype}"
        )
    if picture.shape[:2] == (size, size):
        return picture
    # Pillow's bilinear filter widens as it shrinks a picture, so that fine patterns do not alias.
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def _open(path):
    name = os.fspath(path)
    if os.path.isdir(name):
        raise ValueError(f"Expected a picture. Received: the folder {name!r}")
    if not os.path.exists(name):
        raise FileNotFoundError(f"There is no picture {name!r}.")
    try:
        with _quietly():
            return Image.open(name)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name!r} is too large, make it smaller: {error}") from None
    except UnidentifiedImageError:
        why = ": it is empty" if not os.path.getsize(name) else ""
        raise ValueError(f"{name!r} is not a picture that Pillow can read{why}.") from None
    except PermissionError:
        raise
    except Exception as error:  # each of Pillow's formats has exceptions of its own
        raise ValueError(f"{name!r} is cut short or damaged: {error}") from None


@contextlib.contextmanager
def _quietly():
    """Keeps to ourselves what Pillow says of large photos, which are welcome, and what it and libtiff
    say of damaged pictures, which are read all the same or refused with an error."""
    # Warning filters belong to the whole process, and pictures are read in several threads.
    with _WARNINGS, warnings.catch_warnings(), terminal.quiet_c_stderr():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        _LOGGER.addHandler(_NOWHERE)  # without any handler, logging prints errors
        try:
            yield
        finally:
            _LOGGER.removeHandler(_NOWHERE)


def _to_rgb(image, name):
    if 0 in image.size:
        raise ValueError(f"Expected a picture with pixels. Received: {name} of size={image.size}")
    try:
        # TIFF alone warns and prints here; the other formats need not wait for each other
        with _quietly() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()
    except Exception as error:  # as above: a broken PNG is a SyntaxError, a broken AVIF a RuntimeError
        raise ValueError(f"{name} is cut short or damaged: {error}") from None
    # Cameras' and editors' broken metadata must not cost the picture.
    with _quietly(), contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        return _array_to_rgb(np.asarray(image), name)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bits_to_rgb(np.asarray(image)[..., None], name)
    if image.has_transparency_data:
        # What lies under transparent pixels is arbitrary, and often black, as ink would be.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _array_to_rgb(array, name):
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            "Expected a picture of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a batch is "
            f"given as a list. Received: {name} of shape={array.shape}"
        )
    if array.dtype == np.uint16:
        return _sixteen_bits_to_rgb(array, name)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"Expected a picture of numbers in 0..255. Received: {name} of dtype={array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(
            f"Expected a picture of numbers in 0..255. Received: {name} with NaN or infinity in it"
        )
    # Floats that are all 0 are black in either range.
    if array.dtype.kind == "f" and array.min() >= 0 and 0 < array.max() <= 1:
        raise ValueError(
            f"Expected a picture in 0..255. Received: {name} of floats in 0..1 ({_range(array)}). "
            "Multiply it by 255"
        )
    if array.min() < 0 or array.max() > 255:
        raise ValueError(f"Expected a picture in 0..255. Received: {name} with {_range(array)}")
    return _channels_to_rgb(np.rint(array).astype(np.uint8))


def _sixteen_bits_to_rgb(array, name):
    """(H, W, C), of which 65535 is white."""
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(f"Expected a picture in 0..65535. Received: {name} with {_range(array)}")
    return _channels_to_rgb(np.rint(array * (255 / 65535)).astype(np.uint8))


def _channels_to_rgb(array):
    """(H, W, 1 or 3 or 4) uint8 → (H, W, 3)"""
    if array.shape[-1] == 1:
        return np.repeat(array, 3, axis=-1)
    if array.shape[-1] == 4:
        return _to_rgb(Image.fromarray(array), "the array")
    return array


def _range(array):
    return f"values from {array.min():.4g} to {array.max():.4g}"
