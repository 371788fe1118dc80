"""Write docs/settings.md from the settings themselves: python tools/settings_docs.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.config.methods import METHODS
from pipelines.config.schema import RunConfig

TARGET = Path(__file__).parents[1] / "docs" / "settings.md"
INTRODUCTION = """\
# Settings

<!-- Written by tools/settings_docs.py from pipelines/config: change it there and run python tools/settings_docs.py. -->

Every setting of a run with its default, for `--set KEY=VALUE`, YAML files and `tcam.train(settings=...)`.
[Training](training.md#settings) shows how to change them. [Methods](methods.md) explains methods, CAM methods, poolings
and baselines. The defaults are the published settings of TCAM with a ResNet-50; those of other methods are
[at the end](#defaults-of-methods).
"""


def main() -> None:
    """Write the page."""
    TARGET.write_text(render(), encoding="utf-8")


def render() -> str:
    """Return the page: a table for each group of settings, then the defaults of methods."""
    sections = [section(name, group) for name, group in groups(RunConfig, "")]
    return "".join([INTRODUCTION, *sections, methods()])


def groups(model: type[BaseModel], name: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the groups of settings with their full names, the whole first."""
    yield name, model
    for key, field in model.model_fields.items():
        if is_group(field):
            yield from groups(type(field.default), f"{name}.{key}" if name else key)


def is_group(field: FieldInfo) -> bool:
    """Whether a field holds more settings."""
    return isinstance(field.default, BaseModel)


def section(name: str, group: type[BaseModel]) -> str:
    """Return the table of one group."""
    title = f"## `{name}`" if name else "## The run"
    about = paragraph(group.__doc__ or "") if name else ""
    rows = [
        row(f"{name}.{key}" if name else key, field) for key, field in group.model_fields.items() if not is_group(field)
    ]
    return f"\n{title}\n{about}\n| Setting | Default | |\n|---|---|---|\n{''.join(rows)}" if rows else ""


def row(key: str, field: FieldInfo) -> str:
    """Return the row of one setting."""
    default = shown(field.get_default(call_default_factory=True))
    choices = next((get_args(part) for part in (field.annotation, *get_args(field.annotation)) if is_choice(part)), ())
    meaning = sentence(field.description or "")
    if choices:
        meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    return f"| `{key}` | `{default}` | {meaning.strip()} |\n"


def sentence(text: str) -> str:
    """Return a description with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def is_choice(annotation: object) -> bool:
    """Whether a type lists its values."""
    return get_origin(annotation) is Literal


def shown(value: object) -> str:
    """Return a value as YAML has it on one line."""
    return value if isinstance(value, str) else json.dumps(value, default=list)


def paragraph(docstring: str) -> str:
    """Return the first line of a docstring, in Markdown."""
    return "\n" + re.sub(r"``(.*?)``", r"`\1`", docstring.strip().splitlines()[0]) + "\n"


def methods() -> str:
    """Return the defaults of methods that differ from TCAM's."""
    rows = "".join(
        f"| `{name}` | {', '.join(f'`{key}={shown(value)}`' for key, value in flat(dict(method.defaults)))} |\n"
        for name, method in METHODS.items()
        if method.defaults
    )
    return f"\n## Defaults of methods\n\n| Method | Settings |\n|---|---|\n{rows}"


def flat(settings: dict[str, object], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Yield nested settings with dotted keys."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, (*parents, key))
        else:
            yield ".".join((*parents, key)), value


if __name__ == "__main__":
    main()
