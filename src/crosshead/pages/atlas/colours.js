// @ts-check
/* From weights to colours: dark violet to yellow for shares, blue over white to red for signed maps, violet over white
   to orange for shares against even attention. */

/** @typedef {import("./engine.js").Block} Block */

const SHARES = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const SIGNED = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199], [239, 138, 98], [178, 24, 43]];

const EVEN = [[45, 0, 75], [94, 68, 139], [158, 148, 195], [216, 218, 235], [247, 247, 247], [254, 224, 182], [241, 163, 64], [199, 98, 10], [127, 59, 8]];

/** @typedef {"shares" | "signed" | "even"} Palette */
const PALETTES = { shares: SHARES, signed: SIGNED, even: EVEN };

/** The scale against even attention ends at this many times an even share, and at one part in as many. */
export const MOST_TIMES = 16;

/**
 * @param {number} share 0 to 1; of a signed map 0 is the lowest, 0.5 zero, 1 the highest
 * @param {Palette} palette
 * @returns {[number, number, number]}
 */
export function colourOf(share, palette) {
  const stops = PALETTES[palette];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(place), stops.length - 2);
  const t = place - i;
  const mixed = stops[i].map((low, c) => Math.round(low + t * (stops[i + 1][c] - low)));
  return [mixed[0], mixed[1], mixed[2]];
}

/** @param {Palette} palette */
export function gradient(palette) {
  const stops = Array.from({ length: 17 }, (_, i) => colourOf(i / 16, palette)).map(([r, g, b]) => `rgb(${r} ${g} ${b})`);
  return `linear-gradient(90deg, ${stops.join(",")})`;
}

// With one entry in the middle, which is zero, or even.
/** @type {Map<Palette, [number, number, number][]>} */
const TABLES = new Map(
  /** @type {Palette[]} */ (["shares", "signed", "even"]).map((name) => [name, Array.from({ length: 257 }, (_, i) => colourOf(i / 256, name))]),
);

/**
 * Where a weight lies on its scale, 0 to 1.
 * @param {number} weight
 * @param {Scale} scale
 */
function placed(weight, scale) {
  if (scale.palette === "even") return 0.5 + Math.log2(Math.max(weight, 1e-12) / scale.unit) / (2 * Math.log2(MOST_TIMES));
  const share = scale.unit > 0 ? weight / scale.unit : 0;
  return scale.palette === "signed" ? 0.5 + 0.5 * share : share;
}

/**
 * ``unit``: the weight at the end of the scale; against even attention, the even share in its middle.
 * @typedef {{palette: Palette, unit: number}} Scale
 */

/**
 * Paints one row of weights onto a canvas of a pixel a token; tokens outside the window stay clear.
 * @param {HTMLCanvasElement} canvas
 * @param {Block} block
 * @param {Float32Array} row the tokens before the grid first
 * @param {number} window
 * @param {Scale} scale
 */
export function paint(canvas, block, row, window, scale) {
  const { rows, columns, prefix } = block;
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(columns, rows);
  const table = /** @type {[number, number, number][]} */ (TABLES.get(scale.palette));
  for (let n = prefix; n < row.length; n += 1) {
    const place = block.places ? block.places[window * block.tokens + n] : n - prefix;
    if (place < 0) continue;
    const colour = table[Math.min(Math.max(Math.round(placed(row[n], scale) * 256), 0), 256)];
    image.data.set([colour[0], colour[1], colour[2], 255], place * 4);
  }
  context.putImageData(image, 0, 0);
}
