"""Archives that are no folder: lists, tar files, datasets."""

import http.server
import io
import json
import os
import sqlite3
import tarfile
import threading

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from pyarrow import parquet
from tensorflow_datasets.proto import tf_example_pb2

from fawkes_jax import types
from fawkes_jax.archive import scan, storage


def seen(address):
  """By name, what a source holds, or why it has no content."""
  found = {}
  for file in scan.scan(address):
    assert file.name not in found
    try:
      found[file.name] = file.read(max_bytes=100)
    except types.PhotoError as error:
      found[file.name] = str(error)
  return found


def filled(address, names):
  store = storage.open_store(address)
  for name in names:
    store.write(name, name.encode())
  return store


def test_a_list_beside_its_photos(address):
  """Relative addresses, empty lines, names of one's own, Windows' lines."""
  store = filled(address, ("a b/é.jpg", "c.jpg"))
  lines = "a b/é.jpg\r\n\n  \nc.jpg\tother/d.jpg\nmissing.jpg\n"
  store.write("list.txt", lines.encode())
  found = seen(f"{address}/list.txt")
  assert list(found) == ["a b/é.jpg", "other/d.jpg", "missing.jpg"]
  assert found["a b/é.jpg"] == "a b/é.jpg".encode()
  assert found["other/d.jpg"] == b"c.jpg"
  assert isinstance(found["missing.jpg"], str)


def test_addresses_of_everywhere(tmp_path, s3_server):
  filled("s3://photos/somewhere", ["1.jpg"])
  filled(tmp_path / "here", ["2.jpg"])
  with serving(tmp_path / "here") as url:
    (tmp_path / "list.txt").write_text(
      f"s3://photos/somewhere/1.jpg\n{tmp_path}/here/2.jpg\n{url}/2.jpg?x=1\n"
    )
    found = seen(tmp_path / "list.txt")
  host = url.removeprefix("http://")
  assert found == {
    "photos/somewhere/1.jpg": b"1.jpg",
    f"{str(tmp_path)[1:]}/here/2.jpg": b"2.jpg",
    f"{host}/2.jpg": b"2.jpg",
  }


def serving(folder):
  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
      super().__init__(*args, directory=str(folder))

    def log_message(self, *_):
      pass

  class Server(http.server.ThreadingHTTPServer):
    def __enter__(self):
      threading.Thread(target=self.serve_forever, daemon=True).start()
      return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *error):
      self.shutdown()
      self.server_close()

  return Server(("127.0.0.1", 0), Handler)


def test_entries_that_cannot_be_taken_get_a_turn(tmp_path):
  filled(tmp_path, ("a.jpg", "b.jpg"))
  (tmp_path / "list.txt").write_text(
    "a.jpg\nb.jpg\ta.jpg\n../b.jpg\na.jpg\nb.jpg\tx//y\n"
  )
  assert [(f.name, f.reason) for f in scan.scan(tmp_path / "list.txt")] == [
    ("a.jpg", None),
    ("a.jpg (entry 2)", "an earlier entry has the same name"),
    ("../b.jpg", "its name cannot be a path"),
    ("a.jpg (entry 4)", "an earlier entry has the same name"),
    ("x//y", "its name cannot be a path"),
  ]


@pytest.mark.parametrize("column", ["address", "url", "uri", "path"])
def test_a_parquet_list(address, column):
  store = filled(address, [f"{i}.jpg" for i in range(3)])
  table = pa.table(
    {
      "more": [1, 2, 3],
      column: ["0.jpg", "1.jpg", "2.jpg"],
      "name": ["x/y.jpg", None, ""],
    }
  )
  file = io.BytesIO()
  parquet.write_table(table, file)
  store.write("list.parquet", file.getvalue())
  assert seen(f"{address}/list.parquet") == {
    "x/y.jpg": b"0.jpg",
    "1.jpg": b"1.jpg",
    "2.jpg": b"2.jpg",
  }


def test_lists_that_are_none(tmp_path):
  with pytest.raises(types.FawkesError, match=r"--input must be readable"):
    scan.scan(tmp_path / "missing.txt")
  parquet.write_table(pa.table({"x": [1]}), tmp_path / "no.parquet")
  with pytest.raises(types.FawkesError, match=r"have a column address or url"):
    scan.scan(tmp_path / "no.parquet")
  (tmp_path / "text.parquet").write_text("not a table")
  with pytest.raises(types.FawkesError, match=r"must be a Parquet file"):
    scan.scan(tmp_path / "text.parquet")
  (tmp_path / "folder.txt").mkdir()
  filled(tmp_path / "folder.txt", ["a.jpg"])
  assert seen(tmp_path / "folder.txt") == {"a.jpg": b"a.jpg"}


