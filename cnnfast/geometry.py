"""Output sizes, and stride, padding, dilation and kernel_size in one normal form.

Along one axis, tap ``k`` of window ``o`` looks at cell ``o * stride + k * dilation - pad_before``.
An :class:`Axis` holds these numbers, a :class:`Window` one for the height and one for the width,
and :class:`Convolution` adds images, channels and groups. Everything that has a window
(convolution, its transpose, pooling, im2col) is one of these; the arithmetic of output sizes stands
here and nowhere else.

Pure Python integers, so nothing overflows here; a size that would overflow 64 bits later is refused
with ValueError. Output sizes follow Dumoulin and Visin, "A guide to convolution arithmetic for deep
learning", arXiv:1603.07285.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple, SupportsIndex, TypeAlias, cast

MOST_KEPT = 1024  # problems of a kind, a kilobyte each: more than a network has layers
INT64_MAX = 2**63 - 1  # bytes and cells that the machine can count
INT32_MAX = 2**31 - 1  # the largest stride, padding, dilation, kernel_size: safe to multiply

MOST_SHOWN = 200  # letters of a wrong value in a message

IntPair: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Padding: TypeAlias = str | SupportsIndex | Sequence[SupportsIndex | Sequence[SupportsIndex]]
Sides: TypeAlias = tuple[int, int]  # cells before and after

# What a call may ask for: stride, padding, dilation, groups, layout; the transposed also, as third,
# output_padding; kernel_size, stride, padding, dilation.
ConvolutionOptions: TypeAlias = tuple[IntPair, Padding, IntPair, SupportsIndex, str]
TransposedOptions: TypeAlias = tuple[IntPair, Padding, IntPair, IntPair, SupportsIndex, str]
PoolOptions: TypeAlias = tuple[IntPair, IntPair | None, Padding, IntPair]

AXES = ("height", "width")


class Axis(NamedTuple):
    """How a window slides along one axis."""

    size: int  # cells of the image
    kernel: int  # taps of the window
    output: int  # windows
    stride: int
    pad_before: int
    pad_after: int
    dilation: int

    @property
    def reach(self) -> int:
        """Cells from the first tap to the last: the effective kernel."""
        return (self.kernel - 1) * self.dilation + 1


class Window(NamedTuple):
    """How a window slides over an image."""

    h: Axis
    w: Axis

    @property
    def image(self) -> tuple[int, int]:
        """``(H, W)``."""
        return self.h.size, self.w.size

    @property
    def kernel(self) -> tuple[int, int]:
        """``(KH, KW)``."""
        return self.h.kernel, self.w.kernel

    @property
    def output(self) -> tuple[int, int]:
        """``(OH, OW)``."""
        return self.h.output, self.w.output


class Convolution(NamedTuple):
    """A convolution of N images of C channels into F; or the transposed one, read backwards."""

    N: int
    C: int
    F: int
    groups: int
    window: Window
    dtype: str
    layout: str

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the image side, in its layout: x, or y of the transposed convolution."""
        return shape_in(self.layout, self.N, self.C, *self.window.image)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output side, in its layout: y, or x of the transposed convolution."""
        return shape_in(self.layout, self.N, self.F, *self.window.output)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``(F, C/groups, KH, KW)``."""
        return (self.F, self.C // self.groups, *self.window.kernel)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 8

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct formula."""
        return 2 * self.N * math.prod(self.window.output) * math.prod(self.weight_shape)

    @property
    def bytes(self) -> int:
        """Size of image, weights and output together: the least that must be moved."""
        shapes = (self.image_shape, self.weight_shape, self.output_shape)
        return self.itemsize * sum(math.prod(shape) for shape in shapes)


def shape_in(layout: str, n: int, c: int, h: int, w: int) -> tuple[int, int, int, int]:
    """Shape of N images of C channels in a layout."""
    return (n, h, w, c) if layout == "NHWC" else (n, c, h, w)


def shown(value: object) -> str:
    """``value`` as messages show it: not at any length, and even if it cannot be shown."""
    try:
        text = repr(value)
    except Exception:  # an int of very many digits, or whatever else a repr may do
        return f"something of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def boolean(name: str, value: object) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def integer(name: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least`` (0 or 1); bool and float are not ints."""
    return _checked(name, value, _index(name, value, "an int"), least)


def pair(name: str, value: object, least: int) -> tuple[int, int]:
    """``value``, an int or two, as ``(height, width)``."""
    if not isinstance(value, (tuple, list)):
        number = _checked(name, value, _index(name, value, "an int or a pair of ints"), least)
        return number, number
    if len(value) != 2:
        raise ValueError(f"{name} must have 2 entries, got {len(value)}: {shown(value)}")
    height, width = (_index(name, entry, "an int or a pair of ints") for entry in value)
    return _checked(name, value, height, least), _checked(name, value, width, least)


def paddings(value: object) -> str | tuple[Sides, Sides]:
    """``padding`` as ``((top, bottom), (left, right))``, or the word "same"."""
    if isinstance(value, str):
        if value == "valid":
            return (0, 0), (0, 0)
        if value == "same":
            return value
        raise ValueError(f"padding must be 'valid', 'same' or ints, got {shown(value)}")
    if not isinstance(value, (tuple, list)):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"padding must have 2 entries, got {len(value)}: {shown(value)}")
    vertical, horizontal = (pair("padding", entry, 0) for entry in value)
    return vertical, horizontal


