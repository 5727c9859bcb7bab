"""Every weight file of training, in both directions: Whisper from the hub or a folder, our encoder, our classifier.

    encoder = load_encoder(config.encoder, config.audio)   # hub name, folder, encoder.safetensors
    encoder = load_any_encoder(config.encoder, config.audio)  # the same, or a network of timm's, AudioCNN, AudioViT
    save_classifier(path, model, facts)                       # tensors and what must be known about them, in one file

Only safetensors are read, and of timm's weights a .pth of tensors alone. Every tensor is checked against the network by
name, shape and content, so that nothing is ever left silently random; our own files hold their digest, so that a
flipped bit is found.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from archive.licences import shortened
from config import (
    MOST_FRAMES,
    PRESETS,
    SIZES,
    AnyEncoderSettings,
    AudioSettings,
    EncoderSettings,
    EncoderSize,
    HeadSettings,
    PictureSettings,
    PooledEncoderSettings,
    Pooling,
    Preset,
    encoder_in_words,
    encoder_size,
    from_facts,
    size_in_words,
)
from encoders import TimmNetwork, timm_facts
from evaluation.calibration import Thresholds, thresholds_from_json, thresholds_to_json
from heads import build_head, received_layers
from model import AnyEncoder, BirdClefClassifier, Encoder, freeze_positions, picture_encoder, whisper_config
from runtime import processes
from runtime.digests import blank, state_of, write_digest
from runtime.files import FIRST, json_object, publish, read_json
from runtime.terminal import show
from taxonomy import Taxonomy, from_json, to_json

FORMAT = 3  # of the facts; a file with a higher number was written by a later version
MOST_LAYERS = 1_000  # that a head receives
LARGEST_CARD = 2**20  # bytes of a model card
LARGEST_FILE = 2**34  # bytes: more than the largest Whisper, encoder and decoder in float32
SHARD = re.compile(r"model[\w.-]{,100}\.safetensors")
NEEDED = {  # facts of a file by its kind
    "encoder": frozenset({"format", "size", "audio", "provenance"}),
    "features": frozenset({"format", "made_of"}),
    "classifier": frozenset(
        {"format", "size", "audio", "head", "taxonomy", "provenance", "thresholds", "rank_thresholds"}
    ),
}
COUNTER = "num_batches_tracked"
HUB_PREFIX = "model.encoder."  # where transformers keeps the encoder in a Whisper checkpoint
PREFIXES = (HUB_PREFIX, "encoder.", "model.audio_tower.", "audio_tower.")  # and where others do
BARE = ("conv1.", "conv2.", "embed_positions.", "layers.", "layer_norm.")  # of an audio tower saved by itself
KINDS = {  # model_type in config.json -> under which key its encoder is described, or at the top
    "whisper": "",
    **dict.fromkeys(("qwen2_audio", "voxtral", "audioflamingo3"), "audio_config"),
    **dict.fromkeys(("qwen2_audio_encoder", "voxtral_encoder", "audioflamingo3_encoder"), ""),
}
TOWER = {"num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20}  # where unsaid


@dataclass(frozen=True)
class ClassifierFacts:
    """What a classifier's file says of itself; quantize.py hands it on to the ONNX file."""

    size: Preset
    audio: AudioSettings
    head: HeadSettings
    taxonomy: Taxonomy
    provenance: dict[str, object]
    thresholds: Thresholds = field(default_factory=Thresholds)  # once fitted on held-out recordings
    depth: int = 0  # layers of the encoder that were kept, the lowest ones; 0: all
    pool: int = 1  # neighbouring tokens that become one behind its stem
    picture: PictureSettings | None = None  # an encoder of another kind than Whisper's; size is then its preset's alone

    @property
    def encoder(self) -> EncoderSize:
        """The dimensions of Whisper's encoder, as far as it was kept."""
        assert self.picture is None, f"{self.picture.words} has no dimensions of Whisper's"
        return encoder_size(self.size, self.depth, self.pool)

    @property
    def words(self) -> str:
        """The encoder in words: base, the lowest 4 of 6 layers."""
        return encoder_in_words(self.size, 0 if self.picture else self.encoder.layers, self.pool, self.picture)