def tar_of(members):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w") as tar:
    for name, data in members:
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return file.getvalue()


def test_tar_files(address):
  store = storage.open_store(address)
  store.write("s-1.tar", tar_of([("b.jpg", b"1"), ("b.json", b"{}")]))
  store.write("s-0.tar", tar_of([("./z/a.jpg", b"2"), ("a é.jpg", b"3")]))
  store.write("other.tar", tar_of([("a.jpg", b"4")]))
  assert list(seen(f"{address}/s-*.tar").items()) == [
    ("s-0/z/a.jpg", b"2"),
    ("s-0/a é.jpg", b"3"),
    ("s-1/b.jpg", b"1"),
    ("s-1/b.json", b"{}"),
  ]
  assert seen(f"{address}/other.tar") == {"other/a.jpg": b"4"}


def test_members_that_cannot_be_taken_get_a_turn(tmp_path):
  data = tar_of(
    [("a.jpg", b"1"), ("../b.jpg", b"2"), ("a.jpg", b"3"), (".c/d.jpg", b"4")]
  )
  (tmp_path / "s.tar").write_bytes(data)
  assert [(f.name, f.status) for f in scan.scan(tmp_path / "s.tar")] == [
    ("s/a.jpg", None),
    ("s/../b.jpg", "failed"),
    ("s/a.jpg (at 2048)", "failed"),
    ("s/.c/d.jpg", "skipped"),
  ]
  (tmp_path / "s.tar").write_bytes(data[:1200] + b"broken" * 1000)
  found = [(f.name, f.status) for f in scan.scan(tmp_path / "s.tar")]
  assert found[0] == ("s/a.jpg", None)
  assert found[-1] == ("s.tar", "failed")
  for missing in ("missing.tar", "x*.tar"):
    with pytest.raises(types.FawkesError, match="--input must be readable"):
      scan.scan(tmp_path / missing)


def test_a_dataset(tmp_path):
  """Prepared as array_record, as TensorFlow Datasets does it."""
  folder = tmp_path / "cloaked_people" / "1.0.0"
  folder.mkdir(parents=True)
  tfds.features.FeaturesDict(
    {"image": tfds.features.Image(encoding_format="jpeg")}
  ).save_config(folder)
  file = io.BytesIO()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "JPEG")
  splits = []
  for split, count in (("test", 1), ("train", 2)):
    path = folder / f"cloaked_people-{split}.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(count):
      example = tf_example_pb2.Example()
      image = example.features.feature["image"].bytes_list
      image.value.append(file.getvalue())
      writer.write(example.SerializeToString())
    writer.close()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits.append(
      {
        "name": split,
        "numBytes": "1",
        "shardLengths": [str(count)],
        "filepathTemplate": template,
      }
    )
  (folder / "dataset_info.json").write_text(
    json.dumps(
      {
        "name": "cloaked_people",
        "version": "1.0.0",
        "fileFormat": "array_record",
        "splits": splits,
      }
    )
  )
  tfds.core.add_data_dir(tmp_path)
  found = list(scan.scan("tfds:cloaked_people"))
  assert [file.name for file in found] == [
    "test/00000000.jpg", "train/00000000.jpg", "train/00000001.jpg"
  ]  # fmt: skip
  for source in found:
    assert source.read(max_bytes=9999) == file.getvalue()
  with pytest.raises(types.FawkesError, match=r"--input=tfds:nothing_such"):
    scan.scan("tfds:nothing_such")


def test_a_long_list_stays_on_the_disk(tmp_path, monkeypatch):
  """Names are compared in a file, not in memory."""
  opened = []
  real = sqlite3.connect
  monkeypatch.setattr(
    sqlite3, "connect", lambda *a, **k: opened.append(a) or real(*a, **k)
  )
  (tmp_path / "list.txt").write_text(
    "".join(f"{i}.jpg\n" for i in range(20_000))
  )
  assert sum(1 for _ in scan.scan(tmp_path / "list.txt")) == 20_000
  assert opened == [("",)]


def test_names_that_are_not_utf8(tmp_path):
  name = b"caf\xe9.jpg"
  (tmp_path / "list.txt").write_bytes(name + b"\n")
  try:
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
  except OSError:
    pytest.skip("this file system takes UTF-8 only")
  assert seen(tmp_path / "list.txt") == {"caf\\xe9.jpg": b"x"}
