package jobfile

import (
	"maps"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// sorted puts stages behind those that they take from, and otherwise leaves them in the order of the file.
func (r *reader) sorted(stages []*Stage, byName map[string]*Stage) []*Stage {
	missing := false
	for _, st := range stages {
		for _, t := range st.Takes {
			if byName[t.Stage] != nil {
				continue
			}
			missing = true
			p := r.problem(t.at, "stage %s takes from %q, which is no stage", st.Name, clip(t.Stage))
			if near := grid.Nearest(t.Stage, slices.Collect(maps.Keys(byName))); near != "" {
				p.hint("did you mean %s?", near)
			}
		}
	}
	if missing {
		return stages
	}
	placed := map[*Stage]bool{}
	ready := func(st *Stage) bool {
		return !placed[st] && !slices.ContainsFunc(st.Takes, func(t Take) bool { return !placed[byName[t.Stage]] })
	}
	var out []*Stage
	for len(out) < len(stages) {
		i := slices.IndexFunc(stages, ready)
		if i < 0 {
			r.cycle(stages, byName, placed)
			return stages
		}
		placed[stages[i]] = true
		out = append(out, stages[i])
	}
	return out
}

// cycle tells of one among the stages that could not be placed: from any of these, going on to one that it waits for
// comes back in the end.
func (r *reader) cycle(stages []*Stage, byName map[string]*Stage, placed map[*Stage]bool) {
	st := stages[slices.IndexFunc(stages, func(st *Stage) bool { return !placed[st] })]
	var way []*Stage
	for !slices.Contains(way, st) {
		way = append(way, st)
		i := slices.IndexFunc(st.Takes, func(t Take) bool { return !placed[byName[t.Stage]] })
		st = byName[st.Takes[i].Stage]
	}
	way = way[slices.Index(way, st):]
	slices.Reverse(way) // in the direction of the data
	first := slices.IndexFunc(way, func(st *Stage) bool { return st.at.Line == minLine(way) })
	way = append(way[first:], way[:first]...)
	var names []string
	for _, st := range append(way, way[0]) {
		names = append(names, st.Name)
	}
	r.problem(way[0].at, "stages take from one another in a circle: %s", strings.Join(names, " -> "))
}

func minLine(stages []*Stage) int {
	return slices.MinFunc(stages, func(a, b *Stage) int { return a.at.Line - b.at.Line }).at.Line
}

// checkTakes checks what stages take against what others leave.
func (r *reader) checkTakes(f *File) {
	if Failed(r.problems) {
		return
	}
	parted, taken := map[string]bool{}, map[string]bool{}
	tasks := map[string]uint32{}
	for _, st := range f.Stages {
		for _, t := range st.Takes {
			from := f.stagesByName[t.Stage]
			taken[t.Stage] = true
			switch {
			case t.Part && from.Partitions == 0:
				r.problem(t.at, "stage %s takes parts, but %s does not leave any", st.Name, t.Stage).
					hint("give %s a shuffle: {partitions: N}", t.Stage)
			case st.Merge && t.Part && from.Split == "":
				r.problem(t.at, "stage %s reduces by key, but the tasks of %s make the parts, which need not be in order of keys", st.Name, t.Stage).
					hint("have %s shuffle by: key, or take its parts without reduce", t.Stage)
			case st.Merge && !t.Part:
				r.problem(t.at, "stage %s reduces by key, so it takes parts of %s", st.Name, t.Stage).hint("leave take out")
			}
			parted[t.Stage] = parted[t.Stage] || t.Part
		}
		n, err := st.tasks(f, tasks, 0)
		if err != nil {
			r.problem(st.at, "stage %s: %v", st.Name, err)
		}
		tasks[st.Name] = n
	}
	for i, st := range f.Stages {
		if st.Partitions > 0 && !parted[st.Name] {
			r.warn(st.at, "stage %s shuffles, but no stage takes its parts", st.Name)
		}
		if !taken[st.Name] && i < len(f.Stages)-1 {
			r.warn(st.at, "no stage takes what %s leaves, and it is not the last stage: what it prints is not shown", st.Name)
		}
	}
}
