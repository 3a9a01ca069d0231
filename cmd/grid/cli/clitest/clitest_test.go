package clitest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestFind(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"grid ps -a  # all", "1:[ps -a]"},
		{"  $ grid ps", ""},
		{"id=$(grid run -d ./sim --count 1000)\ngrid wait $id && grid get $id -o results", "1:[run -d ./sim --count 1000] 2:[wait $id] 2:[get $id -o results]"},
		{"echo 'a | grid b' | grid run upper.wasm -i", "1:[run upper.wasm -i]"},
		{"GRID_HOME=/x grid up --require 'a in (b,c)' \\\n  --x \"y $(grid z)\" >out 2>&1 <in", "2:[z] 1:[up --require a in (b,c) --x y $(grid z)]"},
		{"grid kv txn - <<'END'\n{grid no}\nEND\ngrid ps", "1:[kv txn -] 4:[ps]"},
		{"for i in a b; do grid add $i; done; source <(grid completion bash)", "1:[add $i] 1:[completion bash]"},
		{"grid backup - > x; sudo -u g grid y; cat grid", "1:[backup -]"},
		{"a=${b:-c d} grid e{f}", "1:[e{f}]"},
	} {
		found, err := Find(tt.text)
		var got []string
		for _, c := range found {
			got = append(got, fmt.Sprint(c.Line, ":", c.Args))
		}
		if s := strings.ReplaceAll(strings.Join(got, " "), " :[", ":["); err != nil || s != tt.want {
			t.Errorf("%q gives %s, %v; want %s", tt.text, s, err, tt.want)
		}
	}
	for _, bad := range []string{"grid 'x", `grid "x`, "a=$(grid x", "grid ${x"} {
		if found, err := Find(bad); err == nil {
			t.Errorf("%q gives %v", bad, found)
		}
	}
}

func TestCheck(t *testing.T) {
	tree := func() *cobra.Command {
		root := &cobra.Command{Use: "grid", Args: cobra.ArbitraryArgs, Run: func(*cobra.Command, []string) {}}
		pin := &cobra.Command{Use: "pin", Args: cobra.NoArgs, Run: func(*cobra.Command, []string) {}}
		ls := &cobra.Command{Use: "ls", Args: cobra.MaximumNArgs(1), Run: func(*cobra.Command, []string) {}}
		ls.Flags().Int("limit", 0, "")
		root.AddCommand(pin)
		pin.AddCommand(ls)
		return root
	}
	for line, ok := range map[string]bool{
		"pin ls a --limit 3": true, "pin ls --help x y": true, "--help": true, "": true, "pin": true,
		"pin lss": false, "pn": false, "pin ls --limits 3": false, "pin ls --limit x": false, "pin ls a b": false,
	} {
		if err := Check(tree(), strings.Fields(line)); (err == nil) != ok {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add("a=$(grid b <<X) | grid 'c' \"$(d)\" >e\nX\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 1<<12 {
			_, _ = Find(text)
		}
	})
}
