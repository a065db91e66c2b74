"""What a stranger changed in a bundle is refused in one sentence, before it does anything."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import write_shapes
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

import headstart as hs
from headstart.backbones.graph_check import check_graph
from headstart.backbones.onnx_table import OPS, OPSET
from headstart.backbones.room import room_for
from headstart.backbones.session import import_onnxruntime
from headstart.base.errors import BundleError, HeadstartError, Mismatch, SourceError, SpecError
from headstart.base.strict_json import read_strictly
from headstart.base.tensor_files import check_tensor_file
from headstart.cli.main import main
from headstart.data.splits import split
from headstart.models import bundle_files as bundles
from headstart.models.bundle import load_bundle, save
from headstart.models.fitting import fit
from headstart.specs import FeatureExtraction


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    parts = split(hs.read(write_shapes(folder / "shapes")))
    model = fit(FeatureExtraction(), "tiny:8", parts, store=None).model
    return save(model, folder / "bundle").folder


@pytest.fixture
def saved(honest: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in honest.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def reseal(saved: Path) -> None:
    """Make the manifest agree with what the files now are, as a forger does."""
    digests = {name: bundles.digest_of(saved / name) for name in bundles.FILES}
    (saved / bundles.MANIFEST).write_text(bundles.manifest_of(digests))


def refused(saved: Path, match: str) -> None:
    reseal(saved)
    with pytest.raises(BundleError, match=match) as caught:
        load_bundle(saved)
    assert str(caught.value).isprintable()


# ------------------------------------------------------------ JSON
def put(saved: Path, name: str, place: str, text: str) -> None:
    """Write a text of JSON at a place such as "limits/temperature" of a file."""
    plain = json.loads((saved / name).read_text())
    *inner, last = (int(step) if step.isdigit() else step for step in place.split("/"))
    holder = plain
    for step in inner:
        holder = holder[step]
    holder[last] = "@here@"
    (saved / name).write_text(json.dumps(plain).replace('"@here@"', text))


@pytest.mark.parametrize(
    ("name", "place", "text", "match"),
    [
        ("model.json", "limits/temperature", "-1", "temperature"),
        ("model.json", "limits/confidence", "NaN", "NaN"),
        ("model.json", "limits/far", "1e999", "finite"),
        ("model.json", "limits/alpha", '"x"', "alpha"),
        ("model.json", "limits/more", "1", "limits"),
        ("model.json", "classes/0", "null", "must be a text"),
        ("model.json", "classes/0", '""', "not be empty"),
        ("model.json", "classes/0", "3", "must be a text"),
        ("model.json", "majority", "true", "majority"),
        ("model.json", "hook", "1", "no key 'hook'"),
        ("model.json", "inputs", "{}", "list of names"),
        ("model.json", "inputs/0", "[]", "list of names"),
        ("model.json", "head", "[]", "head must be an object"),
        ("model.json", "head/settings", '{"neighbours": 1}', "no settings"),
        ("card.json", "dim", "true", "must be a whole number"),
        ("card.json", "dim", "1099511627776", "number of features"),
        ("card.json", "input/size", "20000", "size=20000"),
        ("card.json", "input/size", "16", "its card's examples"),
        ("card.json", "input/mean", "[1e9, 0, 0]", "mean from 0 to 1"),
        ("card.json", "input/averaged", '{"hook": 1}', "has no setting"),
        ("card.json", "source_classes", '"abc"', "must be a list"),
        ("golden.json", "scores", '["a", "b"]', "must hold numbers"),
        ("golden.json", "scores", "[[1], [1, 2]]", "equal length"),
        ("golden.json", "scores", "[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]", "deep"),
    ],
)
def test_every_setting_is_of_its_type_and_in_range(
    saved: Path, name: str, place: str, text: str, match: str
) -> None:
    put(saved, name, place, text)
    refused(saved, match)


@pytest.mark.parametrize("name", ["model.json", "card.json", "golden.json"])
@pytest.mark.parametrize("text", ["[]", "null", "7", '"x"', "", "{", "[" * 10**6])
def test_a_file_of_other_json_is_refused(saved: Path, name: str, text: str) -> None:
    (saved / name).write_text(text)
    refused(saved, "bundle")


def test_a_key_is_there_once(saved: Path) -> None:
    text = (saved / "model.json").read_text()
    (saved / "model.json").write_text(text.replace('"head":', '"head": 0, "head":', 1))
    refused(saved, "'head' is there twice")


def test_json_is_bounded_before_it_is_parsed() -> None:
    with pytest.raises(SpecError, match="at most 10 are read"):
        read_strictly(b'"' + b"a" * 20 + b'"', 10)
    assert read_strictly(b'["[[[[", {"a\\"[": 1}]') == ["[[[[", {'a"[': 1}]


# ------------------------------------------------------------ weights
def tensors(saved: Path, change: Callable[[dict[str, Any]], object]) -> None:
    found = load_file(saved / bundles.WEIGHTS)
    change(found)
    save_file({k: np.ascontiguousarray(v) for k, v in found.items()}, saved / bundles.WEIGHTS)


@pytest.mark.parametrize("name", ["head.weight", "backbone.stem.0.weight"])
@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64, np.int8, bool])
def test_weights_are_of_their_own_type(saved: Path, name: str, kind: Any) -> None:
    tensors(saved, lambda found: found.update({name: found[name].astype(kind)}))
    refused(saved, "float32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["head.bias", "backbone.stem.1.running_var"])
def test_weights_are_finite(saved: Path, name: str, value: float) -> None:
    tensors(saved, lambda found: found.update({name: np.full_like(found[name], value)}))
    refused(saved, "finite")


@pytest.mark.parametrize("name", ["head.more", "limits.more", "input.more", "more"])
def test_there_are_no_other_tensors(saved: Path, name: str) -> None:
    tensors(saved, lambda found: found.update({name: np.zeros(3, np.float32)}))
    refused(saved, "more")


def test_the_weights_are_of_the_shapes_of_the_graph(saved: Path) -> None:
    name = "backbone.stem.0.weight"
    tensors(saved, lambda found: found.update({name: found[name][:-1]}))
    refused(saved, "the weights are of")


HEADERS = {
    "huge": b'{"a":{"dtype":"F32","shape":[1099511627776,4],"data_offsets":[0,4]}}',
    "gap": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    "twice": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}',
    "kind": b'{"a":{"dtype":"F77","shape":[1],"data_offsets":[0,4]}}',
    "list": b"[1]",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_does_not_fit_its_file_is_refused(saved: Path, header: str) -> None:
    text = HEADERS[header]
    (saved / bundles.WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    refused(saved, "weights.safetensors cannot be read")


# ------------------------------------------------------------ files
@pytest.mark.parametrize("name", [*bundles.FILES, bundles.MANIFEST])
def test_a_link_to_the_right_bytes_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleError, match="is a link"):
        load_bundle(saved)


@pytest.mark.parametrize("name", [*bundles.FILES, bundles.MANIFEST])
def test_a_file_of_3_gb_is_refused_before_it_is_read(
    saved: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(saved / name, 3 * 2**30)

    def read(path: Path) -> bytes:
        assert path.name != name
        return path.read_bytes()

    monkeypatch.setattr("headstart.models.bundle_files.read_bytes", read)
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(saved)


def test_the_digest_of_a_bundle_can_be_demanded(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = load_bundle(saved).digest
    assert hs.load(saved, sha256=own.upper()).head.kind == "linear"
    assert json.loads((saved / bundles.MANIFEST).read_text())["sha256"] == own
    with pytest.raises(BundleError, match="is another one"):
        hs.load(saved, sha256="0" * 64)
    picture = next((tmp_path.parent).rglob("*.png"))
    assert main(["predict", str(saved), str(picture), "--sha256", own]) == 0
    assert main(["predict", str(saved), str(picture), "--sha256", "0" * 64]) == 1
    assert "is another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source",
    ["tiny:8", "scratch:cnn", "tiny-text:8", "packaged:efficientnet_lite0", "timm:resnet18"],
)
def test_a_pickle_under_another_name_is_given_to_no_source(tmp_path: Path, source: str) -> None:
    import torch

    file = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(SourceError, match="a pickle or an archive"):
        hs.load_backbone(source, weights=file)


def test_a_pickle_in_a_folder_of_transformers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(SourceError, match="a pickle or an archive"):
        hs.load_backbone(f"hf:{tmp_path}")


def test_a_card_that_names_a_giant_network_is_refused(saved: Path) -> None:
    put(saved, "card.json", "architecture", '"timm:vit_giant_patch14_clip_224"')
    with pytest.raises(Mismatch, match="far larger than the weights"):
        hs.load_backbone(f"file:{saved}")


def test_a_network_is_built_in_the_room_of_its_weights() -> None:
    from torch import nn

    with room_for("a network", 4 * 100 * 100, 2):
        nn.Linear(100, 100)
    with pytest.raises(Mismatch, match="far larger"), room_for("a network", 40_000, 2):
        nn.Linear(10_000, 10_000)
    with pytest.raises(Mismatch, match="far larger"), room_for("a network", 40_000, 2):
        [nn.Linear(1, 1) for _ in range(5000)]


# ------------------------------------------------------------ graphs
Nodes = list[Any]


def constant(name: str, values: Any) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values)))


def graph_of(*nodes: Any, functions: Any = (), opset: int = OPSET) -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 8]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
    versions = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=versions, functions=functions, ir_version=8)
    return bytes(model.SerializeToString())


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), [output], **attributes)


X = {"x": np.zeros((1, 8), np.float32)}


def branches() -> Nodes:
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Identity", "x", "b")], "b", [], [out])
    return [constant("c", True), node("If", "c", then_branch=branch, else_branch=branch)]


HOSTILE: dict[str, tuple[Callable[[], Nodes], str]] = {
    "a subgraph": (branches, "holds a subgraph"),
    "random numbers": (lambda: [node("RandomNormalLike", "x")], "has the operator"),
    "a large constant": (
        lambda: [constant("s", [975_000_000]), node("ConstantOfShape", "s")],
        "bytes at once",
    ),
    "a computed size": (
        lambda: [
            constant("a", [40_000]),
            node("Mul", "a a", "s"),
            node("ConstantOfShape", "s"),
        ],
        "bytes at once",
    ),
    "an expansion": (lambda: [constant("s", [2**27, 8]), node("Expand", "x s")], "bytes at once"),
    "tiles": (lambda: [constant("s", [2**27, 1]), node("Tile", "x s")], "bytes at once"),
    "a margin": (lambda: [constant("s", [0, 0, 2**30, 0]), node("Pad", "x s")], "bytes at once"),
    "a size by content": (
        lambda: [
            node("Cast", "x", "s", to=TensorProto.INT64),
            node("Flatten", "s", "f"),
            node("ConstantOfShape", "f"),
        ],
        "depends on an example",
    ),
    "doubling": (
        lambda: [node("Concat", f"{a} {a}", b, axis=0) for a, b in doubles(40)],
        "bytes at once",
    ),
    "products": (
        lambda: [
            constant("s", [2048, 2048]),
            node("ConstantOfShape", "s", "0"),
            *(node("MatMul", f"{i} {i}", f"{i + 1}") for i in range(30)),
        ],
        "too much",
    ),
    "a division by zero": (
        lambda: [
            node("Cast", "x", "i", to=TensorProto.INT64),
            constant("z", 0),
            node("Div", "i z", "d"),
        ],
        "divides whole numbers",
    ),
    "a range of steps": (
        lambda: [
            *(constant(n, v) for n, v in (("a", 0), ("b", 10**9), ("c", 1))),
            node("Range", "a b c"),
        ],
        "bytes at once",
    ),
    "an unknown setting": (lambda: [node("Relu", "x", hook=1)], "unknown or out of range"),
    "a setting out of range": (
        lambda: [node("Softmax", "x", axis=2**40)],
        "unknown or out of range",
    ),
    "nothing made": (lambda: [node("Add", "x w")], "nothing made yet"),
    "the same name twice": (lambda: [node("Relu", "x"), node("Relu", "x")], "twice"),
    "many nodes": (
        lambda: [node("Neg", a, b) for a, b in doubles(12_100)],
        "more than 12,000 nodes",
    ),
}


def doubles(times: int) -> list[tuple[str, str]]:
    return [("x" if not i else f"{i}", f"{i + 1}") for i in range(times)]


@pytest.mark.parametrize("what", HOSTILE)
def test_a_graph_that_does_more_than_layers_is_refused(what: str) -> None:
    make, match = HOSTILE[what]
    with pytest.raises(Mismatch, match=match) as caught:
        check_graph(graph_of(*make()), {}, X)
    assert str(caught.value).isprintable()


def test_functions_other_versions_and_two_graphs_are_refused() -> None:
    plain = graph_of(node("Relu", "x"))
    assert check_graph(plain, {}, X) == {"y": (1, 8)}
    own = helper.make_function("own", "F", ["a"], ["b"], [node("Neg", "a", "b")], [])
    with pytest.raises(Mismatch, match="holds functions"):
        check_graph(graph_of(node("Relu", "x"), functions=[own]), {}, X)
    with pytest.raises(Mismatch, match="opset 9"):
        check_graph(graph_of(node("Relu", "x"), opset=9), {}, X)
    with pytest.raises(Mismatch, match="the graph of its model twice"):
        check_graph(plain + onnx.ModelProto(graph=onnx.GraphProto()).SerializeToString(), {}, X)
    with pytest.raises(Mismatch, match="a field of number 31"):
        check_graph(plain + b"\xfa\x01\x00", {}, X)


def test_strides_and_groups_of_zero_end_no_process(saved: Path) -> None:
    """ONNX Runtime divides by them."""
    for name, value in (("strides", [0, 0]), ("group", 0), ("pads", [-(2**40)] * 4)):
        model = onnx.load(saved / "graph.onnx", load_external_data=False)
        for own in model.graph.node:
            if own.op_type == "Conv":
                kept = [a for a in own.attribute if a.name != name]
                del own.attribute[:]
                own.attribute.extend([*kept, helper.make_attribute(name, value)])
        (saved / "graph.onnx").write_bytes(model.SerializeToString())
        refused(saved, "unknown or out of range")


def test_shapes_are_those_that_onnx_runtime_gives() -> None:
    """Of chains of random operators, as far as ONNX Runtime runs them."""
    onnxruntime = import_onnxruntime()
    rng, agreed = np.random.default_rng(0), 0
    x = {"x": rng.normal(size=(2, 8, 9, 10)).astype(np.float32)}
    for _ in range(150):
        nodes = random_nodes(rng)
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8, 9, 10])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "g", [value], [out])
        versions = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=versions, ir_version=8)
        data = made.SerializeToString()
        try:
            shape = check_graph(data, {}, x)["y"]
        except Mismatch:
            continue
        (theirs,) = onnxruntime.InferenceSession(data).run(None, x)
        assert theirs.shape == shape, [own.op_type for own in nodes]
        agreed += 1
    assert agreed > 60


def random_nodes(rng: np.random.Generator) -> Nodes:
    """Two operators of four dimensions, one after the other, with random settings."""
    nodes, name = [], "x"
    for i in range(2):
        out = "y" if i else "h"
        n = int(rng.integers(1, 4))
        pads = rng.integers(0, n, 4).tolist()
        steps = rng.integers(1, 4, 2).tolist()
        weights = rng.normal(size=(4, 4, n, n)).astype(np.float32)
        axis = int(rng.integers(-4, 4))

        def sizes(letter: str, values: Any, i: int = i) -> Any:
            return constant(f"{letter}{i}", values)

        window = {"kernel_shape": [n, n], "strides": steps, "pads": pads}
        apart = {"strides": steps, "pads": pads, "dilations": steps}
        back = weights.transpose(1, 0, 2, 3).repeat(2, 0)
        ends = [sizes(letter, rng.integers(-9, 9, 4)) for letter in "se"]
        ends += [sizes("a", range(4)), sizes("t", rng.choice([-2, -1, 1, 2], 4))]
        scales = np.float32(rng.uniform(0.5, 2, 4) * [0, 0, 1, 1] + [1, 1, 0, 0])
        top = helper.make_node("TopK", [name, f"k{i}"], [out, f"i{i}"], axis=axis)
        resize = helper.make_node("Resize", [name, "", f"s{i}"], [out])
        made: list[Nodes] = [
            [node("MaxPool", name, out, ceil_mode=int(rng.integers(2)), **window)],
            [node("AveragePool", name, out, **window)],
            [sizes("w", weights), node("Conv", f"{name} w{i}", out, group=2, **apart)],
            [sizes("w", back), node("ConvTranspose", f"{name} w{i}", out, strides=steps)],
            [node("Transpose", name, out, perm=rng.permutation(4).tolist())],
            [node("Concat", f"{name} {name}", out, axis=axis)],
            [node("Softmax", name, out, axis=axis)],
            [node("ReduceMean", name, out, axes=[axis], keepdims=1)],
            [node("DepthToSpace", name, out, blocksize=2)],
            [node("SpaceToDepth", name, out, blocksize=n)],
            [sizes("s", rng.integers(0, n, 8)), node("Pad", f"{name} s{i}", out, mode="reflect")],
            [sizes("s", rng.integers(-1, n, 8)), node("Pad", f"{name} s{i}", out)],
            [*ends, node("Slice", f"{name} s{i} e{i} a{i} t{i}", out)],
            [sizes("s", scales), resize],
            [sizes("k", [n]), top],
            [sizes("k", [1, n, 1, 1]), node("Tile", f"{name} k{i}", out)],
        ]
        chosen = made[int(rng.integers(len(made)))]
        nodes += chosen
        name = out
    return nodes


def test_a_network_that_could_not_be_loaded_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    import torch
    from torch import Tensor, nn

    class Sampled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            places = torch.zeros(len(x), 2, 2, 2, dtype=x.dtype)
            found = nn.functional.grid_sample(x, places, align_corners=False)
            return self.layer(found.mean((2, 3)) + x.mean((2, 3)))

    parts = split(hs.read(write_shapes(tmp_path / "shapes")))
    backbone = hs.wrap(Sampled(), size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(HeadstartError, match="may hold plain layers of limited size alone"):
        save(fit(FeatureExtraction(), backbone, parts, store=None).model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_every_operator_of_the_table_is_onnx_own() -> None:
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if not s.domain}
    assert OPS.keys() <= known
    for name, op in OPS.items():
        schema = onnx.defs.get_schema(name, OPSET)
        assert op.attributes.keys() <= schema.attributes.keys() | {"storage_order"}, name
        assert schema.min_input <= op.inputs[0] <= op.inputs[1] <= schema.max_input, name
        assert not any("GRAPH" in str(a.type) for a in schema.attributes.values()), name


def test_a_tensor_file_is_checked_by_its_header_alone(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64)}, tmp_path / "a")
    check_tensor_file(tmp_path / "a")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() + b"\0")
    with pytest.raises(SpecError, match="bytes of numbers"):
        check_tensor_file(tmp_path / "a")
