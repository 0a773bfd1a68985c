// @ts-check
/* Rows of attention from what the page holds: queries and keys in 8 bits, biases, factors and mixings.
   Everything here is arithmetic; nothing touches the document. */

/**
 * A tensor of bytes whose last axis shares one factor a row: value = byte * factor[row].
 * @typedef {{bytes: Int8Array | Int16Array, factors: Float32Array, width: number}} Packed
 */

/**
 * What the heads of one block made of one picture: q, k (windows, heads, tokens, width), and DCMHA's matrices.
 * @typedef {{q: Packed, k: Packed, matrices: Packed | null}} Sight
 */

/**
 * One attention layer. rows, columns: the grid of all its tokens. own: the columns of q and k that are a head's own, [from, to). bias: (heads, tokens, tokens).
 * mask: (windows, tokens, tokens), 1 where a query may see. places: (windows, tokens) -> the token of the whole grid.
 * @typedef {{path: string, block: number, kind: string, label: string, heads: number, tokens: number, prefix: number, prefixNames: string[],
 *   rows: number, columns: number, windows: number, places: Int32Array | null, width: number, own: [number, number],
 *   scale: number, bias: Packed | null, mask: Uint8Array | null, signed: boolean,
 *   talking: {pre: Float32Array, preBias: Float32Array, post: Float32Array, postBias: Float32Array} | null,
 *   landmarks: {rows: number, columns: number, mixQuery: Float32Array | null, mixKey: Float32Array | null} | null,
 *   theta: {matrix: Float32Array, gain: Float32Array, shift: Float32Array} | null,
 *   sights: Sight[]}} Block
 */

/**
 * What is switched off: borrowed channels of all heads, or of one; mixing of the heads; knocking.
 * @typedef {{borrowed: boolean, alone: number | null, mixing: boolean}} Switches
 */

/** @type {WeakMap<Sight, Map<string, {a: Float32Array, pooledKeys: Float32Array}>>} */
const landmarkCache = new WeakMap();

/**
 * Every head's row of weights for one query.
 * @param {Block} block
 * @param {number} picture
 * @param {number} window
 * @param {number} query a token of the window, the prefix counted
 * @param {Switches} switches
 * @returns {Float32Array} (heads, tokens)
 */
export function rowsOf(block, picture, window, query, switches) {
  const sight = block.sights[picture];
  if (block.landmarks) return landmarkRows(block, sight, query, switches).rows;
  const rows = logitsOf(block, sight, window, query, switches);
  if (block.talking && switches.mixing) {
    mixHeads(rows, block.heads, block.tokens, block.talking.pre, block.talking.preBias);
  }
  if (sight.matrices && switches.mixing) compose(rows, block, query, sight.matrices, 0);
  if (block.mask) hide(rows, block, window, query);
  for (let head = 0; head < block.heads; head += 1) softmax(rows, head * block.tokens, block.tokens);
  if (switches.mixing) {
    if (block.talking) mixHeads(rows, block.heads, block.tokens, block.talking.post, block.talking.postBias);
    if (sight.matrices) compose(rows, block, query, sight.matrices, 2);
    if (block.theta) reattend(rows, block, block.theta);
    if (block.mask) blank(rows, block, window, query);
  }
  return rows;
}

/**
 * The way through the landmarks: from the query to each, and from each to the keys.
 * @param {Block} block
 * @param {Sight} sight
 * @param {number} query
 * @param {Switches} switches
 * @returns {{rows: Float32Array, toLandmarks: Float32Array, fromLandmarks: Float32Array, count: number}}
 */
export function landmarkRows(block, sight, query, switches) {
  const { heads, tokens, width } = block;
  const found = pooled(block, sight);
  const count = found.pooledKeys.length / (heads * width);
  const toLandmarks = new Float32Array(heads * count);
  const q = new Float32Array(width);
  for (let head = 0; head < heads; head += 1) {
    unpackRow(sight.q, head * tokens + query, q);
    for (let l = 0; l < count; l += 1) {
      const from = (head * count + l) * width;
      let sum = 0;
      for (let c = 0; c < width; c += 1) sum += q[c] * found.pooledKeys[from + c];
      toLandmarks[head * count + l] = sum * block.scale;
    }
    softmax(toLandmarks, head * count, count);
  }
  const places = /** @type {NonNullable<Block["landmarks"]>} */ (block.landmarks);
  let fromLandmarks = found.a;
  if (switches.mixing && places.mixKey) fromLandmarks = mixedKeys(block, sight, found.a, places.mixKey);
  if (switches.mixing && places.mixQuery) mixHeads(toLandmarks, heads, count, places.mixQuery, null);
  const rows = new Float32Array(heads * tokens);
  for (let head = 0; head < heads; head += 1) {
    for (let l = 0; l < count; l += 1) {
      const share = toLandmarks[head * count + l];
      const from = (head * count + l) * tokens;
      for (let n = 0; n < tokens; n += 1) rows[head * tokens + n] += share * fromLandmarks[from + n];
    }
  }
  return { rows, toLandmarks, fromLandmarks, count };
}

