"""Stage `pretrain` (of models/pretrained/dvc.yaml): trains the small encoder that the repository ships, on synthetic speakers.

It is there so that the pipeline runs anywhere without a download; it is not for production. With --network, a small
encoder of another kind, in models/pretrained/<network>-mini. Its speakers
(group "train") are never those of an evaluation split (group "eval"); progress is measured on a third group.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.pretrain", alone=True)

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from src.common import layout, params
from src.common.schema import Section
from src.encoder import networks
from src.encoder.load import prepare_speechbrain
from src.encoder.save import save_checkpoint
from src.evaluate.metrics import eer
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError
from src.sources import channel, synthetic

# The arguments of each network; all give embeddings of `lin_neurons`.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ecapa": {
        "input_size": 80,
        "channels": [192, 192, 192, 192, 576],
        "kernel_sizes": [5, 3, 3, 3, 1],
        "dilations": [1, 2, 3, 4, 1],
        "attention_channels": 96,
        "se_channels": 96,
        "lin_neurons": 192,
    },
    "xvector": {"in_channels": 24, "tdnn_channels": [192, 192, 192, 192, 576], "lin_neurons": 192},
    "resnet": {"input_size": 80, "channels": [16, 16, 32, 32], "block_sizes": [2, 2, 2, 2], "lin_neurons": 192},
}
CROP = 2 * SAMPLE_RATE
BATCH = 32
PEAK_LEARNING_RATE = 2e-3
MARGIN, SCALE = 0.2, 30.0
DEV_SPEAKERS, DEV_UTTERANCES = 40, 4


def _speak(group, speakers, utterances, seed, pool):
    """Utterances before any channel, int16 to save memory, in speaker order."""

    def one(index):
        speaker, utterance = divmod(index, utterances)
        rng = np.random.default_rng([seed, *group.encode(), speaker, utterance])
        return (synthetic.utter(synthetic.speaker(speaker, seed, group), rng) * 32767).astype(np.int16)

    count = speakers * utterances
    return list(tqdm(pool.map(one, range(count)), f"speech {group}", count, disable=None))


def _crop(samples, rng):
    """A crop of CROP samples through a random channel, float32."""
    if len(samples) < CROP:
        samples = np.pad(samples, (0, CROP - len(samples)), mode="wrap")
    start = rng.integers(len(samples) - CROP + 1)
    return channel.apply(samples[start : start + CROP] / np.float32(32768), rng)


def _batches(dry, utterances, seed, epoch, pool):
    """Batches (waveforms [BATCH, CROP], speakers [BATCH]) of one pass, the next prepared while one is used."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(dry))[: len(dry) // BATCH * BATCH].reshape(-1, BATCH)

    def prepare(batch):
        return [pool.submit(_crop, dry[i], np.random.default_rng([seed, epoch, i])) for i in batch]

    ahead = prepare(order[0])
    for batch, following in zip(order, [*order[1:], None]):
        waveforms = np.stack([future.result() for future in ahead])
        ahead = prepare(following) if following is not None else []
        yield torch.from_numpy(waveforms), torch.from_numpy(batch // utterances)


def _dev_eer(embed, dry, seed):
    embeddings = torch.cat(
        [embed(torch.from_numpy(_crop(x, np.random.default_rng([seed, i])))[None]) for i, x in enumerate(dry)]
    )
    embeddings = torch.nn.functional.normalize(embeddings)
    scores = (embeddings @ embeddings.T).numpy()
    speaker = np.arange(len(dry)) // DEV_UTTERANCES
    pairs = np.triu_indices(len(dry), 1)
    return eer(scores[pairs], (speaker[:, None] == speaker)[pairs])


class Options(Section):
    network: Literal["ecapa", "xvector", "resnet"] = Field("ecapa", description="the kind of network")


def main(network: str) -> None:
    config = params.load()
    architecture, kind = ARCHITECTURES[network], networks.NAMES[network]
    section = config.pretrain
    if section.speakers * section.utterances_per_speaker < BATCH:
        raise InputError(f"params.yaml: pretrain: speakers x utterances_per_speaker must be at least {BATCH}, a batch")
    prepare_speechbrain()
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier
    from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
    from speechbrain.processing.features import InputNormalization

    torch.manual_seed(config.seed)
    features = Fbank(n_mels=architecture[kind.mels])
    norm = InputNormalization(norm_type="sentence", std_norm=False)
    encoder = kind.speechbrain(**architecture)
    classifier = Classifier(architecture["lin_neurons"], out_neurons=section.speakers)
    criterion = LogSoftmaxWrapper(AdditiveAngularMargin(MARGIN, SCALE))
    weights = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(weights, weight_decay=2e-4)

    def encode(waveforms):
        lengths = torch.ones(len(waveforms))
        with torch.no_grad():
            normal = norm(features(waveforms), lengths)
        return encoder(normal).reshape(len(waveforms), 1, -1)

    def embed(waveforms):
        with torch.no_grad():
            return encode(waveforms)[:, 0]

    with ThreadPoolExecutor(2) as pool:
        dry = _speak("train", section.speakers, section.utterances_per_speaker, config.seed, pool)
        dev = _speak("dev", DEV_SPEAKERS, DEV_UTTERANCES, config.seed, pool)
        steps = len(dry) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_LEARNING_RATE, total_steps=section.epochs * steps, pct_start=0.15
        )
        for epoch in range(section.epochs):
            encoder.train()
            losses = []
            for waveforms, speakers in tqdm(
                _batches(dry, section.utterances_per_speaker, config.seed, epoch, pool),
                f"epoch {epoch + 1}/{section.epochs}",
                steps,
                disable=None,
            ):
                loss = criterion(classifier(encode(waveforms)), speakers[:, None])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
            encoder.eval()
            print(
                f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, "
                f"EER on {DEV_SPEAKERS} other speakers {_dev_eer(embed, dev, config.seed):.3f}",
                flush=True,
            )
    labels = [f"train{index:04d}" for index in range(section.speakers)]
    save_checkpoint(layout.small(network), architecture, encoder, classifier, labels)
