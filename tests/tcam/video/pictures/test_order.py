import random
import time
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcam.video.pictures.order import order_frames

FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
WORDS = ("frame", "img_", "", "My Holiday ", "face", "clip-", "IMG_0042_", "フレーム")


def jpg(*stems):
    return tuple(f"{stem}.jpg" for stem in stems)


def order(names):
    """Order names given in disorder, the same whatever the disorder is."""
    shuffled = sorted(names)
    random.Random(0).shuffle(shuffled)
    found = order_frames(shuffled)
    assert found == order_frames(reversed(shuffled)) == order_frames(sorted(names))
    return found


def times(start, step_ms, count, form):
    first = datetime.fromisoformat(start)
    return [(first + timedelta(milliseconds=step_ms * i)).strftime(form) for i in range(count)]


def hashes(count, digits=8, seed=0):
    generator = random.Random(seed)
    return [f"{generator.getrandbits(4 * digits):0{digits}x}" for _ in range(count)]


SCHEMES = {
    "padded": [f"frame{i:04}" for i in range(1, 13)],
    "not padded": [f"frame{i}" for i in range(1, 13)],
    "a constant camera": [f"cam2_{i:04}" for i in range(1, 13)],
    "cameras in turn": ["cam1_0001", "cam2_0002", "cam1_0003"],
    "cameras in turn, every 5th": [f"cam{i % 3}_{5 * i:04}" for i in range(1, 13)],
    "a size last": [f"frame_{i:04}_1920x1080" for i in range(1, 13)],
    "changing sizes last": ["frame_0001_640x480", "frame_0002_1280x720"],
    "changing sizes first": ["640x480_0012", "320x240_0057", "640x480_0103"],
    "rate and quality last": [f"{i:04}_30fps_q90" for i in range(1, 13)],
    "changing quality last": [f"{i:04}_30fps_q{90 - i}" for i in range(1, 13)],
    "a prefix that looks like a hash": [f"face{i:04}" for i in range(1, 13)],
    "names of Roboflow": [f"frame{i:04}_jpg.rf.{h}" for i, h in enumerate(hashes(12, 12))],
    "hashes before a sparse number": [f"{h}_{i * i:04}" for i, h in enumerate(hashes(12))],
    "hashes without a separator": [f"{h}frame{i:04}" for i, h in enumerate(hashes(12))],
    "UUIDs first": [f"{h[:8]}-{h[8:12]}-{h[12:]}_{i}" for i, h in enumerate(hashes(30, 16))],
    "numeric hashes by chance": ["0001_12345678", "0002_9c3e2a1b", "0003_00000004", "0004_ab0c4d2e"],
    "full-width digits": [f"フレーム{i}".translate(FULL_WIDTH) for i in range(1, 13)],
    "Arabic-Indic digits": [f"{i}".translate(ARABIC) for i in range(1, 13)],
    "negative numbers": ["f-2", "f-1", "f0", "f1"],
    "negative numbers after a separator": ["f_-2", "f_-1", "f_0"],
    "many negative numbers": [f"frame{i}" for i in range(-20, 30)],
    "a dash that is no minus": [f"frame-{i:03}" for i in range(1, 13)],
    "a scene without a number": [f"s01_f{i:02}" for i in range(1, 13)],
    "scenes": ["s01_f01", "s01_f02", "s02_f01", "s02_f02"],
    "scenes, each with its own first frame": ["scene_01_f02", "scene_02_f01"],
    "shots and frames both running": [f"shot{i:04}_frame{i:04}" for i in range(1, 13)],
    "every 5th frame": [f"frame_{i:04}" for i in range(5, 60, 5)],
    "frames picked here and there": [f"frame_{i:04}" for i in (12, 57, 103, 230)],
    "every third or fourth frame": [f"frame_{i:04}" for i in (0, 3, 7, 10, 14, 17, 21)],
}


@pytest.mark.parametrize("stems", SCHEMES.values(), ids=SCHEMES.keys())
def test_frames_come_in_the_order_of_their_running_number(stems):
    found = order(jpg(*stems))
    assert found.names == jpg(*stems)
    assert (found.missing, found.repeated, found.doubles, found.others, found.note) == (0, 0, (), (), None)


