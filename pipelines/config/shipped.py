"""The configs shipped with tcam: in a checkout the folder ``configs``, installed ``share/tcam/configs``."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from tcam.errors import ConfigError, DataError


def configs_folder() -> Path:
    """Return the folder of the shipped configs.

    Raises:
        DataError: they are not installed.
    """
    checkout = Path(__file__).parents[2] / "configs"
    if (checkout / "README.md").is_file():
        return checkout
    for file in metadata.files("tcam") or ():
        if file.match("share/tcam/configs/README.md"):
            return Path(str(file.locate())).resolve().parent
    raise DataError("the shipped configs are not installed: install tcam again")


def list_configs() -> dict[str, str]:
    """Return the first line of every config by its name, such as ``yto_v1/tcam``."""
    folder = configs_folder()
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.glob("*/*.yaml")}
    return {name: paths[name].read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name in sorted(paths)}


def read_config(name: str) -> str:
    """Return the text of one config.

    Raises:
        ConfigError: there is no config of that name.
    """
    known = list_configs()
    if name not in known:
        raise ConfigError(f"no config '{name}': expected one of {', '.join(known)}")
    return (configs_folder() / f"{name}.yaml").read_text(encoding="utf-8")
