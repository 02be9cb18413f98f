// Images on a page, each with its answer: who answers, a server or the browser itself, is for `begin` to be told.
// Nothing is loaded from elsewhere, and nothing is kept.

import { element, listed, painted, strongest } from "./drawn.js";

const SHOWN_PX = 1600; // longer side of an image as it is kept for drawing: photos would take 50 MB each
const START = { classification: 0, detection: 50, segmentation: 0 }; // of the slider, in hundredths

const at = (id) => document.getElementById(id);
const state = { host: null, networks: [], network: null, cards: [], waiting: [], asking: 0, made: 0, early: [] };

const threshold = () => at("threshold").value / 100;
const say = (text) => { at("status").textContent = text; };

// The network

const choose = (network) => {
  state.network = network;
  at("title").textContent = network.name;
  document.title = `${network.name} · convnext`;
  const many = network.classes.length;
  at("about").textContent = `${network.task}, ${many.toLocaleString("en")} ${many === 1 ? "class" : "classes"}`;
  at("threshold").value = START[network.task];
  at("slider-name").textContent = network.task === "segmentation" ? "Shares of at least" : "Scores of at least";
  at("drawing").hidden = network.task === "classification";
  at("explaining").hidden = !network.explains;
  showThreshold();
  for (const card of state.cards) ask(card, "");
};

const showThreshold = () => { at("threshold-value").textContent = `${at("threshold").value}%`; };

// `host` answers: its `networks()` are [{name, task, classes, colours, explains}], its `answered(network, card, explain,
// signal)` is {answer, ms}, an object of `predict --json` and the milliseconds that it took; `explain` is a class, "" for the
// likeliest, or null. It works on `sideBySide` images at a time, and says with `nothing` why there is no network, and with
// `dropped` why it takes files alone.
export const begin = async (host) => {
  state.host = host;
  say("Loading the network …");
  try {
    state.networks = await host.networks();
  } catch (error) {
    say(`${host.nothing}: ${error.message}`);
    return;
  }
  say("");
  for (const { name } of state.networks) at("network").append(new Option(name, name));
  at("choice").hidden = state.networks.length < 2;
  choose(state.networks[0]);
  add(state.early);
};

// Images

const add = (files) => {
  const images = [...files].filter((file) => file instanceof Blob);
  if (!state.network) state.early.push(...images);
  if (!images.length || !state.network) return;
  for (const file of images) {
    const card = { file, name: file.name || "pasted image", bitmap: null, size: null, answer: null, error: "", ms: 0, stop: null };
    card.number = state.made += 1;
    state.cards.push(card);
    build(card);
    ask(card, "");
    shown(file).then((found) => Object.assign(card, found), () => { card.unseen = true; }).then(() => render(card));
  }
  arrange();
};

const shown = async (file) => {
  const bitmap = await createImageBitmap(file);
  const size = { width: bitmap.width, height: bitmap.height };
  const ratio = SHOWN_PX / Math.max(size.width, size.height);
  if (ratio >= 1) return { bitmap, size };
  const [resizeWidth, resizeHeight] = [size.width, size.height].map((side) => Math.max(1, Math.round(side * ratio)));
  const smaller = await createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "high" });
  bitmap.close();
  return { bitmap: smaller, size };
};

const build = (card) => {
  card.place = element("li", "", "card");
  card.canvas = element("canvas");
  card.canvas.setAttribute("role", "img");
  card.caption = element("h2", card.name);
  card.note = element("p", "", "note");
  card.list = element("ol", "", "bars");
  const remove = element("button", "×", "remove");
  remove.type = "button";
  remove.setAttribute("aria-label", `Remove ${card.name}`);
  remove.addEventListener("click", () => drop(card));
  const view = element("div", "", "view");
  view.append(card.canvas, remove);
  card.place.append(view, card.caption, card.note, card.list);
  at("cards").append(card.place);
  render(card);
};

const drop = (card) => {
  const next = card.place.nextElementSibling ?? card.place.previousElementSibling; // who goes by the keyboard stays there
  card.stop?.abort();
  card.bitmap?.close();
  card.place.remove();
  state.cards = state.cards.filter((other) => other !== card);
  state.waiting = state.waiting.filter((other) => other !== card);
  arrange();
  (next?.querySelector(".remove") ?? at("files")).focus();
};

