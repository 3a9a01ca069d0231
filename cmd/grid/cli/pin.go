package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/grid"
)

// pinFlags say how something is to be kept.
type pinFlags struct {
	name     string
	replicas int
	code     string
	wait     bool
}

func (f *pinFlags) define(fl *pflag.FlagSet) {
	fl.StringVar(&f.name, "name", "", "a `NAME` for the pin (default the path)")
	fl.IntVar(&f.replicas, "replicas", 0, "keep it whole on `N` nodes (default what the node was started with, else 1)")
	fl.StringVar(&f.code, "ec", "", "keep it in `K+M` parts on as many nodes, any K of which are enough; such as 4+2")
	fl.BoolVar(&f.wait, "wait", false, "wait until all copies are durable")
}

// pin is what the flags ask for.
func (f *pinFlags) pin(root grid.Link, name string) (p grid.Pin, err error) {
	p = grid.Pin{Root: root, Name: f.name, Replicas: f.replicas}
	if p.Name == "" {
		p.Name = name
		if len(p.Name) > grid.MaxName { // its end says more
			p.Name = "…" + strings.ToValidUTF8(p.Name[len(p.Name)-grid.MaxName+len("…"):], "")
		}
	}
	if f.code != "" {
		if p.Code, err = grid.ParseCoding(f.code); err != nil {
			return p, err
		}
	}
	return p, p.Check()
}

// keep pins something, waits for its copies if that is asked for, and tells how many there are.
func (e *env) keep(ctx context.Context, s *session, root grid.Link, name string, f *pinFlags) (grid.PinStatus, error) {
	p, err := f.pin(root, name)
	if err != nil {
		return grid.PinStatus{}, err
	}
	st, err := s.Pin(ctx, p)
	if err != nil {
		return st, err
	}
	if f.wait {
		if st, err = e.awaitCopies(ctx, s, st); err != nil {
			return st, err
		}
	}
	if have, want := st.Durable(), st.Wanted(); want > 1 {
		e.note("%s: %d of %d %s durable", printable(cmp.Or(st.Name, root.String())), have, want, copiesOf(&st))
		if have < want && s.embedded {
			e.hint("other nodes can be reached only by a node that runs: start one with `grid up -d`")
		}
	}
	return st, nil
}

func copiesOf(st *grid.PinStatus) string {
	if st.Code != (grid.Coding{}) {
		return "parts are"
	}
	return "copies are"
}

// How often the state of copies is looked at.
const (
	firstLook = 50 * time.Millisecond
	lastLook  = time.Second
)

// awaitCopies waits until a pin has what was promised.
func (e *env) awaitCopies(ctx context.Context, s *session, st grid.PinStatus) (grid.PinStatus, error) {
	if s.embedded && st.Wanted() > 1 {
		return st, grid.Errorf(grid.Unavailable, "%s: %d %s wanted, but this command is alone", st.Root, st.Wanted(), strings.TrimSuffix(copiesOf(&st), " are")).
			Hint("start a node with `grid up -d`, and others that join it")
	}
	m := e.startMeter(progress{what: "copying " + cmp.Or(st.Name, st.Root.String()), unit: "copies", total: uint64(st.Wanted())})
	defer m.stop()
	shown := 0
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		m.add(st.Durable() - shown)
		shown = st.Durable()
		if st.Health == grid.Healthy {
			return st, nil
		}
		select {
		case <-ctx.Done():
			return st, context.Cause(ctx)
		case <-time.After(pause):
		}
		next, err := s.PinStatus(ctx, st.Root.Cid, false)
		if err != nil {
			return st, err
		}
		if next.Note != "" && next.Note != st.Note {
			e.note("waiting: %s", next.Note)
		}
		st = next
	}
}

func (e *env) pinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin",
		Short: "Say what is to be kept, and on how many nodes",
		Long: `Say what is to be kept. A pin is a promise: so many nodes keep a file or folder whole, or in parts from which
it can be put together; when one of them is lost, another takes its place. What no pin names is a cache, and goes
when its room is needed.`,
		Example: `  grid pin add --replicas 3 bafy...
  grid pin status bafy...`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.pinAddCommand(), e.pinRemoveCommand(), e.pinListCommand(), e.pinStatusCommand())
	return cmd
}

