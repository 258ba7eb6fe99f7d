// From an image file to the pixels that a student sees, as `client predict` makes them with Pillow: the right way
// up, on white, and squeezed into a square by the arithmetic of Pillow 13 (earlier ones round elsewhere).

const MOST_PIXELS = 50e6;
const ROWS = 1024; // drawn at a time: browsers bound the size of a canvas
const JPEG = [0xff, 0xd8, 0xff];
const BITS = 22; // of Pillow's fixed-point weights

/**
 * The RGB bytes of a file's image, squeezed or stretched into a square of `side` pixels: Uint8Array of
 * side * side * 3.
 */
export async function decodeSquare(file, side) {
  const bitmap = await opened(file);
  let picture;
  try {
    picture = read(bitmap);
  } finally {
    bitmap.close();
  }
  if (await isJpeg(file)) {
    // Pillow has a much larger JPEG decoded at a fraction of its size.
    const scale = Math.min(Math.floor(picture.width / (2 * side)), Math.floor(picture.height / (2 * side)));
    const fraction = [8, 4, 2].find((each) => scale >= each) ?? 1;
    picture = reduced(picture, fraction, fraction);
  }
  return squeezed(picture, side);
}

async function opened(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("not a picture that this browser can read");
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    const size = `${bitmap.width} x ${bitmap.height}`;
    bitmap.close();
    throw new Error(`${size} pixels are too many`);
  }
  return bitmap;
}

async function isJpeg(file) {
  const head = new Uint8Array(await file.slice(0, JPEG.length).arrayBuffer());
  return JPEG.every((byte, index) => head[index] === byte);
}

function read(bitmap) {
  const { width, height } = bitmap;
  const data = new Uint8Array(width * height * 3);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.min(ROWS, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  for (let top = 0; top < height; top += ROWS) {
    const rows = Math.min(ROWS, height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    const drawn = context.getImageData(0, 0, width, rows).data;
    if (drawn[3] !== 255) {
      throw new Error(`${width} x ${height} pixels are too many for this browser`);
    }
    for (let from = 0, to = top * width * 3; from < drawn.length; from += 4, to += 3) {
      data[to] = drawn[from];
      data[to + 1] = drawn[from + 1];
      data[to + 2] = drawn[from + 2];
    }
  }
  return { width, height, data };
}

// `Image.resize((side, side), BILINEAR, reducing_gap=3.0)`
function squeezed(picture, side) {
  const factors = [picture.width, picture.height].map((size) => Math.floor(size / side / 3) || 1);
  const small = reduced(picture, ...factors);
  // Not whole pixels, perhaps; Pillow keeps them in 32 bits.
  const across = Math.fround(picture.width / factors[0]);
  const down = Math.fround(picture.height / factors[1]);
  const { width, height, data } = small;
  if (height > side && height - side > 2 * (width - side)) {
    const low = resampled(data, [1, height, width * 3], down, side);
    return resampled(low, [side, width, 3], across, side);
  }
  const narrow = resampled(data, [height, width, 3], across, side);
  return resampled(narrow, [1, height, side * 3], down, side);
}

// `Image.reduce((across, down))`: the mean of each cell, rounded as Pillow rounds it.
function reduced(picture, across, down) {
  if (across === 1 && down === 1) {
    return picture;
  }
  const width = Math.ceil(picture.width / across);
  const height = Math.ceil(picture.height / down);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, to = 0; y < height; y++) {
    const bottom = Math.min(picture.height, (y + 1) * down);
    for (let x = 0; x < width; x++, to += 3) {
      const right = Math.min(picture.width, (x + 1) * across);
      const [red, green, blue] = sums(picture, x * across, right, y * down, bottom);
      const count = (right - x * across) * (bottom - y * down);
      const multiplier = Math.floor(2 ** 24 / count);
      const mean = (sum) => Math.floor(((sum + Math.floor(count / 2)) * multiplier) / 2 ** 24);
      data[to] = mean(red);
      data[to + 1] = mean(green);
      data[to + 2] = mean(blue);
    }
  }
  return { width, height, data };
}

function sums(picture, left, right, top, bottom) {
  let [red, green, blue] = [0, 0, 0];
  for (let y = top; y < bottom; y++) {
    const end = (y * picture.width + right) * 3;
    for (let at = (y * picture.width + left) * 3; at < end; at += 3) {
      red += picture.data[at];
      green += picture.data[at + 1];
      blue += picture.data[at + 2];
    }
  }
  return [red, green, blue];
}

/**
 * One pass of Pillow's bilinear filter, along the middle axis of bytes of shape (outer, length, inner): its
 * `extent`, which may be a part of a pixel less than its length, becomes `size`.
 */
function resampled(data, [outer, length, inner], extent, size) {
  if (length === size && extent === size) {
    return data;
  }
  const result = new Uint8Array(outer * size * inner);
  const weights = weightsOf(length, extent, size);
  for (let o = 0; o < outer; o++) {
    weights.forEach(({ first, shares }, to) => {
      const start = (o * length + first) * inner;
      const target = (o * size + to) * inner;
      for (let i = 0; i < inner; i++) {
        let sum = 2 ** (BITS - 1);
        for (let k = 0; k < shares.length; k++) {
          sum += data[start + k * inner + i] * shares[k];
        }
        result[target + i] = Math.min(255, Math.floor(sum / 2 ** BITS));
      }
    });
  }
  return result;
}

// Of each place of the result: the first pixel that adds to it, and what it and those after it add.
function weightsOf(length, extent, size) {
  const scale = extent / size;
  const support = Math.max(1, scale);
  return Array.from({ length: size }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(length, Math.trunc(center + support + 0.5));
    const heights = Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - center + 0.5) * (1 / support))),
    );
    const total = heights.reduce((sum, height) => sum + height, 0);
    return { first, shares: heights.map((height) => Math.trunc(0.5 + (height / total) * 2 ** BITS)) };
  });
}
