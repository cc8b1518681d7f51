"""A twin: a network like its teacher's, taught from random weights.

The embedding of a face is a few hundred numbers, and a student that has only
them to learn from needs millions of faces. A network of the same shape has more
to compare: what each block makes of a face, at every place of it. First each
block learns alone what the teacher's makes of the teacher's features, all of
them at once ("Progressive Blockwise Knowledge Distillation for Neural Network
Acceleration", Wang et al., 2018). Then they work one after the other, more and
more as they will be used, and still see what the teacher has at each place
("FitNets: Hints for Thin Deep Nets", Romero et al., 2014).

Pure functions of one batch, in float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float32

from fawkes_jax.models import layers

_PLACES = 14
"""Where a block sees wider images, it learns alone from fewer of them: what it
learns from is places, and neighbours are alike."""

_LEAST = 4
"""But from one image in this many."""

_JOINING = 0.5
"""The share of the rest of a run, in which blocks work together, until each is
given all that the ones before have made."""

_UNLEARNED = 0.05
"""A channel has not been learned if its error is more than this share of what
is wanted of it."""

_RATE = 15.0
"""Weights move by this times their own size and the learning rate."""

# What a block is given, and what it makes of it.
_Features = dict[str, tuple[jax.Array, jax.Array]]


def _numbered(name: str) -> bool:
  return name.startswith("block_")


@dataclasses.dataclass(frozen=True)
class Blocks:
  """The blocks of a network.

  What comes before the first block belongs to it.

  Attributes:
    module: the twin.
    teacher: the teacher's network, which has the same layers; None where it is
      the same.
    ends: of the name of a module of the network, whether a block ends with it;
      by default those that are called `block_0`, `block_1` and so on.
  """

  module: nn.Module
  teacher: nn.Module | None = None
  ends: Callable[[str], bool] = _numbered

  def look(
    self, variables: Any, images: Float32[Array, "n size size 3"]
  ) -> tuple[Any, _Features]:
    """Applies the teacher and keeps what its blocks are given and make of it.

    Args:
      variables: the teacher's weights.
      images: what it takes.

    Returns:
      What the teacher says, and by block its input and its output.
    """
    features: _Features = {}

    def keep(call, args, kwargs, context):
      result = call(*args, **kwargs)
      if self._is_block(context):
        features[context.module.name] = args[0], result
      return result

    with nn.intercept_methods(keep):
      result = self._teacher.apply(variables, images)
    return result, features

  def any(self, variables: Any, size: int) -> bool:
    """Whether the network has blocks.

    Args:
      variables: its weights.
      size: height and width of the images that it takes.

    Returns:
      Whether it has one or more.
    """
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return bool(jax.eval_shape(self.look, variables, images)[1])

  def apart(
    self,
    variables: Any,
    images: Float32[Array, "n size size 3"],
    features: _Features,
    measure: Callable[..., Any] | None = None,
  ) -> tuple[Any, dict[str, Any]]:
    """The errors of blocks that are given what the teacher's are given.

    Args:
      variables: the twin's weights.
      images: what it takes.
      features: the teacher's.
      measure: of what a block makes, what it should make and what it is given;
        None for `error`.

    Returns:
      What comes after the last block, which is given the teacher's features,
      too; and by block what is measured, by default the mean square of the
      error, divided by the variance of what the block adds.
    """
    errors = {}
    measure = measure or error
    count = len(images)

    def replace(call, args, kwargs, context):
      if context.method_name != "__call__" or len(context.module.path) != 1:
        return call(*args, **kwargs)
      x = args[0]
      if len(x) == count and x.ndim == 4:
        few = max(count * _PLACES // x.shape[1], -(-count // _LEAST))
        x = x[: min(few, count)]
      y = call(x, *args[1:], **kwargs)
      if not self._is_block(context):
        return y
      given, wanted = features[context.module.name]
      errors[context.module.name] = measure(
        y, wanted[: len(y)], given[: len(y)]
      )
      return wanted

    with nn.intercept_methods(replace):
      result = self.module.apply(variables, images)
    return result, errors

  def redrawn(
    self,
    variables: Any,
    teacher: Any,
    images: Float32[Array, "n size size 3"],
    key: jax.Array,
  ) -> tuple[dict[str, Any], int]:
    """Draws anew the channels that have not been learned.

    Where a block is one layer, or a matrix a pixel and a depthwise convolution,
    its channels learn independently of each other, and a few of them get stuck
    in a local minimum.

    Args:
      variables: of the twin, whose blocks have learned apart; weights that the
        network does not have stay as they are.
      teacher: its teacher's weights.
      images: some of what it takes.
      key: the key of the draw.

    Returns:
      The weights, and how many channels were drawn anew.
    """
    _, features = self.look(teacher, images)
    _, missed = self.apart(variables, images, features, _missed)
    drawn, _ = self.fresh(teacher, images, key)
    weights, others = (
      flax.traverse_util.flatten_dict(dict(v["params"]))
      for v in (variables, drawn)
    )
    for name, other in others.items():
      if name[0] in missed:
        weights[name] = jnp.where(missed[name[0]], other, weights[name])
    count = sum(int(channels.sum()) for channels in missed.values())
    return {"params": flax.traverse_util.unflatten_dict(weights)}, count

  def together(
    self,
    variables: Any,
    images: Float32[Array, "n size size 3"],
    features: _Features,
    share: Float32[Array, ""],
  ) -> tuple[Any, dict[str, Float32[Array, ""]]]:
    """The errors of blocks that are given what the blocks before have made.

    Args:
      variables: the twin's weights.
      images: what it takes.
      features: the teacher's.
      share: of each block's error that the next one is given, 0..1. With all
        of it from the start, small errors may grow from block to block without
        end.

    Returns:
      What the network says; and by block the mean square of the error, divided
      by the variance of what is wanted.
    """
    errors = {}

    def mix(call, args, kwargs, context):
      y = call(*args, **kwargs)
      if not self._is_block(context):
        return y
      _, wanted = features[context.module.name]
      errors[context.module.name] = error(y, wanted)
      return wanted + share * (y - wanted)

    with nn.intercept_methods(mix):
      result = self.module.apply(variables, images)
    return result, errors

  def fresh(
    self,
    teacher: Any,
    images: Float32[Array, "n size size 3"],
    key: jax.Array,
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random weights that keep features in the teacher's range.

    Each kernel is drawn at random, then scaled, and its bias set, so that the
    layer's output has the mean and the deviation of the teacher's, over all
    images, places and channels ("All you need is a good init", Mishkin and
    Matas, 2015). No weight of the teacher is used.

    Args:
      teacher: its teacher's weights.
      images: some of what it takes.
      key: the key of the draw.

    Returns:
      The weights, and for each array of them its natural size, with which its
      learning rate is multiplied.
    """
    ranges = {}

    def measure(call, args, kwargs, context):
      result = call(*args, **kwargs)
      if _is_layer(context):
        ranges[context.module.path] = result.mean(), result.std()
      return result

    with nn.intercept_methods(measure):
      self._teacher.apply(teacher, images)
    _, features = self.look(teacher, images)
    drawn = self.module.init(key, images[:1])
    weights = flax.traverse_util.flatten_dict(dict(drawn["params"]))
    sizes = {name: jnp.sqrt((x**2).mean()) for name, x in weights.items()}

    def adjust(call, args, kwargs, context):
      result = call(*args, **kwargs)
      path = context.module.path
      kernel, bias = (*path, "kernel"), (*path, "bias")
      if _is_layer(context):
        mean, deviation = ranges[path]
        scale = deviation / result.std()
        weights[kernel] = weights[kernel] * scale
        sizes[kernel] = jnp.sqrt((weights[kernel] ** 2).mean())
        result = scale * result
        if bias in weights:
          move = mean - result.mean()
          weights[bias] = weights[bias] + move
          sizes[bias] = deviation
          result = result + move
      return features[path[0]][1] if self._is_block(context) else result

    with nn.intercept_methods(adjust):
      self.module.apply(drawn, images)
    params, scales = map(flax.traverse_util.unflatten_dict, (weights, sizes))
    return {"params": params}, scales

  @property
  def _teacher(self) -> nn.Module:
    return self.teacher or self.module

  def _is_block(self, context: nn.module.InterceptorContext) -> bool:
    call = context.method_name == "__call__"
    path = context.module.path
    return call and len(path) == 1 and self.ends(path[0])


