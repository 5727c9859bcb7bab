"""The networks: log-mel front end, Whisper encoder in a short context, shallow head, and stage 1's temporary decoder.

Architecture alone; no files are read or written here (training/checkpoint.py does that).

    waveforms (batch, samples) -> LogMel (batch, mels, frames) -> Encoder (batch, tokens, width) -> head -> logits

A frame is a hop of the settings (10 ms unless they say otherwise), a token is two frames. 5 s are 500 frames and 250
tokens; nothing is padded to Whisper's 30 s.
"""

from __future__ import annotations

import math
import warnings

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from config import SIZES, AudioSettings, EncoderSize, HeadSettings, PictureSettings
from encoders import PICTURE_ROWS, PictureEncoder
from heads import build_head, received_layers

LOCALITY = 30.0  # attention score of a decoder token for its own position, at the start
STEM_GAIN = 4.0  # of the two convolutions of an encoder that starts from random weights
WHISPER_RATE = 16_000  # Hz
WHISPER_POSITIONS = 1500  # 30 s, the longest context the position table was made for
WHISPER_FFT, WHISPER_BIN = 400, 40.0  # samples, and Hz between two bins
PCEN_SECONDS = 0.4  # over which a mel channel's loudness just before is averaged
PCEN_SCALE = 2.0**31  # of the power, as for samples of 32 bits
PCEN_GAIN, PCEN_OFFSET, PCEN_ROOT, PCEN_FLOOR = 0.98, 2.0, 0.5, 1e-6


class LogMel(nn.Module):
    """Waveform -> Whisper's log-mel picture at any geometry, each window normalised by its own maximum; or its PCEN.

    forward   (batch, samples) float32 -> (batch, channels, frames) float32, about -1 .. 2; frames = samples / hop
    At other rates, hops, FFTs and bands a tone or hiss of the same level, spread over as many bins, is as bright as at
    Whisper's own. At 32 kHz with nothing else chosen the picture has Whisper's frames and bins up to 8 kHz, and above
    them more of the same spacing up to 16 kHz; the maximum is taken below 8 kHz, so a loud cicada does not push a bird
    into the floor.
    The short-time Fourier transform is two products with tables of windowed cosines and sines, so that the layer
    exports to ONNX as plain matrix products and the served file gets exactly the input of training. Each frame is
    folded at its middle first: cosines see the even part, sines the odd one, at half the cost and rounding error.
    source    https://github.com/openai/whisper/blob/main/whisper/audio.py; other rates, hops and bands on the same
              channels: https://github.com/nianlonggu/WhisperSeg, audio_utils.py
    """

    def __init__(self, audio: AudioSettings, mels: int) -> None:
        super().__init__()
        self.hop, self.fft, self.samples = audio.hop, audio.fft_samples, audio.samples
        self.hop_seconds = audio.hop / audio.sample_rate
        half = self.fft // 2
        channels, highest = mel_channels(audio, mels)
        self.judged = mels if audio.wide else channels  # channels whose maximum decides where the floor is
        window = torch.hann_window(self.fft, dtype=torch.float64)[1 : half + 1, None]
        window = window * (WHISPER_FFT / self.fft)  # the same tone, the same power, at any geometry
        filters = mel_filters(audio, channels, highest)
        bins = used_bins(filters) if audio.lowest_hz or audio.highest_hz else slice(0, half + 1)
        angle = 2 * math.pi / self.fft * torch.outer(torch.arange(1, half + 1), torch.arange(half + 1)[bins]).double()
        self.cosines: Tensor
        self.sines: Tensor
        self.filters: Tensor
        self.register_buffer("cosines", (window * angle.cos()).float(), persistent=False)  # the last row: the middle
        self.register_buffer("sines", (window * angle.sin()).float()[:-1], persistent=False)
        self.register_buffer("filters", filters[bins], persistent=False)
        trained = audio.compression == "pcen_trained"
        self.pcen = None if audio.compression == "log" else Pcen(channels, audio.frames, self.hop_seconds, trained)

    def forward(self, waveforms: Tensor) -> Tensor:
        with torch.autocast(waveforms.device.type, enabled=False):
            assert waveforms.shape[1] == self.samples, f"waveforms of {waveforms.shape[1]} samples, not {self.samples}"
            half = self.fft // 2
            frames = self.frames(F.pad(waveforms.float()[:, None], (half, half), mode="reflect")[:, 0])
            rising, middle, falling = (
                frames[..., 1:half],
                frames[..., half : half + 1],
                frames[..., half + 1 :].flip(-1),
            )
            even = torch.cat([rising + falling, middle], dim=-1) @ self.cosines
            odd = (rising - falling) @ self.sines
            power = (even.square() + odd.square()) @ self.filters
            if self.pcen is not None:
                picture: Tensor = self.pcen(power.transpose(1, 2))
                return picture
            log = power.clamp(min=1e-10).log10()
            # per window: a loud neighbour must not change a quiet one
            floor = log[:, :, : self.judged].amax(dim=(1, 2), keepdim=True) - 8.0
            return ((torch.maximum(log, floor) + 4.0) / 4.0).transpose(1, 2)

    def frames(self, padded: Tensor) -> Tensor:
        """(batch, samples + fft) -> (batch, frames, fft): a frame is its hop, the next ones, and a part of the last."""
        count, hops_each = math.ceil(self.samples / self.hop), math.ceil(self.fft / self.hop)
        length = (count + hops_each - 1) * self.hop
        if length > self.samples + self.fft:  # of the last hop only a part is used, and never what is added here
            padded = F.pad(padded, (0, length - self.samples - self.fft))
        hops = padded[:, :length].reshape(-1, count + hops_each - 1, self.hop)
        parts = [hops[:, number : number + count] for number in range(hops_each)]
        parts[-1] = parts[-1][..., : self.fft - (hops_each - 1) * self.hop]
        return torch.cat(parts, dim=2)


