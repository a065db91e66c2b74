"""Examples in object stores and on web servers: s3://, https:// and lists of addresses."""

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from object_store import ObjectStore, running
from pyarrow import parquet as pq

import headstart as hs
from headstart.base import location, objects
from headstart.base.errors import DataError, SpecError
from headstart.base.location import read_at
from headstart.base.store import digest
from headstart.cli.main import main
from headstart.modalities.images.encoding import encoded_picture

SECRET = "planted/S3CR3T+of+the+test"
RNG = np.random.default_rng(0)
PICTURES = {
    f"{label}/a.v{n}.png": encoded_picture(RNG.integers(0, 255, (9, 9, 3)).astype(np.uint8))
    for n, label in enumerate(["dark", "light"] * 3)
}


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store with the pictures, and the environment that names it."""
    with running(ObjectStore()) as store:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SKIP_SIGNATURE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        for name, data in PICTURES.items():
            store.put(f"b/photos/{name}", data, f"etag-{name}")
        store.put("b/photos/README.md", b"about", "r")
        forget()
        yield store
    forget()


def forget() -> None:
    """As in a new process."""
    objects._store.cache_clear()
    location._stamp_of_object.cache_clear()


def indexed(source: str, folder: Path) -> hs.Dataset:
    hs.index(source, folder / "m.parquet")
    return hs.read(folder / "m.parquet")


def test_objects_are_read_by_their_addresses(remote: ObjectStore, tmp_path: Path) -> None:
    data = indexed("s3://b/photos", tmp_path)
    assert sorted(data.ids) == sorted(PICTURES)
    assert data.counts == {"dark": 3, "light": 3}
    assert {digest(read_at(e.source)) for e in data} == {*map(digest, PICTURES.values())}


def as_tar(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def test_labels_of_a_remote_tar_cost_no_requests(
    remote: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {name.replace(".png", ".cls"): name[:1].encode() for name in PICTURES}
    remote.put("b/t/0.tar", as_tar(PICTURES | members), "t")
    monkeypatch.setattr(objects, "get_range", None)  # of members by themselves
    found = hs.index("s3://b/t", tmp_path / "m.parquet")
    assert (found.labels, found.left_out) == ({"d": 3, "l": 3}, ())


def test_members_of_a_remote_tar_and_cells_of_a_remote_table_cost_a_range(
    remote: ObjectStore, tmp_path: Path
) -> None:
    table, cells = io.BytesIO(), {"image": list(PICTURES.values()), "label": ["x", "y"] * 3}
    pq.write_table(pa.table(cells), table)
    remote.put("b/t/0.tar", as_tar(PICTURES), "t")
    remote.put("b/p/0.parquet", table.getvalue(), "p")
    for source in ("s3://b/t", "s3://b/p/0.parquet"):
        found = indexed(source, tmp_path)
        assert {digest(read_at(e.source)) for e in found} == {*map(digest, PICTURES.values())}


def test_shards_beside_pictures_hide_none(remote: ObjectStore, tmp_path: Path) -> None:
    remote.put("b/photos/backup.tar", as_tar(PICTURES), "t")
    remote.put("b/photos/labels.parquet", b"PAR1", "p")
    found = hs.index("s3://b/photos", tmp_path / "m.parquet")
    assert found.rows == len(PICTURES)
    assert [(out.reason, out.expected) for out in found.left_out] == [
        ("3 objects are no examples: not an image", True)
    ]


def test_hidden_objects_are_passed_over_and_counted(remote: ObjectStore, tmp_path: Path) -> None:
    picture = PICTURES["dark/a.v0.png"]
    for name in (".ipynb_checkpoints/1.png", "dark/._a.png", "dark/@eaDir/a.png/1.png"):
        remote.put(f"b/photos/{name}", picture, "x")
    found = hs.index("s3://b/photos", tmp_path / "m.parquet")
    assert found.labels == {"dark": 3, "light": 3}
    counted = {out.reason for out in found.left_out if out.expected}
    assert {"2 hidden or system files", "1 file of thumbnails"} <= counted


def test_texts_below_an_address_are_texts(remote: ObjectStore, tmp_path: Path) -> None:
    for name in ("good/1.txt", "good/2.txt", "bad/1.txt"):
        remote.put(f"b/texts/{name}", f"a text, {name}".encode(), name)
    remote.put("b/texts/README.md", b"about", "r")
    data = indexed("s3://b/texts", tmp_path)
    assert data.noun == "texts"
    assert data.counts == {"bad": 1, "good": 2}
    assert data[data.ids.index("good/2.txt")].read() == "a text, good/2.txt"


def test_a_readme_beside_shards_makes_no_data_of_texts(remote: ObjectStore, tmp_path: Path) -> None:
    remote.put("b/t/0.tar", as_tar(PICTURES), "t")
    remote.put("b/t/README.txt", b"about", "r")
    assert indexed("s3://b/t", tmp_path).noun == "images"


def test_one_picture_has_one_row_whatever_its_etag(remote: ObjectStore, tmp_path: Path) -> None:
    """The same bytes uploaded in parts of another size have another ETag."""
    for name, picture in PICTURES.items():
        remote.put(f"b/again/{name}", picture, "made-of-parts-2")
    store, network = hs.Store(tmp_path / "store"), hs.load_backbone("tiny:32")
    forwards = [
        hs.extract(indexed(f"s3://b/{folder}", tmp_path), backbone=network, store=store).forwards
        for folder in ("photos", "again")
    ]
    assert forwards == [len(PICTURES), 0]
    forget()
    gets = remote.count("GET")
    data = hs.read(tmp_path / "m.parquet")
    assert hs.extract(data, backbone=network, store=store).hits == len(PICTURES)
    assert remote.count("GET") == gets  # asked whether they have changed, and not read again
    name = data.ids[0]
    remote.put(f"b/again/{name}", encoded_picture(np.zeros((9, 9, 3), np.uint8)), "new")
    forget()
    assert hs.extract(data, backbone=network, store=store).forwards == 1
    assert remote.count("GET") == gets + 1


def test_a_busy_server_is_asked_again(remote: ObjectStore, tmp_path: Path) -> None:
    data = indexed("s3://b/photos", tmp_path)
    remote.busy = 2
    assert read_at(data[0].source) == PICTURES[data.ids[0]]
    assert remote.busy == 0


def test_a_list_of_addresses_is_data(remote: ObjectStore, tmp_path: Path) -> None:
    lines = [f"{remote.address}/b/photos/{name}" for name in PICTURES]
    (tmp_path / "urls.txt").write_text("# of the test\n" + "\n".join(lines))
    data = indexed(str(tmp_path / "urls.txt"), tmp_path)
    assert sorted(data.ids) == sorted(PICTURES)
    assert data[0].read().shape == (9, 9, 3)
    with pytest.raises(SpecError, match="A web server tells no list of its files"):
        hs.index("https://host/photos", tmp_path / "m.parquet")


def test_without_credentials_a_sentence_names_them(
    remote: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert main(["index", "s3://b/photos", "--out", str(tmp_path / "m.parquet")]) == 1
    told = capsys.readouterr().err
    assert "s3://b/photos: credentials for s3:// were not found: name them in the env" in told
    assert not (tmp_path / "m.parquet").exists()


def test_a_bucket_that_is_not_there_is_named(remote: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^s3://elsewhere/photos: there is no such bucket"):
        hs.index("s3://elsewhere/photos", tmp_path / "m.parquet")


@pytest.mark.parametrize(
    "url",
    ["https://me:word@host/a.png", "https://host/a.png?X-Amz-Signature=word", "s3://b/a#word"],
)
def test_an_address_that_may_hold_a_secret_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text(f"https://host/good.png\n{url}\n")
    with pytest.raises(DataError, match=r"urls\.txt, line 2: An address holds no") as error:
        hs.index(tmp_path / "urls.txt", tmp_path / "m.parquet")
    assert "word" not in str(error.value).replace("password", "")


def test_a_secret_is_in_no_file_pickle_or_message(
    remote: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.put("b/photos/dark/bad.png", b"no picture", "x")
    data = indexed("s3://b/photos", tmp_path)
    store = ["--store", str(tmp_path / "store")]
    main(["check", str(tmp_path / "m.parquet"), "--backbone", "none", *store])
    del remote.objects["b/photos/dark/bad.png"]
    with pytest.raises(DataError):
        data[data.ids.index("dark/bad.png")].read()
    held = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    held += [
        pickle.dumps((list(data.sources), data.sources)),
        "".join(capsys.readouterr()).encode(),
    ]
    assert len(held) > 3
    assert not any(SECRET.encode() in each or b"AKIATEST" in each for each in held)


def test_the_control_a_message_would_show_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hush-hush")
    with pytest.raises(DataError, match=r"^s3:// can't be read now: asked with …, in vain$"):
        objects._refuse("s3://b/a", OSError("asked with hush-hush, in vain"))
