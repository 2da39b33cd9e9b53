// A worker that prepares audio and runs the model, on one thread, while the page stays responsive. It posts { ready } or { failed }
// once; then, for every { id, channels, rate }, { id, embedding, samples, differ, milliseconds } or { id, error }.

import { AudioError, prepare, SAMPLE_RATE, windows } from "./prepare.js";

const folder = new URL("../", import.meta.url);
let session, ort;

async function start() {
  try {
    ort = await import(new URL("runtime/ort.wasm.min.mjs", folder));
  } catch {
    throw new Error("the folder runtime is missing, which make demo puts beside the page");
  }
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("runtime/", folder).href;
  const answer = await fetch(new URL("model.onnx", folder));
  if (!answer.ok) throw new Error(`model.onnx cannot be read: ${answer.status}`);
  const model = await answer.arrayBuffer();
  const digest = globalThis.crypto?.subtle ? await crypto.subtle.digest("SHA-256", model) : undefined;
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  await embedding(new Float32Array(3 * SAMPLE_RATE).map((_, i) => Math.sin(i * i))); // the first run is slower than others
  return digest && Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function embedding(samples) {
  const parts = [];
  for (const part of windows(samples)) {
    const output = await session.run({ waveform: new ort.Tensor("float32", part, [1, part.length]) });
    parts.push(output.embedding.data.slice());
  }
  const values = parts[0].map((_, i) => parts.reduce((sum, part) => sum + part[i], 0) / parts.length);
  if (!values.every(Number.isFinite) || !values.some(Boolean)) throw new AudioError("the embedding is zero, or not finite");
  return values;
}

const started = start();
started.then((sha256) => postMessage({ ready: true, sha256 }), (error) => postMessage({ failed: error.message }));

onmessage = async ({ data: { id, channels, rate } }) => {
  try {
    await started;
    const begin = performance.now();
    const { samples, differ } = prepare(channels, rate);
    const values = await embedding(samples);
    postMessage({ id, embedding: values, samples, differ, milliseconds: performance.now() - begin });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
