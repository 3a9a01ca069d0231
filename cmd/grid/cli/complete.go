package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// completeTimeout keeps a slow node from freezing the user's shell.
const completeTimeout = time.Second

// completer offers what an argument may be.
type completer = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective)

// complete gives the commands below root that take names of things their completers, unless they have one. What may be a file as well is
// completed by the shell when no name fits.
func (e *env) complete(root *cobra.Command) {
	for path, f := range map[string]completer{
		"cat": e.completeNames, "ls": e.completeNames, "stat": e.completeNames, "diff": e.completeNames,
		"pin add": e.completeNames, "car export": e.completeNames,
		"rm": e.completePins,
		"ref set": func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return e.completeRefs(cmd, args, prefix)
			}
			return e.completeNames(cmd, args, prefix)
		},
		"run": orFile(e.completeRefs), "plugin install": orFile(e.completeNames), "module inspect": orFile(e.completeNames),
		"replay": e.completeJobs,
		"kv get": e.completeKeys, "kv put": first(e.completeKeys), "kv del": e.completeKeys, "kv ls": e.completeKeys, "kv watch": e.completeKeys,
		"secret set": orFile(first(e.completeSecrets)), "secret rm": e.completeSecrets,
		"token rm":      e.completeTokens,
		"ledger remove": first(e.completeNodes),
		"quota set":     first(e.completeSubmitters), "quota show": first(e.completeSubmitters), "quota rm": first(e.completeSubmitters),
		"plugin attach": func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return e.completePlugins(cmd, nil, prefix)
			}
			roles := []string{string(grid.RoleAdmission), string(grid.RoleScorer), string(grid.RoleNotifier) + "/"}
			return cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp)(cmd, args, prefix)
		},
		"plugin detach": e.completeRoles,
	} {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 {
			panic("completion of a command that is not: " + path)
		}
		if cmd.ValidArgsFunction == nil {
			cmd.ValidArgsFunction = f
		}
	}
}

// first completes the first argument only.
func first(f completer) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return f(cmd, args, prefix)
	}
}

// orFile lets an argument be a file, too.
func orFile(f completer) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		out, how := f(cmd, args, prefix)
		if len(out) == 0 {
			how = cobra.ShellCompDirectiveDefault
		}
		return out, how
	}
}

// offer asks the node that is running, if one is, and offers what begins with prefix. A tab and a description may follow a word. What
// cannot be had soon is not offered, and nothing is said about it.
func (e *env) offer(cmd *cobra.Command, prefix string, words func(context.Context, *session) ([]string, error)) (out []string, _ cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	var all []string
	_ = e.with(ctx, daemonOnly, func(s *session) (err error) {
		all, err = words(ctx, s)
		return err
	})
	for _, w := range all {
		word, about, told := strings.Cut(w, "\t")
		if word == "" || word[0] == '-' || word != printable(word) {
			continue // it may be anybody's, and would be a flag, or more to a terminal than text
		}
		if told {
			w = word + "\t" + printable(about)
		}
		if strings.HasPrefix(word, prefix) && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (e *env) completeJobs(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		jobs, err := s.Jobs(ctx)
		for _, j := range jobs {
			out = append(out, string(j.ID)+"\t"+string(j.State)+" "+j.Name)
		}
		return out, err
	})
}

func (e *env) completePins(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, pinWords)
}

func pinWords(ctx context.Context, s *session) (out []string, err error) {
	pins, err := s.Pins(ctx)
	for _, p := range pins {
		out = append(out, p.Root.String()+"\t"+p.Name)
	}
	return out, err
}

func (e *env) completeRefs(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) ([]string, error) { return refWords(ctx, s, prefix) })
}

func refWords(ctx context.Context, s *session, prefix string) (out []string, err error) {
	refs, err := s.Refs(ctx, prefix, true)
	for _, r := range refs {
		out = append(out, r.Name+"\t"+r.CID.String())
	}
	return out, err
}

// completeNames offers refs and the roots of pins: what data is known by.
func (e *env) completeNames(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) ([]string, error) {
		refs, err := refWords(ctx, s, prefix)
		if err != nil {
			return nil, err
		}
		pins, err := pinWords(ctx, s)
		return append(refs, pins...), err
	})
}

func (e *env) completeKeys(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		page, err := s.KVRange(ctx, api.KVQuery{Prefix: prefix, Limit: 200, KeysOnly: true, Stale: true})
		for _, kv := range page.Entries {
			out = append(out, kv.Key)
		}
		return out, err
	})
}

func (e *env) completeSecrets(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		secrets, err := s.Secrets(ctx)
		for _, x := range secrets {
			out = append(out, x.Name+"\tset "+x.Set.Local().Format(time.DateTime))
		}
		return out, err
	})
}

func (e *env) completeTokens(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		tokens, err := s.Tokens(ctx)
		for _, t := range tokens {
			out = append(out, t.ID+"\t"+t.Name+" "+string(t.Role))
		}
		return out, err
	})
}

// completeNodes offers the nodes of the realm.
func (e *env) completeNodes(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		st, err := s.LedgerStatus(ctx)
		for _, m := range st.Members {
			out = append(out, m.ID.String()+"\t"+string(m.Role))
		}
		return out, err
	})
}

// completeSubmitters offers those that have a quota.
func (e *env) completeSubmitters(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		quotas, err := s.Quotas(ctx, "")
		for i := range quotas {
			out = append(out, quotas[i].Subject+"\t"+quotas[i].Allowance.String())
		}
		return out, err
	})
}

// completeRoles offers what plugins are attached to.
func (e *env) completeRoles(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return e.offer(cmd, prefix, func(ctx context.Context, s *session) (out []string, err error) {
		all, err := s.Extensions(ctx)
		for i := range all {
			out = append(out, all[i].Key()+"\t"+all[i].Plugin)
		}
		return out, err
	})
}
