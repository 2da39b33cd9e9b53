// What the browser decodes of a file, at the file's own rate: the conversion to 16 kHz is prepare.js's.

import { AudioError } from "./prepare.js";

const USUAL = 48000; // where the file does not tell: what Opus is decoded at, and enough for any other

// bytes: ArrayBuffer of a file. Gives { channels: [Float32Array], rate }. Throws AudioError where the browser cannot.
export async function decode(bytes) {
  if (!bytes.byteLength) throw new AudioError("empty");
  const rate = statedRate(new DataView(bytes)) ?? USUAL;
  try {
    const context = new OfflineAudioContext(1, 1, rate); // it converts what it decodes to its own rate
    const sound = await context.decodeAudioData(bytes);
    return { channels: Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i)), rate };
  } catch {
    throw new AudioError("this browser cannot decode it");
  }
}

// The sample rate that the header of a WAV, FLAC, Ogg Vorbis, MP3, AAC or MP4 file states; undefined for any other.
export function statedRate(view) {
  const text = (at, length) =>
    at + length > view.byteLength ? "" : String.fromCharCode(...new Uint8Array(view.buffer, at, length));
  let at = 0;
  if (text(0, 3) === "ID3") // a tag before the audio, its size in four times seven bits
    at = 10 + [6, 7, 8, 9].reduce((size, place) => (size << 7) | view.getUint8(place), 0);
  if (at + 44 > view.byteLength) return undefined;
  if (text(0, 4) === "RIFF" || text(0, 4) === "RF64") {
    for (at = 12; at + 16 <= view.byteLength; at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) % 2))
      if (text(at, 4) === "fmt ") return view.getUint32(at + 12, true);
    return undefined;
  }
  if (text(at, 4) === "fLaC") return view.getUint32(at + 18) >>> 12;
  if (text(0, 4) === "OggS" && text(29, 6) === "vorbis") return view.getUint32(40, true);
  if (text(4, 4) === "ftyp") {
    for (at = 0; at + 32 < view.byteLength; at++)
      if (view.getUint32(at) === 0x6d703461 && view.getUint16(at + 28) >= 8000) return view.getUint16(at + 28); // mp4a
    return undefined;
  }
  const header = view.getUint32(at);
  if (header >>> 20 !== 0xfff && header >>> 21 !== 0x7ff) return undefined;
  if (((header >>> 17) & 3) === 0) // AAC
    return [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000][(header >>> 10) & 15];
  const halved = [4, undefined, 2, 1][(header >>> 19) & 3]; // by the version of MPEG
  return [44100, 48000, 32000][(header >>> 10) & 3] / halved || undefined;
}
