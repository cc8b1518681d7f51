"""A graph as a Flax module: its weights are parameters.

A batch is the `vmap` of one image, so that a graph whose batch dimension was
fixed to one takes any batch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax import types
from fawkes_jax.models import layers
from fawkes_jax.models.onnx.evaluation import evaluate
from fawkes_jax.models.onnx.graph import Graph


class GraphModule(nn.Module):
  """A graph with one output as an extractor of embeddings.

  Attributes:
    graph: the graph; its weights are the module's parameters.
    mean: what is subtracted from each channel, RGB, in 0..255.
    scale: what is then divided by.
    bgr: whether the graph expects blue, green, red.
    dtype: the type of the computation.
  """

  graph: Graph
  mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
  scale: tuple[float, float, float] = (127.5, 127.5, 127.5)
  bgr: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "n h w 3"]) -> Float32[Array, "n d"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, h, w, 3], RGB in 0..255, of the graph's image size.

    Returns:
      float32 [n, d], the graph's output, flattened.

    Raises:
      FawkesError: the graph has several outputs, or an operator is not
        supported.
    """
    graph = self.graph
    if len(graph.outputs) != 1:
      raise types.FawkesError(
        f"{graph.name}: a recogniser must have one output, got "
        f"{', '.join(graph.outputs)}"
      )
    weights = {
      name: layers.weight(self, name, nn.initializers.zeros, shape)
      for name, shape in graph.weights
    }
    x = images.astype(jnp.float32) - jnp.asarray(self.mean, jnp.float32)
    x = x / jnp.asarray(self.scale, jnp.float32)
    x = (x[..., ::-1] if self.bgr else x).astype(self.dtype)
    (y,) = jax.vmap(lambda image: evaluate(graph, weights, image))(x)
    return y.reshape(len(images), -1).astype(jnp.float32)
