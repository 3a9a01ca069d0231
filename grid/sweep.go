package grid

import (
	"math/bits"
	"strings"
	"unicode/utf8"
)

// Axis is one dimension of a sweep over parameters: names, and the values that these take together.
type Axis struct {
	Names  []string   `cbor:"names" json:"names"`   // of parameters
	Values [][]string `cbor:"values" json:"values"` // one row for each point: a value for each name
}

// Bounds on a sweep. Its values count as arguments of the stage: they have MaxArgBytes together at most.
const (
	MaxAxes          = 32
	MaxParameterName = 64
)

// CheckParameter refuses what cannot be the name of a parameter: letters, digits, _ and -, of which the first is no
// digit and no -.
func CheckParameter(name string) error {
	if name == "" || len(name) > MaxParameterName {
		return Errorf(Invalid, "parameter name %q: want 1 to %d characters", name, MaxParameterName)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || r != '-' && (r < '0' || r > '9')) {
			return Errorf(Invalid, "parameter name %q: want letters, digits, _ and -, a letter first", name)
		}
	}
	return nil
}

// checkSweep checks a stage's sweep and counts its tasks: one for each combination of points of the axes.
func (st *Stage) checkSweep() error {
	if len(st.Sweep) == 0 {
		return nil
	}
	switch {
	case st.Inputs.Defined():
		return Errorf(Invalid, "a stage either sweeps over parameters or has inputs of its own")
	case len(st.Sweep) > MaxAxes:
		return Errorf(Limit, "a sweep over %d axes, at most %d are allowed", len(st.Sweep), MaxAxes)
	}
	tasks, bytes := uint64(1), 0
	longest := map[string]int{} // of a parameter's values
	for _, a := range st.Sweep {
		if len(a.Names) == 0 || len(a.Values) == 0 {
			return Errorf(Invalid, "an axis of the sweep has no names or no values")
		}
		for _, name := range a.Names {
			if err := CheckParameter(name); err != nil {
				return err
			}
			if _, dup := longest[name]; dup {
				return Errorf(Invalid, "the sweep has two parameters %q", name)
			}
			longest[name] = 0
		}
		for _, row := range a.Values {
			if len(row) != len(a.Names) {
				return Errorf(Invalid, "the sweep's parameters %s have %d values at one point", strings.Join(a.Names, ", "), len(row))
			}
			for k, v := range row {
				if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
					return Errorf(Invalid, "parameter %s: the value %q is not UTF-8, or contains a zero byte", a.Names[k], v)
				}
				bytes += len(v)
				longest[a.Names[k]] = max(longest[a.Names[k]], len(v))
			}
		}
		if tasks *= uint64(len(a.Values)); bytes > MaxArgBytes || tasks > MaxTasks {
			break
		}
	}
	if bytes > MaxArgBytes {
		return Errorf(Limit, "the sweep's values have more than %d bytes", MaxArgBytes)
	}
	if tasks > MaxTasks {
		return Errorf(Limit, "the sweep has more than %d combinations", MaxTasks).Hint("split it into several jobs")
	}
	if st.Tasks != 0 && uint64(st.Tasks) != tasks {
		return Errorf(Invalid, "%d tasks, but the sweep has %d combinations", st.Tasks, tasks)
	}
	st.Tasks = uint32(tasks)
	for _, words := range [][]string{st.Args, st.Env} {
		total := uint64(0) // at the longest
		for _, w := range words {
			total += uint64(len(w))
			for name, n := range longest {
				hi, lo := bits.Mul64(uint64(strings.Count(w, "{"+name+"}")), uint64(n))
				if total += lo; hi > 0 || total > MaxArgBytes {
					return Errorf(Limit, "with the sweep's values, arguments or environment have more than %d bytes", MaxArgBytes)
				}
			}
		}
	}
	return nil
}

// Varied are the arguments and the environment variables of task i of a stage: with those of its sweep's parameters
// that they name in braces. The last axis changes from task to task.
func (st *Stage) Varied(i uint32) (args, env []string) {
	if len(st.Sweep) == 0 {
		return st.Args, st.Env
	}
	var pairs []string
	for k := len(st.Sweep) - 1; k >= 0; k-- {
		a := &st.Sweep[k]
		n := uint32(len(a.Values))
		for j, name := range a.Names {
			pairs = append(pairs, "{"+name+"}", a.Values[i%n][j])
		}
		i /= n
	}
	r := strings.NewReplacer(pairs...)
	vary := func(words []string) []string {
		out := make([]string, len(words))
		for i, w := range words {
			out[i] = r.Replace(w)
		}
		return out
	}
	return vary(st.Args), vary(st.Env)
}
