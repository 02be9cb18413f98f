// The network, beside the page, so that this never waits for it: files in, answers out, one after the other.
//
// All that is loaded is asked for at once, and the runtime starts, on an empty network, while the real one comes.

import * as runtime from "./onnxruntime.js";
import { answerOf } from "./answer.js";
import { pixelsOf } from "./pixels.js";

const IDLE_MS = 1500; // without an image, after which the network runs once: its first run takes twice as long as the next
const EMPTY = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZVoPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0="; // y = x, an ONNX file

const near = (name) => new URL(name, import.meta.url).href;

const loaded = async (name) => {
  const found = await fetch(near(name));
  if (!found.ok) throw new Error(`${name} is missing (${found.status})`);
  return found;
};

const session = (network, graphOptimizationLevel) =>
  runtime.InferenceSession.create(network, { executionProviders: ["wasm"], graphOptimizationLevel });

const started = async () => {
  runtime.env.wasm.numThreads = 1; // more need headers that not every server sends
  runtime.env.wasm.wasmPaths = { wasm: near("onnxruntime.wasm") };
  const empty = await session(Uint8Array.from(atob(EMPTY), (sign) => sign.charCodeAt(0)), "disabled");
  return empty.release();
};

const opened = async () => {
  const [about, network] = await Promise.all([
    loaded("network.json").then((found) => found.json()),
    loaded("model.onnx").then((found) => found.arrayBuffer()),
    started(),
  ]);
  const level = about.precision === "fp32" ? "disabled" : "all"; // float32 gains nothing here that its time is worth
  const { channels, shorter_px, size_px } = about;
  const run = await session(new Uint8Array(network), level);
  const ask = async ({ data, height, width }) => {
    const images = new runtime.Tensor("uint8", data, [1, height, width, channels]);
    return run.run({ images });
  };
  const side = shorter_px ?? size_px;
  const prepare = () => ask({ data: new Uint8Array(side * side * channels), height: side, width: side });
  return { about, ask, prepare };
};

const ready = opened();
let asked = false;
let turn = ready.then(({ about, prepare }) => {
  postMessage({ about });
  setTimeout(() => { if (!asked) turn = prepare().catch(() => null); }, IDLE_MS);
}, (error) => postMessage({ error: error.message }));

onmessage = ({ data: { number, file, name } }) => {
  asked = true;
  turn = turn.then(async () => {
    try {
      const { about, ask } = await ready;
      const began = performance.now();
      const found = await ask(await pixelsOf(file, about));
      const [logits, scores, answers] = ["logits", "scores", "answers"].map((output) => found[output].data);
      postMessage({ number, answer: { path: name, ...answerOf(about, logits, scores, answers) }, ms: performance.now() - began });
    } catch (error) {
      postMessage({ number, error: error.message });
    }
  });
};
