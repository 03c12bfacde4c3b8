/* Tables of which a reader chooses the rows: `crane_lab/show/explorer.py` writes them, with all of
   their data. Models wrote some of it, so it is set as text and never as HTML. */
(() => {
  "use strict";

  function element(kind, text, language) {
    const made = document.createElement(kind);
    made.textContent = text;
    if (language !== null) made.lang = language;
    return made;
  }

  function enhance(view) {
    const data = JSON.parse(view.querySelector("script[type='application/json']").textContent);
    const { columns, choices } = data;
    const rows = columns[0].codes.map((_, row) => row);
    const text = (place, row) => columns[place].values[columns[place].codes[row]];
    const language = (place, row) => {
      const of = data.languages[place];
      return of === null ? null : text(of, row);
    };

    const ALL = -1;
    const fields = [...choices, ...data.narrowed];
    const narrows = (number) => number >= choices.length;
    const selects = fields.map((place, number) => {
      const select = document.createElement("select");
      select.autocomplete = "off"; // or a browser may restore what the rows do not show
      if (narrows(number)) select.append(new Option("all", ALL, false, true));
      columns[place].values.forEach((value, code) => {
        if (narrows(number) && value === "") return;
        select.append(new Option(value, code, false, code === data.first[number]));
      });
      select.addEventListener("change", show);
      const label = document.createElement("label");
      label.append(element("span", columns[place].name, null), select);
      view.querySelector(".choice-fields").append(label);
      return select;
    });

    function show() {
      const chosen = selects.map((select) => Number(select.value));
      const found = rows.filter((row) => fields.every((place, number) =>
        columns[place].codes[row] === chosen[number] ||
        (narrows(number) && (chosen[number] === ALL || text(place, row) === ""))));
      const said = found.length === 0 ? [] : data.above.map((place) => {
        const line = document.createElement("p");
        const name = element("span", `${columns[place].name}:`, null);
        name.className = "choice-name";
        line.append(name, " ", element("span", text(place, found[0]), language(place, found[0])));
        return line;
      });
      const count = found.length === 1 ? "One row" : `${found.length} rows`;
      said.push(element("p", found.length ? `${count}.` : "Nothing was run for this choice.", null));
      view.querySelector(".choice-said").replaceChildren(...said);
      view.querySelector("tbody").replaceChildren(...found.map((row) => {
        const line = document.createElement("tr");
        data.shown.forEach((place, number) => {
          const cell = element(number ? "td" : "th", text(place, row), language(place, row));
          if (!number) cell.scope = "row";
          line.append(cell);
        });
        return line;
      }));
    }

    view.querySelector(".choice-alone").remove();
    view.querySelector(".choice-fields").hidden = false;
  }

  function start() {
    document.querySelectorAll(".choice-view").forEach(enhance);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
