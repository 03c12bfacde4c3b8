/* LangSpec-F1 of drops that a reader moves: `crane_lab/show/langspec_view.py` writes the data. */
(() => {
  "use strict";

  const AGGREGATES = { max: "their largest", mean: "their mean", sum: "their sum" };
  const MEASURES = ["precision", "recall", "f1"];

  /* Eq. 3-5 as `crane_core.metrics` has them; scores before and after by language, 0 or more. */
  function langspecF1(before, after, target, epsilon, how, relative) {
    let drops = before.map((score, i) => Math.max(score - after[i], 0));
    const recall = drops[target] / (before[target] + epsilon);
    if (relative) drops = drops.map((drop, i) => drop / (before[i] + epsilon));
    const own = drops[target];
    const rest = drops.filter((_, i) => i !== target);
    const sum = rest.reduce((a, b) => a + b, 0);
    const others = { max: Math.max(...rest), mean: sum / rest.length, sum }[how];
    const precision = own / (own + others + epsilon);
    const f1 = 2 * precision * recall / (precision + recall + epsilon);
    return { own, others, precision, recall, f1 };
  }

  /* As numpy's, between the two nearest. */
  function quantile(values, share) {
    const sorted = Float64Array.from(values).sort();
    const place = (sorted.length - 1) * share;
    const low = Math.floor(place);
    const high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  }

  function enhance(view, data, [drawing]) {
    const { element, field, choice, slider, written } = explorable;
    const { names, colours, before, epsilon, enough, rows, methods } = data;
    const state = { ...data.first, after: [...rows[data.first.row].after] };
    state.target = rows[state.row].target;
    state.sized = rows[state.row].sized;
    const fields = view.querySelector(".explorable-fields");

    const start = choice(rows.map((row, i) => [String(i), row.name]), String(state.row), (value) => {
      const { target, sized, after } = rows[Number(value)];
      Object.assign(state, { target, sized, after: [...after] });
      show();
    });
    start.prepend(new Option("as moved", ""));
    start.options[0].disabled = true;
    const masked = choice(names.map((name, i) => [String(i), name]), String(state.target), (value) => {
      state.target = Number(value);
      start.value = "";
      show();
    });
    const how = choice(Object.entries(AGGREGATES), state.how, (value) => {
      state.how = value;
      show();
    });
    const drop = choice([["", "absolute"], ["1", "relative to each score"]], state.relative ? "1" : "", (value) => {
      state.relative = value !== "";
      show();
    });
    fields.append(
      field("Start from the mask", start), field("Masked language", masked),
      field("Other drops count by", how), field("Drops are", drop));

    // A slider moves a drop in percent of the score before; a score of 0 has none.
    const sliders = names.map((name, i) => {
      const said = element("span", { "aria-hidden": "true", class: "explorable-value" });
      const input = slider({ min: -10, max: 100, step: 1 }, 0, (percent) => {
        state.after[i] = before[i] * (1 - percent / 100);
        start.value = "";
        show();
      });
      input.disabled = before[i] === 0;
      const label = field(`Drop of ${name}`, input, said);
      label.classList.add("explorable-wide");
      fields.append(label);
      return { input, said };
    });

    const key = element("p", { class: "explorable-key" });
    drawing.place.parentElement.after(key);

    const measured = (after) =>
      langspecF1(before, after, state.target, epsilon, state.how, state.relative);

    function draw(found, nulls) {
      const columns = { x: [], y: [] };
      const limits = { x: [], y: [] };
      MEASURES.forEach((name, i) => {
        const random = nulls.map((one) => one[name]);
        columns.x.push(...random);
        columns.y.push(...random.map(() => -i));
        if (random.length < enough) return;
        limits.x.push(quantile(random, 0.95));
        limits.y.push(-i);
      });
      const values = MEASURES.map((name) => found[name]);
      drawing("bars").data = {
        y: values.map((_, i) => -i), value: values, said: values.map((value) => value.toFixed(3)),
        colour: values.map(() => colours[state.target]),
      };
      drawing("random").data = columns;
      drawing("limits").data = limits;
    }

    /* Of random masks: the method of whose set they have the size. Where there are none for the
       masked language, as after a change of it, CRANE's stand in, which are first. */
    const sizedAs = () => (data.nulls[state.sized][state.target] ? state.sized : 0);

    function say(found, nulls) {
      const name = names[state.target];
      const unit = state.relative ? "relative drop" : "drop";
      let text = `Mask for ${name}: its ${unit} is ${written(found.own, 3)}, that of the other languages ` +
        `(${AGGREGATES[state.how]}) ${found.others.toFixed(3)}. Precision ${found.precision.toFixed(3)}, ` +
        `recall ${found.recall.toFixed(3)}, LangSpec-F1 ${found.f1.toFixed(3)}`;
      if (nulls.length) {
        const below = nulls.filter((one) => one.f1 < found.f1).length;
        const ties = nulls.filter((one) => one.f1 === found.f1).length;
        text += `: more than ${below} of ${nulls.length} random masks as large as ${methods[sizedAs()]}'s set` +
          (ties ? ` and the same as ${ties}` : "");
        if (nulls.length >= enough) {
          text += `; 19 in 20 of these masks are below ${quantile(nulls.map((one) => one.f1), 0.95).toFixed(3)}`;
        }
      }
      view.querySelector(".explorable-said").textContent = `${text}.`;
      key.textContent = nulls.length
        ? `Short marks: ${nulls.length} random masks with as many neurons in every layer as ${methods[sizedAs()]}'s set for ${name}` +
          (nulls.length >= enough ? "; 19 in 20 of them lie left of the long mark." : ".")
        : `There are no random masks to set beside one for ${name}.`;
    }

    function show() {
      masked.value = String(state.target);
      sliders.forEach(({ input, said }, i) => {
        const lost = before[i] - state.after[i];
        const percent = before[i] ? 100 * lost / before[i] : 0;
        input.value = Math.round(percent);
        const gained = lost < 0 ? ", a gain: counts as 0" : "";
        said.textContent = `${written(lost, 3)} of ${before[i].toFixed(3)}, ${written(percent, 0)} %${gained}`;
        input.setAttribute("aria-valuetext", said.textContent);
      });
      const found = measured(state.after);
      const nulls = (data.nulls[sizedAs()][state.target] ?? []).map(measured);
      draw(found, nulls);
      say(found, nulls);
    }

    show();
    view.querySelector("details").open = false;
    fields.hidden = false;
  }

  globalThis.langspecF1 = langspecF1; // for the tests
  document.addEventListener("DOMContentLoaded", () => explorable.start(".langspec-view", enhance));
})();
