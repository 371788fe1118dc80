from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from pipelines.parallel.processes import fresh_start
from tcam.types import Shot, VideoRecord
from tcam.video.clips import FrameSampler
from tcam.video.dataset import ClipDataset, EpochBatches, FrameDataset, collate_clips, seeded_generator
from tcam.video.reader import stream_frames
from tests.helpers.encoded import encode


def record(path: Path, label: int) -> VideoRecord:
    return VideoRecord(
        video_id=path.name,
        path=str(path),
        label=label,
        num_frames=30,
        size=(64, 96),
        fps=24.0,
        split="train",
        shots=(Shot(0, 10), Shot(10, 30)),
        decoder="decord" if label else "pyav",
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [record(encode(folder / f"{label}.mp4", options={"crf": f"{20 + label}"}), label) for label in range(2)]


def frame_number_as_map(video, shot, indices):
    assert all(shot.start <= index < shot.stop for index in indices)
    return torch.tensor(indices, dtype=torch.float32)[:, None, None].expand(len(indices), 4, 4) / 30


ONE_FRAME = FrameSampler(0.6)


def clips(records, seed=0, read_cams=frame_number_as_map, choose_frames=ONE_FRAME):
    slots = [(video, shot) for video in records for shot in video.shots]
    return ClipDataset(
        slots, resize=(48, 48), crop=(40, 44), choose_frames=choose_frames, seed=seed, read_cams=read_cams
    )


def load(dataset, epoch, workers):
    batches = EpochBatches([1] * len(dataset), frames_per_batch=3, seed=5)
    batches.epoch = epoch
    context = fresh_start() if workers else None
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate_clips,
        multiprocessing_context=context,
        generator=torch.Generator(),
    )
    return list(loader)


def test_a_batch_holds_frames_maps_indices_and_tags(records):
    batch, rest = load(clips(records), 0, 0)
    assert batch.frames.shape == (3, 1, 3, 40, 44)
    assert batch.frames.dtype == torch.uint8
    assert batch.cams is not None
    assert batch.cams.shape == (3, 1, 40, 44)
    assert torch.allclose(batch.cams[:, 0, 0, 0] * 30, batch.frame_index[:, 0].float(), atol=1e-4)
    assert [int(name[0]) for name in batch.video_id] == batch.label.tolist()
    assert len(rest.video_id) == 1
    assert load(clips(records, read_cams=None), 0, 0)[0].cams is None


def test_workers_give_the_same_clips_as_none_and_epochs_differ(records):
    here, there = load(clips(records), 1, 0), load(clips(records), 1, 2)
    for a, b in zip(here, there, strict=True):
        assert a.video_id == b.video_id
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.frame_index, b.frame_index)
    dataset = clips(records)
    seen = {tuple(dataset[(epoch, slot)].frame_index.tolist()) for epoch in range(6) for slot in range(4)}
    assert len(seen) > 6


def test_an_item_depends_on_seed_epoch_and_slot_alone(records):
    torch.manual_seed(1)
    first = clips(records)[(3, 2)]
    torch.manual_seed(2)
    dataset = clips(records)
    _ = dataset[(0, 1)]
    assert torch.equal(dataset[(3, 2)].frames, first.frames)
    others = [clips(records, seed=9)[(3, slot)].frames for slot in range(4)]
    assert not all(torch.equal(frames, clips(records)[(3, slot)].frames) for slot, frames in enumerate(others))


def test_drawn_frames_stay_in_the_middle_of_their_shot(records):
    dataset = clips(records)
    first_shot = {int(dataset[(epoch, 0)].frame_index) for epoch in range(40)}
    assert first_shot <= set(range(2, 9))
    assert len(first_shot) > 4


def test_the_frames_of_a_clip_are_cut_and_mirrored_alike(records):
    dataset = clips(records, choose_frames=lambda shot, _: [shot.start, shot.start, shot.start + 3])
    first, again, later = dataset[(0, 1)].frames
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    starts = {dataset[(epoch, 1)].frames[0].sum().item() for epoch in range(8)}
    assert len(starts) > 1  # the cut is drawn anew each time


def batches_of(lengths, frames_per_batch, *, epoch=0, seed=1):
    batches = EpochBatches(lengths, frames_per_batch=frames_per_batch, seed=seed)
    batches.epoch = epoch
    found = list(batches)
    assert len(found) == len(batches)
    return found


def test_every_slot_comes_once_per_epoch_in_an_order_of_its_own():
    lengths = [4, 4, 1, 2, 4, 4, 2, 4, 1, 3]
    orders = []
    for epoch in (0, 1, 0):
        keys = [key for batch in batches_of(lengths, 8, epoch=epoch) for key in batch]
        assert [key[0] for key in keys] == [epoch] * 10
        assert sorted(key[1] for key in keys) == list(range(10))
        orders.append([key[1] for key in keys])
    assert orders[0] == orders[2] != orders[1]


def test_single_frames_come_in_chunks_of_the_shuffled_order():
    order = torch.randperm(20, generator=seeded_generator(1, 3, -1)).tolist()
    found = [[slot for _, slot in batch] for batch in batches_of([1] * 20, 8, epoch=3)]
    assert found == [order[:8], order[8:16], order[16:]]


def test_a_batch_holds_clips_of_one_length_and_no_more_frames_than_asked_for():
    lengths = [4] * 7 + [3] * 5 + [9] * 2
    found = [[lengths[slot] for _, slot in batch] for batch in batches_of(lengths, 8)]
    assert sorted(found) == [[3], [3, 3], [3, 3], [4], *[[4, 4]] * 3, [9], [9]]
    full = [batch for batch in found if len(batch) == max(1, 8 // batch[0])]
    assert found == [*full, [3], [4]]  # what is left over comes last


def test_batches_refuse_what_makes_no_sense():
    for lengths, frames in (([], 4), ([2, 0], 4), ([1], 0)):
        with pytest.raises(ValueError, match="lengths must not be empty, they and frames_per_batch must be at least 1"):
            EpochBatches(lengths, frames_per_batch=frames, seed=0)


def test_fixed_frames_are_the_whole_frames_of_the_video(records):
    dataset = FrameDataset([(records[0], 29), (records[1], 0)], size=(40, 56), read_cams=frame_number_as_map)
    frames = [torch.from_numpy(frame.pixels) for frame in stream_frames(Path(records[0].path), size=(40, 56))]
    assert torch.equal(dataset[0].frames[0], frames[29])
    assert dataset[1].label == 1
    assert len(dataset) == 2


def test_a_frame_outside_every_shot_is_the_callers_mistake(records):
    with pytest.raises(ValueError, match="frame 30 lies in no shot"):
        FrameDataset([(records[0], 30)], size=(40, 56))[0]


def test_clips_of_different_shapes_do_not_make_a_batch(records):
    with pytest.raises(ValueError, match="clips of one shape"):
        collate_clips([clips(records)[(0, 0)], clips(records, read_cams=None)[(0, 0)]])
