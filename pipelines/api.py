"""What ``import tcam`` gives: ``tcam/__init__.py`` loads these names at their first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import yaml
from numpy.typing import NDArray

from pipelines.run.console import console
from pipelines.streaming.feed import FrameFeed
from pipelines.streaming.localizer import StreamLocalizer, check_pixels, resize_frame
from pipelines.streaming.run import BATCH, MOST_AT_ONCE, find_source, localize
from tcam.errors import ConfigError
from tcam.types import FrameBox, Size, Split
from tcam.video.live import LiveSource
from tcam.video.pixels import FrameScaler

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

__all__ = ["Localizer", "StreamLocalizer", "evaluate", "predict", "train"]


class Localizer:
    """Localize the tagged object in arrays of frames, each frame for itself.

    Frames are resized as ``tcam predict`` resizes those of a video, and give its boxes and maps. For a video, a camera
    or boxes that are followed over time, see ``predict`` and ``StreamLocalizer``. A localizer can be pickled; use one
    per thread.

    Args:
        source: the folder of a finished run, or a file that ``tcam export`` wrote.
        device: ``auto``, ``cpu``, ``cuda:0`` or ``mps``.
        threshold: of the map, relative to its maximum, 0..1; None takes the one chosen for this model.
        class_name: the class to look for in every frame; None takes the most probable one of each frame.

    Raises:
        DataError: the source is neither, or the run is not finished.
        ConfigError: no such device or class.
        MissingPartError: weights are missing or damaged, or the package that runs an exported file is not installed.
        ValueError: a threshold outside 0..1.

    Example:
        >>> localizer = tcam.Localizer("runs/pets-001")
        >>> for found in localizer(frames):  # uint8 [B, H, W, 3], RGB
        ...     print(found.class_name, found.class_score, found.box)
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str = "auto",
        threshold: float | None = None,
        class_name: str | None = None,
    ) -> None:
        self._localizer = StreamLocalizer.of_run(source, threshold=threshold, class_name=class_name, device=device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; ``FrameBox.label`` is a position in it."""
        return self._localizer.class_names

    @property
    def threshold(self) -> float:
        """Map threshold, relative to the maximum of each map, 0..1."""
        return self._localizer.threshold

    @property
    def size(self) -> Size:
        """(height, width) of the network's input, and of the maps."""
        return self._localizer.size

    def __call__(self, frames: NDArray[np.uint8] | Tensor) -> list[FrameBox]:
        """Localize in some frames.

        Args:
            frames: uint8 ``[B, H, W, 3]``, RGB, of any size; a tensor may be on any device. For one frame, pass
                ``frame[None]``.

        Returns:
            One ``FrameBox`` per frame, in order. ``box`` is in pixels of ``frames`` (None: nothing found) and ``map``
            is float32 of ``size``, in 0..1. ``frame_index`` counts from 0, and ``time_s`` 25 frames to the second.

        Raises:
            ValueError: another shape or dtype.
        """
        pixels = check_pixels(frames, "frames", "[B, H, W, 3]", hint="; for one frame, pass frame[None]")
        scale = FrameScaler()
        decoded = (resize_frame(scale, frame, self.size, index=index) for index, frame in enumerate(pixels))
        found = self._localizer.through(decoded, batch=BATCH, at_once=MOST_AT_ONCE)
        return [replace(frame.box, map=frame.map) for frame in found]

    def _new_stream(self) -> StreamLocalizer:
        """Return the same model at the first frame of a stream."""
        return self._localizer.new_stream()


@overload
def predict(
    source: str | Path, *, run: str | Path | Localizer | StreamLocalizer, stream: Literal[True]
) -> Iterator[FrameBox]: ...


@overload
def predict(
    source: str | Path, *, run: str | Path | Localizer | StreamLocalizer, stream: Literal[False] = ...
) -> list[FrameBox]: ...


def predict(
    source: str | Path, *, run: str | Path | Localizer | StreamLocalizer, stream: bool = False
) -> Iterator[FrameBox] | list[FrameBox]:
    """Localize the tagged object in every frame of a video file, a frame folder or a live source.

    Args:
        source: what ``tcam stream`` takes as ``--source``: a video file, a folder of frames, a picture, ``"0"`` (a
            camera), or an ``rtsp://``, ``rtmp://``, ``http(s)://``, ``udp://`` or ``tcp://`` address.
        run: the folder of a finished run, a file of ``tcam export``, or a ``Localizer`` or ``StreamLocalizer``, which
            keeps the model loaded between calls.
        stream: return an iterator that yields each frame's box as soon as it is known; else a list, at the end.

    Returns:
        One ``FrameBox`` per frame; ``box`` is in pixels of the frame, None where nothing was found.

    Raises:
        TcamError: the run or the source is not there, or the source cannot be read to its end.
    """
    if isinstance(run, Localizer):
        localizer = run._new_stream()
    else:
        localizer = run if isinstance(run, StreamLocalizer) else StreamLocalizer.of_run(run)
    found = _predict(find_source(str(source)), localizer)
    return found if stream else list(found)


def _predict(source: Path | LiveSource, localizer: StreamLocalizer) -> Iterator[FrameBox]:
    with FrameFeed(source, size=localizer.size) as feed:
        for frame in localize(localizer, feed):
            yield frame.prediction.box


def train(
    videos: str | Path | None = None,
    *,
    name: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    runs: str | Path = "runs",
    resume: str | Path | None = None,
    num_workers: int = 1,
    quiet: bool = False,
) -> Path:
    """Train a new run from tagged videos, or go on with one that was stopped: what ``tcam train`` does.

    A broken video does not stop the others: it is left out and listed, with the reason, in ``index/errors.csv`` of the
    run folder. An interrupted training goes on with ``resume``. In a script, call it below
    ``if __name__ == "__main__":``, as child processes read the videos.

    Args:
        videos: the data folder, one subfolder per tag, or the name of a data set such as ``yto_v1``; with ``resume``,
            only where the folder was moved.
        name: the run becomes ``<runs>/<name>-001``, ``-002``, ...; None takes the names of folder and method.
        config: a YAML file of settings, such as ``configs/real/tcam.yaml``.
        settings: any settings, which win over those of ``config``; keys are nested, dotted, or both:
            ``{"method": "cam", "classifier.epochs": 2, "model": {"backbone": "resnet18"}}``.
        runs: the folder that holds the runs.
        resume: a run folder to go on with, from its last saved step and with its own settings.
        num_workers: processes that train together, through Ray Train.
        quiet: show only errors; else progress and results go to stderr.

    Returns:
        The run folder: ``Localizer``, ``predict`` and ``evaluate`` take it.

    Raises:
        ConfigError: an unknown setting, a value that is not allowed, or arguments that do not go together.
        DataError: videos are missing, or too few are usable.
        MissingPartError: pretrained weights or an optional package are missing.
        TrainingError: training cannot go on, as a loss is not finite.
    """
    from pipelines.commands.train import start_or_resume

    with _console_restored():
        result = start_or_resume(
            _path(videos),
            config=_path(config),
            overrides=tuple(_overrides(settings or {})),
            name=name,
            resume=_path(resume),
            runs=Path(runs),
            num_workers=num_workers,
            quiet=quiet,
        )
    return result.folder


def evaluate(
    run: str | Path,
    *,
    videos: str | Path | None = None,
    split: Split | Literal["all"] = "test",
    output: str | Path | None = None,
    protocol: Literal["ours", "benchmark"] = "ours",
    refine: Literal["crf", "joint"] | None = None,
    baseline: Literal["ddt"] | None = None,
    settings: Mapping[str, object] | None = None,
    device: str = "auto",
    workers: int | None = None,
    quiet: bool = False,
) -> pandas.DataFrame:
    """Compare the boxes of a run with true ones, and write results and report: what ``tcam evaluate`` does.

    Args:
        run: the folder of a finished run.
        videos: a data folder with ``boxes.csv``, or the name of a data set; None takes the videos of the run.
        split: which of these videos: ``train``, ``val``, ``test`` or ``all``.
        output: the folder for ``results.json``, ``per_frame.parquet`` and ``report/``; None writes into the run folder.
        protocol: ``ours`` takes the largest component and plain IoU; ``benchmark`` follows the WSOL benchmark.
        refine: ``crf`` also measures maps at edges (needs ``tcam[crf]``), ``joint`` maps that agree over videos.
        baseline: ``ddt`` also measures what the frames of a video have in common, without training.
        settings: of reading ``videos``, such as ``{"data.units": "relative"}``; see ``train``.
        device: ``auto``, ``cpu``, ``cuda:0`` or ``mps``.
        workers: child processes; 0 works in this process, None takes one per processor where that pays.
        quiet: show only errors; else progress and tables go to stderr.

    Returns:
        One row per method and map threshold, as ``tcam evaluate --json`` has them: ``method``, ``threshold_choice``
        (``validation``, ``default``, ``oracle``, ``oracle per class``; ``none`` of baselines), ``threshold``, CorLoc in
        percent as ``macro`` (mean over classes), ``micro`` (over frames) and ``per_class.<class>``, the 95 % interval
        of ``macro`` as ``interval.low`` and ``interval.high``, ``num_frames`` and the parts of the protocol. NaN:
        unknown. ``attrs["failures"]`` has the videos that could not be read, and why.

    Raises:
        DataError: the run is not finished, or the videos have no boxes or other classes.
        ConfigError: arguments that do not go together, or ``output`` holds files that are not tcam's.
        MissingPartError: weights or an optional package are missing.
    """
    from pipelines.commands.evaluate import evaluate_run
    from pipelines.parallel.placement import Placement

    with _console_restored():
        evaluated = evaluate_run(
            Path(run),
            videos=_path(videos),
            split=split,
            output=_path(output),
            device=device,
            benchmark=protocol == "benchmark",
            refine=refine or "none",
            ddt=baseline is not None,
            overrides=tuple(_overrides(settings or {})),
            placement=Placement(workers),
            quiet=quiet,
        )
    return evaluated.as_frame()


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


@contextmanager
def _console_restored() -> Iterator[None]:
    """Let what a call sets of the console end with it."""
    before = console.quiet
    try:
        yield
    finally:
        console.quiet = before


def _overrides(settings: Mapping[str, object], parents: tuple[str, ...] = ()) -> Iterator[str]:
    """Turn nested settings into ``a.b=c``, as ``--set`` has them.

    Raises:
        ConfigError: a value that YAML has no form for.
    """
    for key, value in settings.items():
        path = (*parents, str(key))
        if isinstance(value, Mapping) and value:
            yield from _overrides(value, path)
            continue
        plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        try:
            text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=float("inf"))
        except yaml.YAMLError:
            raise ConfigError(
                f"setting '{'.'.join(path)}': expected a number, text, list or mapping, found a {type(value).__name__}"
            ) from None
        yield f"{'.'.join(path)}={text}"
