package main

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What the flags say, taken apart.

var (
	wheres []condition
	parsed []aggregate // of -agg
)

func init() {
	flag.Func("where", "take only rows of which `COLUMN OP VALUE` holds; OP is = != < <= > or >=; may be repeated", parseWhere)
}

// compare compares numbers as numbers, and all else as text.
func compare(a, b string) int {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	return strings.Compare(a, b)
}

// aggregate is one of -agg.
type aggregate struct {
	text, name string
	column     string // "": of count without one
}

// aggregates takes -agg apart, once; plan refuses those that do not exist.
func aggregates() []aggregate {
	if parsed == nil {
		for text := range strings.SplitSeq(*aggs, ",") {
			name, col, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(text), ")"), "(")
			if col == "*" {
				col = ""
			}
			parsed = append(parsed, aggregate{strings.TrimSpace(text), name, col})
		}
	}
	return parsed
}

func (f aggregate) combine(a, b [2]float64) [2]float64 {
	switch {
	case a[number] == 0:
		return b
	case b[number] == 0:
		return a
	case f.name == "min":
		a[value] = math.Min(a[value], b[value])
	case f.name == "max":
		a[value] = math.Max(a[value], b[value])
	default:
		a[value] += b[value]
	}
	a[number] += b[number]
	return a
}

func (f aggregate) print(c [2]float64) string {
	x := c[value]
	switch {
	case f.name == "count":
		x = c[number]
	case c[number] == 0:
		return "" // what is not known
	case f.name == "avg":
		x /= c[number]
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// query knows where in the rows of a file the columns are.
type query struct {
	groups, values []int // -1: no column, of count
	where          []condition
	strange        uint64 // values that are no numbers
}

// condition is one of -where.
type condition struct {
	name   string
	column int // in the rows of a file
	op     string
	value  string
	number bool // value is one
}

var conditionForm = regexp.MustCompile(`^\s*([^=!<>]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*$`)

func parseWhere(text string) error {
	m := conditionForm.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("want COLUMN OP VALUE, such as price>=10")
	}
	_, err := strconv.ParseFloat(m[3], 64)
	wheres = append(wheres, condition{name: m[1], op: m[2], value: m[3], number: err == nil})
	return nil
}

// holds compares with a number only what is one.
func (c condition) holds(row []string) bool {
	if _, err := strconv.ParseFloat(row[c.column], 64); c.number && err != nil {
		return c.op == "!="
	}
	sign := compare(row[c.column], c.value)
	switch c.op {
	case "=":
		return sign == 0
	case "!=":
		return sign != 0
	case "<":
		return sign < 0
	case "<=":
		return sign <= 0
	case ">":
		return sign > 0
	}
	return sign >= 0
}

func plan(names []string) (*query, error) {
	q := &query{}
	var lacking error
	find := func(name string) int {
		i := slices.Index(names, name)
		if i < 0 {
			lacking = fmt.Errorf("there is no column %q, only %s", name, strings.Join(names, ", "))
		}
		return i
	}
	if *by != "" {
		for name := range strings.SplitSeq(*by, ",") {
			q.groups = append(q.groups, find(name))
		}
	}
	for _, f := range aggregates() {
		at := -1
		switch f.name {
		case "count", "sum", "min", "max", "avg":
			if f.column != "" {
				at = find(f.column)
				break
			}
			if f.name == "count" {
				break
			}
			fallthrough
		default:
			return nil, fmt.Errorf("-agg %q: want count, or count, sum, min, max or avg of a column, as in sum(price)", f.text)
		}
		q.values = append(q.values, at)
	}
	for _, c := range wheres {
		c.column = find(c.name)
		q.where = append(q.where, c)
	}
	return q, lacking
}

func (q *query) takes(row []string) bool {
	for _, c := range q.where {
		if !c.holds(row) {
			return false
		}
	}
	return true
}

// appendKey appends a group's values, as a line of CSV begins with them.
func (q *query) appendKey(line []byte, row []string) []byte {
	for _, at := range q.groups {
		if v := row[at]; strings.ContainsAny(v, "\",\r\n") {
			line = append(line, '"')
			line = append(line, strings.ReplaceAll(v, `"`, `""`)...)
			line = append(line, '"')
		} else {
			line = append(line, v...)
		}
		line = append(line, ',')
	}
	return line
}

// cells are what one row says.
func (q *query) cells(row []string) cells {
	c := make(cells, len(q.values))
	for i, f := range aggregates() {
		at := q.values[i]
		if at < 0 || f.name == "count" && row[at] != "" {
			c[i][number] = 1
			continue
		}
		if row[at] == "" || f.name == "count" {
			continue // as SQL has it with NULL
		}
		x, err := strconv.ParseFloat(row[at], 64)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			q.strange++
			continue
		}
		c[i] = [2]float64{1, x}
	}
	return c
}
