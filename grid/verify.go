package grid

import (
	"strconv"
	"strings"
)

// Verify says how a job makes sure of what nodes report. Pure tasks only can be verified: what they come to is a
// function of their invocation, so that two honest nodes cannot differ. The zero value believes what nodes of the realm
// say. As text, see [ParseVerify].
type Verify struct {
	Mode VerifyMode `cbor:"mode,omitempty"`
	N    uint32     `cbor:"n,omitempty"` // of VerifyQuorum: nodes; of VerifyAudit: per cent
}

// VerifyMode is a way to verify.
type VerifyMode string

// The ways.
const (
	VerifyNone     VerifyMode = ""
	VerifyQuorum   VerifyMode = "quorum"   // each task is run until N nodes have said the same
	VerifyAudit    VerifyMode = "audit"    // some tasks are run again by another node
	VerifyAdaptive VerifyMode = "adaptive" // two nodes, until a node has earned trust; then now and again
)

// MaxQuorum bounds how many nodes a task may be made to run on.
const MaxQuorum = 16

// ParseVerify reads "none", "quorum=K", "audit=P" or "adaptive". "" is none.
func ParseVerify(text string) (Verify, error) {
	mode, number, numbered := strings.Cut(text, "=")
	v := Verify{Mode: VerifyMode(mode)}
	if text == "none" || text == "" {
		return Verify{}, nil
	}
	if numbered {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != number {
			return Verify{}, badVerify(text, "%q is no number", number)
		}
		v.N = uint32(n)
	}
	if numbered != (v.Mode == VerifyQuorum || v.Mode == VerifyAudit) {
		return Verify{}, badVerify(text, "it wants no number, or needs one")
	}
	return v, v.check()
}

func badVerify(text, format string, args ...any) error {
	return Errorf(Invalid, "verification %.40q: "+format, append([]any{text}, args...)...).
		Hint("write none, quorum=K (as many nodes must agree), audit=P (per cent of tasks), or adaptive")
}

// String is the canonical form, which ParseVerify reads.
func (v Verify) String() string {
	switch v.Mode {
	case VerifyNone:
		return "none"
	case VerifyQuorum, VerifyAudit:
		return string(v.Mode) + "=" + strconv.FormatUint(uint64(v.N), 10)
	}
	return string(v.Mode)
}

// MarshalText and UnmarshalText make it a text in JSON.
func (v Verify) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what [ParseVerify] does.
func (v *Verify) UnmarshalText(text []byte) (err error) {
	*v, err = ParseVerify(string(text))
	return err
}

// check refuses what cannot be had.
func (v Verify) check() error {
	switch v.Mode {
	case VerifyNone, VerifyAdaptive:
		if v.N != 0 {
			return badVerify(string(v.Mode), "it has no number")
		}
	case VerifyQuorum:
		if v.N < 2 || v.N > MaxQuorum {
			return badVerify(v.String(), "a quorum has 2 to %d nodes", MaxQuorum)
		}
	case VerifyAudit:
		if v.N < 1 || v.N > 100 {
			return badVerify(v.String(), "it is a percentage, 1 to 100")
		}
	default:
		return badVerify(string(v.Mode), "there is no such way")
	}
	return nil
}

// On reports whether anything is verified.
func (v Verify) On() bool { return v.Mode != VerifyNone }

// nodes is how many nodes must be there that a job so verified can end.
func (v Verify) nodes() int {
	if v.Mode == VerifyQuorum {
		return int(v.N)
	}
	return 1
}

// checkVerify refuses to verify a job that it can do nothing for.
func (n *Node) checkVerify(spec *Spec, v Verify) error {
	if !v.On() {
		return nil
	}
	for i := range spec.Stages {
		st := &spec.Stages[i]
		if st.Impure {
			return Errorf(Invalid, "stage %d (%s) is impure: nodes that are honest may come to different results, so they cannot be compared (verification %s)", i, st.Name, v).
				Hint("leave the verification out, or what makes it impure: --impure, network, key-value and secret grants")
		}
	}
	if n.Bound && v.nodes() > 1 {
		return Errorf(Unavailable, "%d nodes that agree are asked for, and this one lives alone, for one command", v.nodes()).
			Hint("start a node with `grid up`, and others that join it")
	}
	return nil
}

// Answer names what a task has come to: equal for receipts that say the same.
type Answer = Key

// Answer names what the receipt says that is a function of the invocation: how it ended, what was written, spawned,
// counted and measured, and the fuel. Where nothing is, as the node's circumstances ended it, it names the kind of end.
func (r *Receipt) Answer() (Answer, error) {
	said := struct {
		Exit    uint32   `cbor:"exit"`
		Fault   Code     `cbor:"fault"`
		Stdout  Output   `cbor:"stdout"`
		Stderr  Output   `cbor:"stderr"`
		Out     Link     `cbor:"out,omitzero"`
		OutSize int64    `cbor:"outsize"`
		Fuel    uint64   `cbor:"fuel"`
		Spawned uint64   `cbor:"spawned,omitempty"`
		Metrics []Metric `cbor:"metrics,omitempty"`
	}{Exit: r.Exit, Stdout: r.Stdout, Stderr: r.Stderr, Out: r.Out, OutSize: r.OutSize, Fuel: r.Fuel, Spawned: r.Spawned, Metrics: r.Metrics}
	if r.Fault != nil {
		said.Fault = r.Fault.Code
	}
	if !r.Lasting() {
		code := said.Fault
		said.Exit, said.Stdout, said.Stderr, said.Out, said.OutSize, said.Fuel, said.Spawned, said.Metrics = 0, Output{}, Output{}, Link{}, 0, 0, 0, nil
		said.Fault = code
	}
	data, err := Marshal(said)
	if err != nil {
		return Answer{}, Errorf(Internal, "encode what a task has come to: %w", err)
	}
	return hashOf(data), nil
}

// Same reports whether two receipts say the same of what is a function of their invocation, which must be the same.
func (r *Receipt) Same(o *Receipt) bool {
	a, err := r.Answer()
	b, err2 := o.Answer()
	return err == nil && err2 == nil && r.Key == o.Key && a == b
}

// Differs says in what one receipt differs from another of the same invocation, and how: the first thing only.
func (r *Receipt) Differs(o *Receipt) string {
	end := func(r *Receipt) string {
		if r.Fault != nil {
			return "fault " + r.Fault.Code.Error()
		}
		return "exit code " + strconv.FormatUint(uint64(r.Exit), 10)
	}
	for _, d := range []struct{ what, mine, other string }{
		{"", end(r), end(o)},
		{"stdout ", r.Stdout.name(), o.Stdout.name()},
		{GuestOut + " ", linkName(r.Out), linkName(o.Out)},
		{"stderr ", r.Stderr.name(), o.Stderr.name()},
		{"fuel ", strconv.FormatUint(r.Fuel, 10), strconv.FormatUint(o.Fuel, 10)},
		{"tasks spawned: ", strconv.FormatUint(r.Spawned, 10), strconv.FormatUint(o.Spawned, 10)},
	} {
		if d.mine != d.other {
			return d.what + d.mine + ", not " + d.other
		}
	}
	return "what it counted and measured"
}
