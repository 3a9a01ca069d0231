package grid_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// TestSetOffload: what is offloaded is verified, unless it is said expressly that it is not to be.
func TestSetOffload(t *testing.T) {
	for _, tt := range []struct {
		offload bool
		verify  string
		want    grid.Offload
		how     string
	}{
		{false, "", grid.OffloadNone, "none"},
		{false, "quorum=3", grid.OffloadNone, "quorum=3"},
		{true, "", grid.OffloadVerified, "quorum=2"},
		{true, "audit=5", grid.OffloadVerified, "audit=5"},
		{true, "none", grid.OffloadUnverified, "none"},
	} {
		var p grid.Policy
		if err := p.SetOffload(tt.offload, tt.verify); err != nil || p.Offload != tt.want || p.Verify.String() != tt.how {
			t.Errorf("%v %q: %q, %s, %v", tt.offload, tt.verify, p.Offload, p.Verify, err)
		}
	}
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	for offload, word := range map[grid.Offload]string{grid.OffloadVerified: "believe whatever", "sure": "want"} {
		r := request(w, 1)
		r.Offload = offload
		if _, err := n.Submit(within(t), r); grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", offload, err)
		}
	}
}

// TestOffloadClass: only what is pure and granted nothing is given to strangers.
func TestOffloadClass(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*grid.Request)
		goes   bool
	}{
		{"not told", func(r *grid.Request) { r.Offload = grid.OffloadNone }, false},
		{"plain", func(*grid.Request) {}, true},
		{"impure", func(r *grid.Request) { r.Stages[0].Impure = true }, false},
		{"keys", func(r *grid.Request) { r.Stages[0].KV = []string{"a/"} }, false},
		{"network", func(r *grid.Request) { r.Stages[0].Net = []string{"example.org"} }, false},
		{"data", func(r *grid.Request) { r.Stages[0].Data = []string{grid.AnyData} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := fake.NewWorld(new(fake.Hub), "a")
			s, c := watch(w, nil)
			n := open(t, c)
			r := request(w, 1)
			r.Offload = grid.OffloadUnverified
			tt.change(&r)
			submit(t, n, r)
			cl := seen(t, s, every[grid.JobOpened]).Stages[0].Class
			if cl.Offload != tt.goes || cl.Offload != (cl.MemoryLimit > 0) {
				t.Errorf("%+v", cl)
			}
		})
	}
}

// lender is an owner of a job whose tasks a stranger has been given some of.
func lender(t *testing.T) (w *fake.World, n *grid.Node, stranger *fake.Network, id grid.JobID, inputs []cid.Cid) {
	t.Helper()
	var hub fake.Hub
	w = fake.NewWorld(&hub, "a")
	w.Scheduler = fake.NewScheduler(2)
	w.Scheduler.Give = true
	prepared := make(chan struct{}, 8)
	w.Scheduler.Seen = func(ev grid.Event) {
		if _, ok := ev.(grid.Prepared); ok {
			prepared <- struct{}{}
		}
	}
	n = open(t, w.Config())
	enter(t, w, n)
	stranger = hub.Join(nodeID("stranger"))
	r := request(w, 2)
	r.Rows = [][]grid.Row{{}}
	for _, text := range []string{"one", "two"} {
		b := grid.NewBlock(cid.Raw, []byte(text))
		if err := w.Blocks.Put(within(t), b); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, b.CID())
		r.Rows[0] = append(r.Rows[0], grid.Row{{Name: "in", CID: grid.Link{Cid: b.CID()}, Size: 3}})
	}
	r.Offload, r.NoCache = grid.OffloadUnverified, true
	id = submit(t, n, r)
	<-prepared
	return w, n, stranger, id, inputs
}

