"""Encoders of other kinds than Whisper's: a network for pictures looks at the mel picture, its map becomes tokens.

    encoder = PictureEncoder(PictureSettings("timm", "resnet50"), AudioSettings(), rows=128)
    (tokens,) = encoder.layer_states(mel)      # (batch, tokens, width), as Whisper's encoder gives those of each layer

    mel (batch, rows, frames) -> picture (batch, channels, rows, frames), standardised
        -> map (batch, width, fewer rows, fewer frames) -> pooled over frequency -> tokens over time

timm gets the mel picture itself, one channel; AudioCNN and AudioViT get its cepstra (MFCC) and how they change, two.
Architecture alone: training/checkpoint.py reads weights, trainer.py fits the standardisation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import create_dct

from config import AudioSettings, PictureSettings

PICTURE_ROWS = 128  # mel channels, where --audio.mels says nothing else
COEFFICIENTS = 40  # of the cepstrum, the lowest
DELTA_FRAMES = 2  # before and behind, over which a slope is fitted
CNN_WIDTHS = (32, 64, 128, 256)
VIT_WIDTH, VIT_LAYERS, VIT_HEADS = 192, 6, 3
VIT_PATCH = (8, 10)  # coefficients, frames
GEM_POWER = 3.0  # at the start; 1 is the mean, infinity the maximum
SMALLEST = 1e-6


class PictureEncoder(nn.Module):
    """A network for pictures as an encoder of sound.

    forward        mel (batch, rows, frames) -> (batch, tokens, width)
    layer_states   the same as a list of one
    Of a context of several windows the tokens are brought to a multiple of their number, by linear interpolation.
    source    a two-dimensional backbone, frequency pooled away, and a head over time: the sound event detection
              models of BirdCLEF's winners, https://arxiv.org/abs/1912.10211 (PANNs)
    """

    def __init__(self, settings: PictureSettings, audio: AudioSettings, rows: int) -> None:
        super().__init__()
        self.settings = settings
        self.mels, self.channels = PICTURE_ROWS, rows
        self.depth = 1
        self.added = 0  # rows that the head gets directly: none
        self.checkpointing = False
        self.cepstra = Cepstra(rows) if settings.kind != "timm" else None
        channels, height = (1, rows) if self.cepstra is None else (2, COEFFICIENTS)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))
        self.network = build_network(settings, height, audio.frames)
        self.power = nn.Parameter(torch.full((), GEM_POWER)) if settings.frequency == "gem" else None
        windows = round(audio.context_seconds / audio.window_seconds)
        assert audio.frames % windows == 0, (
            f"--audio.context_seconds {audio.context_seconds:g} has {audio.frames} frames, no multiple of its "
            f"{windows} windows; give --audio.context_seconds another value, or that of --audio.window_seconds"
        )
        self.width, columns = self.measure(torch.zeros(1, channels, height, audio.frames))
        tokens = windows * max(1, round(columns / windows))
        self.between: Tensor | None
        spread = F.interpolate(torch.eye(columns)[None], size=tokens, mode="linear")[0].T if tokens != columns else None
        self.register_buffer("between", spread, persistent=False)  # (tokens, columns)

    def forward(self, mel: Tensor) -> Tensor:
        return self.layer_states(mel)[-1]

    def layer_states(self, mel: Tensor) -> list[Tensor]:
        """(batch, tokens, width), in a list of one."""
        found: Tensor = self.network((self.picture(mel) - self.mean) / self.deviation)
        tokens = self.pooled(found).transpose(1, 2)
        return [tokens if self.between is None else self.between @ tokens]

    def picture(self, mel: Tensor) -> Tensor:
        """(batch, rows, frames) -> (batch, channels, rows, frames), before it is standardised."""
        return mel[:, None] if self.cepstra is None else self.cepstra(mel)

    def pooled(self, found: Tensor) -> Tensor:
        """A map (batch, width, rows, columns) -> (batch, width, columns).

        source    GeM: https://arxiv.org/abs/1711.02512
        """
        found = found.float()
        if self.power is None:
            return found.mean(dim=2) + found.amax(dim=2)
        return found.clamp(min=SMALLEST).pow(self.power).mean(dim=2).clamp(min=SMALLEST).pow(1 / self.power)

    @torch.no_grad()
    def measure(self, picture: Tensor) -> tuple[int, int]:
        """Width and columns of the map that the network makes of a picture."""
        training = self.network.training
        try:
            found: Tensor = self.network.eval()(picture)
        except (AssertionError, RuntimeError) as error:
            why = str(error).partition("\n")[0] or "it does not say why"
            if "--encoder.name" in why:  # our own refusal
                raise
            raise AssertionError(
                f"--encoder.kind {self.settings.kind} {self.settings.name} takes no picture of {picture.shape[2]} "
                f"channels and {picture.shape[3]} frames ({why}); take another network (--encoder.name)"
            ) from error
        self.network.train(training)
        return found.shape[1], found.shape[3]


class Cepstra(nn.Module):
    """Mel picture -> mel-frequency cepstral coefficients and their deltas.

    forward   (batch, rows, frames) -> (batch, 2, coefficients, frames)
    The cosine transform is one matrix product; a delta is the slope of a line through five frames, one convolution.
    source    Davis and Mermelstein 1980; deltas as in torchaudio.functional.compute_deltas
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        assert rows >= COEFFICIENTS, (
            f"--audio.mels {rows}: {COEFFICIENTS} cepstral coefficients need as many; give {COEFFICIENTS} or more, or "
            "--encoder.kind timm"
        )
        steps = torch.arange(-DELTA_FRAMES, DELTA_FRAMES + 1.0)
        self.cosines: Tensor
        self.slope: Tensor
        self.register_buffer("cosines", create_dct(COEFFICIENTS, rows, "ortho"), persistent=False)
        self.register_buffer("slope", (steps / steps.square().sum())[None, None, None], persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        with torch.autocast(mel.device.type, enabled=False):
            cepstra = (mel.float().transpose(1, 2) @ self.cosines).transpose(1, 2)[:, None]
            first, last = cepstra[..., :1], cepstra[..., -1:]
            padded = torch.cat([*[first] * DELTA_FRAMES, cepstra, *[last] * DELTA_FRAMES], dim=3)
            return torch.cat([cepstra, F.conv2d(padded, self.slope)], dim=1)


def build_network(settings: PictureSettings, height: int, frames: int) -> nn.Module:
    """The network of a kind, from random weights: (batch, channels, height, frames) -> map."""
    if settings.kind == "cnn":
        least = 2 ** len(CNN_WIDTHS)
        assert frames >= least, (
            f"{frames} frames: --encoder.kind cnn halves them {len(CNN_WIDTHS)} times and needs {least}; give a longer "
            "--audio.context_seconds or a shorter --audio.hop_seconds"
        )
        return AudioCNN()
    if settings.kind == "vit":
        return AudioViT(height, frames)
    return TimmNetwork(settings.name)


class TimmFacts(NamedTuple):
    """What timm says of a network."""

    hub_id: str  # of its weights on the hub; empty where there are none
    first: tuple[str, ...]  # the names of the weights that see the colours
    classifier: tuple[str, ...]  # what the names of those begin with that are left out
    one_size: bool  # whether it takes pictures of one size alone
    license: str  # of the weights; empty where timm does not say


def timm_facts(name: str) -> TimmFacts:
    """What timm says of a network; a name that it does not know is refused."""
    import timm

    architecture, _, tag = name.partition(".")
    assert timm.is_model(architecture) and (not tag or name in timm.list_pretrained(name)), (
        f"timm {timm.__version__} knows no network {name[:60]!r}; resnet50, efficientnet_b0, regnety_016 are some, and "
        f"`python -c \"import timm; print(timm.list_models('*{name[:4]}*'))\"` lists others (--encoder.name)"
    )
    facts = timm.get_pretrained_cfg(name)
    first, classifier = (name if isinstance(name, tuple) else (name,) for name in (facts.first_conv, facts.classifier))
    return TimmFacts(
        facts.hf_hub_id or "",
        tuple(f"{stem}.weight" for stem in first if stem),
        tuple(f"{stem}." for stem in classifier if stem),
        facts.fixed_input_size,
        facts.license or "",
    )


class TimmNetwork(nn.Module):
    """A network of timm's for pictures of one channel, without its classifier.

    forward   (batch, 1, height, frames) -> (batch, width, fewer rows, fewer columns)
    Errors: a name that timm does not know, and networks that give no map or take pictures of one size alone.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm  # slow to import, and only used here

        assert not timm_facts(name).one_size, (
            f"--encoder.name {name} takes pictures of one size; take a convolutional network, or --encoder.kind vit"
        )
        try:
            self.body = timm.create_model(name, in_chans=1, num_classes=0, global_pool="")
        except (AssertionError, RuntimeError, TypeError) as error:
            raise AssertionError(
                f"timm's {name} does not do without its classifier ({error}); take another network (--encoder.name)"
            ) from error

    def forward(self, picture: Tensor) -> Tensor:
        found: Tensor = self.body.forward_features(picture)
        width = self.body.num_features
        assert found.ndim == 4 and width in (found.shape[1], found.shape[3]), (
            f"{type(self.body).__name__} gives {tuple(found.shape)}, no map over frequency and time; take a "
            "convolutional network (--encoder.name)"
        )
        return found if found.shape[1] == width else found.permute(0, 3, 1, 2)


class AudioCNN(nn.Module):
    """Eight convolutions in four steps, each of which halves height and length.

    forward   (batch, 2, height, frames) -> (batch, 256, height / 16, frames / 16)
    """

    def __init__(self) -> None:
        super().__init__()
        steps, before = list[nn.Module](), 2
        for width in CNN_WIDTHS:
            for inputs in (before, width):
                steps += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            steps.append(nn.MaxPool2d(2))
            before = width
        self.steps = nn.Sequential(*steps)

    def forward(self, picture: Tensor) -> Tensor:
        found: Tensor = self.steps(picture)
        return found


class AudioViT(nn.Module):
    """A small transformer on patches of the picture, with positions in frequency and in time.

    forward   (batch, 2, height, frames) -> (batch, 192, height / 8, frames / 10)
    source    https://arxiv.org/abs/2010.11929 (ViT), https://arxiv.org/abs/2104.01778 (AST)
    """

    def __init__(self, height: int, frames: int) -> None:
        super().__init__()
        rows, columns = height // VIT_PATCH[0], math.ceil(frames / VIT_PATCH[1])
        self.missing = columns * VIT_PATCH[1] - frames  # frames that the last patch lacks
        self.patches = nn.Conv2d(2, VIT_WIDTH, VIT_PATCH, VIT_PATCH)
        self.row = nn.Parameter(0.02 * torch.randn(VIT_WIDTH, rows, 1))
        self.column = nn.Parameter(0.02 * torch.randn(VIT_WIDTH, 1, columns))
        self.layers = nn.ModuleList(TransformerLayer() for _ in range(VIT_LAYERS))
        self.norm = nn.LayerNorm(VIT_WIDTH)

    def forward(self, picture: Tensor) -> Tensor:
        found = self.patches(F.pad(picture, (0, self.missing))) + self.row + self.column
        states = found.flatten(2).transpose(1, 2)
        for layer in self.layers:
            states = layer(states)
        tokens: Tensor = self.norm(states)
        map_of_tokens: Tensor = tokens.transpose(1, 2).unflatten(2, found.shape[2:])
        return map_of_tokens


class TransformerLayer(nn.Module):
    """Attention, then two linear layers, each behind a norm and added to what came in: (batch, tokens, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_products = nn.LayerNorm(VIT_WIDTH), nn.LayerNorm(VIT_WIDTH)
        self.queries_keys_values = nn.Linear(VIT_WIDTH, 3 * VIT_WIDTH)
        self.joined = nn.Linear(VIT_WIDTH, VIT_WIDTH)
        self.wide, self.narrow = nn.Linear(VIT_WIDTH, 4 * VIT_WIDTH), nn.Linear(4 * VIT_WIDTH, VIT_WIDTH)

    def forward(self, states: Tensor) -> Tensor:
        heads = self.queries_keys_values(self.before_attention(states)).unflatten(2, (3, VIT_HEADS, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        states = states + self.joined(attended.transpose(1, 2).flatten(2))
        both: Tensor = states + self.narrow(F.gelu(self.wide(self.before_products(states))))
        return both


if __name__ == "__main__":
    torch.manual_seed(0)
    audio, mel = AudioSettings(), torch.randn(2, PICTURE_ROWS, 500)
    for kind in ("cnn", "vit"):
        encoder = PictureEncoder(PictureSettings(kind), audio, PICTURE_ROWS).eval()
        tokens = encoder(mel)
        millions = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
        print(f"{encoder.settings.words}: {millions:.1f} M parameters, tokens {tuple(tokens.shape)}")
        assert torch.allclose(encoder(mel[:1]), tokens[:1], atol=1e-5), "a neighbour changed a token"
    rising = 0.1 * torch.arange(500.0).expand(1, PICTURE_ROWS, 500)
    cepstra, deltas = Cepstra(PICTURE_ROWS)(rising)[0]
    slope = 0.1 * math.sqrt(PICTURE_ROWS)  # of the lowest coefficient, which is the sum over the root of the number
    assert torch.allclose(deltas[0, 2:-2], torch.full((496,), slope), atol=1e-3) and cepstra[1:].abs().max() < 1e-2
