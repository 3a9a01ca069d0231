package cli

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/crypt"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// maxPhrase bounds a passphrase, maxRecipientsFile a list of public keys, in bytes.
const (
	maxPhrase         = 1 << 10
	maxRecipientsFile = 1 << 20
)

// phraseFlags say where a passphrase comes from.
type phraseFlags struct {
	ask  bool
	file string
}

func (f *phraseFlags) define(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.ask, "passphrase", false, "with a passphrase, which the terminal is asked for")
	cmd.Flags().StringVar(&f.file, "passphrase-file", "", "with the passphrase that is the first line of `FILE`")
}

func (f *phraseFlags) given() bool { return f.ask || f.file != "" }

// take asks for the passphrase, twice if it is a new one.
func (f *phraseFlags) take(e *env, twice bool) (string, error) {
	if f.file != "" {
		text, err := e.takeAll(f.file, maxPhrase)
		if err != nil {
			return "", err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		return strings.TrimSuffix(line, "\r"), nil
	}
	in, ok := e.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", grid.Errorf(grid.Invalid, "there is no terminal to ask for the passphrase").Hint("give it in a file, with --passphrase-file")
	}
	ask := func(what string) (string, error) {
		e.printPrompt(what)
		line, err := term.ReadPassword(int(in.Fd()))
		e.printPrompt("\n")
		if err != nil {
			return "", grid.Errorf(codeOfOS(err), "read the passphrase: %w", reason(err))
		}
		return string(line), nil
	}
	phrase, err := ask("passphrase: ")
	if err != nil || !twice {
		return phrase, err
	}
	again, err := ask("once more: ")
	if err == nil && again != phrase {
		err = grid.Errorf(grid.Invalid, "the two passphrases differ")
	}
	return phrase, err
}

func (e *env) printPrompt(s string) { _, _ = io.WriteString(e.err, s) }

// sealFlags say whether to encrypt, and to whom.
type sealFlags struct {
	encrypt bool
	to      []string
	files   []string
	phrase  phraseFlags
}

func (f *sealFlags) define(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.encrypt, "encrypt", false, "encrypt it here, before any node has it")
	cmd.Flags().StringArrayVar(&f.to, "to", nil, "encrypt it to a public `KEY` (age1… or ssh-…), or to a key of yours by its name; may be repeated")
	cmd.Flags().StringArrayVar(&f.files, "recipients-file", nil, "encrypt it to the public keys in `FILE`, one in a line; may be repeated")
	f.phrase.define(cmd)
}

// recipients is to whom to encrypt; nil: to nobody.
func (f *sealFlags) recipients(e *env, cmd *cobra.Command) (to []age.Recipient, err error) {
	named := len(f.to)+len(f.files) > 0
	switch {
	case !f.encrypt && (named || f.phrase.given()):
		return nil, usageError(cmd, "--to, --recipients-file and --passphrase say how to encrypt: they need --encrypt")
	case !f.encrypt:
		return nil, nil
	case f.phrase.given() && named:
		return nil, usageError(cmd, "it is encrypted either with a passphrase or to keys")
	case f.phrase.given():
		phrase, err := f.phrase.take(e, true)
		if err != nil {
			return nil, err
		}
		r, err := crypt.WithPassphrase(phrase)
		return []age.Recipient{r}, err
	case !named:
		k, err := e.ownKey()
		if err != nil {
			return nil, err
		}
		return publicHalves(k)
	}
	for _, t := range f.to {
		if grid.CheckSecretName(t) == nil && !strings.HasPrefix(t, "age1") {
			k, err := e.key(t)
			if err != nil {
				return nil, err
			}
			more, err := publicHalves(k)
			if err != nil {
				return nil, err
			}
			to = append(to, more...)
			continue
		}
		r, err := crypt.ParseRecipient(t)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "--to: %w", err)
		}
		to = append(to, r)
	}
	for _, name := range f.files {
		text, err := e.takeAll(name, maxRecipientsFile)
		if err != nil {
			return nil, err
		}
		more, err := crypt.ParseRecipients(text)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "%s: %w", name, err)
		}
		to = append(to, more...)
	}
	return to, nil
}

