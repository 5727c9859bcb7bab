"""Models on the hub: fetched at one commit, checked, read from the cache from then on; a folder of ours pushed there.

    path, origin = fetch(Path("hf://owner/name@main"))     # .../classifier.int8.onnx, hf://owner/name@<commit>
    push(folder, "owner/name", private=True)

Reads    HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE of the environment, as huggingface_hub does; nothing else
         says who you are
Writes   HF_HOME/wildwhisper/owner--name: a folder for each commit, and which commit a revision was when it was fetched

Only the ONNX file is fetched, with its weights and labels where these lie beside it; what it holds is looked at by
runtime/guard.py before it is opened, as of any file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, NoReturn
from urllib.parse import quote, unquote

from runtime.digests import sha256
from runtime.files import publish, read_json, scratch, sweep, write_json
from runtime.terminal import show

if TYPE_CHECKING:  # imported where the hub is asked for
    from huggingface_hub import HfApi

ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
USUAL = ("classifier.int8.onnx", "classifier.onnx", "encoder.onnx")  # of publish.py, the first of them that is there
LARGEST = 2**32  # bytes of all that is fetched
PACKAGE = "huggingface_hub==2.4.0"
PUSHED = ("README.md", "config.json", "labels.csv", "*.safetensors", "*.onnx", "*.onnx.*.data")


class HubAddress(NamedTuple):
    """Where a model is."""

    repo: str  # owner/name
    revision: str  # a branch, a tag or a commit
    file: str  # "" where the address does not say


class Wanted(NamedTuple):
    """A file of a repository."""

    name: str
    size: int  # bytes
    sha256: str  # "" where the hub does not say


def is_address(path: Path) -> bool:
    """Whether --model names something on the hub."""
    return str(path).startswith("hf:")


def read_address(path: Path) -> HubAddress:
    """hf://owner/name, hf://owner/name@revision, hf://owner/name@revision/folder/file.onnx

    path   as the command line gives it: a Path, which has lost one slash
    """
    found = ADDRESS.fullmatch(str(path))
    assert found, f"{path} is no address; give hf://owner/name, hf://owner/name@revision or .../file.onnx behind it"
    return HubAddress(found["repo"], unquote(found["revision"] or "main"), found["file"] or "")


def fetch(path: Path, usual: Sequence[str] = USUAL, beside: Sequence[str] = ()) -> tuple[Path, str]:
    """The ONNX file at an address, on this machine, and where it is from, its commit included.

    usual    what it is called, the first of these that is there
    beside   names of files that are wanted too where they lie beside it
    Errors: no such repository or file; a hub that cannot be reached, and nothing in the cache; too much to fetch.
    """
    address = read_address(path)
    root = cache() / address.repo.replace("/", "--")
    note = root / "refs" / f"{quote(address.revision, safe='')}.json"
    known = root / "refs" / f"{address.revision}.json"
    if COMMIT.fullmatch(address.revision) and known.is_file() and (here := kept(root, known, address, usual)):
        return here
    listed = listed_files(address, note)
    if listed is None:
        here = kept(root, note, address, usual)
        assert here, f"hf://{address.repo}: the hub cannot be reached, and {root} has no copy; give a file instead"
        show(f"the hub cannot be reached; {here[1]} is read from the cache")
        return here
    commit, files = listed
    model = chosen_file(address, files, usual)
    folder = root / commit
    for one in needed_files(model, files, beside):
        download(address, commit, one, folder)
    for name in {commit, address.revision}:
        (root / "refs").mkdir(exist_ok=True)
        write_json(root / "refs" / f"{quote(name, safe='')}.json", {"commit": commit, "files": sorted(files)})
    return folder / model, f"hf://{address.repo}@{commit}"


def kept(root: Path, note: Path, address: HubAddress, usual: Sequence[str]) -> tuple[Path, str] | None:
    """What is in the cache of a revision."""
    if not note.is_file():
        return None
    facts = read_json(note, "delete it")
    commit, names = str(facts.get("commit")), [str(name) for name in facts.get("files", [])]
    if not COMMIT.fullmatch(commit):
        return None
    path = root / commit / chosen_file(address, dict.fromkeys(names), usual)
    return (path, f"hf://{address.repo}@{commit}") if path.is_file() else None


def listed_files(address: HubAddress, note: Path) -> tuple[str, dict[str, Wanted]] | None:
    """The commit of a revision and its files; None where the hub cannot be reached.

    note   what was fetched before, for the message
    """
    api = hub()
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = api.model_info(address.repo, revision=address.revision, files_metadata=True)
    except (HfHubHTTPError, HFValidationError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code >= 500:
            return None
        refuse(address, error, f"; {note.parent.parent} has an earlier copy" if note.is_file() else "")
    except Exception:  # nobody answers, or HF_HUB_OFFLINE forbids to ask; the network's errors share no narrower type
        return None
    commit = str(info.sha)
    assert COMMIT.fullmatch(commit), f"hf://{address.repo}: the hub names no commit of {address.revision}"
    found: dict[str, Wanted] = {}
    for file in info.siblings or []:
        name = PurePosixPath(file.rfilename)
        if not name.is_absolute() and ".." not in name.parts:
            found[str(name)] = Wanted(str(name), file.size or 0, str(file.lfs.sha256) if file.lfs else "")
    return commit, found


def chosen_file(address: HubAddress, files: Mapping[str, object], usual: Sequence[str]) -> str:
    """The ONNX file of a repository that is meant."""
    there = sorted(name for name in files if name.endswith(".onnx"))
    meant = [address.file] if address.file else [name for name in (*usual, *there[: len(there) == 1]) if name in there]
    where = f"hf://{address.repo}@{address.revision}"
    assert there, f"{where} has no ONNX file"
    assert meant, f"{where} has several ONNX files; name one: {where}/{there[0]}, or {', '.join(there[1:6])}"
    assert meant[0] in there, f"{where} has no {meant[0]}; it has {', '.join(there[:6])}"
    return meant[0]


def needed_files(model: str, files: Mapping[str, Wanted], beside: Sequence[str]) -> list[Wanted]:
    """The ONNX file, its weights and what else is wanted beside it."""
    folder = PurePosixPath(model).parent
    own = re.compile(rf"{re.escape(model)}(\.[0-9a-f]{{16}})?\.data")
    more = {str(folder / name) for name in beside}
    found = [files[model], *(one for name, one in files.items() if own.fullmatch(name) or name in more)]
    size = sum(one.size for one in found)
    assert size <= LARGEST, f"{model} and what it needs are {size / 1e9:.1f} GB, more than is fetched by itself"
    return found


def download(address: HubAddress, commit: str, wanted: Wanted, folder: Path) -> None:
    """One file of a commit, whole; one that is there already is not fetched again."""
    import huggingface_hub

    path = folder / wanted.name
    if path.is_file() and path.stat().st_size == wanted.size:
        return
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    show(f"fetching {wanted.name} ({wanted.size / 1e6:.1f} MB) of hf://{address.repo}@{commit[:12]} ...")
    with scratch(folder, "fetch") as temporary_folder:
        try:
            made = huggingface_hub.hf_hub_download(
                address.repo, wanted.name, revision=commit, local_dir=temporary_folder, endpoint=endpoint()
            )
        except Exception as error:  # of the network, of the hub, of the disk
            refuse(address, error, "")
        size = Path(made).stat().st_size
        assert size == wanted.size and (not wanted.sha256 or sha256(Path(made)) == wanted.sha256), (
            f"hf://{address.repo}: {wanted.name} came with {size} bytes that are not what the hub lists; fetch it again"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with publish(path) as temporary:
            Path(made).replace(temporary)


def push(folder: Path, repo: str, private: bool) -> str:
    """Put what publish.py made into a repository, which is made where there is none; returns where it is now."""
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", repo), f"--to {repo}: give owner/name"
    api, where = hub(), HubAddress(repo, "main", "")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Model and card", allow_patterns=list(PUSHED)
        )
    except Exception as error:  # as above
        refuse(where, error, "; the folder is whole: give the same command again")
    return f"hf://{repo}@{done.oid}"


def refuse(address: HubAddress, error: Exception, more: str) -> NoReturn:
    """One line for what the hub, or its library, says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
    token = "; where a token is needed, HF_TOKEN has it, or `hf auth login`" if " 401 " in f" {error} " else ""
    raise AssertionError(f"hf://{address.repo}: {said}{token}{more}") from error


def hub() -> HfApi:
    """The hub's own library, where it is installed; scoring does without it."""
    require_library()
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def require_library() -> None:
    """Refuse what needs the hub, in one line, where its library is not installed."""
    assert find_spec("huggingface_hub"), f"hf:// needs the hub's library; `pip install {PACKAGE}`, or give a file"


def endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def cache() -> Path:
    """Where models are kept, below the folder that the hub's library has for itself."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HOME") or usual).expanduser() / "wildwhisper"


if __name__ == "__main__":
    for text in ("hf://owner/name", "hf://owner/name@v1.0", "hf://owner/name@refs%2Fpr%2F1/onnx/model.onnx"):
        print(text, "->", tuple(read_address(Path(text))))
    files = {name: Wanted(name, 10, "") for name in ("a.onnx", "b.onnx", "b.onnx.0123456789abcdef.data", "labels.csv")}
    address = read_address(Path("hf://owner/name/b.onnx"))
    names = [one.name for one in needed_files(chosen_file(address, files, USUAL), files, ["labels.csv"])]
    print("fetched:", *names)
    assert names == ["b.onnx", "b.onnx.0123456789abcdef.data", "labels.csv"]
