// @ts-check
/* What is drawn over the picture: rings of queries, and the patch that the chosen block sees there. */

/** @typedef {{x: number, y: number, prefix: number | null}} Query  x and y from 0 to 1; prefix: a token before the grid */

const SVG = "http://www.w3.org/2000/svg";
// Dark around light, so that a mark shows on any ground.
const STROKES = /** @type {[string, number][]} */ ([["#000", 0.7], ["#fff", 0.3]]);

/**
 * The outline of the patch that a query falls on.
 * @param {Element} marks
 * @param {Query} query
 * @param {{rows: number, columns: number}} grid
 * @param {{width: number, height: number}} picture
 */
export function outline(marks, query, grid, picture) {
  const wide = picture.width / grid.columns;
  const high = picture.height / grid.rows;
  const thick = 0.02 * Math.max(picture.width, picture.height);
  for (const [colour, width] of STROKES) {
    const patch = document.createElementNS(SVG, "rect");
    patch.setAttribute("x", String(Math.floor(query.x * grid.columns) * wide));
    patch.setAttribute("y", String(Math.floor(query.y * grid.rows) * high));
    patch.setAttribute("width", String(wide));
    patch.setAttribute("height", String(high));
    patch.setAttribute("fill", "none");
    patch.setAttribute("stroke", colour);
    patch.setAttribute("stroke-width", String(thick * width));
    marks.append(patch);
  }
}

/**
 * The same query in the middle of its patch, which is all that attention knows of its place.
 * @param {Query} query
 * @param {{rows: number, columns: number}} grid
 * @returns {Query}
 */
export function centred(query, grid) {
  const middle = (/** @type {number} */ place, /** @type {number} */ count) => (Math.min(Math.floor(place * count), count - 1) + 0.5) / count;
  return { ...query, x: middle(query.x, grid.columns), y: middle(query.y, grid.rows) };
}

/**
 * A ring around a query, with its name beside it.
 * @param {Element} marks
 * @param {Query} query
 * @param {{width: number, height: number}} picture
 * @param {number} size
 * @param {string} name
 */
export function ring(marks, query, picture, size, name) {
  const radius = size * Math.max(picture.width, picture.height);
  for (const [colour, width] of STROKES) {
    const circle = document.createElementNS(SVG, "circle");
    circle.setAttribute("cx", String(query.x * picture.width));
    circle.setAttribute("cy", String(query.y * picture.height));
    circle.setAttribute("r", String(radius));
    circle.setAttribute("fill", "none");
    circle.setAttribute("stroke", colour);
    circle.setAttribute("stroke-width", String(radius * width));
    marks.append(circle);
  }
  if (!name) return;
  const text = document.createElementNS(SVG, "text");
  text.setAttribute("x", String(query.x * picture.width + 1.4 * radius));
  text.setAttribute("y", String(query.y * picture.height));
  text.setAttribute("font-size", String(radius * 2.4));
  text.setAttribute("fill", "#fff");
  text.setAttribute("stroke", "#000");
  text.setAttribute("stroke-width", String(radius * 0.35));
  text.setAttribute("paint-order", "stroke");
  text.textContent = name;
  marks.append(text);
}

/**
 * @param {Query} a
 * @param {Query} b
 */
export const same = (a, b) => a.x === b.x && a.y === b.y && a.prefix === b.prefix;
