"""The networks: equal to the library they come from, deaf to neighbours, and with masks that do not leak."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from config import SIZES, AudioSettings, EncoderSize, HeadSettings, Pooling, Preset
from model import (
    BirdClefClassifier,
    Encoder,
    ImitatingAutoencoder,
    Imitator,
    LogMel,
    MaskedAutoencoder,
    Pcen,
    sinusoids,
    token_picture,
    token_values,
    visible_indices,
    whisper_config,
)
from sounds.audio import read_window
from training.checkpoint import with_more_channels
from training.masking import hide_tokens

ANIMALS = Path(__file__).parents[1].parent / "shared" / "animals"
SMALL = EncoderSize(mels=16, width=64, layers=2, heads=4, decoder_layers=1, decoder_width=32, decoder_heads=4)
TOKENS = 40


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SMALL).eval()


def picture(batch: int = 2, tokens: int = TOKENS, mels: int = 16) -> Tensor:
    return torch.randn(batch, mels, 2 * tokens, generator=torch.Generator().manual_seed(1))


def mask(batch: int = 2, tokens: int = TOKENS) -> Tensor:
    return hide_tokens(batch, tokens, 0.65, "span", torch.Generator().manual_seed(2))


def sounds() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(80_000, dtype=torch.float64) / 16_000
    chirp = (torch.sin(2 * torch.pi * (500 + 400 * time) * time) * torch.exp(-((time - 2) ** 2))).float()
    noise = torch.randn(80_000, generator=generator)
    return {"noise": noise, "quiet": 0.01 * noise, "call": chirp + 0.1 * noise, "silence": 0 * noise, "chirp": chirp}


def exactly(sound: Tensor, mels: int) -> Tensor:
    """Whisper's log-mel in double precision, by the library's Fourier transform: (mels, frames)."""
    window = torch.hann_window(400, dtype=torch.float64)
    filters = melscale_fbanks(201, 0.0, 8000.0, mels, 16_000, "slaney", "slaney").double()
    power = torch.stft(sound.double(), 400, 160, window=window, return_complex=True).abs()[:, :-1].square()
    log = (filters.T @ power).clamp(min=1e-10).log10()
    return ((torch.maximum(log, log.max() - 8) + 4) / 4).float()


@pytest.mark.parametrize("name", ["noise", "quiet", "call", "silence"])
@pytest.mark.parametrize("mels", [80, 128])
def test_log_mel_equals_whispers_feature_extractor(mels: int, name: str) -> None:
    extractor = WhisperFeatureExtractor(feature_size=mels, chunk_length=5)
    sound = sounds()[name]
    theirs = extractor(sound.numpy(), sampling_rate=16_000, return_tensors="pt").input_features[0]
    assert theirs.shape == (mels, 500)
    torch.testing.assert_close(LogMel(AudioSettings(), mels)(sound[None])[0], theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mels", [80, 128])
def test_log_mel_is_within_1e_4_of_double_precision_even_for_a_pure_tone_in_silence(mels: int) -> None:
    """There the extractor's own single precision is off by up to 2e-4, in a few of 64,000 values."""
    sound = sounds()["chirp"]
    torch.testing.assert_close(LogMel(AudioSettings(), mels)(sound[None])[0], exactly(sound, mels), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mels", [80, 128])
def test_log_mel_is_within_1e_4_of_double_precision_on_real_recordings(mels: int) -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not here")
    front_end = LogMel(AudioSettings(), mels)
    for path in sorted(ANIMALS.glob("audio/*/*.ogg"))[::25]:
        sound = torch.from_numpy(read_window(path, 0.0, 5.0, 16_000))
        torch.testing.assert_close(front_end(sound[None])[0], exactly(sound, mels), atol=1e-4, rtol=0)


def test_mel_filters_are_those_of_transformers() -> None:
    for mels in (80, 128):
        theirs = torch.from_numpy(WhisperFeatureExtractor(feature_size=mels).mel_filters).float()
        torch.testing.assert_close(LogMel(AudioSettings(), mels).filters, theirs, atol=1e-6, rtol=0)


def test_a_loud_neighbour_does_not_change_a_quiet_window() -> None:
    front_end = LogMel(AudioSettings(), 80)
    quiet, loud = torch.randn(1, 80_000) * 1e-3, torch.randn(1, 80_000)
    torch.testing.assert_close(front_end(torch.cat([quiet, loud]))[:1], front_end(quiet), atol=1e-6, rtol=0)
    log = front_end(torch.cat([quiet, loud])) * 4 - 4  # negative control: a maximum over the batch would change it
    assert not torch.allclose(torch.maximum(log, log.max() - 5)[:1], torch.maximum(log[:1], log[:1].max() - 5))


def test_twenty_decibels_are_half_a_unit() -> None:
    front_end = LogMel(AudioSettings(), 80)
    sound = torch.randn(1, 80_000) * 0.01
    torch.testing.assert_close(
        front_end(10 * sound) - front_end(sound), torch.full((1, 80, 500), 0.5), atol=1e-4, rtol=0
    )


def test_another_sample_rate_or_length_is_refused_with_the_flag_to_change() -> None:
    with pytest.raises(AssertionError, match=r"audio\.sample_rate 22050"):
        LogMel(AudioSettings(sample_rate=22_050), 80)
    with pytest.raises(
        AssertionError, match=r"audio\.context_seconds 5\.013: give multiples of 0\.02, which is a token"
    ):
        Encoder(SMALL, AudioSettings(window_seconds=5.013, context_seconds=5.013))
    with pytest.raises(AssertionError, match=r"--audio\.context_seconds 12\.0: give a multiple of 5"):
        AudioSettings(context_seconds=12.0)
    with pytest.raises(AssertionError, match="waveforms of 79999 samples"):
        LogMel(AudioSettings(), 80)(torch.zeros(1, 79_999))


BAT = AudioSettings(256_000, 0.5, 0.5, hop_seconds=0.0005, fft=512, lowest_hz=10_000, highest_hz=120_000)
WHALE = AudioSettings(1_000, 10.0, 10.0, hop_seconds=0.02, fft=256, lowest_hz=5, highest_hz=500)
MOUSE = AudioSettings(300_000, 0.2, 0.2, hop_seconds=0.0005, fft=4096, lowest_hz=35_000)  # 28 hops are one frame
CNN = AudioSettings(32_000, 5.0, 5.0, hop_seconds=0.016, fft=2048, lowest_hz=20, highest_hz=16_000, mels=128)
GEOMETRIES = {"bat": BAT, "whale": WHALE, "mouse": MOUSE, "cnn": CNN}


def picture_of_before(audio: AudioSettings, mels: int, waveforms: Tensor) -> Tensor:
    """The front end as it was when it knew 16 and 32 kHz alone, line by line."""
    hop, fft, samples = audio.sample_rate // 100, audio.sample_rate // 40, round(5 * audio.sample_rate)
    step = math.log(6.4) / 27
    top = 15 + math.log(8) / step
    extra = round((math.log(audio.sample_rate / 16_000) / step) / (top / (mels + 1)))
    highest = 1000 * math.exp((top + extra * (top / (mels + 1)) - 15) * step)
    half, count = fft // 2, samples // hop
    window = torch.hann_window(fft, dtype=torch.float64)[1 : half + 1, None]
    angle = 2 * math.pi / fft * torch.outer(torch.arange(1, half + 1), torch.arange(half + 1)).double()
    window = window * (16_000 / audio.sample_rate)
    filters = melscale_fbanks(half + 1, 0.0, highest, mels + extra, audio.sample_rate, "slaney", "slaney")
    padded = F.pad(waveforms[:, None], (half, half), mode="reflect")[:, 0]
    hops = padded[:, : (count + 2) * hop].reshape(-1, count + 2, hop)
    frames = torch.cat([hops[:, :count], hops[:, 1 : count + 1], hops[:, 2:, : fft - 2 * hop]], dim=2)
    rising, middle, falling = frames[..., 1:half], frames[..., half : half + 1], frames[..., half + 1 :].flip(-1)
    even = torch.cat([rising + falling, middle], dim=-1) @ (window * angle.cos()).float()
    odd = (rising - falling) @ (window * angle.sin()).float()[:-1]
    log = ((even.square() + odd.square()) @ filters).clamp(min=1e-10).log10()
    floor = log[:, :, :mels].amax(dim=(1, 2), keepdim=True) - 8.0
    return ((torch.maximum(log, floor) + 4.0) / 4.0).transpose(1, 2)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("rate", [16_000, 32_000])
def test_the_picture_at_16_and_32_khz_is_what_it_was_bit_for_bit(rate: int, mels: int) -> None:
    sound = torch.randn(2, 5 * rate, generator=torch.Generator().manual_seed(3)) * torch.tensor([[0.1], [0.003]])
    now = LogMel(AudioSettings(rate), mels)(sound)
    assert torch.equal(now, picture_of_before(AudioSettings(rate), mels, sound))
    if rate == 32_000:  # negative control: the plain picture of that rate is another one, of Whisper's channels alone
        plain = LogMel(AudioSettings(rate, highest_hz=16_000), mels)(sound)
        assert plain.shape[1] == mels < now.shape[1] and not torch.allclose(plain[:, :40], now[:, :40], atol=0.1)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_any_geometry_equals_a_fourier_transform_in_double_precision(name: str) -> None:
    audio = GEOMETRIES[name]
    sound = 0.1 * torch.randn(2, audio.samples, generator=torch.Generator().manual_seed(4))
    front_end = LogMel(audio, 80)
    mels, bins = audio.mels or 80, audio.fft_samples // 2 + 1
    filters = melscale_fbanks(
        bins, audio.lowest_hz, audio.highest_hz or audio.sample_rate / 2, mels, audio.sample_rate, "slaney", "slaney"
    )
    window = torch.hann_window(audio.fft_samples, dtype=torch.float64)
    spectra = torch.stft(sound.double(), audio.fft_samples, audio.hop, window=window, return_complex=True)
    power = (spectra * 400 / audio.fft_samples).abs()[:, :, : audio.frames].square()
    widths = audio.sample_rate / audio.fft_samples / 40
    log = (widths * filters.T.double() @ power).clamp(min=1e-10).log10()
    wanted = ((torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8) + 4) / 4).float()
    assert wanted.shape == (2, mels, audio.frames)
    torch.testing.assert_close(front_end(sound), wanted, atol=1e-4, rtol=0)


