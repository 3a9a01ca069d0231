package api

import (
	"context"
	_ "embed" // for the comments
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/wasmgrid/wasmgrid/grid"
)

// comments are what the Go source says of the types in the document and of their fields, by "grid.Pin" and "grid.Pin.Root": a
// program cannot read that of itself.
//
//go:embed comments.json
var comments []byte

// Document is the OpenAPI document of this interface, made of the table of routes, of the Go types that they take and give, and of
// what the source says of these.
var Document = sync.OnceValue(func() []byte {
	var said map[string]string
	if err := json.Unmarshal(comments, &said); err != nil {
		panic(err)
	}
	return document(func(of string) string { return said[of] })
})

// document makes the document. says gives the comment on a type or a field; "": there is none.
func document(says func(of string) string) []byte {
	s := newShapes(says)
	paths := make(object)
	for i := range table {
		r := &table[i]
		if r.pattern == "/" {
			continue
		}
		for _, at := range r.places() {
			method, path, _ := strings.Cut(at, " ")
			item, _ := paths[path].(object)
			if item == nil {
				item = make(object)
				paths[path] = item
			}
			item[strings.ToLower(method)] = r.operation(s, method, path)
		}
	}
	failure := object{
		"description": "what went wrong, as RFC 9457 has it; its code is one of docs/api.md. An answer that has begun ends with one in the trailer " + trailerError,
		"content":     object{problemType: object{"schema": object{"$ref": "#/components/schemas/Problem"}}},
	}
	s.made["Problem"] = problemShape(s)
	data, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Grid", "version": grid.Version,
			"description": "The HTTP interface of a node. On its unix socket whoever can open it may do everything; over the network it is served by TLS 1.3 to those who have a token.",
		},
		"servers":  []object{{"url": "/"}},
		"security": []object{{"token": []string{}}, {}},
		"paths":    paths,
		"components": object{
			"schemas":         s.made,
			"responses":       object{"Problem": failure},
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "of `grid token create`; none on the node's socket"}},
		},
	}, "", "  ")
	if err != nil {
		panic(err) // there is nothing in it that JSON cannot have
	}
	return append(data, '\n')
}

// places are the methods and paths that a route is served at, as OpenAPI has them.
func (r *route) places() []string {
	if r.pattern == gatewayPrefix+"/" {
		return []string{"GET " + gatewayPrefix + "/{cid}", "GET " + gatewayPrefix + "/{cid}/{path}"}
	}
	method, path, _ := strings.Cut(r.pattern, " ")
	if !outside[r.pattern] {
		path = prefix + path
	}
	return []string{method + " " + strings.ReplaceAll(path, "...}", "}")}
}

// operation is what the document says of a route.
func (r *route) operation(s *shapes, method, path string) object {
	answers := object{"200": r.answer(s), "default": object{"$ref": "#/components/responses/Problem"}}
	if r.ranged {
		answers["206"] = object{"description": "the part that the header Range asks for", "content": r.out.content(s)}
	}
	out := object{
		"operationId": operationID(method, path), "summary": r.does, "x-grid-role": r.role,
		"responses": answers,
	}
	params := []object{}
	for _, part := range strings.Split(path, "/") {
		name, ok := strings.CutPrefix(part, "{")
		if name = strings.TrimSuffix(name, "}"); !ok {
			continue
		}
		p := object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}}
		if strings.Contains(r.pattern, "{"+name+"...}") || name == "path" {
			p["description"] = "it may hold slashes, and a path may be empty"
		}
		params = append(params, p)
	}
	query := r.query
	if r.pages {
		query = slices.Concat(query, pageParams)
	}
	for _, q := range query {
		p := object{"name": q.name, "in": "query", "description": q.does, "schema": q.kind.shape()}
		if q.need {
			p["required"] = true
		}
		params = append(params, p)
	}
	if r.resumes {
		params = append(params, object{"name": headerLastEvent, "in": "header", "schema": object{"type": "string"}, "description": "of events: the id of the last one that the reader has had"})
	}
	if r.once {
		params = append(params, object{"name": headerKey, "in": "header", "schema": object{"type": "string", "minLength": 1, "maxLength": maxOnceKey},
			"description": "made up by the sender: the request is done once, however often it is sent with this key"},
			object{"name": headerRetry, "in": "header", "schema": object{"type": "string", "enum": []string{"1"}},
				"description": "the request was sent before with this key: refuse it if it cannot be known any more what came of that"})
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	if r.in.media != "" {
		s.asked = true
		out["requestBody"] = object{"required": !r.in.may, "content": r.in.content(s)}
		s.asked = false
	}
	return out
}

// answer is what the document says of a good answer.
func (r *route) answer(s *shapes) object {
	if r.out.media == "" {
		return object{"description": r.does, "content": object{rawType: object{}, carName: object{}}} // the gateway
	}
	out := object{"description": r.does, "content": r.out.content(s)}
	if r.pages {
		out["headers"] = object{headerNext: object{"schema": object{"type": "string"}, "description": "what to send as after to have the next page, escaped for a URL; there is none when that is all"}}
	}
	return out
}

// content is what the document says of a body. A schema of lines or events is that of each of them.
func (b body) content(s *shapes) object {
	out := object{b.media: object{}}
	if b.of != nil {
		out[b.media] = object{"schema": s.of(b.of)}
	}
	switch b.also {
	case "":
	case eventsType: // the schema is that of an event's data
		out[b.also] = out[b.media]
	default:
		out[b.also] = object{}
	}
	return out
}

func (k paramKind) shape() object {
	switch k {
	case integerParam:
		return object{"type": "integer", "minimum": 0}
	case flagParam:
		return object{"type": "string", "enum": []string{"1"}}
	case timeParam:
		return object{"type": "string", "format": "date-time"}
	case dateParam:
		return object{"type": "string", "format": "date"}
	}
	return object{"type": "string"}
}

// operationID is a name for programs: get_jobs_id_events.
func operationID(method, path string) string {
	words := strings.FieldsFunc(strings.TrimPrefix(path, prefix), func(c rune) bool { return strings.ContainsRune("/{}-.", c) })
	return strings.ToLower(method) + "_" + strings.Join(words, "_")
}

// openapi gives out the document.
func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", jsonType)
	_, err := w.Write(Document())
	return err
}

// OpenAPI reads the OpenAPI document of the node.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/openapi.json")
}
