// Package fakes3 is a small S3 server for tests: objects in memory, requests signed with version 4 of AWS's
// signatures, which it checks. It knows what the grid asks for and nothing else: GET with ranges and
// conditions, HEAD, PUT, DELETE, listings, and uploads in parts.
package fakes3

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The key that a Server accepts.
const (
	AccessKey = "AKIDFAKE"
	SecretKey = "not/a+secret"
	Token     = "a-session"
)

// Object is a stored object.
type Object struct {
	Data []byte
	Meta http.Header // X-Amz-Meta-…
	ETag string
}

// Server answers for one bucket, in path style. The zero value is an empty one; set the fields before use.
type Server struct {
	Bucket    string
	Public    bool // may be read without a signature
	NoIfMatch bool // answers If-None-Match with 501, as some servers do
	PageSize  int  // of listings; default 1000
	// Hook, when not nil, is shown each request before it is answered; true: it has answered.
	Hook func(http.ResponseWriter, *http.Request) bool

	mu      sync.Mutex
	objects map[string]Object
	uploads map[string]map[int][]byte
	meta    map[string]http.Header // of uploads
	next    int
}

// Put stores an object.
func (s *Server) Put(key, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, []byte(data), nil)
}

func (s *Server) put(key string, data []byte, meta http.Header) Object {
	if s.objects == nil {
		s.objects = map[string]Object{}
	}
	o := Object{data, meta, fmt.Sprintf("%x", md5.Sum(data))}
	s.objects[key] = o
	return o
}

// Get returns an object, and whether there is one.
func (s *Server) Get(key string) (Object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	return o, ok
}

// Keys lists the keys, sorted.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// Uploads counts uploads in parts that are neither completed nor aborted.
func (s *Server) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// Env is the environment of a client of the server at the given address.
func Env(endpoint string) map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_SESSION_TOKEN": Token,
		"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "eu-test-1",
	}
}

type failure struct {
	status        int
	code, message string
}

func fail(status int, code, format string, args ...any) *failure {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Hook != nil && s.Hook(w, r) {
		return
	}
	if f := s.serve(w, r); f != nil {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(f.status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", f.code, f.message)
		}
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) *failure {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<30))
	if err != nil {
		return fail(400, "IncompleteBody", "%v", err)
	}
	if r.Header.Get("Authorization") != "" || !s.Public || r.Method != http.MethodGet && r.Method != http.MethodHead {
		if f := check(r, body); f != nil {
			return f
		}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != s.Bucket {
		return fail(404, "NoSuchBucket", "no bucket %s", bucket)
	}
	q := r.URL.Query()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case key == "" && r.Method == http.MethodGet && q.Get("list-type") == "2":
		return s.list(w, q)
	case key == "":
		return fail(501, "NotImplemented", "%s of a bucket", r.Method)
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return s.get(w, r, key)
	case r.Method == http.MethodPost && q.Has("uploads"):
		return s.begin(w, r, key)
	case r.Method == http.MethodPut && q.Has("uploadId"):
		return s.part(w, q, body)
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return s.complete(w, r, key, q, body)
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		delete(s.uploads, q.Get("uploadId"))
		w.WriteHeader(http.StatusNoContent)
		return nil
	case r.Method == http.MethodPut:
		if f := s.condition(r, key); f != nil {
			return f
		}
		w.Header().Set("ETag", `"`+s.put(key, body, meta(r)).ETag+`"`)
		return nil
	}
	return fail(501, "NotImplemented", "%s", r.Method)
}

func meta(r *http.Request) http.Header {
	h := http.Header{}
	for k, v := range r.Header {
		if strings.HasPrefix(k, "X-Amz-Meta-") {
			h[k] = v
		}
	}
	return h
}

// condition looks at If-None-Match: *, the only one that is sent with a write.
func (s *Server) condition(r *http.Request, key string) *failure {
	if r.Header.Get("If-None-Match") == "" {
		return nil
	}
	if s.NoIfMatch {
		return fail(501, "NotImplemented", "conditions are not implemented")
	}
	if _, ok := s.objects[key]; ok {
		return fail(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	}
	return nil
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, key string) *failure {
	o, ok := s.objects[key]
	if !ok {
		return fail(404, "NoSuchKey", "The specified key does not exist.")
	}
	for k, v := range o.Meta {
		w.Header()[k] = v
	}
	w.Header().Set("ETag", `"`+o.ETag+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(o.Data)) // ranges and conditions are its
	return nil
}

func (s *Server) list(w http.ResponseWriter, q url.Values) *failure {
	type contents struct {
		Key          string
		Size         int
		ETag         string
		LastModified string
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name, Prefix          string
		KeyCount              int
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		EncodingType          string
		Contents              []contents
	}{Name: s.Bucket, Prefix: q.Get("prefix"), EncodingType: q.Get("encoding-type")}
	most := cmp.Or(s.PageSize, 1000)
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("continuation-token") {
			continue
		}
		if len(out.Contents) == most {
			out.IsTruncated = true
			break
		}
		o, name := s.objects[key], key
		if out.EncodingType == "url" {
			name = url.QueryEscape(key)
		}
		out.Contents = append(out.Contents, contents{name, len(o.Data), `"` + o.ETag + `"`, "2001-09-09T01:46:40.000Z"})
		out.NextContinuationToken = key
	}
	if !out.IsTruncated {
		out.NextContinuationToken = ""
	}
	out.KeyCount = len(out.Contents)
	return reply(w, out)
}

