package jobfile

import (
	"math"
	"math/big"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/grid"
)

// readSweep reads a stage's sweep: a task for each combination of what grid, zip and list give.
func (r *reader) readSweep(n *yaml.Node) []grid.Axis {
	var axes []grid.Axis
	got := r.object(n, "sweep", map[string]field{
		"grid": func(n *yaml.Node) {
			r.named(n, "grid", func(name string, values []string) {
				a := grid.Axis{Names: []string{name}}
				for _, v := range values {
					a.Values = append(a.Values, []string{v})
				}
				axes = append(axes, a)
			})
		},
		"zip":  func(n *yaml.Node) { axes = append(axes, r.zip(n)) },
		"list": func(n *yaml.Node) { axes = append(axes, r.combinations(n)) },
	})
	if got != nil && len(got) == 0 {
		r.problem(n, "the sweep names no parameters").hint("its keys: grid, list, zip")
	}
	return axes
}

// named reads the parameters of a grid or zip with their values.
func (r *reader) named(n *yaml.Node, kind string, each func(name string, values []string)) {
	empty := true
	ok := r.pairs(n, kind, func(key, value *yaml.Node) {
		empty = false
		if err := grid.CheckParameter(key.Value); err != nil {
			r.problem(key, "%v", err)
			return
		}
		values := r.values(value)
		if len(values) == 0 {
			values = []string{""} // the problem was told
		}
		each(key.Value, values)
	})
	if ok && empty {
		r.problem(n, "%s names no parameters", kind)
	}
}

// zip reads parameters whose first values go together, and their second ones, and so on.
func (r *reader) zip(n *yaml.Node) (a grid.Axis) {
	r.named(n, "zip", func(name string, values []string) {
		if a.Names = append(a.Names, name); len(a.Names) == 1 {
			a.Values = make([][]string, len(values))
		}
		if len(values) != len(a.Values) {
			r.problem(n, "zip: %s has %d values, %s %d", a.Names[0], len(a.Values), name, len(values)).hint("give them equally many")
			values = append(values, make([]string, max(0, len(a.Values)-len(values)))...)
		}
		for i := range a.Values {
			a.Values[i] = append(a.Values[i], values[i])
		}
	})
	return a
}

// combinations reads a list of mappings, which all have the same keys.
func (r *reader) combinations(n *yaml.Node) (a grid.Axis) {
	r.items(n, func(it *yaml.Node) {
		point, extra := map[string]string{}, ""
		var order []string
		if !r.pairs(it, "a combination", func(key, value *yaml.Node) {
			if err := grid.CheckParameter(key.Value); err != nil {
				r.problem(key, "%v", err)
			}
			point[key.Value] = r.text(value)
			order = append(order, key.Value)
		}) {
			return
		}
		if a.Names == nil {
			a.Names = order
		}
		row := make([]string, len(a.Names))
		for i, name := range a.Names {
			v, ok := point[name]
			if !ok {
				r.problem(it, "this combination lacks %s, which the first one has", name)
			}
			row[i] = v
			delete(point, name)
		}
		for name := range point {
			extra = max(extra, name)
		}
		if extra != "" {
			r.problem(it, "this combination has %s, which the first one lacks", extra)
		}
		a.Values = append(a.Values, row)
	})
	if len(a.Names) == 0 {
		r.problem(n, "list has no combinations")
		return grid.Axis{Names: []string{"none"}, Values: [][]string{{""}}}
	}
	return a
}

// values reads what one parameter is to be: a list, or a range.
func (r *reader) values(n *yaml.Node) []string {
	body, ok := r.enter(n)
	r.leave()
	switch {
	case !ok:
		return nil
	case body.Kind == yaml.MappingNode:
		return r.span(n)
	case body.Kind == yaml.SequenceNode && len(body.Content) == 0:
		r.problem(n, "the list of values is empty")
		return nil
	}
	return r.texts(n)
}

// maxRange is how many values one range may have.
const maxRange = 1 << 16

