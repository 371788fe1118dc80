"""Choose device and precision; the rest of the code only uses ``Compute``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from pipelines.models.forks import end_threads_before_forks
from pipelines.run.memory import keep_freed_memory
from tcam.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Compute:
    """The device of the tensors and the precision of the network."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context of mixed precision for the forward pass; it does nothing in fp32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return a loss scaler, active only for fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose_compute(device: str, precision: str) -> Compute:
    """Turn ``--device`` and ``precision`` into a device and a dtype.

    Device ``auto`` is CUDA, else MPS, else the CPU. Precision ``auto`` is bfloat16 where the hardware computes in it,
    fp16 on older GPUs, else fp32. On the CPU the process also starts to keep the memory it frees, and to end its
    threads before it forks.

    Raises:
        ConfigError: this machine has no such device.
    """
    chosen = _device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
        end_threads_before_forks()
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Compute(chosen, dtypes[precision] if precision != "auto" else _fast_dtype(chosen))


def half_compute(device: torch.device) -> Compute:
    """Compute in 16 bits (bfloat16, else fp16), even where the hardware emulates it and is slower."""
    dtype = torch.float16 if device.type == "mps" else _fast_dtype(device)
    return Compute(device, torch.bfloat16 if dtype == torch.float32 else dtype)


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise ConfigError(f"no device '{name}' here: --device takes auto, {', '.join(here)}") from None
    return device


def _fast_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # absent in older torch: fp32
        return torch.bfloat16 if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else torch.float32
    return torch.float32
