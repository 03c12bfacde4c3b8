/* Quick questions: what is said to an option that is chosen (crane_lab/show/quick_questions.py). */
(() => {
  "use strict";

  const HEADS = { right: "Right. ", wrong: "Not this one. " };

  function enhance(question) {
    const said = question.querySelector(".quick-said");
    const answers = question.querySelectorAll("li[data-answer]");
    question.querySelectorAll("input").forEach((input, i) => {
      input.addEventListener("change", () => {
        const kind = answers[i].dataset.answer;
        const head = document.createElement("strong");
        head.textContent = HEADS[kind];
        const why = [...answers[i].querySelector("span").childNodes].map((node) => node.cloneNode(true));
        said.replaceChildren(head, ...why);
        question.dataset.chosen = kind;
      });
    });
  }

  addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".quick-question").forEach(enhance);
  });
})();
