"use strict";
/* The page of `headstart serve`: sends examples to /predict and shows the answers. */
const MOST_MB = 32;
const TRIES = 6;
const SHOWN = 5;
const AT_ONCE = 2;
const $ = (id) => document.getElementById(id);
const answers = [];
let language = start_language();
let model = null;
let stream = null;
let waiting = [];
let running = 0;

function start_language() {
  let kept = "";
  try { kept = localStorage.getItem("language") || ""; } catch { /* storage may be off */ }
  return kept in WORDS ? kept : (navigator.language || "").startsWith("ru") ? "ru" : "en";
}

function word(name, values = {}) {
  const text = WORDS[language][name] ?? WORDS.en[name] ?? name;
  return filled(text, values);
}

function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

function number(value, digits = 3) {
  return new Intl.NumberFormat(language, { maximumSignificantDigits: digits }).format(value);
}

function share(value) {
  return new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(value);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

function say(text) { $("status").textContent = text; }

/* ---------------------------------------------------------------- the server */
async function begin() {
  translate();
  for (;;) {
    let reply;
    try { reply = await fetch("/v2/health/ready"); } catch { say(word("lost")); await pause(2); continue; }
    if (reply.ok) break;
    say(word("loading"));
    await pause(0.5);
  }
  const reply = await fetch("/v2");
  if (reply.status === 401) { say(""); $("login").hidden = false; $("token").focus(); return; }
  const { models } = await reply.json();
  $("model").replaceChildren(...models.map((name) => element("option", { value: name }, name)));
  $("models").hidden = models.length < 2;
  await take_model(models[0]);
}

async function take_model(name) {
  const reply = await fetch(`/v2/models/${encodeURIComponent(name)}`);
  model = await reply.json();
  const files = model.parameters.takes === "files";
  $("pictures").hidden = !files;
  $("texts").hidden = files;
  $("files").accept = model.parameters.suffixes.join(",");
  say("");
  translate();
}

async function enter(event) {
  event.preventDefault();
  const body = JSON.stringify({ token: $("token").value });
  const reply = await fetch("/session", { method: "POST", body, headers: { "content-type": "application/json" } });
  if (!reply.ok) { say(word("badToken")); return; }
  $("token").value = "";
  $("login").hidden = true;
  begin();
}

function pause(seconds) { return new Promise((done) => setTimeout(done, 1000 * seconds)); }

async function ask(body, type) {  // no type: a form, whose type the browser knows
  const address = `/predict/${encodeURIComponent(model.name)}`;
  for (let tries = 1; ; tries++) {
    let reply;
    try {
      reply = await fetch(address, { method: "POST", body, headers: type ? { "content-type": type } : {} });
    } catch { return { error: word("lost") }; }
    if (reply.status === 503 && tries < TRIES) {
      await pause(Number(reply.headers.get("retry-after")) || 1);
      continue;
    }
    const told = await reply.json().catch(() => ({ error: `${reply.status}` }));
    const first = told.predictions ? told.predictions[0] : told;
    return { version: told.version, ...first };
  }
}

/* ---------------------------------------------------------------- examples */
function give(files) {
  for (const file of files) {
    if (file.size > MOST_MB * 1e6) {
      const values = { name: file.name, size: number(file.size / 1e6), most: MOST_MB };
      say(word("tooLarge", values));
      continue;
    }
    enqueue({ name: file.name || word("camPicture"), file, picture: URL.createObjectURL(file) });
  }
}

function give_text(event) {
  event.preventDefault();
  const text = $("text").value;
  if (text.trim()) enqueue({ name: text, text });
}

function enqueue(example) {
  const entry = { ...example, model, answer: null };
  answers.unshift(entry);
  waiting.push(entry);
  show_history();
  run();
}

async function run() {
  while (waiting.length && running < AT_ONCE) {
    const entry = waiting.shift();
    running += 1;
    tell_waiting();
    send(entry);
  }
}

async function send(entry) {
  entry.answer = entry.text !== undefined
    ? await ask(JSON.stringify({ texts: [entry.text] }), "application/json")
    : await ask(form_of(entry.file));
  running -= 1;
  tell_waiting();
  if (entry.card) show_card(entry);
  run();
}

function form_of(file) {
  const form = new FormData();
  form.append("file", file, "file");
  return form;
}

function tell_waiting() {
  const count = waiting.length + running;
  say(count ? word("working", { count }) : "");
}

/* ---------------------------------------------------------------- answers */
function show_history() {
  $("history").hidden = !answers.length;
  for (const entry of [...answers].reverse()) {
    if (!entry.card) {
      entry.card = element("li", { class: "card" });
      $("cards").prepend(entry.card);
      show_card(entry);
    }
  }
}

function show_card(entry) {
  const body = element("div", { class: "body" });
  body.append(element("p", { class: entry.text === undefined ? "name" : "name words", title: entry.name }, entry.name));
  body.append(...(entry.answer ? answer_parts(entry) : [element("p", { class: "quiet wait" }, "…")]));
  entry.card.replaceChildren(...(entry.picture ? [thumbnail(entry)] : []), body);
}

function thumbnail(entry) {
  const frame = element("div", { class: "frame" });
  const image = element("img", { alt: "", src: entry.picture });
  image.addEventListener("error", () => frame.replaceChildren(element("span", { class: "nopicture", "aria-hidden": "true" }, "▢")));
  image.addEventListener("load", () => draw_boxes(frame, image, entry.answer));
  frame.append(image);
  return frame;
}

function draw_boxes(frame, image, answer) {
  if (!answer || !answer.found) return;
  frame.classList.add("wide");
  const place = element("div", { class: "boxes" });
  for (const thing of answer.found) {
    const [left, top, right, bottom] = thing.box;
    const box = element("div", { class: "box", title: `${thing.label} ${share(thing.score)}` });
    box.style.left = `${(100 * left) / image.naturalWidth}%`;
    box.style.top = `${(100 * top) / image.naturalHeight}%`;
    box.style.width = `${(100 * (right - left)) / image.naturalWidth}%`;
    box.style.height = `${(100 * (bottom - top)) / image.naturalHeight}%`;
    box.append(element("span", {}, thing.label));
    place.append(box);
  }
  frame.append(place);
}

function answer_parts(entry) {
  const { answer } = entry;
  if (answer.error) {
    const sentence = element("p", { class: "error", role: "alert" }, server_sentence(answer.error));
    return [element("p", { class: "title failed" }, word("failed")), sentence];
  }
  const parts = [];
  if (answer.reason) {
    parts.push(element("p", { class: "title unknown" }, word("unknown")));
    parts.push(element("p", { class: "reason" }, reason_sentence(answer.reason)));
  }
  if (answer.found) parts.push(...found_parts(answer));
  else if (typeof answer.predicted === "number") parts.push(...number_parts(answer));
  else {
    const said = Array.isArray(answer.predicted) ? answer.predicted.join(", ") : String(answer.predicted ?? "");
    if (!answer.reason) parts.push(element("p", { class: "title" }, said.split("|").join(", ") || word("none")));
    if (answer.scores) parts.push(bars(answer.scores, answer.reason));
  }
  if (answer.not_ruled_out && answer.not_ruled_out.length > 1) {
    parts.push(element("p", { class: "quiet" }, word("held", { names: answer.not_ruled_out.join(", ") })));
  }
  parts.push(element("p", { class: "quiet small" }, ...facts(entry)));
  return parts;
}

function number_parts(answer) {
  const parts = [];
  if (!answer.reason) parts.push(element("p", { class: "title figure" }, number(answer.predicted, 5)));
  const low = answer.low ?? answer.q05, high = answer.high ?? answer.q95;
  if (typeof low === "number" && typeof high === "number" && high > low) {
    const span = element("div", { class: "span", role: "presentation" }, element("i"));
    const at = Math.min(1, Math.max(0, (answer.predicted - low) / (high - low)));
    span.firstChild.style.left = `${100 * at}%`;
    parts.push(span, element("p", { class: "ends" }, element("span", {}, number(low, 5)), element("span", {}, number(high, 5))));
  }
  return parts;
}

function found_parts(answer) {
  const counts = new Map();
  for (const thing of answer.found) counts.set(thing.label, (counts.get(thing.label) || 0) + 1);
  const total = answer.found.length;
  const title = total ? word("found", { count: total }) : word("nothing");
  const rows = [...counts].sort((a, b) => b[1] - a[1]).map(([name, count]) => element("li", {}, `${name}: ${count}`));
  return [element("p", { class: "title" }, title), element("ul", { class: "counts" }, ...rows)];
}

function bars(scores, unsure) {
  const rows = Object.entries(scores).sort((a, b) => b[1] - a[1]).map(bar);
  const box = element("div", { class: unsure ? "bars faint" : "bars" });
  if (unsure) box.append(element("p", { class: "quiet small" }, word("nearest")));
  box.append(element("div", { role: "list" }, ...rows.slice(0, SHOWN)));
  if (rows.length > SHOWN) {
    const more = element("details", {}, element("summary", {}, word("all", { count: rows.length })));
    more.append(element("div", { role: "list" }, ...rows.slice(SHOWN)));
    box.append(more);
  }
  return box;
}

function bar([name, score]) {
  const fill = element("i");
  fill.style.width = `${100 * score}%`;
  const track = element("span", { class: "track", "aria-hidden": "true" }, fill);
  return element("div", { class: "bar", role: "listitem", "data-name": name, "data-score": score },
    element("span", { class: "label", title: name }, name), track, element("span", { class: "value" }, share(score)));
}

function facts({ answer, model: own }) {
  const found = [];
  const limit = own.parameters.distance_limit;
  if (typeof answer.distance === "number") {
    const values = { a: number(answer.distance, 2), b: limit == null ? "" : number(limit, 2) };
    found.push(word(limit == null ? "distance" : "limit", values));
  }
  if (answer.version) found.push(`${own.name}, ${word("version", { a: answer.version.slice(0, 8) })}`);
  return found.length ? [found.join(" · ")] : [];
}

function reason_sentence(reason) {
  const unlike = /^unlike .*\(distance ([\d.]+), limit ([\d.]+)\)$/.exec(reason);
  const unsure = /^not sure enough \(score ([\d.]+), limit ([\d.]+)\)$/.exec(reason);
  if (unlike) return word("unlike", { a: number(unlike[1]), b: number(unlike[2]) });
  if (unsure) return word("unsure", { a: number(unsure[1]), b: number(unsure[2]) });
  return reason;
}

function server_sentence(text) {
  for (const [pattern, own] of WORDS[language].sentences || []) {
    const found = pattern.exec(text);
    if (found) return filled(own, { ...found });
  }
  return text;
}

/* ---------------------------------------------------------------- the camera */
async function open_camera() {
  try {
    if (!navigator.mediaDevices) throw new Error("https");
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) { say(word("noCamera", { why: error.name === "Error" ? error.message : error.name })); return; }
  $("video").srcObject = stream;
  $("viewfinder").hidden = false;
  await $("video").play();
  $("shoot").focus();
}

function close_camera() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").srcObject = null;
  $("viewfinder").hidden = true;
}

