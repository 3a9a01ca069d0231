package ledger

import "github.com/hashicorp/raft"

// Raft, as it is written, refuses to vote for who is no voter by the replica's own copy of the configuration. But that copy may be
// an older one: the leader and a new voter are enough to commit that this one votes, and when the leader dies before the others
// hear of it, the new voter alone has all of the log. It would wait for their votes, and they for that leader, for good. The
// protocol has servers vote without a look at their configuration (Ongaro, Consensus: Bridging Theory and Practice, 4.1): a
// candidate's log must be as new as theirs, and who was made no voter lacks what says so. Whether somebody may speak of votes at
// all is decided when a stream is opened.
//
// So candidates do not ask in their own names. They vote for an address, and the name serves for nothing but that look.

// RequestVote is told at raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	nameless := *req
	nameless.ID = nil // as from versions of raft that had none
	return t.NetworkTransport.RequestVote(id, to, &nameless, resp)
}

// RequestPreVote is told at raft.WithPreVote. Raft looks at the name here even if there is none, so it asks in that of each voter until one
// will do. It changes nothing at who is asked.
func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	for _, name := range t.voters() {
		named := *req
		named.ID = []byte(name)
		*resp = raft.RequestPreVoteResponse{}
		if err := t.NetworkTransport.RequestPreVote(id, to, &named, resp); err != nil || resp.Granted || resp.Term > req.Term {
			return err
		}
	}
	return nil
}
