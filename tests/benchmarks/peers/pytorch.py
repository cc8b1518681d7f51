"""The solver's loop in PyTorch: dlib's network, Adam, the DSSIM penalty.

    python pytorch.py TASK.npz eager|compile float32|bfloat16

See `serving` for how it is asked. bfloat16 is for the network alone, whose
weights are cast once. Freed memory is kept, as we keep it: page faults cost
PyTorch as much.
"""

import math
import os
import pathlib
import runpy
import sys

import numpy as np
import serving
import torch
from torch.nn import functional

MEMORY = pathlib.Path(__file__).parents[3] / "fawkes_jax" / "xla" / "memory.py"
HOW, PRECISION = sys.argv[2:4]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KIND = getattr(torch, PRECISION)
DOWN = {3, 7, 10, 13}
KINDS = "kernel", "bias"
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def put(x):
  """An array on the device."""
  return torch.from_numpy(np.ascontiguousarray(x)).to(DEVICE)


def banded(size):
  """The window's mean along an axis as a product; float32 [size, size - 10]."""
  offsets = np.arange(WINDOW) - WINDOW // 2
  window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
  matrix = np.zeros((size, size - WINDOW + 1), np.float32)
  for i, column in enumerate(matrix.T):
    column[i : i + WINDOW] = window / window.sum()
  return matrix


def padded(x, shape):
  """With zeros after the end of each axis, where they are missing."""
  if list(x.shape) == shape:
    return x
  _, channels, rows, columns = (
    s - p for s, p in zip(shape, x.shape, strict=True)
  )
  return functional.pad(x, (0, columns, 0, rows, 0, channels))


def prepare(task):
  """Everything that is constant, and the compiled functions."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  weights = {}
  for name, value in task.items():
    if name.endswith("kernel") and value.ndim == 4:
      value = put(value.transpose(3, 2, 0, 1))
      weights[name] = value.to(KIND, memory_format=torch.channels_last)
    elif name.endswith("bias"):
      weights[name] = put(value).to(KIND)
  embedding = put(task["embedding/kernel"])
  bands = put(banded(task["faces"].shape[1]))
  original = put(task["faces"].transpose(0, 3, 1, 2))
  mean_pixel = put(task["mean_pixel"]).view(1, 3, 1, 1)
  centre, target = put(task["centre"]), put(task["target"])
  rho = float(task["rho"])

  def network(x):
    x = (x - mean_pixel) / 256
    x = x.to(KIND, memory_format=torch.channels_last)
    x = functional.conv2d(
      x, weights["stem/kernel"], weights["stem/bias"], stride=2
    )
    x = functional.max_pool2d(functional.relu(x), 3, 2)
    for i in range(14):
      down = i in DOWN
      stride, padding = (2, 0) if down else (1, 1)
      kernel, bias = (weights[f"block_{i}/conv_0/{k}"] for k in KINDS)
      y = functional.conv2d(x, kernel, bias, stride=stride, padding=padding)
      kernel, bias = (weights[f"block_{i}/conv_1/{k}"] for k in KINDS)
      y = functional.conv2d(functional.relu(y), kernel, bias, padding=1)
      if down:
        x = functional.avg_pool2d(x, 2)
      shape = [max(p, q) for p, q in zip(x.shape, y.shape, strict=True)]
      x = functional.relu(padded(x, shape) + padded(y, shape))
    return x.float().mean((2, 3)) @ embedding

  def filtered(x):
    return bands.mT @ (x @ bands)

  mean = filtered(original)
  variance = (filtered(original * original) - mean * mean).clamp(min=0)

  def dssim(change):
    shift = filtered(change)
    moved = mean + shift
    covariance = filtered(original * change) - mean * shift
    changed = filtered(change * change) - shift * shift
    luminance = (2 * mean * moved + C1) / (mean * mean + moved * moved + C1)
    both = 2 * (variance + covariance) + C2
    return 0.5 * (1 - luminance * both / (both + changed)).mean((1, 2, 3))

  def losses(change, penalty):
    candidate = torch.minimum(torch.maximum(change, -original), 255 - original)
    candidate = candidate + (candidate.round() - candidate).detach()
    features = network(original + candidate) - centre
    features = features / features.norm(dim=1, keepdim=True).clamp(min=1e-6)
    attack = 1 - (features * target).sum(1)
    unlike = dssim(candidate)
    excess = (unlike / rho - 1).clamp(min=0)
    return (attack + penalty * excess).sum(), attack, unlike, candidate

  def update(state, gradient, attack, unlike, candidate, rate, t):
    change, first, second, penalty, best, best_attack = state
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient * gradient
    step = first / (1 - 0.9**t)
    step = rate * step / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
    shrink = (rho / unlike.clamp(min=rho)).sqrt()[:, None, None, None]
    change = (shrink * change - step).clamp(-48, 48)
    within = unlike <= rho
    penalty = penalty * torch.where(within, 0.95, 1.15)
    better = within & (attack < best_attack)
    best = torch.where(better[:, None, None, None], candidate, best)
    best_attack = torch.where(better, attack, best_attack)
    return change, first, second, penalty, best, best_attack

  if HOW == "compile":
    losses, update = torch.compile(losses), torch.compile(update)
  rate = float(task["learning_rate"])
  return original, losses, update, rate


def run(ready, steps):
  """Solves the faces from the start."""
  original, losses, update, rate = ready
  n = len(original)
  zero = torch.zeros_like(original)
  ones = torch.ones(n, device=DEVICE)
  state = (zero, zero, zero, ones, zero, ones * math.inf)
  for i in range(steps):
    change = state[0].detach().requires_grad_()
    total, attack, unlike, candidate = losses(change, state[3])
    (gradient,) = torch.autograd.grad(total, change)
    with torch.no_grad():
      now = torch.tensor(rate * 0.5 * (1 + math.cos(math.pi * i / steps)))
      t = torch.tensor(i + 1.0)
      state = update(
        state,
        gradient,
        attack.detach(),
        unlike.detach(),
        candidate.detach(),
        now.to(DEVICE),
        t.to(DEVICE),
      )
  return (original + state[4]).permute(0, 2, 3, 1).cpu().numpy()


if __name__ == "__main__":
  runpy.run_path(str(MEMORY))["keep_freed"]()
  serving.serve(prepare, run)
