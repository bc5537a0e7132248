// What the pages do beside what the server writes: follow the farm, show times as
// they are here, and keys. Without it every page works, by links and forms.
"use strict";
const root = document.documentElement;
const kept = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
if (kept) root.dataset.theme = kept;

const spans = [[86400 * 365, "y"], [86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
function span(seconds) {
  for (const [size, unit] of spans) if (seconds >= size) return Math.floor(seconds / size) + " " + unit;
  return "0 s";
}
function times() {
  for (const t of document.querySelectorAll("time[datetime]")) {
    const at = new Date(t.dateTime), off = (at - Date.now()) / 1000;
    if (isNaN(at)) continue;
    t.title = at.toISOString().replace("T", " ").slice(0, 19) + " UTC";
    if (t.dataset.show === "ago") t.textContent = off > 0 ? "in " + span(off) : span(-off) + " ago";
    else if (t.dataset.show === "age") t.textContent = span(Math.abs(off));
    else t.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
}

// labels says in each cell what its column is: a phone shows a row as lines of these.
function labels() {
  for (const table of document.querySelectorAll(".scroll > table")) {
    const heads = [...table.querySelectorAll("thead th")].map((h) => h.textContent);
    for (const row of table.querySelectorAll("tbody tr"))
      [...row.children].forEach((cell, i) => { if (cell.colSpan === 1) cell.dataset.label = heads[i] ?? ""; });
    table.classList.add("lines");
  }
}

function follow() {
  const where = document.body.dataset.live;
  if (!where || !window.EventSource) return;
  const sign = () => document.querySelector(".live");
  const source = new EventSource(where);
  source.onopen = () => sign()?.classList.add("on");
  source.onerror = () => sign()?.classList.remove("on");
  source.addEventListener("changed", () => {
    const at = document.activeElement;
    if (at && main().contains(at) && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return; // somebody is writing
    document.body.dispatchEvent(new CustomEvent("farm:changed"));
  });
  addEventListener("pagehide", () => source.close());
}
const main = () => document.querySelector("main");

function keys(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
  if (e.key === "/") { e.preventDefault(); document.querySelector("input[type=search]")?.focus(); }
  if (e.key === "?") document.getElementById("help")?.showModal();
  const link = /^[1-9]$/.test(e.key) && document.querySelectorAll(".side nav a")[e.key - 1];
  if (link) link.click();
}

function press(e) {
  const copy = e.target.closest("[data-copy]");
  if (copy) navigator.clipboard?.writeText(copy.dataset.copy).then(() => { copy.textContent = "copied"; });
  if (e.target.closest("[data-theme-switch]")) {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* for this page only */ }
  }
  if (e.target.closest("[data-close]")) e.target.closest("dialog").close();
}
function ask(e) {
  const why = e.target.dataset.sure;
  if (why && !confirm(why)) e.preventDefault();
}

addEventListener("DOMContentLoaded", () => {
  times(); labels(); follow(); setInterval(times, 10000);
  document.addEventListener("keydown", keys);
  document.addEventListener("click", press);
  document.addEventListener("submit", ask);
  document.addEventListener("htmx:after:swap", () => { times(); labels(); });
});
