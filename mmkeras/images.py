"""Pictures of every kind → (H, W, 3) uint8 RGB. Pillow and NumPy alone.

    picture = read("photo.jpg")       # also a PIL image or an array
    picture = resize(picture, 224)    # (224, 224, 3)
"""

import os
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# How a whole file of these formats ends; what comes after it is somebody's appendix.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def read(picture: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
    """A picture as RGB.

    Grey, palette, RGBA, CMYK and 16-bit pictures are converted; transparency is laid over white, as paper would
    be; a photo that says it was taken sideways is turned.

    Args:
        picture: a path, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, uint16
            (0..65535), or other numbers in 0..255.

    Returns:
        (H, W, 3) uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture or is cut short, or the array has another rank, NaN, or values out of
            range.
        TypeError: it is something else altogether.
    """
    if isinstance(picture, str | os.PathLike):
        with _open(picture) as opened:
            return _to_rgb(opened, f"{os.fspath(picture)!r}")
    if isinstance(picture, Image.Image):
        return _to_rgb(picture, "the PIL image")
    if isinstance(picture, np.ndarray):
        return _array_to_rgb(picture)
    raise TypeError(
        f"Expected a picture: a path, a PIL image or a NumPy array. Received: {type(picture).__name__}"
    )


def check(path: str | os.PathLike) -> None:
    """Raises what `read` would raise, mostly without decoding: for looking at many files before long work."""
    with _open(path) as opened:
        end = _ENDS.get(opened.format)
    if end is not None:
        with open(path, "rb") as file:
            file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
            if end in file.read():
                return
    read(path)


def resize(picture: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) → (size, size, 3), squeezed and not cropped: all of the picture stays in sight, and a map of
    attention lies right when it is stretched over the original."""
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"Expected size to be a positive number of pixels. Received: size={size!r}")
    if picture.shape[:2] == (size, size):
        return picture
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _open(path):
    name = os.fspath(path)
    if os.path.isdir(name):
        raise ValueError(f"Expected a picture. Received: the folder {name!r}")
    if not os.path.exists(name):
        raise FileNotFoundError(f"There is no picture {name!r}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photos are welcome
            return Image.open(name)
    except UnidentifiedImageError:
        raise ValueError(f"{name!r} is not a picture that Pillow can read.") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name!r} is too large: {error}") from None
    except OSError as error:
        raise ValueError(f"{name!r} is cut short or damaged: {error}") from None


def _to_rgb(image, name):
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _grey_to_rgb(np.asarray(image), name)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow calls a broken PNG a SyntaxError
        raise ValueError(f"{name} is cut short or damaged: {error}") from None


def _grey_to_rgb(grey, name):
    """(H, W) of more than eight bits."""
    if not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > 65535:
        raise ValueError(f"{name}: expected grey values in 0..65535. Received: {_range(grey)}")
    # a 16-bit file uses its whole range; a floating-point one is in 0..255 like any array
    scale = 1.0 if grey.dtype.kind == "f" and grey.max() <= 255 else 255 / 65535
    return np.repeat(np.rint(grey * scale).astype(np.uint8)[..., None], 3, axis=-1)


def _array_to_rgb(array):
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"Expected a picture of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a batch is given as a list. "
            f"Received: shape={array.shape}"
        )
    if array.dtype == np.uint16:
        array = np.rint(array * (255 / 65535))
    elif array.dtype != np.uint8:
        if array.dtype.kind not in "iuf":
            raise ValueError(f"Expected a picture of numbers in 0..255. Received: dtype={array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError("Expected a picture of numbers in 0..255. Received: NaN or infinity among them")
        if array.dtype.kind == "f" and 0 < array.max() <= 1 and array.min() >= 0:
            raise ValueError(
                f"Expected a picture in 0..255. Received: floats in 0..1 ({_range(array)}). Multiply it by 255"
            )
        if array.min() < 0 or array.max() > 255:
            raise ValueError(f"Expected a picture in 0..255. Received: {_range(array)}")
        array = np.rint(array)
    array = array.astype(np.uint8)
    if array.shape[-1] == 1:
        return np.repeat(array, 3, axis=-1)
    if array.shape[-1] == 4:
        return _to_rgb(Image.fromarray(array, "RGBA"), "the array")
    return array


def _range(array):
    return f"values from {array.min():.4g} to {array.max():.4g}"
