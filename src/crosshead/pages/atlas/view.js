// @ts-check
/* What a person sees and does: the query, the heads, the switches. Numbers come from engine.js and data.js. */
import { readPage } from "./data.js";
import { rowsOf } from "./engine.js";
import { gradient, MOST_TIMES, paint } from "./colours.js";
import { fit, layOutRuns, makeCell } from "./cells.js";
import { centred, outline, ring, same } from "./marks.js";
import { evenShare, extremes, highest, percent, sum, times } from "./numbers.js";
import { describe, drawLandmarks } from "./panels.js";
import { followTheme } from "./theme.js";

/** @typedef {import("./engine.js").Block} Block */
/** @typedef {import("./marks.js").Query} Query */
/** @typedef {import("./cells.js").Cell} Cell */

const page = readPage(/** @type {HTMLElement} */ (document.getElementById("data")).textContent || "{}");
const state = {
  picture: 0,
  run: 0,
  block: 0,
  head: 0,
  all: false,
  /** @type {"head" | "block" | "even"} */ scale: "head",
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
    drawCell(cell, rows);
  }
  const chosen = cells.find(isChosen) ?? cells.find((cell) => cell.run === state.run) ?? cells[0];
  const rows = chosen && found.get(chosen.block);
  drawMarks(chosen?.block);
  if (!chosen || !rows) return;
  const { block, head } = chosen;
  const name = `${page.runs.length > 1 ? `${page.runs[chosen.run].name}, b` : "B"}lock ${block.block}, head ${head}`;
  describe(at("strongest"), name, block, rows.rows.subarray(head * block.tokens, (head + 1) * block.tokens), rows);
  at("query-name").textContent = `${queryName(block)}. An even share is ${percent(evenShare(block, rows.window, rows.token))}.`;
  drawLandmarks(at("landmarks"), block, state.picture, head, rows.token, switches(block));
}

/**
 * @param {Cell} cell
 * @param {{rows: Float32Array, window: number, token: number}} found
 */
function drawCell(cell, found) {
  const { block, head } = cell;
  const row = found.rows.subarray(head * block.tokens, (head + 1) * block.tokens);
  const even = evenShare(block, found.window, found.token);
  paint(cell.canvas, block, row, found.window, scaleOf(block, state.scale === "block" ? found.rows : row, even));
  cell.button.setAttribute("aria-pressed", String(isChosen(cell)));
  const most = extremes(row, block.prefix);
  const says = `${block.signed ? "" : "up to "}${most}, ${times(highest(row, block.tokens, block.prefix) / even)}\u00a0×\u00a0even`;
  const rest = block.prefix ? `; ${prefixWords(block)} ${percent(sum(row.subarray(0, block.prefix)))}` : "";
  cell.name.textContent = state.all ? `${head}` : `head\u00a0${head}: ${says}${rest}`;
  cell.button.setAttribute("aria-label", `block ${block.block}, head ${head}: ${says}`);
}

/**
 * @param {Block} block
 * @param {Float32Array} among the weights that share a scale
 * @param {number} even
 * @returns {import("./colours.js").Scale}
 */
function scaleOf(block, among, even) {
  const against = state.scale === "even";
  if (block.signed) return { palette: "signed", unit: against ? MOST_TIMES * even : highest(among, block.tokens, block.prefix) };
  return against ? { palette: "even", unit: even } : { palette: "shares", unit: highest(among, block.tokens, block.prefix) };
}

/** @param {Block} block */
function prefixWords(block) {
  const [first, ...others] = block.prefixNames;
  const registers = others.filter((name) => name.startsWith("register")).length;
  return registers ? `${first} and ${registers} registers` : [first, ...others].join(" and ");
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
  state.pins.forEach((pin, i) => pin.prefix === null && ring(marks, block ? centred(pin, block) : pin, picture, ringSize(block, 0.022), String(i + 1)));
  if (state.query.prefix !== null) return;
  if (block) outline(marks, state.query, block, picture);
  ring(marks, block ? centred(state.query, block) : state.query, picture, ringSize(block, 0.03), "");
}

