/* What the views that a reader changes have in common. Texts are set as text, never as HTML. */
globalThis.explorable = (() => {
  "use strict";

  function filled(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /* An element of HTML. */
  function element(kind, attributes = {}, ...children) {
    return filled(document.createElement(kind), attributes, children);
  }

  /* An element of SVG. */
  function shape(kind, attributes = {}, ...children) {
    return filled(document.createElementNS("http://www.w3.org/2000/svg", kind), attributes, children);
  }

  /* A control under its name; `said` beside the name is for the eye, a control says its own value. */
  function field(name, control, said = "") {
    control.autocomplete = "off"; // or a browser may restore what is not shown
    return element("label", {}, element("span", {}, name, " ", said), control);
  }

  /* A list to choose from: pairs of value and text. */
  function choice(pairs, chosen, changed) {
    const select = element("select");
    for (const [value, text] of pairs) select.append(new Option(text, value, false, value === chosen));
    select.addEventListener("change", () => changed(select.value));
    return select;
  }

  function slider(bounds, value, moved) {
    const input = element("input", { type: "range", ...bounds });
    input.value = value;
    input.addEventListener("input", () => moved(Number(input.value)));
    return input;
  }

  /* Let `enhance` work on every view of a class, once the page and all scripts are there. */
  function start(name, enhance) {
    document.querySelectorAll(name).forEach((view) => {
      enhance(view, JSON.parse(view.querySelector("script[type='application/json']").textContent));
    });
  }

  /* A number as text, with a minus as wide as a plus, and none before what is rounded to 0. */
  function written(value, digits) {
    const text = Math.abs(value).toFixed(digits);
    return (value < 0 && Number(text) ? "−" : "") + text;
  }

  /* The same with a sign always. */
  function signed(value, digits) {
    const text = written(value, digits);
    return text.startsWith("−") ? text : `+${text}`;
  }

  return { element, shape, field, choice, slider, start, written, signed };
})();
