package grid

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// extendPrepare bounds what it takes to have an extension ready: to fetch and to compile it, where that is to be done.
	extendPrepare = time.Minute
	// extendAtOnce bounds the notifiers that run on a node at a time, and apart from these, as they may wait long for others,
	// policies and scorers.
	extendAtOnce = 4
)

// extensions are those of the realm, as this node knows them.
type extensions struct {
	room, telling chan struct{} // a place for each that runs, and for each notifier

	mu       sync.Mutex
	revision uint64 // of the ledger
	byKey    map[string]*Extension
	counts   map[string]*ExtensionCounts
	queues   map[string]*noticeQueue
	wrong    map[string]string // why the entry of a key cannot be read
}

// ExtensionCounts say what became of an extension on one node since that was started.
type ExtensionCounts struct {
	Runs     uint64    `json:"runs"`                   // how often it was run
	Broken   uint64    `json:"broken"`                 // runs that gave no answer, or none that is one
	Refused  uint64    `json:"refused"`                // jobs that an admission policy did not want
	Verified uint64    `json:"verified"`               // jobs that it wants verified
	Dropped  uint64    `json:"dropped"`                // events that a notifier did not take
	Last     string    `json:"last_error,omitempty"`   // why the last run that was broken was
	LastAt   time.Time `json:"last_error_at,omitzero"` // when that was; zero: no run was broken
}

// ExtensionStatus is an extension with how it fares on one node.
type ExtensionStatus struct {
	Extension
	Counts ExtensionCounts `json:"on_this_node"` // on the node that was asked
}

func decodeExtension(e Entry) (*Extension, error) {
	x := new(Extension)
	err := UnmarshalMessage(e.Value, x)
	if err == nil {
		x.Role, x.Name, err = ParseRole(strings.TrimPrefix(e.Key, ExtensionKeys))
	}
	if err == nil {
		err = x.Check()
	}
	if err != nil {
		return nil, Errorf(Corrupt, "ledger entry %.100q, an extension, cannot be read: %w", e.Key, err).
			Hint("is another node newer? `grid version` tells; `grid plugin detach` takes it away")
	}
	return x, nil
}

// readExtensions reads which extensions the realm has now.
func (n *Node) readExtensions(ctx context.Context) error {
	all, wrong := map[string]*Extension{}, map[string]string{}
	revision, err := RangeAll(ctx, n.Ledger, ExtensionKeys, false, func(e Entry) error {
		key := strings.TrimPrefix(e.Key, ExtensionKeys)
		x, err := decodeExtension(e)
		if err != nil {
			wrong[key] = err.Error()
			return nil
		}
		all[key] = x
		return nil
	})
	if err != nil {
		return Errorf(CodeOf(err), "the plugins that are attached to this realm: %w", err)
	}
	xs := &n.extensions
	xs.mu.Lock()
	defer xs.mu.Unlock()
	if revision < xs.revision {
		return nil // another reader was later
	}
	for key, why := range wrong {
		if xs.wrong[key] != why {
			n.log.Warn("an extension is left out", "extension", key, "err", why)
		}
	}
	xs.revision, xs.byKey, xs.wrong = revision, all, wrong
	for key, q := range xs.queues {
		if all[key] == nil {
			q.cancel()
			delete(xs.queues, key)
		}
	}
	return nil
}

// followExtensions keeps what this node knows of them.
func (n *Node) followExtensions() {
	again := func() {
		ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
		defer cancel()
		if err := n.readExtensions(ctx); err != nil && n.ctx.Err() == nil {
			n.log.Warn("extensions may be out of date", "err", err)
		}
	}
	n.follow(ExtensionKeys, func([]Entry) { again() }, func(Changes) { again() })
}

// get finds one by its key, nil without one.
func (xs *extensions) get(key string) *Extension {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	return xs.byKey[key]
}

// counted changes the counts of an extension.
func (xs *extensions) counted(key string, change func(*ExtensionCounts)) {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	change(xs.countsOf(key))
}

