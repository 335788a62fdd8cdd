"""Images from folders and zip files: what they become, and what is refused by its name."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

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


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_other_modes_become_rgb(picture, mode):
    grey = np.full((16, 16), 200, dtype=np.uint8)
    image = Image.fromarray((grey.astype(np.uint16) << 8) + 77 if mode == "I;16" else grey)
    if mode != "I;16":
        image = image.convert(mode)
    found = decode_image(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), "a", 16)
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8
    if mode != "1":  # black and white know no grey
        assert np.abs(found.astype(int) - 200).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "TIFF of the other byte order"])
def test_sixteen_bits_of_grey_become_their_higher_eight(picture, kind):
    grey = picture[..., 0].astype(np.uint16) * 256 + np.arange(16, dtype=np.uint16)
    image = Image.fromarray(grey.astype(">u2") if "other" in kind else grey)
    found = decode_image(encoded(image, kind.split()[0]), "a", 16)
    np.testing.assert_array_equal(found, picture[..., :1].repeat(3, axis=-1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_sixteen_bits_of_colour_become_their_higher_eight(picture, mode):
    colours = np.dstack([picture, np.full((16, 16), 9, np.uint8)])[..., : len(mode)]
    rows = (colours.astype(np.uint16) * 256 + 77).astype(">u2").reshape(16, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    content = png(struct.pack(">IIBBBBB", 16, 16, 16, 2 if mode == "RGB" else 6, 0, 0, 0), lines)
    np.testing.assert_array_equal(decode_image(content, "a.png", 16), picture)


@pytest.mark.parametrize("kind", ["CMYK in JPEG", "YCbCr in JPEG", "L*a*b* in TIFF"])
def test_other_spaces_of_colour_become_rgb(kind):
    colour = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    image = Image.fromarray(colour)
    if kind.startswith("L"):
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        content = encoded(image, "TIFF")
    else:
        content = encoded(image.convert(kind.split()[0]), "JPEG", quality=100)
    assert np.abs(decode_image(content, "a", 16).astype(int) - colour).max() <= 2


@pytest.mark.parametrize("transparency", [0, bytes([10, 0, 255])])
def test_a_palette_with_transparency_keeps_its_colours(transparency):
    colours = np.array([(200, 100, 50), (10, 20, 30), (250, 0, 5)], dtype=np.uint8)
    places = (np.arange(256) % 3).astype(np.uint8).reshape(16, 16)
    image = Image.fromarray(places)
    image.putpalette(colours.tobytes())
    found = decode_image(encoded(image, transparency=transparency), "a.png", 16)
    np.testing.assert_array_equal(found, colours[places])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_that_do_not_say_what_white_is_are_refused(picture, dtype):
    content = encoded(Image.fromarray(picture[..., 0].astype(dtype)), "TIFF")
    with pytest.raises(
        ArgumentError, match=r"^data a\.tif has floating-point, signed or 32-bit pixels, which do not say"
    ):
        decode_image(content, "a.tif", 16)


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


def png(header, lines):
    """A PNG of that header and those lines, each behind the number of its filter."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def png_header(width, height):
    """A PNG that says it is so large, and holds one pixel."""
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"\0" * 4)


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
