"""The student of one trial: the network with fewer operations, calibrated, with fake quantisation in it."""

from dataclasses import dataclass

import torch

from src.quantize import ptq, qat
from src.search import factorise


@dataclass(frozen=True)
class Source:
    """What students are made from.

    network: PlainEcapa, the teacher; features: calibration speech, list of [1, time, mels]; spectra: what
    `factorise.spectra` gave for these, {} to leave the network whole; observer and weight_bits: as for
    `ptq.prepare`.
    """

    network: torch.nn.Module
    features: list[torch.Tensor]
    spectra: dict[str, factorise.Spectrum]
    observer: str
    weight_bits: dict[str, int]

    def layer_ranks(self, share: float) -> dict[str, int]:
        """{layer: rank} that leave this share of the network's multiplications; {} for all of them."""
        return factorise.layer_ranks(self.spectra, self.network, share) if share < 1 else {}

    def student(self, layer_ranks: dict[str, int]) -> torch.fx.GraphModule:
        """A graph for `qat.finetune` and `ptq.convert`, of the network with these layers factorised."""
        network = factorise.factorise(self.network, self.spectra, layer_ranks)
        prepared = ptq.prepare(network, self.observer, self.weight_bits)
        ptq.calibrate_activations(prepared, self.features)
        return qat.fake_quantise(prepared, ptq.activation_ranges(prepared))

    def cost(self, layer_ranks: dict[str, int], frames: int) -> tuple[float, float]:
        """(GMACs for an utterance of so many frames, 10^6 bytes of weights) of a student with these ranks.

        Weights of layers that became two keep the bits of their group.
        """
        network = factorise.factorise(self.network, self.spectra, layer_ranks)
        linear = sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, torch.nn.Linear))
        bits = sum(
            self.weight_bits[name.split(".")[0]] * parameter.numel()
            for name, parameter in network.named_parameters()
            if name.endswith(".weight")
        )
        return (factorise.multiplications(network) * frames + linear) / 1e9, bits / 8e6
