// The frame of the dashboard: who is signed in, which page is shown, and what all pages share.
//
// A view is a file in views/ with
//
//     export const title = 'Jobs';
//     export function mount(root, app) { …; return unmount; }
//
// mount fills root, an empty element inside <main> whose heading (h1) is made already by app.head; it is called once
// for each visit, may be async, and may return a function that is called when the view is left. What it shows of others' words it sets as text,
// never as markup. app is
//
//     app.path     what follows the page's name in the hash, as decoded parts: ['JOB'] of #/jobs/JOB?tab=logs
//     app.query    URLSearchParams of the rest: tab=logs
//     app.signal   AbortSignal that ends when the view is left: give it to every request and listener
//     app.api      the client, see lib.js: app.api.get(path, query, {signal}), .page, .post(path, body), .put, .delete, .raw,
//                  .stream(path, {query, signal, restart}, f). Keep to three streams at once at most.
//     app.every(ms, f)  calls an async f again and again while the view is there and the page is shown, and tells of its errors
//     app.head(title, ...actions)  sets the heading, and what may be done beside it
//     app.go(hash), app.set(query) goes to another page; replaces the query without a visit
//     app.colour(job)   the colour of a job, the same everywhere, to be drawn with; a CSS colour fit for the theme
//     app.css(name)     a variable of style.css as it is now, such as app.css('--accent'), for what is drawn
//     app.onTheme(f)    f is called when colours have changed, until the view is left
//     app.role, app.may('submitter')  what the token's role is, and whether it includes another one
//     app.node     the node's status when the page was opened
//     app.say(text) tells in a line what was done; app.confirm({title, text, yes, danger}) asks, resolves to a boolean
//     app.fail(error, root)  shows an error in root, or in a line
//     app.link.job(id, name), app.link.node(id), app.link.cid(cid, path)  links, as elements
//
// Pages are listed below; one that is not for the menu has no key.

import {Colours} from './colours.js';
import {API, Problem, ago, brief, el, every, fill, nodeName, sentence, text} from './lib.js';

const pages = [
  {name: 'overview', title: 'Overview', key: 'o', group: ''},
  {name: 'map', title: 'Swarm map', key: 'm', group: 'Live'},
  {name: 'stream', title: 'Task stream', key: 't', group: 'Live'},
  {name: 'plots', title: 'Plots', key: 'p', group: 'Live'},
  {name: 'jobs', title: 'Jobs', key: 'j', group: 'Work'},
  {name: 'submit', title: 'Submit', key: 's', group: 'Work', role: 'submitter'},
  {name: 'plugins', title: 'Plugins', key: 'u', group: 'Work'},
  {name: 'data', title: 'Data', key: 'd', group: 'Grid'},
  {name: 'nodes', title: 'Nodes', key: 'n', group: 'Grid'},
  {name: 'ledger', title: 'Ledger', key: 'l', group: 'Grid'},
  {name: 'usage', title: 'Usage', key: 'a', group: 'Grid'},
  {name: 'logs', title: 'Logs', key: 'g', group: 'Grid'},
];
const ranks = {viewer: 1, submitter: 2, admin: 3};
const $ = id => document.getElementById(id);
const main = $('main');
let access = null; // who we are: {role, name}; null: nobody yet
let node = null;
let visit = null; // the view that is shown: {ctl, unmount}

const api = new API({
  lost(p) {
    fill($('banner'), el('strong', sentence(p.message)), ' ', sentence(p.hint), ' Trying again…');
    $('banner').hidden = false;
    if (access) every(2000, retrying.signal, () => api.up || api.get('/access', null, {signal: retrying.signal}));
  },
  found() {
    retrying.abort();
    retrying = new AbortController();
    if (!$('banner').hidden) say('The node answers again.');
    $('banner').hidden = true;
    if (visit && visit.failed) show();
  },
  denied(p) {
    if (!access) return;
    access = null;
    api.token = '';
    sessionStorage.removeItem('grid-token');
    login(p);
  },
});
let retrying = new AbortController();

// say tells something in a line, for a while.
let sayTimer = 0;
function say(s, bad) {
  const box = $('say');
  box.textContent = s;
  box.className = 'toast shown' + (bad ? ' bad' : '');
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => {
    box.className = 'toast';
    box.textContent = '';
  }, bad ? 10000 : 4000);
}

// fail shows an error where it matters.
function fail(e, root) {
  if (e && e.name === 'AbortError') return;
  if (!(e instanceof Problem)) console.error(e);
  if (!root) {
    say(e.message + (e.hint ? ' ' + e.hint : ''), true);
    return;
  }
  if (visit) visit.failed = true;
  fill(root, trouble(e, el('p', el('button', {type: 'button', onclick: show}, 'Try again'))));
}

