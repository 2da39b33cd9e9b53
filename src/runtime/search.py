"""The likest of many voiceprints: a pass over 8-bit integers in half the dimensions rules most of them out, and the cosines
of the rest are computed. Nothing is approximate: what is ruled out is so by a bound."""

from collections.abc import Iterable

import numpy as np

from src.runtime import engine

_BLOCK = 8192  # voiceprints multiplied at once: their sums fit into a processor's first cache
# Integers of voiceprints, and of the probe, are at most this far from 0, or from _ZERO: sums of two of their products then
# fit into the 16 bits that processors without VNNI have for them.
_MOST, _PROBE, _ZERO = 127, 63, 64
_SAMPLE = 20_000  # voiceprints that the dimensions are chosen on
_ROUNDING = 1e-5  # of sums in float32


class Index:
    """Voiceprints, length-normalised, for `best`. For each it takes 4.5 bytes a dimension and 20 more.

    The dimensions of the first pass are the half of the principal components with the most energy, rotated so that it
    spreads evenly. With v and q for voiceprint and probe in them, v = scale * code + error, so that the cosine is within
    |error of v| + |error of q| + |rest of v| * |rest of q| of the product of the codes, where a rest is what lies in the
    other dimensions. ONNX Runtime multiplies.
    """

    def __init__(self, parts: Iterable[tuple[np.ndarray, np.ndarray]], size: int):
        """parts: (ids, int64 [n], voiceprints, float32 [n, dim]) in turn; those beyond `size` are left out."""
        self.ids, self.voiceprints = np.zeros(size, np.int64), np.zeros((size, 0), np.float32)
        start = 0
        for ids, vectors in parts:
            if not start:
                self.voiceprints = np.zeros((size, vectors.shape[1]), np.float32)
            stop = min(start + len(ids), size)
            self.ids[start:stop], self.voiceprints[start:stop] = ids[: stop - start], vectors[: stop - start]
            start = stop
        self.ids, self.voiceprints = self.ids[:start], self.voiceprints[:start]
        self._encode()

    def _encode(self):
        size, dim = self.voiceprints.shape
        leading = -(-dim // 2)
        self._axes = _axes(self.voiceprints[:: -(-size // _SAMPLE)] if size else self.voiceprints, leading)
        blocks = -(-size // _BLOCK)
        self._codes = np.zeros((blocks, leading, _BLOCK), np.int8)
        self._scales, self._shifts, self._rests = (np.zeros(size, np.float32) for _ in range(3))
        self._error = 0.0  # the longest
        for block in range(blocks):
            part = slice(block * _BLOCK, min(size, (block + 1) * _BLOCK))
            turned = self.voiceprints[part] @ self._axes
            scales = np.maximum(np.abs(turned).max(axis=1), 1e-9) / _MOST
            codes = np.rint(turned / scales[:, None])
            self._codes[block, :, : len(codes)] = codes.T
            self._scales[part], self._shifts[part] = scales, _ZERO * scales * codes.sum(axis=1)
            self._rests[part] = np.sqrt(np.maximum(1 - np.square(turned).sum(axis=1), 0) + _ROUNDING)
            self._error = max(self._error, float(np.linalg.norm(turned - scales[:, None] * codes, axis=1).max()))

    def __len__(self) -> int:
        return len(self.ids)

    def best(
        self, probe: np.ndarray, number: int, gains: np.ndarray | None = None, offsets: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `number` voiceprints with the highest scores: (their positions, int [m], the scores, float64 [m]), falling.

        probe: float [dim], length-normalised. A score is the cosine or, with gains, float [n] above 0, and offsets, float [n],
        gain * cosine + offset.
        """
        if not len(self):
            return np.zeros(0, int), np.zeros(0)
        middles, rest, error = self._products(probe)
        reach, most = error + rest * float(self._rests.max()), 1.0
        if gains is not None and offsets is not None:
            middles, most = gains * middles + offsets, float(gains.max())
        # The scores of some that are likely high tell how high the others have to reach.
        some = np.flatnonzero(middles >= _reached(middles, number))
        least = np.sort(self._scores(some, probe, gains, offsets))[-number:][0] - _ROUNDING
        chosen = np.flatnonzero(middles >= least - most * reach)
        reaches = error + rest * self._rests[chosen]
        chosen = chosen[middles[chosen] + (reaches if gains is None else gains[chosen] * reaches) >= least]
        scores = self._scores(chosen, probe, gains, offsets)
        order = np.argsort(-scores, kind="stable")[:number]
        return chosen[order], scores[order]

    def _products(self, probe):
        """What is known of cosines with a probe: they lie around these values, float32 [n], at most as far off as the second
        value times the voiceprint's own rest and the third together."""
        turned = probe.astype(np.float32) @ self._axes
        scale = max(np.abs(turned).max(), 1e-9) / _PROBE
        codes = np.rint(turned / scale)
        sums = engine.integer_product((codes + _ZERO).astype(np.uint8)[None], self._codes)
        middles = np.multiply(sums.reshape(-1)[: len(self)], self._scales, dtype=np.float32)
        middles -= self._shifts
        middles *= np.float32(scale)
        rest = float(np.sqrt(max(1 - float(turned @ turned), 0) + _ROUNDING))
        return middles, rest, float(np.linalg.norm(turned - scale * codes)) + self._error + _ROUNDING

    def _scores(self, chosen, probe, gains, offsets):
        cosines = self.voiceprints[chosen] @ probe.astype(np.float64)
        return cosines if gains is None or offsets is None else gains[chosen] * cosines + offsets[chosen]


def _axes(vectors, number):
    """An orthonormal basis, float32 [dim, number], of the principal components of vectors with the most energy, none of
    which has much more of it than another."""
    _, components = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(number, number)))
    return (components[:, ::-1][:, :number] @ turn).astype(np.float32)


def _reached(values, number):
    """A value that at least `number` of the values reach, or all do: quicker than the `number`-th highest."""
    if len(values) <= number:
        return values.min()
    width = max(1, min(1024, len(values) // (2 * number)))  # the `number`-th of the highest of each `width`
    highest = values[: len(values) // width * width].reshape(-1, width).max(axis=1)
    return np.partition(highest, -number)[-number]