func publicHalves(k *dataKey) (to []age.Recipient, err error) {
	for _, id := range k.ids {
		r, err := crypt.RecipientOf(id)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "key %s: %w", k.name, err)
		}
		to = append(to, r)
	}
	return to, nil
}

// plainText is what is to be encrypted.
type plainText struct {
	size  int64 // -1: not known
	write func(ctx context.Context, w io.Writer) error
}

// addEncrypted encrypts a file or folder, a URL's file, or standard input, and adds what comes of it. Nothing of it that is not
// encrypted is sent or written anywhere. Equal content is encrypted to different bytes each time, so nothing is looked for that
// may have been added before.
func (e *env) addEncrypted(ctx context.Context, s *session, p string, skipSpecial bool, to []age.Recipient) (out grid.FileInfo, err error) {
	name := p
	if remote.Is(p) {
		r, err := remote.Parse(p)
		if err != nil {
			return out, err
		}
		name = r.String() // without what is secret in it
	}
	m := e.startMeter(progress{what: "encrypting " + name})
	defer m.stop()
	src, err := e.plainText(ctx, p, skipSpecial, m.add)
	if err != nil {
		return out, err
	}
	m.expect(max(src.size, 0))
	sealer, err := crypt.NewSealer(to...)
	if err != nil {
		return out, err
	}
	write := func(w io.Writer) error {
		in, err := sealer.Begin(w)
		if err == nil {
			err = src.write(ctx, in)
		}
		if err == nil {
			err = in.Close()
		}
		return err
	}
	size := sealer.Size(src.size)
	if src.size < 0 { // an archive tells the size before the content
		spool, err := os.CreateTemp("", "grid-encrypted-*")
		if err != nil {
			return out, grid.Errorf(codeOfOS(err), "keep what is encrypted: %w", reason(err))
		}
		defer os.Remove(spool.Name())
		defer spool.Close()
		err = write(spool)
		if err == nil {
			size, err = spool.Seek(0, io.SeekCurrent)
		}
		if err == nil {
			_, err = spool.Seek(0, io.SeekStart)
		}
		if err != nil {
			return out, grid.Errorf(codeOr(err), "encrypt %s: %w", name, reason(err))
		}
		write = func(w io.Writer) error { _, err := io.Copy(w, spool); return err }
	}
	pr, pw := io.Pipe()
	written := make(chan error, 1)
	go func() {
		a := newArchiver(pw)
		err := a.header(&tar.Header{Typeflag: tar.TypeReg, Name: itemFile, Size: size, Mode: 0o644})
		if err == nil {
			err = write(a.tar)
		}
		if err == nil {
			err = a.tar.Close()
		}
		if err == nil {
			err = a.out.Flush()
		}
		pw.CloseWithError(err)
		written <- err
	}()
	_, err = s.Add(ctx, pr, func(info grid.FileInfo) { out = info })
	pr.CloseWithError(errNodeStopped)
	if werr := <-written; werr != nil && !errors.Is(werr, errNodeStopped) {
		err = grid.Errorf(codeOr(werr), "encrypt %s: %w", name, werr)
	}
	if err == nil && !out.CID.Defined() {
		err = grid.Errorf(grid.Internal, "add %s: the node did not say what became of it", name)
	}
	out.Name = name
	return out, err
}

// codeOr is the code of an error, be it of the operating system.
func codeOr(err error) grid.Code {
	if c := grid.CodeOf(err); c != grid.Unknown {
		return c
	}
	return codeOfOS(err)
}

