package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Swarm is a node's part in its private swarm.
type Swarm interface {
	Info() grid.SwarmInfo
	Invite(context.Context, grid.InviteRequest) (grid.Invite, error)
	Members(context.Context) ([]grid.SwarmMember, error)
	Approve(context.Context, peer.ID) error
	// Revoke ends a membership; of the node itself, it leaves.
	Revoke(context.Context, peer.ID) error
	SetRole(context.Context, peer.ID, grid.MemberRole) error
	// Renew has a membership last from now on: 0 is as long as before, less than 0 without end.
	Renew(context.Context, peer.ID, time.Duration) error
	// RotateKey replaces the authority's key, with the recovery key if recover is set.
	RotateKey(ctx context.Context, recover bool) (grid.KeyRotation, error)
	// Leave ends this node's own membership, after it has left the realm; with force also when that cannot be.
	Leave(ctx context.Context, force bool) error
}

// renewal is the body of a request to renew a membership.
type renewal struct {
	Lasts time.Duration `json:"lasts_ns"` // from now on; 0: as long as before; less: without end
}

// rotation is the body of a request to replace the authority's key.
type rotation struct {
	Recover bool `json:"recover"` // by the swarm's first key, the one for recovery
}

// leaving is the body of a request to leave the swarm.
type leaving struct {
	Force bool `json:"force"` // leave even if the others cannot be told
}

// memberRole is the body of a request to change a role.
type memberRole struct {
	Role grid.MemberRole `json:"role"` // that it has from now on
}

func (s *Server) swarmRoutes(route func(pattern string, f func(http.ResponseWriter, *http.Request) error)) {
	timed := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) error {
			if s.Swarm == nil {
				return grid.Errorf(grid.Unsupported, "this node is in an open swarm: it has no members and no invitations").
					Hint("`grid swarm init` makes a private one, `grid up --join TOKEN` joins one")
			}
			ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
			defer cancel()
			return ledgerError(f(w, r.WithContext(ctx)), r)
		})
	}
	one := func(pattern string, f func(http.ResponseWriter, *http.Request, peer.ID) error) {
		timed(pattern, func(w http.ResponseWriter, r *http.Request) error {
			id, err := peer.Decode(r.PathValue("id"))
			if err != nil {
				return grid.Errorf(grid.Invalid, "%.80q is not the ID of a node", r.PathValue("id")).Hint("`grid member ls` lists the members")
			}
			return f(w, r, id)
		})
	}
	timed("GET /swarm", func(w http.ResponseWriter, r *http.Request) error { return reply(w, s.Swarm.Info(), nil) })
	timed("POST /swarm/invite", func(w http.ResponseWriter, r *http.Request) error {
		var in grid.InviteRequest
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		out, err := s.Swarm.Invite(r.Context(), in)
		return reply(w, out, err)
	})
	timed("GET /swarm/members", func(w http.ResponseWriter, r *http.Request) error {
		list, err := s.Swarm.Members(r.Context())
		return paged(w, r, list, func(m *grid.SwarmMember) string { return m.ID }, err)
	})
	one("DELETE /swarm/members/{id}", func(w http.ResponseWriter, r *http.Request, id peer.ID) error {
		return reply(w, struct{}{}, s.Swarm.Revoke(r.Context(), id))
	})
	one("POST /swarm/members/{id}/approve", func(w http.ResponseWriter, r *http.Request, id peer.ID) error {
		return reply(w, struct{}{}, s.Swarm.Approve(r.Context(), id))
	})
	one("PUT /swarm/members/{id}/role", func(w http.ResponseWriter, r *http.Request, id peer.ID) error {
		var in memberRole
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		return reply(w, struct{}{}, s.Swarm.SetRole(r.Context(), id, in.Role))
	})
	one("POST /swarm/members/{id}/renew", func(w http.ResponseWriter, r *http.Request, id peer.ID) error {
		var in renewal
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		return reply(w, struct{}{}, s.Swarm.Renew(r.Context(), id, in.Lasts))
	})
	timed("POST /swarm/rotate-key", func(w http.ResponseWriter, r *http.Request) error {
		var in rotation
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		out, err := s.Swarm.RotateKey(r.Context(), in.Recover)
		return reply(w, out, err)
	})
	timed("POST /swarm/leave", func(w http.ResponseWriter, r *http.Request) error {
		var in leaving
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		return reply(w, struct{}{}, s.Swarm.Leave(r.Context(), in.Force))
	})
}

// Swarm describes the private swarm of the node; the error is Unsupported when it is in an open one.
func (c *Client) Swarm(ctx context.Context) (grid.SwarmInfo, error) {
	return get[grid.SwarmInfo](ctx, c, "/swarm")
}

// Invite makes a token by which others join the swarm.
func (c *Client) Invite(ctx context.Context, req grid.InviteRequest) (out grid.Invite, err error) {
	return out, c.create(ctx, "/swarm/invite", req, &out)
}

// Members lists who is and was a member of the swarm, in order of IDs.
func (c *Client) Members(ctx context.Context) ([]grid.SwarmMember, error) {
	return get[[]grid.SwarmMember](ctx, c, "/swarm/members")
}

// Revoke ends a membership. A node leaves by revoking its own.
func (c *Client) Revoke(ctx context.Context, id peer.ID) error {
	resp, err := c.do(ctx, http.MethodDelete, "/swarm/members/"+id.String(), nil)
	if err != nil {
		return err
	}
	return decode(resp, nil)
}

// Approve lets a node in that waits for it.
func (c *Client) Approve(ctx context.Context, id peer.ID) error {
	return c.post(ctx, "/swarm/members/"+id.String()+"/approve", nil, nil)
}

// SetMemberRole gives a member another role.
func (c *Client) SetMemberRole(ctx context.Context, id peer.ID, role grid.MemberRole) error {
	data, err := json.Marshal(memberRole{role})
	if err != nil {
		return grid.Errorf(grid.Internal, "encode a request: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPut, "/swarm/members/"+id.String()+"/role", bytes.NewReader(data))
	if err != nil {
		return err
	}
	return decode(resp, nil)
}

// Renew has a membership last from now on: 0 is as long as before, less than 0 without end.
func (c *Client) Renew(ctx context.Context, id peer.ID, lasts time.Duration) error {
	return c.post(ctx, "/swarm/members/"+id.String()+"/renew", renewal{lasts}, nil)
}

// RotateKey replaces the key of the swarm's authority, with the recovery key if recover is set.
func (c *Client) RotateKey(ctx context.Context, recover bool) (out grid.KeyRotation, err error) {
	return out, c.create(ctx, "/swarm/rotate-key", rotation{recover}, &out)
}

// LeaveSwarm has the node leave its realm and its swarm; with force, the swarm also when the realm cannot be left in good order.
func (c *Client) LeaveSwarm(ctx context.Context, force bool) error {
	return c.post(ctx, "/swarm/leave", leaving{force}, nil)
}
