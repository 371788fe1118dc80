import copy
import pickle

import numpy as np
import pytest
import torch

from pipelines.models.engine import Engine
from pipelines.streaming.localizer import StreamLocalizer
from tcam.boxes.extract import extract_box
from tcam.boxes.over_time import OverTime
from tcam.types import FrameGeometry
from tcam.video.pixels import FrameScaler
from tests.helpers.other_processes import steps, steps_in_fresh_process
from tests.helpers.tiny import SIDE, tiny_localizer


def stream_localizer(engine: Engine | None = None, **settings) -> StreamLocalizer:
    given = {"class_names": ("fish", "beetle"), "size": (SIDE, SIDE), "threshold": 0.5, **settings}
    return StreamLocalizer(engine or tiny_localizer(), **given)


def some_frame(height: int = 48, width: int = 80, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (1, 3, 6, 10), generator=generator).float()
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return fine[0].permute(1, 2, 0).to(torch.uint8)


def test_a_box_comes_back_in_the_callers_pixels():
    found = stream_localizer().step(some_frame())
    pixels = FrameScaler().resize(some_frame().numpy(), (SIDE, SIDE))
    maps = tiny_localizer().find(pixels[None], None).maps[0]
    assert found.box == extract_box(maps, 0.5, FrameGeometry.plain_resize((48, 80), (SIDE, SIDE)))
    assert found.box is not None
    assert found.raw_box is None


def test_arrays_and_tensors_are_alike_and_frames_are_counted():
    localizer = stream_localizer()
    first, second = localizer.step(some_frame()), localizer.step(some_frame().numpy(), time_s=2.5)
    assert (first.frame_index, first.time_s, second.frame_index, second.time_s) == (0, 0.0, 1, 2.5)
    assert (first.box, first.score, first.label) == (second.box, second.score, second.label)


def test_a_frame_of_the_networks_size_is_not_touched():
    frame = some_frame(SIDE, SIDE).numpy()
    assert np.array_equal(FrameScaler().resize(frame, (SIDE, SIDE)), frame.transpose(2, 0, 1))


def test_boxes_followed_over_time_keep_the_raw_ones_beside():
    plain, followed = stream_localizer(), stream_localizer(over_time=OverTime(min_cutoff_hz=0.5))
    frames = [some_frame(seed=seed) for seed in range(4)]
    raw = [plain.step(frame).box for frame in frames]
    found = [followed.step(frame) for frame in frames]
    assert [item.raw_box for item in found] == raw
    assert found[0].box is not None
    assert any(item.box != item.raw_box for item in found[1:])


@pytest.mark.parametrize(
    "frame", [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_other_shapes_and_types_are_refused(frame):
    with pytest.raises(ValueError, match=r"frame must be uint8 \[H, W, 3\], got"):
        stream_localizer().step(frame)


@pytest.mark.slow
def test_a_pickled_localizer_goes_on_in_another_process_with_the_same_bits():
    localizer = stream_localizer(tiny_localizer("decoder").pack().unpack(), over_time=OverTime(min_cutoff_hz=0.5))
    localizer.step(some_frame())
    copies = copy.deepcopy(localizer), pickle.loads(pickle.dumps(localizer))
    there, here = steps_in_fresh_process(localizer), steps(localizer)
    assert there == here
    assert [steps(item) for item in copies] == [here, here]
    assert [found.frame_index for found in here] == [1, 2, 3]
