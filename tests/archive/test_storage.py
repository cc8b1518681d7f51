"""Every store does the same, the real servers' included."""

import pathlib

import fsspec
import pytest
import servers

from fawkes_jax import types
from fawkes_jax.archive import remote_store, scan, storage, stores

NAMES = ("a b/é 1.jpg", "a b.jpg", "a b/c/x.jpg", "a b0.jpg")
ORDER = ("a b.jpg", "a b/c/x.jpg", "a b/é 1.jpg", "a b0.jpg")


@pytest.fixture
def store(address):
  return stores.open_store(address)


def test_read_and_write(store, address):
  for data in (b"", b"one", b"two"):
    store.write("a b/é 1.jpg", data)
    assert store.read("a b/é 1.jpg") == data
  assert store.read_part("a b/é 1.jpg", 1, 2) == b"wo"
  assert store.read_part("a b/é 1.jpg", 1, 0) == b""
  with store.open("a b/é 1.jpg") as file:
    assert file.read() == b"two"
  assert store.names("a b") == ["é 1.jpg"]  # Nothing beside it.


def test_write_file(store, tmp_path):
  path = tmp_path / "large"
  path.write_bytes(bytes(range(256)) * 1000)
  store.write_file("x/y.bin", path)
  assert store.read("x/y.bin") == path.read_bytes()
  path.write_bytes(b"small")
  store.write_file("x/y.bin", path)
  assert store.read("x/y.bin") == b"small"
  assert store.names("x") == ["y.bin"]


def test_names_and_remove(store):
  assert store.names("x") == []
  for name in ("x/b", "x/a", "x/c/d", "y"):
    store.write(name, b"1")
  assert [n for n in store.names("x") if n != "c"] == ["a", "b"]
  store.remove("x/a")
  store.remove("x/a")
  assert [n for n in store.names("x") if n != "c"] == ["b"]


def test_what_is_not_there(store):
  with pytest.raises(FileNotFoundError):
    store.read("missing")
  with pytest.raises(FileNotFoundError):
    store.read_part("missing", 0, 1)
  with pytest.raises(FileNotFoundError):
    store.open("missing").close()


def test_scan_in_the_same_order_everywhere(store, address):
  for name in (*NAMES, ".hidden/a/b", ".hidden/c", "a b/.DS_Store"):
    store.write(name, name.encode())
  found = list(scan.scan(address))
  assert [(f.name, f.reason) for f in found if f.status] == [
    (".hidden", "hidden"),
    ("a b/.DS_Store", "hidden"),
  ]
  photos = [f for f in found if not f.status]
  assert tuple(f.relative for f in photos) == ORDER
  for file in photos:
    assert file.read(max_bytes=100) == file.relative.encode()
  with pytest.raises(types.PhotoError, match="more than 3 bytes"):
    photos[0].read(max_bytes=3)
  (only,) = scan.scan(f"{address}/a b/é 1.jpg")
  assert only.relative == "é 1.jpg"
  assert only.read(max_bytes=100) == "a b/é 1.jpg".encode()
  store.remove("a b.jpg")
  with pytest.raises(types.PhotoError, match=r"cannot be read|does not exist"):
    photos[0].read(max_bytes=100)


def test_lines_are_there_when_they_are_synced(store):
  lines = store.appender("log/1")
  for number in range(3000):
    lines.append(b"%d" % number)
  lines.sync()
  read = b"".join(store.read(f"log/{name}") for name in store.names("log"))
  assert read.split() == [b"%d" % number for number in range(3000)]
  lines.append(b"last")
  lines.sync()
  lines.close()
  read = b"".join(store.read(f"log/{name}") for name in store.names("log"))
  assert read.endswith(b"2999\nlast\n")


@pytest.mark.slow
def test_more_keys_than_a_page_has(s3_server):
  files = fsspec.filesystem("s3", skip_instance_cache=True)
  files.pipe({f"photos/many/{i:04}": b"1" for i in range(2001)})
  found = list(remote_store.RemoteStore("s3://photos/many").walk())
  assert found == [(f"{i:04}", 1) for i in range(2001)]


def test_keys_that_are_no_paths(s3_server):
  files = fsspec.filesystem("s3", skip_instance_cache=True)
  keys = ("a//b.jpg", "a/../b.jpg", "a/", "ok.jpg", "x\\y.jpg")
  for key in keys:
    files.call_s3("put_object", Bucket="photos", Key=f"odd/{key}", Body=b"1")
  found = [(f.name, f.status) for f in scan.scan("s3://photos/odd")]
  assert found == [
    ("a/../b.jpg", "failed"),
    ("a//b.jpg", "failed"),
    ("ok.jpg", None),
    ("x\\\\y.jpg", None),
  ]


@pytest.mark.parametrize(
  ("address", "rule"),
  [
    ("s3://nowhere/x", "no such bucket"),
    ("s3://photos/nothing", "nothing is there"),
    ("odd://photos/x", "odd"),
    ("gs://nowhere/x", "no such bucket"),
  ],
)
def test_addresses_that_lead_nowhere(s3_server, gcs_server, address, rule):
  with pytest.raises(types.FawkesError, match=rule) as caught:
    list(scan.scan(address))
  assert address in str(caught.value)


def test_no_credentials(s3_server, monkeypatch):
  with monkeypatch.context() as patch:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
      patch.delenv(name)
    servers.forget()
    with pytest.raises(types.FawkesError, match="credentials"):
      list(scan.scan("s3://photos/x"))
  servers.forget()


def test_a_package_that_is_missing(monkeypatch):
  def missing(*_, **__):
    raise ImportError("Install s3fs to access S3")

  monkeypatch.setattr(fsspec, "url_to_fs", missing)
  with pytest.raises(types.FawkesError, match=r"fawkes-jax\[s3\]"):
    stores.open_store("s3://photos/x")


def test_a_failure_that_passes_is_tried_again(monkeypatch):
  store = stores.open_store("memory://retried")
  store.write("a", b"1")
  tries = []
  real = store._files.cat_file

  def sometimes(*args, **kwargs):
    tries.append(args)
    if len(tries) < 3:
      raise OSError("connection reset")
    return real(*args, **kwargs)

  monkeypatch.setattr(store._files, "cat_file", sometimes)
  assert store.read("a") == b"1"
  assert len(tries) == 3
  tries.clear()
  with pytest.raises(FileNotFoundError):
    for _ in range(3):
      store.read("missing")
  assert len(tries) == 3  # Twice for a moment, once for good.


def test_where_addresses_lead(tmp_path):
  within = storage.within
  assert within("s3://b/x/y", "s3a://b/x/")
  assert not within("s3://b/xy", "s3://b/x")
  assert not within("s3://b/x", "gs://b/x")
  assert not within("/b/x", "s3://b/x")
  assert within(tmp_path / "a" / ".." / "b", tmp_path)
  assert storage.place("gcs://b/x/") == ("gs", pathlib.PurePosixPath("b/x"))
  for source, output, rule in (
    ("s3://b/x", "s3://b/x/", "must not be the same"),
    ("s3://b/x", "s3://b/x/y", "output must not be in the input"),
    ("s3://b/x/y", "s3://b/x", "input must not be in the output"),
  ):
    with pytest.raises(types.FawkesError, match=rule):
      scan.check_output(source, output)
  scan.check_output("s3://b/x", "s3://b/y")
