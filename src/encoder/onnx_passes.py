"""Rewrites of an exported graph that leave more of it in integers, without changing what it gives."""

import ml_dtypes
import numpy as np
import onnx_ir
from onnxscript.rewriter import RewriteRuleSet, pattern


class _Pad(pattern.RewriteRuleClassBase):
    """Padding by reflection moves values: where both sides of it have one scale, the integers are padded."""

    def pattern(self, op, x, scale, zero, pads, scale_after, zero_after):
        padded = op.Pad(op.DequantizeLinear(x, scale, zero, _allow_other_attributes=True), pads, mode="reflect")
        return op.QuantizeLinear(padded, scale_after, zero_after, _allow_other_attributes=True)

    def check(self, _, scale, zero, scale_after, zero_after, **__):  # pyright: ignore[reportIncompatibleMethodOverride]
        return _same(scale, scale_after) and _same(zero, zero_after)

    def rewrite(self, op, x, pads, **_):
        return op.Pad(x, pads, mode="reflect")


class _Mean(pattern.RewriteRuleClassBase):
    """The mean over time of quantised values, under the name for which engines have an integer kernel.

    x is [batch, channels, 1, time] or [batch, channels, mels, time]: the mean is over everything behind the channels.
    """

    def pattern(self, op, x, axes):
        return op.ReduceMean(x, axes, keepdims=1, _allow_other_attributes=True)

    def check(self, _, x, axes, **__):  # pyright: ignore[reportIncompatibleMethodOverride]
        producer = x.producer()
        return producer is not None and producer.op_type == "DequantizeLinear" and _value(axes) in ([3], [2, 3])

    def rewrite(self, op, x, **_):
        return op.GlobalAveragePool(x)


_RULES = RewriteRuleSet([_Pad.rule(), _Mean.rule()])


def rewrite(model: onnx_ir.Model) -> None:
    """Apply all of them to an onnx_ir.Model, in place."""
    _RULES.apply_to_model(model)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():  # the engine warns of what a rule has left behind
            model.graph.initializers.pop(name)
    _store_small_weights(model.graph)


def _store_small_weights(graph):
    """Keep weights that fit into 4 bits as INT4, widened to INT8 by a Cast that engines compute on loading."""
    for name, value in list(graph.initializers.items()):
        if value.dtype != onnx_ir.DataType.INT8 or len(value.shape) < 2:
            continue
        weights = value.const_value.numpy()
        if np.abs(weights.astype(int)).max() > 7:
            continue
        small = onnx_ir.Value(name=f"{name}_int4", const_value=onnx_ir.tensor(weights.astype(ml_dtypes.int4)))
        cast = onnx_ir.node("Cast", [small], {"to": onnx_ir.DataType.INT8.value})
        value.replace_all_uses_with(cast.outputs[0])
        graph.initializers.pop(name)
        graph.register_initializer(small)
        graph.insert_before(graph[0], cast)


def _value(constant):
    return None if constant.const_value is None else constant.const_value.numpy().tolist()


def _same(one, other):
    return _value(one) is not None and _value(one) == _value(other)
