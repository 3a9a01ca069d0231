package grid

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// Ref is a name for a DAG that can be moved to another one: an entry of the ledger under "ref/" and its name.
// Whatever takes a CID takes the name of a ref, too.
type Ref struct {
	Name    string    `cbor:"-" json:"name"`                      // slash-separated
	CID     Link      `cbor:"cid" json:"cid"`                     // of the DAG
	Job     JobID     `cbor:"job,omitempty" json:"job,omitempty"` // that published it, if one did
	Count   uint64    `cbor:"count" json:"count"`                 // how often it was set since it was made
	Updated time.Time `cbor:"updated" json:"updated"`             // when it was set last
	Version uint64    `cbor:"-" json:"version"`                   // of its ledger entry
}

// MaxRefName bounds a ref's name, in bytes.
const MaxRefName = 256

// CheckRefName refuses what is no name for a ref. A name is words of letters, digits, '.', '_' and '-',
// separated by slashes; it is not what a CID or a job ID looks like.
func CheckRefName(name string) error {
	bad := func(why string) error {
		return Errorf(Invalid, "%.80q is not a name for a ref: %s", name, why).
			Hint("use letters, digits, '.', '_' and '-', and slashes between words, such as results/latest")
	}
	switch {
	case name == "" || len(name) > MaxRefName:
		return bad("want 1 to 256 bytes")
	case !utf8.ValidString(name):
		return bad("it is not UTF-8")
	}
	for word := range strings.SplitSeq(name, "/") {
		if word == "" || word == "." || word == ".." || word[0] == '-' {
			return bad("a word is empty, a dot or two, or begins with '-'")
		}
		if strings.IndexFunc(word, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
		}) >= 0 {
			return bad("it has other characters")
		}
	}
	if first, _, _ := strings.Cut(name, "/"); isCID(first) {
		return bad("it begins with a CID")
	}
	if _, err := ParseJobID(name); err == nil {
		return bad("it is a job ID")
	}
	return nil
}

func isCID(s string) bool {
	_, err := ParseLink(s)
	return err == nil
}

// RefCond is what must hold of a ref for it to be changed. The zero RefCond always holds.
type RefCond struct {
	Absent  bool   `json:"absent,omitempty"`  // there is none of that name
	CID     Link   `json:"cid,omitzero"`      // it names this
	Version uint64 `json:"version,omitempty"` // its entry has this version
}

// check compares the condition with the ref as it is; nil: there is none.
func (c RefCond) check(name string, r *Ref) error {
	var is string
	switch {
	case r == nil && !c.CID.Defined() && c.Version == 0:
		return nil
	case r == nil:
		is = "there is none"
	case c.Absent:
		is = "there is one already, for " + r.CID.String()
	case c.CID.Defined() && c.CID != r.CID:
		is = "it names " + r.CID.String()
	case c.Version != 0 && c.Version != r.Version:
		return Errorf(Conflict, "ref %s: it has version %d, not %d", name, r.Version, c.Version).Hint("somebody else has set it: see `grid ref get %s`", name)
	default:
		return nil
	}
	return Errorf(Conflict, "ref %s: %s", name, is).Hint("see `grid ref ls`, and try again with what is true")
}

// refEntry is the ledger entry of a ref that is set: what was there counts as one time less.
func refEntry(name string, r Ref, old *Ref) (Entry, error) {
	r.Count = 1
	if old != nil {
		r.Count = old.Count + 1
	}
	data, err := Marshal(r)
	return Entry{Key: RefKeys + name, Value: data}, err
}

// decodeRef reads the entry of a ref.
func decodeRef(e Entry) (Ref, error) {
	r := Ref{Name: strings.TrimPrefix(e.Key, RefKeys), Version: e.Version}
	err := UnmarshalMessage(e.Value, &r)
	if err == nil {
		err = CheckCID(r.CID.Cid)
	}
	if err != nil {
		return Ref{}, Errorf(Corrupt, "ref %.80q cannot be read: %w", r.Name, err).Hint("is another node newer? `grid version` tells; else set the ref again")
	}
	return r, nil
}

// Ref reads a ref; the error is NotFound when there is none of that name.
func (n *Node) Ref(ctx context.Context, name string) (Ref, error) {
	if err := CheckRefName(name); err != nil {
		return Ref{}, err
	}
	e, err := n.Ledger.Get(ctx, RefKeys+name)
	if err != nil {
		return Ref{}, refError(name, err)
	}
	return decodeRef(e)
}

