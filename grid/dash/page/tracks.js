// Stretches of time in which worker slots ran tasks (GET /v1/stretches), kept so that a million of them are found and drawn fast: for each slot
// typed arrays, by when they began. An attempt is alone in its slot; what was merged may overlap with other stages' tasks that ran in between.
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
    this.reach = bigger(Float64Array, this.reach); // the latest end up to here, which does not fall
    this.kind = bigger(Uint32Array, this.kind); // place in Tracks.kinds
    this.lo = bigger(Uint32Array, this.lo);
    this.hi = bigger(Uint32Array, this.hi);
    this.tasks = bigger(Uint32Array, this.tasks);
    this.failed = bigger(Uint32Array, this.failed);
    this.stolen = bigger(Uint8Array, this.stolen);
    this.phases = bigger(Float32Array, this.phases, phaseNames.length); // milliseconds
  }

  // add puts a stretch in its place, and reports whether anything was new. What is told twice, finer and coarser, is there once: of one stage, whatever
  // was stolen apart from the rest, nothing overlaps.
  add(s) {
    let {from, to} = s;
    if (!(to >= from)) return false;
    const stolen = s.stolen ? 1 : 0, mine = i => this.kind[i] === s.kind && this.stolen[i] === stolen;
    let at = lowerBound(this.n, i => this.from[i], from);
    for (let i = at - 1, k = 0; i >= 0 && k < nearby && this.reach[i] > from; i--, k++) if (mine(i) && this.to[i] > from) {
      if (this.to[i] >= to) return false;
      from = this.to[i];
    }
    while (at < this.n && this.from[at] < from) at++;
    for (let i = at, k = 0; i < this.n && k < nearby && (this.from[i] < to || this.from[i] === from); k++) {
      if (!mine(i)) i++;
      else if (this.from[i] === from && this.to[i] >= to) return false;
      else if (this.to[i] <= to) this.cut(i, i + 1);
      else {
        to = Math.max(from, this.from[i]);
        break;
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
    this.stolen[at] = stolen;
    this.phases.set(s.phases, at * phaseNames.length);
    this.reached(at);
    return true;
  }

  // reached works reach out anew from place i on.
  reached(i) {
    for (; i < this.n; i++) {
      const r = i > 0 ? Math.max(this.reach[i - 1], this.to[i]) : this.to[i];
      this.reach[i] = r;
    }
  }

  // move moves what begins at place `at` to place `to`; cut takes out [a, b).
  move(at, to) {
    const n = this.n, p = phaseNames.length;
    for (const a of [this.from, this.to, this.kind, this.lo, this.hi, this.tasks, this.failed, this.stolen]) a.copyWithin(to, at, n);
    this.phases.copyWithin(to * p, at * p, n * p);
  }
  cut(a, b) {
    this.move(b, a);
    this.n -= b - a;
    this.reached(a);
  }

  // first is the first that may end after t: what is in sight begins there.
  first(t) { return lowerBound(this.n, i => this.reach[i], t); }

  // under is the one at a moment, or the nearest that is no further than slack away; of several the shortest. -1: none.
  under(t, slack = 0) {
    let best = -1, away = slack;
    for (let i = this.first(t - slack); i < this.n && this.from[i] <= t + slack; i++) {
      const d = t < this.from[i] ? this.from[i] - t : t > this.to[i] ? t - this.to[i] : 0;
      if (d < away || (d === away && (best < 0 || this.to[i] - this.from[i] < this.to[best] - this.from[best]))) (best = i), (away = d);
    }
    return best;
  }
}

// nearby is among how many neighbours one is looked for that tells the same.
const nearby = 64;

// Tracks are all slots, and the stages of jobs that ran on them.
export class Tracks {
  constructor() {
    this.kinds = []; // {job, stage, spawned}
    this.places = new Map();
    this.nodes = new Map(); // ID: tracks by slot
    this.size = 0;
    this.latest = 0;
  }

  // kind is the place of what is drawn alike: tasks of a stage, or those that its tasks have spawned.
  kind(job, stage, spawned) {
    const key = job + '/' + stage + (spawned ? '+' : '');
    let n = this.places.get(key);
    if (n === undefined) {
      this.places.set(key, (n = this.kinds.length));
      this.kinds.push({job, stage, spawned});
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
      from, to, kind: this.kind(s.job, s.stage, !!s.spawned), lo: s.lo, hi: s.hi, tasks: s.tasks, failed: s.failed || 0, stolen: s.stolen,
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
