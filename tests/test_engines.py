"""Engines: which of them run here, which one is chosen, and that no two are mixed up."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sequences
from listening import Calls
from PIL import Image

import headstart as hs
from headstart.backbones.cutting import cut_before, thawed_by
from headstart.backbones.graph import freeze
from headstart.backbones.inputs import Batch
from headstart.base import processor
from headstart.base.context import RunContext
from headstart.base.engine_choice import EngineChoice
from headstart.base.errors import Mismatch, MissingPackage, SpecError
from headstart.base.runtime import Runtime
from headstart.base.values import fingerprint
from headstart.cli.main import main
from headstart.features import choosing, engine_table
from headstart.features import extract as features
from headstart.features.engine_table import ENGINES, FrozenPart, candidates, open_engine
from headstart.features.engines import Outputs, TorchEngine, cosines
from headstart.features.extract import FeatureTable, extract
from headstart.models.bundle import load_bundle

ON_CPU = Runtime(device="cpu", threads=1).resolved()
EXACT = EngineChoice("onnxruntime", "float32")
FAST = EngineChoice("openvino", "bfloat16")
sequences.register()


# ---------------------------------------------------------------- what every engine must do

# A new engine is one line here.
MEMBERS = [
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
]


def test_every_engine_of_the_table_is_tested() -> None:
    listed = [(name, p) for name, kind in ENGINES.items() for p in kind.precisions]
    assert sorted(MEMBERS) == sorted(listed)


def pictures(count: int, size: int = 32) -> Batch:
    rng = np.random.default_rng(count)
    return {"pixels": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)}


def texts(parts: int, longest: int) -> Batch:
    rng = np.random.default_rng([parts, longest])
    ids, lengths = rng.integers(1, 50, (parts, longest)), rng.integers(1, longest + 1, parts)
    lengths[0] = longest
    return {"ids": ids, "mask": (np.arange(longest) < lengths[:, None]).astype(np.int64)}


BATCHES: dict[str, list[Batch]] = {
    "tiny:32": [pictures(1), pictures(8), pictures(11)],
    "sequences:0": [texts(1, 3), texts(5, 12), texts(33, 7)],
}


@pytest.mark.parametrize("backbone", BATCHES)
@pytest.mark.parametrize(("name", "precision"), MEMBERS)
def test_an_engine_gives_pytorchs_features_and_activations_at_the_cut(
    name: str, precision: str, backbone: str
) -> None:
    network = hs.load_backbone(backbone)
    if not ENGINES[name].can_run(network, precision):
        pytest.skip(f"{name} in {precision} is not for this machine")
    cut = cut_before(network, thawed_by(network, "1"))
    assert cut is not None
    for both in (None, cut.both):
        exact = TorchEngine(network, "cpu", both)
        engine = open_engine(FrozenPart(network, ON_CPU, both), EngineChoice(name, precision))
        for batch in BATCHES[backbone]:
            given, expected = engine(batch), exact(batch)
            assert len(given) == len(expected)
            for ours, theirs in zip(given, expected, strict=True):
                assert ours.shape == theirs.shape
            assert given[0].dtype == np.float32
            if precision == "float32":
                np.testing.assert_allclose(given[0], expected[0], atol=1e-5)
            else:
                assert cosines(given[0], expected[0]).min() > 0.999


@pytest.mark.parametrize(("name", "precision"), MEMBERS)
def test_features_do_not_depend_on_their_batch(name: str, precision: str) -> None:
    network = hs.load_backbone("tiny:32")
    if name == "torch" or not ENGINES[name].can_run(network, precision):
        pytest.skip(f"{name} in {precision} makes no such promise, or is not for this machine")
    engine = open_engine(FrozenPart(network, ON_CPU), EngineChoice(name, precision))
    batch = pictures(11)
    whole = engine(batch)[0]
    alone = np.concatenate([engine({"pixels": batch["pixels"][i : i + 1]})[0] for i in range(11)])
    assert np.array_equal(whole, alone)


# ---------------------------------------------------------------- which engine is chosen


@dataclass
class Fake:
    """An engine of a given speed, whose features are the exact ones, changed."""

    exact: Any
    rate: float
    change: Callable[[Any], Any]
    batch: int = 8

    def __call__(self, batch: Batch) -> Outputs:
        first, *others = self.exact(batch)
        return self.change(first), *others


@dataclass
class Machine:
    """A machine with engines of given speeds, in examples per second."""

    rates: Mapping[str, float]
    change: Callable[[Any], Any] = lambda x: x * np.float32(1.0001)
    opened: list[str] = field(default_factory=list)

    def candidates(self, backbone: Any, runtime: Runtime) -> tuple[EngineChoice, ...]:
        names = (name.split("-", 1) for name in self.rates)
        options = tuple(EngineChoice(engine, precision) for engine, precision in names)
        wanted = runtime.compute_precision
        return tuple(o for o in options if wanted in ("auto", o.precision))

    def open_engine(self, network: FrozenPart, choice: EngineChoice | None = None) -> Fake:
        assert choice is not None
        self.opened.append(choice.name)
        exact = open_engine(replace(network), EXACT)
        change = self.change if choice.precision != "float32" else lambda x: x
        return Fake(exact, self.rates[choice.name], change)

    def seconds_each(self, engine: Fake, network: FrozenPart, examples: Any) -> float:
        return 1 / engine.rate


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    def of(change: Callable[[Any], Any] | None = None, **rates: float) -> Machine:
        named = {name.replace("_", "-"): rate for name, rate in rates.items()}
        made = Machine(named, change) if change else Machine(named)
        for module in (choosing, features):
            monkeypatch.setattr(module, "open_engine", made.open_engine)
        monkeypatch.setattr(choosing, "candidates", made.candidates)
        monkeypatch.setattr(choosing, "seconds_each", made.seconds_each)
        return made

    return of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and twenty small pictures, half of them darker."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(120):
        pixels = rng.integers(0, 256, (20, 24, 3)) // (1 + 2 * (i % 2))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture
def data(folder: Path) -> hs.Dataset:
    paths = sorted(folder.iterdir())
    labels = tuple(i % 2 for i in range(120))
    return hs.Dataset(tuple(p.name for p in paths), tuple(paths), labels, ("bright", "dark"))


@pytest.fixture
def store(tmp_path: Path) -> hs.Store:
    return hs.Store(tmp_path / "store")


def features_of(data: hs.Dataset, passes: int = 100, **how: Any) -> FeatureTable:
    """The features of tiny:32, as in a run that computes all rows `passes` times."""
    return extract(hs.load_backbone("tiny:32"), data, runtime=ON_CPU, passes=passes, **how)


def name_of(table: FeatureTable) -> str:
    assert table.engine is not None
    return table.engine.name


def test_the_fastest_engine_is_chosen_printed_and_kept(
    machine: Callable[..., Machine], data: hs.Dataset
) -> None:
    machine(onnxruntime_float32=100, openvino_bfloat16=400, openvino_float32=150)
    lines: list[tuple[str, str]] = []
    table = features_of(data, listener=Calls(stage=lambda name, text: lines.append((name, text))))
    assert name_of(table) == "openvino-bfloat16"
    assert table.engine is not None
    assert table.engine.rates == {"onnxruntime-float32": 100, "openvino-bfloat16": 400}
    assert table.engine.cosine is not None
    assert table.engine.cosine > 0.9999
    assert (table.engine.score_lost, table.engine.examples) == (0.0, 120)
    ((name, text),) = lines
    assert name == "engine"
    assert text.startswith("OpenVINO in bfloat16, 400 images/s (ONNX Runtime in float32 100); ")
    assert "a cosine of 1.0000 or more" in text


def test_for_little_work_no_other_engine_is_opened(
    machine: Callable[..., Machine], data: hs.Dataset
) -> None:
    """120 pictures at 100/s are 1.2 s of work, less than it takes to compile."""
    fake = machine(onnxruntime_float32=100, openvino_bfloat16=400)
    assert name_of(features_of(data, passes=1)) == "onnxruntime-float32"
    assert fake.opened == ["onnxruntime-float32"]


def test_for_few_rows_nothing_is_timed(machine: Callable[..., Machine], data: hs.Dataset) -> None:
    fake = machine(onnxruntime_float32=0.001, openvino_bfloat16=400)
    few = data.take(range(choosing.FEW - 1))
    assert name_of(features_of(few, passes=1)) == "onnxruntime-float32"
    assert fake.opened == ["onnxruntime-float32"]


def test_an_engine_that_is_hardly_faster_is_not_taken(
    machine: Callable[..., Machine], data: hs.Dataset
) -> None:
    machine(onnxruntime_float32=100, openvino_bfloat16=105)
    assert name_of(features_of(data)) == "onnxruntime-float32"


def noise(x: Any) -> Any:
    rng = np.random.default_rng(0)
    return (x + rng.normal(0, 0.2 * np.abs(x).max(), x.shape)).astype(np.float32)


def shuffled(x: Any) -> Any:
    """Features in which what tells the classes apart is gone."""
    return np.repeat(x.mean(axis=0, keepdims=True), len(x), axis=0).astype(np.float32)


def test_a_precision_that_changes_features_too_much_is_refused(
    machine: Callable[..., Machine], data: hs.Dataset
) -> None:
    machine(noise, onnxruntime_float32=100, openvino_bfloat16=400, openvino_float32=150)
    lines: list[str] = []
    table = features_of(data, listener=Calls(stage=lambda _, text: lines.append(text)))
    assert name_of(table) == "onnxruntime-float32"
    assert "OpenVINO in bfloat16 (400 images/s) is not used, since it changes too much" in lines[0]


def test_a_precision_that_changes_a_heads_answers_is_refused(
    machine: Callable[..., Machine], data: hs.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "LEAST_COSINE", -1.0)  # so that only the head can refuse
    machine(shuffled, onnxruntime_float32=100, openvino_bfloat16=400)
    assert name_of(features_of(data)) == "onnxruntime-float32"
    machine(onnxruntime_float32=100, openvino_bfloat16=400)  # the control
    assert name_of(features_of(data)) == "openvino-bfloat16"


def test_a_precision_that_is_named_is_not_refused(
    machine: Callable[..., Machine], data: hs.Dataset
) -> None:
    machine(noise, openvino_bfloat16=400, torch_bfloat16=300)
    named = replace(ON_CPU, compute_precision="bfloat16")
    table = extract(hs.load_backbone("tiny:32"), data, runtime=named, passes=100)
    assert name_of(table) == "openvino-bfloat16"


def test_an_engine_that_fails_is_passed_over(
    machine: Callable[..., Machine], data: hs.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = machine(onnxruntime_float32=100, openvino_bfloat16=400)

    def failing(network: FrozenPart, choice: EngineChoice) -> Fake:
        if choice.engine == "openvino":
            raise Mismatch("OpenVINO can't open the graph")
        return fake.open_engine(network, choice)

    monkeypatch.setattr(choosing, "open_engine", failing)
    lines: list[str] = []
    table = features_of(data, listener=Calls(stage=lambda _, text: lines.append(text)))
    assert name_of(table) == "onnxruntime-float32"
    assert lines == ["OpenVINO in bfloat16 is not used: OpenVINO can't open the graph"]


def test_a_second_run_takes_the_same_engine_and_computes_nothing(
    machine: Callable[..., Machine], data: hs.Dataset, store: hs.Store
) -> None:
    fake = machine(onnxruntime_float32=100, openvino_bfloat16=400)
    first = features_of(data, store=store)
    fake.opened.clear()
    second = features_of(data, store=store)
    assert (second.forwards, second.hits, fake.opened) == (0, 120, [])
    assert (name_of(first), name_of(second)) == ("openvino-bfloat16", "openvino-bfloat16")
    assert second.engine == first.engine
    assert np.array_equal(first.x, second.x)


def test_features_stored_by_the_usual_engine_are_used_without_timing(
    machine: Callable[..., Machine], data: hs.Dataset, store: hs.Store
) -> None:
    features_of(data, store=store, passes=1)  # as an earlier release did
    fake = machine(onnxruntime_float32=100, openvino_bfloat16=400)
    table = features_of(data, store=store)
    assert (table.forwards, name_of(table), fake.opened) == (0, "onnxruntime-float32", [])


def test_features_of_two_engines_are_two_tables(
    machine: Callable[..., Machine], data: hs.Dataset, store: hs.Store
) -> None:
    machine(onnxruntime_float32=100, openvino_bfloat16=400)
    reduced = features_of(data, store=store)
    exact = extract(
        hs.load_backbone("tiny:32"),
        data,
        store=store,
        runtime=replace(ON_CPU, compute_precision="float32"),
    )
    assert (reduced.forwards, exact.forwards) == (120, 120)
    assert name_of(exact) == "onnxruntime-float32"
    assert not np.array_equal(reduced.x, exact.x)


def test_float32_has_the_key_that_it_always_had(data: hs.Dataset) -> None:
    backbone = hs.load_backbone("tiny:32")
    way = backbone.card.input.fingerprint()
    parts = ("features", backbone.fingerprint(), way, "features", "onnxruntime-float32")
    assert extract(backbone, data, runtime=ON_CPU).made_by == fingerprint(*parts)


def test_a_run_takes_one_engine_for_all_its_rows(
    machine: Callable[..., Machine], data: hs.Dataset
) -> None:
    fake = machine(onnxruntime_float32=100, openvino_bfloat16=400)
    context = RunContext(store=None, runtime=ON_CPU)
    features_of(data, engines=context.engines)
    fake.opened.clear()
    few = features_of(data.take(range(5)), passes=1, engines=context.engines)
    assert name_of(few) == "openvino-bfloat16"  # alone, five rows would not be worth it
    assert fake.opened == ["openvino-bfloat16"]


def test_a_saved_model_is_not_given_a_reduced_precision_by_itself(
    machine: Callable[..., Machine], data: hs.Dataset
) -> None:
    machine(onnxruntime_float32=1, openvino_bfloat16=400, openvino_float32=50)
    graph = freeze(hs.load_backbone("tiny:32"))
    table = extract(graph, data, runtime=ON_CPU, passes=100)
    assert name_of(table) == "openvino-float32"


def test_a_record_that_cannot_be_read_is_measured_again(
    machine: Callable[..., Machine], data: hs.Dataset, store: hs.Store
) -> None:
    fake = machine(onnxruntime_float32=100, openvino_bfloat16=400)
    features_of(data, store=store)
    (record,) = (store.folder / "engines").iterdir()
    for wrong in ("{", '{"engine": "abacus", "precision": "float32"}'):
        record.write_text(wrong)
        fake.opened.clear()
        assert name_of(features_of(data, store=store)) == "openvino-bfloat16"


def test_texts_are_timed_in_batches_of_similar_length(machine: Callable[..., Machine]) -> None:
    data = sequences.labelled([3, 12, 1, 30, 7, 61] * 30)
    machine(onnxruntime_float32=100, openvino_bfloat16=400)
    table = extract(hs.load_backbone("sequences:0"), data, runtime=ON_CPU, passes=100)
    assert name_of(table) == "openvino-bfloat16"


# ---------------------------------------------------------------- what a user asks for


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_flags(flags: str) -> None:
        own = frozenset(flags.split())
        monkeypatch.setattr(processor, "processor_flags", lambda: own)
        fast = bool({"amx_bf16", "avx512_bf16"} & own)
        monkeypatch.setattr(engine_table, "bfloat16_processor", lambda: fast)

    return set_flags


@pytest.mark.parametrize(
    ("sets", "tried"),
    [
        ("avx2", ["openvino-float32"]),
        ("avx2 avx512_bf16", ["openvino-bfloat16", "openvino-float32"]),
        ("avx2 amx_bf16", ["openvino-bfloat16", "torch-bfloat16", "openvino-float32"]),
    ],
)
def test_the_processor_decides_what_is_tried(
    sets: str,
    tried: list[str],
    flags: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_table.EngineKind, "installed", True)
    flags(sets)
    names = [choice.name for choice in candidates(hs.load_backbone("tiny:8"), ON_CPU)]
    assert names == ["onnxruntime-float32", *tried]


def test_float32_alone_is_onnx_runtime_as_before() -> None:
    backbone = hs.load_backbone("tiny:8")
    assert candidates(backbone, replace(ON_CPU, compute_precision="float32")) == (EXACT,)


def test_flags_of_a_processor_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu amx_bf16\n\n" * 2)
    monkeypatch.setattr(processor, "CPUINFO", file)
    assert processor._field("flags") == "fpu amx_bf16"
    assert processor._field("model name") == "A Processor"
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert processor._field("flags") == ""


def test_onnx_runtime_and_bfloat16_are_refused() -> None:
    with pytest.raises(SpecError, match="ONNX Runtime computes float32 on a CPU"):
        Runtime(engine="onnxruntime", compute_precision="bfloat16")


def test_bfloat16_on_a_processor_without_it_is_one_sentence(flags: Callable[[str], None]) -> None:
    flags("avx2")
    named = replace(ON_CPU, compute_precision="bfloat16")
    with pytest.raises(SpecError, match="bfloat16 is for processors with AMX or AVX512-BF16"):
        candidates(hs.load_backbone("tiny:8"), named)


def test_a_saved_model_does_not_run_in_pytorch() -> None:
    with pytest.raises(SpecError, match="A saved model is a graph"):
        candidates(freeze(hs.load_backbone("tiny:8")), replace(ON_CPU, engine="torch"))


def test_an_engine_that_is_not_installed_is_named_with_its_extra_before_any_work(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = replace(ENGINES["openvino"], package="not_installed_here")
    monkeypatch.setitem(ENGINES, "openvino", absent)
    out = str(tmp_path / "run")
    words = ["train", str(folder), "--out", out, "--backbone", "tiny:8", "--engine", "openvino"]
    with pytest.raises(MissingPackage, match=r"The engine openvino needs .*headstart\[openvino\]"):
        engine_table.check_engine(replace(ON_CPU, engine="openvino"))
    assert main(words) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_the_extra_is_named_where_it_would_pay(
    machine: Callable[..., Machine],
    data: hs.Dataset,
    flags: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(onnxruntime_float32=10, torch_bfloat16=11)
    absent = replace(ENGINES["openvino"], package="not_installed_here")
    monkeypatch.setitem(ENGINES, "openvino", absent)
    monkeypatch.setattr(choosing, "bfloat16_processor", lambda: True)
    lines: list[str] = []
    features_of(data, listener=Calls(stage=lambda _, text: lines.append(text)))
    assert "pip install 'headstart[openvino]'" in lines[-1]
    lines.clear()
    features_of(data, passes=1, listener=Calls(stage=lambda _, text: lines.append(text)))
    assert not any("pip install" in line for line in lines)  # 12 s are not worth it


def test_train_saves_the_engine_and_the_report_shows_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = hs.read([(path, str(i % 2)) for i, path in enumerate(sorted(folder.iterdir())[:60])])
    run = hs.train(
        data,
        tmp_path / "run",
        backbone="tiny:8",
        strategy="extract",
        engine="torch",
        store=tmp_path / "store",
        device="cpu",
    )
    assert run.timings.engine is not None
    assert run.timings.engine.name == "torch-float32"
    assert "torch-float32" in (tmp_path / "run" / "report.html").read_text()
    assert load_bundle(tmp_path / "run" / "model").model.predict(data, store=None)


# ---------------------------------------------------------------- OpenVINO


openvino = pytest.mark.skipif(not ENGINES["openvino"].installed, reason="needs openvino")


@openvino
def test_openvino_keeps_what_it_compiled_and_survives_its_damage(
    data: hs.Dataset, store: hs.Store
) -> None:
    named = replace(ON_CPU, engine="openvino", compute_precision="float32")
    backbone = hs.load_backbone("tiny:32")
    first = extract(backbone, data.take(range(8)), store=store, runtime=named)
    assert first.forwards == 8
    kept = sorted((store.folder / features.COMPILED).iterdir())
    assert kept
    for damage in (b"", b"no such thing", kept[0].read_bytes()[:-1000]):
        kept[0].write_bytes(damage)
        again = extract(backbone, data.take(range(8, 16)), runtime=named)
        assert np.isfinite(again.x).all()
    expected = extract(backbone, data.take(range(8)), runtime=ON_CPU)
    np.testing.assert_allclose(first.x, expected.x, atol=1e-5)


@pytest.mark.long
@openvino
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="POSIX signals")
def test_a_signal_is_handled_after_engines_were_closed() -> None:
    """Each `openvino.Core` changes the stack on which the thread handles signals."""
    code = (
        "import gc, signal, headstart as hs\n"
        "from headstart.backbones.graph import freeze\n"
        "from headstart.features.openvino_engine import OpenVinoEngine\n"
        "graph = freeze(hs.load_backbone('tiny:32'))\n"
        "opened = [OpenVinoEngine(graph, 'float32', 1, None) for _ in range(3)]\n"
        "while opened:\n"
        "    opened.pop(0); gc.collect()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        "signal.raise_signal(signal.SIGUSR1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@openvino
def test_openvino_connects_to_nobody_and_writes_nothing_at_home(tmp_path: Path) -> None:
    """Its import alone would send an event, and write a client id to ~/intel."""
    code = (
        "import sys; seen = []; hook = lambda name, args: name == 'socket.connect' and "
        "seen.append(args); sys.addaudithook(hook)\n"
        "from headstart.features.openvino_engine import import_openvino\n"
        "print(len(import_openvino().Core().available_devices) > 0, seen)"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True)
    assert done.stdout == "True []\n", done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
