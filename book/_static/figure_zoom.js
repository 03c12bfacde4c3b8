/* Figures open large, in a dialog that scrolls both ways: by a click, a tap, or the Enter key. */
(() => {
  "use strict";

  function made(kind, attributes, ...children) {
    const element = document.createElement(kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /* A dialog without a figure. The browser closes it on Escape and gives the focus back. */
  function dialog() {
    const close = made("button", { type: "button" }, "Close");
    const scrolled = made("div", { class: "figure-scrolled", tabindex: "0" });
    const found = made("dialog", { class: "figure-large" }, close, scrolled);
    close.addEventListener("click", () => found.close());
    found.addEventListener("click", (event) => {
      if (event.target === found) found.close(); // beside the figure, that is, on the page below
    });
    document.body.append(found);
    return { found, scrolled };
  }

  document.addEventListener("DOMContentLoaded", () => {
    let large = null;

    function open(image) {
      large ??= dialog();
      large.found.setAttribute("aria-label", image.alt);
      const copy = made("img", { src: image.currentSrc || image.src, alt: image.alt, class: "dark-light" }); // the theme dims others
      large.scrolled.replaceChildren(copy);
      large.found.showModal();
    }

    for (const image of document.querySelectorAll(".bd-article img[alt]:not([alt='']):not(a img, summary img)")) {
      image.classList.add("figure-opens");
      image.tabIndex = 0;
      image.setAttribute("role", "button"); // its name is the alternative text
      image.setAttribute("aria-haspopup", "dialog");
      image.addEventListener("click", () => open(image));
      image.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault(); // or a space would scroll the page
        open(image);
      });
    }
  });
})();
