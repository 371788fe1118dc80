"use strict";
// Values under the pointer, series switched on and off, tables sorted by a column. The page is whole without it.

const tip = document.createElement("div");
tip.className = "tip hidden";
tip.setAttribute("role", "status");
document.body.append(tip);

document.addEventListener("pointermove", (event) => {
  const text = event.target instanceof Element ? event.target.closest("[data-tip]")?.dataset.tip : undefined;
  tip.classList.toggle("hidden", !text);
  if (!text) return;
  tip.textContent = text;
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 18 + tip.offsetHeight < window.innerHeight;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12}px`;
});

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    const series = button.closest(".chart").querySelectorAll(`[data-series="${button.dataset.of}"]`);
    for (const part of series) part.classList.toggle("hidden", !shown);
  });
}

function valueOf(row, column) {
  const cell = row.cells[column];
  const value = Number.parseFloat(cell.dataset.value ?? cell.textContent);
  return Number.isNaN(value) ? cell.textContent.trim().toLowerCase() : value;
}

function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const upward = head.getAttribute("aria-sort") === "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", upward ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column)) * (upward ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
}
