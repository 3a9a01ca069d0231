// What the live views share: a canvas that is drawn only when something has changed and somebody sees it, scales, ticks, words for
// numbers, and colours, which come from the style sheet at the time of drawing, so that light and dark need no code.

import {duration, el, fill, text} from './lib.js';

// Sheet is a canvas that fills its box. paint(g, width, height, now, changed) draws all of it, in CSS pixels, and returns true if it is to be drawn
// again in the next frame because something moves; changed is false when that is the only reason. Nothing is drawn while the tab is hidden, the canvas out of sight, or nothing was touched.
export class Sheet {
  constructor(app, canvas, paint) {
    this.canvas = canvas;
    this.paint = paint;
    this.g = canvas.getContext('2d', {alpha: true});
    this.width = this.height = this.frame = 0;
    this.seen = true;
    this.frames = 0; // that were drawn
    this.worst = 0; // milliseconds that the slowest of them took
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(canvas);
    this.sighted = new IntersectionObserver(all => {
      this.seen = all[all.length - 1].isIntersecting;
      this.touch();
    });
    this.sighted.observe(canvas);
    app.onTheme(() => {
      colours = null;
      this.touch();
    });
    this.fit();
  }

  // fit takes on the size of the box.
  fit() {
    const r = this.canvas.getBoundingClientRect();
    const dense = Math.min(window.devicePixelRatio || 1, 3);
    this.width = Math.max(1, Math.round(r.width));
    this.height = Math.max(1, Math.round(r.height));
    const w = Math.round(this.width * dense), h = Math.round(this.height * dense);
    if (this.canvas.width !== w) this.canvas.width = w;
    if (this.canvas.height !== h) this.canvas.height = h;
    this.dense = dense;
    this.touch();
  }

  // touch has it drawn in the next frame, as something has changed.
  touch() {
    this.changed = true;
    this.ask();
  }

  ask() {
    if (this.frame || !this.seen || this.closed) return;
    this.frame = requestAnimationFrame(now => {
      this.frame = 0;
      const t = performance.now();
      const g = this.g;
      g.setTransform(this.dense, 0, 0, this.dense, 0, 0);
      g.clearRect(0, 0, this.width, this.height);
      const changed = this.changed;
      this.changed = false;
      const again = this.paint(g, this.width, this.height, now, changed);
      this.frames++;
      this.worst = Math.max(this.worst, performance.now() - t);
      if (again) this.ask();
    });
  }

  close() {
    this.closed = true;
    cancelAnimationFrame(this.frame);
    this.resized.disconnect();
    this.sighted.disconnect();
  }
}

// still says whether the user wants nothing to move.
const motion = matchMedia('(prefers-reduced-motion: reduce)');
export const still = () => motion.matches;

// theme returns the colours of the style sheet for drawing now, and the font. They are read once, until they change.
let colours = null;
export function theme() {
  if (colours) return colours;
  const root = getComputedStyle(document.documentElement), of = name => root.getPropertyValue(name).trim() || '#888';
  colours = {
    ground: of('--surface'), text: of('--text'), dim: of('--dim'), line: of('--line'), strong: of('--line-strong'), faint: of('--grid'),
    accent: of('--accent'), soft: of('--accent-soft'), ok: of('--ok'), warn: of('--warn'), bad: of('--bad'), font: of('--sans'),
  };
  colours.dark = lightness(colours.ground) < 0.5;
  return colours;
}

const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});

