// Usage: what was used by whom, and what is allowed.

import {bytes, count, duration, el, fill} from '../lib.js';
import {card, cardWith, facts, meter, state, table, words} from '../parts.js';

export const title = 'Usage';

export function mount(root, app) {
  const by = el('select', {'aria-label': 'By whom'}, [['user', 'by user'], ['node', 'by node'], ['job', 'by job']].map(([v, t]) => el('option', {value: v, selected: app.query.get('by') === v}, t)));
  const since = el('select', {'aria-label': 'Since when'}, [['1', 'the last day'], ['7', 'the last 7 days'], ['30', 'the last 30 days'], ['', 'all time']].map(([v, t]) => el('option', {value: v, selected: (app.query.get('days') ?? '') === v}, t)));
  const rows = table('What was used, most first', [
    {name: 'Who', class: 'words', cell: u => u.job ? app.link.job(u.job) : u.user && !u.user.startsWith('12D3') ? words(u.user) : app.link.node(u.node || u.user)},
    {name: 'Tasks', class: 'num', cell: u => count(u.tasks)},
    {name: 'Known before', class: 'num', cell: u => count(u.cached)},
    {name: 'Processor time', class: 'num', cell: u => duration(u.cpu_ns)},
    {name: 'Read', class: 'num', cell: u => bytes(u.read_bytes)},
    {name: 'Written', class: 'num', cell: u => bytes(u.wrote_bytes)},
    {name: 'Quota', class: 'fit', cell: u => (u.quotas || []).some(q => q.over) ? state('failed', 'used up') : (u.quotas || []).length ? 'within it' : el('span.dim', 'none')},
  ], u => [u.job, u.user, u.node].join(' '), 'Nothing was used.');
  const used = (n, all, f) => all ? el('div.progress', meter(n || 0, all, `${f(n || 0)} of ${f(all)}`), el('small', `${f(n || 0)} of ${f(all)}`)) : el('span.dim', 'not bounded');
  const quotas = table('Quotas', [
    {name: 'For', class: 'words', cell: q => [words(q.subject), q.for && q.for !== q.subject && el('div.dim', words(q.for))]},
    {name: 'Per', class: 'fit', cell: q => q.per || 'ever'},
    {name: 'Tasks', cell: q => used(q.used && q.used.tasks, q.tasks, count)},
    {name: 'Processor time', cell: q => used(q.used && q.used.cpu_ns, q.cpu_ns, duration)},
    {name: 'Data moved', cell: q => used(q.used && q.used.read_bytes + q.used.wrote_bytes, q.bytes, bytes)},
    {name: 'Kept', cell: q => used(q.stored_now, q.stored, bytes)},
    {name: 'State', class: 'fit', cell: q => q.over ? state('failed', 'used up: ' + q.over) : state('ok', 'within it')},
  ], q => q.subject + q.per, 'There are no quotas: everybody may use what there is. grid quota set sets one.');
  fill(root, cardWith('What was used', el('div.bar', by, since), rows), card('Quotas', quotas));
  const load = async () => {
    app.set({by: by.value, days: since.value});
    const day = since.value && new Date(Date.now() - 86400000 * Number(since.value)).toISOString().slice(0, 10);
    rows.show((await app.api.get('/usage', {by: by.value, since: day}, {signal: app.signal})).slice(0, 500));
    quotas.show(await app.api.get('/quotas', null, {signal: app.signal}));
  };
  for (const c of [by, since]) c.addEventListener('change', () => load().catch(e => app.fail(e)));
  app.every(10000, load);
}
