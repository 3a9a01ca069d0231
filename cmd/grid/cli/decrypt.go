package cli

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/crypt"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// openFlags say whether to decrypt, and with what.
type openFlags struct {
	decrypt    bool
	identities []string
	phrase     phraseFlags
}

func (f *openFlags) define(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.decrypt, "decrypt", false, "decrypt what grid add --encrypt has made, with the keys of grid key ls")
	cmd.Flags().StringArrayVar(&f.identities, "identity", nil, "decrypt with the keys in `FILE` of age or SSH; may be repeated")
	f.phrase.define(cmd)
}

// wanted reports whether to decrypt: naming a key is enough.
func (f *openFlags) wanted() bool { return f.decrypt || len(f.identities) > 0 || f.phrase.given() }

// keys are what to decrypt with: what is named, or else all of the home's.
func (f *openFlags) keys(e *env) (ids []age.Identity, err error) {
	for _, name := range f.identities {
		k, err := readKey(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, k.ids...)
	}
	if f.phrase.given() {
		phrase, err := f.phrase.take(e, false)
		if err != nil {
			return nil, err
		}
		id, err := crypt.ByPassphrase(phrase)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		return ids, nil
	}
	keys, err := e.keys()
	for _, k := range keys {
		ids = append(ids, k.ids...)
	}
	if err == nil && len(ids) == 0 {
		err = grid.Errorf(grid.NotFound, "there is no key to decrypt with in this home").
			Hint("give one with --identity FILE, or take it up with `grid key import`; or the passphrase with --passphrase")
	}
	return ids, err
}

// decrypted is something in an encrypted file: that file, if it was made of one, or what a path leads to in the folder that
// it was made of.
type decrypted struct {
	file   *crypt.File
	folder *crypt.Folder // nil: it was made of a file
	path   string        // in folder; ""
	name   string        // to be known by
	close  func()
}

// openEncrypted finds the encrypted file that ref leads to, or through.
func (e *env) openEncrypted(ctx context.Context, s *session, ref string, f *openFlags) (*decrypted, error) {
	ids, err := f.keys(e)
	if err != nil {
		return nil, err
	}
	root, p, err := resolve(ctx, s, ref)
	if err != nil {
		return nil, err
	}
	parts := strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
	d := &decrypted{name: root.String()}
	if len(parts) > 0 {
		d.name = parts[len(parts)-1]
	}
	for i := 0; ; i++ {
		at := strings.Join(parts[:i], "/")
		info, err := s.Stat(ctx, root.Cid, at)
		if err != nil {
			return nil, err
		}
		if info.Kind == grid.KindDir && i < len(parts) {
			continue
		}
		if info.Kind != grid.KindFile {
			return nil, grid.Errorf(grid.Invalid, "%s is a %s, not an encrypted file", ref, info.Kind).Hint("`grid ls` without --decrypt lists it; name an encrypted file in it")
		}
		r := &remoteFile{ctx: ctx, s: s, root: root, path: at, size: info.Size}
		d.close = r.close
		d.path = strings.Join(parts[i:], "/")
		if d.file, err = crypt.Open(r, info.Size, ids...); err == nil {
			d.folder, err = d.file.Folder()
		}
		if err == nil && d.folder == nil && d.path != "" {
			err = grid.Errorf(grid.NotFound, "what is encrypted there is a file, not a folder with %q in it", d.path)
		}
		if err != nil {
			r.close()
			wrapped := grid.Errorf(grid.CodeOf(err), "decrypt %s: %w", ref, err)
			if errors.Is(err, grid.Invalid) {
				return nil, wrapped.Hint("leave out --decrypt")
			}
			return nil, wrapped
		}
		return d, nil
	}
}

// info describes it.
func (d *decrypted) info() (grid.FileInfo, error) {
	switch {
	case d.folder == nil:
		return grid.FileInfo{Kind: grid.KindFile, Size: d.file.Size()}, nil
	case d.path == "":
		return grid.FileInfo{Kind: grid.KindDir, Size: d.folder.Size()}, nil
	}
	info, err := d.folder.Info(d.path)
	return info, notFound(err, d.path)
}

// notFound names what is missing.
func notFound(err error, p string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return grid.Errorf(grid.NotFound, "there is no %q in the encrypted folder", p).Hint("`grid ls --decrypt` lists it")
	}
	return err
}

// open reads a file.
func (d *decrypted) open() (io.ReaderAt, int64, error) {
	if d.folder == nil {
		return d.file, d.file.Size(), nil
	}
	f, err := d.folder.Open(cmp.Or(d.path, "."))
	if err != nil {
		return nil, 0, notFound(err, d.path)
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		return nil, 0, grid.Errorf(grid.Invalid, "it is an encrypted folder, not a file").Hint("`grid ls --decrypt` lists it, `grid get --decrypt` copies it")
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return r, st.Size(), nil
}

// catEncrypted prints a file, or a part of it.
func (e *env) catEncrypted(ctx context.Context, s *session, ref string, part filePart, f *openFlags) error {
	d, err := e.openEncrypted(ctx, s, ref, f)
	if err != nil {
		return err
	}
	defer d.close()
	r, size, err := d.open()
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "%s: %w", ref, err)
	}
	offset, length := int64(0), size
	if part.set {
		if offset, length, err = part.of(ref, size); err != nil {
			return err
		}
	}
	return e.textOut(ref, func(w io.Writer) error {
		return copyPlain(ctx, w, io.NewSectionReader(r, offset, length), ref, length, func(int) {})
	})
}

