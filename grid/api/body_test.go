package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestReadBody: whatever is wrong with a body is named, and for a field that there is not, the nearest one that there is.
func TestReadBody(t *testing.T) {
	for _, c := range []struct {
		body       string
		code       grid.Code
		says, hint string
	}{
		{`{"stages": [{"module": null}]}`, 0, "", ""},
		{` {"name": "x"} ` + "\n", 0, "", ""},
		{`{"nmae": "x"}`, grid.Invalid, `no field "nmae"`, `"name"`},
		{`{"stages": [{"moduel": "x"}]}`, grid.Invalid, `no field "moduel"`, `"module"`},
		{`{"quite different": 1}`, grid.Invalid, `no field "quite different"`, "openapi.json"},
		{`{"` + strings.Repeat("x", 10_000) + `": 1}`, grid.Invalid, "no field", "openapi.json"},
		{``, grid.Invalid, "nothing", ""},
		{`{"name": "x"`, grid.Invalid, "too early", ""},
		{`{"name": "x"} {}`, grid.Invalid, "more behind it", ""},
		{`{"name": 7}`, grid.Invalid, `"name" is to be a string, not number`, "openapi.json"},
		{`[]`, grid.Invalid, "it is to be an object, not array", "openapi.json"},
		{`{"stages": [{"tasks": -1}]}`, grid.Invalid, `"stages.tasks" is to be a whole number from 0 to 4294967295, not number -1`, ""},
		{`{"stages": 5}`, grid.Invalid, `"stages" is to be an array, not number`, ""},
		{`{"module": null}`, grid.Invalid, `no field "module" where it stands`, "elsewhere"},
		{strings.Repeat("[", 20_000), grid.Invalid, "", ""},
		{`{"name": "` + strings.Repeat("x", 70_000) + `"}`, grid.Limit, "more than 65536 bytes", ""},
		{strings.Repeat(" ", 70_000), grid.Limit, "more than 65536 bytes", ""},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
		var req grid.Request
		err := readBody(httptest.NewRecorder(), r, "the request", 64<<10, &req)
		if c.code == 0 {
			if err != nil {
				t.Errorf("%.60q: %v", c.body, err)
			}
			continue
		}
		if grid.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 500 || !strings.Contains(grid.AdviceOf(err), c.hint) {
			t.Errorf("%.60q: %v: %.300v, hint %.200q", c.body, grid.CodeOf(err), err, grid.AdviceOf(err))
		}
	}
}
