package grid

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Extension is a plugin's function that extends the nodes of a realm: an entry of the ledger. docs/extending.md tells
// what functions of each role are given, and what they are to answer.
type Extension struct {
	Role ExtensionRole `cbor:"-" json:"role"`           // what it is asked for
	Name string        `cbor:"-" json:"name,omitempty"` // of a notifier, of which there may be several

	Plugin string `cbor:"plugin" json:"plugin"`          // NAME@VERSION
	Module Link   `cbor:"module" json:"module,omitzero"` // which that was when it was attached
	Func   string `cbor:"func" json:"func"`              // the function's name

	// Timeout, Memory and Fuel bound one run of it. 0: 5 s, 30 s for a notifier, 64 MiB and 10,000,000,000.
	Timeout time.Duration `cbor:"timeout" json:"timeout_ns"`
	Memory  uint64        `cbor:"memory" json:"memory_bytes"`
	Fuel    uint64        `cbor:"fuel" json:"fuel"`

	// Fallback is what becomes of jobs when an admission policy does not answer as it should.
	Fallback Fallback `cbor:"fallback,omitempty" json:"fallback,omitempty"`
	// Grants, Events and Tries are for notifiers: what they may use, which events they are told of, and how often one is
	// told of an event until it takes it. Tries 0: 4.
	Grants `cbor:"grants" json:"grants,omitzero"`
	Events []string `cbor:"events,omitempty" json:"events,omitempty"`
	Tries  uint32   `cbor:"tries,omitempty" json:"tries,omitempty"`

	Attached time.Time `cbor:"time" json:"attached"`            // when
	By       peer.ID   `cbor:"by" json:"attached_by,omitempty"` // the node that attached it
}

// ExtensionRole is what an extension does for a node.
type ExtensionRole string

// The roles.
const (
	RoleAdmission ExtensionRole = "admission" // says whether a job is accepted
	RoleScorer    ExtensionRole = "scorer"    // says how well nodes suit a stage
	RoleNotifier  ExtensionRole = "notifier"  // tells others of what happens to jobs
)

// ExtensionKeys begins the keys of extensions in a ledger. ROLE or notifier/NAME follows: an [Extension].
const ExtensionKeys = "extension/"

// Fallback is an answer in place of one that could not be had.
type Fallback string

// The fallbacks. The zero Fallback is FallbackRefuse.
const (
	FallbackRefuse Fallback = "refuse"
	FallbackAccept Fallback = "accept"
)

// Bounds on extensions.
const (
	MaxNotifiers       = 16
	MaxExtensionTime   = 10 * time.Minute
	MaxExtensionMemory = 1 << 30
	MaxExtensionInput  = 1 << 20  // bytes of a document that one is given
	MaxExtensionOutput = 64 << 10 // and of an answer, but a scorer's, which may be as long as its input
	MaxTries           = 16
)

// Events that notifiers may be told of. NoticeEnded stands for the three before it.
const (
	NoticeSubmitted = "submitted" // the job was accepted
	NoticeTaken     = "taken"     // another node drives it from now on
	NoticeStage     = "stage"     // a stage began, or ended
	NoticeTrouble   = "trouble"   // something went wrong, which need not be the end of it
	NoticeDone      = "done"
	NoticeFailed    = "failed"
	NoticeCancelled = "cancelled"
	NoticeEnded     = "ended"
)

var allNotices = []string{NoticeSubmitted, NoticeTaken, NoticeStage, NoticeTrouble, NoticeDone, NoticeFailed, NoticeCancelled}

// Kind is the kind of functions that have a role.
func (r ExtensionRole) Kind() FunctionKind { return FunctionKind(r) }

// ParseRole reads ROLE, or notifier/NAME.
func ParseRole(text string) (ExtensionRole, string, error) {
	role, name, named := strings.Cut(text, "/")
	switch r := ExtensionRole(role); r {
	case RoleAdmission, RoleScorer:
		if !named {
			return r, "", nil
		}
	case RoleNotifier:
		if !named {
			return r, "", nil
		}
		return r, name, CheckPluginName(name)
	}
	return "", "", Errorf(Invalid, "%.80q is no role that a plugin can have", text).
		Hint("roles are admission, scorer and notifier, or notifier/NAME, as there may be several of those")
}

