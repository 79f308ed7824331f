"""Mistakes, planted in the right solutions of `students` by writing something else in one place."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

STUDENTS = Path(__file__).parent / "students"
COURSES = ("cs231n", "deeplearning_ai", "numpy_neuron_network", "handwritten_cnn")


class Planted(NamedTuple):
    """What to write for what, in which function (or Class.method), and the mistake that it is."""

    course: str
    function: str
    mistake: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.course}-{self.function}-{self.mistake}"

    def code(self) -> str:
        """Return the text of the student's file with the mistake in it."""
        text = source(self.course)
        start = 0
        for name in self.function.split("."):
            kind = "class" if name[0].isupper() else "def"
            start = text.index(f"{kind} {name}", start)
        nearest = [text.find(mark, start + 4) for mark in ("\ndef ", "\nclass ", "\n    def ")]
        end = min((place for place in nearest if place > 0), default=len(text))
        assert self.old in text[start:end], self
        return text[:start] + text[start:end].replace(self.old, self.new) + text[end:]


def source(course: str) -> str:
    return (STUDENTS / f"{course}.py").read_text(encoding="utf-8")


# Places in the solutions for CS231n.
PRODUCT = "np.sum(window * w[f]) + b[f]"
CACHE = "return out, (x, w, b, conv_param)"
SIZES = "N, C, H, W = x.shape"
PAD = "np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))"
CROP = "dx_pad[:, :, pad : pad + H, pad : pad + W]"
DONE = "return dx, dw, db"
H_OUT = "(H + 2 * pad - HH) // stride + 1"
CENTRED = "(dx_hat - dx_hat.mean(axis=0) - x_hat * (dx_hat * x_hat).mean(axis=0))"

