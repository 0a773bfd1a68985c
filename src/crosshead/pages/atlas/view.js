// @ts-check
/* What a person sees and does: the query, the heads, the switches. Numbers come from engine.js and data.js. */
import { readPage } from "./data.js";
import { rowsOf } from "./engine.js";
import { colourOf, paint } from "./colours.js";
import { outline, ring, same } from "./marks.js";
import { highest, extremes, percent, sum } from "./numbers.js";
import { describe, drawLandmarks } from "./panels.js";
import { followTheme } from "./theme.js";

/** @typedef {import("./engine.js").Block} Block */
/** @typedef {import("./marks.js").Query} Query */
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
  const chosen = cells.find(isChosen) ?? cells.find((cell) => cell.run === state.run) ?? cells[0];
  const rows = chosen && found.get(chosen.block);
  drawMarks(chosen?.block);
  if (!chosen || !rows) return;
  const { block, head } = chosen;
  const name = `${page.runs.length > 1 ? `${page.runs[chosen.run].name}, b` : "B"}lock ${block.block}, head ${head}`;
  describe(at("strongest"), name, block, rows.rows.subarray(head * block.tokens, (head + 1) * block.tokens), rows.window);
  at("query-name").textContent = queryName(block);
  drawLandmarks(at("landmarks"), block, state.picture, head, rows.token, switches(block));
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
  const says = block.signed ? extremes(row, block.prefix) : `highest ${percent(highest(row, block.tokens, block.prefix))}`;
  const rest = block.prefix ? `, off the grid ${percent(sum(row.subarray(0, block.prefix)))}` : "";
  cell.name.textContent = state.all ? `${head}` : `head ${head}: ${says}${rest}`;
  cell.button.setAttribute("aria-label", `block ${block.block}, head ${head}, ${says}`);
}

/** @param {Cell} cell */
function isChosen(cell) {
  return cell.run === state.run && cell.head === state.head && cell.block.block === state.block;
}

/** @param {Block | undefined} block whose patch the query falls on */
function drawMarks(block) {
  const marks = document.getElementById("marks");
  if (!marks) return;
  const picture = page.pictures[state.picture];
  marks.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
  marks.replaceChildren();
  state.pins.forEach((pin, i) => pin.prefix === null && ring(marks, pin, picture, 0.022, String(i + 1)));
  if (state.query.prefix !== null) return;
  if (block) outline(marks, state.query, block, picture);
  ring(marks, state.query, picture, 0.03, "");
}

/** @param {Block} block */
function queryName(block) {
  if (state.query.prefix !== null) return `Query: token ${state.query.prefix} before the grid${state.frozen ? ", pinned" : ""}`;
  const row = Math.min(Math.floor(state.query.y * block.rows), block.rows - 1);
  const column = Math.min(Math.floor(state.query.x * block.columns), block.columns - 1);
  return `Query: patch in row ${row}, column ${column} of ${block.rows} by ${block.columns}${state.frozen ? ", pinned" : ""}`;
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

/** Switches that do nothing in the block that is shown are greyed, and say so; scales that colour none are hidden. */
function adviseSwitches() {
  const blocks = page.runs.flatMap((run) => run.blocks.filter((block) => state.all || block.block === state.block));
  at("legend").hidden = blocks.every((block) => block.signed);
  at("legend-signed").hidden = !blocks.some((block) => block.signed);
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

function start() {
  const slider = /** @type {HTMLInputElement} */ (at("block"));
  slider.max = String(page.depth - 1);
  state.block = page.runs[0].blocks[page.runs[0].blocks.length - 1].block;
  for (const [id, isSigned] of /** @type {[string, boolean][]} */ ([["legend", false], ["legend-signed", true]])) {
    const stops = Array.from({ length: 9 }, (_, i) => colourOf(i / 8, isSigned)).map(([r, g, b]) => `rgb(${r} ${g} ${b})`);
    /** @type {HTMLElement} */ (at(id).querySelector("span")).style.background = `linear-gradient(90deg, ${stops.join(",")})`;
  }
  layOutPictures();
  listen();
  followTheme(at("theme"));
  choosePicture();
}

// For tests, and for whoever opens the console.
Object.assign(window, { atlas: { page, state, rowsOf, locate, timings, depth } });
start();
