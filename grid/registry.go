package grid

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

func decodePlugin(e Entry) (Plugin, error) {
	var p Plugin
	var ok bool
	p.Name, p.Version, ok = strings.Cut(strings.TrimPrefix(e.Key, PluginKeys), "@")
	err := UnmarshalMessage(e.Value, &p)
	if err == nil {
		err = CheckCID(p.CID.Cid)
	}
	if err == nil && !ok {
		err = Errorf(Invalid, "it has no version")
	}
	if err != nil {
		return Plugin{}, Errorf(Corrupt, "ledger entry %.100q, a plugin, cannot be read: %w", e.Key, err).Hint("is another node newer? `grid version` tells")
	}
	return p, nil
}

// InstallPlugin publishes a module, which must have a manifest, under the name and version of that. It is kept as long as
// it is not removed. Publishing what is published already changes nothing; what was removed is there again. With other
// bytes under the same version the error is Conflict.
func (n *Node) InstallPlugin(ctx context.Context, module Link) (Plugin, error) {
	if !n.enter() {
		return Plugin{}, errClosing
	}
	defer n.wg.Done()
	if err := CheckCID(module.Cid); err != nil {
		return Plugin{}, err
	}
	defer n.Hold(module.Cid)()
	m, err := n.Inspect(ctx, module.Cid, false)
	if err != nil {
		return Plugin{}, err
	}
	if m.Manifest == nil {
		return Plugin{}, Errorf(Invalid, "%s is a module, but no plugin: it has no manifest", module).
			Hint("build it with `grid plugin build`, from a folder with a plugin.yaml")
	}
	p := pluginOf(module, &m)
	p.Publisher = n.self
	if err := n.promise(ctx, pluginPin(p.String()), module.Cid, false); err != nil {
		return Plugin{}, Errorf(CodeOf(err), "plugin %s: %w", &p, err)
	}
	if err := n.plentiful(ctx, &p); err != nil {
		n.releaseRef(ctx, module.Cid)
		return Plugin{}, err
	}
	out, err := n.publishPlugin(ctx, p)
	if err != nil {
		if code := CodeOf(err); code == Conflict || code == Denied || code == Busy { // it was not published, for sure
			n.releaseRef(ctx, module.Cid)
		}
		return Plugin{}, err
	}
	if err := n.promise(ctx, pluginPin(p.String()), module.Cid, false); err != nil { // taken back before the entry was there to need it
		n.log.Warn("a plugin's module is not kept", "plugin", p.String(), "cid", module, "err", err)
	}
	return out, nil
}

// plentiful waits until other nodes have a plugin's module, too, so that the loss of this one does not leave a name without
// bytes. That they do not get it is no reason not to publish.
func (n *Node) plentiful(ctx context.Context, p *Plugin) error {
	want, now := n.copies(0)
	if now <= 1 {
		return nil
	}
	st, err := n.Pins.Status(ctx, p.CID.Cid, false)
	if err != nil {
		return Errorf(CodeOf(err), "plugin %s: %w", p, err)
	}
	durable, err := n.spreading(ctx, st, min(now, st.Wanted()))
	if err == nil && durable < min(want, st.Wanted()) {
		n.log.Warn("fewer nodes than wanted have a plugin", "plugin", p.String(), "nodes", durable, "want", st.Wanted())
	}
	return err
}

// pluginOf sums up a module for the ledger.
func pluginOf(module Link, m *Module) Plugin {
	p := Plugin{
		Name: m.Manifest.Name, Version: m.Manifest.Version, CID: module, Size: int64(m.Size), ABI: m.Manifest.ABI,
		Description: m.Manifest.Description, License: m.Manifest.License, Wants: m.Manifest.Wants, Signers: m.Signers,
		Published: time.Now().UTC(),
	}
	for _, f := range m.Manifest.Functions {
		p.Functions = append(p.Functions, Function{Name: f.Name, Kind: f.Kind})
	}
	return p
}

