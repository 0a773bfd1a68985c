// @ts-check
/* The heads' maps on the page: a column a run, a row a block, and as large as the column allows. */

/** @typedef {import("./engine.js").Block} Block */
/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Picture} Picture */
/** @typedef {{run: number, block: Block, head: number, button: HTMLButtonElement, canvas: HTMLCanvasElement, name: HTMLElement}} Cell */

const GAP = 8; // pixels between maps, as in style.css
const CAPTION = 44; // pixels under a map
const SMALLEST = 72;
const SMALLEST_OF_ALL = 44; // where all blocks are shown at once
const COMFORTABLE = 112;

/**
 * Lays out blocks of every run; a block that one run lacks leaves its place empty, so that rows stay beside each other.
 * @param {HTMLElement} place
 * @param {Run[]} runs
 * @param {number[]} numbers of the blocks, a row each
 * @param {(run: number, block: Block) => Cell[]} cellsOf
 * @returns {Cell[]}
 */
export function layOutRuns(place, runs, numbers, cellsOf) {
  /** @type {Cell[]} */
  const cells = [];
  place.replaceChildren();
  runs.forEach((run, column) => {
    const section = document.createElement("section");
    section.className = "run";
    const title = document.createElement("h2");
    title.textContent = run.name;
    const note = document.createElement("p");
    note.textContent = run.note;
    const head = document.createElement("div");
    head.className = "run-name";
    head.append(title, note);
    section.append(head);
    for (const number of numbers) {
      const block = run.blocks.find((each) => each.block === number);
      const row = document.createElement("div");
      row.className = block ? "block" : "block absent";
      if (block) {
        const found = cellsOf(column, block);
        cells.push(...found);
        row.append(...layOutBlock(block, found));
      } else {
        row.textContent = `no block ${number} here: ${run.name} has ${run.blocks.map((each) => each.block).join(", ")}`;
      }
      section.append(row);
    }
    place.append(section);
    if (runs.length > 1) {
      [...section.children].forEach((child, row) => {
        // A row for the runs' names, then for each block one for its title and one for its maps.
        /** @type {HTMLElement} */ (child).style.gridArea = row ? `${2 * row} / ${column + 1} / span 2` : `1 / ${column + 1}`;
      });
    }
  });
  return cells;
}

/**
 * @param {Block} block
 * @param {Cell[]} cells
 */
function layOutBlock(block, cells) {
  const title = document.createElement("h3");
  title.textContent = `block ${block.block}: ${block.label}`;
  const maps = document.createElement("div");
  maps.className = "maps";
  maps.append(...cells.map((cell) => cell.button));
  return [title, maps];
}

/**
 * @param {number} run
 * @param {Block} block
 * @param {number} head
 * @param {Picture} picture
 * @param {boolean} overlay
 * @returns {Cell}
 */
export function makeCell(run, block, head, picture, overlay) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = `head${overlay ? " over" : ""}${block.windows > 1 ? " windowed" : ""}`;
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
  return { run, block, head, button, canvas, name };
}

/**
 * Gives the maps as many columns as fill the width: of one block the fewest with which all of it fits the window's
 * height; of all blocks as many as it has heads, and blocks of a single run side by side where there is room.
 * @param {HTMLElement} place
 * @param {number} runs
 * @param {number} heads the most that a block has
 * @param {boolean} all
 * @param {number} shape height over width of the picture
 */
export function fit(place, runs, heads, all, shape) {
  const width = place.clientWidth;
  place.classList.toggle("beside", runs > 1);
  const beside = runs > 1 ? runs : all ? Math.min(Math.max(Math.floor(width / (heads * COMFORTABLE)), 1), 3) : 1;
  place.style.gridTemplateColumns = `repeat(${beside}, minmax(0, 1fr))`;
  const share = (width - 2 * GAP * (beside - 1)) / beside;
  const height = Math.max(window.innerHeight - place.getBoundingClientRect().top - window.scrollY - 24, 320);
  const columns = all
    ? Math.max(Math.min(heads, Math.floor((share + GAP) / (SMALLEST_OF_ALL + GAP))), 1)
    : columnsFor(heads, share, height, shape);
  place.style.setProperty("--columns", String(columns));
  place.style.setProperty("--widest", `${Math.round(height / shape)}px`);
}

/**
 * @param {number} heads
 * @param {number} width
 * @param {number} height
 * @param {number} shape
 */
function columnsFor(heads, width, height, shape) {
  for (let columns = 1; columns < heads; columns += 1) {
    const side = (width - GAP * (columns - 1)) / columns;
    const next = (width - GAP * columns) / (columns + 1);
    if (Math.ceil(heads / columns) * (side * shape + CAPTION) <= height || next < SMALLEST) return columns;
  }
  return heads;
}
