/* Sets of neurons under settings that a reader chooses: `crane_lab/show/selection_view.py` writes
   the data. */
(() => {
  "use strict";

  const RULES = ["contrast", "threshold", "top"];
  const SIDE = 300; // of the scatter, in its own units
  const LINEAR = 3; // up to here the axes are linear, as in Figure 3, and logarithmic beyond

  function floats(text) {
    return new Float32Array(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  }

  /* The largest score of any other language, NaN where one has none: `selection.margins`. */
  function othersOf(scores, target) {
    const rest = scores.filter((_, i) => i !== target);
    return Float32Array.from(scores[target], (_, n) => Math.max(...rest.map((own) => own[n])));
  }

  /* `crane_core.selection.select`: scores by language -> the neurons chosen, in their order. */
  function selectNeurons(scores, target, rule, threshold, budget) {
    const own = scores[target];
    const others = othersOf(scores, target);
    const neurons = Array.from(own.keys());
    const rank = (n) => (rule === "contrast" ? own[n] - others[n] : own[n]);
    const found = neurons.filter((n) => {
      if (rule === "top") return !Number.isNaN(own[n]);
      return own[n] > threshold && (rule === "threshold" || others[n] <= threshold);
    });
    if (budget < 0) throw new Error(`a budget is 0 neurons or more, not ${String(budget).replace("-", "−")}`);
    if (rule === "top" && budget === null) throw new Error("the rule top needs a number of neurons to take");
    if (budget > own.length) throw new Error(`there are only ${own.length} neurons to choose from`);
    if (rule === "top" && budget > found.length) throw new Error(`only ${found.length} neurons have a score`);
    if (budget === null || budget >= found.length) return found;
    // Sorting is stable: ties go to the lower layer and neuron.
    return found.sort((a, b) => rank(b) - rank(a)).slice(0, budget).sort((a, b) => a - b);
  }

  /* Shared neurons / neurons in either; NaN if both sets are empty. */
  function jaccard(a, b) {
    const known = new Set(b);
    const shared = a.filter((n) => known.has(n)).length;
    return shared / (a.length + b.length - shared);
  }

  function counts(neurons, layers, width) {
    const found = Array(layers).fill(0);
    for (const n of neurons) found[Math.floor(n / width)] += 1;
    return found;
  }

  const total = (values, neurons) => neurons.reduce((sum, n) => sum + values[n], 0);

  /* What the chosen neurons cost by their single effects: the own language, the largest other, and
     what as many in every layer would cost the own one on average. */
  function damage(effects, target, neurons, layers, width) {
    const sums = effects.map((values) => total(values, neurons));
    const others = sums.map((_, i) => i).filter((i) => i !== target);
    const largest = others.reduce((a, b) => (sums[b] > sums[a] ? b : a));
    const byLayer = counts(neurons, layers, width).map((count, layer) =>
      count * effects[target].slice(layer * width, (layer + 1) * width).reduce((a, b) => a + b, 0) / width);
    return { own: sums[target], largest, other: sums[largest], random: byLayer.reduce((a, b) => a + b, 0) };
  }

  function enhance(view, data) {
    const { element, shape, field, choice, slider } = explorable;
    const signed = (value) => explorable.signed(value, 3);
    const { names, colours, layers, width } = data;
    const size = layers * width;
    const read = new Map(); // decoded when they are first chosen
    const effects = data.effects && data.effects.map(floats);
    const state = { ...data.first };

    function scores({ statistic, normalisation }) {
      const key = `${statistic} ${normalisation}`;
      if (!read.has(key)) read.set(key, data.scores[statistic][normalisation].map(floats));
      return read.get(key);
    }

    const chosenBy = (settings, target) => selectNeurons(
      scores(settings), target, settings.rule, settings.threshold, settings.budget);
    const standard = names.map((_, i) => chosenBy(data.first, i));

    // --- the fields -------------------------------------------------------------------------------

    const fields = view.querySelector(".explorable-fields");
    const change = (name, as = String) => (value) => {
      state[name] = as(value);
      show();
    };
    const pairs = (values) => values.map((value) => [value, value]);
    const budget = element("input", { type: "number", min: 0, max: size, step: 1, placeholder: "all", inputmode: "numeric" });
    budget.value = state.budget ?? "";
    budget.addEventListener("input", () => {
      state.budget = budget.value === "" ? null : Math.round(Number(budget.value));
      show();
    });
    const rule = choice(pairs(RULES), state.rule, (value) => {
      state.rule = value;
      if (value === "top" && state.budget === null) {
        state.budget = standard[state.target].length;
        budget.value = state.budget;
      }
      show();
    });
    const least = Math.min(-2, Math.floor(state.threshold));
    const most = Math.max(10, Math.ceil(state.threshold));
    const threshold = slider({ min: least, max: most, step: 0.05 }, state.threshold, change("threshold", Number));
    const said = element("span", { "aria-hidden": "true", class: "explorable-value" });
    const wide = field("Threshold, in normalised scores", threshold, said);
    wide.classList.add("explorable-wide");
    const statistic = field("Statistic", choice(data.statistics, state.statistic, change("statistic")));
    statistic.style.flexBasis = "10rem"; // for its longer names
    fields.append(
      field("Target language", choice(names.map((name, i) => [String(i), name]), String(state.target), change("target", Number))),
      statistic,
      field("Normalisation", choice(pairs(data.normalisations), state.normalisation, change("normalisation"))),
      field("Rule", rule), field("Budget", budget), wide);

    // --- the drawings -----------------------------------------------------------------------------

    const scatter = shape("svg", { role: "img", viewBox: `-34 -8 ${SIDE + 42} ${SIDE + 46}` });
    const bars = shape("svg", { role: "img", viewBox: `-34 -24 ${SIDE + 42} ${SIDE + 62}` });
    scatter.setAttribute("aria-label", "Every neuron by its score for the target language, to the " +
      "right, and the largest score of another language, upwards; chosen neurons are coloured.");
    bars.setAttribute("aria-label", "Bars of the number of chosen neurons in every layer, by " +
      "language; the numbers are in the table.");
    view.querySelector(".explorable-said").after(element("div", { class: "selection-drawings" }, scatter, bars));

    const squeeze = (x) => (Math.abs(x) <= LINEAR ? x : Math.sign(x) * LINEAR * (1 + Math.log(Math.abs(x) / LINEAR)));

    function text(x, y, anchor, said) {
      return shape("text", { x, y, "text-anchor": anchor }, said);
    }

    function drawScatter(chosen) {
      const own = scores(state)[state.target];
      const others = othersOf(scores(state), state.target);
      const known = Array.from(own.keys()).filter((n) => !Number.isNaN(own[n] + others[n]));
      let [low, high] = [state.threshold, state.threshold];
      for (const n of known) {
        low = Math.min(low, own[n], others[n]);
        high = Math.max(high, own[n], others[n]);
      }
      const [from, to] = [squeeze(low) - 0.2, squeeze(high) + 0.2];
      const x = (value) => SIDE * (squeeze(value) - from) / (to - from);
      const y = (value) => SIDE - x(value);
      const dots = (neurons) => neurons.map((n) => `M${x(own[n]).toFixed(1)} ${y(others[n]).toFixed(1)}h0`).join("");
      const inside = new Set(chosen);
      const at = x(state.threshold);
      const parts = [shape("rect", { x: 0, y: 0, width: SIDE, height: SIDE, class: "selection-frame" })];
      if (state.rule !== "top") {
        parts.push(shape("line", { x1: at, x2: at, y1: 0, y2: SIDE, class: "selection-line" }));
      }
      if (state.rule === "contrast") {
        parts.push(shape("line", { x1: 0, x2: SIDE, y1: SIDE - at, y2: SIDE - at, class: "selection-line" }));
      }
      parts.push(
        shape("path", { d: dots(known.filter((n) => !inside.has(n))), class: "selection-dots" }),
        shape("path", { d: dots(known.filter((n) => inside.has(n))), class: "selection-dots selection-chosen" }));
      const named = (tick) => explorable.written(tick, 0);
      let last = -Infinity;
      for (const tick of [-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300, 1000]) {
        if (tick < low || tick > high || x(tick) - last < 22) continue;
        last = x(tick);
        parts.push(text(x(tick), SIDE + 14, "middle", named(tick)), text(-5, y(tick) + 4, "end", named(tick)));
      }
      const up = text(0, 0, "middle", "largest score of another language");
      up.setAttribute("transform", `translate(-24 ${SIDE / 2}) rotate(-90)`);
      parts.push(text(SIDE / 2, SIDE + 32, "middle", `score for ${names[state.target]}`), up);
      scatter.style.setProperty("--colour", colours[state.target]);
      scatter.replaceChildren(...parts);
    }

    function drawBars(sets) {
      const found = sets.map((neurons) => counts(neurons, layers, width));
      const most = Math.max(1, ...found.flat());
      const step = SIDE / layers;
      const thick = step * 0.8 / names.length;
      const every = Math.ceil(layers / 12);
      const parts = [shape("line", { x1: 0, x2: SIDE, y1: SIDE, y2: SIDE, class: "selection-frame" })];
      found.forEach((own, i) => own.forEach((count, layer) => {
        const tall = (SIDE - 16) * count / most; // room for the number above
        const x = layer * step + step * 0.1 + i * thick;
        parts.push(shape("rect", { x, y: SIDE - tall, width: thick * 0.9, height: tall, fill: colours[i] }));
        if (thick > 16) parts.push(text(x + thick * 0.45, SIDE - tall - 4, "middle", String(count)));
      }));
      for (let layer = 0; layer < layers; layer += every) {
        parts.push(text((layer + 0.5) * step, SIDE + 14, "middle", String(layer)));
      }
      const up = text(0, 0, "middle", "neurons chosen");
      up.setAttribute("transform", `translate(-12 ${SIDE / 2}) rotate(-90)`);
      parts.push(text(SIDE / 2, SIDE + 32, "middle", "layer"), up);
      names.forEach((name, i) => {
        const x = i * SIDE / names.length;
        parts.push(shape("rect", { x, y: -20, width: 9, height: 9, fill: colours[i] }), text(x + 13, -12, "start", name));
      });
      bars.replaceChildren(...parts);
    }

    // --- what is said -----------------------------------------------------------------------------

    function sentence(sets) {
      const own = sets[state.target];
      const name = names[state.target];
      const most = state.budget === null || state.budget === own.length ? "" : `, fewer than the budget of ${state.budget}`;
      const same = jaccard(own, standard[state.target]);
      let said = `${name}: ${own.length} of ${size.toLocaleString("en")} neurons${most}` +
        (Number.isNaN(same) ? "" : `; Jaccard with this run's set ${same.toFixed(2)}`) + ".";
      if (effects && own.length) {
        const cost = damage(effects, state.target, own, layers, width);
        said += ` By their single effects together they cost ${name} ${signed(cost.own)} nats per token and ` +
          `${names[cost.largest]}, the most of the others, ${signed(cost.other)}; as many at random in every ` +
          `layer would cost ${name} ${signed(cost.random)}.`;
      }
      return said;
    }

    function line(neurons, i) {
      const same = jaccard(neurons, standard[i]);
      const cells = [String(neurons.length), counts(neurons, layers, width).join(", "), Number.isNaN(same) ? "–" : same.toFixed(2)];
      if (effects) {
        const cost = damage(effects, i, neurons, layers, width);
        cells.push(signed(cost.own), signed(cost.random), `${signed(cost.other)} (${names[cost.largest]})`);
      }
      const head = element("th", { scope: "row" }, names[i]);
      const made = element("tr", {}, head, ...cells.map((cell) => element("td", {}, cell)));
      if (i === state.target) made.classList.add("selection-target");
      return made;
    }

    function show() {
      said.textContent = state.rule === "top" ? "not used by top" : explorable.written(state.threshold, 2);
      threshold.setAttribute("aria-valuetext", said.textContent);
      threshold.disabled = state.rule === "top";
      let sets = names.map(() => []);
      let wrong = "";
      try {
        sets = names.map((_, i) => chosenBy(state, i));
      } catch (error) {
        wrong = `Nothing is chosen: ${error.message}.`;
      }
      budget.setAttribute("aria-invalid", String(state.budget < 0));
      view.querySelector(".explorable-said").textContent = wrong || sentence(sets);
      view.querySelector("tbody").replaceChildren(...sets.map(line));
      drawScatter(sets[state.target]);
      drawBars(sets);
    }

    show();
    view.querySelector(".explorable-alone").remove();
    fields.hidden = false;
  }

  Object.assign(globalThis, { selectNeurons, neuronDamage: damage }); // for the tests
  document.addEventListener("DOMContentLoaded", () => explorable.start(".selection-view", enhance));
})();