// publishPlugin makes the entry of a plugin, unless there is one.
func (n *Node) publishPlugin(ctx context.Context, p Plugin) (out Plugin, err error) {
	var refused error
	key := PluginKeys + p.String()
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		out, refused = p, nil
		policy, err := readPolicy(tx)
		if err != nil {
			return err
		}
		if err := n.checkSigned(ctx, &policy, "plugin "+p.String(), p.String(), p.Signers); err != nil {
			return err
		}
		e, ok, err := tx.Get(key)
		if err != nil {
			return err
		}
		if ok {
			is, err := decodePlugin(e)
			if err != nil {
				return err
			}
			if is.CID != p.CID {
				refused = Errorf(Conflict, "plugin %s is published with other bytes: %s, not %s", &p, is.CID, p.CID).
					Hint("a version never changes: give this one another version in plugin.yaml and build it again")
				return Errorf(Canceled, "refused") // a Conflict would be tried again
			}
			out = is
			if is.Removed.IsZero() {
				return nil
			}
			out.Removed = time.Time{}
		}
		data, err := Marshal(out)
		if err != nil {
			return err
		}
		tx.Put(key, data)
		return n.auditIn(tx, AuditFact{Act: ActInstall, Subject: out.String(), CID: out.CID, Note: "signed by " + cmp.Or(ids(out.Signers), "nobody")})
	})
	if refused != nil {
		return Plugin{}, refused
	}
	if err != nil {
		return Plugin{}, Errorf(CodeOf(err), "publish plugin %s: %w", &p, err)
	}
	return out, nil
}

// Plugins lists what is published, by name and version; also what was removed. With a name it lists only the versions of that.
// stale is [Query.Stale].
func (n *Node) Plugins(ctx context.Context, name string, stale bool) (all []Plugin, err error) {
	prefix := PluginKeys
	if name != "" {
		if err := CheckPluginName(name); err != nil {
			return nil, err
		}
		prefix += name + "@"
	}
	if _, err = RangeAll(ctx, n.Ledger, prefix, stale, func(e Entry) error {
		p, err := decodePlugin(e)
		all = append(all, p)
		return err
	}); err != nil {
		return nil, Errorf(CodeOf(err), "plugins: %w", err)
	}
	aliases := map[string][]string{}
	if _, err = RangeAll(ctx, n.Ledger, AliasKeys+strings.TrimPrefix(prefix, PluginKeys), stale, func(e Entry) error {
		name, alias, _ := strings.Cut(strings.TrimPrefix(e.Key, AliasKeys), "@")
		version := name + "@" + string(e.Value)
		aliases[version] = append(aliases[version], alias)
		return nil
	}); err != nil {
		return nil, Errorf(CodeOf(err), "aliases of plugins: %w", err)
	}
	for i := range all {
		all[i].Aliases = aliases[all[i].String()]
	}
	slices.SortFunc(all, comparePlugins)
	return all, nil
}

// ResolvePlugin finds which plugin a reference means now, and which of its functions, "" if it names none.
func (n *Node) ResolvePlugin(ctx context.Context, text string) (Plugin, string, error) {
	r, err := ParsePluginRef(text)
	if err != nil {
		return Plugin{}, "", err
	}
	if r.Version != "" && r.Version != Latest && CheckAlias(r.Version) == nil {
		e, err := n.Ledger.Get(ctx, AliasKeys+r.Name+"@"+r.Version)
		if CodeOf(err) == NotFound {
			return Plugin{}, "", Errorf(NotFound, "plugin %s has no alias %q", r.Name, r.Version).
				Hint("`grid plugin ls --all %s` lists its versions and their aliases", r.Name)
		}
		if err != nil {
			return Plugin{}, "", Errorf(CodeOf(err), "alias of plugin %s: %w", r.Name, err)
		}
		r.Version = string(e.Value)
	}
	if _, err := ParseVersion(r.Version); err == nil { // the one way that needs one entry only
		p, err := n.plugin(ctx, r.Name+"@"+r.Version)
		switch {
		case err == nil && p.Removed.IsZero():
			return p, r.Func, nil
		case err == nil:
			return Plugin{}, "", Errorf(NotFound, "plugin %s was removed at %s", &p, p.Removed.Format(time.DateTime)).
				Hint("install the same bytes again with `grid plugin install %s`, or use another version", p.CID)
		case CodeOf(err) != NotFound:
			return Plugin{}, "", err
		}
	}
	all, err := n.Plugins(ctx, r.Name, false)
	if err != nil {
		return Plugin{}, "", err
	}
	if p := r.pick(all); p != nil {
		return *p, r.Func, nil
	}
	return Plugin{}, "", noPlugin(r, all)
}

