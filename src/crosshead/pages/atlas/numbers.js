// @ts-check
/* Weights as a person reads them. */

/**
 * The largest magnitude on the grid.
 * @param {Float32Array} rows
 * @param {number} length
 * @param {number} prefix
 */
export function highest(rows, length, prefix) {
  let found = 0;
  for (let i = 0; i < rows.length; i += 1) if (i % length >= prefix) found = Math.max(found, Math.abs(rows[i]));
  return found;
}

/** @param {Float32Array} values */
export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** @param {number} value */
export const percent = (value) => `${(100 * value).toFixed(Math.abs(value) < 0.0995 ? 2 : 1)}\u00a0%`;

/**
 * How often an even share goes into a weight.
 * @param {number} ratio
 */
export const times = (ratio) => ratio.toFixed(Math.abs(ratio) < 9.95 ? 1 : 0);

/**
 * A head's largest weight on the grid, and its lowest where that is below 0.
 * @param {Float32Array} row
 * @param {number} prefix
 */
export function extremes(row, prefix) {
  const onGrid = row.subarray(prefix);
  let [low, high] = [Infinity, -Infinity];
  for (const value of onGrid) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low < 0 ? `${percent(low)} to ${percent(high)}` : percent(high);
}

/**
 * What each token would have if all that the query may see had the same.
 * @param {import("./engine.js").Block} block
 * @param {number} window
 * @param {number} query
 */
export function evenShare(block, window, query) {
  if (!block.mask) return 1 / block.tokens;
  const start = (window * block.tokens + query) * block.tokens;
  return 1 / Math.max(sum(Float32Array.from(block.mask.subarray(start, start + block.tokens))), 1);
}