// countsOf finds the counts of an extension; the mutex is held.
func (xs *extensions) countsOf(key string) *ExtensionCounts {
	if xs.counts == nil {
		xs.counts = make(map[string]*ExtensionCounts)
	}
	c := xs.counts[key]
	if c == nil {
		if len(xs.counts) >= 4*MaxNotifiers { // names come and go
			clear(xs.counts)
		}
		c = new(ExtensionCounts)
		xs.counts[key] = c
	}
	return c
}

// Extensions lists what is attached to the realm, by role and name, with how it fares on this node.
func (n *Node) Extensions(ctx context.Context) ([]ExtensionStatus, error) {
	if err := n.readExtensions(ctx); err != nil {
		return nil, err
	}
	xs := &n.extensions
	xs.mu.Lock()
	defer xs.mu.Unlock()
	out := []ExtensionStatus{}
	for key, x := range xs.byKey {
		st := ExtensionStatus{Extension: *x}
		if c := xs.counts[key]; c != nil {
			st.Counts = *c
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b ExtensionStatus) int { return strings.Compare(a.Key(), b.Key()) })
	return out, nil
}

// ExtensionCounts tells how the extensions fare on this node, by key.
func (n *Node) ExtensionCounts() map[string]ExtensionCounts {
	xs := &n.extensions
	xs.mu.Lock()
	defer xs.mu.Unlock()
	out := make(map[string]ExtensionCounts, len(xs.counts))
	for key, c := range xs.counts {
		out[key] = *c
	}
	return out
}

// Attach has a plugin's function extend all nodes of the realm, in place of what had that role, or name, before. The
// reference is resolved now, once. It must name a function of the role's kind, or a plugin that has one such.
func (n *Node) Attach(ctx context.Context, ref string, x Extension) (Extension, error) {
	if !n.enter() {
		return Extension{}, errClosing
	}
	defer n.wg.Done()
	p, function, err := n.ResolvePlugin(ctx, ref)
	if err != nil {
		return Extension{}, err
	}
	if _, _, err := ParseRole(string(x.Role)); err != nil {
		return Extension{}, err
	}
	fail := func(err error) (Extension, error) {
		return Extension{}, Errorf(CodeOf(err), "attach %s as %s: %w", ref, x.Role, err)
	}
	defer n.Hold(p.CID.Cid)()
	m, err := n.Inspect(ctx, p.CID.Cid, true)
	if err != nil {
		return fail(err)
	}
	if m.Manifest == nil {
		return fail(Errorf(Corrupt, "%s has no manifest any more", p.CID))
	}
	if x.Func, err = functionOf(m.Manifest, x.Role, function); err != nil {
		return fail(err)
	}
	if x.Role == RoleNotifier && x.Name == "" {
		x.Name = p.Name
	}
	x.Plugin, x.Module, x.By, x.Attached = p.String(), p.CID, n.self, time.Now().UTC()
	if err := x.Check(); err != nil {
		return fail(err)
	}
	if missing := x.Grants.Missing(&m.Manifest.Wants); !missing.Empty() {
		hint := "a policy or a scorer is granted nothing: it answers by what it is given"
		if x.Role == RoleNotifier {
			hint = "add " + missing.Flags()
		}
		return fail(Errorf(Denied, "plugin %s wants what it is not granted: %s", &p, missing.Flags()).Hint("%s", hint))
	}
	if err := errors.Join(n.mayRun(ctx, x.stage()), m.has(x.Func)); err != nil {
		return fail(err)
	}
	data, err := Marshal(x)
	if err != nil {
		return fail(err)
	}
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		if err := stillThere(tx, &p); err != nil {
			return err
		}
		if x.Role == RoleNotifier {
			all, err := tx.Range(ExtensionKeys + string(RoleNotifier) + "/")
			if err != nil {
				return err
			}
			has := slices.ContainsFunc(all, func(e Entry) bool { return e.Key == ExtensionKeys+x.Key() })
			if !has && len(all) >= MaxNotifiers {
				return Errorf(Limit, "there are %d notifiers, which is the most that there may be", len(all)).Hint("detach one of them: `grid plugin attached`")
			}
		}
		tx.Put(ExtensionKeys+x.Key(), data)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if err := n.readExtensions(ctx); err != nil {
		n.log.Debug("what was attached will be known later", "err", err)
	}
	return x, nil
}

