"""What a structure costs: multiplications, bytes, or milliseconds on this machine."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import nnls

from src.cost.node_times import node_times
from src.cost.onnx_macs import CONVOLUTIONS
from src.runtime import engine
from src.search.factorise import Shape
from src.search.frames import FEWEST, Frames

ROUNDS = 10
# Of the convolutions that are measured: kernel, and its channels, read and written, in all pairs that are not too large.
MEASURED = ((1, (16, 32, 64, 128, 256, 512, 1024)), (3, (16, 32, 64, 128)))
LARGEST = 2**17


class Price(Protocol):
    """Of what can be left out."""

    def layer(self, name: str, shape: Shape) -> float:
        """What a convolution or a linear layer costs."""
        ...

    def rest(self, channels: float, frames: Frames) -> float:
        """What all else costs, with this share of the channels of the aggregation layer, at these frames."""
        ...


class Multiplications:
    """Their number."""

    def layer(self, name: str, shape: Shape) -> float:
        return shape.multiplications

    def rest(self, channels: float, frames: Frames) -> float:
        return 0.0


MULTIPLICATIONS = Multiplications()


@dataclass(frozen=True)
class Bytes:
    """Of the weights. weight: of one, by group of layers."""

    weight: Mapping[str, float]

    def layer(self, name: str, shape: Shape) -> float:
        return self.weight[name.split(".")[0]] * shape.inputs * shape.outputs

    def rest(self, channels: float, frames: Frames) -> float:
        return 0.0


@dataclass(frozen=True)
class Milliseconds:
    """On one thread of this machine.

    convolutions: a convolution, of a million values that it writes, of a million that it gathers, of as many where its
    kernel is larger than one, of 10^9 multiplications; of all but the convolutions: once, what fewer frames do not change,
    such as the front end; trunk and pooling, what they do, up to the aggregation layer and after it.
    """

    convolutions: tuple[float, ...]
    once: float
    trunk: float
    pooling: float

    def layer(self, name: str, shape: Shape) -> float:
        """A linear layer, which is computed once, is among the rest."""
        return float(np.dot(self.convolutions, _amounts(shape))) if shape.positions > 1 else 0.0

    def rest(self, channels: float, frames: Frames) -> float:
        return self.once + (self.trunk + self.pooling * channels / frames.stride) / frames.step


def milliseconds(models: Sequence[tuple[Path, Sequence[Shape]]], waveform: np.ndarray, pooled: int) -> Milliseconds:
    """The Milliseconds of this machine.

    models: ONNX files of a network in INT8 with all channels pooled, each with its convolutions, first computed at every frame,
    then at the FEWEST; waveform: what they are timed for, [1, samples]; pooled: how many convolutions run before what is pooled, the aggregation
    layer among them.
    """
    every, fewest = (_parts(path, waveform, pooled) for path, _ in models)
    # Linear in the frames.
    constant = np.clip((FEWEST.step * fewest - every) / (FEWEST.step - 1), 0, every)
    front_end, trunk, pooling, _ = every
    once = front_end + constant[1] + constant[2]
    layers = list(itertools.chain(*(convolutions for _, convolutions in models)))
    positions = max(shape.positions for shape in layers)
    shapes = [
        Shape(inputs * kernel, outputs, kernel, positions)
        for kernel, channels in MEASURED
        for inputs, outputs in itertools.product(channels, channels)
        if inputs * outputs <= LARGEST
    ]
    times = np.array(convolution_times(shapes, ROUNDS))
    # Of relative errors; nothing costs less than nothing.
    coefficients, _ = nnls(np.array([_amounts(shape) for shape in shapes]) / times[:, None], np.ones(len(times)))
    # Each by itself finds what it reads in the cache; in the networks together they take longer.
    coefficients *= (every + fewest)[3] / sum(float(np.dot(coefficients, _amounts(shape))) for shape in layers)
    return Milliseconds(
        tuple(coefficients.tolist()), float(once), float(trunk - constant[1]), float(pooling - constant[2])
    )


def _parts(path, waveform, pooled):
    """Milliseconds [of the front end, of the trunk and the pooling without convolutions, of these]."""
    parts, convolutions = np.zeros(4), 0
    for (operator, _), time in node_times(path, {engine.INPUT: waveform}, ROUNDS).items():
        if operator in CONVOLUTIONS:
            convolutions += 1
            parts[3] += time
        else:
            parts[0 if convolutions == 0 else 1 if convolutions < pooled else 2] += time
    return parts


def _amounts(shape):
    gathered = shape.inputs * shape.positions / 1e6
    return (
        1.0,
        shape.outputs * shape.positions / 1e6,
        gathered,
        gathered * (shape.kernel > 1),
        shape.multiplications / 1e9,
    )


def convolution_times(shapes: Sequence[Shape], rounds: int) -> list[float]:
    """Milliseconds of integer convolutions of these shapes, each by itself; medians over the rounds."""
    rng = np.random.default_rng(0)
    inputs, nodes, constants, outputs = {}, [], [], []
    for number, (size, channels, kernel, positions) in enumerate(shapes):
        read = size // kernel
        width = positions + kernel - 1
        inputs[f"x{read}_{width}"] = rng.integers(0, 256, (1, read, 1, width)).astype(np.uint8)
        values = {
            "x_scale": np.float32(0.02),
            "x_zero": np.uint8(0),
            "weight": rng.integers(-63, 64, (channels, read, 1, kernel)).astype(np.int8),
            "w_scale": np.full(channels, 0.01, np.float32),
            "w_zero": np.zeros(channels, np.int8),
            "y_scale": np.float32(5),
            "y_zero": np.uint8(0),
            "bias": np.zeros(channels, np.int32),
        }
        names = {name: f"{name}{number}" for name in values}
        constants += [numpy_helper.from_array(np.asarray(value), names[name]) for name, value in values.items()]
        node = helper.make_node("QLinearConv", [f"x{read}_{width}", *names.values()], [f"y{number}"], f"conv{number}")
        nodes.append(node)
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.UINT8, [1, channels, 1, positions]))
    given = [helper.make_tensor_value_info(name, TensorProto.UINT8, each.shape) for name, each in inputs.items()]
    graph = helper.make_graph(nodes, "convolutions", given, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    times = node_times(model.SerializeToString(), inputs, rounds)
    found = {name.split("_")[0]: time for (operator, name), time in times.items() if operator in CONVOLUTIONS}
    return [found[f"conv{number}"] for number in range(len(shapes))]
