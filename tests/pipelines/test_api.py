import torch

import tcam
from pipelines.streaming.localizer import StreamLocalizer
from tests.helpers.synthetic import TINY_FRAMES


def test_one_import_gives_the_boxes_of_a_file(tiny_run):
    source = tiny_run.videos / "fish" / "fish-03.mp4"
    found = tcam.predict(source, run=tiny_run.folder)
    assert [box.frame_index for box in found] == list(range(TINY_FRAMES))
    streamed = tcam.predict(source, run=StreamLocalizer.of_run(tiny_run.folder, video_id="stream"), stream=True)
    assert next(streamed) == found[0]
    assert list(streamed) == found[1:]


def test_the_threads_of_the_caller_are_left_alone(tiny_run):
    before = torch.get_num_threads()
    streamed = tcam.predict(tiny_run.videos / "fish" / "fish-03.mp4", run=tiny_run.folder, stream=True)
    torch.set_num_threads(2)
    try:
        next(streamed)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        streamed.close()


def test_a_run_steps_through_frames_of_any_size(tiny_run):
    localizer = tcam.StreamLocalizer.of_run(tiny_run.folder, class_name="fish", threshold=0.5)
    for height, width in ((64, 96), (480, 640)):
        found = localizer.step(torch.randint(0, 255, (height, width, 3), dtype=torch.uint8))
        assert localizer.class_names[found.label] == "fish"
        assert found.box is None or (found.box.x1 <= width and found.box.y1 <= height)
