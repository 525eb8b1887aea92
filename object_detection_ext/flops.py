# SPDX-License-Identifier: Apache-2.0
"""What a graph computes: its true multiply-adds, and the number that Table 1 of the paper prints.

Both read static shapes only; nothing is run.

Shapes: B clips, R proposals per clip, t h w cells of the feature map, C channels, P P cells of a
RoI feature.
"""

import collections
import contextlib
import dataclasses
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

# What multiplies and adds, under any name that TensorFlow gives it: a kind that matches and that
# nobody here can count is an error.
_MULTIPLIES_AND_ADDS = re.compile(r"Conv(?!ert)|MatMul|Einsum|XlaDot")
# Run their function once; every other op with a function runs it an unknown number of times.
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


class UncountableError(ValueError):
    """A graph whose multiply-adds do not follow from its static shapes."""


@dataclasses.dataclass(frozen=True)
class CountedOp:
    """An op that multiplies and adds."""

    name: str  # with its name scopes
    kind: str  # of the op, such as Conv3D
    multiply_adds: int


def count_multiply_adds(outputs: Sequence[tf.Tensor]) -> list[CountedOp]:
    """Every convolution and matrix product that `outputs` need, of any size, in the graph's order.

    One multiply-add is one multiplication and the addition of its result, so two FLOPs. In a
    convolution the cells of the padding are counted like others, as everybody counts. Not counted:
    element-wise arithmetic, biases, pooling, softmax, sorting.

    Args:
        outputs: symbolic tensors of one graph, with static shapes all through.

    Raises:
        UncountableError: for an op of an unknown shape, of an unknown kind of convolution or
            product, or inside a loop or a branch.
    """
    return [
        CountedOp(op.name, op.type, _MULTIPLY_ADDS[op.type](op))
        for op in _ops_with_bodies(outputs)
        if _is_counted(op)
    ]


def needed_ops(outputs: Sequence[tf.Tensor]) -> list[tf.Operation]:
    """The ops that `outputs` depend on, in the order of their graph; function bodies left out."""
    pending = [output.op for output in outputs]
    needed = set(pending)
    while pending:
        op = pending.pop()
        for source in [tensor.op for tensor in op.inputs] + list(op.control_inputs):
            if source not in needed:
                needed.add(source)
                pending.append(source)
    return [op for op in outputs[0].graph.get_operations() if op in needed]


def _ops_with_bodies(outputs: Sequence[tf.Tensor]) -> Iterator[tf.Operation]:
    for op in needed_ops(outputs):
        yield op
        for body in _bodies(op):
            inner = _ops_with_bodies(body.outputs) if body.outputs else ()
            if op.type in _CALLS:
                yield from inner
                continue
            counted = next(filter(_is_counted, inner), None)
            if counted is not None:
                raise UncountableError(
                    f"{op.name} ({op.type}) runs {counted.name} ({counted.type}) an unknown number "
                    "of times."
                )


def _bodies(op: tf.Operation) -> Iterator[tf.Graph]:
    """The graphs of the functions that an op calls."""
    for attribute in op.node_def.attr.values():
        functions = [attribute.func] if attribute.HasField("func") else attribute.list.func
        for function in functions:
            yield op.graph._get_function(function.name).graph


def _is_counted(op: tf.Operation) -> bool:
    if op.type in ("Enter", "RefEnter"):
        raise UncountableError(f"{op.name} is a loop of TensorFlow 1, of unknown length.")
    if op.type in _MULTIPLY_ADDS:
        return True
    if _MULTIPLIES_AND_ADDS.search(op.type):
        raise UncountableError(
            f"{op.name}: there is no rule for the multiply-adds of a {op.type}. There is one for: "
            f"{', '.join(sorted(_MULTIPLY_ADDS))}."
        )
    return False


def _static(op: tf.Operation, tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise UncountableError(
            f"{op.name} ({op.type}): {tensor.name} has the shape {tensor.shape}; it must be static."
        )
    return tensor.shape.as_list()


def _output_size(op: tf.Operation) -> int:
    return math.prod(_static(op, op.outputs[0]))


def _convolution(op: tf.Operation) -> int:
    # A kernel is [..., input channels of a group, output channels].
    return _output_size(op) * math.prod(_static(op, op.inputs[1])[:-1])


def _depthwise_convolution(op: tf.Operation) -> int:
    # A kernel is [height, width, input channels, outputs of each].
    return _output_size(op) * math.prod(_static(op, op.inputs[1])[:2])


def _matrix_product(op: tf.Operation) -> int:
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return _output_size(op) * _static(op, op.inputs[0])[-2 if transposed else -1]


def _einsum(op: tf.Operation) -> int:
    if len(op.inputs) < 2:
        return 0  # transposes or sums
    terms = op.get_attr("equation").decode().partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, op.inputs, strict=True):
        shape = _static(op, tensor)
        before, _, after = term.replace(" ", "").partition("...")
        # The dimensions of an ellipsis are aligned at its end.
        hidden = len(shape) - len(before) - len(after)
        labels = [*before, *(f"...{hidden - index}" for index in range(hidden)), *after]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return math.prod(sizes.values())


_MULTIPLY_ADDS: dict[str, Callable[[tf.Operation], int]] = {
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise_convolution,
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einsum,
}


