package daemon

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/member"
	"github.com/wasmgrid/wasmgrid/store"
	"github.com/wasmgrid/wasmgrid/store/ledger"
)

// maxContacts bounds the addresses that a token, or an answer to one, names.
const maxContacts = 12

// joinTimeout is what one member is given to answer.
const joinTimeout = 15 * time.Second

// enterSwarm finds out in which swarm the node is: the private one that its home remembers, that of a token, which it joins, or
// an open one. A home that is in one ignores further tokens of it.
func (d *Daemon) enterSwarm(ctx context.Context, key crypto.PrivKey) error {
	c := &d.cfg
	home, err := member.LoadHome(c.Home)
	if err != nil {
		return err
	}
	token, err := d.takeToken()
	if err != nil {
		return err
	}
	if c.Embedded {
		return nil
	}
	private := home != nil || token != nil
	if c.Public {
		if d.public, err = newPublic(key, d.cfg.room("swarm")); err != nil {
			return err
		}
		c.Swarm = cmp.Or(c.Swarm, publicSwarm)
	} else if private && c.Swarm != "" {
		return grid.Errorf(grid.Invalid, "a node of a private swarm is in no other: it cannot be given the name of one").Hint("leave out --swarm, or leave the private swarm with `grid swarm leave`")
	}
	if home != nil && token != nil && token.Invitation.Swarm != home.Swarm {
		return grid.Errorf(grid.Conflict, "this node belongs to the private swarm %s, and the token is for %s", home.Swarm, token.Invitation.Swarm).
			Hint("use another --home, or leave with `grid swarm leave` first")
	}
	if !private {
		c.Swarm = cmp.Or(c.Swarm, p2p.DefaultSwarm)
		return nil
	}
	var service *member.Service
	if home != nil {
		service, err = d.openSwarm(home, key)
		if grid.CodeOf(err) == grid.Denied && token == nil && d.catchUp(ctx, home, key) {
			service, err = d.openSwarm(home, key)
		}
		if err != nil && (token == nil || grid.CodeOf(err) != grid.Denied) {
			return err
		}
	}
	if service == nil {
		if home, err = d.join(ctx, token, key); err != nil {
			return err
		}
		if service, err = d.openSwarm(home, key); err != nil {
			return err
		}
	}
	if c.Public && service.PSK() != nil {
		_ = service.Close()
		return grid.Errorf(grid.Invalid, "a private swarm with a pre-shared key is no part of a public one, where strangers have no such key").
			Hint("leave out --public, or make a swarm without --psk")
	}
	d.swarm = service
	c.Join = append(c.Join, home.Peers...)
	if c.Public {
		d.public.enter(service, home.Swarm)
	} else {
		c.Swarm = member.NetworkName(home.Swarm)
	}
	c.Realm = cmp.Or(c.Realm, home.Realm)
	return nil
}

// takeToken takes the token out of what the node is to join.
func (d *Daemon) takeToken() (token *member.Token, err error) {
	c := &d.cfg
	i := slices.IndexFunc(c.Join, member.IsToken)
	if i < 0 {
		return nil, nil
	}
	if token, err = member.ParseToken(c.Join[i]); err != nil {
		return nil, err
	}
	c.Join = slices.Delete(slices.Clone(c.Join), i, i+1)
	if slices.ContainsFunc(c.Join, member.IsToken) {
		return nil, grid.Errorf(grid.Invalid, "a node joins by one token").Hint("use --home to run another node for another swarm")
	}
	return token, nil
}

// catchUp asks members whether the node is one again, as when its membership was renewed while it was down.
func (d *Daemon) catchUp(ctx context.Context, home *member.Home, key crypto.PrivKey) bool {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*joinTimeout)
	defer cancel()
	psk, err := home.PSK()
	if err != nil {
		return false // which is told when the swarm is opened
	}
	ok, err := home.Catch(ctx, id, time.Now, asker(key, psk, member.NetworkName(home.Swarm)))
	if err != nil {
		d.cfg.room("swarm").Warn("swarm: what is new of the node's membership is not remembered", "err", err)
	}
	return ok
}

