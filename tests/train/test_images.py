"""Images from folders and zip files: what they become, and what is refused by its name."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from link.errors import ArgumentError
from train.images import PIXELS_MAX, ImageStore, decode_image, read_images


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def picture():
    """A picture of 16 x 16 whose every pixel is its own."""
    rows, columns = np.mgrid[:16, :16]
    return np.stack([rows * 16, columns * 16, (rows + columns) * 8], axis=-1).astype(np.uint8)


def test_an_rgb_image_of_the_size_is_its_pixels(picture):
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(picture)), "a.png", 16), picture, strict=True)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I"])
def test_other_modes_become_rgb(picture, mode):
    grey = np.full((16, 16), 200, dtype=np.uint8)
    image = Image.fromarray(grey)
    if mode in ("I;16", "I"):
        image = Image.fromarray((grey.astype(np.uint16) << 8) + 77) if mode == "I;16" else image.convert("I")
    else:
        image = image.convert(mode)
    found = decode_image(encoded(image, "TIFF" if mode in ("CMYK", "I") else "PNG"), "a", 16)
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8
    # Black and white know no grey, and an image of 32 bits counts to more than 255.
    expected = {"1": None, "I": 0}.get(mode, 200)
    if expected is not None:
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_transparent_pixels_keep_their_colour(picture):
    alpha = np.zeros((16, 16, 1), dtype=np.uint8)
    image = Image.fromarray(np.concatenate([picture, alpha], axis=-1), "RGBA")
    np.testing.assert_array_equal(decode_image(encoded(image), "a.png", 16), picture)


def test_an_image_of_another_size_is_resized_by_means(picture):
    doubled = Image.fromarray(picture.repeat(2, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(decode_image(encoded(doubled), "a.png", 16), picture)
    assert decode_image(encoded(Image.fromarray(picture)), "a.png", 32).shape == (32, 32, 3)


def test_an_image_is_turned_as_the_camera_says(picture):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = decode_image(encoded(Image.fromarray(picture), exif=exif), "a.png", 16)
    np.testing.assert_array_equal(found, picture[::-1, ::-1])


def png_header(width, height):
    """A PNG that says it is so large, and holds one pixel."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 4)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken.png is no image"),
        (b"GIF? no", "broken.png is no image"),
        (png_header(8001, 8000), f"broken.png is enormous: 8001 x 8000 pixels, at most {PIXELS_MAX:,} in all"),
        (png_header(60_000, 60_000), "broken.png is enormous: "),
        (png_header(20, 20), "broken.png cannot be decoded: "),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(content, message):
    with pytest.raises(ArgumentError) as refused:
        decode_image(content, "broken.png", 16)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_truncated_image_is_refused_wherever_it_ends(picture, kind):
    whole = encoded(Image.fromarray(picture.repeat(8, axis=0).repeat(8, axis=1)), kind)
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(ArgumentError, match=r"^data cut is no image|^data cut cannot be decoded"):
            decode_image(whole[: int(len(whole) * share)], "cut", 16)


@pytest.fixture(params=["folder", "zip", "zip with folders inside"])
def store(request, picture, tmp_path):
    files = {"a.png": encoded(Image.fromarray(picture)), "b.jpg": encoded(Image.fromarray(picture), "JPEG")}
    if request.param == "folder":
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return ImageStore(tmp_path)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for name, content in files.items():
            file.writestr(name if request.param == "zip" else f"images/more/{name}", content)
    return ImageStore(tmp_path / "images.zip")


def test_images_are_found_with_or_without_their_ending(store, picture):
    with store:
        found = read_images(store, ["a", "a.png", "b", "./somewhere/a.png"], 16)
        np.testing.assert_array_equal(found[[0, 1, 3]], np.stack([picture] * 3))
        with pytest.raises(ArgumentError, match=r"image c\.png is not in "):
            store.read("c.png")


def test_a_name_leads_nowhere_outside_the_folder(tmp_path, picture):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(Image.fromarray(picture)))
    with pytest.raises(ArgumentError, match=r"is not in"):
        ImageStore(tmp_path / "images").read("../secret.png")


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    with (
        ImageStore(tmp_path) as store,
        pytest.raises(ArgumentError, match=r"image 9+\.\.\. in .* cannot be read: File name"),
    ):
        store.read("9" * 5000)


def test_a_place_without_images_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="is neither a folder nor a zip file of images"):
        ImageStore(tmp_path / "nowhere")
    (tmp_path / "images.zip").write_bytes(b"no zip")
    with pytest.raises(ArgumentError, match=r"images\.zip is no zip file of images"):
        ImageStore(tmp_path / "images.zip")
