package grid

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	stdhash "hash"
	"io"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// AuditLine is one line, a JSON document, of an audit log as it is read and exported. The first line has the kind "log",
// the last one "end". Between them come the blocks, each behind those that it leads to, and last the "tail" that no block
// has yet; the entries of each follow it.
type AuditLine struct {
	Kind string `json:"kind"` // "log", "block", "lost", "tail", "entry" or "end"

	// Of log.
	Format  int       `json:"format,omitempty"`   // 1
	Realm   string    `json:"realm,omitempty"`    // its name
	RealmID string    `json:"realm_id,omitempty"` // drawn when the realm was founded
	Made    time.Time `json:"made,omitzero"`      // when it was exported
	Since   time.Time `json:"since,omitzero"`     // what was asked for; zero: everything
	Follows []string  `json:"follows,omitempty"`  // sums of blocks that were left out because of that

	// Of block, tail and lost.
	Block   Link      `json:"block,omitzero"`
	Parents []string  `json:"parents,omitempty"` // sums of the blocks that it leads to
	Sealed  time.Time `json:"sealed,omitzero"`   // when its block was made
	Why     string    `json:"why,omitempty"`     // a block could not be had

	Entries uint64  `json:"entries,omitempty"` // that follow; of lost that are missing, of end in all
	Sum     string  `json:"sum,omitempty"`     // of the chain at its end
	By      peer.ID `json:"by,omitempty"`      // the node that exports, or has sealed
	Sig     []byte  `json:"sig,omitempty"`     // of end: of By, for all lines before

	// Of entry.
	N        uint64     `json:"n,omitempty"`        // counted from 1, the first one of the log
	Revision uint64     `json:"revision,omitempty"` // of the ledger
	Fact     *AuditFact `json:"fact,omitempty"`     // for people: Signed in the clear
	Signed   []byte     `json:"signed,omitempty"`   // the entry as the ledger has it, of which the sums are made
}

const (
	auditFormat  = 1
	maxAuditLine = 64 << 10
	auditFetch   = time.Minute // for one block
)

func exportMark(sum []byte) []byte { return append([]byte("wasmgrid audit export 1\x00"), sum...) }

// auditWriter writes lines and sums them up.
type auditWriter struct {
	w   *bufio.Writer
	all stdhash.Hash
	n   uint64 // entries so far, and those left out
	out uint64 // written
}

func (w *auditWriter) line(l AuditLine) error {
	data, err := json.Marshal(l)
	if err != nil {
		return Errorf(Internal, "audit log: %w", err)
	}
	data = append(data, '\n')
	w.all.Write(data)
	_, err = w.w.Write(data)
	return err
}

func (w *auditWriter) entries(before hash, list []auditSealed) error {
	for _, e := range list {
		before = auditNext(before, e.Revision, e.Value)
		w.n++
		w.out++
		l := AuditLine{Kind: "entry", N: w.n, Revision: e.Revision, Signed: e.Value, Sum: hex.EncodeToString(before[:])}
		var s signedFact
		var f AuditFact
		if UnmarshalMessage(e.Value, &s) == nil && UnmarshalMessage(s.Fact, &f) == nil {
			l.Fact = &f
		}
		if err := w.line(l); err != nil {
			return err
		}
	}
	return nil
}

