// An image file as the network sees it: upright, opaque, its shorter side as the evaluation of the run has it.
//
// The resize is Pillow's bicubic (Resample.c) with its whole numbers, so that the pixels are those of `convnext predict` to
// the bit, but for images higher than twice their width, of which Pillow 13 shrinks the columns first. The network could do
// it too, and takes ten times as long for a photo. Rows are read a strip at a time: 12 megapixels would take 150 MB at once.

const BITS = 22; // of a weight behind the point
const STRIP = 1 << 18; // pixels that are read at once
const REACH = 2; // of the cubic, in pixels
const LONG = 16; // times its shorter side, from which on the middle of an image is made alone: no network sees more of it

// {data, height, width} of `file`: (H, W, channels) bytes. `about`: 'channels', and what the sides become, 'size_px' both
// ('warp') or 'shorter_px' the shorter one. Raises where the browser cannot read it.
export const pixelsOf = async (file, about) => {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This browser cannot read it as an image.");
  }
  try {
    return resized(bitmap, about.channels, sides(bitmap, about));
  } finally {
    bitmap.close();
  }
};

const sides = ({ width, height }, { warp, size_px, shorter_px }) => {
  if (warp) return { width: size_px, height: size_px };
  const longer = (side, other) => Math.floor(shorter_px * side / other);
  return {
    width: width <= height ? shorter_px : longer(width, height),
    height: height <= width ? shorter_px : longer(height, width),
  };
};

// Of a side of so many pixels those that are made: all, or the middle of a long one. What is left out, a multiple of two at
// each end, changes nothing for a crop of the middle.
const middle = (side, other) => {
  const spare = side > LONG * other ? 2 * Math.floor((side - other) / 4) : 0;
  return { side, first: spare, count: side - 2 * spare };
};

const resized = (bitmap, channels, sides) => {
  const across = weights(bitmap.width, middle(sides.width, sides.height));
  const down = weights(bitmap.height, middle(sides.height, sides.width));
  const [width, height] = [across.lengths.length, down.lengths.length];
  const narrow = new Uint8Array(down.span * width * channels);
  const rows = Math.max(1, Math.floor(STRIP / across.span));
  const canvas = new OffscreenCanvas(across.span, Math.min(rows, down.span));
  const pen = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  pen.fillStyle = "#fff";
  for (let top = 0; top < down.span; top += rows) {
    const many = Math.min(rows, down.span - top);
    pen.fillRect(0, 0, across.span, many); // what is transparent lies over white
    pen.drawImage(bitmap, across.from, down.from + top, across.span, many, 0, 0, across.span, many);
    const { data } = pen.getImageData(0, 0, across.span, many);
    const strip = channels === 1 ? greys(data) : data;
    const step = channels === 1 ? 1 : 4;
    for (let row = 0; row < many; row += 1) {
      shrink(strip, row * across.span * step, step, narrow, (top + row) * width * channels, channels, across, channels);
    }
  }
  const data = new Uint8Array(height * width * channels);
  const line = width * channels;
  for (let place = 0; place < line; place += 1) shrink(narrow, place, line, data, place, line, down, 1);
  return { data, height, width };
};

// One line of pixels: `source` from `from` on, a pixel every `step`, into `target` likewise, `channels` side by side.
const shrink = (source, from, step, target, to, stride, { starts, lengths, values, most }, channels) => {
  for (let place = 0; place < starts.length; place += 1) {
    const length = lengths[place];
    for (let channel = 0; channel < channels; channel += 1) {
      let sum = 1 << (BITS - 1);
      let at = from + starts[place] * step + channel;
      for (let tap = place * most, end = tap + length; tap < end; tap += 1, at += step) sum += source[at] * values[tap];
      const value = sum >> BITS;
      target[to + place * stride + channel] = value < 0 ? 0 : value > 255 ? 255 : value;
    }
  }
};

// Of each of `count` pixels, from the `first` on, of a side of `length` that becomes `side`: which it is a sum of, and by which
// whole numbers of 1 / 2^22. They are counted from the pixel `from`, the first of `span` that have a part in any.
const weights = (length, { side, first: left, count }) => {
  const scale = length / side;
  const wide = Math.max(1, scale);
  const most = Math.ceil(REACH * wide) * 2 + 1;
  const found = { starts: new Int32Array(count), lengths: new Int32Array(count), values: new Int32Array(count * most), most };
  for (let place = 0; place < count; place += 1) {
    const centre = (left + place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - REACH * wide + 0.5));
    const end = Math.min(length, Math.trunc(centre + REACH * wide + 0.5));
    const row = Array.from({ length: end - first }, (_, tap) => cubic((tap + first - centre + 0.5) * (1 / wide)));
    const whole = row.reduce((sum, value) => sum + value, 0);
    found.starts[place] = first;
    found.lengths[place] = end - first;
    row.forEach((value, tap) => {
      const share = value / whole * (1 << BITS);
      found.values[place * most + tap] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
  }
  const from = found.starts[0];
  const span = found.starts[count - 1] + found.lengths[count - 1] - from;
  return { ...found, starts: found.starts.map((start) => start - from), from, span };
};

// Keys' cubic with a = -1/2.
const cubic = (distance) => {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
};

// Luma by ITU-R 601, in whole numbers as Pillow has it.
const greys = (data) => {
  const found = new Uint8Array(data.length / 4);
  for (let place = 0; place < found.length; place += 1) {
    const at = 4 * place;
    found[place] = (19595 * data[at] + 38470 * data[at + 1] + 7471 * data[at + 2] + 32768) >> 16;
  }
  return found;
};
