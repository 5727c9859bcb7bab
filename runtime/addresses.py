"""Where archives lie: s3://bucket/season, gs://, https:// and whatever else fsspec reads, as if they were paths.

    root = place(Path("s3://bucket/season"))             # an Address, which is a Path; of a path the path itself
    for path in files_below(root): ...                   # one folder at a time, whatever their number
    with path.open("rb") as file: ...                    # block by block, as it is asked for

Reads    what lies there, through fsspec, which is imported for an address and never else
Writes   a nameless temporary file, gone with the recording, for kinds that are read more than once

Credentials come from the environment alone (AWS_ACCESS_KEY_ID, ~/.aws, GOOGLE_APPLICATION_CREDENTIALS ...): an address
that holds any is refused, so that none gets into a table, a journal or a message. What a server says is not trusted: a
name never leads out of the folder it was listed in, a size is checked, an error is one line.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache, partial
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from runtime.files import Positioned

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")
NOT_ELSEWHERE = frozenset({"file", "local", "reference", "simplecache", "filecache", "blockcache", "cached", "dir"})
HTTP = ("http", "https")
SECRET = re.compile(r"(?i)(sig|token|key|secret|credential|passw|auth|expires|policy)")
SECRETS = (
    (re.compile(r"(?<=://)[^/\s@]*@"), "...@"),
    (re.compile(r"\?[^\s'\"<>]*"), "?..."),
)  # in what a library says
BLOCK, BLOCKS = 2**22, 4  # bytes that are fetched at a time, and how many such blocks are held
STREAMED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b"fLaC")  # kinds that are read through once
HOW = "`pip install -r requirements-cluster.txt`"
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")  # as servers call the time of change
Result = TypeVar("Result")


class Known(NamedTuple):
    """What a server says of a name."""

    folder: bool
    size: int  # bytes; -1: it does not say
    mtime_ns: int  # or what else changes with the content


class Address(PosixPath):
    """A name at a server, as a path: it is joined, compared and opened as one."""

    __slots__ = ("known",)
    known: Known

    def __str__(self) -> str:
        return ADDRESS.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        return str(self)

    def resolve(self, strict: bool = False) -> Address:  # noqa: ARG002 (as of a path)
        return self

    def absolute(self) -> Address:
        return self

    def exists(self) -> bool:
        return self.is_known() is not None

    def is_file(self) -> bool:
        known = self.is_known()
        return known is not None and not known.folder

    def is_dir(self) -> bool:
        known = self.is_known()
        return known is not None and known.folder

    def is_symlink(self) -> bool:
        return False

    def is_web(self) -> bool:
        return self.parts[0][:-1] in HTTP

    def is_known(self) -> Known | None:
        """What the server says of it; None where it is not there.

        Errors: one line where the server does not answer.
        """
        try:
            return self.facts()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AssertionError(f"{self}: {error.strerror}; look at the address and at your credentials") from None

    def facts(self) -> Known:
        """What the listing said of it, else what the server says; OSError where it says nothing."""
        try:
            return self.known
        except AttributeError:
            self.known = asked(self, lambda: known_of(filesystem(self).info(key_of(self))))
            return self.known

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002 (as of a path)
        known = self.facts()
        kind = stat.S_IFDIR if known.folder else stat.S_IFREG
        seconds = known.mtime_ns // 10**9
        numbers = (kind | 0o444, 0, 0, 1, 0, 0, max(0, known.size), seconds, seconds, seconds)
        return os.stat_result(numbers, {"st_mtime_ns": known.mtime_ns})

    def open(self, mode: str = "r", *_: object, **__: object) -> Any:
        assert mode == "rb", f"{self} is only read, in bytes"
        return io.BufferedReader(RemoteFile(self), 2**16)


def place(path: Path) -> Path:
    """A path of the command line: an Address where it is one, however its slashes were taken.

    Errors: credentials in it, and what no file of a server is called.
    """
    text = str(path)
    found = ADDRESS.match(text)
    if found is None or isinstance(path, Address):
        return path
    shown = redacted(f"{found[1]}://{text[found.end() :]}")
    assert found[1] not in NOT_ELSEWHERE and "::" not in text, f"{shown}: give a path, or an address of one server"
    host, _, rest = text[found.end() :].partition("/")
    query = text.partition("?")[2] if found[1] in HTTP else ""
    assert "@" not in host and not SECRET.search(query), (
        f"{shown} holds credentials, which would end in tables and histories; give them in the environment "
        "(docs/clusters.md) and the address without"
    )
    assert all(part not in (".", "..") for part in rest.split("/")), f"{shown}: give an address without dots"
    return cast(Path, Address(path))


def files_below(root: Path, refused: list[str]) -> Iterator[Path]:
    """Every file below an address, with what the server says of it, folder by folder: no more than one page of a
    listing at a time is held, of servers other than S3's and Google's one folder.

    refused   gets the first few names that lead out of their folder, or that no table could hold
    """
    address = cast(Address, root)
    server, waiting = filesystem(address), [key_of(address)]
    while waiting:
        folder = waiting.pop()
        for name, known in names_in(address, server, folder):
            inside = name.rstrip("/").removeprefix(folder.rstrip("/") + "/")
            if name.rstrip("/") == folder.rstrip("/"):
                continue
            if inside == name.rstrip("/") or not is_plain(inside):
                refused += [redacted(ascii(name)[1:-1])] if len(refused) < 5 else []
            elif known.folder:
                waiting.append(name)
            else:
                found = address / name.rstrip("/").removeprefix(key_of(address).rstrip("/") + "/")
                found.known = known
                yield cast(Path, found)


def names_in(address: Address, server: Any, folder: str) -> Iterator[tuple[str, Known]]:
    """The names in a folder of a file system, and what that says of each, as its pages come."""
    protocols = [server.protocol] if isinstance(server.protocol, str) else server.protocol
    ask = page_of_s3 if "s3" in protocols else page_of_google if "gs" in protocols else whole_folder
    token = ""
    while True:
        entries, token = asked(address, partial(ask, server, folder, token))
        yield from ((str(entry["name"]), known_of(entry)) for entry in entries)
        if not token:
            return


def whole_folder(server: Any, folder: str, _token: str) -> tuple[list[dict[str, Any]], str]:
    """All names in a folder, as fsspec lists them."""
    return server.ls(folder, detail=True), ""


def page_of_s3(server: Any, folder: str, token: str) -> tuple[list[dict[str, Any]], str]:
    """Up to a thousand names in a folder of a bucket, and where the next ones begin, "" at the end: s3fs itself gathers
    all of a folder."""
    bucket, prefix = bucket_of(folder)
    more = {"ContinuationToken": token} if token else {}
    page = server.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more, **server.req_kw)
    found = [folder_entry(bucket, one["Prefix"]) for one in page.get("CommonPrefixes", [])]
    found += [{**one, "name": f"{bucket}/{one['Key']}", "size": one["Size"]} for one in page.get("Contents", [])]
    return found, page.get("NextContinuationToken", "")


def page_of_google(server: Any, folder: str, token: str) -> tuple[list[dict[str, Any]], str]:
    """The same of Google's."""
    bucket, prefix = bucket_of(folder)
    wanted = {"prefix": prefix or None, "pageToken": token or None, "delimiter": "/", "json_out": True}
    page = server.call("GET", "b/{}/o", bucket, **wanted)
    found = [folder_entry(bucket, name) for name in page.get("prefixes", [])]
    items = page.get("items", [])
    found += [{**one, "name": f"{bucket}/{one['name']}", "size": int(one.get("size", -1))} for one in items]
    return found, page.get("nextPageToken", "")


