"""What quantising one group of layers alone does to the encoder."""

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Interpreter
from torchao.quantization.pt2e import FakeQuantizeBase
from tqdm import tqdm

COLUMNS = ("group", "embedding_sqnr_db", "embedding_cosine", "output_sqnr_db")
ALL = "all"
_ACTIVATIONS = {torch.ops.aten.relu.default, torch.ops.aten.leaky_relu.default}


def sensitivity(student: GraphModule, features: Sequence[torch.Tensor]) -> list[dict]:
    """A dict of COLUMNS for each group of layers, quantised while everything else stays in float32, and for
    all of them at once.

    student: what `qat.fake_quantise` gives; features: list of [1, time, mels]. Signal-to-quantisation-noise
    ratios are over all values of all utterances, of the embedding and of the group's own output; the cosine
    to the embedding of the float32 network is a mean over utterances. The groups are layer0, each block, mfa,
    attention and fc, as far as the network has them. A group has the weights of its layers and the activations that these compute; the
    features belong to layer0.
    """
    groups = {}
    for node in student.graph.nodes:
        if node.op == "call_module" and isinstance(student.get_submodule(node.target), FakeQuantizeBase):
            groups.setdefault(student.get_submodule(node.target), _group(node.args[0]))
    outputs = {}
    for node in student.graph.nodes:
        size = isinstance(node.meta.get("val"), int | torch.SymInt)
        if not size and node.op not in ("placeholder", "output", "get_attr") and (group := _group(node)):
            outputs[group] = node
    runner = _Outputs(student, set(outputs.values()))

    def run(enabled):
        for module, group in groups.items():
            module.enable_fake_quant(group in enabled)
        with torch.no_grad():
            return [runner.embedding_and_values(utterance) for utterance in features]

    reference, rows = run(()), []
    for name in tqdm([*outputs, ALL], "sensitivity", disable=None):  # ALL, the last, leaves all of it on
        measured = run(outputs if name == ALL else (name,))
        embeddings = [(clean[0], noisy[0]) for clean, noisy in zip(reference, measured)]
        outputs_of_group = (
            embeddings
            if name == ALL
            else [(clean[1][outputs[name]], noisy[1][outputs[name]]) for clean, noisy in zip(reference, measured)]
        )
        cosines = [torch.cosine_similarity(*pair, dim=1).mean().item() for pair in embeddings]
        measures = (sqnr(embeddings), sum(cosines) / len(cosines), sqnr(outputs_of_group))
        rows.append(dict(zip(COLUMNS, (name, *(round(measure, 6) for measure in measures)))))
    return rows


def sqnr(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Power of the signal over that of the noise in dB, of (exact, quantised) tensors; inf without noise."""
    signal = sum(exact.double().square().sum().item() for exact, _ in pairs)
    noise = sum((exact.double() - quantised).square().sum().item() for exact, quantised in pairs)
    return 10 * torch.tensor(signal / noise).log10().item() if noise else float("inf")


class _Outputs(Interpreter):
    """Runs a graph and keeps the values of some of its nodes."""

    def __init__(self, module, nodes):
        super().__init__(module)
        self.nodes, self.values = nodes, {}

    def run_node(self, node):
        value = super().run_node(node)
        if node in self.nodes:
            self.values[node] = value
        return value

    def embedding_and_values(self, features):
        """(embedding, {node: its value})."""
        self.values = {}
        return self.run(features), self.values


def _group(node):
    """The group that computes the node; where the network itself joins tensors, the group that reads it."""
    if node.op == "call_module" or (not _path(node) and node.target in _ACTIVATIONS):
        return _group(node.args[0])
    while not _path(node) and node.users:
        node = next(iter(node.users))
    names = _path(node).split(".")
    return ".".join(names[: 2 if names[0] == "blocks" else 1])


def _path(node):
    """The name of the module or parameter of the network that the node stands for; "" for the network."""
    if node.op == "get_attr":
        return node.target
    stack = node.meta.get("nn_module_stack") or {"": ("",)}
    return list(stack.values())[-1][0]