def test_frames_of_a_context_that_is_no_whole_number_of_hops_are_those_of_torchaudio() -> None:
    assert (CNN.hop, CNN.fft_samples, CNN.frames) == (512, 2048, 313), "5 s at 32 kHz: 312.5 hops"
    assert LogMel(CNN, 80)(torch.randn(1, 160_000)).shape == (1, 128, 313)
    with pytest.raises(AssertionError, match=r"give multiples of 0\.032, which is a token of two hops of 0\.016 s"):
        Encoder(SMALL, CNN)


def test_a_level_is_as_bright_at_any_geometry() -> None:
    """Hiss of the same power per bin, which is what a channel adds up; negative control: without the scales of window
    and filters the bat's picture would lie a fifth of a unit elsewhere, or three times that."""
    at: dict[str, float] = {}
    for name, audio in {"whisper": AudioSettings(), **GEOMETRIES}.items():
        hiss = torch.randn(1, audio.samples, generator=torch.Generator().manual_seed(5))
        level = 0.01 * math.sqrt(audio.fft_samples / 400)  # the power of a longer transform's bins is less of the whole
        at[name] = float(LogMel(audio, 80)(level * hiss).mean())
    assert max(at.values()) - min(at.values()) < 0.05, at
    bat = LogMel(BAT, 80)
    bat.filters /= BAT.sample_rate / BAT.fft / 40
    unscaled = bat(0.01 * math.sqrt(512 / 400) * torch.randn(1, BAT.samples))
    assert at["bat"] - float(unscaled.mean()) > 0.2