// TestStrangerReads: a stranger reads what the tasks need that it was given, while the job runs, and nothing else; and claims and
// reports no others.
func TestStrangerReads(t *testing.T) {
	w, n, stranger, id, inputs := lender(t)
	ctx := within(t)
	secret := grid.NewBlock(cid.Raw, []byte("secret"))
	if err := w.Blocks.Put(ctx, secret); err != nil {
		t.Fatal(err)
	}
	may := func(c cid.Cid) bool { return n.MayRead(ctx, stranger.Self(), c) }
	if may(w.Module.Cid) || may(inputs[0]) {
		t.Error("a stranger may read what it was not given")
	}
	call := func(p grid.Protocol, m any, reply any) error {
		data, err := grid.Marshal(m)
		if err == nil {
			data, err = stranger.Call(ctx, w.ID, p, data)
		}
		if err == nil && reply != nil {
			err = grid.Unmarshal(data, reply)
		}
		return err
	}
	if err := call(grid.ProtoReport, grid.ReportMsg{Job: id, Epoch: 1, Failed: []grid.HostFailure{{Index: 0, Code: grid.Busy}}}, nil); grid.CodeOf(err) != grid.Denied {
		t.Errorf("a report of a task that was not given: %v", err)
	}
	var reply grid.StealReply
	if err := call(grid.ProtoSteal, grid.StealMsg{Slots: 4}, &reply); err != nil || len(reply.Leases) != 2 {
		t.Fatalf("%+v, %v", reply, err)
	}
	hungUp, cancel := context.WithCancel(ctx)
	cancel()
	n.MayRead(hungUp, stranger.Self(), inputs[1]) // does not forget what is to be found out
	for name, c := range map[string]cid.Cid{"spec": reply.Leases[0].Spec.Cid, "table": reply.Leases[0].Table.Cid, "module": w.Module.Cid, "input 0": inputs[0], "input 1": inputs[1]} {
		if !may(c) {
			t.Errorf("a stranger may not read the %s of its tasks", name)
		}
	}
	if may(secret.CID()) {
		t.Error("a stranger may read anything")
	}
	if n.MayRead(ctx, nodeID("other"), w.Module.Cid) {
		t.Error("another stranger may read it, too")
	}
	if err := n.Cancel(ctx, id); err != nil {
		t.Fatal(err)
	}
	if may(w.Module.Cid) {
		t.Error("a stranger may still read it when the job has ended")
	}
}

// TestStrangerLeaves: what a stranger's task has left the stranger must send. Else it could name what it does not have, and be given
// that as the input of a later task.
func TestStrangerLeaves(t *testing.T) {
	w, n, stranger, id, _ := lender(t)
	ctx := within(t)
	secret, theirs := grid.NewBlock(cid.Raw, []byte("secret")), grid.NewBlock(cid.Raw, []byte("theirs"))
	if err := w.Blocks.Put(ctx, secret); err != nil {
		t.Fatal(err)
	}
	blocks := fake.NewBlocks()
	if err := blocks.Put(ctx, theirs); err != nil {
		t.Fatal(err)
	}
	w.Fetcher.From = append(w.Fetcher.From, blocks)
	call := func(p grid.Protocol, m, reply any) error {
		data, err := grid.Marshal(m)
		if err == nil {
			data, err = stranger.Call(ctx, w.ID, p, data)
		}
		if err == nil {
			err = grid.Unmarshal(data, reply)
		}
		return err
	}
	var got grid.StealReply
	if err := call(grid.ProtoSteal, grid.StealMsg{Slots: 4}, &got); err != nil || len(got.Leases) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, left := range []grid.Block{secret, theirs} {
		_, key, err := n.TaskKey(ctx, got.Leases[0], uint32(i))
		if err != nil {
			t.Fatal(err)
		}
		r := grid.Receipt{Key: key, Node: stranger.Self(), Stdout: grid.Output{Size: 6, CID: grid.Link{Cid: left.CID()}}}
		if err := grid.Sign(fake.Key("stranger"), &r); err != nil {
			t.Fatal(err)
		}
		m := grid.ReportMsg{Job: id, Epoch: 1, Done: []grid.Completion{{Index: uint32(i), Receipt: r}}}
		if err := call(grid.ProtoReport, m, new(grid.ReportReply)); err != nil {
			t.Fatal(err)
		}
		if st, err := n.Job(ctx, id); err != nil || st.Stages[0].Done != uint32(i) {
			t.Errorf("when it has said that it left %s: %+v, %v", left.Data(), st.Stages, err)
		}
	}
}

