"""SpeechBrain's encoders from a folder or from the hub."""

import os
import re
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from src.encoder import checkpoint, frontend, hyperparams, networks
from src.encoder.networks import xvector
from src.runtime.errors import InputError, one_line

if TYPE_CHECKING:
    from speechbrain.inference.classifiers import EncoderClassifier

_MOST_PARAMETERS = 300_000_000
_COUNTER = "num_batches_tracked"  # of BatchNorm; of no use outside training, and not in every file


def prepare_speechbrain() -> None:
    """Make `import speechbrain` work and be quiet; call it before the first such import.

    SpeechBrain imports torchaudio unconditionally. torchaudio's wheel links CUDA and cannot load beside
    a CPU-only torch, but SpeechBrain needs only its Python part: where the plain import fails, a stand-in
    for the compiled extension is registered.
    """
    os.environ.setdefault("SB_LOG_LEVEL", "WARNING")
    try:
        import torchaudio
    except OSError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        extension = types.ModuleType("torchaudio._extension")
        vars(extension).update(
            _IS_TORCHAUDIO_EXT_AVAILABLE=False,
            _check_cuda_version=lambda: None,
            fail_if_no_align=lambda function: function,
        )
        sys.modules["torchaudio._extension"] = extension
        import torchaudio  # noqa: F401
    import speechbrain.utils.importutils as lazy

    # SpeechBrain registers modules that import optional packages when asked for any attribute, and fail where
    # these are missing. Whatever looks through sys.modules (inspect, hypothesis) asks for `__file__`.
    for module in list(sys.modules.values()):
        if isinstance(module, lazy.LazyModule):
            module.__file__ = None


def load(
    source: Path | str, revision: str | None = None, device: str = "cpu", trust: bool = False
) -> "EncoderClassifier":
    """SpeechBrain's EncoderClassifier with float32 weights, in eval mode, its parameters frozen.

    `source` is a folder in SpeechBrain's pretrained layout or as its training leaves it (see `checkpoint`), or a hub id
    (`owner/name`) fetched at `revision` (None: the newest) into the hub's cache, locked as `src.common.hub.fetch`.
    `hparams.checkpoint` is the path of the weights. What `encode_batch` uses is there (`mods`: compute_features,
    mean_var_norm, embedding_model), built here from the numbers in the checkpoint, none of whose content is executed;
    its classifier and its statistics of embeddings are not read. With `trust`, SpeechBrain's own loader reads all of
    it, in the pretrained layout, and runs what it says. An x-vector repeats (see
    `networks.xvector.settle`).

    Raises InputError when the folder, the repository or one of its files is missing or cannot be read, when
    it is of no kind that is known, or when its front end or network has a part that the rewrite cannot reproduce.
    """
    prepare_speechbrain()
    where, source = checkpoint.where(source), str(source)
    device = "cuda:0" if str(device) == "cuda" else str(device)
    path = checkpoint.find(source, checkpoint.HYPERPARAMS, revision)
    if path is None:
        raise InputError(f"{where}: {checkpoint.HYPERPARAMS} is missing")
    if trust:
        classifier = _trusted(source, revision, device, where)
        _check(classifier.mods, where)
    else:
        classifier = _built(hyperparams.read(path, where), source, revision, device, where)
    xvector.settle(classifier.mods["embedding_model"])
    return classifier


def plain(source: Path | str, revision: str | None = None, trust: bool = False) -> tuple[frontend.FrontEnd, nn.Module]:
    """The encoder as (FrontEnd, plain network), both in eval mode, for the same arguments as `load`."""
    return rewritten(load(source, revision, trust=trust))


def rewritten(classifier: "EncoderClassifier") -> tuple[frontend.FrontEnd, nn.Module]:
    """What `load` gives as (FrontEnd, plain network), both in eval mode."""
    features = classifier.mods["compute_features"]
    mels = features.compute_fbanks.n_mels
    return frontend.FrontEnd(features).eval(), networks.rewrite(classifier.mods["embedding_model"], mels).eval()


def _check(modules, where):
    frontend.check(modules["compute_features"], modules["mean_var_norm"], where)
    networks.check(modules["embedding_model"], where)


