package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

// pluginPlan is a plugin that a stage is to run, by a reference.
type pluginPlan struct {
	ref   grid.PluginRef
	where string // it was named
	stage func() *grid.Stage
}

// planPlugin notes that a stage is to run what a reference means.
func (p *plan) planPlugin(where, ref string, stage func() *grid.Stage) error {
	r, err := grid.ParsePluginRef(ref)
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "%s: %w", where, err)
	}
	p.refs = append(p.refs, pluginPlan{r, where, stage})
	return nil
}

// findPlugins has stages run what references mean now.
func (p *plan) findPlugins(ctx context.Context, s *session) error {
	for _, r := range p.refs {
		info, err := s.Plugin(ctx, r.ref.String(), false)
		if err != nil {
			return grid.Errorf(grid.CodeOf(err), "%s: %w", r.where, err)
		}
		st := r.stage()
		if info.Function != "" && st.Func != "" && info.Function != st.Func {
			return grid.Errorf(grid.Invalid, "%s: %s names the function %s, but %s is asked for", r.where, r.ref, info.Function, st.Func).Hint("name one of them")
		}
		st.Module, st.Plugin = info.CID, info.String()
		if info.Function != "" {
			st.Func = info.Function
		}
	}
	return nil
}

// grantWants grants all stages what their plugins want, and says so.
func (p *plan) grantWants(ctx context.Context, e *env, s *session) error {
	told := map[grid.Link]bool{}
	for i := range p.req.Stages {
		st := &p.req.Stages[i]
		m, err := s.Manifest(ctx, st.Module.Cid)
		if err != nil {
			return err
		}
		if err := grantWanted(st, m); err != nil {
			return err
		}
		if !told[st.Module] {
			told[st.Module] = true
			e.tellGranted(m)
		}
	}
	return nil
}

// grantWanted grants a stage what its plugin wants, besides what it has.
func grantWanted(st *grid.Stage, m *grid.Manifest) error {
	if m == nil {
		return nil
	}
	st.Net = slices.Concat(st.Net, m.Wants.Net)
	st.KV = slices.Concat(st.KV, m.Wants.KV)
	st.Secrets = slices.Concat(st.Secrets, m.Wants.Secrets)
	st.Data = slices.Concat(st.Data, m.Wants.Data)
	return st.Grants.Normalize()
}

// tellGranted says what was granted because a plugin wants it.
func (e *env) tellGranted(m *grid.Manifest) {
	switch {
	case m == nil:
		e.note("the module is no plugin, and says of nothing that it wants it: --grant-all grants nothing")
	case m.Wants.Empty():
		e.note("%s wants nothing: --grant-all grants nothing", m)
	default:
		e.note("granted what %s wants: %s", m, printable(m.Wants.Flags()))
	}
}

// pluginJobName is what a job is called that runs a plugin.
func pluginJobName(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	return name[:min(len(name), grid.MaxName)]
}

// completePlugins offers the names of plugins, if a node is running.
func (e *env) completePlugins(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offerPlugins(cmd, prefix, func(p *grid.Plugin) []string {
		return []string{p.Name + "\t" + firstLine(p.Description), p.String() + "\t" + firstLine(p.Description)}
	})
}

// completeFunctions offers NAME.FUNCTION of plugins, if a node is running.
func (e *env) completeFunctions(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	version := func(*grid.Plugin) string { return "" }
	if strings.Contains(prefix, "@") {
		version = func(p *grid.Plugin) string { return "@" + p.Version }
	}
	out, how := e.offerPlugins(cmd, prefix, func(p *grid.Plugin) (out []string) {
		for _, f := range p.Functions {
			out = append(out, p.Name+"."+f.Name+version(p)+"\t"+string(f.Kind))
		}
		return out
	})
	if len(out) == 0 {
		return nil, cobra.ShellCompDirectiveDefault // a file
	}
	return out, how
}

// completeFunctionsOf offers the names of the functions of one plugin, as --func takes them.
func (e *env) completeFunctionsOf(cmd *cobra.Command, plugin, prefix string) ([]string, cobra.ShellCompDirective) {
	r, err := grid.ParsePluginRef(plugin)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.offerPlugins(cmd, prefix, func(p *grid.Plugin) (out []string) {
		if p.Name != r.Name {
			return nil
		}
		for _, f := range p.Functions {
			out = append(out, f.Name+"\t"+string(f.Kind))
		}
		return out
	})
}

// completeAlias offers names of plugins, for an alias to be written behind them, and then versions.
func (e *env) completeAlias(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		out, how := e.offerPlugins(cmd, prefix, func(p *grid.Plugin) []string { return []string{p.Name + "@"} })
		return out, how | cobra.ShellCompDirectiveNoSpace
	}
	name, _, _ := strings.Cut(args[0], "@")
	return e.offerPlugins(cmd, prefix, func(p *grid.Plugin) []string {
		if p.Name != name {
			return nil
		}
		return []string{p.Version}
	})
}

// completeFlag offers the values that a flag may have.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // an error: there is no such flag
}

func (e *env) offerPlugins(cmd *cobra.Command, prefix string, words func(*grid.Plugin) []string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		all, err := s.Plugins(ctx, "", true)
		for i := range all {
			if all[i].Removed.IsZero() {
				out = append(out, words(&all[i])...)
			}
		}
		return out, err
	})
}

// firstLine is the beginning of a text, for a line.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if r := []rune(line); len(r) > 72 {
		line = string(r[:71]) + "…"
	}
	return printable(line)
}
