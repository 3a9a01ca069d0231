package grid

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The audit log tells who did what to the realm. Each act is a fact, signed by the node that did it, and an entry of the
// ledger that is written in the same transaction as the act, under a key of its own: so acts never wait for each other,
// and none is there without its entry. The order is that of the ledger's revisions, and the chain of hashes follows that
// order: it is computed by whoever reads. The leader's node now and then seals the oldest entries: it puts them into a
// block, which leads to the one before, and of both only the newest one's CID stays in the ledger. When a node brings a
// log of its own into the realm, the next block leads to both.

// AuditAct names what was done.
type AuditAct string

// The acts.
const (
	ActSubmit       AuditAct = "job.submit"
	ActCancel       AuditAct = "job.cancel"
	ActRemoveJob    AuditAct = "job.remove"
	ActSetRef       AuditAct = "ref.set"
	ActPublishRef   AuditAct = "ref.publish" // by a job that was done
	ActRemoveRef    AuditAct = "ref.remove"
	ActInstall      AuditAct = "plugin.install"
	ActRemovePlugin AuditAct = "plugin.remove"
	ActAlias        AuditAct = "plugin.alias"
	ActPolicy       AuditAct = "plugin.policy"
	ActSetSecret    AuditAct = "secret.set"
	ActShareSecret  AuditAct = "secret.share" // encrypted for nodes that could not read it
	ActRemoveSecret AuditAct = "secret.remove"
	ActJoin         AuditAct = "member.join"
	ActRemoveMember AuditAct = "member.remove"
	ActInvite       AuditAct = "member.invite"
	ActAdmit        AuditAct = "member.admit" // to a private swarm
	ActApprove      AuditAct = "member.approve"
	ActSetRole      AuditAct = "member.role"
	ActRenew        AuditAct = "member.renew"
	ActRotateKey    AuditAct = "swarm.rotate-key" // of the authority
	ActRevoke       AuditAct = "member.revoke"
	ActLeave        AuditAct = "member.leave"
	ActRecover      AuditAct = "realm.recover" // from one copy, without the others
	ActRestore      AuditAct = "realm.restore" // from a backup
	ActDrain        AuditAct = "node.drain"
	ActCreateToken  AuditAct = "token.create"
	ActRemoveToken  AuditAct = "token.remove"
)

// AuditFact is one act. Of texts that are too long the beginning is kept.
type AuditFact struct {
	ID      string    `cbor:"id" json:"id"`                         // of its own; begins with its time
	Time    time.Time `cbor:"time" json:"time"`                     // by the clock of its node
	Node    peer.ID   `cbor:"node" json:"node"`                     // that did it, for somebody or by itself
	Act     AuditAct  `cbor:"act" json:"act"`                       // what was done
	Subject string    `cbor:"subject" json:"subject"`               // what it was done to: a job's ID, a name, a peer ID
	CID     Link      `cbor:"cid,omitzero" json:"cid,omitzero"`     // of what the subject is, or names now
	User    string    `cbor:"user,omitempty" json:"user,omitempty"` // for whom, if the node was told
	Note    string    `cbor:"note,omitempty" json:"note,omitempty"` // more about it, for people
}

// Limits of the audit log.
const (
	maxAuditText  = 256     // bytes of a subject or a user
	maxAuditNote  = 1 << 10 // and of a note
	maxAuditValue = 2 << 10 // of a signed fact
	maxAuditSeal  = 500     // entries of a block
	maxAuditHeads = 64      // blocks that one leads to
)

// Where the audit log is in a ledger.
const (
	AuditKeys     = "audit/"
	auditLogKeys  = AuditKeys + "log/"  // by ID: facts that no block has yet
	auditHeadKeys = AuditKeys + "head/" // by CID: the newest block; several where logs have come together
)

// auditPin is the name of the pin that keeps the blocks.
const auditPin = "audit log"

// signedFact is the value of an entry.
type signedFact struct {
	Fact []byte `cbor:"fact"`
	Sig  []byte `cbor:"sig"`
}

// auditMark keeps signatures of facts from being mistaken for anything else that the same key signs.
const auditMark = "wasmgrid audit 1\x00"

func signAudit(key crypto.PrivKey, fact []byte) ([]byte, error) {
	return key.Sign(append([]byte(auditMark), fact...))
}

