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

// The lowest score of the same speaker; names: of how many enrolled speakers the score is the best, 1 for a pair.
export function threshold(config, names = 1) {
  return config.threshold_eer;
}

// Whether config.json's calibration and threshold are of the plain cosine, which is what is computed here.
export const calibrated = (config) => config.normalisation === "none";