def _built(given, source, revision, device, where):
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    try:
        with torch.device("meta"):  # laid out without memory; the file brings it
            network = given.kind.speechbrain(**given.network)
        modules = {
            "compute_features": Fbank(**given.features),
            "mean_var_norm": InputNormalization(**given.norm),
            "embedding_model": network,
        }
    except Exception as error:
        raise InputError(f"{where}: {checkpoint.HYPERPARAMS}: embedding_model: {one_line(error)}") from None
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > _MOST_PARAMETERS:
        raise InputError(
            f"{where}: {checkpoint.HYPERPARAMS}: embedding_model has {parameters:,} parameters; "
            f"{_MOST_PARAMETERS:,} are the most that is loaded"
        )
    _check(modules, where)
    weights = checkpoint.find_weights(source, given.weights, revision)
    if weights is None:
        raise InputError(f"{where}: {given.weights[0]} is missing")
    network.load_state_dict(_fitting(_tensors(weights, where), network, f"{where}: {weights.name}"), assign=True)
    return EncoderClassifier(modules=modules, hparams={"checkpoint": str(weights)}, run_opts={"device": device})


def _tensors(path, where):
    """The file's content by torch's reader for weights alone, which runs no code."""
    where = f"{where}: {path.name}"
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                    raise ValueError("compressed, which torch never does")
                if sum(entry.file_size for entry in file.infolist()) > path.stat().st_size:
                    raise ValueError("its parts are larger than the whole")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types that are no longer made
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(f"{where}: it holds {named[1]}, which would run code; only tensors are loaded") from None
        why = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{where}: damaged, or not a file of tensors: {why}") from None


def _fitting(state, network, where):
    """The state with every floating-point tensor in float32. Raises InputError where it is not that of `network`."""
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{where}: not a mapping of names to tensors")
    expected = network.state_dict()
    _same_names(state, expected, where)
    fitting = {}
    for name, like in expected.items():
        value = state[name] if name in state else torch.zeros_like(like, device="cpu")
        if value.is_nested or value.is_meta or value.layout != torch.strided:
            raise InputError(f"{where}: {name} is not a plain tensor")
        if value.shape != like.shape or value.is_floating_point() != like.is_floating_point():
            raise InputError(
                f"{where}: does not fit {checkpoint.HYPERPARAMS}: {name} is {_kind(value)}, not {_kind(like)}"
            )
        fitting[name] = value.detach().to(like.dtype).contiguous()
        if not np.isfinite(fitting[name].numpy()).all():
            raise InputError(f"{where}: {name} holds values that are not finite")
    return fitting


def _kind(tensor):
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _same_names(stored, expected, where):
    wrong = sorted(str(name) for name in expected.keys() ^ stored.keys() if not str(name).endswith(_COUNTER))
    if wrong:
        shown = ", ".join(name[:100] for name in wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        raise InputError(
            f"{where}: does not fit {checkpoint.HYPERPARAMS}: {len(wrong)} parameters missing or unknown ({shown})"
        )


def _trusted(source, revision, device, where):
    """As SpeechBrain's own loader makes it, of the locked commit."""
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.utils.checkpoints import torch_patched_state_dict_load
    from speechbrain.utils.fetching import FetchConfig

    if checkpoint.is_folder(source):
        source, commit = os.path.realpath(source), None
    else:
        from src.common.hub import Lock

        commit = Lock("models", source, revision, where).commit
    try:
        classifier: Any = EncoderClassifier.from_hparams(
            source,
            fetch_config=FetchConfig(revision=commit),  # pyright: ignore[reportArgumentType]
            # The file names where it was published; what is loaded must come from `source`.
            overrides={"pretrained_path": source},
            overrides_must_match=False,
            run_opts={"device": device},
        )
        classifier.hparams.checkpoint = classifier.hparams.pretrainer.paths["embedding_model"]
        # SpeechBrain only logs parameters that a file lacks, and leaves them random.
        stored = torch_patched_state_dict_load(classifier.hparams.checkpoint)
        _same_names(stored, classifier.mods["embedding_model"].state_dict(), where)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where}: SpeechBrain cannot load it: {type(error).__name__}: {one_line(error)}") from error
    return classifier
