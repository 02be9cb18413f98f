// What a network says of an image, as rows of text and as something that is drawn on the image.

const COVER = 0.45; // how much of a colour covers the image, as in the drawings of `convnext predict`

export const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};

const colourOf = (network, name) => network.colours[network.classes.indexOf(name)] ?? "";

// [{name, value, colour}] of an answer, from the first to the last, without those below `least`.
export const listed = (network, answer, least) => {
  const rows = {
    classification: () => answer.predictions.map(({ label, score }) => ({ name: label, value: score, colour: "" })),
    detection: () => grouped(network, answer.predictions.filter(({ score }) => score >= least)),
    segmentation: () => answer.shares.map(({ label, share }) => ({ name: label, value: share, colour: colourOf(network, label) })),
  }[network.task]();
  return rows.filter(({ value }) => value >= least);
};

// A row a class, with its best score; the others are on the image.
const grouped = (network, rows) => {
  const found = new Map();
  for (const { category, score } of rows) {
    const row = found.get(category) ?? { count: 0, value: score, colour: colourOf(network, category) };
    found.set(category, { ...row, count: row.count + 1 });
  }
  return [...found].map(([name, { count, ...row }]) => ({ name: count > 1 ? `${name} × ${count}` : name, ...row }));
};

// A function (pen, size, least) that draws what was found in an image of this width and height; null where there is nothing to draw.
export const painted = async (network, answer) => {
  if (network.task === "detection") return objects(network, answer.predictions);
  if (network.task === "segmentation") return map(await decoded(answer.mask));
  return answer.map ? reasons(await decoded(answer.map)) : null;
};

const decoded = async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
};

// An activation map over the image in greys, as the drawings of `convnext explain`.
const reasons = (image) => (pen) => {
  pen.save();
  pen.globalCompositeOperation = "saturation"; // that of black: none
  pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  pen.restore();
  pen.drawImage(image, 0, 0, pen.canvas.width, pen.canvas.height);
};

// Where a map is strongest, for those who do not see it: "at the top left".
export const strongest = ({ explained: [{ grid }], seen: [left, top, right, bottom] }, width, height) => {
  const most = Math.max(...grid.flat());
  if (most <= 0) return "nowhere";
  const row = grid.findIndex((line) => line.includes(most));
  const down = (top + (row + 0.5) / grid.length * (bottom - top)) / height;
  const across = (left + (grid[row].indexOf(most) + 0.5) / grid[row].length * (right - left)) / width;
  const third = (share, names) => names[Math.min(2, Math.max(0, Math.floor(3 * share)))];
  const place = [third(down, ["top", "", "bottom"]), third(across, ["left", "", "right"])].filter(Boolean).join(" ");
  return place ? `at the ${place}` : "in the middle";
};

const map = (image) => {
  return (pen) => {
    pen.save();
    pen.globalAlpha = COVER;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, 0, 0, pen.canvas.width, pen.canvas.height);
    pen.restore();
  };
};

const objects = (network, rows) => {
  const masks = new Map(); // row -> its mask, made when it is first shown
  return (pen, size, least) => {
    const scale = pen.canvas.width / size.width;
    const shown = rows.filter(({ score }) => score >= least).reverse(); // the best comes last, on top
    for (const row of shown) {
      const colour = colourOf(network, row.category);
      if (row.segmentation) {
        if (!masks.has(row)) masks.set(row, tinted(row.segmentation, colour));
        pen.drawImage(masks.get(row), 0, 0, pen.canvas.width, pen.canvas.height);
      }
    }
    for (const row of shown) box(pen, row, colourOf(network, row.category), scale, shown.length <= FEW);
  };
};

const FEW = 8; // objects, up to which each has its name: more would hide what they name

const box = (pen, { bbox, category, score }, colour, scale, few) => {
  const [x, y, width, height] = bbox.map((value) => value * scale);
  pen.lineWidth = Math.max(1.5, pen.canvas.width / 400);
  pen.strokeStyle = colour;
  pen.strokeRect(x, y, width, height);
  const size = Math.max(12, Math.round(pen.canvas.width / 45));
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const text = `${category} ${score.toFixed(2)}`;
  const wide = pen.measureText(text).width + size / 2;
  if (!few && width < wide / 2) return;
  const left = Math.max(0, Math.min(x, pen.canvas.width - wide));
  const top = y >= 1.3 * size ? y - 1.3 * size : y;
  pen.fillStyle = colour;
  pen.fillRect(left, top, wide, 1.3 * size);
  pen.fillStyle = dark(colour) ? "#fff" : "#000";
  pen.textBaseline = "middle";
  pen.fillText(text, left + size / 4, top + 0.68 * size);
};

const parts = (colour) => [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));

const dark = (colour) => {
  const [red, green, blue] = parts(colour);
  return 0.299 * red + 0.587 * green + 0.114 * blue < 140;
};

const tinted = ({ size: [height, width], counts }, colour) => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = canvas.getContext("2d");
  const data = pen.createImageData(width, height);
  const [red, green, blue] = parts(colour);
  let place = 0;
  runs(counts).forEach((length, number) => {
    const end = place + length;
    for (; place < end; place += 1) {
      if (number % 2 === 0) continue;
      const pixel = 4 * ((place % height) * width + Math.floor(place / height)); // down the columns
      data.data.set([red, green, blue, 255 * COVER], pixel);
    }
  });
  pen.putImageData(data, 0, 0);
  return canvas;
};

// The lengths of a mask's runs, of 0 first. COCO's compressed form: five bits a sign, the sixth says that more follow, and
// from the fourth number on the difference to the one before the last (pycocotools, maskApi.c).
export const runs = (text) => {
  const found = [];
  for (let place = 0; place < text.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = text.charCodeAt(place) - 48;
      value |= (bits & 31) << shift;
      more = Boolean(bits & 32);
      place += 1;
      shift += 5;
      if (!more && bits & 16 && shift < 32) value |= -1 << shift;
    }
    found.push(found.length > 2 ? value + found[found.length - 2] : value);
  }
  return found;
};
