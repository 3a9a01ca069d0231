package grid

import (
	"strings"
	"testing"
)

func TestFits(t *testing.T) {
	node := Capacity{Slots: 4, Memory: 1 << 30, Scratch: 1 << 20, Labels: Labels{"zone": "a", "gpu": "true"}}
	tests := []struct {
		name  string
		class Class
		want  []string // that the error names; none: it fits
	}{
		{"nothing asked", Class{}, nil},
		{"all there is", Class{Cores: 4, Memory: 1 << 30, Scratch: 1 << 20, Require: "zone in (a,b),gpu"}, nil},
		{"a preference does not count", Class{Prefer: "zone=c"}, nil},
		{"cores", Class{Cores: 5}, []string{"5 cores", "has 4"}},
		{"memory", Class{Memory: 1<<30 + 1}, []string{"1.0 GiB of memory", "1 GiB for"}},
		{"scratch", Class{Scratch: 1 << 21}, []string{"2 MiB of scratch", "1 MiB"}},
		{"label that differs", Class{Require: "zone=c"}, []string{"zone=c", "zone=a"}},
		{"label that is not there", Class{Require: "arch=arm64"}, []string{"arch=arm64"}},
		{"label that is there", Class{Require: "!gpu"}, []string{"!gpu", "gpu=true"}},
		{"no selector", Class{Require: "zone=="}, []string{"selector"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := node.Fits(&tt.class)
			if len(tt.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("it fits")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
	unbounded := Capacity{Slots: 1}
	if err := unbounded.Fits(&Class{Memory: 1 << 50, Scratch: 1 << 50}); err != nil {
		t.Error(err)
	}
	if err := (&Capacity{}).Fits(&Class{}); err == nil {
		t.Error("a node without slots runs something")
	}
}
