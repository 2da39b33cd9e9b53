import numpy as np
import torch

from src.encoder.load import prepare_speechbrain
from src.encoder.networks import xvector
from src.encoder.save import save_checkpoint

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
XVECTOR = {"in_channels": 24, "tdnn_channels": [16, 16, 16, 16, 48], "lin_neurons": 20}
# As wide as the encoder that the repository ships, so that a file is nearly all weights, with a third of its layers.
SHALLOW = {
    **NETWORK,
    "channels": [192, 192, 192, 576],
    "attention_channels": 96,
    "res2net_scale": 2,
    "se_channels": 96,
    "lin_neurons": 192,
}
RESNET = {"input_size": 80, "channels": [8, 8, 16, 16], "block_sizes": [1, 2, 1, 1], "lin_neurons": 20}


def random_ecapa(network, seed=0, mild=False):
    """An ECAPA_TDNN as `random_network` makes it."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    return random_network(ECAPA_TDNN, network, seed, mild)


def random_xvector(network, seed=0, mild=False):
    """An Xvector as `random_network` makes it, without the noise that it adds to its mean."""
    from speechbrain.lobes.models.Xvector import Xvector

    model = random_network(Xvector, network, seed, mild)
    xvector.settle(model)
    return model


def random_resnet(network, seed=0, mild=False):
    """A ResNet as `random_network` makes it."""
    from speechbrain.lobes.models.ResNet import ResNet

    return random_network(ResNet, network, seed, mild)


def random_network(kind, network, seed=0, mild=False):
    """A network whose BatchNorm has scales of both signs, some zero, and any running statistics.

    mild: with BatchNorm as after training, for which 8 bits are enough.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = kind(**network)
        for module in model.modules():
            if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                continue
            if mild:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
            else:
                module.weight.normal_()
                module.weight[torch.rand(len(module.weight)) < 0.15] = 0
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.1, 4)
    return model.eval()


def saved(folder, arguments, model, dtype=torch.float32):
    """A folder in SpeechBrain's pretrained layout with a network made with these arguments."""
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

    classifier = Classifier(arguments["lin_neurons"], out_neurons=3)
    save_checkpoint(folder, arguments, model, classifier, ["a", "b", "c"], dtype)
    return folder


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
