// Command simulate runs a swarm of scheduler cores in virtual time and prints how well they shared the
// work, for trying out a change of policy at a size no machine park has. See docs/simulator.md, and -help.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

const examples = `
Examples:

  A thousand nodes of two slots, work that begins on one of them:
    go run ./sched/simulate -nodes 1000 -tasks 200000 -mean 50ms -delay 5ms

  Short and long tasks on four nodes:
    go run ./sched/simulate -nodes 4 -slots 1 -tasks 410 -time mixed -mean 10ms -long 1s -every 41 -delay 200us

  Five places 40 ms apart, inputs of 10 MB on the node of the job, 100 MB/s:
    go run ./sched/simulate -nodes 50 -sites 5 -far 40ms -tasks 5000 -input 10000000 -rate 100000000

  Map 1,000 tasks, reduce by tens, then all, with nodes that crash and one that never answers:
    go run ./sched/simulate -stages 1000,100/10,1 -crash 10 -vice 3=mute

  A small random world, with all that happens in it; write it down, and play it again:
    go run ./sched/simulate -random -seed 17 -trace - -dump world.json
    go run ./sched/simulate -world world.json
`

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "simulate:", err)
		}
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	cfg          swarm.Config
	job          swarm.Job
	jobs, users  int
	stages, vice string
	crash        int
	random, calm bool
	world, dump  string
	trace        string
	json, timed  bool
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("simulate", flag.ContinueOnError)
	f.IntVar(&o.cfg.Nodes, "nodes", 100, "nodes")
	f.IntVar(&o.cfg.Slots, "slots", 2, "worker slots of each")
	f.IntVar(&o.cfg.Degree, "degree", 64, "peers of each")
	f.DurationVar(&o.cfg.Delay, "delay", 2*time.Millisecond, "delay of a message, one way")
	f.IntVar(&o.cfg.Sites, "sites", 1, "places that the nodes are at")
	f.DurationVar(&o.cfg.Far, "far", 0, "what the distance of places adds to the delay, at most 1.4 times")
	f.Int64Var(&o.cfg.Rate, "rate", 0, "bytes a second that each node sends and receives; 0: any number")
	f.Float64Var(&o.cfg.Loss, "loss", 0, "chance that a message is lost")
	f.Float64Var(&o.cfg.Twice, "twice", 0, "chance that one arrives twice")
	f.Float64Var(&o.cfg.Late, "late", 0, "chance that one takes ten times as long, so that others overtake it")
	f.DurationVar(&o.cfg.Per, "per", 0, "what a grain costs besides its tasks")
	f.Uint64Var(&o.cfg.Seed, "seed", 1, "equal seeds give equal runs")
	f.DurationVar(&o.cfg.Limit, "limit", time.Hour, "virtual time after which to give up")
	f.IntVar(&o.jobs, "jobs", 1, "jobs, each submitted to a node of its own")
	f.IntVar(&o.users, "users", 1, "users that the jobs are of, in turn")
	tasks := f.Int("tasks", 20_000, "tasks of each job of one stage")
	f.StringVar(&o.stages, "stages", "", "stages by their tasks, such as 1000,100/10,1: one that says /FAN needs FAN tasks of the one before for each of its own, the others need all")
	kind := f.String("time", "exp", "distribution of tasks' times: const, exp, pareto or mixed")
	f.DurationVar(&o.job.Time.Mean, "mean", 20*time.Millisecond, "mean time of a task; with mixed, of most")
	f.DurationVar(&o.job.Time.Long, "long", time.Second, "with mixed, of the others")
	f.IntVar(&o.job.Time.Every, "every", 41, "with mixed, one in so many")
	f.Int64Var(&o.job.Input, "input", 0, "bytes that a task reads")
	f.IntVar(&o.job.Roots, "roots", 0, "different inputs of a stage; 0: one for each task")
	f.IntVar(&o.job.Copies, "copies", 0, "nodes, at random, that each input is on; 0: on the job's node")
	f.Int64Var(&o.job.Output, "output", 0, "bytes that a task leaves")
	f.Float64Var(&o.job.Flaky, "flaky", 0, "chance that a try fails by its node's fault")
	f.BoolVar(&o.job.Pure, "pure", true, "tasks may be tried on two nodes at once")
	f.IntVar(&o.crash, "crash", 0, "nodes that crash on the way, for five seconds")
	f.DurationVar(&o.cfg.Stay, "stay", 0, "how long a node is there on average before it crashes, but for those of the jobs; 0: for ever")
	f.DurationVar(&o.cfg.Away, "away", 0, "for how long it is gone then, on average; 0: a tenth of that")
	f.StringVar(&o.vice, "vice", "", "nodes that misbehave, such as 3=mute,5=liar: broken, slow, mute, greedy, liar, hoarder")
	f.BoolVar(&o.random, "random", false, "play a small random world, by its seed")
	f.BoolVar(&o.calm, "calm", false, "play a random world in which nothing goes wrong")
	f.StringVar(&o.world, "world", "", "play the world in this file")
	f.StringVar(&o.dump, "dump", "", "write the world to this file before it is played")
	f.StringVar(&o.trace, "trace", "", "write every event and its effects to this file; - is standard output")
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	f.BoolVar(&o.timed, "cost", true, "measure the real time that the cores take")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "Play a swarm of schedulers in virtual time.\n\nFlags:")
		f.PrintDefaults()
		fmt.Fprint(f.Output(), examples)
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("what is %q? There are flags only, see -help", f.Arg(0))
	}
	if o.cfg.Nodes < 1 || o.cfg.Slots < 1 || o.jobs < 1 || o.users < 1 || *tasks < 0 {
		return nil, errors.New("-nodes, -slots, -jobs and -users are at least 1, -tasks is not negative")
	}
	shapes := map[string]swarm.Kind{"const": swarm.Constant, "exp": swarm.Exponential, "pareto": swarm.Pareto, "mixed": swarm.Mixed}
	shape, ok := shapes[*kind]
	if !ok {
		return nil, fmt.Errorf("-time %q: want const, exp, pareto or mixed", *kind)
	}
	o.job.Time.Kind = shape
	o.job.Keep = true
	o.job.Stages = []int{*tasks}
	return o, o.lists()
}

