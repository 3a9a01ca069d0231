package grid

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/ipfs/go-cid"
)

const (
	// maxLine bounds a line of records that a node divides or merges.
	maxLine = 64 << 20
	// smallPart is how many bytes a part may have that is stored together with others, partsBatch how many those have.
	smallPart  = 256 << 10
	partsBatch = 4 << 20
)

// lineKey is what a line, without its end, is sorted by: what precedes its first tab.
func lineKey(line []byte) []byte {
	if i := bytes.IndexByte(line, '\t'); i >= 0 {
		return line[:i]
	}
	return line
}

// partOf is the part that a key belongs to, of so many: FNV-1a of 64 bits, its halves combined by exclusive or, modulo
// their number. Every node must come to the same.
func partOf(key []byte, parts uint32) uint32 {
	h := uint64(14695981039346656037)
	for _, c := range key {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return (uint32(h>>32) ^ uint32(h)) % parts
}

// lines is text divided into parts, each of its lines in order of key, those of one key as they were.
type lines struct {
	text  []byte
	at    []uint32 // where each line begins, part by part
	ends  []int    // where the lines of each part end in at
	sizes []int64  // of each part
}

// divideLines divides text. Its last line may lack an end.
func divideLines(text []byte, parts uint32) (*lines, error) {
	d := &lines{text: text, ends: make([]int, parts), sizes: make([]int64, parts)}
	each := func(f func(at uint32, part uint32, line []byte)) error {
		for at := 0; at < len(text); {
			line := d.line(uint32(at))
			if len(line) > maxLine {
				return Errorf(Limit, "a line of its output has %d bytes, at most %d can be divided by key", len(line), maxLine)
			}
			f(uint32(at), partOf(lineKey(line), parts), line)
			at += len(line) + 1
		}
		return nil
	}
	count := 0
	if err := each(func(_, part uint32, line []byte) {
		d.ends[part]++
		d.sizes[part] += int64(len(line)) + 1
		count++
	}); err != nil {
		return nil, err
	}
	d.at = make([]uint32, count)
	begin := 0
	for p, n := range d.ends {
		d.ends[p] = begin // for now, where the next one goes
		begin += n
	}
	_ = each(func(at, part uint32, _ []byte) {
		d.at[d.ends[part]] = at
		d.ends[part]++
	})
	var room []sortLine
	for p := range d.ends {
		room = d.sort(d.part(p), room)
	}
	return d, nil
}

// sortLine is a line that is being sorted, with the beginning of its key, by which most are told apart.
type sortLine struct {
	prefix uint64
	at     uint32
}

// maxRoom bounds the lines that are sorted with the beginnings of their keys at hand.
const maxRoom = 1 << 20

// sort sorts the lines of a part. It returns room for the next one.
func (d *lines) sort(part []uint32, room []sortLine) []sortLine {
	compare := func(a, b uint32) int {
		return cmp.Or(bytes.Compare(lineKey(d.line(a)), lineKey(d.line(b))), cmp.Compare(a, b))
	}
	if len(part) > maxRoom {
		slices.SortFunc(part, compare)
		return room
	}
	room = room[:0]
	for _, at := range part {
		var prefix [8]byte
		copy(prefix[:], lineKey(d.line(at)))
		room = append(room, sortLine{binary.BigEndian.Uint64(prefix[:]), at})
	}
	slices.SortFunc(room, func(a, b sortLine) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		return compare(a.at, b.at)
	})
	for i, l := range room {
		part[i] = l.at
	}
	return room
}

// line is the line that begins at a place, without its end.
func (d *lines) line(at uint32) []byte {
	rest := d.text[at:]
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		return rest[:i]
	}
	return rest
}

// part is where the lines of a part begin, in their order.
func (d *lines) part(p int) []uint32 {
	begin := 0
	if p > 0 {
		begin = d.ends[p-1]
	}
	return d.at[begin:d.ends[p]]
}