def convolution_window(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: str | tuple[Sides, Sides],
    dilation: tuple[int, int],
) -> Window:
    """Window of a convolution: ``output = floor((size + pads - reach) / stride) + 1``."""
    return _window(image, kernel, stride, padding, dilation, _convolution_output)


def pool_window(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: str | tuple[Sides, Sides],
    dilation: tuple[int, int],
    ceil_mode: bool,
) -> Window:
    """Window of a pool: as a convolution, or rounded up; every window holds a cell of the image."""
    output = _pool_output_ceil if ceil_mode else _convolution_output
    window = _window(image, kernel, stride, padding, dilation, output)
    for label, axis in zip(AXES, window, strict=True):
        _check_windows_reach_image(label, axis)
    return window


def transposed_window(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: str | tuple[Sides, Sides],
    output_padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Window:
    """Window of the convolution whose input gradient the transposed convolution is.

    Its outputs are our ``image``; its image is our result, of
    ``(size - 1) * stride - pads + reach + output_padding`` cells ("same": ``size * stride``).
    """
    axes = []
    for i, label in enumerate(AXES):
        if output_padding[i] >= max(stride[i], dilation[i]):
            raise ValueError(
                f"output_padding must be smaller than stride or dilation, got {output_padding}"
                f" with stride {stride} and dilation {dilation}"
            )
        reach = _reach(kernel[i], dilation[i])
        spread = (image[i] - 1) * stride[i] + reach
        if isinstance(padding, str):
            if output_padding[i]:
                raise ValueError(
                    f"output_padding must be 0 with padding='same', got {output_padding}"
                )
            size = image[i] * stride[i]
            before, after = _same_sides(spread - size)
        else:
            before, after = padding[i]
            size = spread - before - after + output_padding[i]
        if size <= 0:
            raise ValueError(f"output {label} must be positive, got {size}: padding is too large")
        axes.append(_axis(size, kernel[i], image[i], stride[i], (before, after), dilation[i]))
    return Window(*axes)


def convolution(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dtype: str,
    stride: IntPair,
    padding: Padding,
    dilation: IntPair,
    groups: SupportsIndex,
    layout: str,
) -> Convolution:
    """Return the convolution that a call asks for; ValueError or TypeError if it asks for none."""
    N, C, height, width = in_nchw(layout, x_shape)
    F, group_channels, KH, KW = w_shape
    groups = _check_groups(groups, C, F)
    if group_channels * groups != C:
        raise ValueError(
            f"w expects {group_channels * groups} input channels (w.shape[1] * groups),"
            f" x has {C} (layout {layout}, shape {x_shape})"
        )
    window = convolution_window(
        (height, width),
        (KH, KW),
        pair("stride", stride, 1),
        paddings(padding),
        pair("dilation", dilation, 1),
    )
    conv = Convolution(N, C, F, groups, window, dtype, layout)
    check_bytes("the output", conv.output_shape, conv.itemsize)
    return conv


def transposed_convolution(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dtype: str,
    stride: IntPair,
    padding: Padding,
    output_padding: IntPair,
    dilation: IntPair,
    groups: SupportsIndex,
    layout: str,
) -> Convolution:
    """Return the convolution whose input gradient the transposed one is: x is its output side."""
    N, F, height, width = in_nchw(layout, x_shape)
    w_channels, group_channels, KH, KW = w_shape
    if w_channels != F:
        raise ValueError(
            f"w expects {w_channels} input channels (w.shape[0]),"
            f" x has {F} (layout {layout}, shape {x_shape})"
        )
    groups = integer("groups", groups, 1)
    C = group_channels * groups
    _check_groups(groups, F, C)
    window = transposed_window(
        (height, width),
        (KH, KW),
        pair("stride", stride, 1),
        paddings(padding),
        pair("output_padding", output_padding, 0),
        pair("dilation", dilation, 1),
    )
    conv = Convolution(N, C, F, groups, window, dtype, layout)
    check_bytes("the output", conv.image_shape, conv.itemsize)
    return conv


def pool(
    image: tuple[int, int],
    kernel_size: IntPair,
    stride: IntPair | None,
    padding: Padding,
    dilation: IntPair,
    ceil_mode: bool,
) -> Window:
    """Return the window that a pooling call asks for; its stride is kernel_size unless given."""
    kernel = pair("kernel_size", kernel_size, 1)
    return pool_window(
        image,
        kernel,
        kernel if stride is None else pair("stride", stride, 1),
        paddings(padding),
        pair("dilation", dilation, 1),
        boolean("ceil_mode", ceil_mode),
    )


def columns(
    output_size: tuple[SupportsIndex, SupportsIndex],
    kernel_size: IntPair,
    stride: IntPair,
    padding: Padding,
    dilation: IntPair,
) -> Window:
    """Return the window that a call of im2col or col2im asks for."""
    return convolution_window(
        pair("output_size", output_size, 1),
        pair("kernel_size", kernel_size, 1),
        pair("stride", stride, 1),
        paddings(padding),
        pair("dilation", dilation, 1),
    )


def are_plain(values: tuple[object, ...], depth: int = 2) -> bool:
    """Whether these are ints, words, None, and tuples of them: then equal ones mean the same.

    Among kept plans, True or 1.0 would be taken for 1, and a list may have changed.
    """
    for value in values:
        kind = type(value)
        if kind is int or kind is str or value is None:
            continue
        if kind is not tuple or depth == 0 or not are_plain(value, depth - 1):
            return False
    return True


def in_nchw(layout: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an image array in the order N, C, H, W."""
    if layout == "NHWC":
        n, h, w, c = shape
        return n, c, h, w
    return shape


def array_shape(name: str, value: object, ndim: int, first: int) -> tuple[int, ...]:
    """Return the shape of an array that need not exist; its first extent is at least ``first``."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of {ndim} ints, got {shown(value)}")
    if len(value) != ndim:
        raise ValueError(f"{name} must have {ndim} entries, got {len(value)}: {shown(value)}")
    return tuple(integer(name, entry, 1 if i else first) for i, entry in enumerate(value))


def check_bytes(name: str, shape: Sequence[int], itemsize: int) -> None:
    """ValueError if an array of this shape cannot be addressed."""
    if math.prod(shape) * itemsize > INT64_MAX:
        raise ValueError(f"{name} would be too large: shape {tuple(shape)}")


def _check_groups(groups: SupportsIndex, inputs: int, outputs: int) -> int:
    groups = integer("groups", groups, 1)
    if inputs % groups:
        raise ValueError(f"x has {inputs} channels, not divisible by groups {groups}")
    if outputs % groups:
        raise ValueError(f"w has {outputs} filters, not divisible by groups {groups}")
    return groups


def _index(name: str, value: object, wanted: str) -> int:
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError):  # no __index__, or an array of several integers
            return operator.index(cast(SupportsIndex, value))
    raise TypeError(f"{name} must be {wanted}, got {shown(value)}")


