// The page of one model: reads the form, sends it, draws the answer, and writes the same call as code. It sends what any client would.
"use strict";
(() => {
  const model = JSON.parse(document.getElementById("model").textContent);
  const form = document.getElementById("form");
  const rows = document.getElementById("rows");
  const answer = document.getElementById("answer");
  const times = document.getElementById("times");
  const code = document.getElementById("code");
  const add = document.getElementById("add");
  const remove = document.getElementById("remove");
  const blank = rows.firstElementChild.cloneNode(true);
  let language = "curl";

  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  // Reading the form ------------------------------------------------------------------------------------------------------

  class Missing extends Error {
    constructor(message, field) { super(message); this.field = field; }
  }

  const pictures = new WeakMap();

  async function picture(file) {
    if (!pictures.has(file)) {
      const bytes = new Uint8Array(await file.arrayBuffer());
      let text = "";
      for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
      pictures.set(file, { b64: btoa(text) });
    }
    return pictures.get(file);
  }

  function number(field, name) {
    const text = field.value.trim();
    if (text === "" || !Number.isFinite(Number(text))) throw new Missing(`${name} needs a number`, field);
    // JavaScript has no whole numbers beyond this; sent on, it would be another one.
    if (/^[-+]?\d+$/.test(text) && !Number.isSafeInteger(Number(text))) throw new Missing(`${name} is too large for this page: use the code below`, field);
    return Number(text);
  }

  async function read(input, quietly) {
    const { input: name, kind } = input.dataset;
    const optional = "optional" in input.dataset;
    const field = input.querySelector("textarea, input, select");
    switch (kind) {
      case "text": return optional && field.value === "" ? undefined : field.value;
      case "number": return optional && field.value.trim() === "" ? undefined : number(field, name);
      case "numbers": return Array.from(input.querySelectorAll("input"), (one, index) => number(one, `${name}[${index}]`));
      case "boolean": return field.value === "" ? undefined : field.value === "true";
      case "choice": return field.value === "" && optional ? undefined : field.value;
      case "date":
        if (field.value.trim() === "" && !optional) throw new Missing(`${name} needs a date`, field);
        return field.value.trim() === "" ? undefined : field.value.trim();
      case "image": {
        const file = field.files[0];
        if (!file) throw new Missing(`${name} needs a picture`, field);
        return quietly ? { b64: "..." } : picture(file);
      }
      default:
        if (field.value.trim() === "" && optional) return undefined;
        try { return JSON.parse(field.value); } catch { throw new Missing(`${name} is not JSON`, field); }
    }
  }

  async function row(fieldset, quietly) {
    const read_row = {};
    for (const input of fieldset.querySelectorAll("[data-input]")) {
      const value = await read(input, quietly);
      if (value !== undefined) read_row[input.dataset.input] = value;
    }
    return read_row;
  }

  async function body(quietly) {
    const all = [];
    for (const fieldset of rows.children) all.push(await row(fieldset, quietly));
    return model.rows ? { instances: all } : { inputs: all[0] };
  }

  // Filling in an example -------------------------------------------------------------------------------------------------

  function fill(input, value) {
    const fields = input.querySelectorAll("textarea, input, select");
    switch (input.dataset.kind) {
      case "numbers": (Array.isArray(value) ? value : []).forEach((one, index) => { if (fields[index]) fields[index].value = one; }); break;
      case "boolean": fields[0].value = value === null || value === undefined ? "" : String(Boolean(value)); break;
      case "json": fields[0].value = value === undefined ? "" : JSON.stringify(value); break;
      case "image":
        if (value && typeof value.b64 === "string") {
          const bytes = Uint8Array.from(atob(value.b64), (one) => one.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], "example"));
          fields[0].files = files.files;
          preview(input);
        }
        break;
      default: fields[0].value = value === null || value === undefined ? "" : value;
    }
  }

  function example(sample) {
    while (rows.children.length > 1) rows.lastElementChild.remove();
    const named = sample !== null && typeof sample === "object" && !Array.isArray(sample) && !("b64" in sample);
    rows.querySelectorAll("[data-input]").forEach((input, index) => {
      const one = named ? sample[input.dataset.input] : Array.isArray(sample) && model.inputs.length > 1 ? sample[index] : sample;
      fill(input, one);
    });
    changed();
  }

  // Pictures --------------------------------------------------------------------------------------------------------------

  function preview(input) {
    const file = input.querySelector("input").files[0];
    const image = input.querySelector("img");
    if (image.src) URL.revokeObjectURL(image.src);
    image.hidden = !file;
    if (file) image.src = URL.createObjectURL(file);
  }

  for (const kind of ["dragover", "dragleave", "drop"]) {
    rows.addEventListener(kind, (event) => {
      const input = event.target.closest("[data-kind=image]");
      if (!input) return;
      const field = input.querySelector("input");
      field.classList.toggle("over", kind === "dragover");
      if (kind === "dragleave") return;
      event.preventDefault();
      if (kind === "drop" && event.dataTransfer.files.length > 0) {
        field.files = event.dataTransfer.files;
        preview(input);
        changed();
      }
    });
  }

  // Drawing the answer ----------------------------------------------------------------------------------------------------

  const short = (value) => typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)).toString() : String(value);

  function bars(scores, names) {
    const ranked = scores.map((score, index) => [names ? names[index] : index, score]).sort((a, b) => b[1] - a[1]);
    const made = element("div", null, { class: "bars" });
    for (const [name, score] of ranked.slice(0, 10)) {
      made.append(element("span", name), element("meter", null, { min: 0, max: 1, value: Math.min(1, Math.max(0, score)), "aria-label": name }),
        element("span", score !== 0 && Math.abs(score) < 1e-4 ? score.toExponential(1) : score.toFixed(4)));
    }
    if (ranked.length > 10) made.append(element("span", `and ${ranked.length - 10} more`, { class: "faint" }));
    return made;
  }

  function entities(found, text) {
    if (!found.every((one) => typeof one.start === "number" && typeof one.end === "number") || typeof text !== "string") return null;
    const made = element("p"), characters = Array.from(text);
    let at = 0;
    for (const one of found) {
      made.append(characters.slice(at, one.start).join(""));
      const mark = element("mark", characters.slice(one.start, one.end).join(""));
      mark.append(element("small", one.entity_group || one.entity || "", { title: short(one.score) }));
      made.append(mark);
      at = one.end;
    }
    made.append(characters.slice(at).join(""));
    return made;
  }

  // A table of objects, a list of numbers, or the JSON itself.
  function value(one) {
    const objects = Array.isArray(one) && one.length > 0 && one.every((each) => each && typeof each === "object" && !Array.isArray(each));
    if (objects) {
      const names = [...new Set(one.flatMap(Object.keys))];
      const table = element("table"), head = table.createTHead().insertRow();
      names.forEach((name) => head.append(element("th", name, { scope: "col" })));
      const lines = table.createTBody();
      for (const each of one.slice(0, 100)) {
        const line = lines.insertRow();
        for (const name of names) line.insertCell().textContent = typeof each[name] === "object" ? JSON.stringify(each[name]) : short(each[name] ?? "");
      }
      return table;
    }
    if (Array.isArray(one) && one.length > 0 && one.every((each) => Array.isArray(each) && each.length > 0 && typeof each[0] === "object" && !Array.isArray(each[0]))) {
      const made = element("div");
      one.forEach((each) => made.append(value(each)));
      return made;
    }
    if (one === null || typeof one !== "object") return element("p", short(one));
    const text = JSON.stringify(one, (_, each) => typeof each === "number" ? Number(short(each)) : each);
    return element("pre", text.length > 4000 ? text.slice(0, 4000) + " ..." : text);
  }

  // A tensor that has the shape of a picture: [height, width, 1 or 3] or [1 or 3, height, width].
  function shape(one) { const found = []; while (Array.isArray(one)) { found.push(one.length); one = one[0]; } return found; }
  function drawn(one) {
    const [a, b, c] = shape(one);
    const last = c === 3 || c === 1, first = a === 3 || a === 1;
    if (shape(one).length !== 3 || !(last || first) || (last ? a * b : b * c) < 64) return null;
    const [height, width, channels] = last ? [a, b, c] : [b, c, a];
    const at = (y, x, k) => last ? one[y][x][k] : one[k][y][x];
    let low = Infinity, high = -Infinity;
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let k = 0; k < channels; k++) { low = Math.min(low, at(y, x, k)); high = Math.max(high, at(y, x, k)); }
    const scale = low >= 0 && high <= 1 ? [0, 255] : low >= 0 && high <= 255 ? [0, 1] : [low, 255 / (high - low || 1)];
    const canvas = element("canvas", null, { width, height, role: "img", "aria-label": "the tensor as a picture" });
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let k = 0; k < 4; k++) {
      image.data[(y * width + x) * 4 + k] = k === 3 ? 255 : (at(y, x, channels === 1 ? 0 : k) - scale[0]) * scale[1];
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function output(spec, one, sent) {
    const made = element("div");
    if (model.outputs.length > 1 && spec.content !== "label") made.append(element("h3", spec.name));
    const numbers = Array.isArray(one) && one.length > 0 && one.every((each) => typeof each === "number");
    if (spec.content === "label" && typeof one === "string") made.append(element("p", one || "(none)", { class: "headline" }));
    // The best class's score stands in the bars of all classes already.
    else if (spec.name === "score" && model.outputs.some((other) => other.name === "probabilities")) return element("div");
    else if (spec.content === "score" && numbers) made.append(bars(one, spec.choices));
    else if (spec.content === "score" && typeof one === "number") made.append(bars([one], [spec.name]));
    else if (spec.content === "embedding" && numbers) {
      made.append(element("p", `${one.length} numbers: ${one.slice(0, 6).map(short).join(", ")}${one.length > 6 ? ", ..." : ""}`));
    } else if (spec.content === "json" && Array.isArray(one) && one.length === 0) made.append(element("p", "Nothing found.", { class: "faint" }));
    else if (spec.content === "json" && Array.isArray(one)) {
      const text = sent && sent.text;
      made.append(entities(one, text) || "", value(one));
    } else if (typeof one === "number" && spec.unit) made.append(element("p", `${short(one)} ${spec.unit}`, { class: "headline" }));
    else made.append(drawn(one) || "", value(one));
    return made;
  }

  function similarity(vectors) {
    const length = (one) => Math.sqrt(one.reduce((sum, each) => sum + each * each, 0)) || 1;
    const cosine = (a, b) => a.reduce((sum, each, index) => sum + each * b[index], 0) / length(a) / length(b);
    const table = element("table"), head = table.createTHead().insertRow(), lines = table.createTBody();
    head.append(element("th", "cosine", { scope: "col" }));
    vectors.forEach((_, index) => head.append(element("th", `row ${index + 1}`, { scope: "col" })));
    vectors.forEach((one, index) => {
      const line = lines.insertRow();
      line.append(element("th", `row ${index + 1}`, { scope: "row" }));
      vectors.forEach((other) => { line.insertCell().textContent = cosine(one, other).toFixed(4); });
    });
    return table;
  }

  function draw(received, sent) {
    answer.replaceChildren();
    const named = (one) => model.outputs.length === 1 ? { [model.outputs[0].name]: one } : one;
    const predictions = model.rows ? received.predictions.map(named) : [named(received.outputs)];
    predictions.forEach((one, index) => {
      if (predictions.length > 1) answer.append(element("h3", `Row ${index + 1}`));
      model.outputs.forEach((spec) => answer.append(output(spec, one[spec.name], sent[index])));
    });
    const embedding = model.outputs.find((spec) => spec.content === "embedding");
    if (embedding && predictions.length > 1) answer.append(element("h3", "Similarity"), similarity(predictions.map((one) => one[embedding.name])));
    const details = element("details"), text = JSON.stringify(received, null, 1);
    details.append(element("summary", "The whole answer"), element("pre", text.length > 20000 ? text.slice(0, 20000) + " ..." : text));
    answer.append(details);
  }

  // The header Server-Timing says where the server's time went; the rest is the network and this page.
  function split(header, total) {
    const parts = (header || "").split(",").map((part) => part.trim().match(/^([a-z]+);dur=([\d.]+)/)).filter(Boolean)
      .map(([, name, time]) => [name, Number(time)]).filter(([, time]) => time > 0);
    times.hidden = parts.length === 0;
    const inside = parts.filter(([name]) => name !== "total");
    const rest = Math.max(0, total - inside.reduce((sum, [, time]) => sum + time, 0));
    const all = [...inside, ["network and page", rest]];
    const [bar, key] = [times.querySelector(".split"), times.querySelector(".key")];
    bar.replaceChildren(); key.replaceChildren();
    all.forEach(([name, time], index) => {
      const colour = index === all.length - 1 ? "c5" : `c${index % 5}`;
      const part = element("span", null, { class: colour });
      part.style.setProperty("flex", `${time} 0 0`);
      bar.append(part);
      const entry = element("span");
      entry.append(element("i", null, { class: colour }), `${name} ${time < 10 ? time.toFixed(2) : time.toFixed(0)} ms`);
      key.append(entry);
    });
    bar.setAttribute("aria-label", all.map(([name, time]) => `${name} ${time.toFixed(2)} milliseconds`).join(", "));
  }

  function complain(message) {
    times.hidden = true;
    answer.replaceChildren(element("p", message, { class: "error" }));
  }

  async function send() {
    let sent;
    try { sent = await body(false); } catch (error) {
      if (!(error instanceof Missing)) throw error;
      complain(error.message + ".");
      return error.field.focus();
    }
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    answer.setAttribute("aria-busy", "true");
    const begun = performance.now();
    try {
      const received = await fetch(model.path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) });
      const text = await received.text(), total = performance.now() - begun;
      let parsed;
      try { parsed = JSON.parse(text); } catch {
        // NaN and Infinity are no JSON; such an answer is shown as it came.
        if (received.ok) { answer.replaceChildren(element("pre", text.slice(0, 20000))); split(received.headers.get("Server-Timing"), total); return; }
        parsed = { error: text || received.statusText };
      }
      if (!received.ok) return complain(typeof parsed.error === "string" ? parsed.error : JSON.stringify(parsed.error));
      draw(parsed, model.rows ? sent.instances : [sent.inputs]);
      split(received.headers.get("Server-Timing"), total);
    } catch (error) {
      complain(`The server did not answer: ${error.message}`);
    } finally {
      button.disabled = false;
      answer.removeAttribute("aria-busy");
    }
  }

  // The same call as code -------------------------------------------------------------------------------------------------

  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const python = (one) => JSON.stringify(one, null, 4).replace(/\btrue\b|\bfalse\b|\bnull\b|"(?:[^"\\]|\\.)*"/g, (word) => ({ true: "True", false: "False", null: "None" })[word] || word);
  const writers = {
    curl: (url, sent, picture) => picture
      ? `# the picture goes in as Base64\nprintf '${JSON.stringify(sent).replaceAll("%", "%%").replaceAll("'", "'\\''").replaceAll('"..."', '"%s"')}' "$(base64 -w0 picture.jpg)" |\n  curl -s ${url} -H 'Content-Type: application/json' -d @-`
      : `curl -s ${url} -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(sent))}`,
    python: (url, sent, picture) => (picture ? "import base64\n" : "") + "import requests\n\n"
      + (picture ? 'picture = base64.b64encode(open("picture.jpg", "rb").read()).decode()\n' : "")
      + `answer = requests.post(\n    "${url}",\n    json=${(picture ? python(sent).replaceAll('"..."', "picture") : python(sent)).replaceAll("\n", "\n    ")},\n)\nanswer.raise_for_status()\nprint(answer.json()["${model.rows ? "predictions" : "outputs"}"])`,
    javascript: (url, sent, picture) => (picture ? "// `picture` is the file's content as Base64\n" : "")
      + `const answer = await fetch("${url}", {\n  method: "POST",\n  headers: { "Content-Type": "application/json" },\n  body: JSON.stringify(${(picture ? JSON.stringify(sent, null, 2).replaceAll('"..."', "picture") : JSON.stringify(sent, null, 2)).replaceAll("\n", "\n  ")}),\n});\nconsole.log((await answer.json()).${model.rows ? "predictions" : "outputs"});`,
  };

  async function changed() {
    let sent;
    try { sent = await body(true); } catch (error) {
      if (!(error instanceof Missing)) throw error;
      // Until all is typed, the call of an example is better than none.
      sent = model.samples.length > 0 ? (model.rows ? { instances: [model.samples[0]] } : { inputs: model.samples[0] }) : null;
    }
    if (sent === null) { code.textContent = "Fill in the form, and the call appears here."; return; }
    const has_picture = document.querySelector("[data-kind=image]") !== null;
    const shown = JSON.parse(JSON.stringify(sent, (key, one) => key === "b64" ? "..." : one));
    code.textContent = writers[language](location.origin + model.path, shown, has_picture);
  }

  // Wiring ----------------------------------------------------------------------------------------------------------------

  const number_rows = () => {
    Array.from(rows.children).forEach((fieldset, index) => { fieldset.querySelector("legend").textContent = `Row ${index + 1}`; });
    if (remove) remove.hidden = rows.children.length < 2;
    changed();
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
  form.addEventListener("input", changed);
  form.addEventListener("change", (event) => {
    const input = event.target.closest("[data-kind=image]");
    if (input) preview(input);
    changed();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); } });
  if (add) add.addEventListener("click", () => { rows.append(blank.cloneNode(true)); number_rows(); rows.lastElementChild.querySelector("textarea, input, select").focus(); });
  if (remove) remove.addEventListener("click", () => { rows.lastElementChild.remove(); number_rows(); });
  for (const button of document.querySelectorAll("[data-sample]")) button.addEventListener("click", () => example(model.samples[Number(button.dataset.sample)]));
  for (const button of document.querySelectorAll("[data-code]")) {
    button.addEventListener("click", () => {
      language = button.dataset.code;
      document.querySelectorAll("[data-code]").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      changed();
    });
  }
  document.getElementById("copy").addEventListener("click", async (event) => {
    try { await navigator.clipboard.writeText(code.textContent); } catch {
      // Without a secure origin there is no clipboard: the text is selected, to be copied by hand.
      getSelection().selectAllChildren(code);
      return;
    }
    event.target.textContent = "Copied";
    setTimeout(() => { event.target.textContent = "Copy"; }, 1500);
  });
  if (model.samples.length > 0) example(model.samples[0]); else changed();
})();
