"""SpeechBrain's Fbank and sentence mean normalisation as a plain graph of matrix products."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError


class FrontEnd(nn.Module):
    """waveform [batch, samples], 16 kHz in [-1, 1] -> log-mel features [batch, frames, mels], 0 on average.

    Equal to SpeechBrain's `Fbank` followed by `InputNormalization(norm_type="sentence", std_norm=False)`:
    frame t is centred at sample t * hop, with zeros beyond the ends; Hamming window; power spectrum; mel
    filters; decibels, floored at `amin` and at `top_db` below the loudest value of the utterance.

    The discrete Fourier transform of a real frame is two matrix products, of its even part with cosines and
    of its odd part with sines. These two and the mel filters are built from a few hundred numbers each:
    stored in an exported file they would be most of a small model, and engines build them once, on loading.
    """

    window: torch.Tensor
    mel_centre: torch.Tensor
    mel_width: torch.Tensor
    frequency: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, fbank: Any):
        super().__init__()
        stft, mel = fbank.compute_STFT, fbank.compute_fbanks
        self.n_fft, self.hop = stft.n_fft, stft.hop_length
        self.top_db, self.amin, self.decibels = mel.top_db, mel.amin, mel.multiplier
        around = self.n_fft - stft.win_length
        self.register_buffer("window", F.pad(stft.window.cpu(), (around // 2, around - around // 2)))
        self.register_buffer("mel_centre", mel.f_central.cpu())
        self.register_buffer("mel_width", mel.band.cpu())
        self.register_buffer("frequency", mel.all_freqs_mat[0].cpu())
        phase = 2 * math.pi * torch.arange(self.n_fft, dtype=torch.float64) / self.n_fft
        self.register_buffer("cosine", phase.cos().float())
        self.register_buffer("sine", phase.sin().float())

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        frames = self._frames(waveform) * self.window
        half = self.n_fft // 2
        head, tail = frames[:, :, 1:half], frames[:, :, half + 1 :].flip(2)
        # The first and the middle sample have no mirror image.
        even = torch.cat([frames[:, :, :1], head + tail, frames[:, :, half : half + 1]], dim=2)
        bins = torch.arange(half + 1, device=waveform.device)
        phase = (bins[:, None] * bins) % self.n_fft
        real = even @ _lookup(self.cosine, phase)
        imaginary = (head - tail) @ _lookup(self.sine, phase[1:half])
        slope = (self.frequency[:, None] - self.mel_centre) / self.mel_width
        mel = torch.minimum(slope + 1, 1 - slope).clamp(min=0)
        power = (real.square() + imaginary.square()) @ mel
        level = power.clamp(min=self.amin).log() * (self.decibels / math.log(10))
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - self.top_db)
        return level - level.mean(dim=1, keepdim=True)

    def _frames(self, waveform):
        """[batch, samples] -> [batch, frames, n_fft]: runs of blocks, which neighbours share."""
        step = math.gcd(self.n_fft, self.hop)
        frames = waveform.shape[1] // self.hop + 1
        padded = F.pad(waveform, (self.n_fft // 2, self.n_fft // 2))
        stride, run = self.hop // step, self.n_fft // step
        blocks = (frames - 1) * stride + run
        grid = padded[:, : blocks * step].unflatten(1, (blocks, step))
        return torch.cat([grid[:, k : k + (frames - 1) * stride + 1 : stride] for k in range(run)], dim=2)


def _lookup(table, index):
    """table[index], exported as Gather; indexing is exported as GatherND, which OpenVINO runs every time."""
    return F.embedding(index, table[:, None]).squeeze(-1)


def check(compute_features: Any, mean_var_norm: Any, where: str = "encoder") -> None:
    """Raise InputError, naming `where`, when FrontEnd does not give what these SpeechBrain modules give."""
    kind = type(compute_features).__name__
    if kind != "Fbank":
        raise InputError(f"{where}: compute_features is {kind}; only Fbank is supported")
    for option in ("deltas", "context", "requires_grad"):
        if getattr(compute_features, option):
            raise InputError(f"{where}: Fbank with {option} is not supported; only plain log-mel is")
    shape = compute_features.compute_fbanks.filter_shape
    if shape != "triangular":
        raise InputError(f"{where}: Fbank with filter_shape {shape} is not supported; only triangular is")
    if compute_features.compute_STFT.n_fft % 2:
        raise InputError(f"{where}: Fbank with an odd n_fft is not supported")
    rate = compute_features.compute_STFT.sample_rate
    if rate != SAMPLE_RATE:
        raise InputError(f"{where}: the model's sample rate is {rate} Hz; only {SAMPLE_RATE} Hz is supported")
    kind = getattr(mean_var_norm, "norm_type", type(mean_var_norm).__name__)
    if kind != "sentence" or mean_var_norm.std_norm:
        std = " with std_norm" if getattr(mean_var_norm, "std_norm", False) else ""
        allowed = "only norm_type: sentence with std_norm: False is supported"
        raise InputError(f"{where}: mean_var_norm is {kind}{std}; {allowed}")
