"""Reading images from files, bytes, PIL images and arrays."""

import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mmkeras.media import images

COLOR = (200, 60, 30)
GRAY = 120


def one_color(mode, color):
    return Image.new(mode, (12, 8), color)


def palette(transparent):
    image = one_color("RGB", COLOR).convert("P", palette=Image.Palette.ADAPTIVE)
    if transparent:
        image.info["transparency"] = bytes([0] * 256)
    return image


def clear_color():
    image = one_color("RGB", COLOR)
    image.info["transparency"] = COLOR
    return image


def sixteen_bit(gray):
    return Image.fromarray(np.full((8, 12), gray * 257, np.uint16))


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("rgb.png", one_color("RGB", COLOR), COLOR),
        ("rgb.jpg", one_color("RGB", COLOR), COLOR),
        ("rgb.webp", one_color("RGB", COLOR), COLOR),
        ("rgb.bmp", one_color("RGB", COLOR), COLOR),
        ("gray.png", one_color("L", GRAY), (GRAY,) * 3),
        ("gray.jpg", one_color("L", GRAY), (GRAY,) * 3),
        ("gray_alpha.png", one_color("LA", (GRAY, 255)), (GRAY,) * 3),
        ("one_bit.png", one_color("1", 1), (255,) * 3),
        ("opaque.png", one_color("RGBA", (*COLOR, 255)), COLOR),
        ("half.png", one_color("RGBA", (*COLOR, 128)), tuple((c + 255) / 2 for c in COLOR)),
        ("clear.png", one_color("RGBA", (*COLOR, 0)), (255,) * 3),
        ("palette.png", palette(False), COLOR),
        ("palette.gif", palette(False), COLOR),
        ("clear_palette.png", palette(True), (255,) * 3),
        ("clear_color.png", clear_color(), (255,) * 3),
        ("cmyk.tif", one_color("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        # Pillow writes CMYK as Adobe does, inverted
        ("cmyk.jpg", one_color("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        ("sixteen_bit.png", sixteen_bit(GRAY), (GRAY,) * 3),
        ("sixteen_bit.tif", sixteen_bit(GRAY), (GRAY,) * 3),
        (
            "thirty_two_bit.tif",
            Image.fromarray(np.full((8, 12), GRAY * 257, np.int32)),
            (GRAY,) * 3,
        ),
        ("float.tif", Image.fromarray(np.full((8, 12), GRAY, np.float32)), (GRAY,) * 3),
    ],
)
def test_files_of_all_formats_are_read(tmp_path, name, image, expected):
    image.save(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = images.read(tmp_path / name)
        images.check(tmp_path / name)
    assert result.shape == (8, 12, 3) and result.dtype == np.uint8
    lossy = name.endswith((".jpg", ".webp"))
    np.testing.assert_allclose(result[4, 6], expected, atol=12 if lossy else 1)


def test_exif_orientation_is_applied(tmp_path):
    half = np.zeros((8, 12, 3), np.uint8)
    half[:, :6] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate right
    Image.fromarray(half).save(tmp_path / "sideways.png", exif=exif)
    result = images.read(tmp_path / "sideways.png")
    assert result.shape == (12, 8, 3)
    assert result[:6].min() == 255 and result[6:].max() == 0


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("exif", [b"Exif\0\0invalid", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"])
def test_broken_exif_is_ignored(tmp_path, name, exif):
    one_color("RGB", COLOR).save(tmp_path / name, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = images.read(tmp_path / name)
    np.testing.assert_allclose(result[4, 6], COLOR, atol=12)


def test_large_images_are_read_without_a_warning_in_many_threads(tmp_path, monkeypatch):
    one_color("RGB", COLOR).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # of 96: Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(images.read, [tmp_path / "large.png"] * 100))
        assert warnings.filters == before
    assert all((result == COLOR).all() for result in results)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # more than twice: Pillow refuses
    with pytest.raises(ValueError, match=r"large\.png"):
        images.read(tmp_path / "large.png")


def test_files_are_closed(tmp_path):
    one_color("RGB", COLOR).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        images.read(tmp_path / "a.png")
        with pytest.raises(ValueError, match="b.png"):
            images.read(tmp_path / "b.png")


def test_open_files_and_bytes_are_read(tmp_path):
    path = tmp_path / "a.png"
    one_color("RGB", COLOR).save(path)
    data = path.read_bytes()
    with path.open("rb") as file:
        for image in (file, io.BytesIO(data), data, bytearray(data)):
            np.testing.assert_array_equal(images.read(image), images.read(path))
        assert not file.closed
    with path.open("rb") as file, path.open("rb", buffering=0) as unbuffered:
        np.testing.assert_array_equal(images.read(file), images.read(unbuffered))


def test_unreadable_open_files_and_bytes_raise(tmp_path):
    path = tmp_path / "a.png"
    one_color("RGB", COLOR).save(path)
    data = path.read_bytes()
    for image, received in ((b"", "the bytes"), (b"text", "the bytes"), (io.BytesIO(data[:50]), "the BytesIO")):
        with pytest.raises(ValueError, match=received):
            images.read(image)
    path.write_text("text")
    with path.open("rb") as file, pytest.raises(ValueError, match="a.png"):
        images.read(file)
    with path.open() as file, pytest.raises(TypeError, match="a.png"):
        images.read(file)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"),
        ("a drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"),
        ("a film.mp4", b"\0\0\0\x20ftypisom"),
    ],
)
def test_other_formats_raise_with_a_command_that_converts_them(tmp_path, name, head):
    (tmp_path / name).write_bytes(head + bytes(2_000))
    with pytest.raises(ValueError, match=f"magick '.*{name}' image.png.*ffmpeg -i '.*{name}'"):
        images.read(tmp_path / name)


def test_premultiplied_gray_is_read():
    image = one_color("LA", (GRAY, 255)).convert("La")
    np.testing.assert_array_equal(images.read(image), np.full((8, 12, 3), GRAY))


def test_an_empty_file_is_named_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    for image, name in ((tmp_path / "a.jpg", r"a\.jpg"), (b"", "bytes")):
        with pytest.raises(ValueError, match=f"{name}.* 0 bytes"):
            images.read(image)


def test_tensorflow_is_not_loaded():
    code = "import sys, mmkeras.media.images; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((8, 12), GRAY, np.uint8), (GRAY,) * 3),
        (np.full((8, 12, 1), GRAY, np.int64), (GRAY,) * 3),
        (np.full((8, 12, 3), COLOR, np.float32), COLOR),
        (np.full((8, 12, 4), (*COLOR, 0), np.uint8), (255,) * 3),
        (np.full((8, 12), GRAY * 257, np.uint16), (GRAY,) * 3),
        (np.full((8, 12, 3), [c * 257 for c in COLOR], np.uint16), COLOR),
        (np.ones((8, 12, 3), np.int64), (1, 1, 1)),
        (np.zeros((8, 12, 3), np.float64), (0, 0, 0)),
    ],
)
def test_arrays_are_read(array, expected):
    result = images.read(array)
    assert result.shape == (8, 12, 3) and result.dtype == np.uint8
    np.testing.assert_array_equal(result[0, 0], expected)


def test_pil_images_are_read():
    np.testing.assert_array_equal(images.read(one_color("RGB", COLOR))[0, 0], COLOR)


def nan():
    array = np.zeros((8, 8, 3))
    array[3, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3)), r"shape=\(2, 8, 8, 3\)"),
        (np.zeros(8), "shape"),
        (np.zeros((8, 8, 2)), "shape"),
        (np.zeros((0, 8, 3)), "shape"),
        (nan(), "nan"),
        (np.full((8, 8, 3), np.inf), "inf"),
        (np.full((8, 8, 3), 0.5), "Multiply it by 255.*array"),
        (Image.fromarray(np.full((8, 8), 0.5, np.float32)), "Multiply it by 255.*PIL image"),
        (Image.fromarray(np.full((8, 8), 70_000, np.int32)), r"0\.\.65535.*70000|7e\+04"),
        (Image.new("RGB", (0, 8)), r"size=\(0, 8\)"),
        (np.ones((8, 8), bool), "dtype=bool"),
        (np.full((8, 8, 3), 255.5), "0..255"),
        (np.full((8, 8, 3), -1), "0..255"),
        (np.full((8, 8, 3), 256), "0..255"),
        (np.full((8, 8, 3), "x"), "dtype"),
    ],
)
def test_invalid_arrays_raise(array, message):
    with pytest.raises(ValueError, match=message):
        images.read(array)


