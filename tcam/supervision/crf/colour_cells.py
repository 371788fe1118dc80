"""The colour grid on a CPU: the result of ``colour_grid.filter_batch``, over occupied cells only, compiled by numba.

A frame occupies some 5000 of a grid's 150 000 cells. So cells are numbered in the order in which pixels reach them,
pixels are summed by number, and the products of the blue channel visit only the numbered cells. The small products of
red and green are left to torch. Images are processed one at a time, so that each stays in the cache. One thread per
image was slower, because torch's idle threads keep spinning (docs/experiments.md).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcam.compiled import compiled, compiled_sums
from tcam.supervision.crf.colour_bins import ColourBins
from tcam.supervision.crf.gaussian_terms import Positions

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.uint32]
Floats = NDArray[np.float32]

_CELLS: Final = 128**3

_tables: Final[list[Numbers]] = []
"""Zeroed tables of all cells for reuse: take one to number cells, and put it back. New memory pages are slow."""


def filter_cells(
    maps: Tensor, levels: Tensor, bins: ColourBins, positions: Positions | None, filtered: Tensor | None
) -> Tensor:
    """Filter maps: see ``colour_grid.filter_batch``."""
    energies = maps.new_empty(maps.shape[:2])
    terms = None if positions is None else (positions[0].numpy(), positions[1].numpy())
    frames = levels.transpose(1, 2) if levels.ndim == 5 else levels[:, None]
    pixels, places = frames.flatten(3).contiguous().numpy(), bins.places.numpy().view(np.uint32)
    for image, side in enumerate(bins.sides):
        numbers, cells = _number_cells(pixels[image], places[image])
        factors = bins.factors[image, :, :side]
        for k, one in enumerate(maps[image]):
            target = None if filtered is None else filtered[image, k]
            energies[image, k] = _filter(one, numbers, cells, factors, terms, target)
    return energies


def _number_cells(pixels: Bytes, places: Numbers) -> tuple[Numbers, Numbers]:
    """Return the number of each pixel's cell, ``[T P]`` of pixels ``[T, 3, P]``, and the numbered cells."""
    numbers = np.empty((len(pixels), pixels.shape[2]), np.uint32)
    cells = np.empty(numbers.size, np.uint32)
    try:
        table = _tables.pop()
    except IndexError:
        table = np.zeros(_CELLS, np.uint32)
    count = _number(pixels, places, table, numbers, cells)
    _tables.append(table)
    return numbers.ravel(), cells[:count]


def _filter(
    values: Tensor,
    numbers: Numbers,
    cells: Numbers,
    factors: Tensor,
    terms: tuple[Floats, Floats] | None,
    filtered: Tensor | None,
) -> Tensor:
    """Filter one map of one image, into ``filtered`` if it is given; return its energy."""
    red, green, blue = factors
    side, k = blue.shape
    r = 1 if terms is None else len(terms[0])
    sums = np.zeros((r, len(cells)), np.float32)
    if terms is None:
        _add(numbers, values.view(-1).numpy(), sums[0])
    else:
        _add_weighted(numbers, values.view(-1).numpy(), *terms, sums)
    grid = values.new_zeros(side, side * r * k)
    columns = grid.view(side * side, r, k).numpy()
    _spread(sums, cells, blue.numpy(), columns)
    green = green.expand(k, -1, -1)
    part = torch.mm(red.T, grid).view(k, side, r * k)
    low = torch.bmm(green.mT, part)
    if filtered is not None:
        torch.bmm(green, low, out=part)
        torch.mm(red, part.view(k, -1), out=grid)
        _collect(columns, cells, blue.numpy(), sums)
        if terms is None:
            _read(numbers, sums[0], filtered.view(-1).numpy())
        else:
            _read_weighted(numbers, sums, *terms, filtered.view(-1).numpy())
    return low.square_().sum()


