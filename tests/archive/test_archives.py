"""Archives that are no folder: lists, tar files, datasets."""

import contextlib
import datetime
import http.server
import io
import json
import os
import pickle
import sqlite3
import tarfile
import threading
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from pyarrow import parquet
from tensorflow_datasets.proto import tf_example_pb2

from fawkes_jax import types
from fawkes_jax.archive import scan, storage, stores


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
  store = stores.open_store(address)
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


# A text as programs and people write it.
WRITTEN = {
  "notepad": b"\xef\xbb\xbfa.jpg\r\nb c.jpg\r\n",
  "powershell": "\ufeffa.jpg\r\nb c.jpg\r\n".encode("utf-16-le"),
  "big endian": "\ufeffa.jpg\nb c.jpg\n".encode("utf-16-be"),
  "copy as path": b'"a.jpg"\r\n"b c.jpg"\r\n',
  "single quotes": b"'a.jpg'\n'b c.jpg'",
  "comments": b"# mine\n\n#a.png\na.jpg\n  \n  b c.jpg  \n#",
  "find": b"./a.jpg\n./b c.jpg\n",
  "ls": b"a.jpg\nb c.jpg",
}


@pytest.mark.parametrize("writer", WRITTEN)
def test_lists_are_read_as_they_are_meant(address, writer):
  store = filled(address, ("a.jpg", "b c.jpg"))
  store.write("LIST.TXT", WRITTEN[writer])
  assert seen(f"{address}/LIST.TXT") == {
    "a.jpg": b"a.jpg",
    "b c.jpg": b"b c.jpg",
  }


def test_a_file_of_that_name_is_what_a_line_means(tmp_path):
  """However odd the name: it is no comment, and loses no quotes or spaces."""
  names = ("#1.jpg", "'quoted'", " x.jpg ", "plain.jpg")
  filled(tmp_path, names)
  (tmp_path / "list.txt").write_text("\n".join(names))
  assert seen(tmp_path / "list.txt") == {name: name.encode() for name in names}


def test_lists_of_this_machine(tmp_path, monkeypatch):
  """Addresses as file managers and shells give them, and folders above."""
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  filled(tmp_path, ("home/a b.jpg", "c.jpg", "lists/d.jpg"))
  (tmp_path / "lists" / "list.txt").write_text(
    f"file://{tmp_path}/home/a%20b.jpg\tone.jpg\n~/a b.jpg\ttwo.jpg\n"
    "../c.jpg\nd.jpg\n./missing.jpg\n../home\n"
  )
  assert seen(tmp_path / "lists" / "list.txt") == {
    "one.jpg": b"home/a b.jpg",
    "two.jpg": b"home/a b.jpg",
    "c.jpg": b"c.jpg",
    "d.jpg": b"lists/d.jpg",
    "missing.jpg": "does not exist",
    "home": "a folder, not a file",
  }


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
    "a.jpg\nb.jpg\ta.jpg\nb.jpg\t../b.jpg\na.jpg\nb.jpg\tx//y\n"
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
  store = stores.open_store(address)
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


def packed(names, mode):
  """A tar file, which may be compressed, of files that hold their names."""
  data = io.BytesIO()
  with tarfile.open(fileobj=data, mode=f"w:{mode}") as tar:
    for name in names:
      member = tarfile.TarInfo(name)
      content = name.encode()
      member.size, member.mtime, member.mode = len(content), 10**9 + 5, 0o640
      tar.addfile(member, io.BytesIO(content))
  return data.getvalue()


def zip_of(names):
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
    for name in names:
      member = zipfile.ZipInfo(name, (2020, 2, 3, 4, 5, 6))
      member.external_attr = 0o100640 << 16
      archive.writestr(member, name)
  return data.getvalue()


@pytest.mark.parametrize(
  ("suffix", "mode"),
  [
    (".tar.gz", "gz"), (".tgz", "gz"), (".tar.bz2", "bz2"), (".tar.xz", "xz"),
    (".TAR.GZ", "gz"), (".tar", "gz"), (".zip", None), (".ZIP", None),
  ],
)  # fmt: skip
def test_archives_are_read_without_unpacking_them(address, suffix, mode):
  store = stores.open_store(address)
  names = ("a.jpg", "d é/b.jpg", "d é/empty.jpg")
  data = zip_of(names) if mode is None else packed(names, mode)
  store.write(f"trip{suffix}", data)
  found = list(scan.scan(f"{address}/trip{suffix}"))
  assert {f.name: f.read(max_bytes=99) for f in found} == {
    f"trip/{name}": name.encode() for name in names
  }
  with pytest.raises(types.PhotoError, match="more than 3 bytes"):
    found[0].read(max_bytes=3)
  assert found[0].stamped().mode == 0o640
  # As another process of the run gets them.
  again = pickle.loads(pickle.dumps(found))
  assert [f.read(max_bytes=99) for f in again] == [n.encode() for n in names]
  if mode is None:
    year = datetime.datetime.fromtimestamp(found[0].stamped().modified / 1e9)
    assert (year.year, year.second) == (2020, 6)
  else:
    assert found[0].stamped().modified == (10**9 + 5) * 10**9


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_an_archive_that_has_changed_is_read_anew(tmp_path, suffix):
  for number, name in enumerate(("a.jpg", "b.jpg")):
    data = packed([name], "gz") if "tar" in suffix else zip_of([name])
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    os.utime(path, (2**31 + number, 2**31 + number))
    assert seen(path) == {f"x/{name}": name.encode()}


