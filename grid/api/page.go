package api

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/wasmgrid/wasmgrid/grid"
)

// headerNext is where the next page of a list goes on: what to send as after. There is none when that is all.
const headerNext = "Grid-Next"

// paged answers with the page of a list that a request asks for: at most limit of what comes after the one that is named.
func paged[T any](w http.ResponseWriter, r *http.Request, list []T, name func(*T) string, err error) error {
	if err != nil {
		return err
	}
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		return err
	}
	if after := q.Get("after"); after != "" {
		i := slices.IndexFunc(list, func(v T) bool { return name(&v) == after })
		if i < 0 {
			return grid.Errorf(grid.OutOfDate, "after=%.100q: that is not in the list, or no longer", after).Hint("begin anew, without after")
		}
		list = list[i+1:]
	}
	if limit > 0 && len(list) > limit {
		list = list[:limit]
		w.Header().Set(headerNext, url.QueryEscape(name(&list[limit-1])))
	}
	return reply(w, orEmpty(list), nil)
}

// limitOf is how many are asked for at most; 0: all.
func limitOf(q url.Values) (int, error) {
	limit, err := uintOf(q, "limit", 31)
	if err == nil && limit == 0 && q.Has("limit") {
		err = grid.Errorf(grid.Invalid, "limit=%.40q: want a number from 1 on", q.Get("limit"))
	}
	return int(limit), err
}

// pageParams are those of a list that has pages.
var pageParams = []param{
	{name: "limit", kind: integerParam, does: "so many at most; the header " + headerNext + " says after which one there are more"},
	{name: "after", kind: stringParam, does: "those that come after this one"},
}
