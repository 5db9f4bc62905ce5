"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;
  const tip = $("tip");
  for (const one of document.querySelectorAll(".tools")) one.hidden = false;

  // Theme: the system's, unless somebody chose.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const label = () => { $("theme").textContent = isDark() ? "Light" : "Dark"; };
  if (kept()) root.dataset.theme = kept();
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* A page of a file may keep nothing. */ }
    label();
  });
  dark.addEventListener("change", label);
  label();

  // Filter: rows, strips and sections of an instrument carry its name.
  const filter = () => {
    const words = $("filter").value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    let shown = 0;
    for (const one of document.querySelectorAll("[data-name]")) {
      const matches = !words.length || words.some((word) => one.dataset.name.includes(word));
      one.hidden = !matches || ($("gaps").checked && one.dataset.gaps === "0");
      if (!one.hidden && one.localName === "tr") shown += 1;
    }
    $("none").hidden = shown > 0;
  };
  $("filter").addEventListener("input", filter);
  $("gaps").addEventListener("change", filter);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target.localName !== "input") { event.preventDefault(); $("filter").focus(); }
    if (event.key === "Escape") hide();
  });

  // A link to a section opens it.
  const open = () => {
    const target = location.hash && $(location.hash.slice(1));
    if (target && target.localName === "details") { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();
  // Paper cannot be opened: what is shown is printed, unless that would be a book.
  let opened = [];
  addEventListener("beforeprint", () => {
    const closed = [...document.querySelectorAll("details:not([open]):not([hidden])")];
    if (closed.length <= 30) { opened = closed; for (const one of opened) one.open = true; }
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; opened = []; });

  // Tooltips: values stand in data-v, repeated ones as "value*times".
  const cache = new WeakMap();
  const values = (one) => {
    if (!cache.has(one)) {
      cache.set(one, one.dataset.v.split(",").flatMap((part) => {
        const [value, times] = part.split("*");
        return Array(Number(times ?? 1)).fill(value);
      }));
    }
    return cache.get(one);
  };
  const stamp = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 19);
  const where = (plot, place) => {
    if (plot.dataset.axis === "latency") return AXES.latency[Number(plot.dataset.from) + place];
    const { from, step } = AXES[plot.dataset.axis];
    const start = from + place * step;
    if (plot.dataset.axis === "time") return `${stamp(start)} UTC, ${step / 1000} s`;
    const first = stamp(start).slice(0, 10), last = stamp(start + step - 1).slice(0, 10);
    return first === last ? first : `${first} to ${last}`;
  };
  const hide = () => {
    tip.style.display = "none";
    for (const one of document.querySelectorAll(".cursor")) one.remove();
  };
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.style.display = "block";
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  };
  const point = (plot, place, y) => {
    const series = [...plot.querySelectorAll("[data-v]")];
    if (!series.length) return;
    const count = values(series[0]).length;
    place = Math.max(0, Math.min(place, count - 1));
    plot.dataset.at = place;
    const lines = series.map((one) => {
      const value = values(one)[place];
      return `${one.dataset.n}: ${value === "" ? "nothing" : `${value} ${plot.dataset.u}`}`;
    });
    const box = plot.getBoundingClientRect();
    hide();
    const cursor = document.createElement("i");
    cursor.className = "cursor";
    cursor.style.left = `${((place + 0.5) / count) * 100}%`;
    plot.append(cursor);
    show([where(plot, place), ...lines].join("\n"), box.left + ((place + 0.5) / count) * box.width, y ?? box.bottom - 10);
  };
  document.addEventListener("pointermove", (event) => {
    const piece = event.target.closest("[data-t]");
    if (piece) {
      const box = piece.ownerSVGElement.getBoundingClientRect();
      const { from, step, count } = AXES.time;
      const at = from + ((event.clientX - box.left) / box.width) * step * count;
      show(`${piece.dataset.t}\n${stamp(at)} UTC`, event.clientX, event.clientY);
      return;
    }
    const plot = event.target.closest(".plot");
    const first = plot && plot.querySelector("[data-v]");
    if (!first) { hide(); return; }
    const box = plot.getBoundingClientRect();
    point(plot, Math.floor(((event.clientX - box.left) / box.width) * values(first).length), event.clientY);
  });
  document.addEventListener("keydown", (event) => {
    const plot = event.target.closest(".plot");
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
    if (!plot || !step) return;
    event.preventDefault();
    point(plot, Number(plot.dataset.at ?? -1) + step);
  });
  document.addEventListener("focusout", hide);
  addEventListener("scroll", hide, { passive: true });
})();
