/* What scrolls sideways, such as a wide table or a line of code, can be scrolled by keyboard, too. */
(() => {
  "use strict";

  const WIDE = ":is(table, pre, .explorable-rows, .choice-rows, [style*='overflow-x'], mjx-container[display='true'])";

  /* A stop for the tabulator as long as there is something to scroll, and not beyond. */
  function check(box) {
    const scrolls = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
    if (scrolls && !box.hasAttribute("tabindex")) {
      box.tabIndex = 0;
      box.dataset.scrolls = "";
    } else if (!scrolls && "scrolls" in box.dataset) {
      box.removeAttribute("tabindex");
      delete box.dataset.scrolls;
    }
  }

  addEventListener("load", () => {
    const sized = new ResizeObserver((entries) => entries.forEach((entry) => check(entry.target)));
    document.querySelectorAll(`.bd-article ${WIDE}`).forEach((box) => {
      check(box);
      sized.observe(box);
    });
  });
})();