/**
 * Keys averaged over the cells of the grid, and A_K, which all queries share; computed once a picture.
 * @param {Block} block
 * @param {Sight} sight
 */
function pooled(block, sight) {
  const cached = landmarkCache.get(sight)?.get("plain");
  if (cached) return cached;
  const { heads, tokens, width } = block;
  const keys = poolTokens(block, sight.k);
  const queries = poolTokens(block, sight.q);
  const count = keys.length / (heads * width);
  const a = new Float32Array(heads * count * tokens);
  const k = new Float32Array(width);
  for (let head = 0; head < heads; head += 1) {
    for (let n = 0; n < tokens; n += 1) {
      unpackRow(sight.k, head * tokens + n, k);
      for (let l = 0; l < count; l += 1) {
        const from = (head * count + l) * width;
        let sum = 0;
        for (let c = 0; c < width; c += 1) sum += queries[from + c] * k[c];
        a[(head * count + l) * tokens + n] = sum * block.scale;
      }
    }
    for (let l = 0; l < count; l += 1) softmax(a, (head * count + l) * tokens, tokens);
  }
  const found = { a, pooledKeys: keys };
  landmarkCache.set(sight, new Map([["plain", found]]));
  return found;
}

/**
 * @param {Block} block
 * @param {Sight} sight
 * @param {Float32Array} a
 * @param {Float32Array} mix
 */
function mixedKeys(block, sight, a, mix) {
  const cache = /** @type {Map<string, {a: Float32Array, pooledKeys: Float32Array}>} */ (landmarkCache.get(sight));
  const cached = cache.get("mixed");
  if (cached) return cached.a;
  const mixed = a.slice();
  mixHeads(mixed, block.heads, a.length / block.heads, mix, null);
  cache.set("mixed", { a: mixed, pooledKeys: new Float32Array() });
  return mixed;
}

/**
 * Adaptive average pooling over the grid; tokens before it are their own landmarks and stand first.
 * @param {Block} block
 * @param {Packed} packed
 * @returns {Float32Array} (heads, landmarks, width)
 */
function poolTokens(block, packed) {
  const { heads, tokens, prefix, rows, columns, width } = block;
  const cells = /** @type {NonNullable<Block["landmarks"]>} */ (block.landmarks);
  const count = prefix + cells.rows * cells.columns;
  const found = new Float32Array(heads * count * width);
  const values = new Float32Array(width);
  for (let head = 0; head < heads; head += 1) {
    for (let p = 0; p < prefix; p += 1) {
      unpackRow(packed, head * tokens + p, values);
      found.set(values, (head * count + p) * width);
    }
    for (let cell = 0; cell < cells.rows * cells.columns; cell += 1) {
      const [top, bottom] = span(Math.floor(cell / cells.columns), cells.rows, rows);
      const [left, right] = span(cell % cells.columns, cells.columns, columns);
      const to = (head * count + prefix + cell) * width;
      const share = 1 / ((bottom - top) * (right - left));
      for (let y = top; y < bottom; y += 1) {
        for (let x = left; x < right; x += 1) {
          unpackRow(packed, head * tokens + prefix + y * columns + x, values);
          for (let c = 0; c < width; c += 1) found[to + c] += share * values[c];
        }
      }
    }
  }
  return found;
}

/**
 * @param {number} cell
 * @param {number} cells
 * @param {number} size
 * @returns {[number, number]}
 */
function span(cell, cells, size) {
  return [Math.floor((cell * size) / cells), Math.ceil(((cell + 1) * size) / cells)];
}

/**
 * @param {Block} block
 * @param {Sight} sight
 * @param {number} window
 * @param {number} query
 * @param {Switches} switches
 */
function logitsOf(block, sight, window, query, switches) {
  const { heads, tokens, width } = block;
  const rows = new Float32Array(heads * tokens);
  const q = new Float32Array(width);
  for (let head = 0; head < heads; head += 1) {
    const narrow = !switches.borrowed || switches.alone === head;
    const [from, to] = narrow ? block.own : [0, width];
    const first = (window * heads + head) * tokens;
    unpackRow(sight.q, first + query, q);
    for (let n = 0; n < tokens; n += 1) {
      const start = (first + n) * width;
      let sum = 0;
      for (let c = from; c < to; c += 1) sum += q[c] * sight.k.bytes[start + c];
      rows[head * tokens + n] = sum * sight.k.factors[first + n] * block.scale;
    }
    if (block.bias) {
      const row = head * tokens + query;
      for (let n = 0; n < tokens; n += 1) {
        rows[head * tokens + n] += block.bias.bytes[row * tokens + n] * block.bias.factors[row];
      }
    }
  }
  return rows;
}

