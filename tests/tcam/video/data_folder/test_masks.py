import numpy as np
import pytest
import torch
from PIL import Image

from tcam.errors import VideoError
from tcam.types import Box
from tcam.video.data_folder.masks import mask_box, read_mask


@pytest.mark.parametrize("bright", [1, 255])
def test_masks_of_either_convention_are_read_at_the_size_asked_for(tmp_path, bright):
    pixels = np.zeros((20, 40), np.uint8)
    pixels[5:10, 20:40] = bright
    Image.fromarray(pixels).save(tmp_path / "3.png")
    mask = read_mask(tmp_path / "3.png", (20, 40))
    assert mask.dtype == torch.uint8
    assert torch.equal(mask, torch.from_numpy(pixels > 0).byte())
    assert mask_box(mask) == Box(20, 5, 40, 10)
    assert mask_box(read_mask(tmp_path / "3.png", (40, 20))) == Box(10, 10, 20, 20)


def test_noise_of_a_lossy_file_is_no_object_and_a_black_mask_has_no_box(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 12, (64, 64)).astype(np.uint8)
    pixels[8:24, 16:32] = 250
    Image.fromarray(pixels).save(tmp_path / "0.jpg", quality=90)
    assert mask_box(read_mask(tmp_path / "0.jpg", (64, 64))) == Box(16, 8, 32, 24)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "1.png")
    assert mask_box(read_mask(tmp_path / "1.png", (8, 8))) is None


def test_a_mask_that_is_no_image_is_named(tmp_path):
    (tmp_path / "0.png").write_text("no image")
    with pytest.raises(VideoError, match=r"0\.png: not a readable image"):
        read_mask(tmp_path / "0.png", (8, 8))
