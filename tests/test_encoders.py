"""Encoders of other kinds: one token is of one time, cepstra are those of the library, one channel is enough."""

import math

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import compute_deltas, create_dct

from config import AudioSettings, FinetuneCommand, FrequencyPooling, HeadSettings, PictureSettings, parse
from encoders import COEFFICIENTS, AudioViT, Cepstra, PictureEncoder, TimmNetwork
from heads import build_head
from model import BirdClefClassifier, picture_encoder

SHORT = AudioSettings(window_seconds=1.0, context_seconds=1.0)
KINDS = {
    "cnn": PictureSettings("cnn"),
    "vit": PictureSettings("vit", frequency="gem"),
    "timm": PictureSettings("timm", "test_efficientnet"),
    "normalised weights": PictureSettings("timm", "test_nfnet", "gem"),
    "channels last": PictureSettings("timm", "test_convnext"),
}


def mel(rows: int = 128, frames: int = 100, seed: int = 0) -> Tensor:
    return torch.randn(2, rows, frames, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", KINDS)
def test_any_kind_gives_tokens_that_no_neighbour_changes(name: str) -> None:
    encoder = picture_encoder(KINDS[name], SHORT).eval()
    (tokens,) = encoder.layer_states(mel())
    assert tokens.ndim == 3 and tokens.shape[2] == encoder.width and tokens.shape[1] > 1
    torch.testing.assert_close(encoder(mel()[:1]), tokens[:1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoder(mel(seed=1)), tokens, atol=1e-3)
    if name in ("cnn", "timm"):  # negative control: while it trains, the norms are over the batch
        assert not torch.allclose(encoder.train()(mel()[:1]), tokens[:1], atol=1e-3)


@pytest.mark.parametrize("name", ["cnn", "timm"])
def test_what_happens_at_the_end_of_a_window_is_in_its_last_tokens(name: str) -> None:
    audio = AudioSettings()
    encoder = picture_encoder(KINDS[name], audio).eval()
    quiet, loud = torch.zeros(1, 128, 500), torch.zeros(1, 128, 500)
    loud[:, :, 460:480] = 2.0
    change = (encoder(loud) - encoder(quiet)).abs().sum(dim=2)[0]
    assert int(change.argmax()) >= round(0.85 * len(change)), change


def test_every_window_of_a_context_has_as_many_tokens() -> None:
    audio = AudioSettings(window_seconds=1.0, context_seconds=3.0)
    encoder = picture_encoder(KINDS["timm"], audio).eval()
    tokens = encoder(mel(frames=300))
    assert tokens.shape[1] % 3 == 0 and encoder.between is not None
    assert torch.allclose(encoder.between.sum(dim=1), torch.ones(tokens.shape[1])), "between tokens, not beyond"
    model = BirdClefClassifier(encoder, audio, 4, HeadSettings()).eval()
    logits, embeddings = model.answers(0.1 * torch.randn(2, 48_000))
    assert logits.shape == (6, 4) and embeddings.shape == (6, encoder.width)
    with pytest.raises(
        AssertionError, match=r"has 125 frames, no multiple of its 2 windows; give --audio\.context_seconds"
    ):
        picture_encoder(KINDS["timm"], AudioSettings(32_000, 1.0, 2.0, hop_seconds=0.016))


@pytest.mark.parametrize("pooling", ["pooled", "attention"])
def test_both_heads_answer_for_moments_of_long_tokens(pooling: str) -> None:
    tokens, picture = torch.randn(2, 16, 24), torch.randn(2, 128, 500)  # of 0.31 s
    head = build_head(24, 1, 0, 3, HeadSettings("attention" if pooling == "attention" else "pooled")).eval()
    assert head.moments([tokens], picture).shape == (2, 8 if pooling == "pooled" else 16, 3)


def test_cepstra_and_deltas_are_those_of_torchaudio() -> None:
    found = Cepstra(128)(mel())
    wanted = create_dct(COEFFICIENTS, 128, "ortho").T @ mel()
    torch.testing.assert_close(found[:, 0], wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 1], compute_deltas(wanted), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[:, 1], compute_deltas(wanted, win_length=3), atol=1e-2)  # negative control
    with pytest.raises(AssertionError, match=r"--audio\.mels 20: 40 cepstral coefficients"):
        Cepstra(20)


@pytest.mark.parametrize("frequency", ["average_max", "gem"])
def test_frequencies_are_pooled_as_the_flag_says(frequency: FrequencyPooling) -> None:
    encoder = PictureEncoder(PictureSettings("cnn", frequency=frequency), SHORT, 128)
    found = mel(6, 4)[:, None].abs() + 0.1
    if encoder.power is None:
        torch.testing.assert_close(encoder.pooled(found), found.mean(dim=2) + found.amax(dim=2))
        return
    for power, wanted in ((1.0, found.mean(dim=2)), (3.0, found.pow(3).mean(dim=2).pow(1 / 3))):
        encoder.power.data.fill_(power)
        torch.testing.assert_close(encoder.pooled(found), wanted)
    encoder.power.data.fill_(60.0)
    torch.testing.assert_close(encoder.pooled(found), found.amax(dim=2), atol=0.1, rtol=0.05)


def test_the_power_of_gem_learns() -> None:
    encoder = picture_encoder(KINDS["vit"], SHORT)
    assert encoder.power is not None
    encoder(mel()).square().mean().backward()
    assert encoder.power.grad is not None and float(encoder.power.grad.abs()) > 0


def test_a_picture_is_standardised_before_the_network_sees_it() -> None:
    encoder = picture_encoder(KINDS["timm"], SHORT).eval()
    before = encoder(mel())
    encoder.mean.fill_(3.0)
    encoder.deviation.fill_(2.0)
    torch.testing.assert_close(encoder(2.0 * mel() + 3.0), before, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoder(mel()), before, atol=1e-3)


def test_a_network_of_timms_sees_one_channel_and_has_no_classifier() -> None:
    network = TimmNetwork("test_efficientnet")
    assert network.body.get_parameter("conv_stem.weight").shape[1] == 1
    assert not any("classifier" in name for name in network.state_dict())
    whole = timm.create_model("test_efficientnet")
    assert any("classifier" in name for name in whole.state_dict())  # negative control


NAMED = {"tf_efficientnetv2_s.in21k_ft_in1k": (2_048, 1_280), "eca_nfnet_l0.ra2_in1k": (1_024, 2_304)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_the_networks_that_are_named_take_a_step_at_their_geometry(name: str) -> None:
    fft, width = NAMED[name]
    audio = AudioSettings(32_000, hop_seconds=0.016, fft=fft, lowest_hz=20, highest_hz=16_000, mels=128)
    torch.manual_seed(0)
    encoder = picture_encoder(PictureSettings("timm", name), audio)
    model = BirdClefClassifier(encoder, audio, 3, HeadSettings("attention"))
    assert (encoder.width, audio.frames) == (width, 313)
    optimizer, sound, due = torch.optim.AdamW(model.parameters(), 1e-3), torch.randn(2, 160_000), torch.eye(3)[:2]
    before = {key: value.clone() for key, value in model.named_parameters()}
    loss = F.binary_cross_entropy_with_logits(model(sound), due)
    loss.backward()
    optimizer.step()
    gradients = [value.grad for value in model.parameters()]
    assert math.isfinite(float(loss)) and all(one is not None and bool(one.isfinite().all()) for one in gradients)
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    ends = {key for key in before if ("stem" in key and key.endswith("weight")) or key.startswith("head.score.")}
    assert len(ends) >= 3 and ends <= moved, ends - moved  # inside, branches of a network without norms begin at 0
    again = F.binary_cross_entropy_with_logits(model(sound), due)
    assert float(again) < float(loss)


def test_positions_of_a_transformer_cover_a_window_that_no_patch_ends_with() -> None:
    network = AudioViT(COEFFICIENTS, 313).eval()
    found = network(torch.randn(1, 2, COEFFICIENTS, 313))
    assert found.shape == (1, 192, 5, 32) and network.missing == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5000", r"knows no network 'resnet5000'; .*\(--encoder\.name\)"),
        ("resnet50.nobodys_weights", r"knows no network 'resnet50\.nobodys_weights'"),
        ("hf-hub:somebody/something", "knows no network"),
        ("inception_next_atto", r"timm's inception_next_atto does not do without its .*; take another network \(--enc"),
        ("test_vit", r"test_vit takes pictures of one size; take a convolutional network, or --encoder\.kind vit"),
    ],
)
def test_a_name_that_is_no_such_network_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        TimmNetwork(name)


