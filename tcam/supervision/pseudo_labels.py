"""Pseudo-labels from CAMs: Otsu's region, and a few foreground and background pixels drawn again at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from tcam.types import IGNORE, PixelLabels, Size

Region = Literal["otsu", "largest", "high_density", "frame"]

_LEVELS: Final = 4096
_FLOOR: Final = 1e-8
_LATE: Final = 1e20
_SMALLEST_DENSE_SHARE: Final = 0.05


def otsu_threshold(maps: Tensor) -> Tensor:
    """Return Otsu's threshold of each map (Otsu 1979), over the 256 levels ``floor(255 m)``.

    The level maximises the variance between the pixels up to it and those above it; of equals the first is taken.

    Args:
        maps: ``[N, H, W]``, in 0..1.

    Returns:
        ``[N]`` in 0..255, in the dtype of ``maps``; 0 for a map of one level.

    Raises:
        ValueError: another shape.
    """
    _check(maps, "maps")
    levels = (255 * maps).flatten(1).long().clamp(0, 255)
    counts = torch.zeros(len(maps), 256, dtype=torch.int64, device=maps.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    below = counts.cumsum(dim=1)
    sum_below = (counts * torch.arange(256, device=maps.device)).cumsum(dim=1)
    pixels, total = below[:, -1:], sum_below[:, -1:]
    # w1 w2 (m1 - m2)^2 = (s1 n - s w1)^2 / (w1 w2), whole numbers up to the square.
    spread = (sum_below * pixels - total * below).double().square()
    weights = (below * (pixels - below)).double()
    between = torch.where(weights > 0, spread / weights.clamp_min(1), torch.zeros_like(spread))
    return between.argmax(dim=1).to(maps.dtype)


def otsu_region(maps: Tensor) -> Tensor:
    """Return the pixels at or above Otsu's threshold, bool ``[N, H, W]``; all pixels of a constant map.

    Raises:
        ValueError: ``maps`` is not ``[N, H, W]``.
    """
    return 255 * maps >= otsu_threshold(maps)[:, None, None]


def largest_component(regions: Tensor) -> Tensor:
    """Return the largest 4-connected component of each region, bool ``[N, H, W]``; the first of equals.

    Works on the CPU, image by image.

    Raises:
        ValueError: ``regions`` is not ``[N, H, W]``.
    """
    _check(regions, "regions")
    kept = [_component(region, region.astype(np.float64), 1.0) for region in regions.cpu().numpy()]
    return torch.from_numpy(np.stack(kept)).to(regions.device) if kept else regions


def densest_component(regions: Tensor, maps: Tensor, *, smallest_share: float = _SMALLEST_DENSE_SHARE) -> Tensor:
    """Return the 4-connected component with the highest mean map value of each region, or the largest if that is tiny.

    Works on the CPU, image by image.

    Args:
        regions: bool ``[N, H, W]``.
        maps: ``[N, H, W]``.
        smallest_share: share of the image; if the densest component is smaller, the largest one is taken.

    Returns:
        bool ``[N, H, W]``.

    Raises:
        ValueError: other shapes.
    """
    _check(regions, "regions")
    if maps.shape != regions.shape:
        raise ValueError(f"maps must be {list(regions.shape)} like regions, got {list(maps.shape)}")
    values = maps.detach().double().cpu().numpy()
    kept = [
        _component(region, value, smallest_share) for region, value in zip(regions.cpu().numpy(), values, strict=True)
    ]
    return torch.from_numpy(np.stack(kept)).to(regions.device) if kept else regions


def bounding_mask(regions: Tensor) -> Tensor:
    """Return the bounding rectangle of each region, bool ``[N, H, W]``; empty regions stay empty.

    Raises:
        ValueError: ``regions`` is not ``[N, H, W]``.
    """
    _check(regions, "regions")
    return _between_ends(regions.any(dim=2))[:, :, None] & _between_ends(regions.any(dim=1))[:, None, :]


def erode_region(regions: Tensor, side: int) -> Tensor:
    """Return the pixels whose whole square lies within the region; a region too thin for any is kept (F-CAM).

    Pixels beyond the image count as region, so that an object at the frame's edge is not eroded there.

    Args:
        regions: bool ``[N, H, W]``.
        side: side of the square in pixels; odd, 1 changes nothing.

    Returns:
        bool ``[N, H, W]``.

    Raises:
        ValueError: another shape, or an even ``side``.
    """
    _check(regions, "regions")
    if side < 1 or side % 2 == 0:
        raise ValueError(f"side must be odd and 1 or more, got {side}")
    outside = (~regions)[:, None].float()  # max pooling pads with less than any value
    eroded = functional.max_pool2d(outside, side, stride=1, padding=side // 2)[:, 0] == 0
    return torch.where(eroded.flatten(1).any(dim=1)[:, None, None], eroded, regions)


@dataclass(frozen=True, slots=True)
class SeedSampler:
    """Draws pixel labels from CAMs (TCAM, arXiv:2208.14542, section 3; F-CAM, arXiv:2109.07069).

    Attributes:
        foreground: pixels drawn per image among the strongest of its region.
        background: pixels drawn per image, uniformly, among the weakest of the whole image.
        foreground_fraction: share of the region's pixels that count as its strongest, in 0..1.
        background_fraction: share of the image's pixels that count as its weakest, in 0..1.
        kernel: side in pixels of the square each drawn pixel grows to; odd, 1 for none.
        weighted: draw foreground in proportion to the CAM; otherwise uniformly.
        region: where foreground may lie: Otsu's region, its largest or densest component, or the whole frame.
        box_mask: widen the region to its bounding rectangle.
        erosion: side of the square by which the region is then eroded (``erode_region``); odd, 1 for none.
    """

    foreground: int
    background: int
    foreground_fraction: float
    background_fraction: float
    kernel: int = 3
    weighted: bool = True
    region: Region = "otsu"
    box_mask: bool = False
    erosion: int = 1

    def __post_init__(self) -> None:
        if self.foreground < 1 or self.background < 1:
            raise ValueError(f"seed counts must be 1 or more, got {self.foreground} and {self.background}")
        if not (0 < self.foreground_fraction <= 1 and 0 < self.background_fraction <= 1):
            fractions = (self.foreground_fraction, self.background_fraction)
            raise ValueError(f"seed fractions must lie in (0, 1], got {fractions}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and 1 or more, got {self.kernel}")
        if self.erosion < 1 or self.erosion % 2 == 0:
            raise ValueError(f"erosion must be odd and 1 or more, got {self.erosion}")
        if self.region not in get_args(Region):
            raise ValueError(f"region must be one of {', '.join(get_args(Region))}, got '{self.region}'")

    @torch.no_grad()
    def __call__(
        self, cams: Tensor, generator: torch.Generator, *, first: int = 0, total: int | None = None
    ) -> PixelLabels:
        """Draw labels for N images at once. Only the regions made of components need the CPU.

        Pixels drawn as both foreground and background are left out; a constant CAM gets no label. CAM values closer
        than 2**-12 count as equal, and chance decides which of them belong to the strongest or weakest.

        Args:
            cams: ``[N, H, W]``, in 0..1.
            generator: source of randomness, on the device of ``cams``.
            first: position of the first map in a batch of ``total`` maps. Numbers are drawn for the whole batch, so
                that splitting it changes neither labels nor generator.
            total: number of maps of the whole batch; None if these are all.

        Raises:
            ValueError: another shape, or maps that are not within ``total``.
        """
        _check(cams, "cams")
        total = first + len(cams) if total is None else total
        if not 0 <= first <= total - len(cams):
            raise ValueError(f"maps {first} to {first + len(cams)} must be within the batch of {total}")
        values = cams.float().nan_to_num(nan=0.0).clamp(0, 1)
        region = self._find_region(values).flatten(1)
        flat = values.flatten(1)
        levels = (flat * (_LEVELS - 2) + 1).long()  # 1..4095; 0 marks what may not be drawn
        varied = flat.amax(dim=1) > flat.amin(dim=1)
        pool = (region.sum(dim=1).double() * self.foreground_fraction).long() * varied
        weights = flat + _FLOOR if self.weighted else None
        chance = _chance(flat, generator, first, total)
        foreground = _draw(levels.masked_fill(~region, 0), pool, self.foreground, weights, chance)
        pool = varied * int(flat.shape[1] * self.background_fraction)
        chance = _chance(flat, generator, first, total)
        background = _draw(_LEVELS - levels, pool, self.background, None, chance)
        size = (values.shape[1], values.shape[2])
        return PixelLabels(_assemble(_grow(background, size, self.kernel), _grow(foreground, size, self.kernel)))

    def _find_region(self, values: Tensor) -> Tensor:
        if self.region == "frame":
            return torch.ones_like(values, dtype=torch.bool)
        region = otsu_region(values)
        if self.region == "largest":
            region = largest_component(region)
        elif self.region == "high_density":
            region = densest_component(region, values)
        region = bounding_mask(region) if self.box_mask else region
        return region if self.erosion == 1 else erode_region(region, self.erosion)


def _chance(maps: Tensor, generator: torch.Generator, first: int, total: int) -> Tensor:
    """Draw two numbers for every pixel of ``total`` maps ``[N, P]``; return those of the maps from ``first`` on."""
    drawn = torch.rand((2, total, maps.shape[1]), generator=generator, device=maps.device)
    return drawn[:, first : first + len(maps)]


def _draw(levels: Tensor, pool: Tensor, count: int, weights: Tensor | None, chance: Tensor) -> Tensor:
    """Draw ``min(count, pool)`` of each row's ``pool`` highest levels without replacement.

    Every pixel draws an exponential time with its weight as rate; the ``count`` smallest of the pool are taken, which
    is a draw without replacement in proportion to the weights (Efraimidis and Spirakis 2006). The pool is found from a
    histogram of the levels; pixels of its lowest level belong to it with the probability that fills it on average.

    Args:
        levels: int64 ``[N, P]`` in 0..4095; 0 is never drawn.
        pool: int64 ``[N]``, at most the pixels of level 1 and above.
        count: pixels to draw.
        weights: positive ``[N, P]``; None draws uniformly.
        chance: uniform in 0..1, ``[2, N, P]``.

    Returns:
        int64 ``[N, min(count, P)]``, places in 0..P - 1; P where a row's pool was too small.
    """
    pixels = levels.shape[1]
    counts = torch.zeros(len(levels), _LEVELS, device=levels.device)
    counts.scatter_add_(1, levels, counts.new_ones(1, 1).expand(levels.shape))
    up_to = counts.long().cumsum(dim=1)  # pixels of this level or a lower one
    edge = torch.searchsorted(up_to, (pixels - pool)[:, None], right=True).clamp_max(_LEVELS - 1)
    room = (pool[:, None] - pixels + up_to.gather(1, edge)) / counts.gather(1, edge)
    luck, time = chance
    if weights is not None:
        time = -torch.log1p(-time) / weights
    # Pixels outside the pool start so late that they are taken only if the pool has too few.
    late = (levels == edge) & (luck >= room)
    time = torch.where(late, time * _LATE, time).masked_fill_(levels < edge, torch.inf)
    times, places = time.topk(min(count, pixels), dim=1, largest=False)
    won = times.isfinite() & (torch.arange(times.shape[1], device=levels.device) < pool[:, None])
    return places.masked_fill(~won, pixels)


def _grow(places: Tensor, size: Size, kernel: int) -> Tensor:
    """Return a square around each place (``H W`` marks nothing), bool ``[N, H, W]``."""
    reach = kernel // 2
    height, width = size[0] + 2 * reach, size[1] + 2 * reach
    steps = torch.arange(kernel, device=places.device)
    square = (steps[:, None] * width + steps).flatten()  # from the padded corner of a place
    corners = places // size[1] * width + places % size[1]
    spare = height * width  # a cell past the image takes what is not to be marked
    cells = torch.where(places[..., None] < size[0] * size[1], corners[..., None] + square, spare)
    canvas = torch.zeros(len(places), spare + 1, dtype=torch.bool, device=places.device)
    canvas.scatter_(1, cells.flatten(1), True)
    grown = canvas[:, :spare].view(-1, height, width)
    return grown[:, reach : reach + size[0], reach : reach + size[1]]


def _assemble(background: Tensor, foreground: Tensor) -> Tensor:
    """Merge foreground and background, bool ``[N, H, W]``, to uint8 labels; pixels of both are ``IGNORE``."""
    labels = torch.full(background.shape, IGNORE, dtype=torch.uint8, device=background.device)
    return labels.masked_fill_(background & ~foreground, 0).masked_fill_(foreground & ~background, 1)


def _component(region: np.ndarray, values: np.ndarray, smallest_share: float) -> np.ndarray:
    """Return the component of a region with the highest mean; the largest if that is below a share of the image."""
    parts, count = ndimage.label(region)
    if count <= 1:
        return region
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    means = np.bincount(parts.ravel(), weights=values.ravel(), minlength=count + 1)[1:] / areas
    best = int(means.argmax())
    if areas[best] < smallest_share * region.size:
        best = int(areas.argmax())
    kept: np.ndarray = parts == best + 1
    return kept


def _between_ends(marks: Tensor) -> Tensor:
    """Fill bool ``[N, L]`` between the first and the last mark of each row."""
    counts = marks.long()
    return (counts.cumsum(dim=1) > 0) & (counts.flip(1).cumsum(dim=1).flip(1) > 0)


def _check(maps: Tensor, name: str) -> None:
    if maps.ndim != 3:
        raise ValueError(f"{name} must be [N, H, W], got {list(maps.shape)}")
