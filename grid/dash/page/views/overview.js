// The overview: how the grid is, at a glance, and what is going on.

import {bytes, clock, count, el, fill, prose, short, when} from '../lib.js';
import {card, cardWith, progress, state, table, tiles, words} from '../parts.js';

export const title = 'Overview';

export function mount(root, app) {
  const figures = tiles('The grid at a glance');
  const jobs = table('The newest jobs', [
    {name: 'Job', class: 'words', cell: j => [el('span.swatch', {style: {background: app.colour(j.id)}, 'aria-hidden': 'true'}), app.link.job(j.id), j.name && el('div.dim', words(j.name))]},
    {name: 'State', class: 'fit', cell: j => state(j.state)},
    {name: 'Tasks', class: 'fit', cell: j => progress(j.stages || [])},
    {name: 'Submitted', class: 'fit wide', cell: j => when(j.submitted)},
  ], j => j.id, 'No job has been submitted yet.');
  const feed = el('ol.events');
  const quiet = el('p.empty', 'Nothing has happened since the nodes began.');
  const care = el('div');
  fill(root, figures, care, el('div.cards',
    cardWith('Newest jobs', el('a', {href: '#/jobs'}, 'All jobs'), jobs),
    cardWith('What is going on', el('a', {href: '#/stream'}, 'Task stream'), el('div', feed, quiet))));

  let nodes = new Map(), before = null, rate = 0, pins = null, ledger = null;
  function draw() {
    const all = [...nodes.values()], up = all.filter(n => n.state !== 'silent');
    const sum = f => up.reduce((s, n) => s + (f(n) || 0), 0);
    const slots = sum(n => n.load.slots), busy = sum(n => n.load.running);
    const ill = pins && pins.filter(p => p.health !== 'ok').length;
    figures.show([
      ['Nodes', el('a', {href: '#/nodes'}, `${up.length}`), all.length > up.length ? state('silent', `${all.length - up.length} silent`) : 'all answer'],
      ['Slots busy', `${count(busy)} / ${count(slots)}`, count(sum(n => n.load.queued)) + ' tasks queued'],
      ['Tasks a second', short(rate), count(sum(n => n.tasks_ran)) + ' so far'],
      ['Tasks stolen', short(sum(n => n.tasks_stolen)), 'by idle nodes'],
      ['Data', bytes(sum(n => n.disk_bytes)), 'on ' + up.length + (up.length === 1 ? ' node' : ' nodes')],
      pins && ['Pins', el('a', {href: '#/data'}, count(pins.length)), ill ? state('degraded', ill + ' need copies') : pins.length ? 'all have their copies' : 'nothing is pinned'],
      ledger && ['Ledger', el('a', {href: '#/ledger'}, count((ledger.members || []).filter(m => m.up).length)), ledger.leader ? ((ledger.members || []).filter(m => m.up).length === 1 ? 'member, which leads' : 'members, one leads') : state('lost', 'nobody leads')],
    ]);
  }
  draw();
  app.api.stream('/nodes', {query: {follow: true, every: 2}, signal: app.signal, restart: () => { nodes = new Map(); }}, list => {
    for (const n of list) nodes.set(n.node, n);
    const now = {at: performance.now(), ran: [...nodes.values()].reduce((s, n) => s + n.tasks_ran, 0), nodes: nodes.size};
    if (before && before.nodes === now.nodes && now.at > before.at + 500) rate = Math.max(0, Math.round(10 * (now.ran - before.ran) / (now.at - before.at) * 1000) / 10);
    if (!before || now.at > before.at + 500) before = now;
    draw();
  }).catch(e => app.fail(e, care));
  app.every(2000, async () => jobs.show((await app.api.page('/jobs', {limit: 8}, {signal: app.signal})).items));
  app.every(10000, async () => {
    const at = {signal: app.signal};
    [pins, ledger] = await Promise.all([app.api.get('/pins', {limit: 1000}, at), app.node.ledger ? app.api.get('/ledger', null, at) : null]);
    fill(care, ledger && ledger.note && el('p.note', prose(ledger.note)));
    draw();
  });
  app.api.stream('/events', {query: {follow: true}, signal: app.signal, restart: () => fill(feed)}, e => {
    quiet.hidden = true;
    feed.prepend(el('li', el('time.dim.mono', {dateTime: e.at, title: new Date(e.at).toLocaleString()}, clock(e.at).slice(0, 8)), el('span', {class: ['failed', 'lost', 'gone', 'full', 'accused', 'unplaced'].includes(e.kind) ? 'bad' : 'dim'}, e.kind),
      el('span.what', e.job && [app.link.job(e.job), ' '], el('bdi', e.text.slice(0, 300)))));
    while (feed.childNodes.length > 14) feed.lastChild.remove();
  }).catch(e => app.fail(e, quiet));
}