/**
 * A share of the picture, but no more than a patch holds.
 * @param {Block | undefined} block
 * @param {number} most
 */
function ringSize(block, most) {
  return block ? Math.min(most, 0.28 / Math.max(block.rows, block.columns)) : most;
}

/** @param {Block} block */
function queryName(block) {
  const { prefix } = state.query;
  if (prefix !== null && prefix < block.prefix) return `Query: ${block.prefixNames[prefix]}${state.frozen ? ", pinned" : ""}`;
  const row = Math.min(Math.floor(state.query.y * block.rows), block.rows - 1);
  const column = Math.min(Math.floor(state.query.x * block.columns), block.columns - 1);
  return `Query: patch in row ${row}, column ${column} of ${block.rows} by ${block.columns}${state.frozen ? ", pinned" : ""}`;
}

/** Lays out the heads of the block, or of all blocks, of every run. */
function layOut() {
  const runs = at("runs");
  runs.className = state.all ? "all" : "";
  const picture = page.pictures[state.picture];
  const numbers = state.all ? page.numbers : [state.block];
  cells = layOutRuns(runs, page.runs, numbers, (run, block) =>
    Array.from({ length: block.heads }, (_, head) => {
      const cell = makeCell(run, block, head, picture, state.overlay);
      cell.button.addEventListener("click", () => {
        state.run = run;
        state.head = head;
        state.block = block.block;
        redraw();
      });
      return cell;
    }),
  );
  const [first, last] = [page.numbers[0], page.numbers[page.numbers.length - 1]];
  const whole = last - first + 1 === page.numbers.length;
  at("block-name").textContent = `block ${state.block} of ${whole ? `${first} to ${last}` : page.numbers.join(", ")}`;
  /** @type {HTMLInputElement} */ (at("block")).value = String(page.numbers.indexOf(state.block));
  adviseSwitches();
  layOutTokens();
  fitRuns();
  redraw();
}

function fitRuns() {
  const picture = page.pictures[state.picture];
  const heads = Math.max(...cells.map((cell) => cell.block.heads), 1);
  fit(at("runs"), page.runs.length, heads, state.all, picture.height / picture.width);
}

/** Switches that can do nothing in what is shown are disabled, and say why; scales that colour none are hidden. */
function adviseSwitches() {
  const blocks = cells.map((cell) => cell.block);
  const borrows = blocks.some((block) => block.own[1] - block.own[0] < block.width);
  const mixes = blocks.some(
    (block) => block.talking || block.landmarks?.mixQuery || block.theta || block.sights[0].matrices,
  );
  enable("borrowed", borrows);
  enable("alone", borrows);
  enable("mixing", mixes);
  enable("overlay", blocks.some((block) => block.windows === 1));
  enable("block-before", state.block !== page.numbers[0]);
  enable("block-after", state.block !== page.numbers[page.numbers.length - 1]);
  enable("block", page.numbers.length > 1);
  enable("all-blocks", page.numbers.length > 1);
  at("switch-note").textContent = borrows
    ? mixes ? "" : "Heads borrow channels here; nothing mixes them."
    : mixes ? "Heads are mixed here; none borrows channels." : "Heads do not interact here.";
  adviseScales(blocks);
}

/**
 * @param {string} id
 * @param {boolean} useful
 */
function enable(id, useful) {
  const control = /** @type {HTMLInputElement} */ (at(id));
  control.disabled = !useful;
  control.closest("label")?.classList.toggle("idle", !useful);
}

/** @param {Block[]} blocks */
function adviseScales(blocks) {
  const whose = state.scale === "head" ? "head's" : "block's";
  const against = state.scale === "even";
  label("legend", against ? "even" : "shares", against ? [`1/${MOST_TIMES} ×`, "even", `${MOST_TIMES} ×`] : ["0", "", `${whose} highest`]);
  label("legend-signed", "signed", against ? [`-${MOST_TIMES} × even`, "0", `${MOST_TIMES} × even`] : ["below 0", "0", "highest"]);
  at("legend").hidden = blocks.every((block) => block.signed);
  at("legend-signed").hidden = !blocks.some((block) => block.signed);
}