def share(progress: float, apart: float) -> float:
  """How much of its error a block hands on; see `Blocks.together`.

  Args:
    progress: of the run, 0..1.
    apart: the share of the run in which blocks learn apart. Where it is 0, the
      blocks have learned before, and hand on all from the start.

  Returns:
    The share, 0..1.
  """
  joining = _JOINING * (1 - apart) if apart else 0.0
  late = max(0.0, progress - apart)
  return late / joining if late < joining else 1.0


def optimiser(sizes: dict[str, Any]) -> optax.GradientTransformation:
  """Adam, whose learning rate is a share of each weight's size.

  Args:
    sizes: of the weights, see `Blocks.fresh`.

  Returns:
    The optimiser of {"student": weights}, and of heads that are empty.
  """
  return optax.chain(
    optax.scale_by_adam(b2=0.99),
    optax.stateless(
      lambda updates, _: {
        **updates,
        "student": jax.tree.map(
          lambda update, size: _RATE * size * update, updates["student"], sizes
        ),
      }
    ),
  )


def error(
  x: Float32[Array, "n *places c"],
  wanted: Float32[Array, "n *places c"],
  given: jax.Array | None = None,
) -> Float32[Array, ""]:
  """The mean square of a difference, in variances of what is wanted.

  Args:
    x: features.
    wanted: what they should be.
    given: what they come from; of the same shape where there is a shortcut
      around the block, whose part of the variance does not count then.

  Returns:
    0 where they are the same; 1 where only the mean is right.
  """
  added = wanted
  if given is not None and given.shape == wanted.shape:
    added = wanted - given
  places = added.size // added.shape[-1]
  moved = added - layers.channel_sums(added) / places
  missed = layers.channel_sums((x - wanted) ** 2).sum()
  variance = layers.channel_sums(moved**2).sum()
  return missed / jnp.maximum(variance, 1e-12 * places)


def _missed(
  x: Float32[Array, "n *places c"],
  wanted: Float32[Array, "n *places c"],
  given: jax.Array,
) -> Bool[Array, " c"]:
  """Which channels have not been learned; see `error`."""
  del given
  places = wanted.size // wanted.shape[-1]
  moved = wanted - layers.channel_sums(wanted) / places
  variances = layers.channel_sums(moved**2)
  missed = layers.channel_sums((x - wanted) ** 2)
  # What hardly varies cannot be told from nothing.
  return missed > _UNLEARNED * variances + 1e-4 * variances.mean()


def _is_layer(context: nn.module.InterceptorContext) -> bool:
  """Whether it is a call of something with a kernel of its own."""
  own = context.module.variables.get("params", {})
  return context.method_name == "__call__" and "kernel" in own
