"""Score localizers on the tiny data of these tests."""

import torch

from pipelines.evaluation.score import score_videos
from pipelines.parallel.placement import AUTO
from tests.helpers.tiny import SIDE, tiny_config, tiny_localizer


def score(
    data, truth, *, batch: int = 8, records=None, chosen=None, components="largest", placement=AUTO, **localizers
):
    return score_videos(
        localizers,
        data.index,
        data.index.records if records is None else records,
        truth,
        settings=tiny_config(f"evaluation.batch={batch}").evaluation,
        size=(SIDE, SIDE),
        placement=placement,
        chosen=chosen,
        components=components,
    )


def undecided():
    """A decoder with the map 0.5 everywhere: boxes the whole frame below the threshold's last step."""
    localizer = tiny_localizer("decoder")
    with torch.no_grad():
        localizer.network.decoder.head.weight.zero_()
    return localizer
