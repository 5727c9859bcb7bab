"""Stage 1: targets that tell nothing about what is hidden, a skill that cannot be had for free, and what it leaves."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from conftest import Stages
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from archive.licences import teachers_of
from archive.recordings import read_recordings
from archive.survey import marks_in, sound_marks
from config import (
    SIZES,
    AudioSettings,
    AugmentSettings,
    EncoderSettings,
    EncoderSize,
    FinetuneCommand,
    MaskSettings,
    PredictCommand,
    PretrainCommand,
    QuantizeCommand,
    parse,
)
from data_loader import Batch, read_labeled, split
from demo_data import FieldSeason
from main import finetune, plan_fold
from model import Encoder, LogMel, MaskedAutoencoder
from predictor import predict
from quantize import quantize
from runtime.runs import read_records
from serving.embeddings import Embedded, write_vectors
from serving.scorer import METADATA, open_scorer
from sounds.audio import read_window
from ssl_mae import TrivialBaseline, fill_hidden, input_picture, measure_skill, pretrain, skill_in_words, target_of
from training.checkpoint import load_classifier, load_encoder, stage_one, weights_digest
from training.masking import hide_tokens

TOKENS = 100


def pictures(batch: int = 4) -> Tensor:
    """Log-mel-like pictures with a tilt and slow changes."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, 16, 2 * TOKENS, generator=generator)
    slow = torch.nn.functional.avg_pool1d(noise, 21, stride=1, padding=10) * 4
    return slow + torch.linspace(1, -1, 16)[None, :, None]


def mask(batch: int = 4, seed: int = 0) -> Tensor:
    return hide_tokens(batch, TOKENS, 0.65, "span", torch.Generator().manual_seed(seed))


def test_stage_one_masks_single_tokens_and_has_no_flag_to_pool_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(PretrainCommand, ["--preset", "demo", "--encoder.pool", "2"])
    assert "--encoder.pool" in capsys.readouterr().err


def test_the_visible_part_of_a_target_has_mean_zero_in_every_bin() -> None:
    target, hidden = target_of(pictures(), mask(), None), mask()
    for row, seen in zip(target, ~hidden, strict=True):
        frames = row[seen].reshape(-1, 16)
        torch.testing.assert_close(frames.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)


def test_the_mean_of_what_is_hidden_cannot_be_had_from_the_mean_of_what_is_seen() -> None:
    """A target centred on all frames would betray it: the hidden mean is then -(seen / hidden) times the seen one."""
    mel, hidden = pictures(64), mask(64)
    frames = hidden.repeat_interleave(2, dim=1)[:, None]

    def gain(centre: Tensor) -> float:
        target = mel - centre
        seen_mean = (target * ~frames).sum(dim=2, keepdim=True) / (~frames).sum(dim=2, keepdim=True)
        guess = -(35 / 65) * seen_mean
        hidden_error = ((target - guess) * frames).square().sum()
        return float(1 - hidden_error / (target * frames).square().sum())

    seen_only = (mel * ~frames).sum(dim=2, keepdim=True) / (~frames).sum(dim=2, keepdim=True)
    assert gain(seen_only) == pytest.approx(0.0, abs=1e-6)
    assert gain(mel.mean(dim=2, keepdim=True)) > 0.005  # negative control


def test_a_silent_bin_is_not_blown_up() -> None:
    mel = pictures()
    mel[:, 3] = 0.5 + 1e-6 * torch.randn(4, 2 * TOKENS)
    assert target_of(mel, mask(), None).abs()[..., [3, 19]].max() < 1e-3


def test_interpolation_is_a_straight_line_between_what_is_seen() -> None:
    values = torch.tensor([[[0.0], [9.0], [9.0], [3.0], [9.0]]])
    hidden = torch.tensor([[False, True, True, False, True]])
    assert fill_hidden(values, hidden)[0, :, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 3.0]


def test_interpolation_never_reads_what_is_hidden() -> None:
    values, hidden = torch.randn(4, TOKENS, 3), mask()
    other = torch.where(hidden[..., None], 99.0, values)
    assert torch.equal(fill_hidden(values, hidden), fill_hidden(other, hidden))


