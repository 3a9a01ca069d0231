// Quota is an admission policy: the nodes of a realm ask it of each job that somebody submits, and refuse those that ask for
// more than their user may have, or for the network, with all the reasons at once.
//
// It is the lesson on plugins that extend the grid itself. Such a function is one like any other: a document in, a document
// out, in the sandbox, tested as ever. What it allows is in quota.json, which is part of the module: who changes it installs
// another version, and the realm knows which one decides.
package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// Quota is what the jobs of a user may ask for. 0 is any amount.
type Quota struct {
	Tasks      uint64 `json:"tasks"`
	InputBytes uint64 `json:"input_bytes"`
	Memory     uint64 `json:"memory_bytes"` // of a task, as what follows
	Seconds    int64  `json:"seconds"`
	Cores      uint32 `json:"cores"`
	Network    bool   `json:"network"` // may be granted
	Verify     string `json:"verify"`  // how results are verified at least
}

//go:embed quota.json
var file []byte

// quotas are by user; "*" is everybody else's. What is made here is made once, and not for each job.
var quotas = func() (all map[string]Quota) {
	if err := json.Unmarshal(file, &all); err != nil {
		panic("quota.json: " + err.Error())
	}
	return all
}()

var policy = sdk.Admission("admit", admit).Doc("Refuses jobs that ask for more than quota.json has for their user.")

func main() { sdk.Main(policy) }

func admit(ctx sdk.Context, job sdk.JobInfo) (sdk.Decision, error) {
	q, ok := quotas[job.User]
	if !ok {
		q, ok = quotas["*"]
	}
	if !ok {
		return sdk.Refuse("no jobs are taken of user %q", job.User), nil
	}
	if why := q.exceeded(job); len(why) > 0 {
		return sdk.Refuse("%s", strings.Join(why, "; ")), nil
	}
	return sdk.Decision{Accept: true, Verify: q.Verify}, nil
}

// enough reasons are told: what a policy says is bounded.
const enough = 10

// exceeded are the reasons to refuse a job.
func (q Quota) exceeded(job sdk.JobInfo) (why []string) {
	refuse := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if q.Tasks > 0 && job.Tasks > q.Tasks {
		refuse("%d tasks, at most %d are allowed", job.Tasks, q.Tasks)
	}
	if q.InputBytes > 0 && job.InputBytes > q.InputBytes {
		refuse("%d bytes of input, at most %d are allowed", job.InputBytes, q.InputBytes)
	}
	for _, st := range job.Stages {
		if len(why) >= enough {
			break
		}
		if q.Memory > 0 && st.Memory > q.Memory {
			refuse("stage %s: %d bytes of memory for a task, at most %d are allowed", st.Name, st.Memory, q.Memory)
		}
		if timeout := time.Duration(st.TimeoutMS) * time.Millisecond; q.Seconds > 0 && timeout > time.Duration(q.Seconds)*time.Second {
			refuse("stage %s: tasks may run for %v, at most %v are allowed", st.Name, timeout, time.Duration(q.Seconds)*time.Second)
		}
		if q.Cores > 0 && st.Cores > q.Cores {
			refuse("stage %s: %d cores for a task, at most %d are allowed", st.Name, st.Cores, q.Cores)
		}
		if len(st.Net) > 0 && !q.Network {
			refuse("stage %s: no network is allowed, and it wants %s", st.Name, st.Net[0])
		}
	}
	return why
}
