"""The benchmarks: a sane table of layers, rivals that compute the right thing, scripts that run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cnnfast
from cnnfast import reference

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # the scripts find each other by plain name, as when run

layers = importlib.import_module("layers")
python_loops = importlib.import_module("python_loops")
cs231n_manner = importlib.import_module("cs231n_manner")
networks = importlib.import_module("networks")

ALL = [*layers.CONVS, *layers.POOLS]
POOL_FUNCTIONS = {"max": cnnfast.max_pool2d, "avg": cnnfast.avg_pool2d}
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
SMALL = [  # N, C, H, W, F, KH, KW, stride, padding
    layers.Layer("plain", 2, 3, 5, 6, 4, 3, 3),
    layers.Layer("padded", 2, 3, 5, 5, 2, 3, 3, padding=1),
    layers.Layer("strided", 3, 2, 7, 9, 3, 3, 3, stride=2, padding=1),
    layers.Layer("rest-of-stride", 1, 2, 6, 8, 3, 3, 3, stride=2),
    layers.Layer("rectangular", 2, 2, 5, 6, 3, 2, 4, padding=2),
    layers.Layer("one-cell", 1, 1, 1, 1, 1, 1, 1),
]


def name_of(layer):
    return layer.name


def test_names_are_unique():
    names = [layer.name for layer in ALL]
    assert len(set(names)) == len(names)
    assert all(layer.source for layer in ALL)


def test_core_spans_eight_layers():
    assert len(layers.CORE) == 8


@pytest.mark.parametrize("layer", layers.CONVS, ids=name_of)
def test_convolutions_agree_with_the_plan(layer):
    plan = cnnfast.plan_conv2d(layer.x_shape, layer.w_shape, **layer.options)
    assert plan.flops == layer.flops
    assert plan.bytes == 4 * sum(map(np.prod, (layer.x_shape, layer.w_shape, layer.y_shape)))


@pytest.mark.parametrize("pool", layers.POOLS, ids=name_of)
def test_pools_agree_with_the_library(pool):
    x = np.zeros((1, 1, *pool.x_shape[2:]), np.float32)
    y = POOL_FUNCTIONS[pool.kind](x, pool.kernel, **pool.options)
    assert y.shape[2:] == pool.y_shape[2:]


def test_made_arrays_have_the_shapes_of_the_table():
    rng = np.random.default_rng(0)
    for layer in SMALL:
        x, w, b, dy = layers.make(layer, "float32", rng)
        assert (x.shape, w.shape, b.shape) == (layer.x_shape, layer.w_shape, (layer.F,))
        assert dy.shape == reference.conv2d(x, w, b, **layer.options).shape
        assert layers.as_layout(x, "NHWC").shape == tuple(np.array(x.shape)[[0, 2, 3, 1]])
    pool = layers.Pool("pool", 2, 3, 6, 6, kernel=2, stride=2)
    assert layers.make_pool(pool, "float64", rng).dy.shape == (2, 3, 3, 3)


def test_select_finds_by_regular_expression():
    assert layers.select(layers.CONVS, None) == list(layers.CONVS)
    found = layers.select(layers.COURSE, "^lenet-conv[12]$")
    assert [layer.name for layer in found] == ["lenet-conv1", "lenet-conv2"]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer", SMALL, ids=name_of)
@pytest.mark.parametrize("rival", [python_loops, cs231n_manner], ids=lambda module: module.__name__)
def test_convolution_rivals_equal_the_reference(rival, layer, dtype):
    x, w, b, dy = layers.make(layer, dtype, np.random.default_rng(1))
    y, cache = rival.conv_forward(x, w, b, layer.stride, layer.padding)
    expected_y, expected_cache = reference.conv2d_forward(x, w, b, **layer.options)
    results = (y, *rival.conv_backward(dy, cache))
    expected = (expected_y, *reference.conv2d_backward(dy, expected_cache))
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == np.dtype(dtype)
        assert_allclose(got, want, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1), (1, 1)])
def test_pool_loops_equal_the_reference(kernel, stride):
    pool = layers.Pool("pool", 2, 3, 7, 8, kernel, stride)
    x, dy = layers.make_pool(pool, "float64", np.random.default_rng(2))
    x = x.round()  # so that there are ties
    y, cache = python_loops.max_pool_forward(x, kernel, stride)
    expected_y, expected_cache = reference.max_pool2d_forward(x, kernel, stride=stride)
    assert_allclose(y, expected_y, rtol=0, atol=0)
    dx = python_loops.max_pool_backward(dy, cache)
    assert_allclose(dx, reference.max_pool2d_backward(dy, expected_cache), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pooling_in_the_manner_equals_the_reference(size):
    pool = layers.Pool("pool", 2, 3, 6, 6, size, size)
    x, dy = layers.make_pool(pool, "float64", np.random.default_rng(2))
    x = x.round()  # so that there are ties
    y, cache = cs231n_manner.max_pool_forward(x, size)
    expected_y, expected_cache = reference.max_pool2d_forward(x, size)
    assert_allclose(y, expected_y, rtol=0, atol=0)
    dx = cs231n_manner.max_pool_backward(dy, cache)
    expected = reference.max_pool2d_backward(dy, expected_cache, ties="split")
    assert_allclose(dx, expected, rtol=0, atol=1e-12)


def small_network(way, plan=None):
    plan = plan or networks.Plan((networks.Conv(3, 5, 2), networks.Conv(4, 3, 0)), (6, 5), 3)
    return networks.Network(plan, (2, 12, 16), np.random.default_rng(0), "float64", way)


@pytest.mark.parametrize("way", networks.WAYS)
def test_networks_have_the_gradient_of_their_loss(way):
    rng = np.random.default_rng(1)
    network = small_network(way)
    X, y = rng.standard_normal((4, 2, 12, 16)), rng.integers(3, size=4)
    assert network.loss(X).shape == (4, 3)
    _, grads = network.loss(X, y)
    assert grads.keys() == network.params.keys()
    for name, w in network.params.items():
        direction = rng.standard_normal(w.shape)
        ends = []
        for sign in (1, -1):
            network.params[name] = w + sign * 1e-6 * direction
            ends.append(network.loss(X, y)[0])
        network.params[name] = w
        slope = np.sum(grads[name] * direction)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_steps_of_all_ways_are_one_step():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((4, 2, 12, 16)), rng.integers(3, size=4)
    nets = {way: small_network(way) for way in networks.WAYS}
    steps = {way: networks.step(network, X, y) for way, network in nets.items()}
    networks.check(steps, 1e-12)
    (first, *others) = nets.values()
    for other in others:
        for name, w in first.params.items():
            assert_allclose(other.params[name], w, rtol=0, atol=1e-14)
    other = small_network(networks.FAST)
    other.params["W1"] *= 1.001
    with pytest.raises(SystemExit, match="differ"):
        networks.check(steps | {"other": networks.step(other, X, y)}, 1e-9)


def test_the_step_in_torch_is_the_same_one():
    pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((4, 2, 12, 16)), rng.integers(3, size=4)
    network = small_network(networks.FAST)
    twin = networks.torch_step(network.plan, network.params, X, y)
    networks.check({"ours": networks.step(network, X, y), "torch": twin}, 1e-12)


def test_lenet_has_61706_weights_and_they_can_be_saved(tmp_path):
    network = networks.LeNet5(np.random.default_rng(0))
    assert sum(w.size for w in network.params.values()) == 61_706
    assert network.loss(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 10)
    networks.save(tmp_path / "lenet.npz", network.params)
    loaded = networks.load(tmp_path / "lenet.npz")
    assert list(loaded) == list(network.params)
    for name, w in network.params.items():
        np.testing.assert_array_equal(loaded[name], w)
        assert loaded[name].dtype == np.float32


def run(script, *arguments):
    command = [sys.executable, BENCHMARKS / script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_naive_vs_fast_leaves_table_picture_and_numbers(tmp_path):
    for module in ("matplotlib", "mlxtend", "rich", "threadpoolctl"):  # the extra "bench"
        pytest.importorskip(module)
    out = tmp_path / "results"
    done = run("naive_vs_fast.py", "--quick", "--layers", "deeplearning|pool", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "deeplearning-ai" in done.stdout
    assert (out / "naive_vs_fast.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "naive_vs_fast.json").read_text(encoding="utf-8"))
    assert record["settings"] == {"quick": True, "dtype": "float64", "threads": 1}
    results = {(r["layer"], r["direction"], r["way"]): r for r in record["results"]}
    ways = ["Python loops", "reference", "CS231n's manner", "auto"]
    ways += ["tiled", "im2col", "naive"]  # those that can do it
    assert "refused" in done.stdout  # depthwise, whose filters see one channel, and winograd
    for way in ways:
        for direction in ("forward", "backward"):
            result = results["deeplearning-ai", direction, way]
            assert result["seconds"] > 0
            assert result["speedup"] > 0
            assert result["difference"] < 1e-12
            assert 1 <= result["images"] <= result["batch"] == 10
    assert results["cs231n-pool", "backward", "auto"]["difference"] == 0


def test_naive_vs_fast_names_the_layers_when_none_fits(tmp_path):
    for module in ("matplotlib", "mlxtend", "rich", "threadpoolctl"):
        pytest.importorskip(module)
    done = run("naive_vs_fast.py", "--layers", "no-such-layer", "--out", tmp_path)
    assert done.returncode == 1
    assert "cs231n-fast" in done.stderr
    assert not list(tmp_path.iterdir())


def peers_or_skip():
    for module in ("rich", "threadpoolctl"):
        pytest.importorskip(module)


def test_peers_runs_with_whoever_is_installed(tmp_path):
    peers_or_skip()
    numbers = tmp_path / "peers.json"
    where = ("--layers", "deeplearning", "--direction", "backward", "--layout", "NCHW", "NHWC")
    done = run("peers.py", *where, "--seconds", "0.1", "--json", numbers)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(numbers.read_text(encoding="utf-8"))["results"]
    setting = {"dtype": "float32", "direction": "backward", "threads": 1}
    assert result.items() >= ({"layer": "deeplearning-ai"} | setting).items()
    assert result["seconds"].keys() >= {"cnnfast NCHW", "cnnfast NHWC"}
    assert result["percent"].keys() == {"NCHW", "NHWC"}
    assert all(value > 0 for value in (*result["seconds"].values(), *result["percent"].values()))


def test_roofline_leaves_a_table_and_a_picture(tmp_path):
    peers_or_skip()
    pytest.importorskip("matplotlib")
    picture = tmp_path / "new" / "roofline.svg"
    where = ("--layers", "deeplearning|digits", "--direction", "backward")
    done = run("roofline.py", *where, "--seconds", "0.05", "--out", picture)
    assert done.returncode == 0, done.stderr
    heading, plain, digits = (
        next(line for line in done.stdout.splitlines() if word in line).split()
        for word in ("winograd", "deeplearning-ai", "digits-3x3")
    )
    assert heading[:6] == ["layer", "FLOP/byte", "winograd", "depthwise", "tiled", "im2col"]
    assert len(digits) == len(heading)
    assert len(plain) == len(heading) - 2  # stride 2, and three channels
    assert all(float(rate) > 0 for rate in digits[1:] + plain[1:])
    assert "</svg>" in picture.read_text(encoding="utf-8")


def test_neighbours_runs_with_whoever_is_installed(tmp_path):
    peers_or_skip()
    numbers = tmp_path / "neighbours.json"
    sections = ("tiny", "linear", "memory")
    where = ("--only", *sections, "--threads", "1")
    done = run("neighbours.py", *where, "--seconds", "0.01", "--json", numbers)
    assert done.returncode == 0, done.stderr
    record = json.loads(numbers.read_text(encoding="utf-8"))["neighbours"]
    assert tuple(record) == sections
    assert {row["who"] for row in record["tiny"]} >= {"cnnfast NCHW", "cnnfast NHWC"}
    assert len(record["linear"]) == 4
    if sys.platform == "linux":
        assert [row["algorithm"] for row in record["memory"][:2]] == ["auto", "im2col"]
        assert record["memory"][-1]["forward MiB"] == 441


def test_memory_bound_runs_with_whoever_is_installed(tmp_path):
    peers_or_skip()
    numbers = tmp_path / "memory_bound.json"
    where = ("--layers", "lenet-(pool2|conv2)", "--threads", "1", "--dtype", "float32")
    done = run("memory_bound.py", *where, "--seconds", "0.01", "--json", numbers)
    assert done.returncode == 0, done.stderr
    record = json.loads(numbers.read_text(encoding="utf-8"))["memory-bound"]
    functions = importlib.import_module("memory_bound").FUNCTIONS
    assert {row["function"] for row in record["tables"]} == functions.keys()
    for row in record["tables"]:
        assert all(row[name] > 0 for name in ("ms", "GB/s", "copy"))
    assert len(record["tables"]) == sum(len(each.layouts) for each in functions.values())
    assert record["tiny"]["cnnfast"] > 0


def test_pairs_are_timed_beside_both_alone():
    peers_or_skip()
    alternation = importlib.import_module("alternation")
    timing = importlib.import_module("timing")
    with timing.threads(1):
        rows = alternation.time_pairs(SMALL[0], 1, 0.01)
    ours = [row for row in rows if row["convolution"] == "cnnfast NCHW"]
    assert [row["product"] for row in ours] == ["matmul", "linear"]
    for row in rows:
        assert row["pair / sum"] == pytest.approx(row["pair ms"] / row["sum ms"])
    assert ours[0]["ratio"] == 1


@pytest.mark.parametrize("layer", [*layers.CORE, *SMALL], ids=name_of)
def test_transposed_convolution_gives_the_shape_back(layer):
    peers_or_skip()
    neighbours = importlib.import_module("neighbours")
    y_size, rest = layer.y_shape[2:], neighbours.rest_of_stride(layer)
    dy, w = np.zeros((1, layer.F, *y_size), "float32"), np.zeros(layer.w_shape, "float32")
    x = cnnfast.conv_transpose2d(dy, w, **layer.options, output_padding=rest)
    assert x.shape == (1, *layer.x_shape[1:])


def test_a_comparison_counts_the_faster_rival():
    peers_or_skip()
    comparison = importlib.import_module("comparison")
    setting = importlib.import_module("rivals").Setting("float32", "backward", 2)
    seconds = {"cnnfast NCHW": 2.0, "torch NCHW": 6.0, "torch NHWC": 3.0}
    timed = comparison.Timed(SMALL[-1], setting, seconds, peak=8.0)  # one multiplication and sum
    record = timed.record()
    assert record["ratios"] == {"NCHW / torch NCHW": 3.0, "NCHW / best torch": 1.5}
    assert record["percent"] == {"NCHW": pytest.approx(100 * (4 / 2) / 8)}
    assert comparison.lowest({"a": 4.0, "b": 1.0}) == (2.0, 1.0, "b")
    alone = [comparison.Timed(SMALL[-1], setting._replace(threads=1), {"cnnfast NCHW": 3.0}, 4.0)]
    assert comparison.gains_of_threads(alone, [timed], "NCHW") == {"one-cell": 1.5}


def test_rivals_rest_between_samples_with_several_threads(monkeypatch):
    peers_or_skip()
    timing = importlib.import_module("timing")
    rests = []
    monkeypatch.setattr(timing, "rest", lambda: rests.append(None))
    for count, expected in ((1, 0), (2, 6)):
        rests.clear()
        with timing.threads(count):
            calls = {"a": lambda: None, "b": lambda: None}
            timing.interleaved(calls, timing.Rounds(least=3, seconds=0))
        assert len(rests) == expected


def test_courses_speed_runs_with_whoever_is_installed(tmp_path):
    peers_or_skip()
    numbers = tmp_path / "courses.json"
    done = run("courses_speed.py", "--threads", "1", "--seconds", "0.01", "--json", numbers)
    assert done.returncode == 0, done.stderr
    record = json.loads(numbers.read_text(encoding="utf-8"))
    names = [
        f"{kind}_{way}_fast" for kind in ("conv", "max_pool") for way in ("forward", "backward")
    ]
    assert [row["cell"] for row in record["cells"]] == names
    assert [row["step"] for row in record["steps"]] == ["float32", "float64"]
    for row in (*record["cells"], *record["steps"]):
        ratio = row["CS231n's manner ms"] / row["cnnfast ms"]
        assert row["CS231n's manner / cnnfast"] == pytest.approx(ratio)


def test_train_mnist_learns_saves_and_compares(tmp_path):
    for module in ("matplotlib", "mlxtend", "rich", "threadpoolctl"):
        pytest.importorskip(module)
    out = tmp_path / "results"
    done = run("train_mnist.py", "--quick", "--out", out, "--threads", "1", "--batch", "20")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "train_mnist.json").read_text(encoding="utf-8"))
    names = ["ThreeLayerConvNet", "LeNet-5"]
    assert [network["name"] for network in record["networks"]] == names
    pictures = ["train_mnist.png", *(f"train_mnist_{name}_misread.png" for name in names)]
    for picture in pictures:
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    lenet = record["networks"][1]
    assert len(lenet["losses"]) == 20  # 400 digits, one epoch
    assert lenet["losses"][-1] < lenet["losses"][0]
    assert lenet["accuracy"] == 1 - lenet["misread"] / 1000 > 0.2
    assert f"LeNet-5: {lenet['accuracy']:.1%}" in done.stdout
    assert networks.load(out / "train_mnist_LeNet-5.npz")["W1"].shape == (6, 1, 5, 5)
    for by_way in record["images a second"].values():
        assert by_way.keys() >= set(networks.WAYS)
        assert all(speed > 0 for speed in by_way.values())


def test_lenet_reads_97_of_100_digits_it_has_not_seen(tmp_path):
    for module in ("matplotlib", "mlxtend", "rich", "threadpoolctl"):
        pytest.importorskip(module)
    done = run("train_mnist.py", "--networks", "LeNet-5", "--epochs", "12", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (lenet,) = json.loads((tmp_path / "train_mnist.json").read_text(encoding="utf-8"))["networks"]
    assert lenet["accuracy"] >= 0.97


def test_moved_digits_are_the_digits_moved():
    for module in ("matplotlib", "mlxtend", "rich", "threadpoolctl"):
        pytest.importorskip(module)
    train_mnist = importlib.import_module("train_mnist")
    x = np.zeros((200, 1, 9, 9), np.float32)
    x[:, :, 4, 3] = 1
    moved = train_mnist.moved(x, np.random.default_rng(0))
    assert moved.shape == x.shape and moved.dtype == x.dtype
    n, _, row, column = np.nonzero(moved)
    assert list(n) == list(range(200))
    assert set(zip(row, column, strict=True)) == {
        (4 + a, 3 + b) for a in range(-2, 3) for b in range(-2, 3)
    }
    order = [list(b) for b in train_mnist.batches(10, 4, np.random.default_rng(0))]
    assert [len(b) for b in order] == [4, 4]
    assert len(set(order[0] + order[1])) == 8