// span reads {from, to} and one of step and steps. Both ends belong to it. Steps by addition are exact: they are
// written with as many decimals as from and step have.
func (r *reader) span(n *yaml.Node) []string {
	var from, to, step *big.Rat
	var steps uint32
	var log bool
	places := 0
	number := func(to **big.Rat) field {
		return func(n *yaml.Node) {
			const want = "a number"
			s, _, ok := r.scalar(n, want)
			if !ok {
				return
			}
			f, err := strconv.ParseFloat(s, 64)
			_, frac, _ := strings.Cut(s, ".")
			if err != nil || math.IsNaN(f) || math.Abs(f) > 1e18 || len(s) > 40 || strings.ContainsAny(s, "xXpP_") || strings.ContainsAny(s, "eE") && math.Abs(f) < 1e-18 {
				r.problem(n, "want %s, got %q", want, clip(s))
				return
			}
			*to, _ = new(big.Rat).SetString(s)
			if *to != nil && strings.ContainsAny(s, "eE") {
				p, _ := (*to).FloatPrec()
				places = max(places, p)
			} else {
				places = max(places, len(frac))
			}
		}
	}
	got := r.object(n, "a range", map[string]field{
		"from": number(&from), "to": number(&to), "step": number(&step),
		"steps": r.toUint32(&steps, 2, maxRange), "log": r.toBool(&log),
	})
	switch {
	case got == nil:
		return nil
	case got["from"] == nil || got["to"] == nil:
		r.problem(n, "a range needs from and to")
		return nil
	case got["step"] != nil && got["steps"] != nil:
		r.problem(n, "step and steps exclude each other: say how far apart values are, or how many there are")
		return nil
	case log && got["steps"] == nil:
		r.problem(n, "a range with log needs steps: how many values there are")
		return nil
	case from == nil || to == nil || got["step"] != nil && step == nil || got["steps"] != nil && steps < 2:
		return nil // which was told
	}
	if log {
		return r.logSpan(n, from, to, int(steps))
	}
	if steps > 0 {
		step = new(big.Rat).Quo(new(big.Rat).Sub(to, from), big.NewRat(int64(steps-1), 1))
	} else if step == nil {
		step = big.NewRat(1, 1)
	}
	if step.Sign() == 0 || new(big.Rat).Sub(to, from).Sign()*step.Sign() < 0 {
		r.problem(n, "the steps do not lead from from to to")
		return nil
	}
	count := int64(steps)
	if steps == 0 {
		q := new(big.Rat).Quo(new(big.Rat).Sub(to, from), step)
		whole := new(big.Int).Quo(q.Num(), q.Denom())
		if !whole.IsInt64() || whole.Int64() >= maxRange {
			r.problem(n, "the range has more than %d values", maxRange)
			return nil
		}
		count = whole.Int64() + 1
	}
	values := make([]string, count)
	v := new(big.Rat).Set(from)
	for i := range values {
		if steps > 0 {
			values[i] = decimal(v)
		} else {
			values[i] = v.FloatString(places)
		}
		v.Add(v, step)
	}
	return values
}

// decimal writes a number exactly if it has few decimals, else as the nearest float.
func decimal(v *big.Rat) string {
	if places, exact := v.FloatPrec(); exact && places <= 12 {
		return v.FloatString(places)
	}
	f, _ := v.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// logSpan is a range of equal ratios.
func (r *reader) logSpan(n *yaml.Node, from, to *big.Rat, steps int) []string {
	if from.Sign() <= 0 || to.Sign() <= 0 {
		r.problem(n, "a range with log lies above 0")
		return nil
	}
	a, _ := from.Float64()
	b, _ := to.Float64()
	values := make([]string, steps)
	for i := range values {
		f := a * math.Pow(b/a, float64(i)/float64(steps-1))
		// What is a round number but for the error of the arithmetic is one.
		if short, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 12, 64), 64); err == nil {
			f = short
		}
		values[i] = strconv.FormatFloat(f, 'g', -1, 64)
	}
	values[0], values[steps-1] = decimal(from), decimal(to)
	return values
}
