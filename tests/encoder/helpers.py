import numpy as np
import torch

from src.encoder.load import prepare_speechbrain

prepare_speechbrain()

NETWORK = {
    "input_size": 80,
    "channels": [16, 16, 16, 48],
    "kernel_sizes": [5, 3, 3, 1],
    "dilations": [1, 2, 3, 1],
    "attention_channels": 8,
    "res2net_scale": 4,
    "se_channels": 8,
    "lin_neurons": 24,
}


def random_ecapa(network, seed=0, mild=False):
    """An ECAPA_TDNN whose BatchNorm has scales of both signs, some zero, and any running statistics.

    mild: with BatchNorm as after training, for which 8 bits are enough.
    """
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = ECAPA_TDNN(**network)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d) and mild:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
            elif isinstance(module, torch.nn.BatchNorm1d):
                module.weight.normal_()
                module.weight[torch.rand(len(module.weight)) < 0.15] = 0
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.1, 4)
    return model.eval()


def babble(seconds, seed=0, batch=1):
    """Coloured noise in bursts with pauses, with about the spectrum and the dynamics of speech."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 16_000)
    noise = rng.standard_normal((batch, n))
    bursts = np.repeat(rng.uniform(size=(batch, n // 1600 + 1)) ** 4, 1600, axis=1)[:, :n]
    coloured = np.cumsum(noise, axis=1) / np.sqrt(np.arange(1, n + 1))
    return (0.3 * bursts * coloured).clip(-1, 1).astype("float32")


def cosine(a, b):
    """The smallest cosine between the rows of a and b."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()
