// @ts-check
/* What a person sees and does: the query, the heads, the switches. Numbers come from engine.js and data.js. */
import { readPage } from "./data.js";
import { landmarkRows, rowsOf } from "./engine.js";
import { colourOf, paint } from "./colours.js";

/** @typedef {import("./engine.js").Block} Block */
/** @typedef {{x: number, y: number, prefix: number | null}} Query  x and y from 0 to 1; prefix: a token before the grid */
/** @typedef {{run: number, block: Block, head: number, button: HTMLButtonElement, canvas: HTMLCanvasElement, name: HTMLElement}} Cell */

const page = readPage(/** @type {HTMLElement} */ (document.getElementById("data")).textContent || "{}");
const state = {
  picture: 0,
  run: 0,
  block: 0,
  head: 0,
  all: false,
  scale: "head",
  overlay: true,
  borrowed: true,
  alone: false,
  mixing: true,
  /** @type {Query} */ query: { x: 0.5, y: 0.5, prefix: null },
  frozen: false,
  /** @type {Query[]} */ pins: [],
};
/** @type {Cell[]} */
let cells = [];
let waiting = false;
/** @type {number[]} */
const timings = [];

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
const at = (id) => /** @type {T} */ (document.getElementById(id));

/** The longest run's blocks set how far the slider goes. */
const depth = Math.max(...page.runs.map((run) => run.blocks.length));

/** @param {Block} block */
function switches(block) {
  return {
    borrowed: state.borrowed,
    alone: state.alone ? Math.min(state.head, block.heads - 1) : null,
    mixing: state.mixing,
  };
}

/**
 * The window and the token in it that a query falls on.
 * @param {Block} block
 * @param {Query} query
 */
export function locate(block, query) {
  if (query.prefix !== null && query.prefix < block.prefix) return { window: 0, token: query.prefix };
  const row = Math.min(Math.floor(query.y * block.rows), block.rows - 1);
  const column = Math.min(Math.floor(query.x * block.columns), block.columns - 1);
  const place = row * block.columns + column;
  if (!block.places) return { window: 0, token: block.prefix + place };
  const found = block.places.indexOf(place);
  return { window: Math.floor(found / block.tokens), token: found % block.tokens };
}

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const started = performance.now();
    draw();
    timings.push(performance.now() - started);
  });
}

function draw() {
  /** @type {Map<Block, {rows: Float32Array, window: number, token: number}>} */
  const found = new Map();
  for (const cell of cells) {
    let rows = found.get(cell.block);
    if (!rows) {
      const { window, token } = locate(cell.block, state.query);
      rows = { rows: rowsOf(cell.block, state.picture, window, token, switches(cell.block)), window, token };
      found.set(cell.block, rows);
    }
    drawCell(cell, rows.rows, rows.window);
  }
  drawMarks();
  const chosen = cells.find(isChosen) ?? cells.find((cell) => cell.run === state.run) ?? cells[0];
  const rows = chosen && found.get(chosen.block);
  if (chosen && rows) {
    describe(chosen, rows.rows, rows.window);
    drawLandmarks(chosen.block, rows.token);
  }
}

/**
 * @param {Cell} cell
 * @param {Float32Array} rows
 * @param {number} window
 */
function drawCell(cell, rows, window) {
  const { block, head } = cell;
  const row = rows.subarray(head * block.tokens, (head + 1) * block.tokens);
  const among = state.scale === "block" ? rows : row;
  paint(cell.canvas, block, row, window, highest(among, block.tokens, block.prefix), block.signed);
  cell.button.setAttribute("aria-pressed", String(isChosen(cell)));
  const top = highest(row, block.tokens, block.prefix);
  const rest = block.prefix ? `, off the grid ${percent(sum(row.subarray(0, block.prefix)))}` : "";
  cell.name.textContent = state.all ? `${head}` : `head ${head}: highest ${percent(top)}${rest}`;
  cell.button.setAttribute("aria-label", `block ${block.block}, head ${head}, highest ${percent(top)}`);
}

/** @param {Cell} cell */
function isChosen(cell) {
  return cell.run === state.run && cell.head === state.head && cell.block.block === state.block;
}

function drawMarks() {
  const marks = document.getElementById("marks");
  if (!marks) return;
  const picture = page.pictures[state.picture];
  marks.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
  marks.replaceChildren();
  state.pins.forEach((pin, i) => pin.prefix === null && ring(marks, pin, picture, 0.022, String(i + 1)));
  if (state.query.prefix === null) ring(marks, state.query, picture, 0.03, "");
}

