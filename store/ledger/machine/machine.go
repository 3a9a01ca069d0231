package machine

import (
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/btree"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Config sets a machine's limits. MaxBytes and Requests decide about results: they must be the same on all machines
// that apply one log, and a machine that is restored has those of its snapshot.
type Config struct {
	MaxBytes int64 // of keys and values, and 100 more for each entry; keys of users grow up to three quarters of it. 0: 512 MiB
	Requests int   // IDs of committed requests to remember, 90 bytes each; 0: 65,536

	History      int   // revisions that watches and reads of the past can go back; 0: 131,072
	HistoryBytes int64 // that they take, roughly; 0: 32 MiB
	Watchers     int   // at a time; each costs little; 0: 16,384
}

func (c Config) withDefaults() Config {
	if c.MaxBytes <= 0 {
		c.MaxBytes = 512 << 20
	}
	if c.Requests <= 0 {
		c.Requests = 1 << 16
	}
	if c.History <= 0 {
		c.History = 1 << 17
	}
	if c.HistoryBytes <= 0 {
		c.HistoryBytes = 32 << 20
	}
	if c.Watchers <= 0 {
		c.Watchers = 1 << 14
	}
	return c
}

const (
	entryOverhead = 100     // bytes that an entry takes besides its key and value
	maxSessions   = 1 << 14 // at a time
	maxSessionsOf = 1 << 10 // of one node, which must not take all of them
	maxOwned      = 1 << 20 // bytes of keys under one session, which are all told in one change when it ends
)

// Machine is a ledger's state. One goroutine applies and restores; any number may read, watch and take snapshots
// beside it. What it returns is the caller's.
type Machine struct {
	cfg Config

	mu       sync.RWMutex
	state    // what machines that have applied the same log agree on
	sessions map[grid.SessionID]*session
	done     map[requestID]uint64 // revisions by ID, of requests
	history  history

	watchers   int
	audiences  map[string]*audience // by prefix
	woken      uint64               // the revision at which all who watch were woken last
	wokenBytes int64                // and how much history there had been
}

type state struct {
	revision uint64
	applied  uint64                     // index of the last log entry
	entries  *btree.Map[string, *entry] // copied on write
	bytes    int64                      // of their keys and values
	requests []request                  // oldest first; never changed in place
	forgot   uint64                     // the newest request that is no longer remembered
	maxBytes int64                      // Config.MaxBytes
	remember int                        // Config.Requests
}

// entry is immutable.
type entry struct {
	key, value string
	version    uint64
	session    grid.SessionID
}

func (e *entry) size() int64 { return int64(len(e.key) + len(e.value)) }

type requestID [16]byte

type request struct {
	revision uint64
	id       requestID
}

type session struct {
	Session
	keys   map[string]struct{}
	bytes  int // of keys
	adding int // by the transaction that is being applied
}

// New makes an empty machine.
func New(c Config) *Machine {
	c = c.withDefaults()
	m := &Machine{cfg: c, audiences: make(map[string]*audience)}
	m.install(&Snapshot{state: state{entries: new(btree.Map[string, *entry]), maxBytes: c.MaxBytes, remember: c.Requests}})
	return m
}

// Load makes a machine that holds entries at a revision, for those who keep them elsewhere. It has no
// history, and sessions of the entries are ignored. Loading in order of keys is fastest.
func Load(c Config, revision uint64, entries []grid.Entry) *Machine {
	m := New(c)
	m.revision = revision
	m.history.first = revision + 1
	for i := range entries {
		e := &entry{entries[i].Key, string(entries[i].Value), entries[i].Version, ""}
		if old, had := m.entries.Load(e.key, e); had {
			m.bytes -= old.size()
		}
		m.bytes += e.size()
	}
	return m
}

// install replaces everything by a snapshot, which nobody else uses.
func (m *Machine) install(s *Snapshot) {
	m.state = s.state
	m.sessions = make(map[grid.SessionID]*session, len(s.sessions))
	for _, v := range s.sessions {
		m.sessions[v.ID] = &session{Session: v, keys: make(map[string]struct{})}
	}
	if len(s.sessions) > 0 {
		m.entries.Scan(func(_ string, e *entry) bool {
			m.own(e)
			return true
		})
	}
	m.done = make(map[requestID]uint64, len(s.requests))
	for _, r := range s.requests {
		m.done[r.id] = r.revision
	}
	m.history = history{limit: m.cfg.History, maxBytes: m.cfg.HistoryBytes, first: s.revision + 1 - uint64(len(s.tail))}
	for _, r := range s.tail {
		m.history.add(r)
	}
}

// Apply applies the log entry at an index of the log, and returns the results of its commands in their order. An
// error means that the entry could not be read and that the state is as before: a machine that goes on
// then would differ from the others. It depends on nothing but the entries applied before.
func (m *Machine) Apply(index uint64, entry []byte) ([]Result, error) {
	cmds, err := DecodeBatch(entry)
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "ledger: log entry %d: %w", index, err)
	}
	results := make([]Result, len(cmds))
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.applied {
		return nil, grid.Errorf(grid.Invalid, "ledger: log entry %d: %w", index, errEarlier)
	}
	m.applied = index
	before := m.revision
	for i := range cmds {
		results[i] = m.apply(&cmds[i])
	}
	if m.revision != before {
		m.wake(before)
	}
	return results, nil
}

