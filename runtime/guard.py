"""What an ONNX file holds, looked through before any engine opens it: a graph is a program, and may be a stranger's.

    check_graph(Path("classifier.onnx"), None)      # refuses loops, branches, functions, and weights from elsewhere
    check_graph(Path("teacher.onnx"), None, FOREIGN)   # the same of a network that others exported
    check_ir(Path("classifier.xml"), Path("classifier.bin"))       # the same of OpenVINO's files
    options = bounded_options()               # a session that never takes more than its share of memory
    limit_process()                                 # the same for an engine without such a limit

Only operators that compute are let through: without loops every run ends. Memory is limited, since Expand and Pad can
ask for any amount, and weights outside of the file must lie in one file of its name beside it. Nothing here needs the
onnx package: a file is read field by field, as protobuf lays them down; OpenVINO's XML by expat, which fetches nothing.
source    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
source    https://docs.openvino.ai/2026/documentation/openvino-ir-format.html
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import mmap
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.parsers.expat import ParserCreate

import numpy as np
import onnxruntime as ort

from system import limit_memory, memory

EXACT_INT8 = ("session.x64quantprecision", "1")  # where there is no VNNI, weights of 8 bits are multiplied in 16 bits
OPERATORS = frozenset(  # what serving/export.py writes for any encoder and head, and plain arithmetic of the same kind
    re.findall(
        r"\w+",
        """
        Abs Add AveragePool BatchNormalization Cast Celu Clip Concat Conv Cos DequantizeLinear Div DynamicQuantizeLinear
        Elu Erf Exp Expand Flatten Gather Gelu Gemm GlobalAveragePool HardSigmoid HardSwish Identity
        InstanceNormalization LayerNormalization LeakyRelu Log MatMul MatMulInteger Max MaxPool Min Mish Mul Neg PRelu
        Pad Pow QuantizeLinear Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize
        Selu Shape Sigmoid Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh TopK Transpose Unsqueeze Where
        """,
    )
)
FOREIGN = OPERATORS | frozenset(  # and of what other exporters write for networks of sound: arithmetic all the same
    re.findall(
        r"\w+",
        """
        And ArgMax ArgMin Ceil Constant ConstantOfShape ConvTranspose CumSum DFT Einsum Equal Floor GatherElements
        GatherND GlobalMaxPool Greater GreaterOrEqual GroupNormalization HammingWindow HannWindow IsNaN LSTM Less
        LessOrEqual LogSoftmax LpNormalization MelWeightMatrix Mod Not Or Range ReduceLogSumExp ReduceProd
        ReduceSumSquare ReverseSequence Round STFT Sign Size Softsign Sum Tile
        """,
    )
)
CONTRIBUTED = frozenset({"MultiHeadAttention"})  # of com.microsoft
GRAPH, TRAINING, FUNCTIONS = 7, 20, 25  # fields of a model
NODES, INITIALIZERS, SPARSE = 1, 5, 15  # of a graph
OPERATOR, ATTRIBUTES, DOMAIN = 4, 5, 7  # of a node
INNER = frozenset({5, 6, 10, 11, 14, 15, 22, 23})  # fields of an attribute: tensors, graphs, types, sparse tensors
TENSOR = 5  # of an attribute: a tensor, as Constant has one
EXTERNAL = 13  # of a tensor: where its values are, as pairs of texts
DIMENSION_TAGS, TYPE_TAG = (1 << 3, 1 << 3 | 2), 2 << 3  # of a tensor: one dimension, all of them; its type
RAW, INT8, SEVEN_BITS = 9, 3, 64  # its values; a type; the largest weight of which two products fit into 16 bits
VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5  # how a field is laid down
LAYERS = frozenset(  # of OpenVINO's opsets: what the operators above become
    re.findall(
        r"\w+",
        """
        Abs Add AvgPool BatchNormInference Broadcast Clamp Concat Const Convert Convolution Cos Divide Elu Erf Exp
        Gather Gelu GroupConvolution HSigmoid HSwish HardSigmoid Identity Interpolate Log MVN MatMul MaxPool Maximum
        Minimum Mish Multiply Negative PReLU Pad Parameter Power Range ReLU ReduceL1 ReduceL2 ReduceMax ReduceMean
        ReduceMin ReduceSum Reshape Result Select Selu ShapeOf Sigmoid Sin Slice SoftMax SoftPlus Softmax Split Sqrt
        Squeeze StridedSlice Subtract Swish Tanh TopK Transpose Unsqueeze VariadicSplit
        """,
    )
)
TAGS = frozenset({"net", "layers", "layer", "data", "input", "output", "port", "dim", "edges", "edge"})
FACTS = frozenset({"rt_info", "info", "framework", "seal", "wild_whisper"})  # elements with what is no network
DEEPEST = 8  # elements inside of each other: OpenVINO goes down by recursion
LARGEST_XML = 2**26  # bytes
LARGEST_DATA = 2**34  # bytes beside the file
SHARE = 0.75  # of the memory that scoring may take


def check_graph(path: Path, named: Path | None, operators: frozenset[str] = OPERATORS) -> None:
    """Refuse a graph that could run for ever or read what lies elsewhere, in one line.

    named       the file that the seal names beside it (digests.inspect)
    operators   that are let through: what serving/export.py writes, or FOREIGN, with the tensors of its constants
    Errors: an operator that is not among these, functions, graphs inside of nodes, and tensors but for constants of
    FOREIGN, sparse tensors; weights in any file but the one that the seal names, or .data behind the same name; a link
    instead of it.
    """
    assert path.stat().st_size, f"{path} is empty; copy it again"
    locations = set[str]()
    with path.open("rb") as file:
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for number, graph in fields(model, path):
        assert number not in (TRAINING, FUNCTIONS), f"{path} holds functions or training; {remedy()}"
        if number == GRAPH:
            check_nodes(graph, path, locations, operators)
    beside = named or path.with_name(f"{path.name}.data")
    assert locations <= {beside.name}, (
        f"{path} wants weights from {sorted(locations)[0]!r}; they are only read from {beside.name} beside it; "
        "if it is damaged, copy both again"
    )
    if locations:
        check_weights(path, beside)


def check_weights(path: Path, beside: Path) -> None:
    """Refuse a file of weights that is missing, a link, or larger than any network of ours."""
    assert beside.is_file(), f"{beside} with the weights of {path} is missing; copy it there too"
    facts = beside.lstat()
    assert not beside.is_symlink() and facts.st_nlink == 1, f"{beside} is a link; copy the file itself there"
    assert facts.st_size <= LARGEST_DATA, f"{beside} has {facts.st_size} bytes, more than any Whisper encoder"


def check_ir(path: Path, beside: Path) -> None:
    """Refuse a network of OpenVINO's (an .xml, and the .bin beside it), as `check_graph` does one of ONNX.

    Errors: a document type, so that there are no entities, neither its own nor from elsewhere; graphs inside of layers,
    layers that are not in LAYERS or of an extension; elements nested without end; too large a file; weights that are
    missing, a link or too large. ExpatError where it is no XML.
    """
    size, depth = path.stat().st_size, 0
    assert size <= LARGEST_XML, f"{path} has {size} bytes, more than any network takes to describe; {remedy()}"

    def refuse(*_: object) -> None:
        raise AssertionError(f"{path} declares a document type, which may hold entities; {remedy()}")

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        assert depth <= DEEPEST, f"{path} holds more than {DEEPEST} elements inside of each other; {remedy()}"
        assert name in TAGS | FACTS, f"{path} holds the element {name[:40]!r}; {remedy()}"
        kind, version = attributes.get("type", ""), attributes.get("version", "")
        known = kind in LAYERS and re.fullmatch(r"opset[0-9]+", version) is not None
        assert known or name != "layer", f"{path} holds the layer {f'{version}.{kind}'[:80]!r}; {remedy()}"

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1

    parser = ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.Parse(path.read_bytes(), True)
    check_weights(path, beside)


def check_nodes(graph: memoryview, path: Path, locations: set[str], operators: frozenset[str]) -> None:
    """The operators of a graph, and the names of the files that hold its weights, which are added to `locations`."""
    for number, part in fields(graph, path):
        assert number != SPARSE, f"{path} holds sparse tensors; {remedy()}"
        if number == NODES:
            name, domain, attributes = "", "", list[memoryview]()
            for inner, value in fields(part, path):
                if inner == OPERATOR:
                    name = field_text(value)
                elif inner == DOMAIN:
                    domain = field_text(value)
                elif inner == ATTRIBUTES:
                    attributes.append(value)
            for attribute in attributes:
                for inner, value in fields(attribute, path):
                    constant = inner == TENSOR and name in operators - OPERATORS and name.startswith("Constant")
                    assert constant or inner not in INNER, (
                        f"{path}: a {name[:40]!r} holds a graph or a tensor of its own; {remedy()}"
                    )
                    if constant:
                        locations |= location_of(value, path)
            known = operators if domain in ("", "ai.onnx") else CONTRIBUTED if domain == "com.microsoft" else ()
            hint = "a model of somebody else is given with --card; " if name in FOREIGN else ""
            assert name in known, f"{path} holds the operator {f'{domain}.{name}'.strip('.')[:80]!r}; {hint}{remedy()}"
        elif number == INITIALIZERS:
            locations |= location_of(part, path)


def location_of(tensor: memoryview, path: Path) -> set[str]:
    """The file in which the values of a tensor lie; nothing where the tensor holds them itself."""
    found = set[str]()
    for number, value in fields(tensor, path):
        if number == EXTERNAL:
            pair = {inner: field_text(content) for inner, content in fields(value, path)}
            found |= {pair.get(2, "")} if pair.get(1) == "location" else set[str]()
    return found


def fields(message: memoryview, path: Path) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a message; of one without length the content is empty."""
    position = 0
    while position < len(message):
        tag, position = varint(message, position, path)
        number, kind = tag >> 3, tag & 7
        size = {EIGHT: 8, FOUR: 4}.get(kind, 0)
        if kind in (VARINT, LENGTH):
            value, position = varint(message, position, path)
            size = value if kind == LENGTH else 0
        sound = 0 < number < 2**29 and kind in (VARINT, EIGHT, LENGTH, FOUR) and position + size <= len(message)
        assert sound, f"{path} is damaged or no ONNX file; copy it again"
        yield number, message[position : position + size] if kind == LENGTH else message[:0]
        position += size


