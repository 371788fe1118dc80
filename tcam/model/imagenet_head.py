"""Read the ImageNet classifier of pretrained weights, of networks where it is linear in the mean features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast

import torch
from torch import Tensor, nn

from tcam.errors import ConfigError, WeightsError
from tcam.model.backbone import Backbone, create_timm_model, pretrained_weights

_SIDE: Final = 128
_TOLERANCE: Final = 1e-3
_REMEDY: Final = "choose another cam.method, such as layercam"


class _Network(Protocol):
    def forward_intermediates(self, images: Tensor) -> tuple[Tensor, object]: ...


def known_classes(backbone: Backbone) -> int:
    """Return the number of classes of the published classifier, usually 1000."""
    return cast("int", _published(backbone)["num_classes"])


def check_imagenet_head(backbone: Backbone) -> None:
    """Check that the published classifier is a linear layer over the mean of ``Pyramid.last``.

    The network is built a second time, with random weights and its classifier, and its logits are compared.

    Raises:
        ConfigError: it is something else (a norm or a hidden layer before it, a class token), or the backbone has
            another last level than the published network.
    """
    expected = "cam.method=prior expects an ImageNet classifier that is linear in the mean of the last features"
    transformer = backbone.patch is not None
    if not transformer and len(backbone.level_channels) < len(cast("Sequence[object]", backbone.model.feature_info)):
        raise ConfigError(f"{expected}; model.levels_used leaves the last level out: set it to null, or {_REMEDY}")
    if backbone.has_new_stage:
        raise ConfigError(
            f"{expected}; '{backbone.name}' at stride 8 has a new last stage: set model.output_stride to null, "
            f"or {_REMEDY}"
        )
    if transformer or not _is_linear_in_the_mean(backbone):
        raise ConfigError(
            f"{expected}; that of model '{backbone.name}' is not: take a backbone such as resnet50 or "
            f"tf_efficientnet_lite2, or {_REMEDY}"
        )


def read_imagenet_head(backbone: Backbone, source: str) -> tuple[Tensor, Tensor]:
    """Return weights ``[K0, D]`` and biases ``[K0]`` of the classifier in ``source``, a weight file or ``imagenet``.

    Raises:
        MissingPartError: the download fails.
        WeightsError: the file is unreadable, or has no such classifier.
    """
    name, weights = _classifier_name(backbone), pretrained_weights(backbone.name, source)
    known = known_classes(backbone)
    for layer, shape in ((f"{name}.weight", [known, backbone.last_channels]), (f"{name}.bias", [known])):
        found = list(weights[layer].shape) if layer in weights else None
        if found != shape:
            raise WeightsError(
                f"cam.method=prior needs the ImageNet classifier: expected {layer} {shape} in weights "
                f"'{source}', found {'no such layer' if found is None else found}; give the whole weights of "
                f"'{backbone.name}', or {_REMEDY}"
            )
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _classifier_name(backbone: Backbone) -> str:
    return str(_published(backbone)["classifier"])


def _published(backbone: Backbone) -> Mapping[str, object]:
    return cast("Mapping[str, object]", backbone.model.pretrained_cfg)


@torch.no_grad()
def _is_linear_in_the_mean(backbone: Backbone) -> bool:
    """Whether the logits of noise are those of the classifier on the mean features, at the network's own stride."""
    model = create_timm_model(backbone.name, None, backbone.options, num_classes=known_classes(backbone)).eval()
    classifier = dict(model.named_modules()).get(_classifier_name(backbone))
    if not isinstance(classifier, nn.Linear) or classifier.bias is None:
        return False
    generator = torch.Generator().manual_seed(0)
    classifier.weight.normal_(generator=generator)  # some networks start with zeros, which would hide a difference
    image = torch.randn(1, 3, _SIDE, _SIDE, generator=generator)
    features = cast("_Network", model).forward_intermediates(image)[0]
    if features.ndim != 4 or features.shape[1] != classifier.in_features:
        return False
    wanted, found = model(image), classifier(features.mean(dim=(2, 3)))
    scale = float(wanted.std())
    return scale > 0 and float((found - wanted).abs().max()) < _TOLERANCE * scale
