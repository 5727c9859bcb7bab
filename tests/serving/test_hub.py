"""A model is fetched at one commit, once, and read from the cache from then on; what cannot be is said in a line."""

import json
from pathlib import Path

import pytest
from foreign_models import BARE, by_hand, write_card, write_foreign, write_whistles
from pretend_hub import Hub, hub

from config import PredictCommand, parse
from predictor import predict
from serving import hub as hubs
from serving.hub import fetch, is_address, push, read_address

__all__ = ("hub",)
WEIGHTS = "classifier.int8.onnx.0123456789abcdef.data"
OURS = {"classifier.int8.onnx": b"int8", WEIGHTS: b"weights", "classifier.onnx": b"float", "README.md": b"# card"}
MAIN = Path("hf://owner/name")


def test_addresses_say_repository_revision_and_file() -> None:
    assert read_address(MAIN) == ("owner/name", "main", "") and read_address(Path("hf:/o/n@v1")) == ("o/n", "v1", "")
    assert read_address(Path("hf://o/n.x@refs%2Fpr%2F1/onnx/m.onnx")) == ("o/n.x", "refs/pr/1", "onnx/m.onnx")
    assert is_address(MAIN) and not is_address(Path("hf/owner/name.onnx"))
    for wrong in ("hf://name", "hf://o/n@", "hf://"):
        with pytest.raises(AssertionError, match="give hf://owner/name"):
            read_address(Path(wrong))


def test_only_what_is_needed_is_fetched_and_only_once(hub: Hub) -> None:
    commit = hub.commit("owner/name", OURS)
    path, origin = fetch(MAIN)
    assert path.read_bytes() == b"int8" and path.with_name(WEIGHTS).read_bytes() == b"weights"
    assert origin == f"hf://owner/name@{commit}" and path.parent.name == commit
    assert sorted(set(hub.downloads())) == ["classifier.int8.onnx", WEIGHTS]
    assert sorted(one.name for one in path.parent.iterdir()) == ["classifier.int8.onnx", WEIGHTS]
    assert not any(one.is_symlink() or one.stat().st_nlink > 1 for one in path.parent.iterdir())  # what guard.py asks
    hub.asked.clear()
    assert fetch(MAIN) == (path, origin) and hub.downloads() == []
    assert fetch(Path("hf://owner/name/classifier.onnx"))[0].read_bytes() == b"float"


def test_a_revision_that_moved_is_followed_and_a_commit_stays(hub: Hub) -> None:
    old = hub.commit("owner/name", OURS)
    first, _ = fetch(MAIN)
    new = hub.commit("owner/name", {"classifier.int8.onnx": b"better"})
    moved, origin = fetch(MAIN)
    assert moved.read_bytes() == b"better" and origin.endswith(new) and first.read_bytes() == b"int8"
    hub.asked.clear()
    assert fetch(Path(f"hf://owner/name@{old}"))[0].read_bytes() == b"int8"
    assert hub.asked == []  # a commit says all by itself


def test_without_the_hub_the_cache_answers_and_without_either_a_line_says_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.commit("owner/name", OURS)
    here = fetch(MAIN)
    for down in ("HF_ENDPOINT", "broken"):
        if down == "broken":
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            hub.broken = True
        else:
            monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
        assert fetch(MAIN) == here and f"{here[1]} is read from the cache" in capsys.readouterr().out
        for other in ("hf://owner/other", "hf://owner/name@v2"):
            with pytest.raises(AssertionError, match=r"cannot be reached, and .* has no copy") as refusal:
                fetch(Path(other))
            assert "\n" not in str(refusal.value)
    here[0].unlink()
    with pytest.raises(AssertionError, match="has no copy"):
        fetch(MAIN)


def test_what_the_hub_has_not_is_a_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("owner/name", {"a.onnx": b"a", "b.onnx": b"b", "../../c.onnx": b"c"})
    hub.commit("owner/none", {"README.md": b"# nothing"})
    hub.commit("owner/bad", OURS)
    hub.spoilt = WEIGHTS
    for address, said in (
        ("hf://owner/gone", "404"),
        ("hf://owner/name@v9", "404"),
        ("hf://owner/name", r"several ONNX files; name one: hf://owner/name@main/a\.onnx, or b\.onnx"),
        ("hf://owner/name/d.onnx", r"has no d\.onnx; it has a\.onnx, b\.onnx$"),
        ("hf://owner/none", "has no ONNX file"),
        ("hf://owner/bad", "not what the hub lists"),
    ):
        with pytest.raises(AssertionError, match=said) as refusal:
            fetch(Path(address))
        assert "\n" not in str(refusal.value), refusal.value
    monkeypatch.setattr(hubs, "LARGEST", 3)
    with pytest.raises(AssertionError, match="more than is fetched by itself"):
        fetch(Path("hf://owner/bad"))
    assert fetch(Path("hf://owner/name/a.onnx"))[0].read_bytes() == b"a"  # negative control


def test_a_token_comes_from_the_environment_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("owner/name", OURS)
    fetch(MAIN)
    assert hub.tokens == {""}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(Path("hf://owner/name/classifier.onnx"))
    assert hub.tokens == {"", "Bearer hf_secret"}


def test_a_folder_is_pushed_without_what_is_not_meant(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (*OURS, "config.json", "labels.csv", "recording.wav", "run.json"):
        (folder / name).write_bytes(OURS.get(name, b"{}"))
    where = push(folder, "owner/new", private=True)
    commit = hub.heads["owner/new", "main"]
    assert where == f"hf://owner/new@{commit}" and hub.files[commit] == OURS | {
        "config.json": b"{}",
        "labels.csv": b"{}",
    }
    assert hub.created[0]["visibility"] == "private"
    assert fetch(Path("hf://owner/new"))[0].read_bytes() == b"int8"


def test_the_library_is_asked_for_only_by_an_address(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("owner/name", OURS)
    monkeypatch.setattr(hubs, "find_spec", dict[str, None]().get)
    with pytest.raises(AssertionError, match=r"`pip install huggingface_hub==2\.4\.0`") as refusal:
        fetch(MAIN)
    assert "\n" not in str(refusal.value)


def test_somebody_elses_model_is_fetched_with_its_labels_and_scores_as_by_hand(hub: Hub, tmp_path: Path) -> None:
    model, sound = write_foreign(tmp_path / "m.onnx", BARE), write_whistles(tmp_path / "a.wav", BARE, 1100, 400)
    labels = b"a\nb\nc\nd\n"
    files = {"onnx/whistles.onnx": model.read_bytes(), "onnx/labels.txt": labels, "onnx/other.onnx": b"x"}
    commit = hub.commit("owner/whistles", files)
    card = write_card(tmp_path / "card.json", BARE, "labels.txt", file="onnx/whistles.onnx")
    words = ["--model", "hf://owner/whistles", "--card", str(card), "--scores", "--threads", "1"]
    assert predict(parse(PredictCommand, [str(sound), *words, "--out", str(tmp_path / "out")])) == 0
    lines = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    given = [[float(cell) for cell in line.split(",")[3:]] for line in lines[1:]]
    assert given == [pytest.approx(row, abs=1e-5) for row in by_hand(model, sound, BARE)[0].tolist()]
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert facts["hub"] == [f"hf://owner/whistles@{commit}"] and facts["licences"][0].startswith("licence of whistles")
