/* Table 1 at a budget that a reader chooses: `crane_lab/show/budget_view.py` writes rows and data. */
(() => {
  "use strict";

  const WIDE = 170; // units of a panel's drawing; its own frame
  const HIGH = 120;
  const APART = 14; // between two labels of an axis; the later one gives way

  function enhance(view, data) {
    const { element, shape, field, choice, slider } = explorable;
    const { names, sizes, total, methods, colours, measures } = data;
    const state = { budget: data.first, measure: 0 };
    const fields = view.querySelector(".explorable-fields");
    const rows = [...view.querySelectorAll("tbody tr")];

    const said = element("span", { "aria-hidden": "true", class: "explorable-value" });
    const budget = slider({ min: 0, max: sizes.length - 1, step: 1 }, state.budget, (value) => {
      state.budget = value;
      show();
    });
    const wide = field("Budget", budget, said);
    wide.classList.add("explorable-wide");
    const measure = choice(measures.map((one, i) => [String(i), one.label]), "0", (value) => {
      state.measure = Number(value);
      show();
    });
    fields.append(wide, field("Drawn", measure));

    const key = element("ul", { class: "budget-key" }, ...methods.map((name, i) => element("li", {},
      shape("svg", { viewBox: "-6 -6 12 12", "aria-hidden": "true" }, mark(i, 0, 0)), name)),
      element("li", {}, element("span", { class: "budget-swatch", "aria-hidden": "true" }), "random masks, smallest to largest"));
    const drawings = element("div", { class: "budget-drawings" });
    view.querySelector(".explorable-said").after(key, drawings);

    const percent = (n) => `${Number((100 * n / total).toPrecision(2))} %`;
    const number = (value, loss) => (value === null ? "–" : explorable.written(value, loss ? 3 : 2));

    /* A dot, a square, a triangle: methods differ in more than their colour. */
    function mark(method, x, y) {
      const d = [
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "m-3.5 -3.5h7v7h-7z", "m0 -4.5l4.5 8h-9z",
      ][method % 3];
      return shape("path", { d: `M${x} ${y}${d}`, fill: colours[method] });
    }

    function panel(language) {
      const { values, null: random, loss } = measures[state.measure];
      const every = measures[state.measure].values.flat(2)
        .concat(measures[state.measure].null.flat(2)).filter((value) => value !== null);
      const low = Math.min(0, ...every);
      const high = Math.max(...every, low + 1e-6);
      const from = Math.log(sizes[0]);
      const to = Math.max(Math.log(sizes[sizes.length - 1]), from + 1e-6);
      const x = (place) => WIDE * (Math.log(sizes[place]) - from) / (to - from);
      const y = (value) => HIGH * (1 - (value - low) / (high - low));
      const text = (at, up, anchor, what) => shape("text", { x: at, y: up, "text-anchor": anchor }, what);
      const drawing = shape("svg", { role: "img", viewBox: `-44 -24 ${WIDE + 58} ${HIGH + 62}` });
      drawing.setAttribute("aria-label", `${names[language]}: ${measures[state.measure].label} of every ` +
        "method by budget, beside random masks; the numbers of a budget are in the table.");
      const known = random[language].every((one) => one[1] !== null);
      if (known) {
        const upper = random[language].map((one, i) => `${x(i)} ${y(one[2])}`);
        const lower = random[language].map((one, i) => `${x(i)} ${y(one[1])}`).reverse();
        drawing.append(shape("path", { d: `M${[...upper, ...lower].join("L")}z`, class: "budget-band" }));
      }
      drawing.append(
        shape("line", { x1: x(state.budget), x2: x(state.budget), y1: -6, y2: HIGH, class: "budget-at" }),
        shape("line", { x1: 0, x2: WIDE, y1: y(0), y2: y(0), class: "budget-axis" }),
        shape("line", { x1: 0, x2: 0, y1: 0, y2: HIGH, class: "budget-axis" }));
      values[language].forEach((own, method) => {
        const points = own.map((value, i) => [x(i), y(value)]);
        drawing.append(
          shape("path", { d: `M${points.map((p) => p.join(" ")).join("L")}`, class: "budget-curve", stroke: colours[method] }),
          ...points.map(([px, py]) => mark(method, px, py)));
      });
      drawing.append(text(0, -12, "start", names[language]));
      const ticks = low < 0 ? [0, high, low] : [0, high / 2, high];
      const apart = (value, i) => ticks.slice(0, i).every((other) => Math.abs(y(other) - y(value)) >= APART);
      for (const value of ticks.filter(apart)) drawing.append(text(-6, y(value) + 4, "end", number(value, loss)));
      sizes.forEach((size, i) => drawing.append(text(x(i), HIGH + 17, "middle", String(size))));
      drawing.append(text(WIDE / 2, HIGH + 34, "middle", "neurons"));
      return drawing;
    }

    function show() {
      const n = sizes[state.budget];
      said.textContent = `${n} neurons, ${percent(n)} of all`;
      budget.setAttribute("aria-valuetext", said.textContent);
      const { label, values, null: random, loss } = measures[state.measure];
      const parts = names.map((name, x) => {
        const own = methods.map((method, i) => `${method} ${number(values[x][i][state.budget], loss)}`);
        const [mean, least, most] = random[x][state.budget];
        const beside = mean === null ? "" :
          `, random ${number(mean, loss)} (${number(least, loss)} to ${number(most, loss)})`;
        return `${name}: ${own.join(", ")}${beside}.`;
      });
      view.querySelector(".explorable-said").textContent = `${said.textContent}; ${label}. ${parts.join(" ")}`;
      for (const row of rows) row.hidden = Number(row.dataset.budget) !== state.budget;
      drawings.replaceChildren(...names.map((_, i) => panel(i)));
    }

    show();
    fields.hidden = false;
  }

  document.addEventListener("DOMContentLoaded", () => explorable.start(".budget-view", enhance));
})();
