# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds against hand calculation and against TensorFlow's own profiler."""

import pytest

from object_detection_ext import flops

# isort: split
import tensorflow as tf


def count(build, *shapes):
    """The multiply-adds of build(placeholders of these shapes), by kind."""
    with tf.Graph().as_default():
        outputs = build(*(tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes))
        counted = flops.count_multiply_adds(tf.nest.flatten(outputs))
    return [(op.kind, op.multiply_adds) for op in counted]


def conv(images, kernel, strides=1, padding="SAME"):
    return tf.nn.conv2d(images, kernel, strides, padding)


def test_2d_convolution_with_stride_counts_output_cells():
    # ceil(7/2) x ceil(5/2) cells, each 3*3*4 products for each of 6 channels.
    assert count(lambda x, k: conv(x, k, 2), [2, 7, 5, 4], [3, 3, 4, 6]) == [
        ("Conv2D", 2 * 4 * 3 * 6 * 3 * 3 * 4)
    ]


def test_2d_convolution_without_padding():
    assert count(lambda x, k: conv(x, k, padding="VALID"), [1, 7, 5, 4], [3, 3, 4, 6]) == [
        ("Conv2D", 5 * 3 * 6 * 3 * 3 * 4)
    ]


def test_grouped_convolution_multiplies_inside_its_groups():
    assert count(conv, [1, 4, 4, 8], [1, 1, 2, 8]) == [("Conv2D", 16 * 8 * 2)]


def test_depthwise_convolution():
    def build(x, k):
        return tf.nn.depthwise_conv2d(x, k, [1, 1, 1, 1], "SAME")

    kinds = count(build, [1, 4, 6, 5], [3, 3, 5, 2])
    assert kinds == [("DepthwiseConv2dNative", 4 * 6 * 5 * 2 * 9)]


def test_3d_convolution():
    def build(x, k):
        return tf.nn.conv3d(x, k, [1, 2, 1, 1, 1], "SAME")

    kinds = count(build, [1, 5, 4, 6, 3], [3, 1, 2, 3, 7])
    assert kinds == [("Conv3D", 3 * 4 * 6 * 7 * 3 * 1 * 2 * 3)]


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matrix_product_in_every_orientation(transpose_a, transpose_b):
    def build(a, b):
        return tf.linalg.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    a, b = ([3, 2] if transpose_a else [2, 3]), ([5, 3] if transpose_b else [3, 5])
    assert count(build, a, b) == [("MatMul", 2 * 3 * 5)]
    assert count(build, [7, *a], [7, *b]) == [("BatchMatMulV2", 7 * 2 * 3 * 5)]


def test_broadcast_of_a_batch_of_products():
    assert count(tf.matmul, [7, 1, 2, 3], [4, 3, 5]) == [("BatchMatMulV2", 7 * 4 * 2 * 3 * 5)]


def test_einsum_with_ellipsis_and_broadcast():
    def build(a, b):
        return tf.einsum("...qd,...kd->...qk", a, b)

    # The leading 1 of the second is broadcast.
    (kind,) = count(build, [6, 2, 3, 5], [1, 2, 4, 5])
    assert kind == ("Einsum", 6 * 2 * 3 * 4 * 5)


def test_einsum_of_one_tensor_multiplies_nothing():
    assert count(lambda a: tf.einsum("ij->ji", a), [2, 3]) == [("Einsum", 0)]


def test_only_what_the_outputs_need_is_counted():
    def build(a, b):
        tf.matmul(b, a)
        return tf.matmul(a, b)

    assert count(build, [2, 30], [30, 2]) == [("MatMul", 2 * 30 * 2)]


def test_functions_are_looked_into():
    inner = tf.function(tf.matmul)
    outer = tf.function(lambda a, b: inner(a, b) + inner(a, b))
    assert count(outer, [2, 3], [3, 5]) == [("MatMul", 30)] * 2


def test_loop_and_branch_with_a_product_are_errors():
    def loop(a):
        return tf.while_loop(lambda x: tf.reduce_sum(x) < 9.0, lambda x: [tf.matmul(x, x)], [a])

    def branch(a):
        return tf.cond(tf.reduce_sum(a) < 9.0, lambda: tf.matmul(a, a), lambda: a)

    for build in (loop, branch):
        function = tf.function(build)
        with pytest.raises(flops.UncountableError, match="runs .*MatMul.* unknown number"):
            count(function, [3, 3])


