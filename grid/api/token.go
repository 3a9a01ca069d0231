package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// KeyPrefix begins every token for the API of this version; keyFamily those of all versions.
const (
	keyFamily = "grid-api-"
	KeyPrefix = keyFamily + "1-"
)

var keyPaste = grid.Paste{Family: keyFamily, Version: "1", Domain: "wasmgrid api token 1", Max: maxKey, From: "grid token create"}

const (
	maxKey       = 4 << 10 // bytes of its text
	maxEndpoints = 8
	maxHost      = 253
	pinSize      = sha256.Size
)

// Key is all that a client needs to use the API over the network: who he is, and where nodes are and how to know them. Its text
// is what people paste, and what a request has behind "Authorization: Bearer".
type Key struct {
	ID     string
	Secret []byte
	At     []Endpoint // of nodes that take it; the first that answers is used
}

// Endpoint is where a node serves the API over TLS.
type Endpoint struct {
	Addr string `cbor:"addr"` // HOST:PORT
	// Pin is the SHA-256 of the public key in the node's certificate (its SubjectPublicKeyInfo); nil: whatever certificate the
	// machine trusts for that host.
	Pin []byte `cbor:"pin,omitempty"`
}

// keyBody is what a key is in bytes.
type keyBody struct {
	ID     string     `cbor:"id"`
	Secret []byte     `cbor:"secret"`
	At     []Endpoint `cbor:"at,omitempty"`
}

// String is the key in one line.
func (k Key) String() string {
	data, err := grid.Marshal(keyBody(k))
	if err != nil {
		return ""
	}
	return keyPaste.Text(data)
}

// IsKey reports whether a text means to be a token for the API, of any version.
func IsKey(text string) bool { return keyPaste.Is(text) }

// ParseKey reads the text of a token.
func ParseKey(text string) (k Key, err error) {
	if strings.HasPrefix(strings.TrimSpace(text), "grid-join-") {
		return Key{}, grid.Errorf(grid.Invalid, "this token is an invitation to a swarm, not one for the API").Hint("`grid up --join` takes it; `grid token create` makes one for the API")
	}
	data, err := keyPaste.Read(text)
	if err != nil {
		return Key{}, err
	}
	bad := func(why string) (Key, error) { return Key{}, keyPaste.Bad(grid.Invalid, why) }
	var body keyBody
	if err := grid.UnmarshalMessage(data, &body); err != nil || len(body.Secret) != grid.TokenSecretSize || len(body.At) > maxEndpoints || grid.CheckTokenID(body.ID) != nil {
		return bad("holds no secret")
	}
	for _, at := range body.At {
		if err := at.check(); err != nil {
			return bad("holds what is no address: " + err.Error())
		}
	}
	return Key(body), nil
}

func (p *Endpoint) check() error {
	host, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return grid.Errorf(grid.Invalid, "%.300q is not HOST:PORT", p.Addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return grid.Errorf(grid.Invalid, "%.20q is no port", port)
	}
	if len(p.Pin) != 0 && len(p.Pin) != pinSize {
		return grid.Errorf(grid.Invalid, "a fingerprint of %d bytes, want %d", len(p.Pin), pinSize)
	}
	ok := host != "" && len(host) <= maxHost
	for i := range len(host) {
		c := host[i]
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte(".-_:%", c) >= 0)
	}
	if !ok {
		return grid.Errorf(grid.Invalid, "%.80q is no host", host)
	}
	return nil
}

// String is the endpoint as a URL, with its fingerprint, if it has one, behind a #.
func (p Endpoint) String() string {
	s := "https://" + p.Addr
	if len(p.Pin) > 0 {
		s += "#" + base64.RawURLEncoding.EncodeToString(p.Pin)
	}
	return s
}

// DefaultPort is where nodes serve the API over TLS, unless told otherwise.
const DefaultPort = "4748"