// TestLendsTo: whom a node lends to is a matter of two lists of nodes and realms.
func TestLendsTo(t *testing.T) {
	a, b, realm := nodeID("a"), nodeID("b"), nodeID("realm")
	for _, tt := range []struct {
		name        string
		allow, deny []peer.ID
		lends       []peer.ID
	}{
		{"to all", nil, nil, []peer.ID{a, b}},
		{"to a node", []peer.ID{a}, nil, []peer.ID{a}},
		{"to a realm", []peer.ID{realm}, nil, []peer.ID{b}},
		{"but to a realm", nil, []peer.ID{realm}, []peer.ID{a}},
		{"to both, but to a node", []peer.ID{a, realm}, []peer.ID{a}, []peer.ID{b}},
	} {
		w := fake.NewWorld(new(fake.Hub), "me")
		c := w.Config()
		c.Share = grid.Share{Slots: 1, Memory: 1 << 30, Scratch: 1 << 30, Allow: tt.allow, Deny: tt.deny}
		c.RealmOf = func(id peer.ID) peer.ID {
			if id == b {
				return realm
			}
			return ""
		}
		n := open(t, c)
		for _, id := range []peer.ID{a, b} {
			if err := n.LendsTo(id); (err == nil) != slices.Contains(tt.lends, id) || err != nil && grid.CodeOf(err) != grid.Denied {
				t.Errorf("%s: %s: %v", tt.name, id, err)
			}
		}
	}
}

// TestLentRuns: what a stranger gives is run within the share, and reads nothing of this node but what the stranger has sent.
func TestLentRuns(t *testing.T) {
	var hub fake.Hub
	w, theirs := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "stranger")
	w.Fetcher.From = []*fake.Blocks{theirs.Blocks}
	c := w.Config()
	c.Share = grid.Share{Slots: 1, Memory: 1 << 30, Scratch: 1 << 30}
	ours := c.Scheduler.(*fake.Scheduler)
	ours.Outside = true
	taken := make(chan []grid.Lease, 4)
	ours.Seen = func(ev grid.Event) {
		if e, ok := ev.(grid.StealAnswered); ok {
			taken <- slices.Clone(e.Leases)
		}
	}
	n := open(t, c)
	spec := grid.Spec{Stages: []grid.Stage{{Module: theirs.Module, Tasks: 1}}}
	if err := spec.Normalize(); err != nil {
		t.Fatal(err)
	}
	b, err := grid.EncodeBlock(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Blocks.Put(within(t), b); err != nil {
		t.Fatal(err)
	}
	good := grid.Lease{Job: "jtheirs", Owner: theirs.ID, Epoch: 1, Spec: grid.Link{Cid: b.CID()}, Span: grid.Span{Hi: 1},
		Class: grid.Class{User: "root", Offload: true, Pure: true, MemoryLimit: 512 << 20, ScratchLimit: 256 << 20}}
	give := func(l grid.Lease) []grid.Lease {
		theirs.Net.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
			return grid.Marshal(grid.StealReply{Leases: []grid.Lease{l}})
		})
		n.Do(grid.AskSteal{Victim: theirs.ID, Slots: 1, Outside: true})
		select {
		case got := <-taken:
			return got
		case <-within(t).Done():
			t.Fatal("no answer")
			return nil
		}
	}
	for name, spoil := range map[string]func(*grid.Lease){
		"not offloaded":                   func(l *grid.Lease) { l.Class.Offload = false },
		"impure":                          func(l *grid.Lease) { l.Class.Pure = false },
		"of others":                       func(l *grid.Lease) { l.Owner = nodeID("other") },
		"too large":                       func(l *grid.Lease) { l.Class.MemoryLimit = 2 << 30 },
		"too wide":                        func(l *grid.Lease) { l.Class.Cores = 2 },
		"too large, as is said elsewhere": func(l *grid.Lease) { l.Class.Memory, l.Class.MemoryLimit = 2<<30, 1 },
		"too much to write":               func(l *grid.Lease) { l.Class.Scratch = 2 << 30 },
		"waited for":                      func(l *grid.Lease) { l.Class.Depth = 1 },
	} {
		l := good
		spoil(&l)
		if got := give(l); len(got) != 0 {
			t.Errorf("%s: %+v was taken", name, got)
		}
	}
	reported := make(chan grid.ReportMsg, 1)
	theirs.Net.Serve(grid.ProtoReport, func(_ context.Context, _ peer.ID, data []byte) ([]byte, error) {
		var m grid.ReportMsg
		if err := grid.UnmarshalSmall(data, &m); err != nil {
			return nil, err
		}
		reported <- m
		return grid.Marshal(grid.ReportReply{})
	})
	ourOwn := good // its spec is here, and the stranger does not have it
	hidden, err := grid.EncodeBlock(grid.Spec{Name: "ours", Stages: spec.Stages})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Blocks.Put(within(t), hidden); err != nil {
		t.Fatal(err)
	}
	ourOwn.Job, ourOwn.Spec = "jours", grid.Link{Cid: hidden.CID()}
	give(ourOwn)
	select {
	case m := <-reported:
		if len(m.Done) != 0 || len(m.Failed) != 1 || m.Failed[0].Code != grid.NotFound {
			t.Errorf("a stranger has a job run that it only names: %+v", m)
		}
	case <-within(t).Done():
		t.Fatal("nothing was reported")
	}
	got := give(good)
	if len(got) != 1 || !got[0].Outside || !got[0].Class.Pinned || got[0].Class.User == "root" || got[0].Class.Memory != 512<<20 {
		t.Fatalf("%+v", got)
	}
	select {
	case m := <-reported:
		if len(m.Done) != 1 {
			t.Errorf("%+v", m)
		}
	case <-within(t).Done():
		t.Fatal("nothing was reported")
	}
	if v := n.ShareView(); v.Ran != 1 || v.Refused != 8 {
		t.Errorf("%+v", v)
	}
	// One that takes longer than a slot is lent for is ended, and given back.
	w.Engine.Guest = func(ctx context.Context, _ *grid.Guest) (grid.Outcome, error) {
		<-ctx.Done()
		return grid.Outcome{}, ctx.Err()
	}
	good.Job, n.Share.Time = "jlong", time.Millisecond
	if got := give(good); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	select {
	case m := <-reported:
		if len(m.Done) != 0 || len(m.Failed) != 1 || m.Failed[0].Code != grid.Busy || !strings.Contains(m.Failed[0].Message, "longer") {
			t.Errorf("%+v", m)
		}
	case <-within(t).Done():
		t.Fatal("it goes on")
	}
}