const trouble = (e, ...more) => el('div.problem', {role: 'alert'}, el('p', el('strong', sentence(e.message))), e.hint && el('p.dim', sentence(e.hint)), more);

// confirm asks before something is done that cannot be undone.
function confirm({title, text: words, yes, danger}) {
  return new Promise(ok => {
    const d = el('dialog', {'aria-labelledby': 'ask'},
      el('form', {method: 'dialog', onsubmit: e => { e.preventDefault(); d.close('yes'); }},
        el('h2#ask', title), el('p', words),
        el('div.actions', el('button', {type: 'button', onclick: () => d.close('')}, 'No'),
          el('button', {type: 'submit', class: danger ? 'danger' : 'primary'}, yes))));
    d.addEventListener('close', () => {
      ok(d.returnValue === 'yes');
      d.remove();
    });
    document.body.append(d);
    d.showModal();
  });
}

const hashOf = (...parts) => '#/' + parts.map(p => encodeURIComponent(p)).join('/');

const link = {
  job: (id, name) => el('a.id', {href: hashOf('jobs', id), title: id}, name || brief(id, 10)),
  node: (id, name) => !id ? el('span.dim', '–') : el('a.id', {href: hashOf('nodes', id), title: id}, name || nodeName(id)),
  cid: (cid, path = '', label) => el('a.id', {href: hashOf('data', 'cid', cid, ...path.split('/').filter(Boolean)), title: cid}, label || brief(cid, 16)),
};

const colours = new Colours();
const colour = job => colours.of(job, dark());

// dark reports whether the theme is, by the user's choice or the system's.
const scheme = matchMedia('(prefers-color-scheme: dark)');
const dark = () => (document.documentElement.dataset.theme || (scheme.matches ? 'dark' : 'light')) === 'dark';
const themed = new EventTarget();
function setTheme(t) {
  if (t) document.documentElement.dataset.theme = t;
  else delete document.documentElement.dataset.theme;
  const names = {'': 'Auto', light: 'Light', dark: 'Dark'};
  text($('theme'), names[t]);
  $('theme').setAttribute('aria-label', `Theme: ${names[t]}. Change it`);
  keep('grid-theme', t);
  themed.dispatchEvent(new Event('change'));
}
scheme.addEventListener('change', () => themed.dispatchEvent(new Event('change')));

function appOf(ctl, path, query, title) {
  const head = el('div.head', el('h1', {tabIndex: -1}, title));
  const root = el('div.view'), troubles = el('div.troubles');
  fill(main, head, troubles, root);
  // again calls f now and then; while that fails, why is told above what was shown last.
  const again = (ms, f) => {
    let told = null;
    return every(ms, ctl.signal, async () => {
      await f();
      if (told) told.remove();
      told = null;
    }, e => {
      if (e.status === 0) return; // the banner tells
      if (!(e instanceof Problem)) console.error(e);
      if (told && told.textContent.includes(e.message.slice(1))) return;
      const next = trouble(e);
      if (told) told.replaceWith(next);
      else troubles.append(next);
      told = next;
    });
  };
  const app = {
    api, path, query, signal: ctl.signal, role: access.role, access, node, link, colour, say, confirm, hashOf,
    may: role => ranks[access.role] >= ranks[role],
    css: name => getComputedStyle(document.documentElement).getPropertyValue(name).trim(),
    onTheme: f => themed.addEventListener('change', f, {signal: ctl.signal}),
    every: again,
    fail: (e, at) => ctl.signal.aborted || fail(e, at),
    go: hash => { location.hash = hash; },
    set(more) {
      for (const [k, v] of Object.entries(more)) {
        if (v === '' || v === null || v === undefined || v === false) query.delete(k);
        else query.set(k, v);
      }
      const s = query.toString();
      history.replaceState(null, '', location.hash.split('?')[0] + (s ? '?' + s : ''));
    },
    head(t, ...actions) {
      text(head.firstChild, t);
      while (head.childNodes.length > 1) head.lastChild.remove();
      if (actions.length) head.append(el('div.actions', actions));
      document.title = t + ' · Grid';
    },
  };
  return {app, root};
}

