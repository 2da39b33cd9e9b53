// The page: recordings in, answers out.

import { elements } from "./card.js";
import { decode } from "./decode.js";
import { LONGEST, SAMPLE_RATE } from "./prepare.js";
import { record, wav } from "./microphone.js";
import { calibrated, llr, probability, score, identified, threshold } from "./scoring.js";

const find = (selector, within = document) => within.querySelector(selector);
const worker = new Worker(new URL("encoder.js", import.meta.url), { type: "module" });
const waiting = new Map(); // by id, what to do with the worker's answer
const pair = { first: null, second: null };
const enrolled = new Map(); // name -> recordings
let probe = null;
let config = null;

function say(text, wrong = false) {
  find("#status").textContent = text;
  find("#status").classList.toggle("wrong", wrong);
}

async function start() {
  say("Loading the model and its runtime…");
  const ready = new Promise((resolve, reject) => {
    worker.onerror = () => reject(new Error("the worker that runs the model does not start"));
    worker.onmessage = ({ data }) => {
      if (data.ready) resolve(data);
      else if (data.failed) reject(new Error(data.failed));
      else {
        const { resolve: answered, reject: failed } = waiting.get(data.id);
        waiting.delete(data.id);
        if (data.error) failed(new Error(data.error));
        else answered(data);
      }
    };
  });
  try {
    const answer = await fetch("config.json");
    if (!answer.ok) throw new Error(`config.json cannot be read: ${answer.status}`);
    config = await answer.json();
    const { sha256 } = await ready;
    if (sha256 && sha256 !== config.sha256) throw new Error("config.json is about another model than model.onnx");
    say(`Ready: ${config.model}, ${config.metrics.size_mb.toFixed(2)} MB, on one thread of this device.`);
  } catch (error) {
    say(`The model cannot be used: ${error.message}.`, true);
    document.querySelectorAll(".choose :is(input, button)").forEach((control) => { control.disabled = true; });
  }
}

async function showCard() {
  const answer = await fetch("README.md");
  if (!answer.ok) return;
  find("#card").replaceChildren(...elements(await answer.text()));
  find("#warnings").replaceChildren(...document.querySelectorAll("#card .warning"));
}

// A recording with its embedding: { name, blob, embedding, samples, differ, milliseconds }.
function heard(name, blob, channels, rate) {
  const id = crypto.getRandomValues(new Uint32Array(1))[0];
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve: (data) => resolve({ ...data, name, blob }), reject });
    worker.postMessage({ id, channels, rate });
  });
}

async function fromFile(file) {
  const { channels, rate } = await decode(await file.arrayBuffer());
  return heard(file.name, file, channels, rate);
}

// A place for a recording: chosen, dropped or recorded. used(recording, file name without its ending) is called with each.
function slot(panel, used) {
  panel.append(find("#slot").content.cloneNode(true));
  const [input, button, notice] = ["input[type=file]", ".record", ".notice"].map((selector) => find(selector, panel));
  const title = find("h2", panel).textContent;
  input.multiple = "several" in panel.dataset;
  input.ariaLabel = `Choose a file: ${title}`;
  const label = (text) => { button.textContent = text; button.ariaLabel = `${text}: ${title}`; };
  label("Record");

  async function take(making) {
    notice.textContent = "";
    panel.ariaBusy = "true";
    try {
      const recording = await making.promise;
      show(panel, recording);
      used(recording);
    } catch (error) {
      notice.textContent = `${making.name}: ${error.message}`;
    } finally {
      panel.ariaBusy = "false";
    }
  }

  async function takeFiles(files) {
    for (const file of files) await take({ name: file.name, promise: fromFile(file) });
  }

  input.onchange = async () => {
    const files = [...input.files];
    input.value = ""; // the same file may be chosen again
    await takeFiles(files);
  };
  panel.ondragover = (event) => { event.preventDefault(); panel.classList.add("over"); };
  panel.ondragleave = () => panel.classList.remove("over");
  panel.ondrop = (event) => {
    event.preventDefault();
    panel.classList.remove("over");
    takeFiles([...event.dataTransfer.files].slice(0, input.multiple ? undefined : 1));
  };

  let recorder = null;
  async function stop() {
    const ended = recorder;
    recorder = null;
    button.ariaPressed = "false";
    label("Record");
    const { samples, rate } = ended.stop();
    await take({ name: "recording", promise: heard("recording", wav(samples, rate), [samples], rate) });
  }
  button.onclick = async () => {
    if (recorder) return stop();
    notice.textContent = "";
    button.disabled = true;
    try {
      recorder = await record((seconds) => {
        label(`Stop (${seconds} s)`);
        if (seconds >= LONGEST && recorder) stop();
      });
      button.ariaPressed = "true";
      label("Stop");
    } catch (error) {
      notice.textContent = `the microphone cannot be used: ${error.message}`;
    } finally {
      button.disabled = false;
      button.focus();
    }
  };
}

function show(panel, { name, blob, samples, differ, milliseconds }) {
  find(".heard", panel).hidden = false;
  find(".wave path", panel).setAttribute("d", outline(samples));
  const note = differ ? "; its channels differ (two speakers, or opposite polarity), and are averaged" : "";
  find(".about", panel).textContent = `${name}: ${seconds(samples)} s, ${Math.round(milliseconds)} ms${note}`;
  const player = find("audio", panel);
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.ariaLabel = `Play ${name}`;
}

const seconds = (samples) => (samples.length / SAMPLE_RATE).toFixed(1);

