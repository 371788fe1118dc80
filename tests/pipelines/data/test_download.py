import io
import tarfile

import pytest

from pipelines.data.download import download, unpack
from tcam.errors import DataError, NetworkError
from tests.helpers.file_server import serve

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def server():
    with serve() as served:
        served.files["/a.bin"] = CONTENT
        yield served


def test_a_file_comes_whole_and_says_how_far_it_is(server, tmp_path):
    seen = []
    download(f"{server.url}/a.bin", tmp_path / "a.bin", progress=lambda *pair: seen.append(pair))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]


def test_a_dropped_connection_is_gone_on_from_and_nothing_is_fetched_twice(server, tmp_path):
    server.drop_after, server.drops_left = 300_000, 3
    download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, *(f"bytes={300_000 * i}-" for i in (1, 2, 3))]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.drop_after, server.drops_left = 0, 99
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    (tmp_path / "a.bin.part.tag").write_text('"1"')
    with pytest.raises(NetworkError, match="1000 bytes are kept, the same command goes on from there"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert len(server.requests) == 5
    server.drops_left = 0
    download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert server.requests[-1][1] == "bytes=1000-"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(("tag", "knows_ranges"), [('"2"', True), ('"1"', False)])
def test_a_file_that_changed_or_a_server_without_ranges_begins_anew(server, tmp_path, tag, knows_ranges):
    server.knows_ranges = knows_ranges
    (tmp_path / "a.bin.part").write_bytes(b"old" * 1000)
    (tmp_path / "a.bin.part.tag").write_text(tag)
    download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_that_is_whole_already_does_no_harm(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    (tmp_path / "a.bin.part.tag").write_text('"1"')
    download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_no_network_a_missing_file_and_offline_are_said_with_the_remedy(server, tmp_path, monkeypatch):
    with pytest.raises(NetworkError, match=r"the server says 404 Not Found.*--url, or pass --from FOLDER"):
        download(f"{server.url}/b.bin", tmp_path / "b.bin")
    with pytest.raises(NetworkError, match=r"cannot fetch http://127\.0\.0\.1:9/x .*refused"):
        download("http://127.0.0.1:9/x", tmp_path / "x")
    monkeypatch.setenv("TCAM_OFFLINE", "1")
    with pytest.raises(NetworkError, match="TCAM_OFFLINE=1 forbids fetching"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert [path for path, _ in server.requests] == ["/b.bin"]


def test_a_folder_that_cannot_be_written_is_an_error_of_the_data(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        download(f"{server.url}/a.bin", tmp_path / "file" / "a.bin")


def archive(path, *members):
    """A tar.gz of (name, content or TarInfo type, link target)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content, target in members:
            info = tarfile.TarInfo(name)
            if target is None:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content, target
                tar.addfile(info)
    return path


def test_an_archive_becomes_the_folder_whether_or_not_it_holds_one(tmp_path):
    for number, prefix in enumerate(("cat/", "", "./cat/")):
        path = archive(tmp_path / "a.tar.gz", (f"{prefix}data/1.txt", b"one", None), (f"{prefix}sets.txt", b"x", None))
        target = tmp_path / str(number) / "cat"
        unpack(path, target)
        assert (target / "data" / "1.txt").read_text() == "one"
        assert [path.name for path in target.parent.iterdir()] == ["cat"]


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"x", None),
        ("cat/../../evil", b"x", None),
        ("cat/link", tarfile.SYMTYPE, "/etc"),
        ("cat/link", tarfile.SYMTYPE, "../../.."),
        ("cat/hard", tarfile.LNKTYPE, "../../evil"),
        ("cat/device", tarfile.CHRTYPE, ""),
    ],
)
def test_an_archive_that_leads_out_is_refused_whole(tmp_path, member):
    path = archive(tmp_path / "a.tar.gz", ("cat/good.txt", b"x", None), member)
    with pytest.raises(DataError, match="is not safe to unpack"):
        unpack(path, tmp_path / "in" / "cat")
    assert list((tmp_path / "in").iterdir()) == []
    assert sorted(child.name for child in tmp_path.iterdir()) == ["a.tar.gz", "in"]


def test_an_absolute_name_lands_inside(tmp_path):
    unpack(archive(tmp_path / "a.tar.gz", ("/cat/x.txt", b"x", None)), tmp_path / "in" / "cat")
    assert (tmp_path / "in" / "cat" / "x.txt").is_file()


def test_a_cut_archive_is_refused_whole(tmp_path):
    path = archive(tmp_path / "a.tar.gz", *((f"cat/{i}", bytes(range(256)) * 400, None) for i in range(5)))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match="is not a whole tar archive"):
        unpack(path, tmp_path / "in" / "cat")
    path.write_text("hello")
    with pytest.raises(DataError, match="is not a whole tar archive"):
        unpack(path, tmp_path / "in" / "cat")
    assert list((tmp_path / "in").iterdir()) == []
