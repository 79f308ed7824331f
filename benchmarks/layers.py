"""The named layers: one table, shared by the benchmarks and the tests.

Every layer stands here once, with the sizes of the network or of the course exercise it comes
from. All sizes are spoken in one alphabet whichever layout the source uses: ``N`` images of ``C``
channels, ``H`` by ``W`` cells, ``F`` filters of ``KH`` by ``KW``. Arrays are made in NCHW;
``as_layout`` turns them.

Sources: Stanford CS231n assignment 2; deeplearning.ai course 4 week 1; yizt/numpy_neuron_network;
LeCun et al. 1998 (LeNet, with the filter counts of the usual MNIST tutorials); Simonyan &
Zisserman, arXiv:1409.1556 (VGG-16); He et al., arXiv:1512.03385 (ResNet-50, with the stride in the
3x3 as most libraries have it); Howard et al., arXiv:1704.04861 (MobileNet); Xie et al.,
arXiv:1611.05431 (ResNeXt); Chen et al., arXiv:1606.00915 (DeepLab); Iandola et al.,
arXiv:1602.07360 (SqueezeNet); He et al., arXiv:1812.01187 (ResNet-50-D); Szegedy et al.,
arXiv:1409.4842 (GoogLeNet) and arXiv:1512.00567 (Inception v3); Huang et al., arXiv:1903.08589
(YOLOv3-SPP).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class Layer:
    """A convolution: its sizes, and where they come from."""

    name: str
    N: int
    C: int
    H: int
    W: int
    F: int
    KH: int
    KW: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    source: str = ""

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return self.F, self.C // self.groups, self.KH, self.KW

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        OH = _extent(self.H, self.KH, self.stride, self.padding, self.dilation)
        OW = _extent(self.W, self.KW, self.stride, self.padding, self.dilation)
        return self.N, self.F, OH, OW

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct formula forward; backward: twice that."""
        return 2 * math.prod(self.y_shape) * math.prod(self.w_shape[1:])

    @property
    def options(self) -> dict[str, int]:
        """The keyword arguments of ``cnnfast.conv2d`` that make this layer."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def __str__(self) -> str:
        text = f"{self.N}x{self.C}x{self.H}x{self.W}, {self.F} filters {self.KH}x{self.KW}"
        for word, value, usual in (
            ("stride", self.stride, 1),
            ("pad", self.padding, 0),
            ("dilation", self.dilation, 1),
            ("groups", self.groups, 1),
        ):
            text += f" {word} {value}" if value != usual else ""
        return text


@dataclass(frozen=True)
class Pool:
    """A pooling: its sizes, and where they come from. ``kind`` is "max" or "avg"."""

    name: str
    N: int
    C: int
    H: int
    W: int
    kernel: int
    stride: int
    padding: int = 0
    ceil_mode: bool = False
    kind: str = "max"
    source: str = ""

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self._extent(self.H), self._extent(self.W)

    @property
    def options(self) -> dict[str, int | bool]:
        """The keyword arguments of ``cnnfast.max_pool2d``, beside kernel_size, for this pooling."""
        return {"stride": self.stride, "padding": self.padding, "ceil_mode": self.ceil_mode}

    def _extent(self, size: int) -> int:
        room = size + 2 * self.padding - self.kernel
        if not self.ceil_mode:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        starts_outside = (count - 1) * self.stride >= size + self.padding
        return count - starts_outside

    def __str__(self) -> str:
        text = f"{self.N}x{self.C}x{self.H}x{self.W}, {self.kind} {self.kernel}x{self.kernel}"
        text += f" stride {self.stride}"
        text += f" pad {self.padding}" if self.padding else ""
        return text + (" ceil" if self.ceil_mode else "")


class Arrays(NamedTuple):
    """What a convolution layer reads: input, weights, bias, and the gradient from above."""

    x: NDArray[np.floating]
    w: NDArray[np.floating]
    b: NDArray[np.floating]
    dy: NDArray[np.floating]


class PoolArrays(NamedTuple):
    """What a pooling layer reads: input, and the gradient from above."""

    x: NDArray[np.floating]
    dy: NDArray[np.floating]


def make(layer: Layer, dtype: DTypeLike, rng: np.random.Generator) -> Arrays:
    """Normal random arrays for a layer, with weights that leave y about the size of x."""
    fan_in = math.prod(layer.w_shape[1:])
    return Arrays(
        x=rng.standard_normal(layer.x_shape).astype(dtype),
        w=(rng.standard_normal(layer.w_shape) / fan_in**0.5).astype(dtype),
        b=rng.standard_normal(layer.F).astype(dtype),
        dy=rng.standard_normal(layer.y_shape).astype(dtype),
    )


def make_pool(pool: Pool, dtype: DTypeLike, rng: np.random.Generator) -> PoolArrays:
    """Normal random arrays for a pooling layer."""
    return PoolArrays(
        x=rng.standard_normal(pool.x_shape).astype(dtype),
        dy=rng.standard_normal(pool.y_shape).astype(dtype),
    )


def as_layout(x_nchw: NDArray[np.floating], layout: str) -> NDArray[np.floating]:
    """A C-contiguous array in the wanted layout from one in NCHW."""
    return x_nchw if layout == "NCHW" else np.ascontiguousarray(x_nchw.transpose(0, 2, 3, 1))


Named = TypeVar("Named", Layer, Pool)


def select(table: Sequence[Named], pattern: str | None) -> list[Named]:
    """The layers in whose name the regular expression is found; all of them without one."""
    return [layer for layer in table if pattern is None or re.search(pattern, layer.name)]


def _extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many windows fit along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _from(source: str, *rows: Named) -> tuple[Named, ...]:
    """The rows of a table with the name of their source filled in."""
    return tuple(replace(row, source=source) for row in rows)


# fmt: off
CS231N = _from(
    "CS231n assignment 2",
    #      name                     N   C   H   W   F KH KW
    Layer("cs231n-fast",          100,  3, 31, 31, 25, 3, 3, stride=2, padding=1),
    Layer("cs231n-threelayer",     50,  3, 32, 32, 32, 7, 7, padding=3),
)
LENET = _from(
    "LeNet on 64 MNIST digits",
    Layer("lenet-conv1",           64,  1, 28, 28, 32, 5, 5, padding=2),
    Layer("lenet-conv2",           64, 32, 14, 14, 64, 5, 5, padding=2),
)
STEP_BY_STEP = _from(
    "deeplearning.ai course 4 week 1",
    Layer("deeplearning-ai",       10,  3,  4,  4,  8, 2, 2, stride=2, padding=2),
)
NEURON_NETWORK = _from(
    "yizt/numpy_neuron_network",
    Layer("numpy-neuron-network",   3,  3, 28, 28,  4, 3, 3),
)
DIGITS = _from(
    "a first layer for scikit-learn's digits",
    Layer("digits-3x3",           100,  1,  8,  8,  8, 3, 3, padding=1),
)
VGG16 = _from(
    "VGG-16",
    #      name           N    C    H    W    F KH KW
    Layer("vgg16-1_1",    4,   3, 224, 224,  64, 3, 3, padding=1),
    Layer("vgg16-1_2",    4,  64, 224, 224,  64, 3, 3, padding=1),
    Layer("vgg16-2_1",    4,  64, 112, 112, 128, 3, 3, padding=1),
    Layer("vgg16-2_2",    4, 128, 112, 112, 128, 3, 3, padding=1),
    Layer("vgg16-3_1",    4, 128,  56,  56, 256, 3, 3, padding=1),
    Layer("vgg16-3_2",    4, 256,  56,  56, 256, 3, 3, padding=1),
    Layer("vgg16-4_1",    4, 256,  28,  28, 512, 3, 3, padding=1),
    Layer("vgg16-4_2",    4, 512,  28,  28, 512, 3, 3, padding=1),
    Layer("vgg16-5",      4, 512,  14,  14, 512, 3, 3, padding=1),
)
RESNET50 = _from(
    "ResNet-50",  # reduce: into a bottleneck, expand: out of it, project: a stage's first shortcut
    #      name                        N     C    H    W     F KH KW
    Layer("resnet50-stem",            16,    3, 224, 224,   64, 7, 7, stride=2, padding=3),
    Layer("resnet50-2-first-1x1",     16,   64,  56,  56,   64, 1, 1),
    Layer("resnet50-2-3x3",           16,   64,  56,  56,   64, 3, 3, padding=1),
    Layer("resnet50-2-expand-1x1",    16,   64,  56,  56,  256, 1, 1),
    Layer("resnet50-2-reduce-1x1",    16,  256,  56,  56,   64, 1, 1),
    Layer("resnet50-3-first-1x1",     16,  256,  56,  56,  128, 1, 1),
    Layer("resnet50-3-3x3-s2",        16,  128,  56,  56,  128, 3, 3, stride=2, padding=1),
    Layer("resnet50-3-project-s2",    16,  256,  56,  56,  512, 1, 1, stride=2),
    Layer("resnet50-3-3x3",           16,  128,  28,  28,  128, 3, 3, padding=1),
    Layer("resnet50-3-expand-1x1",    16,  128,  28,  28,  512, 1, 1),
    Layer("resnet50-3-reduce-1x1",    16,  512,  28,  28,  128, 1, 1),
    Layer("resnet50-4-first-1x1",     16,  512,  28,  28,  256, 1, 1),
    Layer("resnet50-4-3x3-s2",        16,  256,  28,  28,  256, 3, 3, stride=2, padding=1),
    Layer("resnet50-4-project-s2",    16,  512,  28,  28, 1024, 1, 1, stride=2),
    Layer("resnet50-4-3x3",           16,  256,  14,  14,  256, 3, 3, padding=1),
    Layer("resnet50-4-expand-1x1",    16,  256,  14,  14, 1024, 1, 1),
    Layer("resnet50-4-reduce-1x1",    16, 1024,  14,  14,  256, 1, 1),
    Layer("resnet50-5-first-1x1",     16, 1024,  14,  14,  512, 1, 1),
    Layer("resnet50-5-3x3-s2",        16,  512,  14,  14,  512, 3, 3, stride=2, padding=1),
    Layer("resnet50-5-project-s2",    16, 1024,  14,  14, 2048, 1, 1, stride=2),
    Layer("resnet50-5-3x3",           16,  512,   7,   7,  512, 3, 3, padding=1),
    Layer("resnet50-5-expand-1x1",    16,  512,   7,   7, 2048, 1, 1),
    Layer("resnet50-5-reduce-1x1",    16, 2048,   7,   7,  512, 1, 1),
)
MOBILENET_V1 = _from(
    "MobileNet v1",  # dw: depthwise, pw: pointwise; stride 2 pads 1 on every side
    #      name                   N     C    H    W     F KH KW
    Layer("mobilenet-first",      16,    3, 224, 224,   32, 3, 3, stride=2, padding=1),
    Layer("mobilenet-dw-112",     16,   32, 112, 112,   32, 3, 3, padding=1, groups=32),
    Layer("mobilenet-dw-112-s2",  16,   64, 112, 112,   64, 3, 3, stride=2, padding=1, groups=64),
    Layer("mobilenet-dw-56",      16,  128,  56,  56,  128, 3, 3, padding=1, groups=128),
    Layer("mobilenet-dw-56-s2",   16,  128,  56,  56,  128, 3, 3, stride=2, padding=1, groups=128),
    Layer("mobilenet-dw-28",      16,  256,  28,  28,  256, 3, 3, padding=1, groups=256),
    Layer("mobilenet-dw-28-s2",   16,  256,  28,  28,  256, 3, 3, stride=2, padding=1, groups=256),
    Layer("mobilenet-dw-14",      16,  512,  14,  14,  512, 3, 3, padding=1, groups=512),
    Layer("mobilenet-dw-14-s2",   16,  512,  14,  14,  512, 3, 3, stride=2, padding=1, groups=512),
    Layer("mobilenet-dw-7",       16, 1024,   7,   7, 1024, 3, 3, padding=1, groups=1024),
    Layer("mobilenet-pw-112",     16,   32, 112, 112,   64, 1, 1),
    Layer("mobilenet-pw-56-grow", 16,   64,  56,  56,  128, 1, 1),
    Layer("mobilenet-pw-56",      16,  128,  56,  56,  128, 1, 1),
    Layer("mobilenet-pw-28-grow", 16,  128,  28,  28,  256, 1, 1),
    Layer("mobilenet-pw-28",      16,  256,  28,  28,  256, 1, 1),
    Layer("mobilenet-pw-14-grow", 16,  256,  14,  14,  512, 1, 1),
    Layer("mobilenet-pw-14",      16,  512,  14,  14,  512, 1, 1),
    Layer("mobilenet-pw-7-grow",  16,  512,   7,   7, 1024, 1, 1),
    Layer("mobilenet-pw-7",       16, 1024,   7,   7, 1024, 1, 1),
)
OTHERS = (
    Layer("cifar-3x3",          64,   64,  32,  32,   64, 3, 3, padding=1,
          source="a VGG-like network on CIFAR-10"),
    Layer("resnext50-3x3-g32",  16,  128,  56,  56,  128, 3, 3, padding=1, groups=32,
          source="ResNeXt-50 32x4d"),
    Layer("deeplab-3x3-d2",      4,  512,  28,  28,  512, 3, 3, padding=2, dilation=2,
          source="DeepLab on VGG-16"),
)

COURSE_POOLS = _from(
    "CS231n assignment 2",
    #     name                N    C    H    W
    Pool("cs231n-pool",     100,   3,  32,  32, kernel=2, stride=2),
)
NETWORK_POOLS = (
    #     name                N    C    H    W
    Pool("lenet-pool",       64,  32,  28,  28, kernel=2, stride=2, source="LeNet"),
    Pool("vgg16-pool1",       4,  64, 224, 224, kernel=2, stride=2, source="VGG-16"),
    Pool("vgg16-pool5",       4, 512,  14,  14, kernel=2, stride=2, source="VGG-16"),
    Pool("resnet50-pool",    16,  64, 112, 112, kernel=3, stride=2, padding=1, source="ResNet-50"),
    Pool("squeezenet-pool",  16,  96, 109, 109, kernel=3, stride=2, ceil_mode=True,
         source="SqueezeNet"),
    Pool("lenet-pool2",      64,  16,  10,  10, kernel=2, stride=2, source="LeNet"),
    Pool("cifar-pool",       64,  32,  32,  32, kernel=2, stride=2,
         source="a VGG-like network on CIFAR-10"),
    Pool("googlenet-3a",     16, 192,  28,  28, kernel=3, stride=1, padding=1, source="GoogLeNet"),
    Pool("yolo-spp-5",        4, 512,  19,  19, kernel=5, stride=1, padding=2, source="YOLOv3-SPP"),
    Pool("yolo-spp-13",       4, 512,  19,  19, kernel=13, stride=1, padding=6,
         source="YOLOv3-SPP"),
    Pool("resnet50d-avg",    16, 256,  56,  56, kernel=2, stride=2, kind="avg",
         source="ResNet-50-D"),
    Pool("inception-avg",    16, 192,  28,  28, kernel=3, stride=1, padding=1, kind="avg",
         source="Inception v3"),
    Pool("resnet18-global",  16, 512,   7,   7, kernel=7, stride=7, kind="avg", source="ResNet-18"),
    Pool("mobilenet-global", 16, 1024,  7,   7, kernel=7, stride=7, kind="avg",
         source="MobileNet v1"),
)
# fmt: on

COURSE = (*CS231N, *LENET, *STEP_BY_STEP, *NEURON_NETWORK, *DIGITS)
CONVS = (*COURSE, *VGG16, *RESNET50, *MOBILENET_V1, *OTHERS)
POOLS = (*COURSE_POOLS, *NETWORK_POOLS)

# Eight that span the kinds of work: few channels, mid-size, compute-bound, 1x1, stem, depthwise.
_SPAN = (
    "cs231n-threelayer|lenet-conv2|cifar-3x3|resnet50-2-3x3|resnet50-4-3x3"
    "|resnet50-2-expand-1x1|resnet50-stem|mobilenet-dw-112"
)
CORE = tuple(select(CONVS, f"^({_SPAN})$"))

# Behind which a norm stands, and whose windows become columns: all kinds of sizes.
NORMED = tuple(
    select(
        CONVS,
        "^(cs231n-threelayer|lenet-conv2|cifar-3x3|resnet50-stem|resnet50-2-3x3"
        "|resnet50-4-3x3|resnet50-5-3x3|mobilenet-dw-112)$",
    )
)
UNFOLDED = (
    *select(
        CONVS,
        "^(cs231n-fast|cs231n-threelayer|lenet-conv2|deeplearning-ai|vgg16-1_1|resnet50-stem"
        "|resnet50-2-first-1x1|resnet50-2-3x3|resnet50-5-3x3-s2)$",
    ),
    Layer("alexnet-1", 16, 3, 227, 227, 96, 11, 11, stride=4, source="AlexNet"),
)