MOMENTS = {
    "thousandths over a second": times("2024-01-31 23:59:59.500", 20, 49, "%Y%m%d_%H%M%S_%f"),
    "irregular thousandths": times("2024-01-31 23:59:59.033", 33, 200, "%Y-%m-%d %H-%M-%S.%f"),
    "over three seconds, no thousandths twice": times("2024-02-20 12:00:30", 120, 25, "%H-%M-%S_%f"),
    "a frame each second": times("2024-02-20 12:00:30", 1000, 50, "%H-%M-%S"),
    "a frame each second, digits only": times("2024-02-20 12:00:30", 1000, 100, "%H%M%S"),
    "minutes and seconds": times("2024-02-20 12:00:30", 1000, 50, "%Mm%Ss"),
    "minutes and every 45th second": times("2024-02-20 12:00:45", 45_000, 4, "%M-%S"),
    "over midnight": times("2024-01-31 23:59:58", 1000, 4, "%Y-%m-%d %H-%M-%S"),
    "digits only": times("2024-01-31 23:59:30", 1000, 60, "%Y%m%d%H%M%S"),
    "a phone": times("2024-01-31 23:59:59", 40, 30, "PXL_%Y%m%d_%H%M%S%f"),
    "a screenshot": times("2024-01-31 23:59:58", 1000, 30, "Screenshot %Y-%m-%d at %H.%M.%S"),
    "a frame each day": times("2024-01-15", 86_400_000, 30, "%Y-%m-%d"),
    "behind hashes": [
        f"{hashes(1, seed=i)[0]}_{t}" for i, t in enumerate(times("2024-01-31", 20, 49, "%Y%m%d_%H%M%S_%f"))
    ],
    "cameras in turn": [f"cam{i % 2}_{t}" for i, t in enumerate(times("2024-01-31", 40, 49, "%Y%m%d_%H%M%S_%f"))],
    "thousandths since 1970": [f"{1706745599123 + 33 * i}" for i in range(60)],
    "seconds since 1970": [f"{1706745599.033445 + 0.033 * i:.6f}" for i in range(60)],
    "seconds since 1970 cut short": [f"{1706745599 + i / 8}" for i in range(60)],
    "a burst at one time": [f"IMG_20240131_235959_BURST{i:03}" for i in range(1, 9)],
    "bursts that begin anew": [f"IMG_20240131_{t}_BURST{i:03}" for t in (120000, 120005) for i in (1, 2)],
    "what is left of two bursts": ["IMG_20240131_120000_BURST002", "IMG_20240131_120005_BURST001"],
    "pictures of a time code": [f"01_02_{30 + i // 25:02}_{i % 25:02}" for i in range(20, 44)],
}


@pytest.mark.parametrize("stems", MOMENTS.values(), ids=MOMENTS.keys())
def test_moments_put_frames_in_order_and_are_no_frame_numbers(stems):
    found = order(jpg(*stems))
    assert found.names == jpg(*stems)
    assert (found.missing, found.repeated, found.note) == (0, 0, None)


@pytest.mark.parametrize("form", ["%Y%m%d-%H%M%S", "%Y-%m-%d %H.%M.%S", "%H-%M-%S", "%H%M%S", "IMG_%Y%m%d_%H%M%S_%f"])
@pytest.mark.parametrize("number", ["{:04}", "{}", "{:06}"])
@pytest.mark.parametrize("count", [12, 70])
def test_a_running_number_wins_over_moments_that_wrap_or_are_in_disorder(form, number, count):
    exported = times("2024-01-31 23:59:55", 1000, count, form)
    names = jpg(*(f"{moment}_{number.format(i)}" for i, moment in enumerate(exported, 1)))
    assert order(names).names == names
    random.Random(1).shuffle(exported)
    for pattern in ("{moment}_{number}", "{number}_{moment}"):
        names = jpg(*(pattern.format(moment=m, number=number.format(i)) for i, m in enumerate(exported, 1)))
        assert order(names).names == names


@pytest.mark.parametrize(
    ("names", "missing", "note"),
    [
        (jpg(*(f"frame{i:04}" for i in (1, 2, 3, 7, 8))), 3, "3 frame numbers missing (first after frame0003.jpg)"),
        (jpg(*(f"f{i}" for i in (5, 10, 20, 25))), 1, "1 frame number missing (first after f10.jpg)"),
        (jpg("f1", "f02", "f010"), 7, "7 frame numbers missing (first after f02.jpg)"),
        (
            jpg(*(f"{i:04}" for i in (*range(9), *range(500, 509)))),
            491,
            "491 frame numbers missing (first after 0008.jpg)",
        ),
        (jpg("s1_f1", "s1_f2", "s1_f4", "s2_f8", "s2_f9"), 1, "1 frame number missing (first after s1_f2.jpg)"),
        (jpg("f_-2", "f_-1", "f_1", "f_2"), 1, "1 frame number missing (first after f_-1.jpg)"),
        (jpg("a\nb1", "a\nb3", "a\nb4"), 1, "1 frame number missing (first after a?b1.jpg)"),
    ],
)
def test_missing_numbers_are_counted_in_steps_of_the_folder(names, missing, note):
    found = order(names)
    assert (found.names, found.missing, found.repeated, found.note) == (names, missing, 0, note)


@pytest.mark.parametrize(
    ("names", "repeated", "note"),
    [
        (jpg("frame01", "frame1", "frame2"), 1, "1 frame shares its number with an earlier one"),
        (
            jpg(*(f"cam{c}_{i:04}" for c in (1, 2) for i in range(4))),
            4,
            "4 frames share their number with an earlier one",
        ),
        (jpg("left_1", "left_2", "right_1", "right_2"), 2, "2 frames share their number with an earlier one"),
        (jpg("left1", "left2", "right1"), 1, "1 frame shares its number with an earlier one"),
        (jpg("f_1", "f_2", "f_2 (1)", "f_3", "f_4"), 1, "1 frame shares its number with an earlier one"),
    ],
)
def test_frames_that_share_a_number_are_counted_and_cameras_come_one_after_another(names, repeated, note):
    found = order(names)
    assert (found.names, found.missing, found.repeated, found.note) == (names, 0, repeated, note)


