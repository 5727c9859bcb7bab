"""A server on the loopback that has files, and one that lies: what test_addresses.py and others read over HTTP."""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Faults = Mapping[str, str]  # by name: short, long, breaks, error, redirect, away, whole, unsized


@dataclass
class Served:
    """What a server has, how it fails, and what it was asked for."""

    root: str
    files: dict[str, bytes]
    faults: dict[str, str] = field(default_factory=dict[str, str])
    asked: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])  # method, name, range


def handler_of(served: Served) -> type[BaseHTTPRequestHandler]:
    """A handler for what is served."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, body: bool) -> None:
            name, ranged = self.path.lstrip("/"), self.headers.get("Range", "")
            served.asked.append((self.command, name, ranged))
            fault = served.faults.get(name, "")
            inside = sorted(other for other in served.files if other.startswith(name.rstrip("/") + "/") or not name)
            if name not in served.files and inside:
                links = "".join(
                    f'<a href="/{other}">{other}</a>\n' for other in [*inside, *served.faults.get(name, "").split()]
                )
                return self.send(200, links.encode(), body, {"Content-Type": "text/html"})
            if name not in served.files or (fault == "error" and body):
                return self.send(500 if fault else 404, b"no", body)
            if fault in ("redirect", "away") and body:
                target = {"redirect": "file:///etc/passwd", "away": "http://127.0.0.1:9/away.wav"}[fault]
                return self.send(302, b"", body, {"Location": target})
            content = served.files[name]
            stated = 2 * len(content) if fault == "long" else len(content) - 1000 if fault == "short" else len(content)
            if not ranged or fault == "whole":
                plain = {"Accept-Ranges": "none" if fault == "whole" else "bytes", "ETag": f'"{hash(content)}"'}
                plain |= {} if body or fault == "unsized" else {"Content-Length": str(stated)}
                return self.send(200, content, body, plain, sized=fault != "unsized")
            first, _, last = ranged.removeprefix("bytes=").partition("-")
            piece = content[int(first) : int(last or len(content)) + 1]
            head = {"Content-Range": f"bytes {first}-{int(first) + len(piece) - 1}/{stated}", "Accept-Ranges": "bytes"}
            if fault == "breaks" and int(first):
                return self.send(206, piece, body, head | {"Content-Length": str(len(piece) + 10)})
            return self.send(206, piece, body, head)

        def send(
            self, code: int, content: bytes, body: bool, headers: Mapping[str, str] | None = None, sized: bool = True
        ) -> None:
            self.send_response(code)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            if sized and "Content-Length" not in (headers or {}):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (as of the library)
            pass

    return Handler


@contextmanager
def serving(files: dict[str, bytes]) -> Generator[Served]:
    """A server of some files, until the block ends."""
    served = Served("", files)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served)) as server:
        served.root = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