// listEncrypted lists a folder.
func (e *env) listEncrypted(ctx context.Context, s *session, ref string, f *openFlags) ([]grid.FileInfo, error) {
	d, err := e.openEncrypted(ctx, s, ref, f)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if d.folder == nil {
		return nil, grid.Errorf(grid.Invalid, "%s is an encrypted file, not a folder", ref).Hint("`grid cat --decrypt` prints it")
	}
	dir := cmp.Or(d.path, ".")
	list, err := d.folder.List(dir)
	return list, notFound(err, dir)
}

// getEncrypted writes a file or folder.
func (e *env) getEncrypted(ctx context.Context, s *session, ref, out string, how placing, f *openFlags) ([]string, error) {
	if remote.Is(out) {
		return nil, grid.Errorf(grid.Unsupported, "what is decrypted is written to this machine only").Hint("get it to a folder, and bring that to %s", out)
	}
	d, err := e.openEncrypted(ctx, s, ref, f)
	if err != nil {
		return nil, err
	}
	defer d.close()
	info, err := d.info()
	if err != nil {
		return nil, err
	}
	target := out
	switch st, err := os.Stat(out); {
	case out == "":
		target = d.name
	case info.Kind == grid.KindFile && err == nil && st.IsDir():
		target = filepath.Join(out, d.name)
	}
	m := e.startMeter(progress{what: "decrypting " + target, total: uint64(max(info.Size, 0))})
	defer m.stop()
	switch info.Kind {
	case grid.KindFile:
		r, size, err := d.open()
		if err != nil {
			return nil, err
		}
		mode := fs.FileMode(0o644)
		if info.Exec {
			mode = 0o755
		}
		err = saveFile(&countingReader{io.NewSectionReader(r, 0, size), m.add}, target, mode, how)
		return []string{target}, err
	case grid.KindDir:
		pr, pw := io.Pipe()
		written := make(chan error, 1)
		go func() {
			err := d.tar(ctx, pw, m.add)
			pw.CloseWithError(err)
			written <- err
		}()
		err := extract(pr, target, how)
		pr.CloseWithError(io.ErrClosedPipe)
		if werr := <-written; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
			err = werr
		}
		return []string{target}, err
	}
	return nil, grid.Errorf(grid.Unsupported, "%s is a symlink to %q", ref, info.Target).Hint("get what it leads to, or the folder that holds it")
}

// tar writes what is in the folder as an archive, in the order in which it is read fastest.
func (d *decrypted) tar(ctx context.Context, w io.Writer, count func(int)) error {
	base := ""
	if d.path != "" {
		base = d.path + "/"
	}
	entries, err := d.folder.Entries()
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, x := range entries {
		name, ok := strings.CutPrefix(x.Name, base)
		if !ok || name == "" {
			continue
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: x.Size, Mode: 0o644, Format: tar.FormatPAX}
		switch {
		case x.Kind == grid.KindDir:
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
		case x.Kind == grid.KindSymlink:
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, x.Target, 0o777
		case x.Exec:
			h.Mode = 0o755
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if x.Kind != grid.KindFile {
			continue
		}
		f, err := d.folder.Open(x.Name)
		if err == nil {
			err = copyPlain(ctx, t, f, x.Name, x.Size, count)
		}
		if err != nil {
			return err
		}
	}
	return t.Close()
}

// tellEncrypted says of a file that was written that it is encrypted.
func (e *env) tellEncrypted(file string) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	head := make([]byte, len(crypt.Intro))
	if _, err := io.ReadFull(f, head); err == nil && crypt.Is(head) {
		e.note("%s is encrypted", printable(path.Base(filepath.ToSlash(file))))
		e.hint("--decrypt writes what is in it")
	}
}

// remoteFile reads parts of a file of the node. What is read in order comes in one stream.
type remoteFile struct {
	ctx  context.Context
	s    *session
	root grid.Link
	path string
	size int64

	mu   sync.Mutex
	body io.ReadCloser // nil: none is open
	at   int64         // in body
}

// skipMost is how many bytes are rather read and thrown away than asked for anew.
const skipMost = 256 << 10

// ReadAt implements io.ReaderAt.
func (r *remoteFile) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off >= r.size || len(p) == 0 {
		return 0, io.EOF
	}
	if r.body != nil && off > r.at && off-r.at <= skipMost {
		n, err := io.CopyN(io.Discard, r.body, off-r.at)
		if r.at += n; err != nil {
			r.drop()
		}
	}
	if r.body == nil || off != r.at {
		r.drop()
		body, err := r.s.CatRange(r.ctx, r.root.Cid, r.path, off, -1)
		if err != nil {
			return 0, err
		}
		r.body, r.at = body, off
	}
	want := min(int64(len(p)), r.size-off)
	n, err := io.ReadFull(r.body, p[:want])
	if r.at += int64(n); err != nil {
		r.drop()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = grid.Errorf(grid.Unavailable, "the node has sent %d of %d bytes", off+int64(n), r.size)
		}
		return n, err
	}
	if int(want) < len(p) {
		err = io.EOF
	}
	return n, err
}

func (r *remoteFile) drop() {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
}

func (r *remoteFile) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
}