def test_a_bats_sweep_runs_down_its_channels_and_is_nothing_to_a_picture_that_ends_at_8_khz() -> None:
    """From 80 to 40 kHz within 5 ms, 0.2 s after the beginning: ten frames."""
    rate, start, length = 256_000, 51_200, 1_280
    time = torch.arange(length, dtype=torch.float64) / rate
    sweep = torch.sin(2 * torch.pi * (80_000 * time - 40_000 / 0.005 / 2 * time**2)) * torch.hann_window(length)
    sound = 1e-4 * torch.randn(1, BAT.samples, generator=torch.Generator().manual_seed(6))
    sound[0, start : start + length] += 0.1 * sweep.float()
    mel = LogMel(BAT, 80)(sound)[0]
    strongest = mel.amax(dim=0)
    loud = (strongest > strongest.median() + 0.5).nonzero().flatten().tolist()
    assert set(range(402, 409)) <= set(loud) <= set(range(399, 412)), loud

    def channel_of(hertz: float) -> float:  # from 10 to 120 kHz on a logarithmic scale
        return 81 * math.log(hertz / 10_000) / math.log(12) - 1

    for frame in range(402, 409):
        hertz = 80_000 - 40_000 * (frame * BAT.hop - start) / length
        assert abs(int(mel[:, frame].argmax()) - channel_of(hertz)) < 3, frame
    low = torch.from_numpy(soxr.resample(sound[0].numpy(), rate, 16_000, "HQ"))[None]
    audible = LogMel(AudioSettings(16_000, 0.5, 0.5), 80)(low)[0]  # negative control
    assert (audible.amax(dim=0).max() - audible.amax(dim=0).median()) < 0.2