def load_encoder(settings: EncoderSettings, audio: AudioSettings) -> Encoder:
    """The encoder that `--encoder.weights` names, float32, with a frozen position table.

    Errors: a source that is missing, of another size, of another window, incomplete or damaged is refused in one line.
    """
    source, size, depth = settings.weights, settings.size, settings.depth
    pool = settings.pool if isinstance(settings, PooledEncoderSettings) else 1
    assert source == "random" or audio.mels in (0, SIZES[size].mels), (
        f"--audio.mels {audio.mels}: {source} takes {SIZES[size].mels} mel channels; leave the flag out, or give "
        "--encoder.weights random"
    )
    if source == "random":
        encoder = Encoder(encoder_size(size, depth, pool), audio)
        show(f"encoder {size_in_words(size, encoder.size.layers, pool)}: random weights")
        return encoder
    if source.endswith(".safetensors"):
        tensors, found = own_encoder(Path(source), size, audio)
    elif Path(source).is_dir():
        tensors, found = hub_encoder(Path(source), size)
    else:
        assert is_hub_name(source), (
            f"no encoder at {source}; --encoder.weights takes an encoder.safetensors, {other_sources(size)}"
        )
        tensors, found = hub_encoder(from_hub(source), size)
    assert depth <= found, f"--encoder.depth {depth}: {source} has {found} layers; give at most as many, or 0 for all"
    kept = depth or found
    tensors = {name: tensor for name, tensor in tensors.items() if not kept <= layer_of_tensor(name) < found}
    encoder = Encoder(encoder_size(size, kept, pool), audio)
    fill_weights(
        encoder.whisper, with_more_channels(lengthened(tensors, encoder, audio, source), encoder.channels), source
    )
    freeze_positions(encoder.whisper)
    millions = sum(tensor.numel() for tensor in tensors.values()) / 1e6
    show(f"encoder {size_in_words(size, kept, pool)}: {source}, {millions:.1f} M parameters")
    return encoder


def load_any_encoder(settings: AnyEncoderSettings, audio: AudioSettings) -> AnyEncoder:
    """The encoder of any kind that `--encoder.kind` names.

    Errors: as load_encoder; weights that are not those of the network that --encoder.name names.
    """
    picture, source = settings.picture, settings.weights
    if picture is None:
        return load_encoder(settings, audio)
    assert processes.count() == 1, (
        f"--encoder.kind {settings.kind} trains in one process: its norms are over a batch, which several would divide"
    )
    assert source == "random" or picture.kind == "timm", (
        f"--encoder.weights {source}: nobody has published weights of {picture.words}; leave it out (random)"
    )
    encoder = picture_encoder(picture, audio)
    if isinstance(encoder.network, TimmNetwork) and source != "random":
        fill_timm(encoder.network, picture.name, source)
    millions = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    origin = f"{source} weights" if source in ("hub", "random") else source
    show(f"encoder {picture.words}: {origin}, {millions:.1f} M parameters")
    return encoder


def fill_timm(network: TimmNetwork, name: str, source: str) -> None:
    """Give a network of timm's the weights of the hub or of a file, which must be all of its own; those of its
    classifier are left out, and its first convolution gets the sum over the colours."""
    facts = timm_facts(name)
    path = Path(source)
    if source == "hub":
        assert facts.hub_id, (
            f"timm has no weights of {name} on the hub; add --encoder.weights random, or a file of them"
        )
        path = fetched(facts.hub_id, ["model.safetensors"], "--encoder.weights and a file of them")
        path = path / "model.safetensors"
    assert path.is_file(), (
        f"no weights at {path}; --encoder.weights takes `hub`, a file of timm's weights (.safetensors, .pth) or random"
    )
    tensors = open_tensors(path, ("",), "download it again")[0] if path.suffix == ".safetensors" else pickled(path)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(facts.classifier)}
    for stem in facts.first:
        kernel = kept.get(stem)
        if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
            kept[stem] = kernel.float().sum(dim=1, keepdim=True)
    fill_weights(network.body, kept, str(path), f"weights of timm's {name}")


def pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dictionary that torch.save wrote; anything else in such a file is refused unopened."""
    refuse_giant(path, "download it again")
    try:
        stored: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own and pickle's errors share no narrower type
        said = str(error).split("\n")[0][:120]
        raise AssertionError(f"{path} is damaged or holds more than tensors ({said}); give a .safetensors") from error
    found = cast(dict[object, object], stored) if isinstance(stored, dict) else {}
    tensors = {str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    assert tensors, f"{path} holds no state dictionary; give a .safetensors of timm's weights"
    return tensors


def other_sources(size: Preset) -> str:
    """What --encoder.weights takes beside a file of stage 1; nobody has published an encoder of the size `demo`."""
    if size == "demo":
        return "or random (weights are on the hub for other presets: --preset base)"
    return f"a hub name such as openai/whisper-{size}, a local folder in the hub's format, or random"


def size_of_weights(weights: str) -> Preset | None:
    """The size of what `--encoder.weights` names, as its file says; None for random weights and what is not there.

    A hub name is looked for in the local cache and on the network.
    """
    path = Path(weights)
    if weights.endswith(".safetensors") and path.is_file():
        size: Preset = read_tensors(path, "encoder", "`python ssl_mae.py` writes one")[1]["size"]
        assert size in PRESETS, f"{path}: unknown size {str(size)[:40]}; make the file again"
        return size
    if path.is_dir():
        return preset_of(path)[0]
    return preset_of(from_hub(weights))[0] if is_hub_name(weights) else None


def encoder_audio(weights: str) -> AudioSettings:
    """The sound that an encoder was made for: as its file says, or Whisper's own."""
    if not weights.endswith(".safetensors"):
        return AudioSettings()
    path = Path(weights)
    return from_facts(AudioSettings, read_tensors(path, "encoder", "`python ssl_mae.py` writes one")[1]["audio"], path)


def layer_of_tensor(name: str) -> int:
    """12 for layers.12.fc1.weight, -1 outside the layers."""
    found = re.match(r"layers\.(\d{1,4})\.", name)
    return int(found[1]) if found else -1


def stage_one(source: str) -> dict[str, object]:
    """What is known of where weights come from: of an encoder.safetensors, or the folder whisper/ beside it, here or on
    the hub, what it says of the run that made it; of another checkpoint the `license` that its model card names.
    """
    path, remedy = Path(source), "`python ssl_mae.py` writes one"
    if path.suffix == ".safetensors" and path.is_file():
        provenance: dict[str, object] = read_tensors(path, "encoder", remedy)[1]["provenance"]
        return provenance
    folder = from_hub(source) if is_hub_name(source) else path
    own = folder / "model.safetensors"
    if own.is_file() and "wild_whisper" in open_tensors(own, (), remedy)[1]:
        return stage_one(str(own))
    licence = licence_of_card(folder / "README.md")
    return {"license": licence} if licence else {}


def licence_of_card(card: Path) -> str:
    """The licence in the head of a model card, as the hub writes it; empty where none is named.

    source    https://huggingface.co/docs/hub/repositories-licenses (`other` has its name in license_name)
    """
    if not card.is_file() or card.stat().st_size > LARGEST_CARD:
        return ""
    try:
        head = cast(object, huggingface_hub.metadata_load(card))
    except Exception as error:  # YAML's own errors share no narrower type with the hub's
        said = str(error).partition("\n")[0]
        show(f"{card} does not say on what terms it may be used: its head is damaged ({said})")
        return ""
    facts = cast(dict[str, object], head) if isinstance(head, dict) else {}
    known = facts.get("license")
    found = (facts.get("license_name"), known) if known == "other" else (known,)
    return next((shortened(one) for one in found if isinstance(one, str) and one), "")  # a list may be without end


def is_hub_name(source: str) -> bool:
    """Whether `--encoder.weights` names a checkpoint of the hub, as owner/name."""
    path = source.startswith((".", "/", "~")) or source.endswith((".safetensors", ".pth")) or Path(source).exists()
    return source.count("/") == 1 and not path


