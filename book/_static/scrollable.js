/* What scrolls sideways, such as a wide table or a line of code, can be scrolled by keyboard, too. */
(() => {
  "use strict";

  const WIDE = ":is(table, pre, .explorable-rows, .choice-rows, [style*='overflow-x'], mjx-container[display='true'])";

  const SAID = ":is(table, div)"; /* of which it is also said; a cut line of code shows it itself */

  /* A stop for the tabulator as long as there is something to scroll, and not beyond. */
  function check(box) {
    const scrolls = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
    if (scrolls && box.tabIndex < 0) { // which the theme says of code that was narrower, or folded
      box.tabIndex = 0;
      box.dataset.scrolls = "";
      if (box.matches(SAID)) say(box);
    } else if (!scrolls && "scrolls" in box.dataset) {
      box.removeAttribute("tabindex");
      delete box.dataset.scrolls;
      if (box.previousElementSibling?.matches(".scroll-hint")) box.previousElementSibling.remove();
    }
  }

  /* For eyes alone: who hears the page hears all of it. */
  function say(box) {
    const hint = document.createElement("div");
    hint.className = "scroll-hint";
    hint.setAttribute("aria-hidden", "true");
    const opens = box.querySelector("img.figure-opens") ? ", or tap it to see it large" : ""; // figure_zoom.js
    hint.textContent = `wider than the page: scroll it sideways →${opens}`;
    box.before(hint);
  }

  addEventListener("load", () => {
    const sized = new ResizeObserver((entries) => entries.forEach((entry) => check(entry.target)));
    document.querySelectorAll(`.bd-article ${WIDE}`).forEach((box) => {
      check(box);
      sized.observe(box);
    });
  });
})();