const arrange = () => {
  at("controls").hidden = !state.cards.length;
  at("drop").classList.toggle("small", state.cards.length > 0);
  count();
};

const count = () => {
  const done = state.cards.filter((card) => !card.busy).length;
  const many = state.cards.length;
  say(many ? `${done} of ${many} ${many === 1 ? "image" : "images"} answered.` : "");
};

// Asking

// `why`: the class whose activation map is wanted, where maps are shown; "": of the likeliest. What is known stays meanwhile.
const ask = (card, why) => {
  card.stop?.abort();
  if (card.network !== state.network) Object.assign(card, { answer: null, overlay: null });
  Object.assign(card, { busy: true, error: "", why });
  if (!state.waiting.includes(card)) state.waiting.push(card);
  render(card);
  next();
};

const next = () => {
  while (state.asking < state.host.sideBySide && state.waiting.length) {
    const card = state.waiting.shift();
    state.asking += 1;
    const stop = card.stop = new AbortController();
    asked(card, stop.signal).catch((error) => {
      if (!stop.signal.aborted) card.error = error.message;
    }).finally(() => {
      state.asking -= 1;
      if (!stop.signal.aborted) {
        card.busy = false;
        render(card);
        count();
      }
      next();
    });
  }
};

const asked = async (card, signal) => {
  const { network, host } = state;
  const found = await host.answered(network, card, explains(network) ? card.why : null, signal);
  const overlay = await painted(network, found.answer);
  if (!signal.aborted) Object.assign(card, { ...found, network, overlay });
};

const explains = (network) => network.explains && at("explain").checked;

// Showing

const render = (card) => {
  const { answer, bitmap, canvas, size } = card;
  card.place.setAttribute("aria-busy", String(card.busy));
  card.place.classList.toggle("failed", Boolean(card.error));
  const rows = answer ? listed(card.network, answer, threshold()) : [];
  const why = answer?.explained && explains(card.network) ? answer.explained[0].label : "";
  const drawn = bitmap && answer && (card.network.task === "classification" ? why : at("drawn").checked);
  if (bitmap) {
    const width = Math.min(bitmap.width, 2 * Math.max(320, card.place.clientWidth));
    canvas.width = width;
    canvas.height = Math.max(1, Math.round(width * bitmap.height / bitmap.width));
    const pen = canvas.getContext("2d");
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    if (drawn) card.overlay?.(pen, size, threshold());
  }
  canvas.hidden = !bitmap;
  const told = rows.slice(0, 5).map(({ name, value }) => `${name} ${(100 * value).toFixed(1)}%`).join(", ");
  const doubt = answer?.answered === false ? "not sure" : ""; // below the score from which answers are promised
  const among = answer?.set ? `one of: ${answer.set.join(", ")}` : "";
  const text = [doubt, told].filter(Boolean).join(": ") || (answer ? "nothing" : "no answer yet");
  const first = answer?.frames ? `the first of ${answer.frames.toLocaleString("en")} frames or pages` : "";
  const rests = why && bitmap ? `what speaks for ${why} is strongest ${strongest(answer, size.width, size.height)}` : "";
  canvas.setAttribute("aria-label", `${card.name}: ${card.error || [text, rests].filter(Boolean).join("; ")}`);
  card.note.className = card.error ? "note error" : "note";
  const pixels = bitmap ? `${size.width} × ${size.height}` : card.unseen ? "this browser cannot show it" : "";
  const time = answer ? `${card.ms < 10 ? card.ms.toFixed(1) : Math.round(card.ms)} ms` : "";
  card.note.textContent = card.error || [doubt, among, rests, first, pixels, card.busy ? "asking …" : time].filter(Boolean).join(" · ");
  const held = card.list.contains(document.activeElement) ? document.activeElement.value : null;
  card.list.replaceChildren(...rows.map((row) => bar(row, answer.explained && explains(card.network) ? card : null, why)));
  if (held !== null) [...card.list.querySelectorAll("input")].find(({ value }) => value === held)?.focus();
  if (answer && !rows.length) card.list.append(element("li", "nothing above the threshold", "none"));
};