// reader reads a part.
func (d *lines) reader(p int) io.Reader { return &linesReader{of: d, left: d.part(p)} }

type linesReader struct {
	of   *lines
	left []uint32
	line []byte // what is left of the line that is being read
	end  bool   // and its end is to follow
}

func (r *linesReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case len(r.line) > 0:
			k := copy(p[n:], r.line)
			n, r.line = n+k, r.line[k:]
		case r.end:
			p[n] = '\n'
			n, r.end = n+1, false
		case len(r.left) > 0:
			r.line, r.end = r.of.line(r.left[0]), true
			r.left = r.left[1:]
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
	return n, nil
}

// parts has a task's output stored by parts, or checks that the task has left it so. What is wrong with it is the
// guest's fault.
func (n *Node) parts(ctx context.Context, t *Task, out *Outcome, stdout *tape) (Link, int64, error) {
	if t.Parts == 0 || out.Fault != nil || out.Exit != 0 {
		return Link{}, 0, nil
	}
	if t.Split == "" {
		return Link{}, 0, out.blame(checkParts(out.Out, t.Parts))
	}
	if out.Out != nil {
		return Link{}, 0, out.blame(Errorf(Invalid, "it left files in %s, but its output is what it prints: that is divided into parts", GuestOut))
	}
	d, err := divideLines(stdout.whole(), t.Parts)
	if err != nil {
		return Link{}, 0, out.blame(err)
	}
	entries, err := n.storeParts(ctx, d)
	if err != nil || len(entries) == 0 {
		return Link{}, 0, err
	}
	c, size, err := n.Files.AddTree(ctx, entries)
	if err != nil {
		return Link{}, 0, err
	}
	stdout.drop() // the parts are in its place
	return Link{c}, size, nil
}

// blame makes an error the guest's.
func (o *Outcome) blame(err error) error {
	if err != nil {
		o.Fault = &Fault{Code: CodeOf(err), Message: err.Error()}
	}
	return nil
}

// storeParts stores each part that is not empty as a file.
func (n *Node) storeParts(ctx context.Context, d *lines) (entries []FileInfo, err error) {
	var batch []Content
	var of []int // the entries of batch
	size := int64(0)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		links, err := n.Files.AddMany(ctx, batch)
		if err != nil {
			return err
		}
		for k, c := range links {
			entries[of[k]].CID = Link{c}
		}
		batch, of, size = batch[:0], of[:0], 0
		return nil
	}
	for p := range d.ends {
		if d.sizes[p] == 0 {
			continue
		}
		e := FileInfo{Name: gatheredName(uint32(p)), Kind: KindFile, Size: d.sizes[p]}
		if e.Size > smallPart {
			var c cid.Cid
			if c, _, err = n.Files.Add(ctx, d.reader(p)); err != nil {
				return nil, err
			}
			e.CID = Link{c}
		} else {
			data := make([]byte, e.Size)
			if _, err := io.ReadFull(d.reader(p), data); err != nil {
				return nil, Errorf(Internal, "part %d has fewer than %d bytes", p, e.Size)
			}
			batch, of, size = append(batch, Content{Data: data}), append(of, len(entries)), size+e.Size
		}
		entries = append(entries, e)
		if size > partsBatch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	return entries, flush()
}

// checkParts checks that a task has left nothing but parts.
func checkParts(out fs.FS, parts uint32) error {
	if out == nil {
		return nil
	}
	list, err := fs.ReadDir(out, ".")
	if err != nil {
		return Errorf(Invalid, "read its %s: %w", GuestOut, err)
	}
	for _, e := range list {
		p, ok := gatheredNumber(e.Name())
		if what := e.Type(); ok && p < parts && (what.IsDir() || what.IsRegular()) {
			continue
		}
		return Errorf(Invalid, "it left %s/%s, which is none of its %d parts: want files and folders %s to %s only", GuestOut,
			clean(fmt.Sprintf("%.80q", e.Name()), 400), parts, gatheredName(0), gatheredName(parts-1))
	}
	return nil
}
