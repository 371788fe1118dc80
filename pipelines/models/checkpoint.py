"""Checkpoints: weights to share (safetensors) and states to resume from (torch), written whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tcam.errors import WeightsError, one_line
from tcam.files import replacing


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, object]) -> None:
    """Write all weights of a network, with facts about them (JSON values) inside the file: same content, same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    facts = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    data = memoryview(safetensors.torch.save(tensors, facts))
    end = 8 + int.from_bytes(data[:8], "little")
    # safetensors writes its header in the order of a hash table: other bytes in every process.
    header = json.dumps(json.loads(bytes(data[8:end])), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        for part in (len(header).to_bytes(8, "little"), header, data[end:]):
            stream.write(part)


def load_weights(network: nn.Module, path: Path) -> dict[str, Any]:
    """Read weights into a network that has just these layers; returns the facts stored with them.

    Raises:
        WeightsError: the file is missing, damaged, or made for another network.
    """
    try:
        with safe_open(path, "pt") as stream:
            facts = {key: json.loads(value) for key, value in (stream.metadata() or {}).items()}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
        network.load_state_dict(tensors)
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: facts that are not ours
        raise WeightsError(f"cannot read the weights {path}: {error}; train the run again or resume it") from None
    except RuntimeError as error:
        raise WeightsError(f"{path} was made for another network: {one_line(error)}") from None
    return facts


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state to resume from: tensors, numbers, strings and containers of them."""
    buffer = io.BytesIO()  # a file of torch's own has its name inside, and a full disk is a RuntimeError there
    torch.save(dict(state), buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read the state that a stage saved; None if there is none for these inputs.

    Raises:
        WeightsError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file the unpickler may fail in any way, KeyError included
        raise WeightsError(
            f"cannot resume from {path}: {one_line(error)}; delete it to start the stage again"
        ) from None
    return state if state.get("fingerprint") == fingerprint else None
