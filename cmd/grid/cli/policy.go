package cli

import (
	"cmp"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

// policyFlags say where and how a job is to run, besides what it is.
type policyFlags struct {
	require, prefer []string
	cores           uint32
	memory, scratch sizeFlag
	attempts        uint32

	user     string
	priority int
	parallel uint32
	deadline time.Duration
	start    time.Duration
	allow    uint32
	salt     string
	verify   verifyFlag
	offload  bool
}

// verifyFlag is how results are verified.
type verifyFlag struct {
	grid.Verify
	said string // the flag; "": it was not given
}

// Set is told at pflag.Value.
func (v *verifyFlag) Set(text string) error {
	v.said = cmp.Or(text, "none")
	return v.UnmarshalText([]byte(text))
}
func (v *verifyFlag) Type() string { return "MODE" }

// add adds the flags to a command that submits jobs of one module.
func (p *policyFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&p.require, "require", nil, "run only on nodes whose labels match `SELECTOR`, such as gpu=true,zone in (a,b),!spot; may be repeated")
	fl.StringArrayVar(&p.prefer, "prefer", nil, "run rather on nodes whose labels match more of `SELECTOR`; may be repeated")
	fl.Uint32Var(&p.cores, "cores", 0, "have a task take `N` of its node's worker slots (default 1)")
	fl.Var(&p.memory, "reserve-memory", "how much of its node's memory for tasks a task takes (default not reckoned with)")
	fl.Var(&p.scratch, "reserve-scratch", "how much of its node's disk for tasks a task takes (default not reckoned with)")
	fl.Uint32Var(&p.attempts, "attempts", 0, "try a task that fails for its nodes' reasons `N` times (default 3)")
	p.addJob(cmd)
}

// addJob adds those that are about the job as a whole.
func (p *policyFlags) addJob(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&p.user, "user", "", "for whom the job runs; nodes share their slots out between users (default your `NAME` on this machine)")
	fl.IntVar(&p.priority, "priority", 0, fmt.Sprintf("how far this job comes before your others: `N` from %d to %d", -grid.MaxPriority, grid.MaxPriority))
	fl.Uint32Var(&p.parallel, "parallel", 0, "run at most `N` tasks of the job at a time (default any number)")
	fl.DurationVar(&p.deadline, "deadline", 0, "how much `TIME` the job may take from its submission to its end, such as 2h (default no limit)")
	fl.DurationVar(&p.start, "start-within", 0, "how much `TIME` it may take until its first task runs (default no limit)")
	fl.Uint32Var(&p.allow, "allow-failures", 0, "how many tasks may fail without the job failing: up to `N`")
	fl.Var(&p.verify, "verify", "believe results as `MODE` says: none, quorum=K (as many nodes must agree on each task), audit=P (per cent of tasks are run again) or adaptive; see docs/verification.md")
	fl.BoolVar(&p.offload, "offload", false, "have nodes of other realms run it, too: strangers, who can read its program, arguments and inputs. Unless --verify says otherwise they are believed what two nodes say alike (quorum=2). Impure stages, and those with grants, stay inside; see docs/public.md")
	completeFlag(cmd, "verify", "none", "quorum=2", "quorum=3", "audit=1", "audit=10", "adaptive")
	fl.StringVar(&p.salt, "salt", "", "do not use results that are known from jobs with another `SALT`, or none")
}

