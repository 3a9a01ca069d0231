package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

func TestCallOutput(t *testing.T) {
	typed := &grid.Function{Name: "f", Kind: grid.TypedFunc, Output: json.RawMessage(`{}`)}
	stream := &grid.Function{Name: "f", Kind: grid.StreamFunc, Output: json.RawMessage(`{}`)}
	raw := &grid.Function{Name: "f", Kind: grid.TypedFunc}
	for _, test := range []struct {
		name string
		fn   *grid.Function
		out  grid.TaskOutput
		want string
	}{
		{"value", typed, grid.TaskOutput{Size: 7, Data: []byte(`{"a":1}`)}, `{"a":1}`},
		{"values", stream, grid.TaskOutput{Size: 4, Data: []byte("1\n2\n")}, `[1,2]`},
		{"text", raw, grid.TaskOutput{Size: 2, Data: []byte("12")}, `"12"`},
		{"of who knows what", nil, grid.TaskOutput{Size: 2, Data: []byte("12")}, `"12"`},
		{"no value", typed, grid.TaskOutput{Size: 1, Data: []byte("{")}, `"{"`},
		{"no values", stream, grid.TaskOutput{Size: 2, Data: []byte("1{")}, `null`},
		{"bytes", raw, grid.TaskOutput{Size: 1, Data: []byte{0xff}}, `null`},
		{"nothing", raw, grid.TaskOutput{}, `null`},
		{"elsewhere", typed, grid.TaskOutput{Size: 1 << 20}, `null`},
	} {
		if got, err := json.Marshal(callOutput(test.fn, &test.out)); err != nil || string(got) != test.want {
			t.Errorf("%s: %s, %v", test.name, got, err)
		}
	}
}

// What ends by a limit is told with the flag that raises it.
func TestCallFailure(t *testing.T) {
	for code, hint := range map[grid.Code]string{grid.Deadline: "--timeout", grid.Limit: "--memory", grid.Trap: ""} {
		end := api.CallEnd{Task: &grid.TaskEnd{Fault: &grid.Fault{Code: code, Message: "it ended", Stack: "inner\nouter\n"}}}
		err := callFailure("p.f", &end)
		if err == nil || err.Error() != "p.f failed: it ended\n    inner\n    outer" || !strings.Contains(grid.AdviceOf(err), hint) || (hint == "") != (grid.AdviceOf(err) == "") {
			t.Errorf("%v: %v\nadvice %q", code, err, grid.AdviceOf(err))
		}
	}
}

// What is written nearly right is told how.
func TestCallWords(t *testing.T) {
	f := newFake(t)
	t.Chdir(t.TempDir())
	if err := os.Mkdir("double", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		want string
		args []string
	}{
		{"write it as ./double;", []string{"double", "twice", "21"}},
		{"write it as triple.thrice\n", []string{"triple", "thrice", "21"}},
		{"quote JSON that has spaces in it", []string{"double.twice", "1", "2"}},
		{"which function of ./double to call", []string{"./double"}},
	} {
		if r := f.grid(append([]string{"call"}, test.args...)...); r.exit != exitUsage || !strings.Contains(r.err, test.want) {
			t.Errorf("%q: exit %d: %s", test.args, r.exit, r.err)
		}
	}
}