// refError names the ref that could not be had.
func refError(name string, err error) error {
	if CodeOf(err) == NotFound {
		return Errorf(NotFound, "there is no ref %q", name).Hint("`grid ref ls` lists the refs")
	}
	return Errorf(CodeOf(err), "ref %q: %w", name, err)
}

// Refs lists the refs whose names begin with prefix, in order of names. stale is [Query.Stale].
func (n *Node) Refs(ctx context.Context, prefix string, stale bool) (refs []Ref, err error) {
	if len(prefix) > MaxRefName {
		return nil, nil
	}
	_, err = RangeAll(ctx, n.Ledger, RefKeys+prefix, stale, func(e Entry) error {
		r, err := decodeRef(e)
		refs = append(refs, r)
		return err
	})
	if err != nil {
		return nil, Errorf(CodeOf(err), "refs: %w", err)
	}
	return refs, nil
}

// SetRef has a ref name a DAG, if the condition holds; else the error is Conflict. The DAG is kept as long as a
// ref names it: if no pin has promised that yet, it is brought here and pinned.
//
// Nothing that a ref names is ever without a promise, wherever it breaks off: the promise for the new DAG is made
// first, then the ref is moved, then the promise for the earlier one is taken back. All that can be left behind is
// a promise that nothing needs.
func (n *Node) SetRef(ctx context.Context, name string, to Link, c RefCond) (Ref, error) {
	if !n.enter() {
		return Ref{}, errClosing
	}
	defer n.wg.Done()
	if err := errors.Join(CheckRefName(name), CheckCID(to.Cid)); err != nil {
		return Ref{}, err
	}
	if was, err := n.Ref(ctx, name); CodeOf(err) == NotFound { // before a DAG is fetched in vain
		if err := c.check(name, nil); err != nil {
			return Ref{}, err
		}
	} else if err == nil {
		err = c.check(name, &was)
		if err != nil {
			return Ref{}, err
		}
	} else if CodeOf(err) != Corrupt { // what cannot be read can be replaced
		return Ref{}, err
	}
	defer n.Hold(to.Cid)()
	if err := n.promise(ctx, refPin(name), to.Cid, true); err != nil {
		return Ref{}, Errorf(CodeOf(err), "ref %s: %w", name, err)
	}
	var next Entry
	was, revision, err := n.changeRef(ctx, name, c, func(tx *Tx, was *Ref) (err error) {
		if next, err = refEntry(name, Ref{CID: to, Updated: time.Now().UTC()}, was); err != nil {
			return err
		}
		tx.Put(next.Key, next.Value)
		return n.auditIn(tx, AuditFact{Act: ActSetRef, Subject: name, CID: to})
	})
	switch code := CodeOf(err); {
	case err == nil:
	case code == Conflict || code == Busy: // it was not set, for sure
		n.releaseRef(ctx, to.Cid)
		fallthrough
	default:
		return Ref{}, err
	}
	if was != nil && was.CID != to {
		n.releaseRef(ctx, was.CID.Cid)
	}
	if err := n.promise(ctx, refPin(name), to.Cid, false); err != nil { // it may have been taken back before the ref was there to need it
		n.log.Warn("a ref's data is not kept", "ref", name, "cid", to, "err", err)
	}
	next.Version = revision
	return decodeRef(next)
}

// RemoveRef removes a ref, if the condition holds. What it named is kept no longer on its account.
func (n *Node) RemoveRef(ctx context.Context, name string, c RefCond) error {
	if !n.enter() {
		return errClosing
	}
	defer n.wg.Done()
	if err := CheckRefName(name); err != nil {
		return err
	}
	was, _, err := n.changeRef(ctx, name, c, func(tx *Tx, was *Ref) error {
		if was == nil {
			return refError(name, NotFound)
		}
		tx.Delete(RefKeys + name)
		return n.auditIn(tx, AuditFact{Act: ActRemoveRef, Subject: name, CID: was.CID})
	})
	if err == nil && was.CID.Defined() {
		n.releaseRef(ctx, was.CID.Cid)
	}
	return err
}

