"""The list of the face feature extractors that the package knows.

An extractor is a name, a pure function, its weights and what it takes:
which square of the face frame it looks at, at which size. All take RGB images
in 0..255 and do their own normalisation inside.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.imaging import geometry
from fawkes_jax.models import (
  dlib_resnet,
  ghostfacenet,
  inception_resnet,
  iresnet,
  mobileface,
  mobilefacenet,
  mobilefacenet_prelu,
  se_mobilenet,
  students,
  vit,
)
from fawkes_jax.models.onnx import folding
from fawkes_jax.xla import compiler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """A network and what it expects to see, without weights.

  Attributes:
    module: makes the Flax module for a computation type; it maps RGB images
      [n, size, size, 3] in 0..255 to float32 embeddings [n, d].
    input_size: height and width of the input, in pixels.
    template: the square of the face frame that the input shows.
    convert: makes the module's variables of the layers of its ONNX file; None
      where it is not read from ONNX.
  """

  module: Callable[..., nn.Module]
  input_size: int = 112
  template: geometry.Template = geometry.ARCFACE
  convert: Callable[[folding.Layers], dict[str, Any]] | None = None


# Where the templates of other alignments lie in the face frame: the mean over
# 5,384 faces of Labeled Faces in the Wild on which both kinds of landmarks were
# found. A single face is off by 1.5 % of the side, 5.5 % in scale and 4 degrees
# (standard deviations).
TEMPLATES = {
  # get_face_chip(size=150, padding=0.25)
  "dlib": geometry.Template(left=-0.25, top=-0.25, side=1.5),
  # The five points of ArcFace's 112 x 112 pixels.
  "arcface": geometry.ARCFACE,
  # Those of Open Model Zoo's face-reidentification-retail-0095.
  "open_model_zoo": geometry.Template(left=-0.286, top=-0.4985, side=1.557),
  # FaceNet was trained on the box of the MTCNN detector with a margin, which is
  # no alignment and not square. This is a square like it, an estimate: over 65
  # faces of Labeled Faces in the Wild, the box of another such detector (YuNet)
  # lay around (0.50, 0.40) and was 1.21 wide and 1.64 high.
  "facenet": geometry.Template(left=-0.25, top=-0.35, side=1.5),
}

ARCHITECTURES = {
  "dlib_resnet": Architecture(
    module=dlib_resnet.DlibResNet,
    input_size=dlib_resnet.INPUT_SIZE,
    template=TEMPLATES["dlib"],
  ),
  "mobilefacenet": Architecture(
    module=mobilefacenet.MobileFaceNet, convert=mobilefacenet.convert
  ),
  "mobileface_v2": Architecture(
    module=mobileface.MobileFace, convert=mobileface.convert
  ),
  "se_mobilenet": Architecture(
    module=se_mobilenet.SeMobileNet,
    input_size=se_mobilenet.INPUT_SIZE,
    template=TEMPLATES["open_model_zoo"],
  ),
  "inception_resnet_v1": Architecture(
    module=inception_resnet.InceptionResNet,
    input_size=inception_resnet.INPUT_SIZE,
    template=TEMPLATES["facenet"],
  ),
  "esp_mobilefacenet": Architecture(
    module=mobilefacenet_prelu.MobileFaceNetPRelu,
    convert=mobilefacenet_prelu.convert,
  ),
  "se_mobilefacenet": Architecture(
    module=functools.partial(
      mobilefacenet_prelu.MobileFaceNetPRelu,
      embedding_size=256,
      deviation=128.0,
      pointwise=True,
      squeezed=True,
    ),
    convert=mobilefacenet_prelu.convert,
  ),
  "ghostfacenet": Architecture(
    module=ghostfacenet.GhostFaceNet, convert=ghostfacenet.convert
  ),
  "iresnet50": Architecture(
    module=functools.partial(iresnet.IResNet, depth=50)
  ),
  "iresnet100": Architecture(
    module=functools.partial(iresnet.IResNet, depth=100)
  ),
  "adaface_ir50": Architecture(
    module=functools.partial(iresnet.IResNet, depth=50, adaface=True)
  ),
  "adaface_ir101": Architecture(
    module=functools.partial(iresnet.IResNet, depth=100, adaface=True)
  ),
  **{
    f"vit_{size}": Architecture(
      module=functools.partial(vit.VisionTransformer, size=size)
    )
    for size in vit.SIZES
  },
  **{
    name: Architecture(module=student)
    for name, student in students.STUDENTS.items()
  },
}
"""By the name that records and students' files give; the only list of them.