// noPlugin says that a reference means nothing.
func noPlugin(r PluginRef, all []Plugin) error {
	var versions []string
	for _, p := range slices.Backward(all) {
		if p.Removed.IsZero() && len(versions) < maxListed {
			versions = append(versions, p.Version)
		}
	}
	switch {
	case len(versions) == 0:
		return Errorf(NotFound, "there is no plugin %q", r.Name).Hint("`grid plugin ls` lists the plugins, `grid plugin install FILE` installs one")
	case r.Version == "" || r.Version == Latest:
		return Errorf(NotFound, "plugin %s has no version that is not a pre-release", r.Name).
			Hint("name one of %s, as in %s@%s", strings.Join(versions, ", "), r.Name, versions[0])
	}
	return Errorf(NotFound, "plugin %s has no version %s", r.Name, r.Version).Hint("it has %s", strings.Join(versions, ", "))
}

// plugin reads one entry.
func (n *Node) plugin(ctx context.Context, id string) (Plugin, error) {
	e, err := n.Ledger.Get(ctx, PluginKeys+id)
	if CodeOf(err) == NotFound {
		return Plugin{}, Errorf(NotFound, "there is no plugin %s", id).Hint("`grid plugin ls` lists the plugins")
	}
	if err != nil {
		return Plugin{}, Errorf(CodeOf(err), "plugin %s: %w", id, err)
	}
	return decodePlugin(e)
}

// RemovePlugin removes a version of a plugin, which is named in full or by what means it now. Nothing resolves to it any more,
// and aliases that mean it go with it; jobs that were made before have its CID, and run. Its bytes are kept no longer on
// its account.
func (n *Node) RemovePlugin(ctx context.Context, ref string) (Plugin, error) {
	if !n.enter() {
		return Plugin{}, errClosing
	}
	defer n.wg.Done()
	p, function, err := n.ResolvePlugin(ctx, ref)
	if err == nil && function != "" {
		err = Errorf(Invalid, "%s names a function, and a plugin is removed as a whole", ref).Hint("say `grid plugin rm %s`", &p)
	}
	if err != nil {
		return Plugin{}, err
	}
	key := PluginKeys + p.String()
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		e, ok, err := tx.Get(key)
		if err != nil || !ok {
			return errors.Join(err, Errorf(NotFound, "there is no plugin %s", &p))
		}
		if p, err = decodePlugin(e); err != nil {
			return err
		}
		if as, err := attachedAs(tx, &p); err != nil {
			return err
		} else if as != "" {
			return Errorf(Denied, "it is attached to the realm, as %s", as).Hint("`grid plugin detach %s` first", as)
		}
		aliases, err := tx.Range(AliasKeys + p.Name + "@")
		if err != nil {
			return err
		}
		for _, a := range aliases {
			if string(a.Value) == p.Version {
				tx.Delete(a.Key)
			}
		}
		if p.Removed.IsZero() {
			p.Removed = time.Now().UTC()
		}
		data, err := Marshal(p)
		if err != nil {
			return err
		}
		tx.Put(key, data)
		return n.auditIn(tx, AuditFact{Act: ActRemovePlugin, Subject: p.String(), CID: p.CID})
	})
	if err != nil {
		return Plugin{}, Errorf(CodeOf(err), "remove plugin %s: %w", &p, err)
	}
	n.releaseRef(ctx, p.CID.Cid)
	return p, nil
}

// SetAlias has NAME@ALIAS mean a version of the plugin that there is now; with "" it means nothing any more, and what it meant
// is given.
func (n *Node) SetAlias(ctx context.Context, name, alias, version string) (Plugin, error) {
	if err := errors.Join(CheckPluginName(name), CheckAlias(alias)); err != nil {
		return Plugin{}, err
	}
	key := AliasKeys + name + "@" + alias
	if version == "" {
		p, _, err := n.ResolvePlugin(ctx, name+"@"+alias)
		if err != nil {
			return Plugin{}, err
		}
		t := Txn{ID: NewRequestID(), Delete: []string{key}}
		if err = n.audit(&t, AuditFact{Act: ActAlias, Subject: name + "@" + alias, Note: "removed", User: UserOf(ctx)}); err == nil {
			_, err = n.Ledger.Commit(ctx, t)
		}
		return p, err
	}
	p, _, err := n.ResolvePlugin(ctx, name+"@"+version)
	if err != nil {
		return Plugin{}, err
	}
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		e, ok, err := tx.Get(PluginKeys + p.String())
		if err != nil {
			return err
		}
		if ok {
			p, err = decodePlugin(e)
		}
		if err != nil || !ok || !p.Removed.IsZero() {
			return errors.Join(err, Errorf(NotFound, "plugin %s was removed meanwhile", &p))
		}
		tx.Put(key, []byte(p.Version))
		return n.auditIn(tx, AuditFact{Act: ActAlias, Subject: name + "@" + alias, CID: p.CID, Note: "means " + p.Version})
	})
	if err != nil {
		return Plugin{}, Errorf(CodeOf(err), "alias %s of plugin %s: %w", alias, name, err)
	}
	p.Aliases = []string{alias}
	return p, nil
}