// asker asks nodes of a swarm from outside.
func asker(key crypto.PrivKey, psk pnet.PSK, swarm string) func(ctx context.Context, addr string, req []byte) ([]byte, error) {
	return func(ctx context.Context, addr string, req []byte) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, joinTimeout)
		defer cancel()
		return p2p.Ask(ctx, key, psk, swarm, addr, p2p.JoinProtocol, req)
	}
}

func (d *Daemon) join(ctx context.Context, token *member.Token, key crypto.PrivKey) (*member.Home, error) {
	name := member.NetworkName(token.Invitation.Swarm)
	j := &member.Joiner{
		Dir: d.cfg.Home, Key: key, Name: d.cfg.Member, Token: token, Now: time.Now,
		Ask: asker(key, token.PSK, name),
		Waiting: func() {
			id, _ := peer.IDFromPrivateKey(key)
			d.cfg.room("swarm").Warn("an admin of the swarm has to approve of this node, which waits", "peer", id, "hint", "grid member approve "+id.String())
		},
	}
	home, err := j.Join(ctx)
	if err == nil {
		d.cfg.room("swarm").Info("joined a private swarm", "swarm", home.Swarm, "name", home.Name)
	}
	return home, err
}

func (d *Daemon) openSwarm(home *member.Home, key crypto.PrivKey) (*member.Service, error) {
	return member.New(member.Config{Key: key, Home: home, Realm: cmp.Or(d.cfg.Realm, home.Realm, ledger.DefaultRealm), Logger: d.cfg.room("swarm")})
}

// guardSwarm has the private swarm, if there is one, guard the network.
func (d *Daemon) guardSwarm(host *p2p.Host) {
	if d.swarm == nil {
		return
	}
	wire := member.Wire{Network: host, Reconsider: host.Reconsider, Changed: d.membersChanged}
	if d.public != nil {
		wire.Network, _ = d.public.networks(host)
		wire.Reconsider = d.public.reconsider(host)
	}
	wire.Contacts = func() []string { return d.public.contacts(host.Contacts(maxContacts)) }
	d.swarm.Attach(wire)
	d.opened(d.swarm)
}

func (d *Daemon) followLedger(l *ledger.Realm) {
	if d.swarm != nil {
		d.swarm.Follow(l)
	}
}

// mayKeepLedger tells who may keep the ledger of a private swarm; nil: everybody.
func (d *Daemon) mayKeepLedger() func(peer.ID) bool {
	if d.swarm == nil {
		return nil
	}
	return func(id peer.ID) bool { return d.swarm.May(id, grid.RoleVoter) == nil }
}

// leadsRealm has new members join the realm of an admin rather than have an admin join theirs: who has just come may be gone soon.
func (d *Daemon) leadsRealm() func(peer.ID) bool {
	if d.swarm == nil {
		return nil
	}
	return func(id peer.ID) bool { return d.swarm.May(id, grid.RoleAdmin) == nil }
}

// mayWrite tells who may write what to the ledger of a private swarm; nil: everybody everything.
func (d *Daemon) mayWrite() func(peer.ID, *grid.Txn, grid.Held) error {
	if d.swarm == nil {
		return nil
	}
	return d.swarm.CheckWrites
}

// mayWork tells who may have others work for it in a private swarm; nil: everybody. In a public one, whether strangers may is a
// question of what is lent; who was revoked is none.
func (d *Daemon) mayWork() func(peer.ID, grid.MemberRole) error {
	switch {
	case d.swarm == nil:
		return nil
	case d.public == nil:
		return d.swarm.Holds
	}
	return func(id peer.ID, need grid.MemberRole) error {
		err := d.swarm.Holds(id, need)
		if grid.CodeOf(err) == grid.Unavailable && need == grid.RoleSubmitter {
			return nil // it never was a member, as far as is known here
		}
		return err
	}
}