// functionOf finds which function of a plugin has a role.
func functionOf(m *Manifest, role ExtensionRole, name string) (string, error) {
	var names []string
	for _, f := range m.Functions {
		switch {
		case f.Name == name && f.Kind != role.Kind():
			return "", Errorf(Invalid, "%s.%s is a function of the kind %s, not %s", m.Name, name, f.Kind, role.Kind()).
				Hint("make it with the SDK's function for that kind, such as sdk.Admission; docs/extending.md tells more")
		case f.Name == name:
			return name, nil
		case f.Kind == role.Kind():
			names = append(names, f.Name)
		}
	}
	switch {
	case name == "" && len(names) == 1:
		return names[0], nil
	case len(names) == 0 && name == "":
		return "", Errorf(Invalid, "plugin %s has no function of the kind %s", m, role.Kind())
	case len(names) == 0:
		return "", Errorf(Invalid, "plugin %s has no function %q, nor any of the kind %s", m, name, role.Kind())
	case name == "":
		return "", Errorf(Invalid, "plugin %s has several functions of the kind %s", m, role.Kind()).Hint("name one of %s, as in %s.%s", strings.Join(names, ", "), m.Name, names[0])
	}
	return "", Errorf(Invalid, "plugin %s has no function %q", m, name).Hint("of the kind %s it has %s", role.Kind(), strings.Join(names, ", "))
}

// stillThere makes a transaction one that holds only while a plugin is published.
func stillThere(tx *Tx, p *Plugin) error {
	e, ok, err := tx.Get(PluginKeys + p.String())
	if err != nil {
		return err
	}
	if ok {
		var is Plugin
		if is, err = decodePlugin(e); err == nil && is.Removed.IsZero() {
			return nil
		}
	}
	return errors.Join(err, Errorf(NotFound, "plugin %s was removed meanwhile", p))
}

// attachedAs tells, in a transaction, as what a version of a plugin is attached; "": as nothing.
func attachedAs(tx *Tx, p *Plugin) (string, error) {
	all, err := tx.Range(ExtensionKeys)
	if err != nil {
		return "", err
	}
	for _, e := range all {
		if x, err := decodeExtension(e); err == nil && x.Plugin == p.String() {
			return x.Key(), nil
		}
	}
	return "", nil
}

// Detach takes away what has a role, or notifier/NAME.
func (n *Node) Detach(ctx context.Context, text string) error {
	role, name, err := ParseRole(text)
	if err != nil {
		return err
	}
	key := (&Extension{Role: role, Name: name}).Key()
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		if role == RoleNotifier && name == "" {
			all, err := tx.Range(ExtensionKeys + key + "/")
			if err != nil {
				return err
			}
			if len(all) > 1 {
				var names []string
				for _, e := range all {
					names = append(names, strings.TrimPrefix(e.Key, ExtensionKeys))
				}
				return Errorf(Invalid, "there are %d notifiers", len(all)).Hint("name one of %s", strings.Join(names, ", "))
			}
			if len(all) == 1 {
				tx.Delete(all[0].Key)
				return nil
			}
		}
		_, ok, err := tx.Get(ExtensionKeys + key)
		if err == nil && !ok {
			err = Errorf(NotFound, "no plugin is attached as %s", text).Hint("`grid plugin attached` lists what is")
		}
		tx.Delete(ExtensionKeys + key)
		return err
	})
	if err != nil {
		return Errorf(CodeOf(err), "detach %s: %w", text, err)
	}
	if err := n.readExtensions(ctx); err != nil {
		n.log.Debug("what was detached is forgotten later", "err", err)
	}
	return nil
}

// stage is what the rules for modules are to be asked about.
func (x *Extension) stage() *Stage { return &Stage{Module: x.Module, Plugin: x.Plugin, Func: x.Func} }

