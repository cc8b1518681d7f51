import re

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.weights.formats import openvino

NAME = "face-reidentification-retail-0095"

# A constant of two numbers, converted, and added to an image.
XML = """<?xml version="1.0"?>
<net name="small" version="11">
  <layers>
    <layer id="0" name="image" type="Parameter" version="opset1"/>
    <layer id="1" name="halves" type="Const" version="opset1">
      <data element_type="f16" shape="1, 2" offset="2" size="4"/>
    </layer>
    <layer id="2" name="floats" type="Convert" version="opset1"/>
    <layer id="3" name="sum" type="Add" version="opset1">
      <data auto_broadcast="numpy"/>
    </layer>
  </layers>
  <edges>
    <edge from-layer="1" from-port="0" to-layer="2" to-port="0"/>
    <edge from-layer="2" from-port="1" to-layer="3" to-port="1"/>
    <edge from-layer="0" from-port="0" to-layer="3" to-port="0"/>
  </edges>
</net>
"""
BIN = np.array([9, 1.5, -2], "<f2").tobytes()


def write(folder, xml=XML, data=BIN):
  path = folder / "small.xml"
  path.write_text(xml)
  path.with_suffix(".bin").write_bytes(data)
  return path


def test_small_network_is_read(tmp_path):
  model = openvino.read(write(tmp_path))
  assert list(model.layers) == ["0", "3"]
  layer = model.layers["3"]
  assert layer.op == "Add"
  assert layer.name == "sum"
  assert layer.inputs == ("0", "2")
  assert layer.attributes == {"auto_broadcast": "numpy"}
  value = model.constant(layer)
  assert value.dtype == np.float32
  np.testing.assert_array_equal(value, [[1.5, -2]])
  assert model.constant(model.layers["0"]) is None


@pytest.mark.parametrize(
  ("change", "rule"),
  [
    (('shape="1, 2"', 'shape="1, 3"'), "another size than its shape"),
    (('offset="2"', 'offset="4"'), "ends at byte 8 .* which has 6"),
    (("f16", "boolean"), "unsupported type 'boolean'"),
    (("</net>", ""), "damaged"),
    (("net ", "model "), "damaged"),
  ],
)
def test_damaged_description_is_refused(change, rule, tmp_path):
  path = write(tmp_path, XML.replace(*change))
  with pytest.raises(types.FawkesError, match=rule) as caught:
    openvino.read(path)
  assert str(path) in str(caught.value)


def test_other_document_is_refused(tmp_path):
  with pytest.raises(types.FawkesError, match="describes no network"):
    openvino.read(write(tmp_path, "<html/>"))


def test_truncated_values_are_refused(tmp_path):
  with pytest.raises(types.FawkesError, match=r"at byte 6 .* which has 5"):
    openvino.read(write(tmp_path, data=BIN[:5]))


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_missing_file_is_refused(suffix, tmp_path):
  path = write(tmp_path)
  missing = path.with_suffix(suffix)
  missing.unlink()
  with pytest.raises(
    types.FawkesError, match=f"{re.escape(str(missing))}.*No such file"
  ):
    openvino.read(path)


def test_other_network_is_refused(tmp_path):
  model = openvino.read(write(tmp_path))
  with pytest.raises(types.FawkesError, match=r"small\.xml.*got \(0, 0, 1\)"):
    openvino.convert_se_mobilenet(model)


@pytest.mark.data
def test_changed_shape_is_named(data_dir, tmp_path):
  folder = data_dir / "weights"
  xml = (folder / f"{NAME}.xml").read_text()
  path = tmp_path / "changed.xml"
  changed = xml.replace('shape="256, 512, 1, 1"', 'shape="512, 256, 1, 1"')
  assert changed != xml
  path.write_text(changed)
  data = (folder / f"{NAME}.bin").read_bytes()
  path.with_suffix(".bin").write_bytes(data)
  with pytest.raises(
    types.FawkesError,
    match=r"embedding/kernel must be \[512, 256\], got \[256, 512\]",
  ):
    openvino.convert_se_mobilenet(openvino.read(path))


# The runtime counts its users in another process.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.data
def test_values_are_those_of_the_runtime(data_dir):
  runtime = pytest.importorskip("openvino")
  path = data_dir / "weights" / f"{NAME}.xml"
  reference = runtime.Core().read_model(str(path))
  expected = {
    node.get_friendly_name(): node.data
    for node in reference.get_ops()
    if node.get_type_name() == "Constant"
  }
  model = openvino.read(path)
  names = re.findall(
    r'<layer id="(\d+)" name="([^"]*)" type="Const"', path.read_text()
  )
  assert len(names) == 209
  for key, name in names:
    np.testing.assert_array_equal(model.constants[key], expected[name])