def save_encoder(
    path: Path, encoder: Encoder, size: Preset, audio: AudioSettings, provenance: dict[str, object]
) -> None:
    """encoder.safetensors, its tensors named as in a Whisper checkpoint of the hub.

    Beside it whisper/, a folder in the hub's format with the same file under the hub's name:
    `WhisperModel.from_pretrained("runs/mae/whisper").encoder` is the same encoder in transformers.
    """
    tensors = {f"{HUB_PREFIX}{name}": tensor for name, tensor in encoder.whisper.state_dict().items()}
    facts: dict[str, object] = {"kind": "encoder", "size": size, "depth": encoder.size.layers}
    facts |= {"audio": asdict(audio), "provenance": provenance}
    write_tensors(path, tensors, facts)
    if not FIRST:
        return
    folder = path.parent / "whisper"
    folder.mkdir(exist_ok=True)
    with publish(folder / "config.json") as temporary:
        whisper_config(encoder.size, encoder.channels).to_json_file(temporary)
    with publish(folder / "model.safetensors") as temporary:
        try:
            temporary.hardlink_to(path)
        except OSError:  # not every file system has hard links
            shutil.copyfile(path, temporary)


def save_classifier(path: Path, model: BirdClefClassifier, facts: ClassifierFacts) -> None:
    """classifier.safetensors: the encoder and the head, with labels, lineage and audio geometry inside."""
    if facts.picture is None:
        kept, reported = (
            size_in_words(facts.size, one.layers, one.pool) for one in (model.whisper_encoder.size, facts.encoder)
        )
        assert kept == reported, f"not writing {path}: an encoder {kept}, and facts that speak of {reported}"
    plain = {
        "kind": "classifier",
        "size": facts.size,
        "depth": facts.depth,
        "pool": facts.pool,
        "audio": asdict(facts.audio),
        "head": asdict(facts.head),
        "taxonomy": to_json(facts.taxonomy),
        "provenance": facts.provenance,
        **thresholds_to_json(facts.thresholds),
    } | ({"picture": asdict(facts.picture)} if facts.picture else {})
    write_tensors(path, model.state_dict(), plain)


def load_classifier(path: Path) -> tuple[BirdClefClassifier, ClassifierFacts]:
    """The network and its facts, from one file."""
    assert path.is_file(), f"no classifier at {path}; `python main.py` writes one, or point --classifier at yours"
    tensors, plain = read_tensors(path, "classifier", "`python main.py` writes one")
    head = from_facts(HeadSettings, plain["head"], path)
    assert plain["size"] in PRESETS and head.pooling in get_args(Pooling), (
        f"{path}: unknown size {plain['size']} or pooling {head.pooling}"
    )
    taxonomy = from_json(plain["taxonomy"])
    picture = from_facts(PictureSettings, plain["picture"], path) if "picture" in plain else None
    assert picture is None or picture.known, f"{path}: unknown encoder {str(picture)[:80]}; make the classifier again"
    facts = ClassifierFacts(
        plain["size"],
        from_facts(AudioSettings, plain["audio"], path),
        head,
        taxonomy,
        plain["provenance"],
        thresholds_from_json(plain, taxonomy.labels, path),
        depth_of(plain, plain["size"], path),
        pool_of(plain, path),
        picture,
    )
    with torch.device("meta") if picture else nullcontext():  # networks of timm's are as large as their name says
        encoder = picture_encoder(picture, facts.audio) if picture else Encoder(facts.encoder, facts.audio)
    check_head(head, encoder, len(facts.taxonomy.labels), tensors, path)
    if picture:
        own = {name: one for name, one in tensors.items() if name.startswith("encoder.") and not name.endswith(COUNTER)}
        own = {name.removeprefix("encoder."): one for name, one in own.items()}
        check_tensors(encoder, own, str(path), f"classifier with {picture.words}")
        encoder = picture_encoder(picture, facts.audio)
    model = BirdClefClassifier(encoder, facts.audio, len(facts.taxonomy.labels), facts.head)
    fill_weights(model, tensors, str(path), "classifier")
    if isinstance(model.encoder, Encoder):
        freeze_positions(model.encoder.whisper)
    return model.eval(), facts


def depth_of(facts: Mapping[str, Any], size: Preset, path: Path) -> int:
    """How many layers a file of ours says it has, 0: all; files of an earlier version say nothing and have all."""
    depth = facts.get("depth", 0)
    assert type(depth) is int and 0 <= depth <= SIZES[size].layers, (
        f"{path}: {str(depth)[:40]!r} layers of an encoder of size {size}; make the file again"
    )
    return depth


def pool_of(facts: Mapping[str, Any], path: Path) -> int:
    """How many tokens a file of ours says become one; files of an earlier version say nothing, and it is none."""
    pool = facts.get("pool", 1)
    assert type(pool) is int and 1 <= pool <= MOST_FRAMES // 2, (
        f"{path}: {str(pool)[:40]!r} tokens pooled; make the file again"
    )
    return pool


