// Sorts and filters the long table. Without it the page has the same figures, in the study's order.
for (const table of document.querySelectorAll("table[data-sorted]")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = (cell.dataset.value ?? cell.firstChild?.textContent ?? "").trim();
    return text !== "" && isFinite(text) ? Number(text) : text;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "Sort by this column";
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
      body.append(...rows);
    });
  });
  const label = document.createElement("label"), input = document.createElement("input");
  const count = document.createElement("span");
  label.className = "filter";
  input.type = "search";
  input.placeholder = "such as freezeall";
  label.append("Show settings with", input, " ", count);
  table.parentElement.before(label);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  });
}
// Escape brings a large figure back.
addEventListener("keydown", event => {
  if (event.key === "Escape") document.querySelectorAll(".grows input").forEach(one => one.checked = false);
});