@pytest.mark.parametrize("function", [images.read, images.check])
def test_unreadable_files_raise(tmp_path, function):
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        function(tmp_path / "missing.jpg")
    with pytest.raises(ValueError, match="folder"):
        function(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    unreadable = {"text.jpg": b"not an image", "empty.jpg": b""}
    for name in ("photo.jpg", "photo.png", "photo.webp", "photo.gif"):
        Image.fromarray(noise).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        unreadable[name] = data[: len(data) // 2]
    for name, data in unreadable.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            function(tmp_path / name)


def test_damaged_tiff_prints_nothing(tmp_path, capfd):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for compression, at in (("tiff_lzw", 50), ("tiff_adobe_deflate", 50), ("tiff_lzw", -8)):
        Image.fromarray(noise).save(tmp_path / "a.tif", compression=compression)
        data = bytearray((tmp_path / "a.tif").read_bytes())
        data[at : at + 4] = b"\xff" * 4
        (tmp_path / "a.tif").write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=r"a\.tif"):
                images.read(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


def test_other_types_raise():
    with pytest.raises(TypeError, match="the int"):
        images.read(3)


@pytest.mark.parametrize(
    ("result", "size", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), 0, "size=0"),
        (np.zeros((8, 8, 3), np.uint8), 4.0, r"size=4\.0"),
        (np.zeros((8, 8, 3), np.uint8), True, "size=True"),
        (np.zeros((8, 8, 3)), 4, "dtype=float64"),
        (np.zeros((8, 8), np.uint8), 4, r"shape=\(8, 8\)"),
    ],
)
def test_invalid_arguments_of_resize_raise(result, size, message):
    with pytest.raises(ValueError, match=message):
        images.resize(result, size)


def test_resize_does_not_crop_and_keeps_the_right_size():
    result = np.zeros((40, 80, 3), np.uint8)
    result[:, 40:] = 255
    small = images.resize(result, 10)
    assert small.shape == (10, 10, 3)
    assert small[:, :4].max() == 0 and small[:, 6:].min() == 255
    assert images.resize(small, 10) is small
    small[:] = 0  # it is writable


def test_resize_is_antialiased():
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    small = images.resize(stripes, 10)
    assert abs(small.astype(int) - 127).max() < 10
