// The network, beside the page, so that this never waits for it: files in, answers out, one after the other.

import * as runtime from "./onnxruntime.js";
import { answerOf } from "./answer.js";
import { pixelsOf } from "./pixels.js";

const near = (name) => new URL(name, import.meta.url).href;

const opened = async () => {
  runtime.env.wasm.numThreads = 1; // more need headers that not every server sends
  runtime.env.wasm.wasmPaths = { wasm: near("./onnxruntime.wasm") };
  const found = await fetch(near("./network.json"));
  if (!found.ok) throw new Error(`network.json is missing (${found.status})`);
  const about = await found.json();
  const session = await runtime.InferenceSession.create(near("./model.onnx"), { executionProviders: ["wasm"] });
  const ask = async ({ data, height, width }) => {
    const images = new runtime.Tensor("uint8", data, [1, height, width, about.channels]);
    return session.run({ images });
  };
  const side = about.shorter_px ?? about.size_px;
  await ask({ data: new Uint8Array(side * side * about.channels), height: side, width: side }); // the first takes longer
  return { about, ask };
};

const ready = opened();
ready.then(({ about }) => postMessage({ about }), (error) => postMessage({ error: error.message }));

let turn = ready.catch(() => null);
onmessage = ({ data: { number, file, name } }) => {
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