def test_a_trivial_painter_goes_on_to_the_last_bit_from_what_it_has_heard() -> None:
    whole, first, second = TrivialBaseline(), TrivialBaseline(), TrivialBaseline()
    for number in range(6):
        target, hidden = target_of(pictures() + 0.1 * number, mask(seed=number), None), mask(seed=number)
        whole.fit(target, hidden)
        if number == 3:
            second.load_state_dict(first.state_dict())
        (first if number < 3 else second).fit(target, hidden)
    assert torch.equal(second.state_dict()["sums"], whole.state_dict()["sums"])
    assert not torch.equal(first.state_dict()["sums"], whole.state_dict()["sums"])  # negative control


class Oracle(MaskedAutoencoder):
    """Paints the truth, shrunk."""

    share = 1.0

    def forward(self, mel: Tensor, hidden: Tensor) -> Tensor:
        return self.share * target_of(mel, hidden, None)


def skill_of(share: float) -> dict[str, float]:
    audio = AudioSettings()
    model = Oracle(Encoder(SIZES["demo"]))
    model.share = share
    rng = np.random.default_rng(0)
    exam = rng.normal(0, 0.1, (3, 80_000)).astype(np.float32)
    trivial, log_mel = TrivialBaseline(), LogMel(audio, 80)
    mel = log_mel(torch.from_numpy(exam))
    hidden = hide_tokens(3, 250, 0.65, "span", torch.Generator().manual_seed(9))
    trivial.fit(target_of(mel, hidden, None), hidden)
    return measure_skill(model, None, log_mel, exam, trivial, MaskSettings(), torch.device("cpu"))


def test_a_teacher_hears_what_is_hidden_and_the_pupil_does_not() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSize(16, 32, 2, 2, 1, 16, 2))
    teacher = copy.deepcopy(encoder).eval().requires_grad_(False)
    mel, hidden = pictures(), mask()
    target = target_of(mel, hidden, teacher)
    assert target.shape == (4, TOKENS, 32) and not target.requires_grad
    for row, seen in zip(target, ~hidden, strict=True):
        torch.testing.assert_close(row[seen].mean(dim=0), torch.zeros(32), atol=1e-5, rtol=0)
    covered = hidden.repeat_interleave(2, dim=1)[:, None]
    other = torch.where(covered, mel.flip(2), mel)
    assert (target_of(other, hidden, teacher) - target)[hidden].abs().mean() > 0.1
    assert torch.equal(encoder(other, hidden), encoder(mel, hidden))


def test_a_teacher_is_a_running_mean_of_the_encoder_and_leaves_no_trace_in_its_file(
    few: FieldSeason, tmp_path: Path
) -> None:
    flags = ["--preset", "demo", "--data.root", str(few.root), "--data.cache", str(tmp_path / "cache")]
    flags += ["--train.epochs", "1", "--run.root", str(tmp_path), "--target", "teacher"]
    assert pretrain(parse(PretrainCommand, flags)) == 0
    encoder = load_encoder(EncoderSettings("demo", str(tmp_path / "mae" / "encoder.safetensors")), AudioSettings())
    assert encoder.size == SIZES["demo"]
    (line,) = read_records(tmp_path / "mae")
    assert -2 < line["skill"] < 1 and (tmp_path / "mae" / "reconstruction.png").stat().st_size > 10_000


def test_painting_the_truth_has_skill_one_and_painting_the_mean_none() -> None:
    assert skill_of(1.0)["skill"] == pytest.approx(1.0)
    nothing = skill_of(0.0)
    assert nothing["skill_over_mean"] == pytest.approx(0.0) and nothing["skill"] <= 0.0


def test_a_scaled_line_is_never_worse_than_the_mean_where_it_was_fitted() -> None:
    target, hidden = target_of(pictures(), mask(), None), mask()
    trivial = TrivialBaseline()
    trivial.fit(target, hidden)
    of_mean, of_line = trivial.errors(target, hidden)
    assert of_line <= of_mean


def test_the_verdict_says_when_nothing_was_learnt() -> None:
    assert "no better" in skill_in_words(-0.01) and "12.0 %" in skill_in_words(0.12)


