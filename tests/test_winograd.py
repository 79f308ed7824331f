"""winograd: its accuracy, where what is not finite goes, and its choice; the rest is in the lists.

The whole suite runs it, with its own tolerance, wherever it can do a problem (`cases.ROUNDING`).
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, ROUNDING, Arrays, Variant, conv, transposed
from contract import assert_near, assert_same_bits, run

import cnnfast
from cnnfast import cpu, reference

SPECIAL = (np.nan, np.inf, -np.inf)
BOUND = 64 * 2**20  # bytes

# Many chunks of tiles and of filters; the sizes are no multiples of a tile, a vector or a panel.
MANY_CHUNKS = conv("many-chunks", (7, 19, 30, 27), (53, 19, 3, 3), padding=1)
# Few tiles, whose points are kept for several parts of the filters, the last not of whole vectors.
MANY_FILTERS = conv("many-filters", (2, 259, 6, 5), (277, 259, 3, 3), padding=1)
WIDE = conv("wide", (1, 3, 6, 411), (5, 3, 3, 3), padding=(2, 0))  # tiles of a row in several
CUT_OFF = conv("cut-off", (2, 3, 6, 7), (4, 3, 3, 3), padding=((5, 0), (7, 3)))
GROUPS = conv("groups", (2, 6, 9, 10), (10, 3, 3, 3), padding=1, groups=2)
BACKWARDS = transposed("many-chunks", (7, 19, 30, 27), (19, 53, 3, 3), padding=1)
FIVE_TAPS = conv("five-taps", (5, 19, 17, 14), (53, 19, 5, 5), padding=2)
FIVE_TAPS_CUT_OFF = conv("five-taps-cut-off", (2, 3, 6, 7), (4, 3, 5, 5), padding=((5, 0), (7, 3)))
FIVE_TAPS_BACKWARDS = transposed("five-taps", (3, 19, 14, 11), (19, 33, 5, 5), padding=2)
ALL = (MANY_CHUNKS, MANY_FILTERS, WIDE, CUT_OFF, GROUPS, BACKWARDS)
ALL += (FIVE_TAPS, FIVE_TAPS_CUT_OFF, FIVE_TAPS_BACKWARDS)


def all_variants(*cases: object) -> list[Variant]:
    return [
        Variant(case, dtype, layout, "winograd")
        for case, dtype, layout in itertools.product(cases, DTYPES, LAYOUTS)
    ]


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize("variant", all_variants(*ALL), ids=str)
def test_agrees_with_reference(variant: Variant, name: str) -> None:
    before = cpu.current()
    cpu.use(name)
    try:
        inputs = variant.inputs("uniform")
        assert_near(run(cnnfast, variant, inputs), run(reference, variant, inputs), variant.error)
    finally:
        cpu.use(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [64, 512])
@pytest.mark.parametrize("kernel", [3, 5])
def test_error_against_a_longer_type(kernel: int, channels: int, dtype: str) -> None:
    """Of float32 against float64, and of float64 against long double, by hand."""
    longer = {"float32": np.float64, "float64": np.longdouble}[dtype]
    random = np.random.default_rng(4)
    x = random.standard_normal((2, channels, 9, 8)).astype(dtype)
    w = random.standard_normal((9, channels, kernel, kernel)).astype(dtype)
    w /= kernel * channels**0.5
    dy = random.standard_normal((2, 9, 9, 8)).astype(dtype)
    y, cache = cnnfast.conv2d_forward(x, w, padding="same", algorithm="winograd")
    dx, dw, _ = cnnfast.conv2d_backward(dy, cache)

    p = kernel // 2
    padded = np.pad(x.astype(longer), ((0, 0), (0, 0), (p, p), (p, p)))
    want_y, want_dw, want_padded = np.zeros(y.shape, longer), np.zeros(w.shape, longer), 0 * padded
    for kh, kw in itertools.product(range(kernel), repeat=2):
        seen = np.s_[:, :, kh : kh + 9, kw : kw + 8]
        tap = w[:, :, kh, kw].astype(longer)
        want_y += np.einsum("fc,nchw->nfhw", tap, padded[seen])
        want_dw[:, :, kh, kw] = np.einsum("nfhw,nchw->fc", dy.astype(longer), padded[seen])
        want_padded[seen] += np.einsum("fc,nfhw->nchw", tap, dy)
    wants = {"y": want_y, "dx": want_padded[:, :, p:-p, p:-p], "dw": want_dw}
    for name, got in {"y": y, "dx": dx, "dw": dw}.items():
        error = np.linalg.norm((got - wants[name]).astype(float))
        assert error <= ROUNDING["winograd"][dtype] * np.linalg.norm(wants[name].astype(float)), (
            name
        )
        assert error > 0, "another algorithm, or no longer type"


def spoilt(inputs: Arrays, name: str, place: tuple[int, ...], special: float) -> Arrays:
    array = inputs[name].copy()
    array[place] = special
    return inputs | {name: array}


@pytest.mark.parametrize("special", SPECIAL, ids=str)
@pytest.mark.parametrize(("kernel", "layout"), [(3, "NCHW"), (3, "NHWC"), (5, "NCHW")])
def test_special_values_go_where_the_formula_sends_them(
    kernel: int, layout: str, special: float
) -> None:
    """At every place of a tile, at borders and inside; the image after it keeps its bits."""
    case = conv("special", (3, 3, 11, 10), (4, 3, kernel, kernel), padding=kernel // 2)
    variant = Variant(case, "float32", layout, "winograd")
    inputs = variant.inputs("uniform")
    clean = run(cnnfast, variant, inputs)
    rows, columns = (2, 3) if layout == "NCHW" else (1, 2)
    with np.errstate(all="ignore"):
        for name, h, w in itertools.product(("x", "dy"), (0, 3, 4, 5, 10), (0, 4, 6, 9)):
            place: list[int] = [1, 1, 1, 1]
            place[rows], place[columns] = h, w
            bad = spoilt(inputs, name, tuple(place), special)
            got = run(cnnfast, variant, bad)
            assert_near(got, run(reference, variant, bad), variant.error)
            if name == "x":
                assert np.isfinite(got["y"][[0, 2]]).all()
        for place in ((0, 0, 0, 0), (3, 2, 1, 1), (1, 1, 2, 0)):
            bad = spoilt(inputs, "w", place, special)
            assert_near(run(cnnfast, variant, bad), run(reference, variant, bad), variant.error)
    assert_same_bits(run(cnnfast, variant, inputs), clean)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_overflow_of_the_transforms_alone_does_not_show(dtype: str) -> None:
    """Sums of cells may be too large where the sums of the formula are not."""
    huge = np.finfo(dtype).max / 2
    x, w = np.zeros((1, 1, 8, 8), dtype), np.full((1, 1, 3, 3), 0.25, dtype)
    x[0, 0, 2:4, 2:5] = huge
    x[0, 0, 3] *= -1
    got = cnnfast.conv2d(x, w, padding=1, algorithm="winograd")
    np.testing.assert_array_equal(got, cnnfast.conv2d(x, w, padding=1, algorithm="tiled"))
    assert np.isfinite(got).all()


@pytest.mark.parametrize(
    "variant", all_variants(MANY_CHUNKS, MANY_FILTERS, BACKWARDS, FIVE_TAPS), ids=str
)
def test_thread_count_does_not_change_bits(variant: Variant) -> None:
    inputs = variant.inputs("uniform")
    with cnnfast.num_threads(1):
        want = run(cnnfast, variant, inputs)
    for threads in (2, 3, 8):
        with cnnfast.num_threads(threads):
            assert_same_bits(run(cnnfast, variant, inputs), want)


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("channels", [1, 64, 512, 768])
def test_memory_is_bounded(channels: int, threads: int) -> None:
    with cnnfast.num_threads(threads):
        for dtype, layout, kernel in itertools.product(DTYPES, LAYOUTS, (3, 5)):
            for size in ((7, 7), (224, 224), (1, 5000), (5000, 1)):
                shape = (channels, *size) if layout == "NCHW" else (*size, channels)
                plan = cnnfast.plan_conv2d(
                    *((16, *shape), (channels, channels, kernel, kernel)),
                    **{"dtype": dtype, "layout": layout, "padding": 2, "algorithm": "winograd"},
                )
                assert plan.workspace_bytes <= BOUND


@pytest.mark.parametrize("layer", [(16, 64, 56, 56), (16, 512, 7, 7), (2, 64, 224, 224)])
def test_auto_takes_it_for_layers_of_many_channels(layer: tuple[int, ...]) -> None:
    weights = (layer[1], layer[1], 3, 3)
    assert cnnfast.plan_conv2d(layer, weights, padding=1).algorithm == "winograd"
    assert cnnfast.plan_conv2d(layer, (*weights[:2], 5, 5), padding=2).algorithm == "winograd"
    refused = cnnfast.plan_conv2d((layer[0], 3, *layer[2:]), (64, 3, 3, 3), padding=1)
    assert refused.algorithm != "winograd"
    assert "channels" in refused.refusals["winograd"]


def test_slower_is_no_hindrance_when_asked_for() -> None:
    options = {"padding": 1, "algorithm": "winograd"}
    plan = cnnfast.plan_conv2d((1, 1, 4, 4), (1, 1, 3, 3), **options)
    assert plan.algorithm == "winograd"
    with pytest.raises(ValueError, match=r"'winograd' cannot do this problem: its stride is not 1"):
        cnnfast.plan_conv2d((1, 1, 4, 4), (1, 1, 3, 3), stride=2, **options)