def profiler_flops(outputs: Sequence[tf.Tensor]) -> dict[str, int]:
    """FLOPs by TensorFlow's own profiler: {name of an op that `outputs` need: FLOPs, not 0}.

    The profiler knows some kinds of ops, and leaves out all others and those without a static
    shape, both silently. It does not look into functions.
    """
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    # It tells how many ops have no static shape, but not which; see `paper_profile`.
    with contextlib.redirect_stderr(io.StringIO()):
        root = profiler.profile(
            outputs[0].graph, cmd="scope", options=options.with_empty_output().build()
        )
    flops, pending = {}, [root]
    while pending:
        node = pending.pop()
        pending.extend(node.children)
        if node.float_ops:
            flops[node.name] = node.float_ops
    return {op.name: flops[op.name] for op in needed_ops(outputs) if op.name in flops}


# Kinds that the profiler learned to count after the paper.
_COUNTED_SINCE_THE_PAPER = frozenset({"Conv3D", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
# All but the element-wise ones that it knows: large enough that none may be missed.
_MUST_BE_PROFILED = frozenset({*_MULTIPLY_ADDS, "BiasAdd", "MaxPool", "Softmax"})
# Kinds with a row of their own in the profile; the others are small.
_NAMED_KINDS = ("Conv2D", "MatMul", "BiasAdd", "MaxPool", "Softmax", "Mean", "Mul", "Sub")
_L2_LOSS_FLOPS = 3  # per element, less 1, as TensorFlow registers it


@dataclasses.dataclass(frozen=True)
class Term:
    """A summand of the paper's number."""

    name: str
    flops: int
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class PaperProfile:
    """What TensorFlow's profiler of the paper's time (2018) says of a model.

    The number that the paper prints is the sum of `counted` and `corrections`.
    """

    counted: tuple[Term, ...]  # in this graph, by kind of op and section of the model
    corrections: tuple[Term, ...]  # where the paper's graph differs from this one
    left_out: tuple[Term, ...]  # what the number does not hold, though it is computed

    @property
    def flops(self) -> int:
        """The paper's number, in FLOPs."""
        return sum(term.flops for term in (*self.counted, *self.corrections))


def paper_profile(
    outputs: Sequence[tf.Tensor],
    *,
    kernels: Sequence[tf.Variable],
    time_steps: int,
    section_of: Callable[[str], str],
) -> PaperProfile:
    """The number of Table 1, term by term.

    Args:
        outputs: as in `count_multiply_adds`, of one clip's inference with its preprocessing.
        kernels: the regularized variables.
        time_steps: t.
        section_of: from an op's name to the part of the model that the term is listed under.

    Raises:
        UncountableError: if the profiler missed a convolution, product, bias, pooling or softmax.
    """
    ops = {op.name: op for op in needed_ops(outputs)}
    profiled = profiler_flops(outputs)
    for name, op in ops.items():
        if op.type in _MUST_BE_PROFILED and name not in profiled:
            raise UncountableError(f"TensorFlow's profiler does not count {name} ({op.type}).")
    sums: collections.Counter[str] = collections.Counter()
    left_out: collections.Counter[str] = collections.Counter()
    for name, flops in profiled.items():
        kind = ops[name].type
        if kind in _COUNTED_SINCE_THE_PAPER:
            left_out[f"{kind}, {section_of(name)}"] += flops
        else:
            kind = kind if kind in _NAMED_KINDS else "other element-wise ops"
            sums[f"{kind}, {section_of(name)}"] += flops
    return PaperProfile(
        counted=tuple(Term(name, flops) for name, flops in sums.most_common()),
        corrections=tuple(_corrections(list(ops.values()), profiled, kernels, time_steps)),
        left_out=tuple(Term(name, flops) for name, flops in left_out.most_common()),
    )


def _corrections(
    ops: Sequence[tf.Operation],
    profiled: dict[str, int],
    kernels: Sequence[tf.Variable],
    time_steps: int,
) -> Iterator[Term]:
    convolutions = [op for op in ops if op.type == "Conv3D" and _is_folded(op)]
    yield Term(
        "batch norm as a Mul and an Add",
        sum(_output_size(op) - math.prod(_static(op, op.inputs[1])) for op in convolutions),
        "One more per activation: here batch norm is in the kernel (one Mul per kernel element "
        "less) and the bias (counted above), as TensorFlow fuses it for 2-D maps only.",
    )
    pools = [profiled[op.name] for op in ops if op.type == "MaxPool"]
    if pools:
        yield Term(
            "RoI max pool of the whole tube",
            time_steps * max(pools) - sum(pools),
            f"All of the feature map's frames ({time_steps}), with all channels, once for all "
            "heads; here each head pools what it uses. Inferred: without it both Tx rows are 0.7 "
            "short.",
        )
    averages = [op for op in ops if op.type == "Mean" and _is_average_of_tubes(op)]
    if averages:
        yield Term(
            "I3D's average as AvgPool3D",
            -sum(profiled[op.name] for op in averages),
            "The published network's last pooling, which the profiler does not know; a Mean here.",
        )
    yield Term(
        "L2 regularization",
        sum(_L2_LOSS_FLOPS * math.prod(kernel.shape) - 1 for kernel in kernels),
        "An L2Loss for each kernel, 3 N - 1 for N elements, which TensorFlow 1 puts into the graph "
        "with the variable, in inference too.",
    )


def _is_folded(convolution: tf.Operation) -> bool:
    """Whether the kernel is multiplied by batch norm's scale, see `trunks.layers.ConvUnit`."""
    source = convolution.inputs[1].op
    while source.type in ("Cast", "Identity"):
        source = source.inputs[0].op
    return source.type == "Mul"


def _is_average_of_tubes(mean: tf.Operation) -> bool:
    """Whether it averages [N, t, P, P, C] to [N, C]."""
    return (mean.inputs[0].shape.rank, mean.outputs[0].shape.rank) == (5, 2)