class Pcen(nn.Module):
    """Per-channel energy normalisation: each mel channel relative to what it was like just before, then a root of it.

    forward   power (batch, channels, frames) -> the same shape, 0 of silence, about 1 of a sound that begins
    The average over what was before, a recursive filter, is one product with a table of its weights; so it exports to
    ONNX as that. Its time is fixed; trained are, of each channel, how much of the loudness is taken out (alpha), and
    offset (delta) and root (r) of the curve, all kept positive as logarithms.
    source    https://arxiv.org/abs/1607.05666 (Wang et al. 2017), equations 1 and 2 and its values; time and scale as
              in librosa.pcen; the first frame is taken to have lasted for ever
    """

    def __init__(self, channels: int, frames: int, hop_seconds: float, trained: bool) -> None:
        super().__init__()
        time = PCEN_SECONDS / hop_seconds
        share = (math.sqrt(1 + 4 * time**2) - 1) / (2 * time**2)  # of a new frame in the average
        age = torch.arange(frames)[None] - torch.arange(frames)[:, None]  # of frame (row) at frame (column)
        weights = torch.where(age >= 0, share * (1 - share) ** age.clamp(min=0).double(), 0.0)
        weights[0] /= share
        self.weights: Tensor
        self.register_buffer("weights", weights.float(), persistent=False)
        start = torch.tensor([PCEN_GAIN, PCEN_OFFSET, PCEN_ROOT]).log()[:, None, None].repeat(1, channels, 1)
        self.curve: Tensor
        if trained:
            self.curve = nn.Parameter(start)
        else:
            self.register_buffer("curve", start, persistent=False)

    def forward(self, power: Tensor) -> Tensor:
        power = power * PCEN_SCALE
        before = (power @ self.weights + PCEN_FLOOR).log()
        gain, offset, root = self.curve.exp().unbind(0)
        return (power * (-gain * before).exp() + offset) ** root - offset**root