// ExportAudit writes the audit log, as [AuditLine]s. With since, blocks that were sealed before are left out. What it
// writes is signed by this node, and is for [CheckAudit] to check.
func (n *Node) ExportAudit(ctx context.Context, since time.Time, to io.Writer) error {
	s, err := n.readAudit(ctx, false)
	if err != nil {
		return err
	}
	st, err := n.Ledger.Status(ctx)
	if err != nil {
		return err
	}
	way, follows, err := n.auditBlocks(ctx, s.heads, since)
	if err != nil {
		return err
	}
	w := &auditWriter{w: bufio.NewWriter(to), all: sha256.New()}
	head := AuditLine{Kind: "log", Format: auditFormat, Realm: st.Realm, RealmID: st.RealmID, Made: time.Now().UTC(), Since: since, By: n.self}
	for _, f := range follows {
		head.Follows = append(head.Follows, hex.EncodeToString(f.Sum))
		w.n += f.Count
	}
	if err := w.line(head); err != nil {
		return err
	}
	for _, at := range way {
		if err := n.exportBlock(ctx, w, at); err != nil {
			return err
		}
	}
	tail := AuditLine{Kind: "tail", Entries: uint64(len(s.log))}
	var before [][]byte
	for _, h := range s.heads {
		before = append(before, h.Sum)
		tail.Parents = append(tail.Parents, hex.EncodeToString(h.Sum))
	}
	start := auditStart(before)
	sum, list := start, make([]auditSealed, 0, len(s.log))
	for _, e := range s.log {
		sum = auditNext(sum, e.Version, e.Value)
		list = append(list, auditSealed{e.Version, e.Value})
	}
	tail.Sum = hex.EncodeToString(sum[:])
	if err := errors.Join(w.line(tail), w.entries(start, list)); err != nil {
		return err
	}
	end := AuditLine{Kind: "end", Entries: w.out, Sum: tail.Sum, By: n.self}
	if end.Sig, err = n.Key.Sign(exportMark(w.all.Sum(nil))); err != nil {
		return Errorf(Internal, "audit log: %w", err)
	}
	if err := w.line(end); err != nil {
		return err
	}
	return w.w.Flush()
}

// auditStep is a block on the way through the log.
type auditStep struct {
	auditHead
	lost error // why it cannot be read
}

func (n *Node) auditBlock(ctx context.Context, root Link) (auditBlock, error) {
	ctx, cancel := context.WithTimeout(ctx, auditFetch)
	defer cancel()
	data, err := n.block(ctx, root.Cid)
	if err != nil {
		return auditBlock{}, err
	}
	return decodeAuditBlock(data)
}

// auditBlocks lists the blocks, each behind those that it leads to, and those that are left out.
func (n *Node) auditBlocks(ctx context.Context, heads []auditHead, since time.Time) (way []auditStep, follows []auditHead, err error) {
	seen := make(map[cid.Cid]bool)
	type visit struct {
		auditStep
		done bool // what it leads to was visited
	}
	var stack []visit
	for _, h := range slices.Backward(heads) {
		stack = append(stack, visit{auditStep: auditStep{auditHead: h}})
	}
	for len(stack) > 0 {
		v := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if v.done {
			way = append(way, v.auditStep)
			continue
		}
		if seen[v.Root.Cid] {
			continue
		}
		seen[v.Root.Cid] = true
		b, err := n.auditBlock(ctx, v.Root)
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case err != nil:
			v.lost = err
		case b.Sealed.Before(since):
			follows = append(follows, v.auditHead)
			continue
		}
		v.done = true
		stack = append(stack, v)
		for _, p := range slices.Backward(b.Parents) {
			stack = append(stack, visit{auditStep: auditStep{auditHead: p}})
		}
	}
	return way, follows, nil
}

func (n *Node) exportBlock(ctx context.Context, w *auditWriter, at auditStep) error {
	l := AuditLine{Kind: "block", Block: at.Root, Sum: hex.EncodeToString(at.Sum)}
	var b auditBlock
	if at.lost == nil {
		b, at.lost = n.auditBlock(ctx, at.Root)
	}
	if at.lost != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.Kind, l.Why, l.Entries = "lost", clean(at.lost.Error(), maxAuditNote), at.Count
		w.n = max(w.n, at.Count)
		return w.line(l)
	}
	l.Sealed, l.By, l.Entries = b.Sealed, b.By, uint64(len(b.Entries))
	var before [][]byte
	for _, p := range b.Parents {
		before = append(before, p.Sum)
		l.Parents = append(l.Parents, hex.EncodeToString(p.Sum))
	}
	if err := w.line(l); err != nil {
		return err
	}
	return w.entries(auditStart(before), b.Entries)
}

// AuditReport is what checking an audit log came to.
type AuditReport struct {
	Realm    string         `json:"realm"`
	RealmID  string         `json:"realm_id"`
	Made     time.Time      `json:"made"`
	By       peer.ID        `json:"by"` // the node that exported it, and signed that
	Since    time.Time      `json:"since,omitzero"`
	Entries  uint64         `json:"entries"`
	Blocks   uint64         `json:"blocks"`
	Sum      string         `json:"sum"` // of the chain at its end: two copies with the same one are the same log
	Problems []AuditProblem `json:"problems"`
	More     uint64         `json:"more_problems,omitempty"` // than are listed
}

