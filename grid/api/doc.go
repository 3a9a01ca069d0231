// Package api is the node's HTTP interface: its server, its Go client, and the forms that both speak.
// It adds no abilities: every route is one call on a [grid.Node]. The transport below (a unix socket,
// or a function call when the node is embedded in a command) is the caller's choice.
//
// # Routes, all under /v1
//
//	GET  /node                   NodeStatus
//	POST /shutdown               begins an orderly stop
//	GET  /peers                  [PeerInfo]
//	POST /add                    a tar archive in, a FileInfo a line out; the last line is the root
//	POST /have                   {"cids": [CID]} in, {"missing": [CID]} out: those of which not all is here
//	GET  /stat/CID/PATH          FileInfo
//	GET  /ls/CID/PATH            [FileInfo]
//	GET  /cat/CID/PATH           the bytes of a file; honours Range
//	GET  /tar/CID/PATH           a file or folder as a tar archive
//	POST /pins                   Pin in, PinStatus out; what is not here is fetched first
//	GET  /pins                   [PinStatus], the oldest first
//	GET  /pins/CID               PinStatus, from all nodes concerned; ?deep=1 has them look for every block
//	DELETE /pins/CID             takes the promise back
//	GET  /drain                  DrainStatus
//	POST /drain                  {"on": true} has the node hand on what it keeps; false ends that
//	GET  /car/CID/PATH           the DAG of a file or folder as a CARv1
//	POST /car                    a CARv1 or CARv2 in, Imported out; ?partial=1 accepts roots that are not whole
//	GET  /survey/CID/PATH        Extent of what is here; no more than one block is fetched, unless there is a path
//	GET  /diff?was=REF&is=REF    a Change a line; a REF is CID/PATH
//	GET  /store                  StoreUse: what the block store holds
//	POST /store/gc               deletes what nothing keeps: Collected; ?dry_run=1 only counts
//	POST /store/verify           reads all blocks: Verified; ?repair=1 fetches damaged ones again
//	POST /jobs                   Request in, {"id": JobID} out
//	GET  /jobs                   [JobStatus], newest first
//	GET  /jobs/ID                JobStatus
//	POST /jobs/ID/cancel         ends it
//	POST /jobs/ID/verify         runs its tasks again: a Rechecked a line; ?stage=N, &task=N, &sample=N of them only
//	GET  /jobs/ID/watch          server-sent events: JobStatus whenever it changes, until it is final
//	GET  /jobs/ID/why            Explanation
//	GET  /jobs/ID/events         a JobEvent a line, the oldest first; ?follow=1 stays until the job ends
//	GET  /jobs/ID/tasks          a TaskEnd a line, in order of completion; ?follow=1 stays until the job ends
//	GET  /kv?prefix=P            KVPage; with &after=KEY&limit=N&at=REVISION, &keys=1 without values, &stale=1
//	GET  /kv/entry?key=K         KV; &raw=1 gives the bytes alone, with the version as ETag; &stale=1
//	PUT  /kv/entry?key=K         the value in, {"revision": N} out; &if_version=N or &if_absent=1
//	DELETE /kv/entry?key=K       {"revision": N}; &if_version=N
//	POST /kv/txn                 TxnDoc in, {"revision": N} out
//	GET  /kv/watch?prefix=P      a KVChanges a line, until the reader goes; &after=REVISION
//	GET  /refs?prefix=P          [Ref]; &stale=1
//	GET  /refs/NAME              Ref
//	PUT  /refs/NAME              {"cid": CID, "if": RefCond} in, Ref out
//	DELETE /refs/NAME            removes it; {"if": RefCond} in, or nothing
//	GET  /resolve?name=REF       Named: what CID/PATH or NAME/PATH names
//	GET  /secrets                [Secret]; their values are not to be had
//	PUT  /secrets/NAME           the value in, Secret out
//	DELETE /secrets/NAME         {"revision": N}
//	GET  /tokens                 [Token]: those for the API over the network; their secrets are not to be had
//	POST /tokens                 TokenRequest in, with {"at": [URL]} of other nodes, CreatedToken out
//	DELETE /tokens/ID            removes it; a name will do if it is that of one token only. Token
//	GET  /extensions             [ExtensionStatus]: plugins that extend the realm's nodes
//	POST /extensions             {"ref": NAME.FUNC, "extension": Extension} in, Extension out
//	DELETE /extensions/ROLE      detaches it; ROLE is admission, scorer or notifier/NAME
//	GET  /ledger                 LedgerStatus
//	DELETE /ledger/members/ID    has a node belong to the realm no longer
//	GET  /backup                 what the realm knows, as a file; ?data=1 with data, &partial=1 without what is not to be had
//	POST /restore                such a file in, Restored out; ?merge=1 into a realm that is in use
//	GET  /swarm                  SwarmInfo, of a private swarm
//	POST /swarm/invite           InviteRequest in, Invite out
//	GET  /swarm/members          [SwarmMember]
//	DELETE /swarm/members/ID     revokes a membership; the node leaves if it is its own
//	POST /swarm/members/ID/approve  lets a node in that waits for it
//	PUT  /swarm/members/ID/role  {"role": ROLE} gives a member another role
//	POST /swarm/members/ID/renew {"lasts_ns": N} has a membership last from now on; 0: as long as before; less: without end
//	POST /swarm/rotate-key       {"recover": BOOL} replaces the authority's key, KeyRotation out
//	POST /swarm/leave            {"force": BOOL} has the node leave its realm and the swarm
//
// GET /metrics, which is not under /v1, is about the node and about what guests counted on it, in the text format of
// Prometheus.
//
// A file in the archive of POST /add is stored as executable when its mode has an executable bit. A file or folder
// may be named instead of sent, as an empty entry with the PAX records GRID.cid, its CID, and GRID.size, its length
// in bytes. All of it must be on the node then. An only entry "./" that names a folder is that folder.
//
// Reads and writes of the ledger are linearizable, unless a read says stale. A condition that does not hold is a
// conflict, status 409; a revision that is too far back to be known any more is out of date, status 410. Keys are
// the user's: they have nothing to do with where the ledger keeps jobs and refs.
//
// Errors are problem documents (RFC 9457) with the fields code and hint.
//
// # Over the network
//
// [Server.Handler] is for whoever may do everything: its transport is guarded by the permissions of a file.
// [Server.Remote] serves the same routes by TLS to those who send a header Authorization: Bearer TOKEN. A table says which role
// a token must have for each route; what is done is done for the token's user. Who has no good token is answered 401, who has
// too low a role 403. No route takes the name of a file of the node's machine, and none may: that would give files away.
//
// The text of a token, a [Key], is "grid-api-1-" and, in base64 for URLs without padding, a CBOR map of id, secret and at, the
// nodes that take it, each with addr, as HOST:PORT, and pin, the SHA-256 of the SubjectPublicKeyInfo in its certificate;
// then the first four bytes of the SHA-256 of "wasmgrid api token 1", a zero byte, and that map.
//
// # The gateway
//
// Beside /v1, GET and HEAD /ipfs/CID/PATH follow the IPFS Trustless Gateway specification:
//
//	?format=raw                  one block, or Accept: application/vnd.ipld.raw; it has no path; honours Range
//	?format=car                  a CARv1, or Accept: application/vnd.ipld.car; the blocks along the path come first
//	&dag-scope=all|entity|block  everything below; a file or a folder's list of entries; one block
//	&entity-bytes=FROM:TO        the blocks that hold these bytes of a file
//
// CARs are in depth-first order, without duplicates unless they are asked for (car-dups=y, or dups=y in Accept); a
// request for another kind is refused with 406, one for IPNS or for what cannot be verified with 400 or 406. An error that comes after the first byte breaks the connection.
// [Gateway] serves these routes alone, to readers who may not do what /v1 does.
package api