func (e *env) pinAddCommand() *cobra.Command {
	var f pinFlags
	var show output
	cmd := &cobra.Command{
		Use:   "add CID[/PATH]...",
		Short: "Keep something, or change on how many nodes",
		Long: `Keep something that is in the grid; it is fetched to this node first if need be. What is pinned already gets the
new number of copies.`,
		Example: `  grid pin add bafy...
  grid pin add --replicas 3 --wait bafy.../models`,
		Args: wantArgs(1, -1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return e.with(ctx, anyNode, func(s *session) error {
				list := []grid.PinStatus{}
				for _, arg := range args {
					root, err := resolveCID(ctx, s, arg)
					if err != nil {
						return err
					}
					st, err := e.keep(ctx, s, root, "", &f)
					if err != nil {
						return err
					}
					list = append(list, st)
					if !show.formatted() {
						fmt.Fprintln(e.out, st.Root)
					}
				}
				if show.formatted() {
					return show.print(list)
				}
				return nil
			})
		},
	}
	f.define(cmd.Flags())
	show.lists(e, cmd, "{{.root}}")
	return cmd
}

// resolveCID finds the CID that CID[/PATH] or REF[/PATH] leads to.
func resolveCID(ctx context.Context, s *session, ref string) (grid.Link, error) {
	root, p, err := resolve(ctx, s, ref)
	if err != nil || p == "" {
		return root, err
	}
	info, err := s.Stat(ctx, root.Cid, p)
	return info.CID, err
}

func (e *env) pinRemoveCommand() *cobra.Command {
	cmd := e.rmCommand()
	cmd.Example = strings.ReplaceAll(cmd.Example, "grid rm", "grid pin rm")
	return cmd
}