def check_head(
    settings: HeadSettings, encoder: AnyEncoder, species: int, tensors: dict[str, Tensor], path: Path
) -> None:
    """Refuse a head that is larger than the file, before any memory is asked for it."""
    within = 1 <= settings.layers <= MOST_LAYERS and 0 <= settings.dropout < 1
    assert within, f"{path}: a head of {settings}; make the classifier again"
    with torch.device("meta"):
        layers = len(received_layers(settings, encoder.depth))
        head = build_head(encoder.width, layers, encoder.added, species, settings)
    wanted = sum(part.numel() for part in head.parameters())
    there = sum(tensor.numel() for tensor in tensors.values())
    assert wanted <= there, f"{path} speaks of a head of {wanted} numbers and holds {there}; make the classifier again"


def own_encoder(path: Path, size: Preset, audio: AudioSettings) -> tuple[dict[str, Tensor], int]:
    """The tensors of an encoder.safetensors and how many layers it has, after a look at what it says of itself."""
    assert path.is_file(), (
        f"no encoder at {path}; `python ssl_mae.py` writes it, or give --encoder.weights {other_sources(size)}"
    )
    tensors, facts = read_tensors(path, "encoder", "`python ssl_mae.py` writes one")
    assert facts["size"] == size, f"{path} is of size {facts['size']}, not {size}; add --preset {facts['size']}"
    stored = from_facts(AudioSettings, facts["audio"], path)
    asked = replace(audio, compression="pcen") if audio.compression == "pcen_trained" else audio  # a curve begins as it
    assert stored == asked, (
        f"{path} was made for {stored}, this run asks for {audio}; give both stages the same --audio flags"
    )
    layers = depth_of(facts, size, path) or SIZES[size].layers
    return {name.removeprefix(HUB_PREFIX): tensor for name, tensor in tensors.items()}, layers


def hub_encoder(folder: Path, size: Preset) -> tuple[dict[str, Tensor], int]:
    """The encoder's tensors and how many layers it has, from a folder in the hub's format: config.json and
    model.safetensors, whole or in shards.

    Only dimensions are taken from config.json and only safetensors are opened: nothing in the folder is executed.
    """
    named, layers = preset_of(folder)
    assert named == size, f"{folder} is of size {named}, not {size}; add --preset {named}"
    found: dict[str, Tensor] = {}
    for prefixes in (PREFIXES, BARE):
        for path in () if found else weight_files(folder, prefixes):
            found |= open_tensors(path, prefixes, "download it again")[0]
    assert found, f"{folder} holds no tensor of a Whisper encoder"
    return {without_prefix(name): tensor for name, tensor in found.items()}, layers


def without_prefix(name: str) -> str:
    """layers.0.fc1.weight for model.encoder.layers.0.fc1.weight."""
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def preset_of(folder: Path) -> tuple[Preset, int]:
    """The size of a folder in the hub's format and how many layers it has, out of its config.json: Whisper itself,
    what was trained on from it, or an audio tower of its shape.

    source    the encoders of these kinds are built alike in transformers; they differ in what follows the last layer,
              which is left out: Qwen2-Audio's tower halves the tokens before its last norm
    """
    config_path = folder / "config.json"
    assert config_path.is_file(), f"{folder} has no config.json: no folder in the hub's format"
    config = read_json(config_path, "download it again")
    kind = config.get("model_type")
    assert isinstance(kind, str) and kind in KINDS, (
        f"{config_path} is of type {str(kind)[:40]}, not whisper, nor an audio tower of its shape ({', '.join(KINDS)})"
    )
    tower: Any = config.get(KINDS[kind]) if KINDS[kind] else config
    assert isinstance(tower, dict), f"{config_path} does not describe its {KINDS[kind]}; download it again"
    usual: Mapping[str, object] = {} if kind == "whisper" else TOWER
    bins, width, layers, heads = (cast(dict[str, Any], tower).get(key, usual.get(key)) for key in TOWER)
    for preset in PRESETS:
        whole = SIZES[preset]
        fits = (bins, width, heads) == (whole.mels, whole.width, whole.heads)
        if fits and type(layers) is int and 1 <= layers <= whole.layers:
            return preset, layers
    raise AssertionError(
        f"{folder}: mel bins, width, layers, heads are {(bins, width, layers, heads)}; Whisper encoders of {SIZES} are "
        "understood, and those with fewer layers"
    )


