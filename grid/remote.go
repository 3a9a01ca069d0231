package grid

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What the nodes of a realm ask the owner of a job. Who is the owner is for the ledger to say, and so is how
// a job ended: an owner tells only of what runs with it, and of nothing that it has not booked.
const (
	protoJob    Protocol = "job/1"        // any node to owner: jobMsg, jobReply
	protoCancel Protocol = "job-cancel/1" // any node to owner: cancelMsg, nothing
	protoWatch  Protocol = "job-watch/1"  // any node to owner, a stream: followMsg, then followFrames
	protoTasks  Protocol = "job-tasks/1"  // the same
	protoEvents Protocol = "job-events/1" // the same
)

type (
	jobMsg struct {
		Jobs []JobID `cbor:"jobs"`
	}
	jobReply struct {
		Asked int          `cbor:"asked"` // how many of the list, from its beginning, the reply is about
		Jobs  []jobPicture `cbor:"jobs"`  // those of them that run here
	}
	// jobPicture is what only the owner knows of a job.
	jobPicture struct {
		Job    JobID         `cbor:"job"`
		Epoch  Epoch         `cbor:"epoch"`
		Name   string        `cbor:"name,omitempty"`
		Note   string        `cbor:"note,omitempty"`
		Stages []StageStatus `cbor:"stages"`
	}
	cancelMsg struct {
		Job   JobID `cbor:"job"`
		Epoch Epoch `cbor:"epoch"`
	}
	// followMsg begins a stream.
	followMsg struct {
		Job    JobID  `cbor:"job"`
		Epoch  Epoch  `cbor:"epoch,omitempty"`  // that From is of
		From   uint64 `cbor:"from,omitempty"`   // tasks, in order of completion, that are known already; or the time of the last event that is
		Follow bool   `cbor:"follow,omitempty"` // go on until the job ends
	}
	// followFrame is one item of a stream; without any field it is a sign of life.
	followFrame struct {
		Epoch   Epoch       `cbor:"epoch,omitempty"`
		Picture *jobPicture `cbor:"picture,omitempty"`
		Tasks   []taskItem  `cbor:"tasks,omitempty"`
		Events  []JobEvent  `cbor:"events,omitempty"`
		Next    uint64      `cbor:"next,omitempty"` // the From that comes behind Tasks
		End     bool        `cbor:"end,omitempty"`  // there is no more
		Over    bool        `cbor:"over,omitempty"` // nor here: the job does not run here
		Code    Code        `cbor:"code,omitempty"` // refused
		Message string      `cbor:"message,omitempty"`
	}
	taskItem struct {
		Stage uint32          `cbor:"stage"`
		Done  cbor.RawMessage `cbor:"done"` // a Completion
	}
)

// Bounds on these conversations.
const (
	maxAsked         = 4096    // jobs of one jobMsg
	maxPictures      = 2 << 20 // bytes of one jobReply, about
	askTimeout       = 2 * time.Second
	askAtOnce        = 64 // owners
	maxFollowMsg     = 1 << 10
	maxFollowFrame   = 1 << 20
	followBatch      = 128 << 10 // bytes of tasks that are worth a frame
	followBeat       = 2 * time.Second
	followSilence    = 10 * time.Second // until a peer that should beat is given up
	followPatience   = time.Minute      // until a peer that does not read is
	followersPerPeer = 64
	followersInAll   = 512
	quietCheck       = time.Second // how often it is looked whether a quiet job still runs here
)

// serveJobs answers the realm's questions about the jobs that run here.
func (n *Node) serveJobs() {
	serveCall(n, protoJob, n.onJob)
	serveCall(n, protoCancel, n.onCancel)
	n.serveWhy()
	n.serveFollow(protoWatch, n.feedPictures)
	n.serveFollow(protoTasks, n.feedTasks)
	n.serveFollow(protoEvents, n.feedEvents)
	n.serveFeed(protoTaskLog, n.feedTaskLog)
}

// rollAge is how old a node's idea of who is in its realm may be.
const rollAge = time.Second

// roll is who the ledger says is of the realm, up or not.
type roll struct {
	mu   sync.Mutex
	read time.Time
	all  map[peer.ID]struct{}
}