// lists reads the flags that are lists.
func (o *options) lists() error {
	if o.stages != "" {
		o.job.Stages, o.job.Needs = nil, [][]grid.Need{}
		for s, text := range strings.Split(o.stages, ",") {
			tasks, fan, _ := strings.Cut(text, "/")
			n, err := strconv.Atoi(tasks)
			k := 0
			if err == nil && fan != "" {
				k, err = strconv.Atoi(fan)
			}
			if err != nil || n < 0 || n > grid.MaxTasks || k < 0 {
				return fmt.Errorf("-stages: %q: want the number of its tasks, or TASKS/FAN", text)
			}
			var needs []grid.Need
			if s > 0 {
				needs = []grid.Need{{Stage: uint32(s - 1), Fan: uint32(k)}}
			}
			o.job.Stages, o.job.Needs = append(o.job.Stages, n), append(o.job.Needs, needs)
		}
	}
	if o.vice == "" {
		return nil
	}
	for _, text := range strings.Split(o.vice, ",") {
		node, kind, _ := strings.Cut(text, "=")
		n, err := strconv.Atoi(node)
		switch v := swarm.Misdeed(kind); v {
		case swarm.Broken, swarm.Slow, swarm.Mute, swarm.Greedy, swarm.Liar, swarm.Hoarder:
			o.cfg.Vices = append(o.cfg.Vices, swarm.Vice{Node: n, Kind: v})
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return fmt.Errorf("-vice: %q: want NODE=KIND, see -help", text)
		}
	}
	return nil
}