@compiled
def _number(pixels: Bytes, places: Numbers, table: Numbers, numbers: Numbers, cells: Numbers) -> int:
    """Number cells in the order in which pixels reach them; return how many there are."""
    red, green, blue = places[0], places[1], places[2]
    count = np.uint32(0)
    for t in range(len(pixels)):
        reds, greens, blues = pixels[t, 0], pixels[t, 1], pixels[t, 2]
        of_frame = numbers[t]
        for p in range(len(of_frame)):
            cell = red[reds[p]] + green[greens[p]] + blue[blues[p]]
            number = table[cell]  # from 1: 0 is none
            if number == 0:
                cells[count] = cell
                count += np.uint32(1)
                number = count
                table[cell] = number
            of_frame[p] = number - np.uint32(1)
    for i in range(count):
        table[cells[i]] = 0
    return int(count)


@compiled
def _add(numbers: Numbers, values: Floats, sums: Floats) -> None:
    """Add pixels at four places at once, because neighbours often share a cell and would wait for each other."""
    quarter = len(numbers) // 4
    for p in range(quarter):
        sums[numbers[p]] += values[p]
        sums[numbers[p + quarter]] += values[p + quarter]
        sums[numbers[p + 2 * quarter]] += values[p + 2 * quarter]
        sums[numbers[p + 3 * quarter]] += values[p + 3 * quarter]
    for p in range(4 * quarter, len(numbers)):
        sums[numbers[p]] += values[p]


@compiled
def _add_weighted(numbers: Numbers, values: Floats, rows: Floats, columns: Floats, sums: Floats) -> None:
    """Add pixels times each position term ``rows[r, y] columns[r, x]`` to ``sums[r]``."""
    width = columns.shape[1]
    weighted = np.empty_like(values)
    for r in range(len(sums)):
        for y in range(rows.shape[1]):
            row, column = rows[r, y], columns[r]
            value, target = values[y * width : (y + 1) * width], weighted[y * width : (y + 1) * width]
            for x in range(width):
                target[x] = value[x] * (row * column[x])
        _add(numbers, weighted, sums[r])


@compiled
def _spread(sums: Floats, cells: Numbers, blue: Floats, columns: Floats) -> None:
    """Multiply cells by the blue factor ``[m, k]``: sums ``[r, N]`` are added to columns ``[m^2, r, k]``."""
    side = np.uint32(len(blue))
    for i in range(len(cells)):
        column = cells[i] // side
        factor = blue[cells[i] - column * side]
        for r in range(len(sums)):
            target, value = columns[column, r], sums[r, i]
            for k in range(len(factor)):
                target[k] += value * factor[k]


@compiled_sums
def _collect(columns: Floats, cells: Numbers, blue: Floats, sums: Floats) -> None:
    """Do the transpose of ``_spread``; ``sums`` are overwritten."""
    side = np.uint32(len(blue))
    for i in range(len(cells)):
        column = cells[i] // side
        factor = blue[cells[i] - column * side]
        for r in range(len(sums)):
            source, total = columns[column, r], np.float32(0)
            for k in range(len(factor)):
                total += source[k] * factor[k]
            sums[r, i] = total


@compiled
def _read(numbers: Numbers, sums: Floats, values: Floats) -> None:
    for p in range(len(numbers)):
        values[p] = sums[numbers[p]]


@compiled
def _read_weighted(numbers: Numbers, sums: Floats, rows: Floats, columns: Floats, values: Floats) -> None:
    """Write the sum of its terms to every pixel: the transpose of ``_add_weighted``."""
    width = columns.shape[1]
    read = np.empty(width, np.float32)
    for y in range(rows.shape[1]):
        target = values[y * width : (y + 1) * width]
        target[:] = 0
        for r in range(len(sums)):
            _read(numbers[y * width : (y + 1) * width], sums[r], read)
            row, column = rows[r, y], columns[r]
            for x in range(width):
                target[x] += read[x] * (row * column[x])
