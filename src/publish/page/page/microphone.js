// The microphone, without what browsers do to it for calls, and not coded.

// Starts; told(whole seconds) is called each second. Gives { stop }, which gives { samples: Float32Array, rate }.
export async function record(told) {
  if (!navigator.mediaDevices) throw new Error("this browser gives it only to pages from this device or by https");
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const blocks = [];
  let length = 0;
  recorder.port.onmessage = ({ data }) => {
    const before = Math.floor(length / context.sampleRate);
    blocks.push(data);
    length += data.length;
    const now = Math.floor(length / context.sampleRate);
    if (now > before) told(now);
  };
  context.createMediaStreamSource(stream).connect(recorder);
  return {
    stop() {
      recorder.port.onmessage = null;
      stream.getTracks().forEach((track) => track.stop());
      context.close();
      const samples = new Float32Array(length);
      let at = 0;
      for (const block of blocks) {
        samples.set(block, at);
        at += block.length;
      }
      return { samples, rate: context.sampleRate };
    },
  };
}

// Samples as a WAV file, to be played.
export function wav(samples, rate) {
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, value) => [...value].forEach((sign, i) => header.setUint8(at + i, sign.charCodeAt(0)));
  const size = 2 * samples.length;
  text(0, "RIFF"); header.setUint32(4, 36 + size, true); text(8, "WAVEfmt "); header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); header.setUint16(22, 1, true); header.setUint32(24, rate, true); header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true); header.setUint16(34, 16, true); text(36, "data"); header.setUint32(40, size, true);
  const pcm = Int16Array.from(samples, (value) => Math.round(32767 * Math.max(-1, Math.min(1, value))));
  return new Blob([header, pcm], { type: "audio/wav" });
}