All but those that say otherwise take 112 x 112 pixels in ArcFace's alignment.
"""


@dataclasses.dataclass(frozen=True)
class Function:
  """Any pure function in the place of a Flax module.

  Attributes:
    function: of the variables and the images, see `Extractor.apply`.
  """

  function: Callable[[Any, Any], Any]

  def apply(self, variables: Any, images: Any) -> Any:
    """See `Extractor.apply`."""
    return self.function(variables, images)

  def clone(self, *, dtype: DTypeLike) -> "Function":
    """The same: a function computes in the type that it is written in."""
    del dtype
    return self


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Extractor:
  """A frozen face feature extractor: the Fawkes paper's Phi.

  `Extractor.from_apply` makes one of any function.

  Attributes:
    name: its architecture's, or that of the file it comes from.
    module: the Flax module, or a `Function` in its place.
    variables: its weights, a tree of arrays.
    input_size: height and width of the input, in pixels.
    template: the square of the face frame that the input shows.
  """

  name: str
  module: Any
  variables: Any
  input_size: int
  template: geometry.Template

  @classmethod
  def from_apply(
    cls,
    apply: Callable[[Any, Any], Any],
    variables: Any,
    *,
    name: str,
    input_size: int,
    template: str | geometry.Template = "arcface",
  ) -> "Extractor":
    """Makes an extractor of a function, of Flax or of anything else in JAX.

    Args:
      apply: a pure function of the variables and float32 images [n, size,
        size, 3], RGB in 0..255, which does its own normalisation and gives
        embeddings [n, d]; it can be differentiated and compiled.
      variables: its weights, a tree of arrays.
      name: that results call it by.
      input_size: height and width of its images, in pixels.
      template: which square of the face frame they show: a name of
        `TEMPLATES`, such as "arcface" or "dlib", or a square.

    Returns:
      The extractor.

    Raises:
      ValueError: the template has no such name, or `apply` does not give a
        floating-point array [n, d].
    """
    if isinstance(template, str):
      if template not in TEMPLATES:
        raise ValueError(
          f"template must be {', '.join(TEMPLATES)} or a geometry.Template,"
          f" got {template!r}"
        )
      template = TEMPLATES[template]
    images = jax.ShapeDtypeStruct((2, input_size, input_size, 3), np.float32)
    found: Any = jax.eval_shape(apply, variables, images)
    shape: Any = getattr(found, "shape", ())
    kind = getattr(found, "dtype", object)
    if len(shape) != 2 or shape[0] != 2 or not np.issubdtype(kind, np.floating):
      raise ValueError(
        "apply must give embeddings [n, d] in floating point, got"
        f" {kind} {list(shape)} for n = 2"
      )
    return cls(
      name=name,
      module=Function(apply),
      variables=variables,
      input_size=input_size,
      template=template,
    )

  def apply(
    self, variables: Any, images: Float[Array, "n size size 3"]
  ) -> Float32[Array, "n d"]:
    """The pure function, to be differentiated and compiled.

    Args:
      variables: the weights, as in the attribute.
      images: RGB in 0..255; size is `input_size`.

    Returns:
      The embeddings, not normalised.
    """
    return self.module.apply(variables, images)

  def in_type(self, dtype: DTypeLike) -> "Extractor":
    """The same extractor, computing in another type inside."""
    return dataclasses.replace(self, module=self.module.clone(dtype=dtype))

  def embed(self, images: Any) -> Float32[np.ndarray, "n d"]:
    """Embeds a batch of aligned faces.

    Args:
      images: array [n, size, size, 3] of any real type, RGB in 0..255; size
        is `input_size`.

    Returns:
      The embeddings, not normalised.

    Raises:
      ValueError: the images have another shape.
    """
    size = self.input_size
    shape = np.shape(images)
    if len(shape) != 4 or shape[1:] != (size, size, 3):
      raise ValueError(
        f"{self.name} takes images [n, {size}, {size}, 3], got {list(shape)}"
      )
    return np.asarray(_program()(self.module, self.variables, images))


@functools.cache
def _program() -> jax.stages.Wrapped:
  """Applies a module to variables and images."""
  return compiler.jit(
    lambda module, variables, images: module.apply(variables, images),
    static_argnums=0,
  )


def architecture_of(module: Any) -> str | None:
  """The key of `ARCHITECTURES` that a module is of, whatever its type.

  Args:
    module: the module of an extractor.

  Returns:
    The key; None where the module is of none.
  """
  for name, about in ARCHITECTURES.items():
    plain = about.module()
    if type(plain) is type(module) and plain == module.clone(dtype=plain.dtype):
      return name
  return None


def build(
  architecture: str,
  variables: Any,
  *,
  name: str | None = None,
  **options: Any,
) -> Extractor:
  """Joins an architecture and its weights.

  Args:
    architecture: a key of `ARCHITECTURES`.
    variables: the weights.
    name: the name of the extractor; None for the architecture's.
    **options: attributes of the module, such as `dtype`.

  Returns:
    The extractor.

  Raises:
    ValueError: the name is unknown.
  """
  if architecture not in ARCHITECTURES:
    raise ValueError(
      f"unknown extractor {architecture!r}; known are:"
      f" {', '.join(ARCHITECTURES)}"
    )
  about = ARCHITECTURES[architecture]
  return Extractor(
    name=name or architecture,
    module=about.module(**options),
    variables=variables,
    input_size=about.input_size,
    template=about.template,
  )