class Encoder(nn.Module):
    """OpenAI's Whisper encoder as transformers builds it, run on as many frames as there are.

    forward   mel (batch, mels, frames) -> (batch, tokens, width), tokens = frames / 2 / the size's pool
              hidden (batch, tokens) bool, optional: tokens that are masked before the stem and left out of the
              output, the same number in every row -> (batch, tokens - n, width)
    Masking acts on the mel frames and once more behind the first convolution, where a mask edge then looks like the
    edge of a recording. Masking behind the stem instead would leak: its kernels reach across tokens.
    At 32 kHz the stem has more input channels (`added`), at first with weights of zero: what lies above 8 kHz changes
    nothing until it is learnt.
    """

    def __init__(self, size: EncoderSize, audio: AudioSettings | None = None) -> None:
        super().__init__()
        self.size, audio = size, audio or AudioSettings()
        refuse_broken_tokens(audio)
        refuse_broken_pools(audio, size.pool)
        self.mels, self.width, self.depth = size.mels, size.width, size.layers
        self.channels = mel_channels(audio, size.mels)[0]
        self.added = self.channels - size.mels if audio.wide else 0
        self.checkpointing = False  # compute each layer anew on the way back instead of keeping what it computed
        self.whisper = WhisperEncoder(whisper_config(size, self.channels))
        initialise(self.whisper, self.channels - self.added)
        freeze_positions(self.whisper)

    def forward(self, mel: Tensor, hidden: Tensor | None = None) -> Tensor:
        tokens_out: Tensor = self.whisper.layer_norm(self.layer_states(mel, hidden)[-1])
        return tokens_out

    def layer_states(self, mel: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """What each layer makes of the sound, before any norm: (batch, tokens, width) each, the last one last."""
        tokens = mel.shape[2] // 2
        assert mel.shape[2] % 2 == 0 and tokens <= WHISPER_POSITIONS, f"{mel.shape[2]} frames: even, at most 3000"
        whisper = self.whisper
        if hidden is None:
            states = F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel))))
        else:
            audible = (~hidden).repeat_interleave(2, dim=1)[:, None].to(mel.dtype)
            states = F.gelu(whisper.conv2(F.gelu(whisper.conv1(mel * audible)) * audible))
        states = states.transpose(1, 2) + whisper.embed_positions.weight[:tokens]  # before any token is dropped
        if hidden is not None:
            assert self.size.pool == 1, "masks hide single tokens, so none are pooled"
            keep = visible_indices(hidden)
            states = states.gather(1, keep[..., None].expand(-1, -1, states.shape[2]))
        if self.size.pool > 1:
            states = states.unflatten(1, (-1, self.size.pool)).mean(dim=2)
        every: list[Tensor] = []
        for layer in whisper.layers:
            if self.checkpointing and torch.is_grad_enabled():
                states = recomputed(layer, states)
            else:
                states = layer(states, None)
            every.append(states)
        return every


def recomputed(layer: nn.Module, states: Tensor) -> Tensor:
    """What a layer makes of its input, without remembering how: on the way back it is computed again."""
    # torch leaves this function untyped
    output: Tensor = torch.utils.checkpoint.checkpoint(layer, states, None, use_reentrant=False)  # pyright: ignore[reportUnknownVariableType, reportAssignmentType]
    return output


AnyEncoder = Encoder | PictureEncoder


def picture_encoder(settings: PictureSettings, audio: AudioSettings) -> PictureEncoder:
    """An encoder of another kind than Whisper's, for the mel picture of these settings."""
    return PictureEncoder(settings, audio, mel_channels(audio, PICTURE_ROWS)[0])


