"""Weight files: the traps of loading half a Whisper, each shut, and files that are whole or refused."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel
from transformers.models.qwen2_audio.configuration_qwen2_audio import Qwen2AudioEncoderConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from config import (
    SIZES,
    AnyEncoderSettings,
    AudioSettings,
    EncoderKind,
    EncoderSettings,
    HeadSettings,
    PictureSettings,
    PooledEncoderSettings,
    Preset,
)
from encoders import PictureEncoder
from model import BirdClefClassifier, Encoder, picture_encoder
from taxonomy import Taxonomy
from training.checkpoint import (
    ClassifierFacts,
    from_hub,
    load_any_encoder,
    load_classifier,
    load_encoder,
    read_tensors,
    save_classifier,
    save_encoder,
    size_of_weights,
    stage_one,
    write_tensors,
)

AUDIO = AudioSettings()


def hub_folder(place: Path, size: Preset = "demo", dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
    """A Whisper checkpoint as the hub has it: config.json and model.safetensors, encoder and decoder."""
    dims = SIZES[size]
    config = WhisperConfig(
        num_mel_bins=dims.mels,
        d_model=dims.width,
        encoder_layers=dims.layers,
        encoder_attention_heads=dims.heads,
        encoder_ffn_dim=4 * dims.width,
        decoder_layers=1,
        decoder_attention_heads=dims.heads,
        decoder_ffn_dim=dims.width,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    torch.manual_seed(1)
    folder = place / f"whisper-{size}"
    WhisperForConditionalGeneration(config).to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def load(source: Path | str, size: Preset = "demo") -> Encoder:
    return load_encoder(EncoderSettings(size, str(source)), AUDIO)


def mel(size: Preset = "demo") -> Tensor:
    return torch.randn(1, SIZES[size].mels, 500, generator=torch.Generator().manual_seed(0))


def states_of(encoder: Encoder) -> list[Tensor]:
    with torch.inference_mode():
        return encoder.eval().layer_states(mel())


def rewrite(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_hub_folder_gives_the_very_tensors_of_its_file(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    stored = load_file(folder / "model.safetensors")
    loaded = load(folder).whisper.state_dict()
    assert len(loaded) == sum(name.startswith("model.encoder.") for name in stored)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, stored[f"model.encoder.{name}"]), name


def test_the_librarys_own_short_cut_would_have_left_it_random(tmp_path: Path) -> None:
    """The trap: WhisperEncoder.from_pretrained finds none of its names in a Whisper checkpoint, and does not fail."""
    folder = hub_folder(tmp_path)
    stored = load_file(folder / "model.safetensors")["model.encoder.conv1.weight"]
    assert not torch.equal(WhisperEncoder.from_pretrained(folder).conv1.weight, stored)
    assert torch.equal(load(folder).whisper.conv1.weight, stored)


def test_the_position_table_stays_frozen_after_loading(tmp_path: Path) -> None:
    """The trap: from_pretrained makes the sinusoids trainable."""
    folder = hub_folder(tmp_path)
    assert WhisperModel.from_pretrained(folder).encoder.embed_positions.weight.requires_grad
    assert not load(folder).whisper.embed_positions.weight.requires_grad


def test_half_precision_is_loaded_as_float32(tmp_path: Path) -> None:
    """The trap: a checkpoint in float16, as large-v3 is, would stay float16."""
    folder = hub_folder(tmp_path, dtype=torch.float16)
    assert next(WhisperModel.from_pretrained(folder).parameters()).dtype == torch.float16
    assert {tensor.dtype for tensor in load(folder).whisper.state_dict().values()} == {torch.float32}


def test_a_checkpoint_in_shards_equals_one_in_a_single_file(tmp_path: Path) -> None:
    whole, parts = hub_folder(tmp_path / "a"), hub_folder(tmp_path / "b", shard="300KB")
    assert not (parts / "model.safetensors").exists() and len(list(parts.glob("model-*.safetensors"))) > 1
    assert torch.equal(load(whole)(mel()), load(parts)(mel()))


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path, shard="300KB")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.encoder.conv1.weight": "../evil.safetensors"}}))
    with pytest.raises(AssertionError, match="outside its folder"):
        load(folder)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.encoder.layers.1.fc1.bias"]
    rewrite(folder / "model.safetensors", tensors)
    with pytest.raises(AssertionError, match=r"lacks 1 tensors, layers\.1\.fc1\.bias"):
        load(folder)


def test_a_tensor_of_another_shape_or_with_nan_is_named(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    whole = tensors["model.encoder.conv1.bias"]
    tensors["model.encoder.conv1.bias"] = whole[:-1].clone()
    rewrite(folder / "model.safetensors", tensors)
    with pytest.raises(AssertionError, match=r"conv1\.bias is \(95,\), this network needs \(96,\)"):
        load(folder)
    tensors["model.encoder.conv1.bias"] = whole * float("nan")
    rewrite(folder / "model.safetensors", tensors)
    with pytest.raises(AssertionError, match=r"conv1\.bias holds values that are not finite"):
        load(folder)


def test_another_size_is_refused_with_the_preset_to_take(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    with pytest.raises(AssertionError, match="is of size demo, not tiny; add --preset demo"):
        load(folder, "tiny")


def test_a_damaged_hub_folder_is_one_clear_line(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssertionError, match=r"model\.safetensors is damaged"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(AssertionError, match=r"config\.json is damaged"):
        load(folder)


def test_another_model_is_refused(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "wav2vec2"}))
    with pytest.raises(AssertionError, match="type wav2vec2, not whisper, nor an audio tower"):
        load(folder)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(AssertionError, match="only safetensors are read"):
        load(folder)


def test_an_unreachable_hub_is_one_line_that_tells_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AssertionError, match=r"hub cannot be reached.*--encoder\.weights path/to/folder") as refusal:
        load("openai/whisper-tiny", "tiny")
    assert "\n" not in str(refusal.value)


def test_a_missing_encoder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"python ssl_mae\.py"):
        load(tmp_path / "encoder.safetensors")
    with pytest.raises(AssertionError, match=r"no encoder at somewhere; --encoder\.weights takes.*openai/whisper-tiny"):
        load("somewhere", "tiny")
    for nowhere in ("somewhere", str(tmp_path / "encoder.safetensors")):
        with pytest.raises(AssertionError, match="or random") as refusal:
            load(nowhere)
        assert "whisper-demo" not in str(refusal.value), "nobody has published such a one"


def test_a_saved_encoder_comes_back_bit_for_bit(tmp_path: Path) -> None:
    encoder, path = load("random"), tmp_path / "encoder.safetensors"
    save_encoder(path, encoder, "demo", AUDIO, {"run": "mae-001"})
    assert torch.equal(load(path)(mel()), encoder(mel()))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["encoder.safetensors", "whisper"]  # nothing temporary


def test_a_saved_encoder_carries_the_names_of_a_hub_checkpoint(tmp_path: Path) -> None:
    """So that transformers can load it: into a whole Whisper, every encoder tensor finds its place."""
    path = tmp_path / "encoder.safetensors"
    encoder = load("random")
    save_encoder(path, encoder, "demo", AUDIO, {})
    model = WhisperForConditionalGeneration.from_pretrained(hub_folder(tmp_path))
    outcome = model.load_state_dict(load_file(path), strict=False)
    assert not outcome.unexpected_keys
    assert "model.encoder." not in repr(outcome)  # which lists the missing names
    assert torch.equal(model.model.encoder.conv1.weight, encoder.whisper.conv1.weight)


@pytest.mark.parametrize("rate", [16_000, 32_000])
def test_transformers_loads_the_folder_beside_it_and_hears_the_same(rate: int, tmp_path: Path) -> None:
    audio = AudioSettings(sample_rate=rate)
    encoder = load_encoder(EncoderSettings("demo", "random"), audio).eval()
    save_encoder(tmp_path / "encoder.safetensors", encoder, "demo", audio, {})
    theirs = WhisperModel.from_pretrained(tmp_path / "whisper").encoder.eval()
    sound = torch.randn(1, encoder.channels, 3000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(theirs(sound).last_hidden_state, encoder(sound))
    assert not any("decoder" in name or "paint" in name for name in load_file(tmp_path / "encoder.safetensors"))


def test_a_narrow_checkpoint_is_deaf_to_the_added_band_at_first(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    narrow, wide = load(folder), load_encoder(EncoderSettings("demo", str(folder)), AudioSettings(sample_rate=32_000))
    sound = torch.randn(1, wide.channels, 500)
    torch.testing.assert_close(wide(sound), narrow(sound[:, :80]), atol=1e-5, rtol=0)


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, load("random"), "demo", AUDIO, {})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(AssertionError, match=r"damaged|not finite"):
        load(path)


def test_a_text_file_named_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_text("hello")
    with pytest.raises(AssertionError, match="damaged or no safetensors file"):
        load(path)


def test_another_window_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, load("random"), "demo", AudioSettings(context_seconds=10.0), {})
    with pytest.raises(AssertionError, match="give both stages the same --audio flags"):
        load(path)


def test_stage_two_may_train_the_curve_that_stage_one_held_fixed(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, load("random"), "demo", AudioSettings(compression="pcen"), {})
    settings = EncoderSettings("demo", str(path))
    trained = load_encoder(settings, AudioSettings(compression="pcen_trained"))
    name = "whisper.conv1.weight"
    assert torch.equal(
        trained.state_dict()[name], load_encoder(settings, AudioSettings(compression="pcen")).state_dict()[name]
    )
    with pytest.raises(AssertionError, match="give both stages the same --audio flags"):
        load_encoder(settings, AudioSettings())
    save_encoder(path, load("random"), "demo", AUDIO, {})
    with pytest.raises(AssertionError, match="give both stages the same --audio flags"):
        load_encoder(settings, AudioSettings(compression="pcen_trained"))


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    encoder = load("random")
    with torch.no_grad():
        encoder.whisper.conv1.weight[0, 0, 0] = float("nan")
    with pytest.raises(AssertionError, match="not finite"):
        save_encoder(tmp_path / "encoder.safetensors", encoder, "demo", AUDIO, {})
    assert not list(tmp_path.iterdir())


def lineage(name: str) -> tuple[str, ...]:
    return ("Animalia", "Chordata", "Aves", "Passeriformes", "Fictidae", "Ficta", name)


def test_a_saved_classifier_gives_the_same_logits_and_facts(tmp_path: Path) -> None:
    birds = Taxonomy(("41663", "greani1"), ("Ficta a", "Ficta b"), ("pretend a", "pretend b"),
                     (lineage("Ficta a"), lineage("Ficta b")), (7, 7))  # fmt: skip
    model = BirdClefClassifier(load("random"), AUDIO, 2, HeadSettings()).eval()
    facts = ClassifierFacts("demo", AUDIO, HeadSettings(), birds, {"run": "finetune-001"})
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, model, facts)
    again, told = load_classifier(path)
    waveforms = torch.randn(2, 80_000)
    assert torch.equal(again(waveforms), model(waveforms))
    assert told == facts and not again.training
    with pytest.raises(AssertionError, match="no encoder of this project"):
        load(path)


def test_of_a_depth_of_two_layer_two_is_the_last_and_says_what_it_said_in_the_whole(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    whole, low = load(folder), load_encoder(EncoderSettings("demo", str(folder), depth=2), AUDIO)
    all_states, kept = states_of(whole), states_of(low)
    assert len(all_states) == 3 and len(kept) == 2 and low.size == replace(SIZES["demo"], layers=2)
    assert all(torch.equal(one, other) for one, other in zip(all_states, kept, strict=False))
    assert not torch.equal(all_states[2], kept[1])  # a negative control: the layers differ
    with torch.inference_mode():
        assert torch.equal(low(mel()), whole.whisper.layer_norm(all_states[1]))


def test_of_random_weights_as_many_layers_are_made_as_are_asked_for() -> None:
    assert len(states_of(load_encoder(EncoderSettings("demo", "random", depth=1), AUDIO))) == 1
    assert len(states_of(load("random"))) == 3


def test_an_encoder_of_two_layers_comes_back_from_its_file_and_from_the_folder_beside_it(tmp_path: Path) -> None:
    low = load_encoder(EncoderSettings("demo", str(hub_folder(tmp_path)), depth=2), AUDIO)
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, low, "demo", AUDIO, {})
    assert read_tensors(path, "encoder", "")[1]["depth"] == 2
    assert json.loads((tmp_path / "whisper" / "config.json").read_text())["encoder_layers"] == 2
    for source in (path, tmp_path / "whisper"):
        again = load(source)
        assert again.size.layers == 2 and torch.equal(again(mel()), low(mel()))
        one = load_encoder(EncoderSettings("demo", str(source), depth=1), AUDIO)
        assert torch.equal(states_of(one)[0], states_of(low)[0]) and len(states_of(one)) == 1
    theirs = WhisperModel.from_pretrained(tmp_path / "whisper").encoder.eval()
    sound = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(theirs(sound).last_hidden_state, low.eval()(sound))


def test_more_layers_than_there_are_are_refused(tmp_path: Path) -> None:
    for source in ("random", str(hub_folder(tmp_path))):
        with pytest.raises(AssertionError, match=r"--encoder\.depth 4: (Whisper demo|.*whisper-demo) has 3 layers"):
            load_encoder(EncoderSettings("demo", source, depth=4), AUDIO)
    with pytest.raises(AssertionError, match=r"--encoder\.depth -1"):
        EncoderSettings("demo", "random", depth=-1)
    low = load_encoder(EncoderSettings("demo", "random", depth=2), AUDIO)
    save_encoder(tmp_path / "encoder.safetensors", low, "demo", AUDIO, {})
    for path in (tmp_path / "encoder.safetensors", tmp_path / "whisper"):
        with pytest.raises(AssertionError, match=r"--encoder\.depth 3: .* has 2 layers") as refusal:
            load_encoder(EncoderSettings("demo", str(path), depth=3), AUDIO)
        assert "\n" not in str(refusal.value)


def test_a_file_of_an_earlier_version_has_all_its_layers(tmp_path: Path) -> None:
    path, encoder = tmp_path / "encoder.safetensors", load("random")
    tensors = {f"model.encoder.{name}": tensor for name, tensor in encoder.whisper.state_dict().items()}
    write_tensors(path, tensors, {"kind": "encoder", "size": "demo", "audio": asdict(AUDIO), "provenance": {}})
    assert load(path).size == SIZES["demo"] and torch.equal(load(path)(mel()), encoder(mel()))


@pytest.mark.parametrize("depth", [7, -1, "2", True])
def test_a_depth_that_makes_no_sense_is_refused(depth: object, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    tensors = {f"model.encoder.{name}": tensor for name, tensor in load("random").whisper.state_dict().items()}
    facts = {"kind": "encoder", "size": "demo", "depth": depth, "audio": asdict(AUDIO), "provenance": {}}
    write_tensors(path, tensors, facts)
    with pytest.raises(AssertionError, match="layers of an encoder of size demo"):
        load(path)


def test_a_classifier_of_two_layers_knows_it(tmp_path: Path) -> None:
    birds = Taxonomy(("a", "b"), ("Ficta a", "Ficta b"), ("pretend a", "pretend b"),
                     (lineage("Ficta a"), lineage("Ficta b")), (7, 7))  # fmt: skip
    low = load_encoder(EncoderSettings("demo", "random", depth=2), AUDIO)
    model = BirdClefClassifier(low, AUDIO, 2, HeadSettings()).eval()
    facts = ClassifierFacts("demo", AUDIO, HeadSettings(), birds, {}, depth=2)
    save_classifier(tmp_path / "c.safetensors", model, facts)
    again, told = load_classifier(tmp_path / "c.safetensors")
    waveforms = torch.randn(2, 80_000)
    assert told == facts and again.encoder.depth == 2 and torch.equal(again(waveforms), model(waveforms))
    with pytest.raises(AssertionError, match="an encoder demo, the lowest 2 of 3 layers, and facts that speak of demo"):
        save_classifier(tmp_path / "d.safetensors", model, replace(facts, depth=0))


def test_pooled_tokens_are_means_of_neighbours_and_the_classifier_knows_it(tmp_path: Path) -> None:
    plain = load_encoder(EncoderSettings("demo", "random"), AUDIO)
    model = BirdClefClassifier(pooled_twin(plain, 5), AUDIO, 1, HeadSettings()).eval()
    stem: list[torch.Tensor] = []
    for encoder in (plain, model.whisper_encoder):
        handle = encoder.whisper.layers[0].register_forward_pre_hook(lambda _layer, inputs: stem.append(inputs[0]))
        with torch.inference_mode():
            encoder(mel())
        handle.remove()
    assert stem[0].shape[1] == 250 and stem[1].shape[1] == 50
    torch.testing.assert_close(stem[1], stem[0].unflatten(1, (50, 5)).mean(dim=2))
    owl = Taxonomy(("a",), ("Ficta a",), ("pretend a",), (lineage("Ficta a"),), (7,))
    facts = ClassifierFacts("demo", AUDIO, HeadSettings(), owl, {}, pool=5)
    save_classifier(tmp_path / "c.safetensors", model, facts)
    again, told = load_classifier(tmp_path / "c.safetensors")
    waveforms = torch.randn(2, 80_000)
    assert told == facts and told.words == "demo, every 5 tokens pooled"
    assert torch.equal(again(waveforms), model(waveforms))
    with pytest.raises(AssertionError, match="an encoder demo, every 5 tokens pooled, and facts that speak of demo"):
        save_classifier(tmp_path / "d.safetensors", model, replace(facts, pool=1))


def pooled_twin(encoder: Encoder, pool: int) -> Encoder:
    """The same weights, neighbouring tokens pooled."""
    twin = Encoder(replace(encoder.size, pool=pool), AUDIO).eval()
    twin.load_state_dict(encoder.state_dict())
    return twin


@pytest.mark.parametrize("pool", [0, -1, "2", True, 2.0, 1501])
def test_a_file_that_pools_what_cannot_be_is_refused(pool: object, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    model = BirdClefClassifier(load("random"), AUDIO, 1, HeadSettings()).eval()
    owl = Taxonomy(("a",), ("Ficta a",), ("pretend a",), (lineage("Ficta a"),), (7,))
    save_classifier(path, model, ClassifierFacts("demo", AUDIO, HeadSettings(), owl, {}))
    tensors, facts = read_tensors(path, "classifier", "")
    assert facts.pop("pool") == 1
    write_tensors(path, tensors, facts)
    assert load_classifier(path)[1].pool == 1, "a file of an earlier version says nothing of it"
    write_tensors(path, tensors, facts | {"pool": pool})
    with pytest.raises(AssertionError, match="tokens pooled; make the file again"):
        load_classifier(path)


def test_a_window_that_holds_no_whole_number_of_pooled_tokens_is_refused_with_what_to_give() -> None:
    with pytest.raises(
        AssertionError,
        match=r"3 tokens cannot be pooled: a window of 5 s has 250; give --encoder\.pool one of 1, 2, 5, 10,",
    ):
        load_encoder(PooledEncoderSettings("demo", "random", pool=3), AUDIO)
    with pytest.raises(AssertionError, match=r"--encoder\.pool 0: give a number of tokens"):
        PooledEncoderSettings("demo", "random", pool=0)
    with pytest.raises(AssertionError, match=r"--encoder\.pool joins tokens of Whisper"):
        AnyEncoderSettings("demo", "random", pool=2, kind="cnn")
    assert (
        load_encoder(PooledEncoderSettings("demo", "random", pool=10), AudioSettings(context_seconds=10)).size.pool
        == 10
    )


def tower_folder(place: Path, name: str = "audio_tower.", alone: bool = False) -> Path:
    """An audio language model as the hub has it, in two shards: its tower as transformers builds Qwen2-Audio's, and a
    language model beside it; or the tower alone."""
    dims = SIZES["demo"]
    described = {
        "num_mel_bins": dims.mels,
        "d_model": dims.width,
        "encoder_layers": dims.layers,
        "encoder_attention_heads": dims.heads,
        "encoder_ffn_dim": 4 * dims.width,
    }
    torch.manual_seed(2)
    tower = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**described))
    tensors = {f"{name}{key}": tensor for key, tensor in tower.state_dict().items()}
    folder = place / "tower"
    folder.mkdir()
    config = {"model_type": "qwen2_audio_encoder"} | described
    if alone:
        (folder / "config.json").write_text(json.dumps(config))
        rewrite(folder / "model.safetensors", tensors)
        return folder
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_audio", "audio_config": config}))
    words = {"language_model.model.layers.0.fc1.weight": torch.ones(3, 3), "layers.0.stray": torch.ones(2)}
    rewrite(folder / "model-00001-of-00002.safetensors", tensors)
    rewrite(folder / "model-00002-of-00002.safetensors", words)
    where = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    where |= dict.fromkeys(words, "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def theirs_of(folder: Path, picture: Tensor) -> list[Tensor]:
    """The states behind each layer of a Qwen2-Audio tower, as transformers computes them."""
    dims = SIZES["demo"]
    config = json.loads((folder / "config.json").read_text())
    tower = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**config.get("audio_config", config))).eval()
    (shard,) = [path for path in folder.glob("*.safetensors") if "00002-of" not in path.name]
    tower.load_state_dict(
        {re.sub(r"^(model\.)?(audio_tower\.|encoder\.)", "", k): v for k, v in load_file(shard).items()}
    )
    states: list[Tensor] = []

    def note(_layer: nn.Module, _given: object, made: Tensor | tuple[Tensor, ...]) -> None:
        states.append(made[0] if isinstance(made, tuple) else made)

    for layer in tower.layers:
        layer.register_forward_hook(note)
    with torch.inference_mode():
        tower(picture)
    assert len(states) == dims.layers
    return states


@pytest.mark.parametrize("name", ["audio_tower.", "model.audio_tower.", "encoder."])
def test_an_audio_tower_of_whispers_shape_says_the_same_here_in_every_layer(name: str, tmp_path: Path) -> None:
    """Qwen2-Audio pools what comes out of the last layer; the layers themselves are Whisper's."""
    folder = tower_folder(tmp_path, name)
    picture = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    encoder = load(folder).eval()
    with torch.inference_mode():
        ours = encoder.layer_states(picture)
    for mine, theirs in zip(ours, theirs_of(folder, picture), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    assert not torch.allclose(ours[0], load("random").layer_states(picture)[0], atol=0.1)  # a negative control
    assert size_of_weights(str(folder)) == "demo"


def test_of_a_language_model_only_the_shard_with_the_tower_is_needed(tmp_path: Path) -> None:
    folder = tower_folder(tmp_path)
    whole = load(folder)(mel())
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert torch.equal(load(folder)(mel()), whole)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(AssertionError, match=r"model-00001-of-00002\.safetensors not found"):
        load(folder)


def test_a_tower_saved_by_itself_has_names_without_prefix(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone = tower_folder(tmp_path / "a", "", alone=True)
    assert torch.equal(load(alone)(mel()), load(tower_folder(tmp_path / "b"))(mel()))


def test_a_whisperseg_checkpoint_has_fewer_positions_and_another_vocabulary(tmp_path: Path) -> None:
    """It is cut to the 10 s it was trained on: the table of positions ends there, and may have been trained."""
    whole = hub_folder(tmp_path)
    tensors = load_file(whole / "model.safetensors")
    config = json.loads((whole / "config.json").read_text())
    trained = tensors["model.encoder.embed_positions.weight"][:500] + 0.01
    tensors["model.encoder.embed_positions.weight"] = trained
    tensors["model.decoder.embed_tokens.weight"] = torch.zeros(1_100, 96)
    rewrite(whole / "model.safetensors", tensors)
    more = {
        "total_spec_columns": 1000,
        "max_source_positions": 500,
        "vocab_size": 1_100,
        "species_codebook": {"a": "b"},
    }
    (whole / "config.json").write_text(json.dumps(config | more))
    table = load(whole).whisper.embed_positions.weight
    assert table.shape == (1500, 96) and not table.requires_grad
    assert torch.equal(table[:500], trained)
    torch.testing.assert_close(table[500:], load("random").whisper.embed_positions.weight[500:])
    with pytest.raises(AssertionError, match=r"positions up to 10 s; give --audio\.context_seconds 10 or less"):
        load_encoder(EncoderSettings("demo", str(whole)), AudioSettings(context_seconds=15.0))


def test_the_size_of_weights_is_what_their_file_says(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, load("random"), "demo", AUDIO, {})
    assert size_of_weights(str(path)) == size_of_weights(str(tmp_path / "whisper")) == "demo"
    assert size_of_weights("random") is None and size_of_weights(str(tmp_path / "nothing.safetensors")) is None
    with pytest.raises(AssertionError, match=r"no config\.json"):
        size_of_weights(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_model": 100}, "mel bins, width, layers, heads are"),
        ({"encoder_layers": 4}, "mel bins, width, layers, heads are"),
        ({"encoder_layers": 0}, "mel bins, width, layers, heads are"),
        ({"encoder_layers": "3"}, "mel bins, width, layers, heads are"),
        ({"model_type": "qwen2_audio"}, "does not describe its audio_config"),
        ({"model_type": ["whisper"]}, "not whisper"),
    ],
)
def test_dimensions_of_no_whisper_are_refused_in_a_line(change: dict[str, object], words: str, tmp_path: Path) -> None:
    folder = hub_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(AssertionError, match=words) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


SECOND = AudioSettings(window_seconds=1.0, context_seconds=1.0)
SMALL_NAME = "test_efficientnet"


def colour_weights(name: str = SMALL_NAME) -> dict[str, Tensor]:
    """The weights of a network of timm's for pictures in colour, classifier and all, none of them as they begin."""
    torch.manual_seed(2)
    network = timm.create_model(name)
    return {
        key: tensor + 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for key, tensor in network.state_dict().items()
    }


def load_picture(weights: Path | str, name: str = SMALL_NAME) -> PictureEncoder:
    encoder = load_any_encoder(AnyEncoderSettings("demo", str(weights), kind="timm", name=name), SECOND)
    assert isinstance(encoder, PictureEncoder)
    return encoder.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_network_in_colour_make_of_a_grey_picture_what_they_made_of_it_in_colour(
    suffix: str, tmp_path: Path
) -> None:
    weights, path = colour_weights(), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    network = load_picture(path).network
    colour = timm.create_model(SMALL_NAME, num_classes=0, global_pool="").eval()
    colour.load_state_dict({key: tensor for key, tensor in weights.items() if "classifier" not in key})
    grey = torch.randn(1, 1, 128, 100, generator=torch.Generator().manual_seed(0))
    wanted = colour.forward_features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(network(grey), wanted, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(load_picture("random").network(grey), wanted, atol=1e-2), "negative control"


def test_weights_of_another_network_a_damaged_file_and_more_than_tensors_are_refused_in_one_line(
    tmp_path: Path,
) -> None:
    path, weights = tmp_path / "weights.safetensors", colour_weights()
    save_file(colour_weights("test_resnet"), path)
    with pytest.raises(AssertionError, match=r"lacks \d+ tensors, .*: incomplete, or no weights of timm's test_eff"):
        load_picture(path)
    save_file({key: tensor for key, tensor in weights.items() if key != "bn2.weight"}, path)
    with pytest.raises(AssertionError, match=r"lacks 1 tensors, bn2\.weight among them"):
        load_picture(path)
    save_file(weights | {"bn2.weight": weights["bn2.weight"] * torch.nan}, path)
    with pytest.raises(AssertionError, match=r"bn2\.weight holds values that are not finite: damaged"):
        load_picture(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AssertionError, match="is damaged or no safetensors file"):
        load_picture(path)
    strange = tmp_path / "weights.pth"
    torch.save({"network": nn.Linear(2, 2)}, strange)
    with pytest.raises(AssertionError, match=r"holds more than tensors .*; give a \.safetensors"):
        load_picture(strange)
    torch.save([1, 2], strange)
    with pytest.raises(AssertionError, match="holds no state dictionary"):
        load_picture(strange)
    with pytest.raises(AssertionError, match=r"no weights at .*missing\.pth; --encoder\.weights takes `hub`"):
        load_picture(tmp_path / "missing.pth")


def test_the_hub_out_of_reach_is_one_line_and_so_are_weights_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, allow_patterns: list[str]) -> str:
        assert (name, allow_patterns) == ("timm/test_efficientnet.r160_in1k", ["model.safetensors"])
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(AssertionError, match=r"r160_in1k: the hub cannot be reached .* --encoder\.weights random$"):
        load_picture("hub")
    with pytest.raises(AssertionError, match="timm has no weights of nf_regnet_b0 on the hub"):
        load_picture("hub", "nf_regnet_b0")
    settings = AnyEncoderSettings("demo", "hub", kind="cnn")
    with pytest.raises(AssertionError, match="nobody has published weights of AudioCNN"):
        load_any_encoder(settings, SECOND)


def picture_facts(picture: PictureSettings) -> ClassifierFacts:
    labels = tuple("abc")
    taxonomy = Taxonomy(
        labels, labels, labels, tuple(("k", "p", "c", "o", "f", "g", label) for label in labels), (7,) * 3
    )
    return ClassifierFacts("demo", SECOND, HeadSettings(), taxonomy, {"encoder": "random"}, picture=picture)


@pytest.mark.parametrize("kind", ["timm", "cnn", "vit"])
def test_a_classifier_of_any_kind_comes_back_as_it_was_saved(kind: EncoderKind, tmp_path: Path) -> None:
    picture = PictureSettings(kind, SMALL_NAME if kind == "timm" else "", "gem")
    facts, path = picture_facts(picture), tmp_path / "classifier.safetensors"
    model = BirdClefClassifier(picture_encoder(picture, SECOND), SECOND, 3, HeadSettings())
    model(0.1 * torch.randn(4, 16_000))  # the norms of batches have seen some
    assert isinstance(model.encoder, PictureEncoder)
    model.encoder.mean.fill_(0.3)
    nn.init.normal_(model.head.score.weight)
    save_classifier(path, model.eval(), facts)
    loaded, stored = load_classifier(path)
    assert stored == facts and stored.words == picture.words
    sound = 0.1 * torch.randn(2, 16_000)
    assert torch.equal(loaded(sound), model(sound))


def test_a_classifier_that_speaks_of_another_network_is_refused_before_that_is_built(tmp_path: Path) -> None:
    picture, path = PictureSettings("timm", SMALL_NAME), tmp_path / "classifier.safetensors"
    model = BirdClefClassifier(picture_encoder(picture, SECOND), SECOND, 3, HeadSettings())
    for name, message in (
        ("eva02_enormous_patch14_clip_224", "takes pictures of one size"),
        ("convnext_xxlarge", "lacks|speaks of a head of"),
        ("../nobody", "knows no network"),
    ):
        save_classifier(path, model, picture_facts(replace(picture, name=name)))
        with pytest.raises(AssertionError, match=message):
            load_classifier(path)
    save_classifier(path, model, picture_facts(PictureSettings("timm", SMALL_NAME, "gem")))
    with pytest.raises(AssertionError, match=r"lacks 1 tensors, power among them"):
        load_classifier(path)
    save_classifier(path, model, picture_facts(PictureSettings("whisper", SMALL_NAME)))
    with pytest.raises(AssertionError, match="unknown encoder"):
        load_classifier(path)


def test_a_transformer_for_another_geometry_is_refused(tmp_path: Path) -> None:
    picture, path = PictureSettings("vit"), tmp_path / "classifier.safetensors"
    model = BirdClefClassifier(picture_encoder(picture, SECOND), SECOND, 3, HeadSettings())
    longer = AudioSettings(window_seconds=2.0, context_seconds=2.0)
    save_classifier(path, model, replace(picture_facts(picture), audio=longer))
    with pytest.raises(AssertionError, match=r"network\.column is \(192, 1, 10\), this network needs \(192, 1, 20\)"):
        load_classifier(path)


def test_the_folder_beside_an_encoder_says_of_its_run_what_the_encoder_says(tmp_path: Path) -> None:
    provenance: dict[str, object] = {"run": "mae-007", "teachers": [{"name": "BirdNET", "license": "CC BY-NC 4.0"}]}
    save_encoder(tmp_path / "encoder.safetensors", Encoder(SIZES["demo"]), "demo", AudioSettings(), provenance)
    assert stage_one(str(tmp_path / "encoder.safetensors")) == stage_one(str(tmp_path / "whisper")) == provenance
    (tmp_path / "empty").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "empty" / "model.safetensors")
    for other in ("empty", "nowhere"):  # control: weights of others
        assert stage_one(str(tmp_path / other)) == {}


