"""Archives at a server: the bytes that lie there, in blocks; servers that lie are one line; no credentials anywhere."""

import io
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pytest
from fsspec.registry import known_implementations
from served import Served, serving

from runtime import addresses
from runtime.addresses import BLOCK, Address, files_below, place, places, redacted, size_of, version_of

HERE = Path(__file__).parents[2]
needs_http = pytest.mark.skipif(not find_spec("aiohttp"), reason="pip install -r requirements-cluster.txt")
MEMORY: Any = fsspec.filesystem("memory")


@pytest.fixture
def memory() -> Iterator[Any]:
    yield MEMORY
    for name in MEMORY.ls("/", detail=False):
        MEMORY.rm(name, recursive=True)


@pytest.mark.parametrize(
    "text",
    [
        *("season", "/data/season", "C:/season", "a:b", "zip::s3://b/a", "s3:", "s3://", "S3://Bucket", "dawn.wav"),
    ],
)
def test_a_path_stays_a_path(text: str) -> None:
    assert place(Path(text)) == Path(text) and not isinstance(place(Path(text)), Address)


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/season/dawn.wav", "gs://b/a b.wav", "https://example.org/a.wav?download=1", "memory://x/y", "s3://b"],
)
def test_an_address_is_itself_however_it_went_through_a_path(text: str) -> None:
    address = place(Path(text))
    assert isinstance(address, Address) and str(address) == os.fspath(address) == text
    assert place(Path(str(Path(text)))) == address and pickle.loads(pickle.dumps(address)) == address  # as to workers
    assert (
        address.resolve() == address.absolute() == address and str(address / "more" / "x.wav") == f"{text}/more/x.wav"
    )
    assert isinstance(address.parent, Address) and address.name == PurePosixPath(text).name
    assert places([address, Path("here")]) == (address, Path("here"))