class BirdClefClassifier(nn.Module):
    """The species classifier: waveforms (batch, context samples) -> logits (batch * windows, species).

    A context holds one window or several; their answers follow each other, those of the first waveform first. The
    encoder sees the whole context; each window is then answered from its own tokens.
    """

    def __init__(self, encoder: AnyEncoder, audio: AudioSettings, species: int, head: HeadSettings) -> None:
        super().__init__()
        self.log_mel = LogMel(audio, encoder.mels)
        assert encoder.channels == mel_channels(audio, encoder.mels)[0], "an encoder for another number of mel channels"
        self.encoder = encoder
        self.windows = round(audio.context_seconds / audio.window_seconds)
        self.layers = received_layers(head, encoder.depth)
        self.head = build_head(encoder.width, len(self.layers), encoder.added, species, head)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))  # fitted after training; travels with the weights

    @property
    def whisper_encoder(self) -> Encoder:
        """The encoder, where it is Whisper's."""
        assert isinstance(self.encoder, Encoder), f"{self.encoder.settings.words} is no encoder of Whisper's"
        return self.encoder

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.answers(waveforms)[0]

    def answers(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch * windows, species) and embeddings (batch * windows, width) of every window of the contexts.

        An embedding is the mean over time and over the head's layers of the normalised tokens.
        """
        states, mel = self.window_states(self.log_mel(waveforms))
        logits: Tensor = self.head(self.head.summary(states, mel))
        normal = [F.layer_norm(state.float(), state.shape[2:]).mean(dim=1) for state in states]
        return logits / self.temperature, torch.stack(normal).mean(dim=0)

    def summaries(self, mel: Tensor) -> Tensor:
        """(batch, channels, frames) -> (batch, windows, ...): all that the head needs of each window."""
        summary: Tensor = self.head.summary(*self.window_states(mel)).unflatten(0, (len(mel), self.windows))
        return summary

    def context_logits(self, mel: Tensor) -> Tensor:
        """(batch, channels, frames) -> (batch, species): each species' best window of the context, which is what the
        labels of training are about."""
        return self.best_windows(self.summaries(mel))

    def best_windows(self, summaries: Tensor) -> Tensor:
        """(batch, windows, ...) -> (batch, species): each species' best window."""
        logits: Tensor = self.head(summaries.flatten(0, 1))
        best: Tensor = logits.unflatten(0, summaries.shape[:2]).amax(dim=1)
        return best

    def context_and_moment_logits(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and beside it each species' best single moment, (batch, species)."""
        states, mel_windows = self.window_states(mel)
        logits: Tensor = self.head(self.head.summary(states, mel_windows))
        moments = self.head.moments(states, mel_windows)
        best = logits.unflatten(0, (len(mel), self.windows)).amax(dim=1)
        return best, moments.reshape(len(mel), -1, best.shape[-1]).amax(dim=1)

    def window_states(self, mel: Tensor) -> tuple[list[Tensor], Tensor]:
        """(batch, channels, frames) -> the tokens of the head's layers, (batch * windows, tokens, width) each, and the
        log-mel picture (batch * windows, channels, frames) of every window."""
        every = self.encoder.layer_states(mel)
        states = [every[number - 1].unflatten(1, (self.windows, -1)).flatten(0, 1) for number in self.layers]
        return states, mel.unflatten(2, (self.windows, -1)).transpose(1, 2).flatten(0, 1)


class MaskedAutoencoder(nn.Module):
    """The encoder, and behind it a small transformer that reconstructs what was hidden. Only the encoder is kept.

    forward   mel (batch, channels, frames), hidden (batch, tokens) bool -> (batch, tokens, values), by default the
              2 * channels values of a token's log-mel picture
    The decoder's tokens look at visible tokens alone, and at first at the nearest ones: without that it takes it
    thousands of steps to find out that neighbours matter, and the encoder learns nothing meanwhile (LOG.md).
    source    https://arxiv.org/abs/2111.06377; attention to visible tokens as in https://arxiv.org/abs/2401.14391,
              the start after https://arxiv.org/abs/2305.09828
    """

    def __init__(self, encoder: Encoder, values: int = 0) -> None:
        super().__init__()
        size = encoder.size
        self.encoder = encoder
        self.project = nn.Linear(size.width, size.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(size.decoder_width))
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(WHISPER_POSITIONS, size.decoder_width), persistent=False)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                size.decoder_width,
                size.decoder_heads,
                4 * size.decoder_width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(size.decoder_layers)
        )
        self.norm = nn.LayerNorm(size.decoder_width)
        self.paint = nn.Linear(size.decoder_width, values or 2 * encoder.channels)
        nn.init.normal_(self.mask_token, std=0.02)
        for layer in self.layers:
            assert isinstance(layer, nn.TransformerEncoderLayer), "a layer of another kind"
            look_nearby(layer.self_attn, size.decoder_width, size.decoder_width // size.decoder_heads)

    def forward(self, mel: Tensor, hidden: Tensor) -> Tensor:
        return self.reconstruction(self.encoder(mel, hidden), hidden)

    def reconstruction(self, encoded: Tensor, hidden: Tensor) -> Tensor:
        """What the decoder makes of the encoder's output for the visible tokens: (batch, tokens, values)."""
        visible = self.project(encoded)
        keep = visible_indices(hidden)[..., None].expand(-1, -1, visible.shape[2])
        states = self.mask_token.to(visible.dtype).expand(*hidden.shape, -1).scatter(1, keep, visible)
        states = states + self.positions[: hidden.shape[1]]
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=hidden)
        reconstruction: Tensor = self.paint(self.norm(states))
        return reconstruction


class Imitation(nn.Module):
    """What a teacher would make of a segment of sound, by what some of the encoder's layers make of it.

    forward   states, a list of (batch, tokens, width), one for each layer; inside (batch, tokens) bool, which tokens
              belong to the segment, at least one in each row -> (batch, values)
    Each token of each layer is normalised, as the heads of stage 2 do that. Mean and maximum over the segment, and one
    linear layer on them; so what the teacher knows is laid down where such a head will look for it.
    """

    def __init__(self, size: EncoderSize, values: int) -> None:
        super().__init__()
        self.layers = received_layers(HeadSettings(), size.layers)
        self.norm = nn.LayerNorm(2 * len(self.layers) * size.width)
        self.project = nn.Linear(2 * len(self.layers) * size.width, values)

    def forward(self, states: list[Tensor], inside: Tensor) -> Tensor:
        parts: list[Tensor] = []
        counted = inside[..., None]
        with torch.autocast(inside.device.type, enabled=False):
            for number in self.layers:
                tokens = F.layer_norm(states[number - 1].float(), states[number - 1].shape[2:])
                parts.append((tokens * counted).sum(dim=1) / counted.sum(dim=1))
                parts.append(tokens.masked_fill(~counted, -torch.inf).amax(dim=1))
            vectors: Tensor = self.project(self.norm(torch.cat(parts, dim=1)))
            return vectors