@pytest.mark.parametrize(
    ("settings", "rows", "frames", "message"),
    [
        (
            PictureSettings("timm", "dla34"),
            128,
            500,
            r"--encoder\.kind timm dla34 takes no picture of 128 .* 500 frames",
        ),
        (PictureSettings("timm", "naflexvit_base_patch16_gap"), 128, 100, r"frames \(.*\); take another network"),
        (
            PictureSettings("cnn"),
            128,
            10,
            r"10 frames: --encoder\.kind cnn halves them 4 times and needs 16; give a long",
        ),
        (PictureSettings("cnn"), 20, 100, r"--audio\.mels 20: 40 cepstral coefficients need as many; give 40 or more"),
    ],
)
def test_a_picture_that_a_network_cannot_take_is_refused_in_one_line(
    settings: PictureSettings, rows: int, frames: int, message: str
) -> None:
    audio = AudioSettings(window_seconds=frames / 100, context_seconds=frames / 100)
    with pytest.raises(AssertionError, match=message) as caught:
        PictureEncoder(settings, audio, rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--encoder.kind", "cnn", "--encoder.name", "resnet50"],
            r"--encoder\.name resnet50 is for --encoder\.kind timm",
        ),
        (["--encoder.kind", "timm", "--encoder.name", ""], r"--encoder\.kind timm needs --encoder\.name"),
        (["--encoder.kind", "vit", "--encoder.depth", "2"], r"--encoder\.depth keeps layers of Whisper"),
        (["--encoder.kind", "cnn", "--train.shard"], r"--train\.shard True is for Whisper's encoder"),
        (["--encoder.kind", "cnn", "--train.blend", "0.5"], r"--train\.blend 0\.5 is for Whisper's encoder"),
        (
            ["--encoder.kind", "cnn", "--train.layer_decay", "0.8"],
            r"--train\.layer_decay 0\.8 is for Whisper's encoder",
        ),
        (["--encoder.kind", "vit", "--head.layers", "3"], r"--head\.layers 3: --encoder\.kind vit gives one layer"),
        (["--train.frozen", "--train.swa", "0.25"], r"--swa changes nothing with --train\.frozen"),
        (
            ["--train.swa", "0.25", "--train.patience", "2", "--train.choose", "cmap"],
            r"--train\.patience may end the training before --train\.swa begins",
        ),
        (["--encoder.frequency", "gem"], r"--encoder\.frequency changes nothing of Whisper"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises((AssertionError, SystemExit), match=message):
        parse(FinetuneCommand, ["--preset", "demo", *flags])


def test_the_kind_brings_its_own_defaults_and_whisper_keeps_its() -> None:
    usual = parse(FinetuneCommand, [])
    assert (usual.encoder.kind, usual.encoder.weights, usual.train.blend) == ("whisper", "openai/whisper-base", 0.5)
    other = parse(FinetuneCommand, ["--encoder.kind", "timm"])
    assert (other.encoder.name, other.encoder.weights) == ("tf_efficientnetv2_s.in21k_ft_in1k", "hub")
    assert other.train.blend == 1.0 and other.train.head_first("hub") and other.encoder.picture is not None
    small = parse(FinetuneCommand, ["--encoder.kind=cnn", "--sound", "wide"])
    assert small.encoder.weights == "random" and small.audio.sample_rate == 32_000 and not math.isnan(small.train.ema)
