// Scores of embeddings, and what they mean by config.json.

const normalised = (vector) => {
  const length = Math.hypot(...vector);
  return Array.from(vector, (value) => value / length);
};

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

// The mean of embeddings, each divided by its length, divided by its own.
export function meanDirection(embeddings) {
  const units = embeddings.map(normalised);
  return normalised(units[0].map((_, i) => units.reduce((sum, unit) => sum + unit[i], 0)));
}

// The cosine of an embedding to the mean direction of the enrolments.
export const score = (enrolments, embedding) => dot(meanDirection(enrolments), normalised(embedding));

// Natural-log likelihood ratio of a score: same speaker over different ones.
export const llr = (config, value) => config.scale * value + config.offset;

// That it is the same speaker, where that is as likely beforehand as not.
export const probability = (ratio) => 1 / (1 + Math.exp(-ratio));

const FPIR = 0.01; // of searches for people who are not enrolled, the share that names somebody

// The lowest score of the same speaker, of two recordings.
export const threshold = (config) => config.threshold ?? config.threshold_eer;

// The lowest score of a speaker who is identified among `size`, as src/runtime/calibration.py computes it.
export function identified(config, size) {
  if (!config.nontargets) return threshold(config);
  const each = -Math.expm1(Math.log1p(-FPIR) / size);
  let [low, high] = [-10, 10];
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (upperTail(middle) > each) low = middle; else high = middle;
  }
  return config.nontargets.location + config.nontargets.scale * low;
}

// Of the standard normal distribution, with a relative error of 1.2e-7 (erfcc of Numerical Recipes, 6.2).
function upperTail(z) {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + x / 2);
  const terms = [0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223];
  const tail = (t * Math.exp(-x * x + terms.reduce((sum, term) => sum * t + term))) / 2;
  return z < 0 ? 1 - tail : tail;
}

// Whether config.json's calibration and threshold are of the plain cosine, which is what is computed here.
export const calibrated = (config) => config.normalisation === "none";
