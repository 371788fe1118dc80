"""Feature pyramids of timm's networks and their pretrained weights. Only this module uses timm."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, cast

import torch
from torch import Tensor, nn

from tcam.errors import ConfigError, MissingPartError, WeightsError, one_line
from tcam.model.stride8 import NEW, STRIDE_8_FORMS
from tcam.model.tokens import attends, patch_side, token_features
from tcam.model.weight_files import misfit, read_weights
from tcam.timm_import import timm

_PROBE_SIDE: Final = 128
_PROBE_PATCHES: Final = 8
_TRANSFORMERS: Final = ("vision_transformer", "deit")
"""Modules of timm whose networks ``tcam.model.tokens`` can read."""

_NO_OPTIONS: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pyramid:
    """Features of N images.

    Attributes:
        levels: ``[N, C_i, h_i, w_i]``, fine to coarse.
        last: ``[N, D, h, w]``, the input of the class head; in most networks the last level.
        attention: attention of a vision transformer's class token to the patches, ``[N, blocks, heads, h, w]``, without
            a graph; None for other networks.
    """

    levels: tuple[Tensor, ...]
    last: Tensor
    attention: Tensor | None = None


class _TimmModel(Protocol):
    """The part of a timm model that is used here (timm itself carries no usable types)."""

    feature_info: Sequence[Mapping[str, object]]
    pretrained_cfg: Mapping[str, Sequence[float]]

    def forward_intermediates(self, x: Tensor, **options: object) -> object: ...


class Backbone(nn.Module):
    """A timm network without its classifier.

    Attributes:
        name: timm's name of the network.
        level_channels: channels of each level, fine to coarse.
        level_reductions: input pixels per feature pixel of each level.
        patch: side of a vision transformer's patches; the input size must be a multiple of it. None for other networks.
        attends: whether ``Pyramid.attention`` is available.
        has_new_stage: whether it has layers that ImageNet weights do not have (``tcam.model.stride8``).
        options: further keywords of ``timm.create_model``.
        last_channels: D, channels of ``Pyramid.last``.
        mean: mean of red, green and blue in 0..1 that the weights expect; ``std`` likewise.

    An ``output_stride`` below the network's own keeps the later levels larger: strides become dilation, the weights
    stay the same (the paper's encoders have stride 8, arXiv:2208.14542; they drop the strides without dilation).
    ``vgg16`` and ``inception_v3`` have their published forms at stride 8 (``tcam.model.stride8``). Vision transformers
    give the levels of ``tcam.model.tokens``; their stride is that of their patches.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int | None = None,
        options: Mapping[str, object] = _NO_OPTIONS,
        levels_used: int | None = None,
    ) -> None:
        """Build the network with random weights.

        Args:
            name: a timm model name, ``mobilenetv2_100`` or with a weight tag ``inception_v3.tf_in1k``.
            output_stride: input pixels per pixel of the last features; None: the network's own.
            options: further keywords of ``timm.create_model``, such as ``{"pad_type": "same"}``.
            levels_used: keep the first levels only; the last of them is then ``Pyramid.last``.

        Raises:
            ConfigError: timm has no such network, it refuses an option, or it gives no feature pyramid.
        """
        super().__init__()
        self.name, self.options = name, options
        self.model = create_timm_model(name, output_stride, options)
        self.patch = patch_side(self.model)
        self.attends = self.patch is not None and attends(self.model)
        timm_model = cast("_TimmModel", self.model)
        reductions = [self.patch / 4, self.patch / 2, self.patch] if self.patch else _reductions(timm_model)
        if len(set(reductions)) < 2:
            raise _no_pyramid(name)
        if output_stride is not None and max(reductions) != output_stride:
            raise ConfigError(
                f"model '{name}' cannot have output_stride {output_stride} (it gave {max(reductions)}); "
                "set model.output_stride to null, its own"
            )
        if levels_used is not None and self.patch is not None:
            raise ConfigError(f"levels_used cuts convolutional networks: model '{name}' is a vision transformer")
        if levels_used is not None and not 1 <= levels_used <= len(reductions):
            raise ConfigError(
                f"model '{name}' has {len(reductions)} feature levels, cannot use the first {levels_used}"
            )
        self._cut = None if levels_used in (None, len(reductions)) else levels_used
        self._settle()
        self.has_new_stage = any(key.startswith(NEW) for key, _ in self.model.named_parameters())
        self.level_reductions: tuple[float, ...] = tuple(reductions[: self._cut])
        self.mean: tuple[float, ...] = tuple(timm_model.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(timm_model.pretrained_cfg["std"])

    def _settle(self) -> None:
        """Run once on a small image to find the channels, and drop the layers that no feature depends on."""
        try:
            pyramid, used = self._probe(lambda pyramid: (*pyramid.levels, pyramid.last))
        except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
            raise _no_pyramid(self.name) from error
        sizes = [level.shape[-1] for level in pyramid.levels]
        if any(level.ndim != 4 for level in (*pyramid.levels, pyramid.last)) or sizes != sorted(sizes, reverse=True):
            raise _no_pyramid(self.name)
        if pyramid.last.shape[2:] != pyramid.levels[-1].shape[2:]:
            raise _no_pyramid(self.name)
        _drop_unused(self.model, {id(parameter) for parameter in used})
        self.level_channels: tuple[int, ...] = tuple(level.shape[1] for level in pyramid.levels)
        self.last_channels: int = pyramid.last.shape[1]

    def forward(self, frames: Tensor) -> Pyramid:
        """Return the features of normalised float images ``[N, 3, H, W]``.

        Raises:
            ValueError: another shape.
        """
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be [N, 3, H, W], got {list(frames.shape)}")
        if self.patch is not None:
            of_tokens, attention = token_features(self.model, frames)
            return Pyramid(of_tokens, of_tokens[-1], attention)
        model = cast("_TimmModel", self.model)
        if self._cut is None:
            last, levels = cast("tuple[Tensor, list[Tensor]]", model.forward_intermediates(frames))
            return Pyramid(tuple(levels), last)
        found = model.forward_intermediates(
            frames, indices=list(range(self._cut)), stop_early=True, intermediates_only=True
        )
        levels = cast("list[Tensor]", found)
        return Pyramid(tuple(levels), levels[-1])

    def level_modules(self) -> list[nn.Module]:
        """Return the layers whose outputs are the levels, fine to coarse; none for a vision transformer."""
        if self.patch is not None:
            return []
        info = cast("_TimmModel", self.model).feature_info
        return [self.model.get_submodule(str(level["module"])) for level in list(info)[: self._cut]]

    def _probe(self, choose: Callable[[Pyramid], Sequence[Tensor]]) -> tuple[Pyramid, list[nn.Parameter]]:
        """Run on a black image in evaluation mode; also list the parameters that the chosen features depend on."""
        modes = [(module, module.training) for module in self.modules()]
        parameters = list(self.parameters())
        wanted = [parameter.requires_grad for parameter in parameters]
        side = _PROBE_SIDE if self.patch is None else _PROBE_PATCHES * self.patch
        try:
            self.eval().requires_grad_(True)
            with torch.enable_grad():
                pyramid = self(parameters[0].new_zeros(1, 3, side, side))
                total = torch.stack([features.sum() for features in choose(pyramid)]).sum()
            grads = torch.autograd.grad(total, parameters, allow_unused=True)
        finally:
            for module, training in modes:
                module.training = training
            for parameter, requires_grad in zip(parameters, wanted, strict=True):
                parameter.requires_grad_(requires_grad)
        return pyramid, [p for p, grad in zip(parameters, grads, strict=True) if grad is not None]


def late_parameters(backbone: Backbone) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the parameters into those after the last-but-one level (``layer4`` of a ResNet) and the rest.

    Fine-tuning gives the late ones a higher learning rate.

    Returns:
        late, early; together every parameter once.
    """
    if len(backbone.level_channels) < 2:
        return list(backbone.parameters()), []
    _, early = backbone._probe(lambda pyramid: pyramid.levels[-2:-1])
    known = {id(parameter) for parameter in early}
    return [parameter for parameter in backbone.parameters() if id(parameter) not in known], early


def load_backbone_weights(backbone: Backbone, source: str, *, allow_missing: Sequence[str] = ()) -> None:
    """Load pretrained weights into a backbone.

    Args:
        backbone: the backbone, changed in place.
        source: ``random`` (does nothing), ``imagenet`` (timm's own weights, downloaded once) or a ``.safetensors``,
            ``.pt`` or ``.pth`` file with the layer names of timm or of torchvision's ResNets. Layers of the file that
            the backbone does not have (its classifier) are ignored; half precision is converted to float32. The new
            stage of a published form keeps its random weights.
        allow_missing: prefixes of layers that may keep their random weights.

    Raises:
        MissingPartError: the download fails.
        WeightsError: the file is missing or unreadable, or lacks layers or has them in another shape.
    """
    if source == "random":
        return
    weights = pretrained_weights(backbone.name, source)
    target = backbone.model.state_dict()
    wanted = [name for name in target if not name.endswith("num_batches_tracked")]
    needed = [name for name in wanted if not name.startswith((NEW, *allow_missing))]
    misshaped = [name for name in wanted if name in weights and weights[name].shape != target[name].shape]
    missing = [name for name in needed if name not in weights]
    if missing or misshaped:
        raise WeightsError(misfit(backbone.name, source, missing, misshaped, total=len(wanted)))
    with torch.no_grad():
        for name in wanted:
            if name in weights:
                target[name].copy_(weights[name])


def model_names(pattern: str) -> list[str]:
    """Return timm's networks whose name matches a pattern with ``*`` and ``?``, without weight tags.

    Raises:
        ConfigError: there is none.
    """
    names: list[str] = timm.list_models(pattern)
    if not names:
        raise ConfigError(f"timm has no model '{pattern}': expected a name or a pattern such as 'convnext*'")
    return names


def create_timm_model(
    name: str, output_stride: int | None, options: Mapping[str, object], *, num_classes: int = 0
) -> nn.Module:
    """Build a network of timm with random weights; without a classifier if ``num_classes`` is 0."""
    base_name = name.partition(".")[0]
    form = STRIDE_8_FORMS.get(base_name) if output_stride == 8 else None
    stride: Mapping[str, object] = {} if output_stride is None else {"output_stride": output_stride}
    if form is not None:
        stride = form.options
    elif timm.models.is_model_in_modules(base_name, _TRANSFORMERS):
        stride = {"dynamic_img_size": True}
    if not timm.is_model(base_name):
        near = difflib.get_close_matches(base_name, timm.list_models(), n=4)
        hint = f"; close names: {', '.join(near)}" if near else ""
        raise ConfigError(
            f"timm has no model '{name}'{hint} (names: python -c 'import timm; print(timm.list_models())')"
        )
    try:
        create = cast("Callable[..., nn.Module]", timm.create_model)
        model = create(name, num_classes=num_classes, **{**stride, **options})
        return model if form is None else form.take_over(model)
    except (AssertionError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value}" for key, value in {**stride, **options}.items()) or "no options"
        raise ConfigError(f"model '{name}' cannot be built with {given}: {one_line(error)}") from error


def _reductions(model: _TimmModel) -> list[float]:
    return [int(cast("int", level["reduction"])) for level in getattr(model, "feature_info", ())]


def _no_pyramid(name: str) -> ConfigError:
    return ConfigError(
        f"model '{name}' gives no pyramid of convolutional features [N, C, h, w], which localization needs, and is no "
        "plain vision transformer; 'tcam backbones' lists networks that serve, such as resnet50 or convnext_tiny"
    )


def _drop_unused(module: nn.Module, used: set[int]) -> None:
    """Replace children none of whose parameters is used, so that counts, checkpoints and freezing stay honest."""
    for name, child in module.named_children():
        reached = [id(parameter) in used for parameter in child.parameters()]
        if reached and not any(reached):
            setattr(module, name, nn.Identity())
        elif not all(reached):
            _drop_unused(child, used)


def pretrained_weights(name: str, source: str) -> Mapping[str, Tensor]:
    """Return all layers of ``source``, a weight file or ``imagenet``; see ``load_backbone_weights``."""
    if source != "imagenet":
        return read_weights(Path(source))
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # httpx, urllib, ssl, huggingface_hub and timm each raise their own
        raise MissingPartError(
            f"cannot fetch ImageNet weights of '{name}' (no network, or none are published): "
            f"{one_line(error)}; pass --weights FILE (.safetensors, .pt or .pth), or --weights random"
        ) from None
    return model.state_dict()
