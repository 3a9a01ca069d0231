// Package ledger is grid.Ledger for a realm: the transactional map of store/ledger/machine, replicated by Raft
// over the nodes' own network.
package ledger

import _ "github.com/hashicorp/raft"
