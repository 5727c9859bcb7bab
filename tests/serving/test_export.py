"""The served files: equal to the trained network, INT8 where it should be and nowhere else, whole or not at all."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import base64
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from conftest import Stages
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from config import SIZES, AudioSettings, EncoderSize, HeadSettings, Pooling, encoder_size
from evaluation.familiarity import fit_familiarity, unfamiliar
from model import BirdClefClassifier, Encoder
from runtime.digests import beside, write_digest
from serving.export import (
    Recipe,
    Rounding,
    Strangeness,
    products,
    quantise_products,
    quantised_weight,
    write_float,
    write_int8,
)
from serving.scorer import (
    KNOWN_GRAPHS,
    Scorer,
    answers_of,
    cpu_name,
    int8_fault,
    known_product,
    open_scorer,
    score,
    stream,
)
from serving.sensitivity import EIGHT_BITS, LEVELS, PRODUCTS, input_channels, linear_layers, smoothing
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts, load_classifier

HERE = Path(__file__).parents[2]
Record = Callable[[str, object], None]
Waveforms = np.ndarray[tuple[int, int], np.dtype[np.float32]]


def noise(count: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 0.1, (count, 80_000)).astype(np.float32)


def test_any_number_of_windows_at_a_time_gives_the_same_float_scores(stages: Stages) -> None:
    network = open_scorer(stages.float_model).network
    windows = noise(3)
    together = network(windows)["probabilities"]
    alone = np.concatenate([network(window[None])["probabilities"] for window in windows])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def streamed(scorer: Scorer, windows: Waveforms, order: list[int], batch: int = 1, threads: int = 2) -> Waveforms:
    """Scores in the order of the windows, whatever the order in which they were given."""
    answers = stream([replace(scorer, threads=threads)], [(row, windows[row]) for row in order], batch)
    heard = {row: answer.probabilities for row, answer in answers if answer}
    return np.concatenate([heard[row] for row in sorted(heard)])


def test_a_window_is_scored_the_same_whatever_its_company(stages: Stages, record_property: Record) -> None:
    windows = noise(9)
    windows[4] *= 1000  # one shouts
    orders = [list(range(9)), list(range(8, -1, -1)), [4, 0, 8, 1, 7, 2, 6, 3, 5]]
    worst, largest = 0.0, 0.0
    for path, batches in ((stages.model, (1,)), (stages.float_model, (1, 2, 4, 9))):  # --batch_size is for float32
        scorer = open_scorer(path)
        alone = np.concatenate([streamed(scorer, windows[[row]], [0]) for row in range(9)])
        for batch in batches:
            for threads in (1, 2):
                for order in orders:
                    found = streamed(scorer, windows, order, batch, threads)
                    difference = float(np.abs(found - alone).max())
                    if path == stages.model:
                        worst = max(worst, difference)
                    else:
                        largest = max(largest, difference)
    assert worst == 0 and largest <= 1e-5
    int8 = open_scorer(stages.model).network
    beside = int8(windows[[0, 4]])["probabilities"][:1]  # negative control: one scale for both
    coupled = float(np.abs(beside - int8(windows[:1])["probabilities"]).max())
    assert coupled > 1e-5
    record_property(
        "R15",
        f"alone, in company and in {len(orders)} orders: INT8 {worst:g}, float32 {largest:.1e} at most; "
        f"INT8 in one batch with a loud window would differ by {coupled:.1e}",
    )


def test_a_window_that_is_no_number_would_spoil_its_batch(stages: Stages) -> None:
    """Why scorer.py refuses it before the network, and audio.py silences it before that."""
    windows = noise(2)
    int8 = open_scorer(stages.model).network
    alone = int8(windows[:1])["probabilities"]
    windows[1, 5] = np.nan
    beside = int8(windows)["probabilities"][:1]
    assert not np.array_equal(beside, alone)


@pytest.mark.parametrize("levels", [LEVELS, EIGHT_BITS])
def test_the_known_products_are_quantised_as_our_files_are(levels: int) -> None:
    _, weights = known_product(levels)
    toy = helper.make_graph(
        [helper.make_node("MatMul", ["sound", "weight"], ["answer"], "product")],
        "known answer",
        [helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["rows", 16])],
        [numpy_helper.from_array(weights, "weight")],
    )
    graph = helper.make_model(toy, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    quantise_products(graph, {"product": Rounding(levels)})
    packed = base64.b85encode(zlib.compress(graph.SerializeToString(), 9))
    kept = onnx.load_from_string(zlib.decompress(base64.b85decode(KNOWN_GRAPHS[levels])))
    assert kept == graph, f"put this into scorer.py: {packed!r}"
    assert [node.op_type for node in kept.graph.node].count("MatMulInteger") == 1
    assert np.abs(weights).max(axis=0).tolist() == [levels] * 16 and int8_fault() == ""


def test_weights_of_eight_bits_are_exact_on_every_cpu_and_without_the_option_on_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert int8_fault() == ""
    monkeypatch.setattr("serving.scorer.EXACT_INT8", ("session.x64quantprecision", "0"))
    flags = cpu_name().split(", ")[-1].split()
    if "avx2" in flags and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags):
        assert int8_fault() == "a product of 2072640 came out as 1048544"


def test_int8_says_what_float32_says(stages: Stages, record_property: Record) -> None:
    windows = np.concatenate([noise(12, seed) * loud for seed, loud in ((0, 1.0), (1, 0.01), (2, 5.0))])
    windows[::3, 20_000:40_000] += 0.5 * np.sin(0.3 * np.arange(20_000), dtype=np.float32)
    int8, floats = (score(open_scorer(path), windows) for path in (stages.model, stages.float_model))
    difference = float(np.abs(int8 - floats).max())
    nodes = [node.op_type for node in onnx.load(stages.model).graph.node].count("MatMulInteger")
    expected = len(PRODUCTS) * SIZES["demo"].layers
    assert 0 < difference <= 0.02 and nodes == expected
    record_property(
        "R16",
        f"{len(windows)} frozen windows: INT8 within {difference:.4f} of float32; {nodes} of {expected} products are "
        f"INT8; known answer {open_scorer(stages.model).known_answer}",
    )


@pytest.mark.slow
def test_int8_is_a_third_of_the_size_where_weights_dominate(
    stages: Stages, tmp_path: Path, record_property: Record
) -> None:
    _, facts = load_classifier(stages.classifier)
    torch.manual_seed(0)
    model = BirdClefClassifier(Encoder(SIZES["base"]), AudioSettings(), len(facts.taxonomy.labels), HeadSettings())
    about = replace(facts, size="base", depth=6, audio=AudioSettings(), head=HeadSettings())
    write_float(model.eval(), about, tmp_path / "m.onnx", False)
    write_int8(tmp_path / "m.onnx", tmp_path / "m.int8.onnx", about, False)
    ratio = (tmp_path / "m.int8.onnx").stat().st_size / (tmp_path / "m.onnx").stat().st_size
    nodes = [node.op_type for node in onnx.load(tmp_path / "m.int8.onnx").graph.node].count("MatMulInteger")
    assert ratio < 0.35 and nodes == len(PRODUCTS) * SIZES["base"].layers
    record_property("R16", f"a base encoder: {nodes} INT8 products, {ratio:.3f} of the float32 file's size")


def test_every_linear_layer_of_the_encoder_is_int8_and_nothing_else(stages: Stages) -> None:
    plain = Counter(node.op_type for node in onnx.load(stages.float_model).graph.node)
    int8 = Counter(node.op_type for node in onnx.load(stages.model).graph.node)
    linear = len(PRODUCTS) * SIZES["demo"].layers
    assert int8["MatMulInteger"] == linear
    assert int8["MultiHeadAttention"] == plain["Softmax"] == SIZES["demo"].layers and int8["Softmax"] == 0  # in them
    assert int8["MatMul"] == plain["MatMul"] - linear - 2 * SIZES["demo"].layers  # front end, head stay
    assert int8["Conv"] == plain["Conv"] == 2 and int8["ConvInteger"] == 0


def test_the_mel_filters_are_never_quantised(stages: Stages) -> None:
    graph = onnx.load(stages.float_model)
    chosen = set(products(graph))
    front_end = {n.name for n in graph.graph.node if any("model.log_mel" in e.value for e in n.metadata_props)}
    every = {n.name for n in graph.graph.node if n.op_type == "MatMul"}
    assert len(front_end & every) == 3 and not chosen & front_end


def test_products_have_the_names_of_the_modules_they_come_from(stages: Stages) -> None:
    model, _ = load_classifier(stages.classifier)
    assert set(products(onnx.load(stages.float_model)).values()) == set(linear_layers(model))


def test_what_is_spared_stays_in_float_and_changes_nothing_else(stages: Stages, tmp_path: Path) -> None:
    _, facts = load_classifier(stages.classifier)
    path = tmp_path / "m.onnx"
    write_int8(
        stages.float_model,
        path,
        facts,
        True,
        Recipe(dict.fromkeys(("layers.0.fc2", "layers.2.self_attn.q_proj"), "a test")),
    )
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert kinds["MatMulInteger"] == len(PRODUCTS) * SIZES["demo"].layers - 2
    every = tuple(products(onnx.load(stages.float_model)).values())
    write_int8(stages.float_model, path, facts, True, Recipe(dict.fromkeys(every, "a test")))
    windows = noise(2)
    ours, floats = (score(open_scorer(file), windows) for file in (path, stages.float_model))
    np.testing.assert_allclose(ours, floats, atol=1e-6)
    with pytest.raises(AssertionError, match="no product of the name"):
        write_int8(stages.float_model, path, facts, True, Recipe({"layers.9.fc2": "a test"}))


def test_our_int8_is_that_of_onnx_runtimes_own_quantiser(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, facts = load_classifier(stages.classifier)

    def as_it_is(_graph: onnx.ModelProto, _size: EncoderSize) -> None:
        pass

    monkeypatch.setattr("serving.export.fuse_attention", as_it_is)
    graph = onnx.load(stages.float_model)
    wanted = list(products(graph))
    eight = tuple(products(graph).values())  # all 8 bits, as theirs
    write_int8(stages.float_model, tmp_path / "ours.onnx", facts, verified=True, recipe=Recipe(eight=eight))
    del graph.graph.value_info[:]  # shapes the exporter noted trip the quantiser's own inference of them
    quantize_dynamic(
        graph,
        tmp_path / "theirs.onnx",
        op_types_to_quantize=["MatMul"],
        nodes_to_quantize=wanted,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    write_digest(tmp_path / "theirs.onnx")
    windows = noise(3)
    ours, theirs = (score(open_scorer(tmp_path / name), windows) for name in ("ours.onnx", "theirs.onnx"))
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    floats = score(open_scorer(stages.float_model), windows)
    assert np.abs(ours - floats).max() > 2e-5  # negative control: it is not the float file


def test_weights_are_scaled_per_channel(stages: Stages) -> None:
    scales = [t for t in onnx.load(stages.model).graph.initializer if t.name.endswith("_scale")]
    assert scales and all(list(scale.dims) in ([96], [384]) for scale in scales)
    table, units = quantised_weight(np.array([[1.0, 0.0], [-3.0, 0.0]], np.float32))
    assert table.tolist() == [[21, 0], [-63, 0]] and units.tolist() == pytest.approx([3 / 63, 1.0])


def test_weights_have_seven_bits_which_no_cpu_overflows_but_where_eight_are_asked_for(
    stages: Stages, tmp_path: Path
) -> None:
    _, facts = load_classifier(stages.classifier)
    fine = ["layers.0.fc2", "layers.1.self_attn.q_proj"]
    write_int8(stages.float_model, tmp_path / "m.onnx", facts, True, Recipe(eight=fine))
    for path, expected in ((stages.model, {LEVELS: 18}), (tmp_path / "m.onnx", {LEVELS: 16, EIGHT_BITS: 2})):
        graph = onnx.load(path).graph
        weights = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
        assert Counter(int(np.abs(weight.astype(int)).max()) for weight in weights) == expected
    assert 2 * 255 * LEVELS < 2**15 <= 2 * 255 * EIGHT_BITS
    windows = noise(2)
    floats = score(open_scorer(stages.float_model), windows)
    for path in (stages.model, tmp_path / "m.onnx"):
        assert np.abs(score(open_scorer(path), windows) - floats).max() < 0.02


def test_what_rounded_weights_make_of_the_mean_is_taken_out_of_the_bias() -> None:
    rng = np.random.default_rng(0)
    constants = {"weight": rng.normal(size=(64, 8)).astype(np.float32), "bias": rng.normal(size=8).astype(np.float32)}
    mean = np.rint(np.linspace(0, 255, 64)).astype(np.float32)  # whole numbers up to 255, which UINT8 has exactly
    answers: list[np.ndarray[tuple[int, int], np.dtype[np.float32]]] = []
    for how in (None, Rounding(), Rounding(mean=mean, bias="bias")):
        nodes = [
            helper.make_node("MatMul", ["sound", "weight"], ["product"], "product"),
            helper.make_node("Add", ["product", "bias"], ["answer"], "sum"),
        ]
        sound = helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["rows", 64])
        answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["rows", 8])
        tables = [numpy_helper.from_array(table, name) for name, table in constants.items()]
        toy = helper.make_graph(nodes, "toy", [sound], [answer], tables)
        graph = helper.make_model(toy, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        if how:
            quantise_products(graph, {"product": how})
        rows = np.stack([mean, np.clip(mean + (-1.0) ** np.arange(64), 0, 255)]).astype(np.float32)
        answers.append(ort.InferenceSession(graph.SerializeToString()).run(None, {"sound": rows})[0])
    exact, coarse, corrected = answers
    assert np.abs(corrected[0] - exact[0]).max() < 1e-5 * np.abs(exact[0]).max()
    assert np.abs(coarse[0] - exact[0]).max() > 1e-3 * np.abs(exact[0]).max()  # negative control
    assert np.abs(corrected[1] - exact[1]).max() < 0.3 * np.abs(coarse[1] - exact[1]).max()


@dataclass(frozen=True)
class Untrained:
    """A network of two layers before training, its float32 file, and what the exporter made of it."""

    model: BirdClefClassifier
    facts: ClassifierFacts
    float_model: Path
    exported: Any


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    torch.manual_seed(0)
    encoder = Encoder(replace(SIZES["demo"], layers=2))
    model = BirdClefClassifier(encoder, AudioSettings(), 5, HeadSettings()).eval()
    torch.nn.init.normal_(model.head.score.weight, std=0.05)  # or it would say nothing
    labels = tuple("abcde")
    lineages = tuple(("k", "p", "c", "o", "f", "g", label) for label in labels)
    taxonomy = Taxonomy(labels, labels, labels, lineages, (7,) * 5)
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(), taxonomy, {}, depth=2)
    path, made = tmp_path_factory.mktemp("untrained") / "float.onnx", list[Any]()
    export: Callable[..., Any] = torch.onnx.export  # pyright: ignore[reportUnknownVariableType] - it has no types

    def kept(*words: Any, **named: Any) -> Any:
        made.append(export(*words, **named))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.onnx.export", kept)
        write_float(model, facts, path, verified=True)
    return Untrained(model, facts, path, made[0])


def test_an_encoder_whose_norms_and_biases_are_all_equal_is_smoothed_and_corrected_all_the_same(
    untrained: Untrained, tmp_path: Path
) -> None:
    """The exporter keeps equal constants once: before training all norms share one, and all biases."""
    model, facts, floats = untrained.model, untrained.facts, untrained.float_model
    names = {tensor.name for tensor in onnx.load(floats).graph.initializer}
    assert sum(name.endswith("layer_norm.weight") for name in names) == 1, "negative control: they are kept once"
    channels = input_channels(model, torch.from_numpy(noise(2)))
    scales = {name: scale.numpy() for name, scale in smoothing(model, channels).items()}
    means = {name: own.mean.numpy() for name, own in channels.items()}
    every = dict.fromkeys(scales, "a test")
    windows = noise(2, seed=1)
    exact = score(open_scorer(floats), windows)
    write_int8(floats, tmp_path / "smooth.onnx", facts, True, Recipe(every, scales=scales))
    np.testing.assert_allclose(score(open_scorer(tmp_path / "smooth.onnx"), windows), exact, atol=2e-6)
    write_int8(floats, tmp_path / "int8.onnx", facts, True, Recipe(scales=scales, means=means))
    write_int8(floats, tmp_path / "plain.onnx", facts, True, Recipe())
    whole, plain = (
        np.abs(score(open_scorer(tmp_path / f"{name}.onnx"), windows) - exact).max() for name in ("int8", "plain")
    )
    assert whole < max(plain, 0.01)


def test_smoothing_changes_the_numbers_inside_and_not_what_the_network_computes(stages: Stages, tmp_path: Path) -> None:
    model, facts = load_classifier(stages.classifier)
    rng, scales = np.random.default_rng(0), dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]()
    for name, linear in linear_layers(model).items():
        group = name.replace("k_proj", "q_proj").replace("v_proj", "q_proj")
        scales[name] = scales.get(group, np.exp(rng.normal(0, 1.5, linear.in_features)).astype(np.float32))
    every = dict.fromkeys(scales, "a test")
    windows = noise(2)
    write_int8(stages.float_model, tmp_path / "plain.onnx", facts, True, Recipe(every))
    write_int8(stages.float_model, tmp_path / "smooth.onnx", facts, True, Recipe(every, scales=scales))
    plain, smooth = (score(open_scorer(tmp_path / f"{name}.onnx"), windows) for name in ("plain", "smooth"))
    np.testing.assert_allclose(smooth, plain, atol=2e-6)
    before, after = (
        Counter(node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node)
        for name in ("plain", "smooth")
    )
    assert after - before == Counter({"Mul": 3}) and not before - after  # one behind each Gelu, no other costs anything
    tables = [
        {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / f"{name}.onnx").graph.initializer}
        for name in ("plain", "smooth")
    ]
    changed = {name for name, table in tables[0].items() if not np.array_equal(table, tables[1][name])}
    assert len(changed) == 18 + 2 * 6 + 3  # negative control: all weights, both constants of six norms, three biases
    mild = {name: scale ** np.float32(0.1) for name, scale in scales.items()}  # INT8 does not forgive wild ones
    recipe = Recipe({"layers.1.fc2": "a test"}, ["layers.0.fc1"], mild)
    write_int8(stages.float_model, tmp_path / "int8.onnx", facts, True, recipe)
    assert np.abs(score(open_scorer(tmp_path / "int8.onnx"), windows) - plain).max() < 0.05


def test_no_path_of_the_machine_that_trained_travels_in_the_file(stages: Stages) -> None:
    for path in (stages.float_model, stages.model):
        assert str(HERE).encode() not in path.read_bytes()


def test_facts_travel_into_both_files(stages: Stages) -> None:
    _, facts = load_classifier(stages.classifier)
    for path, precision in ((stages.float_model, "float32"), (stages.model, "int8")):
        scorer = open_scorer(path)
        assert scorer.taxonomy == facts.taxonomy and scorer.audio == facts.audio
        assert scorer.thresholds.ranks == facts.thresholds.ranks
        pairs = zip(scorer.thresholds.species, facts.thresholds.species, strict=True)
        for mine, fitted in pairs:  # INT8's may be moved a little
            moved = replace(mine, best_f1=fitted.best_f1, precise=fitted.precise)
            assert moved == fitted and abs(mine.applied - fitted.applied) <= (0.02 if precision == "int8" else 0)
        assert scorer.precision == precision and scorer.verified


def test_a_silent_failure_to_quantise_is_noticed(tmp_path: Path, stages: Stages) -> None:
    """A graph without scopes must not pass as INT8."""
    _, facts = load_classifier(stages.classifier)
    graph = onnx.load(stages.float_model)
    for node in graph.graph.node:
        del node.metadata_props[:]
    onnx.save(graph, tmp_path / "bare.onnx")
    with pytest.raises(AssertionError, match="0 of 18 matrix products were found"):
        write_int8(tmp_path / "bare.onnx", tmp_path / "int8.onnx", facts, verified=True)
    assert not (tmp_path / "int8.onnx").exists()


def test_what_is_too_large_for_one_file_lies_beside_it_and_is_served_all_the_same(
    untrained: Untrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exported(*_: object, **__: object) -> Any:
        return untrained.exported

    model, facts, floats = untrained.model, untrained.facts, untrained.float_model
    inputs = {name: linear.in_features for name, linear in linear_layers(model).items()}
    scales = {name: np.linspace(0.8, 1.25, count).astype(np.float32) for name, count in inputs.items()}
    means = {name: np.linspace(-0.1, 0.1, count).astype(np.float32) for name, count in inputs.items()}
    recipe, windows = Recipe({"layers.1.fc2": "a test"}, ["layers.0.fc1"], scales, means), noise(2)
    write_int8(floats, tmp_path / "small.onnx", facts, True, recipe)
    small = [score(open_scorer(path), windows) for path in (floats, tmp_path / "small.onnx")]
    (tmp_path / "small.onnx").unlink()
    monkeypatch.setattr("torch.onnx.export", exported)  # it is the file that is another one
    monkeypatch.setattr("serving.export.LARGEST_FILE", 1e6)
    write_float(model, facts, tmp_path / "m.onnx", verified=True)
    weights = beside(tmp_path / "m.onnx")
    assert weights and set(tmp_path.iterdir()) == {tmp_path / "m.onnx", weights}
    assert (tmp_path / "m.onnx").stat().st_size < 0.3 * weights.stat().st_size
    monkeypatch.setattr("serving.export.LARGEST_FILE", 3e5)
    write_int8(tmp_path / "m.onnx", tmp_path / "int8.onnx", facts, True, recipe)
    more = beside(tmp_path / "int8.onnx")
    assert more and (tmp_path / "int8.onnx").stat().st_size < 0.5 * more.stat().st_size
    assert set(tmp_path.iterdir()) == {tmp_path / "m.onnx", weights, tmp_path / "int8.onnx", more}
    for expected, large in zip(small, ("m.onnx", "int8.onnx"), strict=True):
        assert np.allclose(score(open_scorer(tmp_path / large), windows), expected, atol=1e-6)
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(AssertionError, match=r"m\.onnx\.[0-9a-f]{16}\.data beside it is damaged"):
        open_scorer(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("pooling", "rate", "mels", "pool"), [("pooled", 32_000, 80, 5), ("attention", 16_000, 128, 1)]
)
def test_every_kind_of_head_a_longer_context_128_mel_bins_and_pooled_tokens_are_served_as_they_were_trained(
    pooling: Pooling, rate: int, mels: int, pool: int, tmp_path: Path, stages: Stages
) -> None:
    _, facts = load_classifier(stages.classifier)
    torch.manual_seed(0)
    audio = AudioSettings(rate, context_seconds=10.0)
    head, size = HeadSettings(pooling, layers=2), replace(encoder_size("demo", 2, pool=pool), mels=mels)
    model = BirdClefClassifier(Encoder(size, audio), audio, len(facts.taxonomy.labels), head)
    torch.nn.init.normal_(model.head.score.weight, std=0.02)
    model.train()(0.1 * torch.randn(4, 10 * rate))  # moments that are not those of a new model
    model.eval().temperature.fill_(1.7)
    about = replace(facts, audio=audio, head=head, depth=2, pool=pool)
    write_float(model, about, tmp_path / "m.onnx", False)
    write_int8(tmp_path / "m.onnx", tmp_path / "int8.onnx", about, False)
    windows = np.random.default_rng(0).normal(0, 0.1, (3, 10 * rate)).astype(np.float32)
    with torch.inference_mode():
        trained = model(torch.from_numpy(windows)).sigmoid().numpy()
        _, embeddings = model.answers(torch.from_numpy(windows[:1]))
    opened, int8 = open_scorer(tmp_path / "m.onnx"), open_scorer(tmp_path / "int8.onnx")
    served = score(opened, windows)
    assert served.shape == (6, len(facts.taxonomy.labels)) and opened.windows == 2
    np.testing.assert_allclose(served, trained, atol=1e-5)
    np.testing.assert_allclose(score(int8, windows), trained, atol=0.02)
    words = "demo, the lowest 2 of 3 layers" + ", every 5 tokens pooled" * (pool > 1)
    assert opened.encoder == int8.encoder == words
    assert opened.thresholds == facts.thresholds and not opened.verified
    given = opened.network(windows[:1])["embeddings"]
    np.testing.assert_allclose(given, embeddings.numpy(), atol=1e-4)
    if pool > 1:  # negative control: with all its tokens it is another network
        plain = BirdClefClassifier(Encoder(replace(size, pool=1), audio), audio, len(facts.taxonomy.labels), head)
        plain.load_state_dict(model.state_dict())
        with torch.inference_mode():
            assert np.abs(plain.eval()(torch.from_numpy(windows)).sigmoid().numpy() - trained).max() > 1e-3


def test_a_classifier_of_two_layers_is_served_with_two_and_says_so(
    untrained: Untrained, tmp_path: Path, stages: Stages
) -> None:
    model = untrained.model
    write_int8(untrained.float_model, tmp_path / "m.int8.onnx", untrained.facts, False)
    opened = open_scorer(untrained.float_model)
    with torch.inference_mode():
        trained = model(torch.from_numpy(noise(2))).sigmoid().numpy()
    np.testing.assert_allclose(score(opened, noise(2)), trained, atol=1e-4)
    int8 = onnx.load(tmp_path / "m.int8.onnx")
    assert [node.op_type for node in int8.graph.node].count("MatMulInteger") == len(PRODUCTS) * 2
    served = open_scorer(tmp_path / "m.int8.onnx")
    assert served.encoder == opened.encoder == "demo, the lowest 2 of 3 layers"
    assert open_scorer(stages.model).encoder == "demo"  # a negative control


def test_the_files_tell_how_unfamiliar_a_window_is_as_its_embedding_says(stages: Stages) -> None:
    rng = np.random.default_rng(0)
    trained = rng.normal(size=(60, 96)) + np.repeat(3 * rng.normal(size=(3, 96)), 20, axis=0)
    vectors = (trained[::2] + rng.normal(size=(30, 96))).astype(np.float32)
    fitted = fit_familiarity(trained, np.repeat(range(3), 20), vectors)
    found = Strangeness(fitted)(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(found, unfamiliar(fitted, vectors), atol=1e-4)
    assert np.ptp(found) > 0.9
    # and so do the files of the stages, INT8 nearly the same
    sounds = rng.normal(0, 0.1, (6, 80_000)).astype(np.float32) * 10 ** rng.uniform(-2, 0, (6, 1)).astype(np.float32)
    answers = list[NDArray[np.float32]]()
    for path in (stages.float_model, stages.model):
        scorer = open_scorer(path, 1)
        assert scorer.unfamiliar
        told = [one.unfamiliar for one in answers_of(scorer, sounds)]
        answers.append(np.concatenate([one for one in told if one is not None]))
    assert answers[0].shape == (6,) and np.abs(answers[0] - answers[1]).max() < 0.1


def test_a_file_that_says_it_tells_and_does_not_is_refused(stages: Stages) -> None:
    scorer = open_scorer(stages.model, 1)
    sounds = np.random.default_rng(0).normal(0, 0.1, (1, 80_000)).astype(np.float32)
    silent = {name: value for name, value in scorer.network(sounds).items() if name != "unfamiliar"}

    def said(answers: dict[str, NDArray[np.float32]]) -> Scorer:
        def network(_: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            return answers

        return replace(scorer, network=network)

    for wrong in (silent, *(silent | {"unfamiliar": np.array([value], np.float32)} for value in (2.0, np.nan))):
        with pytest.raises(AssertionError, match="does not tell how unfamiliar its 1 windows are"):
            answers_of(said(wrong), sounds)
    (answer,) = answers_of(replace(scorer, unfamiliar=False), sounds)
    assert answer.unfamiliar is None
