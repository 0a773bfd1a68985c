// @ts-check
/* From the page's JSON to typed arrays. Numbers are base64; little-endian, as every browser's machine is. */

/** @typedef {import("./engine.js").Block} Block */
/** @typedef {import("./engine.js").Packed} Packed */
/** @typedef {{name: string, note: string, blocks: Block[]}} Run */
/** @typedef {{name: string, caption: string, width: number, height: number, src: string}} Picture */
/** @typedef {{pictures: Picture[], runs: Run[], numbers: number[]}} Page  numbers: of all runs' blocks, in order */

/**
 * @param {string} text
 * @returns {Page}
 */
export function readPage(text) {
  const raw = JSON.parse(text);
  const runs = raw.runs.map((/** @type {any} */ run) => ({ ...run, blocks: run.blocks.map(readBlock) }));
  /** @type {Set<number>} */
  const numbers = new Set(runs.flatMap((/** @type {Run} */ run) => run.blocks.map((block) => block.block)));
  return { pictures: raw.pictures, runs, numbers: [...numbers].sort((a, b) => a - b) };
}

/**
 * @param {any} raw
 * @returns {Block}
 */
function readBlock(raw) {
  return {
    ...raw,
    places: raw.places && new Int32Array(bytesOf(raw.places)),
    bias: raw.bias && packed(raw.bias),
    mask: raw.mask && new Uint8Array(bytesOf(raw.mask)),
    talking: raw.talking && floatsIn(raw.talking),
    landmarks: raw.landmarks && floatsIn(raw.landmarks),
    theta: raw.theta && floatsIn(raw.theta),
    sights: raw.sights.map(readSight),
  };
}

/** @param {any} raw */
function readSight(raw) {
  return { q: packed(raw.q), k: packed(raw.k), matrices: raw.matrices && packed(raw.matrices) };
}

/**
 * @param {any} raw
 * @returns {Packed}
 */
function packed(raw) {
  const buffer = bytesOf(raw.bytes);
  return { bytes: raw.bits === 16 ? new Int16Array(buffer) : new Int8Array(buffer), factors: floats(raw.factors), width: raw.width };
}

/**
 * Every text in an object as floats; numbers stay.
 * @param {any} raw
 * @returns {any}
 */
function floatsIn(raw) {
  return Object.fromEntries(
    Object.entries(raw).map(([name, value]) => [name, typeof value === "string" ? floats(value) : value]),
  );
}

/** @param {string} text */
const floats = (text) => new Float32Array(bytesOf(text));

/**
 * @param {string} text
 * @returns {ArrayBuffer}
 */
function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes.buffer;
}
