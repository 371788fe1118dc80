"""The pixel classifier: background or foreground, from the input of the class head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from tcam.model.decoder import maps_of
from tcam.types import Size


class PixelHead(nn.Module):
    """One 1 x 1 convolution of the encoder's last features (PixelCAM, arXiv:2503.24135), enlarged to the frame."""

    def __init__(self, in_channels: int, *, num_tags: int = 1) -> None:
        """Build the layer with torch's default weights.

        Args:
            in_channels: D, channels of the features.
            num_tags: pairs of maps, one for each tag; 1 for all tags.

        Raises:
            ValueError: no channel.
        """
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be 1 or more, got {in_channels}")
        self.conv = nn.Conv2d(in_channels, 2 * num_tags, 1)

    def forward(self, levels: Sequence[Tensor], size: Size, labels: Tensor | None = None) -> Tensor:
        """Return the map logits of ``size``, ``[N, 2, H, W]``: 0 background, 1 foreground.

        Args:
            levels: the last of them are the features, ``[N, D, h, w]``.
            size: height and width of the image.
            labels: int64 ``[N]``, the tag to map, for a head with maps for each.

        Raises:
            ValueError: other features.
        """
        features = levels[-1]
        if features.ndim != 4 or features.shape[1] != self.conv.in_channels:
            raise ValueError(f"features must be [N, {self.conv.in_channels}, h, w], got {list(features.shape)}")
        maps = maps_of(self.conv(features), labels)
        return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
