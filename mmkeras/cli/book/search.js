// Finds the sections that have all words of the query, those with the words in their title first.
const field = document.getElementById("search");
const list = document.getElementById("results");

function find(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return SECTIONS.map((section) => {
    const title = section.title.toLowerCase();
    const text = `${title} ${section.text.toLowerCase()}`;
    if (!words.every((word) => text.includes(word))) return null;
    return { ...section, inTitle: words.filter((word) => title.includes(word)).length };
  })
    .filter(Boolean)
    .sort((a, b) => b.inTitle - a.inTitle)
    .slice(0, 12);
}

// The text around the first word of the query.
function excerpt(text, query) {
  const start = Math.max(0, text.toLowerCase().indexOf(query.toLowerCase().split(/\s+/)[0]) - 40);
  return (start ? "… " : "") + text.slice(start, start + 120);
}

function show() {
  const query = field.value.trim();
  list.replaceChildren(
    ...find(query).map((section) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `${section.page}#${section.anchor}`;
      const isNumbered = section.title.startsWith(section.number);
      link.textContent = isNumbered ? section.title : `${section.number} · ${section.title}`;
      item.append(link, document.createElement("br"), excerpt(section.text, query));
      return item;
    }),
  );
  if (query && !list.children.length) list.textContent = "没有结果 · Nothing found";
  list.hidden = !query;
}

field.addEventListener("input", show);
list.addEventListener("click", () => (list.hidden = true));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") list.hidden = true;
});
