package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// job is what a driver is asked for.
type job struct {
	Do      string `json:"do"` // tasks and latency are tasks that do nothing, all at once and one after the other; sleep; words; idle
	Workers int    `json:"workers"`
	Tasks   int    `json:"tasks,omitempty"`
	MS      []int  `json:"ms,omitempty"`    // how long tasks sleep
	Files   string `json:"files,omitempty"` // the folder of texts
	Group   int    `json:"group,omitempty"` // how many files a task has
	Out     string `json:"out,omitempty"`   // the file for the counts
}

// answer is what a driver says.
type answer struct {
	seconds float64
	pids    []int
}

const (
	maxSaid   = 64 << 10 // bytes
	maxPIDs   = 100
	maxReason = 2000             // bytes of what it says that went wrong
	patience  = 10 * time.Minute // for one job
	gentle    = 10 * time.Second // until what was interrupted is killed
)

// listen reads what a driver says, until it ends or is ready.
func listen(r io.Reader) (a answer, err error) {
	said := bufio.NewScanner(io.LimitReader(r, maxSaid))
	for said.Scan() {
		what, text, _ := strings.Cut(said.Text(), " ")
		switch what {
		case "seconds":
			if a.seconds, err = strconv.ParseFloat(text, 64); err != nil || !(a.seconds > 0) || math.IsInf(a.seconds, 0) {
				return answer{}, fmt.Errorf("%q is no number of seconds", text)
			}
		case "pid":
			pid, err := strconv.Atoi(text)
			if err != nil || pid < 1 || len(a.pids) == maxPIDs {
				return answer{}, fmt.Errorf("%q is no process, or one too many", text)
			}
			a.pids = append(a.pids, pid)
		case "ready":
			return a, nil
		default:
			return answer{}, fmt.Errorf("%q is not what a driver says", said.Text())
		}
	}
	return a, said.Err()
}

// drive has a peer do a job in an empty folder. If it is to be idle, look is given its processes, and it ends when look returns.
func (f *Found) drive(ctx context.Context, dir string, j job, look func(pids []int) error) (took float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked, err := json.Marshal(j)
	if err != nil {
		return 0, err
	}
	script, err := filepath.Abs("run_" + f.Name + ".py")
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, f.python, "-B", script, string(asked), dir)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends what it has started
	cmd.WaitDelay = gentle
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	hold, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	a, err := listen(said)
	if err == nil && len(a.pids) > 0 {
		err = look(a.pids)
	}
	err = errors.Join(err, hold.Close(), cmd.Wait())
	if err == nil && a.seconds == 0 && len(a.pids) == 0 {
		err = errors.New("it did not say how long it took")
	}
	if err != nil {
		why := strings.TrimSpace(complaint.String())
		return 0, fmt.Errorf("%s: %s: %w: %s", f.Name, j.Do, err, why[max(0, len(why)-maxReason):])
	}
	return a.seconds, nil
}