// A row; where `card` shows a map, with a button that takes that of its class.
const bar = ({ name, value, colour }, card, why) => {
  const row = element("li");
  const track = element("span", "", "track");
  const fill = element("span", "", "fill");
  fill.style.width = `${100 * value}%`;
  if (colour) fill.style.background = colour;
  track.append(fill);
  const title = element("span", name, "name");
  const left = card ? chooser(card, name, name === why, title) : title;
  row.append(left, track, element("span", `${(100 * value).toFixed(1)}%`, "value"));
  return row;
};

const chooser = (card, name, chosen, title) => {
  const label = element("label", "", "chooses");
  const input = Object.assign(element("input"), { type: "radio", name: `why-${card.number}`, value: name, checked: chosen });
  input.setAttribute("aria-label", `Show what speaks for ${name}`);
  input.addEventListener("change", () => ask(card, name));
  label.append(input, title);
  return label;
};

const renderAll = () => { for (const card of state.cards) render(card); };

const save = () => {
  const results = state.cards.map((card) => card.answer ?? { path: card.name, error: card.error || "not answered" });
  const { name, task } = state.network;
  const text = JSON.stringify({ model: name, task, results }, null, 1);
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${name}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

// Folders

// All files of an entry of a drop, those of folders below it too.
const inside = async (entry) => {
  if (entry.isFile) return [await new Promise((done, failed) => { entry.file(done, failed); })];
  const reader = entry.createReader();
  const found = [];
  for (let some = [null]; some.length;) { // a part of a large folder at a time
    some = await new Promise((done, failed) => { reader.readEntries(done, failed); });
    found.push(...await Promise.all(some.map(inside)));
  }
  return found.flat();
};

const readable = ({ name, type }) =>
  type.startsWith("image/") || at("files").accept.split(",").some((ending) => name.toLowerCase().endsWith(ending));

const unfold = async (entries) => {
  say("Looking into the folder …");
  try {
    const images = (await Promise.all(entries.map(inside))).flat().filter(readable);
    if (images.length) add(images.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true })));
    else say("The folder holds no images.");
  } catch (error) {
    say(`The folder cannot be read: ${error.message}`);
  }
};

// The camera

const photograph = async () => {
  if (!navigator.mediaDevices?.getUserMedia) { at("shot").click(); return; }
  try {
    at("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    at("camera").showModal();
  } catch (error) {
    say(`There is no camera to use: ${error.message}`);
  }
};

const take = async () => {
  const video = at("video");
  const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  at("camera").close();
  if (blob) add([new File([blob], "photo.jpg", { type: "image/jpeg" })]);
};

const darken = () => {
  for (const track of at("video").srcObject?.getTracks() ?? []) track.stop();
  at("video").srcObject = null;
};

// What people do

const picked = (event) => { add(event.target.files); event.target.value = ""; };
at("files").addEventListener("change", picked);
at("shot").addEventListener("change", picked);
at("photograph").addEventListener("click", photograph);
at("take").addEventListener("click", take);
at("leave").addEventListener("click", () => at("camera").close());
at("camera").addEventListener("close", darken);
at("network").addEventListener("change", (event) => choose(state.networks.find(({ name }) => name === event.target.value)));
at("threshold").addEventListener("input", () => { showThreshold(); renderAll(); });
at("drawn").addEventListener("change", renderAll);
at("explain").addEventListener("change", () => {
  for (const card of state.cards) if (!at("explain").checked || card.answer?.explained) render(card); else ask(card, "");
});
at("save").addEventListener("click", save);
at("clear").addEventListener("click", () => { for (const card of [...state.cards]) drop(card); });
document.addEventListener("paste", (event) => { if (event.clipboardData?.files.length) add(event.clipboardData.files); });
document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const entries = [...event.dataTransfer?.items ?? []].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  if (entries.some(({ isDirectory }) => isDirectory)) unfold(entries);
  else if (event.dataTransfer?.files.length) add(event.dataTransfer.files);
  else say(`Only files can be dropped here: ${state.host.dropped}`);
});
