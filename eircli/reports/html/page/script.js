"use strict";
// Sortable tables: every header becomes a button, so that the keyboard reaches it and its state is announced.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const original = [...body.rows];
  if (original.length < 2) continue;
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const numeric = original.some((row) => row.cells[column].dataset.v !== undefined);
      const first = numeric && column > 0 ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = header.getAttribute("aria-sort");
      const next = now === "none" ? first : now === first ? second : "none";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const key = (row) => row.cells[column].dataset.v;
      const order = (a, b) => {
        if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        if (key(a) === undefined || key(b) === undefined) return (key(a) === undefined) - (key(b) === undefined);
        return sign * (Number(key(a)) - Number(key(b)));
      };
      body.append(...(next === "none" ? original : [...original].sort(order)));
    });
  });
}
// A link into a closed chapter opens it; printing opens all of them.
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  target?.closest("section")?.querySelector(":scope > details")?.setAttribute("open", "");
};
addEventListener("hashchange", open);
addEventListener("beforeprint", () => document.querySelectorAll(".chapter > details").forEach((chapter) => (chapter.open = true)));
open();
