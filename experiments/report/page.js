"use strict";
// Tables: a click on a column's head sorts by it, a second click the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        (up ? 1 : -1) * key(a).localeCompare(key(b), "en", { numeric: true }));
      const numbers = head.classList.contains("num") || column === 0;
      if (numbers) rows.sort((a, b) => (up ? 1 : -1) * (Number(key(a)) - Number(key(b))));
      table.tBodies[0].append(...rows);
    });
  });
}
// Drawings: their hints appear at once and for the keyboard, too; without this script they are the browser's own.
const hint = document.body.appendChild(Object.assign(document.createElement("div"), { id: "hint", hidden: true }));
for (const title of document.querySelectorAll("svg.chart :not(svg) > title")) {
  const shape = title.parentElement;
  shape.dataset.hint = title.textContent;
  shape.setAttribute("aria-label", title.textContent);
  title.remove();
  const show = () => {
    const box = shape.getBoundingClientRect();
    hint.textContent = shape.dataset.hint;
    hint.hidden = false;
    const left = Math.min(box.x + box.width / 2, document.documentElement.clientWidth - hint.offsetWidth - 12);
    hint.style.left = `${Math.max(8, left) + window.scrollX}px`;
    hint.style.top = `${box.y - hint.offsetHeight - 6 + window.scrollY}px`;
  };
  for (const event of ["mouseenter", "focus"]) shape.addEventListener(event, show);
  for (const event of ["mouseleave", "blur"]) shape.addEventListener(event, () => { hint.hidden = true; });
}
// Paper has no clicks: everything is opened before printing.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
