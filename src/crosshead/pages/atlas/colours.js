// @ts-check
/* From weights to colours: dark violet to yellow for shares, blue over white to red for signed maps. */

/** @typedef {import("./engine.js").Block} Block */

const SHARES = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const SIGNED = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199], [239, 138, 98], [178, 24, 43]];

/**
 * @param {number} share 0 to 1; of a signed map 0 is the lowest, 0.5 zero, 1 the highest
 * @param {boolean} signed
 * @returns {[number, number, number]}
 */
export function colourOf(share, signed) {
  const stops = signed ? SIGNED : SHARES;
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(place), stops.length - 2);
  const t = place - i;
  const mixed = stops[i].map((low, c) => Math.round(low + t * (stops[i + 1][c] - low)));
  return [mixed[0], mixed[1], mixed[2]];
}

const TABLES = [false, true].map((signed) => Array.from({ length: 256 }, (_, i) => colourOf(i / 255, signed)));

/**
 * Paints one row of weights onto a canvas of a pixel a token; tokens outside the window stay clear.
 * @param {HTMLCanvasElement} canvas
 * @param {Block} block
 * @param {Float32Array} row the tokens before the grid first
 * @param {number} window
 * @param {number} highest what the end of the scale stands for
 * @param {boolean} signed
 */
export function paint(canvas, block, row, window, highest, signed) {
  const { rows, columns, prefix } = block;
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(columns, rows);
  const table = TABLES[signed ? 1 : 0];
  const factor = highest > 0 ? 1 / highest : 0;
  for (let n = prefix; n < row.length; n += 1) {
    const place = block.places ? block.places[window * block.tokens + n] : n - prefix;
    if (place < 0) continue;
    const share = signed ? 0.5 + 0.5 * row[n] * factor : row[n] * factor;
    const colour = table[Math.min(Math.max(Math.round(share * 255), 0), 255)];
    image.data.set([colour[0], colour[1], colour[2], 255], place * 4);
  }
  context.putImageData(image, 0, 0);
}