func (m *Machine) apply(c *Command) Result {
	switch {
	case c.Txn != nil:
		return m.commit(c.Txn, c.Base)
	case c.Open != nil:
		return m.open(c.Open)
	}
	return m.end(c.End)
}

func (m *Machine) commit(t *grid.Txn, base uint64) Result {
	if err := grid.CheckTxn(t); err != nil {
		return refused(err)
	}
	writes := len(t.Put)+len(t.Delete) > 0
	var id requestID
	copy(id[:], t.ID)
	if writes && t.ID != "" {
		if rev, again := m.done[id]; again {
			return Result{Revision: rev}
		}
		if base < m.forgot {
			return Result{Code: grid.OutOfDate, Retry: true,
				Message: "it is not known any more whether the transaction was applied before",
				Advice:  "read what it was to change, and decide"}
		}
	}
	for i := range t.If {
		if r := m.check(&t.If[i]); r.Code != 0 {
			return r
		}
	}
	if !writes {
		return Result{Revision: m.revision}
	}
	if r := m.admit(t); r.Code != 0 {
		return r
	}
	m.revision++
	changes := make([]change, 0, len(t.Put)+len(t.Delete))
	for i := range t.Put {
		e := &t.Put[i]
		changes = append(changes, m.put(&entry{e.Key, string(e.Value), m.revision, e.Session}))
	}
	for _, key := range t.Delete {
		if c, had := m.remove(key); had {
			changes = append(changes, c)
		}
	}
	m.history.add(changes)
	if t.ID != "" {
		m.keep(id)
	}
	return Result{Revision: m.revision}
}

// keep remembers that the current revision was made by a request.
func (m *Machine) keep(id requestID) {
	if len(m.requests) >= m.remember {
		m.forgot = m.requests[0].revision
		delete(m.done, m.requests[0].id)
		m.requests = m.requests[1:] // append moves the rest to another array now and then
	}
	m.requests = append(m.requests, request{m.revision, id})
	m.done[id] = m.revision
}

func (m *Machine) check(c *grid.Cond) Result {
	if !c.Prefix {
		version := uint64(0)
		if e, ok := m.entries.Get(c.Key); ok {
			version = e.version
		}
		if version == c.Version {
			return Result{}
		}
		return conflict(grid.Errorf(grid.Conflict, "%q has version %d, not %d", c.Key, version, c.Version))
	}
	count, newest := uint64(0), uint64(0)
	m.entries.Ascend(c.Key, func(key string, e *entry) bool {
		if !strings.HasPrefix(key, c.Key) {
			return false
		}
		count++
		newest = max(newest, e.version)
		return count <= c.Count && newest <= c.Version // CheckTxn bounds Count
	})
	if count == c.Count && newest <= c.Version {
		return Result{}
	}
	return conflict(grid.Errorf(grid.Conflict, "entries that begin with %q are no longer %d, none newer than version %d", c.Key, c.Count, c.Version))
}

func conflict(err *grid.Error) Result {
	return refused(err.Hint("somebody else has changed it: read it again and retry"))
}

