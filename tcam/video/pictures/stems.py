"""Stems of file names with what is known by its looks rewritten: moments and signs as numbers, sizes as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import Final

_Hit = tuple[re.Match[str], str]
"""A moment that was found, and its digits."""
MOMENT: Final = "\0"
"""Stands, as in no file name, before a number that is a moment; ``MINUS`` before one that is negative."""
MINUS: Final = "\1"
_ZEROS: Final = str.maketrans("123456789", "0" * 9)
_DIGITS: Final = re.compile(r"\d+")
_SIZE: Final = re.compile(r"(?<!\d)[1-9]\d{2,4}[x×][1-9]\d{2,4}(?!\d)")
_CLOCK: Final = r"\d\d(?P<colon>[-_.:h]?)\d\d(?:(?P=colon)|m)\d\d"
_PART: Final = r"(?P<part>\d{1,7}|\d{9})(?=z?(?:[\W_]|\Z))|(?!\d))"
_MOMENTS: Final = tuple(
    re.compile(rf"(?<![\d\x00]){pattern}")
    for pattern in (
        rf"(?:19|20)\d\d(?P<dash>[-_.]?)\d\d(?P=dash)\d\d(?:\D{{0,4}}?{_CLOCK})?"
        rf"(?(colon)(?=(?:(?P<mark>[._,:-])|(?=(?:\d{{3}}|\d{{6}})(?!\d))){_PART}|(?!\d))",
        rf"{_CLOCK}(?=(?P<mark>[._,:-]){_PART}",
        rf"1[2-9]\d{{8}}(?:\d{{3}}){{0,3}}(?=(?P<mark>[._,:-]){_PART}",
    )
)
_VALID: Final = re.compile(r"(?:\d{4}(?:0[1-9]|1[0-2])[0-3]\d)?(?:(?:[01]\d|2[0-3])[0-5]\d[0-5]\d)?|1\d{9}(?:\d{3})*")


def rewrite_stems(stems: list[str]) -> list[str]:
    """Return stems with a moment (``MOMENT`` before it) and a negative number (``MINUS``) as one number each."""
    read = [_SIZE.sub("x", stem) for stem in stems]
    for pattern in _MOMENTS:
        read = _read_moments(_read_moments(read, pattern), pattern)  # there may be two: taken and exported
    return _read_signs(read)


def measure(ordered: Sequence[int]) -> tuple[float, float]:
    """Return which share there is of the numbers from the first to the last, and which of those in steps."""
    span = ordered[-1] - ordered[0]
    step = gcd(*(b - a for a, b in pairwise(ordered))) or 1
    return len(ordered) / (span + 1), len(ordered) / (span // step + 1)


def wraps(numbers: Sequence[int], width: int) -> bool:
    """Whether numbers begin at nought again when they are full, as seconds and thousandths do."""
    steps = [b - a for a, b in pairwise(numbers)]
    falls, step = sum(step < 0 for step in steps), gcd(*steps)
    full = width == 2 or (width in (3, 6, 9) and 10 * max(numbers) >= 9 * 10**width)
    return full and 0 <= min(numbers) < step and (falls > 0 if step > 1 else falls == 1 and sum(steps) < 0)


def _read_moments(stems: list[str], pattern: re.Pattern[str]) -> list[str]:
    """Return the stems with moments, as one number, where most have one and nearly all are valid."""
    some = stems[:: len(stems) // 64 + 1]
    shapes = Counter(hit[0].translate(_ZEROS) for stem in some for hit in pattern.finditer(stem))
    shape = max(shapes, key=lambda shape: (shapes[shape], len(shape), shape), default="")
    for chosen in (some, stems):
        hits, invalid = _find_moments(chosen, pattern, shape)
        if 2 * len(hits) <= len(chosen) or 100 * invalid > len(chosen):
            return stems
    fraction = _is_fraction(hits)
    if not _is_clear(hits, fraction=fraction):
        return stems
    width = max(len(hit["part"] or "") for hit, _ in hits) if fraction else 0
    written = {}
    for hit, moment in hits:
        number = moment + (hit["part"] or "").ljust(width, "0")[:width]
        end = max(hit.end(), hit.end("part")) if fraction else hit.end()
        written[hit.string] = f"{hit.string[: hit.start()]}_{MOMENT}{number}_{hit.string[end:]}"
    return [written.get(stem, stem) for stem in stems]


def _find_moments(stems: list[str], pattern: re.Pattern[str], shape: str) -> tuple[list[_Hit], int]:
    """Return the first valid moment of each stem, all of one shape, and how many stems have invalid ones only."""
    found, invalid = [], 0
    for stem in stems:
        hits = [hit for hit in pattern.finditer(stem) if hit[0].translate(_ZEROS) == shape]
        digits = [(hit, "".join(_DIGITS.findall(hit[0]))) for hit in hits]
        valid = [hit for hit in digits if _VALID.fullmatch(hit[1])]
        found += valid[:1]
        invalid += bool(hits) and not valid
    return found, invalid


def _is_clear(hits: Sequence[_Hit], *, fraction: bool) -> bool:
    """Whether these are moments for sure: bare digits (``000059``) are more likely to be a running number."""
    if not fraction and any(hit["part"] and not hit["mark"] for hit, _ in hits):
        return False
    moments, bare = [int(moment) for _, moment in hits], hits[0][0][0][-6:].isdigit()
    if bare and len(hits[0][1]) == 6:
        return min(moments) >= 10000 and (fraction or max(moments) - min(moments) >= 60)
    return fraction or not bare or len(hits[0][1]) != 14 or any(moment // 100 % 10000 for moment in moments)


def _is_fraction(hits: Sequence[_Hit]) -> bool:
    """Whether the digits behind moments are fractions of a second and no number of their own."""
    given = sorted((moment, hit["part"], hit["mark"] in (".", ",")) for hit, moment in hits if hit["part"])
    widths, as_decimals = {len(part) for _, part, _ in given}, all(decimal for _, _, decimal in given)
    usual = widths <= {2, 3, 6, 9}
    numbers = [int(part) for _, part, _ in given]
    ordered = sorted(set(numbers))
    if 2 * len(given) <= len(hits) or len(ordered) < 2 or not (as_decimals or (usual and len(widths) == 1)):
        return False
    if len(widths) > 1:
        return not any(re.search(r".0$", part) for _, part, _ in given)
    dense, by_step = measure(ordered)
    few_gaps = dense >= 0.5 or (by_step >= 0.9 and not usual)
    counts_on = len(ordered) == len(numbers) and few_gaps and not wraps(numbers, max(widths))
    return not counts_on or (usual and len(ordered) < 10 and ordered[0] > 1)


def _read_signs(stems: list[str]) -> list[str]:
    """Return the stems with a minus for a dash before a number, where most stems are alike up to there without it."""
    if not any(re.search(r"-\d", stem) for stem in stems):
        return stems
    some = stems[:: len(stems) // 64 + 1]
    texts = [stem[: n.start()].removesuffix("-") for stem in some for n in _DIGITS.finditer(stem)]
    heads = Counter(tuple(_DIGITS.split(text)) for text in texts if not text[-1:].isdigit())
    for head in sorted(head for head, count in heads.items() if 4 * count > len(some)):
        pattern = re.compile(r"\d+".join(map(re.escape, head)) + r"(-?)(\d{1,999})")
        hits = [pattern.match(stem) for stem in stems]
        negative = sum(hit is not None and hit[1] == "-" for hit in hits)
        rest = [int(hit[2]) for hit in hits if hit and not hit[1]]
        if 2 * (negative + len(rest)) > len(stems) and rest and (negative <= len(rest) or 0 in rest):
            stems = [
                f"{stem[: hit.start(1)]}{MINUS}{stem[hit.end(1) :]}" if hit and hit[1] else stem
                for stem, hit in zip(stems, hits, strict=True)
            ]
    return stems