func reply(w http.ResponseWriter, v any) *failure {
	w.Header().Set("Content-Type", "application/xml")
	if err := xml.NewEncoder(w).Encode(v); err != nil {
		return fail(500, "InternalError", "%v", err)
	}
	return nil
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request, key string) *failure {
	if r.Header.Get("If-None-Match") != "" {
		return fail(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
	}
	if s.uploads == nil {
		s.uploads, s.meta = map[string]map[int][]byte{}, map[string]http.Header{}
	}
	s.next++
	id := fmt.Sprintf("upload-%d", s.next)
	s.uploads[id], s.meta[id] = map[int][]byte{}, meta(r)
	return reply(w, struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket, Key, UploadId string
	}{Bucket: s.Bucket, Key: key, UploadId: id})
}

func (s *Server) part(w http.ResponseWriter, q url.Values, body []byte) *failure {
	n, err := strconv.Atoi(q.Get("partNumber"))
	parts := s.uploads[q.Get("uploadId")]
	if parts == nil || err != nil {
		return fail(404, "NoSuchUpload", "no such upload")
	}
	parts[n] = body
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, md5.Sum(body)))
	return nil
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request, key string, q url.Values, body []byte) *failure {
	var want struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	id := q.Get("uploadId")
	parts := s.uploads[id]
	if err := xml.Unmarshal(body, &want); err != nil || parts == nil || len(want.Part) != len(parts) {
		return fail(400, "InvalidPart", "%d parts are here, %d were named: %v", len(parts), len(want.Part), err)
	}
	if f := s.condition(r, key); f != nil {
		return f
	}
	var data []byte
	for i, p := range want.Part {
		if p.PartNumber != i+1 || strings.Trim(p.ETag, `"`) != fmt.Sprintf("%x", md5.Sum(parts[i+1])) {
			return fail(400, "InvalidPart", "part %d", p.PartNumber)
		}
		if i < len(want.Part)-1 && len(parts[i+1]) < 5<<20 {
			return fail(400, "EntityTooSmall", "part %d", p.PartNumber)
		}
		data = append(data, parts[i+1]...)
	}
	o := s.put(key, data, s.meta[id])
	delete(s.uploads, id)
	return reply(w, struct {
		XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket, Key, ETag string
	}{Bucket: s.Bucket, Key: key, ETag: `"` + o.ETag + `"`})
}

// check verifies a signature. See
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
func check(r *http.Request, body []byte) *failure {
	auth, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return fail(403, "AccessDenied", "Access Denied")
	}
	fields := map[string]string{}
	for f := range strings.SplitSeq(auth, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		fields[k] = v
	}
	id, scope, _ := strings.Cut(fields["Credential"], "/")
	if id != AccessKey {
		return fail(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if payload != "UNSIGNED-PAYLOAD" && payload != hexSum(body) {
		return fail(400, "XAmzContentSHA256Mismatch", "%q is not the hash of what came", payload)
	}
	if r.Header.Get("X-Amz-Security-Token") != Token {
		return fail(403, "InvalidToken", "The provided token is malformed or otherwise invalid.")
	}
	signed := strings.Split(fields["SignedHeaders"], ";")
	var headers strings.Builder
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && !slices.Contains(signed, strings.ToLower(name)) {
			return fail(403, "AccessDenied", "the header %s is not signed", name)
		}
	}
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20"),
		headers.String(), fields["SignedHeaders"], payload,
	}, "\n")
	date := r.Header.Get("X-Amz-Date")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", date, scope, hexSum([]byte(canonical))}, "\n")
	key := []byte("AWS4" + SecretKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	if len(date) < 8 || !strings.HasPrefix(scope, date[:8]+"/") || hex.EncodeToString(mac(key, text)) != fields["Signature"] {
		return fail(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
	}
	return nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
