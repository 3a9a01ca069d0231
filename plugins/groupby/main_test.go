package main

import (
	"os"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

var (
	mapper  = sdk.Map("map", combine, group)
	reducer = sdk.Reduce("reduce", combine, table)
)

// ask sets the flags.
func ask(t *testing.T, columns, aggregates string, conditions ...string) {
	t.Helper()
	*by, *aggs, wheres, parsed = columns, aggregates, nil, nil
	for _, c := range conditions {
		if err := parseWhere(c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGroupBy(t *testing.T) {
	files := map[string]string{"empty.csv": "", "none.csv": "rating,price,city,country\n"}
	for _, name := range []string{"june.csv", "july.csv"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	ask(t, "country", "count, count(*),count(rating),sum(price),min(price),max(price),avg(price)", "city != Köln")
	r := sdktest.MapReduce(t, mapper, reducer, files)
	sdktest.Golden(t, "testdata/country.golden", r.Stdout)

	// However files are shared out among tasks, the groups are the same.
	one := sdktest.Run(t, mapper, files)
	if again := sdktest.Run(t, reducer, map[string]string{"0000000": one.Stdout}); again.Stdout != r.Stdout {
		t.Errorf("one task for all files gives other groups:\n%s", again.Stdout)
	}
	if one.Counters["rows"] != 8 || one.Counters["rows_taken"] != 7 {
		t.Errorf("counters: %v", one.Counters)
	}

	ask(t, "", "count,avg(price)", "price>=4", "country<E")
	if r := sdktest.MapReduce(t, mapper, reducer, files); r.Stdout != "count,avg(price)\n2,4.25\n" {
		t.Errorf("without groups: %q", r.Stdout)
	}
	ask(t, "", "sum(price)")
	if r := sdktest.Run(t, mapper, files); r.Counters["not_numbers"] != 1 {
		t.Errorf("counters: %v", r.Counters)
	}
}

func TestOrder(t *testing.T) {
	parts := map[string]string{"0000000": "b,10\n\"x\ny\",9\n", "0000001": "a,9\n"}
	ask(t, "name", "count")
	defer func() { *column, *desc, *limit = 1, false, 0 }()
	*column, *limit = 2, 2
	if r := sdktest.Run(t, sdk.Do("order", order), parts); r.Stdout != "name,count\na,9\n\"x\ny\",9\n" {
		t.Errorf("%q", r.Stdout)
	}
	*desc, *limit = true, 1
	if r := sdktest.Run(t, sdk.Do("order", order), parts); r.Stdout != "name,count\nb,10\n" {
		t.Errorf("%q", r.Stdout)
	}
}

func TestMisuse(t *testing.T) {
	csv := map[string]string{"a": "a,b\n1,2\n", "b": "a,b\n1\n"}
	for _, test := range []struct{ by, agg, want string }{
		{"c", "count", `no column "c", only a, b`},
		{"a", "sum(c)", `no column "c"`},
		{"a", "sum", "want count, or"},
		{"a", "median(b)", "want count, or"},
		{"a", "count", "wrong number of fields"},
	} {
		ask(t, test.by, test.agg)
		if _, err := sdktest.Try(mapper, csv); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if err := parseWhere("a"); err == nil {
		t.Error("a name is taken for a condition")
	}
}
