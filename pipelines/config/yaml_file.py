"""Read YAML files and ``a.b=c`` overrides as nested settings, and describe errors in one line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tcam.errors import ConfigError, one_line


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of settings; an empty file holds none.

    Raises:
        ConfigError: it is missing, not YAML, or not a table of settings.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings as 'key: value' lines, found a {type(values).__name__}")
    return values


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one ``a.b=c`` in nested settings, in place; the value is read as YAML.

    Raises:
        ConfigError: it has another form, or ``a`` is a single value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set wants key=value such as classifier.epochs=10, got '{override}'")
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: '{parent}' is one value, not a group of settings")
        values = child
    try:
        values[leaf] = yaml.safe_load(text)
    except yaml.YAMLError:
        values[leaf] = text


def explain(error: ValidationError, model: type[BaseModel], path: Path | None) -> str:
    """Describe in one line the first thing that is wrong with the settings of a model."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    where = f" in {path}" if path is not None else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return f"unknown setting '{name}'{where}: {hint}known here: {', '.join(known)}"
    if first["type"] == "value_error":  # one of the checks above, over several settings
        group = f" of '{name}'" if name else ""
        return f"settings{group}{where}: {first['ctx']['error']}"
    return f"setting '{name}'{where}: {first['msg'].lower()}, found {first['input']!r}"


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