// rgb returns the red, green and blue of a CSS colour, 0 to 255.
export function rgb(colour) {
  probe.canvas.width = probe.canvas.height = 1;
  probe.fillStyle = '#000';
  probe.fillStyle = colour;
  probe.fillRect(0, 0, 1, 1);
  return [...probe.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

function lightness(colour) {
  const [r, g, b] = rgb(colour);
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
}

// hash is FNV-1a of a text, the same wherever it is worked out.
export function hash(text) {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

// The hues of series, in an order in which neighbours are easy to tell apart, also for who sees red and green alike; red and amber are
// left out, since they mean failed and draining.
const hues = [255, 165, 310, 215, 130, 285, 190, 340, 105, 235];

// series returns the colour of the nth series of a plot.
export const series = n => `oklch(${theme().dark ? 0.74 : 0.58} 0.13 ${hues[n % hues.length]})`;

// ofStage returns the colour of a stage of a job: the job's, lighter and darker by turns.
const staged = new Map();
export function ofStage(app, job, stage) {
  const key = app.colour(job) + stage % 4;
  let colour = staged.get(key);
  if (!colour) {
    if (staged.size > 1000) staged.clear();
    const [to, much] = [[0, 0], [255, 0.35], [0, 0.3], [255, 0.6]][stage % 4];
    colour = `rgb(${rgb(app.colour(job)).map(v => Math.round(v + (to - v) * much)).join(' ')})`;
    staged.set(key, colour);
  }
  return colour;
}

// scale maps [a, b] onto [c, d]; back is the other way.
export function scale(a, b, c, d) {
  const k = b === a ? 0 : (d - c) / (b - a);
  const f = v => c + (v - a) * k;
  f.back = p => (k === 0 ? a : a + (p - c) / k);
  return f;
}

// clamp keeps a value within bounds.
export const clamp = (v, lo, hi) => (v < lo ? lo : v > hi ? hi : v);

// steps returns round numbers from lo to hi, about n of them. Base 1024 makes them round in bytes.
export function steps(lo, hi, n, base = 10) {
  if (!(hi > lo) || !Number.isFinite(hi - lo)) return [lo];
  const rough = (hi - lo) / Math.max(1, n);
  let step;
  if (base === 1024) {
    const unit = 1024 ** Math.max(0, Math.floor(Math.log(rough) / Math.log(1024)));
    step = unit * [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].find(s => s * unit >= rough);
  } else {
    const unit = 10 ** Math.floor(Math.log10(rough));
    step = unit * [1, 2, 5, 10].find(s => s * unit >= rough * 0.999);
  }
  const out = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; i++) out.push(i === 0 ? 0 : i * step);
  return out;
}

// spans are distances between ticks of time that people know, in milliseconds.
const spans = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500,
  1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3, 3600e3, 7200e3, 6 * 3600e3, 24 * 3600e3, 7 * 24 * 3600e3];

// times returns ticks of time from lo to hi (milliseconds since 1970), about n of them, and how far they are apart.
export function times(lo, hi, n) {
  const rough = (hi - lo) / Math.max(1, n);
  const step = spans.find(s => s >= rough) || spans[spans.length - 1];
  const zone = step >= 3600e3 ? new Date(lo).getTimezoneOffset() * 60e3 : 0;
  const out = [];
  for (let t = Math.ceil((lo - zone) / step) * step + zone; t <= hi && out.length < 200; t += step) out.push(t);
  return {at: out, step};
}

const two = n => String(n).padStart(2, '0');

// clock writes a moment as exactly as the step between ticks asks for.
export function clock(t, step = 1000) {
  const d = new Date(t);
  if (step >= 24 * 3600e3) return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  const hm = `${two(d.getHours())}:${two(d.getMinutes())}`;
  if (step >= 60e3) return hm;
  const hms = `${hm}:${two(d.getSeconds())}`;
  if (step >= 1000) return hms;
  const digits = Math.min(6, Math.max(1, Math.ceil(-Math.log10(step / 1000) - 1e-9)));
  const frac = (((t % 1000) + 1000) % 1000) / 1000;
  return hms + frac.toFixed(digits).slice(1).replace(/^\.?$/, '');
}

// lasting writes a duration in milliseconds.
export const lasting = ms => duration(ms * 1e6).replace(/ 0 (s|min|h)$/, '');

// part writes a share of a whole.
export const part = (of, whole) => (whole > 0 ? `${Math.round((100 * of) / whole)}%` : '–');

// lowerBound returns the first i in [0, n) for which at(i) >= v, or n; at must not fall.
export function lowerBound(n, at, v) {
  let lo = 0;
  while (lo < n) {
    const mid = (lo + n) >>> 1;
    if (at(mid) < v) lo = mid + 1;
    else n = mid;
  }
  return lo;
}

// Ring keeps the last n samples of several series, by time. What was not measured is NaN.
export class Ring {
  constructor(n, width) {
    this.n = n;
    this.width = width;
    this.at = new Float64Array(n);
    this.values = new Float64Array(n * width);
    this.end = 0; // samples that there ever were
  }
  get length() { return Math.min(this.end, this.n); }
  // push adds a sample; one that is not later than the last one replaces it.
  push(at, values) {
    if (this.end > 0 && at <= this.at[(this.end - 1) % this.n]) this.end--;
    const i = this.end++ % this.n;
    this.at[i] = at;
    for (let k = 0; k < this.width; k++) this.values[i * this.width + k] = values[k] ?? NaN;
  }
  // time and value are of the ith of those that are kept, the oldest is 0.
  time(i) { return this.at[this.index(i)]; }
  value(i, k) { return this.values[this.index(i) * this.width + k]; }
  index(i) { return (this.end - this.length + i) % this.n; }
  // near returns the sample whose time is nearest to t, or -1.
  near(t) {
    if (this.length === 0) return -1;
    const i = lowerBound(this.length, i => this.time(i), t);
    if (i === 0) return 0;
    if (i === this.length) return i - 1;
    return t - this.time(i - 1) <= this.time(i) - t ? i - 1 : i;
  }
}

// fitText returns text cut so that it is no wider than max, with an ellipsis; "" if not even that fits.
const fitted = new Map();
export function fitText(g, text, max) {
  text = text.slice(0, 200); // no more is ever seen
  const key = [g.font, Math.floor(max), text].join('\n');
  let fit = fitted.get(key);
  if (fit === undefined) {
    fit = text;
    for (let n = text.length; n > 0 && g.measureText(fit).width > max;) {
      n = Math.min(n - 1, Math.floor((n * max) / g.measureText(fit).width));
      fit = n < 2 ? '' : text.slice(0, n) + '…';
    }
    if (fitted.size > 4000) fitted.clear();
    fitted.set(key, fit);
  }
  return fit;
}

// Tip is the box with what is under the pointer. It is hidden from screen readers: what it tells is in tables, and told when the keyboard
// goes there.
export class Tip {
  constructor(root) {
    this.box = el('div.live-tip', {'aria-hidden': 'true', hidden: true});
    this.root = root;
    root.append(this.box);
  }
  // show shows a title, and rows of [name, value] or [name, value, colour], beside a place in root.
  show(x, y, title, rows) {
    fill(this.box, el('strong', title), rows.map(([name, value, colour]) =>
      el('div', el('span', colour && el('i.swatch', {style: {background: colour}}), name), el('b', value))));
    this.box.hidden = false;
    const w = this.box.offsetWidth, h = this.box.offsetHeight, W = this.root.clientWidth, H = this.root.clientHeight;
    this.box.style.left = `${clamp(x + 14 + w > W ? x - 14 - w : x + 14, 0, Math.max(0, W - w))}px`;
    this.box.style.top = `${Math.max(0, Math.min(y + 14, H - h))}px`;
  }
  hide() { this.box.hidden = true; }
}

// Rows is a table that changes in place: only the texts that differ are touched, and of many rows one page is shown.
export class Rows {
  // columns: {name, num}. A cell is a text, {text, href} for a link, or {text, go} for one that does something.
  constructor(caption, columns, most = 50) {
    this.most = most;
    this.page = 0;
    this.columns = columns;
    this.body = el('tbody');
    this.where = el('span.dim');
    this.back = el('button', {type: 'button', onclick: () => this.turn(-1)}, 'Previous');
    this.next = el('button', {type: 'button', onclick: () => this.turn(1)}, 'Next');
    this.pages = el('div.bar.body', {hidden: true}, this.back, this.next, this.where);
    this.root = el('div.card.live-table', el('div.scroll', {tabindex: '0', role: 'region', 'aria-label': caption},
      el('table', el('caption.hide', caption), el('thead', el('tr', columns.map(c => el('th', {scope: 'col', class: c.num && 'num'}, c.name)))), this.body)), this.pages);
    this.rows = [];
  }
  turn(by) {
    this.page += by;
    this.show(this.rows);
  }
  show(rows) {
    this.rows = rows;
    const pages = Math.max(1, Math.ceil(rows.length / this.most));
    this.page = clamp(this.page, 0, pages - 1);
    const from = this.page * this.most, some = rows.slice(from, from + this.most);
    this.pages.hidden = pages === 1;
    this.back.disabled = this.page === 0;
    this.next.disabled = this.page === pages - 1;
    text(this.where, `${from + 1} to ${from + some.length} of ${rows.length}`);
    while (this.body.rows.length > some.length) this.body.lastChild.remove();
    some.forEach((cells, i) => {
      let tr = this.body.rows[i];
      if (!tr) this.body.append(tr = el('tr', this.columns.map((c, k) => el(k ? 'td' : 'th', {scope: k ? null : 'row', class: c.num && 'num'}))));
      cells.forEach((cell, k) => put(tr.cells[k], cell));
    });
  }
}

function put(td, cell) {
  if (typeof cell !== 'object') return text(td, String(cell));
  const tag = cell.href ? 'A' : 'BUTTON';
  let inner = td.firstElementChild;
  if (inner?.tagName !== tag) td.replaceChildren(inner = cell.href ? el('a') : el('button.link', {type: 'button', onclick: () => td.go()}));
  if (cell.href) inner.href = cell.href;
  td.go = cell.go;
  text(inner, cell.text);
}
