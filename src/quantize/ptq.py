"""Static post-training quantisation of the plain network through torchao's PT2E."""

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch.ao.quantization.fx.utils import assert_and_get_unique_device as torch_device
from torch.fx import GraphModule
from torchao.quantization.pt2e import ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.utils import _assert_and_get_unique_device as torchao_device
from tqdm import tqdm

from src.common.params import Params, Quantize
from src.data import manifest
from src.data.manifest import Row
from src.data.recordings import load_audio
from src.encoder import load
from src.quantize.quantizer import EncoderQuantizer
from src.quantize.rounding import rounded
from src.runtime import engine
from src.runtime.errors import InputError

# What forgets the caches in which torch and torchao would keep every graph that was ever prepared.
_FORGET = (torchao_device.cache_clear, torch_device.cache_clear)
RANGES = "models/ptq_ranges.json"


def weight_bits(settings: Quantize) -> dict[str, int]:
    """{group of layers: bits of its weights}, from the section quantize of the parameters: 7 instead of 8 where weights
    are portable, since two products with activations of 255 then stay below 2**15.

    Raises InputError when they are not, and the engine saturates on this processor: its figures would be wrong.
    """
    if settings.weights == engine.FULL and engine.saturates():
        raise InputError(
            "params.yaml: quantize.weights: full: this processor adds up products of 8-bit weights in 16 bits, so that "
            "nothing could be evaluated; allowed here: portable"
        )
    most = 8 if settings.weights == engine.FULL else 7
    return {group: min(bits, most) for group, bits in settings.weight_bits.model_dump().items()}


def prepare_encoder(config: Params, rows: Sequence[Row]) -> tuple[torch.nn.Module, list[torch.Tensor], GraphModule]:
    """(front end, calibration features, graph that `prepare` gives) of the encoder that the parameters name, as they quantise
    it, and of a manifest's rows."""
    front_end, network = load.plain(config.encoder.source, config.encoder.revision, trust=config.encoder.trust)
    features = calibration_features(front_end, rows, config.ptq.utterances)
    bits = weight_bits(config.quantize)
    return front_end, features, prepare(rounded(network, features, bits), config.ptq.observer, bits)


def calibration_features(front_end: torch.nn.Module, rows: Sequence[Row], utterances: int) -> list[torch.Tensor]:
    """The features, each [1, time, mels], of at most so many calibration utterances of the manifest, spread over its
    speakers."""
    chosen = manifest.spread(manifest.needed(rows, "calibration"), utterances)
    with torch.no_grad():
        return [front_end(torch.from_numpy(load_audio(row))[None]) for row in chosen]


def prepare(
    network: torch.nn.Module, observer: str = "histogram", weight_bits: dict[str, int] | None = None
) -> GraphModule:
    """The network's graph with an observer in every place that will be quantised.

    network: a plain network, features [batch, time, mels] to embeddings [batch, dim]; it is not changed. The graph
    keeps both dimensions of time and batch dynamic, and its parameters can be trained. weight_bits: what
    the function of that name gives; None for 8 everywhere.
    """
    quantizer = EncoderQuantizer(observer, weight_bits)
    example = torch.zeros(2, 64, network.mels)
    dimensions = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    exported = torch.export.export(copy.deepcopy(network), (example,), dynamic_shapes=(dimensions,))
    prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
    for forget in _FORGET:
        forget()
    return prepared


def calibrate_activations(prepared: GraphModule, features: Iterable[torch.Tensor]) -> None:
    """Run features, each [1, time, mels], through the observers, which take the ranges of the activations."""
    weights = [observer for observer in observers(prepared).values() if observer.dtype is torch.int8]
    with torch.no_grad():
        for utterance in tqdm(features, "calibration", disable=None, leave=False):
            prepared(utterance)
            for observer in weights:  # what it has seen does not change
                observer.forward = _unobserved
    for observer in weights:
        vars(observer).pop("forward", None)


def _unobserved(weight):
    return weight


def observers(prepared: GraphModule) -> dict[str, ObserverBase]:
    """The observers by name; one that several places share is there once, under its first name."""
    names = {}
    for name, module in prepared.named_modules():
        if isinstance(module, ObserverBase):
            names.setdefault(module, name)
    return {name: module for module, name in names.items()}


def activation_ranges(prepared: GraphModule) -> dict[str, dict]:
    """What calibration gave: {observer: {"scale": float, "zero_point": int}} for every activation."""
    ranges = {}
    for name, module in tqdm(observers(prepared).items(), "ranges", disable=None, leave=False):
        if module.dtype is torch.uint8:
            scale, zero_point = module.calculate_qparams()
            ranges[name] = {"scale": scale.item(), "zero_point": int(zero_point.item())}
    return ranges


def read_ranges() -> dict[str, dict]:
    """The activation_ranges that the stage ptq wrote. Raises InputError when the file is missing or damaged."""
    try:
        return json.loads(Path(RANGES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{RANGES}: no such file; run the stage ptq") from None
    except ValueError as error:
        raise InputError(f"{RANGES}: not valid JSON: {error}; run the stage ptq again") from None


def convert(prepared: GraphModule) -> GraphModule:
    """The calibrated or fine-tuned graph with its weights in int8 and quantise/dequantise operations in it."""
    return convert_pt2e(copy.deepcopy(prepared))
