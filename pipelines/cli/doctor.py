"""``tcam doctor``."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(json_: Annotated[bool, typer.Option("--json", help="Print the checks as JSON on stdout.")] = False) -> None:
    """Check this machine: Python, PyTorch, device, video reader, optional parts, folders, pretrained weights.

    Each line says ok, missing (tcam works without) or FAILED, and how to mend it. Exit code 5: something failed.
    """
    from pipelines.commands.doctor import check_machine

    check_machine(as_json=json_)
