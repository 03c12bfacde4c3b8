/* Table 1 at a budget that a reader chooses: `crane_lab/show/budget_view.py` writes rows and data. */
(() => {
  "use strict";

  function enhance(view, data, panels) {
    const { element, field, choice, slider } = explorable;
    const { names, sizes, total, methods, marks, measures } = data;
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
      names.forEach((_, i) => draw(i));
      show();
    });
    fields.append(wide, field("Drawn", measure));

    const marked = (name, mark, colour) => element("li", {},
      element("span", { class: "budget-mark", style: `color: ${colour}`, "aria-hidden": "true" }, mark), name);
    panels[0].place.parentElement.before(element("ul", { class: "budget-key" },
      ...methods.map((name, i) => marked(name, marks[i][1], marks[i][0])),
      marked("random masks, smallest to largest", "▬", data.band)));

    const percent = (n) => `${Number((100 * n / total).toPrecision(2))} %`;
    const number = (value, loss) => (value === null ? "–" : explorable.written(value, loss ? 3 : 2));

    /* All budgets of a language, of what is measured. */
    function draw(language) {
      const { label, unit, values, null: random } = measures[state.measure];
      const every = values.flat(2).concat(random.flat(2)).filter((value) => value !== null);
      const [low, high] = [Math.min(0, ...every), Math.max(...every, 1e-6)];
      const panel = panels[language];
      panel("values").setv({ start: low, end: high + 0.05 * (high - low) });
      panel("axis").axis_label = unit;
      const known = random[language].every((one) => one[1] !== null);
      panel("random").data = {
        x: known ? sizes : [],
        least: known ? random[language].map((one) => one[1]) : [],
        most: known ? random[language].map((one) => one[2]) : [],
      };
      values[language].forEach((own, method) => {
        panel(`method ${method}`).data = { x: sizes, y: own };
      });
      panel.place.setAttribute("aria-label", `${names[language]}: ${label} of every method by ` +
        "budget, beside random masks; the numbers of a budget are in the table.");
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
      for (const panel of panels) panel("budget").location = n;
    }

    names.forEach((_, i) => draw(i));
    show();
    fields.hidden = false;
  }

  document.addEventListener("DOMContentLoaded", () => explorable.start(".budget-view", enhance));
})();
