"""R19: no damage to a file ends a reader, keeps it for ever, or gives samples that are no numbers."""

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import fuzz
import numpy as np
import pytest

HERE = Path(__file__).parents[2]
EVERYBODY = 20_260  # the seed of make test: the same files for everybody
EVERY_TIME, PER_RELEASE = 2_000, 62_000  # of which a tenth are tables, a fiftieth models, as the goal has it


def run(count: int, shares: dict[str, float], seed: int) -> dict[str, Any]:
    """In a process that has started nothing before it forks; FUZZ_SEED is another seed."""
    seed = int(os.environ.get("FUZZ_SEED", "0")) or seed
    words = (fuzz.__file__, str(count), str(seed), json.dumps(shares))
    done = forked.start(HERE, *words, early=True).ended(7_200)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    print(f"FUZZ_SEED={seed}: {told}")
    return told


def figure(told: dict[str, Any]) -> str:
    tried = ", ".join(f"{count} {family}" for family, count in told["tried"].items())
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in told["outcomes"].items())
    return f"{tried} damaged with seed {told['seed']}: {outcomes}; {len(told['findings'])} findings"


def check(told: dict[str, Any], count: int) -> None:
    assert not told["findings"], "\n".join(told["findings"])
    assert sum(told["outcomes"].values()) == sum(told["tried"].values()) >= 0.99 * count
    assert told["outcomes"]["refused"] > 0 and told["outcomes"]["salvaged"] > 0  # the damage is felt


def test_two_thousand_damaged_files_are_read_or_refused(record_property: Callable[[str, object], None]) -> None:
    told = run(EVERY_TIME, fuzz.SHARES, EVERYBODY)
    record_property("R19", figure(told))
    check(told, EVERY_TIME)


@pytest.mark.slow
def test_fifty_thousand_recordings_ten_thousand_tables_and_two_thousand_models(
    record_property: Callable[[str, object], None],
) -> None:
    told = run(PER_RELEASE, {"audio": 50 / 62, "tables": 10 / 62, "models": 2 / 62}, int(time.time()) // 86_400)
    record_property("R19", figure(told))
    check(told, PER_RELEASE)


def believing(path: Path) -> str:
    """A reader of WAV files that believes every header."""
    content = path.read_bytes()
    channels, rate = struct.unpack("<HI", content[22:28])
    (size,) = struct.unpack("<I", content[40:44])
    samples = np.zeros(size // 2, np.int16)
    samples[:] = np.frombuffer(content, np.int16, len(samples), 44)
    if size % 2 or not rate:
        os.abort()  # as C would
    while channels == 0:
        pass
    return f"ok {len(samples) / rate / channels}"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Findings of this control are nobody else's."""
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    return tmp_path / "kept"


def test_a_reader_that_believes_headers_is_caught(kept: Path, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "good.wav", np.zeros(4_000), 16_000)
    content = (tmp_path / "good.wav").read_bytes()
    seeds = {"audio": [fuzz.Seed("x.wav", content, believing)]}
    report = fuzz.fuzz(seeds, {"audio": 150}, 1, tmp_path)
    assert sum(report.outcomes.values()) == 150
    assert len(report.findings) > 30 and len(list(kept.iterdir())) == len(report.findings)
    for what in ("Error", "ended the process (-6)"):
        assert any(what in finding for finding in report.findings), what


def test_the_same_seed_damages_alike_and_another_does_not() -> None:
    content = bytes(range(256)) * 20
    one, same, other = (fuzz.damaged(content, np.random.default_rng([seed, 0, 5])) for seed in (1, 1, 2))
    assert one == same != other and one != content