// AuditEntry makes the ledger's entry that tells of an act, signed with the key of the node that does it: put it in the
// same transaction. The ID, the time and the node are filled in.
func AuditEntry(key crypto.PrivKey, f AuditFact) (Entry, error) {
	var id [14]byte
	f.Time = time.Now().UTC()
	binary.BigEndian.PutUint64(id[:8], uint64(f.Time.UnixMilli())<<16) // of which six bytes are used
	rand.Read(id[6:])                                                  // never fails
	f.ID = hex.EncodeToString(id[:])
	f.Subject, f.User, f.Note = clean(f.Subject, maxAuditText), clean(f.User, maxAuditText), clean(f.Note, maxAuditNote)
	var err error
	if f.Node, err = peer.IDFromPrivateKey(key); err != nil {
		return Entry{}, Errorf(Internal, "audit: %w", err)
	}
	var s signedFact
	if s.Fact, err = Marshal(f); err == nil {
		s.Sig, err = signAudit(key, s.Fact)
	}
	if err != nil {
		return Entry{}, Errorf(Internal, "audit: %w", err)
	}
	value, err := Marshal(s)
	return Entry{Key: auditLogKeys + f.ID, Value: value}, err
}

// openFact reads a signed fact and checks who signed it.
func openFact(value []byte) (f AuditFact, err error) {
	var s signedFact
	switch {
	case len(value) > maxAuditValue:
		return f, Errorf(Invalid, "it has %d bytes, at most %d are allowed", len(value), maxAuditValue)
	case UnmarshalMessage(value, &s) != nil || UnmarshalMessage(s.Fact, &f) != nil:
		return AuditFact{}, Errorf(Corrupt, "it is no entry of an audit log")
	}
	pub, err := f.Node.ExtractPublicKey()
	if err != nil {
		return f, Errorf(Invalid, "its node %.80q has no usable key", f.Node.String())
	}
	if ok, err := pub.Verify(append([]byte(auditMark), s.Fact...), s.Sig); err != nil || !ok {
		return f, Errorf(Denied, "node %s has not signed it", f.Node)
	}
	return f, nil
}

// audit adds an act to the transaction that carries it out.
func (n *Node) audit(t *Txn, f AuditFact) error {
	e, err := AuditEntry(n.Key, f)
	if err == nil {
		t.Put = append(t.Put, e)
		n.audited.Add(1)
	}
	return err
}

// auditIn is audit for an [Update].
func (n *Node) auditIn(tx *Tx, f AuditFact) error {
	var t Txn
	f.User = cmp.Or(f.User, tx.User())
	err := n.audit(&t, f)
	if err == nil {
		tx.Put(t.Put[0].Key, t.Put[0].Value)
	}
	return err
}

// Audit records an act that is no transaction of the ledger. It is durable when Audit returns.
func (n *Node) Audit(ctx context.Context, f AuditFact) error {
	t := Txn{ID: NewRequestID()}
	f.User = cmp.Or(f.User, UserOf(ctx))
	err := n.audit(&t, f)
	if err == nil {
		_, err = n.Ledger.Commit(ctx, t)
	}
	if err != nil {
		return Errorf(CodeOf(err), "the audit log does not have that %s was done to %s: %w", f.Act, f.Subject, err)
	}
	return nil
}

// auditAfter is Audit for what was done already, and cannot be undone.
func (n *Node) auditAfter(ctx context.Context, f AuditFact) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	if err := n.Audit(ctx, f); err != nil {
		n.log.Error("an act is missing in the audit log", "act", f.Act, "subject", f.Subject, "err", err)
	}
}

// Drain has this node hand on what it keeps, and take nothing more; or, with false, ends that.
func (n *Node) Drain(ctx context.Context, on bool) error {
	if err := n.Pins.Drain(ctx, on); err != nil {
		return err
	}
	f := AuditFact{Act: ActDrain, Subject: n.self.String()}
	kind, text := KindDraining, "it hands on what it keeps, and takes nothing more"
	if !on {
		f.Note = "ended"
		kind, text = KindDrained, "it takes and keeps data again"
	}
	n.Happened(RoomNode, kind, n.self, text)
	n.auditAfter(ctx, f)
	return nil
}

// submitted tells of a new job.
func submitted(rec *Record, spec *Spec, user string) AuditFact {
	tasks, grants := uint64(0), []string(nil)
	for i := range spec.Stages {
		st := &spec.Stages[i]
		tasks += uint64(st.Tasks)
		if g := st.Grants.Flags(); g != "" {
			grants = append(grants, g)
		}
	}
	note := fmt.Sprintf("%d stages, %d tasks", len(spec.Stages), tasks)
	if rec.Name != "" {
		note = strconv.Quote(rec.Name) + ", " + note
	}
	if len(rec.Publish) > 0 {
		note += ", publishes " + strings.Join(rec.Publish, " ")
	}
	if len(grants) > 0 {
		note += ", " + strings.Join(grants, " ")
	}
	return AuditFact{Act: ActSubmit, Subject: string(rec.ID), CID: rec.Spec, User: user, Note: note}
}