// TestVoice: a stranger gets work once it has proved of which realm it is, which the scheduler is told, and by which its results count
// from then on.
func TestVoice(t *testing.T) {
	var hub fake.Hub
	w := fake.NewWorld(&hub, "a")
	w.Scheduler = fake.NewScheduler(2)
	w.Scheduler.Give = true
	prepared, asked := make(chan struct{}, 8), make(chan grid.StealAsked, 8)
	w.Scheduler.Seen = func(ev grid.Event) {
		switch ev := ev.(type) {
		case grid.Prepared:
			prepared <- struct{}{}
		case grid.StealAsked:
			asked <- ev
		}
	}
	var proved atomic.Value
	proved.Store(peer.ID(""))
	c := w.Config()
	member := nodeID("member")
	c.RealmOf = func(id peer.ID) peer.ID {
		if id == w.ID || id == member {
			return nodeID("ours")
		}
		return proved.Load().(peer.ID)
	}
	n := open(t, c)
	enter(t, w, n)
	r := request(w, 2)
	r.Offload, r.NoCache = grid.OffloadUnverified, true
	submit(t, n, r)
	<-prepared
	stranger := hub.Join(nodeID("stranger"))
	steal := func(from *fake.Network) (reply grid.StealReply) {
		t.Helper()
		data, err := grid.Marshal(grid.StealMsg{Slots: 4})
		if err == nil {
			data, err = from.Call(within(t), w.ID, grid.ProtoSteal, data)
		}
		if err == nil {
			err = grid.Unmarshal(data, &reply)
		}
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if got := steal(stranger); len(got.Leases) > 0 || len(asked) > 0 {
		t.Errorf("one of whom nothing is known was given %+v", got)
	}
	proved.Store(nodeID("realm"))
	if got := steal(stranger); len(got.Leases) == 0 {
		t.Error("a stranger was given nothing")
	}
	if ev := <-asked; ev.Realm != nodeID("realm") || !ev.Outside {
		t.Errorf("the scheduler was told %+v", ev)
	}
	proved.Store(peer.ID("")) // it was cut off
	if got := n.Voice(stranger.Self()); got != nodeID("realm") {
		t.Errorf("its voice is %s", got)
	}
	steal(hub.Join(member)) // of whom the ledger does not tell yet
	if ev := <-asked; ev.Realm != "" || n.Voice(member) != member {
		t.Errorf("of a member the scheduler was told %+v", ev)
	}
}