// ParseEndpoint reads a URL such as https://HOST:PORT#FINGERPRINT.
func ParseEndpoint(text string) (p Endpoint, err error) {
	text = strings.TrimSpace(text)
	bad := func(why string) (Endpoint, error) {
		return Endpoint{}, grid.Errorf(grid.Invalid, "%.200q %s", text, why).Hint("want https://HOST:PORT#FINGERPRINT, as `grid up --api` prints it; a host whose certificate this machine trusts needs no fingerprint")
	}
	if len(text) > maxKey {
		return bad("is too long")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" && u.Scheme != "http":
		return bad("is not the URL of an API")
	case u.Scheme != "https":
		return bad("is not one of HTTPS: the API of a node is never served in the clear")
	case u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
		return bad("has more in it than a host and a fingerprint")
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	p.Addr = net.JoinHostPort(u.Hostname(), port)
	if u.Fragment != "" {
		if p.Pin, err = base64.RawURLEncoding.DecodeString(u.Fragment); err != nil || len(p.Pin) != pinSize {
			return bad("has a fingerprint that is cut or was changed")
		}
	}
	if err := p.check(); err != nil {
		return bad("is no URL of an API: " + err.Error())
	}
	return p, nil
}

// newToken is the body of POST /tokens, and its answer.
type newToken struct {
	grid.TokenRequest
	At []string `json:"at,omitempty"` // URLs of other nodes that the token is to name, too
}

// CreatedToken is a new token.
type CreatedToken struct {
	Text string `json:"token"` // nobody can tell it again
	grid.Token
}

// tokenRoutes are those of tokens for the API.
func (s *Server) tokenRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	timed := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
			defer cancel()
			return ledgerError(f(w, r.WithContext(ctx)), r)
		})
	}
	timed("GET /tokens", func(w http.ResponseWriter, r *http.Request) error {
		list, err := s.Node.Tokens(r.Context())
		if s.Tokens != nil {
			for i := range list {
				list[i].Used = s.Tokens.Used(list[i].ID)
			}
		}
		return paged(w, r, list, func(t *grid.Token) string { return t.ID }, err)
	})
	timed("POST /tokens", s.createToken)
	timed("DELETE /tokens/{id}", func(w http.ResponseWriter, r *http.Request) error {
		t, err := s.Node.RemoveToken(r.Context(), s.Tokens, r.PathValue("id"))
		return reply(w, t, err)
	})
}

func (s *Server) createToken(w http.ResponseWriter, r *http.Request) error {
	var in newToken
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	var key Key
	if s.Endpoints != nil {
		key.At = s.Endpoints()
	}
	for _, text := range in.At {
		at, err := ParseEndpoint(text)
		if err != nil {
			return err
		}
		key.At = append(key.At, at)
	}
	if len(in.At) > maxEndpoints/2 {
		return grid.Errorf(grid.Limit, "%d nodes for one token, at most %d can be named", len(in.At), maxEndpoints/2)
	}
	if len(key.At) == 0 {
		return grid.Errorf(grid.Conflict, "this node does not serve its API over the network, so the token would lead nowhere").
			Hint("start it with `grid up --api ADDRESS`, or name a node that does with --at")
	}
	if n := len(key.At); n > maxEndpoints { // those that were named stay
		key.At = append(key.At[:maxEndpoints-len(in.At)], key.At[n-len(in.At):]...)
	}
	t, secret, err := s.Node.CreateToken(r.Context(), s.Tokens, in.TokenRequest)
	if err != nil {
		return err
	}
	key.ID, key.Secret = t.ID, secret
	w.Header().Set("Cache-Control", "no-store")
	return reply(w, CreatedToken{key.String(), t}, nil)
}

// Tokens lists the tokens for the API of the realm's nodes, the oldest first.
func (c *Client) Tokens(ctx context.Context) ([]grid.Token, error) {
	return get[[]grid.Token](ctx, c, "/tokens")
}

// CreateToken makes a token, which names this node, and others by the URLs of their APIs.
func (c *Client) CreateToken(ctx context.Context, req grid.TokenRequest, at ...string) (out CreatedToken, err error) {
	return out, c.create(ctx, "/tokens", newToken{req, at}, &out)
}

// RemoveToken removes a token by its ID, or by its name if it is the only one of that name.
func (c *Client) RemoveToken(ctx context.Context, which string) (t grid.Token, err error) {
	resp, err := c.do(ctx, http.MethodDelete, "/tokens/"+url.PathEscape(which), nil)
	if err != nil {
		return t, err
	}
	return t, decode(resp, &t)
}
