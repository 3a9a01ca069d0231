package nodelog

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// handler makes records of what is logged.
type handler struct {
	log    *Log
	room   *room
	group  string            // of attributes: with a dot at its end
	attrs  map[string]string // that every record has
	shapes []shape           // what was said of the handler, for the lines
}

// shape is a step from one handler to another: attributes, or a group.
type shape struct {
	attrs []slog.Attr
	group string
}

func newHandler(l *Log) *handler { return &handler{log: l, room: l.main} }

// Enabled, and what follows, are told at slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return int64(level) >= h.room.level.Load()
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = make(map[string]string, len(h.attrs)+len(attrs))
	for k, v := range h.attrs {
		next.attrs[k] = v
	}
	var rest []slog.Attr
	for _, a := range attrs {
		if a.Key == RoomKey && h.group == "" {
			next.room = h.log.room(a.Value.String())
			continue
		}
		flatten(next.attrs, h.group, a)
		rest = append(rest, a)
	}
	if len(rest) > 0 {
		next.shapes = append(slices.Clip(h.shapes), shape{attrs: rest})
	}
	return &next
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group += name + "."
	next.shapes = append(slices.Clip(h.shapes), shape{group: name})
	return &next
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	rec := grid.LogRecord{At: r.Time.UTC().Round(0), Level: levelName(r.Level), Room: h.room.name, Text: clean(r.Message)}
	if len(h.attrs) > 0 || r.NumAttrs() > 0 {
		rec.Attrs = make(map[string]string, len(h.attrs)+r.NumAttrs())
		for k, v := range h.attrs {
			rec.Attrs[k] = v
		}
		r.Attrs(func(a slog.Attr) bool {
			flatten(rec.Attrs, h.group, a)
			return true
		})
	}
	var line []byte
	if h.log.out != nil {
		var b bytes.Buffer
		out := h.log.form(&b).WithAttrs([]slog.Attr{slog.String(RoomKey, h.room.name)})
		for _, s := range h.shapes {
			if s.group != "" {
				out = out.WithGroup(s.group)
			} else {
				out = out.WithAttrs(s.attrs)
			}
		}
		if err := out.Handle(ctx, r); err != nil {
			return err
		}
		line = b.Bytes()
	}
	h.log.add(rec, line)
	return nil
}

// flatten adds an attribute, and those of a group by their names with dots.
func flatten(to map[string]string, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, below := range v.Group() {
			flatten(to, group, below)
		}
		return
	}
	if len(to) < maxAttrs && a.Key != "" {
		to[group+a.Key] = clean(v.String())
	}
}

// harmless is what becomes of attributes on their way to the lines.
func harmless(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return a
	}
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(clean(v.String()))
	case slog.KindAny:
		a.Value = slog.StringValue(clean(fmt.Sprint(v.Any())))
	}
	return a
}

// secret is what tokens, invitations and private keys look like: what begins them says what they are, the rest is nobody's business.
var secret = regexp.MustCompile(`\b(grid-[a-z]+-\d+-)[A-Za-z0-9_-]{8,}|\b(AGE-SECRET-KEY-1)[0-9A-Z]+|(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*`)

// clean bounds a text, and takes secrets out of it that should not be there in the first place.
func clean(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	if !strings.Contains(s, "grid-") && !strings.Contains(s, "KEY-") && !strings.Contains(s, "KEY--") {
		return s
	}
	return secret.ReplaceAllString(s, "${1}${2}${3}[not shown]")
}
