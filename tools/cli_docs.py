"""Write docs/cli.md from the commands themselves: python tools/cli_docs.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import typer

from pipelines.cli.app import app

Click: TypeAlias = Any
"""A command or its context: Typer has its own copy of click in some versions."""
TARGET = Path(__file__).parents[1] / "docs" / "cli.md"
INTRODUCTION = """\
# Command line

<!-- Written by tools/cli_docs.py from the commands; change their help there, then run python tools/cli_docs.py. -->

`tcam COMMAND --help` prints the same. Data goes to stdout, everything else to stderr.

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | unexpected error |
| 2 | wrong command, option or setting |
| 3 | data missing or invalid |
| 4 | finished, but some videos failed: see `errors.csv` |
| 5 | an optional package or weights are missing |
| 6 | no network, no Ray cluster, or a live source was lost |
| 130, 143 | interrupted by SIGINT, SIGTERM |

| Command | |
|---|---|
"""


def main() -> None:
    """Write the page."""
    TARGET.write_text(render(), encoding="utf-8")


def render() -> str:
    """Return the page: a table of commands, then each with its usage, arguments and options."""
    commands = list(walk(typer.main.get_command(app), "tcam", None))
    index = "".join(f"| [`{name}`](#{name.replace(' ', '-')}) | {short(command)} |\n" for name, command, _ in commands)
    return INTRODUCTION + index + "".join(section(name, command, context) for name, command, context in commands)


def walk(command: Click, name: str, parent: Click) -> Iterator[tuple[str, Click, Click]]:
    """Yield every command that does something, with its full name and its context."""
    context = command.context_class(command, info_name=name.split()[-1], parent=parent)
    if not hasattr(command, "commands"):
        yield name, command, context
        return
    for inner, child in command.commands.items():
        yield from walk(child, f"{name} {inner}", context)


def short(command: Click) -> str:
    """Return the line that the list of commands shows."""
    return cell(command.short_help or command.help.partition("\n")[0])


def section(name: str, command: Click, context: Click) -> str:
    """Return the part of one command."""
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"\n## {name}\n\n{command.help.strip()}\n\nUsage: `{usage}`\n"]
    for kind in ("argument", "option"):
        rows = [row(one.get_help_record(context)) for one in command.params if one.param_type_name == kind]
        if rows:
            parts.append(f"\n| {kind.capitalize()} | Default | |\n|---|---|---|\n{''.join(rows)}")
    return "".join(parts)


def row(record: tuple[str, str]) -> str:
    """Return the row of an argument or option: its spellings, its default, what it does."""
    flags, text = record
    found = re.search(r"(?:^|  )\[([^\[]*)\]$", text)
    notes = found.group(1).split("; ") if found else []
    default = next((note.removeprefix("default: ") for note in notes if note.startswith("default: ")), "")
    default = f"`{default}`" if default else "required" if "required" in notes else ""
    others = [f"`{note}`" for note in notes if note != "required" and not note.startswith("default: ")]
    text = (text[: found.start()] if found else text).replace("<", "&lt;")
    return f"| `{cell(flags)}` | {cell(default)} | {cell(' '.join([text, *others]))} |\n"


def cell(text: str) -> str:
    """Make a text fit into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