// membersChanged tells the node, once there is one.
func (d *Daemon) membersChanged() {
	if n := d.working.Load(); n != nil {
		n.MembersChanged()
	}
}

// InitSwarm makes a private swarm in a home whose node does not run: see member.Init.
func InitSwarm(ctx context.Context, home, name, node string, psk bool) (swarm peer.ID, err error) {
	key, err := Identity(home)
	if err != nil {
		return "", err
	}
	s, err := openStore(ctx, store.Config{Dir: filepath.Join(home, storeDir)})
	if grid.CodeOf(err) == grid.Busy {
		return "", grid.Errorf(grid.Busy, "a grid process is using %s", home).Hint("end it first; `grid down` if it is a node")
	}
	if err != nil {
		return "", err
	}
	defer s.Close()
	h, err := member.Init(home, key, name, node, psk, time.Now())
	if err != nil {
		return "", err
	}
	return h.Swarm, nil
}

// SwarmOf is the name and ID of a home's private swarm; "": it has none.
func SwarmOf(home string) (string, error) {
	h, err := member.LoadHome(home)
	if err != nil || h == nil {
		return "", err
	}
	return h.Swarm.String(), nil
}

// LeaveSwarm has a home forget its private swarm. Its node must not run.
func LeaveSwarm(home string) error {
	if InUse(home) {
		return grid.Errorf(grid.Busy, "a grid process is using %s", home).Hint("end it first; `grid down` if it is a node")
	}
	return member.Forget(home)
}

// swarmAPI is a private swarm whose members share a realm.
type swarmAPI struct {
	*member.Service
	realm *ledger.Realm
	log   *slog.Logger
	tell  func(room, kind string, about peer.ID, text string) // of the node, Happened
}

// Revoke has a member belong to the realm no longer, either, so that nothing more is encrypted to it.
func (s swarmAPI) Revoke(ctx context.Context, id peer.ID) error {
	if id == s.Self() {
		return s.Leave(ctx, false)
	}
	if err := s.told(s.Service.Revoke(ctx, id), grid.KindRevoked, id, "its membership was revoked"); err != nil {
		return err
	}
	if err := s.realm.Remove(ctx, id); err != nil && grid.CodeOf(err) != grid.NotFound {
		s.log.Warn("swarm: a member was revoked, but is still listed in the realm", "peer", id, "err", err, "hint", "grid ledger remove "+id.String())
	}
	return nil
}

// How long a node that leaves hands over what it keeps of the ledger; and if it leaves whatever comes of that.
const (
	leaveTimeout  = 25 * time.Second
	forcedTimeout = 5 * time.Second
)

// Leave leaves the realm before the swarm: this node hands its vote over, and is taken off the list of nodes.
func (s swarmAPI) Leave(ctx context.Context, force bool) error {
	most := leaveTimeout
	if force {
		most = forcedTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := s.realm.Leave(bounded); err != nil {
		if !force {
			code := grid.CodeOf(err)
			if code == grid.Deadline {
				code = grid.Unavailable // it is the ledger that is late
			}
			return grid.Errorf(code, "leave the realm, which comes before the swarm: %w", err).
				Hint("%s; or leave all the same with --force: the others then remove it with `grid ledger remove %s`", cmp.Or(grid.AdviceOf(err), "try again"), s.Self())
		}
		s.log.Warn("swarm: this node leaves, but is still listed in the realm", "err", err, "hint", "on another node: grid ledger remove "+s.Self().String())
	}
	if force {
		bounded, cancel := context.WithTimeout(ctx, forcedTimeout)
		defer cancel()
		ctx = bounded
	}
	err := s.Service.Revoke(ctx, s.Self())
	if err != nil && force {
		s.log.Warn("swarm: no other member knows that this node leaves", "err", err, "hint", "on another node: grid member revoke "+s.Self().String())
		err = nil
	}
	return err
}
