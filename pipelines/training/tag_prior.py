"""Measure which ImageNet classes go with each tag, for ``cam.method=prior``."""

from __future__ import annotations

from collections import Counter
from typing import Final

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipelines.evaluation.sampling import spread_out
from pipelines.models.device import Compute
from pipelines.run.console import progress_bar
from pipelines.training.frozen_features import FrozenFeatures
from tcam.model.network import FrameCamNet
from tcam.precision import at_least_float32
from tcam.types import NO_CLASS, ClipBatch, Size, VideoIndex, VideoRecord
from tcam.video.dataset import FrameDataset, collate_clips

FRAMES_PER_SHOT: Final = 8


@torch.no_grad()
def measure_tag_prior(
    network: FrameCamNet,
    index: VideoIndex,
    *,
    size: Size,
    batch: int,
    compute: Compute,
    features: FrozenFeatures | None = None,
) -> None:
    """Fill the prior of a network with ``p(k | tag) / p(k)`` of the training videos; leaves it in evaluation mode.

    ``p(k | tag)`` is the mean over the tag's training videos of the mean over frames, evenly spread, of each of their
    shots. Boxes play no part, and no random number is drawn.

    Args:
        network: on the device of ``compute``, with pretrained backbone and ImageNet classifier.
        index: the videos; those of other splits and without any object are left out.
        size: (height, width) of the network's input.
        batch: frames per forward pass.
        compute: device and precision.
        features: keeps what the backbone saw.

    Raises:
        VideoError: a training video cannot be read.
    """
    prior = network.prior
    assert prior is not None
    network.eval()
    frames = prior_frames(index)
    shares = frame_shares([record for record, _ in frames], len(index.class_names)).to(compute.device)
    dataset = FrameDataset(frames, size=size, read_frames=features is None)
    loader = DataLoader(dataset, batch_size=batch, collate_fn=collate_clips, generator=torch.Generator())
    per_tag = torch.zeros_like(prior.ratio)
    with progress_bar() as bar:
        task = bar.add_task("tag prior", total=len(loader))
        for part, clips in zip(torch.split(shares, batch, dim=1), loader, strict=True):
            per_tag += part @ prior.probabilities(_last_features(network, clips, compute, features))
            bar.advance(task)
    prior.set_ratio(per_tag)


def _last_features(network: FrameCamNet, clips: ClipBatch, compute: Compute, features: FrozenFeatures | None) -> Tensor:
    if features is not None:
        return features.of_batch(network, clips).last
    with compute.autocast():
        return at_least_float32(network.pyramid(clips.frames[:, 0].to(compute.device)).last)


def prior_frames(index: VideoIndex) -> list[tuple[VideoRecord, int]]:
    """Return the frames that are looked at: some of every shot of every training video that has a tag."""
    return [
        (record, shot.start + position)
        for record in index.of_split("train")
        if record.label != NO_CLASS
        for shot in record.shots
        for position in spread_out(len(shot), FRAMES_PER_SHOT)
    ]


def frame_shares(videos: list[VideoRecord], num_tags: int) -> Tensor:
    """Return the share of each frame in the mean of its tag, ``[K, N]``: the tag's videos count alike.

    Args:
        videos: the video of each of N frames.
        num_tags: K.
    """
    frames = Counter(video.video_id for video in videos)
    tagged = Counter(label for _, label in {(video.video_id, video.label) for video in videos})
    shares = torch.zeros(num_tags, len(videos))
    for position, video in enumerate(videos):
        shares[video.label, position] = 1 / (tagged[video.label] * frames[video.video_id])
    return shares