// admit looks whether there is room for what a transaction puts, and whether its sessions are alive.
func (m *Machine) admit(t *grid.Txn) Result {
	grows, owned, users := int64(0), false, false
	for i := range t.Put {
		grows += int64(len(t.Put[i].Key)+len(t.Put[i].Value)) + entryOverhead
		owned = owned || t.Put[i].Session != ""
		users = users || strings.HasPrefix(t.Put[i].Key, grid.UserKeys)
	}
	room, whose := m.maxBytes, ""
	if users { // the rest is the realm's, which has to go on with its jobs and members whatever users and guests fill
		room, whose = room-room/4, " for keys of users and tasks"
	}
	if m.used()+grows > room && len(t.Put) > 0 { // a closer look
		for i := range t.Put {
			grows -= m.cost(t.Put[i].Key)
		}
		for _, key := range t.Delete {
			grows -= m.cost(key)
		}
		if grows > 0 && m.used()+grows > room {
			return refused(grid.Errorf(grid.Limit, "the ledger is full%s: %d entries with %d bytes of keys and values", whose, m.entries.Len(), m.bytes).
				Hint("delete entries, or store what is large as files and put their CIDs"))
		}
	}
	if !owned {
		return Result{}
	}
	for i := range t.Put {
		if s := m.sessions[t.Put[i].Session]; s != nil {
			s.adding = 0
		}
	}
	for i := range t.Put {
		e := &t.Put[i]
		if e.Session == "" {
			continue
		}
		s := m.sessions[e.Session]
		if s == nil {
			return refused(grid.Errorf(grid.Conflict, "the session %q, which %q is put under, has ended", e.Session, e.Key).
				Hint("open another session"))
		}
		if _, has := s.keys[e.Key]; !has {
			s.adding += len(e.Key)
		}
		if s.bytes+s.adding > maxOwned {
			return refused(grid.Errorf(grid.Limit, "the keys under the session %q have more than %d bytes", e.Session, maxOwned).
				Hint("use several sessions"))
		}
	}
	return Result{}
}

func (m *Machine) used() int64 { return m.bytes + int64(m.entries.Len())*entryOverhead }

func (m *Machine) cost(key string) int64 {
	if e, ok := m.entries.Get(key); ok {
		return e.size() + entryOverhead
	}
	return 0
}

func (m *Machine) put(e *entry) change {
	old, _ := m.entries.Set(e.key, e)
	m.bytes += e.size()
	if old != nil {
		m.bytes -= old.size()
		m.disown(old)
	}
	m.own(e)
	return change{old, e}
}

func (m *Machine) own(e *entry) {
	if e.session != "" {
		s := m.sessions[e.session]
		s.keys[e.key] = struct{}{}
		s.bytes += len(e.key)
	}
}

func (m *Machine) remove(key string) (change, bool) {
	old, had := m.entries.Delete(key)
	if had {
		m.bytes -= old.size()
		m.disown(old)
	}
	return change{old, nil}, had
}

func (m *Machine) disown(e *entry) {
	if e.session != "" {
		s := m.sessions[e.session]
		delete(s.keys, e.key)
		s.bytes -= len(e.key)
	}
}

func (m *Machine) open(s *OpenSession) Result {
	if err := s.check(); err != nil {
		return refused(err)
	}
	if old := m.sessions[s.ID]; old != nil {
		if old.Session != *s {
			return refused(grid.Errorf(grid.Conflict, "there is another session %q", s.ID))
		}
		return Result{Revision: m.revision}
	}
	if len(m.sessions) >= maxSessions {
		return refused(grid.Errorf(grid.Limit, "%d sessions are open, and more are not allowed", len(m.sessions)).Hint("close some, or wait for them to end"))
	}
	owned := 0
	for _, other := range m.sessions {
		if other.Owner == s.Owner {
			owned++
		}
	}
	if owned >= maxSessionsOf {
		return refused(grid.Errorf(grid.Limit, "%d sessions of %s are open, and more are not allowed", owned, s.Owner).Hint("close some, or wait for them to end"))
	}
	m.sessions[s.ID] = &session{Session: *s, keys: make(map[string]struct{})}
	return Result{Revision: m.revision}
}

// end ends sessions, each in a revision of its own if entries vanish with it.
func (m *Machine) end(ids []grid.SessionID) Result {
	for _, id := range ids {
		s := m.sessions[id]
		if s == nil {
			continue
		}
		if len(s.keys) > 0 {
			m.revision++
			keys := make([]string, 0, len(s.keys))
			for key := range s.keys {
				keys = append(keys, key)
			}
			slices.Sort(keys)
			changes := make([]change, 0, len(keys))
			for _, key := range keys {
				c, _ := m.remove(key)
				changes = append(changes, c)
			}
			m.history.add(changes)
		}
		delete(m.sessions, id)
	}
	return Result{Revision: m.revision}
}

// Get reads an entry.
func (m *Machine) Get(key string) (grid.Entry, bool) {
	m.mu.RLock()
	e, ok := m.entries.Get(key)
	m.mu.RUnlock()
	if !ok {
		return grid.Entry{}, false
	}
	return grid.Entry{Key: e.key, Value: []byte(e.value), Version: e.version, Session: e.session}, true
}