// show mounts the view that the hash names.
async function show() {
  if (!access) return;
  leave();
  const [where, q] = location.hash.replace(/^#\/?/, '').split('?');
  let parts;
  try {
    parts = where.split('/').map(decodeURIComponent);
  } catch {
    parts = ['?'];
  }
  const name = parts[0] || 'overview';
  const page = pages.find(p => p.name === name);
  for (const a of $('nav').querySelectorAll('a')) {
    if (a.dataset.page === name) a.setAttribute('aria-current', 'page');
    else a.removeAttribute('aria-current');
  }
  const ctl = new AbortController();
  const mine = visit = {ctl, unmount: null, failed: false};
  const {app, root} = appOf(ctl, parts.slice(1), new URLSearchParams(q || ''), page ? page.title : 'Not found');
  document.title = (page ? page.title : 'Not found') + ' · Grid';
  if (!page) {
    fill(root, el('p', 'The dashboard has no such page. ', el('a', {href: '#/overview'}, 'Go to the overview')));
    return;
  }
  try {
    const view = await import(`./views/${name}.js`);
    if (ctl.signal.aborted) return;
    const unmount = await view.mount(root, app);
    if (ctl.signal.aborted) unmount && unmount();
    else mine.unmount = unmount;
  } catch (e) {
    if (!ctl.signal.aborted) fail(e, root);
  }
}

function leave() {
  if (!visit) return;
  visit.ctl.abort(new DOMException('the view was left', 'AbortError'));
  if (visit.unmount) visit.unmount();
  visit = null;
}

function menu() {
  const groups = [...new Set(pages.map(p => p.group))];
  fill($('nav'), groups.map(g => el('div.group', g && el('h2', g), el('ul', pages.filter(p => p.group === g && (!p.role || ranks[access.role] >= ranks[p.role])).map(p =>
    el('li', el('a', {href: '#/' + p.name, 'data-page': p.name}, p.title)))))));
}

// enter finds out who we are; it is false if the token is not good, or there has to be one.
async function enter() {
  try {
    access = await api.json('/access', {trial: true});
    node = await api.get('/node');
  } catch (e) {
    access = null;
    if (e.status === 401) return e;
    throw e;
  }
  document.body.classList.remove('out');
  menu();
  const realm = node.ledger && node.ledger.realm;
  text($('where'), realm || node.swarm || '');
  $('where').title = node.id;
  text($('who'), access.name ? `${access.name} · ${access.role}` : access.role);
  $('leave').hidden = false;
  await show();
  return null;
}

// login asks for a token. why is what was wrong with the last one.
function login(why) {
  leave();
  document.body.classList.add('out');
  $('leave').hidden = true;
  text($('who'), '');
  fill($('nav'));
  document.title = 'Sign in · Grid';
  const input = el('textarea#token', {rows: 4, required: true, spellcheck: false, autocomplete: 'off', 'aria-describedby': 'token-help', 'aria-invalid': why ? 'true' : null});
  const error = el('p.bad', {role: 'alert'});
  if (why) error.textContent = why.message + (why.hint && !viaCommand() ? ' ' + why.hint : '');
  const form = el('form.login', {onsubmit: async e => {
    e.preventDefault();
    const b = form.querySelector('button');
    b.disabled = true;
    error.textContent = '';
    api.token = input.value.trim();
    try {
      const no = /^[\x21-\x7e]+$/.test(api.token) ? await enter() : new Problem(401, {detail: 'That is no token: it has characters that none has.'});
      if (!no) {
        sessionStorage.setItem('grid-token', api.token);
        return;
      }
      api.token = '';
      error.textContent = no.message;
      input.setAttribute('aria-invalid', 'true');
      input.focus();
    } catch (x) {
      api.token = '';
      error.textContent = x.message;
    } finally {
      b.disabled = false;
    }
  }},
  el('h1', 'Sign in'),
  viaCommand() ? el('p', 'This page belongs to a running ', el('code', 'grid dash'), ', and was opened without its secret, or that was used before. Run ', el('code', 'grid dash'), ' again and open the URL that it prints.')
    : [el('p', 'Paste a token for this node. ', el('code', 'grid token create --role viewer'), ' makes one that may look at everything; the roles submitter and admin may do more.'),
      el('label', {htmlFor: 'token'}, 'Token'), input,
      el('p.dim#token-help', 'It is kept in this tab until that is closed, and sent to this node only.')],
  error,
  !viaCommand() && el('div.actions', el('button.primary', {type: 'submit'}, 'Sign in')));
  fill(main, form);
  if (!viaCommand()) input.focus();
}

// viaCommand reports whether grid dash serves the page, which has no use for other tokens than its own.
const viaCommand = () => sessionStorage.getItem('grid-via') === 'dash';

// keep and kept are for what is nice to have the next time, and no more.
function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    kept.lost.set(name, value);
  }
}
function kept(name) {
  try {
    return localStorage.getItem(name) || '';
  } catch {
    return kept.lost.get(name) || '';
  }
}
kept.lost = new Map(); // where there is no room for it

const keysWork = () => kept('grid-keys') !== 'off';

