"""Features go into the store by slices: the same shards from one process and from a cluster."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from listening import Lines
from PIL import Image

import headstart as hs
from headstart.backbones.kept_graph import keep_graph, kept_graph
from headstart.base.compacting import compact, verify
from headstart.base.context import RunContext
from headstart.base.errors import MissingPackage, PlaceError, SpecError, StoreError
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime
from headstart.base.store import Store
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.features import on_ray, slices
from headstart.features.choosing import Chosen, EngineRequest, chosen_engine
from headstart.features.engine_table import FrozenPart
from headstart.features.on_ray import RayWork, Schedule, extract_on_ray
from headstart.features.slices import Extracted, extract_slices, slices_of
from headstart.modalities.sources import load_backbone

ONE = Runtime(device="cpu", threads=1, decode_threads=1)


class RayError(Exception):
    """A process or node that ended."""


class RayTaskError(RayError):
    """A task that raised; `cause`, as Ray has it."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class OneProcessRay:
    """As much of Ray as a schedule uses; tasks end in a random order. lost: slices that lose their
    process, each so often."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, lost: dict[int, int] | None = None) -> None:
        self.lost, self.rng, self.most = lost or {}, random.Random(0), 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **settings: Any) -> Callable[[Any], Any]:
        def wrap(function: Any) -> Any:
            def start(work: RayWork, piece: Any) -> Callable[[], Any]:
                return lambda: self.done(function, work, piece)

            return SimpleNamespace(remote=start)

        return wrap

    def done(self, function: Any, work: RayWork, piece: Any) -> Any:
        if self.lost.get(piece.number, 0):
            self.lost[piece.number] -= 1
            raise RayError("killed")
        try:
            return function(work, piece)
        except Exception as error:
            raise RayTaskError(error) from error

    def wait(self, tasks: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(tasks))
        return [self.rng.choice(tasks)], []

    def get(self, task: Any) -> Any:
        return task()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    for i in range(40):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    (folder / "a" / "0.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE", 16)
    monkeypatch.setattr(on_ray, "_WORKERS", {})


def shards(store: Path) -> dict[str, bytes]:
    found = {
        p.name: p.read_bytes() for p in store.rglob("*.safetensors") if "graphs" not in p.parts
    }
    assert found
    return found


def scheduled(ray: OneProcessRay, data: Dataset, store: Path) -> Extracted:
    frozen = FrozenPart(load_backbone("tiny:32"), ONE).graph
    work = RayWork(keep_graph(frozen, Store(store)), Store(store), ONE, {})
    return Schedule(ray, work, data, Listener()).run()


def test_slices_cover_the_rows_once_and_are_named_as_people_count(pictures: Path) -> None:
    found = list(slices_of(hs.read(pictures)))
    assert [len(piece.data) for piece in found] == [16, 16, 8]
    assert str(found[2]) == "slice 3 (rows 33 to 40)"
    assert [id for piece in found for id in piece.data.ids] == list(hs.read(pictures).ids)


def test_a_cluster_writes_the_shards_of_one_process_and_computes_lost_slices_again(
    pictures: Path, tmp_path: Path
) -> None:
    data, here = hs.read(pictures), RunContext(Store(tmp_path / "one"), ONE)
    alone = extract_slices(load_backbone("tiny:32"), data, here)
    ray = OneProcessRay({1: 2})
    found = scheduled(ray, data, tmp_path / "many")
    assert (found.rows, found.forwards, found.hits) == (40, 39, 0)
    assert (alone.rows, alone.forwards, alone.hits) == (40, 39, 0)
    assert [item.path for item in found.left_out] == [item.path for item in alone.left_out]
    assert found.again == ("slice 2 (rows 17 to 32)",) * 2
    assert ray.most <= 4
    assert shards(tmp_path / "many") == shards(tmp_path / "one")
    again = scheduled(OneProcessRay(), data, tmp_path / "many")
    assert (again.forwards, again.hits) == (0, 39)


def test_one_process_chooses_its_engine_for_all_rows_and_names_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, heard = list[int](), Lines()

    def noted(request: EngineRequest) -> Chosen:
        asked.append(request.rows)
        request.listener.stage("engine", f"for {request.rows} rows")
        return chosen_engine(request)

    monkeypatch.setattr("headstart.features.extract.chosen_engine", noted)
    context = RunContext(Store(tmp_path / "store"), ONE, heard)
    extract_slices(load_backbone("tiny:32"), hs.read(pictures), context)
    assert asked == [40, 16, 16, 8]  # slices take the choice of all rows
    assert heard.lines == [("engine", "for 40 rows")]


def test_a_slice_that_loses_three_processes_ends_the_work_in_a_sentence(
    pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlaceError, match=r"3 processes ended over slice 2 \(rows 17 to 32\)"):
        scheduled(OneProcessRay({1: 3}), hs.read(pictures), tmp_path / "store")


def test_an_error_of_a_slice_is_told_as_its_own_sentence(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(work: RayWork, piece: Any) -> Extracted:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(on_ray, "compute", fail)
    with pytest.raises(StoreError, match=r"^The disk is full\.$"):
        scheduled(OneProcessRay(), hs.read(pictures), tmp_path / "store")


def test_more_threads_than_the_cluster_has_are_refused(pictures: Path, tmp_path: Path) -> None:
    work = RayWork(tmp_path / "graph", Store(tmp_path), Runtime(threads=3), {})
    with pytest.raises(PlaceError, match="takes 3 cores .* the cluster has 2"):
        Schedule(OneProcessRay(), work, hs.read(pictures), Listener()).run()


def test_what_is_needed_is_said_before_any_work(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, backbone = hs.read(pictures), load_backbone("tiny:32")
    monkeypatch.setattr(on_ray, "installed", lambda package: True)
    with pytest.raises(SpecError, match="a store that all nodes see"):
        extract_on_ray(backbone, data, RunContext(None, ONE))
    with pytest.raises(SpecError, match="leave the engine torch out"):
        extract_on_ray(backbone, data, RunContext(Store(tmp_path), Runtime(engine="torch")))
    monkeypatch.setattr(on_ray, "installed", lambda package: False)
    with pytest.raises(MissingPackage, match=r"headstart\[ray\]"):
        extract_on_ray(backbone, data, RunContext(Store(tmp_path), ONE))


def test_a_node_says_what_it_lacks(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    assert "at this path" in on_ray._lacks(seen, None, hs.__version__)
    seen.touch()
    assert on_ray._lacks(seen, None, hs.__version__) == ""
    assert "such as" in on_ray._lacks(seen, tmp_path / "gone.png", hs.__version__)
    assert on_ray._lacks(seen, seen / "00017", hs.__version__) == ""  # as in CIFAR-10
    assert on_ray._lacks(seen, None, "0") == "Headstart 0"


def test_a_kept_graph_is_the_network_and_an_altered_one_is_refused(tmp_path: Path) -> None:
    frozen = FrozenPart(load_backbone("tiny:32"), ONE).graph
    path = keep_graph(frozen, Store(tmp_path))
    assert kept_graph(path).fingerprint() == frozen.fingerprint()
    other = path.with_name(f"{'0' * 16}.safetensors")
    path.rename(other)
    with pytest.raises(StoreError, match="was altered"):
        kept_graph(other)
    other.write_bytes(b"x" * 100)
    with pytest.raises(StoreError, match="must be a network of the store"):
        kept_graph(other)


def test_a_kept_network_is_no_table_of_the_store(pictures: Path, tmp_path: Path) -> None:
    scheduled(OneProcessRay(), hs.read(pictures), tmp_path / "store")
    store = Store(tmp_path / "store")
    assert verify(store).damaged == compact(store).damaged == ()
    (kept,) = (store.folder / "graphs").iterdir()
    assert kept_graph(kept).card.dim


def command(*words: str) -> int:
    return main(["extract", *words, "--backbone", "tiny:32"])


def test_train_finds_what_the_command_has_computed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert command(str(pictures), *store, "--json") == 3
    out = capsys.readouterr()
    assert json.loads(out.out)["forwards"] == 39
    assert "0.png" in out.err
    assert command(str(pictures), *store) == 3
    assert "39 of 40 rows have features in the store: 0 computed, 39 found there" in (
        capsys.readouterr().out
    )
    table = hs.extract(pictures, backbone="tiny:32", store=tmp_path / "store")
    assert (table.forwards, table.hits) == (0, 39)


def test_an_address_without_ray_is_refused(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(str(pictures), "--address", "10.0.0.1:6379") == 2
    assert "add --on-ray" in capsys.readouterr().err


@pytest.mark.slow
def test_a_node_that_is_killed_half_way_loses_no_row(tmp_path: Path) -> None:
    """Two simulated nodes of one core; one of them is killed after the first slices."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    rng = np.random.default_rng(0)
    rows = tuple(rng.integers(0, 256, (1000, 48, 48, 3), np.uint8))
    data = hs.read([(row, "ab"[i % 2]) for i, row in enumerate(rows)])
    backbone = load_backbone("tiny:32")
    alone = extract_slices(backbone, data, RunContext(Store(tmp_path / "one"), ONE))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        killer = Killer(cluster, second, after=100)
        context = RunContext(Store(tmp_path / "many"), ONE, killer)
        found = extract_on_ray(backbone, data, context, cluster.address)
    finally:
        cluster.shutdown()
    assert killer.killed
    assert found.rows == alone.rows == 1000
    assert found.left_out == ()
    assert 1000 <= found.forwards + found.hits
    assert found.forwards <= 1000 + slices.SLICE
    assert set(shards(tmp_path / "one")) <= set(shards(tmp_path / "many"))


class Killer(Listener):
    """Kills a node once so many rows are done."""

    def __init__(self, cluster: Any, node: Any, after: int) -> None:
        self.cluster, self.node, self.after, self.killed = cluster, node, after, False
        self.told: Sequence[str] = ()

    def stage(self, name: str, message: str) -> None:
        self.told = [*self.told, f"{name} {message}"]

    def progress(self, stage: str, done: int, total: int) -> None:
        if not self.killed and stage == "features" and done >= self.after:
            self.killed = True
            self.cluster.remove_node(self.node, allow_graceful=False)
