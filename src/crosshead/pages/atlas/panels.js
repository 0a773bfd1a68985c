// @ts-check
/* Beside the picture: the table of the strongest weights, and the way through the landmarks. */
import { landmarkRows } from "./engine.js";
import { paint } from "./colours.js";
import { highest, percent } from "./numbers.js";

/** @typedef {import("./engine.js").Block} Block */
/** @typedef {import("./engine.js").Switches} Switches */

/**
 * The table beside the colours: where a head looks most.
 * @param {HTMLElement} table
 * @param {string} name of the head
 * @param {Block} block
 * @param {Float32Array} row of that head
 * @param {number} window
 */
export function describe(table, name, block, row, window) {
  const order = [...row.keys()].sort((a, b) => Math.abs(row[b]) - Math.abs(row[a])).slice(0, 10);
  /** @type {HTMLElement} */ (table.querySelector("caption")).textContent =
    `${name}: where it looks most`;
  /** @type {HTMLElement} */ (table.querySelector("thead")).innerHTML =
    "<tr><th scope='col'>token</th><th scope='col'>row</th><th scope='col'>column</th><th scope='col'>weight</th></tr>";
  const body = /** @type {HTMLElement} */ (table.querySelector("tbody"));
  body.replaceChildren(...order.map((token) => tableRow(block, window, token, row[token])));
}

/**
 * @param {Block} block
 * @param {number} window
 * @param {number} token
 * @param {number} weight
 */
function tableRow(block, window, token, weight) {
  const line = document.createElement("tr");
  const onGrid = token >= block.prefix;
  const place = block.places ? block.places[window * block.tokens + token] : token - block.prefix;
  const cellsOfRow = place < 0 && onGrid
    ? ["beyond the picture", "", ""]
    : onGrid
    ? [`${place}`, `${Math.floor(place / block.columns)}`, `${place % block.columns}`]
    : [`before the grid, ${token}`, "", ""];
  for (const text of [...cellsOfRow, percent(weight)]) {
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
  paint(left, coarse, shares, 0, highest(shares, way.count, block.prefix), block.signed);
  const from = (head * way.count + strongest) * block.tokens;
  const keys = way.fromLandmarks.subarray(from, from + block.tokens);
  paint(right, block, keys, 0, highest(keys, block.tokens, block.prefix), block.signed);
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
