import os
import subprocess
import sys

import pytest

from fawkes_jax import types
from fawkes_jax.archive import scan


def fill(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def found(root):
  return [(s.name, s.status, s.reason) for s in scan.scan(root)]


def test_order_and_names(tmp_path):
  fill(tmp_path, "b/z.jpg", "b/a.jpg", "a.jpg", "c.txt", "B.JPG", "b/c/d.png")
  names = [file.relative for file in scan.scan(tmp_path)]
  assert names == [
    "B.JPG", "a.jpg", "b/a.jpg", "b/c/d.png", "b/z.jpg", "c.txt"
  ]  # fmt: skip
  assert [file.suffix for file in scan.scan(tmp_path)][:2] == [".jpg", ".jpg"]


def test_order_of_files_and_folders(tmp_path):
  """As a bucket sorts whole names."""
  fill(tmp_path, "a/z.jpg", "a.jpg", "a0.jpg", "a-b/c.jpg")
  names = [file.relative for file in scan.scan(tmp_path)]
  assert names == sorted(names)
  assert names == ["a-b/c.jpg", "a.jpg", "a/z.jpg", "a0.jpg"]


def test_reading(tmp_path):
  fill(tmp_path, "a.jpg")
  (file,) = scan.scan(tmp_path)
  assert file.read(max_bytes=1) == b"x"
  with pytest.raises(types.PhotoError, match="more than 0 bytes"):
    file.read(max_bytes=0)
  (tmp_path / "a.jpg").unlink()
  with pytest.raises(types.PhotoError, match="does not exist"):
    file.read(max_bytes=1)
  (tmp_path / ".hidden").touch()
  (hidden,) = scan.scan(tmp_path)
  with pytest.raises(types.PhotoError, match="hidden"):
    hidden.read(max_bytes=1)


def test_lazy(tmp_path):
  fill(tmp_path, "a.jpg", "b/c.jpg")
  files = scan.scan(tmp_path)
  assert next(files).name == "a.jpg"
  fill(tmp_path, "b/a.jpg")
  assert [file.name for file in files] == ["b/a.jpg", "b/c.jpg"]


def test_empty_folder(tmp_path):
  assert found(tmp_path) == []


def test_single_file(tmp_path):
  fill(tmp_path, "a.jpg")
  assert found(tmp_path / "a.jpg") == [("a.jpg", None, None)]


def test_missing_folder(tmp_path):
  with pytest.raises(types.FawkesError, match=r"--input must be readable.*No"):
    scan.scan(tmp_path / "missing")


def test_input_that_is_no_file(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(types.FawkesError, match="--input must be a folder"):
    scan.scan(tmp_path / "pipe")


def test_hidden_and_special_files_get_a_turn(tmp_path):
  fill(tmp_path, ".DS_Store", ".git/config", "a.jpg")
  os.mkfifo(tmp_path / "pipe")
  assert found(tmp_path) == [
    (".DS_Store", "skipped", "hidden"),
    (".git", "skipped", "hidden"),
    ("a.jpg", None, None),
    ("pipe", "skipped", "not a regular file"),
  ]


def test_symbolic_links(tmp_path):
  root, outside = tmp_path / "in", tmp_path / "out"
  fill(root, "real.jpg", "folder/photo.jpg")
  fill(outside, "secret.jpg")
  (root / "inside.jpg").symlink_to("real.jpg")
  (root / "leaving.jpg").symlink_to(outside / "secret.jpg")
  (root / "leaving").symlink_to(outside)
  (root / "again").symlink_to("folder")
  (root / "loop").symlink_to(root)
  (root / "nowhere.jpg").symlink_to("missing.jpg")
  (root / "snake").symlink_to("snake")
  out = "a symbolic link that leads out of the input"
  assert found(root) == [
    ("again", "skipped", "a symbolic link to a folder"),
    ("folder/photo.jpg", None, None),
    ("inside.jpg", None, None),
    ("leaving", "skipped", out),
    ("leaving.jpg", "skipped", out),
    ("loop", "skipped", out),
    ("nowhere.jpg", "skipped", "a symbolic link that leads nowhere"),
    ("real.jpg", None, None),
    ("snake", "skipped", "a symbolic link that leads nowhere"),
  ]


def test_names_that_are_not_utf8(tmp_path):
  name = os.fsdecode(b"caf\xe9.jpg")
  try:
    fill(tmp_path, name)
  except OSError:
    pytest.skip("this file system takes UTF-8 only")
  (file,) = scan.scan(tmp_path)
  assert file.name == "caf\\xe9.jpg"
  assert file.read(max_bytes=1) == b"x"
  assert file.relative == name


def test_unreadable_folders(tmp_path):
  fill(tmp_path, "a.jpg", "locked/b.jpg", "z.jpg")
  (tmp_path / "locked").chmod(0)
  (tmp_path / "z.jpg").chmod(0)
  tmp_path.chmod(0o755)
  script = (
    "import os, sys\nfrom pathlib import Path\n"
    "from fawkes_jax import types\nfrom fawkes_jax.archive import scan\n"
    "os.getuid() == 0 and os.setresuid(65534, 65534, 65534)\n"
    "root = Path(sys.argv[1])\n"
    "for f in scan.scan(root):\n"
    "  print(f.name, f.status, f.reason)\n"
    "  if f.name == 'z.jpg':\n"
    "    try: f.read(max_bytes=9)\n"
    "    except types.PhotoError as error: print(error)\n"
    "try: scan.scan(root / 'locked')\n"
    "except types.FawkesError as error: print(error)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script, str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
  )
  (tmp_path / "locked").chmod(0o755)
  lines = done.stdout.splitlines()
  assert lines[:3] == [
    "a.jpg None None",
    "locked failed folder cannot be read: Permission denied",
    "z.jpg None None",
  ], done.stderr
  assert lines[3] == "cannot be read: Permission denied"
  assert "--input must be readable" in lines[4]


def test_check_output(tmp_path):
  source = tmp_path / "in"
  fill(source, "a.jpg")
  scan.check_output(source, tmp_path / "out")
  scan.check_output(source, tmp_path / "in2")
  scan.check_output(source / "a.jpg", tmp_path / "out")
  (tmp_path / "link").symlink_to(source)
  for output, rule in (
    (source, "must not be the same"),
    (tmp_path / "link", "must not be the same"),
    (source / ".." / "in", "must not be the same"),
    (source / "deep" / "out", "output must not be in the input"),
    (tmp_path / "link" / "out", "output must not be in the input"),
    (tmp_path, "input must not be in the output"),
  ):
    with pytest.raises(types.FawkesError, match=rule) as caught:
      scan.check_output(source, output)
    assert "--output=" in str(caught.value)
    assert "--input=" in str(caught.value)
  fill(tmp_path, "file")
  with pytest.raises(types.FawkesError, match="--output must be a folder"):
    scan.check_output(source, tmp_path / "file")
  with pytest.raises(types.FawkesError, match="input must not be in"):
    scan.check_output(source / "a.jpg", source)


def test_several_inputs(tmp_path):
  """Each is a folder of its own, or a file, whatever their order."""
  fill(tmp_path, "a/1.jpg", "a/d/2.jpg", "b/1.jpg", "single.jpg")
  (tmp_path / "list.txt").write_text("single.jpg\n")
  addresses = [tmp_path / n for n in ("single.jpg", "b", "a/", "list.txt", "b")]
  names = [file.relative for file in scan.scan(addresses)]
  assert names == [
    "a/1.jpg", "a/d/2.jpg", "b/1.jpg", "list.txt/single.jpg", "single.jpg"
  ]  # fmt: skip
  again = [file.relative for file in scan.scan(addresses[::-1])]
  assert again == names
  for file in scan.scan(addresses):
    assert file.read(max_bytes=1) == b"x"


def test_several_inputs_of_the_same_name(tmp_path):
  """As much of their addresses as tells them apart."""
  fill(tmp_path, "x/photos/1.jpg", "y/photos/1.jpg", "z/2.jpg", "y/2.jpg")
  addresses = [
    tmp_path / name for name in ("x/photos", "y/photos", "z/2.jpg", "y/2.jpg")
  ]
  names = [file.relative for file in scan.scan(addresses)]
  assert names == [
    "x/photos/1.jpg", "y/2.jpg", "y/photos/1.jpg", "z/2.jpg"
  ]  # fmt: skip


def test_several_inputs_that_are_refused(tmp_path):
  fill(tmp_path, "x/a/1.jpg", "a/2.jpg", "y/1.jpg")
  with pytest.raises(types.FawkesError, match=r"--input must be readable"):
    scan.scan([tmp_path / "a", tmp_path / "missing"])
  with pytest.raises(types.FawkesError, match="beside one of the same name"):
    scan.scan([tmp_path / "x", tmp_path / "x" / "a", tmp_path / "a"])
  with pytest.raises(types.FawkesError, match="output must not be in the inp"):
    scan.check_output([tmp_path / "a", tmp_path / "y"], tmp_path / "y" / "out")
