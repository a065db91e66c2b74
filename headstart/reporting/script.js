"use strict";
const dialog = document.querySelector("#zoom");
const zooms = [...document.querySelectorAll(".zoom")];
let enlarged = 0;
const enlarge = (i) => {
  enlarged = (i + zooms.length) % zooms.length;
  const [from, to] = [zooms[enlarged].querySelector("img"), dialog.querySelector("img")];
  [to.src, to.alt] = [from.src, from.alt];
  dialog.querySelector("p").textContent = from.alt;
  if (!dialog.open) dialog.showModal();
};
zooms.forEach((button, i) => button.addEventListener("click", () => enlarge(i)));
dialog.addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) enlarge(enlarged + step);
});
dialog.addEventListener("close", () => zooms[enlarged].focus());
for (const map of document.querySelectorAll(".map")) {
  const facts = JSON.parse(map.querySelector("#facts").textContent);
  const views = [...map.querySelectorAll(".view")];
  const marks = views.map((view) => [...view.querySelectorAll("use")]);
  const tip = map.querySelector(".tip");
  const box = map.querySelector(".views");
  let chosen = null; // a class, or null for all

  const line = (name, text) => {
    const div = document.createElement("div");
    div.className = name;
    div.textContent = text;
    return div;
  };

  const tile = (i) => {
    const div = line("tile", "");
    div.style.backgroundImage = `url("${facts.sheet}")`;
    div.style.backgroundPosition = `-${(i % COLUMNS) * TILE}px -${Math.floor(i / COLUMNS) * TILE}px`;
    return div;
  };

  const nearest = (list, svg, event) => {
    const frame = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / frame.width;
    const x = (event.clientX - frame.left) * scale;
    const y = (event.clientY - frame.top) * scale;
    let best = -1;
    let least = (18 * scale) ** 2;
    list.forEach((mark, i) => {
      if (chosen !== null && facts.labels[i] !== chosen) return;
      const away = (mark.x.baseVal.value - x) ** 2 + (mark.y.baseVal.value - y) ** 2;
      if (away < least) [best, least] = [i, away];
    });
    return best;
  };

  const show = (list, i) => {
    for (const mark of map.querySelectorAll("use.here")) mark.classList.remove("here");
    tip.hidden = i < 0;
    if (i < 0) return;
    list[i].classList.add("here");
    const about = line("about", "");
    about.append(line("class", facts.names[facts.labels[i]]), line("path", facts.paths[i]));
    about.append(line("part", facts.parts[i]));
    tip.replaceChildren(...(facts.held[i] ? [tile(i)] : []), about);
    const frame = box.getBoundingClientRect();
    const mark = list[i].getBoundingClientRect();
    const left = Math.min(mark.left - frame.left + 14, frame.width - tip.offsetWidth);
    tip.style.left = `${Math.max(0, left)}px`;
    const below = mark.top - frame.top + 18;
    const fits = below + tip.offsetHeight < frame.height;
    tip.style.top = `${fits ? below : Math.max(0, below - tip.offsetHeight - 24)}px`;
  };

  views.forEach((view, v) => {
    const svg = view.querySelector("svg");
    for (const kind of ["pointermove", "pointerdown"]) {
      svg.addEventListener(kind, (event) => show(marks[v], nearest(marks[v], svg, event)));
    }
    svg.addEventListener("pointerleave", () => show(marks[v], -1));
  });

  for (const button of map.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => {
      for (const other of map.querySelectorAll("[data-view]")) {
        const on = other === button;
        other.setAttribute("aria-pressed", on);
        views[other.dataset.view].classList.toggle("off", !on);
      }
      tip.hidden = true;
    });
  }

  for (const button of map.querySelectorAll("[data-group]")) {
    button.addEventListener("click", () => {
      const group = Number(button.dataset.group);
      chosen = chosen === group ? null : group;
      for (const other of map.querySelectorAll("[data-group]")) {
        other.setAttribute("aria-pressed", Number(other.dataset.group) === chosen);
      }
      for (const mark of map.querySelectorAll(".views use")) {
        mark.classList.toggle("dim", chosen !== null && Number(mark.dataset.g) !== chosen);
      }
    });
  }
}