TABLE = {
    "cs231n conv_forward_naive": [
        ("bias-per-element", PRODUCT, "np.sum(window * w[f] + b[f])"),
        ("bias-per-element", PRODUCT, "sum(np.sum(window[c] * w[f, c]) + b[f] for c in range(C))"),
        ("bias-missing", PRODUCT, "np.sum(window * w[f])"),
        ("kernel-flipped", "window * w[f]", "window * w[f, :, ::-1, ::-1]"),
        ("window-averaged", "np.sum(window", "np.mean(window"),
        ("channels-wrong", "window * w[f]", "window[0] * w[f, 0]"),
        ("channels-wrong", "window * w[f]", "window[-1] * w[f, -1]"),
        ("channels-wrong", "window * w[f]", "window * w[:, f]"),
        ("channels-wrong", "window * w[f]", "window * w[f, 0]"),
        ("channels-wrong", "window * w[f]", "(window * w[f]).mean(axis=0)"),
        ("filters-wrong", PRODUCT, "np.sum(window * w[0]) + b[0]"),
        ("images-wrong", "x_pad[n", "x_pad[0"),
        ("stride-ignored", "i * stride", "i"),
        ("stride-ignored", "j * stride", "j"),
        ("stride-ignored", 'stride, pad = conv_param["stride"]', "stride, pad = 1"),
        ("size-off-by-one", H_OUT, "(H + 2 * pad - HH) // stride"),
        ("size-off-by-one", "range(W_out)", "range(W_out - 1)"),
        ("size-off-by-one", "zeros((N, F, H_out,", "zeros((N, F, H_out + 1,"),
        ("ceil-for-floor", H_OUT, "-((HH - H - 2 * pad) // stride) + 1"),
        ("ceil-for-floor", H_OUT, "round((H + 2 * pad - HH) / stride) + 1"),
        ("size-pads-once", H_OUT, "(H + pad - HH) // stride + 1"),
        ("padding-one-axis", PAD, "np.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))"),
        ("padding-one-side", PAD, "np.pad(x, ((0, 0), (0, 0), (0, 2 * pad), (0, 2 * pad)))"),
        ("padding-too-small", PAD, "np.pad(x, ((0, 0), (0, 0), (0, pad), (0, pad)))"),
        ("padding-too-small", PAD, "x"),
        ("padding-values", PAD, f"{PAD[:-1]}, mode='edge')"),
        ("height-width-swapped", SIZES, "N, C, W, H = x.shape"),
        ("height-width-swapped", "return out,", "return out.swapaxes(2, 3),"),
        ("height-width-swapped", "window * w[f]", "window * w[f].swapaxes(1, 2)"),
        ("all-zero", f"out[n, f, i, j] = {PRODUCT}", "pass"),
        ("in-place", "return out", "x += 1; return out"),
        ("float64-lost", "return out", "out = out.astype(np.float32); return out"),
        ("constant-factor", "return out", "out *= 3; return out"),
        ("wrong-sign", "return out", "out *= -1; return out"),
        ("axes-in-another-order", "return out", "out = out.transpose(0, 2, 3, 1); return out"),
        (None, PRODUCT, "np.sum(np.sin(window) * w[f]) + b[f]"),
    ],
    "cs231n conv_backward_naive": [
        ("kernel-flipped", "+= w[f] *", "+= w[f, :, ::-1, ::-1] *"),
        ("kernel-flipped", DONE, "return dx, dw[:, :, ::-1, ::-1], db"),
        ("assigned-not-added", "+= w[f] *", "= w[f] *"),
        ("assigned-not-added", "dw[f] +=", "dw[f] ="),
        ("assigned-not-added", "db[f] +=", "db[f] ="),
        ("crop-pad-zero", CROP, "dx_pad[:, :, pad:-pad, pad:-pad]"),
        ("crop-missing", CROP, "dx_pad"),
        ("crop-one-axis", CROP, "dx_pad[:, :, pad : pad + H, :]"),
        ("crop-shifted", CROP, "dx_pad[:, :, :H, :W]"),
        ("dw-of-unpadded-x", PAD, "np.pad(x, ((0, 0), (0, 0), (0, 2 * pad), (0, 2 * pad)))"),
        ("dw-of-unpadded-x", "+= x_pad[n", "+= x[n"),
        ("divided-by-n", DONE, "return dx, dw / N, db / N"),
        ("divided-by-n", DONE, "return dx / N, dw, db"),
        ("averaged-gradient", DONE, "return dx, dw / dout[0, 0].size, db"),
        ("integer-division", DONE, "return dx, dw // 1, db"),
        ("db-wrong-axes", DONE, "return dx, dw, dout.sum(axis=(1, 2, 3))"),
        ("db-wrong-axes", DONE, "return dx, dw, dout.sum(axis=(0, 1))"),
        ("db-wrong-axes", DONE, "return dx, dw, dout.sum(axis=(0, 2))"),
        ("db-wrong-axes", DONE, "return dx, dw, dout.sum()"),
        ("wrong-shape", DONE, "return dx, dw, db[:, None]"),
        ("axes-in-another-order", DONE, "return dx, dw.transpose(2, 3, 1, 0), db"),
        ("stride-ignored", "j * stride", "j"),
        ("stride-ignored", "i * stride", "i"),
        ("wrong-sign", DONE, "return -dx, dw, db"),
        ("in-place", DONE, "dout *= 2; return dx, dw, db"),
        ("in-place", DONE, "x -= 1; return dx, dw, db"),
        ("images-wrong", "dx_pad[n, :", "dx_pad[0, :"),
        ("height-width-swapped", "+= w[f] *", "+= w[f].swapaxes(1, 2) *"),
        (None, DONE, "return dx, dw + 1, db"),
        (None, DONE, "return dx**3, dw, db"),
        (None, DONE, "return dx, dw, db * np.arange(F)"),
    ],
    "cs231n max_pool_forward_naive": [
        ("maximum-over-channels", "max(axis=(2, 3))", "max(axis=(1, 2, 3))[:, None]"),
        (None, "window.max(axis=(2, 3))", "window.max(axis=(2, 3)) ** 2"),
        (None, "window.max(axis=(2, 3))", "np.median(window, axis=(2, 3))"),
        ("pool-wrong-mode", "window.max", "window.mean"),
        ("pool-wrong-mode", "window.max", "window.min"),
        ("maximum-of-sizes", "window.max", "abs(window).max"),
        ("maximum-from-zero", "return out", "out = np.maximum(0, out); return out"),
        ("stride-ignored", "i * stride", "i"),
        (
            "stride-is-window",
            "i * stride : i * stride + HH, j * stride : j * stride",
            "i * HH : i * HH + HH, j * WW : j * WW",
        ),
        (
            "window-is-stride",
            'stride = pool_param["stride"]',
            'HH = WW = stride = pool_param["stride"]',
        ),
        ("size-off-by-one", "(H - HH) // stride + 1", "(H - HH) // stride"),
        ("ceil-for-floor", "(H - HH) // stride + 1", "-((HH - H) // stride) + 1"),
        ("height-width-swapped", SIZES, "N, C, W, H = x.shape"),
        ("images-wrong", "out[:, :, i, j] = window.max", "out[:, :, i, j] = window[:1].max"),
        ("in-place", "return out", "x[...] = 0; return out"),
    ],
    "cs231n max_pool_backward_naive": [
        ("assigned-not-added", "[k, l] +=", "[k, l] ="),
        (
            "ties-none",
            "[k, l] +=",
            "[(window == window.max()) & ((window == window.max()).sum() == 1)] +=",
        ),
        ("ties-all", "[k, l] +=", "[window == window.max()] +="),
        ("maximum-not-masked", "[k, l] +=", "[...] +="),
        ("maximum-not-masked", "+= dout[n, c, i, j]", "+= 1"),
        ("stride-ignored", "i * stride", "i"),
        ("divided-by-n", "return dx", "return dx / N"),
        ("maximum-over-channels", "[k, l] +=", "[window == x[n, :, rows, cols].max()] +="),
        ("integer-division", "return dx", "return dx // 1"),
        ("in-place", "return dx", "x[...] = 0; return dx"),
    ],
    "cs231n affine_forward": [
        ("bias-missing", ".dot(w) + b", ".dot(w)"),
        ("bias-per-element", ".dot(w) + b", ".dot(w) + w.shape[0] * b"),
        ("images-do-not-flatten", "x.reshape(x.shape[0], -1).dot(w)", "np.matmul(x, w)"),
    ],
    "cs231n affine_backward": [
        ("wrong-shape", ".reshape(x.shape)", ""),
        ("db-wrong-axes", "dout.sum(axis=0)", "dout.sum(axis=1)"),
        ("divided-by-n", ".T.dot(dout)", ".T.dot(dout) / x.shape[0]"),
    ],
    "cs231n relu_forward": [
        ("in-place", "np.maximum(0, x)", "np.maximum(0, x, out=x)"),
        ("relu-absolute", "np.maximum(0, x)", "np.abs(x)"),
        ("relu-leaky", "np.maximum(0, x)", "np.maximum(0.01 * x, x)"),
    ],
    "cs231n relu_backward": [
        ("relu-mask", "(x > 0)", "(dout > 0)"),
        ("relu-mask", "dout * (x > 0)", "dout"),
    ],
    "cs231n batchnorm_forward": [
        ("norm-wrong-deviation", "np.sqrt(var + eps)", "(np.sqrt(var) + eps)"),
        ("norm-wrong-deviation", "np.sqrt(var + eps)", "(var + eps)"),
        ("norm-wrong-deviation", "x.var(axis=0)", "x.var(axis=0, ddof=1)"),
        ("norm-scale-missing", "gamma * x_hat + beta", "x_hat"),
        ("norm-scale-missing", "gamma * x_hat + beta", "gamma * x_hat"),
        (
            "norm-test-uses-batch",
            "else:",
            "else:\n        running_mean, running_var = x.mean(0), x.var(0)",
        ),
        ("norm-running-missing", 'bn_param["running_mean"], bn_param["running_var"] =', "_ ="),
        ("norm-running-wrong", "momentum = ", "momentum = 1 - "),
        (
            "norm-running-wrong",
            "running_mean = momentum * running_mean + (1 - momentum) *",
            "running_mean =",
        ),
        ("norm-running-wrong", "(1 - momentum) * var", "(1 - momentum) * x.var(axis=0, ddof=1)"),
        (None, "(1 - momentum) * var", "(1 - momentum) * std"),
    ],
    "cs231n batchnorm_backward": [
        ("norm-gamma-of-x", "(dout * x_hat).sum", "(dout * x).sum"),
        ("norm-constant-statistics", CENTRED, "dx_hat"),
        ("norm-constant-statistics", CENTRED, "(dx_hat - dx_hat.mean(axis=0))"),
        ("divided-by-n", "dout.sum(axis=0)", "dout.mean(axis=0)"),
    ],
    "cs231n layernorm_forward": [("norm-wrong-axes", "axis=1", "axis=0")],
    "cs231n layernorm_backward": [
        ("norm-gamma-forgotten", "dx_hat = dout * gamma", "dx_hat = dout")
    ],
    "cs231n spatial_batchnorm_forward": [
        (
            "norm-running-missing",
            "(rows, gamma, beta, bn_param)",
            "(rows, gamma, beta, {**bn_param})",
        ),
        (
            "norm-wrong-axes",
            "out, cache = batchnorm_forward(rows, gamma, beta, bn_param)",
            "mean, var = rows.mean(1)[:, None], rows.var(1)[:, None]\n"
            "    out, cache = gamma * (rows - mean) / np.sqrt(var + 1e-5) + beta, None",
        ),
    ],
    "cs231n spatial_groupnorm_forward": [
        ("norm-wrong-axes", "x.reshape(N * G, -1)", "x.reshape(N, -1)")
    ],
    "cs231n softmax_loss": [
        ("divided-by-n", ".sum() / N", ".sum()"),
        ("overflow", "x - x.max(axis=1, keepdims=True)", "x"),
        ("loss-no-label", "dx[np.arange(N), y] -= 1", "pass"),
    ],
    "cs231n svm_loss": [
        ("divided-by-n", "dx /= N", "pass"),
        ("loss-counts-label", "margins[np.arange(N), y] = 0", "pass"),
    ],
    "deeplearning_ai zero_pad": [
        ("padding-one-axis", "(pad, pad), (pad, pad)", "(pad, pad), (0, 0)"),
        (
            "padding-one-axis",
            "(0, 0), (pad, pad), (pad, pad), (0, 0)",
            "(0, 0), (0, 0), (pad, pad), (pad, pad)",
        ),
        ("padding-values", "(0, 0)))", "(0, 0)), constant_values=1)"),
        ("padding-ignored", "return np.pad", "return X; np.pad"),
    ],
    "deeplearning_ai conv_single_step": [
        ("bias-per-element", "np.sum(a_slice_prev * W) + b.item()", "np.sum(a_slice_prev * W + b)"),
        ("bias-missing", " + b.item()", ""),
        ("kernel-flipped", "a_slice_prev * W", "a_slice_prev * W[::-1, ::-1]"),
    ],
    "deeplearning_ai conv_forward": [
        ("stride-ignored", "h * stride", "h"),
        ("size-off-by-one", "// stride + 1", "// stride"),
        ("height-width-swapped", "m, n_H_prev, n_W_prev", "m, n_W_prev, n_H_prev"),
        ("padding-too-small", "zero_pad(A_prev, pad)", "A_prev"),
        ("filters-wrong", "W[:, :, :, c], b[:, :, :, c]", "W[:, :, :, 0], b[:, :, :, 0]"),
        ("images-wrong", "A_prev_pad[i", "A_prev_pad[0"),
        (
            "ceil-for-floor",
            "(n_H_prev - f + 2 * pad) // stride + 1",
            "-((f - n_H_prev - 2 * pad) // stride) + 1",
        ),
        ("in-place", "return Z", "A_prev *= 0; return Z"),
    ],
    "deeplearning_ai conv_backward": [
        ("crop-pad-zero", "pad : pad + n_H_prev, pad : pad + n_W_prev", "pad:-pad, pad:-pad"),
        ("assigned-not-added", "+= da_slice", "= da_slice"),
        ("assigned-not-added", "dW[:, :, :, c] +=", "dW[:, :, :, c] ="),
        ("divided-by-n", "return dA_prev, dW, db", "return dA_prev, dW / m, db / m"),
        ("wrong-shape", "return dA_prev, dW, db", "return dA_prev, dW, db.ravel()"),
        ("padding-too-small", "A_prev_pad = zero_pad(A_prev, pad)", "A_prev_pad = A_prev"),
        ("stride-ignored", "w * stride", "w"),
    ],
    "deeplearning_ai pool_forward": [
        ("average-wrong-count", "np.mean(a_slice)", "np.sum(a_slice) / f"),
        ("average-wrong-count", "np.mean(a_slice)", "np.sum(a_slice)"),
        ("integer-division", "np.mean(a_slice)", "np.sum(a_slice) // f**2"),
        (
            "maximum-over-channels",
            "np.max(a_slice)",
            "A_prev[i, vert : vert + f, horiz : horiz + f].max()",
        ),
        (
            "average-over-channels",
            "np.mean(a_slice)",
            "A_prev[i, vert : vert + f, horiz : horiz + f].mean()",
        ),
        (
            "stride-is-window",
            'f, stride = hparameters["f"], hparameters["stride"]',
            'f = stride = hparameters["f"]',
        ),
    ],
    "deeplearning_ai create_mask_from_window": [("mask-wrong", "np.max", "np.min")],
    "deeplearning_ai distribute_value": [
        ("average-wrong-count", "(n_H * n_W)", "(n_H + n_W)"),
        ("integer-division", "dz / ", "dz // "),
    ],
    "deeplearning_ai pool_backward": [
        ("assigned-not-added", "+= mask", "= mask"),
        ("assigned-not-added", "+= distribute", "= distribute"),
        ("average-wrong-count", "dA[i, h, w, c], (f, f)", "dA[i, h, w, c], (f, 1)"),
        ("stride-ignored", "h * stride", "h"),
        ("maximum-not-masked", "mask * dA[i, h, w, c]", "mask"),
    ],
    "numpy_neuron_network conv_forward": [
        ("bias-missing", " + b", ""),
        ("kernel-flipped", "window, K)", "window, K[:, :, ::-1, ::-1])"),
        ("padding-one-axis", "_pad(z, padding)", "_pad(z, (padding[0], 0))"),
        ("height-width-swapped", "_pad(z, padding)", "_pad(z, padding[::-1])"),
    ],
    "numpy_neuron_network conv_backward": [
        ("divided-by-n", "dK / N, db / N", "dK, db"),
        ("divided-by-n", "dK / N, db / N, dz", "dK / N, db / N, dz / N"),
        ("kernel-flipped", "np.flip(K, (2, 3))", "K"),
        (
            "dw-of-unpadded-x",
            "return dK / N",
            "p, q = padding; dK = dK[:, :, p : k1 - p, q : k2 - q]; return dK / N",
        ),
        ("crop-missing", "return dK / N, db / N, dz", "return dK / N, db / N, full"),
    ],
    "numpy_neuron_network max_pooling_forward": [
        ("padding-ignored", "_pad(z, padding)", "z"),
        ("maximum-over-channels", "(2, 3))", "(0, 2, 3))"),
        (
            "ceil-for-floor",
            "(H - pooling[0]) // strides[0] + 1",
            "-((pooling[0] - H) // strides[0]) + 1",
        ),
    ],
    "numpy_neuron_network max_pooling_backward": [
        ("assigned-not-added", "+= next_dz", "= next_dz"),
        ("height-width-swapped", "strides[0], j * strides[1]", "strides[1], j * strides[0]"),
    ],
    "numpy_neuron_network avg_pooling_forward": [
        (
            "average-without-padding",
            "(pooling[0] * pooling[1])",
            "_pad(z * 0 + 1, padding)[:, :, h : h + pooling[0], w : w + pooling[1]].sum((2, 3))",
        ),
        ("average-wrong-count", "(pooling[0] * pooling[1])", "(pooling[0] + pooling[1])"),
        ("average-wrong-count", "(pooling[0] * pooling[1])", "(strides[0] ** 2)"),
    ],
    "numpy_neuron_network avg_pooling_backward": [
        ("integer-division", "/ (pooling[0] * pooling[1])", "// (pooling[0] * pooling[1])"),
        ("average-wrong-count", "/ (pooling[0] * pooling[1])", ""),
        ("assigned-not-added", "+= share", "= share"),
    ],
    "numpy_neuron_network global_avg_pooling_backward": [
        ("average-wrong-count", " / z[0, 0].size", ""),
    ],
    "numpy_neuron_network fc_backward": [
        ("divided-by-n", "z.T.dot(next_dz) / N", "z.T.dot(next_dz)")
    ],
    "handwritten_cnn ConvLayer.forward": [
        (
            "bias-per-element",
            "np.sum(padded[window] * each.weights) + each.bias",
            "np.sum(padded[window] * each.weights + each.bias)",
        ),
        ("kernel-flipped", "* each.weights", "* each.weights[:, ::-1, ::-1]"),
        (
            "in-place",
            "padded = self.pad(input_array)",
            "padded = self.pad(input_array); input_array[...] = 0",
        ),
    ],
    "handwritten_cnn ConvLayer.windows": [("stride-ignored", "i * self.stride", "i")],
    "handwritten_cnn ConvLayer.__init__": [
        ("size-off-by-one", "zero_padding) // stride + 1", "zero_padding) // stride"),
    ],
    "handwritten_cnn ConvLayer.backward": [
        ("assigned-not-added", "delta[window] +=", "delta[window] ="),
        ("crop-missing", "delta[:, p : p + height, p : p + width]", "delta"),
        ("assigned-not-added", "bias_grad +=", "bias_grad ="),
    ],
    "handwritten_cnn MaxPoolingLayer.forward": [
        ("maximum-over-channels", "input_array[window]", "input_array[:, *window[1:]]")
    ],
    "handwritten_cnn MaxPoolingLayer.backward": [
        ("assigned-not-added", "[k, l] +=", "[k, l] ="),
        ("maximum-not-masked", "[k, l] +=", "[...] +="),
    ],
}

PLANTED = [
    Planted(*place.split(" "), *planted)
    for place, all_of_it in TABLE.items()
    for planted in all_of_it
]