def lengthened(tensors: dict[str, Tensor], encoder: Encoder, audio: AudioSettings, source: str) -> dict[str, Tensor]:
    """A checkpoint whose position table was cut after its own longest context, with Whisper's table from there on.

    WhisperSeg keeps 10 s. The context must lie within: its own positions may have been trained.
    source    https://github.com/nianlonggu/WhisperSeg, load_model
    """
    table = tensors.get("embed_positions.weight")
    usual = encoder.whisper.embed_positions.weight.detach()
    if table is None or table.ndim != 2 or table.shape[1] != usual.shape[1] or not 0 < len(table) < len(usual):
        return tensors
    seconds = len(table) * 2 * audio.hop / audio.sample_rate
    assert audio.context_seconds <= seconds, (
        f"{source} knows positions up to {seconds:g} s; give --audio.context_seconds {seconds:g} or less"
    )
    return tensors | {"embed_positions.weight": torch.cat([table.float(), usual[len(table) :]])}


def with_more_channels(tensors: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """A checkpoint for fewer mel channels, its first convolution insensitive to those that are added."""
    kernel = tensors.get("conv1.weight")
    if kernel is None or kernel.ndim != 3 or kernel.shape[1] >= channels:
        return tensors
    added = kernel.new_zeros(kernel.shape[0], channels - kernel.shape[1], kernel.shape[2])
    return tensors | {"conv1.weight": torch.cat([kernel, added], dim=1)}


def weight_files(folder: Path, prefixes: tuple[str, ...] = ("",)) -> list[Path]:
    """model.safetensors, or the shards in which its index has tensors whose names begin in one of some ways; they must
    lie in the folder."""
    whole = (folder / "model.safetensors").is_file()
    names = ["model.safetensors"] if whole else shard_names(folder, prefixes)
    paths = [folder / name for name in names]
    missing = [str(path) for path in paths if not path.is_file()]
    assert not missing, f"{', '.join(missing)} not found; only safetensors are read (pytorch_model.bin can run code)"
    return paths


def shard_names(folder: Path, prefixes: tuple[str, ...]) -> list[str]:
    """The files that hold tensors whose names begin in one of some ways, as the folder's index says; without one, the
    single file that there should be."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    listed = read_json(index, "download it again").get("weight_map")
    shards: dict[str, Any] = cast(dict[str, Any], listed) if isinstance(listed, dict) else {"": listed}
    strange = [name for name in shards.values() if not isinstance(name, str) or not SHARD.fullmatch(name)]
    assert not strange, f"{index} names files outside its folder, or none: {str(strange[0])[:60]!r}"
    return sorted({shard for name, shard in shards.items() if name.startswith(prefixes)})


@cache
def from_hub(name: str) -> Path:
    """The folder of a hub checkpoint, from the local cache or the network: its dimensions, its card, and those of its
    safetensors that hold an encoder; of an audio language model they are a small part. Asked for once: a training ends
    with what it began with, whether the hub answers by then or not."""
    show(f"looking for {name} on the hub ...")
    remedy = "a local folder that holds its config.json and model.safetensors (--encoder.weights path/to/folder)"
    wanted = ["config.json", "README.md", "model.safetensors.index.json"]
    folder = fetched(name, wanted, remedy)
    return fetched(name, wanted + (shard_names(folder, PREFIXES) or shard_names(folder, BARE)), remedy)


def fetched(name: str, wanted: Sequence[str], remedy: str) -> Path:
    """The folder of some files of a hub checkpoint, from the local cache or the network.

    remedy    what can be given in place of it where the hub does not answer
    """
    hub_logging.set_verbosity_error()
    instead = f"pass {remedy}, or --encoder.weights random"
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(wanted)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise AssertionError(f"{name}: the hub cannot be reached and its cache has no copy; {instead}") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise AssertionError(f"{name}: {str(error).splitlines()[0]}; {instead}") from error


def fill_weights(
    network: torch.nn.Module, tensors: Mapping[str, Tensor], source: str, what: str = "Whisper encoder"
) -> None:
    """Copy tensors into a network of exactly the same names and shapes, in float32; anything else is refused.

    How many batches a norm has seen is nobody's business, and the only number of a network that is no weight.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    check_tensors(network, tensors, source, what)
    for name, tensor in tensors.items():
        assert bool(tensor.float().isfinite().all()), f"{source}: {name} holds values that are not finite: damaged"
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)


