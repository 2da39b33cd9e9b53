// Speech as the model hears it: 16 kHz, mono, in [-1, 1]. The same steps and limits as src/runtime/audio.py.

export const SAMPLE_RATE = 16000;
export const LONGEST = 60; // seconds that the model hears at once
const WINDOWS = 5; // of that length that a recording has at most
const LOWEST_RATE = 8000;
const SHORTEST = 0.3; // seconds
const SILENCE = 1e-4; // standard deviation
const CLIPPED = 0.01; // share of the samples that stay at the peak
const QUIET = 0.01; // peak under which few steps of quantisation look like clipping
const SAME_SOUND = 0.8; // correlation of the levels of two channels below which they hold different sounds
const OPPOSITE = -0.7; // correlation of two channels below which they cancel each other out
const MARGIN = 0.25; // seconds before a cut that the resampling filter may look ahead
// The filter: nothing is lost up to PASSED of the lower of the two Nyquist frequencies, and all beyond it, as soxr (HQ).
const PASSED = 0.9136;
const REJECTION = 120; // dB

export class AudioError extends Error {}

// channels: Float32Array of each, full scale 1, at `rate` Hz. Gives { samples: Float32Array, differ: whether the channels hold
// different sounds }. Throws AudioError where it is no speech that can be used.
export function prepare(channels, rate) {
  if (rate < LOWEST_RATE) throw new AudioError(`sample rate: ${rate} Hz, under ${LOWEST_RATE} Hz`);
  channels = channels.map((channel) => channel.subarray(0, Math.ceil((WINDOWS * LONGEST + MARGIN) * rate)));
  if (!channels.length || !channels[0].length) throw new AudioError("empty");
  if (!channels.every((channel) => channel.every(Number.isFinite))) throw new AudioError("NaN or infinite samples");
  const scale = Math.max(1, ...channels.map(peak));
  let speech = new Float32Array(channels[0].length);
  for (const channel of channels) channel.forEach((value, i) => { speech[i] += value / scale; });
  speech = speech.map((value) => value / channels.length);
  const offset = mean(speech);
  if (Math.abs(offset) > deviation(speech)) speech = fitted(speech.map((value) => value - offset));
  if (rate !== SAMPLE_RATE) speech = fitted(resampled(speech, rate));
  speech = speech.subarray(0, WINDOWS * LONGEST * SAMPLE_RATE);
  if (speech.length < SHORTEST * SAMPLE_RATE) throw new AudioError(`too short: ${(speech.length / SAMPLE_RATE).toFixed(2)} s`);
  if (deviation(speech) < SILENCE) throw new AudioError("silent");
  const clipped = Math.max(...channels.map(clippedShare));
  if (clipped >= CLIPPED) throw new AudioError(`clipped: ${Math.round(100 * clipped)} % of the samples stay at the peak`);
  const samples = speech.map((value) => Math.min(32767, Math.max(-32768, nearest(32768 * value))) / 32768);
  return { samples, differ: channelsDiffer(channels, rate) };
}

// Samples in as few parts, equal ones but for a sample, as the model hears at once.
export function windows(samples) {
  const count = Math.ceil(samples.length / (LONGEST * SAMPLE_RATE));
  const [size, rest] = [Math.floor(samples.length / count), samples.length % count]; // the first `rest` have one more
  const start = (i) => i * size + Math.min(i, rest);
  return Array.from({ length: count }, (_, i) => samples.subarray(start(i), start(i + 1)));
}

// At SAMPLE_RATE, by a Kaiser-windowed sinc.
export function resampled(samples, rate) {
  const divisor = commonDivisor(rate, SAMPLE_RATE);
  const [up, down] = [SAMPLE_RATE / divisor, rate / divisor];
  const nyquist = Math.min(1, SAMPLE_RATE / rate); // the lower one, in units of the input's
  const half = Math.ceil((REJECTION - 7.95) / (2.285 * Math.PI * (1 - PASSED) * nyquist) / 2);
  const weights = Array.from({ length: up }, (_, phase) => filter(phase / up, half, (nyquist * (1 + PASSED)) / 2));
  const result = new Float32Array(Math.round((samples.length * up) / down));
  for (let i = 0; i < result.length; i++) {
    const at = Math.floor((i * down) / up);
    const taps = weights[(i * down) % up];
    const first = at - half + 1; // of the input, what the first weight is for
    const end = Math.min(2 * half, samples.length - first);
    let sum = 0;
    for (let k = Math.max(0, -first); k < end; k++) sum += taps[k] * samples[first + k];
    result[i] = sum;
  }
  return result;
}

// Weights of the inputs from half - 1 before to half behind, for a place that is `fraction` behind an input.
function filter(fraction, half, cutoff) {
  const beta = 0.1102 * (REJECTION - 8.7);
  const taps = Float64Array.from({ length: 2 * half }, (_, k) => {
    const x = k - half + 1 - fraction;
    const sinc = x ? Math.sin(Math.PI * cutoff * x) / (Math.PI * x) : cutoff;
    return sinc * bessel(beta * Math.sqrt(Math.max(0, 1 - (x / half) ** 2)));
  });
  const sum = taps.reduce((total, value) => total + value);
  return taps.map((value) => value / sum);
}

// The modified Bessel function of the first kind and order 0.
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

// Whether channels hold different sounds, as the two sides of a call, or cancel each other out when averaged.
export function channelsDiffer(channels, rate) {
  const levels = channels.map(deviation);
  const loudest = channels[levels.indexOf(Math.max(...levels))];
  const others = channels.filter((channel, i) => channel !== loudest && levels[i] > 0.1 * Math.max(...levels));
  const size = Math.floor(rate / 40); // 25 ms
  const frames = Math.floor(loudest.length / size);
  if (frames < 2) return false;
  const envelope = (channel) => Float64Array.from({ length: frames }, (_, i) => {
    const frame = channel.subarray(i * size, (i + 1) * size);
    return Math.sqrt(frame.reduce((sum, value) => sum + value * value, 0) / size);
  });
  return others.some((channel) =>
    correlation(envelope(channel), envelope(loudest)) < SAME_SOUND || correlation(channel, loudest) < OPPOSITE);
}

function clippedShare(channel) {
  const top = peak(channel);
  if (top < QUIET) return 0;
  const at = (i) => Math.abs(channel[i]) === top;
  let count = 0;
  for (let i = 1; i < channel.length - 1; i++) count += at(i - 1) && at(i) && at(i + 1);
  return count / channel.length;
}

const commonDivisor = (a, b) => (b ? commonDivisor(b, a % b) : a);
const peak = (values) => values.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function deviation(values) {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / values.length);
}

function correlation(a, b) {
  const [middleA, middleB] = [mean(a), mean(b)];
  const product = a.reduce((sum, value, i) => sum + (value - middleA) * (b[i] - middleB), 0);
  return product / a.length / deviation(a) / deviation(b);
}

function fitted(samples) {
  const top = peak(samples);
  return top > 1 ? samples.map((value) => value / top) : samples;
}

// To the nearest whole number, halves to the even one, as NumPy rounds.
function nearest(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
