// The page: what is asked for, how far it is, what was found. Everything it knows comes from the HTTP API beside it.
import { SlideMap } from "./map.js";

const $ = (id) => document.getElementById(id);
const STAGES = {
  waiting: "Waiting in line", tissue: "Looking for tissue", patches: "Looking at patches",
  networks: "Networks are reading", drawing: "Drawing",
};
const LOOK_AGAIN = 400; // ms between two looks at a job
const state = { models: [], slides: new Map(), uploads: [], job: null, map: null };

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => ({ error: `the service answered ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error ?? `the service answered ${answer.status}`);
  return body;
}

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function trouble(error) {
  $("trouble").textContent = error ? String(error.message ?? error) : "";
  $("trouble").hidden = !error;
}

const number = (value) => Number(value.toPrecision(3)).toString();

// What can be asked for.

async function begin() {
  state.models = await ask("api/models");
  $("model").replaceChildren(...state.models.map((one) => element("option", `${one.label} (${one.name})`, { value: one.name })));
  describe();
  const slides = await ask("api/slides");
  state.slides = new Map(slides.map((one) => [one.slide_id, one]));
  $("slides").replaceChildren(...slides.map((one) => {
    const parts = [one.features && "features", one.slide && "slide"].filter(Boolean);
    return element("option", parts.join(" and "), { value: one.slide_id });
  }));
  $("at-hand").hidden = slides.length === 0;
}

function describe() {
  const card = state.models.find((one) => one.name === $("model").value);
  if (!card) return;
  const features = card.features;
  const patches = features.patch_um ? `${number(features.patch_um)} µm` : features.patch_size_level0 ? `${features.patch_size_level0} level-0 px` : "not said";
  const rows = {
    classes: card.classes.join(", ") || "a number", threshold: card.threshold === null ? "" : number(card.threshold),
    networks: card.networks, encoder: features.encoder ?? "not said", patches,
    "taught by": card.cohort.patients ? `${card.cohort.patients} patients` : "", use: card.intended_use,
  };
  const shown = Object.entries(rows).filter(([, value]) => value !== "");
  $("card").querySelector("dl").replaceChildren(...shown.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

async function send(files) {
  trouble(null);
  $("slide").value = "";
  for (const file of files) {
    const item = element("li", `${file.name}: sending …`);
    $("sent").append(item);
    try {
      const kept = await upload(file, (share) => { item.textContent = `${file.name}: ${share < 1 ? `sending ${Math.floor(100 * share)} %` : "reading"} …`; });
      state.uploads = state.uploads.filter((one) => one.kind !== kept.kind || drop(one));
      const facts = kept.kind === "features" ? `${kept.facts.patches} patches of ${kept.facts.encoder ?? "an encoder not named"}` : `slide of ${kept.facts.width} × ${kept.facts.height} pixels`;
      const remove = element("button", "Remove", { type: "button", "aria-label": `Remove ${file.name}` });
      remove.addEventListener("click", () => { drop(kept); state.uploads = state.uploads.filter((one) => one !== kept); ready(); });
      item.textContent = `${file.name}: ${facts} `;
      item.append(remove);
      kept.item = item;
      state.uploads.push(kept);
    } catch (error) {
      item.remove();
      trouble(error);
    }
  }
  $("file").value = "";
  ready();
}

// fetch() does not say how much has gone; a slide takes minutes.
function upload(file, tell) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `api/uploads?name=${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => tell(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status === 201) resolve(request.response);
      else reject(new Error(request.response?.error ?? `the service answered ${request.status}`));
    });
    request.addEventListener("error", () => reject(new Error(`${file.name}: the service refused it, or went away`)));
    request.send(file);
  });
}

function drop(upload) {
  upload.item?.remove();
  ask(`api/uploads/${upload.upload}`, { method: "DELETE" }).catch(() => {});
  return false;
}