// OK reports whether nothing is wrong.
func (r *AuditReport) OK() bool { return len(r.Problems) == 0 }

// AuditProblem is something wrong with an audit log.
type AuditProblem struct {
	Line  uint64 `json:"line"`            // of the file; 0: its end
	Entry uint64 `json:"entry,omitempty"` // its number, if it is about one
	What  string `json:"what"`
}

const maxAuditProblems = 100

// auditCheck is a check under way.
type auditCheck struct {
	AuditReport
	all    stdhash.Hash
	sums   map[string]bool // of blocks so far
	line   uint64
	want   uint64     // number of the next entry; 0: any
	part   *AuditLine // block or tail whose entries come
	left   uint64     // of its entries
	at     hash       // the chain so far
	broken bool       // something before explains why the chain does not fit
	tail   bool
	ended  bool
}

func (c *auditCheck) problem(entry uint64, format string, args ...any) {
	if len(c.Problems) >= maxAuditProblems {
		c.More++
		return
	}
	c.Problems = append(c.Problems, AuditProblem{Line: c.line, Entry: entry, What: fmt.Sprintf(format, args...)})
}

// CheckAudit checks what [Node.ExportAudit] wrote: that every entry was signed by its node, that the chain has all of
// them in their order, and that the file is whole. Each entry is given to each, checked or not, unless that is nil. What
// is wrong is in the report; an error is one of r or of each.
func CheckAudit(r io.Reader, each func(*AuditLine) error) (AuditReport, error) {
	c := &auditCheck{all: sha256.New(), sums: make(map[string]bool)}
	c.Problems = []AuditProblem{}
	in := bufio.NewReaderSize(r, maxAuditLine)
	for {
		data, err := in.ReadSlice('\n')
		if err == io.EOF && len(data) == 0 {
			break
		}
		c.line++
		switch {
		case err == bufio.ErrBufferFull:
			return c.AuditReport, Errorf(Invalid, "line %d has more than %d bytes: this is no audit log", c.line, maxAuditLine).Hint("`grid audit --export FILE` writes one")
		case err != nil && err != io.EOF:
			return c.AuditReport, err
		}
		var l AuditLine
		if jerr := json.Unmarshal(data, &l); jerr != nil || err == io.EOF {
			if c.line == 1 {
				return c.AuditReport, Errorf(Invalid, "this is no audit log").Hint("`grid audit --export FILE` writes one")
			}
			c.problem(0, "the line is damaged, or cut")
			c.broken = true
			c.all.Write(data)
			continue
		}
		if c.line == 1 && (l.Kind != "log" || l.Format != auditFormat) {
			return c.AuditReport, Errorf(Invalid, "this is no audit log of format %d", auditFormat).Hint("`grid audit --export FILE` writes one")
		}
		if again, err := json.Marshal(l); l.Kind == "end" && (err != nil || string(again)+"\n" != string(data)) {
			c.problem(0, "the end was changed") // no signature is over it
		}
		c.check(&l)
		c.all.Write(data)
		if l.Kind == "entry" && each != nil {
			if err := each(&l); err != nil {
				return c.AuditReport, err
			}
		}
	}
	if c.line == 0 {
		return c.AuditReport, Errorf(Invalid, "the file is empty").Hint("`grid audit --export FILE` writes an audit log")
	}
	c.line = 0
	c.endPart()
	if !c.ended {
		c.problem(0, "the end is missing: the file was cut behind entry %d", max(c.want, 1)-1)
	}
	return c.AuditReport, nil
}

func (c *auditCheck) check(l *AuditLine) {
	if c.ended {
		c.problem(0, "there is more behind the end")
		return
	}
	switch l.Kind {
	case "log":
		if c.line > 1 {
			c.problem(0, "another log begins")
			return
		}
		c.Realm, c.RealmID, c.Made, c.By, c.Since = l.Realm, l.RealmID, l.Made, l.By, l.Since
		for _, s := range l.Follows {
			c.sums[s] = true
		}
		if len(l.Follows) == 0 {
			c.want = 1
		}
	case "block", "tail":
		c.endPart()
		c.begin(l)
	case "lost":
		c.endPart()
		c.problem(0, "the block %s, up to which there were %d entries, could not be read: %s", l.Block, l.Entries, l.Why)
		c.sums[l.Sum] = true
		c.want = 0
	case "entry":
		c.entry(l)
	case "end":
		c.endPart()
		c.end(l)
	default:
		c.problem(0, "a line of the kind %.40q", l.Kind)
	}
}

