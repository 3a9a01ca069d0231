// Kvcounter counts votes in the realm's map: each file of ballots once, however many jobs and attempts look at it, and only
// files that are signed with a secret which the realm keeps.
//
// It is the lesson on grants. A task sees its inputs and no more; this one needs keys of the map and a secret, says so in
// plugin.yaml, and a job has to allow both. Other tasks write to the same keys at the same time, and this one may be run
// twice, when its node is lost: so what it does is one transaction, with a mark by which a second try knows.
package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// What is granted to the plugin. A grant of keys is a prefix.
const (
	totals = "votes/total/" // and a name: how many votes it has
	marks  = "votes/done/"  // and a signature: that file is counted
	secret = "ballot-key"
)

func main() {
	sdk.Main(
		sdk.Do("count", count).Doc("Counts signed files of ballots, a name a line, each file once."),
		sdk.Do("list", list).Doc("Prints the votes counted so far."),
		sdk.Func("sign", sign).Doc("Signs ballots: gives the file that count takes."),
	)
}

func count(ctx sdk.Context) error {
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		file, err := in.Bytes()
		if err != nil {
			return err
		}
		signature, ballots, _ := bytes.Cut(file, []byte("\n"))
		want, err := sum(ctx, ballots)
		if err != nil {
			return err
		}
		if !hmac.Equal(signature, []byte(want)) {
			return errors.New("the signature is not one of these ballots")
		}
		n, err := add(ctx, want, ballots)
		if err != nil {
			return err
		}
		ctx.Count("votes", uint64(n))
		fmt.Fprintf(ctx.Stdout(), "%s: %d new votes\n", in.Name, n)
	}
	return nil
}

// add adds the votes of a file to the map, unless they have been added.
func add(ctx sdk.Context, signature string, ballots []byte) (n int, err error) {
	votes := map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(ballots))
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			votes[name]++
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	// All that is read in a transaction must be unchanged when it is committed. If another task was first, the function
	// is run again: it begins anew each time, and does nothing but read and write keys.
	err = ctx.KV().Txn(func(tx *sdk.Tx) error {
		n = 0
		mark, err := tx.Get(marks + signature)
		if err != nil || mark.Version != 0 { // an item that is not there has version 0
			return err
		}
		tx.Put(marks+signature, nil)
		for _, name := range slices.Sorted(maps.Keys(votes)) {
			item, err := tx.Get(totals + name)
			if err != nil {
				return err
			}
			before, err := number(item)
			if err != nil {
				return err
			}
			tx.Put(totals+name, strconv.AppendInt(nil, int64(before+votes[name]), 10))
			n += votes[name]
		}
		return nil
	})
	return n, err
}

// number is an item's count. Anybody who may write to the map can have written something else there.
func number(item sdk.Item) (int, error) {
	if item.Version == 0 {
		return 0, nil
	}
	n, err := strconv.Atoi(string(item.Value))
	if err != nil {
		return 0, fmt.Errorf("the key %s holds no number: %w", item.Key, err)
	}
	return n, nil
}

func list(ctx sdk.Context) error {
	for item, err := range ctx.KV().List(totals) {
		if err != nil {
			return err
		}
		n, err := number(item)
		if err != nil {
			return err
		}
		fmt.Fprintf(ctx.Stdout(), "%6d %s\n", n, strings.TrimPrefix(item.Key, totals))
	}
	return nil
}

func sign(ctx sdk.Context, ballots []byte) ([]byte, error) {
	signature, err := sum(ctx, ballots)
	return append([]byte(signature+"\n"), ballots...), err
}

// sum is the signature of ballots. The secret itself stays here: what tasks print is kept.
func sum(ctx sdk.Context, ballots []byte) (string, error) {
	key, err := ctx.Secret(secret)
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, key)
	h.Write(ballots)
	return hex.EncodeToString(h.Sum(nil)), nil
}
