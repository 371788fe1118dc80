"""The command stream. Heavy imports happen inside it."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.videos import ClassName, Device, Half, Quiet, RunOrFile, Threshold
from tcam.errors import ConfigError

Source = Annotated[
    str,
    typer.Option(help="Video file, 0 (camera), rtsp://, rtmp://, http(s)://, udp://, tcp:// address or - (stdin)."),
]
Dropping = Annotated[
    str | None,
    typer.Option(
        metavar="latest|none|every:N",
        help="Frames to leave out where the network is slower; default: latest of a live source, else none.",
    ),
]


class Refinement(StrEnum):
    """What goes over the maps of a stream."""

    none = "none"
    joint = "joint"


Refine = Annotated[
    Refinement,
    typer.Option(help="joint: make each map agree with those of the last frames; some 70 ms more a frame on a CPU."),
]
Smooth = Annotated[
    float | None, typer.Option(min=0.01, metavar="HZ", help="Steadier boxes: cutoff of the 1 euro filter at rest.")
]
MinScore = Annotated[
    str,
    typer.Option(
        metavar="S|auto",
        help="No box where class score or map peak lies below S; auto: as the run's validation frames say.",
    ),
]


def stream(
    run: RunOrFile,
    source: Source,
    output: Annotated[str, typer.Option("--output", "-o", help="A .jsonl file, or -: stdout.")] = "-",
    drop: Dropping = None,
    budget: Annotated[
        float | None,
        typer.Option(min=1, metavar="MS", help="Lag of a live source: leave out frames whose box would come later."),
    ] = None,
    open_timeout: Annotated[float, typer.Option(min=0.1, metavar="S", help="Seconds to wait for a live source.")] = 10,
    read_timeout: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Seconds of silence after which a live source is lost.")
    ] = 10,
    reconnect: Annotated[
        int, typer.Option(min=0, metavar="N", help="Attempts in a row to reach a lost source again.")
    ] = 3,
    save_video: Annotated[Path | None, typer.Option(help="An .mp4 with box and map drawn.")] = None,
    view: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Serve a live page on this port of 127.0.0.1; 0: any."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open the live page in the browser.")] = False,
    threshold: Threshold = None,
    class_name: ClassName = None,
    smooth: Smooth = None,
    min_score: MinScore = "0",
    refine: Refine = Refinement.none,
    device: Device = "auto",
    half: Half = False,
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Compile the network first (10 to 60 s); 'tcam bench' says whether it pays."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write one line of JSON per frame as soon as it is known, and a last one with the reason the stream ended."""
    from pipelines.streaming.feed import Drop, Patience
    from pipelines.streaming.run import StreamRequest, stream_source

    request = StreamRequest(
        run=run,
        source=source,
        output=output,
        save_video=save_video,
        drop=None if drop is None else Drop.parse(drop),
        patience=Patience(open_timeout, read_timeout, reconnect),
        threshold=threshold,
        class_name=class_name,
        smooth_hz=smooth,
        min_score=_min_score(min_score),
        device=device,
        half=half,
        refine="joint" if refine is Refinement.joint else None,
        compile=compile_,
        budget_ms=budget,
        view=0 if show and view is None else view,
        show=show,
    )
    stream_source(request, quiet=quiet)


def _min_score(text: str) -> float | None:
    """Read ``--min-score``; None is the run's own."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"--min-score {text}: expected a number in 0..1, or auto")
    return value