def varint(message: memoryview, position: int, path: Path) -> tuple[int, int]:
    """A number of 1 to 10 bytes, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        assert position < len(message), f"{path} is damaged or no ONNX file: it breaks off; copy it again"
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
    raise AssertionError(f"{path} is damaged or no ONNX file; copy it again")


def field_text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def remedy() -> str:
    return "`python quantize.py` never writes that, so it is not run; take a file from somebody you trust"


def has_wide_weights(path: Path) -> bool:
    """Whether a file holds INT8 weights of more than seven bits, or none can tell: two products of such a weight with
    UINT8 may not fit into 16 bits, in which a CPU without VNNI adds them. ONNX Runtime multiplies these in another way
    if it is told to, and takes a fifth of a second longer to open any file then."""
    with path.open("rb") as file:
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    graphs = [graph for number, graph in fields(model, path) if number == GRAPH]
    tensors = (part for graph in graphs for number, part in fields(graph, path) if number == INITIALIZERS)
    return any(is_wide(tensor, path) for tensor in tensors)


def is_wide(tensor: memoryview, path: Path) -> bool:
    """The same of one tensor, whose type stands behind its dimensions."""
    position, tag, value = 0, 0, 0
    while position < len(tensor) and tag != TYPE_TAG:
        tag, position = varint(tensor, position, path)
        value, position = varint(tensor, position, path)
        if tag not in (*DIMENSION_TAGS, TYPE_TAG):
            return True
        position += value if tag == DIMENSION_TAGS[1] else 0
    if tag != TYPE_TAG or value != INT8:
        return tag != TYPE_TAG
    raw = [np.frombuffer(content, np.int8) for number, content in fields(tensor, path) if number == RAW]
    return not raw or any(len(part) and (part.min() < -SEVEN_BITS or part.max() > SEVEN_BITS) for part in raw)


def bounded_options(exact: bool = True) -> ort.SessionOptions:
    """A session of one thread that shares its memory, and the limit on it, with all others of this process.

    exact   no product of INT8 overflows, also of weights of eight bits: see `has_wide_weights`
    """
    limit_arena()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is an error already
    options.add_session_config_entry("session.use_env_allocators", "1")
    if exact:
        options.add_session_config_entry(*EXACT_INT8)
    return options


@cache
def limit_arena() -> None:
    """Whatever graphs ask for, together they get no more than a share of the memory."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"max_mem": most_memory(), "arena_extend_strategy": 0}))


def limit_process() -> None:
    """The same share for all that this process holds itself, for an engine that has no such limit of its own: what asks
    for more gets an error."""
    limit_memory("RLIMIT_DATA", most_memory())


def most_memory() -> int:
    """Bytes, of what the computer or the container has."""
    return int(SHARE * memory())


if __name__ == "__main__":

    def field(number: int, content: bytes) -> bytes:
        """A short one, as protobuf lays it down."""
        return bytes([number << 3 | LENGTH, len(content)]) + content

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loop.onnx"
        path.write_bytes(field(GRAPH, field(NODES, field(OPERATOR, b"MatMul"))))
        check_graph(path, None)
        path.write_bytes(field(GRAPH, field(NODES, field(OPERATOR, b"Loop"))))
        try:
            check_graph(path, None)
        except AssertionError as refusal:
            print("refused:", refusal)
            assert "'Loop'" in str(refusal)
