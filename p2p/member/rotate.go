package member

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

const (
	signAtOnce     = 64 // records that are signed anew in one transaction
	endorseTimeout = 2 * time.Minute
)

// signer is the key of the authority; nil without.
func (s *Service) signer() crypto.PrivKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.authority
}

// succeeded acts on what is new about the authority's key, of which a peer has told, or nobody.
func (s *Service) succeeded(from peer.ID) {
	line, key := s.settle()
	if id, disputed := line.authority(); !disputed {
		s.log.Warn("swarm: the authority's key was replaced", "key", id, "succession", line.number(), "in_this_home", key != nil)
	}
	s.sayDisputed()
	s.changed(s.self)
	s.pass(request{Successions: line.raws()}, from)
}

// settle has the node use the key of the authority that counts now, if the home has it.
func (s *Service) settle() (lineage, crypto.PrivKey) {
	s.settling.Lock()
	defer s.settling.Unlock()
	line := s.book.lineage()
	key, err := s.cfg.Home.authority(&line)
	if err != nil {
		s.log.Error("swarm: the authority's key in the home cannot be used", "err", err)
	}
	s.mu.Lock()
	s.authority = key
	s.mu.Unlock()
	return line, key
}

// sayDisputed is loud when two keys claim to be the authority's.
func (s *Service) sayDisputed() {
	line := s.book.lineage()
	if keys := line.rivals(); len(keys) > 0 {
		s.log.Error("swarm: two records name different keys of the authority: one was stolen; nothing new that either signs is believed",
			"keys", keys, "succession", line.number(), "hint", "who has the recovery key ends it with `grid swarm rotate-key --recover`")
	}
}

// lineage is what the ledger and the book know of the authority's key.
func (s *Service) lineage(tx *grid.Tx) (lineage, error) {
	line := s.book.lineage()
	var list [][]byte
	if _, err := get(tx, s.keys+authorityPart, &list); err != nil {
		return line, err
	}
	if len(list) > maxLineage {
		return line, grid.Errorf(grid.Limit, "swarm: %d successions of the authority in the ledger", len(list))
	}
	for _, raw := range list {
		_, _ = line.add(raw, s.cfg.Now()) // what is not valid does not count
	}
	return line, nil
}

// ours refuses a ledger that is not the swarm's.
func (s *Service) ours(tx *grid.Tx, what string) error {
	e, ok, err := tx.Get(s.keys + infoPart)
	if err == nil && (!ok || string(e.Value) != string(s.swarm)) {
		err = grid.Errorf(grid.Unavailable, "swarm: this member does not share the ledger of the swarm, and so cannot %s", what)
	}
	return err
}

// RotateKey replaces the authority's key by a new one, which it makes in the home: signed by the one before, or by the swarm's first
// key, if recover is set. What is known of members is signed anew with it; tokens that were not used are void. Wherever it is
// interrupted, to call it again ends it: the new key is kept before it is told of, and takes the place of the old one after that.
func (s *Service) RotateKey(ctx context.Context, recover bool) (out grid.KeyRotation, err error) {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	signer := s.signer()
	if recover {
		signer, err = s.cfg.Home.recovery()
	} else if signer == nil {
		line := s.book.lineage()
		if err = s.needAuthority("replace it"); len(line.rivals()) > 0 {
			err = line.refusal("a new key", "")
		}
	}
	if err != nil {
		return out, err
	}
	l, err := s.shared()
	if err != nil {
		return out, err
	}
	if _, err := s.readAll(ctx, l); err != nil {
		return out, err
	}
	next, err := p2p.LoadIdentity(filepath.Join(s.cfg.Home.dir, nextKeyFile))
	if err != nil {
		return out, err
	}
	nextID, err := peer.IDFromPrivateKey(next)
	if err != nil {
		return out, grid.Errorf(grid.Internal, "swarm: the new key: %w", err)
	}
	signerID, err := peer.IDFromPrivateKey(signer)
	if err != nil {
		return out, grid.Errorf(grid.Internal, "swarm: the authority's key: %w", err)
	}
	var line lineage
	_, err = grid.Update(ctx, l, func(tx *grid.Tx) (err error) {
		if err := s.ours(tx, "replace the authority's key"); err != nil {
			return err
		}
		if line, err = s.lineage(tx); err != nil {
			return err
		}
		now := s.cfg.Now()
		x := Succession{Swarm: s.swarm, Number: line.number() + 1, Key: nextID, Issued: now.Unix()}
		if recover {
			x.Number = max(x.Number, uint64(now.Unix()))
		} else if err := line.check("a new key", signerID); err != nil {
			return err
		}
		raw, err := seal(&x, signer)
		if err != nil {
			return err
		}
		if changed, err := line.add(raw, now); err != nil || !changed {
			if err == nil {
				err = grid.Errorf(grid.Internal, "swarm: succession %d does not count", x.Number)
			}
			return err
		}
		note := ""
		if recover {
			note = "by the recovery key"
		}
		return errors.Join(put(tx, s.keys+authorityPart, line.raws()), s.audit(tx, grid.ActRotateKey, nextID, note))
	})
	if err != nil {
		return out, err
	}
	if changed, err := s.book.Succeed(line.raws()); err != nil {
		return out, err
	} else if changed {
		s.succeeded("")
	}
	s.settle() // the ledger may have been quicker to tell of it
	if err := s.write(); err != nil {
		return out, err
	}
	out.Key, out.Succession = nextID.String(), line.number()
	out.Members, out.Revocations, err = s.endorse(ctx, l)
	if err != nil {
		err = grid.Errorf(grid.CodeOf(err), "swarm: the authority has the new key %s, but some members have no record yet that it has signed: %w", nextID, err).
			Hint("the node signs them by itself when the ledger answers again")
	}
	return out, err
}

