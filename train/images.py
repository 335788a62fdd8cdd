"""Images from a folder or a zip file, as squares of RGB pixels.

What cannot be an image of a data set is refused by its name: missing, truncated, no image at all, or so large that it would
fill the memory. The size is read from the header, before anything is decoded.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError, MissingExtra
from link.table import shortened

PIXELS_MAX: Final = 64_000_000
"""Of an image before it is resized: 64 megapixels are 192 MB of RGB."""
BYTES_MAX: Final = 256_000_000
_SUFFIXES: Final = ("", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


class ImageStore:
    """A folder of images, or a zip file of them; the folders inside do not matter.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ArgumentError
        If there is none, or the file is no zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._entries: dict[str, zipfile.ZipInfo] = {}
        if path.is_dir():
            return
        if not path.is_file():
            raise ArgumentError("data", f"{path} is neither a folder nor a zip file of images")
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ArgumentError("data", f"{path} is no zip file of images: {error}") from None
        self._entries = {
            entry.filename.rpartition("/")[2]: entry for entry in self._zip.infolist() if not entry.is_dir()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._zip is not None:
            self._zip.close()

    def read(self, name: str) -> bytes:
        """An image's file, by its name with or without its ending.

        Raises
        ------
        ArgumentError
            If there is none of that name, it lies elsewhere, or cannot be read.
        """
        bare = name.replace("\\", "/").rpartition("/")[2]
        for suffix in _SUFFIXES:
            if self._zip is not None and bare + suffix in self._entries:
                return self._unpack(self._entries[bare + suffix])
            for candidate in {name + suffix, bare + suffix}:
                file = self.path / candidate
                try:
                    if self._zip is None and file.is_file() and file.resolve().is_relative_to(self.path.resolve()):
                        return file.read_bytes()
                except OSError as error:  # also of is_file, where a name is longer than names can be
                    where = f"image {shortened(name)} in {self.path}"
                    raise ArgumentError("data", f"{where} cannot be read: {error.strerror}") from None
        raise ArgumentError("data", f"image {shortened(name)} is not in {self.path}")

    def _unpack(self, entry: zipfile.ZipInfo) -> bytes:
        assert self._zip is not None
        where = f"{self.path}: {entry.filename}"
        if entry.file_size > BYTES_MAX:
            raise ArgumentError("data", f"{where} is enormous: {entry.file_size:,} bytes, at most {BYTES_MAX:,}")
        try:
            return self._zip.read(entry)
        except Exception as error:  # zlib's, the zip's own, and RuntimeError for one with a password
            raise ArgumentError("data", f"{where} cannot be unpacked: {error}") from None


def read_images(store: ImageStore, names: Sequence[str], side: int) -> NDArray[np.uint8]:
    """Images by name, (n, side, side, 3) uint8; errors as for `decode_image`."""
    images = np.empty((len(names), side, side, 3), dtype=np.uint8)
    for row, name in enumerate(names):
        images[row] = decode_image(store.read(name), f"{store.path}: {name}", side)
    return images


def decode_image(content: bytes, where: str, side: int) -> NDArray[np.uint8]:
    """An image file as (side, side, 3) uint8 RGB.

    Of an animation the first frame counts, turned as the camera says. Transparent pixels keep their colour, 16 bits of grey
    become 8, and what is no square of that size is resized to it, each axis by itself. Of floating-point, signed and 32-bit
    pixels nobody knows which value is white.

    Parameters
    ----------
    where : str
        What messages call it.

    Raises
    ------
    ArgumentError
        If it is no image, truncated, of more than PIXELS_MAX pixels, or of pixels that count to nobody knows what.
    MissingExtra
        If Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise MissingExtra("pillow", "image") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
                if width * height > PIXELS_MAX:
                    raise ArgumentError(
                        "data", f"{where} is enormous: {width} x {height} pixels, at most {PIXELS_MAX:,} in all"
                    )
                if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                    raise ArgumentError(
                        "data",
                        f"{where} has floating-point, signed or 32-bit pixels, which do not say what white is: save it with "
                        "8 or 16 bits a channel",
                    )
                image.load()
                pixels: Any = ImageOps.exif_transpose(image)
                if pixels.mode == "P":
                    pixels = pixels.convert("RGBA")  # straight to RGB Pillow warns of transparency
                if pixels.mode.startswith("I;16") or pixels.mode == "I":
                    grey = np.asarray(pixels).astype(np.int64).clip(0, 65535) >> 8
                    pixels = Image.fromarray(grey.astype(np.uint8))
                pixels = pixels.convert("RGB")
                if pixels.size != (side, side):
                    means = Image.Resampling.BOX if min(width, height) >= side else Image.Resampling.BILINEAR
                    pixels = pixels.resize((side, side), means)
                return np.asarray(pixels, dtype=np.uint8)
    except ArgumentError:
        raise
    except Image.DecompressionBombError:
        raise ArgumentError("data", f"{where} is enormous: at most {PIXELS_MAX:,} pixels in all") from None
    except UnidentifiedImageError:
        raise ArgumentError("data", f"{where} is no image") from None
    except (
        Exception
    ) as error:  # each decoder has its own: OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ArgumentError("data", f"{where} cannot be decoded: {reason}") from None
