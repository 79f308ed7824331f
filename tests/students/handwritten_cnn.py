"""A right ConvLayer and MaxPoolingLayer for one image, in the manner of the hand-written CNN."""

import numpy as np


class Filter:
    def __init__(self, width, height, depth):
        self.weights = np.random.uniform(-1e-4, 1e-4, (depth, height, width))
        self.bias = 0


class ConvLayer:
    def __init__(
        self,
        input_width,
        input_height,
        channel_number,
        filter_width,
        filter_height,
        filter_number,
        zero_padding,
        stride,
        activator,
        learning_rate,
    ):
        self.shape = (channel_number, input_height, input_width)
        self.filter_width, self.filter_height = filter_width, filter_height
        self.zero_padding, self.stride = zero_padding, stride
        self.activator, self.learning_rate = activator, learning_rate
        self.output_width = (input_width - filter_width + 2 * zero_padding) // stride + 1
        self.output_height = (input_height - filter_height + 2 * zero_padding) // stride + 1
        self.output_array = np.zeros((filter_number, self.output_height, self.output_width))
        self.filters = [
            Filter(filter_width, filter_height, channel_number) for _ in range(filter_number)
        ]

    def windows(self):
        for i in range(self.output_height):
            for j in range(self.output_width):
                rows = slice(i * self.stride, i * self.stride + self.filter_height)
                columns = slice(j * self.stride, j * self.stride + self.filter_width)
                yield i, j, (slice(None), rows, columns)

    def pad(self, array):
        p = self.zero_padding
        return np.pad(array, ((0, 0), (p, p), (p, p)))

    def forward(self, input_array):
        padded = self.pad(input_array)
        for f, each in enumerate(self.filters):
            for i, j, window in self.windows():
                total = np.sum(padded[window] * each.weights) + each.bias
                self.output_array[f, i, j] = self.activator.forward(total)

    def backward(self, input_array, sensitivity_array, activator):
        self.forward(input_array)
        padded = self.pad(input_array)
        delta = np.zeros(padded.shape)
        for f, each in enumerate(self.filters):
            each.weights_grad, each.bias_grad = np.zeros(each.weights.shape), 0
            for i, j, window in self.windows():
                delta[window] += each.weights * sensitivity_array[f, i, j]
                each.weights_grad += padded[window] * sensitivity_array[f, i, j]
                each.bias_grad += sensitivity_array[f, i, j]
        p, (_, height, width) = self.zero_padding, self.shape
        self.delta_array = delta[:, p : p + height, p : p + width]
        self.delta_array = self.delta_array * activator.backward(input_array)


class MaxPoolingLayer:
    def __init__(
        self, input_width, input_height, channel_number, filter_width, filter_height, stride
    ):
        self.channel_number, self.stride = channel_number, stride
        self.filter_width, self.filter_height = filter_width, filter_height
        self.output_width = (input_width - filter_width) // stride + 1
        self.output_height = (input_height - filter_height) // stride + 1
        self.output_array = np.zeros((channel_number, self.output_height, self.output_width))

    def windows(self):
        for d, i, j in np.ndindex(self.output_array.shape):
            rows = slice(i * self.stride, i * self.stride + self.filter_height)
            columns = slice(j * self.stride, j * self.stride + self.filter_width)
            yield (d, i, j), (d, rows, columns)

    def forward(self, input_array):
        for place, window in self.windows():
            self.output_array[place] = input_array[window].max()

    def backward(self, input_array, sensitivity_array):
        self.delta_array = np.zeros(input_array.shape)
        for place, window in self.windows():
            k, l = divmod(np.argmax(input_array[window]), self.filter_width)
            self.delta_array[window][k, l] += sensitivity_array[place]
