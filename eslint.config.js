import js from "@eslint/js";

const browser = ["atob", "document", "getComputedStyle", "HTMLSelectElement", "matchMedia", "performance", "requestAnimationFrame", "ResizeObserver", "window"];

export default [
  js.configs.recommended,
  {
    languageOptions: { globals: Object.fromEntries(browser.map((name) => [name, "readonly"])) },
    rules: { eqeqeq: "error", "no-var": "error", "prefer-const": "error" },
  },
];
