package api

import (
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// stream writes JSON values one after the other: one a line, or, for who accepts that, as server-sent events.
//
// An event is a message with the value as data; with an id it can be gone on from, by Last-Event-ID. The last one is "end", or
// "error" with a problem, so that a browser does not ask again for what has ended.
type stream struct {
	w      http.ResponseWriter
	enc    *json.Encoder
	events bool
}

// newStream begins a stream in the form that a request accepts.
func newStream(w http.ResponseWriter, r *http.Request) *stream {
	s := &stream{w: w, enc: json.NewEncoder(w), events: wantsEvents(r)}
	kind := linesType
	if s.events {
		kind = eventsType
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	flush(w)
	return s
}

// sender sends values: those of one who follows at once, others when there are enough of them.
func (s *stream) sender(follow bool) func(v any, id ...string) error {
	if follow {
		return s.sendNow
	}
	return s.send
}

// wantsEvents reports whether a request asks for events rather than lines.
func wantsEvents(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(header, ",") {
			if kind, params, err := mime.ParseMediaType(one); err == nil && kind == eventsType {
				q, err := strconv.ParseFloat(params["q"], 64)
				return params["q"] == "" || err == nil && q > 0
			}
		}
	}
	return false
}

// lastEvent is the id of the last event that a reader has had; "": none.
func lastEvent(r *http.Request) string {
	if !wantsEvents(r) {
		return ""
	}
	return r.Header.Get(headerLastEvent)
}

const headerLastEvent = "Last-Event-ID"

// send writes one value, with an id if there is one.
func (s *stream) send(v any, id ...string) error {
	if !s.events {
		return s.enc.Encode(v)
	}
	return writeEvent(s.w, "", v, id...)
}

// sendNow is send for a reader who waits for it.
func (s *stream) sendNow(v any, id ...string) error {
	if err := s.send(v, id...); err != nil {
		return err
	}
	flush(s.w)
	return nil
}

// end is the end of a stream without an error; err is passed on.
func (s *stream) end(err error) error {
	if err != nil || !s.events {
		return err
	}
	return writeEvent(s.w, "end", struct{}{})
}

func writeEvent(w http.ResponseWriter, kind string, v any, id ...string) error {
	data, err := json.Marshal(v)
	if err != nil {
		return grid.Errorf(grid.Internal, "encode %T: %w", v, err)
	}
	var b []byte
	if kind != "" {
		b = append(b, "event: "+kind+"\n"...)
	}
	for _, id := range id {
		b = append(b, "id: "+id+"\n"...)
	}
	b = append(append(append(b, "data: "...), data...), "\n\n"...)
	_, err = w.Write(b)
	return err
}

func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}