def test_a_whales_moan_is_in_its_channel() -> None:
    time = torch.arange(WHALE.samples) / 1_000
    moan = 0.1 * torch.sin(2 * torch.pi * 100 * time) * (time > 4) * (time < 6)
    mel = LogMel(WHALE, 80)((moan + 1e-3 * torch.randn(time.shape, generator=torch.Generator().manual_seed(7)))[None])[
        0
    ]
    assert mel.shape == (80, 500)
    assert abs(int(mel[:, 250].argmax()) - (81 * (100 - 5) / (500 - 5) - 1)) <= 1, "below 1 kHz the scale is linear"
    assert (mel[:, 205:295].amax(dim=0) - mel[:, :195].amax() > 0.3).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 500}, r"--audio\.sample_rate 500: give 1000 to 500000"),
        ({"sample_rate": 22_050}, r"a hop is 220\.5 samples .* --audio\.hop_seconds 0\.009977324263, or another rate"),
        ({"hop_seconds": 0.0}, r"--audio\.hop_seconds 0: a hop is 0 samples"),
        ({"fft": 401}, r"--audio\.fft 401: give an even number"),
        ({"fft": 32_768}, r"--audio\.fft 32768: give an even number from 4 to 16384"),
        ({"lowest_hz": 9_000.0}, r"--audio\.lowest_hz 9000 --audio\.highest_hz 0: give 0 to 8000, half of"),
        ({"highest_hz": 8_001.0}, r"--audio\.highest_hz 8001: give 0 to 8000"),
        ({"mels": 1_000}, r"--audio\.mels 1000: give 1 to 512"),
        ({"window_seconds": 0.01}, r"--audio\.window_seconds 0\.01: give 0\.02 \(a token\) or more"),
        (
            {"hop_seconds": 0.001},
            r"--audio\.context_seconds 5 is 2,500 tokens of two hops, and 1500 are the most; give 3",
        ),
    ],
)
def test_a_geometry_that_cannot_be_is_refused_in_one_line_that_says_what_to_give(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        AudioSettings(**settings)  # type: ignore[arg-type]


def test_mel_channels_between_two_bins_are_refused_with_the_fft_to_give() -> None:
    short = replace(WHALE, fft=0)
    with pytest.raises(
        AssertionError, match=r"of 80 mel channels .* FFT of 50 samples; give a longer --audio\.fft, such as 100"
    ):
        LogMel(short, 80)


def energies(frames: int = 60, seed: int = 0) -> Tensor:
    return torch.rand(1, 4, frames, generator=torch.Generator().manual_seed(seed)) * 1e-3


def test_pcen_is_the_recursion_it_was_published_as() -> None:
    """Frame by frame in double precision: M(t) = (1 - s) M(t - 1) + s E(t), (E / (e + M)^a + d)^r - d^r."""
    time = 0.4 / 0.01
    share = (math.sqrt(1 + 4 * time**2) - 1) / (2 * time**2)
    power = energies().double() * 2.0**31
    average, wanted = power[..., 0], list[Tensor]()
    for frame in range(power.shape[2]):
        average = (1 - share) * average + share * power[..., frame]
        wanted.append((power[..., frame] / (1e-6 + average) ** 0.98 + 2.0) ** 0.5 - 2.0**0.5)
    found = Pcen(4, 60, 0.01, trained=False)(energies())
    torch.testing.assert_close(found.double(), torch.stack(wanted, dim=2), atol=1e-4, rtol=1e-4)
    slower = Pcen(4, 60, 0.02, trained=False)(energies())  # negative control: another hop is another share
    assert not torch.allclose(slower, found, atol=1e-2)


def test_pcen_makes_steady_noise_of_any_level_alike_and_silence_nothing() -> None:
    front_end = LogMel(AudioSettings(compression="pcen"), 80)
    hiss = torch.randn(1, 80_000, generator=torch.Generator().manual_seed(1))
    loud, soft = front_end(0.1 * hiss), front_end(0.001 * hiss)
    assert (loud.mean() / soft.mean() - 1).abs() < 0.3 and loud.isfinite().all()
    log = LogMel(AudioSettings(), 80)
    assert float(log(0.1 * hiss).mean() - log(0.001 * hiss).mean()) > 0.9  # negative control: four decades of power
    assert front_end(torch.zeros(1, 80_000)).abs().max() < 1e-6
    starts = torch.cat([0.001 * hiss[:, :40_000], 0.1 * hiss[:, :40_000]], dim=1)
    picture = front_end(starts)[0].mean(dim=0)
    assert picture[252:258].mean() > 3 * picture[:240].mean() and picture[480:].mean() < picture[252:258].mean() / 2


def test_only_a_trained_curve_has_weights_and_they_learn() -> None:
    fixed, trained = (LogMel(AudioSettings(compression=kind), 80) for kind in ("pcen", "pcen_trained"))
    assert not fixed.state_dict() and [name for name, _ in trained.named_parameters()] == ["pcen.curve"]
    sound = 0.1 * torch.randn(1, 80_000, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(fixed(sound), trained(sound))
    trained(sound).mean().backward()
    (curve,) = trained.parameters()
    assert curve.grad is not None and bool(curve.grad.isfinite().all() & (curve.grad.abs().amax(dim=(1, 2)) > 0).all())
    trained(torch.zeros(1, 80_000)).mean().backward()
    assert bool(curve.grad.isfinite().all())


def test_pcen_does_not_change_which_channels_there_are() -> None:
    for rate in (16_000, 32_000):
        pictures = [LogMel(AudioSettings(rate, compression=kind), 80) for kind in ("log", "pcen")]
        one, other = (front_end(torch.zeros(1, 5 * rate)) for front_end in pictures)
        assert one.shape == other.shape
    with pytest.raises(AssertionError, match=r"--audio\.compression root: give log, pcen, pcen_trained"):
        AudioSettings(compression="root")  # type: ignore[arg-type]


def test_a_short_context_equals_the_librarys_encoder_built_for_it() -> None:
    encoder = Encoder(SMALL).eval()
    config = whisper_config(SMALL)
    config.max_source_positions = TOKENS
    stock = WhisperEncoder(config).eval()
    weights = {name: t for name, t in encoder.whisper.state_dict().items() if not name.startswith("embed_positions")}
    missing = stock.load_state_dict(weights, strict=False)
    assert missing.missing_keys == [
        "embed_positions.weight"
    ]  # sinusoids of 40 positions: rows 0 to 39 of the full table
    torch.testing.assert_close(encoder(picture()), stock(picture()).last_hidden_state, atol=1e-5, rtol=0)


def test_thirty_seconds_equal_the_librarys_untouched_encoder(encoder: Encoder) -> None:
    long = picture(1, 1500)
    torch.testing.assert_close(encoder(long), encoder.whisper(long).last_hidden_state, atol=0, rtol=0)


def test_padding_to_thirty_seconds_is_something_else(encoder: Encoder) -> None:
    padded = F.pad(picture(), (0, 3000 - 2 * TOKENS))
    assert (encoder(picture()) - encoder(padded)[:, :TOKENS]).abs().max() > 1e-3


def test_a_random_stem_hears_changes_above_the_positions_and_not_the_level() -> None:
    """The library's own random weights leave the sound far below the positions: such an encoder starts out deaf."""
    mel = picture()
    torch.manual_seed(0)
    ours, theirs = Encoder(SMALL).whisper, WhisperEncoder(whisper_config(SMALL))

    def spread(whisper: WhisperEncoder) -> float:
        return F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel)))).std(dim=2).mean().item()

    positions = ours.embed_positions.weight.std(dim=0).mean().item()
    assert spread(theirs) < 0.2 * positions < positions < spread(ours)
    torch.testing.assert_close(ours.conv1(mel + 0.5)[..., 1:-1], ours.conv1(mel)[..., 1:-1], atol=1e-4, rtol=1e-4)


