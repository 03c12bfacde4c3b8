/* Sets of neurons under settings that a reader chooses: `crane_lab/show/selection_view.py` writes
   the data. */
(() => {
  "use strict";

  function floats(text) {
    return new Float32Array(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  }

  const grouped = (n) => n.toLocaleString("en");

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
    if (budget !== null && !(Number.isInteger(budget) && budget >= 0)) {
      const given = Number.isNaN(budget) ? "what stands there" : String(budget).replace("-", "−");
      throw new Error(`a budget is a whole number of neurons, 0 or more, not ${given}`);
    }
    if (rule === "top" && budget === null) throw new Error("the rule top needs a number of neurons to take");
    if (budget > own.length) throw new Error(`there are only ${grouped(own.length)} neurons to choose from`);
    if (rule === "top" && budget > found.length) throw new Error(`only ${grouped(found.length)} neurons have a score`);
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

  function enhance(view, data, [scatter, bars]) {
    const { element, field, choice, slider } = explorable;
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
      const none = budget.validity.badInput ? NaN : null; // a browser gives "" for "1e", too
      state.budget = budget.value === "" ? none : Number(budget.value);
      show();
    });
    const rule = choice(pairs(data.rules), state.rule, (value) => {
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
    statistic.style.flexBasis = "12rem"; // for its longer names
    fields.append(
      field("Target language", choice(names.map((name, i) => [String(i), name]), String(state.target), change("target", Number))),
      statistic,
      field("Normalisation", choice(pairs(data.normalisations), state.normalisation, change("normalisation"))),
      field("Rule", rule), field("Budget", budget), wide);

    // --- the drawings -----------------------------------------------------------------------------

    /* `selection_view._squeeze`. */
    const squeeze = (x) => (Math.abs(x) <= data.linear ? x : Math.sign(x) * data.linear * (1 + Math.log(Math.abs(x) / data.linear)));

    let shown = { key: "" }; // all neurons of the scatter, which few of the fields change

    function drawAll() {
      const key = `${state.target} ${state.statistic} ${state.normalisation}`;
      if (key === shown.key) return;
      const own = scores(state)[state.target];
      const others = othersOf(scores(state), state.target);
      const columns = (neurons) => ({
        x: neurons.map((n) => squeeze(own[n])),
        y: neurons.map((n) => squeeze(others[n])),
        neuron: neurons.map((n) => `${Math.floor(n / width)}.${n % width}`),
        own: neurons.map((n) => own[n]),
        others: neurons.map((n) => others[n]),
      });
      const known = (n) => !Number.isNaN(own[n] + others[n]);
      const all = columns(Array.from(own.keys()).filter(known));
      const ends = all.x.concat(all.y);
      const [low, high] = [Math.min, Math.max].map((end) => ends.reduce((a, b) => end(a, b), 0));
      shown = { key, low, high, columns, known };
      scatter("all").data = all;
    }

    function drawScatter(chosen) {
      drawAll();
      const at = squeeze(state.threshold);
      scatter("both").setv({ start: Math.min(shown.low, at) - 0.2, end: Math.max(shown.high, at) + 0.2 });
      const found = shown.columns(chosen.filter(shown.known));
      scatter("chosen").data = { ...found, colour: found.x.map(() => colours[state.target]) };
      scatter("own").setv({ location: at, visible: state.rule !== "top" });
      scatter("others").setv({ location: at, visible: state.rule === "contrast" });
      scatter("axis").axis_label = `score for ${names[state.target]}`;
    }

    function drawBars(sets) {
      const found = sets.map((neurons) => counts(neurons, layers, width));
      found.forEach((own, i) => {
        bars(`language ${i}`).data = { layer: own.map((_, layer) => layer), top: own, count: own.map(String) };
      });
      bars("counts").end = 1.12 * Math.max(1, ...found.flat()); // with room for the number above
    }

    // --- what is said -----------------------------------------------------------------------------

    function sentence(sets) {
      const own = sets[state.target];
      const name = names[state.target];
      const most = state.budget === null || state.budget === own.length ? "" : `, fewer than the budget of ${grouped(state.budget)}`;
      const same = jaccard(own, standard[state.target]);
      let said = `${name}: ${grouped(own.length)} of ${grouped(size)} neurons${most}` +
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
      if (!neurons) return row(i, Array(effects ? 6 : 3).fill("–"));
      const same = jaccard(neurons, standard[i]);
      const cells = [grouped(neurons.length), counts(neurons, layers, width).join(", "), Number.isNaN(same) ? "–" : same.toFixed(2)];
      if (effects) {
        const cost = damage(effects, i, neurons, layers, width);
        cells.push(...(neurons.length
          ? [signed(cost.own), signed(cost.random), `${signed(cost.other)} (${names[cost.largest]})`]
          : ["–", "–", "–"]));
      }
      return row(i, cells);
    }

    function row(i, cells) {
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
      budget.setAttribute("aria-invalid", String(wrong !== ""));
      view.querySelector(".explorable-said").textContent = wrong || sentence(sets);
      view.querySelector("tbody").replaceChildren(...sets.map((own, i) => line(wrong ? null : own, i)));
      drawScatter(sets[state.target]);
      drawBars(sets);
    }

    show();
    fields.hidden = false;
  }

  Object.assign(globalThis, { selectNeurons, neuronDamage: damage }); // for the tests
  document.addEventListener("DOMContentLoaded", () => explorable.start(".selection-view", enhance));
})();
