// Sends the query that was typed, and shows what came back.
"use strict";
const form = document.getElementById("try");
const answer = document.getElementById("answer");

async function send() {
  const body = { query: document.getElementById("query").value };
  try {
    const variables = document.getElementById("variables").value.trim();
    if (variables) body.variables = JSON.parse(variables);
  } catch (error) {
    answer.textContent = "The variables are no JSON: " + error.message;
    return;
  }
  answer.textContent = "...";
  try {
    const response = await fetch("/graphql", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    try {
      answer.textContent = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      answer.textContent = response.status + " " + text;
    }
  } catch (error) {
    answer.textContent = "No answer: " + error.message;
  }
}

form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
});