def test_every_size_has_whispers_dimensions() -> None:
    parameters: dict[Preset, float] = {"tiny": 7.63, "base": 19.82, "small": 87.00, "medium": 305.7, "large-v3": 635.0}
    for name, millions in parameters.items():
        with torch.device("meta"):
            whisper = WhisperEncoder(whisper_config(SIZES[name]))
        trained = sum(p.numel() for key, p in whisper.named_parameters() if not key.startswith("embed_positions"))
        assert trained / 1e6 == pytest.approx(millions, rel=2e-3), name


def gradient_of_visible(encoder: Encoder, mel: Tensor, hidden: Tensor) -> Tensor:
    """How much the visible encodings feel each frame: (batch, frames)."""
    mel = mel.clone().requires_grad_(True)
    (encoder(mel, hidden) * torch.randn(1, 1, SMALL.width)).sum().backward()
    assert mel.grad is not None
    return mel.grad.abs().sum(dim=1)


def test_hidden_frames_do_not_leak_into_visible_tokens(encoder: Encoder) -> None:
    hidden = mask()
    felt = gradient_of_visible(encoder, picture(), hidden)
    frames = hidden.repeat_interleave(2, dim=1)
    assert felt[frames].max() == 0.0
    assert felt[~frames].min() > 0.0


class MaskedBehindTheStem(Encoder):
    """The negative control: hidden tokens are dropped after the convolutions, whose kernels have already mixed them."""

    def forward(self, mel: Tensor, hidden: Tensor | None = None) -> Tensor:
        assert hidden is not None
        whisper = self.whisper
        states = F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel)))).transpose(1, 2)
        states = states + whisper.embed_positions.weight[: states.shape[1]]
        states = states.gather(1, visible_indices(hidden)[..., None].expand(-1, -1, states.shape[2]))
        for layer in whisper.layers:
            states = layer(states, None)
        tokens: Tensor = whisper.layer_norm(states)
        return tokens


def test_masking_behind_the_stem_leaks_as_much_as_the_formula_says() -> None:
    torch.manual_seed(0)
    leaky = MaskedBehindTheStem(SMALL).eval()
    hidden = hide_tokens(8, 400, 0.5, "random", torch.Generator().manual_seed(0))
    felt = gradient_of_visible(leaky, picture(8, 400), hidden)
    leaking = float((felt[hidden.repeat_interleave(2, dim=1)] > 0).float().mean())
    ratio = 0.5
    assert leaking == pytest.approx(((1 - ratio**2) + (1 - ratio)) / 2, abs=0.03)


def test_a_token_feels_five_frames(encoder: Encoder) -> None:
    hidden = torch.ones(1, TOKENS, dtype=torch.bool)
    hidden[0, 10:13] = False  # three visible tokens, the middle one with both neighbours
    mel = picture(1).requires_grad_(True)
    stem = F.gelu(encoder.whisper.conv2(F.gelu(encoder.whisper.conv1(mel))))
    torch.autograd.backward(stem[0, :, 11].sum())
    assert mel.grad is not None
    assert mel.grad.abs().sum(dim=(0, 1)).nonzero()[:, 0].tolist() == [20, 21, 22, 23, 24]


def test_a_visible_run_sounds_like_a_recording_of_its_own(encoder: Encoder) -> None:
    hidden = torch.ones(1, TOKENS, dtype=torch.bool)
    hidden[0, 8:20] = False
    mel = picture(1)
    whisper = encoder.whisper
    audible = (~hidden).repeat_interleave(2, dim=1)[:, None]
    alone = F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel[:, :, 16:40]))))
    within = F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel * audible)) * audible))[:, :, 8:20]
    without_zeroing = F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel * audible))))[:, :, 8:20]
    torch.testing.assert_close(within, alone, atol=1e-6, rtol=0)
    assert (without_zeroing - alone).abs().max() > 1e-4  # the second mask is needed


def test_leaving_tokens_out_equals_hiding_them_from_attention(encoder: Encoder) -> None:
    hidden, mel = mask(), picture()
    whisper = encoder.whisper
    audible = (~hidden).repeat_interleave(2, dim=1)[:, None].float()
    states = F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel * audible)) * audible)).transpose(1, 2)
    states = states + whisper.embed_positions.weight[:TOKENS]
    unseen = torch.zeros(len(mel), 1, TOKENS, TOKENS).masked_fill(hidden[:, None, None], float("-inf"))
    for layer in whisper.layers:
        states = layer(states, unseen)
    full = whisper.layer_norm(states)[~hidden].reshape(len(mel), -1, SMALL.width)
    torch.testing.assert_close(encoder(mel, hidden), full, atol=1e-5, rtol=0)
    leaky = encoder(mel * audible)[~hidden].reshape(len(mel), -1, SMALL.width)
    assert (encoder(mel, hidden) - leaky).abs().max() > 1e-3  # negative control: hidden tokens left as keys