def check_tensors(network: torch.nn.Module, tensors: Mapping[str, Tensor], source: str, what: str) -> None:
    """Refuse tensors that are not those of a network, by name, shape and type."""
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    assert not missing, f"{source} lacks {len(missing)} tensors, {missing[0]} among them: incomplete, or no {what}"
    assert not unknown, f"{source} has {len(unknown)} tensors too many, {unknown[0]} among them"
    for name, tensor in tensors.items():
        shape, expected = tuple(tensor.shape), tuple(wanted[name].shape)
        assert shape == expected, f"{source}: {name} is {shape}, this network needs {expected}"
        assert tensor.is_floating_point(), f"{source}: {name} holds {tensor.dtype}, no weights"


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: Mapping[str, object]) -> None:
    """One safetensors file with facts and a digest in its header; whole or not at all."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in processes.whole(tensors).items()}
    assert all(bool(tensor.isfinite().all()) for tensor in whole.values()), (
        f"not writing {path}: weights are not finite"
    )
    if not FIRST:
        return
    about = json.dumps({**facts, "format": FORMAT, "sealed": True})
    size = sum(tensor.nbytes for tensor in whole.values()) + len(about)
    with publish(path, size) as temporary:
        save_file(whole, temporary, metadata={"wild_whisper": about, "seal": blank(), "format": "pt"})
        write_digest(temporary)


def read_tensors(path: Path, kind: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of one of our own files, verified before they are parsed."""
    damaged = f"{path} is damaged: its content does not match its digest; {remedy}, or copy it again"
    refuse_giant(path, remedy)
    state = state_of(path)
    assert state != "damaged", damaged
    tensors, header = open_tensors(path, ("",), remedy)
    facts = json_object(header.get("wild_whisper", "{}"), f"{path}: its header", f"{remedy} anew")
    assert facts.get("kind") == kind, f"{path} is no {kind} of this project (it says {facts.get('kind')}); {remedy}"
    version = facts.get("format")
    assert isinstance(version, int), f"{path}: its format {version!r} is no number; {remedy} anew"
    assert version <= FORMAT, f"{path} was written by a later version (format {version})"
    assert kind != "classifier" or version == FORMAT, f"{path} was written by an earlier version; {remedy} anew"
    lacking = NEEDED[kind] - facts.keys()
    assert not lacking, f"{path} does not say its {', '.join(sorted(lacking))}; {remedy} anew"
    if facts.get("sealed"):
        assert state == "sound", damaged
    else:  # written by an earlier version, with a digest of its tensors alone
        assert weights_digest(tensors) == header.get("sha256"), damaged
    return tensors, facts


def refuse_giant(path: Path, remedy: str) -> None:
    """Nothing is read of a file that no Whisper fills."""
    size = path.stat().st_size
    assert size <= LARGEST_FILE, f"{path} has {size / 2**30:.0f} GiB, more than any Whisper; {remedy}"


def open_tensors(path: Path, prefixes: tuple[str, ...], remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file whose names begin in one of some ways, and its metadata."""
    refuse_giant(path, remedy)
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118 - no dictionary
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        said = str(error).split("\n")[0][:200]
        raise AssertionError(f"{path} is damaged or no safetensors file ({said}); {remedy}") from error


def weights_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.safetensors"
        first = load_encoder(EncoderSettings("demo", "random"), AudioSettings())
        save_encoder(path, first, "demo", AudioSettings(), {"story": "made up"})
        second = load_encoder(EncoderSettings("demo", str(path)), AudioSettings())
        mel = torch.randn(1, 80, 500)
        assert torch.equal(first(mel), second(mel))
        assert not second.whisper.embed_positions.weight.requires_grad
        try:
            load_encoder(EncoderSettings("tiny", str(path)), AudioSettings())
        except AssertionError as refusal:
            print("refused:", refusal)