// changeRef changes a ref in a transaction, and returns what it was; nil: there was none. A ref that cannot be
// read names nothing.
func (n *Node) changeRef(ctx context.Context, name string, c RefCond, f func(tx *Tx, was *Ref) error) (was *Ref, revision uint64, err error) {
	var refused error
	revision, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		was = nil
		e, ok, err := tx.Get(RefKeys + name)
		if err != nil {
			return err
		}
		if ok {
			r, err := decodeRef(e)
			if err != nil {
				n.log.Warn("a ref is replaced", "ref", name, "err", err)
				r = Ref{Name: name, Version: e.Version}
			}
			was = &r
		}
		if refused = c.check(name, was); refused != nil {
			return Errorf(Canceled, "refused") // a Conflict would be tried again
		}
		return f(tx, was)
	})
	switch {
	case refused != nil:
		return nil, 0, refused
	case err != nil && CodeOf(err) != NotFound:
		return nil, 0, Errorf(CodeOf(err), "ref %s: %w", name, err)
	}
	return was, revision, err
}

// refPinMark begins the names of pins that are there for refs alone.
const refPinMark = "ref "

// refPin is the name of the pin that keeps what a ref names.
func refPin(name string) string { return clean(refPinMark+name, MaxName) }

// promise sees that a DAG is kept which a ref or a plugin names, or is about to name, by a pin of that name. Where it
// is bounded, a pin that is new is made as far as quotas allow.
func (n *Node) promise(ctx context.Context, pin string, root cid.Cid, bounded bool) error {
	p := Pin{Root: Link{root}, Name: pin}
	st, err := n.Pins.Status(ctx, root, false)
	fresh := CodeOf(err) == NotFound
	switch {
	case err == nil && st.Health != Lost:
		return nil
	case err == nil: // the promise stays what it is
		p.Name, p.Replicas, p.Code = st.Name, st.Replicas, st.Code
	case !fresh:
		return err
	}
	if err := n.Ensure(ctx, []cid.Cid{root}); err != nil {
		return err
	}
	if fresh && bounded {
		_, err = n.pin(ctx, p)
	} else {
		_, err = n.Pins.Pin(ctx, p)
	}
	return err
}

// releaseTime bounds what is done about a promise that may not be needed any more.
const releaseTime = 20 * time.Second

// releaseRef takes a promise back that was made for a ref or a plugin, unless another one needs it. That it cannot be done costs
// room, and nothing else.
func (n *Node) releaseRef(ctx context.Context, root cid.Cid) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	st, err := n.Pins.Status(ctx, root, false)
	if err == nil && !madeForName(st.Name) {
		return // somebody wants it all the same
	}
	if err == nil {
		err = n.Unpin(ctx, root)
	}
	if code := CodeOf(err); err != nil && code != NotFound && code != Conflict {
		n.log.Warn("data that a ref named is still kept", "cid", root, "err", err)
	}
}

// Pin makes a promise to keep a DAG, which is brought here first if it is not; see [Pins]. It is its maker's to
// take back: should it replace one made for a ref or a job, it outlives that.
func (n *Node) Pin(ctx context.Context, p Pin) (PinStatus, error) {
	if err := p.Check(); err != nil {
		return PinStatus{}, err
	}
	if madeForName(p.Name) || madeForJob(p.Name) {
		p.Name = "./" + p.Name[:min(len(p.Name), MaxName-2)]
		p.Name = strings.ToValidUTF8(p.Name, "")
	}
	if err := n.Ensure(ctx, []cid.Cid{p.Root.Cid}); err != nil {
		return PinStatus{}, err
	}
	if p.Name == "" { // the name of the earlier one would stay
		if st, err := n.Pins.Status(ctx, p.Root.Cid, false); err == nil && (madeForName(st.Name) || madeForJob(st.Name)) {
			p.Name = p.Root.String()
		}
	}
	return n.pin(ctx, p)
}

// Unpin takes a promise back; see [Pins]. While a ref names the DAG, or it is a plugin, that is a Conflict.
func (n *Node) Unpin(ctx context.Context, root cid.Cid) error {
	defer n.Hold(root)()
	why, pin, err := n.neededBy(ctx, root)
	if err != nil {
		return err
	}
	if pin != "" {
		return why
	}
	if err := n.Pins.Unpin(ctx, root); err != nil {
		return err
	}
	n.unlinger(root)
	// A ref that was set just now may have relied on the promise that is gone.
	if _, pin, err = n.neededBy(ctx, root); err != nil || pin == "" {
		return err
	}
	return n.promise(ctx, pin, root, false)
}