// PluginPolicy reads what the realm demands of modules.
func (n *Node) PluginPolicy(ctx context.Context) (p PluginPolicy, err error) {
	e, err := n.Ledger.Get(ctx, PluginPolicyKey)
	if err != nil && CodeOf(err) != NotFound {
		return p, Errorf(CodeOf(err), "the realm's policy for plugins: %w", err)
	}
	return decodePolicy(e, err == nil)
}

// SetPluginPolicy changes what the realm demands of modules. All nodes know it within moments.
func (n *Node) SetPluginPolicy(ctx context.Context, p PluginPolicy) (PluginPolicy, error) {
	if err := p.Check(); err != nil {
		return p, err
	}
	data, err := Marshal(p)
	if err != nil {
		return p, err
	}
	t := Txn{ID: NewRequestID(), Put: []Entry{{Key: PluginPolicyKey, Value: data}}}
	if err = n.audit(&t, AuditFact{Act: ActPolicy, Subject: "plugins", Note: "require " + string(p.Require) + ", trust " + cmp.Or(ids(p.Trust), "the nodes of the realm"), User: UserOf(ctx)}); err == nil {
		_, err = n.Ledger.Commit(ctx, t)
	}
	if err != nil {
		return p, Errorf(CodeOf(err), "set the realm's policy for plugins: %w", err)
	}
	n.rules.set(p)
	return p, nil
}

func decodePolicy(e Entry, ok bool) (p PluginPolicy, err error) {
	if ok {
		if err = UnmarshalMessage(e.Value, &p); err != nil {
			err = Errorf(Corrupt, "the realm's policy for plugins cannot be read: %w", err).Hint("set it again with `grid plugin policy`")
		}
	}
	if err == nil {
		err = p.Check()
	}
	return p, err
}

func readPolicy(tx *Tx) (PluginPolicy, error) {
	e, ok, err := tx.Get(PluginPolicyKey)
	if err != nil {
		return PluginPolicy{}, err
	}
	return decodePolicy(e, ok)
}

// rules is the realm's policy as it was lately.
type rules struct {
	mu     sync.Mutex
	read   time.Time
	policy PluginPolicy
}

func (r *rules) set(p PluginPolicy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policy, r.read = p, time.Now()
}

// rulesAge is how old what a node knows of the policy may be before it runs a task.
const rulesAge = 2 * time.Second