// rollCall tells which nodes are of the realm; none when the ledger says nothing of nodes. The map is not to be
// written.
func (n *Node) rollCall(ctx context.Context) (map[peer.ID]struct{}, error) {
	r := &n.roll
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all != nil && time.Since(r.read) < rollAge {
		return r.all, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all, err := n.realmNodes(ctx, true)
	if err != nil {
		if r.all != nil {
			r.read = time.Now() // a ledger that is silent is not asked for each stranger's every word
			return r.all, nil   // as it was
		}
		return nil, err
	}
	r.all, r.read = all, time.Now()
	return all, nil
}

// realmNodes reads who is of the realm: who is up, and members. Those that were removed are still on the list, as such.
func (n *Node) realmNodes(ctx context.Context, stale bool) (map[peer.ID]struct{}, error) {
	all := make(map[peer.ID]struct{})
	for _, prefix := range []string{NodeKeys, MemberKeys} {
		if _, err := RangeAll(ctx, n.Ledger, prefix, stale, func(e Entry) error {
			id, err := peer.Decode(strings.TrimPrefix(e.Key, prefix))
			if err != nil {
				return nil
			}
			var member struct {
				Removed bool `cbor:"removed"`
			}
			if prefix == MemberKeys && Unmarshal(e.Value, &member) == nil && member.Removed {
				delete(all, id)
			} else {
				all[id] = struct{}{}
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// checkRealm refuses peers that the ledger does not name as nodes of the realm, once it names any.
func (n *Node) checkRealm(ctx context.Context, from peer.ID) error {
	if from == n.self || n.realm != nil && n.realm.isUp(from) {
		return nil
	}
	all, err := n.rollCall(ctx)
	if err != nil {
		return err
	}
	if _, ok := all[from]; ok || len(all) == 0 {
		return nil
	}
	return Errorf(Denied, "node %s is not of this realm", from).Hint("ask a node that is; `grid ledger status` lists them")
}

// isUp reports whether a node is known to be up.
func (r *realm) isUp(id peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, up := r.nodes[id]
	return up
}

// gone reports whether a node is known to be down, so that waiting for it would be in vain.
func (n *Node) gone(id peer.ID) bool {
	if n.realm == nil || !isClosed(n.realm.known) || n.realm.isUp(id) {
		return false
	}
	return !n.connected(id)
}

// runs reports whether a job runs here still.
func (n *Node) runs(j *job) bool {
	j.mu.Lock()
	lost := j.lost
	j.mu.Unlock()
	return !lost && n.job(j.rec.ID) == j
}

func (n *Node) connected(id peer.ID) bool {
	return id == n.self || slices.ContainsFunc(n.Network.Peers(), func(p PeerInfo) bool { return p.ID == id })
}

// live are those of some nodes that are connected, this one aside.
func (n *Node) live(ids ...peer.ID) []peer.ID {
	var out []peer.ID
	for _, p := range n.Network.Peers() {
		if p.ID != n.self && slices.Contains(ids, p.ID) {
			out = append(out, p.ID)
		}
	}
	return out
}

func (j *job) picture() (p *jobPicture, final bool, changed <-chan struct{}) {
	note := j.unplaced()
	j.mu.Lock()
	defer j.mu.Unlock()
	return &jobPicture{Job: j.rec.ID, Epoch: j.rec.Epoch, Name: j.spec.Name, Note: j.noteOr(note), Stages: j.summary()}, j.rec.State.Final(), j.changed
}

// fit leaves out who ran what where that would be too much for a frame.
func (p *jobPicture) fit() *jobPicture {
	if p.size() > maxFollowFrame/2 {
		for i := range p.Stages {
			p.Stages[i].Nodes = map[string]uint32{}
		}
	}
	return p
}

// size is about how long the picture is when encoded.
func (p *jobPicture) size() int {
	n := 128 + len(p.Name)
	for i := range p.Stages {
		n += 128 + len(p.Stages[i].Name) + 72*len(p.Stages[i].Nodes) + metricsSize(p.Stages[i].Metrics)
	}
	return n
}

func (n *Node) onJob(ctx context.Context, from peer.ID, m jobMsg) (jobReply, error) {
	if err := n.checkRealm(ctx, from); err != nil {
		return jobReply{}, err
	}
	if len(m.Jobs) > maxAsked {
		return jobReply{}, Errorf(Limit, "asked about %d jobs at once, at most %d are allowed", len(m.Jobs), maxAsked)
	}
	r := jobReply{Jobs: []jobPicture{}}
	size := 0
	for _, id := range m.Jobs {
		if size > maxPictures {
			break
		}
		r.Asked++
		if j := n.own(id); j != nil {
			if p, final, _ := j.picture(); !final {
				size += p.size()
				r.Jobs = append(r.Jobs, *p)
			}
		}
	}
	return r, nil
}

// ask asks a node about jobs that it should own. What is not in the answer does not run there.
func (n *Node) ask(ctx context.Context, owner peer.ID, ids []JobID) (map[JobID]*jobPicture, error) {
	if n.gone(owner) {
		return nil, Errorf(Unavailable, "node %s is down", owner)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out := make(map[JobID]*jobPicture)
	for len(ids) > 0 {
		some := ids[:min(len(ids), maxAsked)]
		r, err := call[jobReply](ctx, n, owner, protoJob, jobMsg{Jobs: some})
		if err != nil {
			return nil, err
		}
		if r.Asked <= 0 || r.Asked > len(some) {
			return nil, Errorf(Invalid, "node %s answered for %d of %d jobs", owner, r.Asked, len(some))
		}
		for i := range r.Jobs {
			if p := &r.Jobs[i]; p.check() == nil {
				out[p.Job] = p
			}
		}
		ids = ids[r.Asked:]
	}
	return out, nil
}

// check refuses pictures of no job that can be.
func (p *jobPicture) check() error {
	if len(p.Stages) > MaxStages || len(p.Name) > MaxName {
		return Errorf(Invalid, "a picture of job %.40q with %d stages", p.Job, len(p.Stages))
	}
	return nil
}

// feed is the owner's end of a stream.
type feed struct {
	s   Stream
	buf []byte
}

func (f *feed) send(fr any) error {
	var err error
	if f.buf, err = appendFrame(f.buf[:0], fr); err != nil {
		return err
	}
	if err := f.s.SetDeadline(time.Now().Add(followPatience)); err != nil {
		return err
	}
	_, err = f.s.Write(f.buf)
	return err
}

// appendFrame encodes v behind its length.
func appendFrame(dst []byte, v any) ([]byte, error) {
	data, err := Marshal(v)
	if err != nil {
		return dst, err
	}
	return append(binary.AppendUvarint(dst, uint64(len(data))), data...), nil
}

// readFrame decodes what appendFrame wrote, of at most so many bytes.
func readFrame(r *bufio.Reader, most int, v any) error {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	if size > uint64(most) {
		return Errorf(Limit, "a frame of %d bytes, at most %d are allowed", size, most)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	return UnmarshalMessage(data, v)
}

// serveFollow serves streams of a protocol with f, which sends frames until there is no more to say.
func (n *Node) serveFollow(p Protocol, f func(context.Context, *feed, *job, *followMsg) error) {
	n.serveFeed(p, func(ctx context.Context, from peer.ID, out *feed) error { return n.feedOne(ctx, from, out, f) })
}

// serveFeed serves streams of a protocol with f. Its error is sent as the last frame.
func (n *Node) serveFeed(p Protocol, f func(context.Context, peer.ID, *feed) error) {
	n.Network.Handle(p, func(ctx context.Context, from peer.ID, s Stream) {
		if !n.enter() {
			return
		}
		defer n.wg.Done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(n.ctx, cancel)()
		defer context.AfterFunc(ctx, func() { _ = s.Reset() })() // what waits for the peer ends with us
		out := &feed{s: s}
		err := f(ctx, from, out)
		if ctx.Err() == nil {
			Blame(s, err)
		}
		if e := (*Error)(nil); errors.As(err, &e) && ctx.Err() == nil {
			err = out.send(&followFrame{End: true, Code: e.Code, Message: clean(e.Error(), maxMessage)})
		}
		if err != nil {
			n.log.Debug("stream ended", "protocol", p, "peer", from, "err", err)
			_ = s.Reset()
			return
		}
		_ = s.SetDeadline(time.Now().Add(askTimeout)) // for its closing
	})
}

// followRoom lets one more stream of a peer follow jobs of this node, until it leaves.
func (n *Node) followRoom(from peer.ID) (leave func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.following[from] >= followersPerPeer || n.followers >= followersInAll {
		return nil, Errorf(Busy, "too many follow jobs of this node").Hint("try again later")
	}
	n.following[from]++
	n.followers++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.followers--
		if n.following[from]--; n.following[from] == 0 {
			delete(n.following, from)
		}
	}, nil
}

// admitReader lets a reader of the realm in, if there is room, and reads what it asks for into m. leave gives its room back.
func (n *Node) admitReader(ctx context.Context, from peer.ID, out *feed, m any) (leave func(), err error) {
	leave, err = n.followRoom(from)
	if err != nil {
		return nil, err
	}
	if err = n.checkRealm(ctx, from); err == nil {
		if err = out.s.SetDeadline(time.Now().Add(followSilence)); err == nil {
			err = readFrame(bufio.NewReaderSize(out.s, 512), maxFollowMsg, m)
		}
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

func (n *Node) feedOne(ctx context.Context, from peer.ID, out *feed, f func(context.Context, *feed, *job, *followMsg) error) error {
	var m followMsg
	leave, err := n.admitReader(ctx, from, out, &m)
	if err != nil {
		return err
	}
	defer leave()
	j := n.own(m.Job)
	if j == nil {
		return out.send(&followFrame{End: true, Over: true})
	}
	return f(ctx, out, j, &m)
}

// feedPictures sends pictures of a job until it ends.
func (n *Node) feedPictures(ctx context.Context, out *feed, j *job, _ *followMsg) error {
	for {
		p, final, changed := j.picture()
		if final || !n.runs(j) {
			return out.send(&followFrame{End: true, Over: !final})
		}
		if err := out.send(&followFrame{Epoch: p.Epoch, Picture: p.fit()}); err != nil {
			return err
		}
		for {
			news, err := n.settle(ctx, j, changed, followBeat)
			if err != nil {
				return err
			}
			if news || !n.runs(j) {
				break
			}
			if err := out.send(&followFrame{}); err != nil {
				return err
			}
		}
	}
}

// feedTasks sends the tasks of a job that have ended, in order of completion.
func (n *Node) feedTasks(ctx context.Context, out *feed, j *job, m *followMsg) error {
	j.mu.Lock()
	epoch, next := j.rec.Epoch, 0
	if m.Epoch == epoch {
		next = int(min(m.From, uint64(len(j.order))))
	}
	j.mu.Unlock()
	if err := out.send(&followFrame{Epoch: epoch, Next: uint64(next)}); err != nil {
		return err
	}
	for {
		j.mu.Lock()
		refs, changed, final := j.order[next:], j.changed, j.rec.State.Final()
		j.mu.Unlock()
		for len(refs) > 0 {
			fr := &followFrame{Epoch: epoch}
			size := 0
			j.mu.Lock()
			for len(refs) > 0 && size < followBatch {
				data := j.stages[refs[0].stage].results[refs[0].index]
				fr.Tasks = append(fr.Tasks, taskItem{refs[0].stage, data})
				size += len(data)
				refs = refs[1:]
			}
			j.mu.Unlock()
			next += len(fr.Tasks)
			fr.Next = uint64(next)
			if err := out.send(fr); err != nil {
				return err
			}
		}
		if final || !m.Follow {
			return out.send(&followFrame{End: true})
		}
		beat := time.NewTimer(followBeat)
		select {
		case <-changed:
		case <-beat.C:
			if !n.runs(j) {
				return out.send(&followFrame{End: true, Over: true})
			}
			if err := out.send(&followFrame{}); err != nil {
				return err
			}
		case <-ctx.Done():
		}
		beat.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// errElsewhere says that a job does not run with the node that was asked.
var errElsewhere = Errorf(NotFound, "the job does not run there")

// followOwner opens a stream to a job's owner and calls f with its frames until the last one. The error is
// errElsewhere when the job does not run there.
func (n *Node) followOwner(ctx context.Context, owner peer.ID, p Protocol, m *followMsg, f func(*followFrame) error) error {
	return followStream(ctx, n, owner, p, m, func(fr *followFrame) (end bool, err error) {
		switch {
		case fr.Code != 0:
			return true, Errorf(fr.Code, "node %s: %s", owner, clean(fr.Message, maxMessage))
		case fr.Over:
			return true, errElsewhere
		}
		return fr.End, f(fr)
	})
}

// followStream opens a stream to a peer, sends m, and calls f with the frames that come, until that says that one was the last.
func followStream[Frame any](ctx context.Context, n *Node, to peer.ID, p Protocol, m any, f func(*Frame) (end bool, err error)) error {
	open, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := n.Network.Open(open, to, p)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	defer s.Reset()
	req, err := appendFrame(nil, m)
	if err != nil {
		return err
	}
	if err := s.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	if _, err := s.Write(req); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s, 64<<10)
	for {
		var fr Frame
		switch err := readFrame(r, maxFollowFrame, &fr); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return Errorf(CodeOf(err), "%s of node %s: %w", p, to, err)
		}
		if end, err := f(&fr); err != nil || end {
			return err
		}
		if err := s.SetDeadline(time.Now().Add(followSilence)); err != nil {
			return err
		}
	}
}