def header_of(path: Path) -> tuple[list[str], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return file.keys(), file.metadata() or {}


def test_a_run_leaves_an_encoder_pictures_and_no_decoder(stages: Stages) -> None:
    folder = stages.encoder.parent
    for name in ("reconstruction.png", "curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    names, header = header_of(stages.encoder)
    facts = json.loads(header["wild_whisper"])
    assert all(name.startswith("model.encoder.") for name in names) and len(names) == 5 + 3 * 15 + 2
    assert facts["size"] == "demo" and facts["provenance"]["start"] == "random"


def test_the_loss_falls(stages: Stages) -> None:
    first, last = (read_records(stages.encoder.parent)[i] for i in (0, -1))
    assert last["loss"] < first["loss"] and {"skill", "skill_over_mean", "windows_per_second"} <= set(last)


def heard_with(season: FieldSeason, shuffle: bool = False) -> torch.Tensor:
    """What the autoencoder sees of one batch."""
    config = PretrainCommand.defaults("demo")
    unchanged = AugmentSettings(gain_db=(0.0, 0.0), mixup=0.0, roll=0.0, mask=0.0, isolate=0.0)
    config = replace(config, mask=replace(config.mask, shuffle=shuffle), augment=unchanged)
    sound = read_window(next((season.root / "unlabeled").rglob("*.flac")), 0.0, 5.0, 16_000)
    batch = Batch(torch.from_numpy(sound)[None], torch.zeros(1, 0), torch.zeros(1, 0))
    generator = torch.Generator().manual_seed(0)
    return input_picture(LogMel(config.audio, 80), batch, config, generator)


def test_the_control_holds_the_same_frames_in_another_order(season: FieldSeason) -> None:
    plain, shuffled = heard_with(season), heard_with(season, shuffle=True)
    assert not torch.equal(plain, shuffled)
    place = [int((shuffled[0] - plain[0, :, n, None]).abs().sum(dim=0).argmin()) for n in range(500)]
    assert sorted(place) == list(range(500)) and torch.equal(shuffled[:, :, place], plain)


@pytest.mark.slow
def test_a_run_hears_above_8_khz_on_request_and_hands_it_on(season: FieldSeason, tmp_path: Path) -> None:
    wide = ["--preset", "demo", "--data.root", str(season.root), "--run.device", "cpu", "--run.root", str(tmp_path)]
    wide += ["--audio.sample_rate", "32000", "--data.cache", str(tmp_path / "cache"), "--train.epochs", "1"]
    flags = ["--train.checkpointing", "--mask.strategy", "energy"]
    assert pretrain(parse(PretrainCommand, [*wide, *flags])) == 0
    encoder = tmp_path / "mae" / "encoder.safetensors"
    assert finetune(parse(FinetuneCommand, [*wide, "--encoder.weights", str(encoder)])) == 0
    classifier = tmp_path / "finetune" / "classifier.safetensors"
    command = ["--run.root", str(tmp_path), "--classifier", str(classifier)]
    assert quantize(parse(QuantizeCommand, [*command, "--gate.min_agreement", "0.5"])) == 0
    scorer = open_scorer(tmp_path / "quantize" / "classifier.int8.onnx", 1)
    assert scorer.audio.sample_rate == 32_000
    model = ["--model", str(scorer.path), "--out", str(tmp_path / "out"), "--min_conf", "0.01"]
    assert predict(parse(PredictCommand, [str(season.soundscape), *model])) == 0
    with pytest.raises(AssertionError, match="give both stages the same --audio flags"):
        load_encoder(EncoderSettings("demo", str(encoder)), AudioSettings())


def test_what_the_model_of_a_table_was_trained_on_judges_no_student_of_it(
    season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its vectors hold what it learnt of a recording by its label, though no student of it hears that."""
    data = replace(FinetuneCommand.defaults("demo").data, root=season.root)
    taxonomy, labelled = read_labeled(data)
    train, valid = split(labelled, data)
    rows = [
        Embedded(row.name, [0.0], [3.0], np.full((1, 4), number + 1, np.float32))
        for number, row in enumerate([*train[:8], *valid[:8]])
    ]
    birdnet = {"name": "BirdNET 2.4", "license": "CC BY-NC-SA 4.0"}
    heard = {"teachers": [birdnet], "trained_on": sound_marks([valid[0].path])}
    write_vectors(tmp_path / "e.npz", rows, "taught.onnx", provenance=heard)
    words = ["--preset", "demo", "--run.root", str(tmp_path), "--run.device", "cpu", "--train.epochs", "1"]
    words += ["--data.root", str(season.root), "--data.cache", str(tmp_path / "cache")]
    words += ["--target", "embeddings", "--teacher", str(tmp_path / "e.npz")]
    assert pretrain(parse(PretrainCommand, words)) == 0
    assert "NON-COMMERCIAL: made with the help of BirdNET 2.4" in capsys.readouterr().out
    encoder = replace(FinetuneCommand.defaults("demo").encoder, weights=str(tmp_path / "mae" / "encoder.safetensors"))
    config = replace(FinetuneCommand.defaults("demo"), data=data, encoder=encoder)
    with pytest.raises(AssertionError, match=rf"adapted on 1 of the .* such as {re.escape(str(valid[0].path))}"):
        plan_fold(config, data.valid_fold, taxonomy, labelled)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [True, False])
def test_the_name_and_licence_of_a_teacher_go_with_every_file_that_comes_of_it(
    closed: bool, season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, sounds = np.random.default_rng(0), sorted((season.root / "train_audio").rglob("*.flac"))[::3]
    rows = [
        Embedded(path.relative_to(season.root).as_posix(), [0.0], [3.0], rng.normal(size=(1, 4)).astype(np.float32))
        for path in sounds
    ]
    write_vectors(tmp_path / "birdnet.npz", rows, "BirdNET 2.4")
    shared = ["--preset", "demo", "--run.root", str(tmp_path), "--run.device", "cpu"]
    shared += ["--data.root", str(season.root), "--data.cache", str(tmp_path / "cache"), "--train.epochs", "1"]
    licence = "CC BY-NC-SA 4.0" if closed else "CC BY-SA 4.0"
    taught = ["--target", "embeddings", "--teacher", str(tmp_path / "birdnet.npz"), "--imitation.license", licence]
    assert pretrain(parse(PretrainCommand, [*shared, *taught])) == 0
    encoder = str(tmp_path / "mae" / "encoder.safetensors")
    marks = [str(stage_one(encoder)["trained_on"])]
    for number in range(6):  # sites that the first encoder did not hear
        (tmp_path / "others" / str(number)).mkdir(parents=True)
        sound = rng.normal(0, 0.1, 96_000)
        soundfile.write(tmp_path / "others" / str(number) / "a.wav", sound, 16_000, subtype="FLOAT")
    others = ["--data.root", str(tmp_path / "others"), "--data.folds", "2"]
    assert pretrain(parse(PretrainCommand, [*shared, *others, "--encoder.weights", encoder])) == 0  # by masks now
    encoder = str(tmp_path / "mae" / "encoder.safetensors")
    head = ["--encoder.weights", encoder, "--train.frozen", "--train.head_updates", "20"]
    assert finetune(parse(FinetuneCommand, [*shared, *head])) == 0
    classifier = str(tmp_path / "finetune" / "classifier.safetensors")
    command = ["--run.root", str(tmp_path), "--classifier", classifier, "--gate.allow_worse"]
    assert quantize(parse(QuantizeCommand, command)) == 0
    assert capsys.readouterr().out.count("NON-COMMERCIAL: made with the help of BirdNET 2.4") == (4 if closed else 0)
    found = [stage_one(encoder), load_classifier(Path(classifier))[1].provenance]
    for name in ("classifier.onnx", "classifier.int8.onnx"):
        properties = onnx.load(tmp_path / "quantize" / name).metadata_props
        (facts,) = (json.loads(entry.value) for entry in properties if entry.key == METADATA)
        found.append(facts["provenance"])
    marks += [str(provenance["trained_on"]) for provenance in found]
    first, second, *later = map(marks_in, marks)
    assert first and first < second and all(second <= heard for heard in later), "what any of them heard counts"
    taught_by = [row.path for row in read_recordings(tmp_path / "finetune" / "training_recordings.csv")]
    assert all(marks_in(sound_marks(taught_by)) <= heard for heard in later)
    found.append(json.loads((tmp_path / "quantize" / "quantize.json").read_text()))
    for provenance in found:
        (teacher,) = teachers_of(provenance)
        assert (teacher["name"], teacher["license"]) == ("BirdNET 2.4", licence)
    assert str(found[-1]["licence_note"]).startswith("NON-COMMERCIAL") == closed


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_gives_the_same_weights(season: FieldSeason, tmp_path: Path) -> None:
    digests: list[str] = []
    for run in ("a", "b"):
        config = parse(PretrainCommand, ["--preset", "demo", "--data.root", str(season.root / "unlabeled")])
        config = replace(config, train=replace(config.train, epochs=1), data=replace(config.data, folds=2))
        config = replace(config, run=replace(config.run, root=tmp_path / run, device="cpu"))
        assert pretrain(config) == 0
        digests.append(weights_digest(load_file(tmp_path / run / "mae" / "encoder.safetensors")))
    assert digests[0] == digests[1]