def test_loop_without_products_is_fine():
    def loop(a):
        return tf.while_loop(lambda x: tf.reduce_sum(x) < 9.0, lambda x: [x + 1.0], [a])

    assert count(tf.function(loop), [3, 3]) == []


def test_unknown_shape_is_an_error():
    with pytest.raises(flops.UncountableError, match=r"MatMul.*has the shape \(None, 5\)"):
        count(tf.matmul, [None, 3], [3, 5])


def test_unknown_kind_of_convolution_is_an_error():
    def build(x, k):
        return tf.nn.conv2d_transpose(x, k, [1, 8, 8, 4], 2)

    with pytest.raises(flops.UncountableError, match="no rule.*Conv2DBackpropInput"):
        count(build, [1, 4, 4, 6], [3, 3, 4, 6])


def small_network():
    """Outputs of a network with one op of every kind that matters, by name."""
    x = tf.compat.v1.placeholder(tf.float32, [1, 4, 6, 8, 3])
    kernel = tf.compat.v1.placeholder(tf.float32, [3, 3, 3, 3, 5])
    scale = tf.compat.v1.placeholder(tf.float32, [5])
    folded = tf.nn.conv3d(x, kernel * scale, [1] * 5, "SAME", name="folded")
    frames = tf.nn.relu(tf.nn.bias_add(folded, scale, name="bias"))
    plain = tf.nn.conv3d(frames, tf.zeros([1, 1, 1, 5, 5]), [1] * 5, "SAME", name="plain")
    pooled = tf.nn.max_pool2d(plain[:, 2], 2, 2, "VALID", name="roi")  # [1, 3, 4, 5]
    mean = tf.reduce_mean(plain, axis=[1, 2, 3], name="average")  # [1, 5]
    scores = tf.matmul(tf.reshape(pooled, [1, 12, 5]), tf.zeros([1, 5, 7]), name="scores")
    logits = tf.matmul(mean, tf.zeros([5, 2]), name="logits")
    return [tf.nn.softmax(scores, name="softmax"), logits]


def test_profiler_agrees_on_every_counted_op():
    with tf.Graph().as_default():
        outputs = small_network()
        tf.matmul(outputs[1], tf.ones([2, 2]), name="unneeded")
        profiled = flops.profiler_flops(outputs)
        counted = flops.count_multiply_adds(outputs)
    assert [op.name for op in counted] == ["folded", "plain", "scores", "logits"]
    for op in counted:
        assert profiled[op.name] == 2 * op.multiply_adds > 0
    assert "unneeded" not in profiled
    assert profiled["roi"] == 3 * 4 * 5 * 4
    assert profiled["softmax"] == 12 * 7 * 5


def test_paper_profile_by_hand():
    with tf.Graph().as_default():
        kernels = [tf.Variable(tf.zeros([2, 3])), tf.Variable(tf.zeros([10]))]
        profile = flops.paper_profile(
            small_network(), kernels=kernels, time_steps=4, section_of=lambda name: "all"
        )
    cells = 4 * 6 * 8
    counted = {term.name: term.flops for term in profile.counted}
    assert counted == {
        "Mul, all": 27 * 3 * 5,
        "BiasAdd, all": cells * 5,
        "MaxPool, all": 60 * 4,
        "Mean, all": cells * 5,
        "MatMul, all": 2 * 5 * 2,
        "Softmax, all": 84 * 5,
    }
    assert {term.name: term.flops for term in profile.corrections} == {
        # The convolution without batch norm has none.
        "batch norm as a Mul and an Add": cells * 5 - 27 * 3 * 5,
        "RoI max pool of the whole tube": 3 * 60 * 4,
        "I3D's average as AvgPool3D": -cells * 5,
        "L2 regularization": (3 * 6 - 1) + (3 * 10 - 1),
    }
    assert {term.name: term.flops for term in profile.left_out} == {
        "Conv3D, all": 2 * cells * 5 * (27 * 3 + 5),
        "BatchMatMulV2, all": 2 * 12 * 5 * 7,
    }
    assert profile.flops == sum(counted.values()) + cells * 5 - 405 + 720 - cells * 5 + 46


def test_paper_profile_misses_no_large_op():
    with tf.Graph().as_default():
        frames = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 2])
        outputs = [tf.nn.max_pool2d(frames, 2, 2, "VALID", name="roi")]
        with pytest.raises(flops.UncountableError, match=r"does not count roi \(MaxPool\)"):
            flops.paper_profile(outputs, kernels=[], time_steps=1, section_of=str)
