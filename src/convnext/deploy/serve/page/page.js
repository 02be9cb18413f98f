// The page of `convnext serve`: the server answers.

import { begin } from "./cards.js";

const TRIES = 6; // where the server is busy
const LEAST = 0.05; // score of the objects that are asked for: the slider hides the others
const MOST = 200; // objects of an image

const networks = async () => {
  const answer = await fetch("/v1/models");
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
};

const address = ({ name, task }, explain) => {
  const query = new URLSearchParams({ model: name });
  if (task === "classification") query.set("top", 5);
  if (explain !== null) query.set("explain", explain);
  if (task === "detection") { query.set("score", LEAST); query.set("top", MOST); }
  if (task === "segmentation") query.set("mask", "true");
  return `/v1/predict?${query}`;
};

const answered = async (network, card, explain, signal) => {
  const form = new FormData();
  form.append("images", card.file, card.name);
  for (let tries = 1; ; tries += 1) {
    const answer = await fetch(address(network, explain), { method: "POST", body: form, signal }).catch(() => {
      throw new Error("The server does not answer, or the file is no longer there.");
    });
    if (answer.status === 503 && tries < TRIES) {
      await new Promise((wake) => setTimeout(wake, 1000 * (Number(answer.headers.get("Retry-After")) || 1)));
      signal.throwIfAborted();
      continue;
    }
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    const timing = /total;dur=([\d.]+)/.exec(answer.headers.get("Server-Timing") ?? "");
    return { answer: found.results[0], ms: timing ? Number(timing[1]) : 0 };
  }
};

begin({ networks, answered, sideBySide: 4, nothing: "The server does not answer", dropped: "the server fetches nothing." });