/**
 * @param {Element} marks
 * @param {Query} query
 * @param {{width: number, height: number}} picture
 * @param {number} size
 * @param {string} name
 */
function ring(marks, query, picture, size, name) {
  const radius = size * Math.max(picture.width, picture.height);
  for (const [colour, width] of [["#000", radius * 0.7], ["#fff", radius * 0.3]]) {
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    circle.setAttribute("cx", String(query.x * picture.width));
    circle.setAttribute("cy", String(query.y * picture.height));
    circle.setAttribute("r", String(radius));
    circle.setAttribute("fill", "none");
    circle.setAttribute("stroke", String(colour));
    circle.setAttribute("stroke-width", String(width));
    marks.append(circle);
  }
  if (!name) return;
  const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
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
 * The table beside the colours: where the chosen head looks most.
 * @param {Cell} cell
 * @param {Float32Array} rows
 * @param {number} window
 */
function describe(cell, rows, window) {
  const { block, head } = cell;
  const row = rows.subarray(head * block.tokens, (head + 1) * block.tokens);
  const order = [...row.keys()].sort((a, b) => Math.abs(row[b]) - Math.abs(row[a])).slice(0, 10);
  const table = at("strongest");
  /** @type {HTMLElement} */ (table.querySelector("caption")).textContent =
    `${page.runs.length > 1 ? `${page.runs[cell.run].name}, b` : "B"}lock ${block.block}, head ${head}: where it looks most`;
  /** @type {HTMLElement} */ (table.querySelector("thead")).innerHTML =
    "<tr><th scope='col'>token</th><th scope='col'>row</th><th scope='col'>column</th><th scope='col'>weight</th></tr>";
  const body = /** @type {HTMLElement} */ (table.querySelector("tbody"));
  body.replaceChildren(...order.map((token) => tableRow(block, window, token, row[token])));
  at("query-name").textContent = queryName(block);
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
  const cellsOfRow = onGrid
    ? [`${place}`, `${Math.floor(place / block.columns)}`, `${place % block.columns}`]
    : [`before the grid, ${token}`, "", ""];
  for (const text of [...cellsOfRow, percent(weight)]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}

/** @param {Block} block */
function queryName(block) {
  if (state.query.prefix !== null) return `Query: token ${state.query.prefix} before the grid${state.frozen ? ", pinned" : ""}`;
  const row = Math.min(Math.floor(state.query.y * block.rows), block.rows - 1);
  const column = Math.min(Math.floor(state.query.x * block.columns), block.columns - 1);
  return `Query: patch in row ${row}, column ${column} of ${block.rows} by ${block.columns}${state.frozen ? ", pinned" : ""}`;
}

/**
 * From the query to the landmarks, and from the strongest of them to the keys.
 * @param {Block} block
 * @param {number} token
 */
function drawLandmarks(block, token) {
  const panel = at("landmarks");
  panel.hidden = !block.landmarks;
  if (!block.landmarks) return;
  const way = landmarkRows(block, block.sights[state.picture], token, switches(block));
  const shares = way.toLandmarks.subarray(state.head * way.count, (state.head + 1) * way.count);
  let strongest = block.prefix;
  shares.forEach((share, l) => {
    if (l >= block.prefix && Math.abs(share) > Math.abs(shares[strongest])) strongest = l;
  });
  const cell = strongest - block.prefix;
  /** @type {HTMLElement} */ (panel.querySelector("p")).textContent =
    `Head ${state.head} asks ${way.count} landmarks; the strongest on the grid is row ${Math.floor(cell / block.landmarks.columns)}, ` +
    `column ${cell % block.landmarks.columns}, with ${percent(shares[strongest])}. Left: query to landmarks. Right: that landmark to the tokens.`;
  const [left, right] = panel.querySelectorAll("canvas").length ? panel.querySelectorAll("canvas") : landmarkCanvases(panel);
  const coarse = { ...block, rows: block.landmarks.rows, columns: block.landmarks.columns, places: null };
  paint(left, coarse, shares, 0, highest(shares, way.count, block.prefix), block.signed);
  const from = (state.head * way.count + strongest) * block.tokens;
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

/** Lays out the heads of the block, or of all blocks, of every run. */
function layOut() {
  cells = [];
  const runs = at("runs");
  runs.replaceChildren();
  runs.className = `${state.all ? "all" : ""}${page.runs.length > 1 ? " beside" : ""}`;
  page.runs.forEach((run, number) => {
    const section = document.createElement("section");
    section.className = "run";
    const title = document.createElement("h2");
    title.textContent = run.name;
    const note = document.createElement("p");
    note.textContent = run.note;
    section.append(title, note);
    const blocks = state.all ? run.blocks : run.blocks.filter((block) => block.block === state.block);
    if (!blocks.length) note.textContent += ` Block ${state.block} is not in this page.`;
    for (const block of blocks) section.append(...layOutBlock(number, block));
    runs.append(section);
  });
  const shown = page.runs.map((run) => run.blocks.find((block) => block.block === state.block)?.label ?? "-");
  at("block-name").textContent = `block ${state.block}: ${[...new Set(shown)].join(" | ")}`;
  /** @type {HTMLInputElement} */ (at("block")).value = String(state.block);
  adviseSwitches();
  redraw();
}

/**
 * @param {number} run
 * @param {Block} block
 */
function layOutBlock(run, block) {
  const title = document.createElement("h3");
  title.textContent = `block ${block.block}: ${block.label}`;
  const maps = document.createElement("div");
  maps.className = "maps";
  const picture = page.pictures[state.picture];
  for (let head = 0; head < block.heads; head += 1) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `head${state.overlay ? " over" : ""}${block.windows > 1 ? " windowed" : ""}`;
    const frame = document.createElement("span");
    frame.className = "cell";
    frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
    const image = document.createElement("img");
    image.src = picture.src;
    image.alt = "";
    const canvas = document.createElement("canvas");
    frame.append(image, canvas);
    const name = document.createElement("span");
    name.className = "name";
    button.append(frame, name);
    button.addEventListener("click", () => {
      state.run = run;
      state.head = head;
      state.block = block.block;
      redraw();
    });
    maps.append(button);
    cells.push({ run, block, head, button, canvas, name });
  }
  return [title, maps];
}

/** Switches that do nothing in the block that is shown are greyed, and say so. */
function adviseSwitches() {
  const blocks = page.runs.flatMap((run) => run.blocks.filter((block) => state.all || block.block === state.block));
  const borrows = blocks.some((block) => block.own[1] - block.own[0] < block.width);
  const mixes = blocks.some(
    (block) => block.talking || block.landmarks?.mixQuery || block.theta || block.sights[0].matrices,
  );
  for (const [id, useful] of /** @type {[string, boolean][]} */ ([["borrowed", borrows], ["alone", borrows], ["mixing", mixes]])) {
    at(id).closest("label")?.classList.toggle("idle", !useful);
  }
  at("switch-note").textContent =
    borrows && mixes ? "" : borrows ? "These heads borrow channels; nothing mixes them." : mixes ? "These heads are mixed; none borrows channels." : "These heads do not interact: the switches change nothing.";
}

/** @param {number} block */
function chooseBlock(block) {
  state.block = Math.min(Math.max(block, 0), page.depth - 1);
  layOut();
}

/** @param {Query} query */
function ask(query) {
  state.query = query;
  redraw();
}

function pin() {
  state.pins.push({ ...state.query });
  state.frozen = true;
  layOutPins();
  redraw();
}

function free() {
  state.frozen = false;
  layOutPins();
  redraw();
}

function layOutPins() {
  const buttons = state.pins.map((query, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `pin ${i + 1}`;
    button.setAttribute("aria-pressed", String(state.frozen && same(query, state.query)));
    button.addEventListener("click", () => {
      state.frozen = true;
      ask({ ...query });
      layOutPins();
    });
    return button;
  });
  if (state.pins.length) {
    const clear = document.createElement("button");
    clear.type = "button";
    clear.textContent = "remove pins";
    clear.addEventListener("click", () => {
      state.pins = [];
      free();
    });
    buttons.push(clear);
  }
  at("pins").replaceChildren(...buttons);
}

/**
 * @param {Query} a
 * @param {Query} b
 */
const same = (a, b) => a.x === b.x && a.y === b.y && a.prefix === b.prefix;

/** @param {string} key */
function step(key) {
  const block = page.runs.flatMap((run) => run.blocks).find((each) => each.block === state.block) ?? page.runs[0].blocks[0];
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? [0, 0];
  const column = Math.min(Math.max(Math.floor(state.query.x * block.columns) + dx, 0), block.columns - 1);
  const row = Math.min(Math.max(Math.floor(state.query.y * block.rows) + dy, 0), block.rows - 1);
  ask({ x: (column + 0.5) / block.columns, y: (row + 0.5) / block.rows, prefix: null });
}

function choosePicture() {
  const picture = page.pictures[state.picture];
  const shown = /** @type {HTMLImageElement} */ (at("shown"));
  shown.src = picture.src;
  shown.alt = picture.caption;
  layOut();
}

function listen() {
  const picture = at("picture");
  /** @param {PointerEvent} event */
  const move = (event) => {
    const box = picture.getBoundingClientRect();
    const x = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.99999);
    const y = Math.min(Math.max((event.clientY - box.top) / box.height, 0), 0.99999);
    ask({ x, y, prefix: null });
  };
  picture.addEventListener("pointermove", (event) => !state.frozen && move(event));
  picture.addEventListener("pointerdown", (event) => {
    move(event);
    pin();
  });
  picture.addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow")) step(event.key);
    else if (event.key === "Enter") pin();
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", onKey);
  at("block").addEventListener("input", () => chooseBlock(Number(/** @type {HTMLInputElement} */ (at("block")).value)));
  at("block-before").addEventListener("click", () => chooseBlock(state.block - 1));
  at("block-after").addEventListener("click", () => chooseBlock(state.block + 1));
  at("scale").addEventListener("change", () => {
    state.scale = /** @type {HTMLSelectElement} */ (at("scale")).value;
    redraw();
  });
  for (const [id, key, act] of /** @type {[string, "all" | "overlay" | "borrowed" | "alone" | "mixing", () => void][]} */ ([
    ["all-blocks", "all", layOut], ["overlay", "overlay", layOut],
    ["borrowed", "borrowed", redraw], ["alone", "alone", redraw], ["mixing", "mixing", redraw],
  ])) {
    const box = /** @type {HTMLInputElement} */ (at(id));
    box.checked = state[key];
    box.addEventListener("change", () => {
      state[key] = box.checked;
      act();
    });
  }
  at("theme").addEventListener("click", changeTheme);
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLSelectElement) return;
  const toggles = { b: "borrowed", n: "alone", m: "mixing" };
  if (event.key === "Escape") free();
  else if (event.key === "[") chooseBlock(state.block - 1);
  else if (event.key === "]") chooseBlock(state.block + 1);
  else if (event.key === "," || event.key === ".") chooseHead(event.key === "." ? 1 : -1);
  else if (event.key === "r") chooseRun();
  else if (event.key === "c") ask({ x: 0.5, y: 0.5, prefix: 0 });
  else if (event.key in toggles) at(toggles[/** @type {"b" | "n" | "m"} */ (event.key)]).click();
}