function ready() {
  $("go").disabled = !(state.slides.has($("slide").value) || state.uploads.length > 0) || state.job !== null;
}

// A job, from its order to its answer.

async function go(event) {
  event.preventDefault();
  trouble(null);
  const chosen = state.uploads.length ? { uploads: state.uploads.map((one) => one.upload) } : { slide_id: $("slide").value };
  try {
    const order = JSON.stringify({ model: $("model").value, ...chosen });
    state.job = await ask("api/jobs", { method: "POST", body: order, headers: { "content-type": "application/json" } });
    state.uploads = [];
    $("sent").replaceChildren();
    $("answer").hidden = true;
    await follow(state.job.job);
  } catch (error) {
    trouble(error);
  }
  state.job = null;
  $("running").hidden = true;
  ready();
}

async function follow(id) {
  $("running").hidden = false;
  ready();
  for (;;) {
    const job = await ask(`api/jobs/${id}`);
    const counted = job.total ? ` ${job.done} of ${job.total}` : "";
    $("stage").textContent = `${job.slide_id}: ${STAGES[job.stage] ?? job.stage}${counted}`;
    if (job.total) { $("bar").max = job.total; $("bar").value = job.done; } else { $("bar").removeAttribute("value"); }
    if (job.state === "failed") throw new Error(job.error === "stopped" ? "Stopped." : job.error);
    if (job.state === "done") break;
    await new Promise((resume) => setTimeout(resume, LOOK_AGAIN));
  }
  await show(id, await ask(`api/jobs/${id}/result`));
}

async function show(id, result) {
  const value = Object.values(result.prediction).at(-1);
  $("said").textContent = result.predicted === null ? `${result.slide_id} · ${result.label}: ${number(value)}` : `${result.slide_id} · ${result.label}: ${result.predicted}`;
  $("gauges").replaceChildren(...(result.predicted === null ? [] : gauges(result)));
  $("range").textContent = range(result);
  $("files").replaceChildren(...result.files.map((name) => {
    const item = element("li");
    item.append(element("a", name, { href: `api/jobs/${id}/files/${encodeURIComponent(name)}`, download: "" }));
    return item;
  }));
  $("notes").replaceChildren(...result.notes.map((note) => element("li", note)));
  $("use").textContent = result.intended_use;
  $("answer").hidden = false;
  $("look").hidden = !result.map;
  $("rows").replaceChildren();
  state.map?.close();
  state.map = null;
  $("empty").hidden = result.map;
  if (result.map) await draw(id);
  else $("empty").textContent = "Without coordinates there is no map.";
  $("said").scrollIntoView({ block: "nearest" });
}

function range(result) {
  const words = result.networks === 1 ? [] : [`Bars are the mean of ${result.networks} networks; thin lines from the lowest to the highest of them, not a confidence interval.`];
  if (result.threshold !== null) words.push(`Threshold ${number(result.threshold)}, chosen on validation patients.`);
  if (result.predicted === null && result.networks > 1) {
    const [low, high] = [result.lowest, result.highest].map((one) => number(Object.values(one).at(-1)));
    words[0] = `Mean of ${result.networks} networks, which say ${low} to ${high}; not a confidence interval.`;
  }
  return words.join(" ");
}

