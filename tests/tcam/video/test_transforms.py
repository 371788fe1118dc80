import pytest
import torch

from tcam.types import Box
from tcam.video.transforms import CropFlip, sample_crop_flip, whole_frame


def test_a_box_drawn_into_a_frame_is_found_again_through_the_geometry():
    frames = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    frames[..., 4:8, 6:12] = 255
    for flipped in (False, True):
        transform = CropFlip(resized=(16, 16), top=2, left=3, size=(12, 10), flipped=flipped)
        rows, columns = torch.where(transform.frames(frames)[0, 0] == 255)
        found = Box(columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)
        back = transform.geometry((32, 64)).to_original(found)
        assert tuple(back) == (6 * 4, 4 * 2, 12 * 4, 8 * 2)


def test_maps_are_cut_and_mirrored_like_frames():
    maps = torch.rand(2, 16, 16)
    frames = (maps[:, None] * 255).round().to(torch.uint8).expand(2, 3, 16, 16)
    transform = CropFlip(resized=(16, 16), top=1, left=4, size=(9, 7), flipped=True)
    assert transform.maps(maps).shape == (2, 9, 7)
    assert torch.equal((transform.maps(maps) * 255).round().to(torch.uint8), transform.frames(frames)[:, 0])


def test_maps_grow_without_shifting():
    ramp = torch.tensor([[[0.0, 1.0]]])
    assert whole_frame((1, 4)).maps(ramp)[0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_the_whole_frame_is_left_alone():
    frames = torch.randint(0, 255, (1, 3, 5, 6), dtype=torch.uint8)
    assert torch.equal(whole_frame((5, 6)).frames(frames), frames)


def test_drawn_cuts_reach_every_corner_and_both_mirrorings():
    generator = torch.Generator().manual_seed(0)
    drawn = {sample_crop_flip((6, 5), (5, 5), generator) for _ in range(80)}
    assert {(t.top, t.left, t.flipped) for t in drawn} == {(0, 0, False), (0, 0, True), (1, 0, False), (1, 0, True)}


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"frames must be \[T, 3, 5, 6\], got \[3, 5, 6\]"):
        whole_frame((5, 6)).frames(torch.zeros(3, 5, 6, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"maps must be floating point \[T, h, w\]"):
        whole_frame((5, 6)).maps(torch.zeros(1, 5, 6, dtype=torch.uint8))
    with pytest.raises(ValueError, match="does not fit into"):
        CropFlip(resized=(5, 5), top=1, left=0, size=(5, 5), flipped=False)
    with pytest.raises(ValueError, match="larger than the picture"):
        sample_crop_flip((5, 5), (6, 5), torch.Generator())
