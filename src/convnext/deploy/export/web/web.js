// The page without a server: the browser itself answers, in a worker. Images never leave it.

// From a blob, so that the policy of the page holds for it too: it may ask nobody but the place that it came from.
const source = `import ${JSON.stringify(new URL("./worker.js", import.meta.url).href)};`;
const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
const worker = new Worker(address, { type: "module" });
const waiting = new Map(); // number of a question -> its promise

const loaded = new Promise((found, failed) => {
  worker.onerror = (event) => failed(new Error(event.message || "a file is missing"));
  worker.onmessage = ({ data: { number, about, answer, ms, error } }) => {
    if (about) found([about]);
    else if (number === undefined) failed(new Error(error));
    else {
      const { done, broken } = waiting.get(number);
      waiting.delete(number);
      if (error) broken(new Error(error));
      else done({ answer, ms });
    }
  };
});

loaded.catch(() => null); // told by `begin`, which may come later
const { begin } = await import("./cards.js"); // after the worker, which takes longer

let asked = 0;
const answered = (network, { file, name }) => new Promise((done, broken) => {
  asked += 1;
  waiting.set(asked, { done, broken });
  worker.postMessage({ number: asked, file, name });
});

begin({ networks: () => loaded, answered, sideBySide: 1, nothing: "The network cannot be loaded", dropped: "nothing is fetched." });
