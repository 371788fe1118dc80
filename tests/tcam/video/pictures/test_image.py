"""Depths and modes: the same picture must come out of every one of them."""

from fractions import Fraction

import av
import numpy as np
import PIL
import pytest
import tifffile
from PIL import Image

from tcam.errors import VideoError
from tcam.video.frame_files import ImageSequence
from tcam.video.pictures.image import OpenImage, ValueRange, read_image

YCBCR = pytest.param(
    "YCbCr",
    marks=pytest.mark.skipif(
        int(PIL.__version__.split(".")[0]) < 13, reason="older Pillows cannot read what they wrote"
    ),
)
GRAY = np.linspace(0, 255, 48 * 64).reshape(48, 64).round().astype(np.uint8)
RGB = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=-1)


def save_png48(path, values):
    """Write 16 bits a colour, which Pillow cannot."""
    codec = av.codec.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = values.shape[1], values.shape[0], "rgb48be"
    codec.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values, dtype=np.uint16), format="rgb48be")
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)]))


def difference(path, wanted):
    pixels = read_image(path).transpose(1, 2, 0).astype(int)
    return np.abs(pixels - (wanted if wanted.ndim == 3 else wanted[..., None])).max()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_of_any_depth_in_16_bits(tmp_path, bits, suffix):
    values = (GRAY.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert difference(tmp_path / f"a.{suffix}", GRAY) <= 1


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_gray_in_32_bits(tmp_path, bits):
    tifffile.imwrite(tmp_path / "a.tif", (GRAY.astype(np.int32) * (2**bits - 1)) // 255)
    assert difference(tmp_path / "a.tif", GRAY) <= 1


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("shape", ["gray", "rgb"])
def test_floats_of_the_usual_ranges(tmp_path, top, shape):
    picture = GRAY if shape == "gray" else RGB
    tifffile.imwrite(
        tmp_path / "a.tif", (picture / 255 * top).astype(np.float32), photometric="rgb" if shape == "rgb" else None
    )
    assert difference(tmp_path / "a.tif", picture) <= 1


def test_floats_below_zero_are_stretched_and_nan_is_black(tmp_path):
    values = (GRAY / 255 * 6 - 3).astype(np.float32)
    values[0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert difference(tmp_path / "a.tif", GRAY) <= 1


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_colour_of_any_depth_in_png_and_tiff(tmp_path, bits):
    values = (RGB.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    save_png48(tmp_path / "a.png", values)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    tifffile.imwrite(tmp_path / "planes.tif", values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "alpha.tif", np.dstack([values, values[..., 0]]), photometric="rgb")
    for name in ("a.png", "a.tif", "planes.tif", "alpha.tif"):
        assert difference(tmp_path / name, RGB) <= 1, name


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_inks_and_whites_that_come_first(tmp_path, kind):
    whole = 65535 if kind is np.uint16 else 1
    inks = np.dstack([255 - RGB, np.zeros_like(GRAY)]) / 255 * whole
    tifffile.imwrite(tmp_path / "inks.tif", inks.astype(kind), photometric="separated")
    tifffile.imwrite(tmp_path / "white.tif", ((255 - GRAY) / 255 * whole).astype(kind), photometric="miniswhite")
    assert difference(tmp_path / "inks.tif", RGB) <= 1
    assert difference(tmp_path / "white.tif", GRAY) <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", YCBCR])
def test_modes_of_8_bits_are_as_pillow_shows_them(tmp_path, mode):
    picture = Image.fromarray(RGB).convert(mode)
    name = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    picture.save(name)
    assert difference(name, np.asarray(picture.convert("RGB"))) <= 2
    with OpenImage(name) as image:
        assert image.extent() is None


def test_values_that_fill_little_of_their_range_are_stretched(tmp_path):
    """A thermal camera: 16 bits, all between 29000 and 31000."""
    Image.fromarray((29000 + GRAY.astype(np.uint32) * 2000 // 255).astype(np.uint16)).save(tmp_path / "a.png")
    assert difference(tmp_path / "a.png", GRAY) <= 1
    assert ValueRange.of_extents([(29000, 30000), (30500, 31000)]) == ValueRange(29000, 31000)


@pytest.mark.parametrize(
    ("extent", "wanted"), [((0, 255), 255), ((3, 1000), 1023), ((0, 4095), 4095), ((0, 0), 1), ((0, 1), 1)]
)
def test_ranges_end_where_bits_do(extent, wanted):
    assert ValueRange.of_extents([extent]) == ValueRange(0, wanted)


def test_all_frames_of_a_clip_share_one_range(tmp_path):
    for index, level in enumerate((400, 4000)):
        Image.fromarray(np.full((6, 8), level, np.uint16)).save(tmp_path / f"{index}.png")
    images = ImageSequence(tmp_path)
    assert images.values == ValueRange(0, 4095)
    assert [int(images.read(i, (6, 8))[0, 0, 0]) for i in range(2)] == [25, 249]
    assert images.notes() == ("pictures of more than 8 bits: 0 becomes black, 4095 white, in all frames",)


def test_a_clip_of_8_bits_has_no_range_and_no_note(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "0.png")
    assert ImageSequence(tmp_path).values is None
    assert ImageSequence(tmp_path).notes() == ()


def test_an_orientation_turns_deep_pictures_too(tmp_path):
    values = GRAY.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(274, "H", 1, 6, True)])
    assert read_image(tmp_path / "a.tif").shape == (3, 64, 48)


@pytest.mark.parametrize(
    "suffix",
    ["jpg", "jfif", "jpe", "png", "bmp", "dib", "tif", "webp", "ppm", "pgm", "jp2", "avif", "tga", "pcx", "sgi", "qoi"],
)
def test_formats_that_pillow_reads(tmp_path, suffix):
    picture = Image.fromarray(GRAY if suffix == "pgm" else RGB)
    path = tmp_path / f"0.{suffix}"
    try:
        picture.save(path)
    except (KeyError, OSError, ValueError):
        pytest.skip(f"this Pillow does not write {suffix}")
    assert read_image(path, (24, 32)).shape == (3, 24, 32)
    with ImageSequence(path) as alone, ImageSequence(tmp_path) as together:
        assert len(alone) == len(together) == 1


def test_pages_are_frames_but_small_copies_of_them_are_not(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for level in (10, 20, 30):
            file.write(np.full((12, 16), level, np.uint8))
        file.write(np.full((6, 8), 99, np.uint8), subfiletype=1)
    with ImageSequence(tmp_path / "a.tif") as images:
        assert [int(images.read(i, (12, 16))[0, 0, 0]) for i in (2, 0, 1)] == [30, 10, 20]
        assert len(images) == 3


def test_deep_pages_share_their_range(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([np.full((12, 16), level, np.uint16) for level in (100, 4000)]))
    with ImageSequence(tmp_path / "a.tif") as images:
        assert [int(images.read(i, (12, 16))[0, 0, 0]) for i in range(2)] == [6, 249]


def test_an_animation_says_how_fast_it_is(tmp_path):
    pages = [Image.new("RGB", (16, 12), (level, 0, 0)) for level in (0, 90, 180)]
    pages[0].save(tmp_path / "a.webp", save_all=True, append_images=pages[1:], duration=50, lossless=True)
    with ImageSequence(tmp_path / "a.webp") as images:
        assert (len(images), images.fps) == (3, 20.0)
        assert [int(images.read(i, (12, 16))[0, 0, 0]) for i in (2, 0, 1)] == [180, 0, 90]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jp2"])
def test_damaged_files_are_one_line(tmp_path, content, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(VideoError, match=rf"a\.{suffix}: not a readable image \(.*\); replace or remove it") as error:
        read_image(tmp_path / f"a.{suffix}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 300


def test_a_picture_that_ends_early_is_one_line(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.uint16) * 257, photometric="rgb")
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match="not a readable image"):
        read_image(tmp_path / "a.tif")