// neededBy says which ref or plugin needs a DAG, and the name of a pin for it; "" when none does.
func (n *Node) neededBy(ctx context.Context, root cid.Cid) (why error, pin string, err error) {
	ref, err := n.refTo(ctx, root)
	if err != nil {
		return nil, "", err
	}
	if ref != "" {
		return Errorf(Conflict, "%s is what ref %s names, so it is kept", root, ref).Hint("`grid ref rm %s` removes the ref", ref), refPin(ref), nil
	}
	if log, err := n.auditOver(ctx, root); log || err != nil {
		return Errorf(Conflict, "%s is the audit log, so it is kept", root).Hint("`grid audit` shows it"), auditPin, err
	}
	id, err := n.pluginOver(ctx, root)
	if id == "" || err != nil {
		return nil, "", err
	}
	return Errorf(Conflict, "%s is plugin %s, so it is kept", root, id).Hint("`grid plugin rm %s` removes the plugin", id), pluginPin(id), nil
}

// refTo finds a ref that names a DAG; "" when there is none.
func (n *Node) refTo(ctx context.Context, root cid.Cid) (name string, err error) {
	_, err = RangeAll(ctx, n.Ledger, RefKeys, false, func(e Entry) error {
		if r, err := decodeRef(e); err == nil && r.CID.Cid == root && name == "" {
			name = r.Name
		}
		return nil
	})
	if err != nil {
		return "", Errorf(CodeOf(err), "it is not known whether a ref names %s: %w", root, err)
	}
	return name, nil
}

// RefMark before a name says that it is a ref's, where it could be something else.
const RefMark = "ref:"

// Named is a root and a path below it, "" for the root itself, as people name them.
type Named struct {
	Root Link   `json:"cid"`            // of the root
	Path string `json:"path,omitempty"` // slash-separated
	Ref  string `json:"ref,omitempty"`  // that leads to the root, if one does
}

// ParseNamed reads CID[/PATH], also written /ipfs/CID/PATH. The error is that of [ParseLink] when it does not
// begin with a CID.
func ParseNamed(text string) (Named, error) {
	first, p, _ := strings.Cut(strings.TrimPrefix(text, "/ipfs/"), "/")
	root, err := ParseLink(first)
	return Named{Root: root, Path: cleanPath(p)}, err
}

func cleanPath(p string) string { return strings.Trim(path.Clean("/"+p), "/") }

// maxNamed bounds a name with its path.
const maxNamed = 16 << 10

// Resolve finds what CID[/PATH] or NAME[/PATH] names, NAME being a ref. What begins with a CID is no ref; with
// [RefMark] before it, it is. If there are several refs whose names begin the text, the longest name counts.
// No block is looked at.
func (n *Node) Resolve(ctx context.Context, text string) (Named, error) {
	if len(text) > maxNamed {
		return Named{}, Errorf(Invalid, "%.40q… has %d bytes, at most %d can name something", text, len(text), maxNamed)
	}
	name, marked := strings.CutPrefix(text, RefMark)
	if !marked {
		if at, err := ParseNamed(text); err == nil {
			return at, nil
		}
		if strings.HasPrefix(text, "/") {
			return Named{}, Errorf(Invalid, "%q is not a CID, nor the name of a ref", text)
		}
	}
	words := strings.Split(cleanPath(name), "/")
	possible := false
	for i := len(words); i > 0; i-- {
		name := strings.Join(words[:i], "/")
		if CheckRefName(name) != nil {
			continue
		}
		possible = true
		r, err := n.Ref(ctx, name)
		if err == nil {
			return Named{Root: r.CID, Path: strings.Join(words[i:], "/"), Ref: name}, nil
		}
		if code := CodeOf(err); code != NotFound {
			return Named{}, Errorf(code, "%q is not a CID, and what ref it may be is not known: %w", text, err)
		}
	}
	switch {
	case marked && possible:
		return Named{}, refError(name, NotFound)
	case marked:
		return Named{}, CheckRefName(name)
	case possible:
		return Named{}, Errorf(NotFound, "%q is not a CID, and there is no ref of that name", text).
			Hint("`grid ref ls` lists the refs; `grid add PATH` prints the CID of what it adds")
	}
	err := Errorf(Invalid, "%q is not a CID, nor the name of a ref", text).Hint("`grid add PATH` prints the CID of what it adds")
	if _, no := ParseJobID(text); no == nil {
		err.Hint("it is a job: `grid get` copies what it made, `grid job rm` forgets it")
	}
	return Named{}, err
}