// Key is where the extension is, below ExtensionKeys.
func (x *Extension) Key() string {
	if x.Name == "" {
		return string(x.Role)
	}
	return string(x.Role) + "/" + x.Name
}

// String names its function, for people.
func (x *Extension) String() string {
	name, version, _ := strings.Cut(x.Plugin, "@")
	return name + "." + x.Func + "@" + version
}

// Check refuses an extension that cannot be, and fills in what was left out.
func (x *Extension) Check() error {
	if _, _, err := ParseRole(x.Key()); err != nil {
		return err
	}
	if x.Role == RoleNotifier && x.Name == "" {
		return Errorf(Invalid, "a notifier has a name").Hint("attach it as notifier/NAME")
	}
	if err := CheckFunctionName(x.Func); err != nil {
		return err
	}
	if err := CheckCID(x.Module.Cid); err != nil {
		return err
	}
	if x.Timeout == 0 {
		x.Timeout = 5 * time.Second
		if x.Role == RoleNotifier {
			x.Timeout = 30 * time.Second
		}
	}
	if x.Memory == 0 {
		x.Memory = 64 << 20
	}
	if x.Fuel == 0 {
		x.Fuel = 10_000_000_000
	}
	switch {
	case x.Timeout < time.Millisecond || x.Timeout > MaxExtensionTime:
		return Errorf(Invalid, "a timeout of %v: want 1ms to %v", x.Timeout, MaxExtensionTime)
	case x.Memory < MinTaskMemory:
		return CheckTaskMemory(x.Memory)
	case x.Memory > MaxExtensionMemory:
		return Errorf(Limit, "%s of memory, at most %s are allowed", sizeText(x.Memory), sizeText(MaxExtensionMemory))
	case x.Fuel > math.MaxInt64:
		return Errorf(Limit, "%d of fuel is too much", x.Fuel)
	}
	if x.Role == RoleAdmission && x.Fallback == "" {
		x.Fallback = FallbackRefuse
	}
	switch {
	case x.Role == RoleAdmission && x.Fallback != FallbackRefuse && x.Fallback != FallbackAccept:
		return Errorf(Invalid, "%.40q does not say what becomes of jobs when the policy does not answer", x.Fallback).Hint("say refuse or accept")
	case x.Role != RoleAdmission && x.Fallback != "":
		return Errorf(Invalid, "a fallback is for admission policies: without scores nodes are all the same, and what a notifier does not take is dropped")
	}
	if err := x.Grants.Normalize(); err != nil {
		return err
	}
	if x.Role != RoleNotifier {
		if !x.Grants.Empty() || len(x.Events) > 0 || x.Tries > 0 {
			return Errorf(Invalid, "grants, events and tries are for notifiers: what role %s says is a function of what it is given", x.Role)
		}
		return nil
	}
	if len(x.Grants.Data)+len(x.Grants.Decrypt) > 0 {
		return Errorf(Invalid, "a notifier is given no data by CID, nor anything to decrypt")
	}
	if x.Tries == 0 {
		x.Tries = 4
	}
	if x.Tries > MaxTries {
		return Errorf(Limit, "%d tries, at most %d are allowed", x.Tries, MaxTries)
	}
	if len(x.Events) == 0 {
		x.Events = []string{NoticeEnded}
	}
	var events []string
	for _, ev := range x.Events {
		switch {
		case ev == NoticeEnded:
			events = append(events, NoticeDone, NoticeFailed, NoticeCancelled)
		case slices.Contains(allNotices, ev):
			events = append(events, ev)
		default:
			return Errorf(Invalid, "%.40q is no event of a job", ev).Hint("events are %s and %s", strings.Join(allNotices, ", "), NoticeEnded)
		}
	}
	slices.Sort(events)
	x.Events = slices.Compact(events)
	return nil
}

// ExtensionVersion is the version of the documents that extensions are given. A later one adds fields; a function passes
// over those that it does not know.
const ExtensionVersion = 1

