"""Read one picture, or one page of a file of pages, as 8-bit RGB; deeper ones are scaled by the range of their clip."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tcam.errors import VideoError
from tcam.types import Pixels, Size
from tcam.video.container import MAX_PIXELS, refuse, require_av

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES: Final = """
jpg jpeg jpe jfif mpo png bmp dib tif tiff webp ppm pgm pbm pnm pfm jp2 j2k j2c jpc jpf jpx avif avifs tga sgi pcx qoi
dds ras
"""
IMAGE_SUFFIXES: Final = frozenset(f".{name}" for name in _SUFFIXES.split())
PAGED_SUFFIXES: Final = frozenset({".tif", ".tiff", ".webp", ".avif", ".avifs"})
"""Endings of files that may hold several frames. (Animated GIF and APNG are video files: FFmpeg reads them.)"""
_CEILINGS: Final = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Largest values of 8, 10, 12, 14 and 16 bits, whatever the number type that they are stored in."""
_PIPES: Final = {"PNG": "png_pipe", "TIFF": "tiff_pipe", "SGI": "sgi_pipe"}
"""FFmpeg's demuxers of the formats whose 16-bit colours Pillow cuts to 8 bits."""
_SUBFILE_TYPE: Final = 254
"""TIFF tag; bit 0 marks a smaller copy of another page, bit 2 a transparency mask."""
_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_ORIENTATION: Final = 274


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The values that become 0 and 255; others are clipped."""

    low: float
    high: float

    @classmethod
    def of_extents(cls, extents: Sequence[tuple[float, float]]) -> ValueRange:
        """Find the range that the pictures of a clip were made for.

        That is 0 to the largest value of 8, 10, 12, 14 or 16 bits (or 1, of fractions) which holds all of them. Values
        that fill less than a quarter of it (thermal cameras), go below 0 or beyond 16 bits are stretched as they are.

        Args:
            extents: least and largest value of some of the pictures.
        """
        low, high = min(low for low, _ in extents), max(high for _, high in extents)
        ceilings = _CEILINGS if float(high).is_integer() and high > 1 else (1.0, *_CEILINGS)
        ceiling = next((ceiling for ceiling in ceilings if high <= ceiling), None)
        if low == high:  # one flat picture says little: keep its brightness
            return cls(min(low, 0.0), max(ceiling or high, min(low, 0.0) + 1))
        if ceiling is None or low < 0 or high - low < ceiling / 4:
            return cls(low, high)
        return cls(0.0, ceiling)

    def to_bytes(self, values: NDArray[Any]) -> Pixels:
        """Scale values to uint8; NaN becomes 0."""
        scaled = (values.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        pixels: Pixels = np.nan_to_num(np.clip(scaled, 0, 255) + 0.5, nan=0.0).astype(np.uint8)
        return pixels


class OpenImage:
    """An open picture file; ``pages`` are the frames that it holds, by their position in the file.

    Raises:
        VideoError: it is not a picture that can be read.
    """

    def __init__(self, path: Path) -> None:
        from PIL import Image, UnidentifiedImageError

        self._image: Image.Image | None = None
        self.path = path
        self._known_deep: dict[int, bool] = {}
        with self._reading():
            if not path.is_file():
                raise OSError("not a regular file")
            try:
                self._image = Image.open(path)
            except UnidentifiedImageError:
                if path.suffix.lower() not in (".tif", ".tiff"):
                    raise
        self.pages = self._find_pages() if path.suffix.lower() in PAGED_SUFFIXES else (0,)

    def __enter__(self) -> OpenImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # of a reader that nobody closed

    @property
    def seconds_per_page(self) -> float | None:
        """How long the first page of an animation is shown; None where the file does not say."""
        if len(self.pages) < 2 or self._image is None:
            return None
        with self._reading():
            self._image.load()
        found = self._image.info.get("duration")
        return found / 1000 if isinstance(found, int | float) and found > 0 else None

    @property
    def stored_size(self) -> Size | None:
        """The (height, width) that the head of the file names, before any turn; None where only decoding tells."""
        return None if self._image is None else (self._image.height, self._image.width)

    def is_deep(self, page: int = 0) -> bool:
        """Whether a page has more than 8 bits; nothing is decoded."""
        if page not in self._known_deep:
            with self._reading():
                image = self._at(page)
                self._known_deep[page] = image is None or image.mode[0] in "IF" or _is_cut(image)
        return self._known_deep[page]

    def extent(self, page: int = 0) -> tuple[float, float] | None:
        """Return the least and the largest value of a page; None where it has 8 bits."""
        with self._reading():
            if not self.is_deep(page):
                return None
            return _extent(self._deep(page)[0])

    def picture(self, page: int = 0, *, values: ValueRange | None = None) -> Image:
        """Decode a page as 8-bit RGB in display orientation.

        Args:
            page: which one.
            values: of deeper pictures, the range of the clip; None takes that of the page itself.
        """
        from PIL import Image, ImageOps

        with self._reading():
            if not self.is_deep(page):
                return ImageOps.exif_transpose(self._at(page)).convert("RGB")
            pixels, orientation = self._deep(page)
            values = values or ValueRange.of_extents([_extent(pixels)])
            flat = Image.fromarray(values.to_bytes(pixels)).convert("RGB")
            flat.getexif()[_ORIENTATION] = orientation
            return ImageOps.exif_transpose(flat)

    def close(self) -> None:
        """Close the file."""
        if self._image is not None:
            self._image.close()

    def _at(self, page: int) -> Any:  # noqa: ANN401  # Pillow's plugins have attributes of their own
        image = self._image
        if image is not None and self.pages != (0,) and image.tell() != page:
            image.seek(page)
        if image is not None and image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        return image

    def _find_pages(self) -> tuple[int, ...]:
        with self._reading():
            image: Any = self._image
            if image is None or image.format != "TIFF":
                return tuple(range(getattr(image, "n_frames", 1)))
            pages, first = [], image.size
            for page in range(image.n_frames):
                image.seek(page)
                if image.size == first and not image.tag_v2.get(_SUBFILE_TYPE, 0) & 5:
                    pages.append(page)
            image.seek(0)
            return tuple(pages) or (0,)

    def _deep(self, page: int) -> tuple[NDArray[Any], int]:
        """Decode a page of more than 8 bits as ``[h, w]`` or ``[h, w, 3]`` as it is stored, with its orientation."""
        image = self._at(page)
        orientation = 1 if image is None else image.getexif().get(_ORIENTATION, 1)
        if image is not None and image.mode[0] in "IF":
            values = np.asarray(image)
            white_first = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0
            return (_inverted(values) if white_first else values), orientation
        if image is None or image.format == "TIFF":
            values = _read_tiff(self.path, page)
        else:
            values = _read_by_ffmpeg(self.path, _PIPES[image.format])
        return values, orientation

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except VideoError:
            raise
        except Exception as error:  # Pillow's plugins fail in any way on damaged files
            self.close()
            found = str(error).replace(f" '{self.path}'", "").replace(str(self.path), "it") or type(error).__name__
            refuse(self.path, f"not a readable image ({found[:80]})", remedy="replace or remove it")


def _is_cut(image: Any) -> bool:  # noqa: ANN401
    """Whether Pillow would keep 8 of 16 bits or more; to be asked before it decodes."""
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8)
    return image.format in _PIPES and ";16" in str(image.tile)


def _extent(values: NDArray[Any]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _read_tiff(path: Path, page: int) -> NDArray[Any]:
    """Read what Pillow has no mode for: 16 and 32 bits, or floats, of several channels."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            shown = file.pages[page]
            found, axes, first = shown.asarray(), shown.axes, shown.keyframe  # the page that holds the tags of all
            photometric = None if first is None else first.photometric
    except ValueError:  # a compression that tifffile leaves to another package
        return _read_by_ffmpeg(path, _PIPES["TIFF"])
    values = np.moveaxis(found, 0, -1) if axes.startswith("S") else found
    if photometric == tifffile.PHOTOMETRIC.SEPARATED and values.ndim == 3:
        return _from_inks(values)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return _inverted(values)
    if values.ndim == 2:
        return values
    return values[..., :3] if values.shape[2] >= 3 else values[..., 0]