LONG = "frogs " * 40
CARDS = {
    f"---\nlicense: other\nlicense_name: {LONG}for non-commercial use\n---\n": f"non-commercial: {LONG}"[:200],
    "---\nlicense: cc-by-nc-4.0\n---\nwords": "cc-by-nc-4.0",
    "---\nlicense: other\nlicense_name: frogs-only\n---\n": "frogs-only",
    "---\nlicense: other\n---\n": "other",
    "---\ntags: [sound]\n---\nlicense: mit\n": "",
    "# no head\nlicense: mit\n": "",
    "---\nlicense: [\n---\n": "",
    "---\nlicense: [mit]\n---\n": "",
    "---\na: &a [x, x]\nb: &b [*a, *a]\nlicense: other\nlicense_name: *b\n---\n": "other",
}


@pytest.mark.parametrize("card", CARDS)
def test_the_terms_of_somebodys_checkpoint_are_those_of_its_card(card: str, tmp_path: Path) -> None:
    assert stage_one(str(tmp_path)) == {}, "without a card"
    (tmp_path / "README.md").write_text(card)
    assert stage_one(str(tmp_path)) == ({"license": CARDS[card]} if CARDS[card] else {})


def test_an_encoder_on_the_hub_says_of_its_run_what_the_same_says_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provenance: dict[str, object] = {"license": "cc-by-nc-4.0", "teachers": [{"name": "BirdNET"}], "trained_on": "00"}
    save_encoder(tmp_path / "encoder.safetensors", Encoder(SIZES["demo"]), "demo", AudioSettings(), provenance)
    asked: list[tuple[str, bool]] = []

    def answer(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, "README.md" in allow_patterns))
        return str(tmp_path / "whisper")

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    from_hub.cache_clear()
    assert stage_one("frogs/encoder") == provenance
    assert load_encoder(EncoderSettings("demo", "frogs/encoder"), AudioSettings()).size == SIZES["demo"]
    assert asked == [("frogs/encoder", True)] * 2, "its card and dimensions, then its weights; and never again"
    from_hub.cache_clear()
    for path in ("runs/encoder.safetensors", "/frogs", "~/frogs", "./frogs", "runs/mae/whisper"):
        assert stage_one(path) == {}, "a path that leads nowhere is not asked for"
