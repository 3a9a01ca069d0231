// The overview: how the grid is, at a glance, and what is going on.

import {el} from '../lib.js';

export const title = 'Overview';

export function mount(root, app) {
  root.append(el('p', app.node.id));
}
