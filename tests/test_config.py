"""The command line: a preset is a whole set of defaults, any flag beside it wins, and help teaches."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import predictor
import quantize
from config import (
    DEMO_DATA,
    PRESETS,
    SIZES,
    SOUNDS,
    AudioSettings,
    ExperimentsCommand,
    FinetuneCommand,
    PredictCommand,
    PretrainCommand,
    ProbeCommand,
    QuantizeCommand,
    ReportCommand,
    SurveyCommand,
    parse,
)
from demo_data import DEFAULT_ROOT
from runtime.files import write_json


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_works_for_every_command_that_has_an_encoder_to_choose(preset: str) -> None:
    flags = ["--preset", preset]
    training = (parse(FinetuneCommand, flags), parse(PretrainCommand, flags), parse(ProbeCommand, flags))
    for config in training:
        assert config.preset == config.encoder.size == preset


@pytest.mark.parametrize("command", [SurveyCommand, QuantizeCommand, PredictCommand, ReportCommand, ExperimentsCommand])
@pytest.mark.parametrize("words", [["--preset", "demo"], ["--preset=base"]])
def test_a_preset_where_nothing_depends_on_it_is_refused_in_one_line(
    command: type[PredictCommand], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError) as refusal:
        parse(command, words)
    assert str(refusal.value) == (
        "--preset is not offered: it is not needed here, as no setting depends on the size of an encoder; leave it out"
    )
    file = tmp_path / "run.json"
    write_json(file, {"settings": asdict(command()) | {"preset": "demo"}})
    assert parse(command, ["--config", str(file)]) == command(), "of a run of an earlier version"


def test_a_flag_beside_a_preset_changes_that_alone() -> None:
    plain = parse(FinetuneCommand, ["--preset", "small"])
    changed = parse(FinetuneCommand, ["--preset=small", "--train.epochs", "3"])
    assert changed == replace(plain, train=replace(plain.train, epochs=3))


def test_without_any_flag_the_preset_is_base() -> None:
    assert parse(PretrainCommand, []) == PretrainCommand.defaults("base")


def test_both_spellings_of_a_flag_are_understood() -> None:
    for flag in ("--data.min_recordings", "--data.min-recordings"):
        assert parse(FinetuneCommand, [flag, "8"]).data.min_recordings == 8


def test_stage_two_starts_from_whisper_itself_and_the_demo_from_nothing() -> None:
    assert FinetuneCommand.defaults("base").encoder.weights == "openai/whisper-base"
    assert FinetuneCommand.defaults("large-v3").encoder.weights == "openai/whisper-large-v3"
    assert FinetuneCommand.defaults("demo").encoder.weights == "random"


def test_the_head_is_fitted_first_unless_the_encoder_knows_nothing() -> None:
    settings = FinetuneCommand.defaults("base").train
    assert settings.head_first("openai/whisper-base") and settings.head_first("runs/mae/encoder.safetensors")
    assert not settings.head_first("random") and replace(settings, frozen=True).head_first("random")
    assert not replace(settings, head_updates=0).head_first("openai/whisper-base")
    with pytest.raises(AssertionError, match=r"give it --train\.head_updates"):
        replace(settings, frozen=True, head_updates=0)


def test_by_default_the_last_epoch_of_a_running_mean_is_kept() -> None:
    settings = FinetuneCommand.defaults("base").train
    assert (settings.choose, settings.validate_every, settings.ema) == ("last", 5, 0.98)


def test_defaults_chain_from_command_to_command() -> None:
    assert Path("runs/finetune/classifier.safetensors") == quantize.CLASSIFIER and not QuantizeCommand().classifier
    assert Path("runs/quantize/classifier.int8.onnx") == predictor.MODEL and not PredictCommand().model
    assert PretrainCommand.defaults("base").encoder.weights == "openai/whisper-base"


def test_the_demo_needs_no_download_and_finds_the_field_season() -> None:
    demo = PretrainCommand.defaults("demo")
    assert demo.encoder.weights == "random" and demo.data.root == DEMO_DATA == DEFAULT_ROOT


def test_recordings_are_positional() -> None:
    assert parse(PredictCommand, ["a.ogg", "b", "--overlap", "2.5"]).inputs == (Path("a.ogg"), Path("b"))


def test_heads_divide_the_width() -> None:
    for size in SIZES.values():
        assert size.width % size.heads == 0 and size.decoder_width % size.decoder_heads == 0


def test_a_mistyped_flag_leaves_with_1_and_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse(FinetuneCommand, ["--train.epoch", "3"])
    assert leaving.value.code == 1
    captured = capsys.readouterr()
    assert "--train.epochs" in captured.out + captured.err


@pytest.mark.parametrize(
    "command",
    [
        *(SurveyCommand, PretrainCommand, FinetuneCommand, QuantizeCommand),
        *(PredictCommand, ReportCommand, ExperimentsCommand, ProbeCommand),
    ],
)
def test_help_teaches_with_an_example_and_leaves_with_0(
    command: type[PretrainCommand], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    assert "python " in text and ("--preset" in text) == (command in (PretrainCommand, FinetuneCommand, ProbeCommand))


def help_of(command: type[PretrainCommand], capsys: pytest.CaptureFixture[str]) -> str:
    """What --help prints, in one line."""
    with pytest.raises(SystemExit) as leaving:
        parse(command, ["--help"])
    assert leaving.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "flag", "where"),
    [
        *(
            (SurveyCommand, f"--data.{name}", FinetuneCommand)
            for name in ("min_recordings", "balance", "noise", "cache")
        ),
        *((SurveyCommand, f"--run.{name}", FinetuneCommand) for name in ("seed", "device", "threads", "precision")),
        *((QuantizeCommand, f"--run.{name}", FinetuneCommand) for name in ("seed", "device", "precision")),
        *(
            (PretrainCommand, f"--data.{name}", FinetuneCommand)
            for name in ("min_recordings", "balance", "no_call_share")
        ),
        *((PretrainCommand, f"--augment.{name}", FinetuneCommand) for name in ("background", "noise", "mask")),
        *(
            (ProbeCommand, f"--data.{name}", FinetuneCommand)
            for name in ("valid_fold", "window", "cache_gb", "no_call")
        ),
    ],
)
def test_a_flag_that_would_change_nothing_does_not_exist(
    command: type[PretrainCommand], flag: str, where: type[PretrainCommand], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse(command, [flag, "1"])
    assert leaving.value.code == 1 and flag in "".join(capsys.readouterr())
    assert f"{flag} " in help_of(where, capsys), "negative control: where it does something"


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        (ReportCommand, ["--training", "recordings.csv"], "--training changes nothing without --apply"),
        (ReportCommand, ["--precision", "0.8"], "--precision changes nothing without --apply"),
        (ReportCommand, ["--apply", "v.csv", "--seed", "1"], "--seed is of the page, and changes nothing with --apply"),
        (FinetuneCommand, ["--train.patience", "3"], "--train.patience waits for a better epoch"),
        (FinetuneCommand, ["--train.swa", "0.2", "--train.ema", "0"], "--train.swa takes the place of a running mean"),
        (FinetuneCommand, ["--train.swa", "1.5"], "--train.swa 1.5: give a share of the updates"),
    ],
)
def test_a_flag_that_changes_nothing_beside_another_is_refused(
    command: type[PretrainCommand], flags: list[str], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        parse(command, flags)
    assert parse(ReportCommand, ["--apply", "v.csv", "--precision", "0.8", "--training", "t.csv"]).precision == 0.8
    assert parse(FinetuneCommand, ["--train.patience", "3", "--train.choose", "cmap"]).train.patience == 3


@pytest.mark.parametrize("flag", ["--lat", "--sensitivity=1.2", "--sf-thresh", "--fmax", "--min_confidence"])
def test_what_birdnet_offers_and_we_do_not_is_said_in_a_line(flag: str) -> None:
    with pytest.raises(AssertionError) as refusal:
        parse(PredictCommand, ["dawn.ogg", flag, "1"])
    assert str(refusal.value).startswith(f"{flag.partition('=')[0].replace('-t', '_t')} is not offered: ")


def test_models_are_named_one_by_one_so_that_recordings_may_follow() -> None:
    config = parse(PredictCommand, ["--model", "a.onnx", "--model", "b.onnx", "dawn.ogg", "dusk.ogg"])
    assert config.model == (Path("a.onnx"), Path("b.onnx")) and config.inputs == (Path("dawn.ogg"), Path("dusk.ogg"))


EVERY: tuple[tuple[type[Any], tuple[str, ...]], ...] = (
    (SurveyCommand, ("--data.root", "here", "--data.folds", "3")),
    (ProbeCommand, ("--data.root", "here")),
    (PretrainCommand, ("--preset", "tiny", "--train.epochs", "7", "--mask.ratio", "0.5")),
    (FinetuneCommand, ("--preset", "demo", "--train.folds", "0", "2", "--train.frozen", "--data.root", "a b")),
    (QuantizeCommand, ("--classifier", "c.safetensors", "--gate.allow_worse")),
    (PredictCommand, ("x.wav", "--model", "a.onnx", "--model", "b.onnx", "--rtype", "csv", "--scores")),
    (ReportCommand, ("out", "--apply", "v.csv", "w.csv", "--precision", "0.8")),
    (ExperimentsCommand, ("--kind", "mae")),
)


@pytest.mark.parametrize(("command", "words"), EVERY, ids=lambda item: getattr(item, "__name__", ""))
def test_the_settings_of_a_run_come_back_from_its_file(
    command: type[Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    given = parse(command, words)
    file = tmp_path / "run.json"
    write_json(file, {"settings": asdict(given)})
    alone = [word for word in words[:1] if not word.startswith("-")]
    assert parse(command, [*alone, "--config", str(file)]) == given != parse(command, alone)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("[]", "holds no settings"),
        ('{"settings": {"wings": 2}}', "does not know: wings"),
        ('{"settings": {"train": {"epochs": 2, "epohcs": 3}}}', "does not know: train.epohcs"),
        ('{"train": 3}', "does not know: train"),
    ],
)
def test_a_file_of_settings_that_is_none_is_refused_by_name(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(AssertionError, match=rf"run.json.*{said}"):
        parse(FinetuneCommand, ["--config", str(file)])
    with pytest.raises(AssertionError, match=r"nowhere.json cannot be read"):
        parse(FinetuneCommand, ["--config=nowhere.json"])


def test_flags_win_over_the_settings_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    given = parse(FinetuneCommand, ["--preset", "tiny", "--train.epochs", "7", "--train.frozen"])
    write_json(file, {"settings": asdict(given)})
    for words in (["--config", str(file), "--train.epochs", "9"], ["--train.epochs=9", f"--config={file}"]):
        assert parse(FinetuneCommand, words) == replace(given, train=replace(given.train, epochs=9))


def test_a_setting_that_begins_like_a_flag_comes_back_and_one_that_is_null_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text('{"data": {"label_column": "-x", "root": "-odd"}}', encoding="utf-8")
    data = parse(FinetuneCommand, ["--config", str(file)]).data
    assert (data.label_column, data.root) == ("-x", Path("-odd"))
    file.write_text('{"data": {"root": null}}', encoding="utf-8")
    with pytest.raises(AssertionError, match=r"--data\.root is null"):
        parse(FinetuneCommand, ["--config", str(file)])


def test_a_teacher_and_the_target_that_imitates_it_go_together() -> None:
    demo = ["--preset", "demo"]
    imitating = parse(PretrainCommand, [*demo, "--target", "embeddings", "--teacher", "t.npz"])
    assert imitating.teacher == Path("t.npz") and imitating.imitation.reconstruction == 0.0
    wrong = {
        "add --teacher": ["--target", "embeddings"],
        "without --target embeddings; add that": ["--teacher", "t.npz"],
        "--imitation changes nothing": ["--imitation.name", "BirdNET"],
        "--teacher_decay changes nothing": ["--teacher_decay", "0.9"],
        "give up to 30": ["--target", "embeddings", "--teacher", "t.npz", "--imitation.window_seconds", "60"],
    }
    for said, flags in wrong.items():
        with pytest.raises(AssertionError, match=said):
            parse(PretrainCommand, [*demo, *flags])


IMITATE = ("--target", "embeddings", "--teacher", "t.npz")
HIDING = ("--imitation.reconstruction", "1")
IDLE: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {  # flags, those that give them a meaning, what is said
    "frames shuffled": (("--mask.shuffle",), (), "another order"),
    "frames shuffled beside a mask": (("--mask.shuffle", *HIDING), (), "another order"),
    "a mask that hides nothing": (("--mask.strategy", "block"), HIDING, "where nothing is hidden"),
    "a share of nothing": (("--mask.ratio", "0.5"), HIDING, "where nothing is hidden"),
    "mixup": (("--augment.mixup", "0.9", *HIDING), (), r"--augment\.mixup changes nothing"),
    "sources": (("--augment.sources", "3"), (), r"--augment\.sources changes nothing"),
    "roll": (("--augment.roll", "0.5"), (), r"--augment\.roll changes nothing"),
    "splice": (("--augment.splice", "0.5"), (), r"--augment\.splice changes nothing"),
}


@pytest.mark.parametrize("name", IDLE)
def test_what_an_imitation_contradicts_or_leaves_idle_is_refused(name: str) -> None:
    flags, meaning, said = IDLE[name]
    demo = ["--preset", "demo"]
    with pytest.raises(AssertionError, match=said):
        parse(PretrainCommand, [*demo, *IMITATE, *flags])
    others = [*IMITATE, *meaning] if meaning else [flag for flag in flags if flag not in HIDING]
    parse(PretrainCommand, [*demo, *others, *(flags if meaning else ())])  # control


@pytest.mark.parametrize("preset", ["demo", "base", "large-v3"])
def test_no_preset_is_taken_for_an_idle_flag(preset: str) -> None:
    for more in ((), HIDING, ("--augment.mixup", "0", "--augment.gain_db", "-6", "6", "--augment.filter", "0.5")):
        assert parse(PretrainCommand, ["--preset", preset, *IMITATE, *more]).target == "embeddings"


def test_a_curve_that_nothing_would_train_is_refused() -> None:
    curve = ["--preset", "demo", "--audio.compression", "pcen_trained"]
    assert parse(FinetuneCommand, curve).audio.compression == "pcen_trained"
    with pytest.raises(AssertionError, match=r"no curve is trained here; give pcen, and pcen_trained to main\.py"):
        parse(PretrainCommand, curve)
    with pytest.raises(AssertionError, match=r"--train\.frozen trains the head alone, and no curve"):
        parse(FinetuneCommand, [*curve, "--train.frozen"])


def test_an_archive_is_looked_through_for_the_animals_that_are_named() -> None:
    assert parse(SurveyCommand, ["--data.root", "nights"]).sound == "bird"
    assert parse(SurveyCommand, ["--data.root", "nights", "--sound", "bat"]).sound == "bat"
    with pytest.raises(AssertionError, match="--preset is not offered"):
        parse(SurveyCommand, ["--data.root", "nights", "--preset", "base"])


@pytest.mark.parametrize("command", [FinetuneCommand, PretrainCommand, ProbeCommand])
def test_a_kind_of_sound_sets_the_whole_geometry_and_a_flag_beside_it_wins(
    command: type[FinetuneCommand],
) -> None:
    for sound, audio in SOUNDS.items():
        found = parse(command, ["--sound", sound])
        assert found.audio == audio and found.sound == sound
        assert found == replace(command.defaults("base"), audio=audio, sound=sound), "and nothing else"
    slower = parse(command, ["--audio.hop_seconds", "0.001", "--sound=bat"])
    assert slower.audio == replace(SOUNDS["bat"], hop_seconds=0.001)
    assert parse(command, []).audio == SOUNDS["bird"] == AudioSettings(), "without the flag all is as it was"
    with pytest.raises(SystemExit):
        parse(command, ["--sound", "fish"])


def test_a_kind_of_sound_comes_back_from_the_file_of_a_run(tmp_path: Path) -> None:
    config = parse(FinetuneCommand, ["--sound", "whale", "--audio.fft", "1024"])
    write_json(tmp_path / "run.json", {"settings": asdict(config)})
    assert parse(FinetuneCommand, ["--config", str(tmp_path / "run.json")]) == config
    earlier = {name: value for name, value in asdict(parse(FinetuneCommand, [])).items() if name != "sound"}
    earlier["audio"] = {"sample_rate": 32_000, "window_seconds": 5.0, "context_seconds": 5.0}
    write_json(tmp_path / "run.json", {"settings": earlier})
    assert parse(FinetuneCommand, ["--config", str(tmp_path / "run.json")]).audio == SOUNDS["wide"], (
        "an earlier version"
    )


@pytest.mark.parametrize("command", [PredictCommand, QuantizeCommand])
def test_a_kind_of_sound_where_the_model_decides_is_refused_in_one_line(command: type[PredictCommand]) -> None:
    with pytest.raises(AssertionError, match="--sound is not offered: it is a fact of the model"):
        parse(command, ["--sound", "bat"])


def test_windows_of_every_kind_of_sound_are_a_few_hundred_tokens() -> None:
    for sound, audio in SOUNDS.items():
        assert audio.samples % (2 * audio.hop) == 0 and 250 <= audio.frames // 2 <= 500, sound


def test_whisper_is_pulled_back_in_stage_one_and_random_weights_never() -> None:
    assert parse(PretrainCommand, ["--preset", "base"]).pulled
    for words in (
        ["--preset", "demo"],
        ["--preset", "base", "--encoder.weights", "random"],
        ["--preset", "base", "--pull", "0"],
    ):
        assert not parse(PretrainCommand, words).pulled, words
    for share in ("-0.1", "1", "nan"):
        with pytest.raises(AssertionError, match=r"--pull .*: give a share, such as 0\.01"):
            parse(PretrainCommand, ["--pull", share])
