package tune

import (
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestSuggest(t *testing.T) {
	const gib = 1 << 30
	machine := map[string]float64{"cores": 8, "memory": 32 * gib, "workers": 8, "task-memory": 24 * gib, "block-cache": 64 << 20, "grain": .02, "store-quota": 100 * gib, "disk-free": 50 * gib}
	for _, c := range []struct {
		name   string
		change map[string]float64
		peers  []grid.Measured
		flags  string // that are suggested
	}{
		{"as it comes", nil, nil, ""},
		{"too many workers", map[string]float64{"workers": 20}, nil, "--workers=8"},
		{"little memory", map[string]float64{"memory": 2 * gib, "task-memory": 1536 << 20}, nil, "--workers=3"},
		{"more than there is", map[string]float64{"task-memory": 31 * gib}, nil, "--task-memory=24GiB"},
		{"reads that miss", map[string]float64{"cache-hits": .2}, nil, "--block-cache=1GiB"},
		{"reads that do not", map[string]float64{"cache-hits": .95}, nil, ""},
		{"a full disk", map[string]float64{"disk-free": gib}, nil, "--store-quota=75GiB"},
		{"far peers", nil, []grid.Measured{{Name: "peer-trip", Value: .004}, {Name: "peer-trip", Value: .003}}, "--grain=80ms"},
		{"very far peers", nil, []grid.Measured{{Name: "peer-trip", Value: 3}}, "--grain=200ms"},
		{"near peers", map[string]float64{"grain": .5}, []grid.Measured{{Name: "peer-trip", Value: .0001}}, "--grain=20ms"},
		{"what failed has no say", nil, []grid.Measured{{Name: "peer-trip", Value: 3, Error: "no"}}, ""},
	} {
		var list []grid.Measured
		for name, v := range machine {
			if changed, ok := c.change[name]; ok {
				v = changed
			}
			list = append(list, grid.Measured{Name: name, Value: v})
		}
		if v, ok := c.change["cache-hits"]; ok {
			list = append(list, grid.Measured{Name: "cache-hits", Value: v})
		}
		var flags []string
		for _, k := range Suggest(append(list, c.peers...)) {
			if k.Name == "" || k.Why == "" || k.Cost == "" || k.Now == "" || k.Suggested == "" {
				t.Errorf("%s: %+v does not tell all", c.name, k)
			}
			if k.Flag != "" {
				flags = append(flags, k.Flag)
			}
		}
		if got := strings.Join(flags, " "); got != c.flags {
			t.Errorf("%s: %s, want %s", c.name, got, c.flags)
		}
	}
}

// Whatever a file says, there is an answer.
func TestSuggestNonsense(t *testing.T) {
	for _, list := range [][]grid.Measured{nil, {{Name: "cores", Value: -1e300}, {Name: "memory", Value: 1e300}, {Name: "grain", Value: 1e300}, {Name: "peer-trip", Value: -1}}} {
		if got := Suggest(list); len(got) < 5 {
			t.Errorf("%+v", got)
		}
	}
}

func TestTransports(t *testing.T) {
	got := transports([]grid.Measured{{Value: .001, Note: "by quic-v1"}, {Value: .1, Note: "by quic-v1"}, {Value: .001, Note: "by relay"}, {Value: .001, Note: "by tcp"}})
	if len(got) != 2 || !strings.HasPrefix(got[0].Now, "relay, of 1") || !strings.HasPrefix(got[1].Now, "QUIC, of 1") {
		t.Errorf("%+v", got)
	}
}