// The waveform as a path in a box of 400 by 100, as loud as the box is high.
function outline(samples, columns = 200) {
  const size = Math.max(1, Math.ceil(samples.length / columns));
  const tops = [], bottoms = [];
  const loudest = samples.reduce((top, value) => Math.max(top, Math.abs(value)), 1e-4);
  for (let start = 0; start < samples.length; start += size) {
    const part = samples.subarray(start, start + size);
    const [low, high] = part.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [0, 0]);
    const x = ((400 * start) / samples.length).toFixed(1);
    tops.push(`${x},${(50 - 48 * (high / loudest) - 0.5).toFixed(1)}`);
    bottoms.unshift(`${x},${(50 - 48 * (low / loudest) + 0.5).toFixed(1)}`);
  }
  return `M${[...tops, ...bottoms].join("L")}Z`;
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

function facts(rows) {
  return element("dl", {}, ...rows.flatMap(([name, value, note]) => [
    element("dt", {}, name),
    element("dd", {}, value, ...(note ? [" ", element("small", {}, note)] : [])),
  ]));
}

// Where a score lies between -1 and 1, and the threshold.
function scale(value, limit, kind) {
  const [bar, at, mark] = [element("div", { className: "scale" }), element("i", { className: kind }), element("b", {})];
  const place = (score) => `${50 + 50 * Math.max(-1, Math.min(1, score))}%`;
  at.style.left = place(value);
  mark.style.left = place(limit);
  bar.append(mark, at);
  bar.role = "img";
  bar.ariaLabel = `Score ${value.toFixed(4)} on a scale from −1 to 1, threshold ${limit.toFixed(4)}`;
  return bar;
}

const uncalibrated = () => element("p", { className: "hint" },
  `No decision: the threshold is of scores after ${config.normalisation}, which takes a cohort.`);

function time(recordings) {
  const total = recordings.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const length = recordings.reduce((sum, { samples }) => sum + samples.length, 0) / SAMPLE_RATE;
  return ["Time", `${Math.round(total)} ms`, `for ${length.toFixed(1)} s of audio`];
}

function verify() {
  if (!pair.first || !pair.second) return;
  const value = score([pair.first.embedding], pair.second.embedding);
  const panel = find("#verified");
  if (!calibrated(config)) {
    panel.replaceChildren(facts([["Score", value.toFixed(4), "cosine"], time(Object.values(pair))]), uncalibrated());
    return;
  }
  const limit = threshold(config);
  const [decision, kind] = value >= limit ? ["Same speaker", "same"] : ["Different speakers", "different"];
  panel.replaceChildren(
    element("p", { className: `decision ${kind}` }, decision),
    scale(value, limit, kind),
    facts([
      ["Score", value.toFixed(4), `cosine; the same speaker from ${limit.toFixed(4)} on`],
      ["Probability", percent(probability(llr(config, value))), "of one speaker, if one is as likely beforehand as two"],
      ["Log-likelihood ratio", signed(llr(config, value)), "natural; above 0 for the same speaker"],
      time(Object.values(pair)),
    ]),
  );
}

function identify() {
  const panel = find("#identified");
  if (!probe || !enrolled.size) return;
  const scores = [...enrolled]
    .map(([name, recordings]) => [name, score(recordings.map(({ embedding }) => embedding), probe.embedding)])
    .sort((a, b) => b[1] - a[1]);
  const [best, value] = scores[0];
  const limit = identified(config, scores.length);
  const known = calibrated(config) && value >= limit;
  const columns = ["Name", "Score", ...(calibrated(config) ? ["Probability"] : [])];
  const rows = scores.map(([name, each]) => [
    name, each.toFixed(4), ...(calibrated(config) ? [percent(probability(llr(config, each)))] : []),
  ]);
  panel.replaceChildren(
    ...(calibrated(config)
      ? [
          element("p", { className: `decision ${known ? "same" : "different"}` }, known ? best : "Unknown"),
          element("p", { className: "hint" }, `The likeliest is taken where its score is ${limit.toFixed(4)} or more.`),
        ]
      : [uncalibrated()]),
    element("table", {},
      element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell)))))),
  );
}

function enrol(recording) {
  const typed = find("#name").value.trim();
  const name = typed || recording.name.replace(/\.[^.]*$/, "");
  enrolled.set(name, [...(enrolled.get(name) ?? []), recording]);
  list();
}

function list() {
  find("#nobody").hidden = enrolled.size > 0;
  find("#enrolled").replaceChildren(...[...enrolled].map(([name, recordings]) => {
    const remove = element("button", { type: "button", className: "button small", ariaLabel: `Remove ${name}` }, "Remove");
    remove.onclick = () => {
      enrolled.delete(name);
      list();
      find("#name").focus();
    };
    const count = recordings.length === 1 ? "1 recording" : `${recordings.length} recordings`;
    return element("li", {}, element("span", {}, name), element("span", { className: "hint" }, count), remove);
  }));
  if (!enrolled.size) find("#identified").replaceChildren();
  identify();
}

slot(find("[data-slot=first]"), (recording) => { pair.first = recording; verify(); });
slot(find("[data-slot=second]"), (recording) => { pair.second = recording; verify(); });
slot(find("[data-slot=enrolment]"), enrol);
slot(find("[data-slot=probe]"), (recording) => { probe = recording; identify(); });
document.querySelectorAll("[name=mode]").forEach((choice) => {
  choice.onchange = () => ["verify", "identify"].forEach((id) => { find(`#${id}`).hidden = id !== choice.value; });
});
// A file that misses its place would be opened in the place of the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
showCard();
start();
