"""``tcam data ...``, ``tcam configs``, ``tcam backbones``; as in ``app.py``, heavy imports happen inside commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(help="Fetch data sets, check videos, import split lists.", no_args_is_help=True)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]
SOME_FAILED = 4


@data.command(short_help="Fetch YouTube-Objects, or use a copy that you have.")
def get(
    name: Annotated[str, typer.Argument(help="yto_v1 or yto_v2.2.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the archives, or the unpacked data (used in place).")
    ] = None,
    classes: Annotated[str, typer.Option(help="Some classes only, e.g. cat,dog.")] = "",
    url: Annotated[str | None, typer.Option(help="Another host with the same files.")] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch a data set into TCAM_DATA, or use it from a folder. An interrupted download continues."""
    from pipelines.commands.data import get_dataset

    chosen = [item.strip() for item in classes.split(",") if item.strip()]
    get_dataset(name, source=source, classes=chosen, url=url, quiet=quiet)


@data.command(short_help="Show what a folder of videos holds, and which videos are broken.")
def check(
    source: Annotated[Path, typer.Argument(help="Folder of videos, or yto_v1, yto_v2.2.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. data.units=relative.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the table as JSON on stdout.")] = False,
    quiet: Quiet = False,
) -> None:
    """Count videos, shots, frames and boxes per class.

    Lists videos that are rotated, have a variable frame rate or are broken. Files that are not part of a video are
    counted too, folder by folder.
    """
    from pipelines.commands.data import check_dataset

    if check_dataset(source, set_ or (), as_json=json_, quiet=quiet):
        raise typer.Exit(SOME_FAILED)


@data.command("import-splits", short_help="Use the official split lists of YouTube-Objects.")
def import_splits(
    folder: Annotated[Path, typer.Argument(help="Holds train, val and test, each with image_ids.txt and the like.")],
    dataset: Annotated[
        Path | None, typer.Option("--data", help="Folder of the data set; TCAM_DATA's if left out.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Check the "WSOL done right" lists and store them next to the data set; later runs use them."""
    from pipelines.commands.data import import_splits as store

    store(folder, data=dataset, quiet=quiet)


def configs(
    name: Annotated[str | None, typer.Argument(help="E.g. yto_v1/tcam; all are listed if left out.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of stdout.")] = None,
) -> None:
    """List the configs that come with tcam, print one, or copy it to a file."""
    from pipelines.config.shipped import list_configs, read_config
    from tcam.errors import ConfigError
    from tcam.files import replacing

    if name is None:
        for known, first_line in list_configs().items():
            typer.echo(f"{known:<20} {first_line}")
    elif output is None:
        typer.echo(read_config(name), nl=False)
    else:
        if output.exists():
            raise ConfigError(f"{output} exists: remove it or choose another name")
        with replacing(output) as temporary:
            temporary.write_text(read_config(name), encoding="utf-8")


def backbones(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Names of timm, such as 'convnext*'; common families by default.")
    ] = None,
) -> None:
    """List networks for --backbone, with the finest model.output_stride, channels and parameters.

    "attention" says whether cam.method=tscam and clsattention work. Nothing is downloaded. It takes about a second per
    network.
    """
    from tcam.model.catalogue import list_backbones

    row = "{:<36} {:>13} {:>6} {:>8} {:>10} {:>9}"
    titles: tuple[str, ...] = ("model", "output_stride", "stride", "channels", "parameters", "attention")
    for facts in list_backbones(patterns or ()):
        if titles:
            typer.echo(row.format(*titles))
            titles = ()
        wanted = "null" if facts.output_stride is None else str(facts.output_stride)
        size = f"{facts.parameters / 1e6:.1f} M"
        attention = "yes" if facts.attends else "no"
        typer.echo(row.format(facts.name, wanted, f"{facts.stride:g}", facts.channels, size, attention))