func (e *env) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm CID...",
		Short: "Keep something no longer",
		Long: `Take back the promise to keep something, on all nodes. Its bytes go when their room is needed, or with
` + "`grid store gc`" + `; until then it can still be had by its CID.`,
		Example:           "  grid rm bafy...",
		Args:              wantArgs(1, -1, "CID"),
		ValidArgsFunction: e.completePins,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, arg := range args {
					root, p, err := resolve(cmd.Context(), s, arg)
					if err != nil {
						return err
					}
					if p != "" {
						return grid.Errorf(grid.Invalid, "%s: only whole pins can be removed, not what lies in them", arg).Hint("`grid pin ls` lists the pins")
					}
					if err := s.Unpin(cmd.Context(), root.Cid); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (e *env) pinListCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the pins that this node knows",
		Long: `List the pins that were made at this node or have a copy here: how well each is kept, how many copies are durable
of how many, the bytes of one, its CID and its name.`,
		Example: `  grid pin ls
  grid pin ls --json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				list, err := s.Pins(cmd.Context())
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(list)
				}
				if len(list) == 0 {
					e.note("nothing is pinned here")
					return nil
				}
				rows := [][]string{{"HEALTH", "COPIES", "SIZE", "CID", "NAME"}}
				if show.isWide() {
					rows[0] = append(rows[0], "CREATED", "BY")
				}
				for i := range list {
					st := &list[i]
					row := []string{string(st.Health), copyCount(st), formatSize(st.Size), st.Root.String(), printable(st.Name)}
					if show.isWide() {
						row = append(row, st.Created.Local().Format(time.DateTime), st.By.String())
					}
					rows = append(rows, row)
				}
				return e.table(rows)
			})
		},
	}
	show.watches(cmd)
	show.wide().lists(e, cmd, "{{.root}}")
	return cmd
}

func copyCount(st *grid.PinStatus) string {
	n := fmt.Sprintf("%d/%d", st.Durable(), st.Wanted())
	if st.Code != (grid.Coding{}) {
		n += " of " + st.Code.String()
	}
	return n
}

func (e *env) pinStatusCommand() *cobra.Command {
	var deep bool
	var show output
	cmd := &cobra.Command{
		Use:   "status CID",
		Short: "Tell how well something is kept",
		Long: `Ask every node that is to keep something what it has of it. With --verify each looks for every block before it
answers, and fetches again what is missing.

The exit code is 0 when there are as many copies as promised, 1 when there are fewer.`,
		Example: `  grid pin status bafy...
  grid pin status --verify --json bafy...`,
		Args:              wantArgs(1, 1, "CID"),
		ValidArgsFunction: e.completePins,
		RunE: func(cmd *cobra.Command, args []string) error {
			return show.with(cmd.Context(), anyNode, func(s *session) error {
				root, p, err := resolve(cmd.Context(), s, args[0])
				if err != nil {
					return err
				}
				if p != "" {
					return grid.Errorf(grid.Invalid, "%s: only whole pins have a status", args[0]).Hint("`grid pin ls` lists the pins")
				}
				st, err := s.PinStatus(cmd.Context(), root.Cid, deep)
				if err != nil {
					return err
				}
				if show.formatted() {
					err = show.print(st)
				} else {
					err = e.showPin(&st)
				}
				if err == nil && st.Health != grid.Healthy {
					return &exitError{1, nil}
				}
				return err
			})
		},
	}
	show.watches(cmd)
	show.prints(e, cmd, "{{.root}}")
	cmd.Flags().BoolVar(&deep, "verify", false, "have each node look for every block")
	return cmd
}

func (e *env) showPin(st *grid.PinStatus) error {
	rows := [][]string{
		{"cid", st.Root.String()},
		{"name", printable(st.Name)},
		{"health", string(st.Health)},
		{"copies", copyCount(st)},
		{"size", formatSize(st.Size)},
		{"pinned", st.Created.Local().Format(time.DateTime)},
	}
	if st.Name == "" {
		rows = slices.Delete(rows, 1, 2)
	}
	if st.Note != "" {
		rows = append(rows, []string{"note", st.Note})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	fmt.Fprintln(e.out)
	rows = [][]string{{"NODE", "STATE", "NOTE"}}
	for _, c := range st.Copies {
		state := string(c.State)
		if c.Shard > 0 {
			state = fmt.Sprintf("%s (part %d)", state, c.Shard)
		}
		rows = append(rows, []string{c.Node.String(), state, printable(c.Note)})
	}
	return e.table(rows)
}

func (e *env) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "node",
		Short:   "Look after nodes",
		Long:    "List the nodes of the realm, and look after the one that is running here: what it logs, what it does with its time and memory, and how it leaves.",
		Example: "  grid node ls\n  grid node logs -f\n  grid node log-level p2p=debug\n  grid node profile cpu\n  grid node drain",
		Args:    noSubcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.nodeLsCommand(), e.drainCommand(), e.nodeLogsCommand(), e.nodeLogLevelCommand(), e.profileCommand())
	return cmd
}

func (e *env) drainCommand() *cobra.Command {
	var off, noWait bool
	var show output
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Hand on what the node keeps, so that it can leave",
		Long: `Have other nodes take over the copies that this one keeps, and wait until they have them. Then it can be ended
without the loss of a copy. Meanwhile, and until --off, it takes no new ones. An interrupt ends the wait, not the
draining; so does it when what is left cannot be handed on, since no other node is there that could take it.`,
		Example: `  grid node drain && grid down
  grid node drain --off`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			return e.with(ctx, daemonOnly, func(s *session) error {
				if err := s.Drain(ctx, !off); err != nil {
					return err
				}
				st, err := s.Draining(ctx)
				if err == nil && !off && !noWait {
					st, err = e.awaitDrained(ctx, s, st)
				}
				if err != nil {
					return err
				}
				switch {
				case show.formatted():
					return show.print(st)
				case off:
					e.note("the node takes copies again")
				case st.Left == 0:
					e.note("nothing is kept here that others do not have")
				default:
					e.note("%s left, with %s", plural(st.Left, "pin"), formatSize(st.Bytes))
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "take copies again")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait")
	show.prints(e, cmd, "")
	return cmd
}

// drainPatience is how long a drain waits for a node that can take what nobody else can.
const drainPatience = 10 * time.Second

// awaitDrained waits until nothing is left, or what is left cannot be handed on.
func (e *env) awaitDrained(ctx context.Context, s *session, st grid.DrainStatus) (grid.DrainStatus, error) {
	m := e.startMeter(progress{what: "handing on", unit: "pins", total: uint64(st.Left)})
	defer m.stop()
	told, moved := "", e.now()
	for pause := firstLook; st.Left > 0; pause = min(2*pause, lastLook) {
		select {
		case <-ctx.Done():
			return st, context.Cause(ctx)
		case <-time.After(pause):
		}
		next, err := s.Draining(ctx)
		if err != nil {
			return st, err
		}
		m.add(max(st.Left-next.Left, 0))
		if next.Left != st.Left || next.Note == "" {
			moved = e.now()
		}
		st = next
		if e.now().Sub(moved) > drainPatience {
			return st, grid.Errorf(grid.Unavailable, "%s with %s cannot be handed on: %s", plural(st.Left, "pin"), formatSize(st.Bytes), st.Note).
				Hint("let another node join, and drain again; or look with `grid pin ls` whether other nodes have a copy of each: then `grid down` loses no data, and leaves these pins a copy short")
		}
		if pause == lastLook && st.Note != "" && st.Note != told {
			told = st.Note
			e.note("waiting: %s", st.Note)
		}
	}
	return st, nil
}
