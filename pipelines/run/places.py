"""Where tcam keeps files between commands: clean copies of videos, downloaded data sets."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder of frame caches: ``$TCAM_HOME/cache``, or the system's cache folder for tcam."""
    home = os.environ.get("TCAM_HOME")
    return Path(home) / "cache" if home else Path(platformdirs.user_cache_dir("tcam"))


def data_folder() -> Path:
    """Return the folder of downloaded data sets: ``$TCAM_DATA``, or the system's data folder for tcam."""
    home = os.environ.get("TCAM_DATA")
    return Path(home) if home else Path(platformdirs.user_data_dir("tcam"))
