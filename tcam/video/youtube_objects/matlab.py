"""Read boxes and tables from the .mat files of YouTube-Objects; shapes are checked, field names are not relied on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tcam.errors import DataError

Boxes = list[tuple[float, ...]]


def read_matrix(path: Path, name: str) -> np.ndarray:
    """Read one variable of a .mat file (version 5, as distributed).

    Raises:
        DataError: the file is missing, damaged, or lacks the variable.
    """
    import scipy.io

    try:
        with path.open("rb"):  # scipy would also try the name with .mat appended
            values: dict[str, Any] = scipy.io.loadmat(str(path), variable_names=[name])
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}): unpack its archive again") from error
    except Exception as error:  # scipy raises nearly any kind of error on a damaged file
        raise DataError(f"{path} is not a MATLAB file that can be read ({error}): unpack its archive again") from error
    if name not in values:
        raise DataError(f"{path}: expected the variable {name!r}, found none: unpack its archive again")
    return np.asarray(values[name])


def read_cell_boxes(path: Path, name: str) -> Boxes:
    """Read a cell array of vectors x0, y0, x1, y1 (``_sticks.mat`` of v1.0); empty cells hold no box.

    Raises:
        DataError: the file cannot be read, or a cell holds something else.
    """
    cells = read_matrix(path, name)
    found = cells.ravel().tolist() if cells.dtype == object else [cells]
    return [box for cell in found for box in _as_boxes(cell, path)]


def read_frame_boxes(path: Path, name: str) -> Iterator[tuple[str, Boxes]]:
    """Read a struct array of (frame name, n x 4 corners) (``bb_gtTraining`` and ``bb_gtTest`` of v2.2).

    Yields:
        (frame name such as ``aeroplane00002166``, its boxes).

    Raises:
        DataError: the file cannot be read, or its elements hold something else.
    """
    structs = read_matrix(path, name)
    fields = structs.dtype.names or ()
    if structs.size and len(fields) < 2:
        raise DataError(f"{path}: expected a struct array of frame names and boxes, found {structs.dtype}")
    for struct in structs.ravel():
        values = [_unwrap(struct[field]) for field in fields]
        names = [str(value.ravel()[0]) for value in values if value.dtype.kind == "U" and value.size]
        matrices = [value for value in values if value.dtype.kind in "iuf"]
        if len(names) != 1 or len(matrices) != 1:
            raise DataError(f"{path}: expected one frame name and one matrix of boxes per element, found {struct!r}")
        yield names[0], _as_boxes(matrices[0], path)


def _unwrap(value: object) -> np.ndarray:
    """Unwrap a value from the cells around it."""
    array = np.asarray(value)
    while array.dtype == object and array.size == 1:
        array = np.asarray(array.ravel()[0])
    return array


def _as_boxes(value: object, path: Path) -> Boxes:
    array = _unwrap(value)
    if array.dtype.kind not in "iuf" or array.size % 4:
        raise DataError(f"{path}: expected boxes of four numbers, found {array.dtype} of shape {array.shape}")
    return [tuple(float(side) for side in row) for row in array.reshape(-1, 4).tolist()]
