"""What a layer read of channels that are gone, predicted from those that stay: least squares over frames of calibration
speech, folded into its weights."""

from dataclasses import dataclass

import torch

RIDGE = 1e-4  # of the mean variance of a channel: there are many times as many frames as channels
TINY = 1e-12


@dataclass(frozen=True)
class Inputs:
    """What a layer reads over calibration speech: mean [channels] and covariance [channels, channels] over frames."""

    mean: torch.Tensor
    covariance: torch.Tensor

    def of(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The covariance of some channels, int [n], with others, int [m]: [n, m]."""
        return self.covariance[one][:, other]

    def predict(self, weight: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight [outputs, n, ...], what is added to the bias [outputs], both float64) of a layer that reads only the
        channels `kept`, int [n], from its weight [outputs, channels, ...] for all of them."""
        dropped = torch.ones(len(self.mean), dtype=torch.bool).index_fill(0, kept, False).nonzero().flatten()
        onto = torch.linalg.solve(self.of(kept, kept), self.of(kept, dropped))
        constant = self.mean[dropped] - self.mean[kept] @ onto
        weight, rest = weight.double()[:, kept], weight.double()[:, dropped]
        return (
            weight + torch.einsum("od...,cd->oc...", rest, onto),
            torch.einsum("od...,d->o...", rest, constant).flatten(1).sum(1),
        )


class Sums:
    """Sums over frames of values [1, channels, 1, frames], and of their products."""

    def __init__(self) -> None:
        self.frames = 0
        self.first: torch.Tensor = torch.zeros(())
        self.products: torch.Tensor = torch.zeros(())

    def add(self, values: torch.Tensor) -> None:
        values = values[0, :, 0].double()
        self.frames += values.shape[1]
        self.first = self.first + values.sum(1)
        self.products = self.products + values @ values.T

    def inputs(self) -> Inputs:
        """Of all that was added."""
        mean = self.first / self.frames
        covariance = self.products / self.frames - mean[:, None] * mean
        # Nothing may vary, as over silence.
        covariance.diagonal().add_(max(RIDGE * covariance.diagonal().mean().item(), TINY))
        return Inputs(mean, covariance)