@pytest.mark.parametrize(
    "text",
    [
        "https://owl:s3cret@example.org/dawn.wav",
        "https://s3cret@example.org/dawn.wav",
        "s3://AKIA0:s3cret@bucket/dawn.wav",
        "https://b.s3.amazonaws.com/dawn.wav?X-Amz-Date=2026&X-Amz-Signature=s3cret",
        "https://x.blob.core.windows.net/a.wav?sv=2026&sig=s3cret",
        "https://example.org/a.wav?access_token=s3cret",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(AssertionError, match=r"holds credentials.*give them in the environment") as refusal:
        place(Path(text))
    assert "s3cret" not in str(refusal.value) and str(refusal.value).startswith(text.partition("://")[0])


@pytest.mark.parametrize("text", ["file:///etc/passwd", "s3://b/a::file:///x", "s3://b/../c", "https://a/./b/../c"])
def test_what_is_no_place_at_one_server_is_refused(text: str) -> None:
    with pytest.raises(AssertionError, match="give a"):
        place(Path(text))


def test_what_a_library_says_is_repeated_without_credentials() -> None:
    said = "403, url='https://owl:s3cret@example.org/a.wav?X-Amz-Signature=s3cret' (https://b/c?d=s3cret)"
    assert redacted(said) == "403, url='https://...@example.org/a.wav?...' (https://b/c?..."


def test_what_is_read_are_the_bytes_that_lie_there_wherever_one_looks(memory: Any) -> None:
    for kind in (b"RIFF", b"OggS"):
        content = kind + os.urandom(2 * BLOCK + 12_345)
        memory.pipe("/season/dawn", content)
        address = place(Path("memory://season/dawn"))
        with address.open("rb") as file:
            assert size_of(file) == len(content) == address.stat().st_size and file.name == "memory://season/dawn"
            for offset, length in ((0, 4), (BLOCK - 3, 7), (2 * BLOCK, BLOCK), (len(content) - 5, 100), (5, 2 * BLOCK)):
                file.seek(offset)
                assert file.read(length) == content[offset : offset + length]
            file.seek(-128, os.SEEK_END)
            assert file.read() == content[-128:] and file.read() == b""


def test_a_kind_that_is_read_through_once_is_not_kept_and_no_other_leaves_a_file(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, kind, kept in (("a.wav", b"RIFF", False), ("a.ogg", b"OggS", True)):
        memory.pipe(f"/{name}", kind + bytes(6 * BLOCK))
        with place(Path(f"memory://{name}")).open("rb") as file:
            while file.read(2**20):
                pass
            raw: Any = file.raw
            assert (raw.copy is not None) == kept and len(raw.blocks) <= addresses.BLOCKS
            assert list(tmp_path.iterdir()) == []  # without a name, also while it is there


def test_a_file_that_changes_while_it_is_read_is_another_one_then(memory: Any) -> None:
    memory.pipe("/a.wav", b"RIFF" + bytes(100))
    with place(Path("memory://a.wav")).open("rb") as file:
        before = version_of(file)
        file.read(4)
        assert version_of(file) == before
        memory.pipe("/a.wav", b"RIFF" + bytes(200))
        assert version_of(file) != before


class Million(fsspec.AbstractFileSystem):
    """A pretend server with a million keys, that makes each listing up as it is asked."""

    protocol = "million"
    cachable = False
    folders = 1000

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ARG002
        if "/" not in path.rstrip("/"):  # a season's folder
            return [
                {"name": f"{path.rstrip('/')}/{day:03}", "type": "directory", "size": 0} for day in range(self.folders)
            ]
        names = (f"{path}/{number:04}.wav" for number in range(1000))
        return [{"name": name, "type": "file", "size": 960_044, "mtime": 1.8e9} for name in names]


@pytest.mark.parametrize("folders", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_million_keys_are_listed_in_the_memory_of_one_folder(folders: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("million", Million, clobber=True)
    monkeypatch.setattr(Million, "folders", folders)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = peak_of_listing("million://season", 5_000)
    count = size = 0
    for path in files_below(place(Path("million://season")), []):
        count += 1
        size += path.stat().st_size if count % 1000 == 0 else 0
    assert count == 1000 * folders and size == folders * 960_044
    assert 1e5 < most < 3e6, f"{most / 1e6:.1f} MB for listings of 1,000"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB; a million would be hundreds


def peak_of_listing(address: str, count: int) -> int:
    """Bytes that listing the first names takes at most: the least of three, as other threads' are counted too. Each of
    another folder, so that nothing can have been kept of it."""
    peaks = list[int]()
    for turn in range(3):
        tracemalloc.start()
        assert sum(1 for _ in islice(files_below(place(Path(f"{address}-{turn}")), []), count)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return min(peaks)


class Flat:
    """A pretend bucket with all keys in one folder, asked page by page as S3 and Google are."""

    req_kw: dict[str, str] = {}  # noqa: RUF012 (as of s3fs)

    def __init__(self, protocol: str, count: int) -> None:
        self.protocol, self.count, self.pages = (protocol,), count, 0

    def _strip_protocol(self, path: str) -> str:
        return path.partition("://")[2].rstrip("/")

    def names(self, token: str, prefix: str) -> tuple[list[str], str]:
        self.pages += 1
        first, end = int(token or 0), min(self.count, int(token or 0) + 1000)
        return [f"{prefix}{number:07}.wav" for number in range(first, end)], str(end) if end < self.count else ""

    def call_s3(self, method: str, Bucket: str, Prefix: str, Delimiter: str, **more: str) -> dict[str, Any]:
        assert (method, Bucket, Delimiter) == ("list_objects_v2", "archive", "/")
        names, token = self.names(more.get("ContinuationToken", ""), Prefix)
        found = [{"Key": name, "Size": 960_044, "LastModified": "2026-05-14T05:30:00Z"} for name in names]
        return {"Contents": found} | ({"NextContinuationToken": token} if token else {})

    def call(self, method: str, path: str, bucket: str, prefix: str, **more: Any) -> dict[str, Any]:
        assert (method, path, bucket, more["delimiter"]) == ("GET", "b/{}/o", "archive", "/")
        names, token = self.names(more["pageToken"], prefix)
        found = [{"name": name, "size": "960044", "updated": "2026-05-14T05:30:00Z"} for name in names]
        return {"items": found} | ({"nextPageToken": token} if token else {})


@pytest.mark.parametrize("protocol", ["s3", "gs"])
@pytest.mark.parametrize("count", [20_500, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_million_keys_in_one_folder_are_listed_in_the_memory_of_one_page(
    protocol: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Flat(protocol, count)

    def server_of(_: str) -> Flat:
        return server

    monkeypatch.setattr(addresses, "server_of", server_of)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = peak_of_listing(f"{protocol}://archive/season", 5_000)
    seen = server.pages = 0
    for path in files_below(place(Path(f"{protocol}://archive/season")), []):
        seen += 1
        if seen == 5_000:
            assert path.stat().st_size == 960_044 and path.stat().st_mtime_ns == 1_778_736_600 * 10**9
            assert str(path) == f"{protocol}://archive/season/0004999.wav" and server.pages == 5
    assert 1e5 < most < 3e6, f"{most / 1e6:.1f} MB for pages of 1,000"
    assert seen == count and server.pages == -(-count // 1000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


class Lying(fsspec.AbstractFileSystem):
    """A pretend server whose listing names what is not in it."""

    protocol = "lying"
    cachable = False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ARG002
        names = ["in.wav", "../out.wav", "a/../../out.wav", "a\x1b[2J.wav", "a\nb.wav", "", "a\\b.wav", "./b.wav"]
        found = [{"name": f"{path}/{name}", "type": "file", "size": 10} for name in names]
        return [*found, {"name": "/etc/passwd", "type": "file", "size": 10}, {"name": "other/x.wav", "type": "file"}]


def test_no_name_of_a_listing_leads_out_of_its_folder() -> None:
    fsspec.register_implementation("lying", Lying, clobber=True)
    refused: list[str] = []
    assert [str(path) for path in files_below(place(Path("lying://season")), refused)] == ["lying://season/in.wav"]
    assert len(refused) == 5 and "\x1b" not in "".join(refused)


@needs_http
def test_a_server_is_asked_for_blocks_and_each_is_fetched_once() -> None:
    content = b"RIFF" + os.urandom(2 * BLOCK)
    with serving({"season/dawn.wav": content}) as served:
        with place(Path(f"{served.root}/season/dawn.wav")).open("rb") as file:
            assert file.read() == content
            version_of(file)
        ranges = [ranged for method, _, ranged in served.asked if method == "GET"]
        assert [ranged.removeprefix("bytes=") for ranged in ranges if ranged] == [
            *(f"0-{BLOCK - 1}", f"{BLOCK}-{2 * BLOCK - 1}", f"{2 * BLOCK}-{2 * BLOCK + 3}"),
        ]


@needs_http
@pytest.mark.parametrize("fault", ["long", "breaks", "error", "redirect", "away", "whole", "unsized"])
def test_a_server_that_lies_or_fails_is_an_error_of_reading_and_never_other_bytes(fault: str) -> None:
    content = b"RIFF" + os.urandom(BLOCK + 5_000)
    with serving({"dawn.wav": content}) as served:
        served.faults["dawn.wav"] = fault
        with pytest.raises(OSError) as error:
            with place(Path(f"{served.root}/dawn.wav")).open("rb") as file:
                read = file.read()
                version_of(file)
            assert read == content[: len(read)]
        assert error.value.strerror and "\n" not in error.value.strerror


def test_paths_alone_need_no_library(tmp_path: Path) -> None:
    (tmp_path / "dawn.wav").write_bytes(b"RIFF" + bytes(100))
    code = (
        "import sys; from pathlib import Path; from runtime.addresses import place, size_of, version_of\n"
        f"with place(Path({str(tmp_path / 'dawn.wav')!r})).open('rb') as file:\n"
        "    print(size_of(file), version_of(file)[0])\n"
        "print([name for name in ('fsspec', 'aiohttp', 's3fs') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "104 104\n[]\n"


def test_a_protocol_that_nothing_here_reads_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match=r"^nowhere://: nothing here reads such addresses"):
        files_below(place(Path("nowhere://a/b")), []).__next__()
    lacking = {"class": "not_there.FileSystem", "err": "install not_there"}
    monkeypatch.setitem(known_implementations, "faraway", lacking)
    with pytest.raises(AssertionError, match=r"^faraway:// needs what is not installed here .*requirements-cluster"):
        place(Path("faraway://bucket/a.wav")).exists()


def test_an_address_is_only_read() -> None:
    with pytest.raises(AssertionError, match="is only read"):
        place(Path("memory://a/b")).open("w")
    assert io.BytesIO(b"x").read() == b"x" and Served("", {}).asked == []