// JobInfo is what an admission policy is told of a job: the document that it is given. It has no more of it than helps
// to decide, and no more than fits into MaxExtensionInput.
type JobInfo struct {
	Version    int      `json:"version"`
	Node       string   `json:"node"` // that is to accept it
	User       string   `json:"user"` // for whom it runs, as the submitter says
	Name       string   `json:"name"`
	Priority   int      `json:"priority"`
	Parallel   uint32   `json:"parallel"`    // tasks at a time; 0: any number
	DeadlineMS int64    `json:"deadline_ms"` // from now on; 0: none
	Verify     string   `json:"verify"`      // what it asks for itself, such as none or quorum=2
	Replicas   int      `json:"replicas"`
	Publish    []string `json:"publish"`     // refs that it is to change
	Tasks      uint64   `json:"tasks"`       // of all stages
	InputBytes uint64   `json:"input_bytes"` // of all stages, as far as is known, and as the submitter says
	// Owner and Realm are set of what nodes of other realms have this one run, of which a policy is asked a stage at a time: the node
	// whose job it is, which is the User, too, and its realm.
	Owner  string      `json:"owner"`
	Realm  string      `json:"realm"`
	Stages []StageInfo `json:"stages"`
}

// StageInfo is what is told of a stage.
type StageInfo struct {
	Name       string   `json:"name"`
	Plugin     string   `json:"plugin"` // NAME@VERSION; empty when it is run by its CID
	Module     string   `json:"module"` // CID
	Func       string   `json:"func"`
	Tasks      uint32   `json:"tasks"`
	InputBytes uint64   `json:"input_bytes"`
	Impure     bool     `json:"impure"`
	Net        []string `json:"net"`
	KV         []string `json:"kv"`
	Secrets    []string `json:"secrets"`
	Data       []string `json:"data"`
	TimeoutMS  int64    `json:"timeout_ms"` // of one task, as the rest
	Memory     uint64   `json:"memory_bytes"`
	Output     uint64   `json:"output_bytes"`
	Scratch    uint64   `json:"scratch_bytes"`
	Fuel       uint64   `json:"fuel"`  // 0: no limit
	Cores      uint32   `json:"cores"` // that it is given
	Require    string   `json:"require"`
	Prefer     string   `json:"prefer"`
}

// Decision is what an admission policy answers. Accept must be there.
type Decision struct {
	Accept *bool  `json:"accept"`
	Reason string `json:"reason,omitempty"` // for the user
	// Verify demands of a job that is accepted that its results be verified; see [ParseVerify]. What the job asks for
	// itself counts if it is stricter.
	Verify string `json:"verify,omitempty"`
}

// maxReason bounds what a policy says, in bytes.
const maxReason = 1 << 10

func parseDecision(data []byte) (d Decision, v Verify, err error) {
	if err := parseAnswer(data, &d); err != nil {
		return d, v, err
	}
	if d.Accept == nil {
		return d, v, Errorf(Invalid, "it answers neither yes nor no: accept is missing")
	}
	if d.Reason = printableText(d.Reason, maxReason); !*d.Accept {
		return d, Verify{}, nil
	}
	v, err = ParseVerify(d.Verify)
	return d, v, err
}

// parseAnswer reads the one JSON value that an extension answers, all of whose fields must be known.
func parseAnswer(data []byte, v any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return Errorf(Invalid, "it answers nothing")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Errorf(Invalid, "it answers what is no answer: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Errorf(Invalid, "it answers more than one JSON value")
	}
	return nil
}

// printableText makes what a plugin says fit for a line of a terminal or log.
func printableText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return ' '
		}
		return r
	}, clean(s, most))
	return strings.TrimSpace(s)
}

// Notice is what a notifier is told: the document that it is given.
type Notice struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // of the notice: equal for repetitions
	Event   string `json:"event"`
	Time    string `json:"time"` // RFC 3339
	Node    string `json:"node"` // that drives the job
	Job     string `json:"job"`
	Name    string `json:"name"`
	User    string `json:"user"`
	State   string `json:"state"`
	Stage   string `json:"stage,omitempty"`
	Text    string `json:"text"` // for people
}

// noticeOf is which event of those that notifiers are told of something is; "": none.
func noticeOf(ev *JobEvent, epoch Epoch) string {
	switch ev.Kind {
	case EventStarted:
		if epoch > 1 {
			return NoticeTaken
		}
		return NoticeSubmitted
	case EventStage:
		return NoticeStage
	case EventRetry, EventFailed, EventLost, EventAccused, EventUnplaced:
		return NoticeTrouble
	}
	return ""
}
