/* Single neurons that a reader looks up: `crane_lab/show/neuron_view.py` writes the data. */
(() => {
  "use strict";

  const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const plain = (value) => Number(value.toPrecision(2)).toString().replace("-", "−");

  /* From the light ground to orange above zero and to purple below; ink is dark on all of it. */
  function colour(share) {
    const to = share < 0 ? [153, 142, 195] : [224, 130, 20];
    const mixed = [251, 250, 247].map((from, i) => Math.round(from + Math.abs(share) * (to[i] - from)));
    return `rgb(${mixed.join(" ")})`;
  }

  /* A text for "2.417": the place among all neurons, or NaN for what is none. */
  function placeOf(text, width) {
    const found = /^\s*(\d+)\s*[.,:/ ]\s*(\d+)\s*$/.exec(text);
    return found && Number(found[2]) < width ? Number(found[1]) * width + Number(found[2]) : NaN;
  }

  function enhance(view, data, drawings) {
    const { element, field, choice, signed } = explorable;
    const { names, codes, width, bars, lists, pieces, tops } = data;
    const places = typeof data.neurons === "number" ? Array.from({ length: data.neurons }, (_, i) => i) : data.neurons;
    const numberOf = new Map(places.map((place, k) => [place, k]));
    const ends = floats(data.ends);
    const heights = data.heights.map(bytes);
    const [kurtosis, necessity, reach] = [data.kurtosis, data.necessity, data.reach].map((one) => one.map(floats));
    const sets = data.sets.map(([name, own]) => [name, own.map(bytes)]);
    const inside = (bits, k) => (bits[k >> 3] >> (k & 7)) & 1;
    const texts = data.texts.map((of) => {
      const windows = of.windows.map((one) => new Uint16Array(bytes(one).buffer));
      const which = new Uint16Array(bytes(of.which).buffer);
      let at = 0;
      const starts = Array.from(which, (window) => (at += windows[window].length) - windows[window].length);
      return { windows, which, starts, sums: floats(of.sums), levels: new Int8Array(bytes(of.levels).buffer) };
    });
    const label = (k) => `${Math.floor(places[k] / width)}.${places[k] % width}`;
    const every = typeof data.neurons === "number"; // or some that were chosen
    const state = { list: 0, neuron: lists[0][1][0], language: 0 };

    // --- the fields -------------------------------------------------------------------------------

    const fields = view.querySelector(".explorable-fields");
    const list = choice(lists.map(([name], i) => [String(i), name]), "0", (value) => {
      state.list = Number(value);
      state.neuron = lists[state.list][1][0];
      forget();
      fill();
      show();
    });
    const neuron = choice([], "", (value) => {
      state.neuron = Number(value);
      forget();
      show();
    });
    const search = element("input", { type: "text", inputmode: "decimal", spellcheck: "false", placeholder: label(state.neuron) });
    search.addEventListener("input", () => {
      const k = numberOf.get(placeOf(search.value, width));
      const wrong = k === undefined && search.value.trim() !== "";
      search.setAttribute("aria-invalid", String(wrong));
      const known = every ? `from ${label(0)} to ${label(places.length - 1)}` : `one of ${places.length} neurons, such as ${label(0)}`;
      missing.textContent = wrong ? `There is no neuron ${search.value.trim()} here: a layer, a dot and a neuron, ${known}.` : "";
      if (k !== undefined) {
        state.neuron = k;
        fill();
        show();
      }
    });
    const language = choice(names.map((name, i) => [String(i), name]), "0", (value) => {
      state.language = Number(value);
      show();
    });
    fields.append(
      field("List", list), field("Neuron of the list", neuron),
      field(every ? "Or any: layer.neuron" : `Or one of ${places.length}: layer.neuron`, search), field("Texts in", language));
    const missing = element("p", { class: "neuron-missing", role: "status" });

    /* What was typed, once another neuron is chosen. */
    function forget() {
      search.value = "";
      search.setAttribute("aria-invalid", "false");
      missing.textContent = "";
    }

    function fill() {
      const own = lists[state.list][1];
      const options = own.map((k) => new Option(label(k), String(k), false, k === state.neuron));
      if (!own.includes(state.neuron)) options.unshift(new Option(`${label(state.neuron)}, not on this list`, String(state.neuron), true, true));
      neuron.replaceChildren(...options);
      neuron.value = String(state.neuron);
    }

    // --- what is shown ----------------------------------------------------------------------------

    const said = element("p", { class: "explorable-said", "aria-live": "polite", "aria-atomic": "true" });
    const body = element("tbody");
    const heads = ["language", "kurtosis", "necessity, thousandths of a nat", "in the sets of"];
    const table = element("div", { class: "explorable-rows" }, element("table", { class: "dataframe" },
      element("caption", {}, "The neuron in every language; necessity with 95 % over texts"),
      element("thead", {}, element("tr", {}, ...heads.map((one) => element("th", { scope: "col" }, one)))), body));
    const key = element("p", { class: "explorable-key" },
      "Bars: windows by the neuron's relevance in them; the height is logarithmic, so that single windows can be seen.");
    const heard = element("div", { class: "neuron-texts" });
    view.querySelector(".neuron-shown").append(key, heard);
    view.querySelector(".neuron-shown").prepend(missing, said, table);

    function draw(drawing, language) {
      const k = state.neuron;
      const [low, high] = ends.subarray(2 * k, 2 * k + 2);
      const step = (high > low ? high - low : 1) / bars;
      const own = heights[language].subarray(bars * k, bars * (k + 1));
      const left = Array.from(own, (_, i) => low + i * step);
      drawing("bars").data = { left, right: left.map((one) => one + step), top: Array.from(own) };
      drawing("relevance").setv({ start: low - step, end: low + (bars + 1) * step });
      drawing.place.setAttribute("aria-label", `Histogram of the relevance of neuron ${label(k)} in ${data.windows[language]} ` +
        `windows in ${names[language]}, from ${plain(low)} to ${plain(high)} logits.`);
    }

    function textOf(language, top) {
      const of = texts[language];
      const at = state.neuron * tops + top;
      const window = of.windows[of.which[at]];
      const start = of.starts[at];
      const marked = element("p", { class: "neuron-text", lang: codes[language] }, ...Array.from(window, (piece, i) => {
        const span = element("span", {}, pieces[piece].replaceAll("\n", "⏎"));
        const level = of.levels[start + i];
        if (level) span.style.backgroundColor = colour(level / 127);
        return span;
      }));
      return [element("p", { class: "neuron-sum" }, `Relevance in this text: ${signed(of.sums[at], 2)} logits`), marked];
    }

    function show() {
      const k = state.neuron;
      const rows = names.map((name, i) => {
        const [value, half] = [1000 * necessity[i][k], 1000 * reach[i][k]];
        const own = sets.filter(([, by]) => inside(by[i], k)).map(([method]) => method);
        return { name, value, certain: Math.abs(value) > half, cells: [
          kurtosis[i][k].toFixed(1), `${signed(value, 1)}\u00a0±\u00a0${half.toFixed(1)}`, own.join(", ") || "none"] };
      });
      const by = (up) => rows.filter((row) => row.certain && row.value > 0 === up)
        .map(({ name, value }) => `${name} by ${signed(value, 1)}`).join(", ");
      const [more, less] = [by(true), by(false)];
      said.textContent = `Layer ${Math.floor(places[k] / width)}, neuron ${places[k] % width}. ` + (more
        ? `Without it the loss certainly rises in ${more}, thousandths of a nat per token`
        : "It is not shown to be needed by any language: no interval lies above 0") +
        (less ? `; it falls in ${less}.` : ".");
      body.replaceChildren(...rows.map(({ name, cells }) => element("tr", {},
        element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", {}, cell)))));
      drawings.forEach(draw);
      heard.replaceChildren(...Array.from({ length: tops }, (_, top) => textOf(state.language, top)).flat(),
        element("p", { class: "explorable-key" }, "The texts in which its relevance is largest in size, each token on a ground of its share: ",
          element("span", { class: "neuron-text neuron-for" }, "orange"), " speaks for what follows, ",
          element("span", { class: "neuron-text neuron-against" }, "purple"), " against it."));
    }

    fill();
    show();
    fields.hidden = false;
  }

  globalThis.neuronPlace = placeOf; // for the tests
  document.addEventListener("DOMContentLoaded", () => explorable.start(".neuron-view", enhance));
})();