// extend runs an extension over a document and gives what it answers. It runs here, in the engine's sandbox, and within its
// limits. An error says how it is broken.
func (n *Node) extend(ctx context.Context, x *Extension, doc any) (answer []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			n.log.Error("panic in an extension", "extension", x.Key(), "panic", p)
			err = Errorf(Internal, "the node has a fault: %v", p)
		}
		cause := context.Cause(ctx)
		if err != nil && cause == nil { // else nobody waits for it any more
			err = Errorf(CodeOf(err), "%s: %w", x, err)
			n.log.Warn("an extension is broken", "extension", x.Key(), "plugin", x.String(), "err", err)
		}
		n.extensions.counted(x.Key(), func(c *ExtensionCounts) {
			c.Runs++
			if err != nil && cause == nil {
				c.Broken++
				c.Last, c.LastAt = clean(err.Error(), maxReason), time.Now().UTC()
			}
		})
	}()
	input, err := json.Marshal(doc)
	if err != nil {
		return nil, Errorf(Internal, "encode what it is given: %w", err)
	}
	most := MaxExtensionOutput
	if x.Role == RoleScorer {
		most = max(most, len(input))
	}
	bounded, cancel := context.WithTimeout(ctx, extendPrepare+x.Timeout)
	defer cancel()
	room := n.extensions.room
	if x.Role == RoleNotifier {
		room = n.extensions.telling
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	case <-bounded.Done():
		return nil, Errorf(Busy, "there was no room to run it within %v", extendPrepare)
	}
	defer n.Hold(x.Module.Cid)()
	if err := n.mayRun(bounded, x.stage()); err != nil {
		return nil, err
	}
	if _, err := n.Inspect(bounded, x.Module.Cid, true); err != nil {
		return nil, err
	}
	out, log := &boundedBuffer{most: most}, &boundedBuffer{most: maxReason, cut: true}
	limits := DefaultLimits
	limits.Wall, limits.Queue, limits.Memory, limits.Fuel = x.Timeout, x.Timeout, x.Memory, x.Fuel
	limits.Output, limits.Scratch, limits.Files = uint64(most)+1, 1<<20, 16
	g := Guest{
		Module: x.Module.Cid, Func: x.Func, Args: []string{"main"}, Env: []string{abiEnv, EnvFunc + "=" + x.Func},
		Stdin: bytes.NewReader(input), Stdout: out, Stderr: log, Mounts: map[string]fs.FS{}, Limits: limits,
		Seed: hashOf(append(x.Module.Bytes(), input...)), Impure: x.Role == RoleNotifier, Net: x.Net,
	}
	t := &Task{}
	t.Grants = x.Grants
	data, err := n.grant(bounded, t, &g, nil, nil, func(error) {})
	if err != nil {
		return nil, err
	}
	defer data.close()
	run, stop := context.WithTimeout(bounded, 2*x.Timeout+time.Second) // its turn may come late
	defer stop()
	end, err := n.Engine.Run(run, &g)
	if err == nil {
		n.tallied(ctx, x.Module.Cid, end.Metrics)
	}
	said := ""
	if text := printableText(string(log.buf), maxReason); text != "" {
		said = ": " + text
	}
	switch {
	case err != nil && run.Err() != nil:
		return nil, Errorf(Deadline, "it did not end within %v", x.Timeout)
	case err != nil:
		return nil, err
	case out.over:
		return nil, Errorf(Limit, "it answers more than %d bytes", most)
	case end.Fault != nil:
		return nil, Errorf(end.Fault.Code, "it was ended: %s%s", printableText(end.Fault.Message, maxReason), said)
	case end.Exit != 0:
		return nil, Errorf(Exit, "it failed, with exit code %d%s", end.Exit, said)
	}
	return out.buf, nil
}

// boundedBuffer keeps so many bytes. More are an error, or left out if it may cut.
type boundedBuffer struct {
	buf  []byte
	most int
	cut  bool
	over bool
}

// Write implements io.Writer.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	room := b.most - len(b.buf)
	if len(p) <= room {
		b.buf = append(b.buf, p...)
		return len(p), nil
	}
	b.over = true
	b.buf = append(b.buf, p[:room]...)
	if b.cut {
		return len(p), nil
	}
	return room, fmt.Errorf("more than %d bytes", b.most)
}