/**
 * @param {string} id
 * @param {import("./colours.js").Palette} palette
 * @param {string[]} ends
 */
function label(id, palette, ends) {
  const legend = at(id);
  /** @type {HTMLElement} */ (legend.querySelector(".bar")).style.background = gradient(palette);
  legend.querySelectorAll(".ends span").forEach((end, i) => (end.textContent = ends[i]));
}

/** @param {number} block its place among those in the page */
function chooseBlock(block) {
  state.block = page.numbers[Math.min(Math.max(block, 0), page.numbers.length - 1)];
  layOut();
}

/** @param {Query} query */
function ask(query) {
  state.query = query;
  for (const button of at("tokens").querySelectorAll("button[data-prefix]")) {
    button.setAttribute("aria-pressed", String(query.prefix === Number(/** @type {HTMLElement} */ (button).dataset.prefix)));
  }
  redraw();
}

/** Buttons for the tokens that are no patch, and one that lets the query go where it is held. */
function layOutTokens() {
  const names = cells.map((cell) => cell.block.prefixNames).reduce((most, each) => (each.length > most.length ? each : most), []);
  const buttons = names.map((name, prefix) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.dataset.prefix = String(prefix);
    button.setAttribute("aria-pressed", String(state.query.prefix === prefix));
    button.addEventListener("click", () => {
      state.frozen = true;
      ask({ ...state.query, prefix });
      layOutPins();
      layOutTokens();
    });
    return button;
  });
  if (state.frozen) {
    const follow = document.createElement("button");
    follow.type = "button";
    follow.textContent = "follow the pointer";
    follow.addEventListener("click", free);
    buttons.push(follow);
  }
  at("tokens").replaceChildren(...buttons);
}

function pin() {
  state.pins.push({ ...state.query });
  state.frozen = true;
  layOutPins();
  layOutTokens();
  redraw();
}

function free() {
  state.frozen = false;
  if (state.query.prefix !== null) state.query = { ...state.query, prefix: null };
  layOutPins();
  layOutTokens();
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
      layOutTokens();
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
  at("block-before").addEventListener("click", () => chooseBlock(page.numbers.indexOf(state.block) - 1));
  at("block-after").addEventListener("click", () => chooseBlock(page.numbers.indexOf(state.block) + 1));
  at("scale").addEventListener("change", () => {
    state.scale = /** @type {"head" | "block" | "even"} */ (/** @type {HTMLSelectElement} */ (at("scale")).value);
    adviseScales(cells.map((cell) => cell.block));
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
  else if (event.key === "[") chooseBlock(page.numbers.indexOf(state.block) - 1);
  else if (event.key === "]") chooseBlock(page.numbers.indexOf(state.block) + 1);
  else if (event.key === "," || event.key === ".") chooseHead(event.key === "." ? 1 : -1);
  else if (event.key === "r") chooseRun();
  else if (event.key === "c") /** @type {HTMLElement | null} */ (at("tokens").querySelector("button[data-prefix]"))?.click();
  else if (event.key in toggles) at(toggles[/** @type {"b" | "n" | "m"} */ (event.key)]).click();
}

/** @param {number} by */
function chooseHead(by) {
  const heads = Math.max(...cells.map((cell) => cell.block.heads), 1);
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
  slider.max = String(page.numbers.length - 1);
  const common = page.numbers.filter((number) => page.runs.every((run) => run.blocks.some((block) => block.block === number)));
  state.block = (common.length ? common : page.numbers).slice(-1)[0];
  layOutPictures();
  listen();
  followTheme(at("theme"));
  choosePicture();
  let width = 0;
  new ResizeObserver(() => {
    const now = at("runs").clientWidth;
    if (now !== width) fitRuns();
    width = now;
  }).observe(at("runs"));
}

// For tests, and for whoever opens the console.
Object.assign(window, { atlas: { page, state, rowsOf, locate, timings } });
start();
