"""Students: the network with fewer operations, calibrated, with fake quantisation in it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from src.cost import latency
from src.encoder.export import export_onnx
from src.encoder.frontend import FrontEnd
from src.quantize import ptq, qat
from src.quantize.quantizer import few
from src.quantize.rounding import rounded
from src.search import price
from src.search.factorise import multiplications, shapes
from src.search.frames import ALL, FEWEST
from src.search.moments import FRAMES
from src.search.price import Bytes, Milliseconds
from src.search.structure import Structure, Structures

# Of the multiplications, left in the network whose parts are timed: about where a search looks. Weights of larger ones do not
# fit the caches, so that they take longer than what smaller ones say.
TIMED = 0.1


@dataclass(frozen=True)
class Source:
    """What students are made from.

    structures: of the teacher; features: calibration speech, list of [1, time, mels]; observer and weight_bits: as for
    `ptq.prepare`.
    """

    structures: Structures
    features: list[torch.Tensor]
    observer: str
    weight_bits: dict[str, int]

    def student(self, structure: Structure) -> torch.fx.GraphModule:
        """The untrained student with this structure."""
        return self.untrained(self.structures.network(structure))

    def untrained(self, network: torch.nn.Module) -> torch.fx.GraphModule:
        """What `quantised` gives for a network that stays as it is: weights of few bits are rounded together first."""
        return self.quantised(rounded(network, self.features, self.weight_bits))

    def quantised(self, network: torch.nn.Module) -> torch.fx.GraphModule:
        """A graph for `qat.finetune` and `ptq.convert`, calibrated, of a network."""
        prepared = ptq.prepare(network, self.observer, self.weight_bits)
        ptq.calibrate_activations(prepared, self.features)
        return qat.fake_quantise(prepared, ptq.activation_ranges(prepared))

    @property
    def few_bits(self) -> bool:
        """Whether any layer's weights have few."""
        return any(map(few, self.weight_bits.values()))

    def milliseconds(self, front_end: FrontEnd) -> Milliseconds:
        """What is taken on this machine by the students of this teacher, for an utterance of FRAMES."""
        models = []
        with tempfile.TemporaryDirectory() as folder:
            for frames in (ALL, FEWEST):
                structure = self.structures.of_share(TIMED)._replace(channels=None, frames=frames)
                path = Path(folder, f"{frames.step}.onnx")
                export_onnx(torch.nn.Sequential(front_end, ptq.convert(self.student(structure))), path)
                layers = shapes(self.structures.network(structure), FRAMES).items()
                convolutions = {name: shape for name, shape in layers if shape.positions > 1}
                models.append((path, list(convolutions.values())))
            pooled = sum(not name.startswith("attention") for name in convolutions)  # the same at any frames
            return price.milliseconds(models, latency.noise((FRAMES - 1) * front_end.hop), pooled)

    @property
    def bytes(self) -> Bytes:
        """Of the weights of these students."""
        return Bytes({group: self._bytes(group) for group in self.weight_bits})

    def _bytes(self, name):
        """Of one weight of a layer, or of a group of layers, in the file, which keeps 7 bits in 8."""
        return 0.5 if self.weight_bits[name.split(".")[0]] <= 4 else 1.0

    def cost(self, network: torch.nn.Module, frames: int) -> tuple[float, float]:
        """(GMACs for an utterance of so many frames, 10^6 bytes of weights) of the student of this network, which is on the
        CPU.

        Weights of layers that became two take as many bytes as those of their group.
        """
        weights = sum(
            self._bytes(name) * parameter.numel()
            for name, parameter in network.named_parameters()
            if name.endswith(".weight")
        )
        return multiplications(network, frames) / 1e9, weights / 1e6
