// The ledger: who leads, who has a vote, and how far each member is; and who belongs to the swarm.

import {bytes, count, duration, el, fill, known, prose, when} from '../lib.js';
import {card, facts, state, table, tiles, words} from '../parts.js';

export const title = 'Ledger';

export function mount(root, app) {
  if (!app.node.ledger) {
    fill(root, el('p', 'This node has no ledger of its own.'));
    return;
  }
  const figures = tiles('The ledger'), note = el('div');
  const rows = table('Members of the realm', [
    {name: 'Node', cell: m => [app.link.node(m.id), m.id === app.node.id && [' ', el('span.tag.accent', 'this one')]]},
    {name: 'Role', class: 'fit', cell: m => m.leader ? state('leader', 'leads') : m.role},
    {name: 'State', class: 'fit', cell: m => state(m.up ? 'up' : 'down')},
    {name: 'Behind', class: 'num', cell: m => m.lag ? count(m.lag) + ' entries' : '0'},
    {name: 'Heard of', class: 'num', cell: m => m.last_contact_ns ? duration(m.last_contact_ns) + ' ago' : '–'},
    ...(app.may('admin') ? [{name: '', class: 'num', cell: m => !m.up && m.id !== app.node.id && el('button.danger', {type: 'button', 'aria-label': 'Remove ' + m.id, onclick: async () => {
      if (!await app.confirm({title: 'Remove this node from the realm?', text: m.id + ' has no part in the realm any more, and has to be let in anew.', yes: 'Remove it', danger: true})) return;
      try {
        await app.api.delete('/ledger/members/' + m.id);
        app.say('It is removed.');
      } catch (e) {
        app.fail(e);
      }
    }}, 'Remove')}] : []),
  ], m => m.id, 'No members are known.');
  const swarm = el('div');
  fill(root, note, figures, card('Members of the realm', rows), swarm);
  app.every(2000, async () => {
    const l = await app.api.get('/ledger', null, {signal: app.signal});
    fill(note, l.note && el('p.note', prose(l.note)));
    figures.show([
      ['Realm', l.realm, el('span.id', l.realm_id)],
      ['Leader', l.leader ? app.link.node(l.leader) : state('lost', 'none'), 'term ' + l.term],
      ['This node', l.role],
      ['Revision', count(l.revision), 'of the last change'],
      ['Entries', count(l.entries), bytes(l.bytes)],
      ['Sessions', count(l.sessions)],
    ]);
    rows.show((l.members || []).map(m => ({...m, leader: m.id === l.leader})).sort((a, b) => b.leader - a.leader || (a.role < b.role ? 1 : a.role > b.role ? -1 : a.id < b.id ? -1 : 1)));
  });
  if (!app.node.private) return;
  const members = table('Members of the swarm', [
    {name: 'Member', cell: m => [app.link.node(m.id), m.name && el('div.dim', words(m.name))]},
    {name: 'State', class: 'fit', cell: m => state(m.state)},
    {name: 'Role', class: 'fit', cell: m => m.role},
    {name: 'Connected', class: 'fit', cell: m => m.up ? 'yes' : 'no'},
    {name: 'Since', class: 'fit', cell: m => when(m.issued)},
    {name: 'Ends', class: 'fit', cell: m => known(m.expires) ? new Date(m.expires).toLocaleDateString() : 'never'},
    ...(app.may('admin') ? [{name: '', class: 'num', cell: m => m.state === 'waiting' && el('button', {type: 'button', 'aria-label': 'Let in ' + m.id, onclick: async () => {
      try {
        await app.api.post(`/swarm/members/${m.id}/approve`);
        app.say('It is let in.');
      } catch (e) {
        app.fail(e);
      }
    }}, 'Let in')}] : []),
  ], m => m.id, 'There are none.');
  const s = app.node.private;
  fill(swarm, card(`Swarm ${s.name}`, facts([['ID', el('span.id', s.id)], ['Role of this node', s.role], ['Authority', s.authority ? 'its key is on this node' : ''], ['Advice', s.advice]]), members));
  app.every(5000, async () => members.show(await app.api.get('/swarm/members', {limit: 1000}, {signal: app.signal})));
}