def test_damaged_archives_give_what_they_can(tmp_path):
  names = [f"{i:03}.jpg" for i in range(200)]
  noise = np.random.default_rng(0).bytes(200_000)
  whole = io.BytesIO()
  with tarfile.open(fileobj=whole, mode="w:gz") as tar:
    for i, name in enumerate(names):
      member = tarfile.TarInfo(name)
      member.size = 1000
      tar.addfile(member, io.BytesIO(noise[1000 * i : 1000 * (i + 1)]))
  (tmp_path / "cut.tgz").write_bytes(whole.getvalue()[:100_000])
  *good, last = scan.scan(tmp_path / "cut.tgz")
  assert 50 < len(good) < 150
  assert good[0].read(max_bytes=1000) == noise[:1000]
  assert (last.name, last.status) == ("cut.tgz", "failed")
  assert "cannot be read as a tar file any further" in last.reason

  data = bytearray(zip_of(["a.jpg", "b.jpg"]))
  data[38] ^= 0xFF  # In what a.jpg is compressed to.
  (tmp_path / "x.zip").write_bytes(data)
  found = seen(tmp_path / "x.zip")
  assert "damaged in x.zip" in found["x/a.jpg"]
  assert found["x/b.jpg"] == b"b.jpg"
  (tmp_path / "no.zip").write_bytes(b"PK\3\4 and no more")
  [none] = scan.scan(tmp_path / "no.zip")
  assert (none.name, none.status) == ("no.zip", "failed")
  assert "cannot be read as a ZIP file" in none.reason


def test_members_of_a_zip_that_cannot_be_taken_get_a_turn(tmp_path):
  with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
    archive.writestr("a/", b"")
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")
    for name in ("../up.jpg", "__MACOSX/._a.jpg", "a.jpg", "/root.jpg"):
      archive.writestr(name, b"x")
    with warnings.catch_warnings(action="ignore"):
      archive.writestr("a.jpg", b"y")
  found = [(f.name, f.status) for f in scan.scan(tmp_path / "x.zip")]
  assert found == [
    ("x/link.jpg", "skipped"),
    ("x/../up.jpg", "failed"),
    ("x/__MACOSX/._a.jpg", "skipped"),
    ("x/a.jpg", None),
    ("x//root.jpg", "failed"),
    ("x/a.jpg (member 7)", "failed"),
  ]


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


def test_mutated_archives_and_lists_never_raise(tmp_path):
  """Each of them gives files, and failed ones where it is damaged."""
  rng = np.random.default_rng(0)
  names = ["a.jpg", "d/é.jpg", "x" * 90 + ".jpg"]
  lists = (
    b"\xef\xbb\xbfa.jpg\r\n# c\n'b'\nfile:///x%20y\n~/z\nhttps://[b/x\n../q"
  )
  kinds = {
    ".tar": packed(names, ""),
    ".tgz": packed(names, "gz"),
    ".tar.xz": packed(names, "xz"),
    ".zip": zip_of(names),
    ".txt": lists,
  }
  statuses = set()
  for number in range(400):
    suffix = list(kinds)[number % len(kinds)]
    data = bytearray(kinds[suffix])
    for place in rng.integers(0, len(data), rng.integers(1, 8)).tolist():
      match rng.integers(3):
        case 0:
          data[place : place + 1] = rng.bytes(1)
        case 1:
          data[place:place] = rng.bytes(7)
        case _:
          del data[place : place + int(rng.integers(60))]
    path = tmp_path / f"{number}{suffix}"
    path.write_bytes(data)
    for file in scan.scan(path):
      statuses.add(file.status)
      assert file.stamped() is not None
      if file.status is None and not storage.is_remote(file.address or ""):
        with contextlib.suppress(types.PhotoError):
          file.read(max_bytes=10**6)
  assert {None, "failed"} <= statuses