// plainText finds what is to be encrypted. count is told of bytes that were read.
func (e *env) plainText(ctx context.Context, p string, skipSpecial bool, count func(int)) (*plainText, error) {
	if p == "-" {
		return &plainText{-1, func(ctx context.Context, w io.Writer) error { return copyPlain(ctx, w, e.stdin, p, -1, count) }}, nil
	}
	if remote.Is(p) {
		r, err := remote.Parse(p)
		if err != nil {
			return nil, err
		}
		if r.Folder() {
			return nil, grid.Errorf(grid.Unsupported, "%s is a folder of objects", r).Hint("get it to this machine first, or encrypt its objects one by one")
		}
		return &plainText{-1, func(ctx context.Context, w io.Writer) error {
			in, err := e.open(ctx, p)
			if err != nil {
				return err
			}
			defer in.Close()
			return copyPlain(ctx, w, in, r.String(), -1, count)
		}}, nil
	}
	info, err := os.Stat(p)
	switch {
	case err != nil:
		return nil, grid.Errorf(codeOfOS(err), "add %s: %w", p, reason(err))
	case info.Mode().IsRegular():
		return &plainText{info.Size(), func(ctx context.Context, w io.Writer) error { return copyFile(ctx, w, p, info.Size(), count) }}, nil
	case !info.IsDir():
		return nil, grid.Errorf(grid.Unsupported, "%s is neither a file nor a folder", p)
	}
	entries, paths, err := e.walkPlain(ctx, p, skipSpecial)
	if err != nil {
		return nil, err
	}
	size, err := crypt.FolderSize(entries)
	if err != nil {
		return nil, err
	}
	return &plainText{size, func(ctx context.Context, w io.Writer) error {
		z := crypt.NewPacker(w)
		for i := range entries {
			in, err := z.Add(entries[i])
			if err == nil && entries[i].Kind == grid.KindFile {
				err = copyFile(ctx, in, paths[i], entries[i].Size, count)
			}
			if err != nil {
				return err
			}
		}
		return z.Close()
	}}, nil
}

// walkPlain lists a folder, with the path of each entry.
func (e *env) walkPlain(ctx context.Context, p string, skipSpecial bool) (entries []grid.FileInfo, paths []string, err error) {
	top, err := filepath.EvalSymlinks(p)
	if err != nil {
		return nil, nil, grid.Errorf(codeOfOS(err), "%s: %w", p, reason(err))
	}
	err = filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return grid.Errorf(codeOfOS(err), "%s: %w", at, reason(err))
		}
		rel, err := filepath.Rel(top, at)
		if err != nil || rel == "." {
			return err
		}
		x := grid.FileInfo{Name: filepath.ToSlash(rel), Kind: grid.KindFile}
		if !utf8.ValidString(x.Name) {
			return grid.Errorf(grid.Invalid, "%q: its name is not UTF-8", at).Hint("rename it")
		}
		info, err := d.Info()
		if err != nil {
			return grid.Errorf(codeOfOS(err), "%s: %w", at, reason(err))
		}
		switch {
		case d.Type().IsRegular():
			x.Size, x.Exec = info.Size(), info.Mode()&0o111 != 0
		case d.IsDir():
			x.Kind = grid.KindDir
		case d.Type()&fs.ModeSymlink != 0:
			x.Kind = grid.KindSymlink
			if x.Target, err = os.Readlink(at); err != nil {
				return grid.Errorf(codeOfOS(err), "%s: %w", at, reason(err))
			}
			x.Target = filepath.ToSlash(x.Target)
		case skipSpecial:
			e.note("left out %s, which is neither file, folder nor symlink", printable(at))
			return nil
		default:
			return grid.Errorf(grid.Unsupported, "%s is neither file, folder nor symlink", at).Hint("leave such entries out with --skip-special")
		}
		if len(entries) == crypt.MaxEntries {
			return grid.Errorf(grid.Limit, "%s has more than %d entries", p, crypt.MaxEntries).Hint("encrypt parts of it one by one")
		}
		entries, paths = append(entries, x), append(paths, at)
		return ctx.Err()
	})
	return entries, paths, err
}

func copyFile(ctx context.Context, w io.Writer, p string, size int64, count func(int)) error {
	f, err := os.Open(p)
	if err != nil {
		return grid.Errorf(codeOfOS(err), "read %s: %w", p, reason(err))
	}
	defer f.Close()
	return copyPlain(ctx, w, f, p, size, count)
}

// copyPlain copies what is called p, which must have so many bytes if size is not negative.
func copyPlain(ctx context.Context, w io.Writer, r io.Reader, p string, size int64, count func(int)) error {
	buf := make([]byte, pieceSize)
	for left := size; ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if left -= int64(n); left < 0 && size >= 0 {
			return changed(p, "grew")
		}
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		count(n)
		switch {
		case err == io.EOF && size >= 0 && left > 0:
			return changed(p, "shrank")
		case err == io.EOF:
			return nil
		case err != nil:
			return grid.Errorf(codeOr(err), "read %s: %w", p, reason(err))
		}
	}
}
