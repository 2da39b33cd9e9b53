"""The same encoder as others run it: SpeechBrain, and what the engines' own tools make of a plain export."""

import contextlib
import copy
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear

from bench.models import Model, openvino_file
from bench.webassembly import UnavailableError
from src.cost import latency

NAMES = ("speechbrain", "quantize_dynamic", "onnxruntime", "openvino", "quantize_static", "nncf", "resemblyzer")


class Competitors:
    """The models of NAMES, each made when it is asked for.

    classifier: SpeechBrain's EncoderClassifier; waveforms: calibration audio, each float32 [samples]; folder:
    where the files that they are made of are written.
    """

    def __init__(self, classifier: Any, waveforms: Sequence[np.ndarray], folder: Path | str):
        self.classifier, self.folder = classifier, Path(folder)
        self.waveforms = waveforms

    def speechbrain(self) -> Model:
        return Model(
            "SpeechBrain, PyTorch eager",
            "encode_batch",
            _size(self.classifier),
            lambda threads: latency.speechbrain(self.classifier),
        )

    def quantize_dynamic(self) -> Model:
        """Dynamic quantisation is of linear layers, and SpeechBrain's ECAPA-TDNN has none: nothing changes."""
        changed = copy.deepcopy(self.classifier)
        with _quiet():  # it is deprecated in favour of torchao
            network = torch.ao.quantization.quantize_dynamic(
                changed.mods["embedding_model"], {torch.nn.Linear}, dtype=torch.qint8
            )
        changed.mods["embedding_model"] = network
        quantised = sum(isinstance(module, DynamicLinear) for module in network.modules())
        return Model(
            "SpeechBrain, quantize_dynamic",
            f"Linear; {quantised} layers quantised",
            _size(changed),
            lambda threads: latency.speechbrain(changed),
        )

    def onnxruntime(self) -> Model:
        return Model(
            "ONNX Runtime fp32",
            "plain export",
            os.path.getsize(self.plain) / 1e6,
            lambda threads: self._after_front_end(latency.onnx_file(self.plain, threads)),
        )

    def openvino(self) -> Model:
        return self._in_openvino("OpenVINO fp32", "plain export, float32", openvino.Core().read_model(self.plain))

    def quantize_static(self) -> Model:
        """In the best setting found for this network, both in time and in cosine.

        Convolutions alone: quantising Concat as well quantises shapes, and the file does not run; with ReLU
        and Add it is no faster and less exact. uint8 activations and int8 weights a channel: what AVX512-VNNI
        multiplies without a correction. MinMax: entropy and percentile calibration need utterances of one
        length, or fail. QDQ: QOperator loses initializers of this graph.
        """
        prepared, path = self.folder / "prepared.onnx", self.folder / "quantize_static.onnx"
        with _quiet():
            quant_pre_process(str(self.plain), str(prepared))
            quantize_static(
                str(prepared),
                str(path),
                _Reader(self.features),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return Model(
            "ONNX Runtime quantize_static",
            "Conv only, QDQ, u8 s8, per channel, MinMax",
            os.path.getsize(path) / 1e6,
            lambda threads: self._after_front_end(latency.onnx_file(path, threads)),
        )

    def nncf(self) -> Model:
        """With the preset that gives activations a zero point: nearer SpeechBrain than the default, no slower."""
        with _quiet(), contextlib.redirect_stdout(sys.stderr):  # it shows its progress among the results
            model = nncf.quantize(
                openvino.Core().read_model(self.plain),
                nncf.Dataset(self.features),
                subset_size=len(self.features),
                preset=nncf.QuantizationPreset.MIXED,
            )
        return self._in_openvino("NNCF quantize, OpenVINO", "preset MIXED", model)

    def resemblyzer(self) -> Model:
        """Another encoder that people take on a CPU: three LSTM layers, float32, on windows of 1.6 s whose embeddings are
        averaged. Raises UnavailableError when it is not installed."""
        try:
            with _quiet():
                import resemblyzer
        except ImportError as missing:
            raise UnavailableError(
                f"{missing}; pip install resemblyzer 'setuptools<80', in an environment of its own or after everything else"
            ) from None
        encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)
        file = Path(resemblyzer.__file__).with_name("pretrained.pt")
        return Model(
            "Resemblyzer, PyTorch eager",
            "another encoder, its own training",
            os.path.getsize(file) / 1e6,
            lambda threads: lambda waveforms: np.stack([encoder.embed_utterance(one) for one in waveforms]),
        )

    def _in_openvino(self, title, setting, model):
        path = self.folder / f"{title}.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        size = sum(os.path.getsize(path.with_suffix(suffix)) for suffix in (".xml", ".bin"))
        return Model(title, setting, size / 1e6, lambda threads: self._after_front_end(openvino_file(model, threads)))

    @cached_property
    def plain(self) -> Path:
        """SpeechBrain's network as the exporter writes it: features [batch, frames, mels] -> embedding."""
        path = self.folder / "plain.onnx"
        network = self.classifier.mods["embedding_model"]
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                network,
                (torch.zeros(2, 200, self.features[0].shape[2]),),
                path,
                dynamo=True,
                input_names=["features"],
                output_names=["embedding"],
                dynamic_shapes=({0: "batch", 1: "frames"},),
                external_data=False,
                verbose=False,
            )
        return path

    @cached_property
    def features(self) -> list[np.ndarray]:
        return [self._front_end(waveform[None]) for waveform in self.waveforms]

    def _front_end(self, waveform):
        """SpeechBrain's own: [batch, samples] -> [batch, frames, mels]."""
        mods = self.classifier.mods
        with torch.inference_mode():
            features = mods["compute_features"](torch.from_numpy(waveform))
            return mods["mean_var_norm"](features, torch.ones(len(waveform))).numpy()

    def _after_front_end(self, network):
        return lambda waveform: network(self._front_end(waveform)).reshape(len(waveform), -1)


@contextlib.contextmanager
def _quiet():
    """Silence the tools' notes, which are for those who develop them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Reader(CalibrationDataReader):
    def __init__(self, features):
        self.features = iter(features)

    def get_next(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        features = next(self.features, None)
        return None if features is None else {"features": features}


def _size(classifier):
    """MB of the network's parameters as torch saves them."""
    file = io.BytesIO()
    torch.save(classifier.mods["embedding_model"].state_dict(), file)
    return file.tell() / 1e6
