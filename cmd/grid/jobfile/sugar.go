package jobfile

import (
	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/grid"
)

// around are functions of plugins that a stage names besides its own: stages of their own before and behind it.
type around struct {
	decode  string // maps each of the stage's files before it gets them
	encode  string // maps what each of its tasks prints
	combine string // reduces what it takes by a tree
	fan     uint32 // of that tree
}

// spread makes the stages that a stage stands for, in an order in which they can run. Its own name is that of the last, so
// that who takes from it takes what comes of all.
func (r *reader) spread(st *Stage, got map[string]*yaml.Node) []*Stage {
	a := &st.around
	for key, ref := range map[string]string{"decode": a.decode, "encode": a.encode, "combine": a.combine} {
		if ref == "" {
			continue
		}
		if _, err := grid.ParsePluginRef(ref); err != nil {
			r.problem(got[key], "stage %s: %s: %v", st.Name, key, err).Hint = grid.AdviceOf(err)
			return []*Stage{st}
		}
	}
	out := []*Stage{st}
	beside := func(name, ref string) *Stage {
		s := &Stage{Line: st.Line, at: st.at}
		s.Name, s.Plugin = st.Name+"."+name, ref
		s.Limits, s.Require, s.Prefer, s.Reserve, s.Attempts = st.Limits, st.Require, st.Prefer, st.Reserve, st.Attempts
		return s
	}
	if a.decode != "" {
		switch e := st.Each; {
		case e == nil:
			r.problem(got["decode"], "stage %s: decode is for files, but there is no each", st.Name)
			return out
		case e.GroupCount > 1 || e.GroupBytes > 0 && e.GroupCount != 1 || e.PerFolder:
			r.problem(got["decode"], "stage %s: decode gives a task one file, and each several", st.Name).hint("leave group and per out")
			return out
		}
		d := beside("decode", a.decode)
		d.Each, st.Each = st.Each, nil
		as := ""
		if len(st.Takes) > 0 {
			as = "decoded"
		}
		st.Takes = append(st.Takes, Take{Stage: d.Name, Fan: 1, As: as, set: true, at: st.at})
		out = []*Stage{d, st}
	}
	if a.combine != "" {
		if len(st.Takes) != 1 || st.Takes[0].Fan > 0 || st.Takes[0].Part || st.Merge || st.FanIn > 0 {
			r.problem(got["combine"], "stage %s: combine is for all of what comes of one other stage", st.Name).hint("leave reduce and take out")
			return out
		}
		c := beside("combine", a.combine)
		c.FanIn = max(a.fan, 2)
		if a.fan == 0 {
			c.FanIn = defaultFanIn
		}
		c.Takes = []Take{{Stage: st.Takes[0].Stage, at: st.at}}
		st.Takes[0].Stage = c.Name
		out = append(out[:len(out)-1:len(out)-1], c, st)
	}
	if a.encode != "" {
		if st.Partitions > 0 {
			r.problem(got["encode"], "stage %s: encode and shuffle exclude each other: what is encoded has no parts", st.Name)
			return out
		}
		e := beside("encode", a.encode)
		e.Name, st.Name = st.Name, st.Name+".raw"
		e.Takes = []Take{{Stage: st.Name, Fan: 1, set: true, at: st.at}}
		out = append(out, e)
	}
	return out
}