// auditHead is what the ledger keeps of sealed entries, and how a block leads to the ones before.
type auditHead struct {
	Root  Link   `cbor:"root"`
	Sum   []byte `cbor:"sum"`   // of the chain up to its end
	Count uint64 `cbor:"count"` // entries up to there
}

func (h *auditHead) check() error {
	if len(h.Sum) != hashLen || CheckCID(h.Root.Cid) != nil {
		return Errorf(Corrupt, "the head of the audit log makes no sense")
	}
	return nil
}

// auditBlock holds sealed entries, in order.
type auditBlock struct {
	Parents []auditHead   `cbor:"parents,omitempty"`
	Entries []auditSealed `cbor:"entries"`
	Sum     []byte        `cbor:"sum"`
	Count   uint64        `cbor:"count"`
	Sealed  time.Time     `cbor:"sealed"`
	By      peer.ID       `cbor:"by"`
}

type auditSealed struct {
	Revision uint64 `cbor:"rev"` // of the ledger at which it was written
	Value    []byte `cbor:"val"`
}

func decodeAuditBlock(data []byte) (b auditBlock, err error) {
	if err = UnmarshalMessage(data, &b); err != nil {
		return b, err
	}
	if len(b.Entries) > maxAuditSeal || len(b.Parents) > maxAuditHeads || len(b.Sum) != hashLen {
		return b, Errorf(Corrupt, "it is no block of an audit log")
	}
	for i := range b.Parents {
		if err := b.Parents[i].check(); err != nil {
			return b, err
		}
	}
	return b, nil
}

// auditStart is the sum that a chain begins with behind blocks with these sums.
func auditStart(before [][]byte) (h hash) {
	switch len(before) {
	case 0:
		return h
	case 1:
		copy(h[:], before[0])
		return h
	}
	return sha256.Sum256(append([]byte("wasmgrid audit merge 1\x00"), slices.Concat(before...)...))
}

// auditNext is the sum behind one more entry.
func auditNext(before hash, revision uint64, value []byte) hash {
	b := make([]byte, 0, hashLen+8+maxAuditValue)
	b = append(b, before[:]...)
	b = binary.BigEndian.AppendUint64(b, revision)
	return sha256.Sum256(append(b, value...))
}

// auditState is the part of the log that is in the ledger, at one moment.
type auditState struct {
	heads    []auditHead
	headKeys []Entry // their entries
	log      []Entry // in order
}

func (n *Node) readAudit(ctx context.Context, stale bool) (s auditState, err error) {
	_, err = RangeAll(ctx, n.Ledger, AuditKeys, stale, func(e Entry) error {
		switch {
		case strings.HasPrefix(e.Key, auditLogKeys):
			s.log = append(s.log, e)
		case strings.HasPrefix(e.Key, auditHeadKeys):
			var h auditHead
			if err := UnmarshalMessage(e.Value, &h); err != nil {
				return Errorf(Corrupt, "ledger entry %.200q: %w", e.Key, err)
			}
			if err := h.check(); err != nil {
				return err
			}
			s.heads, s.headKeys = append(s.heads, h), append(s.headKeys, e)
		}
		return nil
	})
	if err != nil {
		return auditState{}, Errorf(CodeOf(err), "audit log: %w", err)
	}
	slices.SortFunc(s.log, func(a, b Entry) int {
		if a.Version != b.Version {
			return int(min(max(int64(a.Version-b.Version), -1), 1))
		}
		return strings.Compare(a.Key, b.Key)
	})
	return s, nil
}

// When entries are sealed.
const (
	auditEvery  = 15 * time.Second // how often the leader's node looks
	auditMany   = 256              // entries
	auditOld    = time.Hour        // of the oldest
	auditBound  = 1024             // entries, by a command, which has little time
	auditBefore = 20 * time.Second // bounds what is done about it at once
)

// keepAudit seals what has become much or old, if this node is its ledger's leader.
func (n *Node) keepAudit() {
	for n.sleep(auditEvery) {
		ctx, cancel := context.WithTimeout(n.ctx, auditBefore)
		st, err := n.Ledger.Status(ctx)
		if err == nil && st.Role == Leader {
			err = n.sealDue(ctx)
		}
		cancel()
		if err != nil && n.ctx.Err() == nil {
			n.log.Warn("the audit log is not sealed", "err", err)
		}
	}
}

