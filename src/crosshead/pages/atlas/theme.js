// @ts-check
/* Light and dark. */

const root = document.documentElement;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** @param {HTMLElement} button */
function nameTheme(button) {
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-pressed", String(isDark()));
}

/**
 * Lets a button change between light and dark; before that the reader's system decides.
 * @param {HTMLElement} button
 */
export function followTheme(button) {
  nameTheme(button);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme(button);
  });
}
