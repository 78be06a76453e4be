// Filters the entries by what is typed, puts this server's address into the calls, and copies them.
"use strict";
const entries = [...document.querySelectorAll("[data-entry]")];
const texts = entries.map((entry) => entry.textContent.toLowerCase());
const search = document.getElementById("search");
const found = document.getElementById("found");

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  entries.forEach((entry, index) => {
    const matches = words.every((word) => texts[index].includes(word));
    entry.hidden = !matches;
    if (matches) count += 1;
  });
  for (const group of document.querySelectorAll("[data-group]")) {
    group.hidden = !group.querySelector("[data-entry]:not([hidden])");
  }
  found.textContent = words.length ? count + " of " + entries.length : "";
}
search.addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !typing) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape" && document.activeElement === search) { search.value = ""; filter(); }
});

for (const call of document.querySelectorAll("[data-call]")) {
  call.textContent = call.textContent.replace("http://localhost:8080", location.origin);
  const button = call.parentElement.querySelector("[data-copy]");
  // Browsers let pages copy only where nobody in between can read along.
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(call.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// A link to an entry opens it.
function open() {
  const entry = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (entry && entry.tagName === "DETAILS") {
    entry.hidden = false;
    entry.open = true;
    entry.scrollIntoView();
  }
}
window.addEventListener("hashchange", open);
open();
