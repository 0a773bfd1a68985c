// @ts-check
/* Beside the picture: the table of the strongest weights, and the way through the landmarks. */
import { landmarkRows } from "./engine.js";
import { paint } from "./colours.js";
import { evenShare, highest, percent, times } from "./numbers.js";

/** @typedef {import("./engine.js").Block} Block */
/** @typedef {import("./engine.js").Switches} Switches */

/**
 * The table beside the colours: where a head looks most.
 * @param {HTMLElement} table
 * @param {string} name of the head
 * @param {Block} block
 * @param {Float32Array} row of that head
 * @param {{window: number, token: number}} query
 */
export function describe(table, name, block, row, query) {
  const order = [...row.keys()].sort((a, b) => Math.abs(row[b]) - Math.abs(row[a])).slice(0, 10);
  /** @type {HTMLElement} */ (table.querySelector("caption")).textContent =
    `${name}: where it looks most`;
  /** @type {HTMLElement} */ (table.querySelector("thead")).innerHTML =
    "<tr><th scope='col'>patch</th><th scope='col'>weight</th><th scope='col'>× even</th></tr>";
  const body = /** @type {HTMLElement} */ (table.querySelector("tbody"));
  const even = evenShare(block, query.window, query.token);
  body.replaceChildren(...order.map((token) => tableRow(tokenName(block, query.window, token), row[token], even)));
}

/**
 * @param {Block} block
 * @param {number} window
 * @param {number} token
 */
function tokenName(block, window, token) {
  if (token < block.prefix) return block.prefixNames[token];
  const place = block.places ? block.places[window * block.tokens + token] : token - block.prefix;
  return place < 0 ? "beyond the picture" : `row ${Math.floor(place / block.columns)}, column ${place % block.columns}`;
}

/**
 * @param {string} name
 * @param {number} weight
 * @param {number} even
 */
function tableRow(name, weight, even) {
  const line = document.createElement("tr");
  for (const text of [name, percent(weight), times(weight / even)]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}

/**
 * From the query to the landmarks, and from the strongest of them to the keys.
 * @param {HTMLElement} panel
 * @param {Block} block
 * @param {number} picture
 * @param {number} head
 * @param {number} token
 * @param {Switches} switches
 */
export function drawLandmarks(panel, block, picture, head, token, switches) {
  panel.hidden = !block.landmarks;
  if (!block.landmarks) return;
  const way = landmarkRows(block, block.sights[picture], token, switches);
  const shares = way.toLandmarks.subarray(head * way.count, (head + 1) * way.count);
  let strongest = block.prefix;
  shares.forEach((share, l) => {
    if (l >= block.prefix && Math.abs(share) > Math.abs(shares[strongest])) strongest = l;
  });
  const cell = strongest - block.prefix;
  /** @type {HTMLElement} */ (panel.querySelector("p")).textContent =
    `Head ${head} asks ${way.count} landmarks; the strongest on the grid is row ${Math.floor(cell / block.landmarks.columns)}, ` +
    `column ${cell % block.landmarks.columns}, with ${percent(shares[strongest])}. Left: query to landmarks. Right: that landmark to the tokens.`;
  const [left, right] = panel.querySelectorAll("canvas").length ? panel.querySelectorAll("canvas") : landmarkCanvases(panel);
  const coarse = { ...block, rows: block.landmarks.rows, columns: block.landmarks.columns, places: null };
  const palette = block.signed ? "signed" : "shares";
  paint(left, coarse, shares, 0, { palette, unit: highest(shares, way.count, block.prefix) });
  const from = (head * way.count + strongest) * block.tokens;
  const keys = way.fromLandmarks.subarray(from, from + block.tokens);
  paint(right, block, keys, 0, { palette, unit: highest(keys, block.tokens, block.prefix) });
}

/** @param {HTMLElement} panel */
function landmarkCanvases(panel) {
  const maps = /** @type {HTMLElement} */ (panel.querySelector(".maps"));
  const made = ["query to landmarks", "strongest landmark to tokens"].map((name) => {
    const holder = document.createElement("div");
    holder.className = "head";
    const cell = document.createElement("span");
    cell.className = "cell";
    cell.style.aspectRatio = "1";
    const canvas = document.createElement("canvas");
    cell.append(canvas);
    const label = document.createElement("span");
    label.className = "name";
    label.textContent = name;
    holder.append(cell, label);
    maps.append(holder);
    return canvas;
  });
  return made;
}