/** @param {number} by */
function chooseHead(by) {
  const heads = Math.max(...cells.map((cell) => cell.block.heads));
  state.head = (state.head + by + heads) % heads;
  redraw();
}

function chooseRun() {
  state.run = (state.run + 1) % page.runs.length;
  redraw();
}

function changeTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  nameTheme();
}

function nameTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  at("theme").textContent = isDark ? "Light" : "Dark";
  at("theme").setAttribute("aria-pressed", String(isDark));
}

function layOutPictures() {
  const group = at("pictures");
  page.pictures.forEach((picture, i) => {
    const label = document.createElement("label");
    const choice = document.createElement("input");
    choice.type = "radio";
    choice.name = "picture";
    choice.checked = i === 0;
    choice.addEventListener("change", () => {
      state.picture = i;
      choosePicture();
    });
    const image = document.createElement("img");
    image.src = picture.src;
    image.alt = "";
    label.append(choice, image, picture.caption);
    group.append(label);
  });
}

/**
 * The largest magnitude on the grid.
 * @param {Float32Array} rows
 * @param {number} length
 * @param {number} prefix
 */
function highest(rows, length, prefix) {
  let found = 0;
  for (let i = 0; i < rows.length; i += 1) if (i % length >= prefix) found = Math.max(found, Math.abs(rows[i]));
  return found;
}

/** @param {Float32Array} values */
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** @param {number} value */
const percent = (value) => `${(100 * value).toFixed(Math.abs(value) < 0.0995 ? 2 : 1)} %`;

function start() {
  const slider = /** @type {HTMLInputElement} */ (at("block"));
  slider.max = String(page.depth - 1);
  state.block = page.runs[0].blocks[page.runs[0].blocks.length - 1].block;
  const signed = page.runs.some((run) => run.blocks.some((block) => block.signed));
  const stops = Array.from({ length: 9 }, (_, i) => colourOf(i / 8, false)).map(([r, g, b]) => `rgb(${r} ${g} ${b})`);
  at("legend").style.background = `linear-gradient(90deg, ${stops.join(",")})`;
  at("legend").title = signed ? "0 to the highest weight; blue is negative, red positive where maps are signed" : "0 to the highest weight";
  layOutPictures();
  listen();
  nameTheme();
  choosePicture();
}

// For tests, and for whoever opens the console.
Object.assign(window, { atlas: { page, state, rowsOf, locate, timings, depth } });
start();
