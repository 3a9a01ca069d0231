package crypt

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/wasmgrid/wasmgrid/grid"
)

// newKey makes an identity and its recipient.
func newKey(t testing.TB) (age.Identity, age.Recipient) {
	t.Helper()
	text, err := NewKey(false, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := ParseIdentities(text)
	if err != nil {
		t.Fatal(err)
	}
	to, err := RecipientOf(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	return ids[0], to
}

// seal encrypts, and checks that the length is what was foretold.
func seal(t testing.TB, plain []byte, to ...age.Recipient) []byte {
	t.Helper()
	s, err := NewSealer(to...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := s.Begin(&out)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := int64(out.Len()), s.Size(int64(len(plain))); got != want {
		t.Fatalf("%d bytes have become %d, foretold were %d", len(plain), got, want)
	}
	return out.Bytes()
}

func open(t testing.TB, data []byte, ids ...age.Identity) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(data), int64(len(data)), ids...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Whatever part is asked for comes as it was, and age's own reader agrees.
func TestParts(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	id, to := newKey(t)
	sizes := []int{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 2 * ChunkSize, 3*ChunkSize - 1}
	for range 8 {
		sizes = append(sizes, r.IntN(5*ChunkSize))
	}
	for _, size := range sizes {
		plain := random(r, size)
		data := seal(t, plain, to)
		whole, err := age.Decrypt(bytes.NewReader(data), id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(whole); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("age's reader gives %d bytes of %d: %v", len(got), size, err)
		}
		f := open(t, data, id)
		if f.Size() != int64(size) {
			t.Fatalf("%d bytes of %d", f.Size(), size)
		}
		if d, err := f.Folder(); d != nil || err != nil {
			t.Fatalf("a file is a folder: %v", err)
		}
		if size <= 1 || size == ChunkSize+1 && !testing.Short() { // it reads byte by byte
			if err := iotest.TestReader(f.Reader(), plain); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
		}
		in := f.Reader()
		for range 50 {
			off := r.IntN(size + 1)
			want := plain[off:min(size, off+r.IntN(size-off+10))]
			got := make([]byte, len(want))
			if n, err := f.ReadAt(got, int64(off)); n != len(want) || err != nil && err != io.EOF || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes at %d of %d: %d, %v", len(want), off, size, n, err)
			}
			clear(got)
			if at, err := in.Seek(int64(off), io.SeekStart); at != int64(off) || err != nil {
				t.Fatalf("seek to %d of %d: %d, %v", off, size, at, err)
			}
			if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes read at %d of %d: %v", len(want), off, size, err)
			}
		}
	}
}

// No change goes unnoticed, nor does it give other bytes; where it lies is said.
func TestDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 2))
	id, to := newKey(t)
	plain := random(r, 3*ChunkSize+1000)
	data := seal(t, plain, to)
	head := len(data) - len(plain) - 4*16
	const sealedChunk = ChunkSize + 16
	read := func(d []byte) error {
		f, err := Open(bytes.NewReader(d), int64(len(d)), id)
		if err != nil {
			return err
		}
		got := make([]byte, f.Size())
		n, err := f.ReadAt(got, 0)
		if !bytes.Equal(got[:n], plain[:n]) {
			t.Fatal("other bytes have come")
		}
		if err == io.EOF && n == len(got) {
			err = nil
		}
		return err
	}
	if err := read(data); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		d := bytes.Clone(data)
		at := r.IntN(len(d))
		d[at] ^= 1 << r.IntN(8)
		if err := read(d); err == nil {
			t.Fatalf("byte %d was changed, and nobody has noticed", at)
		}
	}
	d := bytes.Clone(data)
	d[head+sealedChunk+5] ^= 1
	if err := read(d); !errors.Is(err, grid.Corrupt) || !strings.Contains(err.Error(), "chunk 1 of 0 to 3") {
		t.Fatalf("chunk 1 was damaged: %v", err)
	}
	d = bytes.Clone(data) // two chunks change places
	copy(d[head:], data[head+sealedChunk:][:sealedChunk])
	copy(d[head+sealedChunk:], data[head:][:sealedChunk])
	if err := read(d); !errors.Is(err, grid.Corrupt) || !strings.Contains(err.Error(), "chunk 0 of") {
		t.Fatalf("chunks were moved: %v", err)
	}
	for _, cut := range []int{1, 16, 1016, 1017, 1016 + sealedChunk, len(data) - head, len(data) - head + 1, len(data) - 30, len(data) - 3} {
		if err := read(data[:len(data)-cut]); err == nil || errors.Is(err, grid.Denied) {
			t.Fatalf("%d bytes were cut off: %v", cut, err)
		}
	}
	if err := read(append(bytes.Clone(data), 0)); !errors.Is(err, grid.Corrupt) {
		t.Fatalf("a byte was added: %v", err)
	}
	if err := read(append(bytes.Clone(data[:head]), data[head+sealedChunk:]...)); !errors.Is(err, grid.Corrupt) {
		t.Fatalf("a chunk was left out: %v", err)
	}
}