function gauges(result) {
  const names = Object.keys(result.prediction);
  const shown = result.threshold === null ? names : names.slice(-1);
  return shown.map((name) => {
    const [value, low, high] = [result.prediction, result.lowest, result.highest].map((one) => 300 * one[name]);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const words = `P(${name}) ${result.prediction[name].toFixed(3)}, networks ${result.lowest[name].toFixed(3)} to ${result.highest[name].toFixed(3)}`;
    const part = (tag, attributes) => {
      const made = document.createElementNS(svg.namespaceURI, tag);
      for (const [key, what] of Object.entries(attributes)) made.setAttribute(key, what);
      svg.append(made);
      return made;
    };
    svg.setAttribute("viewBox", "-4 0 312 40");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", words);
    part("text", { x: 0, y: 12, "font-size": 13 }).textContent = `P(${name}) ${result.prediction[name].toFixed(3)}`;
    part("rect", { x: 0, y: 19, width: 300, height: 12, fill: "#e6eaee" });
    part("rect", { x: 0, y: 19, width: value, height: 12, fill: "#08519c" });
    part("path", { d: `M${low} 25H${high}M${low} 21V29M${high} 21V29`, stroke: "#f0a202", "stroke-width": 2 });
    if (result.threshold !== null) part("path", { d: `M${300 * result.threshold} 15V35`, stroke: "#b3261e", "stroke-width": 2 });
    return svg;
  });
}

// The map and its controls.

async function draw(id) {
  const view = await ask(`api/jobs/${id}/view`);
  const map = new SlideMap($("viewer"), view, `api/jobs/${id}`, (words) => { $("here").textContent = words; });
  state.map = map;
  const groups = [...new Set(view.layers.map((layer) => layer.group))];
  $("layer").replaceChildren(...groups.map((group) => {
    const made = element("optgroup", "", { label: group });
    made.append(...view.layers.filter((layer) => layer.group === group).map((layer) => element("option", group === "maps" ? layer.name : layer.meaning.split(":")[0], { value: layer.name })));
    return made;
  }));
  $("signs").replaceChildren();
  if (view.classes.length === 2) {
    for (const [sign, name] of [[1, view.classes[1]], [-1, view.classes[0]]]) {
      const label = element("label");
      const box = element("input", "", { type: "checkbox" });
      box.checked = true;
      box.addEventListener("change", () => { map.signs.set(sign, box.checked); map.paint(); });
      label.append(box, ` speaks for ${name}`);
      $("signs").append(label);
    }
  }
  if (!view.slide) $("opacity").value = 100;
  opacity();
  choose(view.layers[0].name);
}

function choose(name) {
  const { view } = state.map;
  const layer = state.map.choose(name);
  $("layer").value = name;
  $("meaning").textContent = layer.meaning;
  state.map.key($("key"));
  const [low, high] = $("ends").children;
  low.textContent = number(layer.low);
  high.textContent = number(layer.high);
  $("signs").hidden = layer.look !== "signed";
  $("rows").replaceChildren(...view.rows.filter((row) => row.layer === name).map(strip));
}

function strip(row) {
  const { view } = state.map;
  const made = element("div", "", { class: "row" });
  made.append(element("h4", row.name));
  const patches = element("div");
  row.patches.forEach((patch, place) => {
    const button = element("button", view.slide ? "" : `${patch}`, { type: "button", title: `patch ${patch}: ${row.values[place]}`, "aria-label": `Fly to patch ${patch}, ${row.name}, ${row.values[place]}` });
    if (view.slide) button.append(element("img", "", { src: state.map.picture(patch), alt: "", loading: "lazy" }));
    button.addEventListener("click", () => state.map.fly(patch));
    patches.append(button);
  });
  made.append(patches);
  return made;
}

function opacity() {
  $("opacity-value").textContent = `${$("opacity").value} %`;
  state.map?.opacity($("opacity").value / 100);
}

$("model").addEventListener("change", describe);
$("slide").addEventListener("input", ready);
$("file").addEventListener("change", () => send([...$("file").files]));
$("ask").addEventListener("submit", go);
$("stop").addEventListener("click", () => state.job && ask(`api/jobs/${state.job.job}`, { method: "DELETE" }).catch(trouble));
$("layer").addEventListener("change", () => choose($("layer").value));
$("opacity").addEventListener("input", opacity);
for (const kind of ["dragover", "dragleave", "drop"]) {
  // Wherever a file is dropped, the browser must not open it instead of the page.
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) send([...event.dataTransfer.files]);
  });
}
begin().catch(trouble);