// begin begins a block, or the tail.
func (c *auditCheck) begin(l *AuditLine) {
	if c.tail {
		c.problem(0, "a part comes behind the tail")
	}
	c.tail = l.Kind == "tail"
	if !c.tail {
		c.Blocks++
	}
	var before [][]byte
	for _, p := range l.Parents {
		sum, err := hex.DecodeString(p)
		if err != nil || len(sum) != hashLen || !c.sums[p] {
			c.problem(0, "it leads to a block with the sum %.64s, which is not before it: a block is missing, or was moved or changed", p)
		}
		before = append(before, sum)
	}
	c.part, c.left, c.at, c.broken = l, l.Entries, auditStart(before), false
}

// endPart checks that a block or the tail was whole.
func (c *auditCheck) endPart() {
	if c.part == nil {
		return
	}
	what := "the tail"
	if c.part.Kind == "block" {
		what = "block " + c.part.Block.String()
	}
	switch {
	case c.left > 0:
		c.problem(0, "%s lacks %d of its entries", what, c.left)
	case hex.EncodeToString(c.at[:]) != c.part.Sum:
		c.problem(0, "%s does not end with its sum: entries of it were changed, or its line was", what)
	}
	c.sums[c.part.Sum] = true
	c.Sum, c.part = c.part.Sum, nil
}

func (c *auditCheck) entry(l *AuditLine) {
	c.Entries++
	explained := c.broken
	c.broken = false
	switch {
	case c.part == nil:
		c.problem(l.N, "it belongs to no block")
		c.part, explained = &AuditLine{Kind: "tail", Sum: l.Sum}, true
	case c.left == 0 && !explained:
		c.problem(l.N, "there are more than its block has")
	}
	switch {
	case c.want == 0 || l.N == c.want:
	case l.N > c.want:
		if l.N == c.want+1 {
			c.problem(c.want, "it is missing")
		} else {
			c.problem(c.want, "it is missing, and so are all up to %d", l.N-1)
		}
		c.left -= min(c.left, l.N-c.want)
		explained = true
	default:
		c.problem(l.N, "it is out of its order: %d should be here", c.want)
		c.left++ // it was counted as missing
		explained = true
	}
	c.left -= min(c.left, 1)
	c.want = max(c.want, l.N+1)
	f, err := openFact(l.Signed)
	switch {
	case err != nil:
		c.problem(l.N, "it was changed: %v", err)
	case l.Fact == nil || !sameFact(&f, l.Fact):
		c.problem(l.N, "it was changed: what it says in the clear is not what node %s has signed", f.Node)
	}
	sum, herr := hex.DecodeString(l.Sum)
	next := auditNext(c.at, l.Revision, l.Signed)
	if fits := herr == nil && string(sum) == string(next[:]); !fits && !explained && err == nil {
		c.problem(l.N, "it does not follow from the one before: entries were changed, added, removed or moved here")
	}
	c.at = hash{}
	copy(c.at[:], sum) // each that follows is judged by itself
}

func sameFact(a, b *AuditFact) bool {
	x, err := Marshal(a)
	y, err2 := Marshal(b)
	return err == nil && err2 == nil && string(x) == string(y)
}

// end checks what the exporting node has signed.
func (c *auditCheck) end(l *AuditLine) {
	c.ended = true
	if l.Sum != c.Sum {
		c.problem(0, "the chain ends with another sum than the end says")
	}
	if !c.tail {
		c.problem(0, "the tail is missing")
	}
	if l.Entries != c.Entries {
		c.problem(0, "there are %d entries, the end says %d", c.Entries, l.Entries)
	}
	if l.By != c.By {
		c.problem(0, "it begins as the export of node %s, and ends as that of %s", c.By, l.By)
		return
	}
	pub, err := l.By.ExtractPublicKey()
	if err != nil {
		c.problem(0, "the node %.80q that exported it has no usable key", l.By.String())
		return
	}
	if ok, err := pub.Verify(exportMark(c.all.Sum(nil)), l.Sig); err != nil || !ok {
		c.problem(0, "this is not what node %s has exported: something in it was changed", l.By)
	}
}