def _checked(name: str, value: object, number: int, least: int) -> int:
    if number < least:
        needed = "positive" if least else "non-negative"
        raise ValueError(f"{name} must be {needed}, got {shown(value)}")
    if number > INT32_MAX:
        raise ValueError(f"{name} is too large: at most {INT32_MAX}, got {shown(value)}")
    return number


def _window(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: str | tuple[Sides, Sides],
    dilation: tuple[int, int],
    output_of: Callable[[int, Sides, int, int], int],
) -> Window:
    axes = []
    for i, label in enumerate(AXES):
        reach = _reach(kernel[i], dilation[i])
        if isinstance(padding, str):
            output = -(-image[i] // stride[i])
            sides = _same_sides((output - 1) * stride[i] + reach - image[i])
        else:
            sides = padding[i]
            padded = image[i] + sum(sides)
            if reach > padded:
                raise ValueError(
                    f"the effective kernel {label} {reach} exceeds the padded input {label}"
                    f" {padded} (kernel_size is too large, or padding too small)"
                )
            output = output_of(image[i], sides, reach, stride[i])
        axes.append(_axis(image[i], kernel[i], output, stride[i], sides, dilation[i]))
    return Window(*axes)


def _reach(kernel: int, dilation: int) -> int:
    return (kernel - 1) * dilation + 1


def _same_sides(total: int) -> Sides:
    """Both sides of a "same" padding: the odd cell goes after."""
    total = max(total, 0)
    return total // 2, total - total // 2


def _convolution_output(size: int, sides: Sides, reach: int, stride: int) -> int:
    return (size + sum(sides) - reach) // stride + 1


def _pool_output_ceil(size: int, sides: Sides, reach: int, stride: int) -> int:
    output = -(-(size + sum(sides) - reach) // stride) + 1
    starts_beyond = (output - 1) * stride >= size + sides[0]
    return output - starts_beyond


def _axis(size: int, kernel: int, output: int, stride: int, sides: Sides, dilation: int) -> Axis:
    """Return the axis, after a check that no cell number met on the way overflows."""
    axis = Axis(size, kernel, output, stride, *sides, dilation)
    if axis.reach > INT64_MAX:
        raise ValueError(f"kernel_size or dilation is too large: {kernel} taps {dilation} apart")
    if max((output - 1) * stride + axis.reach, size + sum(sides)) > INT64_MAX:
        raise ValueError(
            f"padding or stride is too large: {size} cells with padding {sides}, stride {stride}"
        )
    return axis


def _check_windows_reach_image(label: str, axis: Axis) -> None:
    """ValueError for a pool with a window that holds nothing but padding."""
    if max(axis.pad_before, axis.pad_after) >= axis.reach:
        raise ValueError(
            f"padding must be smaller than the effective kernel, got padding"
            f" {(axis.pad_before, axis.pad_after)} for an effective kernel {label} of {axis.reach}"
        )
    # What is left: windows that begin in the padding and step over an image narrower than the
    # dilation. Their first tap at or after cell 0 is at start modulo dilation, which repeats with a
    # period; at most `size` different starts can hit the image, so the loop ends soon.
    begin_before = -(-axis.pad_before // axis.stride)
    period = axis.dilation // math.gcd(axis.stride, axis.dilation)
    for o in range(min(axis.output, begin_before, period) if axis.dilation > axis.size else 0):
        if (o * axis.stride - axis.pad_before) % axis.dilation >= axis.size:
            raise ValueError(
                f"a window along the {label} holds no cell of the input: padding {axis.pad_before},"
                f" dilation {axis.dilation}, input {label} {axis.size}"
            )
