// Stretches of time in which worker slots ran tasks (GET /v1/stretches), kept so that a million of them are found and drawn fast: for each slot
// typed arrays, by time, and never two that overlap.
import {lowerBound} from './draw.js';

export const phaseNames = ['fetch', 'compile', 'queue', 'start', 'run', 'store'];

// Track is one worker slot. Times are milliseconds since 1970.
export class Track {
  constructor(node, slot) {
    this.node = node;
    this.slot = slot;
    this.n = 0;
    this.grow(16);
  }

  grow(room) {
    const bigger = (type, old, per = 1) => {
      const a = new type(room * per);
      if (old) a.set(old.subarray(0, this.n * per));
      return a;
    };
    this.room = room;
    this.from = bigger(Float64Array, this.from);
    this.to = bigger(Float64Array, this.to);
    this.kind = bigger(Uint32Array, this.kind); // place in Tracks.kinds
    this.lo = bigger(Uint32Array, this.lo);
    this.hi = bigger(Uint32Array, this.hi);
    this.tasks = bigger(Uint32Array, this.tasks);
    this.failed = bigger(Uint32Array, this.failed);
    this.stolen = bigger(Uint8Array, this.stolen);
    this.phases = bigger(Float32Array, this.phases, phaseNames.length); // milliseconds
  }

  // add puts a stretch in its place. One that overlaps with others takes the place of those that it covers, and else is cut to
  // what is free: the same time asked for twice, finer or coarser, is there once. It reports whether anything was left of it.
  add(s) {
    if (!(s.to >= s.from)) return false;
    let {from, to} = s;
    let at = this.n;
    if (at > 0 && from < this.to[at - 1]) {
      at = lowerBound(this.n, i => this.to[i], from + 1e-9); // the first that ends behind its beginning
      let end = at;
      while (end < this.n && this.from[end] < to) end++;
      if (end > at) {
        // What covers it whole is the same again, or finer than it.
        if (end - at === 1 && this.from[at] <= from && this.to[at] >= to && (this.from[at] < from || this.to[at] > to)) return false;
        if (this.from[at] < from) from = Math.min(to, this.to[at++]);
        if (end > at && this.to[end - 1] > to) to = Math.max(from, this.from[--end]);
        if (at > end) at = end;
        if (to <= from && s.to > s.from) return false;
        if (end > at) this.cut(at, end);
      }
    }
    if (this.n === this.room) this.grow(this.room * 2);
    if (at < this.n) this.move(at, at + 1);
    this.n++;
    this.from[at] = from;
    this.to[at] = to;
    this.kind[at] = s.kind;
    this.lo[at] = s.lo;
    this.hi[at] = s.hi;
    this.tasks[at] = s.tasks;
    this.failed[at] = s.failed;
    this.stolen[at] = s.stolen ? 1 : 0;
    this.phases.set(s.phases, at * phaseNames.length);
    return true;
  }

  // move moves what begins at place `at` to place `by`; cut takes out [a, b).
  move(at, by) {
    const n = this.n, p = phaseNames.length;
    for (const a of [this.from, this.to, this.kind, this.lo, this.hi, this.tasks, this.failed, this.stolen]) a.copyWithin(by, at, n);
    this.phases.copyWithin(by * p, at * p, n * p);
  }
  cut(a, b) {
    this.move(b, a);
    this.n -= b - a;
  }

  // first is the first that ends after t; visible ones begin there.
  first(t) { return lowerBound(this.n, i => this.to[i], t); }

  // under is the one at a moment, or the nearest that is no further than slack away; -1: none.
  under(t, slack = 0) {
    const i = this.first(t);
    let best = -1, away = slack;
    for (const k of [i - 1, i]) {
      if (k < 0 || k >= this.n) continue;
      const d = t < this.from[k] ? this.from[k] - t : t > this.to[k] ? t - this.to[k] : 0;
      if (d <= away) (best = k), (away = d);
    }
    return best;
  }
}

// Tracks are all slots, and the stages of jobs that ran on them.
export class Tracks {
  constructor() {
    this.kinds = []; // {job, stage}
    this.places = new Map();
    this.nodes = new Map(); // ID: tracks by slot
    this.size = 0;
    this.latest = 0;
  }

  kind(job, stage) {
    const key = job + '/' + stage;
    let n = this.places.get(key);
    if (n === undefined) {
      this.places.set(key, (n = this.kinds.length));
      this.kinds.push({job, stage});
    }
    return n;
  }

  // slots sees to it that a node has so many tracks, also where nothing ran yet.
  slots(node, n) {
    let all = this.nodes.get(node);
    if (!all) this.nodes.set(node, (all = []));
    while (all.length < Math.min(n, mostSlots)) all.push(new Track(node, all.length));
    return all;
  }

  // take takes in a stretch as the API tells it; what makes no sense is left out.
  take(s) {
    if (!(s.slot >= 0 && s.slot < mostSlots)) return false;
    const from = moment(s.from), to = moment(s.to);
    if (!Number.isFinite(from) || !Number.isFinite(to)) return false;
    const track = this.slots(s.node, s.slot + 1)[s.slot], before = track.n;
    const p = s.phases || {};
    const done = track.add({
      from, to, kind: this.kind(s.job, s.stage), lo: s.lo, hi: s.hi, tasks: s.tasks, failed: s.failed || 0, stolen: s.stolen,
      phases: phaseNames.map(name => (p[name + '_ns'] || 0) / 1e6),
    });
    this.size += track.n - before;
    if (done && to > this.latest) this.latest = to;
    return done;
  }

  // drop forgets what ended before a moment.
  drop(before) {
    for (const all of this.nodes.values()) for (const t of all) {
      const n = t.first(before);
      if (n > 0) {
        t.cut(0, n);
        this.size -= n;
      }
    }
  }
}

// mostSlots is what a node may have; one that says more is not believed.
export const mostSlots = 1024;

// moment reads a time of RFC 3339 to more than the millisecond that Date knows.
export function moment(text) {
  const ms = Date.parse(text);
  const frac = /\.\d{3}(\d{1,6})/.exec(text);
  return frac ? ms + Number('0.' + frac[1]) : ms;
}
