"""Vision transformers as backbones: patch tokens as maps, a pyramid made of them, and the class token's attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tcam.precision import at_least_float32

LEVELS: Final = 3


class TokenModel(Protocol):
    """The part of timm's ``VisionTransformer`` that is used here."""

    blocks: Sequence[nn.Module]
    num_prefix_tokens: int
    has_class_token: bool

    def forward_intermediates(self, x: Tensor, **options: object) -> object:
        """Return all tokens, normalised, and maps of the patch tokens after some blocks."""


class _Attention(Protocol):
    """The part of timm's ``Attention`` that is used here."""

    num_heads: int
    head_dim: int
    scale: float
    qkv: nn.Module
    q_norm: nn.Module
    k_norm: nn.Module


def patch_side(model: nn.Module) -> int | None:
    """Return the side in pixels of a vision transformer's square patches; None for another model."""
    embedding = getattr(model, "patch_embed", None)
    sides: tuple[int, ...] = getattr(embedding, "patch_size", ())
    is_one = all(hasattr(model, name) for name in ("blocks", "num_prefix_tokens", "has_class_token"))
    return sides[0] if is_one and len(set(sides)) == 1 else None


def attends(model: nn.Module) -> bool:
    """Whether a vision transformer has a class token whose attention is available."""
    transformer = cast("TokenModel", model)
    found = [getattr(block, "attn", None) for block in transformer.blocks]
    return transformer.has_class_token and all(hasattr(attention, "qkv") for attention in found)


def token_features(model: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Run a vision transformer and return its patch tokens as maps.

    A transformer has a single resolution. The pyramid for a decoder is made of the normalised tokens after a third of
    the blocks, after two thirds and after the last; each level is enlarged (bilinear) to twice the size of the next.

    Returns:
        ``LEVELS`` maps ``[N, D, h_i, w_i]``, fine to coarse, the last one the size of the patch grid; and the class
        token's attention to the patches, ``[N, blocks, heads, h, w]`` without a graph, where there is a class token.
    """
    transformer = cast("TokenModel", model)
    depth = len(transformer.blocks)
    early = [depth * (level + 1) // LEVELS - 1 for level in range(LEVELS - 1)]
    with _watching(transformer) as rows:
        found = transformer.forward_intermediates(images, indices=early)
    tokens, maps = cast("tuple[Tensor, list[Tensor]]", found)
    last = tokens[:, transformer.num_prefix_tokens :].transpose(1, 2).reshape(maps[0].shape)
    enlarged = [
        functional.interpolate(level, scale_factor=2.0 ** (LEVELS - 1 - i), mode="bilinear", align_corners=False)
        for i, level in enumerate(maps)
    ]
    attention = torch.stack(rows, dim=1) if rows else None
    if attention is not None:
        attention = attention.reshape(*attention.shape[:3], *last.shape[2:])
    return (*enlarged, last), attention


@contextmanager
def _watching(model: TokenModel) -> Iterator[list[Tensor]]:
    """Collect the class token's attention in each block, ``[N, heads, patches]``, during one run of the model."""
    rows: list[Tensor] = []

    def watch(attention: _Attention) -> torch.utils.hooks.RemovableHandle:
        def look(_: nn.Module, __: tuple[object, ...], projected: Tensor) -> None:
            rows.append(class_token_row(attention, projected.detach())[:, :, model.num_prefix_tokens :])

        return attention.qkv.register_forward_hook(look)

    watched = model.blocks if attends(cast("nn.Module", model)) else ()
    handles = [watch(cast("_Attention", block.attn)) for block in watched]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def class_token_row(attention: _Attention, projected: Tensor) -> Tensor:
    """Return the attention of the first token to all, ``softmax(q_0 k^T / sqrt(d))``, ``[N, heads, T]``.

    Args:
        attention: the layer.
        projected: queries, keys and values of its tokens, ``[N, T, 3 heads d]``.
    """
    parts = projected.reshape(*projected.shape[:2], 3, attention.num_heads, attention.head_dim)
    query: Tensor = attention.q_norm(parts[:, :1, 0].transpose(1, 2))
    keys: Tensor = attention.k_norm(parts[:, :, 1].transpose(1, 2))
    scores = torch.einsum("nhqd,nhtd->nht", at_least_float32(query) * attention.scale, at_least_float32(keys))
    return scores.softmax(dim=2)
