package jobfile

import (
	"fmt"
	"strings"
	"testing"
)

func TestAround(t *testing.T) {
	const text = `stages:
  count:
    plugin: words.map
    decode: gz.unpack@1
    each: "texts/*"
  sum:
    plugin: words.reduce
    combine: words.combine
    fan: 2
    encode: gz.pack
    from: count
  show:
    plugin: words.show
    from: {stage: sum, take: each}
`
	f, problems := Parse([]byte(text), nil)
	if f == nil {
		t.Fatal(problems)
	}
	p, err := f.Plan(folder{"texts/a": "1", "texts/b": "2", "texts/c": "3"})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for i, st := range p.Request.Stages {
		fmt.Fprintf(&got, "%s %s %d rows %d", st.Name, st.Plugin, st.Tasks, len(p.Rows[i]))
		for _, src := range st.From {
			fmt.Fprintf(&got, " <- %s/%d", p.Request.Stages[src.Stage].Name, src.Fan)
		}
		fmt.Fprintln(&got)
	}
	const want = `count.decode gz.unpack@1 3 rows 3
count words.map 3 rows 0 <- count.decode/1
sum.combine.1 words.combine 2 rows 0 <- count/2
sum.combine words.combine 1 rows 0 <- sum.combine.1/2
sum.raw words.reduce 1 rows 0 <- sum.combine/0
sum gz.pack 1 rows 0 <- sum.raw/1
show words.show 1 rows 0 <- sum/1
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	for _, change := range [][3]string{
		{"decode: gz.unpack@1", "decode: Not A Name", "names no plugin"},
		{`each: "texts/*"`, `count: 3`, "there is no each"},
		{`each: "texts/*"`, `each: {files: "texts/*", group: 2}`, "several"},
		{"fan: 2", "fan: 1", "want a whole number from 2"},
		{"combine: words.combine\n", "reduce: all\n", "fan is for combine"},
		{"    from: count", "    from: {stage: count, take: each}", "combine is for all"},
		{"    from: count", "    from: count\n    shuffle: {partitions: 2}", "encode and shuffle"},
		{"encode: gz.pack", "encode: gz.pack.x", "names no plugin"},
	} {
		bad := strings.Replace(text, change[0], change[1], 1)
		f, problems := Parse([]byte(bad), nil)
		if said := fmt.Sprint(problems); f != nil || !strings.Contains(said, change[2]) {
			t.Errorf("%s gives %s, want %q", change[1], said, change[2])
		}
	}
}