// check refuses what no node would accept.
func (p *policyFlags) check(cmd *cobra.Command) error {
	switch {
	case p.priority > grid.MaxPriority || p.priority < -grid.MaxPriority:
		return usageError(cmd, "--priority %d: want %d to %d", p.priority, -grid.MaxPriority, grid.MaxPriority)
	case p.cores > grid.MaxCores:
		return usageError(cmd, "--cores %d: at most %d are allowed", p.cores, grid.MaxCores)
	case p.attempts > grid.MaxAttempts:
		return usageError(cmd, "--attempts %d: at most %d are allowed", p.attempts, grid.MaxAttempts)
	case p.deadline < 0:
		return usageError(cmd, "--deadline %v is negative", p.deadline)
	case p.start < 0:
		return usageError(cmd, "--start-within %v is negative", p.start)
	case p.deadline > 0 && p.start > p.deadline:
		return usageError(cmd, "--start-within %v is longer than --deadline %v", p.start, p.deadline)
	case len(p.user) > grid.MaxName || !utf8.ValidString(p.user):
		return usageError(cmd, "--user: want at most %d bytes of UTF-8", grid.MaxName)
	case len(p.salt) > grid.MaxName || !utf8.ValidString(p.salt):
		return usageError(cmd, "--salt: want at most %d bytes of UTF-8", grid.MaxName)
	}
	for _, f := range []struct {
		flag  string
		terms []string
	}{{"--require", p.require}, {"--prefer", p.prefer}} {
		if _, err := grid.ParseSelector(strings.Join(f.terms, ",")); err != nil {
			return grid.Errorf(grid.CodeOf(err), "%s: %w", f.flag, err)
		}
	}
	return nil
}

// place puts what the flags ask of nodes into a stage.
func (p *policyFlags) place(st *grid.Stage) {
	st.Require, st.Prefer = strings.Join(p.require, ","), strings.Join(p.prefer, ",")
	st.Reserve = grid.Reserve{Cores: p.cores, Memory: uint64(p.memory), Scratch: uint64(p.scratch)}
	st.Attempts = p.attempts
}

// apply puts into a request how the job is to be run.
func (p *policyFlags) apply(req *grid.Request) {
	req.Allow, req.Salt = p.allow, p.salt
	req.Policy = grid.Policy{
		User: cmp.Or(p.user, userName()), Priority: p.priority, Parallel: p.parallel, Deadline: p.deadline, Start: p.start,
	}
	_ = req.SetOffload(p.offload, p.verify.said) // whose errors the flag has had
}

// override puts into a request what flags say that were given, and leaves the rest as its file has it.
func (p *policyFlags) override(cmd *cobra.Command, req *grid.Request) error {
	set := cmd.Flags().Changed
	req.User = cmp.Or(p.user, req.User)
	if set("priority") {
		req.Priority = p.priority
	}
	if set("parallel") {
		req.Parallel = p.parallel
	}
	if set("deadline") {
		req.Deadline = p.deadline
	}
	if set("start-within") {
		req.Start = p.start
	}
	if set("allow-failures") {
		req.Allow = p.allow
	}
	if set("verify") || set("offload") {
		offload, verify := req.Offload != grid.OffloadNone, p.verify.said
		if verify == "" && (offload || req.Verify.On()) {
			verify = req.Verify.String()
		}
		if set("offload") {
			offload = p.offload
		}
		if err := req.SetOffload(offload, verify); err != nil {
			return err
		}
	}
	if set("salt") {
		req.Salt = p.salt
	}
	if req.Deadline > 0 && req.Start > req.Deadline {
		return usageError(cmd, "the job may take %v to start and %v to end: the one is longer than the other", req.Start, req.Deadline)
	}
	return nil
}

// userName is what the operating system calls whoever runs this command; "" when it does not know.
func userName() string {
	u, err := user.Current()
	if err != nil || len(u.Username) > grid.MaxName || !utf8.ValidString(u.Username) {
		return ""
	}
	return u.Username
}

// parseWeights reads the shares of users.
func parseWeights(texts []string) (map[string]float64, error) {
	weights := make(map[string]float64, len(texts))
	for _, text := range texts {
		i := strings.LastIndexByte(text, '=')
		w, err := strconv.ParseFloat(text[i+1:], 64)
		if i <= 0 || err != nil || !(w >= minWeight && w <= maxWeight) {
			return nil, grid.Errorf(grid.Invalid, "--weight %q: want USER=WEIGHT, with a weight from %v to %v", text, minWeight, maxWeight)
		}
		weights[text[:i]] = w
	}
	return weights, nil
}

const minWeight, maxWeight = 0.01, 100
