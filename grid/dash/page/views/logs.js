// Logs: what the node says of itself, and the realm's events.

import {clock, count, el, fill, text} from '../lib.js';
import {lines, tabs} from '../parts.js';

export const title = 'Logs';

export async function mount(root, app) {
  const tab = app.query.get('tab') || '';
  const log = lines(tab ? 'Events of the realm' : 'Log of the node');
  const fact = el('p.empty', {role: 'status'});
  const find = el('input', {type: 'search', value: app.query.get('find') || '', placeholder: 'Only lines with', 'aria-label': 'Only lines with'});
  const room = el('select', {'aria-label': 'Room'}, (tab ? ['', 'job', 'node', 'ledger', 'data', 'swarm'] : ['', ...((await app.api.get('/node/log-levels', null, {signal: app.signal})).known || [])]).map(r =>
    el('option', {value: r, selected: r === app.query.get('room')}, r || 'All rooms')));
  const level = el('select', {'aria-label': 'Level'}, [['', 'All levels'], ['info', 'Info and up'], ['warn', 'Warnings and up'], ['error', 'Errors']].map(([v, t]) => el('option', {value: v, selected: v === app.query.get('level')}, t)));
  fill(root, tabs('Logs', '#/logs', [['', 'This node'], ['events', 'Events of the realm']], tab),
    el('section.card', {'aria-label': tab ? 'Events' : 'Log'}, el('div.title', el('div.bar', room, !tab && level, find)), log, fact));
  let ctl = new AbortController(), all = [], typing = 0;
  app.signal.addEventListener('abort', () => ctl.abort());
  const match = l => !find.value || (l.from + ' ' + l.text).toLowerCase().includes(find.value.toLowerCase());
  const put = l => {
    all.push(l);
    if (all.length > 20000) all = all.slice(-10000);
    if (match(l)) log.put(l);
  };
  async function begin() {
    ctl.abort();
    const mine = ctl = new AbortController();
    app.set({room: room.value, level: level.value});
    const clear = () => { all = []; log.clear(); };
    clear();
    text(fact, '');
    try {
      if (tab) {
        await app.api.stream('/events', {query: {follow: true, room: room.value}, signal: mine.signal, restart: clear}, e =>
          put({class: ['failed', 'lost', 'gone', 'full', 'accused'].includes(e.kind) ? 'error' : '', at: clock(e.at), title: e.at, from: `${e.room} · ${e.kind}`, text: (e.job ? e.job + ' ' : '') + e.text}));
      } else {
        await app.api.stream('/node/log', {query: {follow: true, room: room.value, level: level.value}, signal: mine.signal, restart: clear}, r => {
          const more = Object.entries(r.attrs || {}).map(([k, v]) => ` ${k}=${v}`).join('');
          put({class: {error: 'error', warn: 'warning'}[r.level], at: clock(r.at), title: r.at, from: r.room || r.level, text: r.text + more});
        });
      }
    } catch (e) {
      if (!mine.signal.aborted) app.fail(e, fact);
    }
  }
  find.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      app.set({find: find.value});
      log.clear();
      all.filter(match).forEach(log.put);
    }, 150);
  });
  for (const c of [room, level]) c.addEventListener('change', begin);
  begin();
}