func (n *Node) sealDue(ctx context.Context) error {
	s, err := n.readAudit(ctx, true) // the leader's own copy, at no cost for others
	if err != nil || len(s.log) == 0 {
		return err
	}
	least := auditMany
	if ms, err := strconv.ParseInt(strings.TrimPrefix(s.log[0].Key, auditLogKeys)[:min(12, len(s.log[0].Key)-len(auditLogKeys))], 16, 64); err != nil || time.Since(time.UnixMilli(ms)) > auditOld {
		least = 1
	}
	for {
		if sealed, err := n.SealAudit(ctx, least); err != nil || sealed < maxAuditSeal {
			return err
		}
	}
}

// sealBound seals what commands have left.
func (n *Node) sealBound() {
	if n.audited.Load() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), auditBefore)
	defer cancel()
	if _, err := n.SealAudit(ctx, auditBound); err != nil {
		n.log.Warn("the audit log is not sealed", "err", err)
	}
}

// SealAudit moves the oldest entries of the audit log out of the ledger into a block, if there are at least so many, and
// tells how many there were in it. Others may do the same: one of them succeeds.
func (n *Node) SealAudit(ctx context.Context, least int) (sealed int, err error) {
	s, err := n.readAudit(ctx, false)
	if err != nil || len(s.log) < max(least, 1) {
		return 0, err
	}
	log, heads := s.log[:min(len(s.log), maxAuditSeal)], s.heads[:min(len(s.heads), maxAuditHeads)]
	b := auditBlock{Parents: heads, Sealed: time.Now().UTC(), By: n.self}
	t := Txn{ID: NewRequestID(), If: []Cond{{Key: log[0].Key, Version: log[0].Version}}}
	var before [][]byte
	var roots []cid.Cid
	for i, h := range heads {
		before, roots = append(before, h.Sum), append(roots, h.Root.Cid)
		b.Count += h.Count
		t.If = append(t.If, Cond{Key: s.headKeys[i].Key, Version: s.headKeys[i].Version})
		t.Delete = append(t.Delete, s.headKeys[i].Key)
	}
	sum := auditStart(before)
	for _, e := range log {
		sum = auditNext(sum, e.Version, e.Value)
		b.Entries = append(b.Entries, auditSealed{e.Version, e.Value})
		t.Delete = append(t.Delete, e.Key)
	}
	b.Sum, b.Count = sum[:], b.Count+uint64(len(log))
	block, err := EncodeBlock(b)
	if err != nil {
		return 0, err
	}
	root := Link{block.CID()}
	defer n.Hold(append(roots, root.Cid)...)()
	if err := n.Ensure(ctx, roots); err != nil {
		return 0, Errorf(CodeOf(err), "earlier blocks of the audit log: %w", err)
	}
	if err := n.Blocks.Put(ctx, block); err != nil {
		return 0, err
	}
	pin := Pin{Root: root, Name: auditPin}
	now := 1
	if n.realm != nil {
		pin.Replicas, now = n.copies(0)
	}
	if _, err := n.spread(ctx, pin, now); err != nil { // the entries that go were on most of the voters' disks
		return 0, err
	}
	value, err := Marshal(auditHead{root, b.Sum, b.Count})
	if err != nil {
		return 0, err
	}
	t.Put = []Entry{{Key: auditHeadKeys + root.String(), Value: value}}
	if _, err := n.Ledger.Commit(ctx, t); err != nil {
		if CodeOf(err) != Conflict {
			return 0, Errorf(CodeOf(err), "seal the audit log: %w", err)
		}
		heads, log = []auditHead{{Root: root}}, nil // somebody else was faster: the new block is not needed
	}
	for _, h := range heads {
		if err := n.Pins.Unpin(ctx, h.Root.Cid); err != nil && CodeOf(err) != NotFound {
			n.log.Debug("a block of the audit log is kept twice", "cid", h.Root, "err", err)
		}
	}
	return len(log), nil
}

// auditOver reports whether a DAG is the sealed part of the audit log.
func (n *Node) auditOver(ctx context.Context, root cid.Cid) (bool, error) {
	_, err := n.Ledger.Get(ctx, auditHeadKeys+root.String())
	if CodeOf(err) == NotFound {
		return false, nil
	}
	return err == nil, err
}
