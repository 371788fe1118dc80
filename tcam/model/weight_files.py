"""Read pretrained weights from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from tcam.errors import WeightsError, one_line


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read a state_dict from a ``.safetensors``, ``.pt`` or ``.pth`` file.

    Raises:
        WeightsError: the file is missing or unreadable, or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at '{path}': expected a .safetensors, .pt or .pth file, 'imagenet' or 'random'")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a file of another kind the unpickler may fail in any way, KeyError included
        raise WeightsError(
            f"cannot read weights from '{path}': {one_line(error)}; "
            "expected a state_dict in a .safetensors, .pt or .pth file"
        ) from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"'{path}' holds a {type(loaded).__name__}, expected tensors by layer name (a state_dict)")
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def misfit(name: str, source: str, missing: Sequence[str], misshaped: Sequence[str], *, total: int) -> str:
    """Return one line that says which layers are missing or have another shape, and what to do."""
    parts = [
        f"{len(layers)} of {total} {what}: {', '.join(layers[:3])}{', ...' if len(layers) > 3 else ''}"
        for what, layers in (("layers are missing", missing), ("layers have another shape", misshaped))
        if layers
    ]
    return (
        f"weights '{source}' do not fit model '{name}': {'; '.join(parts)}. Give the weights of this model, "
        "name theirs with --backbone, use fewer levels (levels_used), or allow_missing with the prefixes of layers to "
        "leave random"
    )
