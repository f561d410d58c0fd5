"""Pictures of every kind are read, or refused with one clear error."""

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mmkeras.media import images

COLOR = (200, 60, 30)
GREY = 120


def one_colour(mode, color, **how):
    return Image.new(mode, (12, 8), color, **how)


def palette(transparent):
    image = one_colour("RGB", COLOR).convert("P", palette=Image.Palette.ADAPTIVE)
    if transparent:
        image.info["transparency"] = bytes([0] * 256)
    return image


def clear_colour():
    image = one_colour("RGB", COLOR)
    image.info["transparency"] = COLOR
    return image


def sixteen_bit(grey):
    return Image.fromarray(np.full((8, 12), grey * 257, np.uint16))


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("rgb.png", one_colour("RGB", COLOR), COLOR),
        ("rgb.jpg", one_colour("RGB", COLOR), COLOR),
        ("rgb.webp", one_colour("RGB", COLOR), COLOR),
        ("rgb.bmp", one_colour("RGB", COLOR), COLOR),
        ("grey.png", one_colour("L", GREY), (GREY,) * 3),
        ("grey.jpg", one_colour("L", GREY), (GREY,) * 3),
        ("grey_alpha.png", one_colour("LA", (GREY, 255)), (GREY,) * 3),
        ("one_bit.png", one_colour("1", 1), (255,) * 3),
        ("opaque.png", one_colour("RGBA", (*COLOR, 255)), COLOR),
        ("half.png", one_colour("RGBA", (*COLOR, 128)), tuple((c + 255) / 2 for c in COLOR)),
        ("clear.png", one_colour("RGBA", (*COLOR, 0)), (255,) * 3),
        ("palette.png", palette(False), COLOR),
        ("palette.gif", palette(False), COLOR),
        ("clear_palette.png", palette(True), (255,) * 3),
        ("clear_colour.png", clear_colour(), (255,) * 3),
        ("cmyk.tif", one_colour("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        # Pillow writes CMYK as Adobe does, inverted
        ("cmyk.jpg", one_colour("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        ("sixteen_bit.png", sixteen_bit(GREY), (GREY,) * 3),
        ("sixteen_bit.tif", sixteen_bit(GREY), (GREY,) * 3),
        (
            "thirty_two_bit.tif",
            Image.fromarray(np.full((8, 12), GREY * 257, np.int32)),
            (GREY,) * 3,
        ),
        ("float.tif", Image.fromarray(np.full((8, 12), GREY, np.float32)), (GREY,) * 3),
    ],
)
def test_every_kind_of_file_is_read(tmp_path, name, image, expected):
    image.save(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = images.read(tmp_path / name)
        images.check(tmp_path / name)
    assert picture.shape == (8, 12, 3) and picture.dtype == np.uint8
    lossy = name.endswith((".jpg", ".webp"))
    np.testing.assert_allclose(picture[4, 6], expected, atol=12 if lossy else 1)


def test_a_photo_taken_sideways_is_turned(tmp_path):
    half = np.zeros((8, 12, 3), np.uint8)
    half[:, :6] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.fromarray(half).save(tmp_path / "sideways.png", exif=exif)
    picture = images.read(tmp_path / "sideways.png")
    assert picture.shape == (12, 8, 3)
    assert picture[:6].min() == 255 and picture[6:].max() == 0


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("exif", [b"Exif\0\0no such thing", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"])
def test_broken_exif_does_not_cost_the_picture(tmp_path, name, exif):
    one_colour("RGB", COLOR).save(tmp_path / name, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = images.read(tmp_path / name)
    np.testing.assert_allclose(picture[4, 6], COLOR, atol=12)


def test_large_photos_are_read_without_a_warning_in_many_threads(tmp_path, monkeypatch):
    one_colour("RGB", COLOR).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # of 96: Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            pictures = list(pool.map(images.read, [tmp_path / "large.png"] * 100))
        assert warnings.filters == before
    assert all((picture == COLOR).all() for picture in pictures)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # more than twice: Pillow refuses
    with pytest.raises(ValueError, match=r"large\.png.*too large"):
        images.read(tmp_path / "large.png")


def test_files_are_closed(tmp_path):
    one_colour("RGB", COLOR).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        images.read(tmp_path / "a.png")
        with pytest.raises(ValueError, match="cut short"):
            images.read(tmp_path / "b.png")


def test_tensorflow_is_not_loaded():
    code = "import sys, mmkeras.media.images; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((8, 12), GREY, np.uint8), (GREY,) * 3),
        (np.full((8, 12, 1), GREY, np.int64), (GREY,) * 3),
        (np.full((8, 12, 3), COLOR, np.float32), COLOR),
        (np.full((8, 12, 4), (*COLOR, 0), np.uint8), (255,) * 3),
        (np.full((8, 12), GREY * 257, np.uint16), (GREY,) * 3),
        (np.full((8, 12, 3), [c * 257 for c in COLOR], np.uint16), COLOR),
        (np.ones((8, 12, 3), np.int64), (1, 1, 1)),
        (np.zeros((8, 12, 3), np.float64), (0, 0, 0)),
    ],
)
def test_arrays_are_read(array, expected):
    picture = images.read(array)
    assert picture.shape == (8, 12, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[0, 0], expected)


def test_pil_images_are_read():
    np.testing.assert_array_equal(images.read(one_colour("RGB", COLOR))[0, 0], COLOR)


def nan():
    array = np.zeros((8, 8, 3))
    array[3, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3)), "batch is given as a list"),
        (np.zeros(8), "shape"),
        (np.zeros((8, 8, 2)), "shape"),
        (np.zeros((0, 8, 3)), "shape"),
        (nan(), "NaN"),
        (np.full((8, 8, 3), np.inf), "infinity"),
        (np.full((8, 8, 3), 0.5), r"0\.\.1.*Multiply it by 255"),
        (Image.fromarray(np.full((8, 8), 0.5, np.float32)), r"PIL image.*Multiply it by 255"),
        (Image.fromarray(np.full((8, 8), 70_000, np.int32)), r"0\.\.65535.*70000|7e\+04"),
        (Image.new("RGB", (0, 8)), r"size=\(0, 8\)"),
        (np.ones((8, 8), bool), "dtype=bool"),
        (np.full((8, 8, 3), 255.5), "0..255"),
        (np.full((8, 8, 3), -1), "0..255"),
        (np.full((8, 8, 3), 256), "0..255"),
        (np.full((8, 8, 3), "x"), "dtype"),
    ],
)
def test_bad_arrays_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        images.read(array)


