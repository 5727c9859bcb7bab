"""Every setting of the commands: its name, meaning, type and default; the only reader of the command line.

    config = parse(FinetuneCommand)            # python main.py --preset tiny --data.root data/birdclef-2025

A preset is a whole set of defaults, one for each encoder size; any flag given beside it wins. Facts about a trained
model (its labels, its sample rate, its window) are no settings: they travel inside its file.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, get_args

import tyro

from system import scratch_folder

Sound = Literal["bird", "wide", "bat", "insect", "frog", "whale"]
Preset = Literal["demo", "tiny", "base", "small", "medium", "large-v2", "large-v3"]
Layout = Literal["auto", "birdclef", "folders", "inaturalist", "xeno-canto", "annotations", "unlabeled"]
Pooling = Literal["pooled", "attention"]
LossKind = Literal["bce", "ce", "focal", "asymmetric", "soft_auc"]
Precision = Literal["auto", "float32", "bfloat16"]
PseudoPlace = Literal["added", "taken"]
Strategy = Literal["even", "top", "random", "all"]
MaskStrategy = Literal["span", "random", "block", "energy"]
Period = Literal["hour", "day", "week"]
Exchange = Literal["camtrap-dp", "darwin-core", "crowsetta", "aoef"]
ClassWeights = Literal["none", "inverse", "balanced", "sqrt"]
EncoderKind = Literal["whisper", "timm", "cnn", "vit"]
FrequencyPooling = Literal["average_max", "gem"]
Compression = Literal["log", "pcen", "pcen_trained"]
Voices = Literal["off", "report", "skip", "mute"]
TrackerKind = Literal["none", "tensorboard", "wandb"]
SCRATCH = scratch_folder()
DEMO_DATA = SCRATCH / "field-season"
DATA_ROOT = Path("data/birdclef-2025")
LOWEST_RATE, HIGHEST_RATE = 1_000, 500_000  # Hz that a network may get
WIDE_RATE = 32_000  # Hz, of Whisper's picture with the band above 8 kHz added
MOST_FRAMES = 3_000  # of a context: Whisper's 30 s, for which its table of positions was made
LONGEST_FFT = 16_384  # samples
PRESETS: tuple[Preset, ...] = ("demo", "tiny", "base", "small", "medium", "large-v2", "large-v3")


@dataclass(frozen=True)
class EncoderSize:
    """Dimensions of a Whisper encoder and of the decoder that stage 1 puts behind it for a while."""

    mels: int
    width: int
    layers: int
    heads: int
    decoder_layers: int
    decoder_width: int
    decoder_heads: int
    pool: int = 1  # neighbouring tokens that become one behind the stem


# https://github.com/openai/whisper/blob/main/model-card.md; demo is ours, for a laptop and for the tests.
SIZES: dict[Preset, EncoderSize] = {
    "demo": EncoderSize(80, 96, 3, 4, 1, 96, 4),
    "tiny": EncoderSize(80, 384, 4, 6, 2, 256, 4),
    "base": EncoderSize(80, 512, 6, 8, 2, 256, 4),
    "small": EncoderSize(80, 768, 12, 12, 4, 384, 6),
    "medium": EncoderSize(80, 1024, 24, 16, 4, 512, 8),
    "large-v2": EncoderSize(80, 1280, 32, 20, 4, 512, 8),  # the first large one too
    "large-v3": EncoderSize(128, 1280, 32, 20, 4, 512, 8),
}


def encoder_size(size: Preset, depth: int = 0, pool: int = 1) -> EncoderSize:
    """The dimensions of an encoder of which only the lowest `depth` layers are kept, or all of them for 0.

    pool   neighbouring tokens that become one behind the stem
    """
    whole = SIZES[size]
    assert 0 <= depth <= whole.layers, (
        f"--encoder.depth {depth}: Whisper {size} has {whole.layers} layers; give 1 to {whole.layers}, or 0 for all"
    )
    return replace(whole, layers=depth or whole.layers, pool=pool)


def size_in_words(size: Preset, layers: int, pool: int = 1) -> str:
    """base; or `base, the lowest 3 of 6 layers, every 2 tokens pooled` where not all are kept."""
    kept = "" if layers == SIZES[size].layers else f", the lowest {layers} of {SIZES[size].layers} layers"
    return size + kept + (f", every {pool} tokens pooled" if pool > 1 else "")


def encoder_in_words(size: Preset, layers: int, pool: int, picture: PictureSettings | None) -> str:
    """The same of an encoder of any kind."""
    return picture.words if picture else size_in_words(size, layers, pool)


def refuse_below(least: int, settings: object, *flags: str) -> None:
    """Refuse a setting that is too small, by its flag: data.workers, without the dashes in front."""
    for flag in flags:
        value = getattr(settings, flag.rpartition(".")[2])
        assert value >= least, f"--{flag} {value}: give {least} or more"


def require_plain_name(flag: str, value: str) -> None:
    """Of a flag that names a folder: refuse what leads elsewhere, or what some system cannot write."""
    plain = value.isprintable() and len(value.encode()) <= 100 and not set(value) & set('/\\:*?"<>|')
    assert plain and value == value.strip() and not value.startswith("."), (
        f'--{flag} {value!r} is no plain name; leave out / \\ : * ? " < > |, a point in front and blanks at the ends'
    )


def refuse_idle(settings: object, flags: Sequence[str], kind: str) -> None:
    """Refuse a setting that is given where it does nothing."""
    usual = {field.name: field.default for field in fields(cast(Any, settings))}
    idle = [flag for flag in flags if getattr(settings, flag) != usual[flag]]
    assert not idle, f"--{idle[0]} {kind}; leave it out"


@dataclass(frozen=True)
class AudioSettings:
    """The sound that the network gets at a time. Written into every model file and read back from there."""

    sample_rate: int = 16_000
    """Hz, 1000 to 500000. Recordings of any rate are resampled to it. 16000 is what Whisper knows; 32000 with none of
    the five flags hop_seconds to mels adds mel channels from 8 to 16 kHz, for insects and high birds, of which a
    Whisper checkpoint knows nothing until it is trained. At every other geometry the same number of mel channels is
    spread over another band. --sound bat, whale, ... sets them all."""
    window_seconds: float = 5.0
    """Seconds of sound that an answer is about."""
    context_seconds: float = 5.0
    """Seconds of sound the network gets at once, a multiple of window_seconds, 30 s at most (3000 hops): it answers for
    every window of it. A call is easier to know among others of its kind; costs a little more for each second."""
    hop_seconds: float = 0.01
    """Seconds from one column of the mel picture to the next, a whole number of samples; two of them are a token. So
    short that a call has some tokens, so long that a window has not many: its cost is that of its tokens."""
    fft: int = 0
    """Samples of each Fourier transform, even; 0: 2.5 hops, as Whisper's 25 ms. More tell lower pitches apart."""
    lowest_hz: float = 0.0
    """Where the lowest mel channel begins."""
    highest_hz: float = 0.0
    """Where the highest mel channel ends; 0: at half the sample rate."""
    mels: int = 0
    """Number of mel channels; 0: as many as the encoder's size has. Others need --encoder.weights random."""

    compression: Compression = "log"
    """How the loudness of mel channels is compressed. log: as Whisper knows it; pcen: each channel relative to what it
    was like just before, so that steady noise fades; pcen_trained: the same, its curve learnt for each channel."""

    def __post_init__(self) -> None:
        assert self.compression in get_args(Compression), (
            f"--audio.compression {str(self.compression)[:40]}: give {', '.join(get_args(Compression))}"
        )
        rate, hop, top = self.sample_rate, self.sample_rate * self.hop_seconds, self.sample_rate / 2
        assert LOWEST_RATE <= rate <= HIGHEST_RATE, f"--audio.sample_rate {rate}: give 1000 to 500000"
        assert hop > 0.5 and abs(hop - round(hop)) < 0.01, (
            f"--audio.sample_rate {rate} --audio.hop_seconds {self.hop_seconds:g}: a hop is {hop:g} samples and must "
            f"be a whole number of them; give --audio.hop_seconds {max(round(hop), 1) / rate:.10g}, or another rate"
        )
        assert self.window_seconds >= 2 * self.hop_seconds, (
            f"--audio.window_seconds {self.window_seconds:g}: give {2 * self.hop_seconds:g} (a token) or more"
        )
        windows, longest = self.context_seconds / self.window_seconds, MOST_FRAMES * round(hop) / rate
        assert windows >= 1 - 1e-6 and abs(windows - round(windows)) < 1e-6, (
            f"--audio.context_seconds {self.context_seconds}: give a multiple of {self.window_seconds:g} up to "
            f"{longest:g}"
        )
        assert self.frames <= MOST_FRAMES, (
            f"--audio.context_seconds {self.context_seconds:g} is {math.ceil(self.frames / 2):,} tokens of two hops, "
            f"and {MOST_FRAMES // 2} are the most; give {longest:g} or less, or a longer --audio.hop_seconds"
        )
        most = min(LONGEST_FFT, 2 * self.samples - 2)
        assert 4 <= self.fft_samples <= most and self.fft_samples % 2 == 0, (
            f"--audio.fft {self.fft_samples}: give an even number from 4 to {most}, for a context has {self.samples} "
            "samples"
        )
        assert 0 <= self.lowest_hz < (self.highest_hz or top) <= top, (
            f"--audio.lowest_hz {self.lowest_hz:g} --audio.highest_hz {self.highest_hz:g}: give 0 to {top:g}, half of "
            "--audio.sample_rate, the lowest first"
        )
        assert 0 <= self.mels <= 512, f"--audio.mels {self.mels}: give 1 to 512, or 0"

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return round(self.sample_rate * self.hop_seconds)

    @property
    def fft_samples(self) -> int:
        """Samples of each Fourier transform."""
        return self.fft or 2 * max(2, round(1.25 * self.hop))

    @property
    def samples(self) -> int:
        """Samples of a context."""
        return round(self.context_seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """Columns of a context's mel picture, the last one begun where the context is no whole number of hops."""
        return math.ceil(self.samples / self.hop)

    @property
    def window_tokens(self) -> int:
        """Tokens that Whisper's stem makes of a window, before any are pooled."""
        return self.frames // 2 // round(self.context_seconds / self.window_seconds)

    @property
    def wide(self) -> bool:
        """Whether the picture is Whisper's own with more channels above: at 32 kHz, where nothing else is chosen."""
        usual = AudioSettings(WIDE_RATE, self.window_seconds, self.context_seconds, compression=self.compression)
        return self == usual

    @property
    def top_hz(self) -> float:
        """Where the highest mel channel ends."""
        return self.highest_hz or self.sample_rate / 2


# What --sound stands for: the band in which the animals call, a hop so short that a call is some tokens long, an FFT so
# long that neighbouring channels differ, windows of 250 to 500 tokens. All are starts, and bird and wide alone are
# measured here (LOG.md).
# bat       the rate, FFT, hop and band of BatDetect2, https://github.com/macaodha/batdetect2, detector/parameters.py;
#           WhisperSeg takes the same hop for mice, at 300 kHz from 35 kHz, https://github.com/nianlonggu/WhisperSeg.
#           A call of 5 ms is five tokens
# insect    recorders for audible sound go to 96 kHz, bush-crickets beyond 20; pulses follow each other in 10 to 50 ms
# frog      Whisper's own rate; notes are low, so all channels lie below 6 kHz, on a longer FFT
# whale     baleen whales call below 1 kHz for a second or more; clips of right whales are shared at 2 kHz, as those of
#           https://www.kaggle.com/c/whale-detection-challenge. Toothed whales need insect or bat
SOUNDS: dict[Sound, AudioSettings] = {
    "bird": AudioSettings(),
    "wide": AudioSettings(WIDE_RATE),
    "bat": AudioSettings(256_000, 0.5, 0.5, 0.000_5, 512, 10_000, 120_000),
    "insect": AudioSettings(96_000, 5.0, 5.0, 0.005, 2048, 1_000, 48_000),
    "frog": AudioSettings(16_000, 5.0, 5.0, 0.01, 512, 100, 6_000),
    "whale": AudioSettings(2_000, 15.0, 15.0, 0.025, 512, 5, 1_000),
}


@dataclass(frozen=True)
class CollectionSettings:
    """Where the recordings are."""

    root: Path
    """A folder of recordings in any of the layouts below, or a recordings.csv that data_loader.py wrote."""
    layout: Layout = "auto"
    """How the recordings are labelled. birdclef: train.csv, taxonomy.csv, train_audio/; folders: one folder per
    class; inaturalist: iNatSounds JSON; xeno-canto: saved pages of its API v3; annotations: Raven selection tables or
    a csv with start and end; unlabeled: not at all. auto looks at what is there."""
    label_column: str = ""
    """The column of annotation tables that holds the species; by default the first that looks like one."""
    duplicates: Literal["set_aside", "keep"] = "set_aside"
    """What becomes of recordings that hold the same sound as another one with the same labels: they are set aside, and
    duplicates.csv lists them; or they stay, in the same group as the other one. A recording with a row in keep.csv
    stays whatever is said here."""
    time_expansion: int = 1
    """How many times slower than it was the sound plays, of files that do not say so themselves (TE in GUANO does): 10
    for most old bat detectors. Then all seconds and frequencies are those of the animal."""
    voices: Literal["off", "report", "skip"] = "off"
    """Look for people's voices, such as a narrator's (`pip install --no-deps -r requirements-voices.txt`). report: a
    column of recordings.csv says where they are; skip: they are cut out, of training and of what is held out, except
    in segments that somebody labelled."""
    max_bad: float = 0.1
    """Stop when more than this share of the recordings is damaged, silent or missing."""
    folds: int = 5
    """How many parts to split the recordings into, where the table has no column `fold`."""

    def __post_init__(self) -> None:
        assert 1 <= self.time_expansion <= 100, (
            f"--data.time_expansion {self.time_expansion}: give 1 to 100, such as 10"
        )
        assert 0 <= self.max_bad <= 1, f"--data.max_bad {self.max_bad}: give a share, 0 to 1"
        assert self.folds >= 2, f"--data.folds {self.folds}: give 2 or more, one of them is held out"


@dataclass(frozen=True)
class LabelledSettings(CollectionSettings):
    """Where the recordings are, and which species count."""

    min_recordings: int = 1
    """Leave out species with fewer recordings than this."""


@dataclass(frozen=True)
class WindowSettings(CollectionSettings):
    """Where the recordings are, which of them are held out, and how the others are drawn from."""

    valid_fold: int = 0
    """The part that is held out for validation; the others train."""
    workers: int = 0
    """Processes that decode recordings ahead of training, at most one a core; 0 decodes in the training process."""
    window: Literal["random", "energy"] = "random"
    """Which window of a recording an epoch takes. random: any; energy: rather where something stands out."""
    most_windows: int = 4
    """An epoch takes a recording once for each window (context) it is long, but counts none for more than this many."""
    cache: Path = SCRATCH / "cache"
    """Where waveforms are kept ready for the next epoch."""
    cache_gb: float = 20.0
    """How much may be kept, the largest gain first; the rest is decoded anew each time. 0 keeps nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_below(1, self, "data.most_windows")
        refuse_below(0, self, "data.cache_gb", "data.workers")


@dataclass(frozen=True)
class DataSettings(LabelledSettings, WindowSettings):
    """Where the recordings are and which of them are held out."""

    balance: float = 0.5
    """How much rare species are favoured: 0 takes each window once an epoch, 1 each species equally often, 0.5 goes by
    the square root."""
    most_draws: float = 4.0
    """No recording is taken more often than this for each window it counts for, however rare its species."""
    no_call: Path | None = None
    """A folder of recordings without any of the species (wind, rain, engines, voices): stage 2 learns to say no to
    most of them; the rest is held out, and the false alarms per hour on it are reported."""
    no_call_share: float = 0.15
    """This share of the training windows is from recordings without any of the species, or less where they are so few
    that each would be taken more than most_draws times."""
    noise: Path | None = None
    """A folder of such recordings that is never trained on, only counted on: false alarms per hour."""
    synthetic_noise: float | None = None
    """This share of the training windows is made-up rain, wind, water, engines, hum, handling, clicks, clipping and
    babble, so that a classifier does not take them for animals; by default 0.1 where --data.no_call brings no real
    noise, which is better. Where there is none to count false alarms on either, kinds that are held out are."""
    pseudo: Path | None = None
    """Windows labelled by a classifier, pseudo/recordings.csv of pseudo_label.py: stage 2 learns from them too, but not
    from a site of which something is held out."""
    pseudo_share: float = 0.4
    """This share of the training windows has such labels, or less where pseudo_mass or most_draws say so."""
    pseudo_mass: float = 1.0
    """The scores drawn of a species sum to at most so many times the recordings drawn of it that people labelled, so
    that what the classifier mistakes for a species cannot outvote what is known of it. 0: no limit."""
    pseudo_sites: float = 0.5
    """How much sites with few such windows are favoured: 0 takes each window as often, 1 each site, 0.5 goes by the
    square root."""
    pseudo_place: PseudoPlace = "added"
    """added: an epoch grows by the windows with such labels. taken: they take the place of others, and it stays as long
    as without them; that has been the worse."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert 0 <= self.balance <= 1, f"--data.balance {self.balance}: give a share, 0 to 1"
        assert 0 <= self.no_call_share <= 0.9, f"--data.no_call_share {self.no_call_share}: give 0 to 0.9"
        share = self.synthetic_noise
        assert share is None or 0 <= share <= 0.5, f"--data.synthetic_noise {share}: give 0 to 0.5"
        refuse_below(1, self, "data.most_draws")
        assert 0 < self.pseudo_share <= 0.9, f"--data.pseudo_share {self.pseudo_share}: give a share, up to 0.9"
        assert 0 <= self.pseudo_mass < math.inf, f"--data.pseudo_mass {self.pseudo_mass}: give 0 or more"
        assert 0 <= self.pseudo_sites <= 1, f"--data.pseudo_sites {self.pseudo_sites}: give a share, 0 to 1"

    @property
    def made_up(self) -> float:
        """The share of made-up noise."""
        if self.synthetic_noise is not None:
            return self.synthetic_noise
        return 0.0 if self.no_call else SYNTHETIC_NOISE


@dataclass(frozen=True)
class EncoderSettings:
    """The Whisper encoder to start from."""

    size: Preset
    """Whisper's name for the size; a weights file that is of another size is refused."""
    weights: str
    """A hub name (openai/whisper-base), a local folder in the hub's format, an encoder.safetensors, or `random`."""
    depth: int = 0
    """Keep only the lowest so many layers, 0: all that the weights have. Each layer costs its share of time and memory,
    and the highest know speech rather than animals; `python probe.py` measures how many are worth it."""

    def __post_init__(self) -> None:
        assert self.depth >= 0, f"--encoder.depth {self.depth}: give a number of layers, or 0 for all"


@dataclass(frozen=True)
class PooledEncoderSettings(EncoderSettings):
    """The Whisper encoder to start from, and how finely it resolves time."""

    pool: int = 1
    """Average so many neighbouring tokens behind the stem, 1: none. A token is 20 ms of a bird; with 2 the layers have
    half the work. A window has to hold a whole number of pooled tokens; of 5 s 2, 5, 10 or more can be pooled."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.pool >= 1, f"--encoder.pool {self.pool}: give a number of tokens, or 1 for all as they are"


@dataclass(frozen=True)
class PictureSettings:
    """An encoder of another kind than Whisper's: a network for pictures. Written into the classifier's file."""

    kind: EncoderKind = "timm"
    name: str = ""
    frequency: FrequencyPooling = "average_max"

    @property
    def known(self) -> bool:
        """Whether the choices are among those there are; the name only timm can tell."""
        return self.kind in ("timm", "cnn", "vit") and self.frequency in get_args(FrequencyPooling)

    @property
    def words(self) -> str:
        """timm resnet50, AudioCNN, AudioViT."""
        return {"cnn": "AudioCNN", "vit": "AudioViT"}.get(self.kind, f"{self.kind} {self.name}")


@dataclass(frozen=True)
class AnyEncoderSettings(PooledEncoderSettings):
    """The encoder to start from."""

    weights: str
    """Of Whisper a hub name (openai/whisper-base), a local folder in the hub's format, or an encoder.safetensors; of
    timm `hub` for the weights that belong to the name, or a file of them (.safetensors, .pth); or `random`."""
    kind: EncoderKind = "whisper"
    """whisper: the encoder of this project. timm: any network for pictures that `timm` knows by --encoder.name, on the
    mel picture. cnn, vit: small networks from random weights, on MFCC and how they change."""
    name: str = ""
    """With --encoder.kind timm: which network, tf_efficientnetv2_s.in21k_ft_in1k for example."""
    frequency: FrequencyPooling = "average_max"
    """Of other kinds than whisper: how what the network says of several frequencies becomes one token. average_max: the
    mean and the maximum, added; gem: a mean between both, as far towards the maximum as training takes it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert (self.kind == "timm") == bool(self.name), (
            "--encoder.kind timm needs --encoder.name and a network of timm's, resnet50 for example"
            if self.kind == "timm"
            else f"--encoder.name {self.name} is for --encoder.kind timm; add that, or leave it out"
        )
        assert self.kind == "whisper" or not self.depth, (
            f"--encoder.depth keeps layers of Whisper; leave it out with --encoder.kind {self.kind}"
        )
        assert self.kind == "whisper" or self.pool == 1, (
            f"--encoder.pool joins tokens of Whisper; leave it out with --encoder.kind {self.kind}"
        )
        assert self.kind != "whisper" or self.frequency == "average_max", (
            "--encoder.frequency changes nothing of Whisper; leave it out"
        )

    @property
    def picture(self) -> PictureSettings | None:
        """What there is to know of an encoder of another kind than Whisper's."""
        return None if self.kind == "whisper" else PictureSettings(self.kind, self.name, self.frequency)


@dataclass(frozen=True)
class TrainSettings:
    """How the weights are moved."""

    epochs: int
    """An epoch draws as many random windows as the training recordings have, of none more than --data.most_windows."""
    batch_size: int
    """Windows per step, of all processes together where there are several."""
    accumulate: int = 1
    """Steps whose gradients are added up before the weights move: batch_size x accumulate windows per update."""
    encoder_rate: float = 1e-3
    """Learning rate of the encoder's top layer."""
    head_rate: float = 1e-3
    """Learning rate of what is new: the head, or stage 1's decoder."""
    layer_decay: float = 1.0
    """Each layer below the top learns this much slower than the one above it."""
    weight_decay: float = 0.05
    """AdamW's decay, on matrices only."""
    beta2: float = 0.999
    """AdamW's second moment."""
    warmup: float = 0.05
    """Share of the steps in which the rates rise from 0; afterwards they fall to 1 % along a cosine."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    updates: int = 0
    """Move the weights at least so often: of a small folder, where an epoch is a few updates, more epochs are made."""
    checkpointing: bool = False
    """Compute the encoder's layers anew on the way back: a third more time, a fraction of the memory."""
    compile: bool = False
    """Let torch compile the network first: minutes at the start, faster steps on a GPU."""
    shard: bool = False
    """Of several processes (torchrun) each holds a part of weights, gradients and moments, not all: for small GPUs."""

    def __post_init__(self) -> None:
        refuse_below(1, self, "train.epochs", "train.batch_size", "train.accumulate")
        refuse_below(0, self, "train.updates")
        assert not (self.shard and self.compile), "--train.shard and --train.compile do not go together; give one"

    def epochs_for(self, batches: int) -> int:
        """Epochs of so many batches: as many as are asked for, or as the least number of updates takes."""
        updates = math.ceil(batches / self.accumulate)
        return max(self.epochs, math.ceil(self.updates / updates))


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """How the weights are moved in stage 2, and which of them are kept."""

    frozen: bool = False
    """Leave the encoder as it is and fit the head alone, on features that are computed once: of some hundred recordings
    a classifier in a minute or two on a laptop."""
    head_passes: int = 2
    """Passes over the training windows whose features the head is fitted on before all weights move."""
    head_epochs: int = 30
    """Epochs of that, on stored features: seconds."""
    head_updates: int = 600
    """Updates of that, at least; 0: train all weights from the start, as is done with random ones."""
    ema: float = 0.98
    """Validate and keep a running mean of the weights, this much of it left after each update; 0: off."""
    swa: float = 0.0
    """Over this share of the updates, the last ones, a plain mean of the weights takes the place of the running one
    (stochastic weight averaging): 0.25 is the last quarter; 0: off."""
    blend: float = 0.5
    """What is kept lies this far on the way from the frozen encoder with its head to the trained weights: 1 is all the
    way. Between both lies a classifier that is better than either where recordings are few (LOG.md)."""
    folds: tuple[int, ...] = ()
    """Train one model for each of these parts held out, as in 0 1 2 3; without it one, for --data.valid_fold."""
    choose: Literal["cmap", "macro_auc", "top1", "macro_f1", "last"] = "last"
    """Keep the last epoch, or the one that is best by this measure on the held-out recordings, whose figures then
    flatter."""
    patience: int = 0
    """Stop where the best of the validated epochs (--train.validate_every) is this many epochs ago; 0 never stops
    early."""
    validate_every: int = 5
    """Score the held-out recordings after every so many epochs, and after the last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert not (self.patience and self.choose == "last"), (
            "--train.patience waits for a better epoch, and the last one is kept: add --train.choose cmap"
        )
        refuse_below(1, self, "train.validate_every", "train.head_passes", "train.head_epochs")
        refuse_below(0, self, "train.head_updates")
        refuse_idle(self, ("swa", "patience") if self.frozen else (), "changes nothing with --train.frozen")
        assert not (self.swa and self.patience), (
            "--train.patience may end the training before --train.swa begins to average; leave one of them out"
        )
        assert self.head_updates or not self.frozen, "--train.frozen fits the head alone: give it --train.head_updates"
        assert 0 < self.blend <= 1, f"--train.blend {self.blend}: give a share, above 0 and at most 1"
        assert 0 <= self.ema < 1, f"--train.ema {self.ema}: give 0 to less than 1, such as 0.98"
        assert 0 <= self.swa <= 1, f"--train.swa {self.swa}: give a share of the updates, 0 to 1, such as 0.25"
        assert self.ema or not self.swa, "--train.swa takes the place of a running mean: leave --train.ema above 0"
        assert len(set(self.folds)) == len(self.folds), f"--train.folds {self.folds}: name each part once"

    def head_first(self, weights: str) -> bool:
        """Whether the head is fitted before all weights move: random weights know nothing that could be lost."""
        return self.frozen or (self.head_updates > 0 and weights != "random")


@dataclass(frozen=True)
class MaskSettings:
    """What stage 1 hides."""

    strategy: MaskStrategy = "energy"
    """span: runs of 5 to 15 tokens (0.1 to 0.3 s); random: single tokens of 20 ms; block: runs of 10 and multiples;
    energy: of eight span masks rather one that hides what stands out, which from random weights harmed fine-tuning
    least; from Whisper's no mask is surely ahead of another (docs/measurements.md)."""
    ratio: float = 0.65
    """Share of the tokens that is hidden."""
    shuffle: bool = False
    """Put the frames of each window in random order: a control, in which there is no context to learn from. Refused
    with --target embeddings."""


@dataclass(frozen=True)
class ImitationSettings:
    """What the teacher of --target embeddings is, where its file does not say so itself, and what counts beside it."""

    sample_rate: int = 0
    """Hz of the sound that an ONNX teacher takes; 0: as its metadata say."""
    window_seconds: float = 0.0
    """Seconds of sound that one of its vectors is about; 0: as its metadata, its input or the ends in its table say,
    which must not contradict it."""
    output: str = ""
    """Which output of an ONNX teacher is imitated; by default the one that is called embeddings, or the only one."""
    name: str = ""
    """What the teacher is called in all files that come of it; by default as its file says, or as it is called."""
    license: str = ""
    """The licence of the teacher's weights, which is handed on to all files that come of it; by default as its file
    says, a published classifier's too. Where the file says another one both are handed on."""
    reconstruction: float = 0.0
    """How much masked reconstruction counts beside the imitation, from what is left visible; 0: nothing is hidden."""

    def __post_init__(self) -> None:
        assert self.sample_rate >= 0, f"--imitation.sample_rate {self.sample_rate}: give Hz, or 0"
        assert 0 <= self.window_seconds <= 30, f"--imitation.window_seconds {self.window_seconds}: give up to 30, or 0"
        assert self.reconstruction >= 0, f"--imitation.reconstruction {self.reconstruction}: give 0 or more"


@dataclass(frozen=True)
class MixtureSettings:
    """What makes training harder than the recordings are. Probabilities of 0 turn a step off."""

    gain_db: tuple[float, float] = (-18.0, 6.0)
    """Range of a random change of level, dB."""
    mixup: float = 0.5
    """Probability that other recordings are mixed in; the labels of all count."""
    sources: int = 1
    """How many recordings are mixed in at most."""
    roll: float = 0.5
    """Probability of a cyclic shift in time."""
    splice: float = 0.0
    """Probability that a segment of the window is replaced by one of another recording; the labels of both count."""
    filter: float = 0.0
    """Probability of a random tone control: bands of the spectrum raised or lowered by up to 20 dB."""


@dataclass(frozen=True)
class AugmentSettings(MixtureSettings):
    """What makes training harder than the recordings are. Probabilities of 0 turn a step off."""

    isolate: float = 0.5
    """Probability that a piece of a tenth to four fifths of the window is left alone in it, as a call in a soundscape
    is; the loudest of four."""
    background: Path | None = None
    """A folder of recordings without animals (wind, rain, engines) to put under the windows; labels stay. Without it
    those of --data.no_call that are trained on are put there, else made-up noise. What is held out is left out."""
    noise: float = 0.5
    """Probability of such a background, where a folder is given."""
    snr_db: tuple[float, float] = (-2.0, 28.0)
    """Range of how far the background stays below the window where that is loudest, dB."""
    mask: float = 0.5
    """Probability of hiding stripes of time and of frequency in the log-mel picture."""
    resize_mix: float = 0.0
    """Probability that another recording's picture is laid into the log-mel picture, made smaller (ResizeMix); the
    labels of both count. It changes pitch and speed; --augment.splice does not."""


@dataclass(frozen=True)
class HeadSettings:
    """From the encoder's tokens to one score per species."""

    pooling: Pooling = "pooled"
    """pooled: mean, deviation and maximum over time of several layers, and a linear layer on them; attention: each
    species chooses, in a mixture of these layers, the moments that speak for it."""
    layers: int = 6
    """How many of the encoder's layers the head receives, evenly spaced, the last of them included. What tells animals
    apart stands in Whisper's lower layers, and its last one knows least of it (LOG.md)."""
    dropout: float = 0.25
    """Share of the features left out while training."""

    def __post_init__(self) -> None:
        refuse_below(1, self, "head.layers")
        assert 0 <= self.dropout < 1, f"--head.dropout {self.dropout}: give 0 to less than 1"


@dataclass(frozen=True)
class LossSettings:
    """What a mistake costs."""

    kind: LossKind = "bce"
    """bce: binary cross-entropy; ce: over all species together; focal: less for what is sure already; asymmetric: less
    still for absent species; soft_auc: pairs of present and absent in the wrong order. The distances weigh all but ce
    and soft_auc."""
    alpha: float = 1.0
    """How much more a false alarm costs at the far end of the taxonomic tree; 0 is plain binary cross-entropy."""
    mode: Literal["all", "hard", "soft"] = "all"
    """all: every absent species weighs by its distance; hard: only where the model says present; soft: by how sure."""
    mechanism_penalty: float = 0.0
    """Extra distance between animals that make sound in different ways (syrinx, larynx, stridulation, ...)."""
    ancestors: Literal["ignore", "imply", "flat"] = "ignore"
    """Where a tit is labelled and "bird" is a label too. ignore: "bird" is not judged; imply: it is there too; flat:
    it is absent, as in competitions that count so. ignore and imply judge no tit where only "bird" is written."""
    moments: float = 0.0
    """This share of the loss falls on the best single moment of each species, the rest on the window as a whole."""
    smoothing: float = 0.0
    """This share of each target is spread over all species."""
    class_weights: ClassWeights = "none"
    """How much more the recordings of rare species weigh: by 1 / count (inverse, balanced: the same once their mean is
    1), or its root. Rather leave it to --data.balance."""
    shuffle: bool = False
    """Permute the species of the taxonomic tree: a control, in which the distances mean nothing."""


@dataclass(frozen=True)
class PlaceSettings:
    """Where results go."""

    root: Path = Path("runs")
    """Every run gets a numbered folder here: runs/finetune-001, ..."""


@dataclass(frozen=True)
class QuickRunSettings(PlaceSettings):
    """Where results go, of a command that trains nothing."""

    threads: int = 0
    """CPU threads; 0 takes all cores."""


@dataclass(frozen=True)
class RunSettings(QuickRunSettings):
    """Where results go, and on what they are computed."""

    seed: int = 0
    """The same seed on the same machine gives the same weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a CUDA device where there is one."""
    precision: Precision = "auto"
    """Of the products of training and validation. auto: bfloat16 where the device multiplies it (a GPU, a CPU with AMX
    or AVX512-BF16: twice as fast), float32 elsewhere. What the kept network is judged by is always float32."""


@dataclass(frozen=True)
class ProbeRunSettings(RunSettings):
    """Where results go, and on what they are computed."""

    seed: int = 0
    """Which recordings are drawn where there are more than --recordings, and random weights."""


@dataclass(frozen=True)
class TrainingRunSettings(RunSettings):
    """The same for a run that takes long."""

    resume: Path | None = None
    """A run that was cut off, runs/finetune-003: go on where it was. This flag alone is enough: all other settings come
    from the run, and one that is given and contradicts them is refused."""
    save_minutes: float = 1.0
    """Minutes between two states to resume from; longer where that would take more than 5 % of the time."""
    tracker: TrackerKind = "none"
    """Where else the curves of the run go (`pip install -r requirements-trackers.txt`): tensorboard, into the run's
    folder, or wandb, offline unless WANDB_MODE says otherwise."""


@dataclass(frozen=True)
class SurveyCommand:
    """Look before you train: read, check and split an archive, and say what is in it.

    Opens every recording once (a second look at an unchanged archive reads nothing again), prints a summary and writes
    recordings.csv, which every other command takes in place of a folder, taxonomy.csv and summary.png.

    Start with  --data.root      the folder of recordings, in whatever layout
                --data.layout    how they are labelled, where looking is not enough
                --data.max_bad   the share of damaged recordings that is too much

    Examples: python data_loader.py --data.root recordings/
              python main.py --data.root runs/data/recordings.csv
    """

    data: CollectionSettings = CollectionSettings(DATA_ROOT)
    sound: Sound = "bird"
    """Which animals will be trained on (bird, wide, bat, insect, frog, whale, as of main.py): recordings are compared,
    and listened to for what stands out, in the band of these."""
    run: PlaceSettings = PlaceSettings()
    cluster: str = ""
    """Let Dask's workers listen (`pip install -r requirements-cluster.txt`): local:4, tcp://host:8786 or slurm:32, as
    of predictor.py. What they find out is remembered here, so that training listens to nothing again."""


@dataclass(frozen=True)
class ProbeCommand:
    """Before any training: which layers of a Whisper encoder tell your animals apart, and what each costs.

    Reads labelled recordings and an encoder of Whisper's shape: Whisper itself, WhisperSeg, the audio tower of
    Qwen2-Audio, or what ssl_mae.py wrote. Nothing is trained but a logistic regression on the frozen features of each
    layer, judged on the fold that it was not fitted to. Prints a table and the --encoder.depth to give to main.py;
    writes runs/probe/: layers.png, probe.json and features.safetensors, so that the next look at the same is quick.

    Start with  --data.root             labelled recordings
                --encoder.weights       a name of the hub, a local folder or an encoder.safetensors
                --data.min_recordings   leave out species with fewer

    Examples: python probe.py --data.root recordings/ --encoder.weights openai/whisper-base
              python probe.py --data.root recordings/ --encoder.weights downloads/whisperseg --data.min_recordings 8
    """

    preset: Preset
    """A whole set of defaults; the size of the encoder is taken from its weights, whatever is given here."""
    data: LabelledSettings
    encoder: PooledEncoderSettings
    windows: int = 12
    """At most so many windows of each recording, spread over it."""
    recordings: int = 2_000
    """At most so many recordings, the species taking turns. 2000 take minutes with Whisper base on two cores."""
    sound: Sound = "bird"
    """Which animals: sets all of --audio at once. bird: Whisper's own 0 to 8 kHz; wide: more channels, up to 16 kHz;
    bat: 256 kHz, 10 to 120 kHz in windows of 0.5 s; insect: 96 kHz, 1 to 48 kHz; frog: 0.1 to 6 kHz, low pitches
    apart; whale: 2 kHz, 5 to 1000 Hz in windows of 15 s. Any --audio flag beside it wins."""
    audio: AudioSettings = AudioSettings()
    run: ProbeRunSettings = ProbeRunSettings()

    def __post_init__(self) -> None:
        refuse_below(1, self, "windows")
        refuse_below(10, self, "recordings")

    @classmethod
    def defaults(cls, preset: Preset, sound: Sound = "bird") -> ProbeCommand:
        """All settings as a preset and a kind of sound have them."""
        data = LabelledSettings(data_defaults(preset).root)
        start = PooledEncoderSettings(**asdict(whisper(preset)))
        return cls(preset, data, start, sound=sound, audio=SOUNDS[sound])


@dataclass(frozen=True)
class PretrainCommand:
    """Stage 1: adapt a Whisper encoder to nature sound by masked autoencoding. Labels are not needed.

    Reads a folder of recordings; writes runs/mae/encoder.safetensors for main.py. A run that was stopped goes on with
    --run.resume and its folder alone.

    Start with  --data.root      recordings, labelled or not
                --preset         the size of the encoder, and all defaults that go with it
                --train.epochs   how long; each draws a few windows of every recording

    Examples: python ssl_mae.py --preset base --data.root recordings/
              python ssl_mae.py --preset base --data.root recordings/ --target embeddings --teacher perch.parquet
              python ssl_mae.py --run.resume runs/mae-003
    """

    preset: Preset
    """A whole set of defaults, named after the encoder's size. `demo` needs no download and a minute of a laptop."""
    data: WindowSettings
    encoder: EncoderSettings
    train: TrainSettings
    mask: MaskSettings = MaskSettings()
    target: Literal["mel", "teacher", "embeddings"] = "mel"
    """What is reconstructed of a hidden token. mel: its log-mel picture; teacher: what a running mean of the encoder
    makes of it when nothing is hidden. embeddings: what another network, --teacher, makes of the sound is imitated."""
    teacher_decay: float = 0.999
    """With --target teacher: how much of the running mean is left after each update."""
    teacher: Path | None = None
    """With --target embeddings: an ONNX file that takes waveforms, or a table of embeddings (.npz, .parquet, .csv with
    file, start, end, embedding) that another tool exported. Of the augmentation only gain and filter apply then; other
    values of the rest are refused, as are those of --mask where nothing is hidden."""
    imitation: ImitationSettings = ImitationSettings()
    pull: float = 0.0
    """Pretrained weights go this share of the way back with each update (less as the rates fall), so that the encoder
    does not forget; in place of their weight decay. 0: off, as it always is with random weights."""
    augment: MixtureSettings = MixtureSettings(mixup=0.3, roll=0.0)
    sound: Sound = "bird"
    """Which animals: sets all of --audio at once. bird: Whisper's own 0 to 8 kHz; wide: more channels, up to 16 kHz;
    bat: 256 kHz, 10 to 120 kHz in windows of 0.5 s; insect: 96 kHz, 1 to 48 kHz; frog: 0.1 to 6 kHz, low pitches
    apart; whale: 2 kHz, 5 to 1000 Hz in windows of 15 s. Any --audio flag beside it wins."""
    audio: AudioSettings = AudioSettings()
    run: TrainingRunSettings = TrainingRunSettings()

    def __post_init__(self) -> None:
        imitates = self.target == "embeddings"
        assert imitates == (self.teacher is not None), (
            "--target embeddings imitates a teacher: add --teacher and an ONNX file or a table of embeddings"
            if imitates
            else "--teacher changes nothing without --target embeddings; add that, or leave it out"
        )
        assert imitates or self.imitation == ImitationSettings(), (
            "--imitation changes nothing without --target embeddings; leave it out"
        )
        if imitates:
            self.refuse_idle()
        assert self.target == "teacher" or self.teacher_decay == PretrainCommand.teacher_decay, (
            "--teacher_decay changes nothing without --target teacher; leave it out"
        )
        assert 0 <= self.pull < 1, f"--pull {self.pull}: give a share, such as 0.01, or 0 for none"
        assert self.audio.compression != "pcen_trained", (
            "--audio.compression pcen_trained: stage 1 would reconstruct what it bends itself, so no curve is trained "
            "here; give pcen, and pcen_trained to main.py"
        )

    def refuse_idle(self) -> None:
        """What contradicts the imitation of a teacher, or does nothing beside it."""
        assert not self.mask.shuffle, (
            "--mask.shuffle puts sound in another order than that which the teacher of --target embeddings speaks of; "
            "leave it out"
        )
        assert self.imitation.reconstruction or self.mask == MaskSettings(), (
            "--mask changes nothing where nothing is hidden; add --imitation.reconstruction, or leave it out"
        )
        usual = PretrainCommand.augment
        mixing = ("mixup", "sources", "roll", "splice")
        idle = [name for name in mixing if getattr(self.augment, name) not in (0, getattr(usual, name))]
        assert not idle, (
            f"--augment.{idle[0]} changes nothing with --target embeddings, as the teacher knows nothing of it; leave "
            "it out"
        )

    @property
    def pulled(self) -> bool:
        """Whether there is anything to go back to."""
        return self.pull > 0 and self.encoder.weights != "random"

    @classmethod
    def defaults(cls, preset: Preset, sound: Sound = "bird") -> PretrainCommand:
        """All settings as a preset and a kind of sound have them."""
        usual = data_defaults(preset)  # of an hour, as without labels every window is as good
        data = WindowSettings(usual.root, workers=usual.workers, most_windows=720)
        train, pull = replace(PRETRAIN[preset], beta2=0.95), 0.0 if preset == "demo" else PULL
        return cls(preset, data, whisper(preset), train, pull=pull, sound=sound, audio=SOUNDS[sound])


@dataclass(frozen=True)
class CalibrationSettings:
    """What the thresholds that travel with a classifier are fitted for, beside the precision on held-out recordings."""

    alarms_per_hour: float = 20.0
    """Where there is held-out sound without any species (--data.noise, --data.no_call): no threshold is lower than what
    its windows reach so many times an hour. 0 fits to precision alone."""

    def __post_init__(self) -> None:
        assert 0 <= self.alarms_per_hour <= 3600, (
            f"--calibrate.alarms_per_hour {self.alarms_per_hour}: give false alarms an hour, 0 for no limit"
        )


@dataclass(frozen=True)
class FinetuneCommand:
    """Stage 2: fine-tune the encoder and a shallow head into a multi-label species classifier.

    Reads labelled recordings and an encoder; writes runs/finetune/classifier.safetensors for quantize.py. A run that
    was stopped goes on with --run.resume and its folder alone.

    Start with  --data.root      labelled recordings: a folder per species, or a recordings.csv of data_loader.py
                --train.frozen   fit the head alone: minutes, for a first classifier
                --preset         the size of the encoder, and all defaults that go with it
                --data.no_call   recordings without any animal, which training needs to give fewer false alarms
                --train.folds    0 1 2 3: judge every recording by a classifier that was not trained on it

    Examples: python main.py --preset base --data.root recordings/ --train.frozen
              python main.py --preset base --data.root runs/data/recordings.csv --data.no_call noise/
              python main.py --run.resume runs/finetune-003
    """

    preset: Preset
    """A whole set of defaults, named after the encoder's size. `demo` needs no download and a minute of a laptop."""
    data: DataSettings
    encoder: AnyEncoderSettings
    train: FinetuneSettings
    head: HeadSettings = HeadSettings()
    augment: AugmentSettings = AugmentSettings()
    loss: LossSettings = LossSettings()
    calibrate: CalibrationSettings = CalibrationSettings()
    sound: Sound = "bird"
    """Which animals: sets all of --audio at once. bird: Whisper's own 0 to 8 kHz; wide: more channels, up to 16 kHz;
    bat: 256 kHz, 10 to 120 kHz in windows of 0.5 s; insect: 96 kHz, 1 to 48 kHz; frog: 0.1 to 6 kHz, low pitches
    apart; whale: 2 kHz, 5 to 1000 Hz in windows of 15 s. Any --audio flag beside it wins."""
    audio: AudioSettings = AudioSettings()
    run: TrainingRunSettings = TrainingRunSettings()

    def __post_init__(self) -> None:
        kind, train = self.encoder.kind, self.train
        assert self.audio.compression != "pcen_trained" or not train.frozen, (
            "--audio.compression pcen_trained: --train.frozen trains the head alone, and no curve; give pcen, or leave "
            "--train.frozen out"
        )
        if kind == "whisper":
            return
        alone = [("shard", False), ("checkpointing", False), ("blend", 1.0)]
        alone += [("layer_decay", 1.0)] if kind in ("cnn", "timm") else []  # whose weights are in no numbered layers
        for flag, usual in alone:
            assert getattr(train, flag) == usual, (
                f"--train.{flag} {getattr(train, flag)} is for Whisper's encoder; with --encoder.kind {kind} leave it "
                f"at {usual}"
            )
        assert self.head.layers == HeadSettings().layers, (
            f"--head.layers {self.head.layers}: --encoder.kind {kind} gives one layer; leave it out"
        )

    @classmethod
    def defaults(cls, preset: Preset, sound: Sound = "bird", kind: EncoderKind = "whisper") -> FinetuneCommand:
        """All settings as a preset, a kind of sound and a kind of encoder have them."""
        if kind != "whisper":
            return picture_defaults(preset, sound, kind)
        start = AnyEncoderSettings(**asdict(whisper(preset, DEPTH.get(preset, 0))))
        # short calls left alone were measured with Whisper's weights only, and the demo has random ones
        augment = AugmentSettings(mixup=0.25, mask=0.25, isolate=0.0) if preset == "demo" else AugmentSettings()
        train = replace(FINETUNE[preset], weight_decay=0.02)
        data = data_defaults(preset)
        return cls(preset, data, start, train, augment=augment, sound=sound, audio=SOUNDS[sound])


@dataclass(frozen=True)
class GateSettings:
    """How much worse an INT8 file may be than the float32 one, on held-out recordings. Windows too few to tell
    --gate.min_agreement from less decide nothing: the file is then kept as unverified."""

    max_auc_drop: float = 0.002
    """Loss of macro ROC-AUC."""
    min_agreement: float = 0.98
    """Share of the windows in which both name the same best species."""
    allow_worse: bool = False
    """Keep the INT8 file whatever its answers are like."""


@dataclass(frozen=True)
class BudgetSettings:
    """What the machine that serves the file can give; BirdCLEF's limits."""

    minutes: float = 90.0
    """On the clock, with two threads, or one where there is one core."""
    audio_hours: float = 11.7
    """Hours of sound to be scored in it."""
    memory_gb: float = 2.0
    """Resident memory."""


BlendOf = Literal["logits", "probabilities", "ranks"]


@dataclass(frozen=True)
class BlendSettings:
    """How several classifiers become one file."""

    of: BlendOf = "logits"
    """What the mean is of: their logits; their probabilities; or the rank of a window's score among those of held-out
    recordings, species by species."""
    weights: Literal["fitted", "equal"] = "fitted"
    """fitted: on recordings that were held out of all members, and kept if they are better than equal ones on groups
    that they were not fitted on; equal: the same for each."""


@dataclass(frozen=True)
class QuantizeCommand:
    """Stage 3: one ONNX file that takes waveforms and gives probabilities, in INT8, for a plain CPU.

    Reads a classifier; writes runs/quantize/classifier.onnx (float32) and classifier.int8.onnx for predictor.py. What
    INT8 would cost each matrix product is measured first; the costliest get weights of 8 bits, then stay in float32. A
    file that is worse than --gate allows on held-out recordings, or of which most is float32, is not kept.

    Start with  --classifier           the one that main.py wrote, if it is not the newest
                --budget.minutes       how long the recordings to be scored may take
                --gate.min_agreement   in what share of the held-out windows INT8 has to name the same species

    Several classifiers become one file, in which what they have in common is computed once.

    Examples: python quantize.py
              python quantize.py --classifier runs/finetune-003/classifier.safetensors
              python quantize.py --classifier a/classifier.safetensors --classifier b/classifier.safetensors
              python quantize.py --encoder openai/whisper-base
    """

    classifier: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """The classifier that main.py wrote, by default runs/finetune/classifier.safetensors; several make an ensemble."""
    gate: GateSettings = GateSettings()
    budget: BudgetSettings = BudgetSettings()
    max_error: float = 0.025
    """How far all INT8 products together may move the logits, as a share of their spread: the costliest get weights of
    8 bits, then stay in float32, until it is so."""
    max_windows: int = 2_000
    """Held-out windows to compare on, and training windows from which is learnt what is familiar."""
    blend: BlendSettings = BlendSettings()
    export: Literal["onnx", "openvino"] = "onnx"
    """openvino: the float32 file also in OpenVINO's own form, classifier.xml and classifier.bin, which predictor.py
    --model classifier.xml takes as well (`pip install -r requirements-openvino.txt`). Not of an encoder alone."""
    run: QuickRunSettings = QuickRunSettings()
    encoder: str = ""
    """In place of a classifier, an encoder that knows no species: openai/whisper-base, a local folder in the hub's
    format, or an encoder.safetensors of ssl_mae.py. Writes runs/quantize/encoder.onnx (float32) for search.py."""
    depth: int = 0
    """With --encoder: its lowest so many layers. 0: half of them; of Whisper base those find best (docs/search.md)."""

    def __post_init__(self) -> None:
        refuse_below(0, self, "depth")
        judged = ("classifier", "gate", "budget", "max_error", "max_windows", "blend", "export")
        refuse_idle(self, judged if self.encoder else (), "changes nothing with --encoder")
        refuse_idle(self, () if self.encoder else ("depth",), "changes nothing without --encoder")
        refuse_idle(self, () if len(self.classifier) > 1 else ("blend",), "is for several --classifier")


Engine = Literal["onnxruntime", "openvino", "auto"]
TableKind = Literal["csv", "table", "audacity", "kaleidoscope", "parquet"]


@dataclass(frozen=True)
class PredictCommand:
    """Stage 4: species probabilities for every 5 seconds of a recording, or of an archive.

    Prints what was detected. One recording: writes only where --out says so. A folder: writes detections.csv, files.csv
    and run.json to --out, or below runs/predict/; the same command again goes on where it was stopped.

    Start with  --out        a folder for the tables
                --min_conf   the lowest probability that counts, in place of each species' own threshold
                --model      the file that quantize.py wrote, if it is not the newest

    Examples: python predictor.py dawn.ogg
              python predictor.py season-2026/ --out results/ --min_conf 0.5
              python predictor.py season-2026/ --out results/ --shard 3/8
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Recordings, folders of recordings (searched through), or a recordings.csv that data_loader.py wrote. Recordings
    and folders may lie at a server: s3://bucket/season, https://example.org/dawn.flac (docs/clusters.md)."""
    model: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """The file that quantize.py wrote, runs/quantize/classifier.int8.onnx if none is named; an .xml that it exported is
    scored with OpenVINO. Give the flag several times to average models with the same species. Or, with --card, any
    other ONNX classifier that takes waveforms."""
    card: str = ""
    """What a model of somebody else takes and gives: a card.json (docs/hub.md), or the name of one that comes with us:
    birdnet-v2.4, birdnet-v3, perch-v2. Its licence is printed, and stands in run.json."""
    out: Path | None = None
    """Folder for the tables."""
    rtype: tuple[TableKind, ...] = ("csv", "table")
    """Which tables: csv (detections.csv), table (Raven's), audacity, kaleidoscope, parquet."""
    split_tables: bool = False
    """Raven's tables also one by one for each recording."""
    submission: Path | None = None
    """A sample_submission.csv of BirdCLEF; writes submission.csv like it."""
    embeddings: Path | None = None
    """Also write the encoder's vector of every window, to this .npz or .csv. Whose they are, and on what terms, goes
    with them: in the .npz, or in a .csv.json beside the .csv."""
    scores: bool = False
    """Also write scores.csv: the probability of every species in every window, and how unlike anything in training it
    is."""
    bom: bool = False
    """Begin csv tables with a byte order mark, for Excel."""
    min_conf: float | None = None
    """Lowest probability that counts as a detection, for all species; else the model's own thresholds, else 0.25."""
    thresholds: Path | None = None
    """A thresholds.csv with a threshold per species; for those it leaves out --min_conf or the model's count."""
    top_n: int = 0
    """The surest so many species of every window, whatever their probability, instead of thresholds."""
    slist: Path | None = None
    """Only the species of this list: a line each, `Scientific name_Common name`, either of them, or a label."""
    strict: bool = False
    """A line of --slist that is no species of the model is an error."""
    only: tuple[str, ...] = ()
    """Only species of these groups: birds frogs bats, or any taxon of their lineages: Passeriformes Hylidae."""
    prior: Path | None = None
    """A csv of what is likely where and when: species, probability; site, or latitude and longitude; week (ISO, 1 to
    53). It is added to the logits, so that no species is deleted; what has no row keeps its score."""
    prior_weight: float = 1.0
    """How much of the logit of --prior is added: 1 takes the table at its word, 0.5 half of it."""
    ranks: bool = False
    """Where no species is sure enough, write the genus, family, order or class that is."""
    merge_gap: float | None = None
    """Also write events.csv: detections of a species at most so many seconds apart, joined."""
    shortest: float = 0.3
    """Seconds of sound without which a recording, or a part of it, is called too short and is not analysed: less of
    it, repeated to fill a window, is taken for an animal all too often. 0 analyses calls that were cut out."""
    overlap: float = 0.0
    """Seconds by which neighbouring windows overlap."""
    channel: str = "mean"
    """mean, a number counted from 1, or each for every channel by itself."""
    tta: bool = False
    """Average every window with those half a step before and behind; twice the time."""
    smooth: bool = False
    """Average every window with its neighbours (.1 .2 .4 .2 .1): for animals that call for minutes; a call in a single
    window is lost in the silence around it."""
    file_weight: bool = False
    """Multiply by the highest probability of the species in the recording: a better ranking, no probability."""
    site_regex: str = ""
    """Where the name of the site is in a path: its first group, r"(H[0-9]+)_"; else the folder's name."""
    time_expansion: int = 1
    """How many times slower than it was the sound plays, of files that do not say so themselves: 10 for most old bat
    detectors. Then all seconds and frequencies are those of the animal."""
    timezone: str = ""
    """Of clocks that do not name theirs: America/Bogota, UTC."""
    voices: Voices = "off"
    """Look for people's voices (`pip install --no-deps -r requirements-voices.txt`). report: detections.csv and
    files.csv say how many seconds of them there are; skip: windows with voices are not scored; mute: voices are
    silenced before anything is scored. No clip of report.py holds any then. Some are missed: docs/serving.md."""
    shard: str = ""
    """Only a part of the recordings: 3/8 is the third of eight, `slurm` is that of SLURM_ARRAY_TASK_ID. Then the same
    command without --shard writes the tables of all."""
    cluster: str = ""
    """Let Dask's workers do it (`pip install -r requirements-cluster.txt`): local:4 starts four on this machine,
    tcp://host:8786 takes those of a scheduler that is there, slurm:32 has 32 jobs started. See docs/clusters.md."""
    restart: bool = False
    """Forget what was done in --out before."""
    retry_failed: bool = False
    """Try recordings again that could not be read before."""
    fail_fast: bool = False
    """Stop at the first recording that cannot be read."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    engine: Engine = "onnxruntime"
    """What multiplies: onnxruntime takes the INT8 file; openvino (`pip install -r requirements-openvino.txt`) takes the
    float32 file beside it, in bfloat16 where the CPU has that; auto times both where the CPU has AMX, and takes
    onnxruntime anywhere else."""
    batch_size: int = 1
    """Contexts that go through the network at a time. INT8 takes one: its scores would depend on their neighbours."""
    runs: Path = Path("runs")
    """Below it is the folder predict/<name of the input> for the tables, when --out is not given."""


@dataclass(frozen=True)
class PseudoLabelCommand:
    """Self-training: label recordings that nobody labelled with classifiers, so that main.py can learn from them too.

    Reads recordings and one or several classifiers; writes recordings.csv to --out: the windows in which a species is
    likely, with scores, for main.py --data.pseudo. The same command again goes on where it was stopped.

    With --rounds it alternates: label, train, judge; and stops when the next classifier is worse than the best so far.
    Every training is a numbered run of main.py with the settings of --student, but for --run.seed.

    Start with  --model     the classifier, in the form that quantize.py writes
                --judge     labelled recordings of other sites, which are never pseudo-labelled
                --rounds    how often to label and train

    Examples: python pseudo_label.py season/ --model runs/quantize/classifier.int8.onnx --out pseudo/
              python main.py --data.root recordings/ --data.pseudo pseudo/recordings.csv --run.seed 1
              python pseudo_label.py season/ --out pseudo/ --rounds 3 --student runs/finetune --judge annotated/
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Recordings, folders of recordings (searched through), or a recordings.csv that data_loader.py wrote."""
    model: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """The classifier, runs/quantize/classifier.int8.onnx if none is named, or that of --student with --rounds. Give the
    flag several times to take the mean of several with the same species."""
    out: Path = Path("pseudo")
    """Folder for the table; with --rounds for a folder of each round, and rounds.csv."""
    lowest: float = 0.1
    """A score below it counts as 0."""
    highest: float = 0.95
    """A score above it counts as this: no label of a classifier is certain."""
    sure: float = 0.5
    """A window in which no species reaches it is left out; one that counts as 0 by the limits does not."""
    limits: Path | None = None
    """A csv table with the columns label, lowest and highest, for species with limits of their own; a highest of 0
    takes a species away."""
    held_out: tuple[str, ...] = ()
    """Sites that are not labelled, to judge by later."""
    judge: Path | None = None
    """Labelled recordings, in any layout that main.py reads, to judge each round by; nothing of their sites is
    labelled by a classifier, and no classifier may have been trained on them. Without it the held-out recordings of
    --student judge."""
    site_regex: str = ""
    """Where the name of the site is in a path: its first group, r"(H[0-9]+)_"; else it is what a table says, what the
    recorder wrote into the file's name, or the folder's name. main.py looks for it in what it holds out, too."""
    time_expansion: int = 1
    """How many times slower than it was the sound plays, of files that do not say so themselves."""
    rounds: int = 0
    """Label and train so often; 0 only labels."""
    student: Path = Path("runs/finetune")
    """With --rounds: a finished run of main.py. Each training has its settings; it is round 0, the first to beat. Where
    rounds.csv is in --out already, round 0 stays the run that it names, though a link to the newest run has moved."""
    threads: int = 0
    """CPU threads that score; 0 takes all cores."""
    restart: bool = False
    """Forget what was done in --out before."""

    def __post_init__(self) -> None:
        assert 0 <= self.lowest <= self.highest <= 1, (
            f"--lowest {self.lowest} --highest {self.highest}: give scores from 0 to 1, the lowest first"
        )
        assert 0 <= self.sure <= 1, f"--sure {self.sure}: give a score from 0 to 1"
        assert self.rounds >= 0, f"--rounds {self.rounds}: give 0 or more"


@dataclass(frozen=True)
class ReportCommand:
    """Listen to what was detected, in one HTML file that opens offline, and make something of the verdicts.

    Reads the folder that predictor.py wrote, and the recordings; writes report.html: picture, sound and one key per
    verdict. With --apply it reads the validation.csv that the page hands out, and writes thresholds.csv for
    predictor.py and recordings.csv for main.py.

    Start with  --per_species   how many windows of each species to listen to
                --apply         the verdicts, to be put to use
                --hide_paths    for species that must not be found

    Examples: python report.py results/
              python report.py results/ --apply validation.csv
    """

    results: Annotated[Path, tyro.conf.Positional] = Path("runs/predict")
    """The folder that predictor.py wrote."""
    out: Path | None = None
    """The page, report.html in the folder of the results; with --apply a folder, review/ in it."""
    audio: Path | None = None
    """Where the recordings are now, if they were moved: looked for below this folder, and nowhere else."""
    per_species: int = 60
    """At most so many windows of each species."""
    strategy: Strategy = "even"
    """Which windows. even: as many from each tenth of the scale of confidence; top: the surest; random: any; all: no
    limit per species."""
    seed: int = 0
    """The same seed draws the same windows."""
    max_clips: int = 400
    """At most so many windows in all, the species taking turns."""
    clips_dir: Path | None = None
    """Put picture and sound of each window into this folder beside the page; without it they are in the page itself, up
    to 400 of them, and in report_clips/ where there are more."""
    hide_paths: bool = False
    """Number recordings and sites in place of their names: for species that must not be found."""
    title: str = ""
    """Heading of the page."""
    voices: Literal["as_scored", "off", "report", "skip", "mute"] = "as_scored"
    """Clips in which people speak (`pip install --no-deps -r requirements-voices.txt`). skip: they are left out; mute:
    voices are silenced in sound and picture; report: the page says how long somebody speaks; off: clips are as they
    are. as_scored: mute where predictor.py had --voices mute, skip where it looked for voices otherwise, else off."""
    apply: tuple[Path, ...] = ()
    """Verdicts to be put to use: the validation.csv of one or several reviewers."""
    precision: float = 0.9
    """With --apply: the share of detections that has to be right at the thresholds."""
    training: Path | None = None
    """With --apply: the recordings.csv of the training so far, for main.py to learn from those and these."""

    def __post_init__(self) -> None:
        refuse_below(1, self, "per_species", "max_clips")
        refuse_below(0, self, "seed")
        for_page = ("per_species", "strategy", "seed", "max_clips", "clips_dir", "hide_paths", "title", "voices")
        kind = "is of the page, and changes nothing with --apply" if self.apply else "changes nothing without --apply"
        refuse_idle(self, for_page if self.apply else ("precision", "training"), kind)
        assert self.apply or not self.out or self.out.suffix in (".html", ".htm"), (
            f"--out {self.out}: give the page a name that ends in .html"
        )
        assert 0 < self.precision < 1, f"--precision {self.precision}: give a share between 0 and 1, such as 0.9"


@dataclass(frozen=True)
class SearchCommand:
    """Find by example: every window of an archive that sounds like a call that you have.

    `index` embeds every window once, with any file of ours, labels or not; the same command again goes on where it was
    stopped. `query` finds the windows that are most alike in a second, and writes the tables that predictor.py writes,
    ranked, for report.py. How alike two windows are is a cosine, no probability.

    Start with  --index   the folder of the index
                --model   with index: what embeds; quantize.py --encoder makes a file for it without any labels
                --at      with query: where the call is, of a recording that holds more than it
                --not     with query: a recording that is not meant

    Examples: python search.py index season-2026/ --model M --index season.index
              python search.py query season.index call.wav --at 12.5
              python search.py query season.index call.wav more.wav --not wrong.wav --name "Rana ficta"
              python report.py season.index/like-call
    """

    action: Annotated[Literal["index", "query"], tyro.conf.Positional] = "index"
    """index: embed an archive; query: find in an index what sounds like an example."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """index: recordings, folders of recordings, or a recordings.csv. query: the index, then one or several examples."""
    index: Path = Path("season.index")
    """With index: the folder for it."""
    model: Path = Path("runs/quantize/classifier.int8.onnx")
    """With index: the file that quantize.py wrote. An index knows its own; with query only where that was moved to."""
    card: str = ""
    """What a model of somebody else takes and gives, as of predictor.py. An index knows its own; with query only where
    that was moved to."""
    at: Annotated[tuple[float, ...], tyro.conf.UseAppendAction] = ()
    """With query: the second at which the call is, for each example in turn; without it all windows of a recording are
    examples."""
    unlike: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(aliases=("--not",))] = ()
    """With query: a counter-example; what is more like it than like any example is left out. May be given several
    times."""
    name: str = ""
    """With query: what it is called in the tables; else as the first example's file."""
    most: int = 100
    """With query: the most alike so many windows."""
    out: Path | None = None
    """With query: folder for the tables; else one in the index, named after the example."""
    rtype: tuple[TableKind, ...] = ("csv", "table")
    """With query: which tables: csv (detections.csv, always), table (Raven's), audacity, kaleidoscope, parquet."""
    shortest: float = 0.3
    """With index: seconds of sound without which a recording, or a part of it, is not indexed."""
    overlap: float = 0.0
    """With index: seconds by which neighbouring windows overlap."""
    channel: str = "mean"
    """With index: mean, a number counted from 1, or each for every channel by itself."""
    site_regex: str = ""
    """With index: where the name of the site is in a path: its first group, r"(H[0-9]+)_"; else the folder's name."""
    time_expansion: int = 1
    """With index: how many times slower than it was the sound plays, of files that do not say so themselves, examples
    too."""
    timezone: str = ""
    """With index: of clocks that do not name theirs: America/Bogota, UTC."""
    shard: str = ""
    """With index: only a part of the recordings, 3/8 or slurm, as of predictor.py; the same command without it ends the
    index."""
    cluster: str = ""
    """With index: let Dask's workers do it: local:4, tcp://host:8786 or slurm:32, as of predictor.py."""
    restart: bool = False
    """With index: forget what was done in it before."""
    retry_failed: bool = False
    """With index: try recordings again that could not be read before."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        refuse_below(1, self, "most")
        require_plain_name("name", self.name)
        refuse_idle(self, OF_INDEX if self.action == "query" else OF_QUERY, f"does nothing with {self.action}")


@dataclass(frozen=True)
class RefitCommand:
    """Verdicts on windows of an index -> a classifier in seconds: a new head for the file that made the index.

    Reads the index of search.py and the validation.csv that the page of report.py hands out; writes the ONNX file with
    the new head, thresholds.csv, and next/: the windows that are worth listening to next, for report.py. Every round
    adds its validation.csv to those before.

    Start with  --out        a folder for all of it
                --beside     keep the species that the file knows already
                --next       how many windows to listen to next

    Examples: python refit.py season.index validation.csv
              python report.py season.index/refit/next --strategy all
              python refit.py season.index validation.csv validation-2.csv
              python predictor.py season-2027/ --model season.index/refit/classifier.onnx --out results/
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The index, then one or several validation.csv."""
    classifier: Path | None = None
    """The file that the index was made with, where it was moved to."""
    beside: bool = False
    """Keep the answers for the species that the file knows already, but for those with a new head."""
    precision: float = 0.9
    """The share of detections that has to be right at the thresholds."""
    next: int = 100
    """So many windows to listen to next; 0: none."""
    seed: int = 0
    """Of the windows that nobody listened to, which are taken for what an archive mostly holds."""
    out: Path | None = None
    """Folder for all that is written; refit/ in the index."""

    def __post_init__(self) -> None:
        refuse_below(0, self, "next", "seed")
        assert 0 < self.precision < 1, f"--precision {self.precision}: give a share between 0 and 1, such as 0.9"


@dataclass(frozen=True)
class PackCommand:
    """Scoring in one file: predictor.pyz, a zip application that runs wherever requirements-score.txt is installed.

    Reads this program; writes predictor.pyz with predictor.py, report.py, search.py and count.py, and with --bundle a
    model. The same program and model give the same bytes.

    Start with  --bundle   the model that goes inside
                --out      where the application goes

    Examples: python pack.py --bundle runs/quantize/classifier.int8.onnx
              python predictor.pyz season-2026/ --out results/
              python predictor.pyz report.py results/
    """

    bundle: Path | None = None
    """The classifier.int8.onnx that quantize.py wrote, to be scored with where no --model is given."""
    out: Path = Path("predictor.pyz")
    """The application."""

    def __post_init__(self) -> None:
        assert self.out.suffix == ".pyz", f"--out {self.out}: give the application a name that ends in .pyz"


@dataclass(frozen=True)
class CountCommand:
    """Species by site and day, with effort, and how sure the numbers are once somebody has listened.

    Reads the folder that predictor.py wrote, and verdicts of the listening page; writes counts.csv, season.csv and
    three pictures. With verdicts there are call density and presence with 95 % intervals that include the classifier's
    errors; without them it says what cannot be said. With --plan it says how many windows to listen to, and writes the
    page for them. docs/counting.md has the formulae and their limits.

    Start with  --plan       what to listen to, and how much of it
                --verdicts   the validation.csv that the page hands out
                --export     for the portals: Camtrap DP, Darwin Core, crowsetta, AOEF

    Examples: python count.py results/ --plan --width 0.1
              python count.py results/ --verdicts validation.csv
              python count.py results/ --verdicts validation.csv --by week --export camtrap-dp --coarsen_km 10
    """

    results: Annotated[Path, tyro.conf.Positional] = Path("runs/predict")
    """The folder that predictor.py wrote."""
    verdicts: tuple[Path, ...] = ()
    """The validation.csv of one or several reviewers."""
    by: Period = "day"
    """The length of a period: a row of counts.csv is a species at a site in one of them."""
    out: Path | None = None
    """The folder for what is written, counts/ in the folder of the results."""
    plan: bool = False
    """Say how many windows of which strata to listen to, and write the page for them."""
    width: float = 0.1
    """With --plan: the wished width of a species' 95 % interval, as a share of its detections: 0.1 is 5 percent up and
    down."""
    missed: int = 0
    """With --plan: also so many windows per species in which it was not detected. Only with them can calls be counted
    that the classifier misses; about 3 in so many windows can hide behind as many times No."""
    audio: Path | None = None
    """With --plan: where the recordings are now, if they were moved."""
    voices: Literal["as_scored", "off", "report", "mute"] = "as_scored"
    """With --plan: people's voices on the page. mute: silenced in sound and picture; report: the page says how long
    somebody speaks; off: clips are as they are. as_scored: mute where predictor.py had --voices mute, report where it
    looked for voices otherwise, else off. No window is left out for them, or counts would come out too high."""
    seed: int = 0
    """The same seed plans the same windows and draws the same intervals."""
    export: tuple[Exchange, ...] = ()
    """Also what other programs and portals read, below exchange/: what a reviewer denied is left out."""
    coarsen_km: float = 0.0
    """With --export: positions are those of squares of so many kilometres; 0: as the recorders have them."""
    contributor: str = "not given"
    """With --export: who gives the data."""

    def __post_init__(self) -> None:
        refuse_below(0, self, "seed", "missed", "coarsen_km")
        usual = {field.name: field.default for field in fields(self)}
        of = {"width": "plan", "missed": "plan", "audio": "plan", "voices": "plan"}
        of |= {"coarsen_km": "export", "contributor": "export"}
        idle = [name for name, flag in of.items() if getattr(self, name) != usual[name] and not getattr(self, flag)]
        assert not idle, f"--{idle[0]} changes nothing without --{of[idle[0]]}; leave it out"
        assert not (self.plan and self.export), "--plan and --export are two ways: plan, listen, then count and export"
        assert 0 < self.width < 1, f"--width {self.width}: give a share between 0 and 1, such as 0.1"
        assert self.coarsen_km <= 1000, f"--coarsen_km {self.coarsen_km}: give at most 1000"


@dataclass(frozen=True)
class PublishCommand:
    """A trained classifier as a folder that the hub understands, and pushed there when told to.

    Reads a run of main.py, and the ONNX file that quantize.py made of it; writes README.md (the model card),
    config.json, labels.csv, classifier.safetensors, classifier.int8.onnx, and model.safetensors: the encoder, for
    transformers. No recording, no path of this machine and nobody's name is in any of them.

    Start with  --license   on what terms others may use it; look at the licences of the recordings first
                --to        the repository; without it nothing leaves this machine
                --public    for everybody to see; without it the repository is private

    Examples: python publish.py runs/finetune --license cc-by-4.0
              python publish.py runs/finetune --license cc-by-4.0 --to owner/name
              python predictor.py season-2026/ --model hf://owner/name
    """

    trained: Annotated[Path, tyro.conf.Positional] = Path("runs/finetune")
    """The run of main.py; of one with several folds the folder of one of them."""
    onnx: Path | None = None
    """The file that quantize.py made of it, by default the newest one, if it is of this classifier."""
    out: Path | None = None
    """The folder, hub/ in the run."""
    to: str = ""
    """owner/name of the repository on the hub. HF_TOKEN, or `hf auth login`, says who you are."""
    public: bool = False
    """Of a repository that is not there yet: for everybody to see."""
    license: str = ""
    """The licence of the classifier as the hub calls it: cc-by-4.0, cc-by-nc-4.0, apache-2.0, ..."""
    watts: float = 0.0
    """What the machine drew while it trained; then the card says the energy. 0: it says that nobody measured it."""

    def __post_init__(self) -> None:
        refuse_below(0, self, "watts")
        assert not self.to or self.license, "--to needs --license: say on what terms others may use the classifier"
        assert re.fullmatch(r"[a-z0-9.-]*", self.license), f"--license {self.license}: as the hub calls it, cc-by-4.0"
        assert not self.to or re.fullmatch(r"[\w.-]+/[\w.-]+", self.to), f"--to {self.to}: give owner/name"
        refuse_idle(self, () if self.to else ("public",), "is about a repository, and --to names none")


@dataclass(frozen=True)
class ExperimentsCommand:
    """All runs side by side: how each ended, how good it was, and the settings in which they differ.

    Prints a table, newest run first, with as many columns as the terminal has room for; writes all of them to a CSV.

    Examples: python experiments.py
              python experiments.py --kind finetune --out finetune.csv
    """

    runs: Path = Path("runs")
    """The folder in which the commands put their runs (their --run.root)."""
    kind: Literal["finetune", "mae", "quantize", "data", "all"] = "all"
    """Only the runs of one command: finetune is main.py, mae ssl_mae.py, data data_loader.py."""
    out: Path = Path("experiments.csv")
    """The CSV; one that is there is replaced."""


OF_INDEX = (  # flags of search.py that only one of its actions has
    *("index", "shortest", "overlap", "channel", "site_regex", "time_expansion", "timezone"),
    *("shard", "cluster", "restart", "retry_failed"),
)
OF_QUERY = ("at", "unlike", "name", "most", "out", "rtype")
SYNTHETIC_NOISE = 0.1  # of the training windows, measured with Whisper's weights only
OF_CONFIG = "--config FILE gives the settings of a run back, from its run.json; flags win over it."
REPEATED = ("--model", "--classifier", "--at", "--unlike")  # with one value each time
POSITIONAL = ("inputs", "results", "action", "trained")  # given on the command line alone
NO_SOUND = "it is a fact of the model, and travels in its file; leave it out"
NO_PRESET = "it is not needed here, as no setting depends on the size of an encoder; leave it out"
NOT_OFFERED = {  # flags of BirdNET-Analyzer that people will try on predictor.py
    **dict.fromkeys(("min_confidence", "confidence", "threshold"), "it is called --min_conf here"),
    **dict.fromkeys(("output", "o"), "it is called --out here"),
    **dict.fromkeys(("input", "i"), "recordings are named without a flag: python predictor.py season/"),
    **dict.fromkeys(
        ("lat", "lon", "week", "sf_thresh"), "there is no geographic model here; --slist takes a list, --prior a table"
    ),
    "preset": NO_PRESET,
    "sound": NO_SOUND,
    "sensitivity": "probabilities are calibrated in training; choose --min_conf or --thresholds",
    **dict.fromkeys(("fmin", "fmax"), "the model uses the band that it was trained on"),
    "audio_speed": "it is called --time_expansion here: 10 undoes a tenfold one",
}

# Stage 1, per size: learning rates at the effective batch (batch_size x accumulate). Interpolated between published
# recipes (https://arxiv.org/abs/2111.06377, https://github.com/nttcslab/m2d), not tuned.
PRETRAIN: dict[Preset, TrainSettings] = {
    "demo": TrainSettings(5, 8, 1, 2e-3, 2e-3),
    "tiny": TrainSettings(50, 256, 1, 2e-4, 5e-4),
    "base": TrainSettings(40, 256, 1, 1.5e-4, 5e-4),
    "small": TrainSettings(30, 256, 1, 1e-4, 3e-4),
    "medium": TrainSettings(20, 128, 4, 7e-5, 3e-4, layer_decay=0.97),
    "large-v2": TrainSettings(15, 64, 8, 5e-5, 2e-4, layer_decay=0.97),
    "large-v3": TrainSettings(15, 64, 8, 5e-5, 2e-4, layer_decay=0.97),
}
# Stage 2, per size: the encoder's rates are a twentieth of OpenAI's for pretraining (https://arxiv.org/abs/2212.04356,
# table 17); only base is measured (LOG.md). The least number of updates counts for small folders: a hundred recordings
# of 5 s are seven updates an epoch.
FINETUNE: dict[Preset, FinetuneSettings] = {
    "demo": FinetuneSettings(10, 8, 1, 2e-3, 4e-3),
    "tiny": FinetuneSettings(3, 16, 1, 7.5e-5, 2e-4, 0.80, warmup=0.1, updates=120),
    "base": FinetuneSettings(3, 16, 1, 5e-5, 2e-4, 0.80, warmup=0.1, updates=120),
    "small": FinetuneSettings(3, 16, 1, 2.5e-5, 2e-4, 0.80, warmup=0.1, updates=120),
    "medium": FinetuneSettings(3, 16, 1, 1.25e-5, 2e-4, 0.87, warmup=0.1, updates=120),
    "large-v2": FinetuneSettings(3, 16, 1, 1e-5, 2e-4, 0.90, warmup=0.1, updates=120),
    "large-v3": FinetuneSettings(3, 16, 1, 1e-5, 2e-4, 0.90, warmup=0.1, updates=120),
}
# Stage 1 from Whisper's weights: no weight strays farther than what a hundred updates in the same direction would do,
# however long it lasts. By reason, and not tuned.
PULL = 0.01
DEPTH: dict[Preset, int] = {"base": 4}  # of the encoder in stage 2, where measured: the layers above only cost time


def whisper(preset: Preset, depth: int = 0) -> EncoderSettings:
    """The encoder that a preset starts from: Whisper's own, and for the demo random weights, which need no download."""
    return EncoderSettings(preset, "random" if preset == "demo" else f"openai/whisper-{preset}", depth)


def picture_defaults(preset: Preset, sound: Sound, kind: EncoderKind) -> FinetuneCommand:
    """All settings for an encoder of another kind than Whisper's: usual rates of AdamW for such networks, not measured;
    and no blend, since the statistics of batch norms do not lie between those of two networks."""
    demo = preset == "demo"
    name = ("test_efficientnet" if demo else "tf_efficientnetv2_s.in21k_ft_in1k") if kind == "timm" else ""
    start = AnyEncoderSettings(preset, "hub" if kind == "timm" and not demo else "random", kind=kind, name=name)
    usual = FINETUNE["demo"] if demo else FinetuneSettings(20, 32, 1, 5e-4, 1e-3, warmup=0.1, updates=600)
    augment = AugmentSettings(mixup=0.25, mask=0.25, isolate=0.0) if demo else AugmentSettings()
    train = replace(usual, blend=1.0)
    data = data_defaults(preset)
    return FinetuneCommand(preset, data, start, train, augment=augment, sound=sound, audio=SOUNDS[sound])


def data_defaults(preset: Preset) -> DataSettings:
    """Where a preset looks for recordings."""
    return DataSettings(DEMO_DATA, synthetic_noise=0.0) if preset == "demo" else DataSettings(DATA_ROOT, workers=2)


Section = TypeVar("Section")
Settings = TypeVar("Settings")
Command = TypeVar(
    "Command",
    SurveyCommand,
    ProbeCommand,
    PretrainCommand,
    FinetuneCommand,
    QuantizeCommand,
    PredictCommand,
    PseudoLabelCommand,
    ReportCommand,
    CountCommand,
    SearchCommand,
    RefitCommand,
    ExperimentsCommand,
    PackCommand,
    PublishCommand,
)


def parse(command: type[Command], arguments: Sequence[str] | None = None) -> Command:
    """Settings of a command from the command line; --help teaches, a mistyped flag leaves with exit code 1."""
    given: list[str] = list(sys.argv[1:] if arguments is None else arguments)
    unneeded = {} if has_preset(command) else {"preset": NO_PRESET, "sound": NO_SOUND}
    if command is SurveyCommand:
        del unneeded["sound"]
    strange = NOT_OFFERED if command is PredictCommand else unneeded
    for word in given:
        name = word.partition("=")[0].lstrip("-").replace("-", "_")
        assert not (word.startswith("--") and name in strange), f"--{name} is not offered: {strange[name]}"
    early: EarlyFlags = early_flags(given)
    given = [*words_of_resumed(command, early.resume), *words_of_file(command, early.config), *early.rest]
    early = early_flags(given)
    default = default_command(command, early.preset, early.sound, early.kind)
    taught = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{OF_CONFIG}"
    try:
        return tyro.cli(command, args=given, default=default, description=taught, use_underscores=True)
    except SystemExit as leaving:  # argparse's habit of leaving with 2 means "some inputs failed" here
        raise SystemExit(1 if leaving.code else 0) from None


def has_preset(command: type[object]) -> bool:
    """Whether a command has settings that depend on the size of an encoder."""
    return any(field.name == "preset" for field in fields(cast(Any, command)))


def default_command(
    command: type[Settings], preset: Preset = "base", sound: Sound = "bird", kind: EncoderKind = "whisper"
) -> Settings:
    """All settings of a command that is given no flag, or --preset, --sound and --encoder.kind alone."""
    if command is FinetuneCommand:
        return cast(Settings, FinetuneCommand.defaults(preset, sound, kind))
    return cast(Settings, cast(Any, command).defaults(preset, sound) if has_preset(command) else command())


def part_of(kind: type[Section], command: object) -> Section:
    """The settings of a command that a smaller dataclass has under the same names."""
    return kind(**{field.name: getattr(command, field.name) for field in fields(cast(Any, kind))})


def from_facts(kind: type[Section], stored: object, path: Path) -> Section:
    """A section of settings as it travelled in a model file; what is damaged or foreign is refused."""
    defaults: dict[str, object] = {field.name: field.default for field in fields(cast(Any, kind))}
    given: dict[str, Any] = cast(dict[str, Any], stored) if isinstance(stored, dict) else {"": stored}
    for name, value in given.items():
        wanted = type(defaults.get(name))
        fits = name in defaults and (type(value) is wanted or (wanted is float and type(value) is int))
        assert fits, f"{path}: {kind.__name__} with {name[:40]!r} {str(value)[:40]!r}; make the model file again"
    return kind(**given)


class EarlyFlags(NamedTuple):
    """The flags that must be known before all others, whose defaults they decide; of two of a kind the last counts."""

    preset: Preset
    sound: Sound
    kind: EncoderKind
    config: str  # empty where it is not given
    resume: str
    rest: list[str]  # the command line without --config


def early_flags(arguments: Sequence[str]) -> EarlyFlags:
    """The early flags of a command line."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config", nargs="?", default="")
    rest = flags.parse_known_args(arguments)[1]
    flags.add_argument("--preset", nargs="?")
    flags.add_argument("--sound", nargs="?")
    flags.add_argument("--encoder.kind", dest="kind", nargs="?")
    flags.add_argument("--run.resume", dest="resume", nargs="?", default="")
    given = flags.parse_known_args(arguments)[0]
    known: list[Preset] = [preset for preset in PRESETS if preset == given.preset]
    preset = known[0] if known else "base"  # a mistyped one is refused with the rest
    sounds: list[Sound] = [sound for sound in SOUNDS if sound == given.sound]
    kinds: list[EncoderKind] = [kind for kind in get_args(EncoderKind) if kind == given.kind]
    sound, kind = sounds[0] if sounds else "bird", kinds[0] if kinds else "whisper"
    return EarlyFlags(preset, sound, kind, given.config or "", given.resume or "", rest)


def words_of_resumed(command: type[Command], folder: str) -> list[str]:
    """The command line of the run in a folder, as its run.json has it; empty where there is none to read.

    Settings that the command does not have are left out: whoever opens the run refuses it then, and says why.
    """
    try:
        stored: object = json.loads((Path(folder) / "run.json").read_bytes())["settings"] if folder else {}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):  # whoever opens the run says what is wrong
        return []
    return words_of(cast(object, stored), asdict(default_command(command))) if isinstance(stored, dict) else []


def words_of_file(command: type[Command], path: str) -> list[str]:
    """The settings of a file as flags: a run.json, or only what is under "settings" in it."""
    if not path:
        return []
    remedy = '--config takes the run.json of a run, or JSON with settings as its "settings" are'
    try:
        stored: object = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise AssertionError(f"{path} cannot be read ({error}); {remedy}") from None
    assert isinstance(stored, dict), f"{path} holds no settings; {remedy}"
    settings = cast(dict[str, object], stored)
    settings = cast(dict[str, object], settings["settings"]) if isinstance(settings.get("settings"), dict) else settings
    if not has_preset(command):  # an earlier version wrote one that meant nothing
        settings = {name: value for name, value in settings.items() if name != "preset"}
    known: dict[str, object] = {
        name: value for name, value in asdict(default_command(command)).items() if name not in POSITIONAL
    }
    foreign = unknown_names({name: value for name, value in settings.items() if name not in POSITIONAL}, known)
    assert not foreign, f"{path} has settings that this command does not know: {', '.join(foreign)[:80]}; {remedy}"
    return words_of(settings, known)


def unknown_names(stored: object, known: object, name: str = "") -> list[str]:
    """The settings, with their sections, that are stored and not known: train.epohcs."""
    if not isinstance(known, dict):
        return []
    if not isinstance(stored, dict):
        return [name]
    ours, found = cast(dict[str, object], known), list[str]()
    for key, value in cast(dict[str, object], stored).items():
        path = f"{name}.{key}".removeprefix(".")
        found += unknown_names(value, ours[key], path) if key in ours else [path]
    return found


def words_of(stored: object, known: object, name: str = "") -> list[str]:
    """Settings as flags: {"train": {"epochs": 3}} -> --train.epochs 3."""
    if isinstance(known, dict):
        given = cast(dict[str, object], stored) if isinstance(stored, dict) else {}
        inner = cast(dict[str, object], known).items()
        return [word for key, one in inner if key in given for word in words_of(given[key], one, f"{name}.{key}")]
    flag = f"--{name[1:]}"
    assert stored is not None or known is None, f"{flag} is null in the settings; give it a value, or leave it out"
    if isinstance(stored, bool):
        head, _, tail = flag.rpartition(".")
        return [flag if stored else f"{head}.no_{tail}" if head else f"--no_{flag[2:]}"]
    values = list(cast(Sequence[object], stored)) if isinstance(stored, list | tuple) else [stored]
    if flag in REPEATED:
        return [word for value in values for word in (flag, str(value))]
    if flag == "--run.resume":
        return []
    return [f"{flag}={stored}"] if isinstance(stored, str) else [flag, *map(str, values)]


def sound_words(sound: Sound) -> list[str]:
    """The flag that names the kind of sound, where it is not what it is without one."""
    return [] if sound == "bird" else ["--sound", sound]


def changed_words(name: str, section: object, usual: object) -> list[str]:
    """The flags that make a section of settings what it is: --data.root birds --data.folds 4."""
    given, known = (asdict(cast(Any, one)) for one in (section, usual))
    return words_of({key: value for key, value in given.items() if value != known[key]}, known, f".{name}")


if __name__ == "__main__":
    config = parse(FinetuneCommand, ["--preset", "demo", "--loss.alpha", "4", "--train.epochs", "3"])
    print(config)
    assert config.loss.alpha == 4.0 and config.train.epochs == 3
    assert config.encoder.size == "demo" and config.train.batch_size == FINETUNE["demo"].batch_size
