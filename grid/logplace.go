package grid

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"io"
	"slices"
	"sort"
)

// Where a reader of a job's logs is cannot be said by a number: tasks end in any order, print at the same time, and the job may go to
// another owner. It is said by what has been given: the tasks of which all was, as spans, and of those of which a part was, how many
// bytes. Any node can go on from that. It is short as tasks end about in order; when it would be longer than maxLogPlace, there is none.

// Bounds on a place.
const (
	maxLogPlace = 4 << 10 // bytes of its text
	maxLogSpans = 1 << 9
	maxLogOpen  = 1 << 7
)

// logPlace is a place as it is encoded: in CBOR, in base64 for URLs without padding.
type logPlace struct {
	_     struct{}   `cbor:",toarray"`
	Job   JobID      // its first letters
	Given uint64     // lines
	Ended []uint32   // stage, lo and hi of spans of tasks of which all was given, in order
	Open  []openTask // those of which a part was
}

// openTask is how much was given of one attempt at a task.
type openTask struct {
	_            struct{} `cbor:",toarray"`
	Stage, Index uint32
	Mark         uint64 // of the attempt
	Out, Err     uint64 // bytes
}

func (p *logPlace) encode() string {
	data, err := Marshal(p)
	if err != nil || base64.RawURLEncoding.EncodedLen(len(data)) > maxLogPlace {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// parseLogPlace reads the place of a reader of a job's logs; "" is the beginning.
func parseLogPlace(text string, id JobID) (p logPlace, err error) {
	if text == "" {
		return p, nil
	}
	bad := func() (logPlace, error) {
		return logPlace{}, Errorf(Invalid, "%.40q is no place in the logs of job %s", text, id).Hint("give the id of the last event as it came, or none to begin anew")
	}
	if len(text) > maxLogPlace {
		return bad()
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || UnmarshalMessage(data, &p) != nil || p.Job != placeJob(id) || len(p.Ended)%3 != 0 || len(p.Ended) > 3*maxLogSpans || len(p.Open) > maxLogOpen {
		return bad()
	}
	last := taskSpan{}
	for _, s := range p.spans() {
		if s.stage >= MaxStages || s.Lo >= s.Hi || s.Hi > MaxTasks || last.Hi > 0 && (s.stage < last.stage || s.stage == last.stage && s.Lo <= last.Hi) {
			return bad()
		}
		last = s
	}
	for _, o := range p.Open {
		if o.Stage >= MaxStages || o.Index >= MaxTasks || max(o.Out, o.Err) > 1<<62 {
			return bad()
		}
	}
	return p, nil
}

func (p *logPlace) spans() (list []taskSpan) {
	for s := range slices.Chunk(p.Ended, 3) {
		list = append(list, taskSpan{s[0], Span{s[1], s[2]}})
	}
	return list
}

// placeJob is what a place has of a job's ID.
func placeJob(id JobID) JobID { return id[:min(len(id), 12)] }

// markOf tells attempts at one task apart, by where and when they began.
func markOf(node string, began int64) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, node)
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(began)))
	return h.Sum64()
}

// taskSpan is tasks of one stage.
type taskSpan struct {
	stage uint32
	Span
}

// endedTasks is a set of tasks that is known as spans, too, while these are few. The zero value is empty.
type endedTasks struct {
	set  taskSet
	runs int        // how many spans there are
	list []taskSpan // all of them, in order; nil when they are too many
}

func (e *endedTasks) has(stage, index uint32) bool { return e.set.has(stage, index) }

func (e *endedTasks) add(stage, index uint32) {
	if e.set == nil {
		e.set = make(taskSet)
	}
	if !e.set.add(stage, index) {
		return
	}
	before, after := index > 0 && e.has(stage, index-1), e.has(stage, index+1)
	listed := e.list != nil || e.runs == 0
	e.runs++
	if before {
		e.runs--
	}
	if after {
		e.runs--
	}
	switch {
	case !listed && e.runs <= maxLogSpans/2:
		e.relist()
		return
	case !listed:
		return
	case e.runs > maxLogSpans:
		e.list = nil
		return
	}
	i := sort.Search(len(e.list), func(i int) bool {
		s := &e.list[i]
		return s.stage > stage || s.stage == stage && s.Lo > index
	})
	switch {
	case before && after:
		e.list[i-1].Hi = e.list[i].Hi
		e.list = slices.Delete(e.list, i, i+1)
	case before:
		e.list[i-1].Hi++
	case after:
		e.list[i].Lo--
	default:
		e.list = slices.Insert(e.list, i, taskSpan{stage, Span{index, index + 1}})
	}
}

// relist makes the list anew.
func (e *endedTasks) relist() {
	for stage := range uint32(MaxStages) {
		bits := e.set[stage]
		for i := uint32(0); int(i/64) < len(bits); {
			switch word := bits[i/64] >> (i % 64); {
			case word == 0:
				i = (i/64 + 1) * 64
			case word&1 == 0:
				i++
			default:
				lo := i
				for e.has(stage, i) {
					i++
				}
				e.list = append(e.list, taskSpan{stage, Span{lo, i}})
			}
		}
	}
}

// resume begins where another reader has ended.
func (r *logReader) resume(p *logPlace) {
	r.given = int(min(p.Given, 1<<62))
	for _, s := range p.spans() {
		for i := s.Lo; i < s.Hi; i++ {
			r.ended.add(s.stage, i)
		}
	}
	for _, o := range p.Open {
		l := &liveTask{mark: o.Mark, resumed: true}
		for i, n := range [2]uint64{o.Out, o.Err} {
			l.out[i] = liveStream{had: n, given: n, gap: n > 0} // what that was is not known here
		}
		ref := taskRef{o.Stage, o.Index}
		r.now[ref], r.open[ref] = l, l
	}
}

// place is where the reader is; "" when that takes too many words.
func (r *logReader) place() string {
	if r.ended.runs > maxLogSpans || r.ended.runs > 0 && r.ended.list == nil || len(r.open) > maxLogOpen {
		return ""
	}
	p := &logPlace{Job: placeJob(r.id), Given: uint64(r.given), Ended: make([]uint32, 0, 3*len(r.ended.list))}
	for _, s := range r.ended.list {
		p.Ended = append(p.Ended, s.stage, s.Lo, s.Hi)
	}
	for ref, l := range r.open {
		p.Open = append(p.Open, openTask{Stage: ref.stage, Index: ref.index, Mark: l.mark, Out: l.out[0].given, Err: l.out[1].given})
	}
	return p.encode()
}
