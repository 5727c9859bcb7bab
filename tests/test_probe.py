"""Which layers tell the species apart: nothing of what is judged is learnt from, and a layer that knows is found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import probe as module
from archive.recordings import Recording
from config import AudioSettings, DataSettings, EncoderSettings, ProbeCommand, parse
from demo_data import FieldSeason
from probe import (
    Fold,
    Gap,
    Labelled,
    Score,
    coordinates,
    depths_of,
    drawn,
    gaps_to_best,
    inner_products,
    judge_layers,
    judged,
    layer_times,
    pooled_features,
    probe,
    recommended,
    split_into_folds,
    spread_evenly,
)
from training.checkpoint import load_encoder, save_encoder

HERE = Path(__file__).parents[1]
WHISPER, ANIMALS = HERE.parent / "shared" / "whisper-base", HERE.parent / "shared" / "animals"
DATA = DataSettings(Path("nowhere"))


def recording(number: int, label: str, fold: int, group: str = "") -> Recording:
    return Recording(
        Path(f"{number}.ogg"), f"{number}.ogg", labels=(label,), fold=fold, group=group or f"g{number}", seconds=5.0
    )


def archive(count: int = 48, species: int = 3, folds: int = 4) -> list[Recording]:
    """Two recordings in each group, all species in all folds."""
    return [recording(n, f"s{n % species}", n // species % folds, f"g{n % (species * folds)}") for n in range(count)]


def labelled(rows: list[Recording]) -> Labelled:
    names = sorted({row.labels[0] for row in rows})
    main = np.array([names.index(row.labels[0]) for row in rows])
    return Labelled(rows, main[:, None] == np.arange(len(names)), main, split_into_folds(rows, names, DATA))


def features(told: Labelled, knowing: int, layers: int = 3, values: int = 40) -> NDArray[np.float16]:
    """Of layers that are noise, but for one that knows the species."""
    rng = np.random.default_rng(0)
    made = rng.normal(size=(len(told.rows), layers, values))
    made[:, knowing, :8] += 3 * rng.normal(size=(told.truth.shape[1], 8))[told.main]
    return made.astype(np.float16)


def test_every_layer_of_a_small_encoder_is_looked_at_and_of_a_large_one_the_lowest() -> None:
    assert depths_of(6) == [1, 2, 3, 4, 5, 6]
    assert depths_of(32) == [*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32] and depths_of(23)[-1] == 23


def test_where_there_are_too_many_recordings_the_species_take_turns() -> None:
    rows = [recording(n, "common", 0) for n in range(20)] + [recording(n, "rare", 0) for n in range(20, 23)]
    kept = drawn(rows, 10, seed=0)
    assert len(kept) == 10 and sum(row.labels == ("rare",) for row in kept) == 3
    assert kept == sorted(kept, key=lambda row: int(row.path.stem)) and drawn(rows, 23, seed=0) == rows


def test_every_recording_is_held_out_once_and_no_group_stands_on_both_sides() -> None:
    rows = archive()
    folds = split_into_folds(rows, ["s0", "s1", "s2"], DATA)
    assert sorted(np.concatenate([fold.valid for fold in folds]).tolist()) == list(range(len(rows)))
    for fold in folds:
        for one, other in ((fold.train, fold.valid), (fold.inner_train, fold.inner_valid)):
            assert len(one) and len(other) and not {rows[i].group for i in one} & {rows[i].group for i in other}
        inside = set(fold.inner_train.tolist()) | set(fold.inner_valid.tolist())
        assert inside == set(fold.train.tolist())  # the strength is chosen without what is held out


def test_a_species_of_one_group_is_trained_on_never_judged_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*archive(), recording(99, "s3", 5)]  # as data_loader.py deals it out: a fold that always trains
    folds = split_into_folds(rows, ["s0", "s1", "s2", "s3"], DATA)
    assert len(folds) == 4 and all(48 in fold.train for fold in folds)
    assert "1 of 4 species are in one group of recordings alone and cannot be judged: s3" in capsys.readouterr().out


def test_too_little_to_judge_is_said_in_a_line() -> None:
    with pytest.raises(AssertionError, match="one species alone, s0"):
        split_into_folds([recording(n, "s0", n) for n in range(4)], ["s0"], DATA)
    with pytest.raises(AssertionError, match="cannot be divided into 5 folds"):
        split_into_folds([recording(0, "s0", 5), recording(1, "s1", 5)], ["s0", "s1"], DATA)
    apart = [recording(n, f"s{n % 2}", n % 2) for n in range(8)]  # each species in a fold of its own
    with pytest.raises(AssertionError, match="no species is present on both sides"):
        split_into_folds(apart, ["s0", "s1"], DATA)
    torn = [recording(n, f"s{n % 2}", n // 2, "one") for n in range(8)]
    with pytest.raises(AssertionError, match="groups stand in several folds"):
        split_into_folds(torn, ["s0", "s1"], DATA)


def test_two_folds_are_enough() -> None:
    rows = archive(folds=2)
    told = labelled(rows)
    assert [len(fold.inner_valid) for fold in told.folds] == [0, 0]  # nothing inside to choose the strength on
    alone, _ = judge_layers(features(told, 0), [1, 2, 3], told)
    assert alone[0].cmap > 0.9


def test_windows_are_spread_over_a_recording() -> None:
    numbers = [list[Any](spread_evenly(cast(Any, range(count)), count, 4)) for count in (1, 3, 4, 12, 100)]
    assert numbers[0] == [0] and numbers[1] == [0, 1, 2] and numbers[2] == [0, 1, 2, 3]
    assert numbers[3] == [1, 4, 7, 10] and len(numbers[4]) == 4
    assert list[Any](spread_evenly(cast(Any, range(2)), 100, 4)) == [0]


def test_the_layer_that_knows_the_species_is_found() -> None:
    told = labelled(archive())
    alone, mixed = judge_layers(features(told, knowing=1), [1, 2, 3], told)
    assert alone[1].cmap > 0.9 and alone[1].top1 > 0.9 and max(alone[0].cmap, alone[2].cmap) < 0.6
    assert mixed[0].cmap == alone[0].cmap and mixed[1].cmap > 0.8
    assert recommended(mixed, gaps_to_best(mixed, told), [1, 2, 3]) == 2


def test_labels_in_random_order_cannot_be_told_from_any_layer() -> None:
    """A negative control: were anything of what is judged learnt from, this would be far above a third."""
    told = labelled(archive(96))
    lost = replace(told, main=np.random.default_rng(1).permutation(told.main))
    lost = replace(lost, truth=lost.main[:, None] == np.arange(3))
    alone, _ = judge_layers(features(told, knowing=1), [1, 2, 3], lost)
    assert all(one.top1 < 0.5 for one in alone)


def test_products_of_rows_give_what_a_regression_on_the_features_gives() -> None:
    told = labelled(archive())
    made, fold = features(told, 0)[:, 0].astype(np.float32), told.folds[0]
    inside, outside = coordinates(inner_products(made, fold.train), fold.train, fold.valid)
    ours = module.regression(inside, told.main[fold.train], outside, 3, 2.0)
    standard = (made - made[fold.train].mean(axis=0)) / made[fold.train].std(axis=0) / np.sqrt(made.shape[1])
    plain = standard.astype(np.float64)
    theirs = LogisticRegression(C=2.0, max_iter=300).fit(plain[fold.train], told.main[fold.train])
    np.testing.assert_allclose(ours, theirs.predict_proba(plain[fold.valid]), atol=2e-3)


def test_what_is_held_out_changes_nothing_of_what_is_fitted() -> None:
    told = labelled(archive())
    made, fold = features(told, 0)[:, 0].astype(np.float32), told.folds[0]
    other = made.copy()
    other[fold.valid] *= 50
    one, two = (inner_products(each, fold.train)[np.ix_(fold.train, fold.train)] for each in (made, other))
    np.testing.assert_array_equal(one, two)


def test_a_species_that_was_not_trained_is_not_judged() -> None:
    told = labelled(archive())
    fold = Fold(np.flatnonzero(told.main != 2), np.arange(6), np.arange(0), np.arange(0))
    truth, trained = judged(fold, told)
    assert truth.shape == (6, 2) and trained.tolist() == [0, 1]


def test_the_smallest_depth_that_is_as_good_as_the_best_is_recommended() -> None:
    scores = [Score(value, value, []) for value in (0.80, 0.896, 0.9, 0.85)]
    assert recommended(scores, [Gap(0.1, 0.01), Gap(0.004, 0.001), Gap(0.0, 0.0), Gap(0.05, 0.01)], [1, 2, 3, 4]) == 2
    assert recommended(scores, [Gap(0.1, 0.01), Gap(0.02, 0.01), Gap(0.0, 0.0), Gap(0.05, 0.01)], [1, 2, 3, 4]) == 3
    assert recommended(scores, [Gap(0.1, 0.2), Gap(0.02, 0.01), Gap(0.0, 0.0), Gap(0.05, 0.01)], [1, 2, 3, 4]) == 1


def test_the_best_depth_is_behind_nobody() -> None:
    told = labelled(archive())
    _, mixed = judge_layers(features(told, knowing=0), [1, 2, 3], told)
    gaps = gaps_to_best(mixed, told)
    assert min(gaps) == Gap(0.0, 0.0) and max(gaps).error > 0


def test_time_grows_from_layer_to_layer() -> None:
    encoder = load_encoder(EncoderSettings("demo", "random"), AudioSettings()).eval()
    threads = torch.get_num_threads()
    times = layer_times(encoder, AudioSettings(), torch.device("cpu"), 1)
    assert len(times) == 3 and 0 < times[0] < times[1] < times[2] < 5 and torch.get_num_threads() == threads
    longer = AudioSettings(context_seconds=10.0)
    assert len(layer_times(encoder, longer, torch.device("cpu"), 1)) == 3


def test_features_are_those_of_the_windows_one_by_one(season: FieldSeason) -> None:
    paths = sorted((season.root / "train_audio").rglob("*.*"))[:3]
    rows = [replace(recording(n, "s0", 0), path=path, seconds=9.0) for n, path in enumerate(paths)]
    rows.append(replace(rows[0], path=season.root / "PRETEND.txt"))
    audio, device = AudioSettings(), torch.device("cpu")
    encoder = load_encoder(EncoderSettings("demo", "random"), audio).eval()
    means, counts = pooled_features(encoder, rows, audio, 12, device)
    assert means.shape == (4, 3, 3 * 96) and counts[-1] == 0 and not means[-1].any() and counts[:3].min() > 0
    alone, _ = pooled_features(encoder, rows[1:2], audio, 12, device)
    np.testing.assert_allclose(alone[0], means[1], atol=2e-3)
    one, single = pooled_features(encoder, rows[:3], audio, 1, device)
    assert single.tolist() == [1, 1, 1] and np.isfinite(one.astype(np.float32)).all()
    long, windows = pooled_features(encoder, rows[:3], AudioSettings(context_seconds=10.0), 12, device)
    assert long.shape == means[:3].shape and windows.tolist() == counts[:3].tolist()


def arguments(root: Path, place: Path, *more: str) -> ProbeCommand:
    flags = ["--preset", "demo", "--data.root", str(root), "--run.root", str(place), "--run.device", "cpu"]
    return parse(ProbeCommand, [*flags, "--run.threads", "1", *more])


def test_a_probe_leaves_a_table_a_picture_and_a_flag_for_main(
    few: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    assert probe(arguments(few.root, tmp_path)) == 0
    printed = capsys.readouterr().out
    card = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert (tmp_path / "probe" / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert [one["layer"] for one in card["alone"]] == card["depths"] == [1, 2, 3] and card["folds"] >= 3
    assert all(0 < one["cmap"] <= 1 and 0 <= one["top1"] <= 1 for one in (*card["alone"], *card["layers_1_to"]))
    assert card["flags"] == f"--encoder.depth {card['recommended_depth']}" and card["flags"] in printed
    assert list(card["milliseconds_per_window"]) == ["1 thread"] and "the best" in printed
    facts = json.loads((tmp_path / "probe" / "run.json").read_text())
    assert facts["status"] == "finished" and facts["scores"]["cmap"] > 0
    request.getfixturevalue("undrawn")  # one picture is enough
    # the features are kept, and used again where they are of the same
    assert probe(arguments(few.root, tmp_path)) == 0
    again = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert f"features of {card['recordings']} recordings: {tmp_path / 'probe'}" in capsys.readouterr().out
    assert again["alone"] == card["alone"] and (tmp_path / "probe-002" / "features.safetensors").is_file()
    # tokens in groups: the same recordings, and other features
    assert probe(arguments(few.root, tmp_path, "--encoder.pool", "5")) == 0
    assert "features of" not in capsys.readouterr().out
    # an encoder from a file, cut: the size is that of its weights, the depth is obeyed, the features are its own
    encoder = load_encoder(EncoderSettings("demo", "random"), AudioSettings())
    birdnet = {"name": "BirdNET 2.4", "license": "CC BY-NC-SA 4.0", "sha256": ""}
    save_encoder(tmp_path / "encoder.safetensors", encoder, "demo", AudioSettings(), {"teachers": [birdnet]})
    words = ["--encoder.weights", str(tmp_path / "whisper"), "--encoder.depth", "2", "--encoder.pool", "5"]
    config = arguments(few.root, tmp_path, *words)
    config = replace(config, encoder=replace(config.encoder, size="large-v3"), recordings=20, windows=1)
    assert probe(config) == 0
    printed = capsys.readouterr().out
    assert "NON-COMMERCIAL: made with the help of BirdNET 2.4" in printed
    assert "features of" not in printed and "--encoder.pool 5" in (last := printed.splitlines()[-1])
    assert last.count("--data.root ") == 1
    card = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert card["teachers"] == [birdnet]
    assert card["size"] == "demo" and card["layers"] == 2 and card["depths"] == [1, 2] and card["pool"] == 5
    assert card["flags"] == f"--encoder.depth {card['recommended_depth']} --encoder.pool 5"


def test_an_interrupted_probe_is_marked_so_and_is_no_default(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "pooled_features", stopped)
    with pytest.raises(KeyboardInterrupt):
        probe(arguments(season.root, tmp_path))
    assert json.loads((tmp_path / "probe-001" / "run.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "probe").exists()


def test_weights_that_are_not_there_are_refused_before_a_run_is_opened(season: FieldSeason, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no encoder at nowhere; --encoder\.weights takes"):
        probe(arguments(season.root, tmp_path / "runs", "--encoder.weights", "nowhere"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(not WHISPER.is_dir() or not ANIMALS.is_dir(), reason="needs ../shared: Whisper base, real animals")
def test_of_whisper_base_a_low_layer_tells_real_animals_apart_better_than_random_weights(tmp_path: Path) -> None:
    flags = ("--data.min_recordings", "20", "--recordings", "120", "--windows", "1", "--encoder.depth", "2")
    assert probe(arguments(ANIMALS, tmp_path, "--encoder.weights", str(WHISPER), *flags)) == 0
    known = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert known["size"] == "base" and known["layers"] == 2
    assert probe(arguments(ANIMALS, tmp_path, "--encoder.weights", "random", *flags)) == 0  # a negative control
    unknown = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert known["alone"][0]["cmap"] > unknown["alone"][0]["cmap"] + 0.05
