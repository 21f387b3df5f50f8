"use strict";
// What a page can do beyond showing itself: charts that answer to a hover, tables that sort and filter, copy buttons.
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const announce = (text) => { document.querySelector(".sr").textContent = text; };
  const quiet = { loader: { load: () => Promise.reject(new Error("a page loads nothing")) }, renderer: "svg", actions: false, ast: true };
  for (const [name, spec] of Object.entries(specs)) {
    const figure = document.getElementById(`plot-${name}`);
    const live = figure.querySelector(".live");
    live.hidden = false;
    if (live.clientWidth < 600) {
      spec.config.legend.columns = 1;
      spec.config.axis.labelLimit = 105;
    }
    window.vegaEmbed(live, spec, quiet).then(() => {
      figure.querySelectorAll(".still").forEach((still) => still.remove());
      if (JSON.stringify(spec).includes('"zoom"')) figure.querySelector(".hint").hidden = false;
    }, (error) => { live.remove(); console.error(error); });
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.nextElementSibling;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch { // a file is not a secure place for every browser
        const range = document.createRange();
        range.selectNodeContents(text);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      announce("Copied");
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  const figure = (text) => parseFloat(text.replace(/[, ]/g, ""));
  const compare = (a, b) => {
    const [x, y] = [figure(a), figure(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].textContent.trim();
        body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b))));
      });
    });
    if (body.rows.length < 12) continue;
    const filter = document.createElement("input");
    filter.type = "search";
    filter.placeholder = "Filter rows";
    filter.setAttribute("aria-label", `Filter the rows of ${table.caption.textContent}`);
    filter.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase();
      let shown = 0;
      for (const row of body.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += row.hidden ? 0 : 1;
      }
      announce(`${shown} rows`);
    });
    table.closest(".scroll").before(filter);
  }
})();
