// Embeddings in WebAssembly on one thread, as a browser gives them to most pages: node embed.mjs MODEL
// For every request on stdin, two little-endian uint32 [batch, samples] and as many float32, an answer on stdout: a
// uint32 [dim] and batch * dim float32.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web/wasm";

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(process.argv[2]), { executionProviders: ["wasm"] });
let waiting = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  waiting = Buffer.concat([waiting, chunk]);
  while (waiting.length >= 8) {
    const [batch, samples] = [waiting.readUInt32LE(0), waiting.readUInt32LE(4)];
    const end = 8 + 4 * batch * samples;
    if (waiting.length < end) break;
    const values = new Float32Array(new Uint8Array(waiting.subarray(8, end)).buffer);
    waiting = waiting.subarray(end);
    const { embedding } = await session.run({ waveform: new ort.Tensor("float32", values, [batch, samples]) });
    process.stdout.write(new Uint8Array(Uint32Array.of(embedding.dims[1]).buffer));
    process.stdout.write(new Uint8Array(embedding.data.slice().buffer));
  }
}
