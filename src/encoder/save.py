"""An encoder in the layout in which SpeechBrain publishes them."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml

from src.common.files import atomic_write
from src.encoder import networks
from src.encoder.load import prepare_speechbrain

if TYPE_CHECKING:
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

HYPERPARAMS = """\
# {kind.title} speaker encoder, in SpeechBrain's pretrained-model layout.
n_mels: {n_mels}
pretrained_path: {path}
out_n_neurons: {speakers}

compute_features: !new:speechbrain.lobes.features.Fbank
  n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
  norm_type: sentence
  std_norm: False

embedding_model: !new:{kind.path}
  {kind.mels}: !ref <n_mels>
{network}

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
  input_size: {dim}
  out_neurons: !ref <out_n_neurons>

mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
  norm_type: global
  std_norm: False

modules:
  compute_features: !ref <compute_features>
  mean_var_norm: !ref <mean_var_norm>
  embedding_model: !ref <embedding_model>
  mean_var_norm_emb: !ref <mean_var_norm_emb>
  classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>
    label_encoder: !ref <label_encoder>
  paths:
    embedding_model: !ref <pretrained_path>/embedding_model.ckpt
    mean_var_norm_emb: !ref <pretrained_path>/mean_var_norm_emb.ckpt
    classifier: !ref <pretrained_path>/classifier.ckpt
    label_encoder: !ref <pretrained_path>/label_encoder.txt
"""


def save_checkpoint(
    folder: Path | str,
    network: Mapping[str, object],
    embedding_model: torch.nn.Module,
    classifier: "Classifier",
    labels: Sequence[str],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `folder` anew with the five files that `EncoderClassifier.from_hparams` and `load` read.

    `network` is the keyword arguments that `embedding_model`, of a kind of `networks`, was made with, the number of mels
    among them; `classifier`, an ECAPA-TDNN's, has a `weight` [speakers, dim] in the order of `labels`, the
    speakers' names. Weights are stored as `dtype`. hyperparams.yaml names `folder` as its `pretrained_path`,
    which SpeechBrain takes from the current directory, and `load` overrides. The same input gives the same
    bytes.
    """
    prepare_speechbrain()
    from speechbrain.dataio.encoder import CategoricalEncoder

    speakers, dim = classifier.weight.shape
    if len(labels) != speakers:
        raise ValueError(f"{len(labels)} labels for a classifier of {speakers} speakers")
    folder = Path(folder)
    kind = networks.kind(embedding_model)
    arguments = {key: value for key, value in network.items() if key != kind.mels}
    hyperparams = HYPERPARAMS.format(
        kind=kind,
        n_mels=network[kind.mels],
        path=folder.as_posix(),
        speakers=speakers,
        dim=dim,
        network=textwrap.indent(yaml.safe_dump(arguments, sort_keys=False, default_flow_style=None).rstrip(), "  "),
    )
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(labels)
    # No statistics: embeddings are used as they are.
    no_statistics = {"count": 0, "glob_mean": torch.empty(0), "glob_std": torch.empty(0)}

    with atomic_write(folder) as beside:
        beside.mkdir()
        (beside / "hyperparams.yaml").write_text(hyperparams, encoding="utf-8")
        torch.save(_state(embedding_model, dtype), beside / "embedding_model.ckpt")
        torch.save(no_statistics, beside / "mean_var_norm_emb.ckpt")
        torch.save(_state(classifier, dtype), beside / "classifier.ckpt")
        encoder.save(beside / "label_encoder.txt")


def _state(module, dtype):
    state = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