def test_of_one_frame_in_several_formats_the_lossless_one_stays():
    found = order(["1.jpg", "1.PNG", "1.tif", "2.webp", "2.JPG", "2.jpeg", "3.jpg"])
    assert found.names == ("1.PNG", "2.webp", "3.jpg")
    assert found.doubles == ("1.jpg", "1.tif", "2.JPG", "2.jpeg")
    assert found.note == "4 in another format passed over (1.jpg)"


def test_an_ending_that_is_no_image_belongs_to_the_name():
    assert order(["f.0001", "f.0002"]).names == ("f.0001", "f.0002")


def test_covers_are_passed_over_and_other_names_without_a_number_come_first():
    covers = ("Cover_640x480.png", "folder.jpg", "movie-poster.jpg", "thumb.jpg")
    frames = jpg(*(f"f{i}" for i in range(1, 13)))
    found = order([*covers, *frames, "intro.jpg", "Abc.jpg", "hardcover.jpg"])
    assert found.names == ("Abc.jpg", "hardcover.jpg", "intro.jpg", *frames)
    assert (found.others, found.note) == (covers, "4 without a number passed over (Cover_640x480.png)")
    thumbs = jpg(*(f"thumb{i}" for i in range(1, 13)))
    assert order(thumbs).names == thumbs


def test_names_without_numbers_are_sorted_without_case():
    assert order(["b.jpg", "A.jpg", "a.jpg", "cover.jpg", "C.jpg"]).names == (
        "A.jpg",
        "a.jpg",
        "b.jpg",
        "C.jpg",
        "cover.jpg",
    )
    assert order(["frame.png", "frame (1).png", "frame (2).png"]).names == (
        "frame.png",
        "frame (1).png",
        "frame (2).png",
    )


def test_few_or_odd_names_are_no_trouble():
    assert order([]).names == ()
    assert order(["f7.jpg"]).names == ("f7.jpg",)
    assert order([".jpg", ".png"]).names == (".png",)
    assert order_frames(["1.jpg", "1.jpg"]).names == ("1.jpg",)
    assert order(["9" * 5000, "8" * 5000]).names == ("8" * 5000, "9" * 5000)


@given(st.lists(st.text(st.sampled_from("ab01289-_. x\0\1\udc80٣é"), max_size=12) | st.text(max_size=8)), st.randoms())
def test_every_name_is_somewhere_whatever_their_order(names, generator):
    names = [name + generator.choice(["", ".jpg", ".png"]) for name in names]
    found = order_frames(names)
    assert sorted((*found.names, *found.doubles, *found.others)) == sorted(set(names))
    generator.shuffle(names)
    assert order_frames(iter(names)) == found


@st.composite
def schemes(draw):
    """Draw names that hold a true index beside other things, in the order of the index."""
    step, first, count = draw(st.sampled_from((1, 1, 5))), draw(st.integers(0, 1000)), draw(st.integers(4, 60))
    numbers = range(first * step, (first + count) * step, step)
    digits, generator = draw(st.sampled_from((0, 4, 6))), draw(st.randoms(use_true_random=False))
    size, separator = draw(st.sampled_from((4, 8, 32))), draw(st.sampled_from("_-. "))

    def change(kind):
        return {
            "hash": f"{generator.getrandbits(4 * size):0{size}x}",
            "camera": f"cam{generator.randrange(3)}",
            "size": generator.choice(("640x480", "1920x1080")),
            "constant": "30fps_q90",
        }[kind]

    kinds = ("hash", "camera", "size", "constant")
    before, after = (
        draw(st.lists(st.sampled_from(kinds), max_size=1)),
        draw(st.lists(st.sampled_from(kinds), max_size=1)),
    )
    word = draw(st.sampled_from(WORDS))
    return [
        separator.join((*map(change, before), f"{word}{number:0{digits}}", *map(change, after))) + ".jpg"
        for number in numbers
    ]


@given(schemes(), st.randoms())
def test_the_true_index_is_found_beside_hashes_cameras_and_sizes(names, generator):
    shuffled = list(names)
    generator.shuffle(shuffled)
    found = order_frames(shuffled)
    assert list(found.names) == names
    assert found.note is None


@given(st.sets(st.integers(1, 38), max_size=19), st.sampled_from((1, 5)), st.sampled_from(("f{}_{}", "{1}_f{0:04}")))
def test_what_was_deleted_is_missing(deleted, step, form):
    names = [form.format(step * i, h) + ".jpg" for i, h in enumerate(hashes(40)) if i not in deleted]
    found = order_frames(names[::-1])
    assert (list(found.names), found.repeated) == (names, 0)
    assert found.missing == len(deleted)


@pytest.mark.slow
def test_many_names_take_little_time():
    names = [f"cam2_{i:06}_{h}.jpg" for i, h in enumerate(hashes(100_000))]
    started = time.process_time()
    assert list(order_frames(names[::-1]).names) == names
    assert time.process_time() - started < 12, "about 2 seconds on an idle machine"