// What cannot be read is not taken for what is damaged.
func TestUnreadable(t *testing.T) {
	id, to := newKey(t)
	data := seal(t, make([]byte, 3*ChunkSize), to)
	gone := grid.Errorf(grid.Unavailable, "nobody has it")
	for _, good := range []int64{0, 30, 100, 1000, int64(len(data)) - 100} {
		f, err := Open(cutAt{bytes.NewReader(data), good, gone}, int64(len(data)), id)
		if err == nil {
			_, err = f.ReadAt(make([]byte, f.Size()), 0)
		}
		if !errors.Is(err, grid.Unavailable) {
			t.Errorf("nothing can be read from byte %d on: %v", good, err)
		}
	}
}

type cutAt struct {
	io.ReaderAt
	good int64
	err  error
}

func (c cutAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > c.good {
		return 0, c.err
	}
	return c.ReaderAt.ReadAt(p, off)
}

func TestRecipients(t *testing.T) {
	one, toOne := newKey(t)
	two, toTwo := newKey(t)
	three, _ := newKey(t)
	plain := []byte("for two")
	data := seal(t, plain, toOne, toTwo)
	for _, id := range []age.Identity{one, two} {
		if got, err := io.ReadAll(open(t, data, three, id).Reader()); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q, %v", got, err)
		}
	}
	_, err := Open(bytes.NewReader(data), int64(len(data)), three)
	if !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "2 of age") || grid.AdviceOf(err) == "" {
		t.Errorf("another key: %v", err)
	}
	if _, err := Open(bytes.NewReader(data), int64(len(data))); !errors.Is(err, grid.Denied) {
		t.Errorf("no key: %v", err)
	}
	if _, err := Open(bytes.NewReader(plain), int64(len(plain)), one); !errors.Is(err, grid.Invalid) {
		t.Errorf("not encrypted: %v", err)
	}
	if _, err := NewSealer(); !errors.Is(err, grid.Invalid) {
		t.Errorf("to nobody: %v", err)
	}
	if bytes.Equal(seal(t, plain, toOne), seal(t, plain, toOne)) {
		t.Error("equal contents are encrypted to equal bytes")
	}
}

func TestPassphrase(t *testing.T) {
	to, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(10)
	data := seal(t, []byte("x"), to)
	right, err := ByPassphrase("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	open(t, data, right)
	wrong, err := ByPassphrase("wrong")
	if err != nil {
		t.Fatal(err)
	}
	key, toKey := newKey(t)
	for _, id := range []age.Identity{wrong, key} {
		if _, err := Open(bytes.NewReader(data), int64(len(data)), id); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "passphrase") {
			t.Errorf("%T: %v", id, err)
		}
	}
	if _, err := NewSealer(to, toKey); !errors.Is(err, grid.Invalid) {
		t.Errorf("a passphrase and a key: %v", err)
	}
	if _, err := WithPassphrase(""); !errors.Is(err, grid.Invalid) {
		t.Errorf("an empty passphrase: %v", err)
	}
}