// config is the world to be played.
func (o *options) config() (cfg swarm.Config, err error) {
	switch {
	case o.world != "":
		data, err := os.ReadFile(o.world)
		if err == nil {
			err = json.Unmarshal(data, &cfg)
		}
		if err != nil {
			return cfg, fmt.Errorf("-world %s: %w", o.world, err)
		}
	case o.calm:
		cfg = swarm.Calm(o.cfg.Seed)
	case o.random:
		cfg = swarm.Random(o.cfg.Seed)
	default:
		cfg = o.cfg
		for i := range o.jobs {
			j := o.job
			if j.Node = i % cfg.Nodes; o.users > 1 {
				j.User = fmt.Sprintf("user%d", i%o.users)
			}
			cfg.Jobs = append(cfg.Jobs, j)
		}
		for i := range o.crash {
			cfg.Faults = append(cfg.Faults, swarm.Fault{
				Node: i * 7919 % cfg.Nodes, At: time.Duration(i) * 5 * time.Second / time.Duration(o.crash), For: 5 * time.Second,
			})
		}
	}
	return cfg, nil
}

func run(args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	if o.dump != "" {
		data, err := json.MarshalIndent(cfg, "", "  ")
		if err == nil {
			err = os.WriteFile(o.dump, append(data, '\n'), 0o644)
		}
		if err != nil {
			return fmt.Errorf("-dump: %w", err)
		}
	}
	if o.trace != "" {
		to := out
		if o.trace != "-" {
			f, err := os.Create(o.trace)
			if err != nil {
				return fmt.Errorf("-trace: %w", err)
			}
			defer f.Close()
			to = f
		}
		buf := bufio.NewWriter(to)
		defer buf.Flush()
		cfg.Trace = buf
	}
	cfg.Measure = o.timed && cfg.Trace == nil
	began := time.Now()
	report, err := swarm.Run(cfg)
	if cfg.Trace != nil {
		_ = cfg.Trace.(*bufio.Writer).Flush()
	}
	if o.json {
		data, jerr := json.MarshalIndent(report, "", "  ")
		if jerr != nil {
			return jerr
		}
		fmt.Fprintln(out, string(data))
		return err
	}
	print(out, report, cfg.Measure, time.Since(began))
	return err
}

func print(out io.Writer, r *swarm.Report, measured bool, took time.Duration) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	tasks := float64(max(r.Tasks, 1))
	line("makespan", "%v, %.3f of the ideal, %v", r.Makespan.Round(time.Microsecond), r.Stretch(), r.Ideal.Round(time.Microsecond))
	line("slots", "idle %.1f%% of the time, %.1f%% while something was queued elsewhere", 100*r.Idle, 100*r.Starved)
	line("tasks", "%d, tried %d times", r.Tasks, r.Ran)
	line("steals", "%d of %d that were asked for", r.Steals, r.Asks)
	line("latency", "%v from asking to getting work, 99%% within %v; 99%% of nodes had some after %v", r.Waited[0].Round(time.Microsecond), r.Waited[1].Round(time.Microsecond), r.Reached.Round(time.Microsecond))
	line("messages", "%d, %.3f for each task, %d bytes; %d of them at one node", r.Messages, float64(r.Messages)/tasks, r.Wire, r.Busiest)
	if r.Left > 0 {
		line("churn", "nodes went %d times", r.Left)
	}
	line("steps", "%d, %.3f for each task", r.Steps, float64(r.Steps)/tasks)
	if r.Fetches > 0 || r.Bytes > 0 {
		line("data", "%d fetches, %.1f MB moved", r.Fetches, float64(r.Bytes)/1e6)
	}
	for i, j := range r.Jobs {
		switch {
		case !j.Ended:
			line("job", "%d has not ended", i)
		case j.Bad:
			line("job", "%d failed at %v, %d tasks did. %s", i, j.At.Round(time.Millisecond), len(j.Failed), j.Why)
		case len(r.Jobs) > 1 && len(r.Jobs) <= 20:
			line("job", "%d done at %v", i, j.At.Round(time.Millisecond))
		}
	}
	if len(r.Users) > 1 {
		for u := range len(r.Users) {
			name := fmt.Sprintf("user%d", u)
			if t, ok := r.Users[name]; ok {
				line("user", "%s had %v of slots' time while all had work", name, t.Round(time.Millisecond))
			}
		}
	}
	if measured {
		line("cost", "%v of the cores for each task, %v in all", r.PerTask(), r.Cost.Round(time.Millisecond))
	}
	line("simulated", "in %v", took.Round(time.Millisecond))
}