def bucket_of(folder: str) -> tuple[str, str]:
    """season/2026 in a bucket -> its name, and what all keys in that folder begin with."""
    bucket, _, key = folder.strip("/").partition("/")
    return bucket, f"{key}/" if key else ""


def folder_entry(bucket: str, prefix: str) -> dict[str, Any]:
    return {"name": f"{bucket}/{prefix.rstrip('/')}", "type": "directory"}


def is_plain(name: str) -> bool:
    """Whether a name below a folder is one of a file there, that can be written down."""
    return name.isprintable() and all(part not in ("", ".", "..") for part in name.split("/")) and "\\" not in name


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file, here or at a server."""
    raw = getattr(file, "raw", None)
    return raw.size if isinstance(raw, RemoteFile) else os.fstat(file.fileno()).st_size


def version_of(file: BinaryIO) -> tuple[int, int]:
    """Size and time of change in ns of an open file as it is by now, here or at a server; an OSError where reading it
    has failed meanwhile."""
    raw = getattr(file, "raw", None)
    if isinstance(raw, RemoteFile):
        return raw.version()
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


def send_folder(folder: Path, address: Address) -> int:
    """Every file of a folder but hidden ones to an address, each whole or not at all, run.json last: whoever finds that
    finds them all. Returns how many there are.

    Errors: one line where the server takes one not.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    server, root = filesystem(address), key_of(address).rstrip("/")
    for path in sorted(files, key=lambda path: (path.name == "run.json", path)):
        name = path.relative_to(folder).as_posix()
        try:
            asked(address, partial(server.put_file, str(path), f"{root}/{name}"))
        except OSError as error:
            raise AssertionError(
                f"{address}/{name} could not be written ({error.strerror}); all is in {folder}, and the same command "
                "sends it again"
            ) from None
    return len(files)


