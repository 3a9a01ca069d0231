// Package api is the node's HTTP interface: its server, its Go client, and the forms that both speak.
// It adds no abilities: every route is one call on a [grid.Node]. The transport below (a unix socket,
// or a function call when the node is embedded in a command) is the caller's choice.
//
// # Routes
//
// They are told in one table, in table.go: for each one its method and path, which role it needs, and what it takes and gives.
// What is served is made of that table, and so is the OpenAPI document at GET /v1/openapi.json, which docs/openapi.json
// holds, too. docs/api.md tells what all routes have in common.
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
// What grows while it is read is JSON lines, or server-sent events for who accepts them. Long lists have pages for who wants
// them. What makes something new is done once if the request has an Idempotency-Key.
//
// Errors are problem documents (RFC 9457) with the fields code, a word of those in docs/api.md, and hint.
//
// # Over the network
//
// [Server.Handler] is for whoever may do everything: its transport is guarded by the permissions of a file.
// [Server.Remote] serves the same routes by TLS to those who send a header Authorization: Bearer TOKEN. The table says which role
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