function shortcuts() {
  const d = el('dialog', {'aria-labelledby': 'keys-title'}, el('h2#keys-title', 'Keyboard shortcuts'),
    el('table.keys', el('caption.hide', 'Keys and what they do'), el('tbody',
      [['?', 'this list'], ['/', 'the search field of the page'], ['r', 'load the page anew'], ['Esc', 'close a dialog'],
        ...pages.map(p => ['g ' + p.key, p.title])].map(([k, t]) =>
        el('tr', el('th', {scope: 'row'}, k.split(' ').map((x, i) => [i ? ' ' : '', el('kbd', x)])), el('td', t))))),
    el('p', el('label.check', el('input', {type: 'checkbox', checked: keysWork(), onchange: e => keep('grid-keys', e.target.checked ? '' : 'off')}), 'Keys do this. Without it, what is said to the machine or typed by mistake does nothing.')),
    el('div.actions', el('button', {type: 'button', onclick: () => d.close()}, 'Close')));
  d.addEventListener('close', () => d.remove());
  document.body.append(d);
  d.showModal();
}

let prefix = 0; // when g was pressed
document.addEventListener('keydown', e => {
  if (e.key === 'Escape' && document.body.classList.contains('open')) {
    closeMenu();
    $('menu').focus();
    return;
  }
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest('input, textarea, select, [contenteditable], dialog') || !access || !keysWork()) return;
  if (Date.now() - prefix < 1500) {
    prefix = 0;
    const p = pages.find(p => p.key === e.key);
    if (p) {
      e.preventDefault();
      location.hash = '#/' + p.name;
    }
    return;
  }
  if (e.target.closest('[data-keys]')) return; // a view that has keys of its own
  if (e.key === 'g') prefix = Date.now();
  else if (e.key === '?') shortcuts();
  else if (e.key === 'r') show();
  else if (e.key === '/') {
    const s = main.querySelector('input[type=search]');
    if (s) {
      e.preventDefault();
      s.focus();
    }
  }
});

addEventListener('hashchange', () => {
  if (!location.hash.startsWith('#/')) return;
  closeMenu();
  show().then(() => {
    const h = main.querySelector('h1');
    if (h) h.focus({preventScroll: true});
    scrollTo(0, 0);
  });
});
$('skip').addEventListener('click', e => {
  e.preventDefault();
  main.focus();
});
$('keys').addEventListener('click', shortcuts);
$('theme').addEventListener('click', () => {
  const t = document.documentElement.dataset.theme || '';
  setTheme({'': 'light', light: 'dark', dark: ''}[t]);
});
$('leave').addEventListener('click', () => {
  if (viaCommand()) fetch('/dash/session', {method: 'DELETE', headers: {Authorization: 'Bearer ' + api.token}, keepalive: true}).catch(() => {}); // then the command has gone
  access = null;
  api.token = '';
  sessionStorage.removeItem('grid-token');
  login();
});
function closeMenu() {
  document.body.classList.remove('open');
  $('menu').setAttribute('aria-expanded', 'false');
}
$('menu').addEventListener('click', () => {
  const open = document.body.classList.toggle('open');
  $('menu').setAttribute('aria-expanded', String(open));
});

// What says how long ago something was goes on saying so.
setInterval(() => {
  if (!document.hidden) for (const t of main.querySelectorAll('time.ago')) text(t, ago(t.dateTime));
}, 5000);

// start signs in with the secret of the URL that grid dash prints, or with what the tab has kept.
async function start() {
  const t = kept('grid-theme');
  setTheme(['light', 'dark'].includes(t) ? t : '');
  const secret = /^#once=([\w-]+)$/.exec(location.hash);
  if (secret) {
    history.replaceState(null, '', location.pathname + '#/overview');
    sessionStorage.setItem('grid-via', 'dash');
    try {
      const resp = await fetch('/dash/session', {method: 'POST', headers: {'Grid-Once': secret[1]}, cache: 'no-store'});
      if (resp.ok) sessionStorage.setItem('grid-token', (await resp.json()).session);
    } catch {
      // the banner tells
    }
  }
  api.token = sessionStorage.getItem('grid-token') || '';
  if (!api.token) {
    try {
      if ((await fetch('/dash/', {method: 'HEAD', cache: 'no-store'})).headers.get('Grid-Dash')) sessionStorage.setItem('grid-via', 'dash');
    } catch {
      // as above
    }
    login();
    return;
  }
  for (;;) {
    try {
      const no = await enter();
      if (no) {
        sessionStorage.removeItem('grid-token');
        api.token = '';
        login(no);
      }
      return;
    } catch (e) {
      if (e.status !== 0) {
        fail(e, main);
        return;
      }
      await new Promise(ok => setTimeout(ok, 2000));
    }
  }
}
start();