class RemoteFile(Positioned):
    """A file at a server, open: fetched in blocks, or whole into a nameless temporary file where its kind is read more
    than once."""

    def __init__(self, address: Address) -> None:
        known = address.facts()
        if known.size < 0:
            raise OSError(errno.EIO, "the server does not say how long it is", str(address))
        self.address, self.size = address, known.size
        self.blocks: dict[int, bytes] = {}
        self.copy: BinaryIO | None = None
        self.failed: OSError | None = None
        if not self.block(0).startswith(STREAMED):
            self.copy = self.whole()

    @property
    def name(self) -> str:
        return str(self.address)

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self.copy:
            self.copy.seek(self.position)
            content = self.copy.read(len(view))
        else:
            number, start = divmod(self.position, BLOCK)
            content = self.block(number)[start : start + len(view)] if self.position < self.size else b""
        view[: len(content)] = content
        self.position += len(content)
        return len(content)

    def block(self, number: int) -> bytes:
        """A block of the file, one of the last few or fetched now; exactly as long as it should be."""
        if number not in self.blocks:
            start, end = number * BLOCK, min(self.size, (number + 1) * BLOCK)
            content: bytes = self.fetched(
                lambda: filesystem(self.address).cat_file(key_of(self.address), start=start, end=end)
            )
            if len(content) != end - start:
                self.fail(f"the server gave {len(content)} bytes of {end - start} at byte {start}")
            if len(self.blocks) >= BLOCKS:
                self.blocks.pop(next(key for key in self.blocks if key))  # the first one has the header
            self.blocks[number] = content
        return self.blocks[number]

    def whole(self) -> BinaryIO:
        """All of it, in a file without a name: nothing is left of it when this process ends, however it does."""
        copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 (closed with this)
        for number in range(-(-self.size // BLOCK)):
            copy.write(self.block(number))
        copy.flush()
        return copy

    def fetched(self, fetch: Callable[[], Result]) -> Result:
        """What a library fetches; a failure is remembered, because those who read on would take it for the end."""
        try:
            return asked(self.address, fetch)
        except OSError as error:
            self.failed = error
            raise

    def fail(self, why: str) -> None:
        self.failed = OSError(errno.EIO, why, str(self.address))
        raise self.failed

    def version(self) -> tuple[int, int]:
        """Size and time as the server says them, which is asked again once something was read."""
        if self.failed:
            raise self.failed
        if not self.position:
            return self.size, self.address.facts().mtime_ns
        known = asked(self.address, lambda: known_of(filesystem(self.address).info(key_of(self.address))))
        return known.size, known.mtime_ns

    def close(self) -> None:
        if self.copy:
            self.copy.close()
        super().close()


# --- fsspec, and what it says ---------------------------------------------------------------------------------------


@cache
def server_of(protocol: str) -> Any:
    """fsspec's file system of a protocol, that remembers no listing."""
    try:
        import fsspec

        # else Google is asked for the bucket's kind at every call
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise AssertionError(f"{protocol}:// needs what is not installed here ({error}); {HOW}") from None
    except ValueError:
        raise AssertionError(f"{protocol}://: nothing here reads such addresses; {HOW}, or copy it here") from None


def filesystem(address: Address) -> Any:
    return server_of(address.parts[0][:-1])


def key_of(address: Address) -> str:
    """What the file system calls it."""
    return str(filesystem(address)._strip_protocol(str(address)))


def known_of(entry: dict[str, Any]) -> Known:
    """What matters of what a file system says of a name: S3, Google, HTTP and others have words of their own."""
    size = entry.get("size")
    when = next((entry[name] for name in TIMES if entry.get(name)), "")
    stamp = datetime.fromisoformat(when.replace("Z", "+00:00")) if isinstance(when, str) and when[:2] == "20" else when
    if isinstance(stamp, datetime):
        mtime = round(stamp.timestamp() * 1e6) * 1000
    elif isinstance(stamp, int | float):
        mtime = round(stamp * 1e9)
    else:
        mark = str(entry.get("ETag") or entry.get("etag") or "")
        mtime = int.from_bytes(hashlib.sha256(mark.encode()).digest()[:6], "big") if mark else 0
    return Known(entry.get("type") == "directory", size if isinstance(size, int) and size >= 0 else -1, mtime)


def asked(address: Address, ask: Callable[[], Result]) -> Result:
    """What a library of somebody else answers; all it may raise is an OSError, without any credentials."""
    try:
        return ask()
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "not there", str(address)) from None
    except AssertionError:
        raise
    except Exception as error:  # each library has errors of its own
        words = redacted(" ".join(str(error).split()))[:160] or "no more is said"
        raise OSError(errno.EIO, f"{type(error).__name__}: {words}", str(address)) from None


def redacted(text: str) -> str:
    """A text without the credentials that an address in it may hold."""
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text


def places(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Paths of the command line, each where it is."""
    return tuple(place(path) for path in paths)


if __name__ == "__main__":
    import fsspec

    memory: Any = fsspec.filesystem("memory")
    memory.pipe({"/season/pond/dawn.wav": b"RIFF" + bytes(2**20), "/season/ridge/noon.ogg": b"OggS" + bytes(100)})
    root = place(Path("memory://season"))
    for path in sorted(files_below(root, [])):
        with path.open("rb") as file:
            print(path, size_of(file), file.read(4))
    assert [path.name for path in sorted(files_below(root, []))] == ["dawn.wav", "noon.ogg"]
    try:
        place(Path("https://owl:s3cret@example.org/dawn.wav"))
    except AssertionError as refusal:
        print(refusal)
        assert "s3cret" not in str(refusal)
