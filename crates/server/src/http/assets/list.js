// Fills in the live figures of the list: every two seconds the statistics are read, and the difference to the last time is shown.
"use strict";
(() => {
  const rows = new Map();
  for (const row of document.querySelectorAll("tr[data-model]")) {
    rows.set(row.dataset.model + "/" + row.dataset.version, row);
  }
  if (rows.size === 0) return;
  let before = null;
  const show = (row, name, text) => { row.querySelector(name).textContent = text; };
  const milliseconds = (ns) => (ns / 1e6).toFixed(ns < 1e7 ? 2 : 0) + " ms";

  async function look() {
    const now = performance.now();
    const [statistics, index] = await Promise.all([
      fetch("/v2/models/stats").then((answer) => answer.json()),
      fetch("/v2/repository/index", { method: "POST" }).then((answer) => answer.json()),
    ]);
    // A version came or went: the page is made anew.
    const keys = index.map((entry) => entry.name + "/" + entry.version);
    if (keys.length !== rows.size || !keys.every((key) => rows.has(key))) return location.reload();
    index.forEach((entry, at) => {
      const state = rows.get(keys[at]).querySelector("[data-state]");
      if (state.textContent === entry.standing) return;
      state.textContent = entry.standing;
      state.className = { ready: "good", failed: "bad" }[entry.standing] || "faint";
    });
    const counts = new Map();
    for (const model of statistics.model_stats) {
      const key = model.name + "/" + model.version;
      const { count, ns } = model.inference_stats.success;
      counts.set(key, { count: Number(count), ns: Number(ns) });
      const row = rows.get(key);
      if (!row) continue;
      show(row, "[data-count]", Number(count).toLocaleString());
      const last = before && before.counts.get(key);
      if (!last) continue;
      const answered = Number(count) - last.count;
      const seconds = (now - before.now) / 1000;
      show(row, "[data-rate]", answered > 0 ? (answered / seconds).toFixed(answered / seconds < 10 ? 1 : 0) : "0");
      show(row, "[data-mean]", answered > 0 ? milliseconds((Number(ns) - last.ns) / answered) : "");
    }
    before = { now, counts };
  }

  async function forever() {
    // A hidden page asks nothing.
    if (!document.hidden) await look().catch(() => {});
    setTimeout(forever, 2000);
  }
  forever();
})();
