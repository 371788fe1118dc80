"""ADL: during training, feature maps lose their most attended region or are weighted by attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tcam.errors import ConfigError
from tcam.model.backbone import Backbone


@dataclass(frozen=True, slots=True)
class AttentionDropout:
    """Attention-based Dropout Layers on a backbone (Choe and Shim, CVPR 2019, arXiv:1908.10028).

    With ``a`` the mean of a feature map over its channels, a layer multiplies the map by the drop mask ``a < gamma
    max_p(a)``, or by the importance map ``sigmoid(a)``; each layer draws one of the two per batch. It has no parameters
    and acts only within ``acting_on``; at inference the network is unchanged.

    Attributes:
        drop_rate: probability of the drop mask; 75 % in the paper.
        threshold: gamma, 0.8 with VGG in the paper; nearer to 1 drops less.
        levels: of the backbone's pyramid, from the last: three, as in the paper (pool3, pool4 and conv5_3 of VGG).
    """

    drop_rate: float = 0.75
    threshold: float = 0.8
    levels: int = 3

    @contextmanager
    def acting_on(self, backbone: Backbone, generator: torch.Generator) -> Iterator[None]:
        """Change the feature maps of the backbone within the block, which runs it once.

        Raises:
            ConfigError: it has fewer levels, or its levels are not the outputs of the layers it lists.
        """
        layers = backbone.level_modules()[-self.levels :]
        luck = torch.rand(self.levels, generator=generator, device=generator.device).tolist()
        calls = []

        def act_on(layer: nn.Module, drop: bool) -> torch.utils.hooks.RemovableHandle:
            def act(_: nn.Module, __: tuple[object, ...], features: Tensor) -> Tensor:
                calls.append(layer)
                return self.drop(features) if drop else weigh_by_importance(features)

            return layer.register_forward_hook(act)

        handles = [act_on(layer, chance < self.drop_rate) for layer, chance in zip(layers, luck, strict=False)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if calls != list(layers) or len(layers) < self.levels:
            raise ConfigError(
                f"ADL needs {self.levels} levels that a network computes layer by layer: found {len(calls)} in model "
                f"'{backbone.name}'; use another backbone, another baseline or fewer classifier.adl.levels"
            )

    def drop(self, features: Tensor) -> Tensor:
        """Remove the most attended region of ``[N, C, h, w]``: 0 where the mean reaches gamma of its maximum.

        Features after a ReLU have a maximum above 0. Of other features, none are dropped if the mean is negative
        everywhere.
        """
        attention = features.detach().mean(dim=1, keepdim=True)
        return features * (attention < self.threshold * attention.amax(dim=(2, 3), keepdim=True))

    def check(self, backbone: Backbone) -> None:
        """Check on a small image that it works with this backbone, whose state may change.

        Raises:
            ConfigError: it does not.
        """
        weights = next(backbone.parameters())
        with torch.no_grad(), self.acting_on(backbone.eval(), torch.Generator(weights.device)):
            backbone(weights.new_zeros(1, 3, 64, 64))


def weigh_by_importance(features: Tensor) -> Tensor:
    """Return ``[N, C, h, w]`` times its importance map, the sigmoid of the mean over channels."""
    return features * features.mean(dim=1, keepdim=True).sigmoid()