def test_nothing_hidden_is_the_plain_encoder(encoder: Encoder) -> None:
    nothing = torch.zeros(2, TOKENS, dtype=torch.bool)
    assert torch.equal(encoder(picture(), nothing), encoder(picture()))


def test_visible_indices_are_sorted_and_complete() -> None:
    hidden = mask()
    for row, keep in zip(hidden, visible_indices(hidden), strict=True):
        assert keep.tolist() == (~row).nonzero()[:, 0].tolist()


def test_the_decoder_gets_each_visible_token_back_at_its_place() -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(Encoder(SMALL)).eval()
    seen: list[Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    hidden, mel = mask(), picture()
    assert model(mel, hidden).shape == (2, TOKENS, 2 * SMALL.mels)
    tokens = model.project(model.encoder(mel, hidden))
    placed = seen[0] - model.positions[:TOKENS]
    torch.testing.assert_close(placed[~hidden], tokens.flatten(0, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(placed[hidden], model.mask_token.expand(int(hidden.sum()), -1), atol=1e-6, rtol=0)


def test_visible_tokens_in_another_order_are_encoded_in_that_order(encoder: Encoder) -> None:
    states = torch.randn(2, 14, SMALL.width)
    order = torch.randperm(14)

    def layers(tokens: Tensor) -> Tensor:
        for layer in encoder.whisper.layers:
            tokens = layer(tokens, None)
        return tokens

    torch.testing.assert_close(layers(states)[:, order], layers(states[:, order]), atol=1e-5, rtol=0)
    places = encoder.whisper.embed_positions.weight[:14]  # negative control: positions that come after the choice
    assert (layers(states + places)[:, order] - layers(states[:, order] + places)).abs().max() > 1e-2


def test_checkpointing_changes_neither_loss_nor_gradients() -> None:
    gradients: list[list[Tensor]] = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = MaskedAutoencoder(Encoder(SMALL))
        model.encoder.checkpointing = checkpointing
        torch.autograd.backward(model(picture(), mask()).square().mean())
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 30
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def felt_by_distance(model: MaskedAutoencoder, hidden: Tensor, tokens: Tensor) -> float:
    """How much hidden places feel the visible tokens within 8 places, over how much they feel those beyond 24."""
    keep, near, far = visible_indices(hidden), 0.0, 0.0
    for place in [n for n in range(hidden.shape[1]) if bool(hidden[0, n])][5:-5:6]:
        seen = tokens.clone().requires_grad_(True)
        states = model.mask_token.expand(*hidden.shape, -1).scatter(1, keep[..., None].expand_as(seen), seen)
        output = model.layers[0](states + model.positions[: hidden.shape[1]], src_key_padding_mask=hidden)
        torch.autograd.backward(output[0, place].square().sum())
        assert seen.grad is not None
        distance = (keep[0] - place).abs()
        near += float(seen.grad[0, distance <= 8].abs().sum())
        far += float(seen.grad[0, distance > 24].abs().sum())
    return near / far


def test_the_decoder_begins_by_looking_at_what_is_near() -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(Encoder(SIZES["demo"])).eval()
    hidden = mask(1, 250)
    tokens = model.project(model.encoder(picture(1, 250, 80), hidden)).detach()
    assert felt_by_distance(model, hidden, tokens) > 0.5
    attention = model.layers[0].self_attn
    assert isinstance(attention, nn.MultiheadAttention)
    nn.init.xavier_uniform_(attention.in_proj_weight)  # negative control: the library's start looks anywhere
    nn.init.xavier_uniform_(attention.out_proj.weight)
    assert felt_by_distance(model, hidden, tokens) < 0.2


def test_the_decoder_looks_at_visible_tokens_alone() -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(Encoder(SMALL)).eval()
    hidden, layer = mask(1), model.layers[0]
    states = torch.randn(1, TOKENS, SMALL.decoder_width)
    place = int(hidden[0].nonzero()[10, 0])
    others = states.clone()
    others[0, hidden[0] & (torch.arange(TOKENS) != place)] += torch.randn(SMALL.decoder_width)
    kept = layer(states, src_key_padding_mask=hidden)[0, place]
    torch.testing.assert_close(layer(others, src_key_padding_mask=hidden)[0, place], kept, atol=1e-6, rtol=0)
    assert (layer(others)[0, place] - layer(states)[0, place]).abs().max() > 1e-3  # negative control: all are keys


WIDE = AudioSettings(sample_rate=32_000)


@pytest.mark.parametrize(("mels", "channels"), [(80, 98), (128, 157)])
def test_the_wide_band_adds_channels_of_the_same_spacing(mels: int, channels: int) -> None:
    narrow, wide = LogMel(AudioSettings(), mels), LogMel(WIDE, mels)
    assert narrow.filters.shape == (201, mels) and wide.filters.shape == (401, channels)
    torch.testing.assert_close(wide.filters[:201, :mels], narrow.filters, atol=1e-6, rtol=0)
    assert bool((wide.filters.sum(dim=0) > 0).all()), "a filter that hears nothing"
    assert wide.filters[:, mels:].argmax(dim=0).min() >= 195, "what is added lies above 7.8 kHz"


def both_rates() -> tuple[Tensor, Tensor]:
    """The same sound below 7 kHz at 16 and at 32 kHz."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.zeros(80_001, dtype=torch.complex64)
    spectrum[1_000:35_000] = torch.randn(34_000, dtype=torch.complex64, generator=generator)  # 200 to 7,000 Hz
    high = torch.zeros(1, 160_000)
    high[0] = 10 * torch.fft.irfft(spectrum)
    return high[:, ::2].contiguous(), high


def test_the_low_bands_are_the_same_at_both_rates() -> None:
    low, high = both_rates()
    narrow, wide = LogMel(AudioSettings(), 80)(low), LogMel(WIDE, 80)(high)
    assert narrow.shape == (1, 80, 500) and wide.shape == (1, 98, 500)
    difference = (narrow[:, :75] - wide[:, :75]).abs()  # above 7 kHz there is only the floor
    assert difference.mean() < 1e-3


def test_a_loud_cicada_does_not_push_a_bird_into_the_floor() -> None:
    _, bird = both_rates()
    time = torch.arange(160_000, dtype=torch.float64) / 32_000
    cicada = (300.0 * torch.sin(2 * torch.pi * 12_000 * time)).float()[None]
    front_end = LogMel(WIDE, 80)
    alone, both = front_end(bird), front_end(bird + cicada)
    assert (alone - both)[:, 15:70, 2:-2].abs().mean() < 1e-2
    assert both[:, 90].mean() > alone[:, 90].mean() + 0.5, "the cicada itself is heard"
    log = both * 4 - 4  # negative control: with the maximum over all bands, most of the bird would be floor
    assert (log[:, 15:70] < log.amax() - 8).float().mean() > 0.5


def test_a_widened_encoder_begins_as_the_one_it_came_from() -> None:
    narrow, wide = Encoder(SMALL).eval(), Encoder(SMALL, WIDE).eval()
    added = wide.channels - SMALL.mels
    assert added > 0 and bool((wide.whisper.conv1.weight[:, SMALL.mels :] == 0).all()), "a random start is deaf to them"
    wide.whisper.load_state_dict(with_more_channels(dict(narrow.whisper.state_dict()), wide.channels))
    mel = picture()
    more = torch.cat([mel, torch.randn(2, added, 2 * TOKENS)], dim=1)
    torch.testing.assert_close(wide(more), narrow(mel), atol=1e-5, rtol=0)
    torch.autograd.backward(wide(more).square().mean())
    gradient = wide.whisper.conv1.weight.grad
    assert gradient is not None and bool((gradient[:, SMALL.mels :].abs().sum(dim=(0, 2)) > 0).all())


def test_what_is_painted_at_a_hidden_place_does_not_depend_on_what_is_there() -> None:
    torch.manual_seed(0)
    model = MaskedAutoencoder(Encoder(SMALL)).eval()
    hidden, mel = mask(), picture()
    other = torch.where(hidden.repeat_interleave(2, dim=1)[:, None], torch.randn_like(mel), mel)
    assert torch.equal(model(mel, hidden), model(other, hidden))


def test_token_values_go_there_and_back() -> None:
    mel = picture()
    assert torch.equal(token_picture(token_values(mel)), mel)
    assert torch.equal(token_values(mel)[0, 3], torch.cat([mel[0, :, 6], mel[0, :, 7]]))


def test_the_position_table_is_whispers_and_does_not_learn(encoder: Encoder) -> None:
    table = encoder.whisper.embed_positions.weight
    torch.testing.assert_close(table.detach(), sinusoids(1500, SMALL.width), atol=1e-4, rtol=0)
    assert not table.requires_grad


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("audio", [AudioSettings(), AudioSettings(32_000)])
def test_a_batch_scores_as_one_by_one(pooling: Pooling, audio: AudioSettings) -> None:
    model = classifier(audio, HeadSettings(pooling))
    waveforms = torch.randn(3, 5 * audio.sample_rate) * torch.tensor([[1.0], [0.01], [0.1]])
    alone = torch.cat([model(waveform[None]) for waveform in waveforms])
    torch.testing.assert_close(model(waveforms), alone, atol=1e-5, rtol=1e-5)
    assert model(waveforms).dtype == torch.float32 and model(waveforms).std(dim=0).min() > 1e-3


def classifier(audio: AudioSettings, head: HeadSettings) -> BirdClefClassifier:
    """One whose head says something."""
    torch.manual_seed(0)
    model = BirdClefClassifier(Encoder(SIZES["demo"], audio), audio, 7, head).eval()
    nn.init.normal_(model.head.score.weight, std=0.1)
    return model


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_a_context_of_one_window_is_a_window_and_a_longer_one_answers_for_each(pooling: Pooling) -> None:
    long = AudioSettings(context_seconds=15.0)
    model = classifier(long, HeadSettings(pooling))
    waveforms = torch.randn(2, 240_000) * 0.1
    logits, embeddings = model.answers(waveforms)
    assert logits.shape == (6, 7) and embeddings.shape == (6, 96)
    mel = model.log_mel(waveforms)
    states = [state[1:, 250:500] for state in model.encoder.layer_states(mel)]
    by_hand = model.head(model.head.summary(states, mel[1:, :, 500:1000]))
    torch.testing.assert_close(logits[4:5], by_hand)
    normal = [F.layer_norm(state, (96,)).mean(dim=1) for state in states]
    torch.testing.assert_close(embeddings[4], torch.stack(normal).mean(dim=0)[0])
    best = logits.unflatten(0, (2, 3)).amax(dim=1)  # training hears each context's best window
    torch.testing.assert_close(model.context_logits(mel), best)
    torch.testing.assert_close(model.best_windows(model.summaries(mel)), best)
    short = classifier(AudioSettings(), HeadSettings(pooling))
    short.encoder, short.head = model.encoder, model.head
    heard = waveforms[:, :80_000]
    torch.testing.assert_close(short.context_logits(short.log_mel(heard)), short(heard))
    changed = waveforms.clone()
    changed[:, 160_000:] = 0.0  # the first window hears the third through the encoder, that is what a context is for
    assert not torch.allclose(model(changed)[0], logits[0], atol=1e-4)
    assert torch.equal(short(changed[:, :80_000]), short(waveforms[:, :80_000]))


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_the_best_moment_of_a_context_is_found_wherever_it_is(pooling: Pooling) -> None:
    audio = AudioSettings(context_seconds=10.0)
    model = classifier(audio, HeadSettings(pooling))
    mel = model.log_mel(torch.randn(2, 160_000) * 0.1)
    best, moment = model.context_and_moment_logits(mel)
    torch.testing.assert_close(best, model.context_logits(mel))
    moments = model.head.moments(*model.window_states(mel))
    assert moments.shape == (4, {"pooled": 10, "attention": 250}[pooling], 7)
    torch.testing.assert_close(moment[1], moments[2:].amax(dim=(0, 1)))


def test_only_the_layers_asked_for_reach_the_head_and_all_where_there_are_fewer() -> None:
    model = classifier(AudioSettings(), HeadSettings(layers=2))
    mel = model.log_mel(torch.randn(2, 80_000))
    every = model.encoder.layer_states(mel)
    states, _ = model.window_states(mel)
    assert model.layers == (2, 3) and all(torch.equal(one, every[n - 1]) for n, one in zip((2, 3), states, strict=True))
    assert classifier(AudioSettings(), HeadSettings(layers=6)).layers == (1, 2, 3)


def test_what_was_fitted_after_training_divides_what_is_served_and_not_what_is_trained() -> None:
    model = classifier(AudioSettings(), HeadSettings())
    waveforms = torch.randn(2, 80_000)
    logits, mel = model(waveforms), model.log_mel(waveforms)
    model.temperature.fill_(2.0)
    torch.testing.assert_close(model(waveforms), logits / 2)
    torch.testing.assert_close(model.context_logits(mel), logits)


def test_the_band_above_8_khz_reaches_the_head_though_the_encoder_is_deaf_to_it() -> None:
    wide = AudioSettings(32_000)
    model = classifier(wide, HeadSettings())
    mel = torch.randn(1, model.encoder.channels, 500)
    cicada = mel.clone()
    cicada[:, 80:, 100:200] += 2.0
    (states, _), (others, _) = model.window_states(mel), model.window_states(cicada)
    assert all(torch.equal(one, other) for one, other in zip(states, others, strict=True))
    assert (model.context_logits(mel) - model.context_logits(cicada)).abs().max() > 0.05


def small_imitation() -> tuple[ImitatingAutoencoder, Tensor, Tensor, Tensor]:
    """A student beside the mask, and a batch: pictures, what is hidden, what belongs to the teacher's window."""
    torch.manual_seed(0)
    model = ImitatingAutoencoder(Encoder(EncoderSize(16, 32, 3, 2, 1, 16, 2)), 5).eval()
    mel = torch.randn(2, 16, 80, requires_grad=True)
    hidden = torch.arange(40).expand(2, -1) % 3 == 0
    inside = (torch.arange(40) >= 10) & (torch.arange(40) < 25)
    return model, mel, hidden, inside.expand(2, -1)


def test_an_imitation_is_of_the_tokens_inside_alone() -> None:
    model, _, _, inside = small_imitation()
    states = [torch.randn(2, 40, 32) for _ in range(3)]
    answer = model.imitation(states, inside)
    outside = [torch.where(inside[..., None], state, 7.0) for state in states]
    within = [torch.where(inside[..., None], 7.0 + state.flip(1), state) for state in states]
    assert answer.shape == (2, 5) and torch.equal(model.imitation(outside, inside), answer)
    assert not torch.allclose(model.imitation(within, inside), answer)  # negative control


def test_beside_the_mask_the_student_imitates_from_what_is_visible() -> None:
    model, mel, hidden, inside = small_imitation()
    reconstruction, vectors = model.both(mel, hidden, inside)
    assert torch.equal(reconstruction, model(mel, hidden)) and vectors.shape == (2, 5)
    (gradient,) = torch.autograd.grad(vectors.square().sum(), mel)
    covered = hidden.repeat_interleave(2, dim=1)[:, None].expand_as(gradient)
    assert bool((gradient[covered] == 0).all()) and bool((gradient[~covered] != 0).any())
    (whole,) = torch.autograd.grad(Imitator(model.encoder, 5)(mel, inside).square().sum(), mel)
    assert bool((whole[covered] != 0).any())  # negative control


def test_a_window_of_which_nothing_is_visible_is_imitated_from_the_rest() -> None:
    model, mel, _, inside = small_imitation()
    assert bool(model.both(mel, inside, inside)[1].isfinite().all())
