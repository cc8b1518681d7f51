"""Cloaks a batch of images that are in memory.

pip install fawkes-jax scikit-image
python docs/examples/cloak_arrays.py
"""

import numpy as np
import skimage.data

import fawkes_jax


def main(cloaker=None):
  # Loads the networks once; the first call compiles, later ones do not.
  cloaker = cloaker or fawkes_jax.Cloaker(mode="mid")

  photo = skimage.data.astronaut()  # uint8 [512, 512, 3]
  images = [photo, photo[:256, 100:356], photo[:, ::-1] / 255]  # Any sizes.

  # All three show one person, and are cloaked together.
  results = cloaker.cloak(images, people=["astronaut"] * 3)

  for image, result in zip(images, results, strict=True):
    assert result.image.shape == image.shape
    assert result.image.dtype == image.dtype
    for face in result.faces:
      print(f"box {face.box}, DSSIM {face.dssim:.4f}, {face.steps} steps")
      for name, cosine in face.cosine.items():
        print(f"  still {cosine:.2f} like the original to {name}")
  largest = np.abs(results[0].image.astype(int) - photo).max()
  print(f"no pixel of the first image changed by more than {largest} of 255")
  return results


if __name__ == "__main__":
  main()