// A key of OpenSSH decrypts what was encrypted to its public half, unless it is locked.
func TestSSH(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	half, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	to, err := ParseRecipient(string(ssh.MarshalAuthorizedKey(half)))
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := ParseIdentities(pem.EncodeToMemory(block))
	if err != nil {
		t.Fatal(err)
	}
	data := seal(t, []byte("x"), to)
	open(t, data, ids...)
	if again, err := RecipientOf(ids[0]); err != nil {
		t.Error(err)
	} else {
		open(t, seal(t, []byte("y"), again), ids...)
	}
	key, _ := newKey(t)
	if _, err := Open(bytes.NewReader(data), int64(len(data)), key); !errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), "1 of SSH") {
		t.Errorf("another key: %v", err)
	}
	if block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseIdentities(pem.EncodeToMemory(block)); !errors.Is(err, grid.Unsupported) || grid.AdviceOf(err) == "" {
		t.Errorf("a locked key: %v", err)
	}
}

// sshPublic was made for these tests.
const sshPublic = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN test"

func TestKeys(t *testing.T) {
	for _, pq := range []bool{false, true} {
		text, err := NewKey(pq, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		ids, err := ParseIdentities(text)
		if err != nil {
			t.Fatal(err)
		}
		public := PublicOf(ids[0])
		if !bytes.Contains(text, []byte(public)) || public == "" {
			t.Errorf("the public half %.40q is not told in the file", public)
		}
		to, err := ParseRecipient(public)
		if err != nil {
			t.Fatal(err)
		}
		open(t, seal(t, []byte("x"), to), ids...)
		secret := strings.Fields(string(text))[len(strings.Fields(string(text)))-1]
		if _, err := ParseRecipient(secret); !errors.Is(err, grid.Invalid) || strings.Contains(err.Error(), secret) {
			t.Errorf("a secret key as a public one: %v", err)
		}
		if _, err := ParseIdentities([]byte(secret[:len(secret)-3])); !errors.Is(err, grid.Invalid) || strings.Contains(err.Error(), secret[10:30]) {
			t.Errorf("a key that was cut: %v", err)
		}
	}
	_, to := newKey(t)
	list, err := ParseRecipients(fmt.Appendf(nil, "# team\n\n%s\n%s\n", to, sshPublic))
	if err != nil || len(list) != 2 {
		t.Fatalf("%d recipients, %v", len(list), err)
	}
	for _, bad := range []string{"", "# nobody\n", "hello\n", "age1nonsense\n", "ssh-dss AAAA\n", strings.Repeat(fmt.Sprintln(to), MaxRecipients+1)} {
		if _, err := ParseRecipients([]byte(bad)); grid.CodeOf(err) != grid.Invalid && grid.CodeOf(err) != grid.Limit {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "x", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"} {
		if _, err := ParseIdentities([]byte(bad)); !errors.Is(err, grid.Invalid) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

// Whatever comes in place of an encrypted file, opening it gives an error or what was encrypted.
func FuzzOpen(f *testing.F) {
	text := []byte("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n")
	ids, err := ParseIdentities(text)
	if err != nil {
		f.Fatal(err)
	}
	to, err := RecipientOf(ids[0])
	if err != nil {
		f.Fatal(err)
	}
	plain := []byte("this was encrypted")
	f.Add(seal(f, plain, to))
	f.Add(seal(f, zipped(f, tree()), to))
	f.Add([]byte(Intro + "-> X25519 abc\n\n--- "))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Open(bytes.NewReader(data), int64(len(data)), ids...)
		if err != nil {
			if grid.CodeOf(err) == grid.Unknown {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		_, _ = io.Copy(io.Discard, file.Reader())
		_, _ = file.Folder()
	})
}
