"""A right solution of the layers of numpy_neuron_network, on today's NumPy."""

import numpy as np


def _insert_zeros(dz, strides):
    N, D, H, W = dz.shape
    out = np.zeros((N, D, (H - 1) * strides[0] + 1, (W - 1) * strides[1] + 1))
    out[:, :, :: strides[0], :: strides[1]] = dz
    return out


def _pad(z, padding):
    p1, p2 = padding
    return np.pad(z, ((0, 0), (0, 0), (p1, p1), (p2, p2)))


def conv_forward(z, K, b, padding=(0, 0), strides=(1, 1)):
    padded = _pad(z, padding)
    N, _, height, width = padded.shape
    C, D, k1, k2 = K.shape
    assert (height - k1) % strides[0] == 0
    assert (width - k2) % strides[1] == 0
    out = np.zeros((N, D, 1 + (height - k1) // strides[0], 1 + (width - k2) // strides[1]))
    for h in range(0, height - k1 + 1, strides[0]):
        for w in range(0, width - k2 + 1, strides[1]):
            window = padded[:, :, h : h + k1, w : w + k2]
            out[:, :, h // strides[0], w // strides[1]] = np.einsum("nckl,cdkl->nd", window, K) + b
    return out


def conv_backward(next_dz, K, z, padding=(0, 0), strides=(1, 1)):
    N = z.shape[0]
    C, D, k1, k2 = K.shape
    dilated = _insert_zeros(next_dz, strides)
    flipped = np.flip(K, (2, 3)).swapaxes(0, 1)
    full = conv_forward(_pad(dilated, (k1 - 1, k2 - 1)), flipped, np.zeros(C))
    dz = full[:, :, padding[0] : padding[0] + z.shape[2], padding[1] : padding[1] + z.shape[3]]
    dK = np.zeros(K.shape)
    padded = _pad(z, padding)
    for k in range(k1):
        for l in range(k2):
            seen = padded[:, :, k : k + dilated.shape[2], l : l + dilated.shape[3]]
            dK[:, :, k, l] = np.einsum("nchw,ndhw->cd", seen, dilated)
    db = np.sum(np.sum(np.sum(next_dz, axis=-1), axis=-1), axis=0)
    return dK / N, db / N, dz


def max_pooling_forward(z, pooling, strides=(2, 2), padding=(0, 0)):
    padded = _pad(z, padding)
    N, C, H, W = padded.shape
    out_h, out_w = (H - pooling[0]) // strides[0] + 1, (W - pooling[1]) // strides[1] + 1
    out = np.zeros((N, C, out_h, out_w))
    for i in range(out_h):
        for j in range(out_w):
            h, w = i * strides[0], j * strides[1]
            out[:, :, i, j] = np.max(padded[:, :, h : h + pooling[0], w : w + pooling[1]], (2, 3))
    return out


def max_pooling_backward(next_dz, z, pooling, strides=(2, 2), padding=(0, 0)):
    padded = _pad(z, padding)
    N, C, out_h, out_w = next_dz.shape
    dz = np.zeros(padded.shape)
    for n, c, i, j in np.ndindex(N, C, out_h, out_w):
        h, w = i * strides[0], j * strides[1]
        index = np.argmax(padded[n, c, h : h + pooling[0], w : w + pooling[1]])
        dz[n, c, h + index // pooling[1], w + index % pooling[1]] += next_dz[n, c, i, j]
    return dz[:, :, padding[0] : padding[0] + z.shape[2], padding[1] : padding[1] + z.shape[3]]


def avg_pooling_forward(z, pooling, strides=(2, 2), padding=(0, 0)):
    padded = _pad(z, padding)
    N, C, H, W = padded.shape
    out_h, out_w = (H - pooling[0]) // strides[0] + 1, (W - pooling[1]) // strides[1] + 1
    out = np.zeros((N, C, out_h, out_w))
    for i in range(out_h):
        for j in range(out_w):
            h, w = i * strides[0], j * strides[1]
            window = padded[:, :, h : h + pooling[0], w : w + pooling[1]]
            out[:, :, i, j] = window.sum(axis=(2, 3)) / (pooling[0] * pooling[1])
    return out


def avg_pooling_backward(next_dz, z, pooling, strides=(2, 2), padding=(0, 0)):
    N, C, out_h, out_w = next_dz.shape
    dz = np.zeros(_pad(z, padding).shape)
    for i in range(out_h):
        for j in range(out_w):
            h, w = i * strides[0], j * strides[1]
            share = next_dz[:, :, i, j, None, None] / (pooling[0] * pooling[1])
            dz[:, :, h : h + pooling[0], w : w + pooling[1]] += share
    return dz[:, :, padding[0] : padding[0] + z.shape[2], padding[1] : padding[1] + z.shape[3]]


def global_max_pooling_forward(z):
    return z.max(axis=(2, 3))


def global_max_pooling_backward(next_dz, z):
    dz = np.zeros(z.shape)
    for n, c in np.ndindex(next_dz.shape):
        dz[n, c].flat[np.argmax(z[n, c])] = next_dz[n, c]
    return dz


def global_avg_pooling_forward(z):
    return z.mean(axis=(2, 3))


def global_avg_pooling_backward(next_dz, z):
    return np.broadcast_to(next_dz[:, :, None, None] / z[0, 0].size, z.shape)


def relu_forward(z):
    return np.maximum(0, z)


def relu_backward(next_dz, z):
    return np.where(z > 0, next_dz, 0)


def fc_forward(z, W, b):
    return z.dot(W) + b


def fc_backward(next_dz, W, z):
    N = z.shape[0]
    return z.T.dot(next_dz) / N, next_dz.sum(axis=0) / N, next_dz.dot(W.T)