class Imitator(nn.Module):
    """The encoder, and behind it a small projection to a teacher's embeddings. Only the encoder is kept.

    forward   mel (batch, channels, frames), inside (batch, tokens) bool -> (batch, values)
    """

    def __init__(self, encoder: Encoder, values: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.imitation = Imitation(encoder.size, values)

    def forward(self, mel: Tensor, inside: Tensor) -> Tensor:
        vectors: Tensor = self.imitation(self.encoder.layer_states(mel), inside)
        return vectors


class ImitatingAutoencoder(MaskedAutoencoder):
    """The autoencoder that says, besides, what a teacher would make of a segment of which it sees a part.

    both      mel, hidden as in forward; inside (batch, tokens) bool
              -> reconstruction (batch, tokens, values), vectors (batch, teacher's values)
    """

    def __init__(self, encoder: Encoder, values: int) -> None:
        super().__init__(encoder)
        self.imitation = Imitation(encoder.size, values)

    def both(self, mel: Tensor, hidden: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        states = self.encoder.layer_states(mel, hidden)
        seen = inside.gather(1, visible_indices(hidden))
        seen = seen | ~seen.any(dim=1, keepdim=True)  # all that is visible, where nothing of the segment is
        vectors: Tensor = self.imitation(states, seen)
        return self.reconstruction(self.encoder.whisper.layer_norm(states[-1]), hidden), vectors


def look_nearby(attention: nn.MultiheadAttention, width: int, head: int) -> None:
    """Let attention begin as a look at what has a similar position: queries equal keys, values pass through."""
    same, chance = torch.eye(width), 0.3 / math.sqrt(width)
    gains = (math.sqrt(LOCALITY / math.sqrt(head)),) * 2 + (1.0,)
    with torch.no_grad():
        start = torch.cat([gain * same + chance * torch.randn(width, width) for gain in gains])
        attention.in_proj_weight.copy_(start)
        attention.out_proj.weight.copy_(same + chance * torch.randn(width, width))


def visible_indices(hidden: Tensor) -> Tensor:
    """(batch, tokens) bool -> (batch, tokens - n) sorted indices of what is not hidden; n must not differ by row."""
    visible = int((~hidden[0]).sum())
    return hidden.to(torch.int8).argsort(dim=1, stable=True)[:, :visible]


def token_values(mel: Tensor) -> Tensor:
    """(batch, mels, frames) -> (batch, tokens, 2 * mels): the two frames of each token side by side."""
    return mel.transpose(1, 2).reshape(mel.shape[0], mel.shape[2] // 2, 2 * mel.shape[1])


def token_picture(values: Tensor) -> Tensor:
    """The way back from token_values: (batch, tokens, 2 * mels) -> (batch, mels, frames)."""
    return values.reshape(values.shape[0], 2 * values.shape[1], values.shape[2] // 2).transpose(1, 2)


def sinusoids(positions: int, width: int) -> Tensor:
    """Whisper's position table: (positions, width)."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angle = torch.arange(positions)[:, None] * rates[None]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def mel_channels(audio: AudioSettings, mels: int) -> tuple[int, float]:
    """How many mel channels a geometry has, and the frequency in Hz at which the last one ends.

    mels      that the encoder's size has. In the wide picture of 32 kHz the first of them are Whisper's, and those
              above go on at the same spacing on the mel scale; in any other there are as many, or --audio.mels
    source    Slaney's scale: linear to 1 kHz, 27 steps for each factor of 6.4 above
    """
    if not audio.wide:
        return audio.mels or mels, audio.top_hz
    step = math.log(6.4) / 27
    top = 15 + math.log(WHISPER_RATE / 2 / 1000) / step
    spacing = top / (mels + 1)
    extra = round((math.log(audio.sample_rate / WHISPER_RATE) / step) / spacing)
    return mels + extra, 1000 * math.exp((top + extra * spacing - 15) * step)


def mel_filters(audio: AudioSettings, channels: int, highest: float) -> Tensor:
    """(bins, channels): triangles on Slaney's mel scale, whose areas are as many bins as Whisper's, whatever a bin's
    width. Channels so narrow that none of the bins lies in them are refused."""
    bins = audio.fft_samples // 2 + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is refused here
        filters = melscale_fbanks(bins, audio.lowest_hz, highest, channels, audio.sample_rate, "slaney", "slaney")
    empty = int((filters.amax(dim=0) == 0).sum())
    assert not empty, (
        f"{empty} of {channels} mel channels from {audio.lowest_hz:g} to {highest:g} Hz lie between two bins of an FFT "
        f"of {audio.fft_samples} samples; give a longer --audio.fft, such as {2 * audio.fft_samples}, or fewer "
        "--audio.mels"
    )
    return filters * (audio.sample_rate / audio.fft_samples / WHISPER_BIN)


def used_bins(filters: Tensor) -> slice:
    """The bins (of the first axis) from the first to the last that any channel takes."""
    used = filters.any(dim=1).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1)


def refuse_broken_tokens(audio: AudioSettings) -> None:
    """Refuse windows that are no whole number of tokens."""
    token = 2 * audio.hop
    windows = round(audio.context_seconds / audio.window_seconds)
    assert audio.samples % (token * windows) == 0, (
        f"--audio.window_seconds {audio.window_seconds:g} --audio.context_seconds {audio.context_seconds:g}: give "
        f"multiples of {token / audio.sample_rate:g}, which is a token of two hops of {audio.hop_seconds:g} s"
    )


def refuse_broken_pools(audio: AudioSettings, pool: int) -> None:
    """A window has to hold a whole number of pooled tokens."""
    tokens = audio.window_tokens
    assert tokens % pool == 0, (
        f"{pool} tokens cannot be pooled: a window of {audio.window_seconds:g} s has {tokens}; give --encoder.pool one "
        f"of {', '.join(str(number) for number in range(1, tokens + 1) if tokens % number == 0)}"
    )


def whisper_config(size: EncoderSize, channels: int = 0) -> WhisperConfig:
    """What transformers needs to know to build an encoder of this size, with more mel channels where there are more."""
    return WhisperConfig(
        num_mel_bins=channels or size.mels,
        d_model=size.width,
        encoder_layers=size.layers,
        encoder_attention_heads=size.heads,
        encoder_ffn_dim=4 * size.width,
        max_source_positions=WHISPER_POSITIONS,
    )


def initialise(whisper: WhisperEncoder, mels: int) -> None:
    """Random weights from which a small encoder can learn on its own.

    With the library's weights of deviation 0.02 the sound that leaves the stem is twenty to sixty times weaker than
    the position table added to it, and an encoder without a checkpoint learns nothing for thousands of steps. Here the
    stem's kernels sum to zero, so that it sees changes over time and frequency and not the level, and are large
    enough for the sound to stand above the positions (LOG.md has the measurements).
    """
    for module in whisper.modules():
        if isinstance(module, nn.Conv1d):
            known = module.weight if module is not whisper.conv1 else module.weight[:, :mels]
            with torch.no_grad():
                kernel = nn.init.kaiming_normal_(torch.empty_like(known))
                module.weight.zero_()
                known.copy_((kernel - kernel.mean(dim=(1, 2), keepdim=True)) * STEM_GAIN)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


def freeze_positions(whisper: WhisperEncoder) -> None:
    """The position table stays as it is; loading a checkpoint the usual way would make it trainable."""
    whisper.embed_positions.weight.requires_grad_(False)


if __name__ == "__main__":
    audio, size = AudioSettings(), SIZES["demo"]
    model = BirdClefClassifier(Encoder(size), audio, species=5, head=HeadSettings()).eval()
    waveforms = torch.randn(2, 80_000) * torch.tensor([[0.1], [0.001]])
    mel = model.log_mel(waveforms)
    print(
        "log-mel", tuple(mel.shape), "tokens", tuple(model.encoder(mel).shape), "logits", tuple(model(waveforms).shape)
    )
    hidden = torch.arange(250).expand(2, -1) % 3 != 0
    picture = MaskedAutoencoder(model.whisper_encoder)(mel, hidden)
    print("seen", int((~hidden[0]).sum()), "of 250 tokens, reconstruction", tuple(picture.shape))
    assert picture.shape == (2, 250, 160) and torch.equal(token_picture(token_values(mel)), mel)
    assert torch.allclose(model(waveforms)[1:], model(waveforms[1:]), atol=1e-5), "a neighbour changed a score"