// policyLately reads the policy without waiting for others if it can. Without a ledger to ask it is what it was.
func (n *Node) policyLately(ctx context.Context) (PluginPolicy, error) {
	r := &n.rules
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.read.IsZero() && time.Since(r.read) < rulesAge {
		return r.policy, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	page, err := n.Ledger.Range(ctx, Query{Prefix: PluginPolicyKey, Limit: 1, Stale: true})
	if err == nil {
		var e Entry
		ok := len(page.Entries) > 0 && page.Entries[0].Key == PluginPolicyKey
		if ok {
			e = page.Entries[0]
		}
		var p PluginPolicy
		if p, err = decodePolicy(e, ok); err == nil {
			r.policy, r.read = p, time.Now()
			return p, nil
		}
	}
	if r.read.IsZero() {
		return PluginPolicy{}, Errorf(CodeOf(err), "whether the realm lets this module run is not known: %w", err)
	}
	r.read = time.Now()
	return r.policy, nil
}

// mayRun refuses to run a stage's module that the realm's policy does not let run. Before it refuses, it asks what the policy
// is now.
func (n *Node) mayRun(ctx context.Context, st *Stage) error {
	policy, err := n.policyLately(ctx)
	if err != nil || !policy.demands(st.Plugin) {
		return err
	}
	m, err := n.Inspect(ctx, st.Module.Cid, false)
	if err != nil {
		return err
	}
	refused := n.checkSigned(ctx, &policy, st.what(), st.Plugin, m.Signers)
	if CodeOf(refused) != Denied {
		return refused
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if policy, err = n.PluginPolicy(ctx); err != nil {
		return refused
	}
	n.rules.set(policy)
	return n.checkSigned(ctx, &policy, st.what(), st.Plugin, m.Signers)
}

// what names a stage's module for people.
func (st *Stage) what() string {
	if st.Plugin != "" {
		return "plugin " + st.Plugin
	}
	return "module " + st.Module.String()
}

// checkSigned refuses a module that has to be signed, and is not by anybody who is trusted.
func (n *Node) checkSigned(ctx context.Context, policy *PluginPolicy, what, plugin string, signers []peer.ID) error {
	if !policy.demands(plugin) {
		return nil
	}
	const signIt = "a trusted person signs it with `grid plugin sign FILE`, which gives it another CID; `grid plugin policy` shows who is trusted"
	if len(signers) == 0 {
		return Errorf(Denied, "%s is not signed, and this realm demands signatures", what).Hint(signIt)
	}
	whom := "this realm trusts"
	trusted := func(id peer.ID) bool { return slices.Contains(policy.Trust, id) }
	if len(policy.Trust) == 0 {
		roll, err := n.rollCall(ctx)
		if err != nil {
			return Errorf(CodeOf(err), "%s is signed, but which nodes are of this realm is not known: %w", what, err)
		}
		whom = "is a node of this realm"
		trusted = func(id peer.ID) bool { _, ok := roll[id]; return ok || id == n.self }
	}
	if slices.ContainsFunc(signers, trusted) {
		return nil
	}
	return Errorf(Denied, "%s is signed by %s, but by nobody who %s", what, ids(signers), whom).Hint(signIt)
}

func ids(list []peer.ID) string {
	var out []string
	for _, id := range list {
		out = append(out, id.String())
	}
	return strings.Join(out, " and ")
}

// checkPlugin checks what a stage wants to run against what the realm demands, and against what the module says of itself.
func (n *Node) checkPlugin(ctx context.Context, policy *PluginPolicy, st *Stage, m *Module) error {
	if st.Plugin != "" {
		p, err := n.plugin(ctx, st.Plugin)
		if err != nil {
			return err
		}
		if p.CID != st.Module { // one that was removed may run: it is what a job was made of
			return Errorf(Conflict, "plugin %s is %s, not %s", &p, p.CID, st.Module).Hint("leave out one of the two")
		}
	}
	if err := n.checkSigned(ctx, policy, st.what(), st.Plugin, m.Signers); err != nil {
		return err
	}
	return m.Manifest.fits(st)
}

// fits checks a stage against the manifest of its module, if it has one.
func (m *Manifest) fits(st *Stage) error {
	if m == nil {
		return nil
	}
	if _, ok := m.Find(st.Func); !ok && st.Func != "" && len(m.Functions) > 0 && st.Func != describeFunc {
		var names []string
		for _, f := range m.Functions {
			names = append(names, f.Name)
		}
		names = nearest(st.Func, names)
		if more := len(names) - maxListed; more > 0 {
			names = append(names[:maxListed], "others")
		}
		return Errorf(Invalid, "plugin %s has no function %q", m, st.Func).Hint("it has %s", strings.Join(names, ", "))
	}
	if missing := st.Grants.Missing(&m.Wants); !missing.Empty() {
		return Errorf(Denied, "plugin %s wants what the job does not grant", m).
			Hint("add %s, or --grant-all for all that it wants; in a job file, list it under the stage", missing.Flags())
	}
	return nil
}

// describeFunc is the function with which programs describe themselves, whether or not their manifest says so.
const describeFunc = "grid.describe"

// pluginPinMark begins the names of pins that are there for plugins alone.
const pluginPinMark = "plugin "

func pluginPin(id string) string { return clean(pluginPinMark+id, MaxName) }

// madeForName reports whether a pin is there for refs or plugins alone.
func madeForName(pin string) bool {
	return strings.HasPrefix(pin, refPinMark) || strings.HasPrefix(pin, pluginPinMark)
}

// pluginOver finds a plugin, that was not removed, whose module a DAG is; "" when there is none.
func (n *Node) pluginOver(ctx context.Context, root cid.Cid) (id string, err error) {
	_, err = RangeAll(ctx, n.Ledger, PluginKeys, false, func(e Entry) error {
		if p, err := decodePlugin(e); err == nil && p.CID.Cid == root && p.Removed.IsZero() {
			id = p.String()
		}
		return nil
	})
	if err != nil {
		return "", Errorf(CodeOf(err), "it is not known whether a plugin is %s: %w", root, err)
	}
	return id, nil
}