def _from_inks(values: NDArray[Any]) -> NDArray[Any]:
    """Return red, green and blue of cyan, magenta, yellow and black."""
    whole = float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0
    light = 1 - values[..., :4].astype(np.float32) / whole
    return light[..., :3] * light[..., 3:]


def _inverted(values: NDArray[Any]) -> NDArray[Any]:
    """Return values whose least was white as values whose least is black."""
    whole = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1.0
    return np.asarray(whole - values.astype(np.float64))


def _read_by_ffmpeg(path: Path, demuxer: str) -> NDArray[Any]:
    """Read 16 bits of red, green and blue: Pillow would keep the upper 8 bits, whatever lies in them."""
    require_av()
    import av

    options = {"protocol_whitelist": "file"}
    with av.open(os.path.abspath(path), format=demuxer, options=options) as container:  # noqa: PTH100
        return next(container.decode(video=0)).to_ndarray(format="rgb48le")


def read_image(path: Path, size: Size | None = None) -> Pixels:
    """Read an image file as uint8 ``[3, h, w]`` RGB, scaled (bilinear, antialiased) to ``size`` where one is given.

    Raises:
        VideoError: it is not an image that can be read.
    """
    with OpenImage(path) as opened:
        return to_pixels(opened.picture(), size)


def to_pixels(picture: Image, size: Size | None = None) -> Pixels:
    """Make uint8 ``[3, h, w]`` of an RGB picture, scaled (bilinear, antialiased) to ``size`` where one is given."""
    from PIL import Image

    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def image_size(path: Path) -> Size:
    """Return the (height, width) of an image in display orientation; it must decode to its end.

    Raises:
        VideoError: it is not an image that can be read.
    """
    pixels = read_image(path)
    return (pixels.shape[1], pixels.shape[2])