// Range reads a page; Stale makes no difference. The error is OutOfDate when At is too long ago, and
// Unavailable when it has not come yet.
func (m *Machine) Range(q grid.Query) (grid.Page, error) {
	p := pager{limit: grid.MaxLedgerPage}
	if q.Limit > 0 {
		p.limit = min(p.limit, q.Limit)
	}
	m.mu.RLock()
	revision := m.revision
	if q.At == 0 || q.At == revision {
		p.scan(m.entries, q.Prefix, q.After, nil)
		m.mu.RUnlock()
	} else {
		m.mu.RUnlock()
		entries, since, err := m.moment(q.At)
		if err != nil {
			return grid.Page{}, grid.Errorf(grid.CodeOf(err), "ledger: range %.200q: %w", q.Prefix, err)
		}
		revision = q.At
		p.scan(entries, q.Prefix, q.After, undo(since, q.Prefix, q.After))
	}
	return grid.Page{Entries: p.take(), Revision: revision, More: p.more}, nil
}

// moment is what a revision can be read from, while others apply: the present, and what has been written since,
// oldest first.
func (m *Machine) moment(revision uint64) (*btree.Map[string, *entry], []record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case revision > m.revision:
		return nil, nil, grid.Errorf(grid.Unavailable, "revision %d has not been reached here; the last one is %d", revision, m.revision)
	case revision+1 < m.history.first:
		return nil, nil, grid.Errorf(grid.OutOfDate, "revision %d is no longer known; the oldest one is %d", revision, m.history.first-1).
			Hint("begin again with the present")
	}
	return m.entries.Copy(), m.history.newest(int(m.revision - revision)), nil
}

// pager collects the entries of one page.
type pager struct {
	limit   int
	bytes   int64
	entries []*entry
	more    bool
}

// add returns false when the page is full.
func (p *pager) add(e *entry) bool {
	if e == nil {
		return !p.more
	}
	if p.more || len(p.entries) == p.limit || len(p.entries) > 0 && p.bytes+e.size() > grid.MaxLedgerBytes {
		p.more = true
		return false
	}
	p.bytes += e.size()
	p.entries = append(p.entries, e)
	return true
}

// scan adds the entries behind a key, except that some were otherwise then.
func (p *pager) scan(entries *btree.Map[string, *entry], prefix, after string, then []past) {
	entries.Ascend(max(prefix, after), func(key string, e *entry) bool {
		if key == after && after != "" {
			return true
		}
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		for len(then) > 0 && then[0].key < key { // deleted since
			if !p.add(then[0].entry) {
				return false
			}
			then = then[1:]
		}
		if len(then) > 0 && then[0].key == key {
			e, then = then[0].entry, then[1:]
		}
		return p.add(e)
	})
	for ; len(then) > 0 && p.add(then[0].entry); then = then[1:] {
	}
}

// take copies the entries, their values into one piece of memory.
func (p *pager) take() []grid.Entry {
	values := make([]byte, 0, p.bytes)
	out := make([]grid.Entry, len(p.entries))
	for i, e := range p.entries {
		out[i], values = e.copy(values)
	}
	return out
}

// copy appends e's value to values, and makes an entry with that part of it.
func (e *entry) copy(values []byte) (grid.Entry, []byte) {
	from := len(values)
	values = append(values, e.value...)
	return grid.Entry{Key: e.key, Value: values[from:len(values):len(values)], Version: e.version, Session: e.session}, values
}

// Revision is that of the last transaction.
func (m *Machine) Revision() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.revision
}

// Applied is the index of the last log entry.
func (m *Machine) Applied() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.applied
}

// Sessions lists those that have not ended, in order of their IDs.
func (m *Machine) Sessions() []Session {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.listSessions()
}

func (m *Machine) listSessions() []Session {
	list := make([]Session, 0, len(m.sessions))
	for _, s := range m.sessions {
		list = append(list, s.Session)
	}
	slices.SortFunc(list, func(a, b Session) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

// Stats is what a machine holds.
type Stats struct {
	Revision, Applied uint64
	Entries           uint64
	Bytes             uint64 // of keys and values
	Sessions          int
	Requests          int    // remembered
	Oldest            uint64 // revision that can still be read at, and watched from
	Watchers          int
}

// Stats counts what there is.
func (m *Machine) Stats() Stats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return Stats{
		Revision: m.revision, Applied: m.applied,
		Entries: uint64(m.entries.Len()), Bytes: uint64(m.bytes),
		Sessions: len(m.sessions), Requests: len(m.requests),
		Oldest: m.history.first - 1, Watchers: m.watchers,
	}
}
