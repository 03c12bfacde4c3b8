/* What the views that a reader changes have in common. Texts are set as text, never as HTML. */
globalThis.explorable = (() => {
  "use strict";

  const BOKEH = new URL("../bokeh.min.js", document.currentScript.src || document.baseURI).href;
  let started = Promise.resolve();

  function element(kind, attributes = {}, ...children) {
    const made = document.createElement(kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
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

  /* Bokeh, of the version that a drawing was made with; a page without a view does not load it. */
  async function library(version) {
    if (globalThis.Bokeh) return;
    await new Promise((resolve, reject) => {
      const script = element("script", { src: `${BOKEH}?v=${version}` });
      script.addEventListener("load", resolve);
      script.addEventListener("error", () => reject(new Error(`there is no ${BOKEH}`)));
      document.head.append(script);
    });
  }

  /* A drawing in its place: what is in it, by name. */
  async function drawn(item, place) {
    const [root] = (await Bokeh.embed.embed_item(item, place)).roots;
    root.canvas.events_el.tabIndex = -1; // nothing is done there with keys
    return Object.assign((name) => root.model.document.get_model_by_name(name), { place });
  }

  async function begin(view, enhance) {
    const data = JSON.parse(view.querySelector("script[type='application/json']").textContent);
    const drawings = view.querySelector(".explorable-drawings");
    try {
      await library(data.drawings[0].doc.version);
      drawings.hidden = false; // a hidden place has no width to draw in
      const made = [];
      for (const [i, item] of data.drawings.entries()) made.push(await drawn(item, drawings.children[i]));
      enhance(view, data, made);
      view.querySelector(".explorable-alone").remove();
    } catch (error) {
      drawings.hidden = true;
      view.prepend(element("p", { class: "explorable-missing" },
        `What can be tried here could not be drawn (${error.message}); what stands below is as without scripts.`));
    }
  }

  /* Let `enhance` work on every view of a class, with its data and its drawings, one after another. */
  function start(name, enhance) {
    for (const view of document.querySelectorAll(name)) started = started.then(() => begin(view, enhance));
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

  return { element, field, choice, slider, start, written, signed, ready: () => started };
})();
