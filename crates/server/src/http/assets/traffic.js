// Asks for the page anew every two seconds and puts its middle in place of the old one.
"use strict";
const main = document.querySelector("main");

async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/traffic", { headers: { accept: "text/html" } });
      if (answer.ok) {
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        main.replaceChildren(...next.querySelector("main").childNodes);
      }
    } catch {
      // The server is away; what is shown stays until it is back.
    }
  }
  setTimeout(refresh, 2000);
}
setTimeout(refresh, 2000);