@pytest.mark.parametrize("look", [images.read, images.check])
def test_bad_files_are_refused(tmp_path, look):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        look(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match="folder"):
        look(tmp_path)
    (tmp_path / "text.jpg").write_text("not a picture at all")
    with pytest.raises(ValueError, match=r"text\.jpg.*not a picture"):
        look(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty\.jpg.*not a picture.*empty"):
        look(tmp_path / "empty.jpg")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("photo.jpg", "photo.png", "photo.webp", "photo.gif"):
        Image.fromarray(noise).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=rf"{name}.*cut short"):
            look(tmp_path / name)


def test_a_damaged_tiff_prints_nothing(tmp_path, capfd):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for compression, at in (("tiff_lzw", 50), ("tiff_adobe_deflate", 50), ("tiff_lzw", -8)):
        Image.fromarray(noise).save(tmp_path / "a.tif", compression=compression)
        whole = bytearray((tmp_path / "a.tif").read_bytes())
        whole[at : at + 4] = b"\xff" * 4
        (tmp_path / "a.tif").write_bytes(whole)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=r"a\.tif"):
                images.read(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="Received: int"):
        images.read(3)


@pytest.mark.parametrize(
    ("picture", "size", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), 0, "size=0"),
        (np.zeros((8, 8, 3), np.uint8), 4.0, r"size=4\.0"),
        (np.zeros((8, 8, 3), np.uint8), True, "size=True"),
        (np.zeros((8, 8, 3)), 4, "dtype=float64"),
        (np.zeros((8, 8), np.uint8), 4, r"shape=\(8, 8\)"),
    ],
)
def test_what_cannot_be_resized_is_refused(picture, size, message):
    with pytest.raises(ValueError, match=message):
        images.resize(picture, size)


def test_resizing_squeezes_and_keeps_what_fits():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 40:] = 255
    small = images.resize(picture, 10)
    assert small.shape == (10, 10, 3)
    assert small[:, :4].max() == 0 and small[:, 6:].min() == 255
    assert images.resize(small, 10) is small
    small[:] = 0  # it can be painted on


def test_resizing_smooths_fine_patterns():
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    small = images.resize(stripes, 10)
    assert abs(small.astype(int) - 127).max() < 10
