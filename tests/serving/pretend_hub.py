"""A small hub on the loopback: repositories with commits, downloads by revision, uploads by commit."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest


class Hub:
    """What it holds, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}  # by commit
        self.heads: dict[tuple[str, str], str] = {}  # (repository, revision) -> commit
        self.asked: list[str] = []  # method and path
        self.tokens: set[str] = set()
        self.created: list[dict[str, Any]] = []
        self.url = ""
        self.broken = False  # answers as a hub that is down
        self.spoilt = ""  # a file of which other bytes come than are listed

    def commit(self, repo: str, files: dict[str, bytes], revision: str = "main") -> str:
        """A new commit that a revision then points to."""
        sha = hashlib.sha1(repr((repo, sorted(files.items()))).encode()).hexdigest()
        self.files[sha] = files
        self.heads[repo, revision] = self.heads[repo, sha] = sha
        return sha

    def downloads(self) -> list[str]:
        """The files that were fetched."""
        return [line.rpartition("/")[2] for line in self.asked if line.startswith("GET ") and "/resolve/" in line]


@contextmanager
def pretend_hub() -> Generator[Hub]:
    hub = Hub()

    class Answering(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the library's name
            return

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def answer_json(self, content: object, status: int = 200, **headers: str) -> None:
            self.answer(status, json.dumps(content).encode(), Content_Type="application/json", **headers)

        def look(self) -> None:
            path = unquote(urlparse(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            hub.tokens |= {self.headers.get("Authorization", "")}
            if hub.broken:
                return self.answer(503, b"down for maintenance")
            if path.startswith("/api/models/"):
                repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
                commit = hub.heads.get((repo, revision or "main"))
                if commit is None:
                    code = "RevisionNotFound" if (repo, "main") in hub.heads else "RepoNotFound"
                    return self.answer_json({"error": "not found"}, 404, X_Error_Code=code)
                files = [{"rfilename": name, "size": len(one)} for name, one in hub.files[commit].items()]
                return self.answer_json({"id": repo, "modelId": repo, "sha": commit, "siblings": files})
            repo, _, rest = path[1:].partition("/resolve/")
            revision, _, name = rest.partition("/")
            commit = hub.heads.get((repo, revision), "")
            content = hub.files.get(commit, {}).get(name)
            if content is None:
                return self.answer_json({"error": "no entry"}, 404, X_Error_Code="EntryNotFound")
            content = content[:-1] if name == hub.spoilt else content
            etag = hashlib.sha1(content).hexdigest()
            return self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=commit, Accept_Ranges="none")

        do_GET = do_HEAD = look

        def do_POST(self) -> None:
            path = unquote(urlparse(self.path).path)
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            hub.asked.append(f"POST {path}")
            hub.tokens |= {self.headers.get("Authorization", "")}
            if path == "/api/validate-yaml":
                return self.answer_json({"errors": [], "warnings": []})
            if path == "/api/repos/create":
                hub.created.append(json.loads(content))
                return self.answer_json({"url": f"{hub.url}/owner/name", "name": "owner/name"})
            repo, _, rest = path.removeprefix("/api/models/").rpartition("/preupload/")
            if repo:
                files = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for one in json.loads(content)["files"]
                ]
                return self.answer_json({"files": files})
            repo, _, rest = path.removeprefix("/api/models/").rpartition("/commit/")
            lines = [json.loads(line) for line in content.splitlines() if line.strip()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            given = {one["path"]: base64.b64decode(one["content"]) for one in values}
            sha = hub.commit(repo, given, rest)
            return self.answer_json({"commitUrl": f"{hub.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with pretend_hub() as one:
        monkeypatch.setenv("HF_ENDPOINT", one.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "5")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield one
