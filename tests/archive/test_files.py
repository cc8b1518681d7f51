import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fawkes_jax import types
from fawkes_jax.archive import files


def test_writes_and_replaces(tmp_path):
  path = tmp_path / "new" / "folder" / "photo.jpg"
  files.write_atomically(path, b"one")
  files.write_atomically(path, b"two")
  assert path.read_bytes() == b"two"
  assert os.listdir(path.parent) == ["photo.jpg"]


def test_permissions_follow_the_umask(tmp_path):
  script = (
    "import os, sys; os.umask(0o027)\n"
    "from pathlib import Path\n"
    "from fawkes_jax.archive import files\n"
    "files.write_atomically(Path(sys.argv[1]), b'x')\n"
  )
  path = tmp_path / "photo.jpg"
  subprocess.run([sys.executable, "-c", script, str(path)], check=True)
  assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = tmp_path / "photo.jpg"
  files.write_atomically(path, b"old")

  def broken(*_):
    raise OSError(5, "Input/output error")

  monkeypatch.setattr(os, "replace", broken)
  with pytest.raises(
    types.FawkesError, match=r"photo\.jpg cannot be written"
  ) as caught:
    files.write_atomically(path, b"new")
  # Weights and reports are no photo: such an error ends the command.
  assert not isinstance(caught.value, types.PhotoError)
  assert path.read_bytes() == b"old"
  assert os.listdir(tmp_path) == ["photo.jpg"]


@contextlib.contextmanager
def tiny_disk(folder):
  mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
  try:
    done = subprocess.run(mount, capture_output=True, check=False)
  except OSError:
    pytest.skip("there is no mount command")
  if done.returncode:
    pytest.skip("a small file system cannot be mounted here")
  try:
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True)


def test_no_space_left(tmp_path):
  with tiny_disk(tmp_path):
    path = tmp_path / "photo.jpg"
    files.write_atomically(path, b"old")
    with pytest.raises(types.FawkesError, match="No space left"):
      files.write_atomically(path, bytes(10**6))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_file_size_limit(tmp_path):
  """A full disk's little sister, which needs no privileges."""
  script = (
    "import resource, signal, sys\n"
    "from pathlib import Path\n"
    "from fawkes_jax import types\n"
    "from fawkes_jax.archive import files\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    "try:\n"
    "  files.write_atomically(Path(sys.argv[1]), bytes(10**5))\n"
    "except types.FawkesError as error:\n"
    "  print(error)\n"
  )
  path = tmp_path / "photo.jpg"
  done = subprocess.run(
    [sys.executable, "-c", script, str(path)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert "photo.jpg cannot be written: File too large" in done.stdout
  assert os.listdir(tmp_path) == []


def run_unprivileged(script, *arguments):
  """Runs a script without root's power to ignore permissions."""
  drop = "import os; os.getuid() == 0 and os.setresuid(65534, 65534, 65534)\n"
  imports = (
    "import sys\nfrom pathlib import Path\n"
    "from fawkes_jax import types\n"
    "from fawkes_jax.archive import files, manifest, scan\n"
  )
  return subprocess.run(
    [sys.executable, "-c", imports + drop + script, *map(str, arguments)],
    capture_output=True,
    text=True,
    check=True,
  ).stdout


def test_no_permission(tmp_path):
  locked = tmp_path / "locked"
  locked.mkdir(mode=0o555)
  for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
    folder.chmod(0o755)
  said = run_unprivileged(
    "try: files.write_atomically(Path(sys.argv[1]), b'x')\n"
    "except types.FawkesError as error: print(error)\n",
    locked / "photo.jpg",
  )
  assert "photo.jpg cannot be written: Permission denied" in said


def test_read_source(tmp_path):
  path = tmp_path / "photo.jpg"
  path.write_bytes(b"12345")
  assert files.read_source(path, max_bytes=6) == b"12345"
  assert files.read_source(path, max_bytes=4) == b"12345"
  assert files.read_source(path, max_bytes=3) == b"1234"
  with pytest.raises(types.PhotoError, match="a folder, not a file"):
    files.read_source(tmp_path, max_bytes=4)
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(types.PhotoError, match="not a regular file"):
    files.read_source(tmp_path / "pipe", max_bytes=4)


@pytest.mark.parametrize(
  ("name", "shown"),
  [
    (b"plain.jpg", "plain.jpg"),
    ("größe 雪.jpg".encode(), "größe 雪.jpg"),
    (b"caf\xe9.jpg", "caf\\xe9.jpg"),
    (b"caf\\xe9.jpg", "caf\\\\xe9.jpg"),
  ],
)
def test_printable(name, shown):
  assert files.printable(os.fsdecode(name)) == shown
  assert files.from_printable(shown) == os.fsdecode(name)
  assert files.printable(Path("a") / os.fsdecode(name)) == f"a/{shown}"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
  """And nothing else, whatever its name."""
  left = tmp_path / "trip" / ".fawkes-jax-ab12.tmp"
  kept = tmp_path / "trip" / ".fawkes-jax.jpg", tmp_path / "notes.tmp"
  left.parent.mkdir()
  for path in (left, *kept):
    path.write_bytes(b"x")
  files.remove_unfinished(tmp_path)
  assert not left.exists()
  assert all(path.exists() for path in kept)
