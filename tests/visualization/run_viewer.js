// Runs the script of a viewer page on a stand-in for the browser and reports what it draws.
// usage: node run_viewer.js PAGE WIDTH HEIGHT OUT.rgba [EVENT JSON ...]
"use strict";
const fs = require("fs");
const [page, width, height, out, ...events] = process.argv.slice(2);
const html = fs.readFileSync(page, "utf8");
const parts = [...html.matchAll(/<script[^>]*>([\s\S]*?)<\/script>/g)].map((match) => match[1]);

const listeners = {};
const report = { lines: [], texts: [], panels: [], checkboxes: [] };
function listen(type, action) { (listeners[type] = listeners[type] || []).push(action); }
function element(tag) {
  const made = { tag, style: {}, children: [], listeners: {}, textContent: "" };
  made.appendChild = (child) => { made.children.push(child); return child; };
  made.addEventListener = (type, action) => { made.listeners[type] = action; };
  if (tag === "input") report.checkboxes.push(made);
  return made;
}
const context = {
  createImageData: (w, h) => ({ data: new Uint8ClampedArray(w * h * 4), width: w, height: h }),
  putImageData: (image) => { report.lines = []; report.texts = []; context.image = image; },
  setLineDash: (dash) => { context.dash = dash; },
  beginPath: () => {},
  moveTo: (x, y) => { context.from = [x, y]; },
  lineTo: (x, y) => report.lines.push([context.strokeStyle, context.dash.length > 0,
                                       ...context.from, x, y]),
  stroke: () => {},
  fillText: (text, x, y) => report.texts.push([text, x, y]),
};
const canvas = { getContext: () => context, addEventListener: listen, setPointerCapture() {} };
const places = { view: canvas, scene: { textContent: parts[0] }, token: element("span"),
                 counts: element("span"), legend: element("div") };
global.document = { getElementById: (id) => places[id], createElement: element };
global.window = { innerWidth: Number(width), innerHeight: Number(height), devicePixelRatio: 1,
                  addEventListener: listen };
global.requestAnimationFrame = (action) => action();
global.atob = (text) => Buffer.from(text, "base64").toString("binary");
new Function(parts[1])();
for (const text of events) {
  const event = { preventDefault() {}, ...JSON.parse(text) };
  if (event.type === "uncheck") {
    const box = report.checkboxes[event.number];
    box.checked = false;
    box.listeners.change();
  } else for (const action of listeners[event.type]) action(event);
}
fs.writeFileSync(out, context.image.data);
report.checkboxes = report.checkboxes.length;
report.title = global.document.title;
report.token = places.token.textContent;
report.counts = places.counts.textContent;
report.legend = places.legend.children.map((row) => row.children.map((cell) => cell.textContent));
console.log(JSON.stringify(report));
