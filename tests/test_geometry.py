"""Drawn geometries: sizes against windows counted one by one, values against the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from cases import Case, Variant, algorithms_of, avg_pool, conv, max_pool, transposed
from contract import assert_near, assert_same_bits, run
from hypothesis import assume, given
from hypothesis import strategies as st

import cnnfast
from cnnfast import reference


@dataclass(frozen=True)
class Axis:
    """One axis of a drawn problem; its windows are counted by walking along it."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    def taps(self, start: int) -> list[int]:
        return [start + self.dilation * k for k in range(self.kernel)]

    def starts(self, ceil_mode: bool = False) -> list[int]:
        """Walk until a window leaves the padded input; ceil_mode takes one more that overhangs."""
        starts, start = [], -self.before
        end = self.size + self.after
        while self.taps(start)[-1] < end:
            starts.append(start)
            start += self.stride
        uncovered = starts and self.taps(starts[-1])[-1] < end - 1
        return [*starts, start] if ceil_mode and uncovered and start < self.size else starts

    def pools(self, ceil_mode: bool) -> bool:
        """Whether pooling along this axis is allowed."""
        starts = self.starts(ceil_mode)
        holds_a_cell = [any(0 <= i < self.size for i in self.taps(start)) for start in starts]
        padding = max(self.before, self.after)
        return bool(starts) and all(holds_a_cell) and padding <= self.taps(0)[-1]


axes = st.builds(
    Axis,
    size=st.integers(1, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
)


def options(h: Axis, w: Axis) -> dict[str, object]:
    return {
        "stride": (h.stride, w.stride),
        "padding": ((h.before, h.after), (w.before, w.after)),
        "dilation": (h.dilation, w.dilation),
    }


def agree(case: Case, size: tuple[int, int]) -> None:
    """Every implementation that can gives this output size, and the values of the reference."""
    for algorithm in algorithms_of(case.function):
        variant = Variant(case, "float64", "NCHW", algorithm)
        if variant.refusal():
            continue
        inputs = variant.inputs()
        got, want = run(cnnfast, variant, inputs), run(reference, variant, inputs)
        assert got["y"].shape[2:] == size
        if variant.error:
            assert_near(got, want, variant.error)
        elif case.exact:
            assert_same_bits(got, want)
        else:
            for name, array in got.items():
                np.testing.assert_allclose(array, want[name], rtol=1e-13, atol=1e-13)


@given(axes, axes)
def test_convolution(h: Axis, w: Axis) -> None:
    size = len(h.starts()), len(w.starts())
    assume(all(size))
    agree(conv("drawn", (1, 2, h.size, w.size), (2, 2, h.kernel, w.kernel), **options(h, w)), size)


@given(axes, axes)
def test_same_convolution(h: Axis, w: Axis) -> None:
    size = len(range(0, h.size, h.stride)), len(range(0, w.size, w.stride))
    same = options(h, w) | {"padding": "same"}
    agree(conv("drawn", (1, 2, h.size, w.size), (2, 2, h.kernel, w.kernel), **same), size)


@given(axes, axes, st.integers(0, 3), st.integers(0, 3))
def test_transposed_convolution(h: Axis, w: Axis, more_h: int, more_w: int) -> None:
    size = []
    for axis, more in ((h, more_h), (w, more_w)):
        assume(more < max(axis.stride, axis.dilation))
        reached = {cell for i in range(axis.size) for cell in axis.taps(i * axis.stride)}
        size.append(max(reached) + 1 + more - axis.before - axis.after)
    assume(min(size) > 0)
    shapes = (1, 2, h.size, w.size), (2, 2, h.kernel, w.kernel)
    padded = options(h, w) | {"output_padding": (more_h, more_w)}
    agree(transposed("drawn", *shapes, **padded), (size[0], size[1]))


@given(axes, axes, st.booleans(), st.booleans())
def test_pools(h: Axis, w: Axis, ceil_mode: bool, count_include_pad: bool) -> None:
    x = (1, 2, h.size, w.size)
    drawn = options(h, w) | {"kernel_size": (h.kernel, w.kernel), "ceil_mode": ceil_mode}
    if h.pools(ceil_mode) and w.pools(ceil_mode):
        size = len(h.starts(ceil_mode)), len(w.starts(ceil_mode))
        agree(max_pool("drawn", x, **drawn), size)
        agree(avg_pool("drawn", x, **drawn, count_include_pad=count_include_pad), size)
    else:
        with pytest.raises(ValueError, match=r"padding|kernel|window"):
            cnnfast.max_pool2d(np.ones(x), **drawn)


@given(axes, axes)
def test_col2im_is_the_adjoint_of_im2col(h: Axis, w: Axis) -> None:
    assume(h.starts() and w.starts())
    random = np.random.default_rng(0)
    x = random.integers(-8, 9, (2, 3, h.size, w.size)).astype(np.float64)
    window = options(h, w) | {"kernel_size": (h.kernel, w.kernel)}
    columns = cnnfast.im2col(x, **window)
    assert columns.shape == (2, 3 * h.kernel * w.kernel, len(h.starts()) * len(w.starts()))
    others = random.integers(-8, 9, columns.shape).astype(np.float64)
    image = cnnfast.col2im(others, (h.size, w.size), **window)
    assert np.sum(columns * others) == np.sum(x * image)