/**
 * out[g] = sum_i matrix[g, i] row[i] + bias[g]
 * @param {Float32Array} rows (heads, length), in place
 * @param {number} heads
 * @param {number} length
 * @param {Float32Array} matrix
 * @param {Float32Array | null} bias
 */
function mixHeads(rows, heads, length, matrix, bias) {
  const before = rows.slice();
  for (let g = 0; g < heads; g += 1) {
    const out = rows.subarray(g * length, (g + 1) * length);
    out.fill(bias ? bias[g] : 0);
    for (let i = 0; i < heads; i += 1) {
      const share = matrix[g * heads + i];
      if (share === 0) continue;
      for (let n = 0; n < length; n += 1) out[n] += share * before[i * length + n];
    }
  }
}

/**
 * DCMHA: each query and each key brings a matrix over the heads; which 0 before the softmax, 2 after it.
 * @param {Float32Array} rows
 * @param {Block} block
 * @param {number} query
 * @param {Packed} matrices (tokens, 4, heads, heads): before by query, by key, after by query, by key
 * @param {number} which
 */
function compose(rows, block, query, matrices, which) {
  const { heads, tokens } = block;
  const before = rows.slice();
  const ofQuery = new Float32Array(heads);
  const ofKey = new Float32Array(heads);
  for (let g = 0; g < heads; g += 1) {
    unpackRow(matrices, (query * 4 + which) * heads + g, ofQuery);
    for (let n = 0; n < tokens; n += 1) {
      unpackRow(matrices, (n * 4 + which + 1) * heads + g, ofKey);
      let sum = 0;
      for (let i = 0; i < heads; i += 1) sum += (ofQuery[i] + ofKey[i]) * before[i * tokens + n];
      rows[g * tokens + n] = sum;
    }
  }
}

/**
 * @param {Float32Array} rows
 * @param {Block} block
 * @param {NonNullable<Block["theta"]>} theta
 */
function reattend(rows, block, theta) {
  mixHeads(rows, block.heads, block.tokens, theta.matrix, null);
  for (let head = 0; head < block.heads; head += 1) {
    for (let n = 0; n < block.tokens; n += 1) {
      const at = head * block.tokens + n;
      rows[at] = rows[at] * theta.gain[head] + theta.shift[head];
    }
  }
}

/**
 * @param {Float32Array} rows
 * @param {Block} block
 * @param {number} window
 * @param {number} query
 */
function hide(rows, block, window, query) {
  forHidden(block, window, query, (n) => {
    for (let head = 0; head < block.heads; head += 1) rows[head * block.tokens + n] = -Infinity;
  });
}

/**
 * @param {Float32Array} rows
 * @param {Block} block
 * @param {number} window
 * @param {number} query
 */
function blank(rows, block, window, query) {
  forHidden(block, window, query, (n) => {
    for (let head = 0; head < block.heads; head += 1) rows[head * block.tokens + n] = 0;
  });
}

/**
 * @param {Block} block
 * @param {number} window
 * @param {number} query
 * @param {(n: number) => void} act
 */
function forHidden(block, window, query, act) {
  const mask = /** @type {Uint8Array} */ (block.mask);
  const start = (window * block.tokens + query) * block.tokens;
  for (let n = 0; n < block.tokens; n += 1) if (!mask[start + n]) act(n);
}

/**
 * @param {Packed} packed
 * @param {number} row
 * @param {Float32Array} out
 */
function unpackRow(packed, row, out) {
  const start = row * packed.width;
  const factor = packed.factors[row];
  for (let c = 0; c < packed.width; c += 1) out[c] = packed.bytes[start + c] * factor;
}

/**
 * @param {Float32Array} values in place
 * @param {number} start
 * @param {number} length
 */
function softmax(values, start, length) {
  let highest = -Infinity;
  for (let n = start; n < start + length; n += 1) highest = Math.max(highest, values[n]);
  if (highest === -Infinity) {
    values.fill(0, start, start + length);
    return;
  }
  let sum = 0;
  for (let n = start; n < start + length; n += 1) {
    values[n] = Math.exp(values[n] - highest);
    sum += values[n];
  }
  for (let n = start; n < start + length; n += 1) values[n] /= sum;
}
