// The colours of jobs. There are ten, which are easy to tell apart in either theme, also for who sees red and green alike, and from the red of what has failed. A
// job's is made of its ID, so it is the same in other tabs most of the time; but jobs that are shown together have different ones.

import {hash} from './draw.js';

const light = ['#8c5c80', '#001e9d', '#552c00', '#457cfd', '#b27923', '#5c0065', '#2d6545', '#d958c0', '#773ac1', '#199d78'];
const dark = ['#b02e9a', '#abf95f', '#9c851a', '#f9cdfc', '#2f63e1', '#39c3ae', '#047745', '#e7ad01', '#f485fe', '#9a87bc'];

const mostGiven = 5000;

// Colours are those of jobs, as long as they are shown now and then.
export class Colours {
  constructor() {
    this.given = new Map(); // by job, those that were asked for last at the end
  }

  of(job, isDark) {
    let i = this.given.get(job);
    if (i === undefined) {
      const taken = new Set([...this.given.values()].slice(1 - light.length));
      for (i = hash(job) % light.length; taken.has(i);) i = (i + 1) % light.length;
      if (this.given.size >= mostGiven) this.given.delete(this.given.keys().next().value);
    } else this.given.delete(job);
    this.given.set(job, i);
    return (isDark ? dark : light)[i];
  }
}
