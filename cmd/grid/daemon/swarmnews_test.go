package daemon

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestSwarmNews: what is done to a private swarm and its members is told once, with whom it is about, and what failed is not.
func TestSwarmNews(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	d := whole(t)
	c := d.Client()
	inv, err := c.Invite(ctx, grid.InviteRequest{Role: grid.RoleWorker, Uses: 1, Expires: time.Hour, Approve: true})
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	var b *Daemon
	home := shortDir(t)
	go func() {
		var err error
		b, err = Open(ctx, Config{
			Home: home, Join: []string{inv.Token}, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, NoNearby: true, NoUPnP: true, Workers: 1,
		})
		opened <- err
	}()
	var id peer.ID
	await(t, func() bool {
		members, err := c.Members(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(members, func(m grid.SwarmMember) bool { return m.State == "waiting" }); i >= 0 {
			id, err = peer.Decode(members[i].ID)
		}
		return err == nil && id != ""
	})
	stranger := d.swarm.Self()[:len(d.swarm.Self())-1] + "x"
	for what, err := range map[string]error{
		"approved": c.Approve(ctx, stranger), "given a role": c.SetMemberRole(ctx, stranger, grid.RoleAdmin),
		"renewed": c.Renew(ctx, stranger, time.Hour), "revoked": c.Revoke(ctx, stranger),
	} {
		if err == nil {
			t.Errorf("a stranger was %s", what)
		}
	}
	if err := c.Approve(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if err := errors.Join(c.SetMemberRole(ctx, id, grid.RoleSubmitter), c.Renew(ctx, id, time.Hour), c.Revoke(ctx, id)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RotateKey(ctx, false); err != nil {
		t.Fatal(err)
	}
	type news struct{ kind, about string }
	var got []news
	enough := errors.New("enough")
	if err := c.RealmEvents(ctx, grid.EventQuery{Room: grid.RoomSwarm, Follow: true}, func(ev grid.RealmEvent) error {
		if ev.Kind == grid.KindJoined || ev.Kind == grid.KindRemoved { // the realm's own
			return nil
		}
		if got = append(got, news{ev.Kind, ev.Node}); ev.Kind == grid.KindRotated {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		t.Fatal(err)
	}
	who := id.String()
	want := []news{{grid.KindApproved, who}, {grid.KindRole, who}, {grid.KindRenewed, who}, {grid.KindRevoked, who}, {grid.KindRotated, ""}}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}