// endorseSoon signs anew what others would not believe any more, if this node has the authority's key: as when a rotation was interrupted,
// somebody was let in meanwhile, or an admin who has revoked others was revoked.
func (s *Service) endorseSoon() {
	if s.signer() == nil {
		return
	}
	members, revocations := s.book.stale()
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.ledger
	if s.authority == nil || len(members)+len(revocations) == 0 || s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, endorseTimeout)
		defer cancel()
		s.rotating.Lock()
		defer s.rotating.Unlock()
		m, r, err := s.endorse(ctx, l)
		if m+r > 0 {
			s.log.Info("swarm: the authority has signed anew what rested on a key before", "members", m, "revocations", r)
		}
		if err != nil && s.ctx.Err() == nil {
			s.log.Warn("swarm: some members have no record yet that the authority's new key has signed", "err", err)
		}
	})
}

// endorse signs what the book believes and others would not. It tells how many members and revocations that were.
func (s *Service) endorse(ctx context.Context, l grid.Ledger) (m, r int, err error) {
	key := s.signer()
	if key == nil {
		return 0, 0, nil
	}
	members, revocations := s.book.stale()
	for some := range slices.Chunk(members, signAtOnce) {
		var fresh [][]byte
		_, err := grid.Update(ctx, l, func(tx *grid.Tx) error {
			fresh = nil
			if err := s.ours(tx, "sign for its members"); err != nil {
				return err
			}
			for _, m := range some {
				now, revokedTo, err := s.standing(tx, m.Peer)
				if err != nil {
					return err
				}
				m.Serial = max(m.Serial, now.Serial)
				if revokedTo >= m.Serial {
					continue
				}
				m.Serial, m.Invite, m.Proof, m.Approval = m.Serial+1, nil, nil, nil
				raw, err := seal(&m, key)
				if err != nil {
					return err
				}
				tx.Put(s.keys+memberPart+m.Peer.String(), raw)
				fresh = append(fresh, raw)
			}
			return nil
		})
		if err != nil {
			return m, r, err
		}
		if _, err := s.book.learnAll(fresh, shown); err != nil {
			return m, r, err
		}
		m += len(fresh)
		s.changed(s.self)
		s.tell(nil, fresh, "")
	}
	for some := range slices.Chunk(revocations, signAtOnce) {
		var fresh [][]byte
		_, err := grid.Update(ctx, l, func(tx *grid.Tx) error {
			fresh = nil
			for _, x := range some {
				_, revokedTo, err := s.standing(tx, x.Peer)
				if err != nil {
					return err
				}
				x.Serial = max(x.Serial, revokedTo)
				raw, err := seal(&x, key)
				if err != nil {
					return err
				}
				tx.Put(s.keys+revokedPart+x.Peer.String(), raw)
				fresh = append(fresh, raw)
			}
			return nil
		})
		if err != nil {
			return m, r, err
		}
		s.revokeAll(fresh)
		r += len(fresh)
		s.tell(fresh, nil, "")
	}
	return m, r, nil
}

// amend changes the membership of a peer, and signs it anew with the authority's key. change tells what the audit log is to say of it.
func (s *Service) amend(ctx context.Context, l grid.Ledger, id peer.ID, act grid.AuditAct, change func(*Membership) (note string, err error)) error {
	var raw []byte
	_, err := grid.Update(ctx, l, func(tx *grid.Tx) error {
		m, revokedTo, err := s.standing(tx, id)
		if err != nil {
			return err
		}
		if m.Serial == 0 || m.Serial <= revokedTo {
			return grid.Errorf(grid.NotFound, "swarm: %s is not a member", id).Hint("`grid member ls` lists them")
		}
		if m.Serial, err = follow(m.Serial, id); err != nil {
			return err
		}
		m.Invite, m.Proof, m.Approval = nil, nil, nil
		note, err := change(&m)
		if err != nil {
			return err
		}
		if raw, err = seal(&m, s.signer()); err != nil {
			return err
		}
		tx.Put(s.keys+memberPart+id.String(), raw)
		return s.audit(tx, act, id, note)
	})
	if err != nil {
		return err
	}
	if _, _, err := s.book.learn(raw, recorded); err != nil {
		return err
	}
	s.changed(id)
	s.tell(nil, [][]byte{raw}, "")
	return nil
}
