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
//	POST /jobs                   Request in, {"id": JobID} out
//	GET  /jobs                   [JobStatus], newest first
//	GET  /jobs/ID                JobStatus
//	POST /jobs/ID/cancel         ends it
//	GET  /jobs/ID/watch          server-sent events: JobStatus whenever it changes, until it is final
//	GET  /jobs/ID/tasks          a TaskEnd a line, in order of completion; ?follow=1 stays until the job ends
//
// A file in the archive of POST /add is stored as executable when its mode has an executable bit. A file or folder
// may be named instead of sent, as an empty entry with the PAX records GRID.cid, its CID, and GRID.size, its length
// in bytes. All of it must be on the node then. An only entry "./" that names a folder is that folder.
//
// Errors are problem documents (RFC 9457) with the fields code and hint.
package api