function shoot() {
  const video = $("video");
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const name = `${word("camPicture")} ${new Date().toLocaleTimeString(language)}`;
  canvas.toBlob((blob) => { if (blob) give([new File([blob], name, { type: blob.type })]); }, "image/png");
}

/* ---------------------------------------------------------------- the page */
function about() {
  if (!model) return "";
  const { target, answers: names } = model.parameters;
  const kind = { class: "classes", grades: "classes", labels: "labels", boxes: "boxes", number: "number" }[target];
  const some = names.slice(0, 12).join(", ") + (names.length > 12 ? ` ${word("more", { count: names.length - 12 })}` : "");
  const text = WORDS[language].about[kind] || (names.length ? WORDS[language].about.other : "");
  return filled(text, { names: some });
}

function translate() {
  document.documentElement.lang = language;
  for (const part of document.querySelectorAll("[data-word]")) part.textContent = word(part.dataset.word);
  $("language").textContent = word("language");
  $("language").lang = language === "en" ? "ru" : "en";
  $("about").textContent = about();
  for (const entry of answers) if (entry.card) show_card(entry);
}

function clear_history() {
  for (const entry of answers) if (entry.picture) URL.revokeObjectURL(entry.picture);
  answers.length = 0;
  waiting = [];
  $("cards").replaceChildren();
  $("history").hidden = true;
}

function wire() {
  const stop = (event) => { event.preventDefault(); document.body.classList.toggle("over", event.type === "dragover"); };
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, stop);
  document.addEventListener("drop", (event) => {
    if (model && !$("pictures").hidden) give(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (model && !$("pictures").hidden) give(event.clipboardData.files);
  });
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => { give($("files").files); $("files").value = ""; });
  $("camera").addEventListener("click", () => (stream ? close_camera() : open_camera()));
  $("close").addEventListener("click", close_camera);
  $("shoot").addEventListener("click", shoot);
  $("login").addEventListener("submit", enter);
  $("texts").addEventListener("submit", give_text);
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) give_text(event);
  });
  $("clear").addEventListener("click", clear_history);
  $("model").addEventListener("change", () => take_model($("model").value));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && stream) close_camera(); });
  $("language").addEventListener("click", () => {
    language = language === "en" ? "ru" : "en";
    try { localStorage.setItem("language", language); } catch { /* storage may be off */ }
    translate();
  });
}

wire();
begin();
