"""The loop of Fawkes 1.0.4 itself, with dlib's network in TensorFlow.

As the released tool calls it, it leads away from the person, not to a target.

    python fawkes_tf.py TASK.npz

Needs the packages tensorflow, tf-keras and, without what it depends on, fawkes
(`pip install --no-deps fawkes==1.0.4`): of that only the module with the loop
is loaded, unchanged. See `serving` for how it is asked.
"""

import importlib.util
import os
import sys
import types

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import serving
import tensorflow as tf
import tf_keras

DOWN = {3, 7, 10, 13}
# What its protection.py gives the loop in the mode "mid".
LEARNING_RATE, CONSTANT = 20, 1e7


class Network(tf.Module):
  """dlib's network, called as Fawkes calls its Keras models."""

  def __init__(self, task):
    super().__init__()
    self._mean = tf.constant(task["mean_pixel"])
    self._weights = {
      name: tf.Variable(value)
      for name, value in task.items()
      if name.endswith(("kernel", "bias"))
    }

  def _convolve(self, x, name, stride=1, padding="SAME"):
    kernel, bias = (self._weights[f"{name}/{k}"] for k in ("kernel", "bias"))
    return tf.nn.conv2d(x, kernel, stride, padding) + bias

  def __call__(self, images):
    x = (images - self._mean) / 256
    x = tf.nn.relu(self._convolve(x, "stem", 2, "VALID"))
    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    for i in range(14):
      down = i in DOWN
      y = self._convolve(
        x, f"block_{i}/conv_0", 2 if down else 1, "VALID" if down else "SAME"
      )
      y = self._convolve(tf.nn.relu(y), f"block_{i}/conv_1")
      if down:
        x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
      shape = [max(p, q) for p, q in zip(x.shape, y.shape, strict=True)]
      x, y = (
        tf.pad(z, [(0, s - p) for s, p in zip(shape, z.shape, strict=True)])
        for z in (x, y)
      )
      x = tf.nn.relu(x + y)
    return tf.reduce_mean(x, (1, 2)) @ self._weights["embedding/kernel"]


def _loop():
  """Fawkes's class, without the rest of its package."""
  found = importlib.util.find_spec("fawkes")
  assert found and found.submodule_search_locations
  [folder] = found.submodule_search_locations
  plain = types.ModuleType("fawkes.utils")
  # What these do for images in 0..255.
  plain.preprocess = plain.reverse_preprocess = lambda images, _: images
  sys.modules["fawkes.utils"] = plain
  tf.keras.optimizers.Adadelta = tf_keras.optimizers.legacy.Adadelta
  spec = importlib.util.spec_from_file_location(
    "fawkes.differentiator", f"{folder}/differentiator.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.FawkesMaskGeneration


def prepare(task):
  """The loop, and what it is given."""
  faces = task["faces"]
  loop = _loop()(
    bottleneck_model_ls=[Network(task)],
    batch_size=len(faces),
    learning_rate=LEARNING_RATE,
    initial_const=CONSTANT,
    maximize=True,
    intensity_range="raw",
    l_threshold=float(task["rho"]),
    image_shape=faces.shape[1:],
    verbose=2,
  )
  return loop, faces


def run(ready, steps):
  """Solves the faces from the start."""
  loop, faces = ready
  loop.MAX_ITERATIONS = steps
  return np.asarray(loop.compute(faces), np.float32)


if __name__ == "__main__":
  serving.serve(prepare, run)
