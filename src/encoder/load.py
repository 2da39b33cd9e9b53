"""SpeechBrain's ECAPA-TDNN from a folder or from the hub."""
import os
import re
import sys
import types
from pathlib import Path

import yaml

from src.encoder import frontend, rewrite
from src.errors import InputError

HYPERPARAMS = "hyperparams.yaml"
ECAPA = "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
# hyperparams.yaml builds any Python object that it names, so that a stranger's file could run anything.
# These are the objects of the published layout; no other is built.
ALLOWED_TAGS = frozenset({
    "!ref", "!copy", "!tuple", "!name:torch.nn.ReLU", f"!new:{ECAPA}",
    "!new:speechbrain.lobes.features.Fbank",
    "!new:speechbrain.processing.features.InputNormalization",
    "!new:speechbrain.lobes.models.ECAPA_TDNN.Classifier",
    "!new:speechbrain.dataio.encoder.CategoricalEncoder",
    "!new:speechbrain.utils.parameter_transfer.Pretrainer",
})


def prepare_speechbrain():
    """Make `import speechbrain` work and be quiet; call it before the first such import.

    SpeechBrain imports torchaudio unconditionally. torchaudio's wheel links CUDA and cannot load beside
    a CPU-only torch, but SpeechBrain needs only its Python part: where the plain import fails, a stand-in
    for the compiled extension is registered.
    """
    os.environ.setdefault("SB_LOG_LEVEL", "WARNING")
    try:
        import torchaudio  # noqa: F401
    except OSError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        extension = types.ModuleType("torchaudio._extension")
        extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
        extension._check_cuda_version = lambda: None
        extension.fail_if_no_align = lambda function: function
        sys.modules["torchaudio._extension"] = extension
        import torchaudio  # noqa: F401
    import speechbrain.utils.importutils as lazy

    # SpeechBrain registers modules that import optional packages when asked for any attribute, and fail where
    # these are missing. Whatever looks through sys.modules (inspect, hypothesis) asks for `__file__`.
    for module in list(sys.modules.values()):
        if isinstance(module, lazy.LazyModule):
            module.__file__ = None


def load(source, revision=None, device="cpu"):
    """SpeechBrain's EncoderClassifier with float32 weights, in eval mode, its parameters frozen.

    `source` is a folder in SpeechBrain's pretrained layout, or a hub id (`owner/name`) fetched at
    `revision` (null: the newest) into the hub's cache. Nothing is written anywhere else.

    Raises InputError when the folder, the repository or one of its files is missing or cannot be read, when
    it is not an ECAPA-TDNN, or when its front end or network has a part that the rewrite cannot reproduce.
    """
    prepare_speechbrain()
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.utils.fetching import FetchConfig, fetch

    source = str(source)
    local = Path(source).is_dir()
    if not local and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise InputError(f"encoder source {source}: no such folder, and not a hub id (owner/name)")
    source = str(Path(source).resolve()) if local else source
    config = FetchConfig(revision=None if local else revision)
    try:
        if not local:
            _reach(source, revision)
        _check_hyperparams(fetch(HYPERPARAMS, source, fetch_config=config), source)
        classifier = EncoderClassifier.from_hparams(
            source,
            fetch_config=config,
            # The file names where it was published; what is loaded must come from `source`.
            overrides={"pretrained_path": source},
            overrides_must_match=False,
            run_opts={"device": "cuda:0" if str(device) == "cuda" else str(device)},
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(_explain(error, source, revision, local)) from error
    _check_files(classifier, source)
    stats = classifier.mods["mean_var_norm_emb"] if "mean_var_norm_emb" in classifier.mods else None
    if stats is not None:
        # load_state_dict converts parameters stored as fp16; these plain tensors it does not see.
        stats.glob_mean, stats.glob_std = stats.glob_mean.float(), stats.glob_std.float()
    frontend.check(classifier.mods["compute_features"], classifier.mods["mean_var_norm"], source)
    rewrite.check(classifier.mods["embedding_model"], source)
    return classifier


def plain(source, revision=None):
    """The encoder as (FrontEnd, PlainEcapa), both in eval mode, for the same arguments as `load`."""
    classifier = load(source, revision)
    front_end = frontend.FrontEnd(classifier.mods["compute_features"])
    return front_end.eval(), rewrite.rewrite(classifier.mods["embedding_model"])


def _reach(source, revision):
    """Fail at once where the hub cannot be reached: its client alone would go on trying for half a minute."""
    import huggingface_hub as hub

    if isinstance(hub.try_to_load_from_cache(source, HYPERPARAMS, revision=revision), str):
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(source, HYPERPARAMS, revision=revision))
    except hub.errors.HfHubHTTPError:
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _check_hyperparams(path, source):
    """Read the file without building anything from it."""
    where = f"encoder source {source}: {HYPERPARAMS}"
    try:
        tree = yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    entries = {key.value: value for key, value in tree.value} if isinstance(tree, yaml.MappingNode) else {}
    missing = [key for key in ("modules", "pretrainer", "embedding_model") if key not in entries]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} missing; a SpeechBrain ECAPA-TDNN has them")
    built = entries["embedding_model"].tag.removeprefix("!new:")
    if built != ECAPA:
        raise InputError(f"{where}: embedding_model is {built}, not an ECAPA-TDNN ({ECAPA})")
    for node in _nodes(tree):
        if node.tag.startswith("!") and node.tag not in ALLOWED_TAGS:
            allowed = ", ".join(sorted(ALLOWED_TAGS))
            raise InputError(
                f"{where}, line {node.start_mark.line + 1}: {node.tag} is not loaded; allowed: {allowed}"
            )


def _nodes(node):
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _nodes(key)
            yield from _nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _nodes(value)


def _check_files(classifier, source):
    """SpeechBrain passes over a missing label file, and only logs parameters that a file lacks."""
    from speechbrain.utils.checkpoints import torch_patched_state_dict_load

    paths = classifier.hparams.pretrainer.paths
    for path in paths.values():
        if not Path(path).is_file():
            raise InputError(f"encoder source {source}: {Path(path).name} is missing")
    stored = set(torch_patched_state_dict_load(paths["embedding_model"]))
    wanted = set(classifier.mods["embedding_model"].state_dict())
    wrong = sorted(name for name in wanted ^ stored if not name.endswith("num_batches_tracked"))
    if wrong:
        shown = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        raise InputError(
            f"encoder source {source}: embedding_model.ckpt does not fit {HYPERPARAMS}: "
            f"{len(wrong)} parameters missing or unknown ({shown})"
        )


def _explain(error, source, revision, local):
    from huggingface_hub import errors as hub

    where = f"encoder source {source}"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{where}: {Path(error.filename).name} is missing"
    if isinstance(error, hub.GatedRepoError):
        return f"{where}: access to this hub repository is restricted"
    if isinstance(error, hub.RepositoryNotFoundError):
        return f"{where}: no such folder, and no such repository on the hub"
    if isinstance(error, hub.RevisionNotFoundError):
        return f"{where}: the hub has no revision {revision} of it"
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return f"{where}: a file is missing on the hub: {_line(error)}"
    if not local and isinstance(error, (hub.LocalEntryNotFoundError, OSError)):
        return f"{where}: no such folder, and the hub cannot be reached: {_line(error)}"
    return f"{where}: a file is damaged or does not fit {HYPERPARAMS}: {type(error).__name__}: {_line(error)}"


def _line(error):
    return " ".join(str(error).split())[:300]
