"""The head alone: fitted on features of an encoder that stays as it is, always the same, and a start for the rest."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Stages
from loops import loop_of
from torch import Tensor, nn
from torch.utils.data import DataLoader

from config import (
    AudioSettings,
    AugmentSettings,
    EncoderSettings,
    FinetuneCommand,
    PictureSettings,
    Pooling,
    parse,
)
from data_loader import Batch, labeled_loader, read_labeled, set_epoch
from demo_data import FieldSeason
from heads import PooledHead
from main import finetune
from model import BirdClefClassifier, picture_encoder
from runtime.runs import Run, read_records
from trainer import prepare_finetuning, training_loss
from training import frozen
from training.checkpoint import load_classifier, load_encoder
from training.frozen import HEAD_BATCH, computed_features, features_key, fit_head
from training.objective import LossInputs, augmented, label_loss, prepare_loss_inputs
from training.states import StateWriter

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(autouse=True)
def features_of_this_test_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "SCRATCH", tmp_path / "scratch")


class Task:
    """A classifier to be, on 16 recordings, one window of each."""

    def __init__(self, stages: Stages, season: FieldSeason, pooling: Pooling = "pooled") -> None:
        flags = ["--preset", "demo", "--data.root", str(season.root), "--data.cache", str(stages.runs / "cache")]
        flags += ["--data.most_windows", "1", "--head.pooling", pooling, "--encoder.weights", str(stages.encoder)]
        flags += ["--train.head_updates", "60", "--train.head_epochs", "1", "--train.head_passes", "1"]
        self.config = parse(FinetuneCommand, flags)
        taxonomy, recordings = read_labeled(self.config.data)
        self.recordings, self.species = recordings[::6][:16], len(taxonomy.labels)
        self.loader: DataLoader[Batch] = labeled_loader(
            self.recordings, taxonomy, self.config.data, AudioSettings(), 8, seed=0
        )
        self.inputs: LossInputs = prepare_loss_inputs(taxonomy, self.recordings, self.config.loss, None, CPU)
        self.encoder = str(stages.encoder)

    def model(self) -> BirdClefClassifier:
        torch.manual_seed(0)
        encoder = load_encoder(EncoderSettings("demo", self.encoder), AudioSettings())
        return BirdClefClassifier(encoder, AudioSettings(), self.species, self.config.head)

    def fitted(self, model: BirdClefClassifier) -> float:
        return fit_head(model, self.loader, self.inputs, self.config, CPU)


@pytest.fixture(scope="module")
def task(stages: Stages, season: FieldSeason) -> Task:
    return Task(stages, season)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("pooling", ["pooled", "attention"])
def test_the_head_is_fitted_and_the_encoder_stays_as_it_is(
    pooling: Pooling, stages: Stages, season: FieldSeason, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task(stages, season, pooling)
    model = task.model()
    before, head = weights_of(model.encoder), weights_of(model.head)
    chance = torch.get_rng_state()
    loss = task.fitted(model)
    assert same(weights_of(model.encoder), before) and not same(weights_of(model.head), head)
    rows = len(computed_features(model, task.loader, task.inputs, task.config, CPU).targets)
    assert (
        f"head fitted on {rows} windows of the frozen encoder: 60 updates, loss {loss:.4f}" in capsys.readouterr().out
    )
    untrained = label_loss(*first_answers(task, pooling), task.inputs).item()
    assert loss < (0.7 if pooling == "pooled" else 0.9) * untrained  # attention has further to go
    torch.set_rng_state(chance)


def first_answers(task: Task, pooling: Pooling) -> tuple[Tensor, Tensor, Tensor]:
    """What an untrained head says of the same windows, and what is true."""
    model = task.model()
    features = computed_features(model, task.loader, task.inputs, task.config, CPU)
    assert features.summaries.shape[1] == 1 and features.summaries.dtype == torch.float32, pooling
    return model.best_windows(features.summaries).detach(), features.targets, features.secondary


def test_the_same_seed_gives_the_same_head_bit_for_bit_and_another_one_another(task: Task) -> None:
    one, two, other = task.model(), task.model(), task.model()
    task.fitted(one)
    torch.rand(100)  # what else is drawn at random has no part in it
    task.fitted(two)
    assert same(weights_of(one.head), weights_of(two.head))
    reseeded = replace(task.config, run=replace(task.config.run, seed=1))
    fit_head(other, task.loader, task.inputs, reseeded, CPU)
    assert not same(weights_of(one.head), weights_of(other.head))  # negative control


def test_nothing_that_follows_depends_on_whether_the_features_were_kept_from_a_run_before(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frozen, "SCRATCH", tmp_path)
    heads, chances = list[dict[str, Tensor]](), list[Tensor]()
    for model in (task.model(), task.model()):
        torch.manual_seed(5)
        task.fitted(model)
        heads.append(weights_of(model.head))
        chances.append(torch.rand(3))
    assert same(*heads) and capsys.readouterr().out.count("kept from a run before") == 1
    torch.manual_seed(5)
    assert all(torch.equal(chance, expected) for expected in [torch.rand(3)] for chance in chances)
    (kept,) = (tmp_path / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    task.fitted(task.model())
    assert "is damaged; computing it again" in capsys.readouterr().out
    changed = task.model()
    with torch.no_grad():
        changed.get_parameter("encoder.whisper.layers.0.fc1.bias").add_(1.0)
    task.fitted(changed)
    assert len(list((tmp_path / "features").iterdir())) == 2, "another encoder has other features"


def test_features_are_standardised_over_all_windows_once_and_for_good(task: Task) -> None:
    model = task.model()
    task.fitted(model)
    head = model.head
    assert isinstance(head, PooledHead) and head.standard.fitted == 1
    features = computed_features(model, task.loader, task.inputs, task.config, CPU).summaries.flatten(0, 1)
    told = head.standard(features)
    varies = features.std(dim=0) > 1e-3
    assert told.mean(dim=0).abs().max() < 1e-2 and (told.std(dim=0, unbiased=False)[varies] - 1).abs().max() < 1e-2
    before = head.standard.mean.clone()
    model.train().context_logits(model.log_mel(torch.randn(4, 80_000)))
    assert torch.equal(head.standard.mean, before)


def test_the_answer_from_kept_features_is_the_answer_from_the_sound(task: Task) -> None:
    model = task.model()
    task.fitted(model)
    model.eval()
    plain = replace(task.config, augment=AugmentSettings((0.0, 0.0), mixup=0.0, roll=0.0, mask=0.0, isolate=0.0))
    features = computed_features(model, task.loader, task.inputs, plain, CPU)
    set_epoch(task.loader, frozen.OTHER_DRAWS + 1)
    (first, *_) = list(task.loader)
    told = model.best_windows(features.summaries[: len(first.targets)])
    torch.testing.assert_close(told, model.context_logits(model.log_mel(first.waveforms)), atol=1e-4, rtol=1e-4)


def test_each_pass_has_other_windows_and_memory_is_limited(
    task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = task.model()
    twice = replace(task.config, train=replace(task.config.train, head_passes=2))
    features = computed_features(model, task.loader, task.inputs, twice, CPU)
    half = len(features.targets) // 2
    once = computed_features(model, task.loader, task.inputs, task.config, CPU)
    assert len(once.targets) == half and torch.equal(once.summaries, features.summaries[:half])
    assert not torch.equal(features.summaries[half:], features.summaries[:half])
    monkeypatch.setattr(frozen, "MOST_FEATURE_BYTES", 1)
    first = computed_features(model, task.loader, task.inputs, twice, CPU)
    assert torch.equal(first.summaries, once.summaries[: len(first.targets)]) and len(first.targets) <= 8
    assert f"the head is fitted on the first {len(first.targets)} windows" in capsys.readouterr().out


def test_the_number_of_updates_is_that_of_the_epochs_or_the_least_that_is_asked_for(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = replace(task.config, train=replace(task.config.train, head_epochs=7, head_updates=1))
    fit_head(task.model(), task.loader, task.inputs, epochs, CPU)
    rows = int(capsys.readouterr().out.split("head fitted on ")[1].split()[0])
    fit_head(task.model(), task.loader, task.inputs, epochs, CPU)
    assert rows <= HEAD_BATCH and ": 7 updates," in capsys.readouterr().out


def test_a_head_that_was_fitted_first_is_ahead_after_the_same_few_updates(task: Task) -> None:
    def loss_after(head_first: bool) -> float:
        model = task.model()
        if head_first:
            task.fitted(model)
        loop, optimizer = loop_of(model), torch.optim.AdamW(model.parameters(), 1e-4)
        model.train()
        for batch in task.loader:
            torch.autograd.backward(training_loss(loop, batch, task.inputs, task.config))
            optimizer.step()
            optimizer.zero_grad()
        features = computed_features(model, task.loader, task.inputs, task.config, CPU)
        answers = model.best_windows(features.summaries)
        return label_loss(answers, features.targets, features.secondary, task.inputs).item()

    assert loss_after(head_first=True) < 0.8 * loss_after(head_first=False)


def test_every_rate_of_phase_two_rises_from_its_first_update(task: Task, tmp_path: Path) -> None:
    model = task.model()
    train = replace(task.config.train, epochs=10, warmup=0.5, layer_decay=0.5)
    loop = prepare_finetuning(model, task.loader, replace(task.config, train=train), Run(tmp_path, 0.0, {}), CPU, "")
    peaks = [group["initial_lr"] for group in loop.optimizer.param_groups]
    assert len(set(peaks)) > 3, "head, layers, stem"
    rising = round(0.5 * 10 * len(task.loader))
    shares = [group["lr"] / peak for group, peak in zip(loop.optimizer.param_groups, peaks, strict=True)]
    assert shares == pytest.approx([1 / rising] * len(peaks))


def words(season: FieldSeason, stages: Stages, root: Path, *more: str) -> list[str]:
    told = ["--preset", "demo", "--data.root", str(season.root), "--data.cache", str(stages.runs / "cache")]
    told += ["--data.most_windows", "1", "--run.root", str(root), "--run.device", "cpu"]
    return [*told, "--train.head_updates", "60", "--train.head_epochs", "2", *more]


def test_a_frozen_run_leaves_the_encoder_alone_and_is_epoch_0(
    few: FieldSeason, stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(few, stages, tmp_path, "--train.frozen", "--encoder.weights", str(stages.encoder))
    assert finetune(parse(FinetuneCommand, given)) == 0
    run = tmp_path / "finetune"
    (line,) = read_records(run)
    assert line["epoch"] == 0 and "cmap" in line and "loss" not in line
    model, facts = load_classifier(run / "classifier.safetensors")
    assert facts.provenance["epoch"] == 0
    begun = load_encoder(EncoderSettings("demo", str(stages.encoder)), AudioSettings())
    assert same(weights_of(model.encoder), weights_of(begun))
    assert "kept the frozen encoder with its head: cmAP" in capsys.readouterr().out
    facts_of_run = json.loads((run / "run.json").read_text())
    assert facts_of_run["status"] == "finished" and not (run / "states").exists()
    assert (run / "thresholds.csv").is_file() and (run / "held_out_scores.csv").is_file()
    trained, _ = load_classifier(stages.classifier)
    assert not same(weights_of(trained.encoder), weights_of(begun))  # negative control: what else is done to it


def test_random_weights_skip_the_head_phase_and_others_do_not(
    season: FieldSeason, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(*_: object) -> float:
        asked.append("head")
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.fit_head", noted)
    monkeypatch.setattr("trainer.prepare_finetuning", noted_loop)
    for weights, expected in (("random", []), (str(stages.encoder), ["head"])):
        asked.clear()
        with pytest.raises(KeyboardInterrupt):
            finetune(parse(FinetuneCommand, words(season, stages, tmp_path, "--encoder.weights", weights)))
        assert asked == expected, weights


def noted_loop(*_: object) -> None:
    raise KeyboardInterrupt


def outcome(root: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    model, _ = load_classifier(root / "finetune-001" / "classifier.safetensors")
    clocks = ("seconds", "windows_per_second", "memory_mb")
    lines = read_records(root / "finetune-001")
    return weights_of(model), [{name: value for name, value in line.items() if name not in clocks} for line in lines]


def test_a_run_cut_off_after_its_head_was_fitted_goes_on_without_fitting_it_again(
    few: FieldSeason, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, in a run of more epochs than were asked for, because it has to make 4 updates."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    more = ["--encoder.weights", str(stages.encoder), "--encoder.depth", "1"]
    more += ["--train.epochs", "1", "--train.updates", "4"]
    assert finetune(parse(FinetuneCommand, words(few, stages, whole, *more))) == 0
    epochs = [line["epoch"] for line in read_records(whole / "finetune-001")]
    assert len(epochs) >= 2 and epochs == list(range(1, len(epochs) + 1))
    done, keep = 0, StateWriter.save_if_due

    def cut_off(writer: StateWriter, progress: object) -> None:
        nonlocal done
        done += 1
        if done == 2:
            writer.save(progress)  # type: ignore[arg-type]
        if done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(StateWriter, "save_if_due", cut_off)
    with pytest.raises(KeyboardInterrupt):
        finetune(parse(FinetuneCommand, words(few, stages, cut, *more)))
    monkeypatch.setattr(StateWriter, "save_if_due", keep)

    def refused(*_: object) -> float:
        raise AssertionError("the head is fitted already")

    monkeypatch.setattr("trainer.fit_head", refused)
    resume = ["--run.resume", str(cut / "finetune-001")]
    assert finetune(parse(FinetuneCommand, words(few, stages, cut, *more, *resume))) == 0
    (mine, lines), (theirs, others) = outcome(cut), outcome(whole)
    assert same(mine, theirs) and lines == others


def test_what_is_kept_lies_between_the_start_and_the_trained_weights(task: Task, tmp_path: Path) -> None:
    model, run, train = task.model(), Run(tmp_path, 0.0, {}), task.config.train
    loop = prepare_finetuning(model, task.loader, task.config, run, CPU, "")
    assert loop.start is not None and loop.kept is not loop.average and train.blend == 0.5
    assert same(weights_of(loop.start), weights_of(model)) and loop.start is not model
    for changed in (replace(train, blend=1.0), replace(train, frozen=True)):
        config = replace(task.config, train=changed)
        other = prepare_finetuning(copy.deepcopy(model), task.loader, config, run, CPU, "")
        assert other.start is None and other.kept is other.average


def test_all_weights_are_trained_on_other_windows_and_mixtures_than_the_head_was_fitted_on(task: Task) -> None:
    model = task.model().eval()
    fitted_on = computed_features(model, task.loader, task.inputs, task.config, CPU).summaries.flatten(1)

    def summaries_of(epoch: int, seed: int) -> Tensor:
        """What the head receives of an epoch as the training loop draws it."""
        set_epoch(task.loader, epoch)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            parts = [
                model.summaries(augmented(batch, model.log_mel, task.config.augment, task.inputs, generator)[1])
                for batch in task.loader
            ]
        return torch.cat(parts).flatten(1)

    first = summaries_of(1, task.config.run.seed)
    assert torch.cdist(fitted_on, first).min() > 1e-2
    again = summaries_of(frozen.OTHER_DRAWS + 1, frozen.OTHER_DRAWS + task.config.run.seed)
    torch.testing.assert_close(again, fitted_on, atol=1e-4, rtol=1e-4)  # negative control: the same draws would be seen


def test_features_are_not_taken_from_another_network_with_weights_of_the_same_names(task: Task) -> None:
    """tf_efficientnet_b0 pads in another way than efficientnet_b0 and has the same tensors: same weights, other
    answers."""

    def key(name: str) -> str:
        encoder = replace(task.config.encoder, kind="timm", name=name, weights="random")
        config = replace(task.config, encoder=encoder, train=replace(task.config.train, blend=1.0))
        return features_key(task.model(), task.loader, task.inputs, config, CPU)

    assert len({key(name) for name in ("efficientnet_b0", "tf_efficientnet_b0", "efficientnet_b0")}) == 2


def test_norms_over_batches_stay_as_they_are_while_features_are_computed(task: Task) -> None:
    picture = PictureSettings("timm", "test_resnet")
    model = BirdClefClassifier(
        picture_encoder(picture, AudioSettings()), AudioSettings(), task.species, task.config.head
    )
    before = weights_of(model.encoder)
    task.fitted(model)
    assert any("running_mean" in name for name in before) and same(weights_of(model.encoder), before)
    model.train()
    model(next(iter(task.loader)).waveforms)  # negative control: while they train, they do not
    assert not same(weights_of(model.encoder), before)
